"""Calibration of internal noise: one number, set so that a 1-dB level difference is just noticeable.

Dau, Pueschel and Kohlrausch (1996), J. Acoust. Soc. Am. 99, 3615-3622: the variance of the internal noise is chosen
such that the just-noticeable level difference of a 1-kHz tone at 60 dB SPL is 1 dB; it is then kept for all other
experiments.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from psysim.errors import CalibrationError
from psysim.procedures.sdt import d_prime_mafc
from psysim.stimuli import tone

if TYPE_CHECKING:
    from psysim.models.base import Model, Representation

__all__ = ["IntensityTask", "calibrate_intensity", "calibration_tones", "intensity_jnd", "stored"]


@dataclass(frozen=True)
class IntensityTask:
    """The intensity-discrimination task that fixes the internal noise.

    Attributes
    ----------
    frequency_hz, level_db_spl, duration_s, ramp_s : float
        The tone: 1 kHz, 60 dB SPL, 0.5 s with 10-ms raised-cosine ramps.
    jnd_db : float
        Level difference that shall be just noticeable.
    template_increment_db : float
        Supra-threshold level of the template above the pedestal.
    n_intervals : int
        Number of intervals of the forced-choice task.
    target_proportion : float
        Proportion correct at the just-noticeable difference.
    """

    frequency_hz: float = 1000.0
    level_db_spl: float = 60.0
    duration_s: float = 0.5
    ramp_s: float = 0.01
    jnd_db: float = 1.0
    template_increment_db: float = 5.0
    n_intervals: int = 3
    target_proportion: float = 2**-0.5

    @property
    def d_prime(self) -> float:
        """Sensitivity needed for the target proportion (Green and Dai, 1991, m-AFC integral)."""
        return float(d_prime_mafc(self.target_proportion, self.n_intervals))


def calibration_tones(model: Model, task: IntensityTask, level_db_spl: list[float]) -> Tensor:
    """Return the task's tone at every level, (K, T) in pascal, at the model's rate and on its device."""
    return tone(
        frequency_hz=task.frequency_hz,
        level_db_spl=torch.tensor(level_db_spl, dtype=torch.float64),
        duration_s=task.duration_s,
        ramp_s=task.ramp_s,
        fs=model.fs,
        dtype=model.dtype,
    ).to(model.device)


def _representation(model: Model, task: IntensityTask, level_db_spl: list[float]) -> Representation:
    with torch.no_grad():
        return model.represent(calibration_tones(model, task, level_db_spl))


def _template(model: Model, task: IntensityTask, level_db_spl: float) -> tuple[Tensor, Tensor, float]:
    """Return the unit-energy template, the reference representation (both float64, flat) and the frame rate."""
    both = _representation(model, task, [level_db_spl, level_db_spl + task.template_increment_db])
    low, high = both.values.flatten(1).to(torch.float64)
    difference = high - low
    energy = difference.square().sum().sqrt()
    if not (torch.isfinite(energy) and energy > 0):
        raise CalibrationError(
            f"The model's representation does not change between {level_db_spl:g} and "
            f"{level_db_spl + task.template_increment_db:g} dB SPL at {task.frequency_hz:g} Hz: "
            "the internal noise cannot be calibrated with this tone. Check the model's channels and level convention."
        )
    return difference / energy, low, both.fs


def _sensitivity(model: Model, task: IntensityTask, level_db_spl: float) -> Callable[[float], float]:
    """Return mu(increment in dB) in the density form: the template's inner product over sqrt(frame rate)."""
    template, low, rate = _template(model, task, level_db_spl)

    def mu(increment_db: float) -> float:
        high = _representation(model, task, [level_db_spl + increment_db]).values.flatten().to(torch.float64)
        return float(((high - low) * template).sum()) / rate**0.5

    return mu


def calibrate_intensity(model: Model, task: IntensityTask | None = None) -> float:
    """Return the internal-noise standard deviation that makes ``task.jnd_db`` just noticeable.

    Parameters
    ----------
    model : Model
        Auditory model whose channels include the tone, as a rule the single channel at the tone's frequency.
    task : IntensityTask, optional
        Default: 1 dB at 1 kHz, 60 dB SPL, in a 3-AFC task at 70.7 % correct.

    Returns
    -------
    float
        Standard deviation on the decision variable in the density form (inner product with the unit-energy template
        over the square root of the representation's rate), in the model's output unit times s^0.5.

    Raises
    ------
    CalibrationError
        If the model's output does not grow with the level of the tone.
    """
    task = task or IntensityTask()
    mu = _sensitivity(model, task, task.level_db_spl)(task.jnd_db)
    if not mu > 0:
        raise CalibrationError(
            f"The decision variable for a {task.jnd_db:g}-dB increment is {mu:g}, not positive: "
            "the internal noise cannot be calibrated."
        )
    return mu / task.d_prime


def intensity_jnd(
    model: Model, noise_std: float, level_db_spl: float, task: IntensityTask | None = None, highest_db: float = 20.0
) -> float:
    """Return the just-noticeable level difference in dB by root finding, without tracks.

    Parameters
    ----------
    model : Model
    noise_std : float
        Internal-noise standard deviation in the density form, from `calibrate_intensity`.
    level_db_spl : float
        Pedestal level in dB SPL.
    task : IntensityTask, optional
        Tone and task; its own level is replaced by ``level_db_spl``.
    highest_db : float
        Largest increment considered.

    Raises
    ------
    CalibrationError
        If the increment needed exceeds ``highest_db``.
    """
    task = task or IntensityTask()
    mu = _sensitivity(model, task, level_db_spl)
    needed = noise_std * task.d_prime
    if mu(highest_db) < needed:
        raise CalibrationError(f"The level difference at {level_db_spl:g} dB SPL would exceed {highest_db:g} dB.")
    return float(brentq(lambda increment: mu(increment) - needed, 1e-6, highest_db, xtol=1e-6))


def stored(facts: Mapping[str, Any], compute: Callable[[], float]) -> tuple[float, bool]:
    """Return a calibration from the user's cache, computing and storing it if anything in ``facts`` is new.

    Parameters
    ----------
    facts : mapping
        Everything the value depends on (observer, model parameters, task, psysim version): JSON-able.
    compute : callable
        Returns the value.

    Returns
    -------
    value : float
    from_cache : bool
    """
    text = json.dumps(facts, sort_keys=True, default=str)
    path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    try:
        known = json.loads(path.read_text())
        if known["facts"] == json.loads(text):
            return float(known["value"]), True
    except (OSError, ValueError, KeyError):
        pass  # absent, unreadable or from another version: computed again
    value = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"facts": json.loads(text), "value": value}, indent=1))
        temporary.replace(path)
    except OSError:
        pass  # a read-only home: the value is in the result's provenance all the same
    return value, False


@functools.cache
def code_digest() -> str:
    """Return a digest of the code that a calibration runs through: a changed model is calibrated anew."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256((root / "units.py").read_bytes())
    for room in ("models", "observers", "ops", "stages", "stimuli"):
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of stored calibrations (``PSYSIM_CACHE_DIR`` or the user's cache folder)."""
    import platformdirs

    return Path(os.environ.get("PSYSIM_CACHE_DIR") or platformdirs.user_cache_dir("psysim")) / "calibration"
