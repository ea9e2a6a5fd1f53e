"""Adaptation prefilters: memory in ms, blocks, precision, gradient maps, what is refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from psysim.errors import PsysimWarning, SpecError
from psysim.models import neural

SPECTROGRAM = torch.rand(2, 1, 12, 90, generator=torch.Generator().manual_seed(2))
PREFILTERS = neural.prefilters.names()


def make(kind: str, **options: object) -> torch.nn.Module:
    return neural.prefilters.get(kind)(**({"n_frequency_bands": 12, "dt_ms": 5.0} | options))


@pytest.mark.parametrize("kind", PREFILTERS)
@pytest.mark.parametrize("n_taps", [None, 20])
def test_blocks_are_the_whole(kind: str, n_taps: int | None) -> None:
    prefilter = make(kind, n_taps=n_taps)
    whole, state, blocks = prefilter(SPECTROGRAM), None, []
    assert whole.shape == (2, prefilter.out_channels, 12, 90)
    for block in SPECTROGRAM.split([1, 30, 2, 57], dim=-1):
        y, state = prefilter.stream(block, state)
        blocks.append(y)
    torch.testing.assert_close(torch.cat(blocks, -1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", PREFILTERS)
def test_the_memory_is_in_ms(kind: str) -> None:
    """After 100 ms of a step the past has come as far at 1 ms per frame as at 10 ms."""
    left = {}
    for dt_ms in (1.0, 10.0):
        prefilter = make(kind, dt_ms=dt_ms)
        frames = round(100 / dt_ms)
        step = torch.cat([torch.zeros(1, 1, 12, 5), torch.ones(1, 1, 12, frames + 1)], -1)
        left[dt_ms] = prefilter(step)[0, 0, :, -1].detach()
    w = 0.75 if kind == "adaptrans" else 1.0
    expected = 1 - w * (1 - torch.exp(-100 / prefilter.tau_ms))
    for value in left.values():
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", PREFILTERS)
def test_float64_and_a_model(kind: str) -> None:
    model = neural.Linear(12, 5, 3, prefiltering=make(kind)).eval()
    exact = copy.deepcopy(model).double()(SPECTROGRAM.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(model(SPECTROGRAM).double(), exact, rtol=1e-4, atol=1e-5)
    twin = neural.build(model.configuration())
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(SPECTROGRAM), model(SPECTROGRAM))


@pytest.mark.parametrize("kind", PREFILTERS)
def test_gradients(kind: str) -> None:
    prefilter = make(kind, n_frequency_bands=3).double()
    x = torch.rand(1, 1, 3, 12, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    torch.autograd.gradcheck(prefilter, (x,))
    _, state = prefilter.stream(x)
    torch.autograd.gradcheck(lambda block: prefilter.stream(block, state)[0], (x.detach().clone().requires_grad_(),))


def test_a_map_of_nothing_warns() -> None:
    model = neural.Linear(12, 5, 3, prefiltering=make("adaptrans"))
    with pytest.warns(PsysimWarning, match="zero everywhere for 3 of 3 neurons"):
        assert not bool(model.STRF_gradmap().any())
    assert bool(model.STRF_gradmap(baseline=1.0).any())


def test_limits_of_the_weight() -> None:
    """With w = 0 ON is the sound and OFF its past; with w = 1 a steady sound gives nothing."""
    prefilter = make("adaptrans")
    prefilter.p.data.fill_(1e6)
    on, _ = prefilter(SPECTROGRAM).unbind(1)
    torch.testing.assert_close(on, SPECTROGRAM[:, 0])
    prefilter.p.data.fill_(0.0)
    assert float(prefilter(torch.ones(1, 1, 12, 30)).abs().max().detach()) < 1e-6
    # d = 0 is a memory without end, not a division by 0
    prefilter.d_on.data.fill_(0.0)
    assert bool(prefilter(SPECTROGRAM).isfinite().all())


def test_greenwood_scale() -> None:
    frequencies = neural.band_frequencies(30, 100.0, 16000.0, "greenwood")
    place = torch.log10(frequencies / 165.4 + 0.88) / 2.1
    assert math.isclose(float(frequencies[0]), 100.0, rel_tol=1e-9)
    assert math.isclose(float(frequencies[-1]), 16000.0, rel_tol=1e-9)
    torch.testing.assert_close(place.diff(), place.diff()[:1].expand(29))
    assert float(neural.adaptation_time_constant_ms(torch.tensor(80e3))) == 5.0


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="dt_ms"):
        make("adaptrans", dt_ms=0.0)
    with pytest.raises(SpecError, match="Did you mean 'greenwood'"):
        make("adaptrans", scale="grenwood")
    with pytest.raises(SpecError, match="init_w"):
        make("adaptrans", init_w=0.0)
    with pytest.raises(SpecError, match="max_freq"):
        make("ic_adaptation", min_freq=900.0, max_freq=800.0)
    with pytest.raises(SpecError, match="n_taps"):
        make("ic_adaptation", n_taps=1)
