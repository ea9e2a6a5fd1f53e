"""The description of a training, a TOML file: sounds, what is to be learnt, nerve, network; checked before use."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from psysim.errors import PsysimError, SpecError
from psysim.evaluation.descent import DescentSettings
from psysim.experiments.messages import pydantic_problems, show, unknown_key
from psysim.experiments.spec import Problem, SpecProblems
from psysim.models.phaselocknet import Architecture, Configuration, make_nerve, published_config
from psysim.stimuli import LabelledStimulus, Stimulus, round_samples
from psysim.stimuli import registry as stimuli

__all__ = ["Head", "Nerve", "Recipe", "TrainingSettings", "Varied", "load_recipe", "loads_recipe"]

TABLES = ("title", "description", "fs", "stimulus", "vary", "heads", "nerve", "layers", "training")
REQUIRED = ("title", "stimulus", "heads", "layers")


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Varied(_Table):
    """A parameter of the stimulus that differs from sound to sound: a range, or a list of values."""

    low: float | None = pydantic.Field(default=None, description="lowest value")
    high: float | None = pydantic.Field(default=None, description="highest value")
    scale: Literal["linear", "log"] = pydantic.Field(default="linear", description="on which values are uniform")
    choices: list[float | str | None] | None = pydantic.Field(default=None, description="values, equally likely")

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None:
                raise ValueError("give either choices = [...], with at least one value, or low and high")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("give low and high, low below high, or choices = [...]")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError("scale = 'log' needs low above 0")
        return self

    @property
    def is_text(self) -> bool:
        """Whether a value is not a number: sounds of one batch share it."""
        return any(not isinstance(value, int | float) for value in self.choices or ())

    def position(self, value: Any) -> Any:
        """Return where values lie between ``low`` (0) and ``high`` (1) on the scale."""
        assert self.low is not None
        assert self.high is not None
        if self.scale == "log":
            return (value / self.low).log() / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value(self, position: float) -> float:
        """Return the value at a position between 0 and 1."""
        assert self.low is not None
        assert self.high is not None
        if self.scale == "log":
            return float(self.low * (self.high / self.low) ** position)
        return float(self.low + (self.high - self.low) * position)


class Head(_Table):
    """What one output of the network says."""

    kind: Literal["present", "value", "label"] = pydantic.Field(
        description="present: whether the target is there. value: in which class a varied parameter lies. label: which "
        "label (word) the sound has at a place"
    )
    tracks: str | None = pydantic.Field(
        default=None, description="kind 'present': the tracked variable of the stimulus whose reference is no target"
    )
    parameter: str | None = pydantic.Field(default=None, description="kind 'value': name of the varied parameter")
    n_classes: int | None = pydantic.Field(default=None, ge=2, le=4096, description="kind 'value': number of classes")
    place: int | None = pydantic.Field(
        default=None, ge=1, le=255, description="kind 'label': number of the label, from 1"
    )

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"present": {"tracks"}, "value": {"parameter", "n_classes"}, "label": {"place"}}[self.kind]
        for name in ("tracks", "parameter", "n_classes", "place"):
            if (getattr(self, name) is not None) != (name in needed):
                raise ValueError(f"kind = '{self.kind}' " + (f"needs {name}" if name in needed else f"has no {name}"))
        return self


class Nerve(_Table):
    """The auditory nerve in front of the network; see `psysim.models.Saddler2024`."""

    limit_hz: float = pydantic.Field(default=3000.0, gt=0, description="nominal phase-locking limit, Hz")
    variant: Literal["published", "corrected"] = pydantic.Field(default="published", description="of that limit")
    fs_out: float = pydantic.Field(default=10e3, gt=0, description="rate of the spike counts, Hz")
    num_cf: int = pydantic.Field(default=50, ge=1, le=1000, description="number of frequency channels")
    min_cf: float = pydantic.Field(default=60.0, gt=0, description="lowest centre frequency, Hz")
    max_cf: float = pydantic.Field(default=8000.0, gt=0, description="highest centre frequency, Hz")
    n_fibers: tuple[int, int, int] = pydantic.Field(
        default=(384, 160, 96), description="fibres of high, medium and low spontaneous rate in each channel"
    )


class TrainingSettings(DescentSettings):
    """How the weights are found."""

    batch: int = pydantic.Field(default=32, ge=2, le=65536, description="sounds per step; all are new in every step")
    gradient_limit: float | None = pydantic.Field(
        default=1.0, gt=0, description="largest norm of the gradient of a step; none: no limit"
    )
    precision: Literal["float32", "bfloat16"] = pydantic.Field(
        default="float32", description="bfloat16: products in 16 bit, weights and sums in 32 bit"
    )
    n_test: int = pydantic.Field(default=2048, ge=1, le=2**23, description="sounds of the test at the end")


@dataclass(frozen=True)
class Recipe:
    """A checked description of a training; from `load_recipe`.

    Attributes
    ----------
    title : str
    fs : float
        Sampling rate of the sounds and of the nerve model, Hz.
    kind : str
        Registered name of the stimulus.
    stimulus : dict
        Its parameters that are the same in all sounds, defaults filled in.
    vary : dict of str to Varied
        Those that differ.
    heads : dict of str to Head
        Outputs of the network.
    classes : dict of str to tuple of str
        Texts of the classes of each head.
    nerve : Nerve
    layers : list of dict
        The network, as an arch.json of PhaseLockNet holds it.
    training : TrainingSettings
    n_samples : int
        Length of all sounds.
    text : str
        The TOML text.
    """

    title: str
    fs: float
    kind: str
    stimulus: dict[str, Any]
    vary: dict[str, Varied]
    heads: dict[str, Head]
    classes: dict[str, tuple[str, ...]]
    nerve: Nerve
    layers: list[dict[str, Any]]
    training: TrainingSettings
    n_samples: int
    text: str

    @property
    def config(self) -> dict[str, Any]:
        """The config.json of the model."""
        config = published_config("word", 3000)
        cochlea, nerve = config["kwargs_cochlea"], self.nerve
        cochlea |= {"sr_input": self.fs, "sr_cochlea": self.fs, "sr_output": nerve.fs_out}
        cochlea["config_filterbank"] |= {"num_cf": nerve.num_cf, "min_cf": nerve.min_cf, "max_cf": nerve.max_cf}
        cochlea["kwargs_fir_lowpass_filter_output"]["cutoff"] = nerve.limit_hz
        cochlea["kwargs_spike_generator_binomial"]["n_per_channel"] = list(nerve.n_fibers)
        config["n_classes_dict"] = {name: len(names) for name, names in self.classes.items()}
        frames = -(-self.n_samples // round(self.fs / nerve.fs_out))
        config["psysim"] = {
            "ears": 1,
            "n_samples": self.n_samples,
            "buffer": [0, 0],
            "size": [nerve.num_cf, frames],
        }
        return config

    def architecture(self) -> Architecture:
        """Return the network."""
        size = self.config["psysim"]["size"]
        heads = {name: len(names) for name, names in self.classes.items()}
        return Architecture.parse(self.layers, (len(self.nerve.n_fibers), *size), heads)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check the description of a training.

    Parameters
    ----------
    path : path
        A TOML file with the tables ``[stimulus]`` (as in experiments), ``[vary]``, ``[heads.NAME]``, ``[nerve]``,
        ``[training]`` and the list ``layers``.

    Raises
    ------
    SpecError
        If it cannot be read, or anything in it is wrong: all mistakes are listed with their key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a TOML text file ({error}).") from None
    return loads_recipe(text, source=str(path), folder=path.parent)


def loads_recipe(text: str, *, source: str = "<text>", folder: Path | None = None) -> Recipe:
    """Check the description of a training given as TOML text; see `load_recipe`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: this is not valid TOML: {error}. Strings need quotes, numbers none.") from None
    check = _Checker(tables, folder or Path())
    recipe = check.recipe(text)
    if check.problems or recipe is None:
        raise SpecProblems(source, check.problems)
    return recipe


class _Checker:
    """Collects the mistakes of a recipe."""

    def __init__(self, tables: dict[str, Any], folder: Path) -> None:
        self.tables, self.folder = tables, folder
        self.problems: list[Problem] = []

    def add(self, key: str, message: str) -> None:
        self.problems.append(Problem(key, message))

    def table(self, name: str) -> dict[str, Any]:
        value = self.tables.get(name, {})
        if not isinstance(value, dict):
            self.add(name, f"must be a table, written [{name}].")
            return {}
        return dict(value)

    def checked(self, model: type[pydantic.BaseModel], values: Any, key: str) -> Any:
        if not isinstance(values, dict):
            self.add(key, "must be a table.")
            return None
        try:
            return model.model_validate(values)
        except pydantic.ValidationError as error:
            self.problems += pydantic_problems(error, key, model)
            return None

    def recipe(self, text: str) -> Recipe | None:
        for key in self.tables:
            if key not in TABLES:
                self.add(key, unknown_key(key, TABLES))
        for key in REQUIRED:
            if key not in self.tables:
                self.add(key, "is missing.")
        fs = self.tables.get("fs", 20e3)
        if isinstance(fs, bool) or not isinstance(fs, int | float) or not 1000 <= fs <= 400e3:
            self.add("fs", f"= {show(fs)} must be a rate from 1000 to 400000 Hz.")
            fs = 20e3
        nerve = self.checked(Nerve, self.table("nerve"), "nerve")
        training = self.checked(TrainingSettings, self.table("training"), "training")
        vary = {name: self.checked(Varied, value, f"vary.{name}") for name, value in self.table("vary").items()}
        heads = {name: self.checked(Head, value, f"heads.{name}") for name, value in self.table("heads").items()}
        kind = self.stimulus_kind()
        if self.problems or kind is None:
            return None
        stimulus = self.stimulus(kind, vary)
        classes = {name: self.classes(name, head, kind, stimulus, vary) for name, head in heads.items()}
        tracked = {head.tracks for head in heads.values() if head.kind == "present"}
        if len(tracked) > 1:
            self.add("heads", "of kind 'present' must all have the same tracked variable.")
        layers = self.layers()
        if self.problems:
            return None
        recipe = Recipe(
            title=str(self.tables["title"]),
            fs=float(fs),
            kind=str(self.tables["stimulus"]["kind"]),
            stimulus=stimulus,
            vary=vary,
            heads=heads,
            classes=classes,
            nerve=nerve,
            layers=layers,
            training=training,
            n_samples=self.n_samples(kind, stimulus, vary, float(fs)),
            text=text,
        )
        key = "nerve"
        try:
            make_nerve(Configuration.parse(recipe.config))
            key = "layers"
            recipe.architecture()
        except PsysimError as error:
            self.add(key, str(error))
        return recipe

    def stimulus_kind(self) -> type[Stimulus] | None:
        name = self.table("stimulus").get("kind")
        if name not in stimuli:
            self.add("stimulus.kind", f"= {show(name)} is not known. Known: {', '.join(stimuli.names())}.")
            return None
        return stimuli.get(str(name))

    def stimulus(self, kind: type[Stimulus], vary: dict[str, Varied]) -> dict[str, Any]:
        given = {k: v for k, v in self.table("stimulus").items() if k != "kind"}
        for name in vary:
            if name not in kind.Parameters.model_fields:
                self.add(f"vary.{name}", unknown_key(name, kind.Parameters.model_fields))
            elif name in given:
                self.add(f"stimulus.{name}", f"is also in [vary]: remove one of the two '{name}'.")
        if isinstance(given.get("path"), str):
            given["path"] = str(self.folder / given["path"])
        for side in (0, -1):
            ends = {n: v.choices[side] if v.choices is not None else (v.low, v.high)[side] for n, v in vary.items()}
            try:
                values = kind.Parameters.model_validate(given | ends).model_dump()
            except pydantic.ValidationError as error:
                self.problems += [
                    p for p in pydantic_problems(error, "stimulus", kind.Parameters) if p not in self.problems
                ]
                values = {}
        return {name: value for name, value in values.items() if name not in vary}

    def classes(
        self, name: str, head: Head, kind: type[Stimulus], stimulus: dict[str, Any], vary: dict[str, Varied]
    ) -> tuple[str, ...]:
        key = f"heads.{name}"
        if head.kind == "present":
            if head.tracks not in kind.tracked:
                self.add(f"{key}.tracks", unknown_key(str(head.tracks), kind.tracked))
            return ("absent", "present")
        if head.kind == "value":
            varied = vary.get(str(head.parameter))
            if varied is None or varied.low is None:
                self.add(f"{key}.parameter", f"= {show(head.parameter)} must be in [vary], with low and high.")
                return ()
            n = head.n_classes or 0
            return tuple(f"{varied.value((k + 0.5) / n):.6g}" for k in range(n))
        if not issubclass(kind, LabelledStimulus):
            self.add(f"{key}.kind", "= 'label' needs a stimulus with labels, as speech_in_noise.")
            return ()
        alternatives = kind().alternatives({**kind().complete({}), **stimulus})
        if head.place is None or head.place > len(alternatives):
            self.add(f"{key}.place", f"= {head.place}, but the sounds have {len(alternatives)} labels.")
            return ()
        return alternatives[head.place - 1]

    def layers(self) -> list[dict[str, Any]]:
        given = self.tables.get("layers")
        if not isinstance(given, list) or not all(isinstance(layer, dict) and "type" in layer for layer in given):
            self.add("layers", 'must be a list of tables, each with a type, for instance [{ type = "relu" }].')
            return []
        return [
            {"layer_type": layer["type"], "args": {"name": f"{layer['type']}_{i}"} | _without(layer, "type")}
            for i, layer in enumerate(given)
        ]

    def n_samples(self, kind: type[Stimulus], stimulus: dict[str, Any], vary: dict[str, Varied], fs: float) -> int:
        import torch

        longest = 0.0
        for side in (0, -1):
            ends = {n: v.choices[side] if v.choices is not None else (v.low, v.high)[side] for n, v in vary.items()}
            longest = max(longest, kind().duration_s({**stimulus, **ends}))
        return int(round_samples(torch.tensor(longest, dtype=torch.float64), fs))


def _without(table: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != name}
