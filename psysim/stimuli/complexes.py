"""Tone complexes: arbitrary components, harmonic complexes with chosen phases, and profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks
from psysim.stimuli.gating import check_ramps, gate
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.stimuli.tones import check_times, sine
from psysim.units import db_spl_to_pascal, db_to_amplitude

__all__ = ["ProfileComplex", "ToneComplex", "component_phases", "harmonic_complex", "tone_complex"]

PHASES = ("schroeder", "random", "sine", "cosine", "alternating")
MAX_COMPONENTS = 2000


def tone_complex(
    *,
    frequency_hz: Tensor,
    level_db_spl: Tensor | float,
    phase_rad: Tensor | float = 0.0,
    duration_s: Number = 0.5,
    fs: float,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return sums of arbitrary tones, sum over k of A_k sin(2 pi f_k t + phase_k).

    Level: each component has its own level, A_k = sqrt(2) times its rms pressure. The sum is not normalised; its level
    is that of the summed powers where the components differ in frequency.

    Parameters
    ----------
    frequency_hz : Tensor
        (K,) or (B, K) component frequencies in Hz, above 0 and below fs/2.
    level_db_spl : float or Tensor
        Level in dB SPL of each component, broadcast to (B, K); -inf leaves a component out.
    phase_rad : float or Tensor
        Phases in radians at the first sample, broadcast to (B, K).
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T) pascal on the device of ``frequency_hz``.

    Raises
    ------
    SpecError
        If a parameter is out of range or the shapes do not broadcast.

    Examples
    --------
    >>> tone_complex(frequency_hz=torch.tensor([500.0, 1000.0]), level_db_spl=50.0, duration_s=0.1, fs=16000).shape
    torch.Size([1, 1600])
    """
    device = frequency_hz.device
    parts = [torch.as_tensor(v, dtype=torch.float64, device=device) for v in (frequency_hz, level_db_spl, phase_rad)]
    try:
        parts = list(torch.broadcast_tensors(*parts))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(v.shape)) for v in parts)
        raise SpecError(f"frequency_hz, level_db_spl and phase_rad do not broadcast to (B, K): {shapes}.") from error
    frequency, level, phase = (v.reshape(-1, v.shape[-1]) if v.ndim else v.reshape(1, 1) for v in parts)
    components = {f"component {k}": frequency[:, k] for k in range(frequency.shape[1])}
    times = {"duration_s": duration_s, "ramp_s": ramp_s, "row": torch.arange(len(frequency))}
    p = Rows({**times, **components}, device=device)
    check_times(p, fs)
    for name in components:
        p.check(name, 0.0, fs / 2, "Hz", low_open=True)
    check_range("level_db_spl", float(level.max()), high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    check_range("phase_rad", float(phase.abs().max()), 0.0, 1e6, unit="rad")
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))
    amplitude = math.sqrt(2.0) * db_spl_to_pascal(level)

    def make(rows: Rows) -> Tensor:
        length = rows.length(fs)
        n = int(length.max())
        which = rows["row"].long()
        sound = torch.zeros(len(rows), n, dtype=torch.float64, device=device)
        for k in range(frequency.shape[1]):
            if bool(amplitude[which, k].any()):
                sound.add_(sine(frequency[which, k], phase[which, k], n, fs).mul_(amplitude[which, k][:, None]))
        return sound.mul_(gate(length, rows.length(fs, "ramp_s"), ramp_shape))

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def component_phases(
    harmonic: Tensor, n_components: Tensor, phase: str, *, curvature: Tensor, keys: Keys | None = None
) -> Tensor:
    """Return the phases in radians (B, K) of the components of harmonic complexes, for sines.

    Parameters
    ----------
    harmonic : Tensor
        (B, K) harmonic numbers n.
    n_components : Tensor
        (B,) number N of components.
    phase : str
        "schroeder": C pi n (n + 1)/N with the curvature C (C = 0: sine phase; the phase curvature d2phi/df2 is
        2 pi C/(N f0^2)); "random": uniform, from the keys; "sine": 0; "cosine": pi/2; "alternating": 0 for odd and
        pi/2 for even n.
    curvature : Tensor
        (B,) C in [-1, 1]; +1 and -1 are the positive and negative Schroeder phases (downward and upward glides).
    keys : Keys, optional
        (B,), needed for random phases.

    Returns
    -------
    Tensor
        (B, K) float64.

    Raises
    ------
    SpecError
        If the phase rule is not known, or keys are missing.

    References
    ----------
    Schroeder (1970), IEEE Trans. Inf. Theory 16, 85-89; curvature C: Lentz and Leek (2001), J. Assoc. Res.
    Otolaryngol. 2, 408-422.
    """
    check_option("phase", phase, PHASES)
    if phase == "schroeder":
        return (curvature / n_components)[:, None] * math.pi * harmonic * (harmonic + 1.0)
    if phase == "random":
        if keys is None:
            raise SpecError("Random phases need keys.")
        return 2.0 * math.pi * uniform(keys, Purpose.PHASE, harmonic.shape[1])
    quarter = torch.full_like(harmonic, math.pi / 2)
    if phase == "alternating":
        return torch.where(harmonic % 2 == 0, quarter, 0.0)
    return quarter if phase == "cosine" else torch.zeros_like(harmonic)


def harmonic_complex(
    keys: Keys | None = None,
    *,
    f0_hz: Number,
    lowest_harmonic: Number = 1,
    highest_harmonic: Number = 10,
    level_db_spl: Number | None = None,
    component_level_db_spl: Number | None = None,
    phase: str = "sine",
    curvature: Number = 1.0,
    duration_s: Number = 0.5,
    fs: float,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return harmonic complexes of equal-amplitude components.

    Level: ``level_db_spl`` is the overall level: each of the N components has 10 log10 N less (the power of whole
    periods, whatever the phases). ``component_level_db_spl`` sets each component instead. Nothing is measured.

    Parameters
    ----------
    keys : Keys, optional
        Random keys, (B,) or (), for random phases.
    f0_hz : float or (B,)
        Fundamental frequency in Hz; the highest harmonic must be below fs/2.
    lowest_harmonic, highest_harmonic : int or (B,)
        Harmonic numbers of the first and the last component.
    level_db_spl : float or (B,), optional
        Overall level in dB SPL; exactly one level must be given.
    component_level_db_spl : float or (B,), optional
        Level in dB SPL of each component.
    phase : str
        "schroeder", "random", "sine", "cosine" or "alternating", see `component_phases`.
    curvature : float or (B,)
        Schroeder curvature, -1 .. 1; the sign is that of the Schroeder phase.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    dtype : torch.dtype
        Type of the result; computed in float64.
    device : device, optional
        Where to compute; default: the device of the keys.

    Returns
    -------
    Tensor
        (B, T) pascal.

    Raises
    ------
    SpecError
        If a parameter is out of range, not exactly one level is given, or random phases have no keys.

    Examples
    --------
    >>> harmonic_complex(f0_hz=100.0, level_db_spl=60.0, phase="schroeder", curvature=[-1.0, 1.0], fs=16000).shape
    torch.Size([2, 8000])
    """
    if (level_db_spl is None) == (component_level_db_spl is None):
        raise SpecError("Give exactly one of level_db_spl (overall) and component_level_db_spl.")
    p = Rows(
        {
            "f0_hz": f0_hz,
            "lowest_harmonic": lowest_harmonic,
            "highest_harmonic": highest_harmonic,
            "level_db_spl": level_db_spl if component_level_db_spl is None else component_level_db_spl,
            "curvature": curvature,
            "duration_s": duration_s,
            "ramp_s": ramp_s,
        },
        keys,
        device,
    )
    check_times(p, fs)
    p.check("f0_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("lowest_harmonic", 1, MAX_COMPONENTS)
    p.check("highest_harmonic", 1, MAX_COMPONENTS)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    p.check("curvature", -1.0, 1.0)
    count = (p["highest_harmonic"] - p["lowest_harmonic"]).round() + 1
    if bool((count < 1).any()):
        raise SpecError("lowest_harmonic must not exceed highest_harmonic.")
    p.values["highest harmonic x f0_hz"] = p["highest_harmonic"] * p["f0_hz"]
    p.check("highest harmonic x f0_hz", 0.0, fs / 2, "Hz")
    offset = torch.arange(int(count.max()), dtype=torch.float64, device=p.device)
    present = offset < count[:, None]
    harmonic = torch.where(present, p["lowest_harmonic"].round()[:, None] + offset, 1.0)
    each = p["level_db_spl"] - (10.0 * torch.log10(count) if component_level_db_spl is None else 0.0)
    return tone_complex(
        frequency_hz=harmonic * p["f0_hz"][:, None],
        level_db_spl=torch.where(present, each[:, None], -math.inf),
        phase_rad=component_phases(
            harmonic, count, phase, curvature=p["curvature"], keys=None if keys is None else p.keys
        ),
        duration_s=p["duration_s"],
        ramp_s=p["ramp_s"],
        ramp_shape=ramp_shape,
        fs=fs,
        dtype=dtype,
    )


@register("tone_complex")
class ToneComplex(GatedStimulus):
    """A harmonic complex."""

    class Parameters(GatedParameters):
        """Parameters of a harmonic complex."""

        f0_hz: float = Field(100.0, gt=0, le=20e3, description="Fundamental frequency in Hz.")
        f0_increment_percent: float = Field(0.0, ge=-90, le=1000, description="Fundamental added, in per cent.")
        lowest_harmonic: int = Field(1, ge=1, le=MAX_COMPONENTS, description="Number of the lowest harmonic.")
        highest_harmonic: int = Field(20, ge=1, le=MAX_COMPONENTS, description="Number of the highest harmonic.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Overall level in dB SPL.")
        level_increment_db: float = Field(0.0, ge=-100, le=100, description="Level in dB added.")
        phase: Literal["schroeder", "random", "sine", "cosine", "alternating"] = Field(
            "sine", description="Component phases."
        )
        curvature: float = Field(1.0, ge=-1, le=1, description="Schroeder curvature C.")

        @model_validator(mode="after")
        def _order(self) -> ToneComplex.Parameters:
            if self.lowest_harmonic > self.highest_harmonic:
                raise ValueError("lowest_harmonic must not exceed highest_harmonic.")
            return self

    description: ClassVar[str] = "Harmonic tone complex with Schroeder, random or aligned phases: f0 and level"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "level_db_spl": TrackedVariable("dB SPL", "Level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "level_increment_db": TrackedVariable("dB", "Level increment (dB)", 0.0, 0.0, 60.0, -1),
        "f0_increment_percent": TrackedVariable("%", "Fundamental-frequency increment (%)", 0.0, 0.0, 1000.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the complexes, (B, T) float64."""
        names = ("lowest_harmonic", "highest_harmonic", "phase", "curvature", "duration_s", "ramp_s", "ramp_shape")
        return harmonic_complex(
            keys,
            f0_hz=p["f0_hz"] * (1.0 + p["f0_increment_percent"] / 100.0),
            level_db_spl=p["level_db_spl"] + p["level_increment_db"],
            **{name: p[name] for name in names},
            fs=fs,
            dtype=torch.float64,
        )


@register("profile")
class ProfileComplex(GatedStimulus):
    """A log-spaced complex with an increment of one component."""

    class Parameters(GatedParameters):
        """Parameters of a profile."""

        duration_s: float = Field(0.1, gt=0, le=60, description="Duration in s, ramps included, silence excluded.")
        ramp_s: float = Field(0.01, ge=0, le=30, description="Duration in s of the onset ramp, and of the offset ramp.")
        n_components: int = Field(5, ge=1, le=MAX_COMPONENTS, description="Number of components, log spaced.")
        low_hz: float = Field(300.0, gt=0, le=100e3, description="Frequency in Hz of the lowest component.")
        high_hz: float = Field(798.0, gt=0, le=100e3, description="Frequency in Hz of the highest component.")
        component_level_db_spl: float = Field(50.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL per component.")
        target: int | None = Field(
            None, ge=1, le=MAX_COMPONENTS, description="Number of the incremented component; none: the middle one."
        )
        increment_db: float = Field(
            0.0, le=40, description="Increment 20 log10(dA/A) in dB, added in phase (dB SRS); -inf: none."
        )
        phase: Literal["random", "sine"] = Field("random", description="Component phases.")

    description: ClassVar[str] = "Log-spaced tone complex with an incremented component: profile analysis"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "increment_db": TrackedVariable("dB", "Increment, 20 log dA/A (dB SRS)", -math.inf, -100.0, 40.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the complexes, (B, T) float64."""
        count = p["n_components"].round()
        target = (count + 1) // 2 if p["target"] is None else p["target"].round()
        if bool((target > count).any()):
            raise SpecError("target must not exceed n_components.")
        number = torch.arange(int(count.max()), dtype=torch.float64, device=p.device)
        present = number < count[:, None]
        part = number / (count - 1).clamp(min=1)[:, None]
        middle = (p["low_hz"] * p["high_hz"]).sqrt()
        low, high = (torch.where(count == 1, middle, p[name]) for name in ("low_hz", "high_hz"))
        frequency = torch.where(present, low[:, None] * (high / low)[:, None] ** part, low[:, None])
        raised = 20.0 * torch.log10(1.0 + db_to_amplitude(p["increment_db"]))[:, None]
        level = p["component_level_db_spl"][:, None] + torch.where(number + 1 == target[:, None], raised, 0.0)
        shape = frequency.shape
        phase: Any = 2.0 * math.pi * uniform(keys, Purpose.PHASE, shape[1]) if p["phase"] == "random" else 0.0
        return tone_complex(
            frequency_hz=frequency,
            level_db_spl=torch.where(present, level, -math.inf),
            phase_rad=phase,
            duration_s=p["duration_s"],
            ramp_s=p["ramp_s"],
            ramp_shape=p["ramp_shape"],
            fs=fs,
            dtype=torch.float64,
        )
