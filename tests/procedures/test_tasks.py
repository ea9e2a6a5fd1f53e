"""Tasks: what is correct, what is chance, and sensitivity."""

import numpy as np
import pytest
from scipy.stats import norm

from psysim.errors import SpecError
from psysim.procedures.tasks import AFC, NO_TARGET, YesNo, registry
from psysim.procedures.tasks_closed_set import Identification
from psysim.procedures.tasks_comparison import ABX, Matching, Oddity, SameDifferent

TASKS = [
    AFC(n_intervals=2),
    AFC(n_intervals=3),
    AFC(n_intervals=8),
    AFC(n_intervals=4, standard="first"),
    YesNo(p_target=0.5),
    YesNo(p_target=0.2),
    SameDifferent(),
    SameDifferent(rule="independent_observation"),
    ABX(),
    Oddity(),
    Oddity(rule="independent_observation"),
    Matching(),
    Identification(n_alternatives=20),
]


def test_names():
    assert {"afc", "yes_no"} <= set(registry.names())
    assert registry.get("afc")(n_intervals=4).n_intervals == 4
    assert registry.get("yes_no")().p_target == 0.5


def test_forced_choice():
    task = AFC(n_intervals=3)
    assert task.chance_level == pytest.approx(1 / 3)
    assert task.correct([0, 1, 2, -1], [0, 2, 2, -1]).tolist() == [True, False, True, False]
    assert task.valid([-1, 0, 2, 3]).tolist() == [False, True, True, False]


def test_yes_no():
    task = YesNo(p_target=0.5)
    assert (task.n_intervals, task.chance_level) == (1, 0.5)
    present, absent = 0, NO_TARGET
    response, target = [1, 0, 1, 0, -1], [present, present, absent, absent, absent]
    assert task.correct(response, target).tolist() == [True, False, False, True, False]
    assert task.valid([-1, 0, 1, 2]).tolist() == [False, True, True, False]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.settings}")
def test_answers_are_right_or_wrong_as_asked(task):
    rng = np.random.default_rng(2)
    target = task.draw_target(rng.random(5000))
    right = rng.random(5000) < 0.6
    response = task.answer(right, target, rng.random(5000))
    assert task.valid(response).all()
    np.testing.assert_array_equal(task.correct(response, target), right)


@pytest.mark.parametrize("m", [2, 3, 8])
def test_targets_and_wrong_answers_are_spread_evenly(m):
    """Counts of 40000 draws within 4.5 standard errors."""
    task, rng, n = AFC(n_intervals=m), np.random.default_rng(3), 40_000
    target = task.draw_target(rng.random(n))
    share = np.bincount(target, minlength=m) / n
    assert np.all(np.abs(share - 1 / m) < 4.5 * np.sqrt(1 / m * (1 - 1 / m) / n))
    wrong = (task.answer(np.zeros(n, bool), target, rng.random(n)) - target) % m
    share = np.bincount(wrong, minlength=m)[1:] / n
    assert np.all(np.abs(share - 1 / (m - 1)) <= 4.5 * np.sqrt(0.25 / n))


def test_targets_of_yes_no_come_as_often_as_asked():
    target = YesNo(p_target=0.2).draw_target((np.arange(1000) + 0.5) / 1000)
    assert np.count_nonzero(target == 0) == 200
    assert set(target.tolist()) == {0, NO_TARGET}


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.settings}")
def test_sensitivity(task):
    chance = 0.5 if isinstance(task, Matching) else task.chance_level  # matching: no answer is a guess
    assert task.proportion_correct(0.0) == pytest.approx(chance, abs=3e-11)
    d = np.linspace(0.1, 4, 9)
    np.testing.assert_allclose(task.d_prime(task.proportion_correct(d)), d, atol=1e-9)


def test_sensitivity_of_two_intervals_and_of_yes_no():
    assert AFC(n_intervals=2).d_prime(0.76) == pytest.approx(np.sqrt(2) * norm.ppf(0.76), rel=1e-12)
    assert YesNo().d_prime(0.76) == pytest.approx(2 * norm.ppf(0.76), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AFC(n_intervals=1), r"task\.n_intervals = 1 should be greater than or equal to 2"),
        (lambda: AFC(n_interval=3), r"task\.n_interval is not known.*Did you mean 'n_intervals'"),
        (lambda: YesNo(p_target=1.0), r"task\.p_target = 1\.0 should be less than 1"),
    ],
)
def test_impossible_settings(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_a_standard_before_the_alternatives():
    task = AFC(n_intervals=3, standard="first")
    assert (task.n_alternatives, task.chance_level) == (2, 0.5)
    assert set(task.draw_target((np.arange(100) + 0.5) / 100)) == {1, 2}
    assert task.valid([0, 1, 2, 3]).tolist() == [False, True, True, False]
    assert task.d_prime(0.76) == pytest.approx(np.sqrt(2) * norm.ppf(0.76), rel=1e-12)
    with pytest.raises(SpecError, match="leaves one alternative"):
        AFC(n_intervals=2, standard="first")
