"""The catalogue of human data: names, tables, provenance, and the user's own tables.

The built-in files are an unedited copy of a collection in which every number was read in a named source.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psysim.errors import SpecError, check_option, did_you_mean
from psysim.human.tables import check_table, read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KINDS", "Provenance", "add", "load", "names", "provenance", "user_folder"]

KINDS = ("data", "reference", "model_predictions", "user")
"""Human data; standards and constants; published results of models; tables added by the user."""

_TEXT_KEYS = ("source", "doi", "doi_status", "read_in", "origin", "confidence", "caveat", "experiment")
_SAME_EXPERIMENT = {  # EXPERIMENTS.md describes these together with another set, without their name in the heading
    "breebaart2001_bmld": "vandepar1999_bmld",
    "daniel_weber1997_sqat_model": "daniel_weber1997_roughness",
    "encke_dietz2022_model": "encke_dietz2022_noise_itd",
    "heinz2001_ideal_observer_fdl": "moore1973_fdl",
    "iso226_2003": "iso532_2_2017_reference",
    "iso226_2023": "iso532_2_2017_reference",
    "reference_thresholds": "iso532_2_2017_reference",
}


@dataclass(frozen=True)
class Provenance:
    """Where a data set comes from.

    Attributes
    ----------
    name, kind : str
        Name and one of `KINDS`.
    file : str
        The CSV file.
    n_points : int
        Number of rows.
    source : str
        Publication.
    doi, doi_status : str
        DOI where it was read, and whether it was.
    read_in : str
        File or page in which the numbers were read.
    origin : str
        How far the numbers are from the publication (tabulated, digitised, raw ...).
    confidence : str
        Judgement of the collector.
    caveat : str
        What to keep in mind.
    withheld : bool
        Whether some conditions of the source were set aside, so that the table is not all of it.
    experiment : str
        Stimuli and procedure in words, as far as they were read.
    """

    name: str
    kind: str
    file: str
    n_points: int
    source: str = ""
    doi: str = ""
    doi_status: str = ""
    read_in: str = ""
    origin: str = ""
    confidence: str = "not stated"
    caveat: str = ""
    withheld: bool = False
    experiment: str = ""


def user_folder() -> Path:
    """Return the folder of the user's own tables: ``$PSYSIM_DATA_DIR/human``, else in the platform's data folder."""
    if root := os.environ.get("PSYSIM_DATA_DIR"):
        return Path(root) / "human"
    import platformdirs

    return Path(platformdirs.user_data_dir("psysim")) / "human"


def _builtin_folder() -> Path:
    return Path(str(files("psysim.human"))) / "data"


@cache
def _builtin() -> dict[str, tuple[str, Path]]:
    """Return kind and file of every built-in data set."""
    root = _builtin_folder()
    return {path.stem: (kind, path) for kind in KINDS[:3] for path in sorted((root / kind).glob("*.csv"))}


def _catalogue() -> dict[str, tuple[str, Path]]:
    folder = user_folder()
    users = {path.stem: ("user", path) for path in sorted(folder.glob("*.csv"))} if folder.is_dir() else {}
    return {**users, **_builtin()}


def names(kind: str | None = None) -> list[str]:
    """Return the names of the data sets, sorted.

    Parameters
    ----------
    kind : {"data", "reference", "model_predictions", "user"}, optional
        Human data, standards and constants, published model results, the user's own; all if not given.

    Raises
    ------
    SpecError
        If the kind is not known.

    Examples
    --------
    >>> "tmtf_parameters" in names("data")
    True
    >>> len(names("data")), len(names("reference")), len(names("model_predictions"))
    (33, 6, 5)
    """
    if kind is not None:
        check_option("kind", kind, KINDS)
    return sorted(name for name, (k, _) in _catalogue().items() if kind in (None, k))


def _find(name: str) -> tuple[str, Path]:
    catalogue = _catalogue()
    if name not in catalogue:
        near = did_you_mean(name, catalogue)
        raise SpecError(f"There is no human data set named '{name}'.{near} psysim.human.names() lists all.")
    return catalogue[name]


def load(name: str) -> pd.DataFrame:
    """Return a data set as it was collected, one number per row.

    Parameters
    ----------
    name : str
        See `names`.

    Returns
    -------
    pandas.DataFrame
        Columns: ``dataset``, ``experiment``, the columns of the conditions (they differ between data sets),
        ``measure``, ``value``, ``unit``, ``error``, ``error_kind``, ``listener_group`` (NH, HI, NH+HI or MODEL),
        ``n_listeners``, ``origin``, ``note``. Numbers are as read; what the source does not state is NaN or "".
        ``attrs`` holds the `Provenance` as a dictionary.

    Raises
    ------
    SpecError
        If the name is not known, or the user's file was damaged after it was added.

    Examples
    --------
    >>> table = load("psylab_sam_example")
    >>> table[["carrier_hz", "modulation_rate_hz", "value", "unit"]].head(2)
       carrier_hz  modulation_rate_hz  value             unit
    0         400                   4  -28.0  dB (20 log10 m)
    1         400                  16  -31.0  dB (20 log10 m)
    """
    kind, path = _find(name)
    text = check_table(path)[1] if kind == "user" else path.read_text(encoding="utf-8")
    table = read_table(text)
    facts: dict[Any, Any] = asdict(_provenance(name, kind, path, len(table)))
    table.attrs = facts
    return table


def provenance(name: str) -> Provenance:
    """Return where a data set comes from.

    Parameters
    ----------
    name : str
        See `names`.

    Returns
    -------
    Provenance

    Raises
    ------
    SpecError
        If the name is not known.

    Examples
    --------
    >>> provenance("tmtf_parameters").confidence
    'medium'
    """
    kind, path = _find(name)
    if kind == "user":
        return _provenance(name, kind, path, len(read_table(check_table(path)[1])))
    return _provenance(name, kind, path, int(_sources()[name]["n_points"]))


def _provenance(name: str, kind: str, path: Path, n_points: int) -> Provenance:
    if kind == "user":
        sheet = path.with_suffix(".toml")
        facts = _read_sheet(sheet, name) if sheet.exists() else {"origin": "see column origin"}
        return Provenance(name, kind, str(path), n_points, **facts)
    facts = {key: value for key, value in _sources()[name].items() if key in _TEXT_KEYS}
    withheld = bool(_sources()[name]["part_of_conditions_withheld"])
    file = f"{kind}/{path.name}"
    return Provenance(name, kind, file, n_points, **facts, withheld=withheld, experiment=_experiments().get(name, ""))


@cache
def _sources() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_builtin_folder() / "sources.toml").read_text(encoding="utf-8"))


@cache
def _experiments() -> dict[str, str]:
    """Return the paragraph of EXPERIMENTS.md that describes each data set.

    A paragraph starts with the names in bold: ``**a.**``, ``**a / b.**``, ``**a / _c.**`` (c replaces the end of a),
    ``**a**, **b**:``.
    """
    found: dict[str, str] = {}
    text = (_builtin_folder() / "EXPERIMENTS.md").read_text(encoding="utf-8")
    for paragraph in re.split(r"\n\s*\n", text):
        heading = re.match(r"(\*\*[^*]+\*\*(,\s*)?)+", paragraph)
        if not heading:
            continue
        first = ""
        for title in re.split(r"\*\*,\s*\*\*|\s*/\s*", heading[0].strip("*").rstrip(".")):
            name = title.strip()
            if name.startswith("_"):
                name = next(n for n in _builtin() if n.endswith(name) and n.split("_")[0] == first.split("_")[0])
            first = first or name
            found[name] = paragraph.strip()
    return found | {name: found[other] for name, other in _SAME_EXPERIMENT.items()}


# ------------------------------------------------------------ the user's own tables
def add(file: str | os.PathLike[str]) -> str:
    """Check a table of human data and register it; experiments, reports and `load` then know it by its name.

    Parameters
    ----------
    file : path
        CSV in the format of the built-in tables: the columns dataset, experiment, any columns for the condition (unit
        at the end of the name), measure, value, unit, error, error_kind, listener_group, n_listeners, origin, note.
        A file of the same name ending in ``.toml`` beside it is taken as provenance: source, doi, doi_status, read_in,
        origin, confidence, caveat, experiment (texts) and withheld (true or false).

    Returns
    -------
    str
        The name of the data set.

    Raises
    ------
    SpecError
        If the table is not in the format (every problem with line and column), or the name is taken.
    """
    path = Path(file)
    name, text = check_table(path)
    if name in _builtin():
        raise SpecError(f"{path}: '{name}' is a built-in data set. Write another name into the column dataset.")
    target = user_folder() / f"{name}.csv"
    if target.exists():
        raise SpecError(
            f"{path}: a data set '{name}' is registered already. Write another name into the column dataset, "
            f"or delete {target} first."
        )
    sheet = path.with_suffix(".toml")
    facts = sheet.read_bytes() if sheet.exists() else None
    if facts is not None:
        _read_sheet(sheet, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".toml").unlink(missing_ok=True)  # without its table it belongs to nothing
    if facts is not None:
        _put(target.with_suffix(".toml"), facts)
    _put(target, text.encode())
    return name


def _put(path: Path, data: bytes) -> None:
    """Write a file completely or not at all; never replace one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o644)
        os.link(temporary, path)
    except FileExistsError as error:
        raise SpecError(f"{path} was registered by another process at this moment. Delete it first.") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _read_sheet(path: Path, name: str) -> dict[str, Any]:
    """Return the provenance in a TOML file, at its top level or in a table with the name of the data set."""
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}. Texts need quotes.") from error
    facts = facts[name] if isinstance(facts.get(name), dict) else facts
    allowed = (*_TEXT_KEYS, "withheld")
    for key, value in facts.items():
        check_option(f"{path}: key", key, allowed)
        wanted = bool if key == "withheld" else str
        if not isinstance(value, wanted):
            raise SpecError(
                f"{path}: {key} = {value!r} must be {'true or false' if wanted is bool else 'a text in quotes'}."
            )
    return facts
