"""Listeners with a hearing loss: from an audiogram to the arguments of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from psysim.errors import SpecError, check_range
from psysim.hearing.age import age_audiogram
from psysim.hearing.audiogram_files import read_audiograms
from psysim.hearing.audiograms import Audiogram, standard_audiogram
from psysim.hearing.loudness_loss import OHC_SHARE, loudness_losses
from psysim.hearing.nerve_loss import nerve_losses
from psysim.models import Model
from psysim.registry import Registry
from psysim.stages import hair_cell_losses

__all__ = ["as_audiogram", "hearing_loss_options", "losses"]

LossRule = Callable[[Model, Audiogram, float | None], dict[str, Any]]

losses: Registry[LossRule] = Registry("hearing loss of a model", "psysim.hearing_losses", ("psysim.hearing.listeners",))
"""For each model (by its registered name) the function to its arguments, from the normal model, an audiogram and the
share of the outer hair cells in the loss (None: the usual one)."""


def as_audiogram(given: object) -> Audiogram:
    """Return an audiogram from what an experiment file may state.

    Parameters
    ----------
    given : Audiogram, str or mapping
        Name of a standard audiogram ("N1" ... "S3"), or a table: ``frequency_hz`` and ``level_db_hl``; ``age`` and
        ``sex`` (`age_audiogram`); or ``file``, a CSV file, and for one with both ears ``ear`` (`read_audiograms`).

    Raises
    ------
    SpecError
        If it is none of these, or the audiogram is not valid.

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
    keys = set(given) if isinstance(given, Mapping) else set()
    table = cast(Mapping[str, Any], given)
    if {"frequency_hz", "level_db_hl"} <= keys <= {"frequency_hz", "level_db_hl", "name"}:
        return Audiogram(**table)
    if keys == {"age", "sex"} and isinstance(table["age"], int | float):
        return age_audiogram(table["age"], str(table["sex"]))
    if {"file"} <= keys <= {"file", "ear"}:
        ears = read_audiograms(str(table["file"]))
        ear = table.get("ear", "both")
        if ear not in ears:
            raise SpecError(f"{table['file']}: ear = {ear!r} is not there. Choose one of: {', '.join(ears)}.")
        return ears[ear]
    raise SpecError(
        'An audiogram is the name of a standard one (audiogram = "N3"), or a table: frequency_hz and level_db_hl '
        "(and a name, if you like), age and sex, or file (and ear)."
    )


def hearing_loss_options(
    name: str, model: Model, audiogram: Audiogram, ohc_share: float | None = None
) -> dict[str, Any]:
    """Return the arguments that give a model the hearing loss of an audiogram, in both ears.

    Parameters
    ----------
    name : str
        Registered name of the model.
    model : Model
        The model with normal hearing and otherwise the same arguments.
    audiogram : Audiogram
    ohc_share : float, optional
        Share of the loss in dB that outer hair cells have, 0 to 1, as far as they have gain to lose. Default: that of
        the model's own rule, 0.8 for loudness models and 1 for CASP. Nerve models have no such share.

    Raises
    ------
    SpecError
        If no rule is known for this model, or the share is out of range or not one of its parameters.

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
    if ohc_share is not None:
        check_range("ohc_share", ohc_share, 0.0, 1.0)
    return losses.get(name)(model, audiogram, ohc_share)


@losses.register("moore2016")
@losses.register("glasberg2002")
def _loudness(model: Model, audiogram: Audiogram, ohc_share: float | None) -> dict[str, Any]:
    return dict(loudness_losses(audiogram, model.fc, OHC_SHARE if ohc_share is None else ohc_share))


@losses.register("paulick2024")
def _casp(model: Model, audiogram: Audiogram, ohc_share: float | None) -> dict[str, Any]:
    """Outer hair cells first, as far as they have gain to lose; inner hair cells take the rest."""
    casp = cast(Any, model)
    share = 1.0 if ohc_share is None else ohc_share
    outer, inner = hair_cell_losses(casp.drnl, audiogram.frequency_hz, audiogram.level_db_hl, share)
    return {
        "drnl_kwargs": {**casp.drnl_kwargs, "ohc_loss_db": outer.tolist()},
        "ihc_kwargs": {**casp.ihc_kwargs, "ihc_loss_db": inner.tolist()},
    }


@losses.register("saddler2024")
@losses.register("saddler2025")
def _nerve(model: Model, audiogram: Audiogram, ohc_share: float | None) -> dict[str, Any]:
    """Thresholds and dynamic ranges; tuning stays as it is, for an audiogram does not say it."""
    if ohc_share is not None:
        raise SpecError("ohc_share is no parameter of a nerve model: its loss is one of thresholds and dynamic ranges.")
    threshold, width = model.threshold_db_spl, model.dynamic_range_db
    loss = nerve_losses(audiogram, model.fc, threshold, width)  # type: ignore[arg-type]
    return {key: value for key, value in loss.items() if key != "bw_mult"}
