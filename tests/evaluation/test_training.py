"""Training of networks: what a recipe may say, the sounds, learning, interruption, what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from psysim.errors import NumericsError, SpecError, StoreError
from psysim.evaluation import training
from psysim.evaluation.descent import DescentProgress
from psysim.evaluation.recipe import loads_recipe
from psysim.evaluation.training import make_model, near, score_model, train
from psysim.evaluation.training_sounds import TrainingExamples
from psysim.models.phaselocknet import PhaseLockNet, read_metadata
from psysim.observers.network import trained_networks, trained_path

RECIPE = """
title = "Tones"
fs = 4000
layers = [
  { type = "conv2d", filters = 4, kernel_size = [1, 5], strides = [1, 5] },
  { type = "relu" },
  { type = "batchnormalization" },
  { type = "flatten" },
  { type = "dropout", rate = 0.1 },
]
[stimulus]
kind = "tone"
duration_s = 0.05
ramp_s = 0.005
[vary]
frequency_hz = { low = 200.0, high = 1600.0, scale = "log" }
level_db_spl = { low = 50.0, high = 60.0 }
[heads.frequency]
kind = "value"
parameter = "frequency_hz"
n_classes = 6
[nerve]
limit_hz = 300
fs_out = 1000
num_cf = 8
max_cf = 1900
[training]
batch = 16
n_steps = 40
learning_rate = 0.02
validate_every = 10
n_validation = 64
n_test = 128
"""


def test_the_sound_of_a_number_does_not_depend_on_the_batch() -> None:
    examples = TrainingExamples(loads_recipe(RECIPE))
    whole = examples.make("training", torch.arange(10))
    again = examples.make("training", torch.tensor([7, 3]))
    torch.testing.assert_close(again.sounds, whole.sounds[[7, 3]], rtol=0, atol=0)
    assert again.classes["frequency"].tolist() == whole.classes["frequency"][[7, 3]].tolist()
    assert again.positions["frequency"].tolist() == whole.positions["frequency"][[7, 3]].tolist()
    assert not torch.equal(examples.make("test", torch.arange(10)).sounds, whole.sounds)


def test_classes_are_equal_parts_of_the_range() -> None:
    recipe = loads_recipe(RECIPE)
    made = TrainingExamples(recipe).make("training", torch.arange(600))
    sounds, classes = made.sounds, made.classes
    counts = torch.bincount(classes["frequency"], minlength=6)
    assert counts.sum() == 600
    assert ((counts - 100) ** 2 / 100).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001
    spectrum = torch.fft.rfft(sounds * torch.hann_window(sounds.shape[1]), 4000).abs()  # bins of 1 Hz
    found = (spectrum.argmax(1) / 200.0).log2() / 3.0  # three octaves from 200 Hz
    off = (found * 6.0 - classes["frequency"] - 0.5).abs()
    assert bool((off < 0.55).all())
    assert float((found - made.positions["frequency"]).abs().max()) < 0.01
    assert recipe.classes["frequency"][0] == f"{200.0 * 2**0.25:.6g}"


def test_half_of_the_sounds_have_the_target_and_texts_may_vary() -> None:
    text = """
title = "Tone in noise"
fs = 8000
layers = [{ type = "flatten" }]
[stimulus]
kind = "tone_in_noise"
duration_s = 0.1
signal_duration_s = 0.1
low_hz = 100.0
high_hz = 3000.0
[vary]
snr_db = { low = 20.0, high = 30.0 }
statistics = { choices = ["gaussian", "low_noise"] }
level_db_spl = { choices = [50, 60] }
[heads.tone]
kind = "present"
tracks = "snr_db"
[nerve]
limit_hz = 1000
fs_out = 4000
max_cf = 3500
"""
    made = TrainingExamples(loads_recipe(text)).make("training", torch.arange(200))
    sounds, classes = made.sounds, made.classes
    level = 10 * torch.log10(sounds.square().mean(1) / 4e-10)
    present = classes["tone"] == 1
    assert 70 < int(present.sum()) < 130
    assert float(level[present].min()) > 66.0
    assert float(level[~present].max()) < 64.0


def test_labels_are_those_of_the_sound() -> None:
    text = """
title = "Words"
fs = 8000
layers = [{ type = "flatten" }]
[stimulus]
kind = "speech_in_noise"
snr_db = 0.0
speaker = "low"
[vary]
sentence_list = { choices = [1, 2] }
[heads.verb]
kind = "label"
place = 2
[nerve]
limit_hz = 50
fs_out = 200
max_cf = 3000
"""
    recipe = loads_recipe(text)
    assert len(recipe.classes["verb"]) == 10
    made = TrainingExamples(recipe).make("test", torch.arange(12))
    classes, keys = made.classes, made.keys
    assert bool(((classes["verb"] >= 0) & (classes["verb"] < 10)).all())
    assert len(set(classes["verb"].tolist())) > 3
    assert keys.shape == (12,)


VALUE_HEAD = 'kind = "value"\nparameter = "frequency_hz"\nn_classes = 6\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RECIPE.replace('"tone"', '"tne"'), "stimulus.kind: = 'tne' is not"),
        (RECIPE.replace("frequency_hz = {", "freq_hz = {"), "vary.freq_hz: unknown key"),
        (RECIPE.replace("n_classes = 6", ""), "needs n_classes"),
        (RECIPE.replace('parameter = "frequency_hz"', 'parameter = "duration_s"'), "must be in \\[vary\\]"),
        (RECIPE.replace("low = 50.0, high = 60.0", "low = 60.0, high = 50.0"), "low below high"),
        (RECIPE.replace("duration_s = 0.05", "duration_s = 0.05\nlevel_db_spl = 50"), "also in \\[vary\\]"),
        (RECIPE.replace('type = "relu"', 'type = "rleu"'), "layers: .*rleu"),
        (RECIPE.replace('{ type = "relu" }', '"relu"'), "layers: must be a list of tables"),
        (RECIPE.replace("batch = 16", "batchsize = 16"), "training.batchsize: unknown key"),
        (RECIPE.replace(VALUE_HEAD, 'kind = "label"\nplace = 1\n'), "needs a stimulus with labels"),
        (RECIPE.replace("limit_hz = 300", "limit_hz = 3000"), "nerve: .*cutoff"),
        ("title = 3 =", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        loads_recipe(text)


def test_what_is_learnt_of_a_value_tells_differences_within_a_class() -> None:
    position = torch.tensor([0.4, 0.42, 0.44])
    p = near(position, 10)
    torch.testing.assert_close(p.sum(-1), torch.ones(3))
    places = (torch.arange(10) + 0.5) / 10
    torch.testing.assert_close(p @ places, position, rtol=0, atol=1e-3)


def test_a_network_learns_and_its_file_says_what_it_can(tmp_path: Path) -> None:
    recipe = loads_recipe(RECIPE)
    seen = []
    model = train(recipe, tmp_path / "out", progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 41))
    scores = score_model(model, recipe, "test", 128)
    assert scores["accuracy"]["frequency"] > 0.5  # chance: 1/6
    assert scores["loss"] < score_model(make_model(recipe), recipe, "test", 128)["loss"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["log.csv", "model.safetensors", "recipe.toml"]
    facts = json.loads(read_metadata(tmp_path / "out" / "model.safetensors")["training"])
    assert facts["test"] == scores
    assert facts["recipe"] == RECIPE
    assert facts["heads"]["frequency"]["scale"] == "log"
    assert PhaseLockNet.load(tmp_path / "out" / "model.safetensors").fingerprint() == model.fingerprint()
    assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 5


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = loads_recipe(RECIPE)

    def stop(now: DescentProgress) -> None:
        if now.step == 23:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "a", progress=stop)
    with pytest.raises(StoreError, match="--resume"):
        train(recipe, tmp_path / "a")
    with pytest.raises(StoreError, match="another recipe"):
        train(loads_recipe(RECIPE + "\n# other"), tmp_path / "a", resume=True)
    resumed = train(recipe, tmp_path / "a", resume=True)
    assert resumed.fingerprint() == train(recipe, tmp_path / "b").fingerprint()
    assert train(recipe, tmp_path / "a", resume=True).fingerprint() == resumed.fingerprint()  # complete: as it is


def test_training_ends_when_validations_get_no_better(tmp_path: Path) -> None:
    recipe = loads_recipe(
        RECIPE.replace("n_steps = 40", "n_steps = 400\npatience = 2\nschedule = 'constant'").replace(
            "learning_rate = 0.02", "learning_rate = 1.0"
        )
    )
    seen = []
    train(recipe, tmp_path / "out", progress=seen.append)
    assert seen[-1].step < 400


def test_damage_and_divergence_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = loads_recipe(RECIPE)

    def stop(now: DescentProgress) -> None:
        if now.step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "a", progress=stop)
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        train(recipe, tmp_path / "a", resume=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").touch()
    with pytest.raises(StoreError, match="holds nothing to continue"):
        train(recipe, tmp_path / "c")
    monkeypatch.setattr(training, "_losses", lambda *_: ({"x": torch.tensor(float("nan"))}, {}, {}))
    with pytest.raises(NumericsError, match="step 0"):
        train(recipe, tmp_path / "d")


def test_products_in_16_bit_learn_too(tmp_path: Path) -> None:
    recipe = loads_recipe(RECIPE.replace("batch = 16", 'batch = 16\nprecision = "bfloat16"'))
    model = train(recipe, tmp_path / "out")
    assert score_model(model, recipe, "test", 128)["accuracy"]["frequency"] > 0.5


@pytest.mark.parametrize("name", trained_networks())
def test_shipped_networks_come_from_their_recipes(name: str) -> None:
    facts = json.loads(read_metadata(trained_path(name))["training"])
    text = trained_path(name, ".toml").read_text()
    assert facts["recipe"] == text
    recipe = loads_recipe(text)
    model = PhaseLockNet.load(trained_path(name))
    assert model.network.architecture == recipe.architecture()
    assert trained_path(name).stat().st_size < 4e6
    scores = score_model(model, recipe, "test", 64)
    for head, share in facts["test"]["accuracy"].items():
        spread = (share * (1 - share) / 64) ** 0.5
        assert abs(scores["accuracy"][head] - share) < 4 * spread + 0.02
