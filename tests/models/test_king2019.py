from __future__ import annotations

import inspect
import json
import math

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import King2019

FS = 44100.0
DTYPES = [torch.float32, torch.float64]
SIGNED = {"phase_insens": False}
VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "basef": {"basef": 1000.0},
    "power": {"basef": 1000.0, "compression_type": "power"},
    "linear": {"basef": 1000.0, "compression_type": "none"},
    "signed": {"basef": 1000.0, "modulation_kwargs": SIGNED},
    "subfs": {"basef": 1000.0, "subfs": 16000.0},
    "per_channel": {"basef": 1000.0, "compression_n": [0.2, 0.3, 0.4, 0.5, 0.6], "lp_150hz": True, "modbank_nmod": 10},
}


def tone(level_db_spl: float, samples: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a 1-kHz tone (1, samples) without ramps, pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    return (math.sqrt(2.0) * 20e-6 * 10.0 ** (level_db_spl / 20.0) * torch.sin(2e3 * math.pi * t)).to(dtype)[None]


def test_documented_signature() -> None:
    documented = {"flow": 80.0, "fhigh": 8000.0, "basef": None, "compression_type": "brokenstick"}
    documented |= {"compression_n": 0.3, "compression_knee_db": 30.0, "dboffset": 100.0, "adt_hp_fc": 3.0}
    documented |= {"adt_hp_order": 1, "mflow": 2.0, "mfhigh": 150.0, "modbank_nmod": None, "modbank_qfactor": 1.0}
    documented |= {"lp_150hz": False, "subfs": None, "learnable": False, "return_stages": False}
    documented |= {"dtype": torch.float32, "filterbank_kwargs": None, "compression_kwargs": None, "ihc_kwargs": None}
    documented |= {"adaptation_kwargs": None, "modulation_kwargs": None}
    parameters = inspect.signature(King2019).parameters
    assert list(parameters) == ["fs", *documented]
    assert {name: parameters[name].default for name in documented} == documented


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_stages(variant: str, dtype: torch.dtype) -> None:
    model = King2019(FS, dtype=dtype, return_stages=True, **VARIANTS[variant])
    x = torch.cat([tone(60.0, 882, dtype), tone(40.0, 882, dtype)])
    output, stages = model(x)
    f, m, t = model.num_channels, len(model.mfc), 320 if model.subfs else 882
    assert (f, m) == (31 if variant == "default" else 5, 10 if variant == "per_channel" else 5)
    assert (output.shape, output.dtype) == ((2, t, f, m), dtype)
    assert list(stages) == ["gtone_response", "compressed_response", "ihc", "adapted_response"]
    assert all(y.shape == (2, f, 882) and y.dtype == dtype for y in stages.values())
    single, single_stages = model(x[1])
    assert torch.equal(single, output[1])
    assert all(torch.equal(single_stages[name], stages[name][1]) for name in stages)
    r = model.represent(x)
    assert torch.equal(r.values.permute(0, 3, 1, 2), output)
    assert r.fs == (16000.0 if model.subfs else FS)
    plain = King2019(FS, dtype=dtype, **VARIANTS[variant])
    assert torch.equal(plain(x), output)
    assert plain.fused(x) is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_constructor_arguments_make_a_twin(variant: str) -> None:
    model = King2019(FS, **VARIANTS[variant])
    twin = King2019(**json.loads(json.dumps(model.parameters_dict())))
    assert twin.parameters_dict() == model.parameters_dict()
    assert torch.equal(twin(tone(60.0, 500)), model(tone(60.0, 500)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [86.938, 122.929, 163.023]),
        ({"basef": 1000.0}, [761.402, 874.269, 1000.0, 1140.062, 1296.088]),
        ({"basef": 500.0}, [358.485, 425.428, 500.0, 583.072, 675.613]),
        ({"basef": 4000.0}, [3178.903, 3567.316, 4000.0, 4482.001, 5018.940]),
        ({"basef": 5000.0}, [3984.737, 4464.999, 5000.0, 5595.981, 6259.891]),
        ({"basef": 1000.0, "flow": 800.0, "fhigh": 1200.0}, [874.269, 1000.0, 1140.062]),
        ({"filterbank_kwargs": {"basef": 500.0}}, [113.530]),
    ],
)
def test_centre_frequencies(arguments: dict[str, object], expected: list[float]) -> None:
    fc = King2019(FS, **arguments).fc
    assert fc[: len(expected)].tolist() == pytest.approx(expected, abs=1e-3)
    counts = {1: 30, 3: 3 if "basef" in arguments else 31, 5: 5}
    assert len(fc) == counts[len(expected)]


def test_dboffset_sets_the_unit_of_the_output_only() -> None:
    """The knee is 30 dB SPL whatever dboffset: outputs differ by the factor of the unit."""
    x = tone(60.0, 1000)
    full_scale = King2019(FS, basef=1000.0, dtype=torch.float64)
    pascal = King2019(FS, basef=1000.0, dtype=torch.float64, dboffset=93.97940008672037)
    assert (full_scale.input_gain, pascal.input_gain) == (pytest.approx(0.5, rel=1e-12), 1.0)
    torch.testing.assert_close(2.0 * full_scale(x), pascal(x), rtol=1e-9, atol=1e-15)


def test_custom_options_win_over_arguments() -> None:
    model = King2019(
        FS,
        basef=1000.0,
        compression_knee_db=30.0,
        filterbank_kwargs={"n": 3, "erb_scale": 1.5},
        compression_kwargs={"knee_db": 40.0, "exponent": 0.6},
        ihc_kwargs={"cutoff": 1500.0},
        adaptation_kwargs={"cutoff": 5.0, "order": 2},
        modulation_kwargs={"mflow": 4.0, "mfhigh": 64.0, "nmod": 3, "qfactor": 2.0, "lowpass_cutoff": 150.0},
    )
    assert model.compression is not None
    assert (model.compression.knee_db.item(), model.compression.exponent.tolist()) == (40.0, [0.6])
    assert (model.filterbank.n, model.ihc.cutoff) == (3, 1500.0)
    assert (model.adaptation.cutoff_hz.tolist(), model.adaptation.order) == ([5.0], 2)
    assert model.mfc.tolist() == pytest.approx([4.0, 16.0, 64.0])
    assert (model.modulation.qfactor, model.modulation.lowpass_cutoff) == (2.0, 150.0)


def test_compression_of_the_steady_tone() -> None:
    """Above the knee the rms after compression grows by 0.3 dB per dB, below by 1 dB."""
    model = King2019(FS, basef=1000.0, dtype=torch.float64, return_stages=True)

    def level(level_db_spl: float) -> float:
        y = model(tone(level_db_spl, 8820))[1]["compressed_response"][0, 2, 4410:]
        return 10.0 * math.log10(float(y.square().mean()))

    assert level(80.0) - level(70.0) == pytest.approx(3.0, abs=0.01)
    assert level(20.0) - level(10.0) == pytest.approx(10.0, abs=1e-6)


def test_restricted_keeps_the_channel() -> None:
    model = King2019(FS, basef=1000.0, dtype=torch.float64)
    one = model.restricted(1000.0).represent(tone(60.0, 700))
    torch.testing.assert_close(one.values[:, 0], model.represent(tone(60.0, 700)).values[:, 2], rtol=1e-9, atol=1e-15)
    assert King2019(FS).restricted(80.0).fc.tolist() == pytest.approx([80.0])
    with pytest.raises(SpecError, match="exponent per channel"):
        King2019(FS, **VARIANTS["per_channel"]).restricted(1000.0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_finite_for_every_sound(variant: str, dtype: torch.dtype) -> None:
    """Silence, a click, a soft and a loud tone that ends."""
    model = King2019(FS, dtype=dtype, learnable=True, **VARIANTS[variant])
    x = torch.cat([torch.zeros(2, 900, dtype=dtype), tone(20.0, 900, dtype), tone(100.0, 900, dtype)])
    x[1, 300] = 0.2
    x[3, 450:] = 0.0
    x.requires_grad_()
    model.represent(x).values.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[1:].abs().amax(1) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_learning_step_changes_parameters_and_lowers_the_loss(dtype: torch.dtype) -> None:
    model = King2019(FS, basef=1000.0, learnable=True, dtype=dtype, lp_150hz=True)
    x = tone(60.0, 1000, dtype)
    target = King2019(FS, basef=1000.0, dtype=dtype, lp_150hz=True, compression_n=0.4)(x)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    # Constants have sizes from 0.3 to 1000 Hz: each has a step of its own
    groups = [{"params": [p], "lr": 1e-4 * float(p.detach().abs().max())} for p in model.parameters()]
    optimiser = torch.optim.Adam(groups)
    loss = (model(x) - target).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    assert (model(x) - target).square().mean().item() < loss.item()
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert {name.split(".")[0] for name in before} == {"filterbank", "compression", "ihc", "adaptation", "modulation"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_agree_with_finite_differences(variant: str) -> None:
    model = King2019(FS, dtype=torch.float64, learnable=True, **({"basef": 1000.0} | VARIANTS[variant]))
    x = tone(60.0, 600)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(model(x).shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return (model(x) * weights).sum()

    value = loss()
    value.backward()
    for name, parameter in model.named_parameters():
        index = parameter.numel() // 2
        flat = parameter.detach().view(-1)
        kept = flat[index].item()
        step = 1e-6 * abs(kept)
        ends = []
        for sign in (1.0, -1.0):
            flat[index] = kept + sign * step
            with torch.no_grad():
                ends.append(loss().item())
        flat[index] = kept
        slope = (ends[0] - ends[1]) / (2.0 * step)
        assert parameter.grad is not None
        # Rounding of the loss, 1e-14 of its largest part, over a relative change of 1e-6
        atol = 1e-7 * float((model(x) * weights).abs().sum().detach()) / abs(kept)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=atol), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression_type": "broken"}, "Did you mean 'brokenstick'"),
        ({"compression_n": 0.0}, "exponent"),
        ({"compression_n": [0.3, 0.4]}, "2 exponents, but there are 31 channels"),
        ({"compression_kwargs": {"knee": 30.0}}, r"compression_kwargs has no key 'knee'.*Did you mean 'knee_db'"),
        ({"filterbank_kwargs": {"bsaef": 1000.0}}, r"filterbank_kwargs has no key 'bsaef'.*Did you mean 'basef'"),
        ({"basef": 1000.0, "filterbank_kwargs": {"basef": 1000.0}}, "basef is given twice"),
        ({"ihc_kwargs": {"cut_off": 1.0}}, r"ihc_kwargs has no key"),
        ({"adaptation_kwargs": {"fc": 3.0}}, r"adaptation_kwargs has no key"),
        ({"modulation_kwargs": {"phase_insensitive": False}}, r"modulation_kwargs has no key"),
        ({"basef": 30000.0}, "basef"),
        ({"basef": 1000.0, "flow": 2000.0}, "basef"),
        ({"adt_hp_order": 0}, "order"),
        ({"adt_hp_fc": -3.0}, "cutoff"),
        ({"modbank_nmod": 1}, "nmod"),
        ({"mfhigh": 1.0}, "mfhigh"),
        ({"subfs": 0.0}, "fs"),
        ({"fs": 12000.0}, "below fs/2 = 6000 Hz"),
        ({"dboffset": float("nan")}, "dboffset"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        King2019(**({"fs": FS} | arguments))
