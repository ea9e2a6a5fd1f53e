"""Checkpoints hold the whole model: weights, front-end, prefilter, scale of the input; nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from psysim.errors import SpecError, StoreError
from psysim.models import neural


def population() -> neural.AudioEncodingModel:
    front = neural.MelFrontEnd(16000, 5.0, n_mels=12, f_min=300, f_max=7000)
    prefilter = neural.AdapTrans(12, dt_ms=5.0, min_freq=300, max_freq=7000)
    options = {"wav2spec": front, "prefiltering": prefilter, "full_scale_db_spl": 100.0, "seed": 3}
    model = neural.StateNet(12, 4, hidden_channels=3, kernel_size=5, **options)
    model.standardise(torch.linspace(-8, -4, 12), torch.linspace(1, 2, 12))
    return model.eval()


def test_a_model_comes_back_whole(tmp_path: Path) -> None:
    model, sound = population(), 0.1 * torch.randn(1, 1, 1600, generator=torch.Generator().manual_seed(1))
    path = neural.save_model(model, tmp_path / "deep" / "population.safetensors", {"data": "simulated"})
    twin = neural.load_model(path)
    assert torch.equal(twin(sound), model(sound))
    assert (twin.full_scale_db_spl, twin.dt_ms, twin.wav2spec.audio_fs) == (100.0, 5.0, 16000)
    assert set(load_file(path)) == set(model.state_dict())
    with pytest.raises(StoreError, match="will not be replaced"):
        neural.save_model(model, path)
    exact = neural.load_model(neural.save_model(population().double(), tmp_path / "exact.safetensors"))
    assert exact(sound.double()).dtype == torch.float64


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        neural.load_model(tmp_path / "nothing.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, other)
    with pytest.raises(StoreError, match="configuration is missing"):
        neural.load_model(other)
    with pytest.raises(StoreError, match=r"ends in \.safetensors"):
        neural.save_model(population(), tmp_path / "model.pt")

    class Own(torch.nn.Identity):
        out_channels = 2

    with pytest.raises(SpecError, match="cannot be stored"):
        neural.save_model(neural.Linear(prefiltering=Own()), tmp_path / "own.safetensors")


def test_published_names() -> None:
    model = population()
    with pytest.raises(SpecError, match="do not fit"):
        model.load_published({"readout.fc.weight": torch.zeros(4, 9)})
