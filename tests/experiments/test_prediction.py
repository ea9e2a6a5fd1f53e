"""Thresholds without tracks: against analysis, against Monte Carlo, against adaptive tracks of the same observer."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

import psysim
from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.observers import Observer, Response
from psysim.observers import registry as observers
from psysim.observers.expectation import DecisionSamples, forced_choice, yes_no
from psysim.procedures import d_prime_mafc, proportion_correct_mafc
from psysim.results import STATUS, is_predicted, load, thresholds, validate
from psysim.results.store import save

SPEC = """
title = "Increments of a sound's level"
[stimulus]
kind = "{kind}"
{stimulus}
duration_s = 0.02
ramp_s = 0.002
[conditions]
level_db_spl = [50.0, 60.0]
[task]
{task}
[procedure]
kind = "up_down"
tracks = "level_increment_db"
n_up = 1
n_down = 2
level_start = 6.0
level_min = {level_min}
level_max = 20.0
steps = [2.0, 1.0, 0.5]
n_reversals = 8
[[observers]]
decision = "{decision}"
[run]
n_tracks = 60
seed = 3
fs = 8000
"""
TONE, NOISE = "frequency_hz = 1000.0", "low_hz = 500.0\nhigh_hz = 1500.0"


class LevelListener(Observer):
    """Decision variable: the level of the sound in dB; internal noise of 2 dB."""

    needs_model = False
    heard: ClassVar[list[int]] = []

    def decision_variable(self, intervals, condition):
        type(self).heard.append(intervals.shape[0] * intervals.shape[1])
        return psysim.units.pascal_to_db_spl(intervals.to(torch.float64).square().mean(-1).sqrt())

    def noise_std(self, condition):
        return torch.full(condition.shape, 2.0, dtype=torch.float64)

    def criterion(self, condition):
        return torch.tensor([50.0, 60.0], dtype=torch.float64)[condition] + 0.7


class SilentListener(LevelListener):
    """Nothing it hears is a number."""

    def decision_variable(self, intervals, condition):
        return torch.full(intervals.shape[:2], math.nan)


class OwnRule(LevelListener):
    """Decides in its own way and does not say what follows from it."""

    def respond(self, trial):
        return Response(torch.zeros_like(trial.target), torch.zeros(trial.keys.shape, dtype=torch.float64))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    entries = {"level_listener": LevelListener, "silent_listener": SilentListener, "own_rule": OwnRule}
    monkeypatch.setattr(observers, "_items", {**{name: observers.get(name) for name in observers.names()}, **entries})
    LevelListener.heard.clear()


def spec(kind="tone", stimulus=TONE, task='kind = "afc"\nn_intervals = 3', decision="level_listener", level_min=0.0):
    return loads(SPEC.format(kind=kind, stimulus=stimulus, task=task, decision=decision, level_min=level_min))


def jackknifed(samples, rule):
    """The rule's proportion correct without each token in turn, the slow way."""
    found = []
    for k in range(len(samples.target)):
        keep = torch.arange(len(samples.target)) != k
        parts = (samples.target, samples.target_std, samples.reference, samples.reference_std)
        found.append(rule(DecisionSamples(*(part[keep] for part in parts), samples.exchangeable, samples.criterion))[0])
    return torch.stack(found)


def tokens(n, places=1, exchangeable=True, seed=0):
    rng = np.random.default_rng(seed)
    target, reference = rng.normal(1.5, 1.0, n), rng.normal(0.0, 1.2, (n, places))
    draw = [target, rng.uniform(0.5, 1.5, n), reference, rng.uniform(0.5, 1.5, (n, places))]
    return DecisionSamples(*(torch.as_tensor(part) for part in draw), exchangeable, 0.4)


# ------------------------------------------------------------ the expected proportion correct
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("d_prime", [0.0, 0.7, 2.0])
def test_one_token_is_the_integral_of_signal_detection_theory(m, d_prime):
    one, d = torch.ones(1, dtype=torch.float64), torch.tensor([d_prime], dtype=torch.float64)
    for exchangeable, places in ((True, 1), (False, m - 1)):
        zero = torch.zeros((1, places), dtype=torch.float64)
        proportion, _ = forced_choice(DecisionSamples(d, one, zero, zero + 1, exchangeable), m)
        assert float(proportion) == pytest.approx(float(proportion_correct_mafc(d_prime, m)), abs=1e-9)


@pytest.mark.parametrize(("m", "exchangeable"), [(2, True), (3, True), (4, True), (2, False), (3, False)])
def test_tokens_with_noise_against_counted_answers(m, exchangeable):
    samples = tokens(12, 1 if exchangeable else m - 1, exchangeable)
    rng, n = np.random.default_rng(1), 400_000
    k = rng.integers(0, 12, n)
    if exchangeable:  # any token but the target's own
        others = (k[:, None] + rng.integers(1, 12, (n, m - 1))) % 12
        reference, std = (part.numpy()[others, 0] for part in (samples.reference, samples.reference_std))
    else:
        reference, std = (part.numpy()[k] for part in (samples.reference, samples.reference_std))
    target = samples.target.numpy()[k] + samples.target_std.numpy()[k] * rng.standard_normal(n)
    right = target > (reference + std * rng.standard_normal((n, m - 1))).max(1)
    proportion, _ = forced_choice(samples, m)
    assert float(proportion) == pytest.approx(right.mean(), abs=5 * math.sqrt(0.25 / n))  # 5 standard errors


@pytest.mark.parametrize(("m", "exchangeable"), [(2, True), (3, True), (2, False), (3, False)])
def test_the_jackknife_is_that_of_leaving_out_a_token(m, exchangeable):
    samples = tokens(7, 1 if exchangeable else m - 1, exchangeable)
    torch.testing.assert_close(forced_choice(samples, m)[1], jackknifed(samples, lambda s: forced_choice(s, m)))


def test_without_internal_noise_the_larger_value_wins_and_ties_are_guesses():
    target, reference = torch.tensor([1.0, 5.0, 3.0]).double(), torch.tensor([[2.0], [2.0], [2.0]]).double()
    none = torch.zeros(3, dtype=torch.float64)
    assert float(forced_choice(DecisionSamples(target, none, reference, none[:, None]), 2)[0]) == pytest.approx(2 / 3)
    tied = DecisionSamples(target[:1], none[:1], target[:1, None], none[:1, None])
    assert float(forced_choice(tied, 3)[0]) == pytest.approx(1 / 3)


def test_yes_no_by_hand():
    samples = tokens(9)
    z = [(samples.target - 0.4) / samples.target_std, (0.4 - samples.reference[:, 0]) / samples.reference_std[:, 0]]
    by_hand = [float(torch.distributions.Normal(0.0, 1.0).cdf(part).mean()) for part in z]
    proportion, without = yes_no(samples, 0.3)
    assert float(proportion) == pytest.approx(0.3 * by_hand[0] + 0.7 * by_hand[1])
    torch.testing.assert_close(without, jackknifed(samples, lambda s: yes_no(s, 0.3)))


# ------------------------------------------------------------ thresholds
def test_a_listener_of_levels_has_the_threshold_of_its_noise():
    experiment = spec()
    result = psysim.predict_threshold(experiment, simulated_tracks=400)
    expected = 2.0 * float(d_prime_mafc(2**-0.5, 3))  # noise of 2 dB: exact
    np.testing.assert_allclose(result["threshold"].values.ravel(), expected, atol=0.02)  # a line in z over 0.5 dB
    assert (result["threshold_sem"].values == 0).all()  # the same sound every time
    assert (result["status"].values == STATUS.index("converged")).all()
    assert int(result["model_evaluations"].sum()) == sum(LevelListener.heard)
    assert int(result["model_evaluations"].max()) < 20


def test_yes_no_threshold_of_the_same_listener():
    result = psysim.predict_threshold(spec(task='kind = "yes_no"'), simulated_tracks=50)
    x = float(result["threshold"].values[0, 0, 0])
    # the level in dB of the gated tone is a constant below its nominal level: both sides of the criterion shift
    gate = (
        psysim.units.pascal_to_db_spl(torch.as_tensor(_sound(spec()).square().mean().sqrt(), dtype=torch.float64))
        - 50.0
    )
    hit, rejection = (
        torch.special.ndtr(torch.as_tensor(v, dtype=torch.float64))
        for v in ((x + gate - 0.7) / 2.0, (0.7 - gate) / 2.0)
    )
    assert float(0.5 * (hit + rejection)) == pytest.approx(2**-0.5, abs=0.003)


def _sound(experiment):
    from psysim.experiments.sounds import Sounds

    return Sounds(experiment, dtype=torch.float64).reference(torch.tensor([0]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("kind", "stimulus", "task"),
    [
        ("noise", NOISE, 'kind = "afc"\nn_intervals = 3'),
        ("noise", NOISE, 'kind = "afc"\nn_intervals = 2\nrove_db = 6.0\nrove_per = "trial"'),
        ("tone", TONE, 'kind = "afc"\nn_intervals = 3\nrove_db = 6.0'),
        ("noise", NOISE, 'kind = "afc"\nn_intervals = 3\nnoise = "frozen"'),
    ],
)
def test_tracks_of_the_same_observer_agree(kind, stimulus, task):
    experiment = spec(kind, stimulus, task)
    predicted = psysim.predict_threshold(experiment, n_tokens=120)
    measured = thresholds(psysim.run(experiment))
    error = np.hypot(measured["threshold_sem"], predicted["threshold_sem"].values.ravel())
    difference = measured["threshold"] - predicted["track_mean"].values.ravel()
    assert (difference.abs() < 4 * error + 0.02).all()
    spread = measured["threshold_sd"] / predicted["track_sd"].values.ravel()
    assert spread.between(0.6, 1.6).all()  # 60 tracks: the standard error of an SD is 9 %


def test_random_sounds_need_tokens_and_have_an_error_that_shrinks_with_them():
    few, many = (
        psysim.predict_threshold(spec("noise", NOISE), n_tokens=n, simulated_tracks=10)["threshold_sem"].values
        for n in (20, 180)
    )
    assert (few > 0).all()
    assert 2.0 < float((few / many).mean()) < 4.5  # sqrt(9) = 3


def test_limits_and_unusable_output_have_their_status():
    held = psysim.predict_threshold(spec(level_min=5.0), simulated_tracks=10)  # easier than threshold everywhere
    assert (held["status"].values == STATUS.index("at_floor")).all()
    assert np.isnan(held["threshold"].values).all()
    broken = psysim.predict_threshold(spec(decision="silent_listener"), simulated_tracks=10)
    assert (broken["status"].values == STATUS.index("invalid_output")).all()


def test_what_cannot_be_predicted_says_why():
    with pytest.raises(SpecError, match="decides in its own way"):
        psysim.predict_threshold(spec(decision="own_rule"))
    with pytest.raises(SpecError, match="n_tokens = 2 must be a whole number of at least 3"):
        psysim.predict_threshold(spec(), n_tokens=2)
    text = SPEC.format(kind="tone", stimulus=TONE, task='kind = "afc"', decision="simulated_listener", level_min=0.0)
    listener = loads(text.replace('_listener"', '_listener"\nthreshold = 3.0'))
    with pytest.raises(SpecError, match="given psychometric function"):
        psysim.predict_threshold(listener)


def test_the_result_is_stored_compared_and_reported_as_predicted(tmp_path):
    predicted = validate(psysim.predict_threshold(spec("noise", NOISE), n_tokens=20, simulated_tracks=50))
    assert is_predicted(predicted)
    save(predicted, tmp_path / "predicted.zarr")
    table = thresholds(load(tmp_path / "predicted.zarr"))
    half = 1.96 * predicted["threshold_sem"].values.ravel()
    np.testing.assert_allclose(table["ci_high"] - table["threshold"], half, rtol=1e-3)
    page = psysim.report(tmp_path / "predicted.zarr", tmp_path / "page.html").read_text(encoding="utf-8")
    assert "predicted without tracks" in page
    assert "up-down" not in (tmp_path / "page_files" / "methods.txt").read_text()
