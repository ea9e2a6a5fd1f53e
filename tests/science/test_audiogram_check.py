"""Simulated listeners with an audiogram have its hearing levels as thresholds, re those of normal hearing."""

from __future__ import annotations

from pathlib import Path

import pytest

import psysim
from psysim.hearing import standard_audiogram
from psysim.hearing.aids import insertion_gains

FILE = Path(__file__).parents[2] / "experiments" / "audiogram_check.toml"


@pytest.mark.science
def test_thresholds_are_the_audiogram(tmp_path: Path) -> None:
    """Within 5 dB at 500 Hz and 4 kHz, five models, N2 and N4."""
    table = psysim.thresholds(psysim.run(psysim.load(FILE, profile="quick"), out=tmp_path / "check.zarr"))
    thresholds = table.set_index(["observer", "frequency_hz"])["threshold"]
    assert len(thresholds) == 30
    for (observer, frequency), threshold in thresholds.items():
        model, listener = str(observer).split(", ")
        if listener == "normal hearing":
            continue
        level = standard_audiogram(listener.removeprefix("audiogram ")).at(frequency).item()
        assert threshold - thresholds[f"{model}, normal hearing", frequency] == pytest.approx(level, abs=5.0)


@pytest.mark.science
def test_linear_amplification_lowers_thresholds_by_its_gain() -> None:
    """Functional gain: NAL-R for N3 on Saddler2025, within 2.5 dB (standard error of a difference about 1 dB)."""
    text = FILE.read_text(encoding="utf-8")
    observers = "".join(
        f'[[observers]]\nname = "{name}"\nmodel = "saddler2025"\naudiogram = "N3"\n{aid}'
        'decision = "decision_variable"\nmetric = "max"\ninternal_noise_std = 4.94\n\n'
        for name, aid in (("unaided", ""), ("aided", 'aid = { kind = "linear", prescription = "NAL-R" }\n'))
    )
    text = text[: text.index("[[observers]]")] + observers + text[text.index("[run]") :]
    changes = {"run.n_tracks": 4, "run.fs": 20000, "conditions.frequency_hz": [500.0, 2000.0]}
    table = psysim.thresholds(psysim.run(psysim.loads(text, overrides=changes)))
    thresholds = table.pivot(index="frequency_hz", columns="observer", values="threshold")
    prescribed = insertion_gains(standard_audiogram("N3"))
    gain = dict(zip(prescribed["frequency_hz"], prescribed["gain_db"], strict=True))
    for frequency, row in thresholds.iterrows():
        assert row["unaided"] - row["aided"] == pytest.approx(gain[float(str(frequency))], abs=2.5)
