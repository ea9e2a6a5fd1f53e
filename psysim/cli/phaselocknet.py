"""The commands ``psysim phaselocknet``: evaluate a network, convert its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from psysim.errors import check_option

__all__ = ["app"]

app = typer.Typer(help="Networks that hear through a model of the auditory nerve.", no_args_is_help=True)

ModelPath = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Folder with config.json, arch.json and weights, or one .safetensors file."),
]
Weights = Annotated[Path | None, typer.Option(help="Weight file. Default: the one in the folder of the model.")]
Preset = Annotated[str | None, typer.Option(help="keras or port: constants of normalisation. Default: as saved.")]


@app.command()
def evaluate(
    model: ModelPath,
    stimuli: Annotated[
        Path, typer.Argument(metavar="STIMULI", help="Folder of WAV/FLAC files or of HDF5 files, or one such file.")
    ],
    out: Annotated[Path, typer.Option(help="Result: a name ending in .zarr or .nc.")],
    manifest: Annotated[
        Path | None, typer.Option(help="CSV with a column 'file'. Default: manifest.csv in the folder.")
    ] = None,
    level_db_spl: Annotated[float | None, typer.Option(help="Level of every sound file, dB SPL.")] = None,
    full_scale_db_spl: Annotated[float | None, typer.Option(help="Level of an rms of 1 in the files, dB SPL.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sounds at a time.")] = 32,
    repeats: Annotated[int, typer.Option(help="How often each sound is heard, with new spikes.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the spikes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted evaluation.")] = False,
    weights: Weights = None,
    normalisation: Preset = None,
) -> None:
    """Run a network over a set of sounds; store its logits and responses."""
    check_option("--device", device, ("auto", "cpu", "cuda"))
    from psysim.cli.running import interrupt_kept
    from psysim.evaluation.networks import evaluate as run
    from psysim.evaluation.sound_sets import open_sounds
    from psysim.experiments.devices import pick
    from psysim.models.phaselocknet import PhaseLockNet

    sounds = open_sounds(stimuli, manifest, level_db_spl=level_db_spl, full_scale_db_spl=full_scale_db_spl)
    loaded = PhaseLockNet.load(model, weights, normalisation=normalisation)
    try:
        with interrupt_kept() as interrupted:

            def progress(done: int, total: int) -> None:
                if sys.stderr.isatty():
                    typer.echo(f"\r{done}/{total} sounds", nl=done == total, err=True)
                if interrupted:
                    raise KeyboardInterrupt

            dataset = run(
                loaded,
                sounds,
                out,
                batch_size=batch_size,
                repeats=repeats,
                seed=seed,
                device=pick(device),
                resume=resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. Every finished batch is kept: continue with --resume (result: {out}).", err=True)
        raise typer.Exit(130) from None
    for name, correct in dataset.items():
        if str(name).startswith("correct_"):
            typer.echo(f"{str(name).removeprefix('correct_')}: {float(correct.mean()):.3f} correct")
    typer.echo(f"Result: {out}")


@app.command()
def convert(
    model: ModelPath,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A name ending in .safetensors.")],
    weights: Weights = None,
    normalisation: Preset = None,
) -> None:
    """Write a model with its description and label sets as one safetensors file."""
    from psysim.models.phaselocknet import PhaseLockNet

    typer.echo(f"Model: {PhaseLockNet.load(model, weights, normalisation=normalisation).save(out)}")
