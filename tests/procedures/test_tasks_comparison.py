"""Comparison tasks, matching and closed sets: arrangements, decisions, confusion matrices, category boundaries."""

import numpy as np
import pytest
from scipy.special import ndtr

from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.spec import SpecProblems
from psysim.procedures import PsychometricFunction, UpDown
from psysim.procedures.tasks_closed_set import (
    Identification,
    category_levels,
    confusion_matrix,
    transmitted_information,
)
from psysim.procedures.tasks_comparison import ABX, Matching, Oddity, SameDifferent
from psysim.testing import run_tracks

N = 200_000


@pytest.mark.parametrize("task", [SameDifferent(), ABX(), Oddity()], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("d", [0.0, 1.0, 2.5])
def test_trials_decisions_and_scores_give_the_published_proportion_correct(task, d):
    """From the drawing of trials to their scores: the share of correct answers is the integral's, within 4 errors."""
    rng = np.random.default_rng(21)
    target = task.draw_target(rng.random(N))
    response = task.decide(rng.standard_normal((N, task.n_intervals)) + d * task.has_target(target), d_prime=d)
    assert task.valid(response).all()
    expected = float(task.proportion_correct(d))
    assert task.correct(response, target).mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / N))


def test_arrangements_are_equally_likely_and_balanced():
    for task in (SameDifferent(), ABX(), Oddity()):
        target = task.draw_target((np.arange(600) + 0.5) / 600)
        assert np.ptp(np.bincount(target, minlength=len(task.arrangements))) == 0
        assert task.has_target(target).mean() == 0.5  # each sound is as frequent as the other
        assert np.ptp(np.bincount(np.asarray(task.answers)[target])) == 0


def test_which_sounds_are_heard_and_what_is_correct():
    assert SameDifferent().has_target([0, 1, 2, 3]).tolist() == [[0, 0], [1, 1], [0, 1], [1, 0]]
    heard = ABX().has_target([0, 1, 2, 3])
    assert (heard[:, 0] != heard[:, 1]).all()
    assert ABX().correct([0, 1, 0, 1], [0, 1, 2, 3]).all()
    assert ((heard[:, 2] == heard[:, 0]) == (np.asarray(ABX.answers) == 0)).all()
    odd = Oddity().has_target(np.arange(6))
    for row, answer in zip(odd, Oddity.answers, strict=True):
        assert (row != row[answer]).sum() == 2


def test_decisions_need_what_they_are_made_of():
    with pytest.raises(SpecError, match="depends on d_prime"):
        SameDifferent().decide(np.zeros((2, 2)))
    with pytest.raises(SpecError, match=r"shape \(B, 3\)"):
        ABX().decide(np.zeros((2, 2)))


def test_a_simple_staircase_finds_the_point_of_subjective_equality():
    """1-up 1-down on "the variable was louder": at 50 %, but for what the start from above leaves in 40 reversals."""
    rule = UpDown(n_up=1, n_down=1, level_start=72.0, steps=[4.0, 2.0, 1.0], n_reversals=40)
    listener = PsychometricFunction(61.5, 0.15, 0.0, 0.0)
    found = run_tracks(rule, Matching(standard="first"), listener, 2000, seed=4).threshold
    assert np.nanmean(found) == pytest.approx(61.5, abs=0.15)


def test_the_standard_is_first_or_anywhere():
    uniform = (np.arange(100) + 0.5) / 100
    assert set(Matching(standard="first").draw_target(uniform)) == {1}
    assert np.bincount(Matching(standard="random").draw_target(uniform)).tolist() == [50, 50]


def test_identification_of_orthogonal_signals():
    task, d, m, n = Identification(n_alternatives=12), 1.7, 12, 100_000
    rng = np.random.default_rng(8)
    target = task.draw_target(rng.random(n))
    x = rng.standard_normal((n, m))
    x[np.arange(n), target] += d
    correct = task.correct(x.argmax(axis=1), target).mean()
    assert correct == pytest.approx(float(task.proportion_correct(d)), abs=4 * np.sqrt(0.25 / n))


def test_confusions_are_counted_per_lane():
    rng = np.random.default_rng(9)
    target, response = rng.integers(0, 5, (2, 3, 40))
    target[1, 30:] = response[1, 30:] = -1
    counts = confusion_matrix(target, response, 5)
    assert counts.shape == (3, 5, 5)
    for lane in range(3):
        for i in range(5):
            for j in range(5):
                assert counts[lane, i, j] == np.sum((target[lane] == i) & (response[lane] == j))
    assert counts[1].sum() == 30
    with pytest.raises(SpecError, match="not in a set of 4"):
        confusion_matrix(target, response, 4)
    with pytest.raises(SpecError, match="same shape"):
        confusion_matrix(target, response[:2], 5)


def test_transmitted_information():
    assert float(transmitted_information(np.eye(8) * 5)) == pytest.approx(3.0)
    assert float(transmitted_information(np.ones((8, 8)))) == pytest.approx(0.0, abs=1e-12)
    p = 0.11  # binary symmetric channel: 1 - H(p)
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    assert float(transmitted_information([[1 - p, p], [p, 1 - p]])) == pytest.approx(1 - entropy)


def test_category_boundaries_are_those_of_the_listener():
    boundaries = np.array([30.0, 48.0, 60.0, 77.0])
    levels = np.tile(np.arange(0.0, 111.0, 5.0), 400)
    rng = np.random.default_rng(10)
    judged = (levels[:, None] + 4.0 * rng.standard_normal((len(levels), 1)) > boundaries).sum(axis=1)
    np.testing.assert_allclose(category_levels(levels, judged, 5), boundaries, atol=0.5)
    upper = levels >= 40
    found = category_levels(levels[upper], judged[upper], 5)
    assert np.isnan(found[0])  # the lowest category is not reached
    assert ndtr(-2.0) < 0.05  # 40 dB is two standard deviations below the second boundary
    np.testing.assert_allclose(found[2:], boundaries[2:], atol=0.5)
    with pytest.raises(SpecError, match="from 0 to 3"):
        category_levels(levels, judged, 4)


@pytest.mark.parametrize("kind", ["abx", "same_different", "oddity"])
def test_experiments_say_which_tasks_they_can_run(kind):
    text = f"""
title = "x"
[stimulus]
kind = "am_noise"
[task]
kind = "{kind}"
[procedure]
tracks = "depth_db"
level_start = -4.0
steps = [2.0]
[[observers]]
decision = "simulated_listener"
threshold = -15.0
slope = 0.06
"""
    able = "afc, identification, matching, yes_no"
    with pytest.raises(SpecProblems, match=rf"cannot be run in an experiment yet.*Experiments run: {able}"):
        loads(text)
