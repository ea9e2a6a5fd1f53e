"""The psysim command: run, predict, design, report, compare, suite, check, list, info, export, human, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from psysim.cli import phaselocknet, tables
from psysim.errors import PsysimError, SpecError, check_option

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Turns psysim's exceptions into one message and an exit code; a traceback only for defects of psysim."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PsysimError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted.", 130)
        except BrokenPipeError:
            raise typer.Exit(0) from None


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=_Group,
    help="Run psychophysics experiments on auditory models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
human_app = typer.Typer(cls=_Group, help="Published human data, and your own.", no_args_is_help=True)
app.add_typer(human_app, name="human")
app.add_typer(phaselocknet.app, name="phaselocknet")

File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML file of an experiment.")]
Result = Annotated[Path, typer.Argument(metavar="RESULT", help="A result: .zarr folder or .nc file.")]
Profile = Annotated[str | None, typer.Option(help="Apply one of the file's [profiles.NAME] tables.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. run.n_tracks=4.")
]


@app.command()
def run(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Result folder, or its .zarr name. Default: runs/.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    tracks: Annotated[int | None, typer.Option(help="Tracks per condition and observer.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    profile: Profile = None,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run and its cost; run nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as --plan.")] = False,
) -> None:
    """Run an experiment and store its result."""
    from psysim.cli import running

    spec = _load(file, profile, overrides, seed, tracks)
    if device:
        check_option("--device", device, ("auto", "cpu", "cuda"))
    if plan or dry_run:
        running.print_plan(spec, device or None)
        return
    running.run(spec, running.result_path(file, out), device or None, resume)


@app.command()
def predict(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Result, a name ending in .zarr. Default: none is stored.")] = None,
    tokens: Annotated[int, typer.Option(help="Sound tokens per condition, where sounds are random.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "",
    profile: Profile = None,
    overrides: Overrides = None,
) -> None:
    """Predict an experiment's thresholds from decision variables, without running tracks."""
    from psysim.cli import running

    if device:
        check_option("--device", device, ("auto", "cpu", "cuda"))
    running.predict(_load(file, profile, overrides), out, tokens, device or None)


@app.command()
def design(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="TOML file of an experiment: its rule, task and unit.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE", help='A tracking rule, e.g. "up_down: n_down=3 steps=[4,2,1]"; repeat it to compare rules.'
        ),
    ] = None,
    shared: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all rules that have it, e.g. level_max=0."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The listener's threshold: level in the middle of its psychometric function.")
    ] = None,
    slope: Annotated[
        float | None,
        typer.Option(
            help="Rise of the proportion correct at the threshold, per unit of the level; below 0 if it falls."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="2afc, 3afc, ... or yes_no: the guess rate. Default: 3afc.")] = None,
    guess_rate: Annotated[float | None, typer.Option(help="Guess rate, in place of the task's.")] = None,
    lapse_rate: Annotated[float, typer.Option(help="1 minus the proportion correct at very easy levels.")] = 0.0,
    shape: Annotated[
        str, typer.Option(help="logistic, cumulative_gaussian, gumbel, weibull, ... of the psychometric function.")
    ] = "logistic",
    tracks: Annotated[
        int | None, typer.Option(help="Simulated tracks per rule. Default: 10000; 1000 for Bayesian rules.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the answers.")] = 0,
    unit: Annotated[str | None, typer.Option(help="Unit of the level, for table and figure, e.g. dB.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Figure to write: a name ending in .png, .svg or .pdf.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for all numbers.")] = None,
    profile: Profile = None,
) -> None:
    """Say what tracking rules make of a known listener: bias, spread and length of simulated tracks.

    psysim design --rule "up_down: n_down=3 steps=[4,2,1]" --threshold -20 --slope 0.05 --task 3afc
    """
    from psysim.cli import design as designing

    listener = {
        "threshold": threshold,
        "slope": slope,
        "guess_rate": guess_rate,
        "lapse_rate": lapse_rate,
        "shape": shape,
    }
    designing.design(file, profile, rule or [], shared or [], listener, task, tracks, seed, unit, figure, json_file)


@app.command()
def report(
    result: Result,
    out: Annotated[Path | None, typer.Option(help="HTML file. Default: beside the result.")] = None,
    human: Annotated[list[str] | None, typer.Option(help="Human data set to compare with; repeatable.")] = None,
) -> None:
    """Render a result as an HTML page with figures and tables."""
    from psysim.experiments.recording import open_result
    from psysim.reports.report import report as render

    page = render(open_result(_existing(result)), out or result.with_suffix(".html"), human=human or None)
    typer.echo(f"Report: {page}")


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Results: .zarr folders or .nc files.")],
    data: Annotated[
        list[str] | None, typer.Option(help="Human data set, in place of those that the experiments name; repeatable.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="The matrix of observers and experiments.")] = False,
    value: Annotated[
        str, typer.Option(help="What it holds: rmse, bias, pearson_r, variance_explained or rmse_over_spread.")
    ] = "rmse",
    csv: Annotated[Path | None, typer.Option(help="CSV file for all columns.")] = None,
) -> None:
    """Compare results with human data, and with published model predictions where there are any."""
    from psysim.cli import suite as many

    many.compare(results, data or [], table, value, csv)


@app.command()
def suite(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A suite file, or experiment files.")],
    out: Annotated[Path, typer.Option(help="Folder of results, reports and scoreboard.")] = Path("runs/suite"),
    profile: Annotated[str | None, typer.Option(help="Profile of every experiment, for instance quick.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting in every experiment.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted suite.")] = False,
    reports: Annotated[bool, typer.Option(help="Write the report of every experiment.")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would run; run nothing.")] = False,
) -> None:
    """Run many experiments and write one scoreboard: which observer explains which human data."""
    if device:
        check_option("--device", device, ("auto", "cpu", "cuda"))
    from psysim.cli import suite as many

    many.suite(files, out, profile, overrides or [], device or None, resume, reports, plan)


@app.command("fit-observer")
def fit_observer(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A suite file, or experiment files.")],
    observer: Annotated[str, typer.Option(help="Name of the observer.")],
    parameter: Annotated[str, typer.Option(help="Setting of its decision, e.g. internal_noise_std.")],
    low: Annotated[float, typer.Option(help="Lowest value to try, above 0.")],
    high: Annotated[float, typer.Option(help="Highest value to try.")],
    steps: Annotated[int, typer.Option(help="Number of values, equal ratios apart.")] = 9,
    profile: Annotated[str | None, typer.Option(help="Profile of every experiment, for instance quick.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting in every experiment.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Sound tokens per condition, where sounds are random.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "",
    csv: Annotated[Path | None, typer.Option(help="CSV file for the error of every value and experiment.")] = None,
) -> None:
    """Fit one parameter of an observer to human data, with each experiment left out once."""
    if device:
        check_option("--device", device, ("auto", "cpu", "cuda"))
    from psysim.cli import suite as many

    values = (low, high, steps)
    many.fit(files, observer, parameter, values, profile, overrides or [], tokens, device or None, csv)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="TOML file of a training, or the name of a network of psysim's own.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the network, its log and its checkpoint.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
) -> None:
    """Train a network that hears through the auditory nerve; it can then be an observer."""
    check_option("--device", device, ("auto", "cpu", "cuda"))
    from psysim.cli.train import train as run

    run(recipe, out, device, resume)


@app.command()
def check(file: File, profile: Profile = None, overrides: Overrides = None) -> None:
    """Find every mistake of an experiment file; run nothing."""
    spec = _load(file, profile, overrides)
    typer.echo(
        f"{file}: valid. {len(spec.conditions)} conditions x {len(spec.observers)} observers x "
        f"{spec.run.n_tracks} tracks = {spec.n_lanes} tracks."
    )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, stimuli, procedures, observers, networks, experiments, human.")],
) -> None:
    """List what there is."""
    check_option("psysim list", what, tables.LISTS)
    tables.show(tables.LISTS[what]())


@app.command()
def info(result: Result) -> None:
    """Print what a result holds: thresholds, status, provenance."""
    tables.show_info(_existing(result))


@app.command()
def export(
    result: Result,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A name ending in .nc (NetCDF) or .csv (two tables).")],
) -> None:
    """Write a result as one NetCDF file, or as CSV tables of thresholds and trials."""
    from psysim.experiments.recording import open_result
    from psysim.results import store

    check_option("OUT suffix", out.suffix, (".nc", ".csv"))
    dataset = open_result(_existing(result))
    written = [store.export_netcdf(dataset, out)] if out.suffix == ".nc" else store.export_csv(dataset, out)
    typer.echo("\n".join(str(path) for path in written))


@app.command()
def calibrate(file: File, profile: Profile = None, overrides: Overrides = None) -> None:
    """Calibrate the observers of an experiment file and print their internal noise and intensity JNDs."""
    tables.show(tables.calibrations(_load(file, profile, overrides)))


@app.command()
def doctor() -> None:
    """Print versions and devices, and try what psysim needs."""
    failed = tables.show_doctor()
    if failed:
        raise typer.Exit(2)


@human_app.command("add")
def human_add(file: Annotated[Path, typer.Argument(help="CSV in the format of the built-in data sets.")]) -> None:
    """Check a CSV of human data and register it under its dataset name."""
    from psysim import human

    name = human.add(file)
    typer.echo(f"Registered '{name}'. Name it in an experiment: human = [\"{name}\"]")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from psysim import __version__

        typer.echo(f"psysim {__version__}")
        raise typer.Exit


def _load(
    file: Path, profile: str | None, overrides: list[str] | None, seed: int | None = None, tracks: int | None = None
) -> Any:
    from psysim.experiments import load

    extra = [f"run.seed={seed}"] if seed is not None else []
    extra += [f"run.n_tracks={tracks}"] if tracks is not None else []
    return load(file, profile=profile, overrides=[*(overrides or []), *extra])


def _existing(result: Path) -> Path:
    from psysim.results import store

    if store.state_of(result) == "absent":
        raise SpecError(f"{result}: there is no such result. 'psysim run FILE' makes one in the folder runs/.")
    return result


def main() -> None:
    """Run the command line."""
    app()
