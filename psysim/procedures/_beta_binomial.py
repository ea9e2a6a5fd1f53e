"""Kernel of the beta-binomial likelihood: sums over trials, exact down to no overdispersion at all."""

from __future__ import annotations

import math
from typing import Any

from numba import njit

__all__ = ["beta_binomial_sums"]


@njit(nogil=True, cache=True, error_model="numpy")
def beta_binomial_sums(p: Any, q: Any, theta: Any, correct: Any, trials: Any, out: Any) -> None:
    """Write log-likelihood and derivatives of each data set and level to ``out`` (5, N, L).

    The likelihood of k out of n is, up to the binomial coefficient (theta = rho / (1 - rho); Griffiths, D. A.,
    1973, Biometrics 29, 637-648), ``prod_{j<k} (p + j theta) prod_{j<n-k} (q + j theta) / prod_{j<n} (1 + j theta)``.
    Rows of ``out``: logarithm; d/dp; -d2/dp2; d/dtheta; -d2/dtheta2. p, q (N, L), theta (N,), counts (N, L) int64.
    """
    for i in range(p.shape[0]):
        t = theta[i]
        for j in range(p.shape[1]):
            ll = dp = hp = dt = ht = 0.0
            k, n = correct[i, j], trials[i, j]
            for r in range(k):
                x = p[i, j] + r * t
                ll += math.log(x)
                dp += 1.0 / x
                hp += 1.0 / (x * x)
                dt += r / x
                ht += r * r / (x * x)
            for r in range(n - k):
                x = q[i, j] + r * t
                ll += math.log(x)
                dp -= 1.0 / x
                hp += 1.0 / (x * x)
                dt += r / x
                ht += r * r / (x * x)
            for r in range(1, n):
                x = 1.0 + r * t
                ll -= math.log(x)
                dt -= r / x
                ht -= r * r / (x * x)
            out[0, i, j] = ll
            out[1, i, j] = dp
            out[2, i, j] = hp
            out[3, i, j] = dt
            out[4, i, j] = ht
