"""Every stage alone against the original implementations (files ``common_*``, ``unit_*``, ``ear_firs``).

Bounds: table "Expected agreement" that came with the files, given the stage's input; float64 unless said otherwise.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.models import Dau1997
from psysim.stages import (
    AdaptLoop,
    GammatoneFilterbank,
    HeadphoneFilter,
    IHCEnvelope,
    MiddleEarFilter,
    ModulationFilterbank,
    fft_resample,
)
from psysim.stages.filters import butterworth_lowpass
from psysim.stages.modulation import modulation_centres
from psysim.units import erb_space

DATA = Path(__file__).parent / "data"
DTYPES = [torch.float64, torch.float32]


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def tensor(values: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(values, dtype=dtype)


def peak_error(output: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return max|difference| / max|expected|."""
    return float(np.abs(np.asarray(output) - expected).max() / np.abs(expected).max())


# --- centre frequencies and gammatone ------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(13))
def test_spacing_lists(index: int) -> None:
    data = golden("common_gammatone")
    basef = float(data["space_basef"][index])
    arguments = [float(data[f"space_{name}"][index]) for name in ("flow", "fhigh", "bw")]
    fc = erb_space(*arguments, None if np.isnan(basef) else basef)
    expected = np.atleast_1d(data[f"space_fc_{index:02d}"])
    assert fc.shape == expected.shape
    np.testing.assert_allclose(fc, expected, rtol=1e-13)


@pytest.mark.parametrize("fs", [16000, 32000, 44100, 48000])
def test_gammatone_impulse_response_and_coefficients(fs: int) -> None:
    data = golden("common_gammatone")
    bank = GammatoneFilterbank(tensor(data["gt_fc"]), fs=fs, dtype=torch.float64)
    impulse = torch.zeros(400, dtype=torch.float64)
    impulse[0] = 1.0
    # 5e-7: the reference multiplies four equal poles out.
    for response, expected in zip(bank(impulse).numpy(), data[f"gt_ir_fs{fs}"], strict=True):
        assert peak_error(response, expected) <= 1e-6
    np.testing.assert_allclose(bank.gains.numpy(), data[f"gt_b_fs{fs}"], rtol=1e-10)
    polynomial = np.array([np.poly([pole] * 4) for pole in bank.poles.numpy()])
    np.testing.assert_allclose(polynomial, data[f"gt_a_fs{fs}"], atol=1e-12)


def test_gammatone_variants() -> None:
    data = golden("common_gammatone")
    fc = tensor(data["gt_fc"])
    third = GammatoneFilterbank(fc, fs=44100.0, n=3)
    np.testing.assert_allclose(third.gains.numpy(), data["gt_b_n3_fs44100"], rtol=1e-10)
    wide = GammatoneFilterbank(fc, fs=44100.0, betamul=1.5)
    np.testing.assert_allclose(wide.gains.numpy(), data["gt_b_betamul15_fs44100"], rtol=1e-10)
    np.testing.assert_allclose(GammatoneFilterbank(fc, fs=44100.0).delay_s.numpy(), data["gt_delay_s"], rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gammatone_complex_output_and_peak_phase(dtype: torch.dtype) -> None:
    data = golden("common_gammatone")
    impulse = torch.zeros(400, dtype=dtype)
    impulse[0] = 1.0
    bank = GammatoneFilterbank(tensor(data["gt_fc"]), fs=44100.0, complex_output=True, dtype=dtype)
    response = bank(impulse).numpy() / 2.0
    turned = GammatoneFilterbank(bank.fc, fs=44100.0, complex_output=True, peak_phase=True, dtype=dtype)
    phase = (data["gt_b_peakphase_fs44100"] / np.abs(data["gt_b_peakphase_fs44100"]))[:, None]
    bound = 1e-6 if dtype == torch.float64 else 1e-5
    for row, expected in zip(response, data["gt_ir_complex_fs44100"], strict=True):
        assert peak_error(row, expected) <= bound
    for row, expected in zip(turned(impulse).numpy() / 2.0, data["gt_ir_complex_fs44100"] * phase, strict=True):
        assert peak_error(row, expected) <= bound


# --- hair cell -----------------------------------------------------------------------------------------------------

IHC_CASES = [(m, {"method": m}, f"ihc_{m}") for m in ("dau1996", "breebaart2001", "king2019", "lindemann1986")]
IHC_CASES += [(m, {"method": m}, f"ihc_{m}") for m in ("relanoiborra2019", "bernstein1999")]
IHC_CASES += [("hilbert", {"method": "hilbert"}, "hilbert")]
IHC_CASES += [("jepsen2008", {"method": "jepsen2008"}, "ihc_relanoiborra2019")]
IHC_CASES += [("order2", {"method": "dau1996", "order": 2}, "ihc_dau1996_order2")]
IHC_CASES += [("minlvl", {"method": "dau1996", "minlvl": 1e-3}, "ihc_dau1996_minlvl1em3")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("options", "key"), [case[1:] for case in IHC_CASES], ids=[case[0] for case in IHC_CASES])
def test_hair_cell(options: dict[str, object], key: str, dtype: torch.dtype) -> None:
    data = golden("common_ihc")
    stage = IHCEnvelope(float(data["fs"]), dtype=dtype, **options)
    output = stage(tensor(data["x"], dtype)).numpy()[:, data["t_idx"]]
    # 2e-16, the rounding of a1, over 1 + a1 + a2: 3.5e-3 for the second-order lowpass at 425 Hz, 2e-2 at 1000 Hz.
    bound = 1e-13 if options["method"] == "bernstein1999" else 1e-14
    assert peak_error(output, data[key]) <= (bound if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("fs", [16000, 32000, 44100, 48000])
@pytest.mark.parametrize(("order", "cutoff"), [(1, 1000), (1, 2000), (1, 800), (2, 1000)])
def test_hair_cell_coefficients(order: int, cutoff: int, fs: int) -> None:
    expected = golden("common_ihc")[f"butter{order}_{cutoff}_fs{fs}"]
    sos = butterworth_lowpass(torch.tensor(float(cutoff), dtype=torch.float64), fs, order)[0].numpy()
    np.testing.assert_allclose(sos[: order + 1], expected[0], rtol=1e-12)
    np.testing.assert_allclose(sos[3 : order + 4], expected[1], rtol=1e-12)


# --- adaptation ----------------------------------------------------------------------------------------------------

ADAPTATION_CASES: dict[str, dict[str, object]] = {
    "out_lim10": {"preset": "dau1997"},
    "out_lim5": {"preset": "osses2021"},
    "out_nolimit": {"preset": "dau1996"},
    "out_lim1": {"preset": "dau1997", "limit": 1.0},
    "out_lim1p5": {"preset": "dau1997", "limit": 1.5},
    "out_puschel": {"preset": "puschel1988"},
    "out_lim10_minspl_m34": {"preset": "relanoiborra2019"},
    "out_lim10_minspl20": {"preset": "dau1997", "minspl": 20.0},
    "out_lim10_tau3": {"tau": [0.01, 0.1, 0.4]},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("key", ADAPTATION_CASES)
def test_adaptation(key: str, dtype: torch.dtype) -> None:
    data = golden("common_adaptloop")
    expected = data[key]
    output = AdaptLoop(float(data["fs"]), dtype=dtype, **ADAPTATION_CASES[key])(tensor(data["x"], dtype)).numpy()
    output = output[:, data["t_idx"]]
    if dtype == torch.float32:
        assert peak_error(output, expected) <= 1e-5
    elif AdaptLoop(16000.0, **ADAPTATION_CASES[key]).limit > 1:
        # 2e-12 of the largest onset (1444 MU); rest values are rounded sums.
        assert np.abs(output - expected).max() <= 2e-12 * max(1.0, np.abs(expected).max())
    else:
        assert peak_error(output, expected) <= 2e-12


@pytest.mark.parametrize(("preset", "key"), [("dau1997", "out44_lim10"), ("osses2021", "out44_lim5")])
def test_adaptation_at_44100_hz(preset: str, key: str) -> None:
    data = golden("common_adaptloop")
    output = AdaptLoop(44100.0, preset=preset, dtype=torch.float64)(tensor(data["x44"])).numpy()[data["t44_idx"]]
    assert peak_error(output, data[key]) <= 2e-12


def test_adaptation_steady_state() -> None:
    data = golden("common_adaptloop")
    level = 10.0 ** ((data["ss_level_db"] - 100.0) / 20.0)
    output = AdaptLoop(1000.0, limit=0.0, dtype=torch.float64)(tensor(np.tile(level[:, None], (1, 20000))))
    np.testing.assert_allclose(output[:, -1].numpy(), data["ss_mu"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("limit", "key"), [(10.0, "limit_10"), (0.0, "no_limit")])
def test_adaptation_with_one_minimum_per_channel(limit: float, key: str, dtype: torch.dtype) -> None:
    data = golden("unit_adaptation")
    stage = AdaptLoop(
        float(data["fs"]), tau=data["tau_s"], limit=limit, minlvl_per_channel=data["min_level"], dtype=dtype
    )
    output = stage(tensor(data["x"], dtype)).numpy()
    for row, expected in zip(output, data[key], strict=True):
        assert peak_error(row, expected) <= (2e-12 if dtype == torch.float64 else 1e-5)


# --- modulation filterbank -----------------------------------------------------------------------------------------

PRESETS = ["dau1997", "verhey1999", "jepsen2008", "osses2021_att_gain"]


def modulation_output(dtype: torch.dtype, fc: float = 8000.0, **options: object) -> np.ndarray:
    data = golden("common_modfilterbank")
    bank = ModulationFilterbank(float(data["fs"]), [fc], dtype=dtype, **options)
    (output,) = bank(tensor(data["x"], dtype).unsqueeze(0))
    return output.numpy()[:, data["t_idx"]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fc", ["last", "fc80", "fc30"])
@pytest.mark.parametrize("preset", PRESETS)
def test_modulation_presets(preset: str, fc: str, dtype: torch.dtype) -> None:
    key = f"mfb_{preset}_out_{fc}"
    if key not in golden("common_modfilterbank"):
        assert (preset, fc) == ("osses2021_att_gain", "fc30")
        return
    expected = golden("common_modfilterbank")[key]
    output = modulation_output(dtype, 8000.0 if fc == "last" else float(fc.removeprefix("fc")), preset=preset)
    # 2e-11 is what the rounded coefficients of the reference's 2.5-Hz lowpass cost.
    assert peak_error(output, expected) <= (2e-11 if dtype == torch.float64 else 1e-3)


MODULATION_OPTIONS: list[tuple[dict[str, object], str]] = [
    ({"preset": "dau1997", "Q": 1.0}, "q1_out"),
    ({"preset": "jepsen2008", "phase_insens": False}, "nophase_out"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("options", "key"), MODULATION_OPTIONS)
def test_modulation_options(options: dict[str, object], key: str, dtype: torch.dtype) -> None:
    expected = golden("common_modfilterbank")[key]
    error = peak_error(modulation_output(dtype, **options), expected)
    assert error <= (2e-11 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("preset", PRESETS)
def test_modulation_centres_and_counts_of_presets(preset: str) -> None:
    data = golden("common_modfilterbank")
    bank = ModulationFilterbank(float(data["fs"]), data["fc"], preset=preset)
    np.testing.assert_allclose(bank.mfc_all.numpy(), data[f"mfb_{preset}_mfc"], rtol=1e-13)
    np.testing.assert_array_equal(bank.num_filters, data[f"mfb_{preset}_nmod"])


def test_modulation_centres() -> None:
    data = golden("common_modfilterbank")
    keys = [key for key in data if key.startswith("mfc_fc")]
    assert len(keys) == 15
    for key in keys:
        fc = float(key.removeprefix("mfc_fc"))
        np.testing.assert_allclose(modulation_centres(min(fc / 4.0, 1000.0)), data[key], rtol=1e-13)
    np.testing.assert_allclose(modulation_centres(1000.0, Q=1.0), data["q1_mfc"], rtol=1e-13)
    np.testing.assert_allclose(modulation_centres(150.0), data["max150_mfc"], rtol=1e-13)


@pytest.mark.parametrize(("name", "basef"), [("dau1997", 1000.0), ("osses2021", None)])
def test_counts_of_the_default_banks(name: str, basef: float | None) -> None:
    data = golden("common_modfilterbank")
    model = Dau1997(fs=44100.0, filterbank_kwargs={"basef": basef})
    np.testing.assert_allclose(model.fc.numpy(), data[f"{name}_fc"], rtol=1e-13)
    np.testing.assert_array_equal(model.modulation.num_filters, data[f"{name}_nmod"])
    np.testing.assert_allclose(model.modulation.mfc_all.numpy(), data[f"{name}_mfc"], rtol=1e-13)


@pytest.mark.parametrize("fs", [4000, 16000, 32000, 44100, 48000])
@pytest.mark.parametrize(("key", "order", "cutoff"), [("lp150", 1, 150.0), ("lp25", 2, 2.5)])
def test_modulation_lowpass_coefficients(key: str, order: int, cutoff: float, fs: int) -> None:
    expected = golden("common_modfilterbank")[f"{key}_fs{fs}"]
    sos = butterworth_lowpass(torch.tensor(cutoff, dtype=torch.float64), fs, order)[0].numpy()
    # The reference's numerator comes from 1 + a1 + a2 = 1e-7: it has lost seven of its sixteen digits there.
    np.testing.assert_allclose(sos[: order + 1], expected[0], rtol=1e-8)
    np.testing.assert_allclose(sos[3 : order + 4], expected[1], atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fc", [100, 250, 1000, 8000])
def test_modulation_bank_at_a_quarter_rate(fc: int, dtype: torch.dtype) -> None:
    data = golden("unit_modfilterbank")
    index = data["fc_hz"].tolist().index(fc)
    bank = ModulationFilterbank(float(data["fs"]), data["fc_hz"], dtype=dtype)
    output = bank(tensor(data["x"], dtype))[index].numpy()
    assert peak_error(output, data[f"y_fc{fc}"]) <= (4e-9 if dtype == torch.float64 else 1e-3)
    np.testing.assert_allclose(bank.mfc_all.numpy(), data["mfc_all_hz"], rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_modulation_bank_without_limit_lowpass_and_attenuation(dtype: torch.dtype) -> None:
    data = golden("unit_modfilterbank")
    bank = ModulationFilterbank(
        float(data["fs"]), [100.0], dtype=dtype, use_upper_limit=False, lowpass_cutoff=None, att_factor=1.0
    )
    (output,) = bank(tensor(data["x"][:1], dtype))
    bound = 4e-9 if dtype == torch.float64 else 1e-3
    assert peak_error(output.numpy(), data["y_fc100_no_limit_no_lp_no_att"]) <= bound


# --- ears and resampling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs", [16000, 32000, 44100, 48000])
def test_ear_taps(fs: int) -> None:
    data = golden("common_earfilters")
    assert peak_error(HeadphoneFilter(fs).taps, data[f"headphone_fs{fs}"]) <= 5e-15
    cases = {"me_lopezpoveda2001_min": {}, "me_lopezpoveda2001_zero": {"phase_type": "zero"}}
    cases["me_jepsen2008"] = {"filter_type": "jepsen2008"}
    for key, options in cases.items():
        ear = MiddleEarFilter(fs, normalize_gain=False, **options)
        assert peak_error(ear.taps, data[f"{key}_fs{fs}"]) <= 5e-15
        assert ear.gain_db == pytest.approx(float(data[f"{key}_gain_db_fs{fs}"]), abs=1e-11)


@pytest.mark.parametrize("fs", [16000, 22050, 32000, 44100, 48000])
def test_ear_taps_of_the_casp_files(fs: int) -> None:
    data = golden("ear_firs")
    assert peak_error(HeadphoneFilter(fs).taps, data[f"headphone_{fs}"]) <= 5e-15
    assert peak_error(MiddleEarFilter(fs, normalize_gain=False).taps, data[f"middle_ear_{fs}"]) <= 5e-15


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ear_filtering(dtype: torch.dtype) -> None:
    data = golden("common_earfilters")
    bound = 5e-15 if dtype == torch.float64 else 1e-6
    y = HeadphoneFilter(44100.0, dtype=dtype)(tensor(data["x"], dtype))
    assert peak_error(y, data["y_headphone"]) <= bound
    y = MiddleEarFilter(44100.0, dtype=dtype)(y)
    assert peak_error(y, data["y_headphone_middleear"]) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("key", "n_in"), [("160", 441), ("161", 441), ("40", 441), ("up_480", 440), ("even_to_160", 440)]
)
def test_resampling(key: str, n_in: int, dtype: torch.dtype) -> None:
    data = golden("common_fftresample")
    expected = data[f"out_{key}"]
    output = fft_resample(tensor(data["x"][:, :n_in], dtype), expected.shape[-1])
    assert output.shape == expected.shape
    assert peak_error(output, expected) <= (2e-15 if dtype == torch.float64 else 1e-6)


# --- periphery -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_growth_of_the_response_to_a_tone(dtype: torch.dtype) -> None:
    data = golden("level_growth_1k")
    fs, t = 16000.0, np.arange(8000) / 16000.0
    amplitude = np.sqrt(2.0) * 20e-6 * 10.0 ** (data["level_db_spl"] / 20.0)
    tones = tensor(amplitude[:, None] * np.sin(2.0 * np.pi * 1000.0 * t), dtype)
    for name, ihc, preset in [("dau1997", "dau1996", "dau1997"), ("osses2021", "breebaart2001", "osses2021")]:
        model = Dau1997(
            fs=fs,
            flow=1000.0,
            fhigh=1000.0,
            dtype=dtype,
            return_stages=True,
            filterbank_kwargs={"basef": 1000.0},
            ihc_kwargs={"method": ihc},
            adaptation_kwargs={"preset": preset},
            modulation_kwargs={"max_mfc": 10.0},
            dboffset=93.98,
        )
        response = model(tones)[1]["adaptation"][:, 0].numpy()
        bound = 5e-3 if dtype == torch.float64 else 2e-2
        np.testing.assert_allclose(response.max(1), data[f"{name}_onset_mu"], rtol=0, atol=bound)
        np.testing.assert_allclose(response[:, -1600:].mean(1), data[f"{name}_steady_mu"], rtol=0, atol=bound)


@pytest.mark.parametrize("limit", [5, 10])
def test_onset_experiment_of_osses_and_kohlrausch_2021(limit: int) -> None:
    data = golden("exp_osses2021_fig11")
    model = Dau1997(
        fs=44100.0,
        flow=4000.0,
        fhigh=4000.0,
        dtype=torch.float64,
        return_stages=True,
        filterbank_kwargs={"basef": 4000.0},
        ihc_kwargs={"method": "breebaart2001"},
        adaptation_kwargs={"limit": float(limit)},
        dboffset=100.0,
    )
    response = model(tensor(data["x"]))[1]["adaptation"][0].numpy()
    assert np.abs(response[data["t_idx"]] - data[f"out{limit}"]).max() <= 5e-3
    assert response.max() == pytest.approx(float(data[f"onset{limit:02d}"]), abs=5e-3)
    ratio = response.max() / float(data[f"steady{limit:02d}"])
    assert ratio == pytest.approx(float(data[f"ra{limit:02d}"]), rel=1e-5)
