"""Compiled likelihood of one data set, its maximum by damped Fisher scoring, and the ends of its profile intervals.

The coordinates are those of `psysim.procedures._fit_core`. Every function works on one data set; the loops over data
sets are at the end, each over a range of them, so that threads can share the work. The coordinate "place" is where P is
``proportion``, or where the argument of F is 0 if that is not above 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["evaluate_rows", "maximise_rows", "search_rows"]

PLACE, SLOPE, GUESS, LAPSE, RHO = range(5)
N = 5
LOGISTIC, GAUSSIAN, LOG_LOG, QUICK = range(4)
TINY = 1e-300
LARGEST_EXPONENT = 700.0
LARGEST_STEP = np.array([1.0, 1.0, 0.2, 0.2, 0.2])
ROUNDING = 1e-6
"""Twice the gain in log-likelihood that the next step promises, at which a fit has converged if rounding lets no step
gain any more, and on the way to the end of an interval."""
SAFE_PRODUCT = 1e-200
N_STEPS = 60
CLOSE = 1e-3
"""Accuracy of the root of the deviance at the ends of an interval: 0.03 percentage points of coverage."""

_jit: Any = njit(nogil=True, cache=True, error_model="numpy")


@_jit
def _family(code: int, z: float) -> Any:
    """Return F, 1 - F and dF/dz."""
    if code == LOGISTIC:
        e = math.exp(-abs(z))
        large, small = 1.0 / (1.0 + e), e / (1.0 + e)
        return (large, small, large * small) if z >= 0.0 else (small, large, large * small)
    if code == GAUSSIAN:
        root = z / math.sqrt(2.0)
        density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        return 0.5 * math.erfc(-root), 0.5 * math.erfc(root), density
    scale, factor = (1.0, 1.0) if code == LOG_LOG else (math.log(10.0), math.log(2.0))
    exponent = min(scale * z, LARGEST_EXPONENT)
    rate = factor * math.exp(exponent)
    survival = math.exp(-rate)
    return -math.expm1(-rate), survival, scale * rate * survival


@_jit
def _inverse_normal(p: float) -> float:
    """Return the standard normal quantile: Abramowitz & Stegun (1964), Eq. 26.2.23, then Halley's steps."""
    q = p if p < 0.5 else 1.0 - p
    t = math.sqrt(-2.0 * math.log(q))
    start = (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
    z = start - t  # lower tail
    for _ in range(3):
        off = (0.5 * math.erfc(-z / math.sqrt(2.0)) - q) * math.sqrt(2.0 * math.pi) * math.exp(0.5 * z * z)
        z -= off / (1.0 + 0.5 * z * off)
    return z if p < 0.5 else -z


@_jit
def _inverse(code: int, p: float) -> float:
    if code == LOGISTIC:
        return math.log(p) - math.log1p(-p)
    if code == GAUSSIAN:
        return _inverse_normal(p)
    if code == LOG_LOG:
        return math.log(-math.log1p(-p))
    return math.log10(-math.log1p(-p) / math.log(2.0))


@_jit
def _argument_at_place(code: int, proportion: float, guess: float, lapse: float) -> Any:
    """Return the argument of F at the place and its derivatives with respect to guess and lapse rate."""
    if proportion <= 0.0:
        return 0.0, 0.0, 0.0
    span = 1.0 - guess - lapse
    share = (proportion - guess) / span
    if share <= 0.0 or share >= 1.0:
        return math.nan, math.nan, math.nan
    z = _inverse(code, share)
    density = _family(code, z)[2] * span * span
    return z, -(1.0 - lapse - proportion) / density, (proportion - guess) / density


@_jit
def _beta_binomial(p: float, q: float, t: float, k: int, n: int) -> Any:
    """Return log-likelihood of k correct of n and derivatives: d/dp, -d2/dp2, d/dt, -d2/dt2.

    The likelihood is, up to the binomial coefficient (t = rho / (1 - rho); Griffiths, D. A., 1973, Biometrics 29,
    637-648), ``prod_{j<k} (p + j t) prod_{j<n-k} (q + j t) / prod_{j<n} (1 + j t)``: right down to t = 0.
    """
    ll = dp = hp = dt = ht = 0.0
    product = 1.0
    for r in range(k):
        inverse = 1.0 / (p + r * t)
        product *= p + r * t
        if product < SAFE_PRODUCT:
            ll += math.log(product)
            product = 1.0
        dp += inverse
        hp += inverse * inverse
        dt += r * inverse
        ht += r * r * inverse * inverse
    for r in range(n - k):
        inverse = 1.0 / (q + r * t)
        product *= q + r * t
        if product < SAFE_PRODUCT:
            ll += math.log(product)
            product = 1.0
        dp -= inverse
        hp += inverse * inverse
        dt += r * inverse
        ht += r * r * inverse * inverse
    ll += math.log(product)
    product = 1.0
    for r in range(1, n):
        inverse = 1.0 / (1.0 + r * t)
        product *= inverse
        if product < SAFE_PRODUCT:
            ll += math.log(product)
            product = 1.0
        dt -= r * inverse
        ht -= r * r * inverse * inverse
    return ll + math.log(product), dp, hp, dt, ht


@_jit
def _evaluate(
    code: int, steepness: float, proportion: float, v: Any, correct: Any, trials: Any, free: Any,
    coupling: float, mean: Any, precision: Any, beta: Any, theta: Any, gradient: Any, information: Any,
) -> float:  # fmt: skip
    """Return log-likelihood plus log prior at ``theta`` (5,); write gradient (5,) and information (5, 5)."""
    gradient[:] = 0.0
    information[:] = 0.0
    guess, lapse, rho = theta[GUESS], theta[LAPSE], theta[RHO]
    span = 1.0 - guess - lapse
    log_slope = theta[SLOPE] + coupling * theta[PLACE]
    k = math.exp(log_slope) / (span * steepness)
    at, at_guess, at_lapse = _argument_at_place(code, proportion, guess, lapse)
    overdispersed = free[RHO] or rho > 0.0
    shown = RHO if free[GUESS] or free[LAPSE] else GUESS  # derivatives with respect to given rates are left at 0
    t = rho / (1.0 - rho)
    objective = dt = ht = 0.0
    slopes = np.empty(RHO)
    for j in range(v.shape[0]):
        n = trials[j]
        if n == 0:
            continue
        away = k * (v[j] - theta[PLACE])
        core, survival, density = _family(code, away + at)
        p, q = max(guess + span * core, TINY), max(lapse + span * survival, TINY)
        rise = span * density
        # far from the threshold the density is 0 and its factor may be infinite: nothing comes of it
        slopes[PLACE] = rise * (coupling * away - k) if rise > 0.0 else 0.0
        slopes[SLOPE] = rise * away if rise > 0.0 else 0.0
        if shown > GUESS:
            slopes[GUESS] = survival + (rise * (away / span + at_guess) if rise > 0.0 else 0.0)
            slopes[LAPSE] = -core + (rise * (away / span + at_lapse) if rise > 0.0 else 0.0)
        if overdispersed:
            ll, pull, weight, one, two = _beta_binomial(p, q, t, correct[j], n)
            dt += one
            ht += two
        else:
            wrong = n - correct[j]
            ll = correct[j] * math.log(p) + wrong * math.log(q)
            pull, weight = correct[j] / p - wrong / q, n / (p * q)
        objective += ll
        for a in range(shown):
            gradient[a] += pull * slopes[a]
            for b in range(a + 1):
                information[a, b] += weight * slopes[a] * slopes[b]
    for a in range(RHO):
        for b in range(a):
            information[b, a] = information[a, b]
    if overdispersed:
        step = 1.0 / (1.0 - rho) ** 2
        gradient[RHO] = dt * step
        information[RHO, RHO] = abs(ht * step * step - 2.0 * dt * step / (1.0 - rho))
    objective += _prior(k, at, at_guess, at_lapse, span, coupling, mean, precision, beta, theta, gradient, information)
    for a in range(N):
        if not math.isfinite(gradient[a]):
            gradient[a] = 0.0
        for b in range(N):
            if not math.isfinite(information[a, b]):
                information[a, b] = 0.0
    return objective if math.isfinite(objective) else -math.inf


@_jit
def _prior(
    k: float, at: float, at_guess: float, at_lapse: float, span: float, coupling: float, mean: Any, precision: Any,
    beta: Any, theta: Any, gradient: Any, information: Any,
) -> float:  # fmt: skip
    """Return the logarithm of the prior, up to a constant, and add its derivatives.

    The normal priors are on v and on the log slope where the argument of F is 0, whatever the coordinates are.
    """
    value = 0.0
    if precision[0] > 0.0 or precision[1] > 0.0:
        of = np.zeros((2, N))
        of[0, PLACE] = 1.0 + coupling * at / k
        of[0, SLOPE] = at / k
        of[0, GUESS] = (at / span - at_guess) / k
        of[0, LAPSE] = (at / span - at_lapse) / k
        of[1, PLACE], of[1, SLOPE] = coupling, 1.0
        natural = theta[PLACE] - at / k, theta[SLOPE] + coupling * theta[PLACE]
        for i in range(2):
            if precision[i] > 0.0:
                off = natural[i] - mean[i]
                value -= 0.5 * precision[i] * off * off
                for a in range(N):
                    gradient[a] -= precision[i] * off * of[i, a]
                    for b in range(N):
                        information[a, b] += precision[i] * of[i, a] * of[i, b]
    for a in range(N):
        if beta[a] != 0.0:
            remaining = 1.0 - theta[a]
            value += beta[a] * math.log(max(remaining, TINY))
            gradient[a] -= beta[a] / remaining
            information[a, a] += beta[a] / (remaining * remaining)
    return value


@_jit
def _solve(matrix: Any, right: Any, used: Any, size: int, out: Any) -> None:
    """Solve the symmetric positive system of the coordinates ``used``; zero for a pivot that is not positive."""
    lower = np.zeros((N, N))
    for i in range(size):
        for j in range(i + 1):
            total = matrix[used[i], used[j]]
            for m in range(j):
                total -= lower[i, m] * lower[j, m]
            if i == j:
                lower[i, i] = math.sqrt(total) if total > 0.0 else 0.0
            else:
                lower[i, j] = total / lower[j, j] if lower[j, j] > 0.0 else 0.0
    middle = np.zeros(N)
    for i in range(size):
        total = right[used[i]]
        for m in range(i):
            total -= lower[i, m] * middle[m]
        middle[i] = total / lower[i, i] if lower[i, i] > 0.0 else 0.0
    out[:] = 0.0
    for i in range(size - 1, -1, -1):
        total = middle[i]
        for m in range(i + 1, size):
            total -= lower[m, i] * out[used[m]]
        out[used[i]] = total / lower[i, i] if lower[i, i] > 0.0 else 0.0


@_jit
def _maximise(
    code: int, steepness: float, proportion: float, v: Any, correct: Any, trials: Any, free: Any, low: Any,
    high: Any, coupling: float, mean: Any, precision: Any, beta: Any, theta: Any, max_iterations: int, tolerance: float,
) -> Any:  # fmt: skip
    """Move ``theta`` to a maximum; return objective, whether it converged, and the steps tried."""
    for a in range(N):
        if free[a]:
            theta[a] = min(max(theta[a], low[a]), high[a])
    gradient, information = np.empty(N), np.empty((N, N))
    gradient_then, information_then = np.empty(N), np.empty((N, N))
    step, promised, then = np.empty(N), np.empty(N), np.empty(N)
    matrix, used = np.empty((N, N)), np.empty(N, np.int64)
    objective = _evaluate(
        code, steepness, proportion, v, correct, trials, free, coupling, mean, precision, beta, theta,
        gradient, information,
    )  # fmt: skip
    damping = 1e-3
    for iteration in range(max_iterations):
        size, ridge = 0, 0.0
        for a in range(N):
            shut = (theta[a] <= low[a] and gradient[a] < 0.0) or (theta[a] >= high[a] and gradient[a] > 0.0)
            if free[a] and not shut:
                used[size] = a
                size += 1
                ridge = max(ridge, information[a, a])
        ridge = 1e-12 * ridge + TINY
        matrix[:] = information
        for i in range(size):
            matrix[used[i], used[i]] += ridge
        _solve(matrix, gradient, used, size, promised)
        promise = 0.0
        for i in range(size):
            promise += promised[used[i]] * gradient[used[i]]
            matrix[used[i], used[i]] *= 1.0 + damping
        _solve(matrix, gradient, used, size, step)
        shrink, moved = 1.0, 0.0
        for a in range(N):
            shrink = max(shrink, abs(step[a]) / LARGEST_STEP[a])
        for a in range(N):
            then[a] = theta[a]
            if step[a] != 0.0:
                then[a] = min(max(theta[a] + step[a] / shrink, low[a]), high[a])
            step[a] = then[a] - theta[a]
            moved = max(moved, abs(step[a]))
        new = _evaluate(
            code, steepness, proportion, v, correct, trials, free, coupling, mean, precision, beta, then,
            gradient_then, information_then,
        )  # fmt: skip
        foreseen = 0.0
        for a in range(N):
            foreseen += step[a] * gradient[a]
            for b in range(N):
                foreseen -= 0.5 * step[a] * information[a, b] * step[b]
        better = new >= objective
        ratio = (new - objective if better else -1.0) / max(foreseen, TINY)
        if better:
            objective = new
            theta[:] = then
            gradient[:] = gradient_then
            information[:] = information_then
        if ratio > 0.75:
            damping = max(0.1 * damping, 1e-9)
        elif ratio <= 0.25 or math.isnan(ratio):
            damping *= 2.0 if better else 10.0
        stuck = damping > 1e8 or moved < 1e-14
        if promise < tolerance or stuck:
            return objective, promise < max(tolerance, ROUNDING), iteration + 1
    return objective, False, max_iterations


@_jit
def evaluate_rows(
    start: int, stop: int, code: int, steepness: float, proportion: float, v: Any, correct: Any,
    trials: Any, free: Any, coupling: Any, mean: Any, precision: Any, beta: Any, theta: Any, objective: Any,
    gradient: Any,
) -> None:  # fmt: skip
    """Write objective (N,) and gradient (N, 5) of every data set at ``theta`` (N, 5)."""
    information = np.empty((N, N))
    for i in range(start, stop):
        objective[i] = _evaluate(
            code, steepness, proportion, v[i], correct[i], trials[i], free[i], coupling[i], mean[i],
            precision[i], beta[i], theta[i], gradient[i], information,
        )  # fmt: skip


@_jit
def maximise_rows(
    start: int, stop: int, code: int, steepness: float, proportion: float, v: Any, correct: Any,
    trials: Any, free: Any, low: Any, high: Any, coupling: Any, mean: Any, precision: Any, beta: Any, theta: Any,
    max_iterations: int, tolerance: float, objective: Any, converged: Any, iterations: Any,
) -> None:  # fmt: skip
    """Move every row of ``theta`` (N, 5) to a maximum."""
    for i in range(start, stop):
        objective[i], converged[i], iterations[i] = _maximise(
            code, steepness, proportion, v[i], correct[i], trials[i], free[i], low[i], high[i], coupling[i],
            mean[i], precision[i], beta[i], theta[i], max_iterations, tolerance,
        )  # fmt: skip


@_jit
def _standard_error(information: Any, free: Any, low: Any, high: Any, theta: Any, coordinate: int) -> float:
    """Return the root of the inverse information's element of a coordinate; infinite if there is no information."""
    used, unit, out = np.empty(N, np.int64), np.zeros(N), np.empty(N)
    unit[coordinate] = 1.0
    size = 0
    for a in range(N):
        if a == coordinate or (free[a] and low[a] < theta[a] < high[a]):
            used[size] = a
            size += 1
    _solve(information, unit, used, size, out)
    return math.sqrt(out[coordinate]) if out[coordinate] > 0.0 else math.inf


@_jit
def _hold_nearest(
    code: int, steepness: float, proportion: float, v: Any, correct: Any, trials: Any, free: Any,
    coupling: float, mean: Any, precision: Any, beta: Any, old: Any, new: Any, gradient: Any, information: Any,
) -> None:  # fmt: skip
    """Move the place of ``new``, steeper than ``old``, so that P at the level nearest to it stays, if that is better.

    On steep functions a level that is neither all wrong nor all correct pins the place: a step in the slope alone
    would leave a plateau, from which no gradient leads back.
    """
    nearest, least = 0.0, math.inf
    for j in range(v.shape[0]):
        if trials[j] > 0 and abs(v[j] - old[PLACE]) < least:
            nearest, least = v[j], abs(v[j] - old[PLACE])
    plain = _evaluate(
        code, steepness, proportion, v, correct, trials, free, coupling, mean, precision, beta, new, gradient,
        information,
    )  # fmt: skip
    place = new[PLACE]
    new[PLACE] = nearest - math.exp(old[SLOPE] - new[SLOPE]) * (nearest - old[PLACE])
    held = _evaluate(
        code, steepness, proportion, v, correct, trials, free, coupling, mean, precision, beta, new, gradient,
        information,
    )  # fmt: skip
    if held <= plain:
        new[PLACE] = place


@_jit
def search_rows(
    start: int, stop: int, code: int, steepness: float, proportion: float, v: Any, correct: Any,
    trials: Any, free: Any, low: Any, high: Any, coupling: Any, mean: Any, precision: Any, beta: Any, theta: Any,
    coordinate: int, side: Any, best: Any, limit: float, farthest: Any, critical: float, result: Any,
) -> None:  # fmt: skip
    """Write the distances from ``theta`` at which the root of the deviance is ``critical``; infinite where nowhere.

    The first distance is that of a parabola with the expected information, not beyond ``limit``. It grows until it is
    too far, then regula falsi with bisections; the other coordinates are fitted anew.
    """
    point, warm, fixed = np.empty(N), np.empty(N), np.empty(N, np.bool_)
    gradient, information = np.empty(N), np.empty((N, N))
    for i in range(start, stop):
        warm[:] = theta[i]
        fixed[:] = free[i]
        fixed[coordinate] = False
        centre = theta[i, coordinate]
        near, far, at_near, at_far = 0.0, math.inf, -critical, math.inf
        _evaluate(
            code, steepness, proportion, v[i], correct[i], trials[i], free[i], coupling[i], mean[i],
            precision[i], beta[i], warm, gradient, information,
        )  # fmt: skip
        width = _standard_error(information, free[i], low[i], high[i], warm, coordinate)
        distance = min(critical * min(max(width, 1e-4), limit), farthest[i])
        result[i] = math.nan
        for step in range(N_STEPS):
            point[:] = warm
            point[coordinate] = centre + side[i] * distance
            if coordinate == SLOPE:
                _hold_nearest(
                    code, steepness, proportion, v[i], correct[i], trials[i], free[i], coupling[i], mean[i],
                    precision[i], beta[i], warm, point, gradient, information,
                )  # fmt: skip
            objective, _, _ = _maximise(
                code, steepness, proportion, v[i], correct[i], trials[i], fixed, low[i], high[i], coupling[i],
                mean[i], precision[i], beta[i], point, 200, ROUNDING,
            )  # fmt: skip
            root = math.sqrt(max(2.0 * (best[i] - objective), 0.0)) - critical
            if root < 0.0:
                warm[:] = point
                near, at_near = distance, root
                if distance >= farthest[i]:
                    result[i] = math.inf
                    break
            else:
                far, at_far = distance, root
            if abs(root) < CLOSE or (math.isfinite(far) and far - near < 1e-7 * (1.0 + far)):
                result[i] = distance
                break
            if math.isfinite(at_far):
                bisect = step % 3 == 2 or step > 15
                share = 0.5 if bisect else min(max(-at_near / (at_far - at_near), 0.02), 0.98)
                distance = near + share * (far - near)
            elif math.isfinite(far):  # the function does not reach the proportion there: no likelihood
                distance = 0.5 * (near + far)
            else:  # the root is nearly proportional to the distance; a little more, to be beyond the end
                most = 1.6 if step < 4 else 3.0
                growth = 1.02 * critical / (critical + root) if root > -critical else most
                distance = min(distance * min(growth, most), farthest[i])
