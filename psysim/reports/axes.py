"""The axes of threshold figures: where values stand, which ticks stay readable, and how far the ordinate goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.reports.labels import Labeller, number
from psysim.reports.runs import is_tmtf
from psysim.reports.series import ThresholdNumbers
from psysim.reports.style import wrapped

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["Scale", "set_ordinate"]

TMTF_TOP_DB = -30.0
SMALLEST_SPAN_DB = 6.0  # of the ordinate: differences well below 1 dB should not look large
WIDE_RATIO = 4.0  # of thresholds: above it a logarithmic axis, if levels were multiplied


@dataclass(frozen=True)
class Scale:
    """The abscissa: positions of values, ticks, and the sideways shift that keeps observers apart."""

    x: str | None
    log: bool
    names: list[str]
    ticks: list[float]
    labels: list[str]
    low: float
    high: float

    @classmethod
    def of(cls, ds: xr.Dataset, numbers: ThresholdNumbers, width_in: float) -> Scale:
        """Return the abscissa for the numbers of a figure, in panels of a width in inches."""
        label, x = Labeller.of(ds), numbers.x
        if x is None:
            return cls(None, False, [""], [0.0], ["the only condition"], -0.5, 0.5)
        values = numbers.table[x].dropna()
        if ds[x].dtype.kind not in "iuf" or not np.isfinite(ds[x].values).all():
            names = list(dict.fromkeys(str(v) for v in values))
            shown = [wrapped(label.value(x, _plain(v)), 14) for v in dict.fromkeys(values)]
            return cls(x, False, names, [float(i) for i in range(len(names))], shown, -0.5, len(names) - 0.5)
        measured = numbers.table[numbers.table["kind"] == "model"][x]
        ticks = sorted({float(v) for v in measured})
        low, high = float(values.min()), float(values.max())
        log = is_tmtf(ds) or (label.unit(x) in ("Hz", "kHz", "s", "ms") and low > 0 and high / low > 10)
        if log:
            margin = max((high / low) ** 0.04, 1.08)
            low, high = low / margin, high * margin
        else:
            margin = 0.05 * (high - low) or 0.5
            low, high = low - margin, high + margin
        ticks = _readable(ticks, log, low, high, width_in)
        return cls(x, log, [], ticks, [number(v) for v in ticks], low, high)

    def positions(self, rows: pd.DataFrame, shift: float) -> np.ndarray[Any, Any]:
        """Return where rows are drawn, (n,); ``shift`` counts series from the middle one."""
        if self.x is None:
            return np.full(len(rows), 0.12 * shift)
        if self.names:
            return np.array([self.names.index(str(v)) for v in rows[self.x]], dtype=float) + 0.12 * shift
        values = rows[self.x].to_numpy(dtype=float)
        if self.log:
            return values * (self.high / self.low) ** (0.008 * shift)
        return values + 0.008 * shift * (self.high - self.low)

    def apply(self, ax: Axes) -> None:
        """Set scale, limits and ticks."""
        if self.log:
            ax.set_xscale("log")
        ax.set_xlim(self.low, self.high)
        ax.set_xticks(self.ticks, self.labels)
        ax.minorticks_off()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _readable(ticks: list[float], log: bool, low: float, high: float, width_in: float) -> list[float]:
    """Return the ticks whose labels do not run into one another; the first and the last are kept."""

    def place(value: float) -> float:
        share = np.log(value / low) / np.log(high / low) if log else (value - low) / (high - low)
        return float(share * width_in)

    def half(value: float) -> float:
        return 0.045 * len(number(value)) + 0.05

    kept = ticks[:1]
    for tick in ticks[1:]:
        if place(tick) - half(tick) >= place(kept[-1]) + half(kept[-1]):
            kept.append(tick)
    if len(ticks) > 1 and kept[-1] != ticks[-1]:
        kept[-1 if len(kept) > 1 else len(kept) :] = [ticks[-1]]
    return kept


def set_ordinate(ax: Axes, table: pd.DataFrame, unit: str, downwards: bool, ratios: bool = False) -> None:
    """Set the limits of the threshold axis: every point and bar is inside; a fitted curve may leave it.

    ``ratios`` says that levels were multiplied, not added: then the axis is logarithmic if they span a factor of 4.
    """
    values = table[table["kind"] != "lowpass_fit"][["threshold", "low", "high"]].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if downwards:
        values = np.append(values, [TMTF_TOP_DB, 0.0])
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if ratios and low > 0 and high / low > WIDE_RATIO:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        ax.set_yscale("log")
        ax.set_ylim(low / 1.15, high * 1.15)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        ax.yaxis.set_minor_formatter(NullFormatter())
        return
    if unit.startswith("dB") and high - low < SMALLEST_SPAN_DB:
        if unit == "dB" and low >= 0 and high < SMALLEST_SPAN_DB / 2:  # small increments: seen against zero
            low, high = 0.0, max(high, 1.0)
        else:
            low, high = (low + high - SMALLEST_SPAN_DB) / 2, (low + high + SMALLEST_SPAN_DB) / 2
    margin = 0.06 * (high - low) or 1.0
    if downwards:
        ax.set_ylim(high + margin, low - (margin if low < TMTF_TOP_DB else 0.0))
    else:
        ax.set_ylim(low - margin, high + margin)
