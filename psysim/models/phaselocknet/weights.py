"""Weight files: TensorFlow checkpoints are read, safetensors are read and written. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from psysim.errors import StoreError
from psysim.models.phaselocknet.architecture import Architecture
from psysim.models.phaselocknet.network import Network
from psysim.models.phaselocknet.tensor_bundle import Bundle

__all__ = ["find_weights", "load_weights", "read_metadata", "read_tensorflow", "save_weights"]

VARIABLE = re.compile(r"(?:^|/)layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE$")
NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
CHECKSUMS = "crc32c"


def find_weights(folder: str | Path) -> Path:
    """Return the weight file of a model folder.

    Parameters
    ----------
    folder : path
        Folder of a model.

    Returns
    -------
    pathlib.Path
        Its only ``.safetensors`` file, or else ``ckpt_BEST.index`` of a TensorFlow checkpoint.

    Raises
    ------
    StoreError
        If there is neither, or several safetensors.
    """
    folder = Path(folder)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) > 1:
        raise StoreError(f"{folder} holds several weight files ({', '.join(p.name for p in found)}): name one.")
    index = folder / "ckpt_BEST.index"
    if not found and not index.is_file():
        raise StoreError(f"{folder} holds no weights: expected ckpt_BEST.index (TensorFlow) or a .safetensors file.")
    return found[0] if found else index


def load_weights(network: Network, path: str | Path) -> None:
    """Fill a network with the weights of a file, all of them or none.

    Parameters
    ----------
    network : Network
        Filled in place, in its own dtype.
    path : path
        A ``.safetensors`` file, or the ``.index`` file or the prefix of a TensorFlow checkpoint.

    Raises
    ------
    StoreError
        If the file is missing or damaged, or does not hold exactly this network's weights.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth", ".pkl", ".bin"):
        raise StoreError(
            f"{path}: pickled weights are not loaded, because a pickle can run any program. Convert the file with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), 'weights.safetensors')."
        )
    safe = path.suffix == ".safetensors"
    found = _read_safetensors(path) if safe else read_tensorflow(path, network.architecture)
    wanted = network.weights()
    found = {name: value for name, value in found.items() if not _fixed(network, name, value, path)}
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or extra:
        lists = [f"{what}: {_few(names)}" for what, names in (("missing", missing), ("unknown", extra)) if names]
        raise StoreError(f"{path} does not hold the weights of this architecture ({'; '.join(lists)}).")
    for name, tensor in wanted.items():
        shape, needed = tuple(found[name].shape), tuple(tensor.shape)
        if shape != needed:
            raise StoreError(f"{path}: {name} has shape {shape}, but the architecture needs {needed}.")
        if not found[name].isfinite().all():
            raise StoreError(f"{path}: {name} holds numbers that are not finite.")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _fixed(network: Network, name: str, value: Tensor, path: Path) -> bool:
    """Return whether ``name`` is something that is computed, not learnt; refuse it if its value is another."""
    place, _, what = name.rpartition(".")
    if name in network.weights():
        return False
    try:
        own = getattr(network.get_submodule(place), what, None)
    except AttributeError:
        return False
    if what == "num_batches_tracked":
        return True
    if not isinstance(own, Tensor):
        return False
    if own.shape != value.shape or not torch.allclose(own.to(value), value, rtol=1e-4, atol=1e-6):
        raise StoreError(f"{path}: the fixed kernel {name} is not the one that the architecture describes.")
    return True


def read_tensorflow(prefix: str | Path, architecture: Architecture) -> dict[str, Tensor]:
    """Read a checkpoint that TensorFlow 2 wrote for a network of this architecture; TensorFlow is not needed.

    Parameters
    ----------
    prefix : path
        Path of the checkpoint without or with ``.index``; the ``.data-...`` files stand beside it.
    architecture : Architecture
        Says which layer is the N-th with weights: the body in order, then the heads in alphabetical order.

    Returns
    -------
    dict of str to Tensor
        Weights by the names of `Network.weights`: kernels as (out, in / groups, frequency, time) or (out, in).

    Raises
    ------
    StoreError
        If a file is missing or damaged, or a variable belongs to no layer.
    """
    prefix = Path(prefix)
    bundle = Bundle(prefix.with_suffix("") if prefix.suffix == ".index" else prefix)
    places = [p for p in architecture.places() if p.layer.parameters(p.input_shape) or p.layer.buffers(p.input_shape)]
    found: dict[str, Tensor] = {}
    for variable in bundle.shapes:
        match = VARIABLE.search(variable)
        if match is None:
            continue
        index, kind = int(match.group(1)), match.group(2)
        if index >= len(places) or kind not in NAMES:
            raise StoreError(
                f"{prefix}: '{variable}' belongs to no layer of this architecture ({len(places)} layers with weights)."
            )
        value = bundle.read(variable)
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, tuple(range(value.ndim)))
        found[f"{places[index].path}.{NAMES[kind]}"] = torch.from_numpy(
            np.ascontiguousarray(value.transpose(axes)).copy()
        )
    if not found:
        raise StoreError(
            f"{prefix} holds no variable named layer_with_weights-N: it is no checkpoint of a Keras model."
        )
    return found


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"There is no weight file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged or is no safetensors file: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    metadata, tensors = _open(path)
    try:
        checksums = json.loads(metadata.get(CHECKSUMS, "{}"))
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}: its list of checksums is damaged.") from error
    for name, checksum in checksums.items():
        if name not in tensors or checksum_of(tensors[name]) != checksum:
            raise StoreError(f"{path} is damaged: the checksum of {name} is wrong. Copy the file again.")
    return tensors


def checksum_of(tensor: Tensor, crc: int = 0) -> int:
    """Return the CRC-32C of a tensor's bytes, going on from ``crc``."""
    for part in torch.split(tensor.detach().reshape(-1), 2**24):
        crc = google_crc32c.extend(crc, part.cpu().numpy().tobytes())
    return crc


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the texts that a ``.safetensors`` file holds beside the weights.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict of str to str
        ``architecture``, ``config`` and ``labels`` (JSON) in files of `save_weights` for a whole model.

    Raises
    ------
    StoreError
        If there is no such file or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise StoreError(f"There is no weight file {path}.")
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged or is no safetensors file: {error}") from error


def save_weights(network: Network, path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write the weights of a network as a safetensors file; the file appears when it is complete.

    Parameters
    ----------
    network : Network
        The network.
    path : path
        A name ending in ``.safetensors`` that does not exist; missing folders are made.
    metadata : mapping of str to str, optional
        Texts to keep in the file. Checksums of all weights are kept in any case.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    StoreError
        If the name is another, the file exists or cannot be written.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise StoreError(f"{path}: weights are saved under a name that ends in .safetensors.")
    if os.path.lexists(path):
        raise StoreError(f"{path} exists; it will not be replaced. Choose another name.")
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.weights().items()}
    checksums = {name: checksum_of(tensor) for name, tensor in tensors.items()}
    texts = {**(metadata or {}), CHECKSUMS: json.dumps(checksums)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            save_file(tensors, temporary, metadata=texts)
            os.chmod(temporary, 0o644)  # it is made private; weights are shared like any other file
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.rename(temporary, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write ({error.strerror or error}).") from error
    return path
