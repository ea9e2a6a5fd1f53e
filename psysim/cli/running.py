"""The run command's terminal side: where the result goes, the plan, the progress bar, the summary."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from psysim.cli import tables

if TYPE_CHECKING:
    from psysim.experiments import ExperimentSpec, Progress

__all__ = ["Bar", "duration", "interrupt_kept", "predict", "print_plan", "result_path", "run"]


def result_path(file: Path, out: Path | None) -> Path:
    """Return where the result goes: --out itself if it ends in .zarr, else a folder for <experiment>.zarr."""
    if out is not None and out.suffix == ".zarr":
        return out
    return (out or Path("runs")) / f"{file.stem}.zarr"


def print_plan(spec: ExperimentSpec, device: str | None) -> None:
    """Print conditions, observers, tracks and the expected cost."""
    from psysim.experiments.plan import plan

    tables.show_plan(spec, plan(spec, device))


def run(spec: ExperimentSpec, out: Path, device: str | None, resume: bool) -> None:
    """Run and say where the result is; Ctrl-C says how to continue."""
    from psysim.errors import NumericsError
    from psysim.experiments.engine import run as execute
    from psysim.results import store

    if resume and store.state_of(out) == "complete":
        typer.echo(f"{out} is complete already.", err=True)
    bar = Bar(spec.title)
    try:
        with bar, interrupt_kept() as interrupted:

            def update(progress: Progress) -> None:
                if interrupted:
                    raise KeyboardInterrupt
                bar.update(progress)

            dataset = execute(spec, out, device=device, resume=resume, progress=update)
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. Every finished trial is kept: continue with --resume (result: {out}).", err=True)
        raise typer.Exit(130) from None
    tables.show_thresholds(dataset)
    typer.echo(f"Result: {out}\nReport: psysim report {out}", err=not sys.stdout.isatty())
    failed = int((dataset["status"] == 5).sum())
    if failed:
        raise NumericsError(
            f"{failed} tracks ended because the observer's output was not finite (status invalid_output). "
            "Check the stimulus levels and the model options."
        )


@contextmanager
def interrupt_kept() -> Iterator[list[int]]:
    """Yield a list that every Ctrl-C lengthens: the exception alone is lost where compiled code calls Python."""
    seen: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def predict(spec: ExperimentSpec, out: Path | None, n_tokens: int, device: str | None) -> None:
    """Predict, print the thresholds beside what tracks would measure, and store the result if asked to."""
    from psysim.errors import SpecError, StoreError
    from psysim.experiments.prediction import predict_threshold
    from psysim.results import store

    if out is not None and out.suffix != ".zarr":
        raise SpecError(f"--out {out}: give a name ending in .zarr.")
    if out is not None and store.state_of(out) != "absent":
        raise StoreError(f"{out} is there already. Choose another --out.")
    dataset = predict_threshold(spec, n_tokens=n_tokens, device=device)
    tables.show_prediction(dataset)
    if out is not None:
        store.save(dataset, out)
        typer.echo(f"Result: {out}\nReport: psysim report {out}", err=not sys.stdout.isatty())


class Bar:
    """A progress bar on a terminal; nothing when the output goes into a file."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} tracks"),
            TextColumn("{task.fields[speed]}"),
            console=console,
            disable=not console.is_terminal,
            transient=False,
        )
        self._task = self._bar.add_task(title[:40], total=1, speed="preparing")

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: Progress, title: str | None = None) -> None:
        """Show how far the run is, under another title if there is one."""
        rate = progress.trials_new / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
        per_track = progress.trials_done / max(progress.tracks_done, 1)
        left = progress.tracks_total * per_track - progress.trials_done
        known = progress.tracks_done > 0 and rate > 0
        speed = f"{rate:.0f} trials/s" + (f", {duration(left / rate)} left" if known else "")
        if title is not None:
            self._bar.update(self._task, description=title[:40])
        self._bar.update(
            self._task,
            completed=progress.tracks_done,
            total=progress.tracks_total,
            speed=f"{speed} ({progress.observer})",
        )


def duration(seconds: float) -> str:
    """Return a time in words."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
