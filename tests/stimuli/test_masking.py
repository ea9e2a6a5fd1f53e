from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose
from psysim.stimuli import harmonic_complex, mix, noise, notched_noise, registry, scale_to_snr, tone
from psysim.units import pascal_to_db_spl

F64 = torch.float64
FS = 16000


def keys(rows: int = 2) -> Keys:
    return Keys.make(seed=6, trial=torch.arange(rows))


def generate(kind: str, **parameters) -> torch.Tensor:
    return registry.get(kind)().generate(parameters, keys(), FS, F64)


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


def test_mix_places_and_adds() -> None:
    a, b = torch.ones(1, 100), torch.full((2, 50), 2.0)
    x = mix([a, b], [0.0, torch.tensor([0.08, 0.2])], fs=1000)
    assert x.shape == (2, 250)
    assert x[0].tolist() == [1.0] * 80 + [3.0] * 20 + [2.0] * 30 + [0.0] * 120
    assert x[1].tolist() == [1.0] * 100 + [0.0] * 100 + [2.0] * 50
    assert mix([a, b], [0.0, 0.08], fs=1000, duration_s=0.1).shape == (2, 100)


def test_mix_errors() -> None:
    with pytest.raises(SpecError, match="one onset per sound, but got 1 sounds and 2 onsets"):
        mix([torch.ones(1, 4)], [0.0, 1.0], fs=10)
    with pytest.raises(SpecError, match="onset_s of sound 0 = -1 s is out of range"):
        mix([torch.ones(1, 4)], [-1.0], fs=10)
    with pytest.raises(SpecError, match="do not form one batch"):
        mix([torch.ones(2, 4), torch.ones(3, 4)], [0.0, 0.0], fs=10)


def test_scale_to_snr() -> None:
    target = tone(frequency_hz=1000.0, level_db_spl=40.0, duration_s=0.2, fs=FS, dtype=F64)
    masker = noise(keys(3), level_db_spl=63.0, duration_s=0.5, fs=FS, dtype=F64)
    snr = torch.tensor([-10.0, 5.0, -math.inf], dtype=F64)
    scaled = scale_to_snr(target.expand(3, -1), masker, snr, target_s=(0, 0.2), masker_s=(0.1, 0.4), fs=FS)
    ratio = level(scaled)[:2] - level(masker[:2, 1600:6400])
    torch.testing.assert_close(ratio, snr[:2], rtol=0, atol=1e-9)
    assert not scaled[2].any()
    with pytest.raises(SpecError, match="The masker is silent"):
        scale_to_snr(target, 0 * masker, 0.0, target_s=(0, 0.2), masker_s=(0.1, 0.4), fs=FS)


NOISE = {"duration_s": 0.5, "ramp_s": 0.05, "low_hz": 20.0, "high_hz": 5000.0, "level_db_spl": 65.0}


def masker_alone() -> torch.Tensor:
    return noise(keys(), **NOISE, purpose=Purpose.MASKER, fs=FS, dtype=F64)


def test_tone_in_noise_is_the_sum_of_its_parts() -> None:
    x = generate(
        "tone_in_noise", **NOISE, signal_hz=2000.0, signal_level_db_spl=70.0, signal_duration_s=0.3, signal_ramp_s=0.05
    )
    signal = x - masker_alone()
    expected = tone(frequency_hz=2000.0, level_db_spl=70.0, duration_s=0.3, ramp_s=0.05, fs=FS, dtype=F64)
    torch.testing.assert_close(signal[:, 1600:6400], expected.expand(2, -1), rtol=0, atol=1e-15)
    assert float(signal[:, :1600].abs().max()) == 0.0
    assert float(signal[:, 6400:].abs().max()) == 0.0


def test_reference_interval_is_the_masker_alone() -> None:
    for tracked in ("signal_level_db_spl", "snr_db"):
        assert torch.equal(generate("tone_in_noise", **NOISE, **{tracked: -math.inf}), masker_alone())


def test_snr_is_re_the_overall_level() -> None:
    a = generate("tone_in_noise", **NOISE, snr_db=-5.0)
    b = generate("tone_in_noise", **NOISE, signal_level_db_spl=60.0)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    spectrum = {**NOISE, "level_db_spl": None, "spectrum_level_db_spl": 30.0}
    c = generate("tone_in_noise", **spectrum, snr_db=-5.0)
    d = generate("tone_in_noise", **spectrum, signal_level_db_spl=25.0 + 10 * math.log10(4980))
    torch.testing.assert_close(c, d, rtol=0, atol=1e-14)


def test_signal_delay_per_row() -> None:
    delay = torch.tensor([0.0, 0.2], dtype=F64)
    x = generate("tone_in_noise", **NOISE, signal_delay_s=delay, signal_ramp_s=0.0) - masker_alone()
    assert [int(row.abs().gt(1e-9).nonzero()[0]) for row in x] == [1, 3201]  # the sine's first sample is 0


@pytest.mark.parametrize(("masking", "probe_at", "masker_at"), [("forward", 4480, 0), ("backward", 0, 800)])
def test_forward_and_backward_masking(masking: str, probe_at: int, masker_at: int) -> None:
    x = generate(
        "masked_tone",
        masking=masking,
        masker="tone",
        masker_hz=900.0,
        masker_level_db_spl=70.0,
        masker_duration_s=0.25,
        probe_hz=1000.0,
        probe_level_db_spl=50.0,
        probe_duration_s=0.02,
        gap_s=0.03,
        silence_after_s=0.0,
    )
    assert x.shape == (2, 4800)
    masker = tone(frequency_hz=900.0, level_db_spl=70.0, duration_s=0.25, ramp_s=0.01, fs=FS, dtype=F64)[0]
    probe = tone(frequency_hz=1000.0, level_db_spl=50.0, duration_s=0.02, ramp_s=0.01, fs=FS, dtype=F64)[0]
    expected = torch.zeros(4800, dtype=F64)
    expected[masker_at : masker_at + 4000] += masker
    expected[probe_at : probe_at + 320] += probe
    assert torch.equal(x, expected.expand(2, -1))
    silent = x[0, 4000:4480] if masking == "forward" else x[0, 320:800]
    assert not silent.any()


def test_forward_masking_is_masked_tone_with_forward() -> None:
    assert torch.equal(generate("forward_masking", gap_s=0.02), generate("masked_tone", masking="forward", gap_s=0.02))


def test_simultaneous_masking_with_each_masker() -> None:
    common = {"level_db_spl": 60.0, "duration_s": 0.25, "ramp_s": 0.01, "fs": FS, "dtype": F64}
    maskers = {
        "noise": (
            {"masker_centre_hz": 1000.0, "masker_bandwidth_hz": 80.0},
            noise(keys(), centre_hz=1000.0, bandwidth_hz=80.0, purpose=Purpose.MASKER, **common),
        ),
        "complex": (
            {"masker_f0_hz": 100.0, "masker_highest_harmonic": 30, "masker_curvature": -1.0},
            harmonic_complex(
                f0_hz=100.0, lowest_harmonic=2, highest_harmonic=30, phase="schroeder", curvature=-1.0, **common
            ).expand(2, -1),
        ),
        "tone": ({"masker_hz": 1200.0}, tone(frequency_hz=1200.0, **common).expand(2, -1)),
    }
    for masker, (parameters, expected) in maskers.items():
        x = generate("masked_tone", masker=masker, probe_level_db_spl=-math.inf, silence_after_s=0.0, **parameters)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-15)


def test_reference_of_a_tracked_masker_loses_its_probe() -> None:
    kind = registry.get("forward_masking")()
    parameters = kind.complete({"masker_level_db_spl": 80.0})
    reference = kind.reference_parameters(parameters, "masker_level_db_spl")
    assert reference["masker_level_db_spl"] == 80.0
    assert reference["probe_level_db_spl"] == -math.inf
    assert kind.reference_parameters(parameters, "probe_level_db_spl")["probe_level_db_spl"] == -math.inf
    with pytest.raises(SpecError, match=r"'masker_level' cannot be tracked in ForwardMasking.*Did you mean"):
        kind.reference_parameters(parameters, "masker_level")


def test_notched_noise_tone() -> None:
    parameters = {"signal_hz": 1000.0, "notch_lower_relative": 0.3, "notch_upper_relative": 0.1}
    quiet = generate("notched_noise_tone", **parameters, signal_level_db_spl=-math.inf, ramp_s=0.0)
    masker = notched_noise(
        keys(),
        centre_hz=1000.0,
        notch_lower_relative=0.3,
        notch_upper_relative=0.1,
        spectrum_level_db_spl=40.0,
        fs=FS,
        dtype=F64,
    )
    assert torch.equal(quiet, masker)
    heard = generate("notched_noise_tone", **parameters, signal_level_db_spl=55.0, ramp_s=0.0)
    p = np.abs(np.fft.rfft((heard - quiet).numpy())) ** 2
    assert (p.argmax(-1) == 500).all()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("tone_in_noise", {"signal_duration_s": 0.6}, "The signal of 0.6 s starting at -0.05 s does not lie within"),
        ("tone_in_noise", {"signal_delay_s": 0.4}, "The signal of 0.3 s starting at 0.4 s does not lie within"),
        ("masked_tone", {"probe_delay_s": 0.24}, "does not lie within the masker of 0.25 s"),
        ("masked_tone", {"masker": "noise", "masker_low_hz": 9000.0}, "is not usable"),
        ("masked_tone", {"gap_s": -0.1}, "gap_s = -0.1 s is out of range"),
        ("tone_in_noise", {"signal_hz": 9000.0}, "frequency_hz = 9000 Hz is out of range"),
        ("notched_noise_tone", {"notch_lower_relative": 1.2}, "notch_lower_relative = 1.2 is out of range"),
        ("notched_noise_tone", {"signal_hz": 6000.0}, "is not usable"),
    ],
)
def test_errors(kind: str, change, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        generate(kind, **change)


def test_level_re_the_spectrum_level_of_the_noise_however_that_is_given() -> None:
    """40 dB in 1 Hz over 100 Hz are 60 dB: both give a tone of 55 dB."""
    about = {"low_hz": 950.0, "high_hz": 1050.0, "duration_s": 0.4}
    found = []
    for given in ({"spectrum_level_db_spl": 40.0}, {"level_db_spl": 60.0}):
        own = {**about, **given}
        with_tone = generate("tone_in_noise", **own, signal_re_spectrum_level_db=15.0)
        without = generate("tone_in_noise", **own, signal_re_spectrum_level_db=-math.inf)
        found.append(float(level((with_tone - without)[0, 2400:4000])))
    assert found == pytest.approx([55.0, 55.0], abs=0.01)
    with pytest.raises(SpecError, match="not both"):
        generate("tone_in_noise", signal_re_spectrum_level_db=15.0, snr_db=0.0)
