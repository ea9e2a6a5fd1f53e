"""Documented names of the peer package for faster filterbanks, here the exact ones.

There, the fast banks replace a recursive filter by a truncated impulse response or share filters between channels, and
their numbers differ from those of the plain banks. Here the plain banks are fast already: the fast names are the same
filters with the same numbers, and the arguments that bound the peer's error are checked and have no effect.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.stages.drnl import DRNLFilterbank
from psysim.stages.modulation import ModulationFilterbank
from psysim.stages.modulation_king2019 import King2019ModulationFilterbank

__all__ = ["FastDRNLFilterbank", "FastKing2019ModulationFilterbank", "FastModulationFilterbank"]


class FastDRNLFilterbank(DRNLFilterbank):
    """`DRNLFilterbank` under the documented name of the peer package's faster one: the same numbers.

    Parameters
    ----------
    fc, fs, n_channels, subject, model, learnable, dtype, ohc_loss_db
        As for `DRNLFilterbank`.
    ir_length : int
        Samples of the peer's truncated impulse responses, at least 1. No effect: the recursive filters are exact.

    Raises
    ------
    SpecError
        As `DRNLFilterbank`; or if ``ir_length`` is not a whole number from 1 on.

    Examples
    --------
    >>> x = 1e-5 * torch.sin(torch.arange(441, dtype=torch.float64) / 7)[None]
    >>> fast, plain = (bank((250.0, 8000.0), 44100.0, n_channels=4) for bank in (FastDRNLFilterbank, DRNLFilterbank))
    >>> torch.equal(fast(x), plain(x))
    True
    """

    def __init__(
        self,
        fc: Tensor | Sequence[float] | tuple[float, float],
        fs: float,
        n_channels: int = 50,
        subject: str = "NH",
        model: str = "paulick2024",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float64,
        *,
        ir_length: int = 4096,
        ohc_loss_db: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(fc, fs, n_channels, subject, model, learnable, dtype, ohc_loss_db=ohc_loss_db)
        self.ir_length = _whole("ir_length", ir_length, 1)


class FastModulationFilterbank(ModulationFilterbank):
    """`ModulationFilterbank` under the documented name of the peer package's faster one: the same numbers.

    Parameters
    ----------
    fs, fc, Q, max_mfc, lp_cutoff, att_factor, use_upper_limit, preset, filter_type, learnable, dtype
        As for `ModulationFilterbank`.
    tolerance : int
        Decimals to which the peer rounds centre frequencies to share filters between channels, at least 0. No effect:
        channels share exactly equal filters.
    lowpass_cutoff, phase_insens
        As for `ModulationFilterbank`.

    Raises
    ------
    SpecError
        As `ModulationFilterbank`; or if ``tolerance`` is not a whole number from 0 on.

    Examples
    --------
    >>> [y.shape for y in FastModulationFilterbank(11025.0, fc=[250.0, 1000.0])(torch.zeros(3, 2, 500))]
    [torch.Size([3, 6, 500]), torch.Size([3, 9, 500])]
    """

    def __init__(
        self,
        fs: float,
        fc: Tensor | Sequence[float],
        Q: float = 2.0,
        max_mfc: float | None = None,
        lp_cutoff: float = 2.5,
        att_factor: float | None = None,
        use_upper_limit: bool | None = None,
        preset: str | None = None,
        filter_type: str = "efilt",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        tolerance: int = 2,
        lowpass_cutoff: float | str | None = "preset",
        phase_insens: bool = True,
    ) -> None:
        super().__init__(
            fs,
            fc,
            Q,
            max_mfc,
            lp_cutoff,
            att_factor,
            use_upper_limit,
            preset,
            filter_type,
            learnable,
            dtype,
            lowpass_cutoff=lowpass_cutoff,
            phase_insens=phase_insens,
        )
        self.tolerance = _whole("tolerance", tolerance, 0)

    def distribute_gradients(self) -> None:
        """Do nothing: gradients reach the trainable constants by themselves (the peer needs the call)."""


class FastKing2019ModulationFilterbank(King2019ModulationFilterbank):
    """`King2019ModulationFilterbank` under the documented name of the peer package's faster one: the same numbers.

    Parameters
    ----------
    fs, mflow, mfhigh, qfactor, nmod, learnable, dtype
        As for `King2019ModulationFilterbank`.
    ir_length_ratio : float
        Length of the peer's truncated impulse responses, relative to its own default, above 0. No effect: the
        recursive filters are exact.
    phase_insens, lowpass_cutoff
        As for `King2019ModulationFilterbank`.

    Raises
    ------
    SpecError
        As `King2019ModulationFilterbank`; or if ``ir_length_ratio`` is not above 0.

    Examples
    --------
    >>> bank = FastKing2019ModulationFilterbank(16000.0)
    >>> bank(torch.zeros(2, 31, 1600)).shape, bank.sos_stack.shape
    (torch.Size([2, 31, 5, 1600]), torch.Size([5, 2, 6]))
    """

    def __init__(
        self,
        fs: float,
        mflow: float = 2.0,
        mfhigh: float = 150.0,
        qfactor: float = 1.0,
        nmod: int | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        ir_length_ratio: float = 1.0,
        *,
        phase_insens: bool = True,
        lowpass_cutoff: float | None = None,
    ) -> None:
        super().__init__(
            fs,
            mflow,
            mfhigh,
            qfactor,
            nmod,
            learnable,
            dtype,
            phase_insens=phase_insens,
            lowpass_cutoff=lowpass_cutoff,
        )
        check_range("ir_length_ratio", ir_length_ratio, 0.0, 1e6, low_open=True)
        self.ir_length_ratio = float(ir_length_ratio)

    @property
    def sos_stack(self) -> Tensor:
        """Second-order sections of the bandpasses (M, 2, 6), float64: `filters` under the documented name."""
        return self.filters


def _whole(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SpecError(f"{name} = {value!r} must be a whole number of at least {least}.")
    return value
