"""What the commands print: tables through rich on a terminal, tab-separated when piped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from psysim.experiments import ExperimentSpec
    from psysim.experiments.plan import Plan

__all__ = ["LISTS", "calibrations", "show", "show_doctor", "show_info", "show_plan", "show_thresholds"]

Rows = list[dict[str, str]]

#: Levels at which `psysim calibrate` shows the just-noticeable level difference, in dB SPL.
JND_LEVELS = (20.0, 40.0, 60.0, 80.0, 100.0)


def show(rows: Rows) -> None:
    """Print rows as a table on a terminal, as tab-separated text otherwise."""
    if not rows:
        typer.echo("Nothing to list.", err=True)
        return
    if not sys.stdout.isatty():
        typer.echo("\t".join(rows[0]))
        for row in rows:
            typer.echo("\t".join(row.values()))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)


def _registry_rows(module: str) -> Callable[[], Rows]:
    def rows() -> Rows:
        registry = import_module(module).registry
        return [{"name": name, "what it is": _summary(registry.get(name))} for name in registry.names()]

    return rows


def _summary(item: Any) -> str:
    text = getattr(item, "description", "") or (item.__doc__ or "").strip().splitlines()[0]
    return str(text)


def _experiments() -> Rows:
    import tomllib

    rows = []
    for path in sorted(Path("experiments").glob("*.toml")):
        try:
            title = str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))
        except (OSError, tomllib.TOMLDecodeError) as error:
            title = f"cannot be read: {error}"
        rows.append({"file": str(path), "title": title})
    return rows


def _human() -> Rows:
    from psysim import human

    rows = []
    for name in human.names():
        facts = human.provenance(name)
        rows.append({"name": name, "confidence": str(facts.confidence), "source": str(facts.source)})
    return rows


def _networks() -> Rows:
    import json

    from psysim.evaluation.recipe import load_recipe
    from psysim.models.phaselocknet import read_metadata
    from psysim.observers.network import trained_networks, trained_path

    rows = []
    for name in trained_networks():
        facts = json.loads(read_metadata(trained_path(name))["training"])
        right = ", ".join(f"{head} {share:.2f}" for head, share in facts["test"]["accuracy"].items())
        rows.append({"name": name, "what it says": load_recipe(trained_path(name, ".toml")).title, "correct": right})
    return rows


LISTS: dict[str, Callable[[], Rows]] = {
    "models": _registry_rows("psysim.models"),
    "stimuli": _registry_rows("psysim.stimuli"),
    "procedures": _registry_rows("psysim.procedures"),
    "observers": _registry_rows("psysim.observers"),
    "networks": _networks,
    "experiments": _experiments,
    "human": _human,
}


def frame_rows(frame: pd.DataFrame) -> Rows:
    """Return a table's rows as text: numbers with three decimals, small ones with three digits."""
    return [
        {str(c): _text(v) for c, v in zip(frame.columns, row, strict=True)} for row in frame.itertuples(index=False)
    ]


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 0.1:  # a gap of 2.3 ms is 0.0023 s
        return f"{value:.3g}"
    return f"{value:.3f}".rstrip("0").rstrip(".")


def show_thresholds(dataset: xr.Dataset) -> None:
    """Print the threshold table of a result."""
    from psysim.results.tables import thresholds

    frame = thresholds(dataset)
    unit = dataset["level"].attrs.get("units", "")
    typer.echo(f"Thresholds: {dataset['level'].attrs.get('long_name', 'level')} [{unit}], mean over converged tracks")
    show(frame_rows(frame))


def show_prediction(dataset: xr.Dataset) -> None:
    """Print predicted thresholds, with their standard errors and what adaptive tracks would measure."""
    from psysim.results import STATUS, factors, thresholds

    frame = thresholds(dataset)[[*factors(dataset), "observer", "threshold", "threshold_sem"]]
    frame["status"] = [STATUS[k] for k in dataset["status"].values[:, :, 0].ravel()]
    for name in ("track_mean", "track_sd", "model_evaluations"):
        frame[name] = dataset[name].values.ravel()
    unit = dataset["level"].attrs.get("units", "")
    typer.echo(f"Predicted thresholds: {dataset['level'].attrs.get('long_name', 'level')} [{unit}]")
    show(frame_rows(frame))


def show_info(result: Path) -> None:
    """Print a result's title, size, thresholds and provenance."""
    from psysim.experiments.recording import open_result

    dataset = open_result(result)
    sizes = " x ".join(f"{dataset.sizes[d]} {d}s" for d in ("condition", "observer", "track"))
    state = "complete" if dataset.attrs["complete"] else "not complete: continue with psysim run FILE --resume"
    typer.echo(f"{dataset.attrs['title']}\n{sizes}; {state}\n")
    show_thresholds(dataset)
    facts = json.loads(dataset.attrs["provenance"])
    typer.echo("\nProvenance")
    show(
        [{"what": key, "value": value if isinstance(value, str) else json.dumps(value)} for key, value in facts.items()]
    )


def show_plan(spec: ExperimentSpec, plan: Plan) -> None:
    """Print what would run and what it is expected to cost."""
    size = f"{plan.n_conditions} conditions x {plan.n_observers} observers x {plan.n_tracks} tracks"
    typer.echo(
        f"{spec.title}\n{size} = {spec.n_lanes} tracks\n"
        f"about {plan.trials_per_track:.0f} trials per track (simulated listener), "
        f"{plan.sound_s / 60:.0f} min of sound, on {plan.device}\n"
    )
    show(
        [
            {
                "observer": o.name,
                "lanes per step": str(o.batch),
                "ms per trial": f"{1000 * o.seconds_per_trial:.1f}",
                "expected": f"{o.seconds / 60:.1f} min",
            }
            for o in plan.observers
        ]
    )
    typer.echo(f"\nExpected time: {plan.seconds / 60:.1f} min plus templates. Nothing was run.")


def calibrations(spec: ExperimentSpec) -> Rows:
    """Calibrate the observers of an experiment; return internal noise and JNDs."""
    from psysim.experiments.engine import make_observer
    from psysim.observers import OptimalDetector
    from psysim.observers.calibration import intensity_jnd

    rows = []
    for index, described in enumerate(spec.observers):
        observer = make_observer(spec, index)
        observer.calibrate()
        facts = observer.calibration
        row = {
            "observer": described.name,
            "calibration": str(facts["status"]),
            "internal noise": f"{facts.get('internal_noise_std', float('nan')):.4g}",
        }
        for level in JND_LEVELS:
            jnd = "-"
            if isinstance(observer, OptimalDetector) and observer.internal_noise_std > 0:
                value = intensity_jnd(observer.calibration_model(), observer.internal_noise_std, level, observer.task)
                jnd = f"{value:.3f} dB"
            row[f"JND at {level:.0f} dB SPL"] = jnd
        rows.append(row)
    return rows


def show_doctor() -> int:
    """Print versions and devices and try what psysim needs; return the number of things that do not work."""
    from psysim.cli.doctor import examine

    findings = examine()
    show([{"what": f.what, "found": f.found, "state": "ok" if f.works else "NOT WORKING"} for f in findings])
    return sum(not f.works for f in findings)
