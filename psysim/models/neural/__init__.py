"""Models of the responses of auditory neurons: encoding models, front-ends, adaptation, gradient maps."""

from psysim.models.neural.activations import (
    ParametricDoubleExponential,
    ParametricSigmoid,
    ParametricSoftplus,
    make_activation,
)
from psysim.models.neural.adaptation import AdapTrans, ICAdaptation, adaptation_time_constant_ms, band_frequencies
from psysim.models.neural.base import AudioEncodingModel, NeuralModel
from psysim.models.neural.causal import Causal, CausalSequential, detached
from psysim.models.neural.configuration import Configured, build, front_ends, prefilters, register, registry
from psysim.models.neural.convolutional import ConvNet2D
from psysim.models.neural.gradient_maps import strf_gradient_map, waveform_gradient_map
from psysim.models.neural.kernels import FullKernel, GaussianMixtureKernel, SeparableKernel, make_kernel
from psysim.models.neural.leaky import ExponentialDecay
from psysim.models.neural.linear import Linear, LinearNonlinear
from psysim.models.neural.networks import DNet, NetworkReceptiveField
from psysim.models.neural.statenet import LocallyConnected1d, StateNet
from psysim.models.neural.transformer import Transformer

__all__ = [
    "AdapTrans",
    "AudioEncodingModel",
    "Causal",
    "CausalSequential",
    "Configured",
    "ConvNet2D",
    "DNet",
    "ExponentialDecay",
    "FullKernel",
    "GaussianMixtureKernel",
    "ICAdaptation",
    "Linear",
    "LinearNonlinear",
    "LocallyConnected1d",
    "NetworkReceptiveField",
    "NeuralModel",
    "ParametricDoubleExponential",
    "ParametricSigmoid",
    "ParametricSoftplus",
    "SeparableKernel",
    "StateNet",
    "Transformer",
    "adaptation_time_constant_ms",
    "band_frequencies",
    "build",
    "detached",
    "front_ends",
    "make_activation",
    "make_kernel",
    "prefilters",
    "register",
    "registry",
    "strf_gradient_map",
    "waveform_gradient_map",
]
