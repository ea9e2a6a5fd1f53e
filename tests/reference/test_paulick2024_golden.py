"""Paulick2024 and its variant jepsen2008 against the original implementation: every stage of every golden file.

The bounds are those of the table "Expected agreement" that came with the files (columns "float64, cascades" and
"float32, cascades"); they were measured with independent implementations. Errors are max|difference| / max|reference|
of the array; in silence, where the reference is rounding, they are absolute.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import Jepsen2008, Paulick2024
from psysim.stages import Decimator, DRNLFilterbank, OuterMiddleEarFilter

DATA = Path(__file__).parent / "data"
FILES = sorted(path.stem for path in DATA.glob("*.npz") if path.stem.startswith(("paulick2024_", "jepsen2008_")))
SILENT = [name for name in FILES if "silence" in name]
SOUNDING = [name for name in FILES if "silence" not in name]
DTYPES = [torch.float64, torch.float32]
STAGES = ("outer_ear", "outer_middle_ear", "drnl", "ihc", "adaptation", "resampled", "modulation")
EARS = ("outer_ear", "outer_middle_ear")

# float64: the ears are exact; from the filterbank on the reference's own rounding dominates (polynomials multiplied
# out; 2008: of order 3, squared and adapted).
BOUND_64 = {"outer_ear": 1e-14, "outer_middle_ear": 1e-14, "drnl": 2e-9, "ihc": 4e-9, "adaptation": 3e-8}
BOUND_64 |= {"resampled": 3e-8, "modulation": 4e-9}
BOUND_64_2008 = BOUND_64 | {"drnl": 2e-6, "ihc": 4e-7, "adaptation": 4e-5, "resampled": 4e-5, "modulation": 8e-6}
# float32: at 100 dB the overshoot limiter has its steepest slopes.
BOUND_32 = {"outer_ear": 1e-6, "outer_middle_ear": 1e-6, "drnl": 2e-4, "ihc": 3e-4, "adaptation": 1e-3}
BOUND_32 |= {"resampled": 1e-3, "modulation": 1e-3}
BOUND_32_100_DB = BOUND_32 | {"adaptation": 2e-2, "resampled": 2e-2}
DRNL_32_2008 = 1e-4


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def constructor_arguments(args: str) -> dict[str, object]:
    """Translate the reference's ``name,value`` run arguments."""
    tokens = args.split(",")
    given = dict(zip(tokens[::2], tokens[1::2], strict=True))
    out: dict[str, object] = {"preset": "published"}
    if "model" in given:
        out |= {"variant": given.pop("model"), "drnl_kwargs": {"subject": given.pop("subject")}}
    if "flow" in given:
        out |= {"flow": float(given.pop("flow")), "fhigh": float(given.pop("fhigh"))}
        out["n_channels"] = int(given.pop("Naud"))
    assert not given
    return out


@cache
def run(name: str, dtype: torch.dtype) -> tuple[Paulick2024, dict[str, np.ndarray]]:
    """Return the model and all its outputs; "modulation" dense (F, M, T) with NaN where a filter is absent."""
    reference = golden(name)
    arguments = constructor_arguments(str(reference["args"]))
    model = Paulick2024(float(reference["fs"]), return_stages=True, dtype=dtype, **arguments)
    x = torch.as_tensor(reference["x"], dtype=dtype)
    outputs, stages = model(x)
    assert model.outerear.headphone is not None
    values = {"outer_ear": model.outerear.headphone(x), "outer_middle_ear": stages.pop("outerear")} | stages
    dense = np.full((len(outputs), max(map(len, outputs)), outputs[0].shape[-1]), np.nan)
    for channel, output in enumerate(outputs):
        dense[channel, : len(output)] = output.numpy()
    return model, {key: value.double().numpy() for key, value in values.items()} | {"modulation": dense}


def sampled(name: str, stage: str, output: np.ndarray) -> np.ndarray:
    """Return the samples and channels of ``output`` that the golden file stores."""
    reference = golden(name)
    output = output[..., reference[{"resampled": "r_idx", "modulation": "m_idx"}.get(stage, "t_idx")]]
    return output if stage in EARS else output[reference["c_idx"]]


def bound(name: str, stage: str, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return (BOUND_64_2008 if name.startswith("jepsen2008") else BOUND_64)[stage]
    if stage == "drnl" and name.startswith("jepsen2008"):
        return DRNL_32_2008
    return (BOUND_32_100_DB if "100dB" in name else BOUND_32)[stage]


def statistics(output: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        rms = np.sqrt((output**2).mean(-1))
        return np.stack([output.mean(-1), rms, output.min(-1), output.max(-1)], axis=-1)


def test_every_kind_of_file_is_covered() -> None:
    assert len(FILES) == 17
    assert len(SILENT) == 2
    assert {str(golden(name)["args"]) for name in FILES} == {
        "model,paulick2024,subject,NH",
        "model,paulick2024,subject,HIx",
        "model,jepsen2008,subject,NH",
        "model,jepsen2008,subject,HIx",
        "flow,125,fhigh,8000,Naud,50",
        "flow,250,fhigh,6000,Naud,20",
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", SOUNDING)
def test_stage(name: str, stage: str, dtype: torch.dtype) -> None:
    expected, output = golden(name)[stage], sampled(name, stage, run(name, dtype)[1][stage])
    assert output.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(output), np.isnan(expected))
    assert np.nanmax(np.abs(output - expected)) <= bound(name, stage, dtype) * np.nanmax(np.abs(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", STAGES[2:])
@pytest.mark.parametrize("name", SOUNDING)
def test_statistics_of_all_samples_and_channels(name: str, stage: str, dtype: torch.dtype) -> None:
    """A mean, an rms, a minimum and a maximum each differ by at most the largest difference of the samples."""
    expected, result = golden(name)[f"{stage}_stats"], statistics(run(name, dtype)[1][stage])
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    assert np.nanmax(np.abs(result - expected)) <= bound(name, stage, dtype) * np.nanmax(np.abs(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SILENT)
def test_silence_stays_at_rest(name: str, dtype: torch.dtype) -> None:
    _, outputs = run(name, dtype)
    assert all(np.all(outputs[stage] == 0) for stage in STAGES[:3])
    # float64 1e-13 MU; float32 rest offsets of up to 0.02 MU: 16 roundings of the rest value of the loops
    rest = 1e-12 if dtype == torch.float64 else 2e-2
    for stage in STAGES[4:]:
        expected = golden(name)[stage]
        assert np.nanmax(np.abs(sampled(name, stage, outputs[stage]) - expected)) <= rest
        assert np.nanmax(np.abs(statistics(outputs[stage]) - golden(name)[f"{stage}_stats"])) <= rest
    drift = 8.35e-9 if name.startswith("paulick2024") else 0.0  # volts: the resting conductance is rounded
    assert np.abs(outputs["ihc"][:, -1] - drift).max() <= 1e-11


@pytest.mark.parametrize("name", FILES)
def test_axes(name: str) -> None:
    reference = golden(name)
    model, _ = run(name, torch.float64)
    representation = model.represent(torch.as_tensor(reference["x"]))
    np.testing.assert_allclose(model.fc.numpy(), reference["fc_hz"], rtol=1e-13)
    assert (model.fc[0], model.fc[-1]) == (reference["fc_hz"][0], reference["fc_hz"][-1])
    assert model.num_channels == len(reference["fc_hz"])
    assert [len(mfc) for mfc in model.modulation.mfc] == reference["n_valid_mod"].tolist()
    np.testing.assert_array_equal(representation.valid.sum(1).numpy(), reference["n_valid_mod"])
    np.testing.assert_allclose(representation.mfc.numpy(), reference["mfc_hz"], rtol=1e-13)
    assert representation.fs == model.fs_resampled == float(reference["fs_internal"])
    assert representation.values.shape[-1] == len(reference["x"]) // 4


def test_a_constructor_of_the_variant() -> None:
    reference = golden("jepsen2008_nh_tone1k_60dB")
    x = torch.as_tensor(reference["x"])
    values = Jepsen2008(44100, dtype="float64").represent(x).values
    other = Paulick2024(44100, flow=250, dtype="float64", drnl_kwargs={"model": "jepsen2008"}).represent(x).values
    assert torch.equal(values, other)
    assert torch.equal(values, run("jepsen2008_nh_tone1k_60dB", torch.float64)[0].represent(x).values)


@pytest.mark.parametrize(
    ("case", "bound_db"), [("paulick2024_nh", 2e-8), ("jepsen2008_nh", 2e-5), ("paulick2024_hix", 2e-8)]
)
def test_input_output_functions(case: str, bound_db: float) -> None:
    """2e-9 and 2e-6 of the peak, in dB. The reference took the last 20 ms with both ends, 883 samples."""
    data = golden("unit_drnl_io")
    fs, levels = float(data["fs"]), data["level_db_spl"]
    model, listener = case.split("_")
    t = np.arange(int(0.06 * fs)) / fs
    ears = OuterMiddleEarFilter(fs, dtype="float64")
    for cf, expected in zip(data["cf_hz"], data[f"bm_db_{case}"].T, strict=True):
        tones = 20e-6 * 10 ** (levels[:, None] / 20) * np.sqrt(2) * np.sin(2 * np.pi * cf * t)
        bank = DRNLFilterbank([cf], fs, subject={"nh": "NH", "hix": "HIx"}[listener], model=model)
        steady = bank(ears(torch.as_tensor(tones)))[:, 0, -int(0.02 * fs) - 1 :].numpy()
        result = 20 * np.log10(np.sqrt((steady**2).mean(-1)))
        assert np.abs(result - expected).max() <= bound_db


def test_resampling_filter_and_output() -> None:
    data = golden("unit_resample")
    for dtype, limit in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        stage = Decimator(44100.0, dtype=dtype)
        np.testing.assert_allclose(stage.taps.numpy(), data["h"], rtol=0, atol=1e-15)
        output = stage(torch.as_tensor(data["x"], dtype=dtype)).double().numpy()
        expected = data["y"][:, : data["x"].shape[1] // 4]  # the model keeps floor(T / 4) of ceil(T / 4) samples
        assert np.abs(output - expected).max() <= limit * np.abs(expected).max()
