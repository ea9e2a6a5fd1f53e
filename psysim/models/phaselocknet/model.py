"""PhaseLockNet as a whole: sound in pascal to logits, by way of spikes of a simulated auditory nerve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import google_crc32c
import torch
from torch import Tensor, nn

from psysim.errors import SpecError, StoreError
from psysim.models.base import jsonable
from psysim.models.phaselocknet.architecture import Architecture, published_architecture
from psysim.models.phaselocknet.config import Configuration, published_config
from psysim.models.phaselocknet.labels import check_labels, read_json, read_labels
from psysim.models.phaselocknet.layers import Normalisation
from psysim.models.phaselocknet.nerve import make_nerve
from psysim.models.phaselocknet.network import Network
from psysim.models.phaselocknet.weights import checksum_of, find_weights, load_weights, read_metadata, save_weights
from psysim.rng import Keys
from psysim.stages.base import SignalModule, resolve_dtype
from psysim.stages.spikes import crop_activity

__all__ = ["PhaseLockNet"]


class PhaseLockNet(SignalModule):
    """Networks that name words, voices or directions from spikes of a simulated auditory nerve.

    Parameters
    ----------
    config : mapping or Configuration
        The content of a config.json: nerve model, length of the sounds, heads.
    architecture : Architecture or sequence of mappings
        The content of an arch.json.
    labels : mapping of str to sequence of str, optional
        Texts of the classes of a head.
    normalisation : {"keras", "port"} or Normalisation
        See `Network`. The published weights were trained with "keras".
    seed : int or None
        Seed of the initial weights; None leaves them unset.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    nerve_options : mapping, optional
        Arguments of the nerve model that differ from ``config``: a hearing loss, ``{"variant": "corrected"}``,
        ``{"spikes": "exact"}``; see `psysim.models.Saddler2024`.
    nerve : Module, optional
        In place of the nerve model: called with what `forward` takes and keys (B,), it returns spike counts
        (B, ears x groups, F, T').

    Attributes
    ----------
    configuration : Configuration
        What the model takes and gives.
    network : Network
        The part with weights.
    nerve : Module
        The part before it.
    labels : dict of str to list of str
        Texts of the classes, for the heads that have them.

    Raises
    ------
    SpecError
        If a description is not usable; the message says where.

    References
    ----------
    Saddler & McDermott (2024), Models optimized for real-world tasks reveal the task-dependent necessity of precise
    temporal coding in hearing. Nat. Commun. 15, 10590.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Configuration,
        architecture: Architecture | Sequence[Mapping[str, Any]],
        *,
        labels: Mapping[str, Sequence[str]] | None = None,
        normalisation: str | Normalisation = "keras",
        seed: int | None = 0,
        dtype: torch.dtype | str = torch.float32,
        nerve_options: Mapping[str, Any] | None = None,
        nerve: nn.Module | None = None,
    ) -> None:
        super().__init__(learnable=True, dtype=resolve_dtype(dtype))
        self.configuration = config if isinstance(config, Configuration) else Configuration.parse(config)
        shape, heads = self.configuration.input_shape, self.configuration.n_classes
        if not isinstance(architecture, Architecture):
            architecture = Architecture.parse(list(architecture), shape, heads)
        if architecture.input_shape != shape or architecture.n_classes != dict(sorted(heads.items())):
            raise SpecError(
                f"The architecture is for {architecture.input_shape} and {dict(architecture.n_classes)}, "
                f"the configuration for {shape} and {heads}."
            )
        self.labels = check_labels(labels or {}, architecture.n_classes)
        self.network = Network(architecture, normalisation=normalisation, seed=seed, dtype=dtype)
        self.nerve = make_nerve(self.configuration, nerve_options, self.dtype) if nerve is None else nerve
        self.nerve_options = jsonable(dict(nerve_options or {}))
        self.name = "phaselocknet"
        self.eval()

    @classmethod
    def published(cls, architecture: str, limit_hz: int = 3000, **options: Any) -> Self:
        """Return a published model with its initial weights: those of the authors are not shipped.

        Parameters
        ----------
        architecture : str
            See `published_architecture`.
        limit_hz : int
            Nominal phase-locking limit: 50, 320, 1000 or 3000.
        **options
            As for the class.

        Raises
        ------
        SpecError
            If there is no such model.
        """
        description = published_architecture(architecture)
        model = cls(published_config(architecture.partition("_")[0], limit_hz), description, **options)
        model.name = f"{architecture}_{limit_hz}"
        return model

    @classmethod
    def load(
        cls,
        path: str | Path,
        weights: str | Path | None = None,
        *,
        normalisation: str | Normalisation | None = None,
        dtype: torch.dtype | str = torch.float32,
        nerve_options: Mapping[str, Any] | None = None,
        nerve: nn.Module | None = None,
    ) -> Self:
        """Return the model of a folder or of one safetensors file that `save` wrote.

        Parameters
        ----------
        path : path
            A folder with ``config.json``, ``arch.json``, perhaps ``labels.json``, and weights: ``ckpt_BEST.index`` with
            its data file as TensorFlow wrote them, or a ``.safetensors`` file. Or a ``.safetensors`` file.
        weights : path, optional
            Another weight file for the folder.
        normalisation : str or Normalisation, optional
            See `Network`. Default: as saved, "keras" for a folder.
        dtype, nerve_options, nerve
            As for the class; options of the nerve are added to those saved.

        Raises
        ------
        SpecError, StoreError
            If a file is missing, damaged or does not belong to the others.
        """
        path = Path(path)
        options: dict[str, Any] = {"seed": None, "dtype": dtype, "nerve_options": nerve_options, "nerve": nerve}
        if path.is_dir():
            weights = Path(weights) if weights is not None else find_weights(path)
            configuration = Configuration.parse(read_json(path / "config.json"))
            heads = configuration.n_classes
            architecture = Architecture.read(path / "arch.json", configuration.input_shape, heads)
            has_labels = (path / "labels.json").is_file()
            labels = read_labels(path / "labels.json", heads) if has_labels else {}
            preset: str | Normalisation = normalisation or "keras"
        else:
            if weights is not None:
                raise SpecError(f"{path} is one file with its own weights: 'weights' is for folders.")
            texts, weights = read_metadata(path), path
            absent = [key for key in ("architecture", "config", "labels", "normalisation") if key not in texts]
            if absent:
                raise StoreError(f"{path} is no saved model: its metadata lack {', '.join(absent)}.")
            try:
                config, labels, stored = (json.loads(texts[key]) for key in ("config", "labels", "normalisation"))
            except json.JSONDecodeError as error:
                raise StoreError(f"{path}: its metadata are damaged ({error}).") from error
            configuration = Configuration.parse(config)
            architecture = Architecture.parse(texts["architecture"], configuration.input_shape, configuration.n_classes)
            if nerve is None:
                options["nerve_options"] = json.loads(texts.get("nerve_options", "{}")) | dict(nerve_options or {})
            preset = normalisation or (stored if isinstance(stored, str) else Normalisation(**stored))
        model = cls(configuration, architecture, labels=labels, normalisation=preset, **options)
        load_weights(model.network, weights)
        model.name = path.stem if path.suffix == ".safetensors" else path.resolve().name
        return model

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
        """Write weights, descriptions, label sets and options of the nerve as one safetensors file, which `load` reads.

        Parameters
        ----------
        path : path
            A name ending in ``.safetensors`` that does not exist.
        metadata : mapping of str to str, optional
            More texts to keep in the file; see `read_metadata`.

        Raises
        ------
        StoreError
            As `save_weights`.
        """
        network = self.network
        preset = network.normalisation if isinstance(network.normalisation, str) else vars(network.normalisation)
        texts = {
            "architecture": network.architecture.to_json(),
            "config": json.dumps(self.configuration.raw),
            "labels": json.dumps(self.labels),
            "normalisation": json.dumps(preset),
            "nerve_options": json.dumps(self.nerve_options),
        }
        return save_weights(network, path, {**(metadata or {}), **texts})

    def fingerprint(self) -> str:
        """Return a checksum of everything that the logits depend on: weights, descriptions, options of the nerve."""
        network = self.network
        text = f"{network.architecture}{self.configuration}{network.normalisation}{self.nerve_options}"
        text += type(self.nerve).__qualname__
        crc = google_crc32c.value(text.encode())
        for tensor in network.weights().values():
            crc = checksum_of(tensor, crc)
        return f"{crc:08x}"

    def activity(self, sound: Tensor, keys: Keys) -> Tensor:
        """Return what the network gets: spike counts (B, ears x groups, F, T').

        Parameters
        ----------
        sound : Tensor
            As for `forward`.
        keys : Keys (B,)
            Names of the random numbers of spikes and crop, one per row.

        Raises
        ------
        SpecError
            If ``sound`` has another shape, or there is not one key per row.
        """
        conf = self.configuration
        one = ("n_samples",) if conf.takes == "sound" else ("groups", "F", "n_samples")
        shapes = f"(B, {', '.join((*(('2',) if conf.ears == 2 else ()), *one))}) with n_samples = {conf.n_samples}"
        x = self.enter(sound, (len(one) + conf.ears,), shapes, "sound")
        if x.shape[-1] != conf.n_samples or (conf.ears == 2 and x.shape[1] != 2):
            raise SpecError(f"sound has shape {tuple(x.shape)}, but must have shape {shapes}.")
        if keys.shape != x.shape[:1]:
            raise SpecError(f"keys have shape {tuple(keys.shape)}, but there must be one per sound: ({len(x)},).")
        return crop_activity(self.nerve(x, keys), conf.buffer, conf.size, keys)

    def forward(
        self, sound: Tensor, keys: Keys, return_stages: bool = False
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the logits of each head.

        Parameters
        ----------
        sound : Tensor (B, n_samples), or (B, 2, n_samples) for models with two ears
            Sound in pascal, left ear first, at the rate and of the length that ``configuration`` says. For models that
            take rates: (B, groups, F, n_samples) or (B, 2, groups, F, n_samples), spikes/s.
        keys : Keys (B,)
            Names of the random numbers of spikes, crop and, in training mode, dropout.
        return_stages : bool
            Return also a dictionary of the stages: ``activity``, and the output of every layer by path.

        Returns
        -------
        dict of str to Tensor (B, n)
            Logits by head. A softmax gives the probabilities of the classes.

        Raises
        ------
        SpecError
            As `activity`.
        """
        activity = self.activity(sound, keys)
        if not return_stages:
            return self.network(activity, keys)
        logits, layers = self.network(activity, keys, return_layers=True)
        return logits, {"activity": activity} | layers
