from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from psysim.errors import SpecError
from psysim.models import Jepsen2008, Paulick2024, registry
from psysim.stages import DRNLFilterbank, hair_cell_losses

FS = 44100.0
DTYPES = [torch.float32, torch.float64]
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "published": {"preset": "published"},
    "jepsen2008": {"variant": "jepsen2008"},
    "no_outer_ear": {"use_outerear": False},
    "stapes": {"use_outerear": False, "outerear_kwargs": {"middle_ear": False}},
    "hix": {"drnl_kwargs": {"subject": "HIx"}},
    "hearing_loss": {"drnl_kwargs": {"ohc_loss_db": 10.0}, "ihc_kwargs": {"ihc_loss_db": 20.0}},
    "jepsen2008_loss": {"variant": "jepsen2008", "ihc_kwargs": {"ihc_loss_db": 20.0}},
    "butterworth": {"filter_type": "butterworth"},
    "complex": {"modulation_kwargs": {"phase_insens": False}},
}
STAGES = ("outerear", "drnl", "ihc", "adaptation", "resampled")


def tone(level_db_spl: float, samples: int, dtype: torch.dtype = torch.float32, frequency_hz: float = 1000.0) -> Tensor:
    """Return a tone without ramps, pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    x = math.sqrt(2.0) * 20e-6 * 10.0 ** (level_db_spl / 20.0) * torch.sin(2.0 * math.pi * frequency_hz * t)
    return x.to(dtype)


def sounds(samples: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return silence, a click, a 60-dB and a 100-dB tone with an offset: (4, samples) pascal."""
    click = torch.zeros(samples, dtype=dtype)
    click[samples // 4] = 0.2
    loud = tone(100.0, samples, dtype)
    loud[samples // 2 :] = 0.0
    return torch.stack([torch.zeros(samples, dtype=dtype), click, tone(60.0, samples, dtype), loud])


def test_documented_signature() -> None:
    parameters = inspect.signature(Paulick2024).parameters
    documented = {"fs": 44100, "flow": 125.0, "fhigh": 8000.0, "n_channels": 50, "use_outerear": True}
    documented |= {"learnable": False, "return_stages": False, "filter_type": "efilt", "dtype": torch.float32}
    documented |= {f"{name}_kwargs": None for name in ("outerear", "drnl", "ihc", "adaptation", "modulation")}
    assert list(parameters)[: len(documented)] == list(documented)
    assert {name: parameters[name].default for name in documented} == documented


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_stages(variant: str, dtype: torch.dtype) -> None:
    model = Paulick2024(FS, dtype=dtype, return_stages=True, **VARIANTS[variant])
    x = sounds(883, dtype)
    channels, stages = model(x)
    assert len(channels) == model.num_channels == len(model.fc) == 50
    assert (model.resample_factor, model.fs_resampled) == (4, 11025.0)
    for output, mfc in zip(channels, model.modulation.mfc, strict=True):
        assert output.shape == (4, len(mfc), 220)
        assert output.real.dtype == dtype
    assert tuple(stages) == STAGES
    for name, value in stages.items():
        n = 220 if name == "resampled" else 883
        assert value.shape == ((4, n) if name == "outerear" else (4, 50, n))
        assert value.dtype == dtype
    single, single_stages = model(x[2])
    assert all(torch.equal(one, batch[2]) for one, batch in zip(single, channels, strict=True))
    assert all(torch.equal(single_stages[name], stages[name][2]) for name in stages)
    plain = Paulick2024(FS, dtype=dtype, **VARIANTS[variant])
    assert all(torch.equal(a, b) for a, b in zip(plain(x), channels, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_one_pass_the_bits_are_the_same_and_rows_do_not_depend_on_the_batch(variant: str) -> None:
    model = Paulick2024(FS, **VARIANTS[variant])
    x = sounds(883)
    together = model.represent(x).values
    assert torch.equal(model.represent(x[[3, 1]]).values, together[[3, 1]])
    assert torch.equal(model.represent(x[1]).values, together[1:2])
    chain = model.fused(x)
    assert (chain is None) == (variant in ("butterworth", "complex"))
    if chain is not None:
        y, steps = chain
        assert y.ndim == 2
        for step in steps:
            y = step.run(y)
        assert torch.equal(y, together)


@pytest.mark.parametrize("variant", ["default", "jepsen2008", "hix"])
def test_float32_and_float64_agree(variant: str) -> None:
    """1e-3 of the peak, 2e-2 at 100 dB: README of the golden files."""
    x = sounds(4410, torch.float64)
    exact = Paulick2024(FS, dtype=torch.float64, **VARIANTS[variant]).represent(x).values
    rounded = Paulick2024(FS, **VARIANTS[variant]).represent(x.float()).values.double()
    for row, (a, b) in enumerate(zip(exact, rounded, strict=True)):
        bound = 2e-2 if row == 0 else (2e-2 if row == 3 else 1e-3) * float(a.abs().max())
        assert float((a - b).abs().max()) <= bound


def test_presets_and_names() -> None:
    assert float(Paulick2024(FS).fc[0]) == 125.0
    assert float(Paulick2024(FS, preset="published").fc[0]) == 250.0
    # What the caller gives wins, the documented default as well
    assert float(Paulick2024(FS, 125.0, preset="published").fc[0]) == 125.0
    assert float(Paulick2024(FS, flow=500.0, preset="published").fc[0]) == 500.0
    for name in ("paulick2024", "jepsen2008"):
        model = registry.get(name)(fs=FS)
        assert isinstance(model, Paulick2024)
        assert model.variant == name
        assert (float(model.fc[0]), model.num_channels, model.use_outerear) == (250.0, 50, True)
        assert float(registry.get(name)(fs=FS, flow=125.0).fc[0]) == 125.0
    assert Jepsen2008(FS).adaptation.preset == "jepsen2008"
    assert Paulick2024(FS, variant="jepsen2008", drnl_kwargs={"model": "jepsen2008"}).variant == "jepsen2008"
    assert type(Paulick2024(FS, drnl_kwargs={"model": "jepsen2008"}).ihc).__name__ == "IHCJepsen2008"


def test_number_of_modulation_filters() -> None:
    """SPEC_paulick2024, section 8 and table 11: 6 at 250 Hz (5 at 125 Hz) to 12 from 3969 Hz on, up to 992.3 Hz."""
    published = Paulick2024(FS, preset="published").modulation
    counts = published.num_filters
    assert (counts[0], counts[-1], max(counts)) == (6, 12, 12)
    assert counts == sorted(counts)
    assert Paulick2024(FS).modulation.num_filters[0] == 5
    assert float(published.mfc_all[-1]) == pytest.approx(992.29, abs=5e-3)
    assert [n == 12 for n in counts] == [bool(f >= 3969.0) for f in published.fc]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_list_is_made_of_views(dtype: torch.dtype) -> None:
    model = Paulick2024(FS, dtype=dtype)
    x = sounds(441, dtype)
    channels, r = model(x), model.represent(x)
    storage = channels[0].untyped_storage()
    assert storage.nbytes() == r.values.untyped_storage().nbytes()
    for i, output in enumerate(channels):
        assert output.untyped_storage().data_ptr() == storage.data_ptr()
        assert torch.equal(output, r.values[:, i, r.valid[i]])


def test_custom_arguments_reach_their_stages() -> None:
    given: dict[str, Any] = {"fs": 32000.0, "flow": 200.0, "fhigh": 6000.0, "n_channels": 20, "use_outerear": False}
    given |= {"learnable": True, "return_stages": True, "filter_type": "butterworth", "dtype": torch.float64}
    given |= {"outerear_kwargs": {"order": 256}, "drnl_kwargs": {"subject": "HIx"}, "ihc_kwargs": {"ihc_loss_db": 3.0}}
    given |= {"adaptation_kwargs": {"limit": 5.0}, "modulation_kwargs": {"max_mfc": 150.0, "Q": 1.0}}
    given |= {"preset": "published", "variant": "paulick2024"}
    model = Paulick2024(**given)
    assert set(given) == set(inspect.signature(Paulick2024).parameters)
    for name, value in given.items():
        assert getattr(model, name) == value, name
    assert model.outerear.headphone is None
    assert model.outerear.middleear is not None
    assert model.outerear.middleear.order == 256
    assert (model.num_channels, float(model.fc[0]), float(model.fc[-1])) == (20, 200.0, 6000.0)
    assert (model.drnl.subject, model.adaptation.limit, model.modulation.Q) == ("HIx", 5.0, 1.0)
    assert model.ihc.ihc_loss_db.tolist() == [3.0]
    assert model.modulation.fs == model.fs_resampled == 8000.0
    given["adaptation_kwargs"]["limit"] = 1.0
    assert model.adaptation_kwargs == {"limit": 5.0}


def test_channels_do_not_depend_on_one_another() -> None:
    loss = torch.linspace(0.0, 15.0, 50)
    options = {"drnl_kwargs": {"ohc_loss_db": loss}, "ihc_kwargs": {"ihc_loss_db": loss}}
    model = Paulick2024(FS, preset="published", dtype=torch.float64, **options)
    x = tone(60.0, 900, torch.float64)
    whole = model.represent(x)
    for channel in (0, 17, 49):
        one = model.restricted(float(whole.fc[channel])).represent(x)
        expected = whole.values[0, channel, whole.valid[channel]]
        torch.testing.assert_close(one.values[0, 0], expected, rtol=0, atol=1e-9)


def test_restricted_where_less_can_be_lost_than_beside_it() -> None:
    limit = DRNLFilterbank((250.0, 8000.0), FS).max_ohc_loss_db
    model = Paulick2024(FS, preset="published", drnl_kwargs={"ohc_loss_db": limit})
    for frequency_hz in (260.0, 990.0, 1000.0, 1010.0):  # above 1 kHz 4 dB more can be lost than below
        assert model.restricted(frequency_hz).num_channels == 1


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("published", "no_outer_ear")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_finite_for_every_sound(variant: str, dtype: torch.dtype) -> None:
    model = Paulick2024(FS, n_channels=8, dtype=dtype, learnable=True, **VARIANTS[variant])
    x = sounds(1500, dtype).requires_grad_()
    values = model.represent(x).values
    (values.abs() if values.is_complex() else values).square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("variant", ["default", "jepsen2008", "hearing_loss"])
def test_a_learning_step_changes_parameters_and_lowers_the_loss(variant: str) -> None:
    model = Paulick2024(FS, n_channels=8, learnable=True, **VARIANTS[variant])
    x = tone(60.0, 1500).unsqueeze(0)
    target = Paulick2024(FS, n_channels=8, adaptation_kwargs={"limit": 5.0}, **VARIANTS[variant]).represent(x).values
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = (model.represent(x).values - target).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 1e-5 * parameter.abs().clamp(min=1e-3) * parameter.grad.sign()
    assert (model.represent(x).values - target).square().mean().item() < loss.item()
    changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    assert set(changed) == set(before)
    assert {name.split(".")[0] for name in changed} == {"outerear", "drnl", "ihc", "adaptation", "modulation"}


def test_an_optimiser_step_as_documented() -> None:
    model = Paulick2024(FS, n_channels=8, learnable=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = [value.detach().clone() for value in model.parameters()]
    x = tone(60.0, 1500).unsqueeze(0)
    sum(y.square().mean() for y in model(x)).backward()
    optimiser.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(y.isfinite().all() for y in model(x))


@pytest.mark.parametrize("variant", ["default", "jepsen2008", "hearing_loss"])
def test_gradients_agree_with_finite_differences(variant: str) -> None:
    options = {"flow": 500.0, "fhigh": 1200.0, "n_channels": 3} | VARIANTS[variant]
    model = Paulick2024(FS, dtype=torch.float64, learnable=True, **options)
    x = tone(60.0, 800, torch.float64).unsqueeze(0)
    shape = model.represent(x).values.shape
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss() -> Tensor:
        return (model.represent(x).values * weights).sum()

    loss().backward()
    for name, parameter in model.named_parameters():
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
        tolerance = {"rel": 1e-4, "abs": 1e-4 / max(abs(value), 1e-9)}
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, **tolerance), name


class _Count(TorchDispatchMode):
    """Counts the operators that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", ["default", "jepsen2008"])
@pytest.mark.parametrize("learnable", [False, True])
def test_the_number_of_operators_does_not_grow_with_the_sound(variant: str, learnable: bool) -> None:
    model = Paulick2024(FS, learnable=learnable, return_stages=learnable, **VARIANTS[variant])
    counts = []
    for samples in (1000, 4000):
        with _Count() as counter:
            model(torch.zeros(1, samples))
        counts.append(counter.count)
    assert counts[0] == counts[1]
    assert counts[0] < 1000


def test_a_hearing_loss_is_a_loss() -> None:
    """Soft tones excite an impaired ear less; a loud tone is nearer to normal."""
    normal = Paulick2024(FS, preset="published", return_stages=True)
    ohc, ihc = hair_cell_losses(normal.drnl, [250.0, 1000.0, 4000.0], [20.0, 30.0, 60.0])
    options = {"drnl_kwargs": {"ohc_loss_db": ohc}, "ihc_kwargs": {"ihc_loss_db": ihc}}
    impaired = Paulick2024(FS, preset="published", return_stages=True, **options)
    channel = int((normal.fc - 4000.0).abs().argmin())
    levels = (30.0, 90.0)
    x = torch.stack([tone(level, 8820, frequency_hz=4000.0) for level in levels])
    steady = [model(x)[1]["adaptation"][:, channel, -2000:].mean(-1) for model in (normal, impaired)]
    assert float(steady[0][0]) > 5.0
    assert float(steady[1][0]) < 0.01 * float(steady[0][0])
    assert float(steady[1][1]) > 0.3 * float(steady[0][1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outerear_kwargs": {"compensation_type": "tfOuterMiddle1997"}}, "compensation_type.*is not available"),
        ({"outerear_kwargs": {"field_type": "free"}}, "field_type.*is not available"),
        ({"outerear_kwargs": {"orde": 5}}, "Did you mean 'order'"),
        ({"drnl_kwargs": {"subjekt": "NH"}}, "Did you mean 'subject'"),
        ({"drnl_kwargs": {"subject": "HI"}}, "Did you mean 'HIx'"),
        ({"drnl_kwargs": {"model": "jepsen2009"}}, "Did you mean 'jepsen2008'"),
        ({"variant": "paulick"}, "Did you mean 'paulick2024'"),
        ({"variant": "paulick2024", "drnl_kwargs": {"model": "jepsen2008"}}, "contradict"),
        ({"variant": "jepsen2008", "drnl_kwargs": {"ohc_loss_db": 5.0}}, "paths partly cancel"),
        ({"ihc_kwargs": {"loss_db": 5.0}}, "Did you mean 'ihc_loss_db'"),
        ({"ihc_kwargs": {"ihc_loss_db": [5.0, 4.0]}}, "ihc_loss_db has 2 entries, but there are 50 channels"),
        ({"adaptation_kwargs": {"limits": 5.0}}, "Did you mean 'limit'"),
        ({"adaptation_kwargs": {"minlvl_per_channel": [1e-4, 1e-5]}}, "minlvl_per_channel has 2 entries"),
        ({"modulation_kwargs": {"filter_type": "efilt"}}, "modulation_kwargs has no key 'filter_type'"),
        ({"filter_type": "butter"}, "Did you mean 'butterworth'"),
        ({"preset": "publish"}, "Did you mean 'published'"),
        ({"fs": 16000.0}, "below fs/2 = 8000 Hz"),
        ({"n_channels": 1}, "one channel needs flow = fhigh"),
        ({"n_channels": 2.5}, "n_channels"),
        ({"flow": 9000.0}, "flow must be below fhigh"),
        ({"dtype": torch.int32}, "dtype"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Paulick2024(**({"fs": FS} | arguments))


def test_sounds_of_less_than_one_sample_of_the_representation() -> None:
    for call in (Paulick2024(FS), Paulick2024(FS).represent, Paulick2024(FS, return_stages=True)):
        with pytest.raises(SpecError, match="at least 4"):
            call(torch.zeros(1, 3))
    assert Paulick2024(FS).represent(torch.zeros(1, 4)).values.shape == (1, 50, 12, 1)


def test_conversion_keeps_constants_exact() -> None:
    model, exact = Paulick2024(FS, n_channels=8), Paulick2024(FS, n_channels=8, dtype=torch.float64)
    x = sounds(882, torch.float64)
    assert torch.equal(model.float().double().represent(x).values, exact.represent(x).values)
    assert model.represent(x.float()).values.dtype == torch.float64
