"""Versions, devices, and a try of each part."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["Finding", "examine"]

PACKAGES = ("torch", "torchaudio", "numpy", "numba", "scipy", "pandas", "xarray", "zarr", "h5netcdf", "matplotlib")


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what was looked at, what was found, whether it works."""

    what: str
    found: str
    works: bool = True


def examine() -> list[Finding]:
    """Return versions, devices and whether a model, the store and the figures work."""
    from psysim import __version__

    findings = [
        Finding("psysim", __version__),
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_try(name, partial(_version, name)) for name in PACKAGES),
        _try("processors", lambda: f"{os.cpu_count()} cores"),
        _try("cuda", _cuda),
        _try("model dau1997", _model),
        _try("random numbers", _random),
        _try("human data", _human),
        _try("calibration cache", _cache),
    ]
    return findings


def _try(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look())
    except Exception as error:  # the doctor reports whatever is wrong
        return Finding(what, f"{type(error).__name__}: {error}", works=False)


def _version(package: str) -> str:
    return str(importlib.import_module(package).__version__)


def _cuda() -> str:
    import torch

    from psysim.experiments.devices import cuda_reason

    reason = cuda_reason()
    return torch.cuda.get_device_name() if reason is None else f"not used: {reason}"


def _model() -> str:
    import time

    from psysim import models, stimuli

    model = models.Dau1997(fs=44100.0)
    sound = stimuli.tone(frequency_hz=1000.0, level_db_spl=60.0, duration_s=0.5, ramp_s=0.01, fs=44100.0)
    model.represent(sound)
    start = time.perf_counter()
    representation = model.represent(sound)
    factor = 0.5 / (time.perf_counter() - start)
    return f"{len(representation.fc)} channels, {factor:.1f} times real time for one sound"


def _random() -> str:
    import torch

    from psysim.rng import philox4x32

    first = philox4x32(torch.zeros(4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))[0]
    if int(first) != 0x6627E8D5:
        raise ArithmeticError(f"Philox gives {int(first):#x} instead of 0x6627e8d5")
    return "Philox 4x32-10 as published"


def _human() -> str:
    from psysim import human

    return f"{len(human.names())} data sets"


def _cache() -> str:
    from psysim.observers.calibration import cache_folder

    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return "writable" if os.access(folder, os.W_OK) else "not writable: calibrations are computed at every run"
