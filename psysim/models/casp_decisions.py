"""The documented decision methods of Paulick2024: a metric of the representation, and a comparison with a threshold.

They are conveniences for trying out a model by hand. They are not the decision stage that was published with CASP:
that one is the observer `psysim.observers.Casp`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option
from psysim.models.base import Model

__all__ = ["METRICS", "CaspDecisions", "metric_of"]

METRICS = ("rms", "mean", "max", "l2")


def metric_of(values: Tensor, valid: Tensor, metric: str) -> Tensor:
    """Return one number per dense representation, taken over all time samples of the filters that exist.

    Parameters
    ----------
    values : Tensor (B, F, M, T)
        Representations, 0 where a filter is absent.
    valid : Tensor (F, M) of bool
        Which filters exist.
    metric : {"rms", "mean", "max", "l2"}
        Root of the mean square; mean; largest value (signed); root of the sum of squares.

    Returns
    -------
    Tensor (B,)
        float64, in the unit of ``values``. A row is bitwise the same in any batch.

    Raises
    ------
    SpecError
        If the metric is not known.

    Examples
    --------
    >>> values = torch.tensor([3.0, -4.0]).reshape(1, 1, 1, 2)
    >>> [float(metric_of(values, torch.ones(1, 1) > 0, metric)) for metric in ("mean", "max", "l2")]
    [-0.5, 3.0, 5.0]
    """
    check_option("metric", metric, METRICS)
    rows = values.flatten(1)
    if metric == "max":
        return values.masked_fill(~valid[..., None], -torch.inf).flatten(1).amax(1).to(torch.float64)
    count = int(valid.sum()) * values.shape[-1]
    if metric == "mean":
        return _sum(rows, torch.ones_like(rows[:1])) / count
    energy = _sum(rows, rows)
    return (energy / count).sqrt() if metric == "rms" else energy.sqrt()


def _sum(rows: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of products of every row (B, N) with its factors (B, N), or with common ones (1, N)."""
    index = torch.arange(len(rows), device=rows.device)
    return ops.template_product(rows, factors, index if len(factors) > 1 else torch.zeros_like(index))


def _dense(channels: Sequence[Tensor], name: str) -> tuple[Tensor, Tensor, bool]:
    """Return a list of (B, M_i, T) or (M_i, T) as (B, F, M, T) with its mask (F, M), and whether it had no B."""
    shapes = [tuple(y.shape) if isinstance(y, Tensor) else None for y in channels]
    alike = {(s[:-2], s[-1]) for s in shapes if s is not None}
    if None in shapes or len(alike) != 1 or len(next(iter(alike))[0]) > 1:
        raise SpecError(
            f"{name} must be the model's output: one tensor (B, M_i, T) or (M_i, T) per auditory channel, all with the "
            f"same B and T; its shapes are {shapes[:4]}{' ...' if len(shapes) > 4 else ''}."
        )
    filters = torch.tensor([y.shape[-2] for y in channels], device=channels[0].device)
    most = int(filters.max())
    dense = torch.stack([torch.nn.functional.pad(y, (0, 0, 0, most - y.shape[-2])) for y in channels], dim=-3)
    valid = torch.arange(most, device=filters.device) < filters[:, None]
    single = dense.ndim == 3
    return dense.unsqueeze(0) if single else dense, valid, single


def _weighted(values: Tensor, weights: Tensor | Sequence[float] | None, axis: int, name: str) -> Tensor:
    """Return dense representations times the weights of the channels (axis 1) or the modulation filters (axis 2)."""
    if weights is None:
        return values
    given = torch.as_tensor(weights, dtype=values.dtype, device=values.device)
    if given.shape != (values.shape[axis],):
        raise SpecError(f"{name} has shape {tuple(given.shape)}, but must have shape ({values.shape[axis]},).")
    return values * given.reshape([-1 if dim == axis else 1 for dim in range(4)])


def _slice(given: tuple[int, int] | None, size: int, name: str) -> slice:
    """Return a range of indices as a slice; ``size`` is what there is."""
    if given is None:
        return slice(0, size)
    whole = len(given) == 2 and all(isinstance(i, int) and not isinstance(i, bool) for i in given)
    if not whole or not 0 <= given[0] < given[1] <= size:
        raise SpecError(
            f"{name} = {given!r} is not possible: it must be (start, stop), whole numbers with "
            f"0 <= start < stop <= {size}, the stop not included."
        )
    return slice(*given)


class CaspDecisions(Model, ABC):
    """A model with the documented decision methods, and with a published decision stage.

    Attributes
    ----------
    variant : str
        "paulick2024" or "jepsen2008": which published decision stage belongs to the model.
    """

    variant: str

    def roi_selection(
        self,
        internal_repr: Sequence[Tensor],
        time_window: tuple[int, int] | None = None,
        channel_range: tuple[int, int] | None = None,
        modulation_range: tuple[int, int] | None = None,
    ) -> list[Tensor]:
        """Return the part of a representation in a region chosen by hand.

        The region that the published decision stage finds by itself is `psysim.observers.region_of_interest`.

        Parameters
        ----------
        internal_repr : list of F Tensors (B, M_i, T) or (M_i, T)
            Output of the model.
        time_window : (int, int), optional
            Samples of the representation (whose rate is that of `represent`), the second not included.
        channel_range : (int, int), optional
            Auditory channels, the second not included.
        modulation_range : (int, int), optional
            Modulation filters, the second not included; a channel keeps those it has of them, perhaps none.

        Returns
        -------
        list of Tensors (B, m_i, t) or (m_i, t)
            Views.

        Raises
        ------
        SpecError
            If a range is empty, not whole or beyond the representation.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> model = Paulick2024(fs=44100)
        >>> part = model.roi_selection(model(torch.zeros(1, 882)), time_window=(20, 120), channel_range=(10, 14))
        >>> len(part), part[0].shape[0], part[0].shape[-1]
        (4, 1, 100)
        """
        dense, valid, _ = _dense(internal_repr, "internal_repr")
        time = _slice(time_window, dense.shape[-1], "time_window")
        channels = _slice(channel_range, len(internal_repr), "channel_range")
        filters = _slice(modulation_range, valid.shape[1], "modulation_range")
        return [y[..., filters, time] for y in internal_repr[channels]]

    def template_correlation(
        self, internal_repr: Sequence[Tensor], template: Sequence[Tensor], normalize: bool = True
    ) -> Tensor:
        """Return the correlation of representations with a template, over time and all filters together.

        The published decision stage uses another one (not normalised, means removed per modulation filter, region of
        interest): `psysim.observers.band_correlations`.

        Parameters
        ----------
        internal_repr : list of F Tensors (B, M_i, T) or (M_i, T)
        template : list of F Tensors (M_i, T) or (B, M_i, T)
            One for all rows, or one each.
        normalize : bool
            True: Pearson's correlation coefficient, from -1 to 1, NaN where one of the two is constant. False: the sum
            of products.

        Returns
        -------
        Tensor (B,), or () for a representation without B
            float64.

        Raises
        ------
        SpecError
            If the shapes differ.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> model = Paulick2024(fs=44100)
        >>> channels = model(0.02 * torch.sin(0.14 * torch.arange(882.0)))
        >>> round(float(model.template_correlation(channels, [2 * y for y in channels])), 6)
        1.0
        """
        x, valid, single = _dense(internal_repr, "internal_repr")
        t, same, _ = _dense(template, "template")
        if x.shape[1:] != t.shape[1:] or not torch.equal(valid, same) or len(t) not in (1, len(x)):
            raise SpecError(
                f"template is (F, M, T) = {tuple(t.shape[1:])} with {len(t)} rows, the representation "
                f"{tuple(x.shape[1:])} with {len(x)}: they must have the same channels, filters and samples."
            )
        x, t = x.to(torch.float64), t.to(torch.float64)
        if normalize:
            x, t = (torch.where(valid[..., None], y - _mean(y, valid), 0.0) for y in (x, t))
        x, t = x.flatten(1), t.flatten(1)
        result = _sum(x, t)
        if normalize:
            result = result / (_sum(x, x) * _sum(t, t)).sqrt()
        return result.squeeze(0) if single else result

    def compute_decision_variable(
        self,
        internal_repr: Sequence[Tensor],
        metric: str = "rms",
        channel_weights: Tensor | Sequence[float] | None = None,
        modulation_weights: Tensor | Sequence[float] | None = None,
    ) -> Tensor:
        """Return one number per representation.

        Parameters
        ----------
        internal_repr : list of F Tensors (B, M_i, T) or (M_i, T)
            Output of the model, or a part of it from `roi_selection`.
        metric : {"rms", "mean", "max", "l2"}
            Over all samples of all filters: see `metric_of`.
        channel_weights : (F,), optional
            Factors on the auditory channels.
        modulation_weights : (M,), optional
            Factors on the modulation filters; M is the largest of the M_i.

        Returns
        -------
        Tensor (B,), or () for a representation without B
            float64, model units.

        Raises
        ------
        SpecError
            If the metric is not known or the weights do not fit.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> model = Paulick2024(fs=44100)
        >>> tone = 0.02 * torch.sin(0.14 * torch.arange(882.0))
        >>> quiet, loud = model.compute_decision_variable(model(torch.stack([tone, 2 * tone])))
        >>> bool(loud > quiet)
        True
        """
        values, valid, single = _dense(internal_repr, "internal_repr")
        values = _weighted(values, channel_weights, 1, "channel_weights")
        values = _weighted(values, modulation_weights, 2, "modulation_weights")
        result = metric_of(values, valid, metric)
        return result.squeeze(0) if single else result

    def make_decision(
        self,
        decision_var: Tensor | float,
        threshold: Tensor | float = 0.0,
        criterion: Literal["greater", "less"] = "greater",
    ) -> Tensor:
        """Return whether a decision variable lies beyond a threshold.

        Parameters
        ----------
        decision_var : Tensor (B,) or float
        threshold : float or Tensor (B,)
            Equal is not beyond.
        criterion : {"greater", "less"}
            On which side.

        Returns
        -------
        Tensor of bool
            The shape of ``decision_var``; False where it is not a number.

        Raises
        ------
        SpecError
            If the criterion is not known.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> Paulick2024(fs=44100).make_decision(torch.tensor([0.2, -0.1]))
        tensor([ True, False])
        """
        check_option("criterion", criterion, ("greater", "less"))
        value = torch.as_tensor(decision_var)
        return value > threshold if criterion == "greater" else value < threshold

    def detection_task(
        self,
        signal_audio: Tensor,
        noise_audio: Tensor | None = None,
        metric: str = "rms",
        threshold: float | None = None,
        return_decision_var: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return whether a signal is detected: its metric exceeds that of the noise alone by more than a threshold.

        Parameters
        ----------
        signal_audio : Tensor (T,) or (B, T)
            Sound with the signal, pascal.
        noise_audio : Tensor, optional
            Sound without, of the same shape; default: silence.
        metric : {"rms", "mean", "max", "l2"}
        threshold : float, optional
            Smallest difference of the metrics in model units; default 0.
        return_decision_var : bool
            Also return the difference.

        Returns
        -------
        detected : Tensor (B,) or () of bool
        decision_var : Tensor (B,) or ()
            Only with ``return_decision_var``: metric of the signal interval minus that of the other, float64.

        Raises
        ------
        SpecError
            If the shapes differ or the metric is not known.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> model = Paulick2024(fs=44100)
        >>> noise = 0.002 * torch.sin(0.9 * torch.arange(2205.0)).expand(2, -1)
        >>> tone = 0.02 * torch.sin(0.14 * torch.arange(2205.0))
        >>> model.detection_task(noise + tone, noise)
        tensor([True, True])
        """
        other = torch.zeros_like(signal_audio) if noise_audio is None else noise_audio
        difference = self._metric_difference(signal_audio, other, metric, ("signal_audio", "noise_audio"))
        decision = self.make_decision(difference, 0.0 if threshold is None else threshold)
        return (decision, difference) if return_decision_var else decision

    def discrimination_task(
        self, signal1: Tensor, signal2: Tensor, criterion: str = "rms", return_decision_var: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return which of two sounds has the larger metric.

        Parameters
        ----------
        signal1, signal2 : Tensor (T,) or (B, T)
            Sounds in pascal, of one shape.
        criterion : {"rms", "mean", "max", "l2"}
            The metric.
        return_decision_var : bool
            Also return the difference.

        Returns
        -------
        chosen : Tensor (B,) or () of int64
            0: the first, also if both are equal; 1: the second; -1 where the metric is not a number.
        decision_var : Tensor (B,) or ()
            Only with ``return_decision_var``: metric of the second minus that of the first, float64.

        Raises
        ------
        SpecError
            If the shapes differ or the metric is not known.

        Examples
        --------
        >>> from psysim.models import Paulick2024
        >>> tone = 0.02 * torch.sin(0.14 * torch.arange(2205.0))
        >>> Paulick2024(fs=44100).discrimination_task(tone, 1.1 * tone)
        tensor(1)
        """
        difference = self._metric_difference(signal2, signal1, criterion, ("signal2", "signal1"))
        chosen = self.make_decision(difference).to(torch.int64).masked_fill(difference.isnan(), -1)
        return (chosen, difference) if return_decision_var else chosen

    def _metric_difference(self, audio: Tensor, other: Tensor, metric: str, names: tuple[str, str]) -> Tensor:
        check_option("metric", metric, METRICS)
        if audio.shape != other.shape:
            raise SpecError(
                f"{names[0]} has shape {tuple(audio.shape)}, {names[1]} {tuple(other.shape)}: they must be the same."
            )
        first, second = (self.represent(sound) for sound in (audio, other))
        difference = metric_of(first.values, first.valid, metric) - metric_of(second.values, second.valid, metric)
        return difference.squeeze(0) if audio.ndim == 1 else difference


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean (B, 1, 1, 1) over the filters that exist."""
    return metric_of(values, valid, "mean")[:, None, None, None]
