"""Candidates on a grid: likelihoods, and the information that a trial is expected to give, exact in every batch.

For a posterior w over P candidates, a stimulus x and outcomes r with the likelihoods L[p, x, r], the entropy that is
expected after a trial is ``H(w) + sum_p w_p h(L[p, x, :]) - h(sum_p w_p L[p, x, :])``, h being the entropy of a
distribution of outcomes. H(w) is the same for all stimuli, so a matrix product of w with a table of L and h is all
that a step needs (instead of a posterior for every stimulus and outcome).

Sums of floating-point numbers depend on their order, and a BLAS changes it with the number of rows, threads and the
device; so a lane's choice between two nearly equal stimuli would depend on the lanes beside it. Here table and weights
are each split into a coarse part, in multiples of 2**-26, and a fine part, so few bits each that all products and sums
of two parts are exact in double precision: any order gives the same bits, on any device. What is left out (fine times
fine) is below 1e-13; stimuli closer than `TIE` are ties, and the first of them is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from psysim.errors import SpecError

__all__ = ["CandidateGrid", "ExactTable", "chunks"]

FloatArray: TypeAlias = NDArray[np.float64]

SMALLEST = 1e-12
"""Likelihoods are kept this far from 0 and 1: no answer is impossible, so no track ends without candidates."""

TIE = 1e-11
"""Expected entropies (nats) that differ by less count as equal."""

COARSE = 2.0**26
"""Coarse parts are multiples of 1 over this."""

CHUNK_BYTES = 1e6  # so that the arrays of a chunk stay in the cache: twice as fast as 16 MB


def chunks(n_lanes: int, values_per_lane: int) -> Iterator[slice]:
    """Yield slices over lanes, small enough that an array of them with ``values_per_lane`` stays below 1 MB."""
    size = max(1, int(CHUNK_BYTES / (8 * max(1, values_per_lane))))
    for start in range(0, n_lanes, size):
        yield slice(start, min(start + size, n_lanes))


class ExactTable:
    """Weighted sums of the rows of a table, with the same bits in any batch and on any device.

    Parameters
    ----------
    values : ndarray, shape (..., P, C)
        From 0 to 1; kept to multiples of 2**-52.
    device : {"cpu", "cuda"}
        Where products are computed.

    Raises
    ------
    SpecError
        If the device is "cuda" and there is none.
    """

    def __init__(self, values: FloatArray, device: str = "cpu") -> None:
        coarse = np.rint(values * COARSE) / COARSE
        fine = np.rint((values - coarse) * COARSE**2) / COARSE**2
        self._n_columns = values.shape[-1]
        self._both = np.ascontiguousarray(np.concatenate([coarse, fine], axis=-1))
        self._coarse = np.ascontiguousarray(coarse)
        # fine part of a weight: at most 2**-27, so P of them times a table of 26 bits leave this many bits for each
        self._fine_unit = 2.0 ** min(54 - math.ceil(math.log2(max(values.shape[-2], 2))), 52)
        self._torch: Any = None
        if device == "cuda":
            self._torch = import_module("torch")
            if not self._torch.cuda.is_available():
                raise SpecError("procedure.device = 'cuda', but torch finds no CUDA device: choose 'cpu'.")
            self._both, self._coarse = (self._torch.from_numpy(a).to(device) for a in (self._both, self._coarse))

    def expect(self, weights: FloatArray) -> FloatArray:
        """Return ``weights @ values``, (..., B, C), for weights (..., B, P) of at least 0 whose sum is at most 1."""
        if self._torch is not None:
            given = self._torch.from_numpy(np.ascontiguousarray(weights)).to(self._both.device)
            coarse = (given * COARSE).round() / COARSE
            fine = ((given - coarse) * self._fine_unit).round() / self._fine_unit
            product, rest = (a.cpu().numpy() for a in (coarse @ self._both, fine @ self._coarse))
        else:
            coarse = weights * COARSE
            np.rint(coarse, out=coarse)
            coarse /= COARSE
            fine = weights - coarse
            fine *= self._fine_unit
            np.rint(fine, out=fine)
            fine /= self._fine_unit
            product, rest = coarse @ self._both, fine @ self._coarse
        return np.asarray(product[..., : self._n_columns] + (product[..., self._n_columns :] + rest))


@dataclass(frozen=True, eq=False)
class CandidateGrid:
    """Stimuli, candidates and the probabilities of outcomes.

    Parameters
    ----------
    stimuli : ndarray, shape (X, D)
        Stimuli that can be presented; the first column is the tracked level.
    names : sequence of str
        Names of the K parameters; the first one is the threshold, or what is wanted most.
    axes : sequence of ndarray
        Values of each parameter; a candidate is a combination, the last parameter runs fastest.
    likelihood : ndarray, shape (P, X, R)
        Probability of outcome r (in a task with right and wrong answers: 0 wrong, 1 right).
    prior : ndarray, shape (P,)
        Probabilities of the candidates before the first trial.
    device : {"cpu", "cuda"}
        Where expected entropies are computed.
    nuisance : sequence of int
        Numbers of the parameters that are summed out before entropies are computed.
    """

    stimuli: FloatArray
    names: Sequence[str]
    axes: Sequence[FloatArray]
    likelihood: FloatArray
    prior: FloatArray
    device: str = "cpu"
    nuisance: Sequence[int] = field(default=())

    @property
    def n_candidates(self) -> int:
        """Number of candidates P."""
        return self.likelihood.shape[0]

    @property
    def n_outcomes(self) -> int:
        """Number of outcomes R."""
        return self.likelihood.shape[2]

    @cached_property
    def parameters(self) -> FloatArray:
        """Values of the parameters of each candidate, (P, K)."""
        return np.stack([column.ravel() for column in np.meshgrid(*self.axes, indexing="ij")], axis=1)

    @cached_property
    def log_likelihood(self) -> FloatArray:
        """Logarithm of the likelihoods, (X, R, P)."""
        return np.ascontiguousarray(np.log(self.likelihood.transpose(1, 2, 0)))

    @cached_property
    def log_prior(self) -> FloatArray:
        """Logarithm of the prior less its largest value, (P,)."""
        with np.errstate(divide="ignore"):
            logarithm = np.log(self.prior)
        return logarithm - logarithm.max()

    def marginal(self, posterior: FloatArray, parameter: int) -> FloatArray:
        """Return the posterior (B, P) of one parameter, (B, n)."""
        shape = (len(posterior), *(len(axis) for axis in self.axes))
        moved = np.moveaxis(posterior.reshape(shape), 1 + parameter, 1)
        return np.ascontiguousarray(moved).reshape(len(posterior), shape[1 + parameter], -1).sum(axis=-1)

    # -- expected entropies ----------------------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> ExactTable:
        """Likelihoods of the outcomes but the first, and entropies of the outcomes in units of log R: (P, R X)."""
        entropy = entr(self.likelihood).sum(axis=2) / math.log(self.n_outcomes)
        parts = [self.likelihood[:, :, r] for r in range(1, self.n_outcomes)]
        return ExactTable(np.concatenate([*parts, entropy], axis=1), self.device)

    def expected_entropy(self, posterior: FloatArray) -> FloatArray:
        """Return the expected entropy (nats) after each stimulus, (B, X), for posteriors (B, P).

        Without nuisance parameters the entropy of the posterior itself is left out: it is the same for all stimuli.
        """
        if self.nuisance:
            return self._expected_marginal_entropy(posterior)
        n_stimuli, n_outcomes = self.likelihood.shape[1:]
        sums = self._columns.expect(posterior).reshape(len(posterior), n_outcomes, n_stimuli)
        rates, own = sums[:, :-1], sums[:, -1] * math.log(n_outcomes)
        first = np.maximum(1.0 - rates.sum(axis=1), 0.0)
        for r in range(n_outcomes - 1):
            own = own - entr(rates[:, r])
        return np.asarray(own - entr(first))

    @cached_property
    def _kept(self) -> tuple[tuple[int, ...], int]:
        """Order of the axes with the nuisance parameters last, and the number of kept combinations."""
        kept = [k for k in range(len(self.axes)) if k not in self.nuisance]
        return (*kept, *self.nuisance), math.prod(len(self.axes[k]) for k in kept)

    @cached_property
    def _blocks(self) -> ExactTable:
        """Likelihoods of the outcomes but the first by kept combination: (A, N, (R - 1) X)."""
        order, n_kept = self._kept
        shape = tuple(len(axis) for axis in self.axes)
        columns = [self.likelihood[:, :, r] for r in range(1, self.n_outcomes)]
        table = np.concatenate(columns, axis=1)
        moved = table.reshape(*shape, -1).transpose(*order, len(shape))
        return ExactTable(moved.reshape(n_kept, -1, table.shape[1]), self.device)

    def _expected_marginal_entropy(self, posterior: FloatArray) -> FloatArray:
        """Return the expected entropy of the parameters that are no nuisance, (B, X) (Prins, 2013)."""
        order, n_kept = self._kept
        n_lanes, n_stimuli = len(posterior), self.likelihood.shape[1]
        shape = tuple(len(axis) for axis in self.axes)
        moved = posterior.reshape(n_lanes, *shape).transpose(*(1 + k for k in order), 0)
        weights = np.ascontiguousarray(np.swapaxes(moved.reshape(n_kept, -1, n_lanes), 1, 2))  # (A, B, N)
        joint = self._blocks.expect(weights).reshape(n_kept, n_lanes, -1, n_stimuli)
        rest = np.maximum(weights.sum(axis=2)[:, :, np.newaxis] - joint.sum(axis=2), 0.0)
        total = np.zeros((n_lanes, n_stimuli))
        for outcome in (rest, *(joint[:, :, r] for r in range(joint.shape[2]))):
            # the probability of the outcome from the same numbers, lane by lane in one order
            by_lane = np.ascontiguousarray(outcome.transpose(1, 2, 0))
            total += entr(by_lane).sum(axis=2) - entr(by_lane.sum(axis=2))
        return total

    def most_informative(self, posterior: FloatArray) -> NDArray[np.int32]:
        """Return the stimulus (B,) after which the expected entropy is lowest; the first of equal ones."""
        best = np.zeros(len(posterior), np.int32)
        values = self.likelihood.shape[1] * self.n_outcomes * (self._kept[1] if self.nuisance else 1)
        for lanes in chunks(len(posterior), max(values, self.n_candidates)):
            entropy = self.expected_entropy(posterior[lanes])
            best[lanes] = np.argmax(entropy <= entropy.min(axis=1, keepdims=True) + TIE, axis=1)
        return best
