"""Glasberg2002 against golden files: every stage of every file, float64 and float32, both presets.

Bounds are those of the table "Tolerances" that came with the files. The files of the published preset are computed from
the published equations by an independent implementation, those of the AMT preset by the original functions in Octave.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import Glasberg2002
from psysim.stages.loudness_tables import amt_ear_taps, ear_taps
from psysim.units import P_REF

DATA = Path(__file__).parent / "data"
DTYPES = [torch.float64, torch.float32]
NAMES = [p.stem for p in sorted(DATA.glob("glasberg2002_*.npz")) if "constants" not in p.stem]
PUBLISHED = [name for name in NAMES if "published" in name]
AMT = [name for name in NAMES if "amt" in name]
# AMT leaves the reference pressure out: below these levels its loudness is the rounding noise of a difference.
AMT_WITH_LOUDNESS = [n for n in AMT if n.endswith(("white_60", "complex3_1000_1600_2400_60", "tone1k_80"))]
WIDTH_HZ = 15.625


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def model_of(preset: str, dtype: torch.dtype) -> Glasberg2002:
    model = Glasberg2002(return_stages=True, preset=preset, dtype=dtype)
    if preset == "amt":  # the files were made in Octave, which interpolates this filter in another way than MATLAB
        model.ear.taps.copy_(torch.from_numpy(golden("glasberg2002_amt_constants")["fir"]))
    return model


@cache
def run(name: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Return the outputs of the model, without the batch dimension, in float64."""
    model = model_of(name.split("_")[1], dtype)
    x = torch.from_numpy(golden(name)["x"]).to(dtype)
    ltl, stages = model(x)
    assert {value.dtype for key, value in stages.items() if key != "freqs"} == {ltl.dtype} == {dtype}
    outputs = {"ltl": ltl, "ear_signal": model.ear(x), **stages}
    return {key: value.double().numpy() for key, value in outputs.items()}


def decibel(power: np.ndarray) -> np.ndarray:
    return 10.0 * np.log10(np.maximum(power, 1e-30))


def assert_levels(ours: np.ndarray, theirs: np.ndarray, name: str, dtype: torch.dtype) -> None:
    """Compare levels: tight above -20 dB, looser down to -100 dB, where the roundings of strong components show.

    The ear filter of AMT raises the rounding of a float32 sound by up to 32 dB, from 150 dB below its peak: 0.01 dB can
    be expected 60 dB above that, and nothing below.
    """
    lowest = -20.0
    if "amt" in name and dtype == torch.float32:
        lowest = 20.0 * np.log10(np.abs(golden(name)["x"]).max() / P_REF + 1e-30) - 150.0 + 32.0 + 60.0
    strong = theirs > lowest
    weak = (theirs > -100.0 + 1e-9) & ~strong & (lowest == -20.0)
    bounds = (1e-8, 1e-6) if dtype == torch.float64 else (0.01, 1.0)
    for part, bound in zip((strong, weak), bounds, strict=True):
        assert np.abs(ours - theirs)[part].max(initial=0.0) <= bound


def assert_loudness(ours: np.ndarray, theirs: np.ndarray, dtype: torch.dtype) -> None:
    relative, absolute = (1e-10, 1e-14) if dtype == torch.float64 else (1e-3, 1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=absolute)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_ear(name: str, dtype: torch.dtype) -> None:
    expected = golden(name)["ear_signal"]
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    ours = run(name, dtype)["ear_signal"]
    largest = np.abs(ours).max()  # every 8th sample of 8 kHz at 32 kHz, which the file has, is nearly 0
    if "amt" in name:
        # Forward and backward over the reflected sound with gains from -50 to 32 dB: roundings, the reference's too
        # (7e-13 of the maximum for 100 Hz), are in units of what is filtered.
        largest = max(largest, np.abs(golden(name)["x"]).max())
    assert np.abs(ours[::8] - expected).max() <= bound * largest


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_spectrum(name: str, dtype: torch.dtype) -> None:
    reference, ours = golden(name), run(name, dtype)
    assert ours["psd"].shape == (reference["n_frames"], 1025)
    np.testing.assert_array_equal(ours["freqs"], reference["freqs"])
    theirs, psd = reference["psd"], ours["psd"][reference["psd_frame_index"]]
    np.testing.assert_array_equal(psd[theirs == 0], 0.0)
    assert_levels(*(decibel(p * WIDTH_HZ / P_REF**2) for p in (psd, theirs)), name, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", ["erb_level_db", "excitation_db"])
@pytest.mark.parametrize("name", NAMES)
def test_levels(name: str, stage: str, dtype: torch.dtype) -> None:
    reference = golden(name)
    ours = run(name, dtype)[{"erb_level_db": "erb_excitation", "excitation_db": "excitation"}[stage]]
    ours, theirs = ours[reference["frame_index"]], reference[stage]
    if name.endswith("silence"):
        np.testing.assert_array_equal(ours, -100.0 if "published" in name else -np.inf)
        return
    assert_levels(ours, theirs, name, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", ["specific_loudness", "stl", "ltl"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_loudness(name: str, stage: str, dtype: torch.dtype) -> None:
    reference, ours = golden(name), run(name, dtype)[stage]
    ours = ours[reference["frame_index"]] if stage == "specific_loudness" else ours
    assert_loudness(ours, reference[stage], dtype)
    if name.endswith("silence"):
        np.testing.assert_array_equal(ours, 0.0)


@pytest.mark.parametrize("stage", ["specific_loudness", "stl", "ltl"])
@pytest.mark.parametrize("name", AMT_WITH_LOUDNESS)
def test_loudness_of_the_toolbox(name: str, stage: str) -> None:
    reference, ours = golden(name), run(name, torch.float64)[stage]
    ours, theirs = ours[reference["frame_index"]] if stage == "specific_loudness" else ours, reference[stage]
    # Specific loudness: 1e-6 of the sound's largest; where it is smaller, their difference of powers is noise.
    scale = np.abs(theirs).max() if stage == "specific_loudness" else np.abs(theirs)
    assert (np.abs(ours - theirs) <= 1e-6 * scale).all()


def test_silence_of_the_toolbox() -> None:
    ours = run("glasberg2002_amt_silence", torch.float64)
    for stage in ("specific_loudness", "stl", "ltl"):
        np.testing.assert_array_equal(ours[stage], 0.0)


@pytest.mark.parametrize("preset", ["published", "amt"])
def test_constants(preset: str) -> None:
    reference, model = golden(f"glasberg2002_{preset}_constants"), model_of(preset, torch.float64)
    threshold, gain, a, alpha, _ = model.specific_loudness.channel_constants()
    for ours, name in ((threshold, "t_q"), (gain, "g"), (a, "a"), (alpha, "alpha"), (model.fc, "fc")):
        np.testing.assert_allclose(ours.numpy(), reference[name], rtol=1e-13)
    assert model.specific_loudness.C.item() == reference["c"]


def test_ear_filters() -> None:
    published = golden("glasberg2002_published_constants")["fir"]
    np.testing.assert_allclose(ear_taps("free", "glasberg2002"), published, rtol=0, atol=1e-14)
    original = golden("moore2016_ear_filters")
    for name, field in (("ff", "free"), ("df", "diffuse"), ("ed", "eardrum")):
        np.testing.assert_allclose(ear_taps(field), original[name].ravel(), rtol=0, atol=1e-14)
    # As Octave interpolates; in single points of its grid the gain differs by 5e-13, from the monotone cubic curve.
    octave = golden("glasberg2002_amt_constants")["fir"]
    np.testing.assert_allclose(amt_ear_taps("free", "glasberg2002", by_index=False), octave, rtol=0, atol=1e-13)
