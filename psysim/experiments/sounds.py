"""From conditions and levels to the sounds of a trial: the task's side of the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.experiments.spec import STANDARD, ExperimentSpec
from psysim.hearing.aids import HearingAid, make_aid
from psysim.procedures import registry as procedures
from psysim.procedures.tasks_closed_set import Identification
from psysim.rng import TRAINING_TRIAL_BASE, Keys, Purpose, uniform
from psysim.stimuli import LabelledStimulus, round_samples
from psysim.stimuli import registry as stimuli

__all__ = ["Sounds", "aid_of"]


def aid_of(spec: ExperimentSpec, observer: int, device: str, dtype: torch.dtype) -> HearingAid | None:
    """Return the hearing aid of an observer, or None; an aid with a prescription takes the observer's audiogram."""
    if observer >= len(spec.observers) or spec.observers[observer].aid is None:
        return None
    described = spec.observers[observer]
    table = cast(dict[str, Any], described.aid)
    return make_aid(table, spec.run.fs, described.audiogram, described.aid_folder, dtype=dtype).to(device)


class Sounds:
    """Makes the intervals of trials, and the training sounds of observers (it is their `TrainingSounds`).

    Parameters
    ----------
    spec : ExperimentSpec
    observer : int
        Index of the observer, part of every random-number key.
    device : str
        Where sounds are made.
    dtype : torch.dtype
        Type of the sounds; they are computed in float64.
    """

    def __init__(
        self, spec: ExperimentSpec, observer: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.spec = spec
        self.fs = spec.run.fs
        self.frozen = spec.task.noise == "frozen"
        self.task = spec.task.make()
        self.n_intervals = self.task.n_intervals
        self.n_conditions = len(spec.conditions)
        self.start_level = float(spec.procedure["level_start"])
        self.target_proportion = procedures.get(spec.procedure_kind)(**spec.procedure).target_proportion
        self.dtype = dtype
        self.device = device
        self._observer = observer
        self._stimulus = stimuli.get(spec.stimulus_kind)()
        self._tracked = self._stimulus.tracked[spec.tracks]
        self._numeric, self._groups = self._columns()
        self.aid = aid_of(spec, observer, device, dtype)
        self.n_samples = self._longest() + (0 if self.aid is None else self.aid.delay)

    # -- parameters ------------------------------------------------------------------------------------------------

    def _columns(self) -> tuple[dict[str, Tensor], list[tuple[dict[str, Any], Tensor]]]:
        """Split the factors into numeric columns (n_conditions,) and options, which cannot vary within a batch.

        Options come as groups: their values, and the conditions that have them.
        """
        numeric: dict[str, Tensor] = {}
        options: list[str] = []
        for name in self.spec.factors:
            values = [condition[name] for condition in self.spec.conditions]
            if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
                numeric[name] = torch.tensor(values, dtype=torch.float64, device=self.device)
            else:
                options.append(name)
        members: dict[tuple[Any, ...], list[int]] = {}
        for index, condition in enumerate(self.spec.conditions):
            members.setdefault(tuple(condition[name] for name in options), []).append(index)
        groups = [
            (dict(zip(options, values, strict=True)), torch.tensor(indices, device=self.device))
            for values, indices in members.items()
        ]
        return numeric, groups

    def _longest(self) -> int:
        """Return the length of all sounds: that of the longest condition, at any level that a track can reach."""
        limits = [self.start_level, *(float(self.spec.procedure[name]) for name in ("level_min", "level_max"))]
        durations = []
        for condition in self.spec.conditions:
            own = {k: v for k, v in condition.items() if not k.startswith(STANDARD)}
            standard = {k.removeprefix(STANDARD): v for k, v in condition.items() if k.startswith(STANDARD)}
            for level in filter(math.isfinite, limits):
                variable = {**self.spec.stimulus, **own, self.spec.tracks: level}
                sounds = [variable, {**variable, **self.spec.standard, **standard}]
                durations += [self._stimulus.duration_s(sound) for sound in sounds]
        return int(round_samples(torch.tensor(durations, dtype=torch.float64), self.fs).max())

    def generate(
        self, condition: Tensor, level: Tensor, is_target: Tensor, keys: Keys, rove_db: Tensor | None = None
    ) -> Tensor:
        """Return sounds (K, T) in pascal for condition (K,), level (K,), target or reference (K,) and keys (K,).

        Sounds for two ears are (K, 2, T). If the observer has an aid, they are what the aid gives.
        """
        sounds = self._unaided(condition, level, is_target, keys, rove_db)
        return sounds if self.aid is None else self.aid(sounds)

    def _unaided(
        self, condition: Tensor, level: Tensor, is_target: Tensor, keys: Keys, rove_db: Tensor | None = None
    ) -> Tensor:
        """Return the sounds without an aid.

        Rows of conditions that differ in an option (a text or a switch) are generated group by group.
        """
        if len(self._groups) == 1:
            return self._generate_alike(condition, level, is_target, keys, rove_db, self._groups[0][0])
        ears = () if self._stimulus.n_ears == 1 else (self._stimulus.n_ears,)
        sounds = torch.zeros((len(condition), *ears, self.n_samples), dtype=self.dtype, device=self.device)
        for chosen, members in self._groups:
            rows = torch.isin(condition, members).nonzero()[:, 0]
            if len(rows):
                rove = None if rove_db is None else rove_db[rows]
                sounds[rows] = self._generate_alike(
                    condition[rows], level[rows], is_target[rows], keys[rows], rove, chosen
                )
        return sounds

    def _generate_alike(
        self,
        condition: Tensor,
        level: Tensor,
        is_target: Tensor,
        keys: Keys,
        rove_db: Tensor | None,
        chosen: Mapping[str, Any],
    ) -> Tensor:
        parameters = self._parameters(condition, level, is_target, chosen)
        sound = self._stimulus.generate(parameters, keys, self.fs, self.dtype)
        if rove_db is not None:
            sound = sound * (10 ** (rove_db / 20)).to(sound.dtype).reshape(-1, *[1] * (sound.ndim - 1))
        missing = self.n_samples - sound.shape[-1]
        return torch.nn.functional.pad(sound, (0, missing)) if missing > 0 else sound

    def _parameters(
        self, condition: Tensor, level: Tensor, is_target: Tensor, chosen: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the parameters of the stimulus for conditions (K,) with the same options ``chosen``."""
        parameters: dict[str, Any] = {**self.spec.stimulus, **chosen}
        columns = {name: column[condition] for name, column in self._numeric.items()}
        parameters |= {name: column for name, column in columns.items() if not name.startswith(STANDARD)}
        parameters[self.spec.tracks] = level
        for name, value in self._in_reference(columns).items():
            own = torch.as_tensor(parameters[name], dtype=torch.float64, device=self.device)
            parameters[name] = torch.where(is_target, own, value)
        return parameters

    def _in_reference(self, columns: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the parameters that differ in the reference: those of the standard, or what the stimulus says."""
        if self.task.has_standard:
            varied = {k.removeprefix(STANDARD): v for k, v in columns.items() if k.startswith(STANDARD)}
            return {**self.spec.standard, **varied}
        changed: dict[str, Any] = dict(self._tracked.reference_also)
        if self._tracked.reference is not None:
            changed[self.spec.tracks] = self._tracked.reference
        return changed

    # -- trials ----------------------------------------------------------------------------------------------------

    def keys(self, condition: Tensor, track: Tensor, trial: Tensor) -> Keys:
        """Return the keys (B, I) of trials."""
        interval = torch.arange(self.n_intervals, device=self.device)
        return Keys.make(
            self.spec.run.seed,
            condition=condition[:, None],
            observer=self._observer,
            track=track[:, None],
            trial=trial[:, None],
            interval=interval[None, :],
            device=self.device,
        )

    def target(self, condition: Tensor, token: Tensor, level: float) -> Tensor:
        """Return training targets (K, T)."""
        return self._training(condition, token, level, is_target=True)

    def reference(self, condition: Tensor, token: Tensor) -> Tensor:
        """Return training references (K, T)."""
        return self._training(condition, token, self.start_level, is_target=False)

    def _training(self, condition: Tensor, token: Tensor, level: float, is_target: bool, aided: bool = True) -> Tensor:
        keys = Keys.make(
            self.spec.run.seed,
            condition=condition,
            observer=self._observer,
            trial=TRAINING_TRIAL_BASE + token,
            device=self.device,
        )
        levels = torch.full(condition.shape, level, dtype=torch.float64, device=self.device)
        role = torch.full(condition.shape, is_target, device=self.device)
        make = self.generate if aided else self._unaided
        return make(condition, levels, role, self._noise_keys(keys))

    def _noise_keys(self, keys: Keys) -> Keys:
        """Return the keys of the waveforms: with frozen noise all intervals of a condition share one."""
        if not self.frozen:
            return keys
        zero = torch.zeros_like(keys.condition)
        return keys.replace(track=zero, trial=zero, interval=zero)

    def place(self, keys: Keys) -> Tensor | None:
        """Return the place of the label that is asked for in trials with ``keys`` (B, I), from 0; None if none is."""
        if not isinstance(self.task, Identification):
            return None
        if self.task.place is not None:
            return torch.full(keys.shape[:1], self.task.place - 1, device=self.device)
        n_places = len(self.alternatives())
        return (uniform(keys[:, 0], Purpose.TARGET, 1)[..., 0] * n_places).to(torch.int64)

    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """Return the labels of each place of the sounds: those of the first condition, all have the same."""
        stimulus = cast(LabelledStimulus, self._stimulus)
        return stimulus.alternatives({**self.spec.stimulus, **self.spec.conditions[0]})

    def draw_target(self, condition: Tensor, level: Tensor, keys: Keys, place: Tensor | None = None) -> Tensor:
        """Return the target's code (B,): its interval, "no target" in some yes/no trials, or the label; see the task.

        Parameters
        ----------
        condition, level : Tensor (B,)
        keys : Keys (B, I)
        place : Tensor (B,), optional
            From `place`.
        """
        if place is not None:
            return self._labels(condition, level, keys).gather(1, place[:, None])[:, 0]
        draw = uniform(keys[:, 0], Purpose.TARGET, 1)[..., 0]
        return torch.as_tensor(self.task.draw_target(draw.cpu().numpy()), device=self.device)

    def _labels(self, condition: Tensor, level: Tensor, keys: Keys) -> Tensor:
        """Return the labels (B, C) of the sounds of trials."""
        stimulus = cast(LabelledStimulus, self._stimulus)
        names = self._noise_keys(keys)[:, 0]
        labels: Tensor | None = None
        for chosen, members in self._groups:
            rows = torch.isin(condition, members).nonzero()[:, 0]
            if len(rows):
                every = torch.ones_like(rows, dtype=torch.bool)
                found = stimulus.labels(self._parameters(condition[rows], level[rows], every, chosen), names[rows])
                labels = found.new_empty(len(condition), found.shape[1]) if labels is None else labels
                labels[rows] = found
        assert labels is not None
        return labels

    def make_intervals(self, condition: Tensor, level: Tensor, target: Tensor, keys: Keys) -> Tensor:
        """Return the sounds of trials.

        Parameters
        ----------
        condition, level, target : Tensor (B,)
        keys : Keys (B, I)

        Returns
        -------
        Tensor (B, I, T), or (B, I, 2, T) for two ears
            Pascal, in the order of presentation.
        """
        n_rows, n_intervals = keys.shape
        position = torch.arange(n_intervals, device=self.device)[None, :]
        is_target = (self.task.identifies | (position == target[:, None])).reshape(-1)
        flat, levels = (x[:, None].expand(n_rows, n_intervals).reshape(-1) for x in (condition, level))
        sounds = self.generate(flat, levels, is_target, self._noise_keys(keys).flatten(), self._rove(keys))
        return sounds.reshape(n_rows, n_intervals, *sounds.shape[1:])

    def one_interval(self, condition: Tensor, level: Tensor, target: Tensor, keys: Keys, place: int) -> Tensor:
        """Return the sounds (B, T) of the interval ``place`` of trials, the same as `make_intervals` gives there."""
        one, is_target = keys[:, place], self.task.identifies | (target == place)
        rove = self._rove(keys)
        if rove is not None:
            rove = rove.reshape(keys.shape)[:, place]
        return self.generate(condition, level, is_target, self._noise_keys(one), rove)

    def _rove(self, keys: Keys) -> Tensor | None:
        width = self.spec.task.rove_db
        if not width:
            return None
        per_trial = self.spec.task.rove_per == "trial"
        drawn = keys.replace(interval=torch.zeros_like(keys.interval)) if per_trial else keys
        return (width * (uniform(drawn, Purpose.ROVE, 1)[..., 0] - 0.5)).expand(keys.shape).reshape(-1)

    # -- check -----------------------------------------------------------------------------------------------------

    def check(self, rows: int = 32) -> None:
        """Generate one target and one reference of every condition, without the aid.

        Raises
        ------
        SpecError
            If a generator refuses its parameters, or a sound is not finite.
        """
        for start in range(0, self.n_conditions, rows):
            condition = torch.arange(start, min(start + rows, self.n_conditions))
            token = torch.zeros_like(condition)
            for is_target in (True, False):
                sound = self._training(condition, token, self.start_level, is_target, aided=False)
                if not bool(torch.isfinite(sound).all()):
                    row = int((~torch.isfinite(sound).flatten(1).all(dim=1)).nonzero()[0, 0]) + start
                    raise SpecError(f"The sound of condition {self.spec.conditions[row]} is not finite.")
