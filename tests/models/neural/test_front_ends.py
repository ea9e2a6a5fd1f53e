"""Front-ends: causal, block by block, finite on silence, in front of every model."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.models import neural
from psysim.models import registry as auditory_models
from psysim.models.neural.front_end import logarithmic

FS = 8000
OPTIONS: dict[str, dict[str, object]] = {
    "mel": {"n_mels": 12, "f_min": 200.0, "f_max": 3800.0, "win_ms": 25.0},
    "gammatone": {"n_filters": 12, "f_min": 200.0, "f_max": 3800.0, "compression": "pcen"},
    "gammatonegram": {"n_filters": 12, "f_min": 200.0, "f_max": 3800.0},
    "sincnet": {"n_filters": 12, "f_min": 200.0, "f_max": 3800.0, "activation": "symlog"},
    "leaf": {"n_filters": 12, "f_max": 3800.0},
    "icnet": {"n_filters": 6, "encoder_channels": 6, "encoder_kernel_size": 16, "bottleneck_channels": 12},
}
SOUND = 0.1 * torch.randn(2, 1, 40 * 40, generator=torch.Generator().manual_seed(4))


def make(kind: str, **options: object) -> torch.nn.Module:
    return neural.front_ends.get(kind)(audio_fs=FS, dt_ms=5.0, **(OPTIONS[kind] | options))


@pytest.mark.parametrize("kind", OPTIONS)
def test_causal_and_block_by_block(kind: str) -> None:
    front = make(kind)
    whole = front(SOUND)
    assert whole.shape == (2, 1, 12, 40)
    later = SOUND.clone()
    later[..., 25 * 40 :] *= -2.0
    torch.testing.assert_close(front(later)[..., :25], whole[..., :25], rtol=1e-5, atol=1e-6)
    state, blocks = None, []
    for block in SOUND.split([40, 15 * 40, 24 * 40], -1):
        y, state = front.stream(block, state)
        blocks.append(y)
    torch.testing.assert_close(torch.cat(blocks, -1), whole, rtol=1e-4, atol=1e-5)
    exact = copy.deepcopy(front).double()(SOUND.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(whole.double(), exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("compression", ["log", "cubic", "cuberoot", "none"])
def test_silence_has_finite_gradients(kind: str, compression: str) -> None:
    names = {"mel": ("log", "cubic", "none"), "gammatone": ("log", "cuberoot", "none")}
    options = {"compression": compression} if compression in names.get(kind, ()) else {}
    front = make(kind, **options)
    silence = torch.zeros(1, 1, 400, requires_grad=True)
    y = front(silence)
    y.sum().backward()
    assert bool(y.isfinite().all())
    assert bool(silence.grad.isfinite().all())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in front.parameters())


@pytest.mark.parametrize("name", neural.registry.names())
def test_every_model_takes_waveforms(name: str) -> None:
    if name == "icnet":
        model = neural.ICNet(3, audio_fs=FS, dt_ms=5.0, **OPTIONS["icnet"])
    else:
        model = neural.registry.get(name)(n_frequency_bands=12, out_neurons=3, wav2spec=make("mel"))
    model.eval()
    assert model.dt_ms == 5.0
    whole = model(SOUND)
    assert whole.shape == (2, 3, 1, 40)
    first, state = model.stream(SOUND[..., :800])
    rest, _ = model.stream(SOUND[..., 800:], state)
    torch.testing.assert_close(torch.cat([first, rest], -1), whole, rtol=1e-4, atol=1e-5)
    gradient = model.waveform_gradmap(SOUND[0], 1, "sum")
    assert gradient.shape == (1600,)
    assert 0 < float(gradient.abs().max()) < math.inf
    with pytest.raises(SpecError, match="neurons 0 to 2"):
        model.waveform_gradmap(SOUND[0], 3)
    twin = neural.build(model.configuration())
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(SOUND), whole)


def test_gammatone_filters_run_forwards() -> None:
    """A click rises at once and rings; backwards it would come 20 ms late and end suddenly."""
    click = torch.zeros(1, 1, 400)
    click[..., 0] = 1.0
    frames = make("gammatone", compression="none", env_window_ms=5.0)(click)[0, 0]
    backwards = make("gammatone", compression="none", env_window_ms=5.0, time_reversed=True)(click)[0, 0]
    assert bool((frames[6:].argmax(1) == 0).all())
    assert bool((backwards[6:].argmax(1) == 3).all())


def test_signed_logarithm_has_its_slope_at_zero() -> None:
    x = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float64, requires_grad=True)
    y = logarithmic(x)
    torch.testing.assert_close(y, x.sign() * torch.log1p(x.abs()))
    y.sum().backward()
    torch.testing.assert_close(x.grad, 1 / (1 + x.detach().abs()))


@pytest.mark.parametrize("name", ["dau1997", "king2019"])
def test_auditory_models(name: str) -> None:
    options = {"flow": 900.0, "fhigh": 1100.0}
    front = neural.AuditoryFrontEnd(name, 16000, dt_ms=10.0, options=options)
    sound = 0.02 * torch.sin(2 * math.pi * 1000 * torch.arange(1600) / 16000)[None, None]
    spectrogram = front(sound)
    representation = auditory_models.get(name)(fs=16000, **options).represent(sound[0])
    first = representation.values[0][representation.valid][:, : front.samples].mean(-1)
    torch.testing.assert_close(spectrogram[0, 0, :, 0], first)
    model = neural.Linear(front.out_channels, 3, 2, wav2spec=front)
    assert model.eval()(sound).shape == (1, 2, 1, 10)
    twin = neural.build(model.configuration())
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(sound), model(sound))
    with pytest.raises(SpecError, match="whole sounds"):
        front.stream(sound, torch.zeros(()))


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="multiple of the hop of 40"):
        make("mel")(torch.zeros(1, 1, 41))
    with pytest.raises(SpecError, match="Take fewer bands"):
        make("mel", n_mels=200)
    with pytest.raises(SpecError, match="at least a frame"):
        make("mel", win_ms=4.0)
    with pytest.raises(SpecError, match="f_max"):
        make("gammatone", f_max=5000.0)
    with pytest.raises(SpecError, match="f_min = 3900 Hz must be below"):
        make("leaf", f_min=3900.0)
    with pytest.raises(SpecError, match="Did you mean 'logabs'"):
        make("sincnet", activation="logab")
    with pytest.raises(SpecError, match="must be equal"):
        neural.Linear(13, wav2spec=make("mel"))
    with pytest.raises(SpecError, match="whole number"):
        neural.AuditoryFrontEnd("king2019", 16000, dt_ms=0.7, options={"flow": 900.0, "fhigh": 1100.0})
    with pytest.raises(SpecError, match="samples would be left out"):
        neural.ICNetEncoder(24000, 10.0, encoder_kernel_size=8)
