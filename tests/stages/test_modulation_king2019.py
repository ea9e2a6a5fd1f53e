from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import SpecError
from psysim.stages import King2019ModulationFilterbank


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2.0, 5.236, 13.708, 35.889, 93.957]),
        ({"qfactor": 2.0, "mflow": 1.0, "mfhigh": 200.0}, [1.0, 1.640, 2.691]),
        ({"nmod": 3, "mflow": 2.0, "mfhigh": 8.0}, [2.0, 4.0, 8.0]),
        ({"mflow": 4.0, "mfhigh": 4.0}, [4.0]),
    ],
)
def test_centre_frequencies(options: dict[str, float], expected: list[float]) -> None:
    bank = King2019ModulationFilterbank(16000.0, **options)
    assert bank.mfc[: len(expected)].tolist() == pytest.approx(expected, abs=1e-3)
    assert bank.num_filters == len(bank.mfc) == len(bank.filters)
    if options.get("qfactor") == 2.0:
        assert bank.mfc[-1].item() == pytest.approx(141.080, abs=1e-3)


def test_edges_of_the_filters() -> None:
    """-3 dB at mfc sqrt(4 + 1/Q^2)/2 -+ mfc/(2Q); 0 dB at the centre, for fs far above the filters."""
    bank = King2019ModulationFilterbank(44100.0, qfactor=2.0)
    for sos, mfc in zip(bank.filters.numpy(), bank.mfc.tolist(), strict=True):
        middle = mfc * math.sqrt(4.0 + 0.25) / 2.0
        gain = np.abs(signal.freqz_sos(sos, [middle - mfc / 4.0, mfc, middle + mfc / 4.0], fs=44100.0)[1])
        # 1e-4: the warping moves the centre by (pi mfc/fs)^2 / 3; 1e-6: what the states of a 2-Hz filter can hold
        np.testing.assert_allclose(gain, [2.0**-0.5, 1.0, 2.0**-0.5], rtol=1e-4)


@pytest.mark.parametrize("samples", [4000, 4001])
def test_envelope_above_10_hz_has_the_rms_of_the_output(samples: int) -> None:
    x = torch.randn(1, 2, samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signed = King2019ModulationFilterbank(4000.0, dtype=torch.float64, phase_insens=False)
    y, z = King2019ModulationFilterbank(4000.0, dtype=torch.float64)(x), signed(x)
    assert torch.equal(y[:, :, :2], z[:, :, :2])
    envelope = np.abs(signal.hilbert(z[:, :, 2:].numpy()))
    scale = np.sqrt((z[:, :, 2:].numpy() ** 2).mean(-1) / (envelope**2).mean(-1))
    np.testing.assert_allclose(y[:, :, 2:].numpy(), envelope * scale[..., None], rtol=1e-11)
    torch.testing.assert_close(y.square().mean(-1), z.square().mean(-1), rtol=1e-12, atol=0)


def test_silence_stays_silent_and_has_a_gradient() -> None:
    x = torch.zeros(1, 1, 500, requires_grad=True)
    y = King2019ModulationFilterbank(4000.0)(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert x.grad.isfinite().all()


def test_lowpass_before_the_bank() -> None:
    x = torch.randn(1, 2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b, a = signal.butter(1, 150.0, fs=4000.0)
    filtered = torch.as_tensor(signal.lfilter(b, a, x.numpy()))
    plain = King2019ModulationFilterbank(4000.0, dtype=torch.float64)
    lowpassed = King2019ModulationFilterbank(4000.0, dtype=torch.float64, lowpass_cutoff=150.0)
    torch.testing.assert_close(lowpassed(x), plain(filtered), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mflow": 0.0}, "mflow"),
        ({"mfhigh": 1.0}, "mfhigh"),
        ({"mfhigh": 2000.0, "fs": 4000.0}, "lower mfhigh"),
        ({"qfactor": 0.0}, "qfactor"),
        ({"nmod": 1}, "whole number from 2 on"),
        ({"nmod": 2.5}, "whole number from 2 on"),
        ({"lowpass_cutoff": 0.0}, "lowpass_cutoff"),
    ],
)
def test_wrong_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        King2019ModulationFilterbank(**({"fs": 16000.0} | arguments))
