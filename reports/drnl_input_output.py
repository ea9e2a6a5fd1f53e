"""Draw the input/output functions of CASP's filterbank for normal and impaired hearing.

    python reports/drnl_input_output.py [PATH]

writes docs/images/drnl_input_output.png (or PATH): level of the basilar-membrane velocity for a tone at the centre
frequency, against its level. A flat loss is divided into outer and inner hair cells by
`psysim.stages.hair_cell_losses`; the inner hair cells' part does not show here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from psysim.models import PublishedPaulick2024
from psysim.stages import hair_cell_losses
from psysim.stimuli import tone

FS = 44100
LEVELS = torch.arange(0.0, 101.0, 5.0)
LOSS_DB = (0.0, 15.0, 30.0)


def velocity_db(frequency_hz: float, **drnl: object) -> torch.Tensor:
    """Return the rms of the response in the steady state, dB re 1 nm/s."""
    model = PublishedPaulick2024(FS, frequency_hz, frequency_hz, 1, drnl_kwargs=drnl, dtype=torch.float64)
    sounds = tone(
        frequency_hz=frequency_hz, level_db_spl=LEVELS, duration_s=0.1, ramp_s=0.01, fs=FS, dtype=torch.float64
    )
    response = model.drnl(model.outerear(sounds))[:, 0, FS // 20 : FS * 9 // 100]
    return 20 * torch.log10(response.square().mean(-1).sqrt() / 1e-9)


def main(path: Path) -> None:
    """Draw three centre frequencies side by side."""
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.6), sharey=True, layout="constrained")
    for ax, frequency in zip(axes, (500.0, 1000.0, 4000.0), strict=True):
        for loss, colour in zip(LOSS_DB, ("C0", "C1", "C2"), strict=True):
            bank = PublishedPaulick2024(FS, frequency, frequency, 1).drnl
            outer, inner = (float(x) for x in hair_cell_losses(bank, [frequency], [loss]))
            label = f"loss {loss:g} dB (outer {outer:.0f}, inner {inner:.0f})" if loss else "normal hearing"
            ax.plot(LEVELS, velocity_db(frequency, ohc_loss_db=outer), colour, label=label)
        ax.plot(LEVELS, velocity_db(frequency, subject="HIx"), "k--", label="HIx")
        ax.set(title=f"{frequency:g} Hz", xlabel="Level of the tone (dB SPL)")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc="lower right")
    axes[0].set_ylabel("Basilar-membrane velocity (dB re 1 nm/s)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here / "docs" / "images" / "drnl_input_output.png")
