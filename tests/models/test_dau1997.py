from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import Dau1997

FS = 44100.0
DTYPES = [torch.float32, torch.float64]
EARS = {"headphone_kwargs": {}, "middleear_kwargs": {}}
VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "ears": EARS,
    "subfs": {"subfs": 4000.0},
    "ears_and_subfs": EARS | {"subfs": 4000.0},
    "papers": {"filterbank_kwargs": {"basef": 1000.0}, "modulation_kwargs": {"preset": "dau1997"}},
    "complex": {"modulation_kwargs": {"phase_insens": False}},
    "butterworth": {"modulation_kwargs": {"filter_type": "butterworth"}},
}


def tone(level_db_spl: float, samples: int, dtype: torch.dtype = torch.float32, frequency_hz: float = 1000.0) -> Tensor:
    """Return a tone without ramps, pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    return (math.sqrt(2.0) * 20e-6 * 10.0 ** (level_db_spl / 20.0) * torch.sin(2.0 * math.pi * frequency_hz * t)).to(
        dtype
    )


def sounds(samples: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return silence, a click, a 60-dB and a 100-dB tone with an offset: (4, samples) pascal."""
    click = torch.zeros(samples, dtype=dtype)
    click[samples // 4] = 0.2
    loud = tone(100.0, samples, dtype)
    loud[samples // 2 :] = 0.0
    return torch.stack([torch.zeros(samples, dtype=dtype), click, tone(60.0, samples, dtype), loud])


def test_documented_signature() -> None:
    names = list(inspect.signature(Dau1997).parameters)
    documented = ["fs", "flow", "fhigh", "learnable", "return_stages", "dtype", "filterbank_kwargs", "ihc_kwargs"]
    documented += ["adaptation_kwargs", "modulation_kwargs"]
    assert names[: len(documented)] == documented
    assert names[len(documented)] == "dboffset"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_stages(variant: str, dtype: torch.dtype) -> None:
    model = Dau1997(FS, dtype=dtype, return_stages=True, **VARIANTS[variant])
    x = sounds(882, dtype)
    channels, stages = model(x)
    n_out = 80 if model.subfs else 882
    assert len(channels) == model.num_channels == len(model.fc) == len(model.modulation.mfc)
    for output, mfc in zip(channels, model.modulation.mfc, strict=True):
        assert output.shape == (4, len(mfc), n_out)
        assert output.real.dtype == dtype
    expected = ["filterbank", "ihc", "adaptation"]
    expected += ["headphone", "middleear"] * (model.headphone is not None) + ["resampled"] * (model.subfs is not None)
    assert sorted(stages) == sorted(expected)
    for name, value in stages.items():
        ear = name in ("headphone", "middleear")
        n = n_out if name == "resampled" else 882
        assert value.shape == ((4, n) if ear else (4, model.num_channels, n))
        assert value.dtype == dtype
    single, single_stages = model(x[2])
    assert all(torch.equal(one, batch[2]) for one, batch in zip(single, channels, strict=True))
    assert all(torch.equal(single_stages[name], stages[name][2]) for name in stages)
    plain = Dau1997(FS, dtype=dtype, **VARIANTS[variant])
    assert all(torch.equal(a, b) for a, b in zip(plain(x), channels, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_do_not_depend_on_the_batch(variant: str) -> None:
    model = Dau1997(FS, **VARIANTS[variant])
    x = sounds(883)
    together = model.represent(x).values
    assert torch.equal(model.represent(x[[3, 1]]).values, together[[3, 1]])
    assert torch.equal(model.represent(x[1]).values, together[1:2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_list_is_made_of_views(dtype: torch.dtype) -> None:
    """One allocation: every channel lies in the same storage, at the place of the dense representation."""
    model = Dau1997(FS, dtype=dtype)
    x = sounds(441, dtype)
    channels, r = model(x), model.represent(x)
    storage = channels[0].untyped_storage()
    assert storage.nbytes() == r.values.untyped_storage().nbytes()
    for i, output in enumerate(channels):
        assert output.untyped_storage().data_ptr() == storage.data_ptr()
        assert output.storage_offset() == i * r.values.stride(1)
        assert torch.equal(output, r.values[:, i, r.valid[i]])


def test_constructor_values_are_attributes() -> None:
    given = {"fs": 32000.0, "flow": 100.0, "fhigh": 6000.0, "learnable": True, "return_stages": True}
    given |= {"dtype": torch.float64, "filterbank_kwargs": {"n": 3}, "ihc_kwargs": {"cutoff": 900.0}, "dboffset": 100.0}
    given |= {"adaptation_kwargs": {"limit": 5.0}, "modulation_kwargs": {"Q": 1.0}, "subfs": 16000.0}
    given |= {"headphone_kwargs": {}, "middleear_kwargs": None}
    model = Dau1997(**given)
    for name, value in given.items():
        assert getattr(model, name) == value, name
    assert set(given) == set(inspect.signature(Dau1997).parameters)
    assert (model.filterbank.n, model.ihc.cutoff, model.adaptation.limit, model.modulation.Q) == (3, 900.0, 5.0, 1.0)
    assert model.modulation.fs == 16000.0
    assert model.distribute_gradients() is None


@pytest.mark.parametrize(
    ("flow", "fhigh", "basef", "expected"),
    [
        (80, 8000, None, 31),
        (80, 8000, 1000, 30),
        (50, 8000, None, 32),
        (50, 8000, 1000, 31),
        (80, 16000, None, 37),
        (80, 16000, 1000, 36),
        (50, 12000, None, 36),
        (50, 12000, 1000, 35),
        (500, 4000, None, 17),
        (1000, 1000, 1000, 1),
    ],
)
def test_number_of_channels(flow: float, fhigh: float, basef: float | None, expected: int) -> None:
    assert Dau1997(FS, flow=flow, fhigh=fhigh, filterbank_kwargs={"basef": basef}).num_channels == expected


def test_default_channels_have_4_to_12_modulation_filters() -> None:
    counts = Dau1997(FS).modulation.num_filters
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (4, 12)
    assert Dau1997(FS, modulation_kwargs={"preset": "dau1997"}).modulation.num_filters == [12] * 31
    eight = Dau1997(FS, modulation_kwargs={"max_mfc": 150.0, "use_upper_limit": False})
    assert eight.modulation.num_filters == [8] * 31


def test_pascal_is_the_default_unit() -> None:
    """A 60-dB tone ends at 49.7 MU; with dboffset = 100 the same needs half the amplitude."""
    model = Dau1997(16000.0, flow=1000.0, fhigh=1000.0, filterbank_kwargs={"basef": 1000.0}, return_stages=True)
    assert model.input_gain == 0.5
    t = torch.arange(8000) / 16000.0
    x = math.sqrt(2.0) * 0.02 * torch.sin(2.0 * math.pi * 1000.0 * t)
    steady = model(x)[1]["adaptation"][0, -1600:].mean()
    assert float(steady) == pytest.approx(49.70, abs=0.01)
    full_scale = Dau1997(**(model.parameters_dict() | {"dboffset": 100.0}))
    torch.testing.assert_close(full_scale(0.5 * x)[1]["adaptation"], model(x)[1]["adaptation"])


def test_channels_do_not_depend_on_one_another() -> None:
    model = Dau1997(FS, filterbank_kwargs={"basef": 1000.0}, dtype=torch.float64)
    x = tone(60.0, 500, torch.float64)
    whole = model.represent(x)
    channel = int((whole.fc - 1000.0).abs().argmin())
    one = model.restricted(float(whole.fc[channel])).represent(x)
    torch.testing.assert_close(one.values[0, 0], whole.values[0, channel, whole.valid[channel]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_finite_for_every_sound(variant: str, dtype: torch.dtype) -> None:
    model = Dau1997(FS, dtype=dtype, learnable=True, **VARIANTS[variant])
    x = sounds(2205, dtype).requires_grad_()
    values = model.represent(x).values
    torch.view_as_real(values).square().sum().backward() if values.is_complex() else values.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[1:].abs().amax(1) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_learning_step_changes_parameters_and_lowers_the_loss() -> None:
    model = Dau1997(FS, learnable=True)
    x = tone(60.0, 1000).unsqueeze(0)
    target = Dau1997(FS, adaptation_kwargs={"limit": 5.0}).represent(x).values
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = (model.represent(x).values - target).square().mean()
    loss.backward()
    model.distribute_gradients()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 1e-3 * parameter.abs().clamp(min=1e-3) * parameter.grad.sign()
    assert (model.represent(x).values - target).square().mean().item() < loss.item()
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert set(changed) == set(before)
    assert {name.split(".")[0] for name in changed} == {"filterbank", "ihc", "adaptation", "modulation"}


@pytest.mark.parametrize("variant", ["default", "ears_and_subfs", "papers"])
def test_gradients_agree_with_finite_differences(variant: str) -> None:
    options = {"flow": 500.0, "fhigh": 1200.0} | VARIANTS[variant]
    model = Dau1997(FS, dtype=torch.float64, learnable=True, **options)
    x = tone(60.0, 600, torch.float64).unsqueeze(0)
    weights = torch.randn(
        model.represent(x).values.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def loss() -> Tensor:
        return (model.represent(x).values * weights).sum()

    loss().backward()
    for parameter in model.parameters():
        index = parameter.numel() // 2
        flat = parameter.detach().view(-1)
        value, step = flat[index].item(), 1e-6 * max(abs(flat[index].item()), 1e-9)
        ends = []
        for sign in (1.0, -1.0):
            flat[index] = value + sign * step
            with torch.no_grad():
                ends.append(loss().item())
        flat[index] = value
        slope = (ends[0] - ends[1]) / (2.0 * step)
        assert parameter.grad is not None
        # The loss is a sum of about 1e4 MU of either sign, rounded at 1e-12: 1e-12 / 1e-6 of a relative change of 1.
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-4 / max(abs(value), 1e-9))


def test_silence_and_its_neighbours() -> None:
    model = Dau1997(FS)
    values = model.represent(torch.zeros(1, 4410)).values
    assert float(values.abs().max()) <= 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filterbank_kwargs": {"bsaef": 1000.0}}, r"filterbank_kwargs has no key 'bsaef'.*Did you mean 'basef'"),
        ({"ihc_kwargs": {"cut_off": 1000.0}}, r"ihc_kwargs has no key 'cut_off'.*Did you mean 'cutoff'"),
        ({"adaptation_kwargs": {"limits": 5.0}}, r"adaptation_kwargs has no key 'limits'.*Did you mean 'limit'"),
        ({"modulation_kwargs": {"q": 1.0, "maxmfc": 150}}, r"modulation_kwargs has no key 'q'"),
        ({"headphone_kwargs": {"delay": "amt"}}, r"headphone_kwargs has no key 'delay'"),
        ({"middleear_kwargs": {"normalise_gain": True}}, r"middleear_kwargs has no key.*Did you mean 'normalize_gain'"),
        ({"filterbank_kwargs": {"erb_scale": 1.0, "bandwidth_factor": 1.0}}, "erb_scale and bandwidth_factor"),
        ({"fs": 12000.0}, "below fs/2 = 6000 Hz"),
        ({"fs": -1.0}, "fs"),
        ({"flow": 9000.0}, "fhigh"),
        ({"flow": 0.0, "fhigh": 0.0}, "above 0 Hz"),
        ({"filterbank_kwargs": {"basef": 20.0}}, "basef"),
        ({"subfs": 0.0}, "fs"),
        ({"dtype": torch.int32}, "dtype"),
        ({"dboffset": float("nan")}, "dboffset"),
        ({"modulation_kwargs": {"preset": "mfb_dau1997"}}, "Did you mean 'dau1997'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Dau1997(**({"fs": FS} | arguments))


def test_options_are_copied() -> None:
    options = {"basef": 1000.0}
    model = Dau1997(FS, filterbank_kwargs=options)
    options["basef"] = 500.0
    assert model.filterbank_kwargs == {"basef": 1000.0}


def test_conversion_keeps_constants_exact() -> None:
    model = Dau1997(FS, **EARS)
    exact = Dau1997(FS, dtype=torch.float64, **EARS)
    x = sounds(882, torch.float64)
    assert torch.equal(model.float().double().represent(x).values, exact.represent(x).values)
    assert model.represent(x.float()).values.dtype == torch.float64
    assert Dau1997(FS).represent(x).values.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [
        {"headphone_kwargs": {}, "middleear_kwargs": {}},
        {"ihc_kwargs": {"method": "breebaart2001"}, "adaptation_kwargs": {"preset": "osses2021"}},
        {
            "ihc_kwargs": {"method": "none"},
            "adaptation_kwargs": {"preset": "dau1996"},
            "modulation_kwargs": {"preset": "dau1996"},
        },
        {"adaptation_kwargs": {"preset": "paulick2024"}, "modulation_kwargs": {"preset": "verhey1999"}},
    ],
    ids=["ears", "breebaart2001", "dau1996", "levels per channel"],
)
def test_variants_in_one_pass(options: dict) -> None:
    """The steps are the stages: run one by one they give the same bits."""
    model = Dau1997(fs=44100, **options)
    x = 0.02 * torch.randn(2, 900, generator=torch.Generator().manual_seed(1))
    chain = model.fused(x)
    assert chain is not None
    y, steps = chain
    for step in steps:
        y = step.run(y)
    assert torch.equal(y, model.represent(x).values)


@pytest.mark.parametrize(
    "options",
    [
        {"subfs": 4000.0},
        {"ihc_kwargs": {"method": "hilbert"}},
        {"modulation_kwargs": {"filter_type": "butterworth"}},
        {"modulation_kwargs": {"phase_insens": False}},
    ],
    ids=["subfs", "hilbert", "butterworth", "complex"],
)
def test_variants_that_need_the_whole_sound_do_not_run_in_one_pass(options: dict) -> None:
    assert Dau1997(fs=44100, **options).fused(torch.zeros(1, 500)) is None
