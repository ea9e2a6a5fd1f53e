"""Models of the responses of auditory neurons: encoding models, front-ends, adaptation, gradient maps."""

from psysim.models.neural.activations import (
    ParametricDoubleExponential,
    ParametricSigmoid,
    ParametricSoftplus,
    make_activation,
)
from psysim.models.neural.adaptation import AdapTrans, ICAdaptation, adaptation_time_constant_ms, band_frequencies
from psysim.models.neural.auditory_front_end import AuditoryFrontEnd
from psysim.models.neural.base import AudioEncodingModel, NeuralModel
from psysim.models.neural.causal import Causal, CausalSequential, detached
from psysim.models.neural.checkpoint import load_model, save_model
from psysim.models.neural.configuration import Configured, build, front_ends, prefilters, register, registry
from psysim.models.neural.convolutional import ConvNet2D
from psysim.models.neural.gradient_maps import strf_gradient_map, waveform_gradient_map
from psysim.models.neural.icnet import ICNet, ICNetEncoder
from psysim.models.neural.kernels import FullKernel, GaussianMixtureKernel, SeparableKernel, make_kernel
from psysim.models.neural.leaky import ExponentialDecay
from psysim.models.neural.learnt_front_ends import LEAF, SincNet
from psysim.models.neural.linear import Linear, LinearNonlinear
from psysim.models.neural.networks import DNet, NetworkReceptiveField
from psysim.models.neural.spectral_front_ends import GammatoneFrontEnd, Gammatonegram, MelFrontEnd
from psysim.models.neural.statenet import LocallyConnected1d, StateNet
from psysim.models.neural.transformer import Transformer

__all__ = [
    "LEAF",
    "AdapTrans",
    "AudioEncodingModel",
    "AuditoryFrontEnd",
    "Causal",
    "CausalSequential",
    "Configured",
    "ConvNet2D",
    "DNet",
    "ExponentialDecay",
    "FullKernel",
    "GammatoneFrontEnd",
    "Gammatonegram",
    "GaussianMixtureKernel",
    "ICAdaptation",
    "ICNet",
    "ICNetEncoder",
    "Linear",
    "LinearNonlinear",
    "LocallyConnected1d",
    "MelFrontEnd",
    "NetworkReceptiveField",
    "NeuralModel",
    "ParametricDoubleExponential",
    "ParametricSigmoid",
    "ParametricSoftplus",
    "SeparableKernel",
    "SincNet",
    "StateNet",
    "Transformer",
    "adaptation_time_constant_ms",
    "band_frequencies",
    "build",
    "detached",
    "front_ends",
    "load_model",
    "make_activation",
    "make_kernel",
    "prefilters",
    "register",
    "registry",
    "save_model",
    "strf_gradient_map",
    "waveform_gradient_map",
]
