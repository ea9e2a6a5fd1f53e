"""Recurrent layers: their kernels against torch or their definitions, gradients, blocks."""

from __future__ import annotations

import copy

import pytest
import torch

from psysim.errors import SpecError
from psysim.models import neural
from psysim.models.neural.causal import Causal, initialise
from psysim.models.neural.diagonal import DiagonalStateSpace, _parallel_scan, diagonal_scan
from psysim.models.neural.recurrent import GRU, LSTM, RNN
from psysim.models.neural.state_space import LMU, Mamba, legendre_memory, selective_scan
from psysim.models.neural.state_space import _parallel_scan as parallel_selective_scan
from psysim.models.neural.statenet import CONNECTIVITIES, RECURRENT

SPECTROGRAM = torch.rand(2, 1, 20, 45, generator=torch.Generator().manual_seed(5))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(layer: torch.nn.Module) -> Causal:
    initialise(torch.nn.ModuleList([layer]), 3)
    return layer.double()


@pytest.mark.parametrize("make", [RNN, GRU, LSTM])
@pytest.mark.parametrize("units", [6, 33])
def test_cells_are_those_of_torch(make: type[Causal], units: int) -> None:
    ours = ready(make(5, units))
    with torch.random.fork_rng():
        theirs = getattr(torch.nn, make.__name__)(5, units, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    x, weight = normal(6, 40, 5), normal(6, 40, units, seed=1)  # the kernels take four rows at once, and two
    y, expected = ours(x.mT).mT, theirs(x)[0]
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-13)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(ours(x[:1].mT).mT, y[:1])
    assert torch.equal(ours(x[5:].mT).mT, y[5:])
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_legendre_memory_unit_is_its_definition() -> None:
    layer = ready(LMU(5, 7, order=18, theta=20.0))
    layer.cell.e_m.data.copy_(normal(1, 18) * 0.1)
    x = normal(2, 5, 30, seed=1)
    given, share = x.mT @ layer.cell.W_x.mT, (x.mT @ layer.cell.e_x.mT)[..., 0]
    expected, (h, m) = layer._frames(given, share, torch.zeros(2, 7).double(), torch.zeros(2, 18).double())
    y, state = layer.stream(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(state, (h, m))
    # The memory is that of the last theta frames: a constant is its zeroth coefficient.
    a, b = legendre_memory(12, 30.0)
    memory = torch.zeros(12, 1, dtype=torch.float64)
    for _ in range(200):
        memory = a @ memory + b
    torch.testing.assert_close(memory[:, 0], torch.eye(12, dtype=torch.float64)[0], rtol=0, atol=1e-6)


def test_selective_scan_is_its_definition() -> None:
    u, dt, a = normal(2, 37, 5), normal(2, 37, 5, seed=1).exp() * 0.1, -normal(5, 4, seed=2).exp()
    b, c, first = normal(2, 37, 4, seed=3), normal(2, 37, 4, seed=4), normal(2, 4, 5, seed=5)
    y, end = selective_scan(u, dt, a, b, c, first)
    expected, last = parallel_selective_scan(u, dt, a, b, c, first)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(end, last)


def test_diagonal_scan_is_a_convolution() -> None:
    a = torch.polar(torch.rand(5, 3, generator=torch.Generator().manual_seed(1)).double(), normal(5, 3))
    c, first = (
        torch.complex(normal(5, 3), normal(5, 3, seed=1)),
        torch.complex(normal(2, 5, 3), normal(2, 5, 3, seed=2)),
    )
    x = normal(2, 70, 5, seed=3)
    y, end = diagonal_scan(x, a, c, first)
    expected, last = _parallel_scan(x, a, c, first)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(end, last)


LAYERS = {
    "RNN": lambda: RNN(4, 5),
    "GRU": lambda: GRU(4, 5),
    "LSTM": lambda: LSTM(4, 5),
    "LMU": lambda: LMU(4, 5, order=6, theta=8.0),
    "Mamba": lambda: Mamba(4, order=3),
    "Diagonal": lambda: DiagonalStateSpace(4, order=3),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients(kind: str) -> None:
    """With respect to the input, the state and all weights; 40 frames are more than a stretch of the scans."""
    layer = ready(LAYERS[kind]())
    start = layer.stream(normal(1, 4, 3, seed=9))[1]
    states = [s.detach().clone().requires_grad_() for s in (start if isinstance(start, tuple) else (start,))]

    def run(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y, end = layer.stream(x, rest if isinstance(start, tuple) else rest[0])
        ends = end if isinstance(end, tuple) else (end,)
        return (y, *(torch.view_as_real(e) if e.is_complex() else e for e in ends))

    x = normal(1, 4, 5).requires_grad_()
    torch.autograd.gradcheck(run, (x, *states), fast_mode=True)
    long = normal(2, 4, 40, seed=2)
    for name, parameter in layer.named_parameters():

        def of_weight(value: torch.Tensor, name: str = name) -> torch.Tensor:
            return torch.func.functional_call(layer, {name: value}, (long,))

        torch.autograd.gradcheck(of_weight, (parameter.detach().clone().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_every_statenet(kind: str, connectivity: str) -> None:
    model = neural.StateNet(20, 3, rnn_type=kind, connectivity=connectivity, hidden_channels=3).eval()
    whole, state, blocks = model(SPECTROGRAM), None, []
    for block in SPECTROGRAM.split([1, 25, 19], -1):
        y, state = model.stream(block, model.detach(state))
        blocks.append(y)
    torch.testing.assert_close(torch.cat(blocks, -1), whole, rtol=1e-5, atol=1e-5)
    alone = model(SPECTROGRAM[1:])
    torch.testing.assert_close(alone, whole[1:], rtol=1e-5, atol=1e-6)
    exact = copy.deepcopy(model).double()(SPECTROGRAM.double())
    torch.testing.assert_close(whole.double(), exact, rtol=1e-4, atol=1e-5)
    assert model.STRF_gradmap(6, baseline=0.5).abs().amax((1, 2, 3)).min() > 0


def test_initial_weights_scale_with_the_fan_in() -> None:
    """Locally connected weights uniform in 0 to 1 would drive every unit with half the sum of its inputs."""
    small, large = (neural.LocallyConnected1d(64, channels, 8, 7, 3) for channels in (1, 16))
    for layer in (small, large):
        initialise(torch.nn.ModuleList([layer]), 0)
    x = torch.randn(100, 16, 64, generator=torch.Generator().manual_seed(0))
    spread = [float(layer(x[:, : layer.weights.shape[1] // 7]).std().detach()) for layer in (small, large)]
    assert spread[0] == pytest.approx(spread[1], rel=0.15)
    assert abs(float(large.weights.mean().detach())) < 0.01


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="Did you mean 'LSTM'"):
        neural.StateNet(rnn_type="LSTN")
    with pytest.raises(SpecError, match="fit 5 bands"):
        neural.StateNet(n_frequency_bands=5)
