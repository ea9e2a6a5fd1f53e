"""What holds for every stimulus kind: parametrised over the registry, so a new kind is tested the day it is added."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import GatedParameters, GatedStimulus, Rows, Stimulus, TrackedVariable, registry

FS = 16000
KINDS = registry.names()
EXPECTED = {
    "am_depth_tone",
    "am_noise",
    "am_tone",
    "click",
    "dichotic_tone",
    "dichotic_tone_in_noise",
    "fm_tone",
    "forward_masking",
    "from_file",
    "from_folder",
    "gap_in_noise",
    "masked_am_tone",
    "masked_tone",
    "matrix_sentence",
    "noise",
    "notched_noise_tone",
    "profile",
    "quasi_fm_tone",
    "speech_in_noise",
    "tone",
    "tone_complex",
    "tone_in_noise",
    "vocoded_speech",
}
UNITS = ("_hz", "_s", "_us", "_db", "_db_spl", "_rad", "_percent", "_relative")
COUNTS = {"n_clicks", "n_components", "target", "lowest_harmonic", "highest_harmonic", "channel", "curvature"}
COUNTS |= {"sentence", "sentence_list", "n_talkers", "n_channels", "filter_order"}
COUNTS |= {f"masker_{name}" for name in COUNTS}


@pytest.fixture
def extra(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Parameters without a default, and others that keep the sounds of this file short."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(2).standard_normal((FS, 3)), FS)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lines = ["file,speaker,list,words"]
    for i in range(6):
        length = 3000 + 400 * i
        soundfile.write(corpus / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(length), FS)
        lines.append(f"{i}.wav,a,{1 + i % 3},one {i}")
    (corpus / "manifest.csv").write_text("\n".join(lines))
    return {"from_file": {"path": str(path)}, "from_folder": {"path": str(corpus)}}


def numeric(kind: str) -> dict[str, Any]:
    """Names of the numeric parameters of a kind, with their fields."""
    fields = registry.get(kind).Parameters.model_fields
    hints = {name: set(typing.get_args(f.annotation)) | {f.annotation} for name, f in fields.items()}
    return {name: fields[name] for name, hint in hints.items() if hint & {float, int}}


def keys(rows: int) -> Keys:
    row = torch.arange(rows)
    return Keys.make(seed=12, condition=row % 3, observer=1, track=row // 2, trial=5 + row, interval=row % 2)


def at(parameters: Mapping[str, Any], index: Any) -> dict[str, Any]:
    return {name: v[index] if isinstance(v, Tensor) else v for name, v in parameters.items()}


def test_all_kinds_are_there() -> None:
    assert set(KINDS) >= EXPECTED


@pytest.mark.parametrize("kind", KINDS)
def test_description_and_fields(kind: str) -> None:
    cls = registry.get(kind)
    assert issubclass(cls, Stimulus)
    assert cls.description
    assert cls.__doc__
    assert cls.Parameters.__doc__
    for name, f in cls.Parameters.model_fields.items():
        assert f.description, name
        assert f.description.endswith("."), name
    for name, f in numeric(kind).items():
        assert name.endswith(UNITS) or name in COUNTS, name
        assert f.metadata, f"{name} has no range"
    with pytest.raises(ValidationError, match="no_such_parameter"):
        cls.Parameters.model_validate({"no_such_parameter": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_tracked_variables(kind: str, extra) -> None:
    cls = registry.get(kind)
    assert cls.tracked
    for name, variable in cls.tracked.items():
        assert name in numeric(kind)
        assert variable.harder in (-1, 1)
        assert variable.minimum < variable.maximum
        assert f"({variable.unit}" in variable.label or variable.unit in variable.label
        for value in (variable.minimum, variable.maximum, variable.reference):
            if value is not None:  # every level a procedure may visit is a valid parameter
                cls.Parameters.model_validate({**extra.get(kind, {}), name: value})
        if variable.reference is None:
            assert variable.reference_also


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_defaults_make_a_sound(kind: str, dtype: torch.dtype, extra) -> None:
    stimulus = registry.get(kind)()
    parameters = extra.get(kind, {})
    state = torch.random.get_rng_state()
    x = stimulus.generate(parameters, keys(3), FS, dtype)
    assert torch.equal(state, torch.random.get_rng_state())  # no global generator is used
    assert x.dtype == dtype
    ears = () if stimulus.n_ears == 1 else (stimulus.n_ears,)
    assert x.shape == (3, *ears, round(stimulus.duration_s(parameters) * FS))
    assert bool(torch.isfinite(x).all())
    assert bool(x.any(-1).all())
    assert not x.requires_grad
    assert torch.equal(x, stimulus.generate(stimulus.complete(parameters), keys(3), FS, dtype))
    if dtype == torch.float32:
        assert torch.equal(x, stimulus.generate(parameters, keys(3), FS, torch.float64).float())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_equals_the_row_in_any_batch(kind: str, extra) -> None:
    """Bitwise, at every position, with every tracked variable and several durations in one batch."""
    stimulus = registry.get(kind)()
    rows = 9
    for tracked, variable in stimulus.tracked.items():
        low, high = max(variable.minimum, -30.0), min(variable.maximum, 5.0 if variable.unit == "dB" else 0.04)
        parameters: dict[str, Any] = {**extra.get(kind, {}), tracked: torch.linspace(low, high, rows).double()}
        if variable.reference is not None:
            parameters[tracked][4] = variable.reference
        if "duration_s" in stimulus.Parameters.model_fields:
            parameters["duration_s"] = torch.linspace(0.35, 0.45, rows).double()
        whole = stimulus.generate(parameters, keys(rows), FS)
        for i in range(rows):
            alone = stimulus.generate(at(parameters, i), keys(rows)[i], FS)
            assert torch.equal(alone[0], whole[i, ..., : alone.shape[-1]]), (tracked, i)
            assert not whole[i, ..., alone.shape[-1] :].any()
        order = torch.tensor([7, 2, 2, 5])
        some = stimulus.generate(at(parameters, order), keys(rows)[order], FS)
        assert torch.equal(some, whole[order][..., : some.shape[-1]])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_change_anything(kind: str, extra, monkeypatch: pytest.MonkeyPatch) -> None:
    stimulus = registry.get(kind)()
    whole = stimulus.generate(extra.get(kind, {}), keys(5), FS)
    monkeypatch.setattr("psysim.stimuli.batch._BLOCK", 1)
    assert torch.equal(stimulus.generate(extra.get(kind, {}), keys(5), FS), whole)


def spread(value: float, f: Any) -> Tensor:
    """Three values near a default, inside its range."""
    if value == -math.inf:
        return torch.tensor([-math.inf, -20.0, -10.0], dtype=torch.float64)
    if isinstance(value, int):
        return torch.tensor([value, value + 1, value + 2], dtype=torch.float64)
    if value == 0:
        top = min([m.le for m in f.metadata if hasattr(m, "le")], default=1.0)
        return torch.tensor([0.0, -0.01, -0.02] if top == 0 else [0.0, 0.01, 0.02], dtype=torch.float64)
    factors = [1.0, 1.1, 1.2] if "ramp of" not in f.description and "Duration" in f.description else [1.0, 0.9, 0.8]
    return value * torch.tensor(factors, dtype=torch.float64)


#: Values for parameters whose default is None, with the others they need.
GIVEN: dict[str, dict[str, Any]] = {
    "level_db_spl": {"level_db_spl": 60.0},
    "spectrum_level_db_spl": {"spectrum_level_db_spl": 30.0},
    "low_hz": {"low_hz": 500.0},
    "high_hz": {"high_hz": 3000.0},
    "centre_hz": {"centre_hz": 2000.0, "bandwidth_hz": 300.0},
    "bandwidth_hz": {"bandwidth_hz": 300.0, "centre_hz": 2000.0},
    "min_period_s": {"min_period_s": 0.9, "high_hz": 3000.0},
    "modulation_duration_s": {"modulation_duration_s": 0.2},
    "modulation_ramp_s": {"modulation_ramp_s": 0.05, "modulation_duration_s": 0.2},
    "am_rate_hz": {"am_rate_hz": 9.0, "am_depth_db": -6.0},
    "gap_delay_s": {"gap_delay_s": 0.1},
    "snr_db": {"snr_db": -5.0},
    "signal_re_spectrum_level_db": {"signal_re_spectrum_level_db": 20.0},
    "full_scale_db_spl": {"full_scale_db_spl": 100.0, "level_db_spl": None},
    "sentence": {"sentence": 3},
    "sentence_list": {"sentence_list": 1},
    "signal_delay_s": {"signal_delay_s": 0.1},
    "probe_delay_s": {"probe_delay_s": 0.1},
    "target": {"target": 1},
    "curvature": {"curvature": 1.0, "phase": "schroeder"},
}
MASKER = {
    **{name: {"masker": "noise"} for name in ("masker_centre_hz", "masker_bandwidth_hz")},
    **{name: {"masker": "complex"} for name in ("masker_f0_hz", "masker_curvature")},
    **{name: {"masker": "complex"} for name in ("masker_lowest_harmonic", "masker_highest_harmonic")},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in numeric(kind)])
def test_every_numeric_parameter_varies_by_row(kind: str, name: str, extra) -> None:
    stimulus = registry.get(kind)()
    f = stimulus.Parameters.model_fields[name]
    parameters: dict[str, Any] = {**extra.get(kind, {}), **MASKER.get(name, {})}
    bare = name.removeprefix("masker_")
    if f.default is None or name in GIVEN:
        prefix = "masker_" if name.startswith("masker_") else ""
        parameters |= {prefix + other: value for other, value in GIVEN[bare].items()}
    value = parameters.get(name, f.default)
    if name == "n_clicks":
        parameters["width_s"] = 1e-4
    if name == "masker_curvature":
        parameters["masker_phase"] = "schroeder"
    parameters[name] = spread(value, f)
    one = keys(1).expand(3)
    x = stimulus.generate(parameters, one, FS)
    for i in range(3):
        alone = stimulus.generate(at(parameters, i), one[i], FS)
        assert torch.equal(alone[0], x[i, ..., : alone.shape[-1]])
        assert not x[i, ..., alone.shape[-1] :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_tracked_variable_changes_the_sound(kind: str, extra) -> None:
    stimulus = registry.get(kind)()
    for tracked, variable in stimulus.tracked.items():
        if (kind, tracked) == ("masked_tone", "gap_s"):
            continue  # the default is simultaneous masking; the same variable is tested with forward_masking
        # the rate of a single click has no effect, nor the ratio to a masker that is not there
        needed = {"click": {"n_clicks": 3}, "vocoded_speech": {"masker": "stationary"}}.get(kind, {})
        reference = stimulus.reference_parameters(stimulus.complete({**extra.get(kind, {}), **needed}), tracked)
        easy = dict(reference)
        level = {
            "dB SPL": 60.0,
            "dB": -3.0 if variable.maximum == 0 else 6.0,
            "s": 0.02,
            "Hz": 5.0,
            "%": 5.0,
            "us": 50.0,
        }
        easy[tracked] = level[variable.unit]
        easy |= dict.fromkeys(variable.reference_also, 60.0)
        one = keys(1)
        a, b = stimulus.generate(reference, one, FS), stimulus.generate(easy, one, FS)
        assert a.shape != b.shape or not torch.equal(a, b), tracked


@pytest.mark.parametrize("kind", [k for k in KINDS if "silence_before_s" in registry.get(k).Parameters.model_fields])
def test_silence_around_the_sound(kind: str, extra) -> None:
    stimulus = registry.get(kind)()
    bare = {**extra.get(kind, {}), "silence_before_s": 0.0, "silence_after_s": 0.0}
    x = stimulus.generate(bare, keys(2), FS)
    before = torch.tensor([0.01, 0.03], dtype=torch.float64)
    padded = {**bare, "silence_before_s": before, "silence_after_s": 0.02}
    y = stimulus.generate(padded, keys(2), FS)
    n = x.shape[-1]
    assert y.shape[-1] == n + 480 + 320
    for row, start in enumerate((160, 480)):
        assert torch.equal(y[row, ..., start : start + n], x[row])
        assert not y[row, ..., :start].any()
        assert not y[row, ..., start + n :].any()
    assert stimulus.duration_s(padded) == pytest.approx(stimulus.duration_s(bare) + 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_parameters(kind: str, extra) -> None:
    stimulus = registry.get(kind)()
    with pytest.raises(SpecError, match=r"'silence_befor_s' is not a parameter of this stimulus .* Did you mean"):
        stimulus.generate({**extra.get(kind, {}), "silence_befor_s": 1.0}, keys(1), FS)


def test_unknown_kind() -> None:
    with pytest.raises(SpecError, match=r"There is no stimulus named 'am_nois'.* Did you mean 'am_noise'"):
        registry.get("am_nois")


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("am_noise", {"depth_db": 1.0}, "less than or equal to 0"),
        ("am_noise", {"depth_db": math.nan}, "less than or equal to 0"),
        ("am_noise", {"centre_hz": 1000.0}, "centre_hz and bandwidth_hz go together"),
        ("am_noise", {"low_hz": 3000.0, "high_hz": 200.0}, "low_hz = 3000 Hz must be below high_hz = 200 Hz"),
        ("am_noise", {"band_limit": "during"}, "'before', 'after' or 'both'"),
        ("noise", {"level_db_spl": 60.0, "spectrum_level_db_spl": 20.0}, "not both"),
        ("tone", {"duration_s": 0.0}, "greater than 0"),
        ("tone", {"level_db_spl": 200.0}, "less than or equal to 160"),
        ("tone_complex", {"lowest_harmonic": 30}, "lowest_harmonic must not exceed highest_harmonic"),
        ("masked_tone", {"masker_low_hz": 100.0, "masker_centre_hz": 5.0, "masker_bandwidth_hz": 2.0}, "not both"),
        ("from_file", {}, "path"),
    ],
)
def test_parameters_are_validated_before_anything_runs(kind: str, parameters, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        registry.get(kind).Parameters.model_validate(parameters)


def test_classic_defaults() -> None:
    """The broadband TMTF of Viemeister (1979): 0.5 s, 50-ms ramps; depth -inf in the reference interval."""
    parameters = registry.get("am_noise").Parameters()
    assert (parameters.duration_s, parameters.ramp_s, parameters.compensate_level) == (0.5, 0.05, True)
    assert registry.get("am_noise").tracked["depth_db"].reference == -math.inf


class _Chirp(GatedStimulus):
    """A kind written by a user: a linear chirp."""

    class Parameters(GatedParameters):
        """Parameters of a chirp."""

        sweep_hz: float = Field(1000.0, ge=0, description="Sweep in Hz.")

    description: ClassVar[str] = "Linear chirp"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "sweep_hz": TrackedVariable("Hz", "Sweep (Hz)", 0.0, 0.0, 5000.0, -1)
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        n = int(p.length(fs).max())
        t = torch.arange(n, dtype=torch.float64) / fs
        return torch.sin(2 * math.pi * (500.0 * t + p["sweep_hz"][:, None] * t**2 / 2))


def test_a_users_own_kind() -> None:
    x = _Chirp().generate({"sweep_hz": torch.tensor([0.0, 100.0]), "silence_before_s": 0.1}, keys(2), FS)
    assert x.shape == (2, 9600)
    assert not x[:, :1600].any()
