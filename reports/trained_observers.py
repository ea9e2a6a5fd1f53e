"""Draw psychometric functions of the trained networks that come with psysim, on sounds new to them.

    python reports/trained_observers.py [FOLDER]

writes trained_observers.png and trained_observers.csv (every point drawn) into FOLDER (default: reports) and prints the
thresholds. Three minutes on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import psysim as ps
from psysim.experiments.spec import loads
from psysim.procedures import fit_psychometric

TEMPLATE = """
title = "{title}"
[stimulus]
{stimulus}
[conditions]
{conditions}
[task]
{task}
[procedure]
kind = "constant_stimuli"
tracks = "{tracks}"
levels = {levels}
n_per_level = {n}
guess_rate = {guess}
[[observers]]
decision = "network"
network = "{network}"
[run]
n_tracks = 1
seed = 7
fs = 20000
"""
POINTS: list[dict[str, object]] = []


def listen(title: str, n: int = 60, **parts: str) -> tuple[pd.DataFrame, list[float]]:
    """Return proportions correct by condition and level, and the number of trials at each."""
    run = ps.run(loads(TEMPLATE.format(title=title, n=n, **parts)))
    level, correct = run["level"].values[:, 0, 0], run["correct"].values[:, 0, 0]
    names = [name for name in run.coords if run.coords[name].dims == ("condition",) and name != "condition"]
    rows = []
    for c in range(len(level)):
        for x in np.unique(level[c]):
            at = level[c] == x
            case = {str(name): run.coords[name].values[c] for name in names}
            rows.append(case | {"level": x, "proportion": correct[c][at].mean(), "n": int(at.sum())})
    return pd.DataFrame(rows), sorted(set(level.ravel()))


def draw(ax: Axes, data: pd.DataFrame, by: str, label: str, guess: float, shape: str = "logistic") -> None:
    """Draw proportions with fitted functions, one colour for each condition."""
    for i, (value, rows) in enumerate(data.groupby(by, sort=False)):
        x, n = rows["level"].to_numpy(), rows["n"].to_numpy()
        k = (rows["proportion"].to_numpy() * n).round()
        fit = fit_psychometric(x[None], k[None], n[None], shape=shape, guess_rate=guess, lapse_rate=0.02)
        fine = np.linspace(x.min(), x.max(), 200)
        at = float(fit.threshold[0])
        ax.plot(x, k / n, "o", color=f"C{i}", ms=4)
        ax.plot(fine, fit.proportion_correct(fine[None])[0], color=f"C{i}", lw=1.3, label=label.format(value, at))
        print(f"{ax.get_title()}, {by} {value}: halfway between {guess:.3g} and 0.98 at {at:.1f}")
        POINTS.extend(
            {"panel": ax.get_title(), "condition": value, "level": a, "proportion": b, "n": c}
            for a, b, c in zip(x, k / n, n, strict=True)
        )
    ax.axhline(guess, color="0.6", lw=0.8, ls=":")
    ax.set_ylim(0, 1.03)
    ax.set_ylabel("Proportion correct")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)


def main(folder: Path) -> None:
    """Draw the panels."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14.5, 4.4), layout="constrained")
    data, _ = listen(
        "tone",
        stimulus='kind = "tone_in_noise"\nlevel_db_spl = 65.0\nlow_hz = 20.0\nhigh_hz = 5000.0\nduration_s = 0.3\n'
        "signal_hz = 2000.0\nsignal_ramp_s = 0.0025",
        conditions="signal_duration_s = [0.2, 0.02, 0.005]",
        task='kind = "afc"\nn_intervals = 2',
        guess="0.5",
        tracks="signal_level_db_spl",
        levels=str([float(v) for v in range(36, 85, 4)]),
        network="tone_in_noise",
    )
    left.set_title("2-kHz tone in noise of 65 dB SPL, 2-AFC")
    draw(left, data, "signal_duration_s", "{0:g} s: {1:.1f} dB SPL", 0.5)
    left.set_xlabel("Level of the tone (dB SPL)")

    for network, colour in (("f0_3000hz", "C0"), ("f0_50hz", "C1")):
        data, levels = listen(
            "f0",
            stimulus='kind = "tone_complex"\nlevel_db_spl = 60.0\nduration_s = 0.15\nramp_s = 0.01\n'
            'highest_harmonic = 15\nphase = "random"\nf0_hz = 150.0',
            conditions="lowest_harmonic = [1, 10]",
            task='kind = "afc"\nn_intervals = 2',
            guess="0.5",
            tracks="f0_increment_percent",
            levels="[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]",
            network=network,
        )
        for lowest, rows in data.groupby("lowest_harmonic"):
            style = "o-" if lowest == 1 else "s--"
            text = f"{network.removeprefix('f0_').removesuffix('hz')} Hz, harmonics from {lowest}"
            middle.plot(rows["level"], rows["proportion"], style, color=colour, ms=4, lw=1.2, label=text)
            POINTS.extend(
                {"panel": "f0", "condition": text, "level": a, "proportion": b, "n": 60}
                for a, b in zip(rows["level"], rows["proportion"], strict=True)
            )
    middle.set(
        title="Fundamental frequency, 150 Hz, 2-AFC",
        xscale="log",
        xlabel="Increment of the fundamental (%)",
        ylabel="Proportion correct",
        ylim=(0.4, 1.03),
    )
    middle.set_xticks(levels, [f"{v:g}" for v in levels])
    middle.minorticks_off()
    middle.axhline(0.5, color="0.6", lw=0.8, ls=":")
    middle.grid(alpha=0.3)
    middle.legend(fontsize=7, title="Phase locking to nominally", title_fontsize=7)

    data, _ = listen(
        "words",
        n=60,
        stimulus='kind = "speech_in_noise"\nlevel_db_spl = 65.0\nlead_s = 0.1\nlag_s = 0.1\nrate_hz = 4.0\n'
        "sentence_list = 9",
        conditions='masker = ["stationary", "modulated"]',
        task='kind = "identification"\nn_alternatives = 10',
        guess="0.1",
        tracks="snr_db",
        levels=str([float(v) for v in range(-18, 13, 3)]),
        network="matrix_words",
    )
    right.set_title("Words of matrix sentences, list 9")
    draw(right, data, "masker", "{0} noise: {1:.1f} dB", 0.1)
    right.set_xlabel("Signal-to-noise ratio (dB)")
    figure.savefig(folder / "trained_observers.png", dpi=110)
    pd.DataFrame(POINTS).to_csv(folder / "trained_observers.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
