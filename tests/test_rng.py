from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from psysim import rng
from psysim._rng_torch import box_muller
from psysim.errors import SpecError
from psysim.rng import Keys, Purpose

FIELDS = {"condition": 2**16, "observer": 2**8, "track": 2**32, "trial": 2**24, "interval": 2**8}

# Random123 known-answer vectors, philox4x32, 10 rounds
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def batch() -> Keys:
    """Keys at both ends of every range, shape (7, 3)."""
    keys = Keys.make(seed=2**64 - 1, track=[0, 1, 2, 2**31, 2**32 - 1, 77, 78], condition=2**16 - 1, observer=255)
    return keys.unsqueeze(-1).replace(interval=[0, 1, 255], trial=2**24 - 1)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected) -> None:
    assert rng.philox4x32(torch.tensor(counter), torch.tensor(key)).tolist() == expected


def test_known_answers_as_a_batch() -> None:
    counter = torch.tensor([k[0] for k in KNOWN])
    key = torch.tensor([k[1] for k in KNOWN])
    assert rng.philox4x32(counter, key).tolist() == [k[2] for k in KNOWN]
    assert rng.philox4x32(counter[:1], key).shape == (3, 4)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers_of_the_cpu_kernel(counter, key, expected) -> None:
    from psysim._rng_cpu import _philox

    assert [int(w) for w in _philox(*np.array([*counter, *key], np.uint32))] == expected


def test_the_scheme_is_what_the_documentation_says() -> None:
    keys = Keys.make(seed=0x0123456789ABCDEF, condition=513, observer=7, track=123456789, trial=70000, interval=3)
    purpose = Purpose.MASKER
    blocks = torch.arange(3)
    counter = torch.stack(
        [
            blocks,
            torch.full((3,), 70000 << 8 | 3),
            torch.full((3,), 123456789),
            torch.full((3,), 2 << 24 | 7 << 16 | 513),
        ],
        dim=-1,
    )
    expected = rng.philox4x32(counter, torch.tensor([0x89ABCDEF, 0x01234567])).flatten()
    w = rng.words(keys, purpose, 12)
    assert torch.equal(w, expected)
    assert torch.equal(rng.uniform(keys, purpose, 12), (expected.double() + 0.5) / 2**32)
    u = ((w.double() + 0.5) / 2**32).reshape(-1, 2).numpy()
    z = np.sqrt(-2 * np.log(u[:, 0]))[:, None] * np.stack([np.cos(2 * np.pi * u[:, 1]), np.sin(2 * np.pi * u[:, 1])], 1)
    # 1e-15: a few rounding errors of numbers up to 6.8
    np.testing.assert_allclose(rng.normal(keys, purpose, 12).numpy(), z.ravel(), rtol=0, atol=4e-15)
    whole = [(int(a) << 32 | int(b)) * 10 >> 64 for a, b in w.reshape(-1, 2)]
    assert rng.integers(keys, purpose, 6, 10).tolist() == whole


def test_frozen_values() -> None:
    """These numbers must never change: published results depend on them."""
    keys = Keys.make(seed=1, condition=2, observer=3, track=4, trial=5, interval=6)
    assert rng.words(keys, Purpose.CARRIER, 4).tolist() == FROZEN_WORDS
    assert [x.hex() for x in rng.normal(keys, Purpose.CARRIER, 4).tolist()] == FROZEN_NORMALS
    assert {p.name: p.value for p in Purpose} == {
        "TARGET": 0,
        "CARRIER": 1,
        "MASKER": 2,
        "PHASE": 3,
        "ROVE": 4,
        "INTERNAL_NOISE": 5,
        "RESPONSE": 6,
        "TIE": 7,
        "SIGNAL": 8,
        "MODULATOR": 9,
        "TOKEN": 10,
        "ORDER": 11,
        "PROCEDURE": 12,
        "LAPSE": 13,
        "CALIBRATION": 14,
        "ANALYSIS": 15,
        "FRINGE": 16,
        "SECOND_MASKER": 17,
        "DROPOUT": 20,
        "INITIAL_WEIGHTS": 21,
        "CROP": 22,
        "SPIKES": 23,
        "TRAINING": 24,
    }


FROZEN_WORDS = [2222308751, 3764752134, 1188020423, 1057145892]
FROZEN_NORMALS = ["0x1.a3a149f0807cfp-1", "-0x1.9b896f89848bdp-1", "0x1.3ed4f710d0843p-5", "0x1.9a4d97fcb0221p+0"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 2047, 2048, 2049, 2050, 2051, 4099])
def test_cpu_kernel_and_torch_form_are_bit_identical(n: int) -> None:
    keys, flat = batch(), batch().flatten()
    for purpose in (0, 3, 255):
        assert torch.equal(rng.words(keys, purpose, n).reshape(21, n), rng._words_torch(flat, purpose, n))
        for dtype in (torch.float64, torch.float32):
            normal = rng.normal(keys, purpose, n, dtype).reshape(21, n)
            assert normal.dtype == dtype
            assert torch.equal(normal, rng._normal_torch(flat, purpose, n, dtype))


def test_threads_do_not_change_anything() -> None:
    keys = Keys.make(seed=9, track=torch.arange(12))
    n = 3 * rng._DRAWS_PER_THREAD // 12 + 5
    before = torch.get_num_threads()
    try:
        draws = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            draws.append(rng.normal(keys, Purpose.CARRIER, n))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


DRAWS = {
    "words": lambda keys, n: rng.words(keys, Purpose.CARRIER, n),
    "uniform": lambda keys, n: rng.uniform(keys, Purpose.CARRIER, n),
    "uniform32": lambda keys, n: rng.uniform(keys, Purpose.CARRIER, n, torch.float32),
    "normal": lambda keys, n: rng.normal(keys, Purpose.CARRIER, n),
    "normal32": lambda keys, n: rng.normal(keys, Purpose.CARRIER, n, torch.float32),
    "integers": lambda keys, n: rng.integers(keys, Purpose.CARRIER, n, 1000),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_rows_are_independent_of_the_batch(draw) -> None:
    keys = batch()
    whole = draw(keys, 37)
    assert whole.shape == (7, 3, 37)
    flat = draw(keys.flatten(), 37)
    assert torch.equal(flat.reshape(7, 3, 37), whole)
    for i, j in ((0, 0), (3, 2), (6, 1)):
        assert torch.equal(draw(keys[i, j], 37), whole[i, j])
    order = torch.tensor([5, 0, 3])
    assert torch.equal(draw(keys[order], 37), whole[order])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
@given(n=st.integers(0, 50), more=st.integers(0, 50))
@settings(max_examples=25)
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(draw, n: int, more: int) -> None:
    keys = Keys.make(seed=5, track=[1, 2])
    assert torch.equal(draw(keys, n + more)[:, :n], draw(keys, n))


@pytest.mark.parametrize("field", ["seed", "purpose", *FIELDS])
@given(data=st.data())
@settings(max_examples=30)
def test_every_field_changes_the_stream(field: str, data: st.DataObject) -> None:
    limits = {"seed": 2**64, "purpose": 256, **FIELDS}
    values = {name: data.draw(st.integers(0, high - 1), label=name) for name, high in limits.items()}
    other = dict(values)
    other[field] = data.draw(st.integers(0, limits[field] - 1).filter(lambda v: v != values[field]))
    first, second = (
        rng.words(Keys.make(**{k: v for k, v in named.items() if k != "purpose"}), named["purpose"], 8)
        for named in (values, other)
    )
    # 8 words agree by chance with probability 2^-256; even one (2^-29) would be a sign of a shared counter
    assert not bool((first == second).any())


@pytest.mark.parametrize("field", ["seed", "purpose", *FIELDS])
def test_neighbouring_streams_are_uncorrelated(field: str) -> None:
    n, count = 20_000, 6
    streams = []
    for value in range(count):
        purpose = value if field == "purpose" else Purpose.CARRIER
        keys = (
            Keys.make(seed=11, track=3) if field == "purpose" else Keys.make(**{"seed": 11, "track": 3, field: value})
        )
        streams.append(rng.normal(keys, purpose, n))
    r = torch.corrcoef(torch.stack(streams))
    off = r[~torch.eye(count, dtype=torch.bool)]
    assert float(off.abs().max()) < 4.5 / math.sqrt(n)  # 4.5 standard errors, 15 pairs


def test_no_serial_correlation() -> None:
    n = 400_000
    z = rng.normal(Keys.make(seed=21), Purpose.INTERNAL_NOISE, n)
    for lag in (1, 2, 3, 4, 8, 1024, 2048):
        assert abs(float((z[:-lag] * z[lag:]).mean())) < 4.5 / math.sqrt(n - lag)
        squares = (z[:-lag] ** 2 - 1) * (z[lag:] ** 2 - 1)
        assert abs(float(squares.mean())) < 4.5 * 2 / math.sqrt(n - lag)


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5])
def test_normal_distribution(seed: int) -> None:
    z = rng.normal(Keys.make(seed, track=torch.arange(5)), Purpose.CARRIER, 40_001).numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    for row in z:
        assert stats.kstest(row, "norm").pvalue > 1e-4
    n = z.size
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert np.abs(z).max() < 6.764  # sqrt(66 ln 2), the limit of 32-bit uniforms


def test_tails_of_the_normal_distribution() -> None:
    z = rng.normal(Keys.make(4, track=torch.arange(40)), Purpose.CARRIER, 100_000)
    for limit in (3.0, 4.0):
        expected = z.numel() * math.erfc(limit / math.sqrt(2))
        assert abs(int((z.abs() > limit).sum()) - expected) < 4.5 * math.sqrt(expected)


def test_uniform_distribution() -> None:
    u = rng.uniform(Keys.make(8, trial=torch.arange(4)), Purpose.PHASE, 50_000)
    assert stats.kstest(u.numpy().ravel(), "uniform").pvalue > 1e-3
    counts = np.bincount((u.numpy().ravel() * 256).astype(int), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_extreme_words_give_uniforms_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "words", lambda *_: torch.tensor([0, 2**32 - 1]))
    for dtype in (torch.float64, torch.float32):
        low, high = rng.uniform(Keys.make(0), 0, 2, dtype).tolist()
        assert 0.0 < low < 1e-9
        assert 1.0 - 1e-7 < high < 1.0


def test_extreme_words_give_finite_normals() -> None:
    corners = torch.tensor([[a, b] for a in (0, 1, 2**31, 2**32 - 1) for b in (0, 2**29, 2**30, 2**31, 2**32 - 1)])
    z = box_muller(corners)
    assert bool(torch.isfinite(z).all())
    u = (corners.double() + 0.5) / 2**32
    torch.testing.assert_close((z**2).sum(1), -2 * u[:, 0].log(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("high", [1, 2, 3, 7, 1000, 2**16])
def test_integers(high: int) -> None:
    draws = rng.integers(Keys.make(5, trial=torch.arange(20)), Purpose.TARGET, 10_000, high).numpy().ravel()
    assert draws.min() >= 0
    assert draws.max() <= high - 1
    if high > 1:
        assert stats.chisquare(np.bincount(draws, minlength=high)).pvalue > 1e-3


def test_permutation() -> None:
    orders = rng.permutation(Keys.make(5, trial=torch.arange(12_000)), Purpose.ORDER, 4)
    assert torch.equal(orders.sort(dim=-1).values, torch.arange(4).expand(12_000, 4))
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(-1).numpy()
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_words_have_no_bad_bits() -> None:
    w = rng.words(Keys.make(17, track=torch.arange(64)), Purpose.CARRIER, 4096)
    ones = torch.stack([(w >> bit & 1).double().mean() for bit in range(32)])
    assert float((ones - 0.5).abs().max()) < 4.5 * 0.5 / math.sqrt(w.numel())


def test_training_trials_are_in_the_upper_half() -> None:
    assert FIELDS["trial"] == rng.TRAINING_TRIAL_BASE * 2
    rng.words(Keys.make(1, trial=rng.TRAINING_TRIAL_BASE + 5), Purpose.CARRIER, 1)


def test_keys_shapes() -> None:
    keys = Keys.make(1, track=torch.arange(4))
    assert keys.shape == (4,)
    assert keys.device == torch.device("cpu")
    both = keys.unsqueeze(-1).replace(interval=torch.arange(3))
    assert both.shape == (4, 3)
    assert both.flatten().shape == (12,)
    assert both.reshape(2, 6).shape == (2, 6)
    assert both[1:3].shape == (2, 3)
    assert both[..., 0].shape == (4,)
    assert keys[:1].expand(9).shape == (9,)
    assert both.to("cpu").shape == (4, 3)
    assert Keys.make(1).shape == ()
    assert both.replace(seed=5).seed == 5
    assert torch.equal(both.replace(seed=5).track, both.track)
    assert both.seed == 1


def test_empty_draws() -> None:
    assert rng.normal(Keys.make(1, track=torch.arange(3)), 0, 0).shape == (3, 0)
    assert rng.normal(Keys.make(1, track=torch.arange(0)), 0, 5).shape == (0, 5)


@pytest.mark.parametrize(("field", "high"), FIELDS.items())
def test_fields_out_of_range(field: str, high: int) -> None:
    for bad in (-1, high):
        with pytest.raises(
            SpecError, match=f"{field} = {bad} is out of range: it must be at least 0 and less than {high}"
        ):
            Keys.make(1, **{field: [0, bad]})
        with pytest.raises(SpecError, match=f"{field} = {bad} is out of range"):
            Keys.make(1).replace(**{field: bad})
    Keys.make(1, **{field: high - 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Keys.make(-1), "seed = -1 is out of range"),
        (lambda: Keys.make(2**64), "seed = .* is out of range"),
        (lambda: Keys.make(1.5), "seed = 1.5 is out of range: it must be a whole number"),
        (lambda: Keys.make(True), "seed = True"),
        (lambda: Keys.make(1, track=1.5), "track must hold whole numbers, but its type is torch.float32"),
        (lambda: Keys.make(1, track=[1, 2], trial=[1, 2, 3]), r"do not broadcast .* track \(2,\), trial \(3,\)"),
        (lambda: Keys.make(1).replace(trak=3), "field = 'trak' is not known.*Did you mean 'track'"),
        (lambda: rng.words(Keys.make(1), 256, 1), "purpose = 256 is out of range"),
        (lambda: rng.words(Keys.make(1), -1, 1), "purpose = -1 is out of range"),
        (lambda: rng.normal(Keys.make(1), 0, -1), "n = -1 is out of range"),
        (lambda: rng.normal(Keys.make(1), 0, 2**35), "n = .* is out of range"),
        (lambda: rng.integers(Keys.make(1), 0, 1, 0), "high = 0 is out of range"),
        (lambda: rng.integers(Keys.make(1), 0, 1, 2**16 + 1), "high = 65537 is out of range"),
        (lambda: rng.permutation(Keys.make(1), 0, 2**16 + 1), "n = 65537 is out of range"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_no_two_purposes_share_a_number() -> None:
    values = sorted(int(p) for p in Purpose)
    assert all(a < b for a, b in pairwise(values))
    assert values[-1] < 256


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_bits() -> None:
    keys = batch()
    for n in (1, 7, 5000):
        for draw in DRAWS.values():
            assert torch.equal(draw(keys.to("cuda"), n).cpu(), draw(keys, n))
