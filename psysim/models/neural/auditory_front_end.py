"""The internal representation of any auditory model of psysim as the spectrogram of a neural response model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models.base import registry as auditory_models
from psysim.models.neural.causal import State
from psysim.models.neural.configuration import register
from psysim.models.neural.front_end import FrontEnd

__all__ = ["AuditoryFrontEnd"]


@register("front_end", "auditory_model")
class AuditoryFrontEnd(FrontEnd):
    """Averages of an auditory model's internal representation over frames.

    The waveform is in pascal. Every pair of an auditory channel and a modulation filter that the model has is a band,
    in the order of the representation: auditory channels first. An auditory model takes whole sounds: this front-end
    cannot be fed block by block.

    Parameters
    ----------
    model : str
        Name of the auditory model: see `psysim.models.registry`.
    audio_fs : float
        Sampling rate, Hz.
    dt_ms : float
        Duration of a frame, ms: a whole number of samples of the representation.
    options : mapping, optional
        Further arguments of the model.

    Raises
    ------
    SpecError
        For an unknown model, or if frames are no whole number of samples.

    Examples
    --------
    >>> front = AuditoryFrontEnd("king2019", 16000, dt_ms=10.0, options={"flow": 500, "fhigh": 2000})
    >>> front(torch.zeros(1, 1, 1600)).shape == (1, 1, front.out_channels, 10)
    True
    """

    def __init__(
        self, model: str, audio_fs: float = 48000.0, dt_ms: float = 5.0, options: Mapping[str, Any] | None = None
    ) -> None:
        built = auditory_models.get(model)(fs=audio_fs, **(options or {}))
        with torch.no_grad():
            frame = torch.zeros(1, max(1, round(audio_fs * dt_ms / 1000)), dtype=torch.float32)
            representation = built.represent(frame)
        super().__init__(audio_fs, dt_ms, int(representation.valid.sum()))
        self.model = built
        self.samples = round(representation.fs * dt_ms / 1000)
        if self.samples < 1 or abs(self.samples - representation.fs * dt_ms / 1000) > 1e-6:
            raise SpecError(
                f"dt_ms = {dt_ms:g} ms is {representation.fs * dt_ms / 1000:g} samples of the representation of "
                f"{model} at {representation.fs:g} Hz: it must be a whole number."
            )

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of whole sounds.

        Raises
        ------
        SpecError
            For a second block of a sound.
        """
        if state is not None:
            raise SpecError("An auditory model takes whole sounds: it cannot go on with a second block.")
        representation = self.model.represent(x[:, 0])
        frames = x.shape[-1] // self.hop
        values = representation.values[..., : frames * self.samples]
        if values.shape[-1] < frames * self.samples:
            raise SpecError(f"The representation has {values.shape[-1]} samples for {frames} frames of {self.samples}.")
        bands = values[:, representation.valid]
        return bands.reshape(len(x), -1, frames, self.samples).mean(-1), torch.zeros(())
