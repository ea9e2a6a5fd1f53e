"""Multiband wide dynamic range compression with output limiting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.hearing.aids.bands import BandAid, per_band
from psysim.hearing.aids.base import State, register
from psysim.hearing.aids.linear import interpolation, table_of_gains
from psysim.hearing.audiograms import Audiogram
from psysim.ops import smooth

__all__ = ["Compressor"]

STEP_DB_SPL, SETTLED_DB = (55.0, 80.0), 2.0
"""Attack and release times are those of this step and back, until the output is within 2 dB of its end."""
LEAST = 2.0
"""Of the step over what is left of it: no time constant is longer than 1.44 times the stated time."""

Bands = float | Sequence[float] | Tensor


@register("wdrc")
class Compressor(BandAid):
    r"""Wide dynamic range compression in frequency bands.

    In each band the level L (dB SPL, of the envelope) is smoothed with attack and release; above the threshold the
    output rises by 1 / ratio dB per dB: :math:`gain = g - (1 - 1/r) \max(0, L - threshold)`. The gain is held so that
    the band's output does not exceed ``max_output_db_spl``, at every sample. Bands add up to a pure delay where all
    gains are 0.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    crossovers_hz : sequence of float
        Frequencies between neighbouring bands, Hz, rising; empty: one band.
    gain_db : float or sequence (F,)
        Gain of soft sounds, up to the threshold, dB. Not together with a prescription.
    threshold_db_spl : float or sequence (F,)
        Level in the band above which it is compressed, dB SPL, 0 to 120.
    ratio : float or sequence (F,)
        Compression ratio, dB of input per dB of output, 1 (linear) to 100.
    attack_s, release_s : float or sequence (F,)
        Attack and release times as measured with a step from 55 to 80 dB SPL and back: until the output is within 2 dB
        of its final level. 0.0005 to 10 s.
    max_output_db_spl : float or sequence (F,)
        Highest output level in the band, dB SPL, 40 to 150.
    coupling : float
        0: each band compresses by itself; 1: all take the largest gain reduction of any band; linear in between.
    link_ears : bool
        Both ears take the higher of their two levels, which keeps level differences between them.
    prescription, audiogram : optional
        As for `LinearAid`: gains at ``reference_db_spl``, interpolated to the centres of the bands.
    reference_db_spl : float
        Level in the band at which a prescription holds, dB SPL; a band of speech at 65 dB SPL has about 55.
    duration_s : float
        Length of the band filters, s, 0.002 to 0.1; the delay is half of it.
    learnable : bool
        Make ``gain_db``, ``threshold_db_spl``, ``ratio``, ``attack_s`` and ``release_s`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    gain_db, threshold_db_spl, ratio, attack_s, release_s, max_output_db_spl : Tensor (F,)
        Settings of the bands, float64.
    delay : int
        Delay, samples.

    Raises
    ------
    SpecError
        If a setting is out of range, or there is not one for each band.

    Notes
    -----
    The level is smoothed in dB, so that after a step the gain approaches its end exponentially; the time constant of
    the attack is t / ln(12.5 (1 - 1/ratio)) for a time t, that of the release depends on the threshold too where it is
    above 55 dB SPL. Where the output changes too little for such times to exist, the time constant is 1.44 t. Times
    shorter than the rise of the band filter, about the inverse of its width, are those of the filter. A tone at a
    crossover frequency is in two bands, 6 dB lower in each, and gets up to 6 (1 - 1/ratio) dB more gain than in the
    middle of a band; with the default bands, tones at octaves from 250 Hz to 4 kHz are within 0.4 dB of the settings
    up to a ratio of 3. Several bands together may exceed the largest output of one.

    References
    ----------
    IEC 60118-2 (1983), Hearing aids, part 2: automatic gain control: the step and how times are read. Kates (2008),
    Digital Hearing Aids, chapter 8.

    Examples
    --------
    >>> import torch
    >>> aid = Compressor(16000.0, crossovers_hz=[1000.0], gain_db=[10.0, 30.0], ratio=[1.5, 3.0])
    >>> aid(torch.zeros(2, 100)).shape, aid.n_bands, aid.delay
    (torch.Size([2, 100]), 2, 96)
    >>> aid.static_gain([45.0, 75.0])[1].round().tolist()
    [30.0, 10.0]
    """

    gain_db: Tensor
    threshold_db_spl: Tensor
    ratio: Tensor
    attack_s: Tensor
    release_s: Tensor
    max_output_db_spl: Tensor

    def __init__(
        self,
        fs: float,
        crossovers_hz: Sequence[float] = (700.0, 1400.0, 2800.0),
        gain_db: Bands | None = None,
        threshold_db_spl: Bands = 45.0,
        ratio: Bands = 2.0,
        attack_s: Bands = 0.005,
        release_s: Bands = 0.1,
        max_output_db_spl: Bands = 110.0,
        coupling: float = 0.0,
        link_ears: bool = False,
        prescription: str | None = None,
        audiogram: Audiogram | str | dict[str, object] | None = None,
        reference_db_spl: float = 55.0,
        duration_s: float = 0.012,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, crossovers_hz, duration_s, learnable, dtype)
        check_range("coupling", coupling, 0.0, 1.0)
        check_range("reference_db_spl", reference_db_spl, 0.0, 120.0, unit="dB SPL")
        self.coupling, self.link_ears = float(coupling), bool(link_ears)
        if prescription is not None and gain_db is not None:
            raise SpecError("Give either a prescription or gain_db, not both.")
        settings: dict[str, tuple[Bands, float, float, str]] = {
            "threshold_db_spl": (threshold_db_spl, 0.0, 120.0, "dB SPL"),
            "ratio": (ratio, 1.0, 100.0, ""),
            "attack_s": (attack_s, 0.0005, 10.0, "s"),
            "release_s": (release_s, 0.0005, 10.0, "s"),
            "max_output_db_spl": (max_output_db_spl, 40.0, 150.0, "dB SPL"),
        }
        for name, (value, low, high, unit) in settings.items():
            values = per_band(name, value, self.n_bands)
            for number in values.tolist():
                check_range(name, number, low, high, unit=unit)
            self.constant(name, values, learnable=False if name == "max_output_db_spl" else None)
        if prescription is None:
            gains = per_band("gain_db", 0.0 if gain_db is None else gain_db, self.n_bands)
        else:
            frequency, table = table_of_gains(prescription, audiogram, None, None)
            to_bands = interpolation(frequency, torch.tensor(self.centres_hz, dtype=torch.float64))
            gains = to_bands @ torch.tensor(table, dtype=torch.float64)
            gains = gains + self._reduction(torch.full_like(gains, reference_db_spl)[:, None])[:, 0].detach()
        for number in gains.tolist():
            check_range("gain_db", number, -60.0, 100.0, unit="dB")
        self.constant("gain_db", gains)

    def static_gain(self, level_db_spl: Sequence[float] | Tensor) -> Tensor:
        """Return the gain (F, N), dB, of each band at steady levels (N,) in the band, dB SPL, without coupling."""
        level = torch.as_tensor(level_db_spl, dtype=torch.float64, device=self.device)
        gain = self.gain_db[:, None] - self._reduction(level.expand(self.n_bands, -1))
        return torch.minimum(gain, self.max_output_db_spl[:, None] - level)

    def _reduction(self, level: Tensor) -> Tensor:
        """Return how much less than ``gain_db`` the gain is at levels (..., F, T)."""
        excess = torch.relu(level - self.threshold_db_spl[:, None].to(level.dtype))
        return (1.0 - 1.0 / self.ratio[:, None]).to(level.dtype) * excess

    def _coefficients(self) -> tuple[Tensor, Tensor]:
        """Return the shares per sample of attack and release, so that the times of the step are those stated."""
        low, high = STEP_DB_SPL
        left = SETTLED_DB / (1.0 - 1.0 / self.ratio).clamp_min(1e-6)  # of the level, when the gain has settled
        below = (self.threshold_db_spl - low).clamp_min(0.0)  # what of the fall in level no longer changes the gain
        rise, fall = (torch.log(((high - low) / d).clamp_min(LEAST)) for d in (left, left + below))
        attack, release = self.attack_s.clamp_min(1e-5), self.release_s.clamp_min(1e-5)
        return -torch.expm1(-rise / (attack * self.fs)), -torch.expm1(-fall / (release * self.fs))

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        bands, power, past = self._split(x, None if state is None else state["past"])
        now = 10.0 * torch.log10(power)
        heard = now.amax(1, keepdim=True).expand_as(now) if self.link_ears else now
        level, end = smooth(
            heard.flatten(0, 1),
            *self._coefficients(),
            state=None if state is None else state["level"],
            return_state=True,
        )
        reduction = self._reduction(level.reshape(now.shape))
        if self.coupling > 0.0:
            largest = reduction.amax(-2, keepdim=True)
            reduction = (1.0 - self.coupling) * reduction + self.coupling * largest
        gain = self.gain_db[:, None].to(now.dtype) - reduction
        gain = torch.minimum(gain, self.max_output_db_spl[:, None].to(now.dtype) - now)
        return (bands * 10.0 ** (gain / 20.0)).sum(-2), {"past": past, "level": end}
