"""Networks with one hidden layer of receptive fields: without and with memory in the hidden units."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from psysim.errors import check_option
from psysim.models.neural.activations import make_activation
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.causal import CausalSequential, ChannelNorm
from psysim.models.neural.kernels import CausalSTRF, make_kernel
from psysim.models.neural.leaky import ExponentialDecay
from psysim.models.neural.readouts import LinearReadout

__all__ = ["DNet", "NetworkReceptiveField"]


@register("model", "network_receptive_field")
class NetworkReceptiveField(AudioEncodingModel):
    """Hidden units with receptive fields, and neurons that sum them, Harper et al. (2016).

    Parameters
    ----------
    n_frequency_bands, temporal_window_size, out_neurons
        F, T and N: see `AudioEncodingModel`.
    n_hidden : int
        Hidden units H.
    kernel, n_gaussians
        Form of the receptive fields: see `Linear`.
    activation : {"softplus", "sigmoid", "double_exponential"} or None
        Output nonlinearity.
    **options
        See `Linear`.

    References
    ----------
    Harper, N. S., Schoppe, O., Willmore, B. D. B., Cui, Z., Schnupp, J. W. H. and King, A. J. (2016). Network receptive
    field modeling reveals extensive integration and multi-feature selectivity in auditory cortical neurons. PLoS
    Comput. Biol. 12, e1005113.

    Examples
    --------
    >>> import torch
    >>> model = NetworkReceptiveField(n_hidden=6, out_neurons=5)
    >>> model(torch.zeros(2, 1, 34, 50)).shape
    torch.Size([2, 5, 1, 50])
    """

    def __init__(
        self,
        n_frequency_bands: int = 34,
        temporal_window_size: int = 9,
        out_neurons: int = 1,
        *,
        n_hidden: int = 20,
        kernel: str = "full",
        n_gaussians: int = 1,
        activation: str | None = "softplus",
        **options: Any,
    ) -> None:
        super().__init__(n_frequency_bands, temporal_window_size, out_neurons, **options)
        self.H = n_hidden
        self._positive("H")
        fields = CausalSTRF(make_kernel(kernel, self.H, self.C_in, self.F, self.T, n_gaussians))
        self.core = CausalSequential(fields, ChannelNorm(self.H), nn.Tanh())
        self.readout = LinearReadout(self.H, self.O, make_activation(activation, self.O))
        self.finish()

    def hidden_fields(self) -> Tensor:
        """Return the receptive fields of the hidden units, (H, C_in, F, T)."""
        fields = self.core.get_submodule("0")
        assert isinstance(fields, CausalSTRF)
        return fields.kernel.values()


@register("model", "dnet")
class DNet(AudioEncodingModel):
    """Hidden units with receptive fields and leaky memory, and neurons that sum them, Rahman et al. (2019).

    Parameters
    ----------
    n_frequency_bands, temporal_window_size, out_neurons
        F, T and N: see `AudioEncodingModel`.
    n_hidden : int
        Hidden units H.
    init_tau : float
        Initial time constant of the hidden units, frames, above 1.
    decay_input : bool
        Divide the input of a leaky unit by its time constant.
    decay_output : bool
        Also the neurons are leaky, as in the article.
    n_taps : int, optional
        Cut the memory after so many frames; see `ExponentialDecay`.
    kernel, n_gaussians
        Form of the receptive fields: see `Linear`.
    activation : {"softplus", "sigmoid", "double_exponential"} or None
        Output nonlinearity; none by default.
    **options
        See `Linear`.

    References
    ----------
    Rahman, M., Willmore, B. D. B., King, A. J. and Harper, N. S. (2019). A dynamic network model of temporal receptive
    fields in primary auditory cortex. PLoS Comput. Biol. 15, e1006618.

    Examples
    --------
    >>> import torch
    >>> model = DNet(n_hidden=6, out_neurons=5, init_tau=4.0)
    >>> model(torch.zeros(2, 1, 34, 50)).shape
    torch.Size([2, 5, 1, 50])
    >>> model.tau.detach()[:2]
    tensor([4., 4.])
    """

    def __init__(
        self,
        n_frequency_bands: int = 34,
        temporal_window_size: int = 9,
        out_neurons: int = 1,
        *,
        n_hidden: int = 20,
        init_tau: float = 2.0,
        decay_input: bool = True,
        decay_output: bool = False,
        n_taps: int | None = None,
        kernel: str = "full",
        n_gaussians: int = 1,
        activation: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(n_frequency_bands, temporal_window_size, out_neurons, **options)
        if activation is not None:
            check_option("activation", activation, ("softplus", "sigmoid", "double_exponential"))
        self.H = n_hidden
        self._positive("H")
        fields = CausalSTRF(make_kernel(kernel, self.H, self.C_in, self.F, self.T, n_gaussians))
        units = ExponentialDecay(self.H, init_tau, decay_input, n_taps)
        self.core = CausalSequential(fields, ChannelNorm(self.H), nn.Sigmoid(), units)
        summed = LinearReadout(self.H, self.O, make_activation(activation, self.O))
        self.readout = (
            CausalSequential(summed, ExponentialDecay(self.O, init_tau, decay_input, n_taps))
            if decay_output
            else summed
        )
        self.finish()

    @property
    def tau(self) -> Tensor:
        """Time constants of the hidden units (H,), frames."""
        units = self.core.get_submodule("3")
        assert isinstance(units, ExponentialDecay)
        return units.tau
