from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import SpecError
from psysim.stages import ButterworthFilter
from psysim.stages.filters import butterworth_lowpass, butterworth_sections

CUTOFFS = {"low": 700.0, "high": 700.0, "band": (300.0, 1800.0), "stop": (300.0, 1800.0)}


@pytest.mark.parametrize("btype", CUTOFFS)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 7, 12])
def test_response_is_the_usual_one(order: int, btype: str) -> None:
    """Complex response against SciPy's sections, down to -120 dB."""
    stage = ButterworthFilter(order, CUTOFFS[btype], fs=16000.0, btype=btype)
    expected = signal.butter(order, CUTOFFS[btype], btype=btype, fs=16000.0, output="sos")
    frequency = np.linspace(1.0, 7999.0, 400)
    ours, theirs = (signal.freqz_sos(sos, frequency, fs=16000.0)[1] for sos in (stage.sos.numpy(), expected))
    keep = np.abs(theirs) > 1e-6
    np.testing.assert_allclose(ours[keep], theirs[keep], rtol=1e-9)
    assert len(stage.sos) == len(expected)
    at_cutoff = signal.freqz_sos(stage.sos.numpy(), np.atleast_1d(CUTOFFS[btype]), fs=16000.0)[1]
    np.testing.assert_allclose(np.abs(at_cutoff), 2.0**-0.5, rtol=1e-10)


@pytest.mark.parametrize("cutoffs", [(2.0, 5.0), (0.5, 12.0)], ids=["complex poles", "two real poles"])
@pytest.mark.parametrize("order", [1, 3])
def test_low_and_wide_bands(order: int, cutoffs: tuple[float, float]) -> None:
    """Far below fs, and wider than twice the centre, where the single pole of an odd order becomes two real ones."""
    stage = ButterworthFilter(order, cutoffs, fs=44100.0, btype="bandpass")
    middle = 44100.0 / np.pi * np.arctan(np.sqrt(np.prod(np.tan(np.pi / 44100.0 * np.array(cutoffs)))))
    gain = np.abs(signal.freqz_sos(stage.sos.numpy(), [cutoffs[0], middle, cutoffs[1]], fs=44100.0)[1])
    # The states of such filters lose 7 to 8 of 16 digits: 1 - z^-1 at 2 Hz is 3e-4, twice.
    np.testing.assert_allclose(gain, [2.0**-0.5, 1.0, 2.0**-0.5], rtol=1e-6)


def test_the_first_orders_agree_with_the_lowpass_of_the_hair_cells() -> None:
    cutoff = torch.tensor([150.0], dtype=torch.float64)
    for order in (1, 2):
        expected = butterworth_lowpass(cutoff[0], 4000.0, order)
        torch.testing.assert_close(butterworth_sections(cutoff, 4000.0, order, "low"), expected, rtol=1e-12, atol=1e-15)


def test_a_batch_of_designs() -> None:
    edges = torch.tensor([[1.0, 3.0], [50.0, 80.0]], dtype=torch.float64)
    both = butterworth_sections(edges, 4000.0, 3, "stop")
    assert both.shape == (2, 3, 6)
    for sos, edge in zip(both, edges, strict=True):
        torch.testing.assert_close(sos, butterworth_sections(edge, 4000.0, 3, "stop"), rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", [(50,), (3, 50), (2, 3, 50)])
def test_documented_shapes(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stage = ButterworthFilter(3, [200.0, 900.0], 8000.0, "bandpass", dtype=torch.float64)
    expected = signal.sosfilt(stage.sos.numpy(), x.numpy())
    np.testing.assert_allclose(stage(x).numpy(), expected, atol=1e-13)
    (step,) = stage.steps()
    assert torch.equal(step.run(x.reshape(-1, 1, 50)).reshape(shape), stage(x))


@pytest.mark.parametrize("btype", CUTOFFS)
def test_gradient_with_respect_to_the_cutoffs(btype: str) -> None:
    cutoff = torch.tensor(CUTOFFS[btype], dtype=torch.float64).reshape(-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: butterworth_sections(c, 16000.0, 3, btype), cutoff, eps=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 100.0, 8000.0), "order"),
        ((2.5, 100.0, 8000.0), "order"),
        ((True, 100.0, 8000.0), "order"),
        ((2, 4000.0, 8000.0), "cutoff"),
        ((2, 0.0, 8000.0), "cutoff"),
        ((2, float("nan"), 8000.0), "cutoff"),
        ((2, 100.0, 8000.0, "lo"), "Did you mean 'low'"),
        ((2, 100.0, 8000.0, "band"), "two cutoffs"),
        ((2, (100.0, 200.0), 8000.0, "high"), "one cutoff"),
        ((2, (200.0, 100.0), 8000.0, "band"), "rising"),
    ],
)
def test_wrong_arguments(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ButterworthFilter(*arguments)
