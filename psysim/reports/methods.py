"""The Methods paragraph of a run, written from its own experiment description: to be pasted into a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from psysim.errors import SpecError
from psysim.reports.labels import Labeller, capital, lower, number
from psysim.reports.runs import read_provenance, read_spec
from psysim.results import factors, is_predicted
from psysim.results.schema import in_order

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["calibration_state", "methods"]

#: Stimulus kinds in words; a kind of a plug-in is printed by its name.
STIMULI: Mapping[str, str] = {
    "am_noise": "sinusoidally amplitude-modulated noise",
    "am_tone": "a sinusoidally amplitude-modulated tone",
    "fm_tone": "a sinusoidally frequency-modulated tone",
    "quasi_fm_tone": "a quasi-frequency-modulated tone",
    "tone": "a pure tone",
    "tone_in_noise": "a pure tone in noise",
    "noise": "noise",
    "forward_masking": "a probe tone after a masker",
    "masked_tone": "a masked tone",
    "notched_noise_tone": "a pure tone in notched noise",
    "gap_in_noise": "noise with a silent gap",
    "tone_complex": "a harmonic tone complex",
}

#: Switches in words: (on, off).
SWITCHES: Mapping[str, tuple[str, str]] = {
    "compensate_level": (
        "the level was the same with and without modulation",
        "the level was set before modulation, so that modulation raised it",
    ),
}

_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def methods(ds: xr.Dataset) -> str:
    """Return how a run was done, in the words of a Methods section.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema). Everything is taken from its ``spec_toml`` and ``provenance``.

    Returns
    -------
    str
        Plain text: task, stimulus, conditions, tracking rule, number of tracks, observers and their calibration,
        sampling rate, seed and version. What the description leaves to psysim's defaults is said to be so.

    Raises
    ------
    SpecError
        If the run holds no experiment description.
    """
    ds = in_order(ds)
    spec, facts = read_spec(ds), read_provenance(ds)
    if not spec:
        raise SpecError("The run holds no experiment description (attribute 'spec_toml'), so there are no methods.")
    label = Labeller.of(ds)
    sentences = [
        _opening(facts),
        _task(spec.get("task", {})),
        _standard(spec.get("standard", {}), label),
        _stimulus(spec.get("stimulus", {}), label),
        _conditions(ds, spec.get("conditions", {}), label),
        *([_prediction(ds, facts)] if is_predicted(ds) else [_rule(spec.get("procedure", {}), ds, label), _tracks(ds)]),
        *(_observer(entry, facts.get("calibration", {}), label) for entry in spec.get("observers", [])),
        _numbers(spec.get("run", {}), facts),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _prediction(ds: xr.Dataset, facts: Mapping[str, Any]) -> str:
    target = number(100 * float(ds.attrs["target_proportion"]))
    return (
        "Thresholds were predicted without tracks, as the level at which the expected proportion correct, computed "
        f"from the decision variables of {facts.get('n_tokens', 'several')} sound tokens per condition (one where the "
        f"sounds hold nothing random), is {target} %."
    )


def _opening(facts: Mapping[str, Any]) -> str:
    version = f" {facts['psysim']}" if "psysim" in facts else ""
    return f"Thresholds were simulated with psysim{version}."


def _task(task: Mapping[str, Any]) -> str:
    noise = " with the same noise token in all intervals of a trial" if task.get("noise") == "frozen" else ""
    rove = ""
    if task.get("rove_db", 0):
        rove = (
            f" The level was roved over {number(task['rove_db'])} dB, anew in every {task.get('rove_per', 'interval')}."
        )
    if task.get("kind", "afc") == "yes_no":
        share = 100 * float(task.get("p_target", 0.5))
        return f"In a yes/no task{noise}, {number(share)} % of the trials held the target.{rove}"
    if task.get("kind", "afc") == "matching":
        order = "after the standard" if task.get("standard") == "first" else "before or after the standard, at random"
        return f"A variable sound, {order}{noise}, was matched to a standard (two intervals).{rove}"
    if task.get("kind", "afc") == "identification":
        place = task.get("place")
        which = "a label drawn at random in every trial" if place is None else f"label {place} of each sound"
        return f"In every trial {which} was to be named, one of {task['n_alternatives']} alternatives{noise}.{rove}"
    if task.get("kind", "afc") != "afc":
        return f"The task was {task['kind']}{noise}.{rove}"
    n = int(task.get("n_intervals", 3))
    count = _COUNTS.get(n, str(n))
    if task.get("standard", "none") == "first":
        others = _COUNTS.get(n - 1, str(n - 1))
        return (
            f"In a {count}-interval task{noise}, the first interval was the reference; the target was in one of the "
            f"other {others}, chosen at random in every trial ({n - 1}-AFC with a reminder).{rove}"
        )
    return (
        f"In a {count}-interval forced-choice task ({n}-AFC){noise}, the target was in one interval, "
        f"chosen at random in every trial.{rove}"
    )


def _standard(standard: Mapping[str, Any], label: Labeller) -> str:
    if not standard:
        return ""
    parts = "; ".join(_setting(label, name, value) for name, value in standard.items())
    return f"The standard had {parts}."


def _stimulus(stimulus: Mapping[str, Any], label: Labeller) -> str:
    kind = str(stimulus.get("kind", ""))
    if not kind:
        return ""
    parts, clauses = [], []
    for name, value in stimulus.items():
        if name == "kind":
            continue
        if name in SWITCHES and isinstance(value, bool):
            clauses.append(SWITCHES[name][0 if value else 1])
        else:
            parts.append(_setting(label, name, value))
    text = f"The stimulus was {STIMULI.get(kind, kind)}"
    text += f" ({'; '.join(parts)})" if parts else ""
    text += f"; {'; '.join(clauses)}" if clauses else ""
    return f"{text}. Its other parameters were psysim's defaults for '{kind}'."


def _setting(label: Labeller, name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{lower(label.name(name))}: {', '.join(_setting(label, k, v) for k, v in value.items())}"
    return f"{lower(label.name(name))} {label.value(name, value)}"


def _conditions(ds: xr.Dataset, conditions: Mapping[str, Any], label: Labeller) -> str:
    """Return what varied: the factors, and the cases, whose parameters vary together."""
    lists = [f"{lower(label.name(k))} ({_values(label, k, v)})" for k, v in conditions.items()]
    together = [name for name in factors(ds) if name not in conditions]
    rows = zip(*(ds[name].values.tolist() for name in together), strict=True)
    cases = [label.point(dict(zip(together, row, strict=True))) for row in dict.fromkeys(rows)]
    if cases:
        lists.insert(0, f"the cases ({'; '.join(cases)})")
    if not lists:
        return "There was one condition."
    joined = " and ".join([", ".join(lists[:-1]), lists[-1]] if len(lists) > 1 else lists)
    crossed = ", in all combinations" if len(lists) > 1 else ""
    count = ds.sizes["condition"]
    return f"The conditions differed in {joined}{crossed}: {count} condition{'s' if count > 1 else ''}."


def _values(label: Labeller, name: str, values: Any) -> str:
    """Return a list of values, the unit once at its end where all are numbers."""
    values = values if isinstance(values, list) else [values]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        unit = label.unit(name)
        numbers = ", ".join(number(float(v), 6) for v in values)
        return f"{numbers} {unit}" if unit else numbers
    return ", ".join(label.value(name, v) for v in values)


def _rule(procedure: Mapping[str, Any], ds: xr.Dataset, label: Labeller) -> str:
    from psysim.procedures import registry

    if not procedure:
        return ""
    unit, what = label.unit("level"), "levels" if procedure.get("step_unit") == "db" else "levels and steps"
    tracked = f"The tracked variable was the {lower(label.name('level'))}{f' ({what} in {unit})' if unit else ''}."
    kind = str(procedure.get("kind", "up_down"))
    settings = {name: value for name, value in procedure.items() if name != "kind"}
    try:
        text = registry.get(kind)(**settings).describe()
    except SpecError:  # a rule of a plug-in that is not installed here, or of another version
        share = ds.attrs.get("target_proportion")
        listed = "; ".join(_setting(label, k, v) for k, v in settings.items() if k != "tracks")
        settled = f" tracked {100 * float(share):.1f} % correct" if share is not None else " set the levels"
        text = f"The procedure '{kind}'{settled} ({listed})."
    return f"{tracked} {_without_infinite_limits(text)}"


def _without_infinite_limits(text: str) -> str:
    """Leave out limits that the experiment does not set, and use true minus signs."""
    text = re.sub(r",? ?within the limits -inf and inf", "", text)
    text = re.sub(r"within the limits -inf and ([^\s,]*\d)", r"with levels of at most \1", text)
    text = re.sub(r"within the limits ([^\s,]*\d) and inf\b", r"with levels of at least \1", text)
    return re.sub(r"(?<![\w])-(?=\d)", "−", text)


def _tracks(ds: xr.Dataset) -> str:
    n = ds.sizes["track"]
    if n == 1:
        return "One track was run per condition and observer."
    return (
        f"{n} tracks were run per condition and observer; thresholds are means over the tracks that converged, with "
        "95 % bootstrap intervals over tracks (expanded percentile intervals; Hesterberg, 2015)."
    )


def _observer(entry: Mapping[str, Any], calibration: Mapping[str, Any], label: Labeller) -> str:
    decision, model = str(entry.get("decision", "")), entry.get("model")
    name = str(entry.get("name") or model or decision)
    what = f"the model {model} with the decision stage {decision}" if model else decision
    hidden = ("decision", "model", "name", "model_options")
    parts = [_setting(label, k, v) for k, v in entry.items() if k not in hidden]
    parts += [_setting(label, k, v) for k, v in dict(entry.get("model_options") or {}).items()]
    settings = f" ({'; '.join(parts)})" if parts else ""
    return f"The observer '{name}' was {what}{settings}; {_calibration(calibration.get(name))}."


def calibration_state(facts: Mapping[str, Any] | None) -> str:
    """Return how the internal noise was set: "calibrated", "given", "not calibrated", or as the observer says.

    "not stated" where the run has no record of it, as in an unfinished run.
    """
    if facts is None:
        return "not stated"
    return str(facts.get("status") or "not calibrated")


def _calibration(facts: Mapping[str, Any] | None) -> str:
    state = calibration_state(facts)
    value = (facts or {}).get("internal_noise_std")
    size = f" (standard deviation {number(float(value))})" if isinstance(value, int | float) else ""
    if state == "given":
        return f"the internal noise was given{size}, not calibrated"
    if state == "not calibrated":
        return "its internal noise was not calibrated"
    if state == "not stated":
        return "how its internal noise was set is not stated"
    if state != "calibrated":
        return state
    task = (facts or {}).get("task")
    return f"its internal noise was calibrated{size}{_calibration_task(task) if isinstance(task, Mapping) else ''}"


def _calibration_task(task: Mapping[str, Any]) -> str:
    try:
        return (
            f" so that a level difference of {number(task['jnd_db'])} dB of a {number(task['frequency_hz'])}-Hz tone "
            f"at {number(task['level_db_spl'])} dB SPL is heard in {100 * task['target_proportion']:.1f} % of the "
            f"trials of a {task['n_intervals']}-AFC task"
        )
    except (KeyError, TypeError, ValueError):  # another calibration task: the provenance table shows it in full
        return ""


def _numbers(run: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    parts = []
    if "fs" in run:
        parts.append(f"sounds were sampled at {number(float(run['fs']) / 1000, 6)} kHz")
    if (seed := run.get("seed", facts.get("seed"))) is not None:
        parts.append(f"all random numbers follow from the seed {seed}")
    text = "; ".join(parts)
    return f"{capital(text)}." if text else ""
