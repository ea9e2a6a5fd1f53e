"""The whole model: what config.json says, ears, spikes, crop, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from psysim.errors import SpecError, StoreError
from psysim.models import phaselocknet as pl
from psysim.models.phaselocknet.nerve import crop
from psysim.rng import Keys, Purpose, uniform

DATA = Path(__file__).parents[2] / "reference" / "data"
F, STEP = 4, 5


class Envelopes(nn.Module):
    """A stand-in for the nerve: rectified sound, decimated, with keyed noise, in three groups and four channels."""

    def forward(self, sound: Tensor, keys: Keys) -> Tensor:
        x = sound.clamp(min=0)[:, None, None, ::STEP] * torch.arange(1.0, 1 + 3 * F).reshape(1, 3, F, 1).to(sound)
        return x + uniform(keys, Purpose.INTERNAL_NOISE, x[0].numel()).reshape(x.shape).to(x)


def config(**geometry: object) -> dict:
    out = pl.published_config("word", 3000) | {"n_classes_dict": {"label_word_int": 5}}
    out["kwargs_cochlea"]["config_filterbank"]["num_cf"] = F
    return out | {"psysim": {"n_samples": 500, "size": [F, 100]} | geometry}


LAYERS = [
    {"layer_type": "conv2d", "args": {"name": "conv", "filters": 6, "kernel_size": [2, 9], "strides": [1, 4]}},
    {"layer_type": "relu", "args": {"name": "relu"}},
    {"layer_type": "layernorm", "args": {"name": "norm"}},
    {"layer_type": "flatten", "args": {"name": "flat"}},
]


def build(labels: dict | None = None, **geometry: object) -> pl.PhaseLockNet:
    return pl.PhaseLockNet(config(**geometry), LAYERS, labels=labels, nerve=Envelopes(), dtype="float64", seed=4)


def sound(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def keys(n: int, seed: int = 1) -> Keys:
    return Keys.make(seed, track=torch.arange(n))


@pytest.mark.parametrize("file", sorted(DATA.glob("phaselocknet_*.config.json")), ids=lambda p: p.name[13:24])
def test_the_original_configurations(file: Path) -> None:
    raw = json.loads(file.read_text())
    conf = pl.Configuration.parse(raw)
    word = "word" in file.name
    assert conf.takes == "sound"
    assert (conf.ears, conf.fs, conf.n_samples) == ((1, 20000, 40000) if word else (2, 50000, 60000))
    assert (conf.buffer, conf.size) == (((0, 0), (50, 20000)) if word else ((0, 1000), (50, 10000)))
    assert conf.input_shape == ((3, 50, 20000) if word else (6, 50, 10000))
    ours = pl.published_config("word" if word else "loc", 3000)
    assert ours["kwargs_cochlea"] == raw["kwargs_cochlea"]
    assert ours["n_classes_dict"] == raw["n_classes_dict"]


@pytest.mark.parametrize(("localises", "shape"), [(False, (3, 50, 20000)), (True, (6, 50, 10000))])
def test_models_that_take_rates(localises: bool, shape: tuple[int, ...]) -> None:
    cochlea = {"sr_input": 10000.0, "sr_output": 10000.0}
    heads = {"label_loc_int": 504} if localises else {"label_word_int": 794}
    conf = pl.Configuration.parse({"kwargs_cochlea": cochlea, "n_classes_dict": heads})
    assert (conf.takes, conf.input_shape, conf.n_samples) == ("rates", shape, 12000 if localises else 20000)
    assert conf.buffer == ((0, 500) if localises else (0, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs_cochlear": {}}, "Did you mean 'kwargs_cochlea'"),
        ({"kwargs_cochlea": {"sr_inputs": 1}}, "Did you mean 'sr_input'"),
        ({"kwargs_cochlea": {"sr_output": 1e4}}, "sr_input = None must be a rate"),
        ({"kwargs_cochlea": [1]}, "must be an object"),
        ({"n_classes_dict": None}, "no n_classes_dict"),
        ({"psysim": {"ear": 2}}, "Did you mean 'ears'"),
        ({"psysim": {"ears": 3}}, "ears = 3 must be 1 or 2"),
        ({"psysim": {"size": 3}}, "size = 3 must be"),
        ({"psysim": {"n_samples": 0.5}}, "n_samples = 0.5 must be a whole number"),
    ],
)
def test_wrong_configurations(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        pl.Configuration.parse(config() | change)


def test_rows_do_not_depend_on_their_neighbours_and_keys_name_the_spikes() -> None:
    model, x = build(), sound(4, 500)
    together = model(x, keys(4))["label_word_int"]
    alone = model(x[2:3], keys(4)[2:3])["label_word_int"]
    torch.testing.assert_close(alone, together[2:3], rtol=1e-12, atol=1e-12)
    assert not torch.equal(model(x, keys(4, seed=2))["label_word_int"], together)
    torch.testing.assert_close(model(x, keys(4))["label_word_int"], together, rtol=0, atol=0)


def test_two_ears_stand_side_by_side_with_their_own_spikes() -> None:
    model, x = build(ears=2), sound(3, 2, 500)
    assert model.configuration.input_shape == (6, F, 100)
    activity = model.activity(x, keys(3))
    torch.testing.assert_close(activity[:, :3], Envelopes()(x[:, 0], keys(3)))
    same = model.activity(x[:, :1].expand(-1, 2, -1), keys(3))
    assert not torch.equal(same[:, :3], same[:, 3:])


def test_stages() -> None:
    model, x = build(), sound(2, 500)
    logits, stages = model(x, keys(2), return_stages=True)
    assert torch.equal(stages["activity"], model.activity(x, keys(2)))
    assert torch.equal(stages["head.label_word_int.fc_output"], logits["label_word_int"])
    assert {"body.conv", "body.norm"} < set(stages)


@pytest.mark.parametrize(
    ("x", "n_keys", "message"),
    [
        (sound(2, 499), 2, "499"),
        (sound(500), 1, "must have shape"),
        (sound(2, 2, 500), 2, "must have shape"),
        (sound(2, 500), 3, "one per sound"),
    ],
)
def test_wrong_sounds(x: Tensor, n_keys: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build()(x, keys(n_keys))


def test_an_architecture_for_another_input() -> None:
    with pytest.raises(SpecError, match="The architecture is for"):
        pl.PhaseLockNet(config(), pl.published_architecture("word_arch0_0000"), nerve=Envelopes())


def test_crop() -> None:
    """Within the buffer; the same for all channels of a sound; every place occurs; exact where nothing is free."""
    x = torch.arange(12.0).expand(300, 2, 3, 12)
    windows = crop(x, (0, 2), (2, 5), keys(300))
    assert windows.shape == (300, 2, 2, 5)
    starts = windows[:, 0, 0, 0]
    assert set(starts.tolist()) == {2.0, 3.0, 4.0, 5.0}
    assert torch.equal(windows, starts[:, None, None, None] + torch.arange(5.0).expand(300, 2, 2, 5))
    assert torch.equal(crop(x[:9], (0, 2), (2, 5), keys(300)[:9]), windows[:9])
    assert torch.equal(crop(x, (1, 2), (1, 8), keys(300)), x[:, :, 1:2, 2:10])
    with pytest.raises(SpecError, match="too small"):
        crop(x, (0, 3), (2, 7), keys(300))


def test_one_file_holds_the_whole_model(tmp_path: Path) -> None:
    labels = {"label_word_int": ["", "a", "b", "c", "d"]}
    model = build(labels)
    with torch.no_grad():
        model.network.body["norm"].weight.add_(0.1)
    path = model.save(tmp_path / "small.safetensors")
    again = pl.PhaseLockNet.load(path, nerve=Envelopes(), dtype="float64")
    assert again.labels == labels
    assert (again.name, again.network.normalisation) == ("small", "keras")
    assert again.fingerprint() == model.fingerprint()
    x = sound(2, 500)
    with torch.no_grad():
        assert torch.equal(again(x, keys(2))["label_word_int"], model(x, keys(2))["label_word_int"])
    port = pl.PhaseLockNet.load(path, nerve=Envelopes(), dtype="float64", normalisation="port")
    assert port.fingerprint() != model.fingerprint()
    with pytest.raises(SpecError, match="for folders"):
        pl.PhaseLockNet.load(path, path)


def test_own_constants_of_normalisation_are_kept(tmp_path: Path) -> None:
    preset = pl.Normalisation(eps=0.1, ddof=0, keep=0.5, keras_momentum=True)
    model = pl.PhaseLockNet(config(), LAYERS, normalisation=preset, nerve=Envelopes())
    path = model.save(tmp_path / "own.safetensors")
    assert pl.PhaseLockNet.load(path, nerve=Envelopes()).network.normalisation == preset


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = pl.save_weights(build().network, tmp_path / "weights.safetensors")
    with pytest.raises(StoreError, match="no saved model: its metadata lack architecture"):
        pl.PhaseLockNet.load(path)


def test_a_folder_as_the_original_has_it(tmp_path: Path) -> None:
    model = build()
    (tmp_path / "config.json").write_text(json.dumps(config()))
    (tmp_path / "labels.json").write_text(json.dumps({"label_word_int": list("abcde")}))
    pl.save_weights(model.network, tmp_path / "ckpt_BEST.safetensors")
    with pytest.raises(SpecError, match=r"arch\.json cannot be read"):
        pl.PhaseLockNet.load(tmp_path)
    (tmp_path / "arch.json").write_text(json.dumps(LAYERS))
    loaded = pl.PhaseLockNet.load(tmp_path, nerve=Envelopes(), dtype="float64")
    assert loaded.labels == {"label_word_int": list("abcde")}
    assert loaded.name == tmp_path.name
    assert loaded.fingerprint() == model.fingerprint()
