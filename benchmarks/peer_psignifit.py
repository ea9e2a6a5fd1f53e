"""Fits of psychometric functions beside psignifit 4: golden results for the tests, and the time both take.

    python benchmarks/peer_psignifit.py [--venv .venv-psignifit] [--golden] [--json PATH]

makes a virtual environment with psignifit (the folder is ignored by git), in which the peer runs as a program of its
own. psignifit is licensed under the GPL: it is installed and measured as a black box, and psysim neither contains nor
reads it.

With ``--golden`` the peer's estimates and intervals for the data sets below go to
tests/procedures/data/psignifit_4.json, with its version. Without, both fit in turn: psignifit one data set, psysim a
thousand, each with 95 % intervals of threshold and slope. Times are without imports and after one warm-up. psignifit's
default has a free lapse rate and overdispersion; so has psysim's row "free". "fixed" has neither in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "procedures" / "data" / "psignifit_4.json"
PACKAGE = "psignifit>=4.3,<5"
SIGMOIDS = {"logistic": "logistic", "cumulative_gaussian": "norm", "gumbel": "gumbel"}
FIXED = {"lambda": 0.02, "eta": 1e-4}
LEVELS = [-14.0, -11.0, -8.0, -5.0, -2.0, 1.0]

CASES: list[dict[str, Any]] = [
    {"shape": shape, "choices": choices, "rates": rates, "levels": LEVELS, "n_correct": counts, "n_trials": trials}
    for choices, counts, trials in (
        (3, [20, 22, 30, 40, 55, 59], 60),
        (2, [22, 21, 27, 31, 37, 40], 40),
        (4, [25, 31, 40, 75, 92, 97], 100),
        (3, [84, 97, 135, 176, 213, 236], 240),
    )
    for shape, rates in (
        ("logistic", "fixed"),
        ("cumulative_gaussian", "fixed"),
        ("gumbel", "fixed"),
        ("logistic", "free"),
        ("cumulative_gaussian", "free"),
    )
]
"""Data sets of 2-, 3- and 4-alternative tasks (invented), each with several shapes."""


def peer(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit with psignifit (runs inside the peer's environment); return results and times."""
    from importlib.metadata import version

    import numpy as np
    from psignifit import psignifit

    def fit(case: dict[str, Any]) -> Any:
        trials = [case["n_trials"]] * len(case["levels"])
        options: dict[str, Any] = {"fixed_parameters": FIXED} if case["rates"] == "fixed" else {}
        return psignifit(
            np.column_stack([case["levels"], case["n_correct"], trials]).astype(float),
            experiment_type="nAFC",
            experiment_choices=case["choices"],
            sigmoid=SIGMOIDS[case["shape"]],
            **options,
        )

    fit(cases[0])
    results = []
    for case in cases:
        start = time.perf_counter()
        result = fit(case)
        seconds = time.perf_counter() - start
        names = {"threshold": "threshold", "width": "width", "lambda": "lapse_rate", "eta": "overdispersion"}
        row: dict[str, Any] = dict(case) | {"seconds": seconds}
        for name, ours in names.items():
            row[ours] = result.parameter_estimate_MAP[name]
            row[f"{ours}_mean"] = result.parameter_estimate_mean[name]
            row[f"{ours}_interval"] = list(result.confidence_intervals[name]["0.95"])
        results.append(row)
    return {"package": "psignifit", "version": version("psignifit"), "numpy": version("numpy"), "cases": results}


def prepare(folder: Path) -> Path:
    """Make the peer's environment unless it is there; return its Python."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import psignifit"], check=False, capture_output=True).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
    return python


def ask(python: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Run `peer` in its environment."""
    command = [python, Path(__file__).resolve(), "--inside"]
    reply = subprocess.run(command, check=True, input=json.dumps(cases), capture_output=True, text=True)
    return json.loads(reply.stdout.splitlines()[-1])


def ours(case: dict[str, Any], n: int) -> float:
    """Return the seconds for ``n`` fits of data simulated from the case, with intervals of threshold and slope."""
    import numpy as np

    from psysim.procedures import fit_psychometric

    fixed = case["rates"] == "fixed"
    guess, trials = 1.0 / case["choices"], case["n_trials"]
    rates: dict[str, Any] = {"lapse_rate": 0.02} if fixed else {"lapse_rate": "free", "overdispersion": "free"}
    if not fixed:
        rates["prior"] = "weak"  # psignifit has priors, too
    shares = np.asarray(case["n_correct"]) / trials
    counts = np.random.default_rng(7).binomial(trials, shares, (n, len(shares)))
    start = time.perf_counter()
    fits = fit_psychometric(case["levels"], counts, trials, guess_rate=guess, shape=case["shape"], **rates)
    fits.interval("threshold")
    fits.interval("slope")
    return time.perf_counter() - start


def benchmark(python: Path, path: Path, n: int, repeats: int) -> None:
    """Time both in turn, print and write the result."""
    from measure import write_json

    rows = []
    print(f"{'shape':<22}{'rates':<8}{'psignifit, 1 fit (s)':>22}{f'psysim, {n} fits (s)':>24}{'per fit':>10}")
    for case in [case for case in CASES if case["choices"] == 3 and case["n_trials"] == 60]:
        ours(case, n)
        peers, own = [], []
        for _ in range(repeats):
            answer = ask(python, [case])
            peers.append(answer["cases"][0]["seconds"])
            own.append(ours(case, n))
        row = {"shape": case["shape"], "rates": case["rates"], "n_fits": n, "repeats": repeats}
        row |= {"psignifit_one_fit_s": statistics.median(peers), "psysim_all_fits_s": statistics.median(own)}
        row["speed_up_per_fit"] = n * row["psignifit_one_fit_s"] / row["psysim_all_fits_s"]
        row |= {"psignifit_version": answer["version"], "psignifit_numpy": answer["numpy"]}
        rows.append(row)
        times = f"{row['psignifit_one_fit_s']:22.3f}{row['psysim_all_fits_s']:24.3f}"
        print(f"{row['shape']:<22}{row['rates']:<8}{times}{row['speed_up_per_fit']:10.0f}", flush=True)
    write_json(path, ("scipy",), rows=rows)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-psignifit", help="folder of the peer's environment")
    parser.add_argument("--golden", action="store_true", help="write the golden results of the tests and stop")
    parser.add_argument("--fits", type=int, default=1000, help="data sets for psysim")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "peer_psignifit.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        print(json.dumps(peer(json.load(sys.stdin))))
        return 0
    python = prepare(options.venv)
    if options.golden:
        answer = ask(python, CASES)
        for case in answer["cases"]:
            del case["seconds"]
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
        print(f"{len(CASES)} results of psignifit {answer['version']} in {GOLDEN.relative_to(ROOT)}")
        return 0
    benchmark(python, options.json, options.fits, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
