"""What every registered hearing aid must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.aids import HearingAid, registry

FS = 16000.0
AIDS: dict[str, dict[str, Any]] = {
    "pass_through": {},
    "gain": {"gain_db": 12.0},
    "linear": {"prescription": "NAL-R", "audiogram": "N3", "duration_s": 0.006},
    "wdrc": {
        "crossovers_hz": [1000.0, 3000.0],
        "gain_db": [5.0, 15.0, 25.0],
        "ratio": [1.5, 2.0, 3.0],
        "max_output_db_spl": 85.0,
        "coupling": 0.3,
        "link_ears": True,
        "duration_s": 0.004,
    },
    "filterbank_gains": {"gain_db": [3.0, -2.0, 0.0, 1.0, 5.0, 8.0, 2.0]},
    "fir": {"taps": [0.2, -0.1, 1.5, 0.3], "delay": 2},
    "noise_reduction": {"hop_s": 0.001, "rise_s": 0.01},
    "directional": {"benefit_db": 4.0},
    "chain": {
        "stages": [{"kind": "noise_reduction", "hop_s": 0.001, "rise_s": 0.01}, {"kind": "gain", "gain_db": 6.0}]
    },
}
LEARNABLE = {
    "gain": "gain_db",
    "linear": "gain_db",
    "wdrc": "ratio",
    "filterbank_gains": "gain_db",
    "fir": "impulse_response",
    "noise_reduction": "floor_db",
    "directional": "benefit_db",
    "chain": "stages.1.gain_db",
}


def aid(name: str, dtype: torch.dtype = torch.float64, **more: Any) -> HearingAid:
    return registry.get(name)(FS, **AIDS[name], **more, dtype=dtype)


def sound(*shape: int, seed: int = 1) -> Tensor:
    """Noise of about 74 dB SPL whose level jumps by 20 dB half-way."""
    x = 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[..., : shape[-1] // 2] *= 0.1
    return x


def heard(device: HearingAid, x: Tensor) -> Tensor:
    return device.mix(x, 0.5 * x.flip(-1)) if device.needs_sources else device(x)


def test_every_aid_is_tested_here() -> None:
    assert set(AIDS) == set(registry.names())


@pytest.mark.parametrize("name", AIDS)
@pytest.mark.parametrize("shape", [(700,), (2, 700), (2, 2, 700)], ids=str)
def test_shape_and_dtype_stay(name: str, shape: tuple[int, ...]) -> None:
    x = sound(*shape)
    for dtype in (torch.float32, torch.float64):
        y = heard(aid(name, dtype), x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert bool(torch.isfinite(y).all())
        assert float(y.abs().max()) > 0


@pytest.mark.parametrize("name", AIDS)
def test_a_row_does_not_depend_on_its_neighbours(name: str) -> None:
    x = sound(3, 600)
    device = aid(name, torch.float32)
    assert torch.equal(heard(device, x)[1], heard(device, x[1:2])[0])


@pytest.mark.parametrize("name", AIDS)
def test_blocks_equal_one_pass(name: str) -> None:
    """To rounding: FFTs of other lengths differ in the last bits."""
    device, x = aid(name), sound(2, 2, 1500)
    if device.needs_sources:
        with pytest.raises(SpecError, match="target and noise apart"):
            device.process(x)
        return
    if not device.streams:
        with pytest.raises(SpecError, match="whole sound"):
            device.process(x, {})
        return
    state, parts = None, []
    for block in x.split([1, 37, 400, 512, 549, 1], -1):
        y, state = device.process(block, state)
        parts.append(y)
    whole = device(x)
    assert float((torch.cat(parts, -1) - whole).abs().max()) <= 1e-11 * float(whole.abs().max())


@pytest.mark.parametrize("name", AIDS)
def test_causal(name: str) -> None:
    """What comes later changes nothing before it; the largest response to a click is ``delay`` samples after it."""
    device = aid(name)
    if not device.streams or device.needs_sources:
        return
    x = sound(1, 1200)
    later = x.clone()
    later[:, 700:] = 0.0
    a, b = device(x), device(later)
    assert float((a - b)[:, :700].abs().max()) <= 1e-11 * float(a.abs().max())
    click = torch.zeros(1, 1200, dtype=torch.float64)
    click[:, 300] = 0.02
    assert int(device(click).abs().argmax()) == 300 + device.delay


@pytest.mark.parametrize("name", AIDS)
def test_silence_stays_silent(name: str) -> None:
    silence = torch.zeros(1, 500)
    assert bool((heard(aid(name, torch.float32), silence) == 0).all())


@pytest.mark.parametrize("name", AIDS)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """With respect to the sound and every learnable setting, float64."""
    device = aid(name, learnable=True)
    x = sound(1, 60).requires_grad_()
    parameters = list(device.parameters())
    assert (name in LEARNABLE) == bool(parameters)
    assert torch.autograd.gradcheck(lambda *_: heard(device, x), (x, *parameters), eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", LEARNABLE)
def test_settings_are_parameters_only_if_learnable(name: str) -> None:
    assert not list(aid(name).parameters())
    learnable = dict(aid(name, learnable=True).named_parameters())
    assert LEARNABLE[name] in learnable
    assert all(p.dtype == torch.float64 for p in aid(name, torch.float32, learnable=True).parameters())


@pytest.mark.parametrize("name", AIDS)
def test_wrong_shapes_are_refused(name: str) -> None:
    for shape in [(1, 3, 50), (1, 1, 2, 50)]:
        with pytest.raises(SpecError, match=r"must have shape \(T,\)"):
            heard(aid(name), torch.zeros(*shape))
    with pytest.raises(SpecError, match="empty"):
        heard(aid(name), torch.zeros(2, 0))


@pytest.mark.parametrize("name", AIDS)
def test_gradients_are_finite_at_silence(name: str) -> None:
    device = aid(name, torch.float32, learnable=True)
    x = torch.zeros(1, 400, requires_grad=True)
    heard(device, x).square().sum().backward()
    for tensor in (x, *device.parameters()):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())


@pytest.mark.parametrize("name", AIDS)
def test_float32_and_float64_agree(name: str) -> None:
    """To 1e-4 of the largest sample."""
    x = sound(2, 1500)
    double = heard(aid(name), x)
    single = heard(aid(name, torch.float32), x.float())
    assert float((double - single).abs().max()) <= 1e-4 * float(double.abs().max())
