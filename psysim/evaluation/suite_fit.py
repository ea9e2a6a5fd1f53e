"""Fit one parameter of an observer's decision to human data, and test it on the experiments it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import PsysimError, SpecError, did_you_mean
from psysim.evaluation.scoreboard import scoreboard

if TYPE_CHECKING:
    import pandas as pd

    from psysim.evaluation.suite import Suite
    from psysim.experiments import ExperimentSpec

__all__ = ["ObserverFit", "fit_observer"]


@dataclass(frozen=True)
class ObserverFit:
    """What was found.

    Attributes
    ----------
    observer, parameter : str
    value : float
        Value with the smallest mean error over all experiments.
    errors : pandas.DataFrame
        One row per value and experiment: ``value``, ``experiment``, ``rmse``, ``unit``, ``n_points`` and ``error``:
        mean squared deviation / variance of the human thresholds, so that experiments in different units count alike;
        NaN where the observer has no threshold.
    held_out : pandas.DataFrame
        One row per experiment: the ``value`` fitted to all others, the ``error`` and ``rmse`` that it gives in this
        one, and ``error_fitted``, that of the common ``value``. Only the first are predictions.
    fitted_to : list of str
        Human data sets that the value was fitted to: an experiment that uses it states them (``fitted_to``).
    left_out : dict of str to str
        Experiments that could not take part, and why.
    """

    observer: str
    parameter: str
    value: float
    errors: pd.DataFrame
    held_out: pd.DataFrame
    fitted_to: list[str]
    left_out: dict[str, str]


def fit_observer(
    suite: Suite,
    observer: str,
    parameter: str,
    values: Sequence[float],
    *,
    n_tokens: int = 16,
    device: str | None = None,
) -> ObserverFit:
    """Try values of one parameter in all experiments of a suite, and leave each experiment out once.

    Thresholds are predicted from decision variables (`psysim.predict_threshold`), not tracked. The fit is to the human
    data of the experiments: what it says of these data is a description. Predictions are the rows of ``held_out``.

    Parameters
    ----------
    suite : Suite
        Experiments with human data (three points or more) in which the observer takes part.
    observer : str
        Its name.
    parameter : str
        A numeric setting of its decision, for instance "internal_noise_std".
    values : sequence of float
        Values to try.
    n_tokens : int
        Sound tokens per condition.
    device : {"auto", "cpu", "cuda"}, optional
        Default: what the experiments say.

    Returns
    -------
    ObserverFit

    Raises
    ------
    SpecError
        If no experiment has the observer, its decision has no such setting, fewer than two values are given, or fewer
        than two experiments can take part.
    """
    if len(set(values)) < 2:
        raise SpecError(f"values = {list(values)}: give at least two different values to choose from.")
    taking_part = {n: s for n, s in suite.experiments.items() if observer in [o.name for o in s.observers]}
    if not taking_part:
        names = list(dict.fromkeys(o.name for s in suite.experiments.values() for o in s.observers))
        raise SpecError(f"No experiment has an observer '{observer}'.{did_you_mean(observer, names)}")
    left_out: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    data: dict[str, list[str]] = {}
    for name, spec in taking_part.items():
        if not spec.human:
            left_out[name] = "it names no human data"
            continue
        found = [_error(name, spec, observer, parameter, value, n_tokens, device) for value in values]
        if all(row["n_points"] < 3 for row in found):
            left_out[name] = "fewer than three thresholds could be compared"
            continue
        rows += found
        data[name] = list(spec.human)
    if len(data) < 2:
        why = "; ".join(f"{name}: {text}" for name, text in left_out.items()) or "only one takes part"
        raise SpecError(f"Cross-validation needs two experiments or more that can be compared ({why}).")
    import pandas as pd

    errors = pd.DataFrame(rows)
    wide = errors.pivot_table(index="value", columns="experiment", values="error", dropna=False)
    best = _best(wide)
    held_out = [_held_out(name, wide, errors, best) for name in data]
    fitted_to = list(dict.fromkeys(human for names in data.values() for human in names))
    return ObserverFit(observer, parameter, best, errors, pd.DataFrame(held_out), fitted_to, left_out)


def _best(wide: pd.DataFrame) -> float:
    """Return the value with the smallest mean error; one without a threshold in some experiment cannot be chosen."""
    mean = wide.mean(axis=1, skipna=False)
    if mean.isna().all():
        raise SpecError("With none of the values does the observer reach a threshold in all experiments: try others.")
    values = mean.to_numpy(dtype=np.float64)
    return float(mean.index.to_numpy(dtype=np.float64)[np.nanargmin(values)])


def _held_out(name: str, wide: pd.DataFrame, errors: pd.DataFrame, best: float) -> dict[str, Any]:
    value = _best(wide.drop(columns=name))
    own = errors[errors["experiment"] == name].set_index("value")
    return {
        "experiment": name,
        "value": value,
        "error": float(own["error"][value]),
        "rmse": float(own["rmse"][value]),
        "unit": str(own["unit"][value]),
        "error_fitted": float(own["error"][best]),
    }


def _error(
    name: str, spec: ExperimentSpec, observer: str, parameter: str, value: float, n_tokens: int, device: str | None
) -> dict[str, Any]:
    """Return the error of one experiment with one value of the parameter."""
    from psysim.experiments.prediction import predict_threshold

    row: dict[str, Any] = {"value": float(value), "experiment": name, "rmse": np.nan, "unit": "", "n_points": 0}
    changed = _with_value(spec, observer, parameter, value)
    try:
        dataset = predict_threshold(changed, n_tokens=n_tokens, device=device)
    except SpecError:
        raise
    except PsysimError:
        return row | {"error": np.nan}
    board = scoreboard({name: dataset})
    usable = board[(board["kind"] != "published") & (board["n_points"] >= 3)]
    complete = len(usable) > 0 and not bool((usable["n_left_out"] > 0).any())
    explained = usable["variance_explained"].mean() if complete else np.nan
    row |= {"rmse": float(usable["rmse"].mean()) if len(usable) else np.nan, "error": float(1.0 - explained)}
    row |= {"n_points": int(usable["n_points"].sum()), "unit": str(usable["unit"].iloc[0]) if len(usable) else ""}
    return row


def _with_value(spec: ExperimentSpec, observer: str, parameter: str, value: float) -> ExperimentSpec:
    """Return the experiment with this one observer, and the parameter set."""
    import tomli_w

    from psysim.experiments import loads
    from psysim.observers import registry

    index = [o.name for o in spec.observers].index(observer)
    decision = spec.observers[index].decision
    known = list(registry.get(decision).Settings.model_fields)
    if parameter not in known:
        raise SpecError(
            f"The decision '{decision}' of '{observer}' has no setting '{parameter}'. Allowed: {', '.join(known)}."
            f"{did_you_mean(parameter, known)}"
        )
    tables = {k: v for k, v in spec.tables.items() if k != "profiles"}
    entry = {**tables["observers"][index], parameter: float(value)}
    return loads(tomli_w.dumps({**tables, "observers": [entry]}), source=spec.source, folder=Path(spec.source).parent)
