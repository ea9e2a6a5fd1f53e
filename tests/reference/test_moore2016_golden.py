"""Moore2016 against the original program (run in GNU Octave): every stage of every golden file, float64 and float32.

The bounds are those of the table "Tolerances" that came with the files.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import Moore2016
from psysim.stages.loudness_tables import ear_taps

DATA = Path(__file__).parent / "data"
FILES = sorted(p.stem for p in DATA.glob("moore2016_*.npz") if p.stem != "moore2016_ear_filters")
DTYPES = [torch.float64, torch.float32]
SIDES = ("left", "right")
RELATIVE = {torch.float64: 1e-10, torch.float32: 1e-3}
ABSOLUTE = {torch.float64: 1e-14, torch.float32: 1e-5}


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


@cache
def run(name: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Return all outputs of the model; for diotic sounds with both ears given, so that both are computed."""
    reference = golden(name)
    right = "x_left" if bool(reference["diotic"]) else "x_right"
    sound = torch.from_numpy(np.stack([reference["x_left"], reference[right]]))
    options = {"spectrum_kwargs": {"db_max": float(reference["db_max"])}, "dtype": dtype}
    *loudness, stages = Moore2016(return_stages=True, **options)(sound)
    outputs = dict(zip(("sLoud", "lLoud", "mLoud"), loudness, strict=True)) | stages
    return {key: value.numpy() for key, value in outputs.items()}


def expected(name: str, key: str, side: str) -> np.ndarray:
    reference = golden(name)
    return reference[f"{key}_left" if bool(reference["diotic"]) else f"{key}_{side}"]


def test_every_file_is_covered() -> None:
    assert len(FILES) == 12


@pytest.mark.parametrize(("key", "field"), [("ff", "free"), ("df", "diffuse"), ("ed", "eardrum")])
def test_ear_filters(key: str, field: str) -> None:
    with np.load(DATA / "moore2016_ear_filters.npz") as file:
        np.testing.assert_allclose(ear_taps(field), file[key].ravel(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_filtered(name: str, dtype: torch.dtype) -> None:
    for side in SIDES:
        want = expected(name, "filtered", side)
        got = run(name, dtype)[f"filtered_{side}"][:: int(golden(name)["filtered_step"])]
        # The peak of all samples: those stored of the 8-kHz tone, every 8th or a multiple, lie near its zero crossings.
        peak = np.abs(run(name, torch.float64)[f"filtered_{side}"]).max()
        bound = (1e-12 if dtype == torch.float64 else 1e-5) * peak
        np.testing.assert_allclose(got, want, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_components(name: str, dtype: torch.dtype) -> None:
    reference, outputs = golden(name), run(name, dtype)
    for i, side in enumerate(SIDES):
        freqs, levels = outputs[f"freqs_{side}"], outputs[f"levels_{side}"]
        assert np.array_equal(freqs > 0, levels > -np.inf)
        count = (freqs > 0).sum(-1)
        if dtype == torch.float64:
            np.testing.assert_array_equal(count, reference["n_components"][:, i])
        for k, frame in enumerate(reference.get("component_frame_index", [])):
            stored = "left" if bool(reference["diotic"]) else side
            if f"freqs_{stored}_{k}" not in reference:
                assert k >= 2  # the longest file holds the lists of two frames only
                continue
            f, level = (reference[f"{what}_{stored}_{k}"].ravel() for what in ("freqs", "levels"))
            kept = freqs[frame] > 0
            if dtype == torch.float64:
                np.testing.assert_array_equal(freqs[frame][kept], f)
                np.testing.assert_allclose(levels[frame][kept], level, rtol=0, atol=1e-8)
            else:
                both = np.isin(np.arange(1, 961), (f / 15.625).round()) & kept
                want = np.full(960, np.nan)
                want[(f / 15.625).round().astype(int) - 1] = level
                np.testing.assert_allclose(levels[frame][both], want[both], rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_excitation(name: str, dtype: torch.dtype) -> None:
    high, low = (1e-8, 1e-6) if dtype == torch.float64 else (0.01, 1.0)
    for side in SIDES:
        want = expected(name, "excitation", side)
        got = run(name, dtype)[f"excitation_{side}"][golden(name)["frame_index"]]
        assert got.shape == want.shape
        for chosen, bound in ((want > -20.0, high), ((want <= -20.0) & (want > -100.0), low)):
            np.testing.assert_allclose(got[chosen], want[chosen], rtol=0, atol=bound)
        assert np.array_equal(np.isneginf(got).all(-1), np.isneginf(want).all(-1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("key", ["inst_spec_loud", "stl_spec_loud", "stl_loud", "ltl_loud"])
@pytest.mark.parametrize("name", FILES)
def test_loudness_of_each_ear(name: str, key: str, dtype: torch.dtype) -> None:
    for side in SIDES:
        want, got = expected(name, key, side), run(name, dtype)[f"{key}_{side}"]
        got = got[golden(name)["frame_index"]] if key.endswith("spec_loud") else got
        np.testing.assert_allclose(got, want.reshape(got.shape), rtol=RELATIVE[dtype], atol=ABSOLUTE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_loudness(name: str, dtype: torch.dtype) -> None:
    for key in ("sLoud", "lLoud", "mLoud"):
        got, want = run(name, dtype)[key], golden(name)[key]
        np.testing.assert_allclose(got, want.reshape(got.shape), rtol=RELATIVE[dtype], atol=0)


def test_silence_is_exactly_zero() -> None:
    for dtype in DTYPES:
        for key in ("sLoud", "lLoud", "mLoud"):
            assert not run("moore2016_silence", dtype)[key].any()
