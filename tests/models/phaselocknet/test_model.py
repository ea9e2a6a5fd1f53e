"""The whole model: what config.json says, ears, spikes, crop, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from psysim.errors import SpecError, StoreError
from psysim.models import Saddler2024
from psysim.models import phaselocknet as pl
from psysim.models.phaselocknet.nerve import make_nerve
from psysim.rng import Keys, Purpose, uniform

DATA = Path(__file__).parents[2] / "reference" / "data"
F, STEP = 4, 5


class Envelopes(nn.Module):
    """A stand-in for the nerve: rectified sound, decimated, with keyed noise, in three groups and four channels."""

    def forward(self, sound: Tensor, keys: Keys) -> Tensor:
        x = sound.clamp(min=0)[..., None, None, ::STEP] * torch.arange(1.0, 1 + 3 * F).reshape(3, F, 1).to(sound)
        x = x.flatten(1, -3)
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
    options = {"ears": 2, "n_samples": 2000, "size": [F, 1000]}
    model, x = pl.PhaseLockNet(config(**options), LAYERS, dtype="float64"), 0.02 * sound(3, 2, 2000)
    assert model.configuration.input_shape == (6, F, 1000)
    activity = model.activity(x, keys(3))
    nerve = model.nerve
    torch.testing.assert_close(activity[:, :3], nerve(x[:, 0], keys(3)))
    same = model.activity(x[:, :1].expand(-1, 2, -1), keys(3))
    assert not torch.equal(same[:, :3], same[:, 3:])


@pytest.mark.parametrize(("task", "preset"), [("word", "word"), ("loc", "localisation")])
def test_the_nerve_of_a_configuration_is_that_of_the_preset(task: str, preset: str) -> None:
    conf = pl.Configuration.parse(pl.published_config(task, 320))
    nerve = make_nerve(conf)
    expected = Saddler2024(conf.fs, preset, limit_hz=320, spikes="approx")
    x = 0.02 * torch.randn(1, *((2,) if task == "loc" else ()), 2000, generator=torch.Generator().manual_seed(5))
    assert torch.equal(nerve(x, keys(1)), expected(x, keys(1)))
    assert torch.equal(nerve.fc, expected.fc)
    assert (conf.buffer, conf.size) == Saddler2024.published_crop(preset)


def test_options_of_the_nerve() -> None:
    conf = pl.Configuration.parse(pl.published_config("word", 320))
    nerve = make_nerve(conf, {"variant": "corrected", "n_fibers": [100, 0, 0], "spikes": "exact"}, torch.float64)
    assert (nerve.variant, nerve.spikes, nerve.dtype) == ("corrected", "exact", torch.float64)
    with pytest.raises(SpecError, match=r"nerve_options has no key 'variants'.*Did you mean 'variant'"):
        make_nerve(conf, {"variants": "corrected"})


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("config_filterbank", {"mode": "half_cosine"}, "mode = 'half_cosine' is not supported"),
        ("config_filterbank", {"max_cfs": 1}, "Did you mean 'max_cf'"),
        ("config_filterbank", {"kwargs_filter_coefs": {"EarQQ": 1}}, "Did you mean 'EarQ'"),
        ("config_subband_processing", {"rectify": False}, "rectify = False is not supported"),
        ("kwargs_fir_lowpass_filter_output", {"order": 4}, "order = 4 is not supported, only 7"),
        ("kwargs_fir_lowpass_filter_output", {"fir_dur": 0.1}, "fir_dur = 0.1 is not supported, only 0.05"),
        ("kwargs_fir_lowpass_filter_output", {"ihc_filter": False}, "ihc_filter = False is not supported"),
        ("kwargs_fir_lowpass_filter_input", {"cutoff": 1}, "must be empty"),
        ("kwargs_sigmoid_rate_level_function", {"dynamic_range_interval": 0.9}, "0.9 is not supported, only 0.95"),
        ("kwargs_sigmoid_rate_level_function", {"compression_power": 0.3}, "has no key 'compression_power'"),
        ("kwargs_spike_generator_binomial", {"mode": "exakt"}, "Did you mean 'exact'"),
        ("kwargs_custom_slice", {"axis": 2}, "is not supported"),
    ],
)
def test_a_nerve_that_is_not_there_is_refused(where: str, change: dict, message: str) -> None:
    raw = pl.published_config("word", 3000)
    raw["kwargs_cochlea"][where] |= change
    with pytest.raises(SpecError, match=message):
        make_nerve(pl.Configuration.parse(raw))


def test_filters_and_compression_of_a_configuration() -> None:
    raw = pl.published_config("word", 3000)
    raw["kwargs_cochlea"]["config_filterbank"]["kwargs_filter_coefs"] = {"EarQ": 9.0, "minBW": 20.0}
    raw["kwargs_cochlea"]["config_subband_processing"] |= {"compression_power": 0.3, "compression_dbspl_min": 30.0}
    nerve = make_nerve(pl.Configuration.parse(raw))
    assert nerve.filterbank_kwargs == {"ear_q": 9.0, "min_bw": 20.0}
    assert nerve.compression_kwargs == {"power": 0.3, "lower_knee_db_spl": 30.0}


@pytest.mark.parametrize("ears", [1, 2])
def test_rates_from_elsewhere_become_spikes(ears: int) -> None:
    """Models whose training drew spikes in blocks drew exact binomial numbers."""
    spikes = {"n_per_channel": [384, 160, 96], "n_per_step": [48, 40, 48]}
    cochlea = {"sr_input": 1e4, "sr_output": 1e4, "kwargs_spike_generator_binomial": spikes}
    raw = {"kwargs_cochlea": cochlea, "n_classes_dict": {"label_word_int": 5}}
    raw["psysim"] = {"ears": ears, "n_samples": 120, "buffer": [0, 5], "size": [F, 100]}
    model = pl.PhaseLockNet(raw, LAYERS)
    assert model.nerve.generator.mode == "exact"
    rates = torch.full((300, *((2,) if ears == 2 else ()), 3, F, 120), 100.0)
    counts = model.activity(rates, keys(300))
    assert counts.shape == (300, 3 * ears, F, 100)
    for group, n in enumerate([384, 160, 96] * ears):  # four standard errors of 120000 binomial numbers
        assert float(counts[:, group].mean()) == pytest.approx(0.01 * n, abs=4 * (0.01 * n / 120000) ** 0.5)
    if ears == 2:
        assert not torch.equal(counts[:, :3], counts[:, 3:])
    assert model(rates[:2], keys(2))["label_word_int"].shape == (2, 5)
    with pytest.raises(SpecError, match="no nerve model whose options"):
        pl.PhaseLockNet(raw, LAYERS, nerve_options={"spikes": "exact"})


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


def test_options_of_the_nerve_are_kept(tmp_path: Path) -> None:
    options = {"threshold_db_spl": torch.tensor([10.0, 20.0, 40.0]), "variant": "corrected"}
    model = pl.PhaseLockNet(config(n_samples=200), LAYERS, nerve_options=options)
    path = model.save(tmp_path / "impaired.safetensors")
    again = pl.PhaseLockNet.load(path, nerve_options={"spikes": "exact"})
    assert again.nerve.variant == "corrected"
    assert again.nerve.spikes == "exact"
    assert again.nerve.rates.threshold_db_spl.flatten().tolist() == [10, 20, 40]
    assert pl.PhaseLockNet.load(path).fingerprint() == model.fingerprint() != again.fingerprint()


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
