"""One file for a model: weights, running statistics, the scale of its input, and all it was built with."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from psysim.errors import StoreError
from psysim.models.neural.base import AudioEncodingModel
from psysim.models.neural.configuration import build

__all__ = ["load_model", "save_model"]

CONFIGURATION = "configuration"


def save_model(model: AudioEncodingModel, path: str | Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a model as a safetensors file; the file appears when it is complete.

    Parameters
    ----------
    model : AudioEncodingModel
        Model; its front-end and prefilter are stored with it.
    path : path
        A name ending in ``.safetensors`` that does not exist; missing folders are made.
    metadata : mapping of str to str, optional
        Texts to keep in the file.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    StoreError
        If the name is another, the file exists or cannot be written.
    SpecError
        If an argument of the model is a module that is in no registry.

    Examples
    --------
    >>> import tempfile
    >>> from psysim.models.neural import AdapTrans, Linear
    >>> model = Linear(18, 9, 4, prefiltering=AdapTrans(18, dt_ms=10.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     twin = load_model(save_model(model, f"{folder}/population.safetensors"))
    >>> twin.prefiltering.dt_ms
    10.0
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise StoreError(f"{path}: models are saved under a name that ends in .safetensors.")
    if os.path.lexists(path):
        raise StoreError(f"{path} exists; it will not be replaced. Choose another name.")
    texts = {**(metadata or {}), CONFIGURATION: json.dumps(model.configuration())}
    tensors: dict[str, Tensor] = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            save_file(tensors, temporary, metadata=texts)
            os.chmod(temporary, 0o644)  # it is made private; models are shared like any other file
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.rename(temporary, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write ({error.strerror or error}).") from error
    return path


def load_model(path: str | Path) -> AudioEncodingModel:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    AudioEncodingModel
        The model in evaluation mode, on the CPU.

    Raises
    ------
    StoreError
        If the file cannot be read or is no such model.
    SpecError
        If the model is of a kind that this version of psysim does not have.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = build(json.loads(texts[CONFIGURATION]))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: cannot read ({error}).") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise StoreError(f"{path} holds no neural response model: its configuration is missing or damaged.") from error
    if not isinstance(model, AudioEncodingModel):
        raise StoreError(f"{path} holds a {type(model).__name__}, not a neural response model.")
    for name, value in model.state_dict().items():
        if name in tensors and value.dtype != tensors[name].dtype and tensors[name].is_floating_point():
            model = model.to(tensors[name].dtype)
            break
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise StoreError(f"{path}: its weights are not those of its {type(model).__name__}. {error}") from error
    return model.eval()
