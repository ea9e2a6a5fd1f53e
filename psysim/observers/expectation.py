"""Expected proportion correct, computed from decision variables in place of counting answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["DecisionSamples", "forced_choice", "yes_no"]

NODES = 32  # of the Gauss-Hermite quadrature over the internal noise of the target interval
_SMALLEST_STD = 1e-9  # of the largest decision variable: without noise the larger value wins


@dataclass(frozen=True)
class DecisionSamples:
    """Decision variables of K sound tokens of one condition, without internal noise, and the noise on each.

    Attributes
    ----------
    target, target_std : Tensor (K,)
        Intervals with the target.
    reference, reference_std : Tensor (K, J)
        Intervals without.
    exchangeable : bool
        True: ``J = 1``, reference k shares its random numbers with target k, and any may meet any other target in a
        trial. False: row k holds the other intervals of trial k, which meet target k only (a rove per trial).
    criterion : float
        Yes/no criterion of the condition.
    """

    target: Tensor
    target_std: Tensor
    reference: Tensor
    reference_std: Tensor
    exchangeable: bool = True
    criterion: float = 0.0

    @property
    def least_std(self) -> float:
        """A noise that decides only ties."""
        largest = max(float(self.target.abs().max()), float(self.reference.abs().max()))
        return _SMALLEST_STD * largest or _SMALLEST_STD


def forced_choice(samples: DecisionSamples, n_intervals: int) -> tuple[Tensor, Tensor]:
    """Return the proportion correct when the largest noisy decision variable wins.

    The average over target tokens k of ``int phi(x) prod_j Phi((T_k + s_k x - R_j) / r_j) dx``; where any reference may
    meet a target, the product is ``(mean_j Phi)**(n_intervals - 1)`` over all tokens but the target's own.

    Parameters
    ----------
    samples : DecisionSamples
    n_intervals : int

    Returns
    -------
    proportion : Tensor ()
    without : Tensor (K,)
        The same without one of the tokens: the jackknife's values.

    Examples
    --------
    With one token and equal noise it is the m-AFC integral at d' = 1:

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> p, _ = forced_choice(DecisionSamples(one, one, 0 * one[:, None], one[:, None]), 3)
    >>> round(float(p), 4)
    0.6337
    """
    x, weight = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(NODES))
    x, weight = x.to(samples.target.device), (weight / math.sqrt(2 * math.pi)).to(samples.target.device)
    smallest = samples.least_std
    noisy = samples.target[:, None] + samples.target_std.clamp(min=smallest)[:, None] * x  # (K, Q)
    n = len(samples.target)
    if n == 1 or not samples.exchangeable:
        apart = (noisy[:, :, None] - samples.reference[:, None, :]) / samples.reference_std.clamp(min=smallest)[:, None]
        wins = torch.special.ndtr(apart).prod(-1)
        if samples.exchangeable:
            wins = wins ** (n_intervals - 1)
        each = wins @ weight
        total = each.sum()
        return total / n, (total - each) / max(n - 1, 1)
    apart = (noisy[:, :, None] - samples.reference[:, 0]) / samples.reference_std[:, 0].clamp(min=smallest)
    wins = torch.special.ndtr(apart)  # (K, Q, K): target token, noise, reference token
    own = torch.arange(n, device=wins.device)
    wins[own, :, own] = 0.0
    beaten = wins.sum(-1)  # (K, Q)
    proportion = ((beaten / (n - 1)) ** (n_intervals - 1) @ weight).mean()
    fewer = (((beaten[..., None] - wins) / max(n - 2, 1)) ** (n_intervals - 1)).transpose(1, 2) @ weight  # (K, K)
    fewer[own, own] = 0.0
    return proportion, fewer.sum(0) / (n - 1)


def yes_no(samples: DecisionSamples, p_target: float) -> tuple[Tensor, Tensor]:
    """Return the proportion correct when "yes" is said above the criterion.

    Parameters
    ----------
    samples : DecisionSamples
    p_target : float
        Proportion of trials with a target.

    Returns
    -------
    proportion : Tensor ()
    without : Tensor (K,)
        The same without one of the tokens: the jackknife's values.
    """
    smallest = samples.least_std
    hit = torch.special.ndtr((samples.target - samples.criterion) / samples.target_std.clamp(min=smallest))
    rejection = torch.special.ndtr((samples.criterion - samples.reference) / samples.reference_std.clamp(min=smallest))
    each = p_target * hit + (1 - p_target) * rejection.mean(1)
    return each.mean(), (each.sum() - each) / max(len(each) - 1, 1)
