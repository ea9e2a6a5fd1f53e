"""Linear receptive fields, with or without an output nonlinearity."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.models.neural.activations import make_activation
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.kernels import make_kernel
from psysim.models.neural.readouts import STRFReadout

__all__ = ["Linear", "LinearNonlinear"]


@register("model", "linear")
class Linear(AudioEncodingModel):
    """Spectro-temporal receptive field per neuron, Theunissen et al. (2000).

    Parameters
    ----------
    n_frequency_bands, temporal_window_size, out_neurons
        F, T and N: see `AudioEncodingModel`.
    kernel : {"full", "separable", "gaussian"}
        Form of the receptive field: one weight per band and frame, a product of a spectral and a temporal profile, or a
        mixture of Gaussians.
    n_gaussians : int
        Gaussians per field, for "gaussian".
    **options
        ``prefiltering``, ``wav2spec``, ``dt_ms``, ``full_scale_db_spl``, ``seed``: see `AudioEncodingModel`.

    References
    ----------
    Theunissen, F. E., Sen, K. and Doupe, A. J. (2000). Spectral-temporal receptive fields of nonlinear auditory neurons
    obtained using natural sounds. J. Neurosci. 20, 2315-2331.

    Examples
    --------
    >>> import torch
    >>> model = Linear(n_frequency_bands=34, temporal_window_size=9, out_neurons=5)
    >>> model(torch.zeros(2, 1, 34, 50)).shape
    torch.Size([2, 5, 1, 50])
    """

    readout: STRFReadout

    def __init__(
        self,
        n_frequency_bands: int = 34,
        temporal_window_size: int = 9,
        out_neurons: int = 1,
        *,
        kernel: str = "full",
        n_gaussians: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(n_frequency_bands, temporal_window_size, out_neurons, **options)
        self._build(kernel, n_gaussians, None)

    def _build(self, kernel: str, n_gaussians: int, activation: str | None) -> None:
        fields = make_kernel(kernel, self.O, self.C_in, self.F, self.T, n_gaussians)
        self.readout = STRFReadout(fields, make_activation(activation, self.O))
        self.finish()

    def STRF_weight(self, polarity: str = "ON", folded: bool = False) -> Tensor:
        """Return the receptive fields.

        Parameters
        ----------
        polarity : {"ON", "OFF"}
            Channel of the prefilter: 0 or 1.
        folded : bool
            Include the factor of the normalisation, as the field acts in evaluation.

        Returns
        -------
        Tensor
            (N, F, T).

        Raises
        ------
        SpecError
            If there is no such channel.
        """
        check_option("polarity", polarity, ("ON", "OFF"))
        channel = ("ON", "OFF").index(polarity)
        if channel >= self.C_in:
            raise SpecError(f"polarity = {polarity!r}: the model has {self.C_in} channel only, 'ON'.")
        return (self.readout.folded_kernel() if folded else self.readout.strf.kernel.values())[:, channel]


@register("model", "linear_nonlinear")
class LinearNonlinear(Linear):
    """Spectro-temporal receptive field and static nonlinearity per neuron.

    Parameters
    ----------
    n_frequency_bands, temporal_window_size, out_neurons, kernel, n_gaussians, **options
        See `Linear`.
    activation : {"softplus", "sigmoid", "double_exponential"}
        The nonlinearity: `ParametricSoftplus`, `ParametricSigmoid` or `ParametricDoubleExponential`.

    References
    ----------
    Willmore, B. D. B., Schoppe, O., King, A. J., Schnupp, J. W. H. and Harper, N. S. (2016). Incorporating midbrain
    adaptation to mean sound level improves models of auditory cortical processing. J. Neurosci. 36, 280-289.

    Examples
    --------
    >>> import torch
    >>> model = LinearNonlinear(out_neurons=5)
    >>> bool((model.eval()(torch.randn(2, 1, 34, 50)) >= 0).all())
    True
    """

    def __init__(
        self,
        n_frequency_bands: int = 34,
        temporal_window_size: int = 9,
        out_neurons: int = 1,
        *,
        kernel: str = "full",
        n_gaussians: int = 1,
        activation: str = "softplus",
        **options: Any,
    ) -> None:
        AudioEncodingModel.__init__(self, n_frequency_bands, temporal_window_size, out_neurons, **options)
        self._build(kernel, n_gaussians, activation)
