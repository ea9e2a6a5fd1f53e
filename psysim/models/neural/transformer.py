"""A causal transformer over the frames of a spectrogram."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import SpecError, check_range
from psysim.models.neural.activations import make_activation
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.causal import Causal, Dense, State, uniform
from psysim.models.neural.convolutional import Convolution2D
from psysim.models.neural.readouts import LinearReadout

__all__ = ["Transformer", "attention_mask", "position_code"]


def position_code(first: int, count: int, size: int, like: Tensor) -> Tensor:
    """Return the sinusoidal code of positions.

    Parameters
    ----------
    first, count : int
        Positions first to first + count - 1.
    size : int
        Size D of the code, even.
    like : Tensor
        Its dtype and device are those of the result.

    Returns
    -------
    Tensor
        (count, D): sin(t w_i) at 2 i and cos(t w_i) at 2 i + 1, w_i = 10000^(-2 i / D).
    """
    rate = torch.exp(torch.arange(0, size, 2, dtype=torch.float64, device=like.device) * (-math.log(1e4) / size))
    angle = torch.arange(first, first + count, dtype=torch.float64, device=like.device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(like.dtype)


def attention_mask(n_queries: int, n_keys: int, window: int | None, device: torch.device | None = None) -> Tensor:
    """Return what may be attended: True where key j is not later than query i, and within the window.

    Parameters
    ----------
    n_queries, n_keys : int
        The queries are the last of the keys.
    window : int, optional
        Frames that a query sees, itself included; all before it by default.
    device : torch.device, optional
        Where.

    Returns
    -------
    Tensor
        (n_queries, n_keys) of bool, True = allowed.

    Examples
    --------
    >>> attention_mask(3, 3, 2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    query = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
    lag = query - torch.arange(n_keys, device=device)
    return (lag >= 0) if window is None else (lag >= 0) & (lag < window)


class Attention(nn.Module):
    """Causal self-attention; weights are named as in torch.nn.MultiheadAttention."""

    def __init__(self, size: int, n_heads: int, window: int | None) -> None:
        super().__init__()
        self.n_heads, self.window = n_heads, window
        self.in_proj_weight = nn.Parameter(torch.empty(3 * size, size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * size))
        self.out_proj = Dense(size, size)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights (Xavier, uniform)."""
        bound = math.sqrt(6 / sum(self.in_proj_weight.shape))
        uniform(self.in_proj_weight, -bound, bound, generator)

    def stream(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return (B, T, D) for tokens (B, T, D), and the keys and values that later ones may attend."""
        both = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = both.view(*x.shape[:2], 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        if state is not None:
            key, value = torch.cat([state[0], key], 2), torch.cat([state[1], value], 2)
        frames, known = query.shape[2], key.shape[2]
        if self.window is None and state is None:
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            mask = attention_mask(frames, known, self.window, x.device)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        begin = 0 if self.window is None else max(0, known - self.window + 1)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), (key[:, :, begin:], value[:, :, begin:])


class SeededDropout(nn.Module):
    """Features left out in training, from the model's seed and the number of calls: no global generator takes part.

    Tokens (B, T, D) are drawn frame by frame, so that on a CPU padding at the end does not change those before it.
    """

    calls: Tensor
    seed: Tensor

    def __init__(self, proportion: float) -> None:
        super().__init__()
        self.proportion = proportion
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the seed."""
        self.seed.random_(generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, in training with features left out and the others larger by as much."""
        if not self.training or self.proportion == 0:
            return x
        generator = torch.Generator(x.device).manual_seed(int(self.seed ^ (self.calls + 1)))
        self.calls += 1
        drawn = torch.rand((x.shape[1], x.shape[0], x.shape[2]), generator=generator, device=x.device)
        return x * (drawn.transpose(0, 1) >= self.proportion) / (1 - self.proportion)


class Layer(nn.Module):
    """Attention and a feed-forward network, each added to its input and normalised after it."""

    def __init__(self, size: int, n_heads: int, window: int | None, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(size, n_heads, window)
        self.linear1, self.linear2 = Dense(size, 4 * size), Dense(4 * size, size)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.dropout = SeededDropout(dropout)

    def stream(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return (B, T, D) for tokens (B, T, D), and the state of the attention."""
        attended, after = self.self_attn.stream(x, state)
        x = self.norm1(x + self.dropout(attended))
        expanded = self.dropout(torch.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(expanded))), after


class TokenEncoder(Causal):
    """Patches of the spectrogram as one token per frame, a position code, and layers of attention."""

    def __init__(
        self, patchify: Convolution2D, size: int, n_heads: int, n_layers: int, window: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.patchify, self.size = patchify, size
        self.layers = nn.ModuleList(Layer(size, n_heads, window, dropout) for _ in range(n_layers))

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return features (B, D, T) for a block (B, C_in, F, T), and what the next block needs."""
        past = self.patchify.weight.shape[-1] - 1
        if state is None:
            state = (F.pad(x[..., :0], (past, 0)), 0, (None,) * len(self.layers))
        frames, position, memories = state
        padded = torch.cat([frames, x], -1)
        tokens = self.patchify(padded).flatten(1, 2).mT
        tokens = tokens + position_code(position, tokens.shape[1], self.size, tokens)
        after = []
        for layer, memory in zip(self.layers, memories, strict=True):
            assert isinstance(layer, Layer)
            tokens, end = layer.stream(tokens, memory)
            after.append(end)
        return tokens.mT, (padded[..., padded.shape[-1] - past :], position + x.shape[-1], tuple(after))


@register("model", "transformer")
class Transformer(AudioEncodingModel):
    """Causal attention over frames.

    Its position code is absolute: the response to a sound depends on when in the input it begins, so the model is not
    shift invariant, and its input must begin where it began in training. With n layers the response depends on
    n (context_window - 1) + time_patch_size frames.

    Parameters
    ----------
    n_frequency_bands : int
        Bands F.
    out_neurons : int
        Neurons N.
    freq_patch_size : int, optional
        Bands of a patch, a divisor of F; all by default.
    time_patch_size : int
        Frames of a patch.
    context_window : int, optional
        Frames that a frame attends, itself included; all before it by default.
    embedding_dim : int
        Channels of a patch; times the number of patches it is the size of a token.
    n_heads, n_layers : int
        Heads of the attention; layers.
    dropout : float
        Proportion of features left out in training, at random from the model's seed.
    activation : {"softplus", "sigmoid", "double_exponential"} or None
        Output nonlinearity; none by default.
    **options
        See `Linear`.

    Raises
    ------
    SpecError
        If sizes do not fit.

    Examples
    --------
    >>> import torch
    >>> model = Transformer(n_frequency_bands=34, out_neurons=5).eval()
    >>> model(torch.zeros(2, 1, 34, 50)).shape
    torch.Size([2, 5, 1, 50])
    """

    shift_invariant = False
    published_names: ClassVar[dict[str, str]] = {"patchify.": "core.patchify.", "tsfm.": "core."}

    def __init__(
        self,
        n_frequency_bands: int = 34,
        out_neurons: int = 1,
        *,
        freq_patch_size: int | None = None,
        time_patch_size: int = 1,
        context_window: int | None = None,
        embedding_dim: int = 48,
        n_heads: int = 1,
        n_layers: int = 1,
        dropout: float = 0.1,
        activation: str | None = None,
        **options: Any,
    ) -> None:
        reach = max(time_patch_size, 9) if context_window is None else context_window
        super().__init__(n_frequency_bands, reach, out_neurons, **options)
        bands = self.F if freq_patch_size is None else freq_patch_size
        if bands < 1 or self.F % bands:
            raise SpecError(f"freq_patch_size = {bands} must be a divisor of n_frequency_bands = {self.F}.")
        check_range("dropout", dropout, 0.0, 1.0)
        size = embedding_dim * (self.F // bands)
        if size % 2 or size % n_heads:
            raise SpecError(f"A token has the size {size}; it must be even and a multiple of n_heads = {n_heads}.")
        patches = Convolution2D(self.C_in, embedding_dim, (bands, time_patch_size), (bands, 1))
        self.core = TokenEncoder(patches, size, n_heads, n_layers, context_window, dropout)
        self.readout = LinearReadout(size, self.O, make_activation(activation, self.O))
        self.finish()
