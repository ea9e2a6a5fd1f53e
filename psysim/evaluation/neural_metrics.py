"""How well predicted responses agree with recorded ones: losses, signal power, (normalised) correlation.

Predictions are (B, N, T) or (B, N, 1, T), responses (B, N, R, T): B stimuli, N neurons, R repeats, T frames. NaN marks
what was not recorded, by whole repeats, whole frames, or singly. All measures have one value per neuron, (N,).

Two of them compare a variance with the signal power, which is a variance *within* stimuli. Other software (deepSTRF
0.1.0) takes the covariance over all stimuli together; where mean rates differ between stimuli the true signal then
scores above 1. Here both are taken within stimuli; ``pooling="published"`` gives the other numbers for comparison.

References
----------
Sahani, M. and Linden, J. F. (2003). How linear are auditory cortical responses? NIPS 15, 125-132.
Hsu, A., Borst, A. and Theunissen, F. E. (2004). Quantifying variability in neural responses and its application for
the validation of model predictions. Network 15, 91-109.
Schoppe, O., Harper, N. S., Willmore, B. D. B., King, A. J. and Schnupp, J. W. H. (2016). Measuring the performance of
neural models. Front. Comput. Neurosci. 10, 10.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.rng import Keys, Purpose, uniform

__all__ = [
    "SignalPower",
    "correlation",
    "explained_signal_power",
    "fraction_explained",
    "mean_squared_error",
    "normalised_correlation",
    "normalised_correlation_hsu",
    "poisson_loss",
    "psth",
    "signal_power",
]

Pooling = Literal["within", "published"]
POOLINGS = ("within", "published")
MAX_SPLITS = 126


class SignalPower(NamedTuple):
    """Variance of responses over time: signal, which repeats share, and noise; each (N,), in squared response units."""

    signal: Tensor
    noise: Tensor


def psth(responses: Tensor) -> Tensor:
    """Return the mean over the repeats that were recorded, (B, N, T); NaN where there are none.

    Parameters
    ----------
    responses : Tensor (B, N, R, T)

    Raises
    ------
    SpecError
        If the responses have another number of axes.

    Examples
    --------
    >>> import torch
    >>> psth(torch.tensor([[[[1.0, 2.0], [3.0, torch.nan]]]])).tolist()
    [[[2.0, 2.0]]]
    """
    if responses.ndim != 4:
        raise SpecError(f"Responses have the shape {tuple(responses.shape)}; expected (B, N, R, T).")
    return responses.nanmean(2)


def _pair(predicted: Tensor, responses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction and PSTH (B, N, T), both 0 where there is no response, and where there is one."""
    target = psth(responses)
    if predicted.ndim == 4 and predicted.shape[2] == 1:
        predicted = predicted[:, :, 0]
    if predicted.shape != target.shape:
        raise SpecError(
            f"Predictions have the shape {tuple(predicted.shape)}, but the responses have {tuple(responses.shape)}: "
            f"expected {tuple(target.shape)}."
        )
    valid = ~target.isnan()
    return torch.where(valid, predicted, 0), torch.where(valid, target, 0), valid


def _per_neuron(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of ``x`` (B, N, T) over valid stimuli and frames, (N,)."""
    return torch.where(valid, x, 0).sum((0, 2)) / valid.sum((0, 2))


def mean_squared_error(predicted: Tensor, responses: Tensor) -> Tensor:
    """Return the mean squared difference from the PSTH, (N,); differentiable.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)

    Examples
    --------
    >>> import torch
    >>> mean_squared_error(torch.zeros(1, 1, 3), torch.ones(1, 1, 5, 3)).tolist()
    [1.0]
    """
    predicted, target, valid = _pair(predicted, responses)
    return _per_neuron((predicted - target).square(), valid)


def poisson_loss(predicted: Tensor, responses: Tensor, log_input: bool = False) -> Tensor:
    """Return the negative log-likelihood of Poisson counts less what does not depend on the prediction, (N,).

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
        Mean count per frame, or with ``log_input`` its natural logarithm. Rates are taken as at least 1e-8.
    responses : Tensor (B, N, R, T)
        Counts per frame.
    log_input : bool

    Examples
    --------
    >>> import torch
    >>> poisson_loss(torch.ones(1, 1, 3), torch.ones(1, 1, 5, 3)).round(decimals=5).tolist()
    [1.0]
    """
    predicted, target, valid = _pair(predicted, responses)
    if log_input:
        loss = predicted.exp() - target * predicted
    else:
        loss = predicted - target * (predicted.clamp_min(1e-8) + 1e-8).log()
    return _per_neuron(loss, valid)


class _Moments(NamedTuple):
    cov: Tensor
    var_predicted: Tensor
    var_target: Tensor


def _moments(x: Tensor, y: Tensor, valid: Tensor, pooling: Pooling) -> _Moments:
    """Return covariance and variances (N,), unbiased: over all frames, or within stimuli weighted by their frames."""
    check_option("pooling", pooling, POOLINGS)
    axes = (0, 2) if pooling == "published" else (2,)
    n = valid.sum(axes, keepdim=True)
    x, y = (torch.where(valid, v - v.sum(axes, keepdim=True) / n, 0) for v in (x, y))
    found = []
    for product in (x * y, x * x, y * y):
        value = product.sum(axes, keepdim=True) / (n - 1)
        usable = n > 1
        weight = torch.where(usable, n, 0)
        total = (torch.where(usable, value, 0) * weight).sum((0, 2)) / weight.sum((0, 2))
        found.append(total)
    return _Moments(*found)


def correlation(predicted: Tensor, responses: Tensor, pooling: Pooling = "published") -> Tensor:
    """Return Pearson's correlation with the PSTH, (N,); NaN where one of the two does not vary.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)
    pooling : {"published", "within"}
        Over all frames of all stimuli together, or within stimuli.

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(6.0).reshape(1, 1, 1, 6)
    >>> correlation(2 * x + 1, x).tolist()
    [1.0]
    """
    m = _moments(*_pair(predicted, responses), pooling)
    spread = (m.var_predicted * m.var_target).sqrt()
    return torch.where(spread > 1e-12, m.cov / spread, torch.nan)


def fraction_explained(predicted: Tensor, responses: Tensor) -> Tensor:
    """Return the fraction of the PSTH's variance over all stimuli that is explained, 1 - SS_res/SS_tot, (N,).

    Noise counts as variance that is not explained; see `explained_signal_power`.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)

    Examples
    --------
    >>> import torch
    >>> x = torch.arange(6.0).reshape(1, 1, 1, 6)
    >>> fraction_explained(x, x).tolist()
    [1.0]
    """
    predicted, target, valid = _pair(predicted, responses)
    mean = _per_neuron(target, valid)[:, None]
    return 1 - _per_neuron((predicted - target).square(), valid) / _per_neuron((target - mean).square(), valid)


def _recorded(responses: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return responses (0 elsewhere), repeats with data (B, N, R, 1), frames that all of these have (B, N, 1, T), R."""
    valid = ~responses.isnan()
    repeats = valid.any(-1, keepdim=True)
    frames = (valid | ~repeats).all(2, keepdim=True) & repeats.any(2, keepdim=True)
    kept = torch.where(repeats & frames, responses, 0)
    return kept, repeats, frames, repeats.sum(2)[..., 0]


def _powers(responses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return signal power, noise power and weight of each stimulus, (B, N)."""
    y, repeats, frames, n_repeats = _recorded(responses)
    n_frames = frames.sum(-1)[..., 0]

    def variance(x: Tensor) -> Tensor:
        inside = frames.expand_as(x)
        mean = x.sum(-1, keepdim=True) / n_frames[..., None, None]
        return torch.where(inside, x - mean, 0).square().sum(-1) / (n_frames - 1)[..., None]

    total = torch.where(repeats[..., 0], variance(y), 0).sum(2) / n_repeats
    mean = variance(y.sum(2, keepdim=True) / n_repeats[..., None, None])[..., 0]
    signal = (n_repeats * mean - total) / (n_repeats - 1)
    usable = (n_repeats >= 2) & (n_frames >= 2)
    weight = torch.where(usable, n_frames, 0)
    return torch.where(usable, signal, 0), torch.where(usable, total - signal, 0), weight


def signal_power(responses: Tensor) -> SignalPower:
    """Return the power of the signal and of the noise, Sahani & Linden (2003), (N,).

    Unbiased variances over time within each stimulus, averaged with the number of frames as weights. Frames that a
    repeat lacks are left out of that stimulus. NaN for neurons without two repeats of a stimulus; an estimate may be
    below 0 where there is little signal.

    Parameters
    ----------
    responses : Tensor (B, N, R, T)

    Examples
    --------
    >>> import torch
    >>> y = torch.arange(4.0, dtype=torch.float64).expand(1, 1, 3, 4)
    >>> signal_power(y).signal.round(decimals=4).tolist()
    [1.6667]
    """
    signal, noise, weight = _powers(responses)
    total = weight.sum(0)
    return SignalPower((signal * weight).sum(0) / total, (noise * weight).sum(0) / total)


def normalised_correlation(predicted: Tensor, responses: Tensor, pooling: Pooling = "within") -> Tensor:
    """Return the correlation over its largest possible value, Schoppe et al. (2016), equation 7, (N,).

    Covariance with the PSTH over the square root of the prediction's variance times the signal power. The true signal
    scores 1 but for sampling error; NaN where the signal power is not above 0. With single repeats there is no signal
    power, and the value is the plain correlation.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)
    pooling : {"within", "published"}
        Covariance within stimuli, or over all stimuli together as deepSTRF has it.

    Examples
    --------
    >>> import torch
    >>> y = torch.arange(4.0).expand(1, 1, 3, 4)
    >>> normalised_correlation(y[:, :, 0], y).round(decimals=4).tolist()
    [1.0]
    """
    if responses.shape[2] == 1:
        return correlation(predicted, responses, pooling)
    m = _moments(*_pair(predicted, responses), pooling)
    product = m.var_predicted * signal_power(responses).signal
    return torch.where(product > 0, m.cov / torch.where(product > 0, product, 1).sqrt(), torch.nan)


def explained_signal_power(predicted: Tensor, responses: Tensor) -> Tensor:
    """Return the fraction of the signal power that is explained, Sahani & Linden (2003), (N,).

    (Var(psth) - Var(psth - predicted)) / signal power, variances within stimuli; 1 for the true signal but for sampling
    error, NaN where the signal power is not above 0.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)

    Examples
    --------
    >>> import torch
    >>> y = torch.arange(4.0).expand(1, 1, 3, 4)
    >>> explained_signal_power(y[:, :, 0], y).round(decimals=4).tolist()
    [1.0]
    """
    x, y, valid = _pair(predicted, responses)
    rest = _moments(y - x, y, valid, "within")
    power = signal_power(responses).signal
    return torch.where(power > 0, (rest.var_target - rest.var_predicted) / power, torch.nan)


def _splits(n_repeats: int, n_splits: int, seed: int) -> Tensor:
    """Return which repeats are in the first and in the second half of each split, (S, 2, n_repeats) of bool."""
    half = n_repeats // 2
    if comb(2 * half, half) // 2 <= n_splits:
        chosen = [c for c in combinations(range(2 * half), half) if 0 in c]
        first = torch.zeros(len(chosen), n_repeats, dtype=torch.bool)
        first[torch.arange(len(chosen))[:, None], torch.tensor(chosen)] = True
        second = ~first
        second[:, 2 * half :] = False
    else:
        keys = Keys.make(seed, trial=torch.arange(n_splits))
        rank = uniform(keys, Purpose.ANALYSIS, n_repeats).argsort(-1).argsort(-1)
        first, second = rank < half, (rank >= half) & (rank < 2 * half)
    return torch.stack([first, second], 1)


def normalised_correlation_hsu(
    predicted: Tensor,
    responses: Tensor,
    pooling: Pooling = "within",
    n_splits: int = MAX_SPLITS,
    seed: int = 0,
) -> Tensor:
    """Return the correlation over the largest one that the noise allows, Hsu et al. (2004), (N,).

    The largest correlation of a stimulus is sqrt(2 rho / (1 + rho)), with rho the mean correlation between the PSTHs of
    two halves of the repeats; stimuli without a rho above 0 are left out, the others weighted by their frames. All
    splits are taken if there are at most ``n_splits``, otherwise random ones: the first in an order would keep the same
    repeats together. With single repeats the value is the plain correlation.

    Parameters
    ----------
    predicted : Tensor (B, N, T) or (B, N, 1, T)
    responses : Tensor (B, N, R, T)
    pooling : {"within", "published"}
        Correlation within stimuli, or over all stimuli together as deepSTRF has it.
    n_splits : int
    seed : int
        Of random splits.

    Examples
    --------
    >>> import torch
    >>> y = torch.arange(4.0).expand(1, 1, 4, 4)
    >>> normalised_correlation_hsu(y[:, :, 0], y).round(decimals=4).tolist()
    [1.0]
    """
    plain = correlation(predicted, responses, pooling)
    if responses.shape[2] == 1:
        return plain
    y, repeats, frames, n_repeats = _recorded(responses)
    largest = torch.full(n_repeats.shape, torch.nan, dtype=y.dtype, device=y.device)
    rank = repeats[..., 0].cumsum(2) - 1
    for count in sorted(set(n_repeats.flatten().tolist()) - {0, 1}):
        rows = n_repeats == count
        member = _splits(count, n_splits, seed).to(y.device)[:, :, rank[rows].clamp_min(0)]  # (S, 2, K, R)
        member = member & repeats[rows][..., 0]
        halves = torch.einsum("shkr,krt->shkt", member.to(y.dtype), y[rows]) / (count // 2)
        inside = frames[rows][:, 0]
        centred = torch.where(inside, halves - halves.sum(-1, keepdim=True) / inside.sum(-1, keepdim=True), 0)
        norm = centred.square().sum(-1).sqrt().prod(1)
        rho = torch.where(norm > 1e-12, centred.prod(1).sum(-1) / norm, torch.nan).nanmean(0)
        largest[rows] = torch.where(rho > 0, (2 * rho / (1 + rho)).sqrt(), torch.nan)
    usable = ~largest.isnan()
    weight = torch.where(usable, frames.sum(-1)[..., 0], 0)
    return plain / (torch.where(usable, largest, 0) * weight).sum(0).div(weight.sum(0))
