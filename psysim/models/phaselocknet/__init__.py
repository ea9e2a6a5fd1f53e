"""PhaseLockNet: networks that hear through a model of the auditory nerve, Saddler & McDermott (2024)."""

from psysim.models.phaselocknet.architecture import Architecture, Place, published_architecture, published_names
from psysim.models.phaselocknet.config import Configuration, published_config
from psysim.models.phaselocknet.labels import LOCATION_HEAD, allowed_locations, label_of, location_of, read_labels
from psysim.models.phaselocknet.layers import NORMALISATIONS, Normalisation
from psysim.models.phaselocknet.model import PhaseLockNet
from psysim.models.phaselocknet.nerve import make_nerve
from psysim.models.phaselocknet.network import Network, choose
from psysim.models.phaselocknet.readout import (
    SpeechReceptionFit,
    angular_error,
    fit_speech_reception_threshold,
    fold_front_back,
    great_circle_error,
    masked_argmax,
    minimum_audible_angle,
    normalised_rmse,
    pair_proportions,
    pairing_threshold,
    weighted_azimuth,
    wrap_degrees,
)
from psysim.models.phaselocknet.weights import (
    find_weights,
    load_weights,
    read_metadata,
    read_tensorflow,
    save_weights,
)

__all__ = [
    "LOCATION_HEAD",
    "NORMALISATIONS",
    "Architecture",
    "Configuration",
    "Network",
    "Normalisation",
    "PhaseLockNet",
    "Place",
    "SpeechReceptionFit",
    "allowed_locations",
    "angular_error",
    "choose",
    "find_weights",
    "fit_speech_reception_threshold",
    "fold_front_back",
    "great_circle_error",
    "label_of",
    "load_weights",
    "location_of",
    "make_nerve",
    "masked_argmax",
    "minimum_audible_angle",
    "normalised_rmse",
    "pair_proportions",
    "pairing_threshold",
    "published_architecture",
    "published_config",
    "published_names",
    "read_labels",
    "read_metadata",
    "read_tensorflow",
    "save_weights",
    "weighted_azimuth",
    "wrap_degrees",
]
