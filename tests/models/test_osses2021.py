from __future__ import annotations

import inspect
import json
import math

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import Dau1997, Osses2021

FS = 44100.0
DTYPES = [torch.float32, torch.float64]
OFF = {"enabled": False}
VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "exact": {"headphone_kwargs": {"delay_compensation": "exact"}, "middleear_kwargs": {"delay_compensation": "exact"}},
    "zero": {"phase_type": "zero"},
    "no_ears": {"headphone_kwargs": OFF, "middleear_kwargs": OFF},
    "jepsen2008me": {"middleear_kwargs": {"filter_type": "jepsen2008", "normalize": True}},
    "att_gain": {"modulation_kwargs": {"preset": "osses2021_att_gain"}},
    "subfs": {"subfs": 16000.0},
}


def tone(level_db_spl: float, samples: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a 1-kHz tone (1, samples) without ramps, pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    return (math.sqrt(2.0) * 20e-6 * 10.0 ** (level_db_spl / 20.0) * torch.sin(2e3 * math.pi * t)).to(dtype)[None]


def test_documented_signature() -> None:
    parameters = inspect.signature(Osses2021).parameters
    documented = {"flow": 80.0, "fhigh": 8000.0, "phase_type": "minimum", "learnable": False, "return_stages": False}
    documented |= {"dtype": torch.float32, "headphone_kwargs": None, "middleear_kwargs": None}
    documented |= {"filterbank_kwargs": None, "ihc_kwargs": None, "adaptation_kwargs": None, "modulation_kwargs": None}
    assert list(parameters)[: len(documented) + 1] == ["fs", *documented]
    assert {name: parameters[name].default for name in documented} == documented


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_stages(variant: str, dtype: torch.dtype) -> None:
    model = Osses2021(FS, dtype=dtype, return_stages=True, **VARIANTS[variant])
    x = torch.cat([tone(60.0, 882, dtype), tone(40.0, 882, dtype)])
    channels, stages = model(x)
    n_out = 320 if model.subfs else 882  # the length of the sound is kept
    assert len(channels) == model.num_channels == 31
    for output, mfc in zip(channels, model.modulation.mfc, strict=True):
        assert output.shape == (2, len(mfc), n_out)
        assert output.dtype == dtype
    ears = [] if variant == "no_ears" else ["headphone", "middleear"]
    assert list(stages) == [*ears, "filterbank", "ihc", "adaptation", *(["resampled"] if model.subfs else [])]
    for name, value in stages.items():
        n = n_out if name == "resampled" else 882
        assert value.shape == ((2, n) if name in ears else (2, 31, n))
    single, single_stages = model(x[1])
    assert all(torch.equal(one, batch[1]) for one, batch in zip(single, channels, strict=True))
    assert all(torch.equal(single_stages[name], stages[name][1]) for name in stages)
    # with stages step by step, without them in one pass: the same bits
    assert all(
        torch.equal(a, b)
        for a, b in zip(Osses2021(**model.parameters_dict() | {"return_stages": False})(x), channels, strict=True)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_constructor_arguments_make_a_twin(variant: str) -> None:
    model = Osses2021(FS, **VARIANTS[variant])
    twin = Osses2021(**json.loads(json.dumps(model.parameters_dict())))
    assert twin.parameters_dict() == model.parameters_dict()
    assert torch.equal(twin.represent(tone(60.0, 500)).values, model.represent(tone(60.0, 500)).values)


def test_published_defaults() -> None:
    model = Osses2021(FS)
    assert model.headphone is not None
    assert model.middleear is not None
    assert (model.headphone.phase_type, model.middleear.phase_type) == ("zero", "minimum")
    assert (model.headphone.delay, model.middleear.delay) == (257, 257)
    assert model.middleear.filter_type == "lopezpoveda2001"
    assert (model.ihc.method, model.ihc.iterations, model.ihc.cutoff) == ("breebaart2001", 5, 2000.0)
    assert (model.adaptation.preset, model.adaptation.limit) == ("osses2021", 5.0)
    counts = [4, 5, 5, 6, 6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11, 11, 11, *[12] * 7]
    assert model.modulation.num_filters == counts
    assert model.fc[[0, -1]].tolist() == pytest.approx([86.938, 7819.205], abs=1e-3)


def test_phase_types() -> None:
    """``zero``: the symmetric FIR; the middle ear of jepsen2008 is symmetric unless it is asked for otherwise."""
    zero = Osses2021(FS, phase_type="zero").middleear
    jepsen = Osses2021(FS, middleear_kwargs={"filter_type": "jepsen2008"}).middleear
    minimum = Osses2021(FS, middleear_kwargs={"filter_type": "jepsen2008", "phase_type": "minimum"}).middleear
    for ear in (zero, jepsen):
        assert ear is not None
        assert ear.phase_type == "zero"
        torch.testing.assert_close(ear.taps, ear.taps.flip(0), rtol=0, atol=1e-15)
    assert minimum is not None
    assert minimum.phase_type == "minimum"


@pytest.mark.parametrize(("flow", "fhigh", "expected"), [(80, 8000, 31), (500, 4000, 17), (50, 8000, 32)])
def test_number_of_channels(flow: float, fhigh: float, expected: int) -> None:
    assert Osses2021(FS, flow=flow, fhigh=fhigh).num_channels == expected


def test_custom_options_reach_the_stages() -> None:
    model = Osses2021(
        FS,
        headphone_kwargs={"order": 256, "filter_type": "pralong1996"},
        middleear_kwargs={"filter_type": "jepsen2008", "order": 256, "normalize_gain": False},
        filterbank_kwargs={"n": 3, "erb_scale": 1.5},
        ihc_kwargs={"method": "dau1996", "cutoff": 900.0},
        adaptation_kwargs={"limit": 10.0, "minspl": 5.0},
        modulation_kwargs={"Q": 1.0, "max_mfc": 150.0},
    )
    assert model.headphone is not None
    assert model.middleear is not None
    assert (model.headphone.order, model.middleear.order, model.middleear.normalize_gain) == (256, 256, False)
    assert (model.filterbank.n, model.filterbank.bandwidth_factor) == (3, 1.5)
    assert (model.ihc.cutoff, model.ihc.iterations) == (900.0, 1)
    assert (model.adaptation.limit, model.adaptation.minimum_db.tolist()) == (10.0, [5.0])
    assert (model.modulation.Q, model.modulation.max_mfc) == (1.0, 150.0)


def test_it_is_dau1997_with_other_stages() -> None:
    x = tone(60.0, 700)
    options = {"ihc_kwargs": {"method": "breebaart2001"}, "adaptation_kwargs": {"preset": "osses2021"}}
    other = Dau1997(FS, headphone_kwargs={}, middleear_kwargs={}, **options)
    assert torch.equal(Osses2021(FS).represent(x).values, other.represent(x).values)


def test_sound_in_front_is_not_lost_with_exact_compensation() -> None:
    """An onset at 0: the published rule loses the response to the first 248 samples, the exact one does not."""
    click = torch.zeros(1, 1000, dtype=torch.float64)
    click[0, 100] = 0.2

    def energy(variant: str, sound: Tensor) -> float:
        model = Osses2021(FS, dtype=torch.float64, return_stages=True, **VARIANTS[variant])
        return float(model(sound)[1]["middleear"].square().sum())

    later = energy("exact", click.roll(300, 1))
    assert energy("exact", click) == pytest.approx(later, rel=0.01)
    assert energy("default", click) < 0.01 * later
    assert energy("default", click.roll(300, 1)) == pytest.approx(later, rel=0.01)


@pytest.mark.parametrize("variant", ["default", "subfs"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_learning_step_changes_parameters_and_lowers_the_loss(variant: str, dtype: torch.dtype) -> None:
    model = Osses2021(FS, learnable=True, dtype=dtype, **VARIANTS[variant])
    x = tone(60.0, 1000, dtype)
    target = Osses2021(FS, dtype=dtype, adaptation_kwargs={"limit": 10.0}, **VARIANTS[variant]).represent(x).values
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    # Constants have sizes from 1e-3 s to 8000 Hz: each has a step of its own
    groups = [{"params": [p], "lr": 1e-4 * float(p.detach().abs().max().clamp(min=1e-3))} for p in model.parameters()]
    optimiser = torch.optim.Adam(groups)
    loss = (model.represent(x).values - target).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    assert (model.represent(x).values - target).square().mean().item() < loss.item()
    changed = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"headphone", "middleear", "filterbank", "ihc", "adaptation", "modulation"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_agree_with_finite_differences(variant: str) -> None:
    options = {"flow": 500.0, "fhigh": 1200.0} | VARIANTS[variant]
    model = Osses2021(FS, dtype=torch.float64, learnable=True, **options)
    x = tone(60.0, 600)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(model.represent(x).values.shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return (model.represent(x).values * weights).sum()

    loss().backward()
    for parameter in model.parameters():
        index = parameter.numel() // 2
        flat = parameter.detach().view(-1)
        value = flat[index].item()
        step = 1e-6 * max(abs(value), 1e-3)
        ends = []
        for sign in (1.0, -1.0):
            flat[index] = value + sign * step
            with torch.no_grad():
                ends.append(loss().item())
        flat[index] = value
        slope = (ends[0] - ends[1]) / (2.0 * step)
        assert parameter.grad is not None
        # The loss is a sum of about 1e4 MU of either sign, rounded at 1e-12
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-5 / step * 1e-5)


def test_variants_with_a_resampler_do_not_run_in_one_pass() -> None:
    x = torch.zeros(1, 500)
    assert Osses2021(FS, subfs=16000.0).fused(x) is None
    chain = Osses2021(FS).fused(x)
    assert chain is not None
    assert chain[0].shape == (1, 500)  # behind the ears


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phase_type": "linear"}, "phase_type"),
        ({"headphone_kwargs": {"enable": False}}, r"headphone_kwargs has no key 'enable'.*Did you mean 'enabled'"),
        ({"middleear_kwargs": {"normalise": True}}, r"middleear_kwargs has no key.*Did you mean 'normalize'"),
        ({"middleear_kwargs": {"normalize": True, "normalize_gain": True}}, "normalize and normalize_gain are two"),
        ({"middleear_kwargs": {"filter_type": "jepsen2009"}}, "Did you mean 'jepsen2008'"),
        ({"filterbank_kwargs": {"erb_scale": 1.0, "bandwidth_factor": 1.0}}, "erb_scale and bandwidth_factor"),
        ({"fs": 12000.0}, "below fs/2 = 6000 Hz"),
        ({"dboffset": float("nan")}, "dboffset"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Osses2021(**({"fs": FS} | arguments))
