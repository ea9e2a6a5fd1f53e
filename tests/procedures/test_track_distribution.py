"""Exact distributions of tracks and levels against tracks of the rules themselves and against analysis."""

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures import (
    AFC,
    Pest,
    PsychometricFunction,
    Status,
    TransformedWeightedUpDown,
    UpDown,
    WeightedUpDown,
    level_distribution,
    track_distribution,
)
from psysim.testing import run_tracks

LISTENER = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
START = {"level_start": -4.0, "steps": [4.0, 2.0, 1.0]}
N_TRACKS = 20_000

RULES = {
    "2-down": UpDown(n_down=2, **START),
    "3-down": UpDown(n_down=3, **START),
    "2-up 3-down": UpDown(n_up=2, n_down=3, **START),
    "weighted": WeightedUpDown(target_proportion=0.75, **START),
    "transformed and weighted, 9:7": TransformedWeightedUpDown(target_proportion=0.75, n_down=2, **START),
    "transformed and weighted, no simple ratio": TransformedWeightedUpDown(target_proportion=0.85, n_down=3, **START),
    "limits that end tracks": UpDown(n_down=2, level_min=-16.0, level_max=0.0, limit_moves=1, **START),
    "limits, no reversals there": UpDown(
        n_down=2, level_min=-15.5, level_max=-3.0, limit_moves=20, reversals_at_limit=False, **START
    ),
    "held at a limit": UpDown(n_down=2, level_min=-12.0, limit_trials=3, **START),
    "n trials": UpDown(n_down=2, stop="trials", n_trials=50, **START),
    "n trials, odd numbers of reversals too": UpDown(
        n_down=2, stop="trials", n_trials=50, even_reversals=False, **START
    ),
    "both, upper reversals weighted": UpDown(
        n_down=2, stop="reversals_and_trials", n_trials=50, upper_weight=0.3, **START
    ),
    "one of both, 1-up 1-down first": UpDown(
        n_down=2,
        stop="reversals_or_trials",
        n_trials=45,
        n_reversals=7,
        even_reversals=False,
        initial_rule="one_up_one_down",
        **START,
    ),
    "last 4 reversals, few trials": UpDown(
        n_down=2,
        threshold_from="last_n_reversals",
        threshold_n_reversals=4,
        step_change="lower_reversal",
        max_trials=45,
        **START,
    ),
    "step after the move, at reversals": UpDown(
        step_change="at_reversals", step_change_at=[1, 4], step_change_timing="after_move", **START
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_exact_distribution_agrees_with_tracks(name: str) -> None:
    """20,000 tracks: mean, SD, trials, their SD and every status within 4.5 standard errors of the exact values."""
    rule = RULES[name]
    exact = track_distribution(rule, LISTENER)
    found = run_tracks(rule, AFC(n_intervals=3), LISTENER, N_TRACKS, seed=11)
    threshold = found.threshold[found.status == Status.CONVERGED]
    n = len(threshold)
    deviation = threshold - threshold.mean()
    kurtosis = np.mean(deviation**4) / np.mean(deviation**2) ** 2
    assert abs(threshold.mean() - exact.mean) < 4.5 * exact.std / np.sqrt(n)
    assert abs(threshold.std() - exact.std) < 4.5 * exact.std * np.sqrt((kurtosis - 1) / (4 * n))
    assert abs(found.n_trials.mean() - exact.n_trials) <= 4.5 * exact.n_trials_std / np.sqrt(N_TRACKS) + 1e-9
    for status in Status:
        share = exact.shares.get(status.name.lower(), 0.0)
        allowed = 4.5 * np.sqrt(share * (1 - share) / N_TRACKS) + 1e-3
        assert abs((found.status == status).mean() - share) < allowed
    counts = np.bincount(found.n_trials, minlength=len(exact.trial_probability)) / N_TRACKS
    distance = np.abs(np.cumsum(counts) - np.cumsum(exact.trial_probability)).max()
    assert distance < 2.2 / np.sqrt(N_TRACKS)  # Kolmogorov and Smirnov, p < 1e-4
    assert sum(exact.shares.values()) == pytest.approx(1.0, abs=1e-7)


def test_steps_in_db_are_in_db() -> None:
    """A multiplied level behaves as its logarithm does."""
    settings = {"n_down": 2, "steps": [4.0, 2.0, 1.0]}
    added = track_distribution(UpDown(level_start=-4.0, **settings), LISTENER)

    def proportion(level: np.ndarray) -> np.ndarray:
        return LISTENER(20 * np.log10(level))

    factors = track_distribution(UpDown(level_start=10 ** (-4 / 20), step_unit="db", **settings), proportion)
    assert 20 * np.log10(factors.mean) == pytest.approx(added.mean, abs=1e-9)
    assert (factors.std, factors.n_trials) == pytest.approx((added.std, added.n_trials), abs=1e-9)
    assert factors.in_db
    log_listener = PsychometricFunction(0.2, 0.1 / 0.2 * 20 / np.log(10), 1 / 3, shape="log_logistic")
    with_target = track_distribution(UpDown(level_start=10 ** (-4 / 20), step_unit="db", **settings), log_listener)
    assert with_target.bias == pytest.approx(20 * np.log10(with_target.mean / with_target.level_target))


@pytest.mark.parametrize("n_reversals", [2, 6, 12])
def test_answers_by_the_toss_of_a_coin(n_reversals: int) -> None:
    """P = 1/2 everywhere, 1-up 1-down, one step size: every trial after the first turns with probability 1/2.

    So there are 1 + NB(R, 1/2) trials, and the reversal levels are alternating sums of geometric stretches
    G_j (mean 2, variance 2): the mean of R of them is ``D sum_j (-1)**j (R - j) / R G_j``, D being the first direction.
    """
    rule = UpDown(n_down=1, level_start=3.0, steps=[1.0], n_reversals=n_reversals, max_trials=400)
    found = track_distribution(rule, lambda level: np.full(np.shape(level), 0.5))
    weight = (-1.0) ** np.arange(n_reversals) * (1 - np.arange(n_reversals) / n_reversals)
    assert found.mean == pytest.approx(3.0, abs=1e-9)
    assert found.std**2 == pytest.approx(2 * (weight**2).sum() + (2 * weight.sum()) ** 2, rel=1e-8)
    assert found.n_trials == pytest.approx(1 + 2 * n_reversals, rel=1e-9)
    assert found.n_trials_std**2 == pytest.approx(2 * n_reversals, rel=1e-8)
    assert np.isnan(found.level_target)


def test_a_listener_with_a_step_has_one_track() -> None:
    """Right above -9.5, wrong below: -4, -8, -12 W, -8 C, -10 W, -8 C, ... by hand, 2-down 1-up."""
    rule = UpDown(n_down=2, n_reversals=4, **START)
    found = track_distribution(rule, PsychometricFunction(threshold=-9.5, slope=1e6))
    track = run_tracks(rule, AFC(n_intervals=3), PsychometricFunction(threshold=-9.5, slope=1e6), 1)
    # -4 C C, -8 C C, -12 W (turn), -8 C C (turn, 2), -10 W (turn), -8 C C (turn, 1), then -9 C C, -10 W, -9 C C, ...
    assert found.mean == pytest.approx(-9.5, abs=1e-9)
    assert found.mean == pytest.approx(track.threshold[0], abs=1e-9)
    assert found.std == pytest.approx(0.0, abs=1e-6)
    assert found.n_trials_std == pytest.approx(0.0, abs=1e-6)
    assert found.n_trials == pytest.approx(track.n_trials[0], abs=1e-9)


@pytest.mark.parametrize(("level", "status"), [(1.0, "at_floor"), (0.0, "at_ceiling")])
def test_hopeless_listeners_end_at_the_limit(level: float, status: str) -> None:
    rule = UpDown(n_down=2, level_min=-20.0, level_max=0.0, **START)
    found = track_distribution(rule, lambda x: np.full(np.shape(x), level))
    assert found.shares == {status: pytest.approx(1.0)}
    assert np.isnan(found.mean)
    assert np.isnan(found.std)


def test_long_tracks_settle_at_levitts_targets() -> None:
    """Levitt (1971): far from the start the bias goes to 0 with the step: halves with it (2-down 1-up)."""
    bias = []
    for step in (1.0, 0.5):
        last = {"threshold_from": "last_n_reversals", "threshold_n_reversals": 10}
        rule = UpDown(n_down=2, level_start=-13.0, steps=[step], n_reversals=120, max_trials=3000, **last)
        bias.append(track_distribution(rule, LISTENER).bias)
    assert abs(bias[0]) < 0.06
    assert bias[1] == pytest.approx(bias[0] / 2, rel=0.02)


def test_levels_of_a_birth_and_death_process() -> None:
    """1-up 1-down: the share of level k is that of k - 1 times q(k - 1) / p(k) (Feller, detailed balance)."""
    rule = UpDown(n_down=1, level_start=-4.0, steps=[4.0, 1.0], level_min=-30.0, level_max=2.0)
    listener = PsychometricFunction(threshold=-14.0, slope=0.1)
    visited = level_distribution(rule, listener)
    level = np.arange(-30.0, 3.0)
    p = listener(level)
    share = np.cumprod(np.concatenate([[1.0], (1 - p[:-1]) / p[1:]]))
    share /= share.sum()
    np.testing.assert_allclose(visited.level, level, atol=1e-9)
    np.testing.assert_allclose(visited.probability, share, rtol=1e-7, atol=1e-12)
    assert visited.mean == pytest.approx(share @ level, abs=1e-9)
    assert visited.std == pytest.approx(np.sqrt(share @ (level - share @ level) ** 2), abs=1e-9)
    free = level_distribution(UpDown(n_down=1, level_start=-4.0, steps=[4.0, 1.0]), listener)
    assert (free.mean, free.std) == pytest.approx((visited.mean, visited.std), abs=1e-6)


def test_coin_tosses_visit_all_levels_alike() -> None:
    rule = UpDown(n_down=1, level_start=0.0, steps=[1.0], level_min=-5.0, level_max=5.0)
    visited = level_distribution(rule, lambda level: np.full(np.shape(level), 0.5))
    np.testing.assert_allclose(visited.probability, np.full(11, 1 / 11), rtol=1e-9)


@pytest.mark.parametrize(
    "rule",
    [
        UpDown(n_down=3, level_min=-18.0, level_max=-2.0, **START),
        WeightedUpDown(target_proportion=0.75, **START),
        TransformedWeightedUpDown(target_proportion=0.75, n_down=2, **START),
    ],
)
def test_levels_agree_with_long_tracks(rule: UpDown) -> None:
    """Levels of 4000 lanes after 150 trials at the smallest step: within 4.5 standard errors."""
    exact = level_distribution(rule, LISTENER)
    settings = rule.settings.model_dump(exclude_unset=True)
    long = type(rule)(**settings | {"steps": [1.0], "limit_trials": 10**6, "n_reversals": 150, "max_trials": 2000})
    state, rng = long.init(4000, level_start=-13.0), np.random.Generator(np.random.Philox(key=3))
    for _ in range(150):
        state = long.record(state, rng.random(4000) < LISTENER(state.level))
    assert not state.done.any()
    assert abs(state.level.mean() - exact.mean) < 4.5 * exact.std / np.sqrt(4000)
    assert state.level.std() == pytest.approx(exact.std, rel=0.06)


def test_levels_of_factors_are_geometric() -> None:
    settings = {"n_down": 2, "steps": [2.0]}
    added = level_distribution(UpDown(level_start=-4.0, **settings), LISTENER)
    factors = level_distribution(
        UpDown(level_start=10 ** (-4 / 20), step_unit="db", **settings), lambda x: LISTENER(20 * np.log10(x))
    )
    assert 20 * np.log10(factors.mean) == pytest.approx(added.mean, abs=1e-6)
    assert factors.std == pytest.approx(added.std, abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Pest(level_start=0.0, step_start=8.0, step_min=1.0), "Pest has no Markov chain"),
        (UpDown(level_start_range=4.0, **START), "level_start_range = 4"),
        (UpDown(threshold_statistic="median", **START), "threshold_statistic = 'median'"),
        (
            UpDown(stop="trials", n_trials=40, threshold_from="last_n_reversals", threshold_n_reversals=4, **START),
            "threshold_from = 'last_n_reversals'",
        ),
    ],
)
def test_rules_without_a_chain_name_the_simulation(rule: UpDown, words: str) -> None:
    with pytest.raises(SpecError, match="simulate_design") as error:
        track_distribution(rule, LISTENER)
    assert words in str(error.value)


def test_levels_that_nothing_brings_back() -> None:
    with pytest.raises(SpecError, match="level_min and level_max"):
        level_distribution(UpDown(n_down=1, level_start=0.0, steps=[1.0]), lambda x: np.full(np.shape(x), 0.5))


def test_levels_without_a_grid_are_refused() -> None:
    rule = TransformedWeightedUpDown(target_proportion=0.85, n_down=3, **START)
    with pytest.raises(SpecError, match="no simple fraction"):
        level_distribution(rule, LISTENER)


@pytest.mark.parametrize("listener", [lambda x: np.asarray(x), lambda _: 0.5])
def test_listeners_that_return_no_proportions(listener: object) -> None:
    with pytest.raises(SpecError, match="one proportion from 0 to 1 per level"):
        track_distribution(RULES["2-down"], listener)  # type: ignore[arg-type]


def test_several_listeners_are_refused() -> None:
    with pytest.raises(SpecError, match="one listener"):
        track_distribution(RULES["2-down"], PsychometricFunction(np.array([-14.0, -10.0]), 0.1))
