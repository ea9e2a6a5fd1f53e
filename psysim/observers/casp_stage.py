"""The published decision stage of CASP: region of interest, correlation, probability of a correct answer.

Everything here is arithmetic on representations; `psysim.observers.casp` makes an observer of it. Numbers follow the
toolbox code of Paulick et al. (2024) and its 2008 variant.

References
----------
Jepsen, Ewert and Dau (2008), J. Acoust. Soc. Am. 124, 422-438. Paulick, Relano-Iborra and Dau (2024), bioRxiv.
Dau, Pueschel and Kohlrausch (1996), J. Acoust. Soc. Am. 99, 3615-3622, eq. (A8) (the normal approximation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range

__all__ = [
    "NOISE_VARIANCE",
    "band_correlations",
    "band_mask",
    "correlation_weights",
    "criterion_difference",
    "interval_difference",
    "moving_average",
    "proportion_correct",
    "region_of_interest",
]

NOISE_VARIANCE = {"paulick2024": 40.0, "jepsen2008": 130.0}
"""Published variance of the internal noise on correlation / rate, (model units)^2 s."""

NORMAL_APPROXIMATION = {2: (0.707, 0.0), 3: (0.765, 0.423), 4: (0.810, 0.668)}
"""Per number of intervals: A and B of P = Phi(A x / sigma - B)."""

SMOOTHING_PERIODS = 25
INV_SQRT_2 = 0.7071068
"""As the published code has it, not 2**-0.5: probabilities differ by up to 6e-9."""


def moving_average(x: Tensor, width: float) -> Tensor:
    """Return the centred moving average over ``width`` samples, shortened at both ends.

    Parameters
    ----------
    x : Tensor (..., T)
    width : float
        Samples, not necessarily a whole number: sample n averages the samples j with n - width/2 <= j < n + width/2.

    Returns
    -------
    Tensor (..., T)
        float64.

    Raises
    ------
    SpecError
        If ``width`` is below 1 sample.

    Examples
    --------
    >>> moving_average(torch.tensor([0.0, 3.0, 6.0]), 3)
    tensor([1.5000, 3.0000, 4.5000], dtype=torch.float64)
    """
    check_range("width", width, 1.0, unit="samples")
    n_samples = x.shape[-1]
    sums = torch.nn.functional.pad(x.to(torch.float64).cumsum(-1), (1, 0))
    n = torch.arange(n_samples, dtype=torch.float64, device=x.device)
    first = (n - width / 2).ceil().clamp(min=0).to(torch.int64)
    after = (n + width / 2).ceil().clamp(max=n_samples).to(torch.int64)
    return (sums[..., after] - sums[..., first]) / (after - first)


def region_of_interest(difference: Tensor, fc: Tensor, fs: float) -> tuple[int, int]:
    """Return the first and the last auditory channel that carry the difference of two adapted signals.

    Each channel is smoothed over 25 periods of its centre frequency. The region holds all channels from the lowest to
    the highest whose rms reaches half of the largest, and at least those from 1/sqrt(2) to 2 times the frequency of
    the largest.

    Parameters
    ----------
    difference : Tensor (F, T)
        Mean output of the adaptation stage for supra-threshold targets minus that for references, at rate ``fs``.
    fc : Tensor (F,)
        Centre frequencies, rising, Hz.
    fs : float
        Sampling rate, Hz.

    Returns
    -------
    first, last : int
        Both inclusive.

    Raises
    ------
    SpecError
        If the shapes do not fit or the difference is zero everywhere or not finite.

    Examples
    --------
    >>> fc = torch.tensor([500.0, 1000.0, 2000.0, 4000.0])
    >>> region_of_interest(torch.tensor([0.0, 1.0, 0.1, 0.0])[:, None].expand(4, 800), fc, 8000.0)
    (0, 2)
    """
    if difference.ndim != 2 or len(difference) != len(fc):
        raise SpecError(f"difference has shape {tuple(difference.shape)}, but must be (F, T) with F = {len(fc)}.")
    rms = torch.stack(
        [
            moving_average(channel, max(1.0, SMOOTHING_PERIODS * fs / float(f))).square().mean().sqrt()
            for channel, f in zip(difference, fc, strict=True)
        ]
    )
    peak = int(rms.argmax())
    if not (torch.isfinite(rms).all() and rms[peak] > 0):
        raise SpecError("There is no region of interest: target and reference do not differ, or are not finite.")
    large = (rms >= 0.5 * rms[peak]).nonzero()[:, 0]
    below, above = (int((fc - factor * fc[peak]).abs().argmin()) for factor in (0.5**0.5, 2.0))
    return min(int(large[0]), below), max(int(large[-1]), above)


def band_mask(fc: Tensor, mfc: Tensor, region: tuple[int, int] | None = None) -> Tensor:
    """Return which filters take part in the correlation: channels of the region with fc > 4 mfc.

    Parameters
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    mfc : Tensor (M,)
        Modulation centre frequencies, Hz.
    region : (int, int), optional
        First and last channel, both inclusive; default: all.

    Returns
    -------
    Tensor (F, M) of bool

    Examples
    --------
    >>> band_mask(torch.tensor([250.0, 1000.0]), torch.tensor([0.0, 100.0]))
    tensor([[ True, False],
            [ True,  True]])
    """
    mask = fc[:, None] > 4.0 * mfc[None, :]
    if region is None:
        return mask
    channel = torch.arange(len(fc), device=mask.device)[:, None]
    return mask & (channel >= region[0]) & (channel <= region[1])


def correlation_weights(template: Tensor, mask: Tensor, remove_means: bool) -> Tensor:
    """Return W such that the correlation of X with the template in modulation band m is the sum of X W over f and t.

    Removing the means of one of two factors is enough: sum (X - mean X)(T - mean T) = sum X (T - mean T). So the
    correlation of CASP is an inner product with these weights.

    Parameters
    ----------
    template : Tensor (..., F, M, T)
    mask : Tensor (F, M) of bool
        From `band_mask`.
    remove_means : bool
        Whether each modulation band's mean, over time and the channels of the mask, is removed (2024), or not (2008).

    Returns
    -------
    Tensor (..., F, M, T)
        float64, zero outside the mask.

    Examples
    --------
    >>> correlation_weights(torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]]), torch.tensor([[True], [False]]), True)
    tensor([[[-0.5000,  0.5000]],
    <BLANKLINE>
            [[ 0.0000,  0.0000]]], dtype=torch.float64)
    """
    chosen = mask[..., None]
    weights = torch.where(chosen, template.to(torch.float64), 0.0)
    if not remove_means:
        return weights
    count = mask.sum(0).clamp(min=1)[None, :, None] * template.shape[-1]
    mean = weights.sum(dim=(-3, -1), keepdim=True) / count
    return torch.where(chosen, weights - mean, 0.0)


def band_correlations(x: Tensor, template: Tensor, mask: Tensor, remove_means: bool) -> Tensor:
    """Return the correlation of representations with a template in every modulation band.

    Parameters
    ----------
    x : Tensor (..., F, M, T)
        Representation minus mean reference, model units.
    template : Tensor (F, M, T)
    mask : Tensor (F, M) of bool
        From `band_mask`.
    remove_means : bool
        Covariance (2024) or plain product (2008): see `correlation_weights`.

    Returns
    -------
    Tensor (..., M)
        float64, a sum over time and channels; 0 in a band without channels.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 3.0]]])
    >>> band_correlations(x, x, torch.tensor([[True]]), remove_means=True)
    tensor([2.], dtype=torch.float64)
    """
    weights = correlation_weights(template, mask, remove_means)
    return (torch.where(mask[..., None], x.to(torch.float64), 0.0) * weights).sum(dim=(-3, -1))


def interval_difference(values: Tensor, target: Tensor) -> Tensor:
    """Return max(0, target - max(0, largest of the others)) of every trial.

    Parameters
    ----------
    values : Tensor (B, I)
        Correlation / rate of the intervals.
    target : Tensor (B,) of int64
        The target's interval.

    Returns
    -------
    Tensor (B,)

    Examples
    --------
    >>> interval_difference(torch.tensor([[1.0, 4.0], [-2.0, 3.0]]), torch.tensor([1, 1]))
    tensor([3., 3.])
    """
    is_target = torch.arange(values.shape[1], device=values.device) == target[:, None]
    others = values.masked_fill(is_target, -torch.inf).amax(dim=1)
    return (values.gather(1, target[:, None])[:, 0] - others.clamp(min=0)).clamp(min=0)


def _approximation(n_intervals: int) -> tuple[float, float]:
    if n_intervals not in NORMAL_APPROXIMATION:
        raise SpecError(
            f"n_intervals = {n_intervals!r} has no published probability of a correct answer. Allowed: 2, 3, 4. "
            'For any other number draw the answers (response_rule = "drawn").'
        )
    return NORMAL_APPROXIMATION[n_intervals]


def proportion_correct(difference: Tensor, n_intervals: int, noise_variance: float) -> Tensor:
    """Return the published probability of a correct answer, Phi(A difference / sigma - B).

    At chance it is 0.5, 0.336 and 0.252: A and B are a fit to the m-AFC integral for 3 and 4 intervals (largest error
    2.8e-3 and 6.7e-3).

    Parameters
    ----------
    difference : Tensor
        From `interval_difference`.
    n_intervals : int
        2, 3 or 4.
    noise_variance : float
        sigma^2: 40 (2024) or 130 (2008), in the unit of ``difference`` squared.

    Returns
    -------
    Tensor
        float64, the shape of ``difference``.

    Raises
    ------
    SpecError
        If there are no constants for ``n_intervals``, or the variance is not positive.

    Examples
    --------
    >>> proportion_correct(torch.tensor([0.0, 8.0]), 2, 40.0)
    tensor([0.5000, 0.8144], dtype=torch.float64)
    """
    check_range("noise_variance", noise_variance, 0.0, low_open=True)
    a, b = _approximation(n_intervals)
    z = a * difference.to(torch.float64) / noise_variance**0.5 - b
    return 1.0 - 0.5 * torch.special.erfc(INV_SQRT_2 * z)


def criterion_difference(n_intervals: int, n_down: int, noise_variance: float) -> float:
    """Return the difference at which a 1-up n-down track turns: probability correct 2**(-1 / n_down).

    Parameters
    ----------
    n_intervals : int
        2, 3 or 4.
    n_down : int
        Correct answers in a row for a step towards harder, at least 1.
    noise_variance : float
        sigma^2, as in `proportion_correct`.

    Returns
    -------
    float

    Raises
    ------
    SpecError
        As `proportion_correct`; or if ``n_down`` is below 1.

    Examples
    --------
    >>> round(criterion_difference(3, 2, 40.0), 4)
    8.0024
    """
    check_range("n_down", n_down, 1)
    check_range("noise_variance", noise_variance, 0.0, low_open=True)
    a, b = _approximation(n_intervals)
    z = torch.special.ndtri(torch.tensor(2.0 ** (-1.0 / n_down), dtype=torch.float64))
    return float((z + b) * noise_variance**0.5 / a)
