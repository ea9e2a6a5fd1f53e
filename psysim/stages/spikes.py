"""Spikes of groups of auditory-nerve fibres, and the part of the nerve's activity that is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.rng import Keys, Purpose, normal, uniform, words
from psysim.stages._binomial import MAX_TRIALS, binomial_cpu, binomial_torch
from psysim.stages.base import AuditoryModule

__all__ = ["SPIKE_MODES", "SpikeGenerator", "crop_activity"]

SPIKE_MODES = ("approx", "exact", "additive")


class SpikeGenerator(AuditoryModule):
    """Spike counts of groups of independent fibres: rates (B, G, F, T) in spikes/s to counts of the same shape.

    In every sample each of the n fibres of a group fires with probability p = rate/fs, without refractoriness.

    Parameters
    ----------
    fs : float
        Sampling rate of the rates, Hz.
    n_fibers : sequence of int
        Fibres in each group (G,), or in each group and channel (G, F); 0 to 1000. 0: the group is lost.
    mode : str
        ``"approx"``: round(max(0, N(np, np(1 - p)))), as the published models were trained with: almost silent below
        3 spikes/s, up to 26 % too many near np = 0.2, up to 17 % too little variance. ``"exact"``: binomial numbers.
        ``"additive"``: max(0, np + N(0, 1)), of mean 0.4 in silence.
    learnable : bool
        No effect: there is nothing to learn.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If ``n_fibers`` are not whole numbers in range.

    Notes
    -----
    The random numbers of a row are those of its key (purpose ``SPIKES``): a row's spikes do not depend on the batch.
    Probabilities are held between 0 and 1. The gradient with respect to the rate is that of the unrounded number
    (approx, additive), or of the mean (exact).

    References
    ----------
    Saddler & McDermott (2024), Nat. Commun. 15, 10590.

    Examples
    --------
    >>> import torch
    >>> from psysim.rng import Keys
    >>> rates = torch.full((2, 3, 50, 100), 100.0)
    >>> counts = SpikeGenerator(10e3, [384, 160, 96], mode="exact")(rates, Keys.make(seed=1, trial=torch.arange(2)))
    >>> [round(float(c), 1) for c in counts.mean((0, 2, 3))]  # n p = 3.84, 1.6, 0.96
    [3.8, 1.6, 1.0]
    """

    n_fibers: Tensor

    def __init__(
        self,
        fs: float,
        n_fibers: Sequence[int] | Sequence[Sequence[int]] | Tensor = (384, 160, 96),
        mode: str = "approx",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("mode", mode, SPIKE_MODES)
        self.mode = mode
        counts = torch.as_tensor(n_fibers, dtype=torch.float64).detach()
        counts = counts.reshape(-1, 1) if counts.ndim < 2 else counts
        whole = (counts == counts.round()) & (counts >= 0) & (counts <= MAX_TRIALS)
        if counts.ndim != 2 or counts.numel() == 0 or not bool(whole.all()):
            raise SpecError(
                f"n_fibers must hold whole numbers from 0 to {MAX_TRIALS} for each group (G,), or for each group and "
                f"channel (G, F)."
            )
        self.constant("n_fibers", counts, learnable=False)

    def forward(self, rates: Tensor, keys: Keys) -> Tensor:
        """Return counts for ``rates`` (B, G, F, T), with one key per row (B,); or for (G, F, T), with one key."""
        x = self.enter(rates, (3, 4), "(G, F, T) or (B, G, F, T)", "rates")
        batch = x.unsqueeze(0) if x.ndim == 3 else x
        names = keys.reshape(1) if x.ndim == 3 and keys.shape == () else keys
        if names.shape != batch.shape[:1]:
            raise SpecError(f"keys have shape {tuple(keys.shape)}, but there must be one per row: ({len(batch)},).")
        groups, channels = self.n_fibers.shape
        if groups != batch.shape[1] or channels not in (1, batch.shape[2]):
            raise SpecError(
                f"rates have {batch.shape[1]} groups and {batch.shape[2]} channels, but n_fibers has shape "
                f"({groups}, {channels})."
            )
        counts = torch.stack([self._row(row, names[i : i + 1]) for i, row in enumerate(batch)])
        return counts.squeeze(0) if x.ndim == 3 else counts

    def _row(self, rates: Tensor, key: Keys) -> Tensor:
        """Return the counts of one row (G, F, T)."""
        p = (rates / self.fs).clamp(0.0, 1.0)
        mean = p * self.n_fibers.unsqueeze(-1).to(p.dtype)
        if self.mode == "exact":
            counts = self._exact(p.detach(), key)
            return counts + (mean - mean.detach()) if mean.requires_grad else counts
        noise = normal(key, Purpose.SPIKES, p.numel(), p.dtype).reshape(p.shape)
        if self.mode == "additive":
            return (mean + noise).clamp(min=0.0)
        variance = mean * (1.0 - p)
        spread = torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)
        drawn = (mean + spread * noise).clamp(min=0.0)
        rounded = drawn.detach().round()
        return rounded + (drawn - drawn.detach()) if drawn.requires_grad else rounded

    def _exact(self, p: Tensor, key: Keys) -> Tensor:
        """Return binomial counts for probabilities (G, F, T): two words of the key's stream per sample."""
        groups, channels, samples = p.shape
        fibers = self.n_fibers.expand(groups, channels).to(torch.int64).tolist()
        draws = words(key, Purpose.SPIKES, 2 * p.numel()).reshape(groups, channels, 2 * samples)
        wide = p.double()
        out = torch.empty_like(wide)
        for g, numbers in enumerate(fibers):
            # Channels with equally many fibres, which are all of them unless some are lost, run together
            first = 0
            while first < channels:
                last = first + 1
                while last < channels and numbers[last] == numbers[first]:
                    last += 1
                part = (draws[g, first:last].reshape(-1), wide[g, first:last].reshape(-1))
                if p.device.type == "cpu":
                    flat = out[g, first:last].reshape(-1)
                    binomial_cpu(part[0].numpy(), part[1].numpy(), numbers[first], flat.numpy())
                else:
                    out[g, first:last] = binomial_torch(*part, numbers[first]).reshape(last - first, samples)
                first = last
        return out.to(p.dtype)


def crop_activity(
    activity: Tensor,
    buffer: tuple[int, int],
    size: tuple[int, int],
    keys: Keys | None = None,
) -> Tensor:
    """Return a window of nerve activity: first the buffer off both ends, then a window at a random place.

    Parameters
    ----------
    activity : Tensor (B, C, F, T)
        Rates or counts.
    buffer : tuple of int
        Channels and samples cut off at both ends.
    size : tuple of int
        Channels and samples of the window, in what is left.
    keys : Keys (B,), optional
        Names of the random places (purpose ``CROP``), one per row; not needed where the window has one place only.

    Returns
    -------
    Tensor (B, C, *size)
        The windows; the same place for all C (groups and ears) of a row.

    Raises
    ------
    SpecError
        If the window is larger than what is left, or keys are needed and not there.

    Examples
    --------
    >>> import torch
    >>> crop_activity(torch.zeros(1, 6, 50, 12000), buffer=(0, 1000), size=(50, 10000)).shape
    torch.Size([1, 6, 50, 10000])
    """
    (cut_f, cut_t), (n_f, n_t) = buffer, size
    room_f, room_t = activity.shape[-2] - 2 * cut_f - n_f, activity.shape[-1] - 2 * cut_t - n_t
    if min(room_f, room_t) < 0 or min(cut_f, cut_t) < 0 or min(n_f, n_t) < 1:
        raise SpecError(
            f"A window of {size} (channels, samples) does not fit into activity of {tuple(activity.shape[-2:])} "
            f"without {buffer} at both ends."
        )
    if room_f == room_t == 0:
        return activity[..., cut_f : cut_f + n_f, cut_t : cut_t + n_t]
    if keys is None or keys.shape != activity.shape[:1]:
        raise SpecError(f"The window has more than one place: give one key per row ({len(activity)},).")
    windows = []
    for row, (first, second) in zip(activity, uniform(keys, Purpose.CROP, 2).tolist(), strict=True):
        f, t = cut_f + int(first * (room_f + 1)), cut_t + int(second * (room_t + 1))
        windows.append(row[..., f : f + n_f, t : t + n_t])
    return torch.stack(windows)
