from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import SpecError
from psysim.stages.filters import analytic_signal, butterworth_lowpass


@pytest.mark.parametrize("fs", [4000.0, 44100.0, 192000.0])
@pytest.mark.parametrize("cutoff", [2.5, 150.0, 1000.0, 1999.0])
@pytest.mark.parametrize("order", [1, 2])
def test_butterworth_lowpass_is_the_usual_one(order: int, cutoff: float, fs: float) -> None:
    sos = butterworth_lowpass(torch.tensor(cutoff, dtype=torch.float64), fs, order)[0].numpy()
    b, a = signal.butter(order, cutoff, fs=fs)
    np.testing.assert_allclose(sos[: order + 1], b, rtol=1e-12)
    np.testing.assert_allclose(sos[3 : order + 4], a, atol=5e-16)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_with_respect_to_the_cutoff(order: int) -> None:
    cutoff = torch.tensor(150.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: butterworth_lowpass(c, 4000.0, order), cutoff, eps=1e-3)


def test_other_orders_are_refused() -> None:
    with pytest.raises(SpecError, match="order = 3"):
        butterworth_lowpass(torch.tensor(150.0), 4000.0, 3)


@pytest.mark.parametrize("n", [1, 2, 17, 64])
def test_analytic_signal(n: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, n))
    np.testing.assert_allclose(analytic_signal(torch.as_tensor(x)).numpy(), signal.hilbert(x), atol=1e-14)
