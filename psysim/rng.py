"""Keyed random numbers: every draw is a pure function of what it is for.

A draw is named by the seed of the experiment, the condition, observer, track, trial and interval (`Keys`), by its
`Purpose`, and by its position in the stream. There is no generator state. So results do not depend on the batch, the
order of the work, the device, the number of workers or an interruption.

The scheme is the counter-based generator Philox4x32-10 with the names themselves as counter: no hashing, so no two
names can share a stream.

=====  =============================================  =======================================
part   content                                        range (checked)
=====  =============================================  =======================================
key    seed, low word and high word                   seed < 2^64
c0     block = sample // 4 (four words per block)     fewer than 2^34 samples per stream
c1     trial << 8 | interval                          trial < 2^24, interval < 2^8
c2     track                                          track < 2^32
c3     purpose << 24 | observer << 16 | condition     purpose, observer < 2^8; condition < 2^16
=====  =============================================  =======================================

Trials from `TRAINING_TRIAL_BASE` = 2^23 on belong to training presentations (templates, calibration), so that these
never meet the trials of a run.

Word i of a stream is word i % 4 of block i // 4. From words w:

* `uniform`: (w + 1/2)/2^32, one 32-bit word each; never 0 or 1.
* `normal`: Box-Muller in float64 from two 32-bit uniforms, sqrt(-2 ln u) (cos, sin)(2 pi v), one word per normal;
  no value lies beyond 6.76 (probability 1.4e-11). Logarithm and sine are sums and products only, in a fixed order,
  so that CPU and CUDA give the same bits.
* `integers`: a 64-bit word (two words, the first is the upper) multiplied by ``high`` and shifted down by 64 bits;
  no value is favoured by more than high/2^64.

A shorter draw is the beginning of a longer one.

References
----------
Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3. Proc. SC11 (Philox).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from psysim._rng_torch import box_muller, philox, philox4x32
from psysim.errors import SpecError, check_option, check_range

__all__ = [
    "TRAINING_TRIAL_BASE",
    "Keys",
    "Purpose",
    "integers",
    "normal",
    "permutation",
    "philox4x32",
    "uniform",
    "words",
]

TRAINING_TRIAL_BASE = 2**23
"""First trial number of training presentations (templates, calibration)."""

_MASK = 0xFFFFFFFF
_LIMITS = {"condition": 2**16, "observer": 2**8, "track": 2**32, "trial": 2**24, "interval": 2**8}
_MAX_DRAWS = 2**34
# Below this many draws a thread pool costs more than it saves (creating it: 0.1 ms; 1e5 normals: 0.13 ms).
_DRAWS_PER_THREAD = 200_000
_BLOCKS_PER_PASS = 2**22  # torch form: 32 MiB per int64 temporary


class Purpose(IntEnum):
    """What a random number is for; the values are part of the scheme and never change."""

    TARGET = 0  # which interval holds the target
    CARRIER = 1  # waveform of a noise carrier or noise stimulus
    MASKER = 2  # waveform of a masker
    PHASE = 3  # starting phases
    ROVE = 4  # level or frequency rove
    INTERNAL_NOISE = 5  # noise of the observer
    RESPONSE = 6  # drawing a response from a probability
    TIE = 7  # breaking ties between intervals
    SIGNAL = 8  # waveform of a random signal to be detected
    MODULATOR = 9  # waveform of a random modulator
    TOKEN = 10  # choice of a recording or of an excerpt
    ORDER = 11  # order of presentations, conditions or tracks
    PROCEDURE = 12  # draws of a tracking rule
    LAPSE = 13  # lapses of attention
    CALIBRATION = 14  # draws used only to calibrate an observer
    ANALYSIS = 15  # bootstrap and other resampling of results
    FRINGE = 16  # waveform of a noise around or behind the stimulus
    SECOND_MASKER = 17  # waveform of a second masker (the upper band of notched noise)
    DROPOUT = 20  # units of a network left out while training
    INITIAL_WEIGHTS = 21  # weights of a network before training
    CROP = 22  # place of the excerpt of nerve activity that a network gets
    SPIKES = 23  # spikes of auditory-nerve fibres
    TRAINING = 24  # parameters of the sounds that a network is trained with


def _check_whole(name: str, value: Tensor, high: int) -> None:
    """Refuse values outside 0 .. high - 1 (one transfer from the device for both bounds)."""
    if value.numel() == 0:
        return
    low, top = torch.stack([*torch.aminmax(value)]).tolist()
    bad = low if low < 0 else top
    if not 0 <= bad < high:
        raise SpecError(f"{name} = {bad} is out of range: it must be at least 0 and less than {high}.")


def _whole(name: str, value: int | Sequence[int] | Tensor, device: torch.device) -> Tensor:
    """Return ``value`` as an int64 tensor on ``device``; refuse numbers with a fraction and booleans."""
    tensor = torch.as_tensor(value, device=device)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise SpecError(f"{name} must hold whole numbers, but its type is {tensor.dtype}.")
    tensor = tensor.to(torch.int64)
    _check_whole(name, tensor, _LIMITS[name])
    return tensor


@dataclass(frozen=True, eq=False)
class Keys:
    """Names of random streams, one per batch element. Build with `Keys.make`.

    Attributes
    ----------
    seed : int
        Seed of the experiment, 0 .. 2^64 - 1.
    condition, observer, track, trial, interval : Tensor
        int64, all of the same batch shape S.

    Examples
    --------
    >>> keys = Keys.make(seed=1, track=torch.arange(4))
    >>> keys = keys.unsqueeze(-1).replace(interval=torch.arange(3))
    >>> keys.shape
    torch.Size([4, 3])
    >>> normal(keys, Purpose.CARRIER, 100).shape
    torch.Size([4, 3, 100])
    """

    seed: int
    condition: Tensor
    observer: Tensor
    track: Tensor
    trial: Tensor
    interval: Tensor

    @classmethod
    def make(
        cls,
        seed: int,
        condition: int | Sequence[int] | Tensor = 0,
        observer: int | Sequence[int] | Tensor = 0,
        track: int | Sequence[int] | Tensor = 0,
        trial: int | Sequence[int] | Tensor = 0,
        interval: int | Sequence[int] | Tensor = 0,
        device: torch.device | str = "cpu",
    ) -> Keys:
        """Return keys whose fields are broadcast to one batch shape.

        Parameters
        ----------
        seed : int
            0 .. 2^64 - 1.
        condition, observer, track, trial, interval : int, sequence of int or Tensor
            Whole numbers from 0, below 2^16, 2^8, 2^32, 2^24 and 2^8.
        device : device
            Where the keys live; draws are made there.

        Returns
        -------
        Keys
            All fields of the common shape S (scalars give shape ()).

        Raises
        ------
        SpecError
            If a field is out of range, not whole, or the shapes do not broadcast.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise SpecError(f"seed = {seed!r} is out of range: it must be a whole number, 0 to 2**64 - 1.")
        place = torch.device(device)
        given = {"condition": condition, "observer": observer, "track": track, "trial": trial, "interval": interval}
        tensors = {name: _whole(name, value, place) for name, value in given.items()}
        return cls(seed, **_broadcast(tensors))

    @property
    def shape(self) -> torch.Size:
        """Batch shape S."""
        return self.condition.shape

    @property
    def device(self) -> torch.device:
        """Device of the keys and of their draws."""
        return self.condition.device

    def replace(self, **values: int | Sequence[int] | Tensor) -> Keys:
        """Return keys with some fields replaced, broadcast again; ``seed`` may be replaced too.

        Raises
        ------
        SpecError
            If a name is not a field, a value is out of range or the shapes do not broadcast.
        """
        for name in values:
            check_option("field", name, [f.name for f in fields(self)])
        seed = values.pop("seed", self.seed)
        current = {name: getattr(self, name) for name in _LIMITS}
        if seed is not self.seed:
            return Keys.make(seed, **{**current, **values}, device=self.device)  # type: ignore[arg-type]
        new = {name: _whole(name, value, self.device) for name, value in values.items()}
        return Keys(self.seed, **_broadcast({**current, **new}))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Keys:
        return Keys(self.seed, **{name: function(getattr(self, name)) for name in _LIMITS})

    def unsqueeze(self, dim: int) -> Keys:
        """Return keys with a batch dimension of size 1 added at ``dim``."""
        return self._map(lambda t: t.unsqueeze(dim))

    def reshape(self, *shape: int) -> Keys:
        """Return keys with the batch reshaped."""
        return self._map(lambda t: t.reshape(*shape))

    def flatten(self) -> Keys:
        """Return keys with a batch of one dimension."""
        return self._map(lambda t: t.reshape(-1))

    def expand(self, *shape: int) -> Keys:
        """Return keys with batch dimensions of size 1 repeated."""
        return self._map(lambda t: t.expand(*shape))

    def to(self, device: torch.device | str) -> Keys:
        """Return the same keys on another device."""
        return self._map(lambda t: t.to(device))

    def __getitem__(self, index: Any) -> Keys:
        """Return the keys at ``index`` of the batch (anything a tensor can be indexed with)."""
        return self._map(lambda t: t[index])


def _broadcast(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        shape = torch.broadcast_shapes(*(t.shape for t in tensors.values()))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise SpecError(f"The fields of the keys do not broadcast to one batch shape: {shapes}.") from error
    return {name: t.expand(shape) for name, t in tensors.items()}


def _counters(keys: Keys, purpose: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the upper counter words c1, c2, c3, each flat (R,)."""
    c1 = keys.trial << 8 | keys.interval
    c3 = int(purpose) << 24 | keys.observer << 16 | keys.condition
    return c1.reshape(-1), keys.track.reshape(-1), c3.reshape(-1)


def _words_torch(keys: Keys, purpose: int, n: int) -> Tensor:
    """Return words by torch operations, for any device: (R, n)."""
    blocks = torch.arange((n + 3) // 4, device=keys.device)
    c0, c1, c2, c3 = (
        c.expand(keys.shape[0], len(blocks)) for c in (blocks, *(c[:, None] for c in _counters(keys, purpose)))
    )
    return torch.stack(philox(c0, c1, c2, c3, keys.seed & _MASK, keys.seed >> 32), dim=-1).flatten(1)[:, :n]


def _normal_torch(keys: Keys, purpose: int, n: int, dtype: torch.dtype) -> Tensor:
    """Return normals by torch operations, for any device: (R, n)."""
    return box_muller(_words_torch(keys, purpose, 4 * ((n + 3) // 4)))[:, :n].to(dtype)


def _draw(keys: Keys, purpose: int, n: int, dtype: torch.dtype, *, normals: bool) -> Tensor:
    """Fill (*S, n) row by row: numba on the CPU, torch elsewhere."""
    check_range("purpose", purpose, 0, 255)
    check_range("n", n, 0, _MAX_DRAWS)
    flat = keys.flatten()
    rows = flat.shape[0]
    out = torch.empty(rows, n, dtype=dtype, device=keys.device)
    if out.numel() == 0:
        return out.reshape(*keys.shape, n)
    if keys.device.type == "cpu":
        _draw_cpu(flat, purpose, out, normals=normals)
    else:
        step = max(1, _BLOCKS_PER_PASS // ((n + 3) // 4))
        for first in range(0, rows, step):
            part = flat[first : first + step]
            out[first : first + step] = (
                _normal_torch(part, purpose, n, dtype) if normals else _words_torch(part, purpose, n)
            )
    return out.reshape(*keys.shape, n)


def _draw_cpu(keys: Keys, purpose: int, out: Tensor, *, normals: bool) -> None:
    """Share the rows among ``torch.get_num_threads()`` threads; the kernels hold no lock and no state."""
    from psysim._rng_cpu import normal_rows, word_rows

    kernel = normal_rows if normals else word_rows
    c1, c2, c3 = (c.numpy().astype(np.uint32) for c in _counters(keys, purpose))
    k0, k1 = np.uint32(keys.seed & _MASK), np.uint32(keys.seed >> 32)
    array = out.numpy()
    rows = out.shape[0]
    threads = min(torch.get_num_threads(), rows, 1 + out.numel() // _DRAWS_PER_THREAD)
    if threads == 1:
        kernel(k0, k1, c1, c2, c3, array)
        return
    cuts = [rows * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = [slice(a, b) for a, b in pairwise(cuts)]
        list(pool.map(lambda p: kernel(k0, k1, c1[p], c2[p], c3[p], array[p]), parts))


def words(keys: Keys, purpose: int, n: int) -> Tensor:
    """Return the first ``n`` random words of each stream.

    Parameters
    ----------
    keys : Keys
        Batch shape S.
    purpose : Purpose
        What the words are for, 0 .. 255.
    n : int
        Number of words per stream, below 2^34.

    Returns
    -------
    Tensor
        int64 (*S, n), uniform in 0 .. 2^32 - 1; the same bits on every device.

    Raises
    ------
    SpecError
        If ``purpose`` or ``n`` is out of range.

    Examples
    --------
    >>> words(Keys.make(seed=0), Purpose.TARGET, 2).tolist()
    [1713891541, 3781805453]
    """
    return _draw(keys, purpose, n, torch.int64, normals=False)


def uniform(keys: Keys, purpose: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return ``n`` numbers per stream, uniform in the open interval (0, 1), from 32 bits each.

    Parameters
    ----------
    keys : Keys
        Batch shape S.
    purpose : Purpose
        What the numbers are for, 0 .. 255.
    n : int
        Numbers per stream.
    dtype : torch.dtype
        float64, or float32: the same numbers rounded (at most 1 - 2^-24).

    Returns
    -------
    Tensor
        (*S, n), (w + 1/2)/2^32; the same bits on every device.

    Raises
    ------
    SpecError
        If ``purpose`` or ``n`` is out of range.

    Examples
    --------
    >>> bool((uniform(Keys.make(seed=3), Purpose.PHASE, 1000) < 1).all())
    True
    """
    u = (words(keys, purpose, n).double() + 0.5) * 2.0**-32
    return u if dtype == torch.float64 else u.clamp(max=1.0 - 2.0**-24).to(dtype)


def normal(keys: Keys, purpose: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return ``n`` standard normal numbers per stream (Box-Muller in float64, one 32-bit word each).

    Parameters
    ----------
    keys : Keys
        Batch shape S.
    purpose : Purpose
        What the numbers are for, 0 .. 255.
    n : int
        Numbers per stream.
    dtype : torch.dtype
        float64, or float32: the same numbers rounded.

    Returns
    -------
    Tensor
        (*S, n); the same bits on every device, and whatever else is in the batch.

    Raises
    ------
    SpecError
        If ``purpose`` or ``n`` is out of range.

    Examples
    --------
    >>> normal(Keys.make(seed=3), Purpose.INTERNAL_NOISE, 2).shape
    torch.Size([2])
    """
    return _draw(keys, purpose, n, dtype, normals=True)


def integers(keys: Keys, purpose: int, n: int, high: int) -> Tensor:
    """Return ``n`` whole numbers per stream, uniform in 0 .. high - 1, from 64 bits each.

    Parameters
    ----------
    keys : Keys
        Batch shape S.
    purpose : Purpose
        What the numbers are for, 0 .. 255.
    n : int
        Numbers per stream.
    high : int
        Number of possible values, 1 .. 2^16.

    Returns
    -------
    Tensor
        int64 (*S, n); the same on every device.

    Raises
    ------
    SpecError
        If ``purpose``, ``n`` or ``high`` is out of range.

    Examples
    --------
    >>> integers(Keys.make(seed=3, trial=torch.arange(5)), Purpose.TARGET, 1, high=3).shape
    torch.Size([5, 1])
    """
    check_range("high", high, 1, 2**16)
    upper, lower = words(keys, purpose, 2 * n).reshape(*keys.shape, n, 2).unbind(-1)
    return (upper * high + (lower * high >> 32)) >> 32


def permutation(keys: Keys, purpose: int, n: int) -> Tensor:
    """Return one random order of 0 .. n - 1 per stream.

    Parameters
    ----------
    keys : Keys
        Batch shape S.
    purpose : Purpose
        What the order is for, 0 .. 255.
    n : int
        Number of things to order, at most 2^16 (then two of them tie, and keep their order, with probability 0.4).

    Returns
    -------
    Tensor
        int64 (*S, n); the same on every device.

    Raises
    ------
    SpecError
        If ``purpose`` or ``n`` is out of range.

    Examples
    --------
    >>> permutation(Keys.make(seed=3), Purpose.ORDER, 5).sort().values.tolist()
    [0, 1, 2, 3, 4]
    """
    check_range("n", n, 0, 2**16)
    return words(keys, purpose, n).sort(dim=-1, stable=True).indices
