"""Draw one matrix sentence with its word onsets, and the long-term spectra of the speakers beside their noises.

    python reports/speech_material.py [PATH]

writes docs/images/speech_material.png (or PATH) and prints the largest difference between noise and speech in
third-octave bands. The spectra are measured in the sounds that the generators make, not read from the stored ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.signal import spectrogram, welch

from psysim.rng import Keys
from psysim.stimuli import load_corpus, registry, speech_shaped_noise

FS = 20000
SENTENCE = {"speaker": "low", "words": "Grace draws seven round kites"}
THIRD_OCTAVES = 1000.0 * 10 ** (np.arange(-10, 10) / 10)
NAMES = {"low": "C0", "middle": "C1", "high": "C2"}


def third_octaves(x: np.ndarray) -> np.ndarray:
    """Return the levels in dB SPL of the third-octave bands."""
    f, density = welch(x, FS, nperseg=8192)
    bands = [density[(f >= c * 10**-0.05) & (f < c * 10**0.05)].sum() * f[1] for c in THIRD_OCTAVES]
    return 10 * np.log10(bands) + 20 * np.log10(1 / 20e-6)


def spoken(speaker: str) -> np.ndarray:
    """Return the 100 sentences of a speaker at 65 dB SPL, one after the other."""
    kind = registry.get("matrix_sentence")()
    parameters = {"speaker": speaker, "sentence": torch.arange(100)}
    sounds = kind.generate(parameters, Keys.make(1), FS, torch.float64).numpy()
    times = kind.label_times_s(parameters, Keys.make(1)).numpy()
    return np.concatenate([x[round(t[0, 0] * FS) : round(t[-1, 1] * FS)] for x, t in zip(sounds, times, strict=True)])


def draw_sentence(ax: plt.Axes) -> None:
    """Draw the spectrogram with the words."""
    kind = registry.get("matrix_sentence")()
    x = kind.generate(SENTENCE, Keys.make(1), FS, torch.float64)[0].numpy()
    times = kind.label_times_s(SENTENCE, Keys.make(1))[0].numpy()
    f, t, density = spectrogram(x, FS, nperseg=256, noverlap=224, nfft=1024)
    level = 10 * np.log10(np.maximum(density, 1e-20) * f[1]) + 20 * np.log10(1 / 20e-6)
    picture = ax.pcolormesh(t, f / 1000, level, vmin=0, vmax=50, cmap="magma", rasterized=True)
    ax.figure.colorbar(picture, ax=ax, label="Level in 20 Hz (dB SPL)")
    for word, (onset, offset) in zip(str(SENTENCE["words"]).split(), times, strict=True):
        ax.axvline(onset, color="w", lw=0.8)
        ax.text((onset + offset) / 2, 10.25, word, ha="center")
    ax.axvline(times[-1, 1], color="w", lw=0.8)
    ax.set(xlabel="Time (s)", ylabel="Frequency (kHz)", ylim=(0, 10))


def draw_spectra(ax: plt.Axes) -> None:
    """Draw speech (lines) and noise (dots) in third-octave bands."""
    for speaker, colour in NAMES.items():
        speech = third_octaves(spoken(speaker))
        noise = speech_shaped_noise(
            Keys.make(seed=1, trial=torch.arange(20)),
            spectrum=load_corpus().spectrum(speaker),
            level_db_spl=65.0,
            duration_s=5.0,
            fs=FS,
            dtype=torch.float64,
        )
        made = third_octaves(noise.numpy().reshape(-1))
        ax.semilogx(THIRD_OCTAVES, speech, colour, label=f"speech, {speaker}")
        ax.semilogx(THIRD_OCTAVES, made, "o", color=colour, ms=3.5, label=f"noise, {speaker}")
        worst = int(np.abs(made - speech).argmax())
        others = np.delete(np.abs(made - speech), worst).max()
        print(
            f"{speaker}: {made[worst] - speech[worst]:+.2f} dB at {THIRD_OCTAVES[worst]:.0f} Hz, where the speech has "
            f"{speech[worst]:.0f} dB SPL; at most {others:.2f} dB elsewhere"
        )
    ax.set(xlabel="Frequency (Hz)", ylabel="Level in third octaves (dB SPL)", ylim=(20, 68))
    ticks = [125, 250, 500, 1000, 2000, 4000, 8000]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7, ncols=3, loc="upper center")


def main(path: Path) -> None:
    """Draw both panels."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=(1.25, 1))
    draw_sentence(axes[0])
    draw_spectra(axes[1])
    figure.savefig(path, dpi=95)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here / "docs" / "images" / "speech_material.png")
