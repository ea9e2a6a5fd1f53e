"""The commands ``psysim suite`` and ``psysim compare``: many experiments, and runs against human data."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from psysim.cli import tables
from psysim.cli.running import Bar, duration, interrupt_kept
from psysim.errors import SpecError, check_option, check_range

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from psysim.evaluation.suite import Suite
    from psysim.experiments import Progress

__all__ = ["compare", "fit", "suite"]

SHOWN = ("experiment", "observer", "label", "n_points", "unit", "rmse", "bias", "pearson_r", "variance_explained")
VALUES = ("rmse", "bias", "pearson_r", "variance_explained", "rmse_over_spread")


def suite(
    files: list[Path],
    out: Path,
    profile: str | None,
    overrides: list[str],
    device: str | None,
    resume: bool,
    reports: bool,
    plan: bool,
) -> None:
    """Run the experiments, write the reports and the scoreboard, and say where they are and how long it took."""
    from psysim.evaluation.suite import load_suite, run_suite
    from psysim.reports.report import report
    from psysim.reports.scoreboard import scoreboard_report

    loaded = load_suite(files, profile=profile, overrides=overrides)
    if plan:
        _show_plan(loaded)
        return
    began = time.monotonic()
    bar = Bar(loaded.title)
    try:
        with bar, interrupt_kept() as interrupted:

            def update(name: str, progress: Progress) -> None:
                if interrupted:
                    raise KeyboardInterrupt
                bar.update(progress, name)

            done = run_suite(loaded, out, device=device, resume=resume, progress=update)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. Every finished trial is kept: continue with --resume (folder: {out}).", err=True)
        raise typer.Exit(130) from None
    runs = done.load()
    if runs:
        pages = {}
        for name, ds in runs.items() if reports else ():
            pages[name] = f"reports/{report(ds, out / 'reports' / f'{name}.html').name}"
        page = scoreboard_report(
            runs,
            out / "scoreboard.html",
            title=loaded.title,
            reports={name: f"reports/{Path(address).name}" for name, address in pages.items()},
            failures=done.failures,
            overwrite=True,
        )
        _show_times(done.seconds, runs)
        typer.echo(f"Scoreboard: {page}", err=not sys.stdout.isatty())
    total = time.monotonic() - began
    typer.echo(f"Total time: {duration(total)} ({total:.0f} s), reports included.", err=not sys.stdout.isatty())
    for name, message in done.failures.items():
        typer.echo(f"Error: {name}: {message}", err=True)
    if done.failures:
        raise typer.Exit(3)


def _show_plan(loaded: Suite) -> None:
    rows = [
        {
            "experiment": name,
            "conditions": str(len(spec.conditions)),
            "observers": ", ".join(o.name for o in spec.observers),
            "tracks": str(spec.n_lanes),
            "human data": ", ".join(spec.human) or "-",
        }
        for name, spec in loaded.experiments.items()
    ]
    tables.show(rows)


def _show_times(seconds: dict[str, float], runs: dict[str, xr.Dataset]) -> None:
    tables.show(
        [
            {
                "experiment": name,
                "seconds": f"{seconds[name]:.1f}",
                "tracks": str(ds["status"].size),
                "converged": str(int((ds["status"].values == 1).sum())),
                "trials": str(int(ds["n_trials"].sum())),
            }
            for name, ds in runs.items()
        ]
    )


def fit(
    files: list[Path],
    observer: str,
    parameter: str,
    values: tuple[float, float, int],
    profile: str | None,
    overrides: list[str],
    tokens: int,
    device: str | None,
    csv: Path | None,
) -> None:
    """Fit one parameter, print what it gives in experiments left out, and the lines for an experiment file."""
    import numpy as np

    from psysim.evaluation.suite import load_suite
    from psysim.evaluation.suite_fit import fit_observer

    low, high, steps = values
    check_range("--low", low, 0.0, low_open=True)
    check_range("--high", high, low, low_open=True)
    check_range("--steps", steps, 2, 1000)
    tried = np.geomspace(low, high, steps).tolist()
    loaded = load_suite(files, profile=profile, overrides=overrides)
    found = fit_observer(loaded, observer, parameter, tried, n_tokens=tokens, device=device)
    tables.show(tables.frame_rows(found.held_out))
    for name, why in found.left_out.items():
        typer.echo(f"Left out: {name}: {why}.", err=True)
    if found.value in (tried[0], tried[-1]):
        typer.echo("The best value is the lowest or highest that was tried: widen the range.", err=True)
    names = ", ".join(f'"{name}"' for name in found.fitted_to)
    typer.echo(f"\n{parameter} = {found.value:.6g}\nfitted_to = [{names}]")
    if csv is not None:
        _write(found.errors, csv)


def compare(results: list[Path], data: list[str], table: bool, value: str, csv: Path | None) -> None:
    """Print runs against human data: a row per observer and data set, or the matrix of observers and experiments."""
    from psysim.evaluation.compare import compare as evaluate
    from psysim.evaluation.scoreboard import scoreboard, scoreboard_matrix
    from psysim.experiments.recording import open_result
    from psysim.results import store

    check_option("--value", value, VALUES)
    for result in results:
        if store.state_of(result) == "absent":
            raise SpecError(f"{result}: there is no such result. 'psysim run FILE' makes one in the folder runs/.")
    names = [result.name.removesuffix(".zarr").removesuffix(".nc") for result in results]
    if len(set(names)) < len(names):
        names = [str(result) for result in results]
    runs = {name: open_result(result) for name, result in zip(names, results, strict=True)}
    if data and table:
        raise SpecError("--data and --table exclude each other: the table compares with what the experiments name.")
    if data:
        import pandas as pd

        parts = []
        for name, ds in runs.items():
            part = evaluate(ds, data)
            part.insert(0, "experiment", name)
            parts.append(part)
        found = pd.concat(parts, ignore_index=True)
        shown = found[[c for c in SHOWN if c in found] + ["human_spread", "note"]]
    else:
        found = scoreboard(runs)
        shown = found[[*SHOWN, "human_spread", "rmse_over_spread", "note"]]
        if table:
            found = shown = _matrix(scoreboard_matrix(found, value), names=len(runs) > 1)
    tables.show(tables.frame_rows(shown))
    if csv is not None:
        _write(found, csv)


def _matrix(matrix: pd.DataFrame, names: bool) -> pd.DataFrame:
    """Return the matrix with text for columns: experiment and data, or the data alone."""
    flat = matrix.copy()
    flat.columns = [f"{key[0]}: {key[1]}" if names else key[1] for key in matrix.columns.to_list()]
    return flat.rename_axis("observer").reset_index()


def _write(frame: pd.DataFrame, path: Path) -> None:
    check_option("--csv suffix", path.suffix, (".csv",))
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            frame.to_csv(file, index=False, lineterminator="\n")
    except FileExistsError:
        raise SpecError(f"--csv {path} is there already: choose another name.") from None
    except OSError as error:
        raise SpecError(f"--csv {path} cannot be written: {error.strerror}.") from None
    typer.echo(f"Written: {path}", err=True)
