from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli import harmonic_complex, registry, tone, tone_complex
from psysim.units import pascal_to_db_spl

F64 = torch.float64
FS = 16000


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


def component_phases(x: torch.Tensor, first: int, last: int, f0: float) -> np.ndarray:
    """Sine phases of harmonics, from the spectrum of whole periods."""
    line = f0 * x.shape[-1] / FS
    lines = [round(n * line) for n in range(first, last + 1)]
    return np.angle(np.fft.rfft(x.numpy())[..., lines] * 1j)  # sin(x + phase) has the angle phase - pi/2


def wrapped(a, b) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * (np.asarray(a) - np.asarray(b)))))


def test_sum_of_tones() -> None:
    frequency = torch.tensor([300.0, 411.0, 798.0], dtype=F64)
    db = torch.tensor([50.0, 40.0, 60.0], dtype=F64)
    phase = torch.tensor([0.1, 1.0, 2.0], dtype=F64)
    x = tone_complex(
        frequency_hz=frequency, level_db_spl=db, phase_rad=phase, duration_s=0.1, ramp_s=0.01, fs=FS, dtype=F64
    )
    parts = tone(
        frequency_hz=frequency, level_db_spl=db, phase_rad=phase, duration_s=0.1, ramp_s=0.01, fs=FS, dtype=F64
    )
    torch.testing.assert_close(x[0], parts.sum(0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("curvature", [-1.0, -0.25, 0.0, 0.5, 1.0])
@pytest.mark.parametrize(("first", "last"), [(1, 20), (4, 12)])
def test_schroeder_phases(curvature: float, first: int, last: int) -> None:
    x = harmonic_complex(
        f0_hz=100.0,
        lowest_harmonic=first,
        highest_harmonic=last,
        level_db_spl=70.0,
        phase="schroeder",
        curvature=curvature,
        duration_s=0.1,
        fs=FS,
        dtype=F64,
    )[0]
    n, count = np.arange(first, last + 1), last - first + 1
    assert wrapped(component_phases(x, first, last, 100.0), curvature * np.pi * n * (n + 1) / count).max() < 1e-9
    # equal amplitudes
    amplitude = np.abs(np.fft.rfft(x.numpy()))[10 * n]
    np.testing.assert_allclose(amplitude, amplitude[0], rtol=1e-9)


def test_schroeder_phase_flattens_the_envelope_and_its_sign_mirrors_time() -> None:
    arguments = {
        "f0_hz": 100.0,
        "highest_harmonic": 40,
        "level_db_spl": 70.0,
        "duration_s": 0.1,
        "fs": FS,
        "dtype": F64,
    }
    plus, minus, sine = (harmonic_complex(phase="schroeder", curvature=c, **arguments)[0] for c in (1.0, -1.0, 0.0))
    crest = [float(x.abs().max() / (x**2).mean().sqrt()) for x in (plus, minus, sine)]
    assert crest[0] == pytest.approx(crest[1], rel=1e-9)
    assert crest[0] < 2.0 < 5.0 < crest[2]
    # sin(-(w t) - phase) = -sin(w t + phase): time-reversed, one is minus the other
    torch.testing.assert_close(plus[1:], -minus.flip(0)[:-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("phase", "expected"),
    [("sine", [0, 0, 0, 0]), ("cosine", [math.pi / 2] * 4), ("alternating", [0, math.pi / 2, 0, math.pi / 2])],
)
def test_fixed_phases(phase: str, expected) -> None:
    x = harmonic_complex(
        f0_hz=200.0, highest_harmonic=4, level_db_spl=60.0, phase=phase, duration_s=0.1, fs=FS, dtype=F64
    )[0]
    assert wrapped(component_phases(x, 1, 4, 200.0), expected).max() < 1e-9


def test_random_phases_come_from_the_keys() -> None:
    keys = Keys.make(seed=4, trial=torch.arange(200))
    x = harmonic_complex(
        keys, f0_hz=200.0, highest_harmonic=5, level_db_spl=60.0, phase="random", duration_s=0.05, fs=FS, dtype=F64
    )
    expected = 2 * math.pi * uniform(keys, Purpose.PHASE, 5).numpy()
    assert wrapped(component_phases(x, 1, 5, 200.0), expected).max() < 1e-9


@pytest.mark.parametrize("phase", ["sine", "schroeder", "alternating"])
def test_levels(phase: str) -> None:
    arguments = {"f0_hz": 100.0, "phase": phase, "duration_s": 0.1, "fs": FS, "dtype": F64}
    x = harmonic_complex(lowest_harmonic=3, highest_harmonic=12, level_db_spl=[50.0, 70.0], **arguments)
    torch.testing.assert_close(level(x), torch.tensor([50.0, 70.0], dtype=F64), rtol=0, atol=1e-9)
    y = harmonic_complex(lowest_harmonic=3, highest_harmonic=12, component_level_db_spl=60.0, **arguments)
    assert float(level(y)[0]) == pytest.approx(70.0, abs=1e-9)


def test_rows_with_different_numbers_of_harmonics() -> None:
    keys = Keys.make(seed=4, trial=torch.arange(3))
    arguments = {"f0_hz": 100.0, "level_db_spl": 60.0, "phase": "random", "duration_s": 0.1, "fs": FS}
    last = torch.tensor([3, 30, 1])
    x = harmonic_complex(keys, lowest_harmonic=1, highest_harmonic=last, **arguments)
    for i in range(3):
        alone = harmonic_complex(keys[i], lowest_harmonic=1, highest_harmonic=int(last[i]), **arguments)
        assert torch.equal(alone[0], x[i])


def profile(increment: float, **change) -> torch.Tensor:
    kind = registry.get("profile")()
    parameters = {
        "increment_db": increment,
        "phase": "sine",
        "low_hz": 400.0,
        "high_hz": 1600.0,
        "ramp_s": 0.0,
        **change,
    }
    return kind.generate(parameters, Keys.make(1), FS, F64)[0]


def test_profile_components_and_increment() -> None:
    flat = profile(-math.inf, n_components=3, duration_s=0.1)
    amplitude = np.abs(np.fft.rfft(flat.numpy())) * 2 / flat.numel()
    lines = np.flatnonzero(amplitude > 1e-9 * amplitude.max())
    assert (lines * 10).tolist() == [400, 800, 1600]  # log spaced
    np.testing.assert_allclose(amplitude[lines], math.sqrt(2) * 20e-6 * 10**2.5, rtol=1e-9)
    for target, increment in ((2, 0.0), (1, -6.0), (3, 13.0)):
        raised = profile(increment, n_components=3, target=target, duration_s=0.1)
        ratio = np.abs(np.fft.rfft(raised.numpy()))[lines] / np.abs(np.fft.rfft(flat.numpy()))[lines]
        expected = np.ones(3)
        expected[target - 1] = 1 + 10 ** (increment / 20)
        np.testing.assert_allclose(ratio, expected, rtol=1e-9)
    assert torch.equal(profile(-3.0, n_components=3), profile(-3.0, n_components=3, target=2))  # the middle one


def test_profile_of_one_component_is_a_tone_at_the_middle() -> None:
    x = profile(0.0, n_components=1, duration_s=0.1)
    y = tone(frequency_hz=800.0, level_db_spl=50.0 + 20 * math.log10(2), duration_s=0.1, fs=FS, dtype=F64)[0]
    torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level_db_spl": None}, "exactly one of level_db_spl"),
        ({"component_level_db_spl": 40.0}, "exactly one of level_db_spl"),
        ({"highest_harmonic": 90}, "highest harmonic x f0_hz = 9000 Hz is out of range"),
        ({"lowest_harmonic": 12}, "lowest_harmonic must not exceed highest_harmonic"),
        ({"lowest_harmonic": 0}, "lowest_harmonic = 0 is out of range"),
        ({"phase": "schröder"}, "phase = 'schröder' is not known.*Did you mean 'schroeder'"),
        ({"phase": "random"}, "Random phases need keys"),
        ({"curvature": 1.5}, "curvature = 1.5 is out of range"),
        ({"f0_hz": -100.0}, "f0_hz = -100 Hz"),
    ],
)
def test_errors(change, message: str) -> None:
    arguments = {"f0_hz": 100.0, "level_db_spl": 60.0, "fs": FS, **change}
    with pytest.raises(SpecError, match=message):
        harmonic_complex(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency_hz": torch.tensor([500.0, 8500.0])}, "component 1 = 8500 Hz is out of range"),
        ({"level_db_spl": torch.ones(3)}, r"do not broadcast to \(B, K\): \(2,\), \(3,\)"),
        ({"level_db_spl": 300.0}, "level_db_spl = 300 dB SPL"),
        ({"phase_rad": math.nan}, "phase_rad = nan rad"),
        ({"ramp_s": 0.3}, "ramp_s is too long"),
    ],
)
def test_tone_complex_errors(change, message: str) -> None:
    arguments = {"frequency_hz": torch.tensor([500.0, 1000.0]), "level_db_spl": 60.0, "fs": FS, **change}
    with pytest.raises(SpecError, match=message):
        tone_complex(**arguments)


def test_profile_target_out_of_range() -> None:
    with pytest.raises(SpecError, match="target must not exceed n_components"):
        profile(0.0, n_components=3, target=4)
