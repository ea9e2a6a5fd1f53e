"""Mixing sounds: onsets, and signal-to-noise ratios."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.stimuli.batch import Number, Rows, mean_square, place, round_samples
from psysim.units import db_to_amplitude

__all__ = ["mix", "scale_to_snr"]


def mix(sounds: Sequence[Tensor], onset_s: Sequence[Number], fs: float, duration_s: Number | None = None) -> Tensor:
    """Add sounds that start at different times.

    Parameters
    ----------
    sounds : sequence of Tensor
        Each (B, T_i) or (1, T_i), pascal.
    onset_s : sequence
        Onset in s of each sound: a number, or one per row; rounded to samples.
    fs : float
        Sampling rate in Hz.
    duration_s : float or (B,), optional
        Duration in s of the mixture, longest row; default: until the last sound ends. What lies beyond is cut.

    Returns
    -------
    Tensor
        (B, T), the type of the sounds.

    Raises
    ------
    SpecError
        If the numbers of sounds and onsets differ, an onset is negative, or the batches do not fit together.

    Examples
    --------
    >>> mix([torch.ones(1, 4), torch.ones(2, 2)], [0.0, 0.003], fs=1000)
    tensor([[1., 1., 1., 2., 1.],
            [1., 1., 1., 2., 1.]])
    """
    if len(sounds) != len(onset_s) or not sounds:
        raise SpecError(f"mix needs one onset per sound, but got {len(sounds)} sounds and {len(onset_s)} onsets.")
    device = sounds[0].device
    p = Rows({f"onset_s of sound {i}": onset for i, onset in enumerate(onset_s)}, device=device)
    rows = max([len(p), *(len(sound) for sound in sounds)])
    if any(n not in (1, rows) for n in (len(p), *(len(sound) for sound in sounds))):
        raise SpecError(f"The sounds do not form one batch: rows {[len(sound) for sound in sounds]}, onsets {len(p)}.")
    onsets = []
    for name in p.values:
        p.check(name, 0.0, 3600.0, "s")
        onsets.append(p.length(fs, name).expand(rows))
    ends = [int(onset.max()) + sound.shape[1] for onset, sound in zip(onsets, sounds, strict=True)]
    total = max(ends) if duration_s is None else int(Rows({"d": duration_s}).length(fs, "d").max())
    out = torch.zeros(rows, total, dtype=sounds[0].dtype, device=device)
    for onset, sound in zip(onsets, sounds, strict=True):
        out += place(sound.expand(rows, -1), onset, total)
    return out


def scale_to_snr(
    target: Tensor,
    masker: Tensor,
    snr_db: Number,
    *,
    target_s: Sequence[Number],
    masker_s: Sequence[Number],
    fs: float,
) -> Tensor:
    """Scale a target to a ratio of long-term rms to a masker, both over stated times and the full bandwidth.

    Parameters
    ----------
    target, masker : Tensor
        (B, T) each, pascal.
    snr_db : float or (B,)
        Ratio in dB; -inf gives silence.
    target_s, masker_s : (start, end)
        Times in s over which each rms is taken.
    fs : float
        Sampling rate in Hz.

    Returns
    -------
    Tensor
        (B, T), the scaled target.

    Raises
    ------
    SpecError
        If one of them is silent in its time.

    Examples
    --------
    >>> scale_to_snr(torch.ones(1, 4), torch.ones(1, 4), -20.0, target_s=(0, 4), masker_s=(0, 4), fs=1.0)
    tensor([[0.1000, 0.1000, 0.1000, 0.1000]])
    """
    p = Rows({"snr_db": snr_db, "a": target_s[0], "b": target_s[1], "c": masker_s[0], "d": masker_s[1]})
    p.check("snr_db", high=200.0, unit="dB")
    limits = [round_samples(p[name].to(target.device), fs) for name in "abcd"]
    target_power = mean_square(target.double(), limits[0], limits[1])
    masker_power = mean_square(masker.double(), limits[2], limits[3])
    for name, power in (("target", target_power), ("masker", masker_power)):
        if not bool((power > 0).all()):
            raise SpecError(f"The {name} is silent in the time given, so no signal-to-noise ratio exists.")
    gain = db_to_amplitude(p["snr_db"].to(target.device)) * (masker_power / target_power).sqrt()
    return (target * gain[:, None]).to(target.dtype)
