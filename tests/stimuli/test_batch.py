from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli.batch import Rows, distinct, groups, mean_square, place, round_samples, sum_rows
from psysim.stimuli.fourier import fast_length, inverse_real, real_spectrum, unit_envelope
from psysim.stimuli.gating import gate, ramp, steady_part

F64 = torch.float64


def random(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal(shape))


@given(st.integers(1, 3000), st.integers(0, 3000))
@settings(max_examples=50, deadline=None)
def test_sum_rows_ignores_zeros_behind_and_the_batch(n: int, zeros: int) -> None:
    x = random(3, n)
    total = sum_rows(x)
    padded = torch.cat([x, torch.zeros(3, zeros, dtype=F64)], dim=1)
    assert torch.equal(sum_rows(padded), total)
    assert torch.equal(sum_rows(x[1:2]), total[1:2])
    assert total[0].item() == pytest.approx(math.fsum(x[0].tolist()), rel=1e-12, abs=1e-12)


def test_sum_rows_does_not_change_its_input() -> None:
    x = random(2, 100)
    before = x.clone()
    sum_rows(x)
    assert torch.equal(x, before)


def test_mean_square() -> None:
    x = random(2, 50)
    start, stop = torch.tensor([0, 10]), torch.tensor([50, 20])
    expected = torch.stack([(x[0] ** 2).mean(), (x[1, 10:20] ** 2).mean()])
    torch.testing.assert_close(mean_square(x, start, stop), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("seconds", "fs", "samples"),
    [
        (0.125, 44100, 5513),
        (0.005, 44100, 221),
        (0.3, 44100, 13230),
        (0.0, 44100, 0),
        (1 / 3, 48000, 16000),
        (2.5e-4, 2000, 1),
    ],
)
def test_round_samples(seconds: float, fs: float, samples: int) -> None:
    assert round_samples(torch.tensor(seconds, dtype=F64), fs).item() == samples


def test_round_samples_refuses_absurd_durations() -> None:
    with pytest.raises(SpecError, match=r"duration = .* samples is out of range"):
        round_samples(torch.tensor([1e7], dtype=F64), 44100)


def test_place() -> None:
    x = torch.arange(1.0, 4.0).expand(3, 3)
    y = place(x, torch.tensor([0, 2, 9]), 4)
    assert y.tolist() == [[1, 2, 3, 0], [0, 0, 1, 2], [0, 0, 0, 0]]


def test_groups_and_distinct() -> None:
    a, b = torch.tensor([1, 2, 1, 1]), torch.tensor([5, 5, 5, 6])
    found = {value: index.tolist() for index, value in groups(a, b)}
    assert found == {(1, 5): [0, 2], (2, 5): [1], (1, 6): [3]}
    assert [(i, v) for i, v in groups(a[:1].expand(3))] == [(slice(None), (1,))]
    first, which = distinct(a.double(), b.double())
    assert torch.equal(a[first][which], a)
    assert torch.equal(b[first][which], b)
    assert len(first) == 3
    assert distinct(torch.tensor([1.0, 2.0])) is None


def test_rows_broadcast_and_keep_options() -> None:
    p = Rows(
        {"a": 1, "b": [1.0, 2.0], "c": "x", "d": None, "e": True, "f": torch.tensor([3])}, Keys.make(1, trial=[1, 2])
    )
    assert len(p) == 2
    assert p["a"].tolist() == [1.0, 1.0]
    assert p["f"].dtype == F64
    assert (p["c"], p["d"], p["e"]) == ("x", None, True)
    part = p.take(slice(1, 2))
    assert (len(part), part["b"].tolist(), part.keys.trial.tolist()) == (1, [2.0], [2])
    assert len(Rows({"a": 1.0}, Keys.make(1))) == 1
    assert Rows({"a": 1.0}, Keys.make(1, trial=[4])).keys.trial.tolist() == [4]


def test_rows_detach() -> None:
    assert not Rows({"a": torch.ones(2, requires_grad=True)})["a"].requires_grad


@pytest.mark.parametrize("n", [1000, 4410, 16384, 22050, 44100])
def test_transforms_do_not_depend_on_the_batch(n: int) -> None:
    x = random(17, n)
    spectrum = real_spectrum(x)
    back = inverse_real(spectrum, n)
    unit = unit_envelope(spectrum, n)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-13)
    for rows in (1, 2, 3, 8):
        for start in (0, 5, 9):
            part = slice(start, start + rows)
            assert torch.equal(real_spectrum(x[part].clone()), spectrum[part])
            assert torch.equal(inverse_real(spectrum[part].clone(), n), back[part])
            assert torch.equal(unit_envelope(spectrum[part].clone(), n), unit[part])


@given(st.integers(1, 200_000))
@settings(max_examples=100)
def test_fast_length(n: int) -> None:
    m = fast_length(n)
    assert m >= n
    assert 11 * m <= 12 * n or m <= 8  # the largest gap up to 200,000, by exhaustion: 12 for 11
    rest = m
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1


def test_fast_length_is_the_smallest() -> None:
    smooth = sorted(2**a * 3**b * 5**c * 7**d for a in range(12) for b in range(8) for c in range(6) for d in range(5))
    for n in range(1, 2000):
        assert fast_length(n) == next(m for m in smooth if m >= n)


def test_ramp_is_the_golden_one() -> None:
    k = torch.arange(221, dtype=F64)
    assert torch.equal(ramp(221), 0.5 * (1 - torch.cos(math.pi * k / 221)))
    assert ramp(0).shape == (0,)
    assert ramp(2, "linear").tolist() == [0.0, 0.5]


def test_gate() -> None:
    w = gate(torch.tensor([8, 6, 4]), torch.tensor([2, 0, 2]), "linear", total=9)
    assert w.tolist() == [
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0],
        [1.0] * 6 + [0.0] * 3,
        [0.0, 0.5, 0.5, 0.0] + [0.0] * 5,
    ]


def test_steady_part() -> None:
    start, stop = steady_part(torch.tensor([100, 100, 100]), torch.tensor([10, 0, 50]))
    assert start.tolist() == [10, 0, 0]
    assert stop.tolist() == [90, 100, 100]
