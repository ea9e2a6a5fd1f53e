"""One labeller from machine names (``rate_hz``) to what people read (``Modulation rate (Hz)``).

Figures, tables and sentences take their words from here. The tracked variable is labelled by the dataset itself
(``level.attrs["long_name"]``), everything else by the table below or, failing that, by its name and unit suffix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.results.schema import unit_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["NAMES", "STATUS_WORDS", "Labeller", "capital", "lower", "number"]

#: Names without unit; the unit comes from the end of the machine name.
NAMES: Mapping[str, str] = {
    "am_depth_db": "AM depth",
    "am_rate_hz": "AM rate",
    "bandwidth_hz": "Bandwidth",
    "carrier": "Carrier",
    "carrier_hz": "Carrier frequency",
    "centre_hz": "Centre frequency",
    "deviation_hz": "Frequency deviation",
    "depth_db": "Modulation depth, 20 log m",
    "depth_m": "Modulation depth m",
    "duration_s": "Duration",
    "f0_hz": "Fundamental frequency",
    "frequency_hz": "Frequency",
    "fs": "Sampling rate",
    "gap_s": "Gap",
    "isi_s": "Pause between intervals",
    "level_db_spl": "Level",
    "level_increment_db": "Level increment",
    "masker_level_db_spl": "Masker level",
    "modulator_phase_rad": "Modulator phase",
    "n_intervals": "Number of intervals",
    "notch_hz": "Notch width",
    "ramp_s": "Ramp duration",
    "rate_hz": "Modulation rate",
    "signal_level_db_spl": "Signal level",
    "snr_db": "Signal-to-noise ratio",
    "spectrum_level_db_spl": "Spectrum level",
    # columns of tables
    "bias": "Bias, model minus human",
    "ci": "95 % interval",
    "condition": "Condition",
    "mean_trials": "Mean number of trials",
    "n_converged": "Tracks used",
    "n_tracks": "Tracks",
    "observer": "Observer",
    "pearson_r": "Pearson r",
    "rmse": "RMS difference",
    "threshold": "Threshold",
    "threshold_sd": "SD over tracks",
}

#: Units as printed; others are printed as stored.
_SYMBOLS = {"1": "", "us": "µs", "degree": "°", "octave": "octaves"}

#: Units of names whose ending does not tell.
_UNITS = {"fs": "Hz"}

#: Status of a track in words.
STATUS_WORDS: Mapping[str, str] = {
    "running": "not finished",
    "converged": "converged",
    "max_trials": "out of trials",
    "at_floor": "at the lower limit",
    "at_ceiling": "at the upper limit",
    "invalid_output": "invalid output",
}


def number(value: float, digits: int = 4) -> str:
    """Return a number as people write it: no exponent, no trailing zeros, a true minus sign.

    Examples
    --------
    >>> number(44100.0), number(-3.25), number(float("nan")), number(0.05)
    ('44100', '−3.25', 'n/a', '0.05')
    """
    if value is None or not math.isfinite(value):
        return "n/a" if value is None or math.isnan(value) else ("−∞" if value < 0 else "∞")
    text = f"{value:.{digits}g}"
    if "e" in text:
        text = f"{value:.0f}" if abs(value) >= 1 else f"{value:.{digits}f}".rstrip("0").rstrip(".")
        text = "0" if text in ("", "-0", "-") else text
    return text.replace("-", "−")


@dataclass(frozen=True)
class Labeller:
    """Human labels, with units, for machine names.

    Parameters
    ----------
    names, units : mapping of str to str
        Labels and units that go before the built-in ones, for instance from a dataset's attributes.

    Examples
    --------
    >>> label = Labeller()
    >>> label.axis("rate_hz"), label.axis("depth_db"), label.value("rate_hz", 64.0)
    ('Modulation rate (Hz)', 'Modulation depth, 20 log m (dB)', '64 Hz')
    >>> label.axis("my_own_factor"), label.axis("silence_ms")
    ('My own factor', 'Silence (ms)')
    """

    names: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, ds: xr.Dataset) -> Labeller:
        """Return the labeller of a run: its tracked variable, and the units of its factors.

        Parameters
        ----------
        ds : xarray.Dataset
            A run (results schema).
        """
        unit = str(ds["level"].attrs.get("units", "1"))
        level = _without_unit(str(ds["level"].attrs.get("long_name", "Level")), unit)
        names = {"level": level, "threshold": level}
        units = {"level": unit, "threshold": unit, "threshold_sem": unit}
        if tracked := str(ds.attrs.get("tracked_variable", "")):
            names[tracked], units[tracked] = level, unit
        for name, coord in ds.coords.items():
            if coord.dims == ("condition",) and name != "condition":
                units[str(name)] = str(coord.attrs.get("units", unit_of(str(name))))
        return cls(names, units)

    def name(self, machine: str) -> str:
        """Return the label without unit."""
        if machine in self.names:
            return self.names[machine]
        if machine in NAMES:
            return NAMES[machine]
        if "." in machine:  # a nested key: its last part says what it is
            return self.name(machine.rpartition(".")[2])
        return _without_suffix(machine).replace("_", " ").strip().capitalize() or machine

    def unit(self, machine: str) -> str:
        """Return the unit as printed; empty if there is none."""
        unit = self.units.get(machine) or _UNITS.get(machine) or unit_of(machine)
        return _SYMBOLS.get(unit, unit)

    def axis(self, machine: str) -> str:
        """Return label and unit: what stands beside an axis or above a column."""
        unit = self.unit(machine)
        return f"{self.name(machine)} ({unit})" if unit else self.name(machine)

    def threshold(self, relative_to: Mapping[str, Any] | None = None) -> str:
        """Return what the thresholds are, with unit; differences where they are ``relative_to`` some conditions."""
        if not relative_to:
            return self.axis("level")
        unit = "dB" if self.unit("level").startswith("dB") else self.unit("level")
        return f"Rise of {lower(self.name('level'))} over that at {self.point(relative_to)} ({unit})"

    def value(self, machine: str, value: Any) -> str:
        """Return one value with its unit."""
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "no"
        if isinstance(value, list | tuple):
            return ", ".join(self.value(machine, v) for v in value)
        if isinstance(value, str):
            return value
        unit = self.unit(machine)
        if unit == "s" and 0 < abs(float(value)) < 1:
            return f"{number(1000 * float(value))} ms"
        text = number(float(value), 6)
        return f"{text}{'' if unit == '°' else ' '}{unit}" if unit else text

    def point(self, values: Mapping[str, Any]) -> str:
        """Return the values of several factors in words: ``modulation rate 4 Hz, bandwidth 31 Hz``."""
        return ", ".join(f"{lower(self.name(k))} {self.value(k, v)}" for k, v in values.items())


def lower(text: str) -> str:
    """Return ``text`` as it stands inside a sentence: abbreviations keep their capitals."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def capital(text: str) -> str:
    """Return ``text`` as it stands at the start of a sentence."""
    return text[:1].upper() + text[1:]


def _without_unit(long_name: str, unit: str) -> str:
    return long_name.removesuffix(f"({unit})").rstrip(" ,") or long_name


def _without_suffix(name: str) -> str:
    unit = unit_of(name)
    if unit == "1":
        return name
    suffix = {"%": "percent", "octave": "octaves", "degree": "deg"}.get(unit, unit.lower().replace(" ", "_"))
    return name.removesuffix(f"_{suffix}")
