"""For all tests: import order, and the guard of global state."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as psysim does; here before anything loads torch

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples on every run; `pytest --hypothesis-profile=default` searches for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _global_state_stays() -> Iterator[None]:
    """Fail a test that leaves torch's or NumPy's global state changed: randomness is keyed, defaults are the user's."""
    before = _state()
    yield
    after = _state()
    changed = [name for name, value in before.items() if value != after[name]]
    assert not changed, f"this test changed global state: {changed}"


def _state() -> dict[str, object]:
    return {
        "torch random state": hash(torch.get_rng_state().numpy().tobytes()),
        "numpy random state": hash(np.random.get_state()[1].tobytes()),  # noqa: NPY002
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradient mode": torch.is_grad_enabled(),
    }


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep calibrations and human data of the tests out of the user's folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSYSIM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PSYSIM_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield
