"""Dau1997 and Osses2021 against the original implementation: every stage of every golden file, float64 and float32.

The bounds are those of the table "Expected agreement" that came with the files (column "float64, cascade" and column
"float32"); they were measured with independent implementations. Before the adaptation an error is relative to the
largest stored value of that stage, from there on it is absolute, in model units (range: up to 1443).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import Dau1997, Osses2021
from psysim.models.adaptation_model import AdaptationModel

DATA = Path(__file__).parent / "data"
FILES = sorted(path.stem for model in ("dau1997", "osses2021") for path in DATA.glob(f"{model}_*.npz"))
DTYPES = [torch.float64, torch.float32]
STAGES = ("headphone", "middleear", "filterbank", "ihc", "adaptation", "resampled", "modulation")
RELATIVE = ("headphone", "middleear", "filterbank", "ihc")
EARS: dict[str, dict[str, object]] = {
    "outerear": {"headphone_kwargs": {}},
    "middleear": {"middleear_kwargs": {}},
    "no_outerear": {"headphone_kwargs": {"enabled": False}},
    "no_middleear": {"middleear_kwargs": {"enabled": False}},
    "jepsen2008": {"middleear_kwargs": {"filter_type": "jepsen2008"}},
}

# float64: the ear filters are exact; from the gammatone on the reference's own rounding dominates (multiplied out).
BOUND_64 = {"headphone": 5e-15, "middleear": 5e-15, "filterbank": 1e-6, "ihc": 1e-6, "adaptation": 5e-3}
BOUND_64 |= {"resampled": 5e-3, "modulation": 2e-3}
# float32: adaptation has a median and a maximum; offsets of a 100-dB tone are the steepest slopes there are.
BOUND_32 = {"headphone": 1e-6, "middleear": 1e-6, "filterbank": 1e-5, "ihc": 2e-5, "adaptation": 2e-2}
BOUND_32 |= {"resampled": 2e-2, "modulation": 1e-2}
BOUND_32_100_DB = BOUND_32 | {"adaptation": 0.5, "resampled": 0.5, "modulation": 2e-2}
MEDIAN_32 = 1e-3


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def build(name: str, dtype: torch.dtype) -> AdaptationModel:
    """Build the model of a file from the reference's ``name,value`` arguments; dau1997's default bank has 1000 Hz."""
    kind, basef = (Dau1997, 1000.0) if name.startswith("dau1997") else (Osses2021, None)
    filterbank: dict[str, object] = {"basef": basef}
    modulation: dict[str, object] = {}
    arguments: dict[str, object] = {"filterbank_kwargs": filterbank, "modulation_kwargs": modulation}
    tokens = iter(str(golden(name)["args"]).split(","))
    for token in tokens:
        if token in ("dboffset", "flow", "fhigh", "subfs"):
            arguments[token] = float(next(tokens))
        elif token == "basef":
            value = next(tokens)
            filterbank["basef"] = None if value == "[]" else float(value)
        elif token.startswith("mfb_"):
            modulation["preset"] = token.removeprefix("mfb_")
        elif token == "no_phase_insens":
            modulation["phase_insens"] = False
        elif token in EARS:
            arguments |= EARS[token]
        else:
            raise AssertionError(f"unknown argument {token!r} in a golden file")
    return kind(fs=float(golden(name)["fs"]), return_stages=True, dtype=dtype, **arguments)


@cache
def run(name: str, dtype: torch.dtype) -> tuple[AdaptationModel, dict[str, np.ndarray]]:
    """Return the model and all its outputs; "modulation" dense (F, M, T) with NaN where a filter is absent."""
    model = build(name, dtype)
    outputs, stages = model(torch.as_tensor(golden(name)["x"], dtype=dtype))
    n_filters = max(len(output) for output in outputs)
    dense = np.full((len(outputs), n_filters, outputs[0].shape[-1]), np.nan, dtype=outputs[0].numpy().dtype)
    for channel, output in enumerate(outputs):
        dense[channel, : len(output)] = output.numpy()
    return model, {name: value.numpy() for name, value in stages.items()} | {"modulation": dense}


def sampled(name: str, stage: str, output: np.ndarray) -> np.ndarray:
    """Return the samples and channels of ``output`` that the golden file stores."""
    reference = golden(name)
    index = {"resampled": "r_idx", "modulation": "m_idx"}.get(stage, "t_idx")
    output = output[..., reference[index]]
    return output if stage in ("headphone", "middleear") else output[reference["c_idx"]]


def bound(name: str, stage: str, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return BOUND_64[stage]
    return (BOUND_32_100_DB if "100dB" in name else BOUND_32)[stage]


CASES = [(name, stage) for name in FILES for stage in STAGES if stage in np.load(DATA / f"{name}.npz").files]


def test_every_kind_of_file_and_stage_is_covered() -> None:
    assert len(FILES) == 15 + 13
    assert {stage for _, stage in CASES} == set(STAGES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "stage"), CASES)
def test_stage(name: str, stage: str, dtype: torch.dtype) -> None:
    expected = golden(name)[stage]
    _, outputs = run(name, dtype)
    output = sampled(name, stage, outputs[stage])
    assert output.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))
    error = np.abs(output - expected)
    scale = np.nanmax(np.abs(expected)) if stage in RELATIVE else 1.0
    assert np.nanmax(error) <= bound(name, stage, dtype) * scale
    if dtype == torch.float32 and stage == "adaptation":
        assert np.median(error) <= MEDIAN_32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "stage"), [case for case in CASES if case[1] not in ("headphone", "middleear")])
def test_statistics_of_all_samples_and_channels(name: str, stage: str, dtype: torch.dtype) -> None:
    expected = golden(name)[f"{stage}_stats"]
    _, outputs = run(name, dtype)
    output = outputs[stage]
    absent = np.isnan(output).all(axis=-1)
    magnitude = np.abs(output) if np.iscomplexobj(output) else output.astype(np.float64)
    with np.errstate(invalid="ignore"):
        rms = np.sqrt((magnitude**2).mean(-1))
        statistics = np.stack([magnitude.mean(-1), rms, magnitude.min(-1), magnitude.max(-1)], axis=-1)
    np.testing.assert_array_equal(absent, np.isnan(expected).all(axis=-1))
    scale = np.nanmax(np.abs(expected)) if stage in RELATIVE else 1.0
    # A mean, an rms, a minimum and a maximum each differ by at most the largest difference of the samples.
    assert np.nanmax(np.abs(statistics - expected)) <= bound(name, stage, dtype) * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_axes(name: str, dtype: torch.dtype) -> None:
    reference = golden(name)
    model, _ = run(name, dtype)
    representation = model.represent(torch.as_tensor(reference["x"], dtype=dtype))
    np.testing.assert_allclose(model.fc.numpy(), reference["fc_hz"], rtol=1e-14)
    assert model.num_channels == len(reference["fc_hz"])
    np.testing.assert_array_equal(representation.valid.sum(1).numpy(), reference["n_mod"])
    np.testing.assert_allclose(representation.mfc.numpy(), reference["mfc_hz"], rtol=1e-14)
    assert [len(mfc) for mfc in model.modulation.mfc] == reference["n_mod"].tolist()
    assert representation.fs == float(reference["subfs"])
    assert representation.values.dtype == (torch.complex64 if dtype == torch.float32 else torch.complex128) or (
        not np.iscomplexobj(reference["modulation"]) and representation.values.dtype == dtype
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("model", ["dau1997", "osses2021"])
def test_silence_stays_at_rest(model: str, dtype: torch.dtype) -> None:
    _, outputs = run(f"{model}_silence", dtype)
    assert np.all(outputs["filterbank"] == 0)
    assert np.all(outputs["ihc"] == 0)
    # 16 rounding steps of the rest state 1e-5 ** (1/32) = 0.70, of which 1 is 100 / 0.30 MU.
    rest = 16 * 331 * np.finfo(outputs["adaptation"].dtype).epsneg
    assert np.abs(outputs["adaptation"]).max() <= rest
    assert np.nanmax(np.abs(outputs["modulation"])) <= 2 * rest


@pytest.mark.parametrize("name", [name for name, stage in CASES if stage == "middleear"])
def test_middle_ear_gain_is_the_stored_one(name: str) -> None:
    model, _ = run(name, torch.float64)
    assert model.middleear is not None
    assert model.middleear.gain_db == pytest.approx(float(golden(name)["middleear_gain_db"]), abs=1e-9)
