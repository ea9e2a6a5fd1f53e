"""Draw what the loudness model of 2016 says, beside the standards.

    python reports/loudness.py [FOLDER]

draws contours, growth, thresholds, categories, summation, time and ears into FOLDER/loudness.png (default: reports),
writes every point drawn to loudness.csv and prints the distances from the standards. All sounds are heard by both ears
in the free field, but for the panel on one ear and two. A minute on two cores.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from psysim import human
from psysim.evaluation import CATEGORIES, scale_loudness
from psysim.hearing import loudness_losses, match_loudness, standard_audiogram
from psysim.models import Moore2016
from psysim.observers import LoudnessObserver

FS = 32000
STEADY = 220  # ms: the short-term loudness is at its end
HEARING = ("normal", "N2", "N4")
POINTS: list[dict[str, object]] = []


def note(panel: str, series: str, x: Sequence[float] | Tensor, y: Sequence[float] | Tensor) -> None:
    """Keep what is drawn."""
    POINTS.extend({"panel": panel, "series": series, "x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True))


def listener(hearing: str) -> Moore2016:
    """Return the model with normal hearing or a standard audiogram in both ears."""
    model = Moore2016()
    return model if hearing == "normal" else Moore2016(**loudness_losses(standard_audiogram(hearing), model.fc))


def tones(frequency_hz: Tensor, level_db: Tensor, duration_s: float) -> Tensor:
    """Return tones (N, 1, T) in pascal."""
    time = torch.arange(round(FS * duration_s), dtype=torch.float64) / FS
    amplitude = math.sqrt(2.0) * 20e-6 * 10 ** (level_db / 20)
    return (amplitude[:, None] * torch.sin(2 * torch.pi * frequency_hz[:, None] * time))[:, None]


def steady(model: Moore2016, frequency_hz: Tensor, level_db: Tensor) -> Tensor:
    """Return the loudness (N,) of long tones, sone."""
    with torch.no_grad():
        return model(tones(frequency_hz, level_db, 0.25))[0][:, STEADY]


def levels_at(model: Moore2016, frequency_hz: Tensor, sone: Tensor) -> Tensor:
    """Return the levels (N,) of tones of a loudness, dB SPL."""
    return match_loudness(lambda level: steady(model, frequency_hz, level), sone, tolerance_db=0.1)


def contours(ax: Axes, model: Moore2016) -> None:
    """Equal-loudness contours from 20 to 90 phon, with ISO 226:2003."""
    standard = standard_table()
    frequency = torch.tensor(
        [63.0, 125.0, 250.0, 500.0, 1000.0, 1600.0, 2500.0, 4000.0, 6300.0, 8000.0, 10000.0, 12500.0]
    )
    for i, phon in enumerate(range(20, 91, 10)):
        sone = steady(model, torch.tensor([1000.0]), torch.tensor([float(phon)]))
        found = levels_at(model, frequency.double(), sone.double().expand(len(frequency)))
        iso = iso226(standard, frequency.numpy(), phon)
        fine = standard.index.to_numpy()[standard.index >= 50.0]
        ax.plot(frequency, found, "o-", color="C0", ms=3, lw=1.2, label="Moore2016" if i == 0 else None)
        ax.plot(fine, iso226(standard, fine, phon), "--", color="0.2", lw=1.1, label="ISO 226:2003" if i == 0 else None)
        ax.annotate(f"{phon}", (1000, phon), (0, 3), textcoords="offset points", ha="center", fontsize=7)
        note("contours", f"Moore2016, {phon} phon", frequency, found)
        note("contours", f"ISO 226:2003, {phon} phon", frequency, iso)
        middle = ((frequency >= 100) & (frequency <= 8000)).numpy()
        away = (found.numpy() - iso)[middle]
        print(f"contour {phon} phon: {np.sqrt(np.nanmean(away**2)):.1f} dB rms from ISO 226:2003, 125 Hz to 8 kHz")
    ax.set(
        xscale="log",
        xlabel="Frequency (Hz)",
        ylabel="Level (dB SPL)",
        title="Equal loudness, 20 to 90 phon",
        ylim=(5, 128),
    )
    ax.legend(fontsize=7, loc="upper right")


def standard_table() -> pd.DataFrame:
    """Return the parameters of ISO 226:2003, one row per frequency."""
    rows = human.load("iso226_2003")
    return rows[rows["measure"].isin(["alpha", "L_U", "T_f_hearing_threshold"])].pivot_table(
        "value", "frequency_hz", "measure"
    )


def iso226(standard: pd.DataFrame, frequency: np.ndarray, phon: float) -> np.ndarray:
    """Return the levels of ISO 226:2003 at frequencies of its table, dB SPL; beyond 80 phon up to 4 kHz."""
    rows = standard.loc[list(frequency)]
    alpha, gain, threshold = (rows[name].to_numpy(dtype=float) for name in ("alpha", "L_U", "T_f_hearing_threshold"))
    a = 4.47e-3 * (10 ** (0.025 * phon) - 1.15) + (0.4 * 10 ** ((threshold + gain) / 10 - 9)) ** alpha
    level = 10 / alpha * np.log10(a) - gain + 94
    return np.where((phon <= 80) | (frequency <= 4000), level, np.nan)


def growth(ax: Axes) -> None:
    """Loudness of 1 kHz against level: normal hearing with ISO 532-2, and recruitment."""
    level = torch.arange(0.0, 111.0, 5.0, dtype=torch.float64)
    for hearing, style in zip(HEARING, ("C0o-", "C1s-", "C3^-"), strict=True):
        sone = steady(listener(hearing), torch.full_like(level, 1000.0), level)
        ax.plot(
            level,
            sone.clamp(min=1e-4),
            style,
            ms=3,
            lw=1.2,
            label=f"{hearing} hearing" if hearing == "normal" else f"audiogram {hearing}",
        )
        note("growth", hearing, level, sone)
    table = human.load("iso532_2_2017_reference")
    rows = table[(table["stimulus"] == "1-kHz tone") & (table["presentation"] == "free field, binaural")]
    ax.plot(rows["level_db"], rows["value"], "k_", ms=7, label="ISO 532-2:2017")
    note("growth", "ISO 532-2:2017", rows["level_db"], rows["value"])
    ax.set(
        yscale="log",
        ylim=(1e-3, 200),
        xlabel="Level of 1 kHz (dB SPL)",
        ylabel="Loudness (sone)",
        title="Growth of loudness, recruitment",
    )
    ax.legend(fontsize=7, loc="lower right")


def thresholds(ax: Axes) -> None:
    """Absolute thresholds at the loudness of 1 kHz at 2.4 dB SPL, with ISO 389-7 and the audiograms."""
    standard = standard_table()
    frequency = torch.tensor(
        [50.0, 100.0, 200.0, 400.0, 800.0, 1250.0, 2000.0, 3150.0, 4000.0, 6300.0, 8000.0, 10000.0, 12500.0]
    )
    iso = standard.loc[frequency.tolist(), "T_f_hearing_threshold"].to_numpy(dtype=float)
    normal = listener("normal")
    sone = steady(normal, torch.tensor([1000.0]), torch.tensor([2.4])).double()
    for hearing, colour in zip(HEARING, ("C0", "C1", "C3"), strict=True):
        found = levels_at(listener(hearing), frequency.double(), sone.expand(len(frequency)))
        expected = iso.copy()
        if hearing != "normal":
            expected += standard_audiogram(hearing).at(frequency.numpy())
        label = "normal hearing" if hearing == "normal" else f"audiogram {hearing}"
        ax.plot(frequency, found, "o-", color=colour, ms=3, lw=1.2, label=label)
        ax.plot(frequency, expected, "--", color="0.2", lw=1.1)
        note("thresholds", hearing, frequency, found)
        note("thresholds", f"ISO 389-7 + {hearing}", frequency, expected)
        away = (found.numpy() - expected)[1:]
        print(f"thresholds, {hearing}: largest distance {np.nanmax(np.abs(away)):.1f} dB, 100 Hz to 12.5 kHz")
    ax.plot([], [], "--", color="0.2", lw=1.1, label="ISO 389-7 plus audiogram")
    ax.set(xscale="log", xlabel="Frequency (Hz)", ylabel="Threshold (dB SPL)", title="Absolute threshold")
    ax.legend(fontsize=7, loc="upper center")


def noise_band(width_hz: float, level_db: float, duration_s: float = 1.0) -> Tensor:
    """Return noise (T,) about 1 kHz (geometric mean of its edges) of an overall level, in pascal."""
    n = round(FS * duration_s)
    high = 0.5 * (width_hz + math.sqrt(width_hz**2 + 4e6))
    frequency = torch.fft.rfftfreq(n, 1 / FS, dtype=torch.float64)
    inside = (frequency >= high - width_hz) & (frequency <= high)
    phase = 2 * torch.pi * torch.rand(len(frequency), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = torch.fft.irfft(torch.polar(inside.double(), phase), n)
    return 20e-6 * 10 ** (level_db / 20) * x / x.square().mean().sqrt()


def summation(ax: Axes, model: Moore2016) -> None:
    """Loudness of noise about 1 kHz against its bandwidth, at constant overall level."""
    widths = (50.0, 100.0, 160.0, 250.0, 400.0, 630.0, 1000.0, 1600.0, 3000.0)
    for level, style in zip((30.0, 50.0, 70.0), ("C2o-", "C0s-", "C1^-"), strict=True):
        with torch.no_grad():
            sone = model(torch.stack([noise_band(w, level) for w in widths])[:, None])[0][:, 300:].mean(-1)
        ax.plot(widths, sone / sone[1], style, ms=3, lw=1.2, label=f"{level:g} dB SPL")
        note("summation", f"{level:g} dB SPL", widths, sone)
    ax.axvline(160, color="0.6", lw=0.8)
    ax.annotate("critical band", (160, 2.2), (4, 0), textcoords="offset points", fontsize=7, color="0.4")
    ax.set(
        xscale="log",
        xlabel="Bandwidth (Hz)",
        ylabel="Loudness re 100 Hz wide",
        title="Spectral loudness summation, 1 kHz",
    )
    ax.legend(fontsize=7, loc="upper left")


def integration(ax: Axes, model: Moore2016) -> None:
    """Peak loudness of a 1-kHz tone of 60 dB SPL against its duration."""
    durations = (5, 10, 20, 50, 100, 200, 500, 1000)
    peaks = []
    for ms in durations:
        sound = torch.zeros(1, 1, round(FS * (ms / 1000 + 0.1)), dtype=torch.float64)
        tone = tones(torch.tensor([1000.0]), torch.tensor([60.0]), ms / 1000)
        sound[..., : tone.shape[-1]] = tone
        with torch.no_grad():
            short, _, longest = model(sound)
        peaks.append((float(short.max()), float(longest)))
    for i, (name, style) in enumerate((("short-term loudness", "C0o-"), ("long-term loudness", "C1s-"))):
        values = [peak[i] / peaks[-1][i] for peak in peaks]
        ax.plot(durations, values, style, ms=3, lw=1.2, label=f"maximum of the {name}")
        note("integration", name, durations, [peak[i] for peak in peaks])
    ax.set(
        xscale="log",
        xlabel="Duration (ms)",
        ylabel="Loudness re 1 s",
        title="Temporal integration, 1 kHz, 60 dB SPL",
        ylim=(0, 1.05),
    )
    ax.legend(fontsize=7, loc="lower right")


def ears(ax: Axes, model: Moore2016) -> None:
    """Loudness of both ears over that of one, and the level difference between equally loud sounds."""
    level = torch.arange(10.0, 101.0, 10.0, dtype=torch.float64)
    both = tones(torch.full_like(level, 1000.0), level, 0.25)
    with torch.no_grad():
        one = model(torch.cat([both, torch.zeros_like(both)], dim=1))[0][:, STEADY]
        ratio = model(both)[0][:, STEADY] / one
    match = levels_at(model, torch.full_like(level, 1000.0), one.double())
    ax.plot(level, ratio, "C0o-", ms=3, lw=1.2, label="loudness of both ears over one")
    ax.axhline(1.5, color="0.2", ls="--", lw=1.1, label="1.5 (Moore and Glasberg, 2007)")
    ax.set(ylim=(1, 2), xlabel="Level of 1 kHz (dB SPL)", ylabel="Ratio", title="Two ears and one")
    twin = ax.twinx()
    twin.plot(level, level - match, "C1s-", ms=3, lw=1.2)
    twin.set_ylabel("Level difference for equal loudness (dB)", color="C1")
    twin.set_ylim(0, 10)
    ax.plot([], [], "C1s-", ms=3, lw=1.2, label="level difference")
    ax.legend(fontsize=7, loc="lower right")
    note("ears", "ratio", level, ratio)
    note("ears", "level difference", level, level - match)
    print(f"both ears over one: {float(ratio.min()):.3f} to {float(ratio.max()):.3f}")


def scaling(ax: Axes) -> None:
    """Judgements of 1 kHz on the categorical scale: normal hearing, and standard audiograms."""
    level = np.arange(0.0, 116.0, 5.0)
    for hearing, style in zip(HEARING, ("C0o-", "C1s-", "C3^-"), strict=True):
        observer = LoudnessObserver(LoudnessObserver.Settings(), listener(hearing))
        observer.calibrate()
        found = scale_loudness(observer, lambda db: tones(torch.full_like(db, 1000.0), db, 0.5)[:, 0], level)
        label = f"{hearing} hearing" if hearing == "normal" else f"audiogram {hearing}"
        ax.plot(level, found.categorical_units, style, ms=3, lw=1.2, label=label)
        note("scaling", hearing, level, found.categorical_units)
    marks = [(5 * k, text) for k, text in enumerate(CATEGORIES) if not text.startswith("between")]
    ax.set_yticks([unit for unit, _ in marks], [f"{text}  {unit}" for unit, text in marks], fontsize=7)
    ax.set(xlabel="Level of 1 kHz (dB SPL)", ylabel="Judgement (CU)", title="Categorical scaling")
    ax.legend(fontsize=7, loc="upper left")


def main(folder: Path) -> None:
    """Draw the panels."""
    model = listener("normal")
    figure, axes = plt.subplots(2, 4, figsize=(19.0, 8.6), layout="constrained")
    contours(axes[0, 0], model)
    growth(axes[0, 1])
    thresholds(axes[0, 2])
    scaling(axes[0, 3])
    summation(axes[1, 0], model)
    integration(axes[1, 1], model)
    ears(axes[1, 2], model)
    axes[1, 3].set_axis_off()
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        if ax.get_xscale() == "log":
            ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    figure.savefig(folder / "loudness.png", dpi=110)
    pd.DataFrame(POINTS).to_csv(folder / "loudness.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
