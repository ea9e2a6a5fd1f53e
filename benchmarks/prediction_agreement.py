"""Predicted thresholds beside those of adaptive tracks, and the model evaluations that each took.

    python benchmarks/prediction_agreement.py [--runs reports] [--json FILE] [--write PAGE] NAME[:TOKENS] ...

The tracks are those of the reports (``reports/NAME_files/threshold_table.csv``). What is compared is the mean of the
tracks with the mean that tracks would have on the predicted psychometric function. "expected" is the rms difference
that the standard errors of both would give if the two methods had the same mean. ``--write`` puts the table between
the marks of a page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from measure import write_json

import psysim

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- prediction_agreement -->", "<!-- end -->"
TOKENS = 24
HEADER = (
    "| experiment | thresholds | tracks each | tokens | mean difference (dB) | rms difference (dB) | expected (dB) "
    "| intervals, tracks | intervals, predicted | ratio |\n|---|---|---|---|---|---|---|---|---|---|"
)


def agreement(name: str, tables: Path, n_tokens: int) -> dict[str, float | str]:
    """Return one row: predicted minus measured thresholds of an experiment, and the intervals heard for each."""
    spec = psysim.load(ROOT / "experiments" / f"{name}.toml")
    measured = pd.read_csv(tables / f"{name}_files" / "threshold_table.csv")
    predicted = psysim.predict_threshold(spec, n_tokens=n_tokens)
    table = psysim.thresholds(predicted)[["condition", "observer", "threshold_sem"]]
    table["mean"] = predicted["track_mean"].values.ravel()
    table["evaluations"] = predicted["model_evaluations"].values.ravel()
    both = measured.merge(table, on=["condition", "observer"], suffixes=("", "_predicted"))
    n_intervals = spec.task.make().n_intervals
    heard = float((both["mean_trials"] * both["n_tracks"]).sum() * n_intervals)
    difference = both["mean"] - both["threshold"]
    errors = np.square(both[["threshold_sem", "threshold_sem_predicted"]].fillna(0.0)).sum(axis=1)
    return {
        "experiment": name,
        "thresholds": int(difference.notna().sum()),
        "tracks": int(both["n_tracks"].max()),
        "tokens": n_tokens,
        "bias": float(difference.mean()),
        "rms": float(np.sqrt((difference**2).mean())),
        "expected": float(np.sqrt(errors.mean())),
        "intervals_tracks": heard,
        "intervals_predicted": float(both["evaluations"].sum()),
        "ratio": heard / float(both["evaluations"].sum()),
    }


def line(row: dict[str, float | str]) -> str:
    """Return a row of the table in Markdown."""
    return (
        "| {experiment} | {thresholds} | {tracks} | {tokens} | {bias:+.2f} | {rms:.2f} | {expected:.2f} "
        "| {intervals_tracks:,.0f} | {intervals_predicted:,.0f} | {ratio:.1f} |"
    ).format(**row)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help=f"experiments, each with its number of tokens (default {TOKENS})")
    parser.add_argument("--runs", type=Path, default=ROOT / "reports", help="folder of the reports")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, help="Markdown page with the marks")
    options = parser.parse_args(arguments)
    print(HEADER)
    rows = []
    for text in options.names:
        name, _, tokens = text.partition(":")
        rows.append(agreement(name, options.runs, int(tokens or TOKENS)))
        print(line(rows[-1]), flush=True)
    write_json(options.json, experiments=rows)
    if options.write:
        text = options.write.read_text()
        start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        table = "\n".join([HEADER, *(line(row) for row in rows)])
        options.write.write_text(f"{text[:start]}\n\n{table}\n\n{text[end:]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
