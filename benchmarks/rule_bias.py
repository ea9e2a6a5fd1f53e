"""Bias, spread and cost of every tracking rule on a listener whose psychometric function is known.

    python benchmarks/rule_bias.py [--tracks 10000] [--only pest asa] [--json PATH] [--write PAGE.md]

Every registered rule is run with the settings in `CASES` on simulated tracks; a rule without settings there is named
at the end and makes the exit status 1. Two listeners, both logistic with the threshold at -14 dB and a slope of 0.1
per dB there: one in a 3-interval task (guess rate 1/3), one who says "heard" or "not heard" (guess rate 0) for the
rules that are not meant for forced choice.

Bias is the mean threshold of the tracks that have one minus the level of the rule's target proportion; the standard
error of the bias is SD over the root of their number. The efficiency compares the variance with the smallest that an
unbiased rule could have with as many trials all at the target level, ``p (1 - p) / (n slope**2)`` (the ideal "sweat
factor" of Taylor and Creelman, 1967, over that of the rule). A biased rule can seem more efficient than it is.

``--write`` puts the table between the lines ``<!-- rule_bias -->`` and ``<!-- /rule_bias -->`` of a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measure import write_json

from psysim.procedures import AFC, BayesRule, PsychometricFunction, TrackSummary, registry
from psysim.testing import run_tracks

FORCED_CHOICE = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
YES_NO = PsychometricFunction(threshold=-14.0, slope=0.1)
LEVELS: dict[str, Any] = {"level_start": -4.0, "level_min": -60.0, "level_max": 20.0}
GRID: dict[str, Any] = {
    "level_min": -40.0,
    "level_max": 10.0,
    "level_step": 2.0,
    "guess_rate": 1 / 3,
    "lapse_rate": 0.0,
    "threshold": {"min": -50.0, "max": 20.0, "n": 141},
    "level_start": -4.0,
}
"""For the Bayesian rules, which are told the listener's guess rate and that there are no lapses."""
SLOPE = 0.1 * 4 / (1 - 1 / 3)
"""Slope of the argument of the logistic that rises by 0.1 per dB."""
SLOPES: dict[str, Any] = {"min": 0.1, "max": 2.4, "n": 7, "spacing": "log"}
LAPSES: dict[str, Any] = {"lapse_rate": [0.0, 0.03, 0.06], "threshold": {"min": -50.0, "max": 20.0, "n": 71}}
QUEST: dict[str, Any] = GRID | {
    "threshold_prior_mean": -10.0,
    "threshold_prior_sd": 20.0,
    "n_trials": 60,
    "target_proportion": 0.75,
}
STAIRCASE: dict[str, Any] = LEVELS | {"steps": [4.0, 2.0, 1.0], "n_reversals": 8, "max_trials": 500}


@dataclass(frozen=True)
class Case:
    """One row of the table: a rule, what the table says of its settings, the settings, and the listener."""

    kind: str
    label: str
    settings: Mapping[str, Any]
    listener: PsychometricFunction = field(default=FORCED_CHOICE)


CASES = [
    Case("up_down", "2-down 1-up, steps 4, 2, 1 dB, 8 reversals", STAIRCASE | {"n_down": 2}),
    Case("up_down", "3-down 1-up, the same", STAIRCASE | {"n_down": 3}),
    Case("up_down", "4-down 1-up, the same", STAIRCASE | {"n_down": 4}),
    Case("weighted_up_down", "75 %, steps 4, 2, 1 dB, 8 reversals", STAIRCASE | {"target_proportion": 0.75}),
    Case(
        "weighted_up_down", "75 %, steps 2, 0.5 dB, 16 reversals", STAIRCASE | {"steps": [2.0, 0.5], "n_reversals": 16}
    ),
    Case("transformed_weighted_up_down", "75 %, 2-down, steps 4, 2, 1 dB, 8 reversals", STAIRCASE | {"n_down": 2}),
    Case(
        "transformed_weighted_up_down",
        "85 %, 3-down, the same",
        STAIRCASE | {"n_down": 3, "target_proportion": 0.85},
    ),
    Case("pest", "75 %, W = 1, steps 8 to 1 dB", LEVELS | {"step_start": 8.0, "step_min": 1.0}),
    Case("pest", "75 %, W = 1, steps 8 to 0.5 dB", LEVELS | {"step_start": 8.0, "step_min": 0.5}),
    Case(
        "pest", "75 %, W = 1.5, steps 8 to 1 dB", LEVELS | {"step_start": 8.0, "step_min": 1.0, "deviation_limit": 1.5}
    ),
    Case("asa", "75 %, gain 8 dB, 60 trials", LEVELS | {"gain": 8.0, "n_trials": 60}),
    Case("asa", "75 %, gain 16 dB, 60 trials", LEVELS | {"gain": 16.0, "n_trials": 60}),
    Case("asa", "75 %, gain 16 dB, 120 trials", LEVELS | {"gain": 16.0, "n_trials": 120}),
    Case(
        "asa",
        "75 %, Robbins and Monro, gain 20 dB, 60 trials",
        LEVELS | {"gain": 20.0, "n_trials": 60, "method": "robbins_monro"},
    ),
    Case("bekesy", "1 dB per trial, 10 of 12 reversals", LEVELS | {"rate": 1.0}, YES_NO),
    Case(
        "bekesy", "the same, 4 dB per trial until the first reversal", LEVELS | {"rate": 1.0, "rate_start": 4.0}, YES_NO
    ),
    Case(
        "method_of_limits",
        "6 series of 2-dB steps",
        LEVELS | {"level_start_hard": -24.0, "step": 2.0, "n_series": 6, "start_jitter": 3},
        YES_NO,
    ),
    Case(
        "adjustment",
        "6 settings of 4 reversals, steps 4, 2, 1 dB, starts 5 to 15 dB above",
        LEVELS | {"steps": [4.0, 2.0, 1.0], "setting_range": 10.0},
        YES_NO,
    ),
    Case(
        "adjustment",
        "the same, starts within 10 dB around",
        LEVELS | {"steps": [4.0, 2.0, 1.0], "level_start": -14.0, "level_start_range": 20.0, "setting_range": 20.0},
        YES_NO,
    ),
    Case(
        "constant_stimuli",
        "7 levels, 15 trials each, logistic fit, 75 %",
        {
            "levels": [-23.0, -20.0, -17.0, -14.0, -11.0, -8.0, -5.0],
            "n_per_level": 15,
            "guess_rate": 1 / 3,
            "target_proportion": 0.75,
        },
    ),
    Case(
        "constant_stimuli",
        "9 levels, 12 trials each, Spearman-Karber",
        {
            "levels": [-26.0, -23.0, -20.0, -17.0, -14.0, -11.0, -8.0, -5.0, -2.0],
            "n_per_level": 12,
            "threshold_from": "spearman_karber",
        },
        YES_NO,
    ),
    Case(
        "interleaved",
        "2-down 1-up and 3-down 1-up, steps 4, 2, 1 dB, 8 reversals each",
        {
            "level_min": -60.0,
            "level_max": 20.0,
            "rules": [
                {"kind": "up_down", "n_down": n, "level_start": -4.0, "steps": [4.0, 2.0, 1.0], "max_trials": 500}
                for n in (2, 3)
            ],
        },
    ),
    Case("quest", "quantile, 75 %, Weibull of beta 3.5 (steeper than the listener), 60 trials", QUEST),
    Case("quest", "quantile, 75 %, Weibull of beta 2, 60 trials", QUEST | {"beta": 2.0}),
    Case("quest", "mean, the same", QUEST | {"beta": 2.0, "placement": "mean"}),
    Case("quest", "mode, the same", QUEST | {"beta": 2.0, "placement": "mode"}),
    Case("mlp", "the listener's slope, sweet point, 60 trials", GRID | {"slope": SLOPE, "n_trials": 60}),
    Case("mlp", "twice the listener's slope, the same", GRID | {"slope": 2 * SLOPE, "n_trials": 60}),
    Case(
        "mlp",
        "the same, 5 false-alarm rates, 0.631",
        GRID | {"slope": 0.4, "guess_rate": [0.0, 0.1, 0.2, 0.3, 0.4], "n_trials": 60, "target_proportion": 0.631},
        YES_NO,
    ),
    Case("quest_plus", "the listener's slope, 60 trials", GRID | {"slope": SLOPE, "n_trials": 60}),
    Case(
        "quest_plus",
        "7 slopes, 3 lapse rates, 75 %, 100 trials",
        GRID | LAPSES | {"slope": SLOPES, "n_trials": 100, "target_proportion": 0.75},
    ),
    Case(
        "psi",
        "7 slopes, logistic, 75 %, 60 trials",
        GRID | {"slope": SLOPES, "shape": "logistic", "n_trials": 60, "target_proportion": 0.75},
    ),
    Case(
        "psi",
        "the same, 120 trials",
        GRID | {"slope": SLOPES, "shape": "logistic", "n_trials": 120, "target_proportion": 0.75},
    ),
    Case(
        "psi_marginal",
        "7 slopes, 3 lapse rates (nuisance), logistic, 75 %, 100 trials",
        GRID
        | LAPSES
        | {
            "slope": SLOPES,
            "shape": "logistic",
            "nuisance": ["lapse_rate"],
            "n_trials": 100,
            "target_proportion": 0.75,
        },
    ),
    Case(
        "uml",
        "7 slopes, 3 lapse rates, four sweet points, 75 %, 100 trials",
        GRID | LAPSES | {"slope": SLOPES, "n_trials": 100, "target_proportion": 0.75},
    ),
]
"""The rows of the table. A new rule needs one at least."""


BAYES_TRACKS = 1000
"""Most tracks of a Bayesian rule: the rows with many candidates take minutes."""


@dataclass(frozen=True)
class Row:
    """What the tracks of one case gave."""

    kind: str
    label: str
    target: float
    bias: float
    sd: float
    trials: float
    share: float
    efficiency: float
    tracks: int


def measure(case: Case, n_tracks: int, seed: int = 1) -> Row:
    """Run the tracks of one case."""
    rule = registry.get(case.kind)(**case.settings)
    summary: TrackSummary = run_tracks(rule, AFC(n_intervals=3), case.listener, n_tracks, seed=seed)
    target = rule.target_proportion
    level = float(case.listener.inverse(target))
    given = np.isfinite(summary.threshold)
    threshold, trials = summary.threshold[given], float(summary.n_trials[given].mean())
    slope = float(case.listener(level + 1e-4) - case.listener(level - 1e-4)) / 2e-4
    sd = float(threshold.std(ddof=1))
    return Row(
        kind=case.kind,
        label=case.label,
        target=target,
        bias=float(threshold.mean()) - level,
        sd=sd,
        trials=trials,
        share=float(given.mean()),
        efficiency=target * (1 - target) / slope**2 / (trials * sd**2),
        tracks=n_tracks,
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def markdown(rows: list[Row]) -> str:
    """Return the table."""
    lines = [
        "| rule | settings | target | bias (dB) | SD (dB) | mean trials | with threshold | efficiency | tracks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{r.kind}` | {r.label} | {r.target:.4g} | {_signed(r.bias)} | {r.sd:.2f} | {r.trials:.1f} "
        f"| {100 * r.share:.1f} % | {r.efficiency:.2f} | {r.tracks} |"
        for r in rows
    ]
    return "\n".join(lines)


def write(path: Path, table: str) -> None:
    """Put the table between its marks in a file."""
    begin, end = "<!-- rule_bias -->", "<!-- /rule_bias -->"
    text = path.read_text()
    head, _, rest = text.partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise SystemExit(f"{path} has no lines {begin} and {end}.")
    path.write_text(f"{head}{begin}\n{table}\n{end}{tail}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bias and spread of the tracking rules.")
    parser.add_argument("--tracks", type=int, default=10_000, help="tracks per row; at most 1000 for Bayesian rules")
    parser.add_argument("--only", nargs="*", default=[], help="names of rules")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--write", type=Path, help="file whose table is replaced")
    arguments = parser.parse_args(argv)
    wanted = arguments.only or registry.names()
    rows = []
    for case in CASES:
        if case.kind in wanted:
            bayesian = issubclass(registry.get(case.kind), BayesRule)
            rows.append(measure(case, min(arguments.tracks, BAYES_TRACKS) if bayesian else arguments.tracks))
            print(markdown(rows[-1:]).splitlines()[2], flush=True)
    if arguments.write is not None:
        write(arguments.write, markdown(rows))
    write_json(arguments.json, rows=[vars(r) for r in rows])
    missing = sorted(set(wanted) - {case.kind for case in CASES})
    if missing:
        print(f"no settings in CASES for: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
