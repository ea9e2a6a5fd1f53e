"""One common form for human thresholds, so that a run can be compared with and drawn beside any of them.

Names of measures and of condition columns become those of psysim's stimuli (``depth_db`` over ``rate_hz``), runs and
listeners are averaged, error bars become limits, and it is stated which numbers are points of a fitted curve.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.human.catalogue import load

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_thresholds"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class _Rule:
    """What a measure is in psysim: the tracked variable, its unit, and the conversion to it (rising).

    ``given`` is the unit the source must have, as far as its first word: a user's table may use another.
    """

    tracks: str
    unit: str
    convert: Callable[[Values], Values] = lambda v: v
    given: str = ""


_DEPTH = _Rule("depth_db", "dB", given="dB")
_RULES: dict[tuple[str, str], _Rule] = {  # (data set or "*", measure)
    ("*", "am_detection_threshold"): _DEPTH,
    ("*", "am_detection_threshold_from_fit"): _DEPTH,
    ("*", "gap_threshold"): _Rule("gap_s", "s", lambda v: v / 1000, given="ms"),
    ("jesteadt1977_intensity", "weber_fraction_dI_over_I"): _Rule(
        "level_increment_db", "dB", lambda v: 10 * np.log10(1 + v)
    ),
    ("guestrajappa2024_level_discrimination", "increment_threshold"): _Rule(
        "level_increment_db", "dB", lambda v: 20 * np.log10(1 + 10 ** (v / 20))
    ),
    ("guestrajappa2024_profile_analysis", "increment_threshold"): _Rule("increment_db", "dB"),
    ("guest2024_profile_analysis_hl", "increment_threshold"): _Rule("increment_db", "dB"),
    ("borjigin_fm_itd", "fm_detection_threshold"): _Rule("deviation_hz", "Hz", lambda v: 10 ** (v / 20)),
    ("schairer2008_forward_masking", "detection_threshold"): _Rule("probe_level_db_spl", "dB SPL"),
    ("jesteadt1982_forward_masking_fit", "amount_of_masking"): _Rule("probe_level_db_spl", "dB"),  # a difference
    ("moore1998_spectral_masking", "masking_above_absolute_threshold"): _Rule("probe_level_db_spl", "dB"),
    ("alexis106_noise", "level_increment_threshold"): _Rule("level_increment_db", "dB"),
    ("jepsen2008_tone_in_noise_duration", "detection_threshold"): _Rule("signal_level_db_spl", "dB SPL"),
    ("moore1990_notched_noise_100hz", "detection_threshold"): _Rule("signal_level_db_spl", "dB SPL"),
    ("vandepar1999_bmld", "detection_threshold"): _Rule("snr_db", "dB"),
    ("breebaart2001_bmld", "detection_threshold"): _Rule("snr_db", "dB"),
    ("brughera2013_itd", "itd_threshold"): _Rule("itd_us", "us"),
    ("wier1977_fdl", "frequency_difference_limen"): _Rule("frequency_increment_hz", "Hz"),
    ("moore1973_fdl", "weber_fraction_df_over_f"): _Rule("frequency_increment_percent", "%", lambda v: 100 * v),
    ("heinz2001_ideal_observer_fdl", "weber_fraction_df_over_f"): _Rule(
        "frequency_increment_percent", "%", lambda v: 100 * v
    ),
    ("hawkins_stevens1950_critical_ratio", "critical_ratio"): _Rule("signal_re_spectrum_level_db", "dB"),
    ("grant1998_am_rate", "modulation_rate_discrimination_threshold"): _Rule("rate_increment_hz", "Hz"),
    ("wier1977_fdl", "absolute_threshold"): _Rule("level_db_spl", "dB SPL"),
    ("reference_thresholds", "absolute_threshold"): _Rule("level_db_spl", "dB SPL"),
    ("iso226_2003", "equal_loudness_level"): _Rule("level_db_spl", "dB SPL"),
    ("iso226_2023", "equal_loudness_level"): _Rule("level_db_spl", "dB SPL"),
}
_BAND = {"centre_frequency_hz": "signal_hz", "masker_bandwidth_hz": "bandwidth_hz"}
_FORWARD = {"signal_frequency_hz": "probe_hz", "masker_frequency_hz": "masker_hz", "masker_signal_delay_s": "gap_s"}
_RENAME: dict[str, dict[str, str]] = {  # data set (or "*"): its column, in s and Hz: parameter of psysim's stimulus
    "*": {"modulation_rate_hz": "rate_hz"},
    "breebaart2001_bmld": _BAND,
    "vandepar1999_bmld": _BAND,
    "hawkins_stevens1950_critical_ratio": {"frequency_hz": "signal_hz"},
    "jepsen2008_tone_in_noise_duration": {"signal_frequency_hz": "signal_hz", "masker_level_db_spl": "level_db_spl"},
    "jesteadt1982_forward_masking_fit": _FORWARD,
    "schairer2008_forward_masking": _FORWARD,
    "moore1998_spectral_masking": {"signal_frequency_hz": "probe_hz"},
    "moore1990_notched_noise_100hz": {"signal_frequency_hz": "signal_hz"},
}
_ABOUT_LISTENERS = ("mean_age_years", "mean_hl_at_target_db")
_ABOUT_VALUES = ("value_lower", "value_upper", "threshold_in_semitones", "censored", "tracking_ended")
_LABELS = ("study", "source", "standard", "model")
_PARAMETERS = {"peak_sensitivity": "peak_sensitivity_db", "cutoff_frequency": "cutoff_hz"}
_NAMES = {  # figures need a name; these sources have no author and year, or several
    "alexis106_noise": "ALEXIS 106",
    "borjigin_fm_itd": "Borjigin et al. (unpublished)",
    "jesteadt1982_forward_masking_fit": "Jesteadt, Bacon & Lehman (1982)",
    "noisysam_pilot": "NoisySAM pilot",
    "psylab_sam_example": "PSYLAB manual, 1 listener",
}


def as_thresholds(name: str) -> pd.DataFrame:
    """Return a data set in the common form.

    Parameters
    ----------
    name : str
        A data set, see `psysim.human.names`.

    Returns
    -------
    pandas.DataFrame
        One row per condition:

        - ``dataset``; ``label`` for figures;
        - one column per factor, named as in psysim's stimuli (``rate_hz``, ``carrier_hz``), in s and Hz;
        - ``tracks``: the tracked variable of psysim that ``value`` is a threshold of (``depth_db``), or the
          ``measure`` itself where there is none;
        - ``measure`` as in the source; ``value`` and ``unit``; ``error_low`` and ``error_high``, the ends of the error
          bar (NaN: not stated), ``error_kind`` says of what;
        - ``kind``: "points" (measured), "fitted_curve" (points of a curve fitted to measurements), "bound" (censored,
          or partly at the ceiling of the tracks);
        - ``listener_group``, ``n_listeners``, ``note``.

        Repeated runs are averaged per listener, then listeners (``error_kind`` says over what the SD is); runs that
        ran out of trials are left out, with a note. ``attrs`` holds the provenance, and ``attrs["tmtf"]`` the fitted
        ``peak_sensitivity_db`` and ``cutoff_hz`` where the source states them.

    Raises
    ------
    SpecError
        If the name is not known.

    Examples
    --------
    >>> curve = as_thresholds("tmtf_parameters")
    >>> curve[["rate_hz", "tracks", "value", "kind"]].tail(2)
       rate_hz    tracks  value          kind
    7    256.0  depth_db -15.57  fitted_curve
    8    512.0  depth_db -10.25  fitted_curve
    >>> curve.attrs["tmtf"]
    {'peak_sensitivity_db': -22.6, 'cutoff_hz': 127.3}
    """
    raw = load(name)
    attrs: dict[Any, Any] = dict(raw.attrs)
    rows = _PREPARE[name](raw) if name in _PREPARE else raw
    attrs["tmtf"] = _parameters(rows)
    rows = rows[~rows["measure"].isin(_PARAMETERS)].reset_index(drop=True)
    table = _tidy(_averaged(rows), attrs)
    table.attrs = attrs
    return table


# ------------------------------------------------------------ what is special about single data sets
def _curve_only(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the fitted curve and its parameters: the other rows describe shapes in words, not thresholds.

    The carrier was not read (presumably broadband noise); it stays in the note, as it is no value of a factor.
    """
    keep = table["measure"].isin([*_PARAMETERS, "am_detection_threshold_from_fit"])
    return (
        table[keep]
        .assign(note="carrier " + table["carrier"][keep] + "; " + table["note"][keep])
        .drop(columns="carrier")
    )


def _band_edges(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Split a column like "3750-4250" into low_hz and high_hz, in the place where it was."""
    edges = table[column].str.split("-", expand=True).astype("float64")
    place = list(table.columns).index(column)
    table = table.drop(columns=column)
    table.insert(place, "low_hz", edges[0])
    table.insert(place + 1, "high_hz", edges[1])
    return table


def _finished_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the runs that ran out of trials."""
    ended = table["tracking_ended"] == "Normal"
    left_out = table["background"].map((~ended).groupby(table["background"]).sum())
    table = table.assign(note=[f"{n} run(s) that ran out of trials left out" for n in left_out])
    return _band_edges(table[ended], "carrier_band_hz")


def _delay_as_number(table: pd.DataFrame) -> pd.DataFrame:
    """Leave the delay called "default" not stated: its value was not read."""
    import pandas as pd

    delay = pd.to_numeric(table["masker_signal_delay_ms"], errors="coerce")
    default = delay.isna().map({True: "delay not stated (default of the paper)", False: ""})
    return table.assign(masker_signal_delay_ms=delay, note=default)


def _depth_in_db(table: pd.DataFrame) -> pd.DataFrame:
    """State the modulation depth as the stimuli do, 20 log10 m."""
    import pandas as pd

    depth = pd.Series(20 * np.log10(table["modulation_depth_percent"].to_numpy(dtype=np.float64) / 100), table.index)
    return table.assign(modulation_depth_percent=depth).rename(columns={"modulation_depth_percent": "depth_db"})


def _arithmetic_means(table: pd.DataFrame) -> pd.DataFrame:
    """Keep one of the three statistics of each condition."""
    return table[table["note"] == "arithmetic mean"]


_PREPARE: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "tmtf_parameters": _curve_only,
    "noisysam_pilot": _finished_runs,
    "alexis106_noise": _arithmetic_means,
    "grant1998_am_rate": _depth_in_db,
    "schairer2008_forward_masking": _delay_as_number,
    "guestrajappa2024_level_discrimination": lambda table: _band_edges(table, "component_range_hz"),
    "guestrajappa2024_profile_analysis": lambda table: _band_edges(table, "component_range_hz"),
}


# ------------------------------------------------------------ common to all
def _parameters(rows: pd.DataFrame) -> dict[str, float]:
    """Return the parameters of a fitted TMTF, if the table states each of them once."""
    found = {key: rows["value"][rows["measure"] == measure].tolist() for measure, key in _PARAMETERS.items()}
    return {key: values[0] for key, values in found.items()} if all(len(v) == 1 for v in found.values()) else {}


def _labels(rows: pd.DataFrame, attrs: dict[str, Any], kinds: list[str]) -> list[str]:
    """Return a short name of the source for each row, for figures."""
    column = _label_column(rows)
    if attrs["name"] in _NAMES or column is None:
        cited = re.match(r".*?\(\d{4}\)", attrs["source"])
        usable = cited and len(cited[0]) < 80 and len(re.findall(r"\(\d{4}\)", attrs["source"])) == 1
        labels = [_NAMES.get(attrs["name"], cited[0] if cited and usable else attrs["name"])] * len(rows)
    else:
        labels = rows[column].tolist()
    return [f"{text} (fit)" if kind == "fitted_curve" else text for text, kind in zip(labels, kinds, strict=True)]


def _label_column(rows: pd.DataFrame) -> str | None:
    return next((c for c in _LABELS if c in rows and (rows[c] != "").all()), None)


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """Average runs within listeners, then listeners; a row "mean" of the source is preferred to our own."""
    import pandas as pd

    if "listener" in rows and (rows["listener"] == "mean").any():
        return rows[rows["listener"] == "mean"].drop(columns="listener").reset_index(drop=True)
    repeats = [c for c in ("run", "listener") if c in rows]
    if not repeats:
        return rows
    own = {*repeats, "value", "error", "error_kind", "n_listeners", *_ABOUT_VALUES}
    same = [c for c in rows if c not in own]
    averages = []
    for key, group in rows.groupby(same, sort=False, dropna=False):
        values = group["value"]
        over = "over runs of one listener"
        if "listener" in repeats and group["listener"].nunique() > 1:
            values, over = group.groupby("listener")["value"].mean(), "across listeners"
        many = len(values) > 1
        listeners = group["listener"].nunique() if "listener" in repeats else group["n_listeners"].max()
        row: dict[str, Any] = dict(zip(map(str, same), key, strict=True))
        row |= {"value": values.mean(), "error": values.std(ddof=1) if many else np.nan}
        row |= {"error_kind": f"SD {over}" if many else "", "n_listeners": listeners}
        averages.append(row)
    return pd.DataFrame(averages)


def _tidy(rows: pd.DataFrame, attrs: dict[str, Any]) -> pd.DataFrame:
    """Return the common columns."""
    import pandas as pd

    first, last = list(rows.columns).index("experiment") + 1, list(rows.columns).index("measure")
    conditions = [c for c in rows.columns[first:last] if c not in (*_ABOUT_LISTENERS, *_ABOUT_VALUES)]
    label = _label_column(rows)
    if label and rows[label].nunique() == 1:  # one source for all rows is no factor
        conditions.remove(label)
    factors = dict(_factor(attrs["name"], column, rows[column]) for column in conditions)
    rules = [_rule(d, m, u) for d, m, u in zip(rows["dataset"], rows["measure"], rows["unit"], strict=True)]
    low, high = _limits(rows)
    ends = {"value": rows["value"].to_numpy(), "error_low": low, "error_high": high}
    ends = {
        name: np.array([rule.convert(v) for rule, v in zip(rules, values, strict=True)])
        for name, values in ends.items()
    }
    kinds = _kinds(rows)
    columns: dict[str, Any] = {
        "dataset": rows["dataset"],
        "label": _labels(rows, attrs, kinds),
        **factors,
        "tracks": [rule.tracks for rule in rules],
        "measure": rows["measure"],
        "value": ends["value"],
        "unit": [rule.unit for rule in rules],
        "error_low": ends["error_low"],
        "error_high": ends["error_high"],
        "error_kind": rows["error_kind"],
        "kind": kinds,
        "listener_group": rows["listener_group"],
        "n_listeners": rows["n_listeners"].astype("float64"),
        "note": rows["note"],
    }
    return pd.DataFrame(columns)


def _rule(dataset: str, measure: str, unit: str) -> _Rule:
    rule = _RULES.get((dataset, measure)) or _RULES.get(("*", measure))
    return rule if rule and rule.given in ("", unit.split(" ")[0]) else _Rule(measure, unit)


def _factor(dataset: str, column: str, values: pd.Series[Any]) -> tuple[str, pd.Series[Any]]:
    """Return name and values as psysim's stimuli have them: in seconds and hertz."""
    name = column
    if values.dtype.kind in "if":
        for end, base, scale in (("_ms", "_s", 1e-3), ("_khz", "_hz", 1e3)):
            if name.endswith(end):
                name, values = name.removesuffix(end) + base, values * scale
    return {**_RENAME["*"], **_RENAME.get(dataset, {})}.get(name, name), values


def _limits(rows: pd.DataFrame) -> tuple[Values, Values]:
    """Return both ends of the error bars."""
    value, error = rows["value"].to_numpy(), rows["error"].to_numpy()
    is_factor = rows["error_kind"].str.contains("factor").to_numpy(dtype=bool)
    factor, half = np.where(is_factor, error, 1.0), np.where(is_factor, 0.0, error)
    low, high = value / factor - half, value * factor + half
    if "value_lower" in rows:
        low, high = rows["value_lower"].to_numpy(), rows["value_upper"].to_numpy()
    return low, high


def _kinds(rows: pd.DataFrame) -> list[str]:
    """Return "points", "fitted_curve" or "bound" for each row."""
    censored = rows["censored"] == "yes" if "censored" in rows else np.zeros(len(rows), dtype=bool)
    kinds = []
    for origin, note, bound in zip(rows["origin"], rows["note"], censored, strict=True):
        share = re.search(r"(\d+) % of runs at the .*ceiling", note)
        if bound or (share and int(share[1]) > 0):
            kinds.append("bound")
        else:
            kinds.append("fitted_curve" if re.search(r"from (the|a published) fit", origin) else "points")
    return kinds
