"""The observer of King et al. (2019): its three noises against drawing them sample by sample, and their levels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer, run
from psysim.experiments.sounds import Sounds
from psysim.models import Dau1997, King2019
from psysim.observers import King2019Observer

EXPERIMENT = """
title = "AM detection, small"
[stimulus]
kind = "am_tone"
carrier_hz = 1000.0
level_db_spl = 65.0
rate_hz = 16.0
duration_s = 0.2
ramp_s = 0.02
[task]
kind = "afc"
n_intervals = 3
[procedure]
tracks = "depth_db"
level_start = -6.0
n_up = 1
n_down = 2
steps = [4.0, 2.0]
n_reversals = 4
max_trials = 40
[[observers]]
decision = "king2019"
model = "king2019"
template_tokens = 1
model_options = { basef = 1000.0, subfs = 16000.0 }
[run]
n_tracks = 4
seed = 3
fs = 16000
"""


def ready(text: str = EXPERIMENT) -> tuple[King2019Observer, Sounds]:
    spec = loads(text)
    observer, sounds = make_observer(spec, 0), Sounds(spec)
    observer.prepare(sounds)
    return observer, sounds


def interval(sounds: Sounds, depth_db: float = -12.0) -> Tensor:
    zero = torch.zeros(1, dtype=torch.int64)
    return sounds.target(zero, zero, depth_db)[:, None]


def drawn(r: Tensor, rate: float, observer: King2019Observer, n: int) -> Tensor:
    """Draw the noises (n, F, M, T) of a representation (F, M, T) as SPEC_king2019 section 8 defines them."""
    generator = torch.Generator().manual_seed(5)
    shape = (n, *r.shape)
    additive = observer.additive_noise_std * torch.randn(shape, dtype=torch.float64, generator=generator)
    z = torch.randn(shape, dtype=torch.float64, generator=generator)
    rms = r.square().mean(-1, keepdim=True).sqrt()
    factor = 10 ** (observer.settings.multiplicative_noise_db / 20) - 1
    multiplicative = factor * z / z.square().mean(-1, keepdim=True).sqrt() * rms
    n_samples = r.shape[-1]
    growth = torch.exp((n_samples + 1 - torch.arange(1, n_samples + 1)) / (rate * observer.settings.memory_tau_s))
    memory = observer.memory_noise_std * growth * torch.randn(shape, dtype=torch.float64, generator=generator)
    return additive + multiplicative + memory


@pytest.mark.parametrize("only", ["additive", "multiplicative", "memory", "all"])
def test_the_variance_is_that_of_noise_drawn_on_every_sample(only: str) -> None:
    """1000 draws: the standard deviation of a variance is 4.5 %; tolerance 4 of them, mean within 4 standard errors."""
    settings = {
        "additive": "multiplicative_noise_db = 0.0\nmemory_noise_std = 0.0",
        "multiplicative": "additive_noise_std = 0.0\nmemory_noise_std = 0.0",
        "memory": "additive_noise_std = 0.0\nmultiplicative_noise_db = 0.0",
        "all": "",
    }[only]
    text = EXPERIMENT.replace("template_tokens = 1", f"template_tokens = 1\n{settings}").replace("= 0.2", "= 0.05")
    observer, sounds = ready(text.replace("ramp_s = 0.02", "ramp_s = 0.01"))
    sound = interval(sounds)
    with torch.no_grad():
        _, std = observer.evaluate(sound, torch.zeros(1, dtype=torch.int64))
        r = observer.model.represent(sound[:, 0])
    noises = drawn(r.values[0].double(), r.fs, observer, 1000)
    numbers = (noises * observer.templates[0].double()).sum((1, 2, 3)) / r.fs**0.5
    assert float(numbers.mean()) == pytest.approx(0.0, abs=4 * float(std) / 1000**0.5)
    assert float(numbers.var()) == pytest.approx(float(std) ** 2, rel=4 * (2 / 1000) ** 0.5)


def test_published_levels_in_the_unit_of_the_model() -> None:
    """SPEC_king2019 section 8: 6.01e-3 and 7.06e-4 with dboffset 100, 1.203e-2 and 1.415e-3 in pascal."""
    for dboffset, additive, memory in ((100.0, 6.01e-3, 7.06e-4), (93.98, 1.203e-2, 1.415e-3)):
        observer = King2019Observer(King2019Observer.Settings(), King2019(16000, basef=1000.0, dboffset=dboffset))
        gain = 10 ** ((3 - dboffset) / 20)
        assert observer.additive_noise_std == pytest.approx(425 * gain, rel=1e-12)
        assert observer.memory_noise_std == pytest.approx(50 * gain, rel=1e-12)
        # the specification's numbers are rounded: 0.2 % (0.02 dB) from its own formula at most
        assert observer.additive_noise_std == pytest.approx(additive, rel=2.5e-3)
        assert observer.memory_noise_std == pytest.approx(memory, rel=2.5e-3)
        assert observer.calibration["status"] == "published internal noise"


def test_the_unit_of_the_model_does_not_matter() -> None:
    """dboffset scales the output and the published noises alike."""
    zero = torch.zeros(1, dtype=torch.int64)
    ratios = []
    for dboffset in (100.0, 93.98):
        observer, sounds = ready(EXPERIMENT.replace("basef = 1000.0", f"basef = 1000.0, dboffset = {dboffset}"))
        with torch.no_grad():
            value, std = observer.evaluate(interval(sounds), zero)
        ratios.append(float(value / std))
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-4)


def test_the_rate_of_the_representation_does_not_matter() -> None:
    """The noise keeps its density: d' changes by what resampling changes of the representation (filters to 94 Hz)."""
    zero = torch.zeros(1, dtype=torch.int64)
    ratios = []
    for rate in (16000.0, 4000.0, 1000.0):
        observer, sounds = ready(EXPERIMENT.replace("subfs = 16000.0", f"subfs = {rate}"))
        with torch.no_grad():
            value, std = observer.evaluate(interval(sounds), zero)
        ratios.append(float(value / std))
    np.testing.assert_allclose(ratios[1:], ratios[0], rtol=0.01)


def test_the_multiplicative_noise_grows_with_the_representation() -> None:
    text = EXPERIMENT.replace(
        "template_tokens = 1", "template_tokens = 1\nadditive_noise_std = 0.0\nmemory_noise_std = 0.0"
    )
    observer, sounds = ready(text)
    zero = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        shallow, deep = (float(observer.evaluate(interval(sounds, depth), zero)[1]) for depth in (-20.0, 0.0))
    assert 0 < shallow < deep


@pytest.mark.parametrize("task", ["kind = 'afc'\nn_intervals = 2", "kind = 'yes_no'"])
def test_runs_with_its_model_whatever_the_batch(task: str) -> None:
    text = EXPERIMENT.replace('kind = "afc"\nn_intervals = 3', task)
    one, all_at_once = (run(loads(text, overrides={"engine.batch": batch})) for batch in (1, 64))
    for name in ("threshold", "decision_variable", "response"):
        np.testing.assert_array_equal(one[name], all_at_once[name])


def test_published_levels_belong_to_the_model() -> None:
    model = Dau1997(fs=16000, flow=900.0, fhigh=1100.0)
    with pytest.raises(SpecError, match=r"additive_noise_std = 'published'.*Dau1997.*number of at least 0"):
        King2019Observer(King2019Observer.Settings(), model)
    observer = King2019Observer(King2019Observer.Settings(additive_noise_std=1.0, memory_noise_std=0.0), model)
    assert observer.calibration["status"] == "given"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("additive_noise_std = -1.0", "a number of at least 0, or 'published'"),
        ('memory_noise_std = "publshed"', "'published'"),
        ("multiplicative_noise_db = -1.0", "greater than or equal to 0"),
        ("memory_tau_s = 0.0", "greater than 0"),
        ("additive_noise_sd = 1.0", "Did you mean 'additive_noise_std'"),
    ],
)
def test_a_wrong_setting_is_found_in_the_file(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        loads(EXPERIMENT.replace("template_tokens = 1", line))


def test_with_no_noise_at_all_the_larger_value_wins() -> None:
    quiet = "additive_noise_std = 0.0\nmultiplicative_noise_db = 0.0\nmemory_noise_std = 0.0"
    observer, sounds = ready(EXPERIMENT.replace("template_tokens = 1", quiet))
    with torch.no_grad():
        _, std = observer.evaluate(interval(sounds), torch.zeros(1, dtype=torch.int64))
    assert float(std) == 0.0
    assert math.isfinite(float(observer.templates.sum()))
