"""The observer with two templates: golden correlations, its rules by hand, and what it does in experiments."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.errors import CalibrationError, SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer, run
from psysim.experiments.sounds import Sounds
from psysim.observers import TwoTemplates, two_template_correlations, two_template_gain

DATA = Path(__file__).parents[1] / "reference" / "data"

DISCRIMINATION = """
title = "Level discrimination, small"
[stimulus]
kind = "{kind}"
{stimulus}
duration_s = 0.06
ramp_s = 0.005
[task]
{task}
[procedure]
tracks = "{tracks}"
level_start = {start}
n_up = 1
n_down = 2
steps = [2.0, 1.0]
n_reversals = 4
max_trials = 60
[[observers]]
decision = "two_templates"
model = "dau1997"
model_options = {{ flow = 900.0, fhigh = 1100.0, dtype = "float64" }}
{settings}
[run]
n_tracks = 4
seed = 3
fs = 8000
"""


def experiment(task: str = "kind = 'yes_no'", settings: str = "", kind: str = "am_noise") -> str:
    """Return an experiment with running noise (am_noise) or without (tone)."""
    stimulus, tracks, start = "level_db_spl = 65.0\nrate_hz = 16.0", "depth_db", 0.0
    if kind == "tone":
        stimulus, tracks, start = "frequency_hz = 1000.0\nlevel_db_spl = 60.0", "level_increment_db", 6.0
    return DISCRIMINATION.format(kind=kind, stimulus=stimulus, tracks=tracks, start=start, task=task, settings=settings)


def ready(text: str) -> tuple[TwoTemplates, Sounds]:
    spec = loads(text)
    observer, sounds = make_observer(spec, 0), Sounds(spec)
    assert isinstance(observer, TwoTemplates)
    observer.prepare(sounds)
    return observer, sounds


@pytest.mark.parametrize("model", ["dau1997", "osses2021"])
def test_golden_gain_and_correlations(model: str) -> None:
    with np.load(DATA / "observer_intdisc_1k_60dB.npz", allow_pickle=False) as data:
        r = torch.as_tensor(data[f"{model}_representation"])[:, None]
        rate = float(data["subfs"])
        gain = float(two_template_gain(r[-1], r[0], rate))
        both = two_template_correlations(r, r[-1], r[0], rate).numpy()
        # 1e-12: sums over 1800 products in float64
        assert gain == pytest.approx(float(data[f"{model}_two_template_gain"]), rel=1e-12)
        np.testing.assert_allclose(both[:, 0], data[f"{model}_two_template_corr_target"], rtol=1e-12)
        np.testing.assert_allclose(both[:, 1], data[f"{model}_two_template_corr_reference"], rtol=1e-12)


def test_mean_energy_of_the_templates_is_the_rate() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 3, 2, 50, generator=generator, dtype=torch.float64)
    gain = two_template_gain(a, b, 1000.0)
    assert float((gain**2 * (a.square().sum() + b.square().sum())) / 2) == pytest.approx(1000.0, rel=1e-12)


@pytest.mark.parametrize("kind", ["am_noise", "tone"])
def test_decision_variable_is_the_difference_of_the_correlations(kind: str) -> None:
    observer, sounds = ready(experiment(kind=kind, settings="template_tokens = 3"))
    zero, tokens = torch.zeros(1, dtype=torch.int64), torch.arange(1 if kind == "tone" else 3)
    several = zero.expand(len(tokens))
    level = sounds.start_level
    target, reference = (
        observer.model.represent(x).values.mean(0)
        for x in (sounds.target(several, tokens, level), sounds.reference(several, tokens))
    )
    x = sounds.target(zero, zero + 7, 0.5 * level)
    r = observer.model.represent(x)
    both = two_template_correlations(r.values, target, reference, r.fs)[0]
    value, std = observer.evaluate(x[:, None], zero)
    assert float(value) == pytest.approx(float(both[0] - both[1]), rel=1e-9)
    assert float(std) == 0.0


def test_the_criterion_is_the_median_of_references() -> None:
    observer, sounds = ready(experiment(settings="template_tokens = 3\ncriterion_tokens = 21"))
    tokens = torch.arange(3, 24)
    values = observer.decision_variable(sounds.reference(0 * tokens, tokens)[:, None], 0 * tokens)
    criterion = observer.criterion(torch.zeros(1, dtype=torch.int64))
    assert float(criterion) == pytest.approx(float(values.median()), rel=1e-9)
    assert float(criterion) < 0 or float(values.std()) > 0
    larger, _ = ready(experiment(settings="template_tokens = 3\ncriterion_tokens = 21\nrule = 'larger'"))
    assert larger.criterion(torch.zeros(1, dtype=torch.int64)).tolist() == [0.0]
    stricter, _ = ready(
        experiment(settings="template_tokens = 3\ncriterion_tokens = 21\ncriterion_sd = 1.0\ninternal_noise_std = 2.0")
    )
    added = math.sqrt(float(values.var()) + 2 * 2.0**2)
    assert float(stricter.criterion(torch.zeros(1, dtype=torch.int64)) - criterion) == pytest.approx(added, rel=1e-9)


def test_half_of_the_references_are_called_targets() -> None:
    """The published calibration: 46 to 54 % of the answers far below threshold; a binomial bound for 200 new ones."""
    observer, sounds = ready(experiment(settings="template_tokens = 3\ncriterion_tokens = 400"))
    tokens = torch.arange(1000, 1200)
    values = observer.decision_variable(sounds.reference(0 * tokens, tokens)[:, None], 0 * tokens)[:, 0]
    share = float((values > observer.criterion(0 * tokens)).double().mean())
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 * (1 / 200 + 1 / 400))


def test_internal_noise_is_on_both_correlations() -> None:
    observer, sounds = ready(experiment("kind = 'afc'\nn_intervals = 2", "internal_noise_std = 3.0"))
    zero = torch.zeros(1, dtype=torch.int64)
    _, std = observer.evaluate(sounds.reference(zero, zero)[:, None], zero)
    assert float(std) == pytest.approx(3.0 * math.sqrt(2.0))
    assert observer.calibration == {"status": "given", "internal_noise_std": 3.0, "rule": "criterion"}


@pytest.mark.parametrize("task", ["kind = 'afc'\nn_intervals = 3", "kind = 'yes_no'"])
def test_it_detects_modulation_and_nothing_depends_on_the_batch(task: str) -> None:
    text = experiment(task, "template_tokens = 10\ncriterion_tokens = 20")
    one, many = (run(loads(text, overrides={"engine.batch": batch})) for batch in (1, 64))
    for name in ("threshold", "decision_variable", "response"):
        np.testing.assert_array_equal(one[name], many[name])
    correct = many["correct"].values
    assert correct[correct >= 0].mean() > 0.6


def test_without_a_difference_there_is_no_template() -> None:
    observer, sounds = ready(experiment(kind="tone"))

    class Same:
        """Training sounds whose targets are the references."""

        def __getattr__(self, name: str) -> object:
            return getattr(sounds, name)

        def target(self, condition: Tensor, token: Tensor, level: float) -> Tensor:
            return sounds.reference(condition, token)

    with pytest.raises(CalibrationError, match="the two templates are one"):
        observer.prepare(Same())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("internal_noise_std = -1.0", "greater than or equal to 0"),
        ("rule = 'criterium'", "'criterion' or 'larger'"),
        ("criterion_tokens = 0", "greater than or equal to 1"),
        ("criterion_token = 5", "Did you mean 'criterion_tokens'"),
    ],
)
def test_a_wrong_setting_is_found_in_the_file(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        loads(experiment(settings=line))


def test_impossible_templates() -> None:
    with pytest.raises(SpecError, match=r"shapes \(2,\) and \(3,\)"):
        two_template_gain(torch.ones(2), torch.ones(3), 1.0)
    with pytest.raises(SpecError, match="not both zero"):
        two_template_gain(torch.zeros(2), torch.zeros(2), 1.0)
