"""What all neural response models have in common, for every model in the registry."""

from __future__ import annotations

import copy

import pytest
import torch

from psysim.errors import SpecError
from psysim.models import neural

MODELS = neural.registry.names()
SPECTROGRAM = torch.randn(3, 1, 20, 60, generator=torch.Generator().manual_seed(1))


def make(name: str, **options: object) -> neural.AudioEncodingModel:
    if name == "icnet":  # its bottleneck takes the place of a spectrogram
        return neural.ICNet(4, bottleneck_channels=20, encoder_channels=4, n_filters=4, **options)
    return neural.registry.get(name)(n_frequency_bands=20, out_neurons=4, **options)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max()).detach())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> neural.AudioEncodingModel:
    return make(request.param).eval()


def test_shape_and_causality(model: neural.AudioEncodingModel) -> None:
    y = model(SPECTROGRAM)
    assert y.shape == (3, 4, 1, 60)
    later = SPECTROGRAM.clone()
    later[..., 40:] += 1.0
    changed = model(later)
    torch.testing.assert_close(changed[..., :40], y[..., :40])
    assert difference(changed[..., 40:], y[..., 40:]) > 1e-3


def test_blocks_are_the_whole(model: neural.AudioEncodingModel) -> None:
    whole = model(SPECTROGRAM)
    state, blocks = None, []
    for block in SPECTROGRAM.split([1, 25, 3, 31], dim=-1):
        y, state = model.stream(block, model.detach(state))
        blocks.append(y)
    assert difference(torch.cat(blocks, -1), whole) < 1e-5


def test_float64(model: neural.AudioEncodingModel) -> None:
    exact = copy.deepcopy(model).double()(SPECTROGRAM.double())
    assert exact.dtype == torch.float64
    assert difference(model(SPECTROGRAM).double(), exact) < 1e-5


def test_padding_changes_nothing(model: neural.AudioEncodingModel) -> None:
    valid = torch.arange(60) < torch.tensor([[60], [40], [50]])
    padded = torch.where(valid[:, None, None], SPECTROGRAM, torch.nan)
    alone = torch.cat([model(SPECTROGRAM[1:2, ..., :40])], 0)
    assert difference(model(padded, valid)[1:2, ..., :40], alone) < 1e-6
    model.train()
    shuffled = torch.where(valid[:, None, None], SPECTROGRAM, 7.0)
    twin = copy.deepcopy(model)
    longer = torch.nn.functional.pad(SPECTROGRAM, (0, 20))
    longest = copy.deepcopy(model)(longer, torch.nn.functional.pad(valid, (0, 20)))
    y, other = model(padded, valid), twin(shuffled, valid)
    keep = valid[:, None, None].expand_as(y)
    assert difference(other[keep], y[keep]) < 1e-6
    assert difference(longest[..., :60][keep], y[keep]) < 1e-5
    y[keep].sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_shift_invariance(model: neural.AudioEncodingModel) -> None:
    if not model.shift_invariant:
        with pytest.raises(AssertionError):
            _shift(model)
    else:
        _shift(model)


def _shift(model: neural.AudioEncodingModel) -> None:
    lead = torch.zeros(3, 1, 20, 200)
    early = model(torch.cat([lead, SPECTROGRAM], -1))[..., 200:]
    late = model(torch.cat([lead, lead[..., :7], SPECTROGRAM], -1))[..., 207:]
    assert difference(late, early) < 1e-4


def test_weights_come_from_the_seed(model: neural.AudioEncodingModel) -> None:
    before = torch.random.get_rng_state()
    same, other = make(model.kind), make(model.kind, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, a), b in zip(model.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_gradient_map(model: neural.AudioEncodingModel) -> None:
    field = model.STRF_gradmap(12, baseline=SPECTROGRAM[0, 0, :, :12])
    assert field.shape == (4, 1, 20, 12)
    assert field.dtype == torch.float64
    # Against a difference quotient of the response at the last frame.
    twin = copy.deepcopy(model).double()
    x = SPECTROGRAM[:1, ..., :12].double()
    step = torch.zeros_like(x)
    step[..., 7, 10] = 1e-5
    quotient = (twin(x + step) - twin(x - step))[0, :, 0, -1] / 2e-5
    torch.testing.assert_close(field[:, 0, 7, 10], quotient, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(model.STRF_gradmap(12, baseline=x[0, 0], neurons=[2], chunk=1), field[2:3])


def test_configuration_builds_the_twin(model: neural.AudioEncodingModel) -> None:
    twin = neural.build(model.configuration())
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(SPECTROGRAM), model(SPECTROGRAM))
    storages = [p.data_ptr() for p in model.state_dict().values() if p.numel()]
    assert len(set(storages)) == len(storages)


def test_standardised_input(model: neural.AudioEncodingModel) -> None:
    mean, std = torch.linspace(-1, 1, 20), torch.linspace(0.5, 2, 20)
    expected = model((SPECTROGRAM - mean[:, None]) / std[:, None])
    model.standardise(mean, std)
    assert difference(model(SPECTROGRAM), expected) < 1e-6
    with pytest.raises(SpecError, match="20 finite numbers"):
        model.standardise(mean, torch.zeros(20))


def test_what_is_refused() -> None:
    model = neural.Linear(n_frequency_bands=20, out_neurons=4)
    with pytest.raises(SpecError, match="F = 20"):
        model(torch.zeros(1, 1, 19, 30))
    with pytest.raises(SpecError, match="neurons 0 to 3"):
        model.STRF_gradmap(neurons=[4])
    with pytest.raises(SpecError, match="neurons 0 to 3"):
        model.STRF_gradmap(neurons=[-1])
    with pytest.raises(SpecError, match="needs a wav2spec"):
        model.waveform_gradmap(torch.zeros(100))
    with pytest.raises(SpecError, match="out_channels"):
        neural.Linear(prefiltering=torch.nn.Identity())
    with pytest.raises(SpecError, match="positive integer"):
        neural.Linear(out_neurons=0)
    with pytest.raises(SpecError, match="Did you mean 'gaussian'"):
        neural.Linear(kernel="gausian")
    with pytest.raises(SpecError, match=r"expected \(B, T\)"):
        model(torch.zeros(2, 1, 20, 30), torch.ones(2, 29, dtype=torch.bool))
    with pytest.raises(SpecError, match="baseline has the shape"):
        model.STRF_gradmap(baseline=torch.zeros(19))
