"""Where the rules settle: Levitt's and Kaernbach's targets, and simulated tracks against an exact Markov chain."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from psysim.errors import SpecError
from psysim.procedures import (
    AFC,
    PsychometricFunction,
    UpDown,
    WeightedUpDown,
    expected_threshold,
    track_distribution,
    up_down_target,
)
from psysim.testing import run_tracks

#: A listener in a 3-interval task; the part above chance rises from 0.27 to 0.73 within 3.3 dB.
LISTENER = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)

RULES = {
    "2-down": (UpDown, {"n_down": 2}),
    "3-down": (UpDown, {"n_down": 3}),
    "4-down": (UpDown, {"n_down": 4}),
    "2-up 3-down": (UpDown, {"n_up": 2, "n_down": 3}),
    "2-down, steps up 3 times as large": (UpDown, {"n_down": 2, "step_up_ratio": 3.0}),
    "weighted 0.5": (WeightedUpDown, {"target_proportion": 0.5}),
    "weighted 0.75": (WeightedUpDown, {"target_proportion": 0.75}),
}


def make(name, step, **changes):
    cls, own = RULES[name]
    return cls(**({"level_start": -13.0, "level_min": -45.0, "level_max": 17.0, "steps": [step]} | own | changes))


def chain_threshold(procedure, listener, step):
    """Return the mean level at the reversals of an endless track: exact, from the stationary Markov chain.

    The states are level (on the grid of the steps, clipped at the limits), answers in a row, and direction of the last
    move. Written for this test, without the code under test.
    """
    n_up, n_down, ratio = procedure.n_up, procedure.n_down, round(procedure.easier_ratio)
    grid = np.arange(procedure.rule.level_min, procedure.rule.level_max + step / 2, step)
    p = listener(grid)
    counts = list(range(-n_up + 1, n_down))
    place = {(c, d): i for i, (c, d) in enumerate((c, d) for c in counts for d in (-1, 1))}
    n_levels, n_inner = len(grid), len(place)
    here = np.arange(n_levels)
    rows, columns, chances = [], [], []
    reversal_chance = np.zeros((n_inner, n_levels))
    for (count, direction), inner in place.items():
        for right, chance in ((True, p), (False, 1 - p)):
            new = max(count, 0) + 1 if right else min(count, 0) - 1
            move = -1 if new == n_down else 1 if new == -n_up else 0
            target = np.clip(here + (-1 if move < 0 else ratio * move), 0, n_levels - 1)
            if move:
                new = 0
                if move != direction:
                    reversal_chance[inner] += chance
            rows.append(inner * n_levels + here)
            columns.append(place[new, move or direction] * n_levels + target)
            chances.append(chance)
    size = n_inner * n_levels
    entries = (np.concatenate(chances), (np.concatenate(rows), np.concatenate(columns)))
    transition = sparse.csr_matrix(entries, shape=(size, size))
    # stationary: pi (P - 1) = 0; one equation is replaced by the sum of pi
    system = (transition.T - sparse.identity(size)).tolil()
    system[0, :] = 1.0
    pi = spsolve(system.tocsc(), np.eye(1, size)[0]).reshape(n_inner, n_levels)
    weight = (pi * reversal_chance).sum(axis=0)
    return float((weight * grid).sum() / weight.sum())


@pytest.mark.parametrize(
    ("n_up", "n_down", "target"),
    [(1, 1, 0.5), (1, 2, 0.7071), (1, 3, 0.7937), (1, 4, 0.8409), (2, 1, 0.2929), (3, 1, 0.2063), (4, 1, 0.1591)],
)
def test_levitt_targets(n_up, n_down, target):
    """Levitt (1971), Table I: 0.707, 0.794, 0.841 and their complements."""
    assert up_down_target(n_up, n_down) == pytest.approx(target, abs=5e-5)


@pytest.mark.parametrize(("n_up", "n_down"), [(2, 2), (2, 3), (3, 2), (3, 4)])
def test_target_of_general_rules_balances_the_moves(n_up, n_down):
    """By counting: the chance that a track at the target moves down first is 1/2."""
    p = up_down_target(n_up, n_down)
    rng = np.random.default_rng(1)
    n = 200_000
    streak, moved_down, open_ = np.zeros(n, int), np.zeros(n, bool), np.ones(n, bool)
    while open_.any():
        right = rng.random(n) < p
        streak = np.where(right, np.maximum(streak, 0) + 1, np.minimum(streak, 0) - 1)
        moved_down |= open_ & (streak >= n_down)
        open_ &= (streak < n_down) & (streak > -n_up)
    assert abs(moved_down.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)


def test_target_with_unequal_steps():
    """Garcia-Perez (1998): 1-up 2-down with a step ratio down/up of 0.5488 targets 0.8035."""
    assert up_down_target(1, 2, 1 / 0.5488) == pytest.approx(0.8035, abs=5e-5)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75, 0.9])
def test_kaernbach_equilibrium(p):
    """Kaernbach (1991), Eq. 1: step_up p' = step_down p, so that the expected move at the target is 0."""
    rule = WeightedUpDown(level_start=0.0, steps=[1.0], target_proportion=p)
    assert rule.target_proportion == p
    after_right, after_wrong = rule.record(rule.init(2), np.array([True, False])).level
    assert p * after_right + (1 - p) * after_wrong == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", ["2-down", "2-up 3-down", "weighted 0.75"])
def test_exact_distribution_of_long_tracks_settles_where_the_chain_says(name):
    """Two chains, written apart: all tracks forward from the start, and the stationary one of this file."""
    rule = make(
        name, 1.0, n_reversals=120, max_trials=3000, threshold_from="last_n_reversals", threshold_n_reversals=10
    )
    assert track_distribution(rule, LISTENER).mean == pytest.approx(chain_threshold(rule, LISTENER, 1.0), abs=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_simulated_tracks_settle_where_the_chain_says(name):
    """4000 tracks, the last 20 of 60 reversals, 1-dB steps: within 4.5 standard errors of the exact value."""
    rule = make(name, 1.0, n_reversals=60, max_trials=5000, threshold_from="last_n_reversals", threshold_n_reversals=20)
    summary = run_tracks(rule, AFC(n_intervals=3), LISTENER, 4000, seed=11)
    exact = chain_threshold(rule, LISTENER, 1.0)
    assert np.all(summary.status == 1)
    error = summary.threshold.std() / np.sqrt(4000)
    assert error < 0.05  # dB: the test has the power to see a tenth of a step
    assert abs(summary.threshold.mean() - exact) < 4.5 * error


@pytest.mark.parametrize("name", RULES)
def test_small_steps_settle_at_the_target(name):
    """The chain's bias shrinks in proportion to the step, and its limit is the target level."""
    bias = [
        chain_threshold(make(name, step), LISTENER, step) - float(expected_threshold(LISTENER, make(name, step)))
        for step in (0.25, 0.125)
    ]
    # the bias is a s + b s**2 + ...: extrapolated to s = 0 it leaves 2 b s**2. From steps of 1 and 2 dB, b is at most
    # 0.04 per dB (weighted 0.5), which leaves 0.0013 dB; the rest of the bound is for higher terms
    assert abs(bias[1]) < 0.6 * abs(bias[0]) + 0.002
    assert abs(2 * bias[1] - bias[0]) < 0.002


def test_the_target_level_turns_with_the_direction():
    up = PsychometricFunction(threshold=14.0, slope=-0.1, guess_rate=1 / 3)
    rule = UpDown(level_start=13.0, steps=[1.0], n_down=2, harder=1)
    mirrored = UpDown(level_start=-13.0, steps=[1.0], n_down=2)
    assert expected_threshold(up, rule) == pytest.approx(-expected_threshold(LISTENER, mirrored), rel=1e-12)
    with pytest.raises(SpecError, match=r"slope = -0\.1 has the sign of harder = -1"):
        expected_threshold(up, mirrored)


def test_a_target_below_chance_is_refused():
    with pytest.raises(SpecError, match=r"never reaches the target proportion 0\.2929"):
        expected_threshold(LISTENER, UpDown(level_start=-13.0, steps=[1.0], n_up=2, n_down=1))
