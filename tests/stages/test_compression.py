from __future__ import annotations

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.stages import BrokenStickCompression, PowerCompression

DTYPES = [torch.float32, torch.float64]
KNEE = 10.0 ** (-70.0 / 20.0)  # 30 dB with 100 dB at 1


def samples(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return amplitudes from -120 to 20 dB re 1, of either sign, and 0."""
    size = 10.0 ** torch.linspace(-6.0, 1.0, 71, dtype=torch.float64)
    return torch.cat([-size, torch.zeros(1, dtype=torch.float64), size]).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("exponent", [0.3, 0.6, 1.0])
def test_broken_stick(exponent: float, dtype: torch.dtype) -> None:
    """King et al. (2019): |x| <= knee unchanged, above sign(x) |x|^n knee^(1 - n)."""
    x = samples()
    expected = torch.where(x.abs() <= KNEE, x, x.sign() * x.abs() ** exponent * KNEE ** (1.0 - exponent))
    y = BrokenStickCompression(exponent=exponent, dtype=dtype)(x.to(dtype))
    torch.testing.assert_close(y.double(), expected, rtol=1e-14 if dtype == torch.float64 else 1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_power(dtype: torch.dtype) -> None:
    """The knee stays, smaller amplitudes are expanded."""
    x = samples()
    y = PowerCompression(dtype=dtype)(x.to(dtype)).double()
    expected = x.sign() * (x.abs() / KNEE) ** 0.3 * KNEE
    torch.testing.assert_close(y, expected, rtol=1e-14 if dtype == torch.float64 else 1e-6, atol=0)
    assert (y.abs() >= BrokenStickCompression(dtype=dtype)(x.to(dtype)).double().abs() * (1.0 - 1e-6)).all()


def test_input_and_knee_scale_together() -> None:
    """Only the distance between sound and knee in dB counts; dboffset sets the unit."""
    x = samples()
    low = BrokenStickCompression(dboffset=100.0, dtype=torch.float64)(x)
    high = BrokenStickCompression(dboffset=80.0, dtype=torch.float64)(10.0 * x)
    torch.testing.assert_close(high, 10.0 * low, rtol=1e-14, atol=0)


@pytest.mark.parametrize("kind", [BrokenStickCompression, PowerCompression])
def test_documented_shapes(kind: type[PowerCompression]) -> None:
    """(N,), (B, N), (B, T, F) with channels last; (B, F, T) with channel_dim = -2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40, 3, generator=generator)
    exponents = [0.25, 0.5, 0.75]  # exact in float32
    one_by_one = torch.stack([kind(exponent=n)(x[..., f]) for f, n in enumerate(exponents)], dim=-1)
    last = kind(exponent=exponents)
    assert torch.equal(last(x), one_by_one)
    assert torch.equal(last(x[:, 7]), one_by_one[:, 7])
    assert torch.equal(last(x[1, 7]), one_by_one[1, 7])
    second = kind(exponent=torch.tensor(exponents).double(), channel_dim=-2, num_channels=3)
    assert torch.equal(second(x.transpose(1, 2)), one_by_one.transpose(1, 2))
    assert torch.equal(second(x[0].T), one_by_one[0].T)
    assert torch.equal(kind(num_channels=3)(x), kind()(x))
    flat = x.reshape(-1)
    for shape in [(240,), (2, 120), (2, 40, 3)]:
        assert torch.equal(kind()(flat.reshape(shape)).reshape(-1), kind()(flat))


def test_attributes() -> None:
    stage = BrokenStickCompression(40.0, 0.5, 94.0, num_channels=2, learnable=True)
    assert (stage.knee_db.item(), stage.knee_db_param.item(), stage.dboffset) == (40.0, 40.0, 94.0)
    assert stage.exponent.tolist() == [0.5, 0.5]
    assert stage.knee.item() == pytest.approx(10.0 ** (-54.0 / 20.0))
    assert stage.get_parameters() == {"knee_db": 40.0, "exponent": [0.5, 0.5], "dboffset": 94.0, "learnable": True}
    assert {name for name, _ in stage.named_parameters()} == {"knee_db", "exponent"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent": 0.0}, "above 0 and at most 1"),
        ({"exponent": 1.5}, "above 0 and at most 1"),
        ({"exponent": [0.3, float("nan")]}, "above 0 and at most 1"),
        ({"exponent": []}, "exponent"),
        ({"exponent": [0.3, 0.4], "num_channels": 3}, "2 entries, but num_channels = 3"),
        ({"knee_db": float("nan")}, "knee_db"),
        ({"dboffset": 1e4}, "dboffset"),
        ({"num_channels": 0}, "num_channels"),
        ({"channel_dim": 1}, "channel_dim"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        BrokenStickCompression(**arguments)


def test_channels_in_the_wrong_place_are_refused() -> None:
    x = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SpecError, match="set channel_dim=-2"):
        BrokenStickCompression(num_channels=3)(x)
    with pytest.raises(SpecError, match="set channel_dim=-1"):
        BrokenStickCompression(num_channels=3, channel_dim=-2)(x.transpose(1, 2))
    with pytest.raises(SpecError, match="1 channels in dimension -2"):
        BrokenStickCompression(num_channels=3, channel_dim=-2)(x[0, 0])
