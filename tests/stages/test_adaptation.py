from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.stages import AdaptLoop
from psysim.stages.adaptation import minimum_levels_paulick2024

FS = 16000.0


@pytest.mark.parametrize("preset", ["dau1997", "osses2021", "relanoiborra2019", "dau1996"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_silence_is_rest(preset: str, dtype: torch.dtype) -> None:
    output = AdaptLoop(FS, preset=preset, dtype=dtype)(torch.zeros(2, 3, 4000, dtype=dtype))
    # 16 rounding steps of the rest state (0.6 to 0.7), which is 100 / (1 - rest) MU per unit.
    assert float(output.abs().max()) <= 16 * 331 * torch.finfo(dtype).eps / 2


def test_float32_stays_with_float64_near_rest_for_seconds() -> None:
    """States kept in float32 stand still once their increments fall below a rounding step: 0.12 MU off after 3 s."""
    x = torch.full((1, 3 * 44100), 1.2e-5, dtype=torch.float64)
    x[0, :2205] = 1e-2
    exact = AdaptLoop(44100.0, dtype=torch.float64)(x)
    assert float((AdaptLoop(44100.0)(x.float()) - exact).abs().max()) <= 1e-3


@pytest.mark.parametrize(("limit", "ceiling"), [(10.0, 1443.98), (5.0, 614.47)])
def test_ceiling_of_the_onset_and_floor_of_the_offset(limit: float, ceiling: float) -> None:
    x = torch.zeros(1, 16000, dtype=torch.float64)
    x[0, :8000] = 100.0
    output = AdaptLoop(FS, limit=limit, dtype=torch.float64)(x)
    assert float(output.max()) == pytest.approx(ceiling, abs=0.01)
    assert float(output.min()) == pytest.approx(-231.0, abs=1.0)


def test_minspl_is_always_in_db() -> None:
    """0.5 is half a dB, not the linear level 0.5 that the published function takes it for."""
    low = AdaptLoop(FS, minspl=0.5)
    assert low.minlvl.item() == pytest.approx(10.0 ** (-99.5 / 20.0))
    linear = AdaptLoop(FS, minlvl_per_channel=[10.0 ** (-99.5 / 20.0)])
    x = torch.rand(1, 500, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(low(x), linear(x))
    assert low.minlvl_per_channel is None
    assert linear.use_freq_specific_minlvl


def test_number_of_loops() -> None:
    assert AdaptLoop(FS).num_loops == 5
    assert AdaptLoop(FS, num_loops=5).tau_s.tolist() == [0.005, 0.050, 0.129, 0.253, 0.500]
    np.testing.assert_allclose(AdaptLoop(FS, num_loops=3).tau_s, [0.005, 0.2525, 0.5])
    stage = AdaptLoop(FS, tau=torch.tensor([0.01]), num_loops=1)
    torch.testing.assert_close(stage.a1 + stage.b0, torch.ones(1, dtype=torch.float64))
    assert stage.a1.item() == pytest.approx(np.exp(-1.0 / 160.0))


def test_a_limit_of_one_is_no_limit() -> None:
    x = torch.rand(1, 500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(AdaptLoop(FS, limit=1.0)(x), AdaptLoop(FS, limit=0.0)(x))
    assert AdaptLoop(FS, preset="osses2021").limit == 5.0
    assert AdaptLoop(FS, preset="osses2021", limit=10.0).limit == 10.0


def test_minimum_levels_of_paulick2024() -> None:
    table = minimum_levels_paulick2024()
    assert table.shape == (50,)
    fc = torch.tensor([80.0, 250.0, 264.3, 264.31, 8000.0, 9000.0])
    assert torch.equal(minimum_levels_paulick2024(fc), table[[0, 0, 0, 1, 49, 49]])
    stage = AdaptLoop(FS, preset="paulick2024")
    torch.testing.assert_close(stage.minlvl, table)
    with pytest.raises(SpecError, match=r"2 channels.*50"):
        stage(torch.full((2, 10), 0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "dau97"}, "Did you mean 'dau1997'"),
        ({"tau": [0.005, 0.0]}, "tau"),
        ({"tau": []}, "tau"),
        ({"tau": [0.005, 0.05], "num_loops": 3}, "num_loops = 3"),
        ({"num_loops": 0}, "num_loops"),
        ({"limit": -1.0}, "limit"),
        ({"minspl": 120.0}, "minspl"),
        ({"minspl": 0.0, "minlvl_per_channel": [1e-5]}, "exclude each other"),
        ({"minlvl_per_channel": [0.0]}, "minlvl_per_channel"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        AdaptLoop(FS, **arguments)
