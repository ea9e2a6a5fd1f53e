"""The documented interface of the stages: arguments and their order, shapes, and a learning step of each alone.

The documented signatures are those of the peer package (names are kept, numbers follow the publications). Where a
default differs, the model cards say why; `OTHER_DEFAULTS` lists all of them.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from psysim import stages
from psysim.stages.base import AuditoryModule

FS = 16000.0
FC = torch.tensor([250.0, 500.0, 1000.0])

SIGNATURES: dict[str, str] = {
    "GammatoneFilterbank": "fc fs n=4 betamul=None learnable=False dtype=float32 implementation='sos'",
    "DRNLFilterbank": "fc fs n_channels=50 subject='NH' model='paulick2024' learnable=False dtype=float64",
    "FastDRNLFilterbank": "fc fs n_channels=50 subject='NH' model='paulick2024' learnable=False dtype=float64 "
    "ir_length=4096",
    "IHCEnvelope": "fs cutoff=None order=1 method='dau1996' learnable=False dtype=float32",
    "IHCPaulick2024": "fs learnable=False dtype=float32",
    "AdaptLoop": "fs tau=None limit=10.0 minspl=0.0 minlvl_per_channel=None preset=None learnable=False dtype=float32",
    "ModulationFilterbank": "fs fc Q=2.0 max_mfc=150.0 lp_cutoff=2.5 att_factor=1.0 use_upper_limit=False preset=None "
    "filter_type='efilt' learnable=False dtype=float32",
    "FastModulationFilterbank": "fs fc Q=2.0 max_mfc=150.0 lp_cutoff=2.5 att_factor=1.0 use_upper_limit=False "
    "preset=None filter_type='efilt' learnable=False dtype=float32 tolerance=2",
    "King2019ModulationFilterbank": "fs mflow=2.0 mfhigh=150.0 qfactor=1.0 nmod=None learnable=False dtype=float32",
    "FastKing2019ModulationFilterbank": "fs mflow=2.0 mfhigh=150.0 qfactor=1.0 nmod=None learnable=False "
    "dtype=float32 ir_length_ratio=1.0",
    "HeadphoneFilter": "fs order=512 phase_type='minimum' learnable=False compensate_delay=True dtype=float32",
    "MiddleEarFilter": "fs filter_type='lopezpoveda2001' order=512 phase_type='minimum' normalize_gain=True "
    "learnable=False compensate_delay=True dtype=float32",
    "BrokenStickCompression": "knee_db=30.0 exponent=0.3 dboffset=100.0 num_channels=None learnable=False",
    "PowerCompression": "knee_db=30.0 exponent=0.3 dboffset=100.0 num_channels=None learnable=False",
    "ButterworthFilter": "order cutoff fs btype='low' learnable=False dtype=float32",
}

OTHER_DEFAULTS: dict[str, dict[str, object]] = {
    # None: the value of the method or preset, which is the documented one for the documented method
    "IHCEnvelope": {"order": None},
    "AdaptLoop": {"limit": None, "minspl": None},
    "ModulationFilterbank": {"max_mfc": None, "att_factor": None, "use_upper_limit": None},
    "FastModulationFilterbank": {"max_mfc": None, "att_factor": None, "use_upper_limit": None},
    "HeadphoneFilter": {"phase_type": "zero"},
    "MiddleEarFilter": {"phase_type": None},
}

# name -> (positional and named arguments, shape of a batch of two sounds, shapes that go in)
MADE: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...], tuple[int, ...] | None]] = {
    "GammatoneFilterbank": (((200.0, 4000.0), FS), {}, (2, 800), (2, 22, 800)),
    "DRNLFilterbank": (((250.0, 4000.0), FS), {"n_channels": 8, "dtype": torch.float32}, (2, 800), (2, 8, 800)),
    "FastDRNLFilterbank": (((250.0, 4000.0), FS), {"n_channels": 8, "ir_length": 256}, (2, 800), (2, 8, 800)),
    "IHCEnvelope": ((FS,), {"method": "breebaart2001"}, (2, 3, 800), (2, 3, 800)),
    "IHCPaulick2024": ((FS,), {}, (2, 3, 800), (2, 3, 800)),
    "AdaptLoop": ((FS,), {"tau": torch.tensor([0.005, 0.05]), "limit": 5.0}, (2, 3, 800), (2, 3, 800)),
    "ModulationFilterbank": ((FS, FC), {"preset": "dau1997"}, (2, 3, 800), None),
    "FastModulationFilterbank": ((FS, FC), {"max_mfc": 150.0}, (2, 3, 800), None),
    "King2019ModulationFilterbank": ((FS,), {"nmod": 4}, (2, 3, 800), (2, 3, 4, 800)),
    "FastKing2019ModulationFilterbank": ((FS,), {}, (2, 3, 800), (2, 3, 5, 800)),
    "HeadphoneFilter": ((FS,), {"order": 256, "phase_type": "minimum"}, (2, 800), (2, 800)),
    "MiddleEarFilter": ((FS, "jepsen2008"), {}, (2, 800), (2, 800)),
    "OuterMiddleEarFilter": ((FS,), {}, (2, 800), (2, 800)),
    "BrokenStickCompression": ((), {"exponent": 0.4}, (2, 800, 3), (2, 800, 3)),
    "PowerCompression": ((), {"exponent": torch.tensor([0.3, 0.4, 0.5]), "num_channels": 3}, (2, 800, 3), (2, 800, 3)),
    "ButterworthFilter": ((2, 500.0, FS), {"btype": "high"}, (2, 3, 800), (2, 3, 800)),
}


def documented(text: str) -> dict[str, object]:
    """Return name -> default of a documented signature; required arguments have `inspect.Parameter.empty`."""
    names = {"float32": torch.float32, "float64": torch.float64}
    arguments: dict[str, object] = {}
    for part in text.split():
        name, _, default = part.partition("=")
        arguments[name] = eval(default, {"__builtins__": {}}, names) if default else inspect.Parameter.empty
    return arguments


@pytest.mark.parametrize("name", SIGNATURES)
def test_documented_signature(name: str) -> None:
    expected = documented(SIGNATURES[name])
    other = OTHER_DEFAULTS.get(name, {})
    parameters = inspect.signature(getattr(stages, name)).parameters
    assert set(expected) <= set(parameters)
    kept = [n for n in parameters if n in expected and n not in ("ir_length", "tolerance")]
    assert kept == [n for n in expected if n not in ("ir_length", "tolerance")], "the order of positional arguments"
    for argument, default in expected.items():
        assert parameters[argument].default == other.get(argument, default), argument
        assert argument not in other or other[argument] != default, "no longer another default: remove it"


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return noise that no stage leaves at its minimum."""
    return 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def tensors(output: Tensor | list[Tensor]) -> list[Tensor]:
    """Return what a stage gives as a list."""
    return output if isinstance(output, list) else [output]


@pytest.mark.parametrize("name", MADE)
def test_documented_shapes(name: str) -> None:
    arguments, options, given, expected = MADE[name]
    stage: AuditoryModule = getattr(stages, name)(*arguments, **options)
    x = inputs(given, getattr(stage, "dtype", torch.float32))
    output = stage(x)
    if expected is None:
        assert [tuple(y.shape) for y in output] == [(2, len(mfc), given[-1]) for mfc in stage.mfc]
        assert [len(mfc) for mfc in stage.mfc] == ([12] * 3 if options.get("preset") == "dau1997" else [6, 7, 8])
    else:
        assert tuple(output.shape) == expected
    single = stage(x[1])
    for one, batch in zip(tensors(single), tensors(output), strict=True):
        assert torch.equal(one, batch[1])


@pytest.mark.parametrize("name", MADE)
def test_a_learning_step_of_the_stage_alone(name: str) -> None:
    arguments, options, given, _ = MADE[name]
    stage: AuditoryModule = getattr(stages, name)(*arguments, **options, learnable=True)
    optimiser = torch.optim.Adam(stage.parameters(), lr=1e-3)
    before = {n: p.detach().clone() for n, p in stage.named_parameters()}
    assert before
    x = inputs(given, getattr(stage, "dtype", torch.float32))
    sum(y.abs().square().sum() for y in tensors(stage(x))).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in stage.parameters())
    assert any(bool((p.grad != 0).any()) for p in stage.parameters())
    optimiser.step()
    assert any(not torch.equal(p, before[n]) for n, p in stage.named_parameters())
    assert all(bool(y.isfinite().all()) for y in tensors(stage(x)))
