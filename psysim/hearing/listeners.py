"""Listeners with a hearing loss: from an audiogram to the arguments of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from psysim.errors import SpecError
from psysim.hearing.audiograms import Audiogram, standard_audiogram
from psysim.hearing.loudness_loss import loudness_losses
from psysim.hearing.nerve_loss import nerve_losses
from psysim.models import Model
from psysim.registry import Registry
from psysim.stages import hair_cell_losses

__all__ = ["as_audiogram", "hearing_loss_options", "losses"]

LossRule = Callable[[Model, Audiogram], dict[str, Any]]

losses: Registry[LossRule] = Registry("hearing loss of a model", "psysim.hearing_losses", ("psysim.hearing.listeners",))
"""For each model (by its registered name) the function from the normal model and an audiogram to its arguments."""


def as_audiogram(given: object) -> Audiogram:
    """Return an audiogram from what an experiment file may state.

    Parameters
    ----------
    given : Audiogram, str or mapping
        Name of a standard audiogram ("N1" ... "S3"), or a table with ``frequency_hz`` and ``level_db_hl``.

    Raises
    ------
    SpecError
        If it is neither, or the audiogram is not valid.

    Examples
    --------
    >>> as_audiogram("N3").at(1000.0).item()
    40.0
    >>> as_audiogram({"frequency_hz": [500.0, 4000.0], "level_db_hl": [20.0, 60.0]}).at(500.0).item()
    20.0
    """
    if isinstance(given, Audiogram):
        return given
    if isinstance(given, str):
        return standard_audiogram(given)
    if isinstance(given, Mapping) and {"frequency_hz", "level_db_hl"} <= set(given) <= {
        "frequency_hz",
        "level_db_hl",
        "name",
    }:
        return Audiogram(**given)
    raise SpecError(
        'An audiogram is the name of a standard one (audiogram = "N3"), or a table with frequency_hz and level_db_hl '
        "(and a name, if you like)."
    )


def hearing_loss_options(name: str, model: Model, audiogram: Audiogram) -> dict[str, Any]:
    """Return the arguments that give a model the hearing loss of an audiogram, in both ears.

    Parameters
    ----------
    name : str
        Registered name of the model.
    model : Model
        The model with normal hearing and otherwise the same arguments.
    audiogram : Audiogram

    Raises
    ------
    SpecError
        If no rule is known for this model.

    Examples
    --------
    >>> from psysim.models import Moore2016
    >>> options = hearing_loss_options("moore2016", Moore2016(), as_audiogram("N2"))
    >>> sorted(options), tuple(options["ohc_loss_db"].shape)
    (['ihc_loss_db', 'ohc_loss_db'], (150,))
    """
    if name not in losses:
        raise SpecError(
            f"there is no rule from an audiogram to the model '{name}'. Rules are known for: "
            f"{', '.join(losses.names())}. Give the model's own arguments (model_options) in place of the audiogram."
        )
    return losses.get(name)(model, audiogram)


@losses.register("moore2016")
@losses.register("glasberg2002")
def _loudness(model: Model, audiogram: Audiogram) -> dict[str, Any]:
    return dict(loudness_losses(audiogram, model.fc))


@losses.register("paulick2024")
def _casp(model: Model, audiogram: Audiogram) -> dict[str, Any]:
    """Outer hair cells first, as far as they have gain to lose; inner hair cells take the rest."""
    casp = cast(Any, model)
    outer, inner = hair_cell_losses(casp.drnl, audiogram.frequency_hz, audiogram.level_db_hl)
    return {
        "drnl_kwargs": {**casp.drnl_kwargs, "ohc_loss_db": outer.tolist()},
        "ihc_kwargs": {**casp.ihc_kwargs, "ihc_loss_db": inner.tolist()},
    }


@losses.register("saddler2024")
@losses.register("saddler2025")
def _nerve(model: Model, audiogram: Audiogram) -> dict[str, Any]:
    threshold, width = model.threshold_db_spl, model.dynamic_range_db
    return dict(nerve_losses(audiogram, model.fc, threshold, width))  # type: ignore[arg-type]
