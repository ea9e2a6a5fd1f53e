"""Linear recurrences with chunks of time side by side, for sounds that have too few rows to fill a card.

A row is a lane that goes through time sample by sample, so that one second at 44.1 kHz takes a millisecond however few
rows there are. Here a sound is cut into chunks of `LENGTH` samples and a rest, and a recurrence with n numbers in its
state is run several times:

1. n chunks of silence from the n unit states: their ends are the columns of the transition A of a chunk, of every
   channel;
2. all chunks from states s[c] that are zero, but for the given s[0]. Where they end is off the start of the next by
   r[c]; the corrections d[c + 1] = A d[c] + r[c] are added up over all chunks at once by doubling: after k rounds they
   hold what 2^k chunks before have contributed, and A has been squared k times;
3. the same from the corrected states. In exact arithmetic r would be 0. But the numbers of A are large and cancel: for
   a lowpass of 2.5 Hz at 44.1 kHz the output would now be wrong by 7e-8 of its peak, and after the second correction
   by 3e-11, as in one pass (against extended precision; a third gives nothing more);
4. all chunks from their own states; then the rest, which is never empty, for the end.

The gradient is a linear recurrence in reversed time, whose state is the gradient at the state, and goes the same way.
Nothing here knows the recurrence: ``run`` and ``back`` do, for instance those of `psysim.ops.cuda.sosfilt`. It must be
linear in its state and the same at all times; outputs may be any function of the state (`modulation_bank`).

The states have sums in another order, so that results differ from those of one pass by rounding. They must not differ
with the batch: whether and where a sound is cut depends on its length and on the lanes of one item only, every sum
belongs to one row, and chunks have one length, so that the beginning of a sound does not depend on what follows. See
`chunks_of` for the rule.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# Compiled functions are typed by Triton.

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tiles import launch

__all__ = ["backward", "chunks_of", "forward", "in_chunks"]

Run = Callable[..., tuple[Tensor, Tensor]]
Back = Callable[..., tuple[Tensor, ...]]

LENGTH = 512  # samples of a chunk: a pass takes about 14 us, less than the launches around it
FEW_LANES = 16
SHORTEST = 16_384
LONG = 1 << 20
CORRECTIONS = 2


def chunks_of(samples: int, lanes: int) -> int:
    """Return into how many chunks a sound is cut before its rest; 0 for one pass.

    One pass takes some 27 ns a sample for a biquad, twice that for a gammatone filter, as long as there are fewer rows
    than fill the card; chunks cost three times the arithmetic, copies in and out, and some 50 launches, 0.2 ms. They
    pay if

    - a sound has `SHORTEST` samples, for which one pass takes 0.4 ms;
    - the rows are fewer than a quarter of what fills a card. An H100 is full with one warp for each of its 4 x 132
      schedulers, 16,896 lanes. The batch must not decide, so take one of 260, more than experiments have with 64 tracks
      of three intervals: an item may have `FEW_LANES`, as filters before a filterbank do. A filterbank of 31 channels
      fills a quarter of the card with a batch of 136;
    - or whatever the lanes, a sound is `LONG`: five arrays of 4200 float32 rows would be larger than a card's 80 GiB.

    These are estimates: no card was at hand.

    Parameters
    ----------
    samples : int
        Length of the sound.
    lanes : int
        Lanes that one item of the batch has.
    """
    if samples < SHORTEST or (lanes > FEW_LANES and samples < LONG):
        return 0
    return (samples - 1) // LENGTH


def forward(run: Run, x: Tensor, state: Tensor, lanes: int) -> tuple[Tensor, Tensor]:
    """Run a recurrence, in chunks where that pays.

    Parameters
    ----------
    run : callable
        ``run(x, state)`` gives the output and the state at the end, in one pass.
    x : Tensor
        Signals, (B, ..., T).
    state : Tensor
        State at the start, (B, F, n), float64.
    lanes : int
        Lanes that one item of the batch has.

    Returns
    -------
    tuple of Tensor
        What ``run`` returns: output (B, ..., T) and state at the end.
    """
    chunks = chunks_of(x.shape[-1], lanes)
    if not chunks:
        return run(x, state)
    pieces, rest = _cut(x, chunks)
    starts = _starts(run, pieces, state, chunks)
    y, _ = run(pieces, _rows(starts[:, :-1]))
    y_rest, end = run(rest, starts[:, -1].contiguous())
    return _join(y, y_rest), end


def backward(
    run: Run, back: Back, grad: Tensor, grad_end: Tensor, x: Tensor, state: Tensor, learn: bool, lanes: int
) -> tuple[Tensor, ...]:
    """Compute gradients of a recurrence, in chunks where that pays.

    Parameters
    ----------
    run : callable
        As for `forward`.
    back : callable
        ``back(grad, grad_end, x, state, learn)`` gives the gradients with respect to ``x``, to any number of
        coefficients, summed over rows, and to ``state``, in one pass. Without ``learn`` those of coefficients may be
        anything of their shape.
    grad, grad_end : Tensor
        Gradients at the output (B, ..., T) and at the state at the end.
    x, state : Tensor
        As for `forward`.
    learn : bool
        Whether gradients depend on ``x`` and ``state``: those with respect to coefficients do, those of a linear filter
        with respect to its input do not.
    lanes : int
        Lanes that one item of the batch has.

    Returns
    -------
    tuple of Tensor
        What ``back`` returns.
    """
    chunks = chunks_of(x.shape[-1], lanes)
    if not chunks:
        return back(grad, grad_end, x, state, learn)
    (pieces, rest), (slopes, slopes_rest) = _cut(x, chunks), _cut(grad, chunks)
    starts = _starts(run, pieces, state, chunks) if learn else state[:, None].expand(-1, chunks + 1, -1, -1)
    begins = _rows(starts[:, :-1])
    grad_rest, *more, at_rest = back(slopes_rest, grad_end, rest, starts[:, -1].contiguous(), learn)

    def starts_of(at_ends: Tensor) -> Tensor:  # last chunk first
        found = back(slopes, _rows(at_ends.flip(1)), pieces, begins, False)[-1]
        return found.reshape(at_ends.shape).flip(1)

    units = _units(state)
    columns = back(_silence(slopes, units), units, _silence(pieces, units), torch.zeros_like(units), False)[-1]
    at_ends = _states(columns, starts_of, at_rest, chunks).flip(1)
    grad_x, *grads, at_starts = back(slopes, _rows(at_ends[:, 1:]), pieces, begins, learn)
    sums = (one + other for one, other in zip(grads, more, strict=True))
    return _join(grad_x, grad_rest), *sums, at_starts[::chunks].contiguous()


def in_chunks(run: Run, back: Back) -> tuple[Run, Back]:
    """Return `forward` and `backward` of an operator with one array of coefficients and a lane for every channel.

    ``run(x, coef, state)`` and ``back(grad, grad_end, x, coef, state, learn)`` are those of one pass.
    """

    def whole(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return forward(lambda u, s: run(u, coef, s), x, state, x.shape[1])

    def whole_back(
        grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
    ) -> tuple[Tensor, ...]:
        def engine(g: Tensor, at_end: Tensor, u: Tensor, s: Tensor, learn: bool) -> tuple[Tensor, ...]:
            return back(g, at_end, u, coef, s, learn)

        return backward(lambda u, s: run(u, coef, s), engine, grad, grad_end, x, state, learn, x.shape[1])

    return whole, whole_back


def _cut(x: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """Return the chunks as rows, (B C, ..., LENGTH), and the rest, (B, ..., 1 to LENGTH)."""
    cut = chunks * LENGTH
    pieces = x[..., :cut].reshape(*x.shape[:-1], chunks, LENGTH)
    return _rows(pieces.movedim(-2, 1)), x[..., cut:].contiguous()


def _rows(values: Tensor) -> Tensor:
    """Make rows of (B, C, ...): (B C, ...)."""
    return values.reshape(-1, *values.shape[2:]).contiguous()


def _join(pieces: Tensor, rest: Tensor) -> Tensor:
    """Put chunks and rest together again: the inverse of `_cut`."""
    *outer, size = rest.shape
    chunks = len(pieces) // len(rest)
    cut = chunks * LENGTH
    out = rest.new_empty((*outer, cut + size))
    out[..., :cut].view(*outer, chunks, LENGTH).copy_(
        pieces.reshape(len(rest), chunks, *pieces.shape[1:]).movedim(1, -2)
    )
    out[..., cut:] = rest
    return out


def _units(state: Tensor) -> Tensor:
    """Return the n unit states, of all channels, as rows: (n, F, n)."""
    _, channels, size = state.shape
    return torch.eye(size, dtype=state.dtype, device=state.device)[:, None].repeat(1, channels, 1)


def _silence(pieces: Tensor, units: Tensor) -> Tensor:
    return pieces.new_zeros((len(units), *pieces.shape[1:]))


def _starts(run: Run, pieces: Tensor, state: Tensor, chunks: int) -> Tensor:
    """Return the states at the starts of all chunks and of the rest, (B, C + 1, F, n)."""
    units = _units(state)
    _, columns = run(_silence(pieces, units), units)
    return _states(columns, lambda starts: run(pieces, _rows(starts))[1].reshape(starts.shape), state, chunks)


def _states(columns: Tensor, ends_of: Callable[[Tensor], Tensor], first: Tensor, chunks: int) -> Tensor:
    """Return the states that follow each other, (B, C + 1, F, n), from ``first`` on, (B, F, n).

    ``columns`` are the ends for the unit states, (n, F, n); ``ends_of`` gives the ends for starts (B, C, F, n).
    """
    powers = [columns.permute(1, 2, 0).contiguous()]
    while 2 ** len(powers) < chunks:
        powers.append(powers[-1] @ powers[-1])
    states = torch.cat([first[:, None], first.new_zeros((len(first), chunks, *first.shape[1:]))], 1)
    for _ in range(CORRECTIONS):
        states[:, 1:] += _add_up(powers, ends_of(states[:, :-1]) - states[:, 1:])
    return states


@triton.jit
def _add_earlier(power, states, out, shift, steps, channels, rows, N: tl.constexpr, BLOCK: tl.constexpr):
    """Add to every state ``power`` times the state ``shift`` steps before; a lane is one number of a state."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    item = lane // N
    later = mask & (item // channels % steps >= shift)
    matrix = power + (item % channels * N + lane % N) * N
    source = states + (item - tl.cast(channels, tl.int64) * shift) * N
    total = tl.load(states + lane, mask=mask, other=0.0)
    for j in range(N):
        factor = tl.load(matrix + j, mask=later, other=0.0)
        total += factor * tl.load(source + j, mask=later, other=0.0)
    tl.store(out + lane, total, mask=mask)


def _add_up(powers: Sequence[Tensor], off: Tensor) -> Tensor:
    """Return d[c + 1] = A d[c] + r[c] with d[0] = 0, for r (B, C, F, n); ``powers``: A, A^2, A^4 ..., (F, n, n)."""
    steps, channels, size = off.shape[1:]
    for k, power in enumerate(powers):
        total = torch.empty_like(off)
        launch(_add_earlier, off.numel(), power, off, total, 2**k, steps, channels, N=size)
        off = total
    return off
