"""The command ``psysim train``: a network that listens to psysim's own sounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from psysim.evaluation.descent import DescentProgress

__all__ = ["train"]


def train(recipe: str, out: Path, device: str, resume: bool) -> None:
    """Train, show how it goes, and say what came out."""
    from psysim.cli.running import interrupt_kept
    from psysim.evaluation.recipe import load_recipe
    from psysim.evaluation.training import train as run
    from psysim.experiments.devices import pick
    from psysim.models.phaselocknet import read_metadata
    from psysim.observers.network import trained_networks, trained_path

    shipped = not Path(recipe).exists() and recipe in trained_networks()
    loaded = load_recipe(trained_path(recipe, ".toml") if shipped else recipe)
    every = loaded.training.validate_every
    try:
        with interrupt_kept() as interrupted:

            def progress(now: DescentProgress) -> None:
                if now.step % every == 0 or now.step == now.n_steps:
                    shares = {k: v for k, v in now.validation.items() if k.startswith("accuracy_")}
                    right = ", ".join(f"{name.removeprefix('accuracy_')} {v:.3f}" for name, v in shares.items())
                    line = f"step {now.step}: validation loss {now.validation['loss']:.4f}, correct: {right}"
                    typer.echo(line, err=not sys.stdout.isatty())
                if interrupted:
                    raise KeyboardInterrupt

            run(loaded, out, device=pick(device), resume=resume, progress=progress)
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. All up to the last validation is kept: continue with --resume (folder: {out}).",
            err=True,
        )
        raise typer.Exit(130) from None
    import json

    facts = json.loads(read_metadata(out / "model.safetensors")["training"])
    for name, share in facts["test"]["accuracy"].items():
        typer.echo(f"{name}: {share:.3f} correct of {facts['n_test']} test sounds")
    typer.echo(f"Network: {out / 'model.safetensors'} (weights of step {facts['best_step']})")
