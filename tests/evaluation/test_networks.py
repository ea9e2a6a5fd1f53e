"""Networks over sets of sounds: what is read, what is stored, interruption and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import torch
import xarray as xr
from torch import Tensor, nn

from psysim.errors import NumericsError, PsysimWarning, SpecError, StoreError
from psysim.evaluation.networks import evaluate, fit_to_input
from psysim.evaluation.sound_sets import open_sounds
from psysim.models import phaselocknet as pl
from psysim.rng import Keys, Purpose, uniform

HEAD = "label_word_int"
LAYERS = [{"layer_type": "flatten", "args": {"name": "flat"}}]


class Waveform(nn.Module):
    """A stand-in for the nerve: every fifth sample and keyed noise, in one group and one channel."""

    def forward(self, sound: Tensor, keys: Keys) -> Tensor:
        x = sound[..., None, None, ::5].flatten(1, -3)
        return x + 0.01 * uniform(keys, Purpose.INTERNAL_NOISE, x[0].numel()).reshape(x.shape).to(x)


def model(ears: int = 1, head: str = HEAD, n: int = 4, labels: dict | None = None) -> pl.PhaseLockNet:
    config = {
        "kwargs_cochlea": {
            "sr_input": 8000,
            "sr_output": 1600,
            "config_filterbank": {"num_cf": 1},
            "kwargs_spike_generator_binomial": {"n_per_channel": [10]},
        },
        "n_classes_dict": {head: n},
        "psysim": {"ears": ears, "n_samples": 500, "buffer": [0, 0], "size": [1, 100]},
    }
    return pl.PhaseLockNet(config, LAYERS, labels=labels, nerve=Waveform(), seed=2)


def noise(seed: int, samples: int = 500, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((samples, channels))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sounds"
    path.mkdir()
    for i in range(7):
        soundfile.write(path / f"s{i}.{'flac' if i % 2 else 'wav'}", noise(i), 8000)
    lines = [f"s{i}.{'flac' if i % 2 else 'wav'},{i % 4},{-3 * i},{'babble' if i else 'quiet'}" for i in range(7)]
    (path / "manifest.csv").write_text(f"file,{HEAD},snr_db,background\n" + "\n".join(lines))
    return path


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_what_is_stored_opens_without_psysim(folder: Path, tmp_path: Path, suffix: str) -> None:
    net = model()
    returned = evaluate(net, open_sounds(folder, level_db_spl=60), tmp_path / f"out{suffix}", batch_size=3, repeats=2)
    stored = xr.open_zarr(tmp_path / "out.zarr") if suffix == ".zarr" else xr.open_dataset(tmp_path / "out.nc")
    with stored:
        ds = stored.load()
    assert dict(ds.sizes) == {"stimulus": 7, "repeat": 2, f"class_{HEAD}": 4}
    assert ds[f"logits_{HEAD}"].dtype == np.float32
    np.testing.assert_array_equal(ds[f"logits_{HEAD}"], returned[f"logits_{HEAD}"])
    np.testing.assert_array_equal(ds[f"response_{HEAD}"], ds[f"logits_{HEAD}"].argmax(f"class_{HEAD}"))
    np.testing.assert_array_equal(ds[f"correct_{HEAD}"], ds[f"response_{HEAD}"] == ds[HEAD])
    assert ds["snr_db"].values.tolist() == [-3 * i for i in range(7)]
    assert ds["background"].values.tolist() == ["quiet"] + ["babble"] * 6
    assert ds["stimulus"].values[1] == "s1.flac"
    facts = json.loads(ds.attrs["provenance"])
    assert (facts["seed"], facts["model"], facts["normalisation"]) == (0, net.fingerprint(), "keras")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"out{suffix}", "sounds"]  # nothing else is left
    # Values: the sound at 60 dB SPL and its own keys
    samples = soundfile.read(folder / "s2.wav")[0]
    sound = torch.as_tensor((samples - samples.mean()) / samples.std() * 0.02, dtype=torch.float32)
    with torch.no_grad():
        expected = net(sound[None], Keys.make(0, track=[2], trial=[1]))[HEAD]
    np.testing.assert_allclose(ds[f"logits_{HEAD}"].values[2, 1], expected[0].numpy(), rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_the_batch(folder: Path, tmp_path: Path) -> None:
    sounds = open_sounds(folder, full_scale_db_spl=94)
    results = [evaluate(model(), sounds, tmp_path / f"{n}.nc", batch_size=n, repeats=3) for n in (1, 4, 100)]
    for other in results[1:]:
        np.testing.assert_allclose(other[f"logits_{HEAD}"], results[0][f"logits_{HEAD}"], rtol=1e-5, atol=1e-6)
    other_seed = evaluate(model(), sounds, tmp_path / "seed.nc", seed=1, repeats=3)
    assert not np.allclose(other_seed[f"logits_{HEAD}"], results[0][f"logits_{HEAD}"])
    repeats = results[0][f"logits_{HEAD}"].values
    assert (repeats[:, 0] != repeats[:, 1]).any()


class Stopped(Exception):
    pass


def stop_after(n: int):
    def progress(done: int, total: int) -> None:
        if done >= n:
            raise Stopped

    return progress


def test_an_interrupted_evaluation_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    sounds, out = open_sounds(folder, level_db_spl=60), tmp_path / "out.nc"
    whole = evaluate(model(), sounds, tmp_path / "whole.nc", batch_size=2)
    with pytest.raises(Stopped):
        evaluate(model(), sounds, out, batch_size=2, progress=stop_after(4))
    assert not out.exists()
    assert len(list((tmp_path / "out.nc.partial").glob("part_*.npz"))) == 2
    with pytest.raises(StoreError, match=r"unfinished.*--resume"):
        evaluate(model(), sounds, out)
    seen: list[int] = []
    resumed = evaluate(model(), sounds, out, batch_size=3, resume=True, progress=lambda done, _: seen.append(done))
    assert seen == [7]  # 4 were done, 3 were left
    np.testing.assert_allclose(resumed[f"logits_{HEAD}"], whole[f"logits_{HEAD}"], rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "out.nc.partial").exists()
    with pytest.raises(StoreError, match="exists"):
        evaluate(model(), sounds, out, resume=True)


def test_nothing_else_is_resumed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    with pytest.raises(Stopped):
        evaluate(model(), open_sounds(folder, level_db_spl=60), out, batch_size=2, progress=stop_after(1))
    for change, message in (
        ({"sounds": open_sounds(folder, level_db_spl=61)}, "begun with other sounds"),
        ({"seed": 9}, "begun with other seed"),
        ({"repeats": 2}, "begun with other n_presentations, repeats"),
        ({"model": model(n=4, labels={HEAD: list("abcd")})}, None),
    ):
        options = {"model": model(), "sounds": open_sounds(folder, level_db_spl=60), **change}
        net, sounds = options.pop("model"), options.pop("sounds")
        if message is None:
            evaluate(net, sounds, out, resume=True, **options)  # label sets change no number
        else:
            with pytest.raises(StoreError, match=message):
                evaluate(net, sounds, out, resume=True, **options)


def test_another_model_is_not_resumed_and_damage_is_found(folder: Path, tmp_path: Path) -> None:
    sounds, out = open_sounds(folder, level_db_spl=60), tmp_path / "out.nc"
    with pytest.raises(Stopped):
        evaluate(model(), sounds, out, batch_size=2, progress=stop_after(1))
    other = model()
    with torch.no_grad():
        other.network.head[HEAD]["fc_output"].bias.add_(1e-3)
    with pytest.raises(StoreError, match="begun with other model"):
        evaluate(other, sounds, out, resume=True)
    part = next((tmp_path / "out.nc.partial").glob("part_*.npz"))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(StoreError, match="is damaged"):
        evaluate(model(), sounds, out, resume=True)
    part.unlink()
    evaluate(model(), sounds, out, resume=True)


def test_texts_as_true_classes(folder: Path, tmp_path: Path) -> None:
    lines = "\n".join(f"s{i}.{'flac' if i % 2 else 'wav'},{'abcd'[i % 4]}" for i in range(7))
    manifest = tmp_path / "words.csv"
    manifest.write_text(f"file,{HEAD}\n{lines}")
    sounds = open_sounds(folder, manifest, level_db_spl=60)
    labels = {HEAD: list("abcd")}
    ds = evaluate(model(labels=labels), sounds, tmp_path / "out.nc")
    assert ds[f"class_{HEAD}"].values.tolist() == list("abcd")
    heard = np.array(list("abcd"))[ds[f"response_{HEAD}"].values[:, 0]]
    np.testing.assert_array_equal(ds[f"correct_{HEAD}"].values[:, 0], heard == np.array(list("abcdabc")))
    with pytest.raises(SpecError, match="no label set"):
        evaluate(model(), sounds, tmp_path / "none.nc")
    manifest.write_text(f"file,{HEAD}\ns0.wav,x")
    with pytest.raises(SpecError, match="'x', which is no label"):
        evaluate(model(labels=labels), open_sounds(folder, manifest, level_db_spl=60), tmp_path / "x.nc")
    manifest.write_text(f"file,{HEAD}\ns0.wav,4")
    with pytest.raises(SpecError, match="must hold classes from 0 to 3"):
        evaluate(model(labels=labels), open_sounds(folder, manifest, level_db_spl=60), tmp_path / "x.nc")
    with pytest.raises(SpecError, match="seed = -1"):
        evaluate(model(), open_sounds(folder, level_db_spl=60), tmp_path / "x.nc", seed=-1)
    assert not list(tmp_path.glob("*.partial"))  # found before anything runs


def test_directions_are_coordinates_of_their_classes(folder: Path, tmp_path: Path) -> None:
    net = model(ears=2, head="label_loc_int", n=504)
    ds = evaluate(net, open_sounds(folder, level_db_spl=60), tmp_path / "out.nc")
    assert ds["class_azimuth"].dims == ("class_label_loc_int",)
    assert float(ds["class_elevation"][503]) == 60.0
    azimuth = pl.weighted_azimuth(np.exp(ds["logits_label_loc_int"]))
    assert azimuth.shape == (7, 1)


def test_columns_keep_their_names_unless_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.csv").write_text(f"file,azimuth,repeat,logits_{HEAD}\ns0.wav,5,1,2\ns2.wav,-5,1,2")
    ds = evaluate(model(), open_sounds(folder, level_db_spl=60), tmp_path / "out.nc")
    assert ds["azimuth"].values.tolist() == [5, -5]
    assert ds["column_repeat"].values.tolist() == [1, 1]
    assert ds[f"column_logits_{HEAD}"].values.tolist() == [2, 2]
    assert ds["repeat"].values.tolist() == [0]


def test_hdf5(tmp_path: Path) -> None:
    for part, n in (("b", 2), ("a", 3)):
        with h5py.File(tmp_path / f"{part}.hdf5", "w") as file:
            file["signal"] = np.stack([noise(i, 500, 2) for i in range(n)])
            file["sr"] = np.full(n, 8000 if part == "b" else 16000)
            file["snr"] = np.arange(n, dtype=float)
            file["talker"] = np.array([b"x"] * n)
            file["not_a_column"] = np.zeros(77)
    sounds = open_sounds(tmp_path)
    assert sounds.names == ["a.hdf5:0", "a.hdf5:1", "a.hdf5:2", "b.hdf5:0", "b.hdf5:1"]
    assert sounds.columns["snr"].tolist() == [0, 1, 2, 0, 1]
    assert sounds.columns["talker"].tolist() == ["x"] * 5
    assert set(sounds.columns) == {"snr", "talker"}
    sound, fs = sounds.read(4)
    np.testing.assert_array_equal(sound, noise(1, 500, 2).T)
    assert fs == 8000
    with pytest.warns(PsysimWarning, match="3 sounds were filled with silence up to 0.0625 s"):
        ds = evaluate(model(ears=2), sounds, tmp_path / "out.nc")  # each row has its own rate
    assert ds.sizes["stimulus"] == 5
    with pytest.raises(SpecError, match=r"'a\.hdf5:0' has 2 channels, but the model has 1"):
        evaluate(model(), sounds, tmp_path / "mono.nc")
    with pytest.raises(SpecError, match="manifest and levels are for sound files"):
        open_sounds(tmp_path, level_db_spl=60)


def test_rates_are_not_sound(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "rates.h5", "w") as file:
        file["nervegram_meanrates"] = np.ones((2, 1, 1, 100, 2))
        file["sr"] = 1600
    sounds = open_sounds(tmp_path / "rates.h5")
    assert sounds.read(0)[0].shape == (2, 1, 1, 100)
    with pytest.raises(SpecError, match="is not what the model takes: sound"):
        evaluate(model(ears=2), sounds, tmp_path / "out.nc")


@pytest.mark.parametrize(("samples", "first", "last"), [(500, 0, 500), (501, 0, 500), (504, 2, 502), (900, 200, 700)])
def test_long_sounds_are_cut_about_their_middle(samples: int, first: int, last: int) -> None:
    x = np.arange(samples, dtype=float)[None]
    fitted, filled = fit_to_input(x, 8000.0, model())
    np.testing.assert_array_equal(fitted, x[0, first:last])
    assert filled == 0


@pytest.mark.parametrize(("samples", "before"), [(499, 0), (498, 1), (1, 249)])
def test_short_sounds_are_filled_about_their_middle(samples: int, before: int) -> None:
    """The original padded the wrong axis: short sounds of one ear failed."""
    fitted, filled = fit_to_input(np.ones((1, samples)), 8000.0, model())
    assert (len(fitted), filled) == (500, 500 - samples)
    np.testing.assert_array_equal(np.flatnonzero(fitted), np.arange(before, before + samples))


def test_other_rates_are_converted_and_one_channel_goes_to_both_ears() -> None:
    t = np.arange(1500) / 24000
    fitted, _ = fit_to_input(np.sin(2 * np.pi * 500 * t)[None], 24000.0, model(ears=2))
    assert fitted.shape == (2, 500)
    np.testing.assert_array_equal(fitted[0], fitted[1])
    np.testing.assert_allclose(fitted[0, 50:450], np.sin(2 * np.pi * 500 * np.arange(50, 450) / 8000), atol=2e-3)
    with pytest.raises(SpecError, match="cannot be converted"):
        fit_to_input(np.ones((1, 500)), 8000.5, model())


def test_a_logit_that_is_not_finite_is_reported_after_storing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["signal"] = np.stack([noise(0)[:, 0], np.full(500, np.nan)])
        file["sr"] = 8000
    with pytest.raises(NumericsError, match=r"1 sounds are not finite, the first is 'a\.h5:1'"):
        evaluate(model(), open_sounds(tmp_path / "a.h5"), tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as ds:
        assert np.isfinite(ds[f"logits_{HEAD}"].values[0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of level_db_spl"),
        ({"level_db_spl": 60, "full_scale_db_spl": 100}, "exactly one of level_db_spl"),
        ({"level_db_spl": float("nan")}, "level_db_spl = nan"),
        ({"level_db_spl": 60, "manifest": "none.csv"}, "cannot be read as CSV"),
    ],
)
def test_wrong_options(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        open_sounds(folder, **options)


def test_wrong_sets(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'sounds'"):
        open_sounds(tmp_path / "sound", level_db_spl=60)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="no file that ends in"):
        open_sounds(tmp_path / "empty", level_db_spl=60)
    (folder / "manifest.csv").write_text("file,x\ns9.wav,1")
    with pytest.raises(SpecError, match=r"lacks 1 files of the manifest, the first is 's9.wav'.*Did you mean"):
        open_sounds(folder, level_db_spl=60)
    (folder / "manifest.csv").write_text("files,x\ns0.wav,1")
    with pytest.raises(SpecError, match=r"column 'file'.*Did you mean 'files'"):
        open_sounds(folder, level_db_spl=60)
    (folder / "manifest.csv").write_text("file,level_db_spl\ns0.wav,loud")
    with pytest.raises(SpecError, match="must hold a number"):
        open_sounds(folder)
    (folder / "manifest.csv").write_text("file,level_db_spl\ns0.wav,50\ns2.wav,70")
    levels = [20 * np.log10(open_sounds(folder).read(i)[0].std() / 20e-6) for i in (0, 1)]
    np.testing.assert_allclose(levels, [50, 70], atol=1e-9)
    (folder / "s0.wav").write_bytes(b"no sound")
    with pytest.raises(SpecError, match=r"s0\.wav cannot be read as sound"):
        open_sounds(folder)
    (folder / "x.h5").write_bytes(b"no HDF5")
    with pytest.raises(SpecError, match="cannot be read as HDF5"):
        open_sounds(folder / "x.h5")
    with pytest.raises(SpecError, match="both sound files and HDF5 files"):
        open_sounds(folder, level_db_spl=60)
    with pytest.raises(SpecError, match=r"ends in \.zarr"):
        evaluate(model(), open_sounds(folder / "s2.wav", level_db_spl=60), tmp_path / "out.csv")
