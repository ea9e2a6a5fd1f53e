"""Hearing aids fitted by gradient: the impaired ear, aided, is to respond as the normal ear does without an aid."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pydantic
import tomli_w
import torch
from torch import Tensor, nn

from psysim.errors import SpecError, check_option
from psysim.evaluation.descent import Descent, DescentProgress, DescentSettings, open_folder
from psysim.hearing import Audiogram, as_audiogram, hearing_loss_options
from psysim.hearing.aids import HearingAid
from psysim.models import Model
from psysim.models import registry as models
from psysim.results.files import write_atomically
from psysim.rng import Keys
from psysim.stimuli import registry as stimuli

__all__ = [
    "AidFitSettings",
    "Distance",
    "LoudnessDistance",
    "ResponseDistance",
    "SpeechSounds",
    "aid_distances",
    "fit_aid",
]

TARGETS = ("representation", "loudness", "both")
LISTS = {"training": tuple(range(1, 9)), "held out": (9, 10)}
OBSERVER = 254  # experiments never have so many: none of their sounds is one of these
FRAME_S = 0.125


class AidFitSettings(DescentSettings):
    """How an aid is fitted."""

    batch: int = pydantic.Field(default=4, ge=1, le=4096, description="sounds per step; all are new in every step")
    n_steps: int = pydantic.Field(default=150, ge=1, le=10**6, description="largest number of steps")
    learning_rate: float = pydantic.Field(default=0.5, gt=0, le=10, description="of Adam, at its highest")
    validate_every: int = pydantic.Field(default=15, ge=1, description="steps between validations and checkpoints")
    n_validation: int = pydantic.Field(default=12, ge=1, le=2**20, description="held-out sounds, the same ones")
    patience: int = pydantic.Field(default=4, ge=1, description="validations without progress that end it")
    duration_s: float = pydantic.Field(default=1.0, gt=0.1, le=10, description="of each sound, s")
    level_db_spl: tuple[float, ...] = pydantic.Field(
        default=(50.0, 65.0, 80.0), min_length=1, description="levels of the speech, dB SPL"
    )
    snr_db: tuple[float, ...] = pydantic.Field(
        default=(0.0, 10.0, 100.0), min_length=1, description="signal-to-noise ratios, dB; 100 is quiet"
    )
    gain_limits_db: tuple[float, float] = pydantic.Field(
        default=(-20.0, 60.0), description="smallest and largest gain, dB: parameters named gain... stay within"
    )
    max_output_db_spl: float = pydantic.Field(
        default=110.0, gt=0, le=140, description="level in 125 ms above which output is penalised, dB SPL"
    )


class SpeechSounds:
    """Matrix sentences in quiet and in noise, by number.

    Training sounds are of lists 1 to 8, held-out ones of lists 9 and 10.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    settings : AidFitSettings
    """

    def __init__(self, fs: float, settings: AidFitSettings) -> None:
        self.fs, self.settings = fs, settings
        self.n_samples = round(settings.duration_s * fs)

    def make(self, split: str, number: Tensor) -> Tensor:
        """Return sounds (B, T) in pascal; ``split`` is "training" or "held out", ``number`` (B,) says which."""
        check_option("split", split, LISTS)
        lists, levels, ratios = LISTS[split], self.settings.level_db_spl, self.settings.snr_db
        keys = Keys.make(
            self.settings.seed,
            condition=list(LISTS).index(split),
            observer=OBSERVER,
            track=number,
            device=number.device,
        )

        def nth(values: Sequence[float], every: int) -> Tensor:
            table = torch.tensor(values, dtype=torch.float64, device=number.device)
            return table[(number // every) % len(values)]

        parameters: dict[str, Any] = {
            "fixed": "speech",
            "level_db_spl": nth(levels, 1),
            "snr_db": nth(ratios, len(levels)),
            "sentence_list": nth(lists, len(levels) * len(ratios)),
            "lead_s": 0.05,
            "lag_s": 0.05,
        }
        sounds = stimuli.get("speech_in_noise")().generate(parameters, keys, self.fs)
        return sounds[:, : self.n_samples]


class Distance(ABC):
    """How far an impaired ear's response to an aided sound is from a normal ear's response to the original."""

    @abstractmethod
    def wanted(self, x: Tensor) -> Tensor:
        """Return the normal ear's response to sounds (B, T), without gradient."""

    @abstractmethod
    def between(self, y: Tensor, wanted: Tensor) -> Tensor:
        """Return the distance (B,) of the impaired ear's response to ``y`` (B, T) from ``wanted``."""


class ResponseDistance(Distance):
    """Mean square difference of internal representations over channels and time.

    Parameters
    ----------
    normal, impaired : Model
        The same model with normal hearing and with the hearing loss.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models, with its nerve model: (spikes/s)^2.
    """

    def __init__(self, normal: Model, impaired: Model) -> None:
        self.normal, self.impaired = normal, impaired

    def wanted(self, x: Tensor) -> Tensor:
        """Return the representation of the normal ear."""
        with torch.no_grad():
            return self.normal.represent(x).values

    def between(self, y: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean square difference of each row."""
        return (self.impaired.represent(y).values - wanted).square().flatten(1).mean(1)


class LoudnessDistance(Distance):
    """Mean square difference of the short-term loudness over time, in doublings of sone.

    Parameters
    ----------
    normal, impaired : Model
        A loudness model with normal hearing and with the hearing loss.
    floor_sone : float
        Loudness that is added before the logarithm, so that near silence counts little.
    """

    def __init__(self, normal: Model, impaired: Model, floor_sone: float = 0.1) -> None:
        self.normal, self.impaired, self.floor_sone = normal, impaired, floor_sone

    def _level(self, model: Model, x: Tensor) -> Tensor:
        short = cast(Any, model).loudness(x)[0]
        return torch.log2(short + self.floor_sone)

    def wanted(self, x: Tensor) -> Tensor:
        """Return the loudness of the normal ear over time."""
        with torch.no_grad():
            return self._level(self.normal, x)

    def between(self, y: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean square difference of each row."""
        return (self._level(self.impaired, y) - wanted).square().mean(1)


def distances(target: str, audiogram: Audiogram, fs: float, response: str, loudness: str) -> list[Distance]:
    """Return the distances of a target: "representation", "loudness" or "both"."""
    check_option("target", target, TARGETS)
    pairs: list[Distance] = []
    for kind, name in ((ResponseDistance, response), (LoudnessDistance, loudness)):
        if target in ("both", "representation" if kind is ResponseDistance else "loudness"):
            normal = models.get(name)(fs=fs)
            impaired = models.get(name)(fs=fs, **hearing_loss_options(name, normal, audiogram))
            pairs.append(cast(Distance, kind(normal, impaired)))
    return pairs


def aligned(aid: nn.Module, x: Tensor) -> Tensor:
    """Return the aided sound without the delay of the aid, as long as ``x`` (B, T)."""
    delay = int(getattr(aid, "delay", 0))
    return cast(Tensor, aid(nn.functional.pad(x, (0, delay))))[..., delay:]


def excess_db(y: Tensor, fs: float, limit_db_spl: float) -> Tensor:
    """Return the mean square of what the level in frames of 125 ms exceeds a limit by, (B,) dB^2."""
    frame = max(1, round(FRAME_S * fs))
    power = nn.functional.avg_pool1d(y.square().unsqueeze(1), frame, frame, ceil_mode=True)[:, 0]
    level = 10.0 * torch.log10(power / 4e-10 + 1e-12)
    return torch.relu(level - limit_db_spl).square().mean(1)


def _blocks(sounds: Tensor, size: int) -> list[Tensor]:
    return [sounds[first : first + size] for first in range(0, len(sounds), size)]


class _Fit(Descent):
    """The fit of one aid."""

    def __init__(
        self,
        aid: HearingAid,
        terms: list[Distance],
        settings: AidFitSettings,
        out: Path,
        device: str,
        progress: Callable[[DescentProgress], None] | None,
    ) -> None:
        self.aid, self.terms, self.how = aid, terms, settings
        self.sounds = SpeechSounds(aid.fs, settings)
        number = torch.arange(settings.n_validation, device=device)
        self.held_out = self.sounds.make("held out", number)
        # Every term counts as its share of what it is without an aid
        self.unaided = [
            torch.stack([self._term(t, nn.Identity(), x).mean() for x in _blocks(self.held_out, settings.batch)]).mean()
            for t in terms
        ]
        super().__init__(settings, aid.parameters(), out, device, progress)

    @staticmethod
    def _term(term: Distance, aid: nn.Module, x: Tensor, *, gradient: bool = False) -> Tensor:
        with torch.set_grad_enabled(gradient):
            return term.between(aligned(aid, x), term.wanted(x))

    def _share(self, x: Tensor, *, gradient: bool) -> Tensor:
        """Return the distance re that without an aid, averaged over the terms, (B,)."""
        with torch.set_grad_enabled(gradient):
            y = aligned(self.aid, x)
            parts = [t.between(y, t.wanted(x)) / unaided for t, unaided in zip(self.terms, self.unaided, strict=True)]
            return torch.stack(parts).mean(0) + excess_db(y, self.aid.fs, self.how.max_output_db_spl)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.aid.named_parameters())

    def loss(self) -> Tensor:
        first = self.step * self.settings.batch
        number = torch.arange(first, first + self.settings.batch, device=self.device)
        return self._share(self.sounds.make("training", number), gradient=True).mean()

    def validate(self) -> dict[str, float]:
        blocks = _blocks(self.held_out, self.settings.batch)
        shares = torch.cat([self._share(x, gradient=False) for x in blocks])
        return {"loss": float(shares.mean())}

    def constrain(self) -> None:
        low, high = self.how.gain_limits_db
        with torch.no_grad():
            for name, value in self.aid.named_parameters():
                if name.rpartition(".")[2].startswith("gain"):
                    value.clamp_(low, high)


def fit_aid(
    aid: HearingAid,
    audiogram: object,
    out: str | Path,
    *,
    target: str = "representation",
    response_model: str = "saddler2025",
    loudness_model: str = "glasberg2002",
    settings: AidFitSettings | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: Callable[[DescentProgress], None] | None = None,
) -> HearingAid:
    """Fit an aid to a hearing loss: its parameters are moved until the aided ear responds as the normal one.

    The distance is taken on matrix sentences in quiet and in noise, each term as its share of the distance without an
    aid, with Adam and early stopping on held-out sentences. The aid's delay does not count.

    Parameters
    ----------
    aid : HearingAid
        With ``learnable=True``; its parameters are changed in place.
    audiogram : Audiogram, str or mapping
        See `psysim.hearing.as_audiogram`.
    out : path
        Folder for the log, the checkpoint and, at the end, ``aid.json`` with the fitted parameters.
    target : {"representation", "loudness", "both"}
        What is to be as in the normal ear: internal representation, loudness over time, or both.
    response_model, loudness_model : str
        Registered names of the models.
    settings : AidFitSettings, optional
    device : str
    resume : bool
        Continue an interrupted fit; the result is the same as without the interruption.
    progress : callable, optional
        Called with a `DescentProgress` after every step.

    Returns
    -------
    HearingAid
        ``aid``.

    Raises
    ------
    SpecError
        If the aid has nothing to learn, or a model has no rule for a hearing loss.
    StoreError, NumericsError
        See `Descent`.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models: target "representation".
    """
    out, settings = Path(out), settings or AidFitSettings()
    ear = as_audiogram(audiogram)
    if not list(aid.parameters()):
        raise SpecError(f"{type(aid).__name__} has no parameters to fit: make it with learnable=True.")
    start = {name: value.detach().cpu().tolist() for name, value in aid.named_parameters()}
    facts = {
        "aid": type(aid).__name__,
        "start": start,
        "frequency_hz": list(ear.frequency_hz),
        "level_db_hl": list(ear.level_db_hl),
        "target": [target, response_model, loudness_model],
        "settings": settings.model_dump(exclude_none=True),
    }
    open_folder(out, tomli_w.dumps(facts), resume)
    aid.to(device)
    if (out / "aid.json").is_file():
        _set(aid, json.loads((out / "aid.json").read_text())["parameters"])
        return aid
    terms = distances(target, ear, aid.fs, response_model, loudness_model)
    for term in terms:
        for model in vars(term).values():
            if isinstance(model, nn.Module):
                model.to(device)
    run = _Fit(aid, terms, settings, out, device, progress)
    run.restore()
    run.execute()
    run.finished()
    fitted = {name: value.detach().cpu().tolist() for name, value in aid.named_parameters()}
    text = json.dumps({"parameters": fitted, "best": run.best, **facts}, indent=1)
    write_atomically(out / "aid.json", text.encode())
    return aid


def _set(aid: HearingAid, values: Mapping[str, Any]) -> None:
    with torch.no_grad():
        for name, parameter in aid.named_parameters():
            parameter.copy_(torch.as_tensor(values[name], dtype=parameter.dtype))


def aid_distances(
    aids: Mapping[str, nn.Module],
    audiogram: object,
    fs: float,
    *,
    target: str = "representation",
    response_model: str = "saddler2025",
    loudness_model: str = "glasberg2002",
    settings: AidFitSettings | None = None,
) -> dict[str, float]:
    """Return the distance of each aid on held-out sentences, as a share of that without an aid.

    Parameters
    ----------
    aids : mapping of str to Module
        Aids by name, sound (B, T) to sound (B, T) at ``fs``.
    audiogram, target, response_model, loudness_model, settings
        As for `fit_aid`.
    fs : float
        Sampling rate, Hz.

    Returns
    -------
    dict of str to float
        1 for an aid that changes nothing, 0 for normal hearing.
    """
    how = settings or AidFitSettings()
    terms = distances(target, as_audiogram(audiogram), fs, response_model, loudness_model)
    sounds = SpeechSounds(fs, how).make("held out", torch.arange(how.n_validation))
    found: dict[str, list[float]] = {}
    for name, aid in {"": nn.Identity(), **aids}.items():
        with torch.no_grad():
            found[name] = [
                float(torch.cat([t.between(aligned(aid, x), t.wanted(x)) for x in _blocks(sounds, how.batch)]).mean())
                for t in terms
            ]
    none = found.pop("")
    return {name: sum(d / n for d, n in zip(values, none, strict=True)) / len(none) for name, values in found.items()}
