"""The observer of CASP: its two response rules, its settings, and a track that homes in on the criterion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from psysim.errors import CalibrationError, SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer, run
from psysim.experiments.sounds import Sounds
from psysim.models import Dau1997, Jepsen2008, King2019, Paulick2024
from psysim.observers import (
    Casp,
    Trial,
    band_mask,
    criterion_difference,
    interval_difference,
    proportion_correct,
    region_of_interest,
)
from psysim.observers.casp_stage import NOISE_VARIANCE, correlation_weights, moving_average
from psysim.procedures.sdt import proportion_correct_mafc
from psysim.procedures.tasks import AFC
from psysim.rng import Keys

# Level discrimination of a tone with the real model, six of its channels: fewer channels, less noise
EXPERIMENT = """
title = "Level discrimination, small"
[stimulus]
kind = "tone"
frequency_hz = 1000.0
level_db_spl = 60.0
duration_s = 0.1
ramp_s = 0.01
[task]
kind = "afc"
n_intervals = 3
[procedure]
tracks = "level_increment_db"
level_start = 5.0
n_up = 1
n_down = 2
steps = [1.0, 0.25, 0.0625]
n_reversals = 6
[[observers]]
decision = "casp"
model = "paulick2024"
n_down = 2
template_tokens = 1
internal_noise_var = 1.0
model_options = { flow = 700.0, fhigh = 2000.0, n_channels = 6 }
[run]
n_tracks = 2
seed = 3
fs = 22050
"""


def casp(variant: str = "paulick2024", **settings: object) -> Casp:
    model = Paulick2024(fs=22050, flow=900.0, fhigh=1200.0, n_channels=2, variant=variant)
    return Casp(Casp.Settings(**({"n_down": 2} if settings.get("response_rule") != "drawn" else {}), **settings), model)


def trial(target: torch.Tensor, n_intervals: int) -> Trial:
    n = len(target)
    keys = Keys.make(seed=8, trial=torch.arange(n)[:, None], interval=torch.arange(n_intervals)[None])
    zero = torch.zeros(n, dtype=torch.int64)
    return Trial(torch.zeros(n, n_intervals, 1), zero, zero.double(), target, keys, AFC(n_intervals=n_intervals))


def hears(observer: Casp, values: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the observer have these decision variables whatever the sounds."""
    std = torch.full_like(values, observer.internal_noise_std)
    monkeypatch.setattr(observer, "evaluate", lambda *_: (values, std))
    observer._criterion = torch.zeros(1, dtype=torch.float64)


class TestExpectedRule:
    @pytest.mark.parametrize("variant", ["paulick2024", "jepsen2008"])
    @pytest.mark.parametrize("n_intervals", [2, 3, 4])
    def test_correct_above_the_published_criterion(
        self, n_intervals: int, variant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        observer = casp(variant)
        criterion = criterion_difference(n_intervals, 2, NOISE_VARIANCE[variant])
        n = 600
        target = torch.arange(n) % n_intervals
        values = torch.zeros(n, n_intervals, dtype=torch.float64)
        above = torch.arange(n) % 2 == 0
        values[torch.arange(n), target] = criterion + 1e-3 * torch.where(above, 1.0, -1.0).double()
        hears(observer, values, monkeypatch)
        answer = observer.respond(trial(target, n_intervals))
        assert torch.equal(answer.choice == target, above)
        assert torch.equal(answer.decision_variable, values)  # nothing is drawn on them
        wrong = ((answer.choice - target) % n_intervals)[~above]  # spread over the others
        assert set(wrong.tolist()) == set(range(1, n_intervals))

    def test_a_value_that_is_no_number_is_not_correct(self, monkeypatch: pytest.MonkeyPatch) -> None:
        observer = casp()
        values = torch.tensor([[0.0, 50.0, torch.nan]], dtype=torch.float64)
        hears(observer, values, monkeypatch)
        assert int(observer.respond(trial(torch.tensor([1]), 3)).choice) != 1

    def test_a_track_homes_in_on_the_criterion(self) -> None:
        """The same level by root finding on the decision variable: the last step is 0.0625 dB."""
        spec = loads(EXPERIMENT)
        result = run(spec)
        observer, sounds = make_observer(spec, 0), Sounds(spec)
        observer.prepare(sounds)
        zero = torch.zeros(1, dtype=torch.int64)
        criterion = criterion_difference(3, 2, 1.0)

        def excess(level: float) -> float:
            intervals = torch.stack([sounds.reference(zero, zero), sounds.target(zero, zero, level)], dim=1)
            with torch.no_grad():
                values = observer.decision_variable(intervals, zero)
            return float(interval_difference(values, torch.tensor([1]))) - criterion

        root = brentq(excess, 0.0, 5.0, xtol=1e-4)
        np.testing.assert_allclose(result["threshold"], root, rtol=0, atol=0.0625)
        assert np.isfinite(result["threshold"]).all()

    def test_one_pass_gives_the_tracks_of_the_representation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one_pass = run(loads(EXPERIMENT))
        monkeypatch.setattr(Paulick2024, "fused", lambda *_: None)
        in_memory = run(loads(EXPERIMENT))
        np.testing.assert_array_equal(one_pass["threshold"], in_memory["threshold"])
        np.testing.assert_allclose(one_pass["decision_variable"], in_memory["decision_variable"], rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (('kind = "afc"\nn_intervals = 3', 'kind = "afc"\nn_intervals = 5'), r"n_intervals = 5.*Allowed: 2, 3, 4"),
            (('kind = "afc"\nn_intervals = 3', 'kind = "yes_no"'), r"n_intervals = 1.*Allowed: 2, 3, 4.*drawn"),
            (("n_up = 1\nn_down = 2", "n_up = 1\nn_down = 3"), r"n_down = 2.*70\.71 %.*79\.37 %"),
            (("n_up = 1\nn_down = 2", "n_up = 2\nn_down = 2"), r"n_down = 2.*1-up 2-down procedure"),
        ],
    )
    def test_a_task_or_a_procedure_that_does_not_fit_is_refused(self, change: tuple[str, str], message: str) -> None:
        with pytest.raises(SpecError, match=message):
            run(loads(EXPERIMENT.replace(*change)))


class TestDrawnRule:
    @pytest.mark.parametrize("n_intervals", [2, 3, 4, 6])
    def test_proportion_correct(self, n_intervals: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is the m-AFC integral, with two intervals the published probability (A = 0.707 for 2**-0.5)."""
        observer = casp(response_rule="drawn")
        n, difference = 40_000, 8.0
        target = torch.arange(n) % n_intervals
        values = torch.zeros(n, n_intervals, dtype=torch.float64)
        values[torch.arange(n), target] = difference
        hears(observer, values, monkeypatch)
        found = float((observer.respond(trial(target, n_intervals)).choice == target).double().mean())
        expected = float(proportion_correct_mafc(difference / 40**0.5, n_intervals))
        assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5)
        if n_intervals <= 4:
            published = float(proportion_correct(torch.tensor(difference), n_intervals, 40.0))
            assert published == pytest.approx(expected, abs={2: 1e-4, 3: 2.8e-3, 4: 6.7e-3}[n_intervals])

    def test_runs_from_a_file(self) -> None:
        result = run(loads(EXPERIMENT.replace("n_down = 2\ntemplate", 'response_rule = "drawn"\ntemplate')))
        assert np.isfinite(result["threshold"]).all()
        assert np.unique(result["threshold"]).size > 1


class TestSettings:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("", r"n_down is missing.*response_rule = 'drawn'"),
            ('n_down = 2\nresponse_rule = "drawn"', r"n_down has no meaning"),
            ("n_down = 0", r"greater than or equal to 1"),
            ('n_down = 2\nresponse_rule = "probable"', r"'expected' or 'drawn'"),
            ('n_down = 2\ncorrelation = "pearson"', r"'published', 'covariance' or 'product'"),
            ('n_down = 2\nregion = "auto"', r"'automatic' or 'all'"),
            ("n_down = 2\nn_donw = 2", r"Did you mean 'n_down'"),
        ],
    )
    def test_a_wrong_one_is_found_in_the_file(self, line: str, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            loads(EXPERIMENT.replace("n_down = 2\ntemplate", f"{line}\ntemplate"))

    def test_a_variance_is_positive(self) -> None:
        with pytest.raises(SpecError, match="a number above 0, or 'published'"):
            loads(EXPERIMENT.replace("internal_noise_var = 1.0", "internal_noise_var = 0.0"))

    @pytest.mark.parametrize("variant", NOISE_VARIANCE)
    def test_published_ones_belong_to_the_model(self, variant: str) -> None:
        observer = casp(variant)
        assert observer.internal_noise_std**2 == pytest.approx({"paulick2024": 40.0, "jepsen2008": 130.0}[variant])
        assert observer.remove_means == (variant == "paulick2024")
        assert observer.calibration["status"] == "published internal noise"
        assert casp(variant, correlation="product").remove_means is False
        assert casp(variant, internal_noise_var=9.0).calibration["status"] == "given"

    def test_the_2008_model_has_those_of_2008(self) -> None:
        model = Jepsen2008(fs=22050, flow=900.0, fhigh=1200.0, n_channels=2)
        assert Casp(Casp.Settings(n_down=2), model).internal_noise_var == 130.0

    def test_other_models_have_no_published_ones(self) -> None:
        model = Dau1997(fs=16000, flow=900.0, fhigh=1100.0)
        with pytest.raises(SpecError, match=r"correlation = 'published'.*Dau1997.*'covariance' or 'product'"):
            Casp(Casp.Settings(n_down=2), model)
        with pytest.raises(SpecError, match=r"internal_noise_var = 'published'.*Dau1997.*a number above 0"):
            Casp(Casp.Settings(n_down=2, correlation="product"), model)

    def test_a_region_needs_an_adaptation_stage(self) -> None:
        model = King2019(fs=16000, basef=1000.0)
        settings = {"n_down": 2, "correlation": "product", "internal_noise_var": 1.0}
        spec = loads(EXPERIMENT)
        with pytest.raises(SpecError, match=r"King2019 has none.*region = 'all'"):
            Casp(Casp.Settings(**settings), model).prepare(Sounds(spec))

    def test_all_channels(self) -> None:
        spec = loads(EXPERIMENT)
        observer = make_observer(spec, 0)
        everything = Casp(observer.settings.model_copy(update={"region": "all"}), observer.model)
        everything.prepare(Sounds(spec))
        assert everything.regions == [None]
        taken = everything.templates[0].abs().amax(-1) > 0
        assert torch.equal(taken, band_mask(everything.fc, everything.mfc) & everything.valid)


class TestStage:
    """The arithmetic beyond the golden vectors."""

    def test_weights_make_the_correlation_with_means_removed_from_both(self) -> None:
        generator = torch.Generator().manual_seed(2)
        x, template = torch.randn(2, 5, 3, 40, dtype=torch.float64, generator=generator)
        mask = torch.rand(5, 3, generator=generator) > 0.3
        found = (x * correlation_weights(template, mask, True)).sum((0, 2))
        for m in range(3):
            a, b = x[mask[:, m], m], template[mask[:, m], m]
            assert float(found[m]) == pytest.approx(float(((a - a.mean()) * (b - b.mean())).sum()), rel=1e-12)

    def test_the_largest_of_several_non_targets_counts(self) -> None:
        values = torch.tensor([[3.0, 10.0, 5.0, -1.0], [-4.0, 6.0, -3.0, -2.0], [9.0, 2.0, 0.0, 0.0]])
        assert interval_difference(values, torch.tensor([1, 1, 1])).tolist() == [5.0, 6.0, 0.0]

    def test_a_moving_average_is_at_least_one_sample(self) -> None:
        x = torch.tensor([1.0, 5.0, 2.0])
        assert torch.equal(moving_average(x, 1.0), x.double())
        with pytest.raises(SpecError, match="width"):
            moving_average(x, 0.5)

    def test_the_region_is_at_least_an_octave_and_a_half(self) -> None:
        fc = torch.tensor([250.0, 500.0, 1000.0, 2000.0, 4000.0])
        difference = torch.zeros(5, 800)
        difference[2] = 1.0
        assert region_of_interest(difference, fc, 8000.0) == (1, 3)
        with pytest.raises(SpecError, match="no region of interest"):
            region_of_interest(torch.zeros(5, 800), fc, 8000.0)
        with pytest.raises(SpecError, match=r"\(F, T\)"):
            region_of_interest(difference[:4], fc, 8000.0)

    def test_wrong_numbers_are_refused(self) -> None:
        with pytest.raises(SpecError, match="Allowed: 2, 3, 4"):
            criterion_difference(5, 2, 40.0)
        with pytest.raises(SpecError, match="n_down = 0"):
            criterion_difference(3, 0, 40.0)
        with pytest.raises(SpecError, match="noise_variance"):
            proportion_correct(torch.zeros(1), 3, 0.0)


def test_a_target_that_cannot_be_told_from_the_reference_has_no_template() -> None:
    spec = loads(EXPERIMENT, overrides={"procedure.level_start": 0.0})
    observer = make_observer(spec, 0)
    with pytest.raises((SpecError, CalibrationError), match=r"do not differ|equals"):
        observer.prepare(Sounds(spec))
