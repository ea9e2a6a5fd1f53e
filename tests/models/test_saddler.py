"""Saddler2024 and Saddler2025: shapes, options, spikes, hearing loss, gradients."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing import example_audiogram, nerve_losses
from psysim.models import Saddler2024, Saddler2025
from psysim.rng import Keys

DTYPES = [torch.float32, torch.float64]
FS = 20e3
VARIANTS: dict[str, tuple[type[Saddler2024 | Saddler2025], dict[str, object]]] = {
    "word": (Saddler2024, {}),
    "word_50": (Saddler2024, {"limit_hz": 50.0}),
    "localisation": (Saddler2024, {"preset": "localisation", "cfs": [60.0, 700.0, 8000.0]}),
    "corrected": (Saddler2024, {"variant": "corrected"}),
    "samples": (Saddler2024, {"envelope_mode": False, "rate_spont": [60.0, 5.0, 0.1]}),
    "knees": (Saddler2024, {"compression_kwargs": {"power": 0.3, "lower_knee_db_spl": 30.0}}),
    "per_channel": (
        Saddler2024,
        {"num_cf": 3, "bw_mult": [1.0, 1.5, 2.0], "threshold_db_spl": [[0.0, 10.0, 20.0]] * 3},
    ),
    "tutorial": (Saddler2025, {}),
    "tutorial_corrected": (Saddler2025, {"variant": "corrected", "threshold_db_spl": 60.0, "dynamic_range_db": 20.0}),
    "tutorial_step": (Saddler2025, {"num_cf": 2, "dynamic_range_db": [0.0, 80.0], "ihc_taps": [0.5, 0.5]}),
}


def build(variant: str, **options: object) -> Saddler2024 | Saddler2025:
    kind, given = VARIANTS[variant]
    return kind(FS, **(given | options))


def tone(level_db_spl: float, samples: int, dtype: torch.dtype = torch.float64, hz: float = 1000.0) -> Tensor:
    """Return a tone (1, samples), pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    return (math.sqrt(2.0) * 20e-6 * 10.0 ** (level_db_spl / 20.0) * torch.sin(2.0 * math.pi * hz * t)).to(dtype)[None]


def keys_of(batch: int, seed: int = 1) -> Keys:
    return Keys.make(seed=seed, trial=torch.arange(batch))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("samples", [1, 2, 401])
def test_shapes_and_stages(variant: str, dtype: torch.dtype, samples: int) -> None:
    model = build(variant, dtype=dtype, return_stages=True)
    x = torch.cat([tone(60.0, samples, dtype), tone(40.0, samples, dtype, 600.0)])
    output, stages = model(x)
    n_model = math.ceil(samples * model.fs_model / FS)
    n_out = math.ceil(n_model * model.fs_out / model.fs_model)
    groups = (model.n_groups,) if isinstance(model, Saddler2024) else ()
    assert (output.shape, output.dtype) == ((2, *groups, model.num_channels, n_out), dtype)
    assert stages["subbands"].shape == (2, model.num_channels, n_model)
    assert stages["ihc"].shape == (2, model.num_channels, n_out)
    assert output.isfinite().all()
    assert (output >= 0).all()
    single, single_stages = model(x[1])
    assert torch.equal(single, output[1])
    assert all(torch.equal(single_stages[name], stages[name][1]) for name in single_stages)
    assert torch.equal(build(variant, dtype=dtype)(x), output)
    values = model.represent(x).values
    assert torch.equal(values.transpose(1, 2).reshape(output.shape), output)


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_ears(variant: str) -> None:
    model = build(variant, return_stages=True)
    x = torch.stack([tone(60.0, 300, torch.float32)[0], tone(50.0, 300, torch.float32)[0]]).expand(3, 2, 300)
    output, stages = model(x)
    left, right = (build(variant)(x[:, ear]) for ear in (0, 1))
    both = torch.cat([left, right], dim=1) if isinstance(model, Saddler2024) else torch.stack([left, right], dim=1)
    assert torch.equal(output, both)
    assert stages["ihc"].shape[:2] == (3, 2)
    r = model.represent(x)
    assert r.values.shape[:3] == (3, model.num_channels, 2 * model.n_groups)
    assert r.valid.shape == r.values.shape[1:3]
    with pytest.raises(SpecError, match=r"audio has shape \(1, 3, 300\)"):
        model(torch.zeros(1, 3, 300))


@pytest.mark.parametrize("variant", VARIANTS)
def test_constructor_arguments_make_a_twin(variant: str) -> None:
    model = build(variant)
    twin = type(model)(**json.loads(json.dumps(model.parameters_dict())))
    assert twin.parameters_dict() == model.parameters_dict()
    assert torch.equal(twin(tone(60.0, 500)), model(tone(60.0, 500)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_input_in_any_memory_layout(variant: str, dtype: torch.dtype) -> None:
    model = build(variant, dtype=dtype)
    x = 0.02 * torch.randn(300, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    assert torch.equal(model(x.T), model(x.T.contiguous()))
    assert torch.equal(model(x.T[:, ::2]), model(x.T[:, ::2].contiguous()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_are_the_same_with_gradients(variant: str, dtype: torch.dtype) -> None:
    """Without gradients the channels are worked on in smaller parts: 8 rounding units of the largest rate."""
    model = build(variant, dtype=dtype)
    x = tone(60.0, 600, dtype)
    plain = model(x)
    wanted = model(x.clone().requires_grad_()).detach()
    assert float((plain - wanted).abs().max()) <= 8 * torch.finfo(dtype).eps * 250.0 * 20


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_finite_for_every_sound(variant: str, dtype: torch.dtype) -> None:
    """Silence, a click, a soft and a loud tone that ends."""
    model = build(variant, dtype=dtype, learnable=True)
    x = torch.cat([torch.zeros(2, 900, dtype=dtype), tone(20.0, 900, dtype), tone(100.0, 900, dtype)])
    x[1, 300] = 0.2
    x[3, 450:] = 0.0
    x.requires_grad_()
    model.represent(x).values.square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()
    assert (x.grad[1:].abs().amax(1) > 0)[-1].all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "tutorial_step"])
def test_silence_gives_the_spontaneous_rates(variant: str) -> None:
    model = build(variant)
    rates = model.represent(torch.zeros(1, 400)).values
    spont = model.rates.rate_spont.float().expand(-1, 1)[:, 0]
    assert torch.equal(rates, spont[None, None, :, None].expand_as(rates))


def test_the_limit_is_the_nominal_one_where_corrected() -> None:
    for preset in ("word", "localisation"):
        for limit in (50.0, 320.0, 1000.0, 3000.0):
            model = Saddler2024(FS, preset, limit_hz=limit, variant="corrected", num_cf=2)
            assert model.cutoff_3db_hz == pytest.approx(limit, rel=1e-6)
    assert Saddler2025(FS, variant="corrected").cutoff_3db_hz == pytest.approx(3000.0, rel=1e-6)


@pytest.mark.parametrize("variant", ["published", "corrected"])
def test_phase_locking_falls_with_the_limit(variant: str) -> None:
    """Synchrony to a 1-kHz tone (vector strength of the rate) at 40 dB SPL."""
    strengths = []
    for limit in (50.0, 320.0, 1000.0, 3000.0):
        model = Saddler2024(FS, limit_hz=limit, variant=variant, cfs=[1000.0], dtype=torch.float64)
        rates = model(tone(40.0, 4000))[0, 1, 0, 1000:2000]
        spectrum = torch.fft.rfft(rates)
        strengths.append(float(spectrum[100].abs() / spectrum[0].abs()))
    assert strengths == sorted(strengths)
    assert strengths[0] < 1e-3
    assert strengths[3] > 0.5


def test_sound_at_another_rate_gives_nearly_the_same_rates() -> None:
    t = torch.arange(9600, dtype=torch.float64) / 48e3
    envelope = torch.sin(math.pi * t / t[-1]) ** 2
    at_48 = 0.02 * envelope * torch.sin(2.0 * math.pi * 1000.0 * t)
    t = torch.arange(4000, dtype=torch.float64) / FS
    at_20 = 0.02 * torch.sin(math.pi * t * (48e3 / 9599.0)) ** 2 * torch.sin(2.0 * math.pi * 1000.0 * t)
    for kind in (Saddler2024, Saddler2025):
        there = kind(48e3, dtype=torch.float64).represent(at_48).values
        here = kind(FS, dtype=torch.float64).represent(at_20).values
        assert there.shape == here.shape
        # At the very ends the filter of the resampler meets the edge of the sound
        assert float((there - here)[..., 20:-20].abs().max()) < 0.05


@pytest.mark.parametrize("mode", ["approx", "exact", "additive"])
def test_spikes_depend_on_the_key_alone(mode: str) -> None:
    model = Saddler2024(FS, spikes=mode)
    x = torch.cat([tone(level, 400, torch.float32) for level in (20.0, 40.0, 60.0, 80.0)])
    keys = keys_of(4)
    together = model(x, keys)
    assert together.shape == (4, 3, 50, 200)
    order = [3, 0, 2]
    assert torch.equal(model(x[order], keys[order]), together[order])
    assert torch.equal(model(x[2], keys[2]), together[2])
    assert torch.equal(model(x, keys), together)
    assert not torch.equal(model(x, keys_of(4, seed=2)), together)
    if mode != "additive":
        assert torch.equal(together, together.round())
    ears = model(torch.stack([x, x], dim=1), keys)
    assert torch.equal(ears[:, :3], together)
    assert not torch.equal(ears[:, 3:], together)
    assert torch.equal(ears[:, 3:], model(x, keys.replace(interval=128)))


@pytest.mark.parametrize("mode", ["approx", "exact", "additive"])
def test_spikes_pass_gradients_on(mode: str) -> None:
    model = Saddler2024(FS, spikes=mode, dtype=torch.float64)
    x = tone(50.0, 600).requires_grad_()
    model(x, keys_of(1)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_spikes_of_a_row_that_is_not_finite() -> None:
    x = tone(50.0, 400, torch.float32).repeat(2, 1)
    for mode in ("approx", "exact", "additive"):
        model = Saddler2024(FS, spikes=mode)
        clean = model(x, keys_of(2))
        spoilt = x.clone()
        spoilt[0, 100] = math.nan
        counts = model(spoilt, keys_of(2))
        assert counts[0].isnan().all()
        assert torch.equal(counts[1], clean[1])


def test_lost_fibres_are_silent() -> None:
    lost = [[384] * 25 + [0] * 25, [160] * 50, [0] * 50]
    counts = Saddler2024(FS, spikes="exact", n_fibers=lost)(tone(70.0, 2000, torch.float32), keys_of(1))
    assert not counts[0, 2].any()
    assert not counts[0, 0, 25:].any()
    assert counts[0, 0, :25].any()
    whole = Saddler2024(FS, spikes="exact")(tone(70.0, 2000, torch.float32), keys_of(1))
    assert torch.equal(counts[0, 1], whole[0, 1])  # the others are untouched


def test_a_crop() -> None:
    x = tone(60.0, 1200, torch.float32).repeat(3, 1)
    whole = Saddler2024(FS)(x)
    fixed = Saddler2024(FS, crop_buffer=(5, 100), crop_size=(40, 400))(x)
    assert torch.equal(fixed, whole[:, :, 5:45, 100:500])
    model = Saddler2024(FS, crop_size=(50, 300))
    with pytest.raises(SpecError, match="more than one place"):
        model(x)
    cut = model(x, keys_of(3))
    places = [next(i for i in range(301) if torch.equal(row, whole[0, :, :, i : i + 300])) for row in cut]
    assert len(set(places)) > 1
    assert torch.equal(model(x[1:2], keys_of(3)[1:2]), cut[1:2])
    with pytest.raises(SpecError, match="does not fit"):
        Saddler2024(FS, crop_size=(51, 300))(x, keys_of(3))
    buffer, size = Saddler2024.published_crop("localisation")
    assert (buffer, size) == ((0, 1000), (50, 10000))


@pytest.mark.parametrize("name", ["mild", "moderate", "moderate_severe"])
def test_a_hearing_loss_raises_thresholds_and_leaves_the_loudest(name: str) -> None:
    """A 1-kHz tone: fewer spikes at 30 dB SPL, nearly as many at 110 dB SPL."""
    ear = example_audiogram(name)
    models = {Saddler2025: (0.0, 80.0), Saddler2024: ((0.0, 12.0, 28.0), (20.0, 40.0, 80.0))}
    for kind, (threshold, width) in models.items():
        normal = kind(FS, dtype=torch.float64)
        impaired = kind(FS, dtype=torch.float64, **nerve_losses(ear, normal.fc, threshold, width, bw_mult=1.0))
        channel = int((normal.fc - 1000.0).abs().argmin())
        growth = {}
        for who, model in (("normal", normal), ("impaired", impaired)):
            sounds = torch.cat([tone(level, 2000) for level in (30.0, 110.0)])
            growth[who] = model.represent(sounds).values[:, channel, :, 500:].mean(-1)
        assert (growth["impaired"][0] < growth["normal"][0]).any()
        assert (growth["impaired"][0] <= growth["normal"][0] + 1e-9).all()
        # The loudest samples saturate both; those around the zero crossings are where the impaired ear has less
        kept = growth["impaired"] / growth["normal"]
        assert (kept[1] > 0.85).all()
        assert (kept[1] > kept[0]).all()


def test_a_hearing_aid_is_found_by_gradient() -> None:
    """One gain, for a flat loss of 40 dB: ten steps lower the loss."""
    normal = Saddler2025(FS, num_cf=10)
    impaired = Saddler2025(FS, num_cf=10, threshold_db_spl=40.0, dynamic_range_db=40.0, bw_mult=2.0)
    x = tone(60.0, 1000, torch.float32)
    target = normal(x)
    gain_db = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([gain_db], lr=1.0)
    losses = []
    for _ in range(10):
        loss = (impaired(10.0 ** (gain_db / 20.0) * x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert gain_db.item() > 5.0


@pytest.mark.parametrize("variant", ["word", "tutorial"])
def test_restricted_keeps_the_channel(variant: str) -> None:
    whole = build(variant, dtype=torch.float64)
    frequency = float(whole.fc[7])
    x = tone(60.0, 700)
    one = whole.restricted(frequency).represent(x).values
    torch.testing.assert_close(one[:, 0], whole.represent(x).values[:, 7], rtol=1e-9, atol=1e-9)
    with pytest.raises(SpecError, match="bw_mult"):
        build("per_channel").restricted(1000.0)
    with pytest.raises(SpecError, match="dynamic_range_db"):
        build("tutorial_step").restricted(1000.0)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Saddler2024, {"preset": "words"}, "Did you mean 'word'"),
        (Saddler2024, {"variant": "publishd"}, "Did you mean 'published'"),
        (Saddler2024, {"spikes": "aprox"}, "Did you mean 'approx'"),
        (Saddler2024, {"fs_model": 25e3}, "whole multiple"),
        (Saddler2024, {"max_cf": 12e3}, "below fs/2 = 10000 Hz"),
        (Saddler2024, {"limit_hz": 0.0}, "cutoff_hz"),
        (Saddler2024, {"bw_mult": [1.0, 2.0]}, "2 values, but there are 50 channels"),
        (Saddler2024, {"bw_mult": -1.0}, "bw_mult"),
        (Saddler2024, {"n_fibers": [1, 2]}, "3 groups"),
        (Saddler2024, {"n_fibers": [1.5, 2, 3]}, "whole numbers"),
        (Saddler2024, {"n_fibers": [4000, 2, 3]}, "whole numbers from 0 to 1000"),
        (Saddler2024, {"threshold_db_spl": [[0.0] * 3] * 3}, "50 channels"),
        (Saddler2024, {"threshold_db_spl": [0.0, 1.0]}, "do not agree"),
        (Saddler2024, {"dynamic_range_db": [20.0, 40.0, -1.0]}, "at least 0 dB"),
        (Saddler2024, {"rate_spont": 300.0}, "rate_max at least rate_spont"),
        (Saddler2024, {"compression_kwargs": {"powr": 0.3}}, "Did you mean 'power'"),
        (Saddler2024, {"compression_kwargs": {"power": 1.5}}, "power"),
        (Saddler2024, {"compression_kwargs": {"lower_knee_db_spl": 50.0, "upper_knee_db_spl": 40.0}}, "upper_knee"),
        (Saddler2024, {"filterbank_kwargs": {"earq": 9.0}}, "Did you mean 'ear_q'"),
        (Saddler2024, {"fs": 20e3 * math.pi}, "no fraction"),
        (Saddler2025, {"threshold_db_spl": [0.0, 1.0]}, "2 values, but there are 100 channels"),
        (Saddler2025, {"ihc_taps": []}, "taps"),
        (Saddler2025, {"cfs": []}, "empty"),
        (Saddler2025, {"num_cf": 0}, "number of centre frequencies"),
        (Saddler2025, {"fir_dur": 0.0}, "fir_dur"),
        (Saddler2025, {"interval": 1.0}, "interval"),
        (Saddler2025, {"order": 2.5}, "order"),
    ],
)
def test_wrong_arguments(kind: type, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        kind(**({"fs": FS} | arguments))


def test_wrong_keys() -> None:
    model = Saddler2024(FS, spikes="exact")
    x = tone(60.0, 100, torch.float32)
    with pytest.raises(SpecError, match="needs keys"):
        model(x)
    with pytest.raises(SpecError, match=r"one per row: \(1,\)"):
        model(x, keys_of(2))
