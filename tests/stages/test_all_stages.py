"""What every stage promises, whatever it computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from psysim import stages
from psysim.errors import SpecError
from psysim.stages.base import AuditoryModule

FS = 8000.0
FC = torch.tensor([60.0, 250.0, 1000.0])
DTYPES = [torch.float32, torch.float64]

NERVE = {"threshold_db_spl": [0.0, 12.0, 28.0], "dynamic_range_db": [60.0, 70.0, 80.0]}
# name -> (constructor with keyword arguments, whether the input has channels)
STAGES: dict[str, tuple[Callable[..., AuditoryModule], bool]] = {
    "gammatone": (lambda **kw: stages.GammatoneFilterbank(FC, FS, **kw), False),
    "gammatone_order2_peak_phase": (lambda **kw: stages.GammatoneFilterbank(FC, FS, n=2, peak_phase=True, **kw), False),
    "headphone": (lambda **kw: stages.HeadphoneFilter(FS, **kw), False),
    "headphone_minimum": (lambda **kw: stages.HeadphoneFilter(FS, phase_type="minimum", order=64, **kw), False),
    "middleear": (lambda **kw: stages.MiddleEarFilter(FS, delay_compensation="exact", **kw), False),
    "middleear_jepsen2008": (lambda **kw: stages.MiddleEarFilter(FS, "jepsen2008", **kw), False),
    "outermiddleear": (lambda **kw: stages.OuterMiddleEarFilter(FS, **kw), False),
    "drnl": (lambda dtype=torch.float32, **kw: stages.DRNLFilterbank(FC, FS, dtype=dtype, **kw), False),
    "drnl_jepsen2008": (
        lambda dtype=torch.float32, **kw: stages.DRNLFilterbank(FC, FS, model="jepsen2008", dtype=dtype, **kw),
        False,
    ),
    "drnl_ohc_loss": (
        lambda dtype=torch.float32, **kw: stages.DRNLFilterbank(FC[1:], FS, ohc_loss_db=9.0, dtype=dtype, **kw),
        False,
    ),
    "circuit": (lambda **kw: stages.IHCPaulick2024(FS, **kw), True),
    "circuit_loss": (lambda **kw: stages.IHCPaulick2024(FS, ihc_loss_db=[5.0, 10.0, 20.0], **kw), True),
    "ihc_square": (lambda **kw: stages.IHCJepsen2008(FS, **kw), True),
    "ihc_square_loss": (lambda **kw: stages.IHCJepsen2008(FS, ihc_loss_db=[5.0, 10.0, 20.0], **kw), True),
    "broken_stick": (lambda **kw: stages.BrokenStickCompression(**kw), True),
    "power": (lambda **kw: stages.PowerCompression(**kw), True),
    "broken_stick_per_channel": (
        lambda **kw: stages.BrokenStickCompression(exponent=[0.3, 0.5, 0.8], channel_dim=-2, **kw),
        True,
    ),
    "lowpass": (lambda **kw: stages.ButterworthFilter(5, 500.0, FS, **kw), True),
    "highpass": (lambda **kw: stages.ButterworthFilter(1, 3.0, FS, btype="high", **kw), True),
    "bandpass": (lambda **kw: stages.ButterworthFilter(3, (200.0, 900.0), FS, btype="band", **kw), True),
    "bandstop": (lambda **kw: stages.ButterworthFilter(3, (200.0, 900.0), FS, btype="stop", **kw), True),
    "modulation_king2019": (lambda **kw: stages.King2019ModulationFilterbank(FS, **kw), True),
    "modulation_king2019_signed": (
        lambda **kw: stages.King2019ModulationFilterbank(FS, phase_insens=False, lowpass_cutoff=150.0, **kw),
        True,
    ),
    "modulation_king2019_fast": (lambda **kw: stages.FastKing2019ModulationFilterbank(FS, **kw), True),
    "modulation_fast": (lambda **kw: stages.FastModulationFilterbank(FS, FC, **kw), True),
    "drnl_fast": (
        lambda dtype=torch.float32, **kw: stages.FastDRNLFilterbank(FC, FS, dtype=dtype, **kw),
        False,
    ),
    "adaptation": (lambda **kw: stages.AdaptLoop(FS, **kw), True),
    "adaptation_no_limit": (lambda **kw: stages.AdaptLoop(FS, preset="puschel1988", **kw), True),
    "adaptation_per_channel": (lambda **kw: stages.AdaptLoop(FS, preset="paulick2024", fc=FC, **kw), True),
    "modulation": (lambda **kw: stages.ModulationFilterbank(FS, FC, **kw), True),
    "modulation_att_gain": (lambda **kw: stages.ModulationFilterbank(FS, FC, preset="osses2021_att_gain", **kw), True),
    "modulation_butterworth": (lambda **kw: stages.ModulationFilterbank(FS, FC, filter_type="butterworth", **kw), True),
    "gammatone_fir": (lambda **kw: stages.GammatoneFIRFilterbank(FC, FS, 0.02, bw_mult=1.0, **kw), False),
    "slaney_fir": (lambda **kw: stages.SlaneyFIRFilterbank(FC, FS, 0.02, **kw), False),
    "half_cosine": (lambda **kw: stages.HalfCosineFilterbank(FS, 50.0, 3000.0, 5, **kw), False),
    "audio_fir": (lambda learnable=False, **kw: stages.AudioFIR(FS, learnable=learnable, **kw), True),
    "phase_locking": (lambda **kw: stages.PhaseLockingFilter(FS, FS / 2, 600.0, fir_dur=0.02, **kw), True),
    "phase_locking_slow": (lambda **kw: stages.PhaseLockingFilter(FS, FS / 4, 50.0, fir_dur=0.06, **kw), True),
    "phase_locking_corrected": (
        lambda **kw: stages.PhaseLockingFilter(FS, FS / 2, 600.0, variant="corrected", **kw),
        True,
    ),
    "phase_locking_resampled": (lambda **kw: stages.PhaseLockingFilter(FS, FS, 900.0, design_fs=2e4, **kw), True),
    "knees": (lambda **kw: stages.KneeCompression([0.3, 0.5, 0.8], 30.0, 93.9794, **kw), True),
    "rates": (lambda **kw: stages.RateLevelFunction(rate_spont=5.0, **NERVE, **kw), True),
    "rates_of_samples": (
        lambda **kw: stages.RateLevelFunction(rate_spont=5.0, envelope_mode=False, power=0.4, **NERVE, **kw),
        True,
    ),
}
for method in ("dau1996", "breebaart2001", "king2019", "lindemann", "relanoiborra2019", "bernstein1999"):
    STAGES[f"ihc_{method}"] = (lambda method=method, **kw: stages.IHCEnvelope(FS, method=method, **kw), True)

# Stages whose signals are small in SI units: size of the input (1 for noise of 0.05) and of the output
SIZES = {"outermiddleear": (1.0, 1e-5), "drnl": (1e-4, 1e-2), "circuit": (1e-2, 1e-4), "ihc_square": (1e-2, 1e-2)}


def sizes(name: str) -> tuple[float, float]:
    return next((size for prefix, size in SIZES.items() if name.startswith(prefix)), (1.0, 1.0))


def build(name: str, **options: object) -> AuditoryModule:
    return STAGES[name][0](**options)


def signal(name: str, batch: int = 4, samples: int = 301, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return noise at 74 dB full scale 100, never exactly 0; positive for the adaptation."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, len(FC), samples) if STAGES[name][1] else (batch, samples)
    x = sizes(name)[0] * 0.05 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return (x.abs() if name.startswith("adaptation") else x).to(dtype)


def dense(stage: AuditoryModule, x: Tensor) -> Tensor:
    return stage.dense(x) if isinstance(stage, stages.ModulationFilterbank) else stage(x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", STAGES)
def test_a_row_does_not_depend_on_the_batch(name: str, dtype: torch.dtype) -> None:
    stage, x = build(name, dtype=dtype), signal(name, batch=7, dtype=dtype)
    together = dense(stage, x)
    assert together.dtype == dtype
    assert together.isfinite().all()
    alone = torch.cat([dense(stage, row.unsqueeze(0)) for row in x])
    assert torch.equal(alone, together)
    shifted = dense(stage, x[[3, 1, 6]])
    assert torch.equal(shifted, together[[3, 1, 6]])


@pytest.mark.parametrize("name", STAGES)
def test_without_batch_dimension(name: str) -> None:
    stage, x = build(name), signal(name, batch=2)
    together = dense(stage, x)
    assert torch.equal(dense(stage, x[0]), together[0])


@pytest.mark.parametrize("name", STAGES)
def test_calls_leave_nothing_behind(name: str) -> None:
    stage, x = build(name), signal(name)
    before = {key: value.clone() for key, value in stage.state_dict().items()}
    kept, rng = x.clone(), torch.get_rng_state()
    first = dense(stage, x)
    dense(stage, signal(name, batch=2, samples=77, seed=5))
    assert torch.equal(dense(stage, x), first)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, before[key]) for key, value in stage.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", STAGES)
def test_a_sample_that_is_not_finite_stays_in_its_row_and_is_not_hidden(name: str, value: float) -> None:
    stage, x = build(name), signal(name)
    if isinstance(stage, stages.AdaptLoop) and stage.limit > 1 and value == float("inf"):
        value = float("nan")  # an infinite onset is limited like any other; models never let one get here
    if isinstance(stage, stages.IHCPaulick2024):
        value = float("nan")  # all channels are open; the filterbank before it turns infinity into NaN
    clean = dense(stage, x)
    x[2, ..., 100] = value
    spoilt = dense(stage, x)
    assert torch.equal(spoilt[[0, 1, 3]], clean[[0, 1, 3]])
    row = spoilt[2][stage.valid] if isinstance(stage, stages.ModulationFilterbank) else spoilt[2]
    # Every channel must show it, at the sample itself or later (ears: earlier as well).
    assert not row.isfinite().all(-1).any()


@pytest.mark.parametrize("name", STAGES)
def test_float32_and_float64_agree(name: str) -> None:
    x = signal(name, dtype=torch.float64)
    exact, rounded = dense(build(name, dtype=torch.float64), x), dense(build(name), x.float())
    # 5e-5 of the peak: the onset of the limiter magnifies the rounding of the input most.
    assert float((exact - rounded).abs().max()) <= 5e-5 * float(exact.abs().max())


@pytest.mark.parametrize("name", STAGES)
def test_the_dtype_can_change_while_constants_stay_float64(name: str) -> None:
    stage = build(name)
    expected = dense(build(name, dtype=torch.float64), signal(name, dtype=torch.float64))
    assert stage.float().double().dtype == torch.float64
    for key, value in stage.state_dict().items():
        assert value.dtype == torch.float64, key
    assert torch.equal(dense(stage, signal(name, dtype=torch.float64)), expected)
    with pytest.raises(SpecError, match="dtype"):
        dense(stage.half(), signal(name))


@pytest.mark.parametrize("name", STAGES)
def test_state_dict_round_trip(name: str) -> None:
    learnable = build(name, learnable=True)
    assert all(isinstance(value, nn.Parameter) for value in learnable.parameters())
    assert len(list(learnable.parameters())) > 0
    assert len(list(build(name).parameters())) == 0
    with torch.no_grad():
        for parameter in learnable.parameters():
            parameter.mul_(0.99)
    other = build(name)
    other.load_state_dict(learnable.state_dict())
    x = signal(name)
    assert torch.equal(dense(other, x), dense(learnable, x).detach())
    assert torch.equal(dense(copy.deepcopy(other), x), dense(other, x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", STAGES)
def test_a_learning_step_changes_the_output(name: str, dtype: torch.dtype) -> None:
    stage, x = build(name, learnable=True, dtype=dtype), signal(name, dtype=dtype)
    before = dense(stage, x)
    before.square().mean().backward()
    for key, parameter in stage.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.dtype == torch.float64
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(-1e-4 * parameter.abs() * parameter.grad.sign())
    assert dense(stage, x).square().mean().item() < before.square().mean().item()


@pytest.mark.parametrize("name", STAGES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    stage, x = build(name, learnable=True, dtype=torch.float64), signal(name, batch=1, samples=60, dtype=torch.float64)
    names = [key for key, _ in stage.named_parameters()]

    def output(audio: Tensor, *values: Tensor) -> Tensor:
        method = _Dense(stage) if isinstance(stage, stages.ModulationFilterbank) else stage
        prefix = "stage." if isinstance(method, _Dense) else ""
        parameters = {prefix + key: value for key, value in zip(names, values, strict=True)}
        return torch.func.functional_call(method, parameters, (audio,))

    values = [value.detach().clone().requires_grad_() for value in stage.parameters()]
    # Constants have very different sizes (1e-6 V, 1000 Hz): the check is on the relative change of each.
    scale = [value.detach().abs().clamp(min=1e-12) for value in values]
    relative = [torch.zeros_like(value, requires_grad=True) for value in values]

    size_in, size_out = sizes(name)

    def of_relative(audio: Tensor, *changes: Tensor) -> Tensor:
        changed = (v.detach() + s * c for v, s, c in zip(values, scale, changes, strict=True))
        return output(size_in * audio, *changed) / size_out

    audio = (x / size_in).requires_grad_()
    torch.autograd.gradcheck(of_relative, (audio, *relative), eps=1e-7, atol=1e-4, rtol=1e-4, fast_mode=True)


class _Dense(nn.Module):
    """The dense output of a modulation filterbank as a module's forward."""

    def __init__(self, stage: stages.ModulationFilterbank) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        return self.stage.dense(x)


@pytest.mark.parametrize("name", STAGES)
def test_wrong_input_is_refused_with_a_reason(name: str) -> None:
    stage, x = build(name), signal(name)
    with pytest.raises(SpecError, match=r"int16.*pascal"):
        dense(stage, x.to(torch.int16))
    with pytest.raises(SpecError, match="empty"):
        dense(stage, x[..., :0])
    with pytest.raises(SpecError, match="empty"):
        dense(stage, x[:0])
    with pytest.raises(SpecError, match="shape"):
        dense(stage, x.expand(2, 2, *x.shape))
    with pytest.raises(SpecError, match="ndarray"):
        dense(stage, x.numpy())
    with pytest.raises(SpecError, match="device"):
        dense(stage, x.to("meta"))


@pytest.mark.parametrize("fs", [0.0, -1.0, float("nan"), float("inf"), "44100", True])
def test_wrong_sampling_rate(fs: object) -> None:
    with pytest.raises(SpecError, match="fs"):
        stages.IHCEnvelope(fs)


def test_wrong_dtype() -> None:
    with pytest.raises(SpecError, match=r"torch\.float16"):
        stages.AdaptLoop(FS, dtype=torch.float16)
    assert stages.AdaptLoop(FS, dtype="float64").dtype == torch.float64
