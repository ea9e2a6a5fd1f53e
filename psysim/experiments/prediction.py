"""Thresholds without tracking: where the expected proportion correct of an observer meets the rule's target.

A simulated observer can be asked for what a listener cannot tell: its decision variables. Some tokens of target and
reference sounds give their distributions, these the expected proportion correct at a level, and a search over the
level, side by side for all conditions, gives the threshold. What a track of the experiment's own rule would have
measured follows from simulated tracks on the psychometric function that the search leaves behind.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.experiments.devices import pick
from psysim.experiments.engine import choose_batch, make_observer, make_procedure
from psysim.experiments.recording import provenance
from psysim.experiments.sounds import Sounds
from psysim.experiments.spec import ExperimentSpec
from psysim.observers import Observer
from psysim.observers import registry as observers
from psysim.observers.expectation import DecisionSamples
from psysim.procedures import NO_TARGET, Procedure, Status
from psysim.results import empty_dataset

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["predict_threshold"]

TOKENS = 32
COARSE_TOKENS = 6  # enough to find the neighbourhood of the threshold
SHAPE_AT = (-2.0, -1.0, 1.0)  # largest steps from the threshold: where the psychometric function is asked for its shape
SIMULATED_TRACKS = 2000
FIRST_TOKEN = 2**22  # trial number of the first token: far from those of tracks and templates
MOST_EXPANSIONS = 16
SMALLEST_SHARE = 1e-4  # proportions correct are kept that far from chance and from 1 before they become z values

Float = npt.NDArray[np.float64]


def predict_threshold(
    spec: ExperimentSpec, *, n_tokens: int = TOKENS, device: str | None = None, simulated_tracks: int = SIMULATED_TRACKS
) -> xr.Dataset:
    """Predict the thresholds of an experiment without running its tracks.

    For every condition and observer the level is searched at which the expected proportion correct, computed from the
    decision variables of target and reference sounds, is the target proportion of the experiment's tracking rule.
    Target and reference tokens share their random numbers, at all levels. Sounds without random parts need one token.

    Parameters
    ----------
    spec : ExperimentSpec
        From `psysim.load`.
    n_tokens : int
        Sound tokens per condition, at least 3: the error falls with its square root.
    device : {"auto", "cpu", "cuda"}, optional
        Default: what the experiment says.
    simulated_tracks : int
        Tracks on the resulting psychometric function, from which ``track_mean`` and ``track_sd`` follow; at least 2.

    Returns
    -------
    xarray.Dataset
        The results schema with one "track" without trials; ``attrs["method"]`` is "predicted". ``threshold_sem`` is
        the jackknife's standard error over tokens. Beyond the schema, per condition and observer: ``track_mean`` and
        ``track_sd``, mean and standard deviation of thresholds that adaptive tracks would have measured (they include
        the bias of finite steps); ``model_evaluations``, the number of intervals that went through the model.

    Raises
    ------
    SpecError
        If ``n_tokens`` or ``simulated_tracks`` are too small, or an observer hears no sound or decides in its own way.
    CalibrationError
        If an observer cannot be calibrated or has no template.

    Examples
    --------
    >>> import psysim
    >>> experiment = psysim.load("experiments/demo_tmtf.toml")  # doctest: +SKIP
    >>> psysim.thresholds(psysim.predict_threshold(experiment))  # doctest: +SKIP
    """
    for name, value, least in (("n_tokens", n_tokens, 3), ("simulated_tracks", simulated_tracks, 2)):
        if not isinstance(value, int) or value < least:
            raise SpecError(f"{name} = {value!r} must be a whole number of at least {least}.")
    device = pick(device or spec.engine.device)
    procedure = make_procedure(spec)
    dataset = _empty(spec, procedure)
    facts = {}
    began = time.monotonic()
    for index, described in enumerate(spec.observers):
        if not observers.get(described.decision).needs_sound:
            raise SpecError(
                f"observer '{described.name}' answers from a given psychometric function: there is nothing to predict. "
                "psysim.procedures.expected_threshold gives its threshold, 'psysim design' what a rule makes of it."
            )
        observer = make_observer(spec, index, device)
        observer.calibrate()
        facts[described.name] = observer.calibration
        search = _Search(spec, index, observer, procedure, device, n_tokens)
        _fill(dataset, index, search, procedure, simulated_tracks)
    about = provenance(spec, device, facts)
    about |= {"method": "predicted", "n_tokens": n_tokens, "elapsed_s": round(time.monotonic() - began, 3)}
    dataset.attrs |= {"provenance": json.dumps(about, default=str), "complete": 1}
    return dataset


def _empty(spec: ExperimentSpec, procedure: Procedure) -> xr.Dataset:
    from psysim.stimuli import registry as stimuli

    tracked = stimuli.get(spec.stimulus_kind).tracked[spec.tracks]
    dataset = empty_dataset(
        conditions={name: [c[name] for c in spec.conditions] for name in spec.factors},
        observers=[o.name for o in spec.observers],
        n_tracks=1,
        n_trials=1,
        n_intervals=spec.task.make().n_intervals,
        level_unit=tracked.unit,
        level_long_name=tracked.label,
        attrs={
            "title": spec.title,
            "spec_toml": spec.to_toml(),
            "tracked_variable": spec.tracks,
            "target_proportion": float(procedure.target_proportion),
            "method": "predicted",
        },
    )
    size = (dataset.sizes["condition"], dataset.sizes["observer"])
    for name, meaning, unit in (
        ("track_mean", "Expected mean threshold of adaptive tracks", tracked.unit),
        ("track_sd", "Expected standard deviation of the thresholds of adaptive tracks", tracked.unit),
        ("model_evaluations", "Intervals that went through the model", "1"),
    ):
        values = np.full(size, np.nan) if unit != "1" else np.zeros(size, np.int64)
        dataset[name] = (("condition", "observer"), values, {"long_name": meaning, "units": unit})
    return dataset


def _fill(dataset: xr.Dataset, index: int, search: _Search, procedure: Procedure, simulated_tracks: int) -> None:
    for condition, point in enumerate(search.thresholds()):
        dataset["threshold"].values[condition, index, 0] = point.threshold
        dataset["threshold_sem"].values[condition, index, 0] = point.sem
        dataset["status"].values[condition, index, 0] = point.status
        dataset["model_evaluations"].values[condition, index] = search.evaluations[condition]
        if point.status == Status.CONVERGED:
            mean, sd = search.tracks(condition, procedure, simulated_tracks)
            dataset["track_mean"].values[condition, index] = mean
            dataset["track_sd"].values[condition, index] = sd


@dataclass
class _Point:
    """The end of a search."""

    threshold: float
    sem: float
    status: Status


@dataclass
class _Known:
    """What is known of the psychometric function of one condition: parallel lists."""

    ease: list[float] = field(default_factory=list)
    proportion: list[float] = field(default_factory=list)
    without: list[Float] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    coarse_threshold: float = float("nan")
    threshold: float = float("nan")


class _Search:
    """Search over the level of all conditions of one observer, side by side.

    Levels are searched as *ease*: the level, or 20 log10 of it where the rule's steps are in dB, with the sign that
    makes the task easier as it rises.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        index: int,
        observer: Observer,
        procedure: Procedure,
        device: str,
        n_tokens: int,
    ) -> None:
        self.spec, self.index, self.observer, self.device = spec, index, observer, device
        self.task = spec.task.make()
        self.sounds = Sounds(spec, index, device, getattr(observer.model, "dtype", torch.float32))
        observer.prepare(self.sounds)
        self.batch = choose_batch(spec, self.sounds.n_samples, device) * self.task.n_intervals
        self.target = float(procedure.target_proportion)
        self.harder = int(procedure.settings.harder)
        self.in_db = spec.procedure.get("step_unit") == "db"
        rules = spec.procedure.get("rules", [spec.procedure])  # of interleaved tracks, or the one
        steps = np.concatenate([np.ravel(np.asarray(rule.get("steps", 1.0), dtype=np.float64)) for rule in rules])
        self.step, self.finest = float(steps.max()), float(steps.min())
        ends = [self._ease(float(spec.procedure[name])) for name in ("level_min", "level_max")]
        self.hardest, self.easiest = min(ends), max(ends)
        self.rove_per_trial = bool(spec.task.rove_db) and spec.task.rove_per == "trial"
        n = self.sounds.n_conditions
        self.evaluations = np.zeros(n, np.int64)
        self.tokens = np.where(self._random(), n_tokens, 1)
        self.known = [_Known() for _ in range(n)]
        self._references: dict[int, tuple[Tensor, Tensor]] = {}

    # -- levels ----------------------------------------------------------------------------------------------------

    def _ease(self, level: float) -> float:
        with np.errstate(divide="ignore"):
            value = float(20.0 * np.log10(level)) if self.in_db else level
        return -self.harder * value

    def level(self, ease: float) -> float:
        """Return the level of a value of ease."""
        value = -self.harder * ease
        return float(10.0 ** (value / 20.0)) if self.in_db else value

    # -- sounds ----------------------------------------------------------------------------------------------------

    def _random(self) -> npt.NDArray[np.bool_]:
        """Return whether the sounds of each condition differ from token to token."""
        n = self.sounds.n_conditions
        if self.sounds.frozen and not self.spec.task.rove_db:
            return np.zeros(n, dtype=bool)
        differs = np.zeros(n, dtype=bool)
        for condition in range(n):
            for is_target in (True, False):
                sound = self._make(torch.tensor([condition] * 2), torch.arange(2), is_target, self.sounds.start_level)
                differs[condition] |= not torch.equal(sound[0], sound[1])
        return differs

    def _make(self, condition: Tensor, token: Tensor, is_target: bool, level: float | Tensor, place: int = 0) -> Tensor:
        """Return sounds (N, T) of tokens; targets and references of ``place`` 0 share their random numbers."""
        condition, token = condition.to(self.device), token.to(self.device)
        keys = self.sounds.keys(condition, torch.zeros_like(token), FIRST_TOKEN + token)
        code = torch.full_like(token, place if is_target else NO_TARGET)
        levels = torch.as_tensor(level, dtype=torch.float64, device=self.device).expand(token.shape)
        return self.sounds.one_interval(condition, levels, code, keys, place)

    def _evaluate(self, sounds: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            values, std = self.observer.evaluate(sounds[:, None], condition.to(self.device))
        return values[:, 0].to(torch.float64).cpu(), std[:, 0].to(torch.float64).cpu()

    def _run(self, rows: list[tuple[int, int, float, bool, int]]) -> tuple[Tensor, Tensor]:
        """Return decision variable and noise of rows (condition, token, level, is target, place), in batches."""
        values, stds = [], []
        for alike in (True, False):
            for place in range(self.task.n_intervals):
                chosen = [i for i, row in enumerate(rows) if row[3] is alike and row[4] == place]
                for start in range(0, len(chosen), self.batch):
                    part = chosen[start : start + self.batch]
                    condition = torch.tensor([rows[i][0] for i in part])
                    token = torch.tensor([rows[i][1] for i in part])
                    level = torch.tensor([rows[i][2] for i in part], dtype=torch.float64)
                    value, std = self._evaluate(self._make(condition, token, alike, level, place), condition)
                    values.append((part, value))
                    stds.append(std)
        out, noise = torch.empty(len(rows), dtype=torch.float64), torch.empty(len(rows), dtype=torch.float64)
        for (part, value), std in zip(values, stds, strict=True):
            out[part], noise[part] = value, std
        for row in rows:
            self.evaluations[row[0]] += 1
        return out, noise

    # -- proportion correct ----------------------------------------------------------------------------------------

    def ask(self, wanted: dict[int, float], coarse: bool) -> None:
        """Add the proportion correct of some conditions, each at its own ease, to what is known."""
        counts = {c: int(min(self.tokens[c], COARSE_TOKENS) if coarse else self.tokens[c]) for c in wanted}
        self._add_references(counts)
        rows = [(c, token, self.level(ease), True, 0) for c, ease in wanted.items() for token in range(counts[c])]
        values, std = self._run(rows)
        start = 0
        for c, ease in wanted.items():
            own = slice(start, start + counts[c])
            start += counts[c]
            reference, reference_std = (part[: counts[c]] for part in self._references[c])
            criterion = float(self.observer.criterion(torch.tensor([c], device=self.device))[0])
            exchangeable = not self.rove_per_trial
            samples = DecisionSamples(values[own], std[own], reference, reference_std, exchangeable, criterion)
            proportion, without = self.observer.proportion_correct(samples, self.task)
            known = self.known[c]
            known.ease.append(ease)
            known.proportion.append(float(proportion))
            known.without.append(without.numpy())
            known.n_tokens.append(counts[c])

    def _add_references(self, counts: dict[int, int]) -> None:
        """Evaluate the references that are still missing; with a rove per trial all those of a trial."""
        places = range(1, self.task.n_alternatives) if self.rove_per_trial else range(1)
        rows = []
        for c, count in counts.items():
            have = len(self._references[c][0]) if c in self._references else 0
            rows += [(c, t, self.sounds.start_level, False, place) for t in range(have, count) for place in places]
        if not rows:
            return
        values, std = self._run(rows)
        for c in counts:
            own = [i for i, row in enumerate(rows) if row[0] == c]
            new = values[own].reshape(-1, len(places)), std[own].reshape(-1, len(places))
            old = self._references.get(c, (new[0][:0], new[1][:0]))
            self._references[c] = torch.cat([old[0], new[0]]), torch.cat([old[1], new[1]])

    # -- search ----------------------------------------------------------------------------------------------------

    def thresholds(self) -> list[_Point]:
        """Search the neighbourhood with few tokens, then bracket the threshold with all of them."""
        n = self.sounds.n_conditions
        start = float(np.clip(self._ease(self.sounds.start_level), self.hardest, self.easiest))
        around = self._bracket(dict.fromkeys(range(n), start), self.step, coarse=True)
        near = {c: ends for c, ends in around.items() if ends is not None}
        self._narrow(near, self.finest, coarse=True)
        for c, ends in near.items():
            self.known[c].coarse_threshold = self._crossing(c, ends)
        first = {c: self.known[c].coarse_threshold if c in near else start for c in range(n)}
        brackets = self._bracket(first, self.finest, coarse=False)
        sharp = {c: ends for c, ends in brackets.items() if ends is not None and self._is_sharp(c, ends)}
        self._narrow(sharp, self.finest / 16, coarse=False)
        brackets |= sharp
        points = [self._point(c, brackets[c]) for c in range(n)]
        self._ask_shape([c for c, point in enumerate(points) if point.status == Status.CONVERGED])
        return points

    def _ask_shape(self, conditions: list[int]) -> None:
        """Ask around the thresholds, with few tokens, for what tracks meet there."""
        for steps in SHAPE_AT:
            wanted = {}
            for c in conditions:
                known, width = self.known[c], steps * self.step
                middle = known.coarse_threshold if np.isfinite(known.coarse_threshold) else known.threshold
                ease = float(np.clip(middle + width, self.hardest, self.easiest))
                if min(abs(ease - k) for k in known.ease) > abs(width) / 2:
                    wanted[c] = ease
            if wanted:
                self.ask(wanted, coarse=True)

    def _bracket(self, first: dict[int, float], step: float, coarse: bool) -> dict[int, tuple[int, int] | None]:
        """Return for each condition two places in its list, below and above the target; None at a limit."""
        ends: dict[int, tuple[int, int] | None] = {}
        self.ask(first, coarse)
        at = {c: len(self.known[c].ease) - 1 for c in first}
        width = dict.fromkeys(first, step)
        for _ in range(MOST_EXPANSIONS):
            wanted = {}
            for c, place in at.items():
                if c in ends:
                    continue
                here, p = self.known[c].ease[place], self.known[c].proportion[place]
                limit, easier = (self.easiest, 1.0) if p < self.target else (self.hardest, -1.0)
                if not np.isfinite(p) or here == limit:
                    ends[c] = None
                else:
                    wanted[c] = float(np.clip(here + easier * width[c], self.hardest, self.easiest))
            if not wanted:
                break
            self.ask(wanted, coarse)
            for c in wanted:
                before, after = at[c], len(self.known[c].ease) - 1
                below = [self.known[c].proportion[k] < self.target for k in (before, after)]
                if below[0] != below[1]:
                    ends[c] = (before, after) if below[0] else (after, before)
                at[c], width[c] = after, 2.0 * width[c]
        return {c: ends.get(c) for c in first}

    def _narrow(self, brackets: dict[int, tuple[int, int]], width: float, coarse: bool) -> None:
        """Halve brackets until they are at most ``width`` wide, in place."""
        while True:
            wanted = {}
            for c, (low, high) in brackets.items():
                ease = self.known[c].ease
                if ease[high] - ease[low] > width * (1 + 1e-9):
                    wanted[c] = 0.5 * (ease[low] + ease[high])
            if not wanted:
                return
            self.ask(wanted, coarse)
            for c in wanted:
                low, high = brackets[c]
                new = len(self.known[c].ease) - 1
                brackets[c] = (new, high) if self.known[c].proportion[new] < self.target else (low, new)

    def _is_sharp(self, c: int, ends: tuple[int, int]) -> bool:
        """Return whether the proportion correct jumps between the two ends: a line between them says nothing."""
        low, high = (self.known[c].proportion[k] for k in ends)
        return low <= self.task.chance_level + SMALLEST_SHARE and high >= 1.0 - SMALLEST_SHARE

    def _z(self, proportion: npt.ArrayLike) -> Float:
        """Return the z value of the share of the way from chance to 1; the target lies well within."""
        from scipy.special import ndtri

        chance = min(self.task.chance_level, 0.5 * self.target)
        share = (np.asarray(proportion, dtype=np.float64) - chance) / (1.0 - chance)
        return np.asarray(ndtri(np.clip(share, SMALLEST_SHARE, 1.0 - SMALLEST_SHARE)))

    def _crossing(self, c: int, ends: tuple[int, int]) -> float:
        known = self.known[c]
        return float(self._between(*(known.ease[k] for k in ends), *(known.proportion[k] for k in ends)))

    def _between(self, low: float, high: float, p_low: npt.ArrayLike, p_high: npt.ArrayLike) -> Float:
        """Return where a line in z meets the target; kept within twice the bracket (the jackknife may leave it)."""
        z_low, z_high, target = self._z(p_low), self._z(p_high), self._z(self.target)
        rise = np.maximum(z_high - z_low, 1e-12)
        return low + (high - low) * np.clip((target - z_low) / rise, -0.5, 1.5)

    def _point(self, c: int, ends: tuple[int, int] | None) -> _Point:
        known = self.known[c]
        if ends is None:
            if not np.isfinite(known.proportion[-1]):
                return _Point(np.nan, np.nan, Status.INVALID_OUTPUT)
            easy = known.proportion[-1] < self.target
            at_top = easy == (self.harder < 0)
            return _Point(np.nan, np.nan, Status.AT_CEILING if at_top else Status.AT_FLOOR)
        ease = known.threshold = self._crossing(c, ends)
        n, sem = known.n_tokens[ends[0]], 0.0
        if n > 1:
            without = self._between(*(known.ease[k] for k in ends), *(known.without[k] for k in ends))
            sem = float(np.sqrt((n - 1) * np.mean((without - without.mean()) ** 2)))
        level = self.level(ease)
        return _Point(level, sem * (level * np.log(10.0) / 20.0 if self.in_db else 1.0), Status.CONVERGED)

    # -- what tracks would measure ---------------------------------------------------------------------------------

    def tracks(self, c: int, procedure: Procedure, n: int) -> tuple[float, float]:
        """Return mean and standard deviation of the thresholds of simulated tracks; NaN if none converges."""
        from scipy.special import ndtr

        from psysim.testing import run_tracks

        known = self.known[c]
        weight = np.asarray(known.n_tokens, dtype=np.float64)
        shift = known.threshold - known.coarse_threshold if np.isfinite(known.coarse_threshold) else 0.0
        at = np.asarray(known.ease) + np.where(weight < weight.max(), shift, 0.0)  # few tokens: right in shape only
        order = np.argsort(at, kind="stable")
        ease, z = at[order], _rising(self._z(known.proportion)[order], weight[order])
        chance = min(self.task.chance_level, 0.5 * self.target)

        def proportion(level: npt.ArrayLike) -> Float:
            levels = np.asarray(level, dtype=np.float64)
            with np.errstate(divide="ignore"):
                at = -self.harder * (20.0 * np.log10(levels) if self.in_db else levels)
            return np.asarray(chance + (1.0 - chance) * ndtr(np.interp(at, ease, z)))

        summary = run_tracks(procedure, self.task, proportion, n, seed=self.spec.run.seed)
        found = summary.threshold[summary.status == Status.CONVERGED]
        return (float(found.mean()), float(found.std(ddof=1))) if len(found) > 1 else (np.nan, np.nan)


def _rising(values: Float, weights: Float) -> Float:
    """Return the closest rising values (weighted isotonic regression)."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values, weights=weights).x)
