"""Memory of large outputs: used again when nothing refers to it, never before."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from psysim import ops
from psysim.ops.cpu import tiles
from psysim.ops.cpu.tiles import empty

SHAPE = (3, 1 << 20)  # 12 MiB in float32
SOS = torch.tensor([[0.5, 0.1, 0.0, 1.0, -0.3, 0.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(tiles, "_kept", [])


def test_memory_is_used_again_after_the_last_reference():
    x = empty(SHAPE, torch.float32)
    where, view = x.data_ptr(), x[1, 5:]
    assert where % 64 == 0
    del x
    assert empty(SHAPE, torch.float32).data_ptr() != where  # the view still refers to it
    del view
    assert empty((SHAPE[1], SHAPE[0]), torch.int32).data_ptr() == where  # any shape and dtype of about the size


def test_results_that_are_alive_are_never_overwritten():
    sounds = [torch.full((1, 4, 1 << 20), float(k)) for k in range(4)]
    results = [ops.sosfilt(x, SOS) for x in sounds]
    for x, y in zip(sounds, results, strict=True):
        torch.testing.assert_close(y, ops.sosfilt(x, SOS), rtol=0, atol=0)


def test_gradients_keep_what_they_need(monkeypatch):
    def gradient() -> torch.Tensor:
        coef = SOS.clone().requires_grad_()
        x = torch.linspace(-1, 1, 1 << 22).reshape(1, 4, -1).requires_grad_()
        loss = ops.sosfilt(ops.sosfilt(x, coef), coef).square().mean()
        for _ in range(3):
            ops.sosfilt(torch.full((1, 4, 1 << 20), 7.0), SOS)  # would spoil a buffer handed out too early
        loss.backward()
        return coef.grad

    with_kept_buffers = gradient()
    monkeypatch.setattr(tiles, "_KEPT_FROM", 1 << 40)  # memory of torch's own
    torch.testing.assert_close(with_kept_buffers, gradient(), rtol=0, atol=0)


def test_threads_never_share_a_buffer():
    places, barrier = [], threading.Barrier(8)

    def work() -> None:
        for _ in range(20):
            barrier.wait()
            x = empty(SHAPE, torch.float32)
            places.append(x.data_ptr())
            barrier.wait()
            del x

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for round_ in np.reshape(places, (20, 8)):
        assert len(set(round_)) == 8


def test_idle_memory_is_bounded():
    alive = [empty((40 << 20,), torch.uint8) for _ in range(12)]
    assert len(tiles._kept) == 12  # alive: theirs, not kept for later
    del alive
    empty((50 << 20,), torch.uint8)
    assert sum(buffer.size for buffer in tiles._kept) <= tiles._KEPT_BYTES + 2 * 64
    assert not tiles._KEPT_FROM <= empty((300 << 20,), torch.uint8).numel() <= tiles._KEPT_BYTES
