"""The experiment library: what no validation of a single file can know.

That every file and every profile is valid is tested in tests/test_docs.py.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.experiments import ExperimentSpec, load
from psysim.experiments.engine import make_observer
from psysim.experiments.sounds import Sounds
from psysim.observers import Casp, criterion_difference

FOLDER = Path(__file__).parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*.toml"))
WITH_CASP = [file for file in FILES if 'decision = "casp"' in file.read_text()]


@pytest.mark.parametrize("file", WITH_CASP, ids=lambda file: file.stem)
def test_the_published_rule_of_casp_fits_procedure_and_task(file: Path) -> None:
    """What `Casp.prepare` refuses would be found only after the observers before it have run."""
    spec = load(file)
    for observer in spec.observers:
        if observer.decision != "casp" or observer.settings["response_rule"] != "expected":
            continue
        n_down = observer.settings["n_down"]
        assert spec.procedure_kind == "up_down"
        assert (spec.procedure["n_up"], spec.procedure["n_down"]) == (1, n_down)
        assert math.isfinite(criterion_difference(Sounds(spec).n_intervals, n_down, 40.0))


@pytest.mark.parametrize("file", WITH_CASP, ids=lambda file: file.stem)
def test_the_published_noise_of_casp_has_its_fifty_channels(file: Path) -> None:
    """Correlations grow with the density of channels, so a published variance belongs to the published ones."""
    for observer in load(file).observers:
        if observer.decision == "casp" and observer.settings["internal_noise_var"] == "published":
            assert not {"flow", "fhigh", "n_channels"} & observer.model_options.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_templates_are_made_of_targets_that_the_track_may_reach(file: Path) -> None:
    spec = load(file)
    for observer in spec.observers:
        level = observer.settings.get("template_level")
        assert level is None or spec.procedure["level_min"] <= level <= spec.procedure["level_max"]


def _criterion_level(spec: ExperimentSpec, observer: int, levels: list[float]) -> float:
    """Return where the decision variable of the published rule meets its criterion, without a track."""
    sounds, casp = Sounds(spec, observer), make_observer(spec, observer)
    assert isinstance(casp, Casp)
    casp.prepare(sounds)
    first = torch.zeros(1, dtype=torch.int64)
    intervals = [sounds.reference(first, first), *(sounds.target(first, first, level) for level in levels)]
    with torch.no_grad():
        reference, *targets = (float(casp.decision_variable(x[None], first)) for x in intervals)
    values = [value - max(0.0, reference) for value in targets]
    return float(np.interp(criterion_difference(3, 2, casp.internal_noise_var), values, levels))


@pytest.mark.parametrize(
    ("observer", "level", "silence_s", "published"),
    [("CASP 2024", 60.0, 0.05, 0.892), ("CASP 2024", 20.0, 0.3, 1.183), ("CASP 2008", 60.0, 0.05, 0.852)],
)
def test_level_differences_of_casp_are_those_of_the_published_code(
    observer: str, level: float, silence_s: float, published: float
) -> None:
    """Where the golden decision variables (``decision_*_intdisc_*``) meet the criterion of the 3-AFC 2-down rule."""
    ramped = -10 * math.log10((0.18 + 0.02 * 3 / 8) / 0.2)  # the golden tones have their level with their ramps
    settings = {"run.fs": 44100, "conditions.level_db_spl": [level + ramped], "stimulus.silence_after_s": silence_s}
    spec = load(FOLDER / "intensity_discrimination_tone.toml", overrides=settings)
    index = [o.name for o in spec.observers].index(observer)
    # float32 is left: 1e-3 of the decision variable, and the template's scale follows it
    assert _criterion_level(spec, index, [0.5, 1.0, 1.5]) == pytest.approx(published, rel=2e-3)
