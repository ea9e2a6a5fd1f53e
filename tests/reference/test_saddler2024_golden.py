"""The nerve model of PhaseLockNet against the original implementation: every stage, float64 and float32.

The bounds are those that came with the files: an independent implementation in float64 agreed to 1e-12 of the largest
value, 1e-10 is asked for; in float32 2e-6 of the largest value up to the lowpass, 0.01 spikes/s for rates.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.models import Saddler2024
from psysim.rng import Keys
from psysim.stages import KneeCompression, PhaseLockingFilter, RateLevelFunction, SlaneyFIRFilterbank, SpikeGenerator

DATA = Path(__file__).parent / "data"
FILES = sorted(p.stem.removeprefix("saddler2024_") for p in DATA.glob("saddler2024_periph_*.npz"))
RUNS = [name for name in FILES if "levels" not in name]
DTYPES = [torch.float64, torch.float32]
FILTER_BOUND = {torch.float64: 1e-10, torch.float32: 2e-6}  # of the largest value
RATE_BOUND = {torch.float64: 1e-10 * 250.0, torch.float32: 0.01}  # spikes/s
GROUPS = {"threshold_db_spl": [0.0, 12.0, 28.0], "dynamic_range_db": [20.0, 40.0, 80.0]}


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"saddler2024_{name}.npz") as file:
        return dict(file)


def model_of(name: str, dtype: torch.dtype) -> Saddler2024:
    g = golden(name)
    preset = "localisation" if "_loc_" in name else "word"
    return Saddler2024(float(g["sr_input"]), preset, limit_hz=float(g["cutoff"]), dtype=dtype, return_stages=True)


@cache
def run(name: str, dtype: torch.dtype) -> dict[str, np.ndarray]:
    model = model_of(name, dtype)
    rates, stages = model(torch.from_numpy(golden(name)["x"]).to(dtype))
    np.testing.assert_allclose(model.fc.numpy(), golden(name)["cfs"], rtol=1e-12)
    assert rates.dtype == dtype
    return {"rates": rates.numpy(), "subbands": stages["subbands"].numpy(), "ihc": stages["ihc"].numpy()}


def error_of(output: np.ndarray, expected: np.ndarray) -> float:
    assert output.shape == expected.shape
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def test_every_file_is_covered() -> None:
    assert len(FILES) == 5


@pytest.mark.parametrize("fs", [20000, 50000])
def test_gammatone_responses(fs: int) -> None:
    g = golden("filters")
    fc = g["cfs_word" if fs == 20000 else "cfs_loc"][g["sel"]]
    bank = SlaneyFIRFilterbank(fc, fs)
    np.testing.assert_allclose(bank.taps.numpy(), g[f"gammatone_sr{fs // 1000}k"], rtol=1e-9, atol=1e-12)


def test_gammatone_sections() -> None:
    g = golden("filters")
    sections = SlaneyFIRFilterbank(g["cfs_word"][g["sel"]], 20000.0).sections.numpy()
    np.testing.assert_allclose(np.moveaxis(sections[:, :, :3], 0, -1), g["sos_b"], rtol=1e-9, atol=1e-20)
    for section in range(4):
        np.testing.assert_allclose(sections[:, section, 3:].T, g["sos_a"][section], rtol=1e-12)


@pytest.mark.parametrize("cutoff", [50, 320, 1000, 3000])
@pytest.mark.parametrize("fs", [20000, 50000])
def test_lowpass_responses(fs: int, cutoff: int) -> None:
    stage = PhaseLockingFilter(float(fs), 10000.0, float(cutoff))
    np.testing.assert_allclose(stage.taps.numpy(), golden("filters")[f"ihc_sr{fs}_fc{cutoff}"], rtol=1e-9, atol=1e-12)


TRUE_LIMITS = [(20e3, 50, 31.1), (20e3, 320, 182), (20e3, 1000, 593), (20e3, 3000, 3779)]
TRUE_LIMITS += [(50e3, 50, 31.1), (50e3, 320, 181), (50e3, 1000, 569), (50e3, 3000, 1818)]


@pytest.mark.parametrize(("fs", "cutoff", "true"), TRUE_LIMITS)
def test_the_true_limit_is_that_of_the_table(fs: float, cutoff: float, true: float) -> None:
    stage = PhaseLockingFilter(fs, 10e3, cutoff)
    assert stage.cutoff_3db_hz == pytest.approx(true, abs=0.1 if true < 100 else 0.5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("stage", ["subbands", "ihc"])
@pytest.mark.parametrize("name", RUNS)
def test_filters(name: str, stage: str, dtype: torch.dtype) -> None:
    g = golden(name)
    output = run(name, dtype)[stage][:, g["channel_index"]]
    output = output[..., :: int(g["subband_time_step"])] if stage == "subbands" else output
    assert error_of(output, g[stage]) <= FILTER_BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", RUNS)
def test_rates(name: str, dtype: torch.dtype) -> None:
    g = golden(name)
    rates = run(name, dtype)["rates"].astype(np.float64)
    assert rates.shape == tuple(g["rate_shape"])
    assert np.abs(rates[:, :, g["channel_index"]] - g["rates"]).max() <= RATE_BOUND[dtype]
    assert np.abs(rates.mean(-1) - g["mean_rate_all"]).max() <= RATE_BOUND[dtype]
    assert np.abs(rates.max(-1) - g["max_rate_all"]).max() <= RATE_BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rates_over_level(dtype: torch.dtype) -> None:
    g = golden("periph_word_ihc1000_levels")
    gains = 10.0 ** ((g["level_db"] - 60.0) / 20.0)
    model = Saddler2024(20e3, limit_hz=1000.0, dtype=dtype)
    rates = model(torch.from_numpy(gains[:, None] * g["x_unit_60dB"])).double()
    assert np.abs(rates.mean(-1).numpy() - g["mean_rate"]).max() <= RATE_BOUND[dtype]
    assert np.abs(rates.amax(-1).numpy() - g["max_rate"]).max() <= RATE_BOUND[dtype]


def test_both_ears_are_those_of_the_golden_file() -> None:
    """The two rows of the file are two ears: ear 0's groups first."""
    g = golden("periph_loc_ihc3000_binaural")
    model = Saddler2024(50e3, "localisation", dtype=torch.float64)
    rates = model(torch.from_numpy(g["x"])[None])
    assert rates.shape == (1, 6, 50, 800)
    both = rates[0].reshape(2, 3, 50, 800)[:, :, g["channel_index"]]
    assert np.abs(both.numpy() - g["rates"]).max() <= RATE_BOUND[torch.float64]


SIGMOIDS: dict[str, tuple[dict[str, object], str]] = {
    "default": (GROUPS, ""),
    "compressed": (GROUPS | {"power": 0.3}, "_compressed"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["default", "compressed"])
def test_sigmoids(name: str, dtype: torch.dtype) -> None:
    g = golden("rate_level")
    options, suffix = SIGMOIDS[name]
    stage = RateLevelFunction(**options, envelope_mode=False, dtype=dtype)
    np.testing.assert_allclose(stage.slope[:, 0].numpy(), g[f"k{suffix}"], rtol=1e-12)
    np.testing.assert_allclose(stage.midpoint[:, 0].numpy(), g[f"x0{suffix}"], rtol=1e-12)
    x = torch.from_numpy(20e-6 * 10.0 ** (g["level_db"] / 20.0))
    expected = g["rate_default_instant" if name == "default" else "rate_compressed_0p3"]
    assert np.abs(stage(x[None])[:, 0].numpy() - expected).max() <= RATE_BOUND[dtype]
    if name == "compressed":
        np.testing.assert_allclose(stage.threshold[:, 0].numpy(), g["threshold_compressed"], rtol=1e-12)
        np.testing.assert_allclose(stage.dynamic_range[:, 0].numpy(), g["dynamic_range_compressed"], rtol=1e-12)


SPONTANEOUS = {"threshold_db_spl": [5.0, 15.0, 30.0], "dynamic_range_db": [25.0, 45.0, 70.0]}
SPONTANEOUS |= {"rate_spont": [60.0, 5.0, 0.1], "rate_max": [250.0, 200.0, 150.0]}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sigmoids_with_spontaneous_rates(dtype: torch.dtype) -> None:
    g = golden("rate_level")
    stage = RateLevelFunction(**SPONTANEOUS, interval=0.9, envelope_mode=False, dtype=dtype)
    np.testing.assert_allclose(stage.slope[:, 0].numpy(), g["k_spont"], rtol=1e-12)
    np.testing.assert_allclose(stage.midpoint[:, 0].numpy(), g["x0_spont"], rtol=1e-12)
    x = torch.from_numpy(20e-6 * 10.0 ** (g["level_db"] / 20.0))
    assert np.abs(stage(x[None])[:, 0].numpy() - g["rate_spont_instant"]).max() <= RATE_BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("options", "key"), [(GROUPS, "env_rate"), (SPONTANEOUS, "env_rate_spont")])
def test_envelope_mode(options: dict[str, object], key: str, dtype: torch.dtype) -> None:
    """The input ends in silence: no NaN there."""
    g = golden("rate_level")
    rates = RateLevelFunction(**options, dtype=dtype)(torch.from_numpy(g["env_input"])[None])
    assert np.abs(rates[:, 0].numpy() - g[key]).max() <= RATE_BOUND[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_broken_stick(dtype: torch.dtype) -> None:
    g = golden("rate_level")
    x = torch.from_numpy(g["brokenstick_in"]).reshape(1, -1)
    one = KneeCompression(0.3, 30.0, 94.0, dtype=dtype)(x)
    assert error_of(one.reshape(-1).double().numpy(), g["brokenstick_out"]) <= FILTER_BOUND[dtype]
    two = KneeCompression([0.2, 0.6], 40.0, 80.0, dtype=dtype)(x.expand(2, -1)).relu()
    assert error_of(two.double().numpy(), g["brokenstick2_out"]) <= FILTER_BOUND[dtype]


def draws(mode: str, n: int) -> Tensor:
    g = golden("spike_statistics")
    rates = torch.from_numpy(g["rates"])[None, None, :, None].expand(1, 3, -1, n)
    generator = SpikeGenerator(float(g["sr"]), g["n_per_channel"].tolist(), mode, dtype=torch.float64)
    return generator(rates, Keys.make(seed=5, trial=[3]))[0]


def moments(mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the analytic mean and variance of counts [group, rate]."""
    from scipy.stats import norm

    g = golden("spike_statistics")
    n, p = g["n_per_channel"][:, None], g["rates"] / float(g["sr"])
    mu, var = n * p, n * p * (1 - p)
    if mode == "exact":
        return mu, var
    if mode == "additive":
        mean = mu * norm.cdf(mu) + norm.pdf(mu)
        return mean, (mu**2 + 1) * norm.cdf(mu) + mu * norm.pdf(mu) - mean**2
    j = np.arange(1, 400)[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        mass = norm.cdf((j + 0.5 - mu) / np.sqrt(var)) - norm.cdf((j - 0.5 - mu) / np.sqrt(var))
    mass = np.where(var > 0, mass, 0.0)
    mean = (j * mass).sum(0)
    return mean, (j**2 * mass).sum(0) - mean**2


def test_analytic_moments_of_spike_counts() -> None:
    g = golden("spike_statistics")
    for mode, keys in (
        ("approx", ("approx_mean_analytic", "approx_var_analytic")),
        ("exact", ("binomial_mean", "binomial_var")),
        ("additive", ("additive_mean_analytic",)),
    ):
        for key, value in zip(keys, moments(mode), strict=False):
            np.testing.assert_allclose(value, g[key], rtol=1e-6, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("mode", ["approx", "exact", "additive"])
def test_moments_of_spike_counts(mode: str) -> None:
    """Within 4 standard errors of the analytic moments, and of what the original drew."""
    g = golden("spike_statistics")
    n = 200_000
    counts = draws(mode, n).numpy()
    mean, var = moments(mode)
    fourth = ((counts - mean[..., None]) ** 4).mean(-1)
    sem, sev = np.sqrt(var / n), np.sqrt(np.maximum(fourth - var**2, 0.0) / n)
    # A rate of which no spike is expected in all draws has no spread that could be estimated
    rare = 10.0 / n
    assert (np.abs(counts.mean(-1) - mean) <= 4 * sem + rare * (mean < 1e-3)).all()
    assert (np.abs(counts.var(-1) - var) <= 4 * sev + rare * (mean < 1e-3)).all()
    theirs = int(g["n_draws_exact" if mode == "exact" else "n_draws"])
    both = np.sqrt(var * (1 / n + 1 / theirs))
    assert (np.abs(counts.mean(-1) - g[f"{mode}_mean"]) <= 4 * both + 10.0 / theirs * (mean < 1e-2)).all()


def test_exact_counts_are_binomial_by_chi_square() -> None:
    from scipy.stats import binom, chi2

    g = golden("spike_statistics")
    counts = draws("exact", 200_000).numpy()
    for group, n in enumerate(g["n_per_channel"]):
        for i, p in enumerate(g["rates"] / float(g["sr"])):
            if p == 0:
                assert not counts[group, i].any()
                continue
            top = int(counts[group, i].max()) + 2
            seen = np.bincount(counts[group, i].astype(int), minlength=top)
            expected = binom.pmf(np.arange(top), n, p) * counts.shape[-1]
            use = expected >= 5
            seen, expected = np.append(seen[use], seen[~use].sum()), np.append(expected[use], 0.0)
            expected[-1] = counts.shape[-1] - expected.sum()
            keep = expected > 1
            statistic = ((seen - expected)[keep] ** 2 / expected[keep]).sum()
            assert statistic < chi2.ppf(1 - 1e-6, max(1, keep.sum() - 1)), (group, i)
