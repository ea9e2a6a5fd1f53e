"""The config.json of a model, read strictly: what the nerve model is, how long the sounds are, what is cropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psysim.errors import SpecError, did_you_mean
from psysim.models.phaselocknet.labels import LOCATION_HEAD

__all__ = ["Configuration", "published_config"]

TOP = ("kwargs_cochlea", "kwargs_optimize", "kwargs_dataset_from_tfrecords", "n_classes_dict", "psysim")
COCHLEA = (
    "config_filterbank",
    "config_subband_processing",
    "kwargs_custom_slice",
    "kwargs_fir_lowpass_filter_input",
    "kwargs_fir_lowpass_filter_output",
    "kwargs_sigmoid_rate_level_function",
    "kwargs_spike_generator_binomial",
    "kwargs_spike_rate_noise",
    "sr_cochlea",
    "sr_input",
    "sr_output",
)
GEOMETRY = ("ears", "n_samples", "buffer", "size")
LIMITS_HZ = (50, 320, 1000, 3000)


def check_names(where: str, given: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Return ``given`` (None: empty) as a dictionary, or raise `SpecError` at the first unknown key."""
    if given is not None and not isinstance(given, Mapping):
        raise SpecError(f"{where} must be an object with keys, but is {given!r}.")
    for key in given or {}:
        if key not in allowed:
            raise SpecError(f"{where} has no key '{key}'. Allowed: {', '.join(allowed)}.{did_you_mean(key, allowed)}")
    return dict(given or {})


@dataclass(frozen=True)
class Configuration:
    """What a model takes and gives; made by `parse`.

    Attributes
    ----------
    raw : dict
        The content of the config.json.
    n_classes : dict of str to int
        Number of classes of each head.
    ears : int
        1 or 2.
    takes : str
        ``"sound"`` in pascal, or ``"rates"``: mean firing rates of an auditory nerve model that ran elsewhere.
    fs : float
        Sampling rate of the input, Hz.
    fs_nerve : float
        Sampling rate of the nerve activity, Hz.
    n_samples : int
        Length of the input in samples.
    n_fibers : tuple of int
        Fibres in each group.
    buffer : tuple of int
        Frequency channels and samples cut off at both ends of the activity.
    size : tuple of int
        Frequency channels and samples of the activity that the network gets.
    """

    raw: dict[str, Any]
    n_classes: dict[str, int]
    ears: int
    takes: str
    fs: float
    fs_nerve: float
    n_samples: int
    n_fibers: tuple[int, ...]
    buffer: tuple[int, int]
    size: tuple[int, int]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of the network's input: (ears x groups, frequency channels, samples)."""
        return (self.ears * len(self.n_fibers), *self.size)

    @property
    def cochlea(self) -> dict[str, Any]:
        """The ``kwargs_cochlea``."""
        return dict(self.raw["kwargs_cochlea"])

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Configuration:
        """Return the configuration that a config.json holds.

        The published models have two ears and 1.2 s of sound if they have the head ``label_loc_int``, one ear and 2 s
        otherwise. An object ``psysim`` with ``ears``, ``n_samples``, ``buffer`` and ``size`` says it for other models.

        Parameters
        ----------
        raw : mapping
            The content of the file.

        Raises
        ------
        SpecError
            If a key is unknown (with the nearest name), missing, or a value is no such value.
        """
        given = check_names("config.json", raw, TOP)
        cochlea = check_names("kwargs_cochlea", given.get("kwargs_cochlea"), COCHLEA)
        geometry = check_names("psysim", given.get("psysim"), GEOMETRY)
        heads = given.get("n_classes_dict")
        if not isinstance(heads, Mapping) or not heads:
            raise SpecError("config.json has no n_classes_dict: {head: number of classes}.")
        rates = []
        for key in ("sr_input", "sr_output"):
            value = cochlea.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise SpecError(f"kwargs_cochlea: {key} = {value!r} must be a rate in Hz.")
            rates.append(float(value))
        fs, fs_nerve = rates
        filterbank = cochlea.get("config_filterbank") or {}
        takes = "sound" if filterbank else "rates"
        localises = LOCATION_HEAD in heads
        spikes = cochlea.get("kwargs_spike_generator_binomial") or {}
        n_fibers = spikes.get("n_per_channel", [384, 160, 96])
        n_channels = len(filterbank.get("cfs") or ()) or int(filterbank.get("num_cf", 50))
        cut = (1000 if takes == "sound" else 500) if localises else 0
        defaults: dict[str, Any] = {
            "ears": 2 if localises else 1,
            "n_samples": round((1.2 if localises else 2.0) * fs),
            "buffer": [0, cut],
            "size": [n_channels, round((1.0 if localises else 2.0) * fs_nerve)],
        }
        chosen = defaults | geometry
        pairs = {key: tuple(_whole(key, v) for v in _pair(key, chosen[key])) for key in ("buffer", "size")}
        ears = _whole("ears", chosen["ears"])
        if ears not in (1, 2):
            raise SpecError(f"psysim: ears = {ears} must be 1 or 2.")
        return cls(
            raw=given,
            n_classes=dict(heads),
            ears=ears,
            takes=takes,
            fs=fs,
            fs_nerve=fs_nerve,
            n_samples=_whole("n_samples", chosen["n_samples"]),
            n_fibers=tuple(_whole("n_per_channel", n) for n in n_fibers),
            buffer=(pairs["buffer"][0], pairs["buffer"][1]),
            size=(pairs["size"][0], pairs["size"][1]),
        )


def _pair(key: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise SpecError(f"psysim: {key} = {value!r} must be [frequency channels, samples].")
    return list(value)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SpecError(f"{key} = {value!r} must be a whole number from 0.")
    return value


def published_config(task: str, limit_hz: int) -> dict[str, Any]:
    """Return the config.json of the published models that take sound.

    Parameters
    ----------
    task : {"word", "loc"}
        Words and voices, or localisation.
    limit_hz : int
        Nominal phase-locking limit: 50, 320, 1000 or 3000.

    Returns
    -------
    dict
        As `Configuration.parse` takes it.

    Raises
    ------
    SpecError
        If there is no such model.

    Examples
    --------
    >>> Configuration.parse(published_config("loc", 3000)).input_shape
    (6, 50, 10000)
    """
    if task not in ("word", "loc") or limit_hz not in LIMITS_HZ:
        raise SpecError(f"There is no published model ({task!r}, {limit_hz!r}): 'word' or 'loc', limit {LIMITS_HZ} Hz.")
    fs, max_cf = (20000.0, 8000.0) if task == "word" else (50000.0, 16000.0)
    heads = {"label_speaker_int": 433, "label_word_int": 794} if task == "word" else {LOCATION_HEAD: 504}
    return {
        "kwargs_cochlea": {
            "sr_input": fs,
            "sr_cochlea": fs,
            "sr_output": 10000.0,
            "config_filterbank": {
                "mode": "fir_gammatone_filterbank",
                "num_cf": 50,
                "min_cf": 60.0,
                "max_cf": max_cf,
                "cfs": None,
                "fir_dur": 0.05,
                "kwargs_filter_coefs": {},
            },
            "config_subband_processing": {"rectify": True},
            "kwargs_fir_lowpass_filter_input": {},
            "kwargs_fir_lowpass_filter_output": {"cutoff": limit_hz, "order": 7, "fir_dur": 0.05, "ihc_filter": True},
            "kwargs_custom_slice": {},
            "kwargs_spike_rate_noise": {},
            "kwargs_sigmoid_rate_level_function": {
                "rate_spont": [0.0, 0.0, 0.0],
                "rate_max": [250.0, 250.0, 250.0],
                "threshold": [0.0, 12.0, 28.0],
                "dynamic_range": [20.0, 40.0, 80.0],
                "dynamic_range_interval": 0.95,
                "envelope_mode": True,
            },
            "kwargs_spike_generator_binomial": {"n_per_channel": [384, 160, 96], "mode": "approx"},
        },
        "n_classes_dict": heads,
    }
