"""A report of a run: one HTML page, and beside it the figures, the tables and the text as files.

A report is derived from a run, so it may be written again. It replaces only an earlier report of the same run: the
same experiment description and seed, run by the same version of psysim. Any other file is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from psysim import human as human_data
from psysim import results
from psysim.errors import SpecError, StoreError
from psysim.evaluation import compare, fit_tmtf, match_points
from psysim.evaluation.published import published_beside
from psysim.reports import sentences, tables
from psysim.reports.figures import threshold_figure, tmtf_figure, tracks_figure
from psysim.reports.html import FigureView, Page, render
from psysim.reports.labels import Labeller
from psysim.reports.methods import methods
from psysim.reports.runs import (
    abscissa,
    is_tmtf,
    read_provenance,
    read_spec,
    run_of,
    tracked_variable,
)
from psysim.reports.style import png, svg
from psysim.results.schema import in_order

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["report"]

MANIFEST = "report.json"
N_EXAMPLE_TRACKS = 6
_RUN_MARK = re.compile(r'<meta name="psysim-run" content="([0-9a-f]+)" />')


def report(
    run: xr.Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    human: str | Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run.

    The page is one HTML file without scripts or addresses outside itself. Figures (SVG, and PNG at 150 dots per inch),
    tables (CSV), the Methods paragraph and the experiment description lie in the folder ``<name>_files`` beside it.
    The same run gives the same bytes. Every file is written under another name first and then renamed; the page comes
    last.

    Parameters
    ----------
    run : xarray.Dataset, str or Path
        A run (results schema), or where it is stored (``.zarr`` or ``.nc``).
    out : str or Path, optional
        The HTML file; missing folders are made. Default: beside the stored run, with the ending ``.html``.
    human : str or sequence of str, optional
        Names of human data sets (`psysim.human.names`); default: those that the experiment names. An empty list: none.
    overwrite : bool
        Replace a report of another run. Files that are no report are never replaced.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    StoreError
        If the run cannot be read, or ``out`` or its folder is there and is not a report of the same run.
    SpecError
        If ``out`` does not end in ``.html``, or a data set is not known.

    Examples
    --------
    >>> import psysim
    >>> psysim.report("runs/demo_tmtf.zarr", "demo_tmtf.html")  # doctest: +SKIP
    PosixPath('demo_tmtf.html')
    """
    path = _out_path(run, out)
    ds = results.load(run) if isinstance(run, str | os.PathLike) else results.validate(run)
    ds = in_order(ds)
    mark = _run_mark(ds)
    folder = path.with_name(f"{path.stem}_files")
    earlier = _check_free(path, folder, mark, overwrite)
    content = _Content(ds, human)
    files = content.files()
    page = render(content.page(mark, [(name, quote(f"{folder.name}/{name}")) for name in sorted(files)]))
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"psysim_run": mark, "files": sorted(files)}
    _write(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    for name, data in sorted(files.items()):
        _write(folder / name, data)
    _write(path, page.encode())
    for name in set(earlier) - set(files):
        (folder / name).unlink(missing_ok=True)
    return path


# ------------------------------------------------------------ where it is written
def _out_path(run: xr.Dataset | str | os.PathLike[str], out: str | os.PathLike[str] | None) -> Path:
    if out is None:
        if not isinstance(run, str | os.PathLike):
            raise SpecError('out is missing: say where the report of a dataset goes, for instance out="report.html".')
        return Path(run).with_suffix(".html")
    path = Path(out)
    if path.suffix != ".html":
        raise SpecError(f"out = '{path}': the name of a report must end in .html, for instance '{path.stem}.html'.")
    return path


def _run_mark(ds: xr.Dataset) -> str:
    """Return what tells reports apart: the experiment with its seed, and the version of psysim that ran it.

    The date is left out, so that the report of an unfinished run is replaced by that of the finished one.
    """
    experiment = ds.attrs.get("spec_identity") or ds.attrs.get("spec_toml", "")
    text = json.dumps([ds.attrs.get("title", ""), experiment, read_provenance(ds).get("psysim")], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_free(path: Path, folder: Path, mark: str, overwrite: bool) -> list[str]:
    """Return the files of the report that may be replaced, or refuse."""
    if os.path.lexists(path):
        found = None
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as page:
                found = _RUN_MARK.search(page.read(4000))
        if found is None:
            raise StoreError(f"{path} exists and is no psysim report: it will not be replaced. Choose another --out.")
        _refuse_other(found[1], path, mark, overwrite)
    if not os.path.lexists(folder):
        return []
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        earlier, names = str(manifest["psysim_run"]), [str(name) for name in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{folder} exists and holds no psysim report: nothing is written into it. Choose another --out, or move it."
        ) from None
    _refuse_other(earlier, folder, mark, overwrite)
    return [name for name in names if Path(name).name == name]


def _refuse_other(found: str, path: Path, mark: str, overwrite: bool) -> None:
    if found != mark and not overwrite:
        raise StoreError(
            f"{path} belongs to the report of another run. Choose another --out, or allow that it is replaced "
            "(overwrite)."
        )


def _write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write ({error.strerror or error}).") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


# ------------------------------------------------------------ what it says
class _Content:
    """Everything that is computed once for the page and the files."""

    def __init__(self, ds: xr.Dataset, human: str | Sequence[str] | None) -> None:
        self.ds = ds
        self.label = Labeller.of(ds)
        self.facts = read_provenance(ds)
        self.human, self.missing = _human_names(ds, human)
        self.thresholds = results.thresholds(ds)
        self.tmtf = is_tmtf(ds)
        self.fits = fit_tmtf(ds) if self.tmtf else None
        self.comparison = compare(ds, self.human, tracks=tracked_variable(ds)) if self.human else None
        self.points = match_points(ds, self.human, tracks=tracked_variable(ds)) if self.human else None
        self.wide, self.numbers = self._thresholds(compact=False)
        self.wide_svg = svg(self.wide)
        self.tracks = tracks_figure(ds, N_EXAMPLE_TRACKS) if (ds["n_trials"].values > 0).any() else None
        self.tracks_svg = svg(self.tracks[0]) if self.tracks else b""

    def _thresholds(self, compact: bool) -> tuple[Figure, pd.DataFrame]:
        draw = tmtf_figure if self.tmtf else threshold_figure
        return draw(self.ds, self.human, compact=compact)

    def files(self) -> dict[str, bytes]:
        """Return the files beside the page by name."""
        name = "tmtf" if self.tmtf else "thresholds"
        found = {f"{name}.svg": self.wide_svg, f"{name}.png": png(self.wide)}
        data = {
            "threshold_table": self.thresholds,
            f"{name}_figure": self.numbers,
            "track_table": results.tracks(self.ds),
        }
        if self.tracks is not None:
            found |= {"example_tracks.svg": self.tracks_svg, "example_tracks.png": png(self.tracks[0])}
            data["example_tracks_figure"] = self.tracks[1]
        if self.fits is not None:
            data["lowpass_fits"] = self.fits
        if self.comparison is not None and self.points is not None:
            data |= {"comparison": self.comparison, "comparison_points": self.points}
        found |= {f"{key}.csv": _csv(table) for key, table in data.items()}
        found["methods.txt"] = (methods(self.ds) + "\n").encode() if read_spec(self.ds) else b""
        found["experiment.toml"] = str(self.ds.attrs.get("spec_toml", "")).encode()
        return {key: value for key, value in found.items() if value}

    def page(self, mark: str, files: Sequence[tuple[str, str]]) -> Page:
        """Return the texts, tables and figures of the page."""
        ds, label = self.ds, self.label
        sets = [human_data.provenance(name) for name in self.human]
        caption, alt = sentences.threshold_caption(ds, self.numbers, abscissa(ds), self.tmtf)
        calibration = self.facts.get("calibration")
        return Page(
            title=str(ds.attrs.get("title") or "Untitled experiment"),
            result=sentences.headline(ds, self.thresholds, self.fits, self.comparison),
            run_id=mark,
            version=version("psysim"),
            facts=_facts(ds, self.facts),
            warnings=sentences.warnings(ds, self.facts, self.thresholds, self.comparison, sets, self.missing),
            threshold_figure=FigureView.of(self.wide, self.wide_svg, self._thresholds(compact=True)[0], caption, alt),
            threshold_table=tables.threshold_table(self.thresholds, label),
            comparison_table=None if self.comparison is None else tables.comparison_table(self.comparison, label),
            comparison_notes=self._comparison_notes(),
            deviations=[] if self.points is None else sentences.largest_deviation(self.points, label),
            no_human=sentences.NO_HUMAN,
            fit_table=None if self.fits is None else tables.fit_table(self.fits, label),
            provenance_human=[tables.human_table(each) for each in sets],
            tracks_figure=self._tracks_view(),
            status_table=tables.status_table(ds),
            limit_table=tables.limit_table(ds, label),
            status_notes=sentences.status_notes(ds),
            methods=methods(ds) if read_spec(ds) else "The run holds no experiment description.",
            provenance_table=tables.provenance_table(self.facts),
            calibration_json=json.dumps(calibration, indent=1, sort_keys=True) if calibration else "",
            spec_toml=str(ds.attrs.get("spec_toml", "")),
            files=files,
        )

    def _comparison_notes(self) -> list[str]:
        if self.comparison is None or self.points is None:
            return []
        notes = tables.comparison_notes(self.comparison, self.label)
        for name in self.human:
            notes += tables.published_notes(name, published_beside(self.ds, name, self.points), self.label)
        return notes

    def _tracks_view(self) -> FigureView | None:
        if self.tracks is None:
            return None
        narrow, _ = tracks_figure(self.ds, N_EXAMPLE_TRACKS, compact=True)
        return FigureView.of(self.tracks[0], self.tracks_svg, narrow, *sentences.track_caption(self.ds, self.tracks[1]))


def _human_names(ds: xr.Dataset, human: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the data sets to compare with, and those that the experiment names but that are not installed here."""
    known = human_data.names()
    if human is None:
        named = run_of(ds).human
        return [name for name in named if name in known], [name for name in named if name not in known]
    names = [human] if isinstance(human, str) else list(human)
    for name in names:
        human_data.provenance(name)  # an unknown name is the caller's mistake
    return names, []


def _facts(ds: xr.Dataset, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the size of the run and where it was made, for the head of the page."""
    found = [
        ("Observers", ", ".join(str(name) for name in ds["observer"].values)),
        ("Conditions", str(ds.sizes["condition"])),
        *(
            [("Method", "predicted from decision variables, no tracks")]
            if results.is_predicted(ds)
            else [
                ("Tracks per condition", str(ds.sizes["track"])),
                ("Trials", f"{int(ds['n_trials'].sum()):,}".replace(",", " ")),
            ]
        ),
    ]
    made = [("Date", str(facts.get("created", ""))[:10]), ("Device", str(facts.get("device", "")))]
    return [*found, *((name, text) for name, text in made if text)]


def _csv(table: pd.DataFrame) -> bytes:
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue().encode()
