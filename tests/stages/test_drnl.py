from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.stages import DRNLFilterbank, IHCPaulick2024, OuterMiddleEarFilter, hair_cell_losses
from psysim.stages.drnl import erb_points

FS = 44100.0


def tone(frequency_hz: float, rms: float, seconds: float = 0.1) -> Tensor:
    t = torch.arange(int(seconds * FS), dtype=torch.float64) / FS
    return math.sqrt(2.0) * rms * torch.sin(2.0 * math.pi * frequency_hz * t)


def steady_db(y: Tensor) -> float:
    """Return the level of the last 50 ms."""
    return float(10.0 * torch.log10(y[..., -2205:].square().mean()))


def test_documented_shapes() -> None:
    bank = DRNLFilterbank((125.0, 8000.0), FS)
    assert bank.dtype == torch.float64
    assert bank.num_channels == len(bank.fc) == 50
    assert bank(torch.zeros(300)).shape == (50, 300)
    assert bank(torch.zeros(2, 300)).shape == (2, 50, 300)
    assert DRNLFilterbank((125.0, 8000.0), FS, n_channels=20).num_channels == 20
    assert DRNLFilterbank(torch.tensor([500.0, 1000.0, 4000.0]), FS).num_channels == 3


def test_points_on_the_erb_scale() -> None:
    points = erb_points(250.0, 8000.0, 50)
    # SPEC_paulick2024, section 1, three decimals
    np.testing.assert_allclose(np.array(points)[[1, 2, 17, 48]], [278.615, 308.939, 1055.587, 7535.98], atol=5e-3)
    assert (points[0], points[-1]) == (250.0, 8000.0)
    assert erb_points(1000.0, 1000.0, 1) == [1000.0]
    with pytest.raises(SpecError, match="one channel needs flow = fhigh"):
        erb_points(250.0, 8000.0, 1)
    with pytest.raises(SpecError, match="flow must be below fhigh"):
        erb_points(8000.0, 250.0, 50)
    with pytest.raises(SpecError, match="whole number"):
        erb_points(250.0, 8000.0, 2.5)


@pytest.mark.parametrize("model", ["paulick2024", "jepsen2008"])
def test_growth_is_linear_compressive_linear(model: str) -> None:
    """Below the knee 1 dB per dB, above it 1/4; at the highest levels the linear path takes over again."""
    bank = DRNLFilterbank([4000.0], FS, model=model)
    levels = {db: steady_db(bank(tone(4000.0, 10.0 ** (db / 20.0)))) for db in (-160, -150, -130, -120, -50, -40)}
    assert levels[-150] - levels[-160] == pytest.approx(10.0, abs=1e-3)
    # The linear path, 20 dB and more below, changes either level by up to 0.8 dB
    assert levels[-120] - levels[-130] == pytest.approx(2.5, abs=1.0)
    assert levels[-40] - levels[-50] == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize("loss_db", [0.0, 5.0, 15.0, 30.0, "max"])
def test_loss_of_outer_hair_cells_is_the_loss_for_soft_tones(loss_db: float | str) -> None:
    normal = DRNLFilterbank([4000.0], FS)
    value = float(normal.max_ohc_loss_db) if loss_db == "max" else loss_db
    impaired = DRNLFilterbank([4000.0], FS, ohc_loss_db=value)
    soft, loud = tone(4000.0, 1e-9), tone(4000.0, 1e-2)
    # The tone's onset has decayed to 1e-6 and less after 50 ms
    assert steady_db(normal(soft)) - steady_db(impaired(soft)) == pytest.approx(value, abs=1e-4)
    # At -40 dB re 1 m/s the nonlinear path is 30 dB below the linear one: all of it is 0.3 dB
    assert steady_db(normal(loud)) - steady_db(impaired(loud)) == pytest.approx(0.0, abs=0.3)


def test_the_whole_loss_leaves_the_linear_path() -> None:
    normal = DRNLFilterbank((250.0, 8000.0), FS)
    without = DRNLFilterbank((250.0, 8000.0), FS, subject="HIx")
    limit = normal.max_ohc_loss_db
    assert limit[0] == pytest.approx(19.3, abs=0.1)
    assert limit[-1] == pytest.approx(44.7, abs=0.1)
    assert torch.equal(without.max_ohc_loss_db, torch.zeros(50, dtype=torch.float64))
    whole = DRNLFilterbank((250.0, 8000.0), FS, ohc_loss_db=limit)
    # The root of a rounding error of 1e-16 of the squares
    assert (whole.active_a <= 1e-6 * normal.a).all()
    x = 1e-6 * torch.randn(1, 500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(whole(x), without(x), rtol=0, atol=1e-5 * float(without(x).abs().max()))


def test_an_audiogram_is_divided_between_the_hair_cells() -> None:
    bank = DRNLFilterbank((250.0, 8000.0), FS)
    ohc, ihc = hair_cell_losses(bank, [500.0, 1000.0, 2000.0, 4000.0], [-5.0, 20.0, 40.0, 70.0])
    fc = bank.fc
    assert ohc.shape == ihc.shape == (50,)
    total = ohc + ihc
    assert total[fc <= 500.0].abs().max() == 0  # better than normal counts as normal
    assert (total[fc >= 4000.0] - 70.0).abs().max() < 1e-12  # held beyond the ends
    expected = 20.0 + 20.0 * math.log2(float(fc[25]) / 1000.0)  # 20 dB per octave from 1 to 2 kHz
    assert float(total[25]) == pytest.approx(expected)
    assert (ohc <= bank.max_ohc_loss_db).all()
    assert torch.equal(ihc[total < bank.max_ohc_loss_db], torch.zeros_like(ihc[total < bank.max_ohc_loss_db]))
    shared = hair_cell_losses(bank, [1000.0], [20.0], ohc_share=0.75)
    torch.testing.assert_close(shared[0][5:], torch.full((45,), 15.0, dtype=torch.float64))
    torch.testing.assert_close(shared[1][5:], torch.full((45,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize(("frequency_hz", "loss_db"), [(500.0, 20.0), (1000.0, 50.0), (4000.0, 30.0), (4000.0, 70.0)])
def test_a_hearing_loss_shifts_the_level_of_equal_response(frequency_hz: float, loss_db: float) -> None:
    """A tone at 5 dB SPL gives a normal hair cell what the impaired one gets from a tone that is louder by the loss."""
    ears = OuterMiddleEarFilter(FS, dtype="float64")
    normal = DRNLFilterbank([frequency_hz], FS)
    ohc, ihc = hair_cell_losses(normal, [frequency_hz], [loss_db])
    impaired = DRNLFilterbank([frequency_hz], FS, ohc_loss_db=ohc)
    soft, louder = (ears(tone(frequency_hz, 20e-6 * 10.0 ** (db / 20.0))) for db in (5.0, 5.0 + loss_db))
    reference = IHCPaulick2024(FS, dtype="float64")(normal(soft))
    shifted = IHCPaulick2024(FS, dtype="float64", ihc_loss_db=ihc)(impaired(louder))
    # Exactly the same with the knee far away; 5 dB SPL is a little below it
    assert steady_db(shifted - 8.35e-9) == pytest.approx(steady_db(reference - 8.35e-9), abs=0.5)


def test_gradients_with_respect_to_the_loss_and_of_an_impaired_listener() -> None:
    x = tone(1000.0, 1e-8, 0.01)
    bank = DRNLFilterbank([1000.0], FS, ohc_loss_db=10.0, learnable=True)
    bank(x).square().sum().backward()
    assert float(bank.ohc_loss_db.grad) < 0  # more loss, less response
    impaired = DRNLFilterbank([1000.0], FS, subject="HIx", learnable=True)
    impaired(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in impaired.parameters())
    assert float(impaired.a.grad) != 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": "HI"}, "Did you mean 'HIx'"),
        ({"model": "jepsen"}, "Did you mean 'jepsen2008'"),
        ({"fs": 16000.0}, "below fs/2 = 8000 Hz"),
        ({"fc": []}, "centre frequency of each channel"),
        ({"fc": [0.0]}, "above 0"),
        ({"n_channels": 0}, "n_channels"),
        ({"ohc_loss_db": 40.0}, r"at 250 Hz is out of range: it must be at most 19\.3"),
        ({"ohc_loss_db": [1.0, 2.0]}, "there are 50 channels"),
        ({"ohc_loss_db": -1.0}, "at least 0"),
        ({"ohc_loss_db": float("nan")}, "finite"),
        ({"ohc_loss_db": 5.0, "subject": "HIx"}, "needs subject = 'NH'"),
        ({"ohc_loss_db": 5.0, "model": "jepsen2008"}, "paths partly cancel"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        DRNLFilterbank(**({"fc": (250.0, 8000.0), "fs": FS} | arguments))


@pytest.mark.parametrize(
    ("audiogram", "message"),
    [
        (([1000.0], [10.0, 20.0]), "one loss per frequency"),
        (([], []), "one loss per frequency"),
        (([2000.0, 1000.0], [10.0, 20.0]), "rising frequencies"),
        (([1000.0], [float("nan")]), "finite losses"),
        (([1000.0], [10.0], 1.5), "ohc_share"),
    ],
)
def test_wrong_audiograms(audiogram: tuple, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        hair_cell_losses(DRNLFilterbank([1000.0], FS), *audiogram)
