"""Forward masking with CASP: growth with the masker's level needs a template from a probe above every threshold."""

from __future__ import annotations

from pathlib import Path

import pytest

import psysim

FILE = Path(__file__).parents[2] / "experiments" / "forward_masking_growth.toml"


def growth(template_level: float, gap_s: float) -> float:
    """Return the growth of masking from maskers of 40 to 80 dB SPL on the probe's frequency, dB/dB (2008 model)."""
    text = FILE.read_text(encoding="utf-8")
    start, end = text.index("[[observers]]"), text.index("[run]")
    observer = (
        '[[observers]]\nname = "CASP 2008"\nmodel = "jepsen2008"\ndecision = "casp"\nn_down = 2\n'
        f"template_level = {template_level}\ntemplate_tokens = 1\n\n"
    )
    conditions = {"conditions.masker_hz": [4000.0], "conditions.gap_s": [gap_s]}
    conditions |= {"conditions.masker_level_db_spl": [40.0, 80.0]}
    spec = psysim.loads(text[:start] + observer + text[end:], overrides=conditions)
    low, high = psysim.thresholds(psysim.predict_threshold(spec, n_tokens=3))["threshold"]
    return float(high - low) / 40.0


@pytest.mark.science
def test_growth_is_linear_at_once_and_compressive_later() -> None:
    """About 1 dB/dB without a gap, since masker and probe are compressed alike; compressive after 30 ms."""
    assert 0.8 < growth(100.0, 0.0) < 1.1
    assert 0.15 < growth(100.0, 0.03) < 0.4


@pytest.mark.science
def test_a_template_at_the_threshold_hides_the_growth() -> None:
    assert growth(80.0, 0.0) < 0.3
