from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import butter, hilbert, sosfiltfilt, welch

import psysim as ps
from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import Rows, load_corpus, registry

F64 = torch.float64
FS = 20000
KIND = registry.get("speech_in_noise")()
MASKERS = ("stationary", "modulated", "speech_modulated", "babble")
THIRD_OCTAVES = 1000.0 * 10 ** (np.arange(-8, 10) / 10)  # 160 Hz to 8 kHz


def keys(n: int) -> Keys:
    return Keys.make(seed=4, track=2, trial=torch.arange(n))


def parts(parameters: dict[str, Any], rows: int, fs: float = FS) -> tuple[torch.Tensor, torch.Tensor]:
    return KIND.components(Rows(KIND.complete(parameters), keys(rows)), fs)


def power_db(x: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(x.square().mean(-1)) + 20 * math.log10(1 / 20e-6)


def speech_level(sentence: torch.Tensor, parameters: dict[str, Any], fs: float) -> torch.Tensor:
    """Level from the first onset to the last offset, by the times that the stimulus gives."""
    times = KIND.label_times_s(parameters, keys(len(sentence)))
    levels = []
    for row in range(len(sentence)):
        start, stop = round(float(times[row, 0, 0]) * fs), round(float(times[row, -1, 1]) * fs)
        levels.append(power_db(sentence[row, start:stop]))
    return torch.stack(levels)


@pytest.mark.parametrize("masker", MASKERS)
@pytest.mark.parametrize("fixed", ["masker", "speech"])
@pytest.mark.parametrize("fs", [FS, 16000])
def test_ratio_and_levels_are_those_asked_for(masker: str, fixed: str, fs: int) -> None:
    snr = torch.linspace(-12.0, 12.0, 5, dtype=F64)
    parameters = {"snr_db": snr, "fixed": fixed, "masker": masker, "level_db_spl": 60.0, "combine": True}
    sentence, noise = parts(parameters, 5, fs)
    ramp = round(0.05 * fs)
    noise_level = power_db(noise[:, ramp:-ramp])
    level = speech_level(sentence, parameters, fs)
    # one sample at each end of the speech
    torch.testing.assert_close(level - noise_level, snr, rtol=0, atol=0.01)
    torch.testing.assert_close(
        level if fixed == "speech" else noise_level, torch.full((5,), 60.0, dtype=F64), rtol=0, atol=0.01
    )
    assert torch.equal(KIND.generate(parameters, keys(5), fs, F64), sentence + noise)


def test_masker_alone_has_the_same_masker() -> None:
    with_speech = KIND.generate({"snr_db": 0.0}, keys(3), FS, F64)
    alone = KIND.generate({"snr_db": -math.inf}, keys(3), FS, F64)
    sentence, noise = parts({"snr_db": 0.0}, 3)
    assert torch.equal(alone, noise)
    torch.testing.assert_close(with_speech - alone, sentence, rtol=0, atol=1e-12)
    with pytest.raises(SpecError, match="needs fixed = 'masker'"):
        KIND.generate({"snr_db": -math.inf, "fixed": "speech"}, keys(3), FS)


def test_lead_and_lag() -> None:
    lead = torch.tensor([0.1, 0.7], dtype=F64)
    parameters = {"lead_s": lead, "lag_s": 0.2, "ramp_s": 0.01, "sentence": 3, "speaker": "low"}
    sentence, noise = parts(parameters, 2)
    longest = max(load_corpus().sentences[i].duration_s for i in load_corpus().select("low"))
    for row in range(2):
        start = round(float(lead[row]) * FS)
        assert not sentence[row, :start].any()
        assert sentence[row, start : start + 3000].any()
        n = round((float(lead[row]) + longest + 0.2) * FS)
        assert noise[row, 1:n].abs().min() >= 0
        assert noise[row, n - 400 : n - 1].any()
        assert not noise[row, n:].any()
    times = KIND.label_times_s({**parameters, "silence_before_s": 0.3}, keys(2))
    assert (times[:, 0, 0] - lead - 0.3 - 0.02).abs().max() < 1e-9


def test_every_masker_is_new_in_every_trial_and_independent_of_the_sentence() -> None:
    for masker in MASKERS:
        _, noise = parts({"masker": masker, "sentence": 5, "speaker": "low"}, 6)
        steady = noise[:, 2000:30000]
        correlation = torch.corrcoef(steady)
        assert float((correlation - torch.eye(6)).abs().max()) < 0.2, masker


def long_noise(masker: str, **more: Any) -> np.ndarray:
    parameters = {"speaker": "low", "masker": masker, "lead_s": 0.0, "lag_s": 2.0, "masker_speaker": "low", **more}
    return parts(parameters, 40)[1][:, 1000:-1000].numpy()


def third_octaves_db(x: np.ndarray) -> np.ndarray:
    f, density = welch(x, FS, nperseg=8192)
    bands = [density[(f >= c * 10**-0.05) & (f < c * 10**0.05)].sum() for c in THIRD_OCTAVES]
    return 10 * np.log10(bands / np.sum(bands))


@pytest.mark.parametrize("masker", MASKERS)
def test_maskers_have_the_long_term_spectrum_of_the_speaker(masker: str) -> None:
    corpus = load_corpus()
    spans = [(corpus.sound(i, FS).double().numpy(), corpus.sentences[i].span_s) for i in corpus.select("low")]
    speech = np.concatenate([x[round(a * FS) : round(b * FS)] for x, (a, b) in spans])
    difference = third_octaves_db(long_noise(masker).reshape(-1)) - third_octaves_db(speech)
    assert np.abs(difference).max() < 1.0


def band_envelope(x: np.ndarray, low: float, high: float, cutoff: float) -> np.ndarray:
    band = sosfiltfilt(butter(4, [low, high], "bandpass", fs=FS, output="sos"), x)
    return sosfiltfilt(butter(2, cutoff, fs=FS, output="sos"), np.abs(hilbert(band)))


def test_modulated_noise_is_modulated_at_its_rate() -> None:
    x = long_noise("modulated", rate_hz=8.0, depth_db=-3.0)
    power = np.abs(np.fft.rfft(x**2, axis=1)) ** 2
    spectrum = power.mean(0)
    f = np.fft.rfftfreq(x.shape[1], 1 / FS)
    inside = (f > 2) & (f < 30)
    assert f[inside][spectrum[inside].argmax()] == pytest.approx(8.0, abs=0.3)
    # mean square of 1 + m sin at 8 Hz: amplitude 2 m / (1 + m^2/2), at a random phase in every token
    m = 10 ** (-3 / 20)
    turn = np.exp(-2j * np.pi * 8.0 * np.arange(x.shape[1]) / FS)
    amplitude = 2 * np.abs(((x**2) * turn).mean(1)) / (x**2).mean(1)
    assert amplitude.mean() == pytest.approx(2 * m / (1 + m**2 / 2), rel=0.1)
    phases = np.angle(((x**2) * turn).mean(1))
    assert np.abs(np.exp(1j * phases).mean()) < 0.4  # 40 random phases: 0.16 expected


def test_speech_modulated_noise_has_the_envelope_of_speech() -> None:
    """Depth of the slow envelope of each band: as speech of one talker, and far from stationary noise."""
    depth = {}
    for masker in ("stationary", "speech_modulated", "babble"):
        x = long_noise(masker, n_talkers=1)
        for low, high in ((200.0, 800.0), (900.0, 2400.0), (2600.0, 8000.0)):
            envelope = band_envelope(x, low, high, 16.0)
            depth[masker, low] = float((envelope.std(1) / envelope.mean(1)).mean())
    for low in (200.0, 900.0, 2600.0):
        assert depth["speech_modulated", low] > 2 * depth["stationary", low]
        assert depth["speech_modulated", low] == pytest.approx(depth["babble", low], rel=0.25)


def test_more_talkers_fluctuate_less() -> None:
    spread = []
    for n in (1, 4, 16):
        x = long_noise("babble", n_talkers=n)
        envelope = band_envelope(x, 300.0, 3000.0, 8.0)
        spread.append(float((envelope.std(1) / envelope.mean(1)).mean()))
    assert spread[0] > 1.5 * spread[1] > 1.5 * 1.3 * spread[2]


def test_talkers_of_a_masker_may_be_of_one_speaker() -> None:
    """Fundamental of the babble of one talker: that of the chosen speaker."""
    for speaker, (low, high) in {"low": (70, 130), "high": (150, 300)}.items():
        _, noise = parts({"masker": "babble", "n_talkers": 1, "masker_speaker": speaker, "lag_s": 2.0}, 10)
        x = noise.numpy()[:, 4000:44000].reshape(-1, 1000)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(x * np.hanning(1000), 4000)) ** 2)[:, :400]
        lag = 60 + correlation[:, 60:300].argmax(axis=1)
        voiced = correlation[np.arange(len(lag)), lag] > 0.4 * correlation[:, 0]
        assert low < np.median(FS / lag[voiced]) < high
    with pytest.raises(ValueError, match="masker_speaker = 'lou' is not known"):
        KIND.Parameters.model_validate({"masker_speaker": "lou"})


def test_labels_do_not_depend_on_the_masker_or_the_level() -> None:
    first = KIND.labels({"snr_db": -5.0}, keys(10))
    assert torch.equal(first, KIND.labels({"snr_db": 3.0, "masker": "babble"}, keys(10)))
    assert torch.equal(first, registry.get("matrix_sentence")().labels({}, keys(10)))


EXPERIMENT = """
title = "Detection of speech in noise"
[stimulus]
kind = "speech_in_noise"
speaker = "low"
lead_s = 0.1
lag_s = 0.1
{more}
[conditions]
masker = ["stationary", "babble"]
[procedure]
tracks = "snr_db"
level_start = 0.0
steps = [8.0]
n_reversals = 2
max_trials = 60
[[observers]]
decision = "simulated_listener"
threshold = -20.0
slope = 0.1
[run]
n_tracks = 1
fs = 20000
"""


def test_an_experiment_file_can_use_it() -> None:
    from psysim.experiments.sounds import Sounds

    spec = ps.loads(EXPERIMENT.format(more=""))
    assert spec.stimulus["path"] is None
    sounds = Sounds(spec)
    sounds.check()
    one = torch.zeros(1, dtype=torch.int64)
    trial = sounds.make_intervals(one, torch.zeros(1, dtype=F64), one, sounds.keys(one, one, one))
    assert trial.shape == (1, 3, sounds.n_samples)
    assert bool(trial.any(-1).all())
    run = ps.run(spec)
    assert np.isfinite(run["threshold"].values).all()


def test_what_the_page_shows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "speech.md").read_text()
    spec = ps.loads(re.search(r"```toml\n(.*?)```", page, re.S).group(1))
    assert (spec.stimulus_kind, spec.tracks) == ("speech_in_noise", "snr_db")
    scope: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.S).group(1), scope)
    assert scope["sounds"].shape[0] == 8
    assert scope["labels"].shape == (8, 5)
    assert scope["times"].shape == (8, 5, 2)
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \| (\w+) \| (\w+) \|$", page, re.M)
    assert tuple(zip(*rows[1:], strict=True)) == scope["columns"]


def test_an_experiment_file_finds_a_corpus_beside_it(tmp_path: Path) -> None:
    import soundfile

    folder = tmp_path / "mine"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.1 * np.random.default_rng(1).standard_normal(8000), 16000)
    (folder / "manifest.csv").write_text("file,speaker,words\na.wav,low,hello\n")
    file = tmp_path / "experiment.toml"
    file.write_text(EXPERIMENT.format(more='path = "mine"'))
    assert ps.load(file).stimulus["path"] == str(folder)
    file.write_text(EXPERIMENT.format(more='path = "other"'))
    with pytest.raises(SpecError, match=r"The speech corpus '.*other' does not exist"):
        ps.load(file)
    file.write_text(EXPERIMENT.format(more="sentence_list = 12"))
    with pytest.raises(SpecError, match=r"sentence_list = 12 does not exist"):
        ps.load(file)
