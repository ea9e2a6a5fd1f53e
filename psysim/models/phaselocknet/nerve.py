"""The auditory nerve in front of the network, as a config.json describes it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from psysim.errors import SpecError, check_option
from psysim.models.base import registry
from psysim.models.phaselocknet.config import Configuration, check_names
from psysim.rng import Keys
from psysim.stages.base import check_keys
from psysim.stages.spikes import SPIKE_MODES, SpikeGenerator

__all__ = ["NERVE_MODEL", "RateSpikes", "make_nerve", "nerve_arguments"]

NERVE_MODEL = "saddler2024"
FILTERS = "kwargs_filter_coefs"
FILTER_NAMES = {"EarQ": "ear_q", "minBW": "min_bw", "order": "erb_order"}
COMPRESSION_NAMES = {
    "compression_power": "power",
    "compression_dbspl_min": "lower_knee_db_spl",
    "compression_dbspl_max": "upper_knee_db_spl",
}
RATE_NAMES = {
    "rate_spont": "rate_spont",
    "rate_max": "rate_max",
    "threshold": "threshold_db_spl",
    "dynamic_range": "dynamic_range_db",
}

RIGHT_EAR = 128  # added to the interval of a key for the spikes of the right ear, as the nerve model does
SLICES: tuple[dict[str, Any], ...] = (
    {},
    {"axis": 3, "args": [0, 3], "expand_dims": True},
)  # the second one takes all three groups


class RateSpikes(nn.Module):
    """Spikes of one or two ears for firing rates from elsewhere.

    Parameters
    ----------
    generator : SpikeGenerator
        Of one ear.
    """

    def __init__(self, generator: SpikeGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, rates: Tensor, keys: Keys) -> Tensor:
        """Return counts (B, ears x G, F, T) for rates (B, G, F, T) or (B, 2, G, F, T) in spikes/s."""
        if rates.ndim == 4:
            return self.generator(rates, keys)
        ears = torch.arange(rates.shape[1], device=keys.device)
        names = keys.unsqueeze(-1).replace(interval=keys.interval[:, None] + RIGHT_EAR * ears)
        return self.generator(rates.flatten(0, 1), names.flatten()).reshape(len(rates), -1, *rates.shape[3:])


def make_nerve(
    configuration: Configuration, options: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Return the part of a model before its network.

    Parameters
    ----------
    configuration : Configuration
        Of the model.
    options : mapping, optional
        Arguments of the nerve model (`psysim.models.Saddler2024`) that differ from the configuration: a hearing loss,
        ``variant="corrected"``, ``spikes="exact"``.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Returns
    -------
    Module
        Called with sound (B, T) or (B, 2, T) in pascal, or rates, and keys (B,), it returns spike counts
        (B, ears x groups, F, T').

    Raises
    ------
    SpecError
        If the configuration asks for something that the nerve model does not have, or an option is unknown.
    """
    mode = _spike_mode(configuration)
    if configuration.takes == "rates":
        if options:
            raise SpecError("A model that takes firing rates has no nerve model whose options could be set.")
        _refuse_inputs(configuration.cochlea)
        return RateSpikes(SpikeGenerator(configuration.fs_nerve, configuration.n_fibers, mode, dtype=dtype))
    kind = registry.get(NERVE_MODEL)
    allowed = [name for name in inspect.signature(kind).parameters if name not in ("fs", "return_stages", "dtype")]
    arguments = nerve_arguments(configuration) | {"spikes": mode} | check_keys("nerve_options", options, allowed)
    return kind(dtype=dtype, **arguments)


def _spike_mode(configuration: Configuration) -> str:
    """Return how spikes are drawn: without a mode, blocks (``n_per_step``) mean the exact numbers of the training."""
    allowed = ("n_per_channel", "mode", "n_per_step")
    where = "kwargs_spike_generator_binomial"
    given = check_names(where, configuration.cochlea.get(where), allowed)
    mode = str(given.get("mode", "exact" if given.get("n_per_step") is not None else "approx"))
    check_option(f"{where}: mode", mode, SPIKE_MODES)
    return mode


def _refuse_inputs(cochlea: Mapping[str, Any]) -> None:
    """Refuse what no published model has and no nerve model here does."""
    for key in ("kwargs_fir_lowpass_filter_input", "kwargs_spike_rate_noise"):
        if cochlea.get(key):
            raise SpecError(f"{key} = {cochlea[key]!r} is not supported: it must be empty.")
    if (cochlea.get("kwargs_custom_slice") or {}) not in SLICES:
        raise SpecError(f"kwargs_custom_slice = {cochlea['kwargs_custom_slice']!r} is not supported.")


def _fixed(where: str, given: dict[str, Any], key: str, value: Any) -> None:
    """Take ``key`` out of ``given``; refuse it unless it has the only value that there is."""
    if (found := given.pop(key, value)) != value:
        raise SpecError(f"{where}: {key} = {found!r} is not supported, only {value!r}.")


def nerve_arguments(configuration: Configuration) -> dict[str, Any]:
    """Return the arguments of the nerve model that a config.json stands for, without ``spikes``.

    Parameters
    ----------
    configuration : Configuration
        Of a model that takes sound.

    Returns
    -------
    dict
        Arguments of `psysim.models.Saddler2024`.

    Raises
    ------
    SpecError
        If a key is unknown, or has a value that the nerve model does not have.

    Examples
    --------
    >>> from psysim.models.phaselocknet import published_config
    >>> arguments = nerve_arguments(Configuration.parse(published_config("loc", 320)))
    >>> arguments["limit_hz"], arguments["max_cf"], arguments["threshold_db_spl"]
    (320, 16000.0, (0.0, 12.0, 28.0))
    """
    cochlea = configuration.cochlea
    _refuse_inputs(cochlea)
    _fixed("kwargs_cochlea", cochlea, "sr_cochlea", cochlea["sr_input"])
    out: dict[str, Any] = {"fs": configuration.fs, "fs_model": configuration.fs, "fs_out": configuration.fs_nerve}

    where = "config_filterbank"
    bank = check_names(where, cochlea[where], ("mode", "num_cf", "min_cf", "max_cf", "cfs", "fir_dur", FILTERS))
    _fixed(where, bank, "mode", "fir_gammatone_filterbank")
    filters = check_names(FILTERS, bank.pop(FILTERS, None), tuple(FILTER_NAMES))
    out["filterbank_kwargs"] = {FILTER_NAMES[key]: value for key, value in filters.items()}
    out |= {key: value for key, value in bank.items() if value is not None}

    where = "config_subband_processing"
    subbands = check_names(where, cochlea.get(where), ("rectify", *COMPRESSION_NAMES))
    _fixed(where, subbands, "rectify", True)
    if subbands:
        out["compression_kwargs"] = {COMPRESSION_NAMES[key]: value for key, value in subbands.items()}

    where = "kwargs_fir_lowpass_filter_output"
    lowpass = check_names(where, cochlea.get(where), ("cutoff", "order", "fir_dur", "ihc_filter"))
    _fixed(where, lowpass, "order", 7)
    _fixed(where, lowpass, "ihc_filter", True)
    _fixed(where, lowpass, "fir_dur", out.get("fir_dur", 0.05))
    if "cutoff" not in lowpass:
        raise SpecError(f"{where} has no cutoff: the phase-locking limit in Hz.")
    out["limit_hz"] = lowpass["cutoff"]

    where = "kwargs_sigmoid_rate_level_function"
    rates = check_names(where, cochlea.get(where), ("dynamic_range_interval", "envelope_mode", *RATE_NAMES))
    _fixed(where, rates, "dynamic_range_interval", 0.95)
    out["envelope_mode"] = rates.pop("envelope_mode", True)
    out |= {RATE_NAMES[key]: tuple(v) if isinstance(v, list) else v for key, v in rates.items()}
    return out | {"n_fibers": configuration.n_fibers}
