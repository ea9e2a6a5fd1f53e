"""The network of PhaseLockNet: nerve activity in, logits of each head out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.models.phaselocknet.architecture import Architecture
from psysim.models.phaselocknet.layers import Dropout, Normalisation, make_module, normalisation
from psysim.rng import Keys, Purpose, uniform
from psysim.stages.base import SignalModule, resolve_dtype

__all__ = ["Network", "choose"]

DRAWS = 2**22  # initial weights drawn at a time; a network can have 5e8


class Network(SignalModule):
    """Convolutional network from an architecture: (B, C, F, T) to logits (B, n) of each head.

    Parameters
    ----------
    architecture : Architecture
        Layers, input shape and heads.
    normalisation : {"keras", "port"} or Normalisation
        Constants of layer and batch normalisation that the architecture leaves open. "keras": eps 1e-3, variance over
        N (the framework in which the published weights were trained); "port": eps 1e-5, layer-norm variance over N - 1.
    seed : int or None
        Seed of the initial weights (Glorot, biases 0), the same on every device. None leaves them unset, for a network
        whose weights are loaded afterwards.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    device : device
        Where it lives; ``"meta"`` gives shapes without memory.

    Attributes
    ----------
    body : ModuleDict
        Layers that all heads share, by name.
    head : ModuleDict
        For each head, by name, its own layers by name; the last is ``fc_output``.

    Raises
    ------
    SpecError
        If an option is not known or a name in the architecture cannot be the name of a module.

    Examples
    --------
    >>> from psysim.models.phaselocknet import Architecture
    >>> layers = [{"layer_type": "conv2d", "args": {"name": "c", "filters": 8, "kernel_size": [3, 5]}},
    ...           {"layer_type": "relu", "args": {"name": "r"}}, {"layer_type": "flatten", "args": {"name": "f"}}]
    >>> network = Network(Architecture.parse(layers, input_shape=(3, 50, 100), n_classes={"label_word_int": 10}))
    >>> {head: logits.shape for head, logits in network(torch.ones(2, 3, 50, 100)).items()}
    {'label_word_int': torch.Size([2, 10])}
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        normalisation: str | Normalisation = "keras",
        seed: int | None = 0,
        dtype: torch.dtype | str = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        resolved = resolve_dtype(dtype)
        with torch.device(device):
            super().__init__(learnable=True, dtype=resolved)
            self.architecture = architecture
            self.normalisation = normalisation
            self.body = nn.ModuleDict()
            self.head = nn.ModuleDict()
            self._build(resolved)
        self.eval()
        if seed is not None and torch.device(device).type != "meta":
            self.reset_parameters(seed)

    def _build(self, dtype: torch.dtype) -> None:
        preset = normalisation(self.normalisation)
        for index, place in enumerate(self.architecture.places()):
            _, *head, name = place.path.split(".")
            try:
                if head and head[0] not in self.head:
                    self.head[head[0]] = nn.ModuleDict()
                container = self.head[head[0]] if head else self.body
                assert isinstance(container, nn.ModuleDict)
                container[name] = make_module(place.layer, place.path, index, place.input_shape, dtype, preset)
            except KeyError as error:
                raise SpecError(f"'{place.path}' cannot be the name of a layer: torch keeps it for itself.") from error

    def reset_parameters(self, seed: int) -> None:
        """Set all weights to their initial values (in place).

        Kernels: uniform between -a and a, a^2 = 6 / (fan in + fan out); scales and running variances: 1; the rest: 0.
        """
        with torch.no_grad():
            for index, (name, tensor) in enumerate(self.weights().items()):
                if tensor.ndim < 2:
                    tensor.fill_(1.0 if name.endswith(("weight", "running_var")) else 0.0)
                    continue
                fans = (tensor.shape[0] + tensor.shape[1]) * math.prod(tensor.shape[2:])
                for block, part in enumerate(torch.split(tensor.view(-1), DRAWS)):
                    keys = Keys.make(seed, track=index, trial=block)
                    draws = uniform(keys, Purpose.INITIAL_WEIGHTS, len(part), torch.float32)
                    part.copy_((2.0 * draws - 1.0) * math.sqrt(6.0 / fans))

    def weights(self) -> dict[str, Tensor]:
        """Return everything learnt by name: parameters and running statistics, in the order of the architecture."""
        found: dict[str, Tensor] = {}
        for place in self.architecture.places():
            module = self.get_submodule(place.path)
            names = (*place.layer.parameters(place.input_shape), *place.layer.buffers(place.input_shape))
            found |= {f"{place.path}.{name}": getattr(module, name) for name in names}
        return found

    def forward(
        self, activity: Tensor, keys: Keys | None = None, return_layers: bool = False
    ) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the logits of each head.

        Parameters
        ----------
        activity : Tensor (B, C, F, T)
            Nerve activity of the architecture's input shape (C, F, T): spike counts, for the published networks.
        keys : Keys (B,), optional
            Names of the random numbers of dropout; needed in training mode only.
        return_layers : bool
            Return also a dictionary of the output of every layer, by path.

        Returns
        -------
        dict of str to Tensor (B, n)
            Logits by head, alphabetical.

        Raises
        ------
        SpecError
            If the input is no floating tensor of that shape.
        """
        shape = self.architecture.input_shape
        x = self.enter(activity, (1 + len(shape),), f"(B, {', '.join(map(str, shape))})", "activity")
        if tuple(x.shape[1:]) != shape:
            raise SpecError(f"activity has shape {tuple(x.shape)}, but the network takes (B, *{shape}).")
        outputs: dict[str, Tensor] | None = {} if return_layers else None
        x = _through(self.body, x, keys, "body", outputs)
        logits = {name: _through(layers, x, keys, f"head.{name}", outputs) for name, layers in self.head.items()}
        return logits if outputs is None else (logits, outputs)


def _through(layers: nn.Module, x: Tensor, keys: Keys | None, part: str, outputs: dict[str, Tensor] | None) -> Tensor:
    for name, layer in layers.named_children():
        x = layer(x, keys) if isinstance(layer, Dropout) else layer(x)
        if outputs is not None:
            outputs[f"{part}.{name}"] = x
    return x


def choose(logits: Tensor, alternatives: Sequence[int] | Tensor) -> Tensor:
    """Return which of a task's alternatives each row of logits prefers.

    Parameters
    ----------
    logits : Tensor (..., n)
        Logits or probabilities of all classes of one head.
    alternatives : sequence of int or Tensor (A,)
        Classes that are allowed as responses.

    Returns
    -------
    Tensor (...)
        Position in ``alternatives``, int64; the first of equals.

    Raises
    ------
    SpecError
        If there are no alternatives, or one is not a class.

    Examples
    --------
    >>> choose(torch.tensor([[9.0, 1.0, 3.0, 2.0]]), [1, 3])
    tensor([1])
    """
    classes = torch.as_tensor(alternatives, device=logits.device)
    n = logits.shape[-1]
    if (
        classes.ndim != 1
        or not len(classes)
        or classes.is_floating_point()
        or not bool(((classes >= 0) & (classes < n)).all())
    ):
        raise SpecError(f"alternatives = {alternatives!r} must list classes from 0 to {n - 1}.")
    return logits[..., classes].argmax(-1)
