"""The decision stage of CASP against the original implementation: arithmetic alone, and the whole chain from sound.

Bounds are those of the table "Expected agreement" that came with the files (README_paulick_king): correlation and
probability given their inputs 1e-14 (float32 1e-5), decision variable end to end 3e-8 (float32: measured, 1e-3
expected). Errors are relative to the largest value of the array.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.models import Paulick2024
from psysim.observers import (
    Casp,
    band_correlations,
    band_mask,
    criterion_difference,
    interval_difference,
    proportion_correct,
    region_of_interest,
)
from psysim.observers.casp_stage import NOISE_VARIANCE, correlation_weights, moving_average

DATA = Path(__file__).parent / "data"
FILES = sorted(path.stem for path in DATA.glob("decision_*.npz"))
VARIANTS = ["paulick2024", "jepsen2008"]
DTYPES = [torch.float64, torch.float32]

# End to end. In float32 the arithmetic bound holds for the whole chain: the sums run over a million samples, and the
# representation's errors of up to 1e-3 of its peak (onsets) average out.
BOUND = {torch.float64: 3e-8, torch.float32: 1e-5}
# Single samples of the template: those of the representation. The 2008 variant's reference has its own rounding there.
SAMPLES = {("paulick2024", torch.float64): 3e-8, ("jepsen2008", torch.float64): 8e-6}
SAMPLES |= {(variant, torch.float32): 1e-3 for variant in VARIANTS}


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array)


def variant_of(name: str) -> str:
    return "jepsen2008" if "jepsen2008" in name else "paulick2024"


def close(result: object, expected: np.ndarray, bound: float) -> None:
    scale = float(np.nanmax(np.abs(expected)))
    np.testing.assert_allclose(np.asarray(result), expected, rtol=0, atol=bound * scale)


class TestArithmetic:
    """On stored numbers alone."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_correlation(self, variant: str, dtype: torch.dtype) -> None:
        data = golden("unit_decision")
        mask = band_mask(tensor(data["fc_hz"]), tensor(data["mfc_hz"]))
        x, template = (tensor(data[name]).to(dtype) for name in ("target", "template"))
        assert x[~mask].isnan().any()  # absent filters are NaN there: they do not take part
        bands = band_correlations(x, template, mask, remove_means=variant == "paulick2024")
        bound = 1e-14 if dtype == torch.float64 else 1e-5
        close(bands, data[f"corr_per_mfc_{variant}"], bound)
        scale = float(np.abs(data[f"corr_per_mfc_{variant}"]).max())
        assert float(bands.sum()) == pytest.approx(float(data[f"corr_{variant}"]), rel=0, abs=bound * scale)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_probability(self, variant: str) -> None:
        data = golden("unit_decision")
        for column, n_intervals in enumerate(data["n_afc"]):
            found = proportion_correct(tensor(data["decision_variable"]), int(n_intervals), NOISE_VARIANCE[variant])
            np.testing.assert_allclose(found, data[f"p_correct_{variant}"][:, column], rtol=0, atol=1e-14)

    @pytest.mark.parametrize("width", ["4", "4p6", "5"])
    def test_moving_average(self, width: str) -> None:
        data = golden("unit_decision")
        found = moving_average(tensor(data["movmean_input"]), float(width.replace("p", ".")))
        close(found, data[f"movmean_{width}"], 1e-14)

    def test_region_of_interest(self) -> None:
        data = golden("unit_decision")
        fs, fc = float(data["roi_fs"]), tensor(data["roi_fc_hz"])
        region = region_of_interest(tensor(data["roi_input"]), fc, fs)
        assert region == (data["roi_idx"][0], data["roi_idx"][-1])
        for channel, f, width, rms in zip(
            tensor(data["roi_input"]), fc, data["roi_window_samples"], data["roi_rms"], strict=True
        ):
            assert 25 * fs / float(f) == pytest.approx(width, rel=1e-14)
            assert float(moving_average(channel, width).square().mean().sqrt()) == pytest.approx(rms, rel=1e-13)

    # Criteria to four decimals: the table of the specification (section 9)
    @pytest.mark.parametrize(
        ("variant", "n_intervals", "table"),
        [
            ("paulick2024", 2, (0, 4.8749, 7.3294)),
            ("paulick2024", 3, (3.4971, 8.0024, 10.2708)),
            ("paulick2024", 4, (5.2158, 9.4708, 11.6132)),
            ("jepsen2008", 2, (0, 8.7884, 13.2133)),
            ("jepsen2008", 3, (6.3045, 14.4266, 18.5160)),
            ("jepsen2008", 4, (9.4029, 17.0738, 20.9360)),
        ],
    )
    def test_criteria(self, variant: str, n_intervals: int, table: tuple[float, ...]) -> None:
        found = [criterion_difference(n_intervals, n_down, NOISE_VARIANCE[variant]) for n_down in (1, 2, 3)]
        np.testing.assert_allclose(found, table, rtol=0, atol=5.1e-5)

    @pytest.mark.parametrize("name", FILES)
    def test_from_correlations_to_decisions(self, name: str) -> None:
        data = golden(name)
        rate = float(data["fs_internal"])
        close(data["corr_target_per_mfc"].sum(1), data["corr_target"], 1e-14)
        target = tensor(data["corr_target"]) / rate
        values = torch.stack([torch.full_like(target, float(data["corr_nontarget"]) / rate), target], dim=1)
        difference = interval_difference(values, torch.ones(len(target), dtype=torch.int64))
        close(difference, data["decision_variable"], 1e-14)
        for column, n_intervals in enumerate(data["n_afc"].astype(int)):
            p = proportion_correct(difference, int(n_intervals), NOISE_VARIANCE[variant_of(name)])
            np.testing.assert_allclose(p, data["p_correct"][:, column], rtol=0, atol=1e-14)
            for row, n_down in enumerate(data["n_down"]):
                np.testing.assert_array_equal(p.numpy() > 2 ** (-1 / n_down), data["decision"][:, column, row])


class TestOptimalDetectorForms:
    """A template of energy ``rate`` and a division by ``rate`` give the density form of the optimal detector."""

    @pytest.mark.parametrize("model", ["dau1997", "osses2021"])
    def test_intensity_discrimination(self, model: str) -> None:
        data = golden("observer_intdisc_1k_60dB")
        r, rate = tensor(data[f"{model}_representation"])[:, None], float(data["subfs"])
        everything = torch.ones(1, r.shape[2], dtype=torch.bool)
        template = r[-1] - r[0]
        template = template * (rate / template.square().sum()).sqrt()
        mu = band_correlations(r - r[0], template, everything, remove_means=False).sum(-1) / rate
        np.testing.assert_allclose(mu, data[f"{model}_mu_fs_normalised"], rtol=1e-10, atol=1e-10)

    def test_am_detection(self) -> None:
        data = golden("observer_amdet_5k_16Hz")
        r, rate = tensor(data["representation"])[:, None], float(data["subfs"])
        everything = torch.ones(1, r.shape[2], dtype=torch.bool)
        template = r[-1] - r[0]
        energy = template.square().sum((0, 2)) / template.square().sum()
        np.testing.assert_allclose(energy, data["template_unit_energy_per_mfc"], rtol=1e-10, atol=1e-14)
        template = template * (rate / template.square().sum()).sqrt()
        mu = band_correlations(r - r[0], template, everything, remove_means=False).sum(-1) / rate**0.5
        np.testing.assert_allclose(mu, data["mu_unit_template"], rtol=1e-10, atol=1e-9)


class Training:
    """The sounds of a golden file as an observer's training sounds; the level is the file's increment or tone level."""

    n_conditions = 1
    frozen = False
    n_intervals = 2
    target_proportion = 2**-0.5

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        data = golden(name)
        self.data, self.dtype = data, dtype
        self.fs = float(data["fs"])
        self.in_noise = "noise_pa" in data
        if self.in_noise:
            self.levels = data["tone_level_db_spl"]
            self.start_level = float(data["supra_level_db_spl"])
            self.tokens = int(data["n_template_average"])
        else:
            self.levels = data["increment_db"]
            self.start_level = float(data["supra_increment_db"])
            self.tokens = 1

    def target(self, condition: Tensor, token: Tensor, level: float) -> Tensor:
        if self.in_noise:
            tone = self.data["tone_unit_20upa_rms"] * 10 ** (level / 20)
            return self._tensor(self.data["noise_pa"].T[token.numpy()] + tone)
        return self._tensor(np.repeat(self._tone(float(self.data["base_db"]) + level)[None], len(token), 0))

    def reference(self, condition: Tensor, token: Tensor) -> Tensor:
        return self.target(condition, token, -np.inf if self.in_noise else 0.0)

    def trials(self) -> Tensor:
        """Return the intervals (levels, 2, T): non-target, target."""
        other, own = (3, 4) if self.in_noise else (0, 0)  # noise tokens of the two intervals
        zero = torch.zeros(1, dtype=torch.int64)
        reference = self.reference(zero, zero + other)
        return torch.stack([torch.cat([reference, self.target(zero, zero + own, level)]) for level in self.levels])

    def _tone(self, level_db_spl: float) -> np.ndarray:
        unit = self.data["tone_unit"]
        tone = unit / np.sqrt(np.mean(unit**2)) * 20e-6 * 10 ** (level_db_spl / 20)
        return np.pad(tone, (0, round(float(self.data["total_dur_s"]) * self.fs) - len(tone)))

    def _tensor(self, sound: np.ndarray) -> Tensor:
        return torch.as_tensor(sound, dtype=self.dtype)


@cache
def prepared(name: str, dtype: torch.dtype) -> tuple[Casp, Training]:
    data = golden(name)
    options: dict = {"drnl_kwargs": {"subject": "HIx"} if "hix" in name else {}}
    if "toneinnoise" in name:
        options |= {"fhigh": 6000.0, "n_channels": 20}
    model = Paulick2024(fs=float(data["fs"]), preset="published", variant=variant_of(name), dtype=dtype, **options)
    np.testing.assert_allclose(model.fc, data["fc_hz"], rtol=1e-12)
    training = Training(name, dtype)
    observer = Casp(Casp.Settings(n_down=2, template_tokens=training.tokens), model)
    observer.prepare(training)
    return observer, training


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FILES)
class TestFromSound:
    """The observer with the model: template, region, correlation, decision variable."""

    def test_region_of_interest(self, name: str, dtype: torch.dtype) -> None:
        observer, _ = prepared(name, dtype)
        index = golden(name)["roi_idx"]
        assert observer.regions == [(index[0], index[-1])]
        np.testing.assert_allclose(observer.fc[index.astype(int)], golden(name)["roi_freq"], rtol=1e-12)

    def test_template(self, name: str, dtype: torch.dtype) -> None:
        """The stored template has energy = rate and is neither restricted nor freed of its means."""
        data = golden(name)
        observer, training = prepared(name, dtype)
        with torch.no_grad():
            means = [
                observer.model.represent(sounds).values.double().mean(0)
                for token in [torch.arange(training.tokens)]
                for sounds in (
                    training.target(torch.zeros_like(token), token, training.start_level),
                    training.reference(torch.zeros_like(token), token),
                )
            ]
        difference = means[0] - means[1]
        gain = (float(data["fs_internal"]) / difference.square().sum()).sqrt()
        bound = BOUND[dtype]
        assert float(gain) == pytest.approx(float(data["template_gain"]), rel=bound)
        template = gain * difference
        if "template_energy" in data:
            close(template.square().sum(-1), data["template_energy"], 2 * bound)
            channels = data["roi_idx"].astype(int)[0::3]
            stored = data["template_roi_every3"]
            found = template[channels][:, :, data["template_t_idx"]]
            close(found[~np.isnan(stored)], stored[~np.isnan(stored)], SAMPLES[variant_of(name), dtype])
        mask = band_mask(observer.fc, observer.mfc, observer.regions[0]) & observer.valid
        weights = correlation_weights(template / float(data["fs_internal"]) ** 0.5, mask, observer.remove_means)
        torch.testing.assert_close(observer.templates[0].double(), weights, rtol=0, atol=1e-7 * float(weights.max()))

    def test_decision_variable(self, name: str, dtype: torch.dtype) -> None:
        data, rate = golden(name), float(golden(name)["fs_internal"])
        observer, training = prepared(name, dtype)
        trials = training.trials()
        with torch.no_grad():
            values = observer.decision_variable(trials, torch.zeros(len(trials), dtype=torch.int64))
        bound = BOUND[dtype]
        close(values[:, 1] * rate, data["corr_target"], bound)
        scale = float(data["corr_target"].max())
        np.testing.assert_allclose(values[:, 0] * rate, float(data["corr_nontarget"]), rtol=0, atol=bound * scale)
        difference = interval_difference(values, torch.ones(len(values), dtype=torch.int64))
        close(difference, data["decision_variable"], bound)
        for column, n_intervals in enumerate(data["n_afc"].astype(int)):
            p = proportion_correct(difference, int(n_intervals), observer.internal_noise_var)
            np.testing.assert_allclose(p, data["p_correct"][:, column], rtol=0, atol=10 * bound)
            for row, n_down in enumerate(data["n_down"]):
                np.testing.assert_array_equal(p.numpy() > 2 ** (-1 / n_down), data["decision"][:, column, row])

    def test_bands(self, name: str, dtype: torch.dtype) -> None:
        """Band by band, by way of the representation."""
        data = golden(name)
        observer, training = prepared(name, dtype)
        rate = observer._rate
        with torch.no_grad():
            x = observer.model.represent(training.trials()[:, 1]).values.double()
        bands = (x * observer.templates[0].double()).sum((1, 3)) * rate**0.5
        zero = torch.zeros(1, dtype=torch.int64)
        references = [
            observer.model.represent(training.reference(zero, zero + token)).values[0].double()
            for token in range(training.tokens)
        ]
        offset = (torch.stack(references).mean(0) * observer.templates[0].double()).sum((0, 2)) * rate**0.5
        expected = data["corr_target_per_mfc"]
        close(bands - offset, np.nan_to_num(expected), BOUND[dtype])


def test_every_file_is_here() -> None:
    assert len(FILES) == 5
    assert {variant_of(name) for name in FILES} == set(VARIANTS)
