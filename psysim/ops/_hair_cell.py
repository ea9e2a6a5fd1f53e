r"""Electrical circuit of the inner hair cell: velocity of the basilar membrane to membrane voltage.

Displacement of the hairs u = displacement v, conductance of their channels, and for the voltage U above rest

    G(u) = g_max / (1 + exp((x0 - u)/s1) (1 + exp((x0 - u)/s0)))
    U[n] = U[n-1] - ((G + g_kf + g_ks) U[n-1] + (G - g_rest) (V0 - e_p)) / (fs capacitance)
    V0   = (g_rest e_p + g_kf e_kf + g_ks e_ks) / (g_rest + g_kf + g_ks)

an explicit Euler step of the membrane equation for V = V0 + U. ``x`` (v in m/s) and output (U in V) are (B, F, T),
``constants`` (12,) or (F, 12) as `HairCellCircuit.tensor` orders them, state (B, F, 1): U[n-1].

Float32 signals are computed in float32, in a form that loses no digits (`circuit_coefficients`): with
m1 = exp(-u/s1) - 1 and m0 = exp(-u/s0) - 1 the change of G from silence is a product of small numbers. The error
against float64 is 3e-7 of each row's own peak, measured for noise from 1e-9 to 0.03 m/s (peaks 1e-8 to 0.05 V).
Float32 exponentials in the formula above give an error of 1e-9 V, 8 % of the smallest peak; float64 costs 1.5 times as
much. Gradients are float64.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.errors import check_range
from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "HairCellCircuit", "hair_cell", "reference"]

FORMS = forms_of("hair_cell", "hair_cell")


@dataclass(frozen=True)
class HairCellCircuit:
    """The constants of `hair_cell` in SI units; the defaults are those of Paulick et al. (2024).

    Parameters
    ----------
    displacement : float
        Displacement of the hairs per velocity of the basilar membrane, m per m/s.
    g_max : float
        Conductance of the transduction channels when all are open, S.
    x0, s0, s1 : float
        Displacement at which they are half open, and the two widths of their activation, m.
    capacitance : float
        Of the membrane, F.
    g_rest : float
        Transduction conductance that fixes the resting voltage V0, S. The published number is rounded: with it,
        silence drifts to +8.35e-9 V.
    g_kf, g_ks : float
        Conductances of the fast and the slow potassium channels, S.
    e_p, e_kf, e_ks : float
        Endocochlear potential and reversal potentials of the potassium channels, V.

    Examples
    --------
    >>> HairCellCircuit().tensor().shape
    torch.Size([12])
    """

    displacement: float = 10.0 ** (-105.0 / 20.0)
    g_max: float = 30e-9
    x0: float = 20e-9
    s0: float = 16e-9
    s1: float = 35e-9
    capacitance: float = 12.5e-12
    g_rest: float = 3.3514e-9
    g_kf: float = 19.8e-9
    g_ks: float = 19.8e-9
    e_p: float = 0.090
    e_kf: float = -0.071
    e_ks: float = -0.078

    def tensor(self, device: torch.device | str | None = None) -> Tensor:
        """Return the constants in the order of the fields, (12,), float64: the argument of `hair_cell`."""
        return torch.tensor(astuple(self), dtype=torch.float64, device=device)


@overload
def hair_cell(
    x: Tensor, constants: Tensor, fs: float, *, state: Tensor | None = ..., return_state: Literal[False] = ...
) -> Tensor: ...
@overload
def hair_cell(
    x: Tensor, constants: Tensor, fs: float, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def hair_cell(
    x: Tensor, constants: Tensor, fs: float, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Turn velocities of the basilar membrane into membrane voltages of inner hair cells.

    Parameters
    ----------
    x : Tensor
        Velocities, (B, F, T), m/s, float32 or float64.
    constants : Tensor
        The circuit, (12,) for all channels or (F, 12), float64, in the order of the fields of `HairCellCircuit`.
    fs : float
        Sampling rate in Hz. The step is stable while it is above (g_max + g_kf + g_ks) / (2 capacitance), 2.8 kHz.
    state : Tensor, optional
        Voltage above rest before the first sample, (B, F, 1), float64, as returned for the sound before; without it 0.
    return_state : bool
        Also return the state at the end, so that a long sound can be passed block by block.

    Returns
    -------
    Tensor
        Voltage above rest, (B, F, T), V, the dtype of ``x``. Differentiable with respect to ``x``, ``constants`` and
        ``state``.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 1), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape, dtype or sampling rate, or a device without an implementation.

    Notes
    -----
    The voltage is integrated as a deviation from V0; the published software integrates V itself, from a V0 that 50 ms
    of steps at ``g_rest`` give: the same number to the last digits. Neither rectification nor a lowpass follows.

    References
    ----------
    Lopez-Poveda, E. A. and Eustaquio-Martin, A. (2006). A biophysical model of the inner hair cell. J. Assoc. Res.
    Otolaryngol. 7, 218-235.
    Paulick, L., Relano-Iborra, H. and Dau, T. (2024). The computational auditory signal processing and perception model
    (CASP): a revised version. bioRxiv.

    Examples
    --------
    >>> import torch
    >>> click = torch.tensor([[[0.0, 1e-3, -1e-3]]])
    >>> hair_cell(click, HairCellCircuit().tensor(), fs=44100.0) * 1e6
    tensor([[[6.5086e-04, 4.0673e+02, 7.0028e+01]]])
    """
    check_signal("hair_cell", x, ("B", "F", "T"))
    check_coefficient("hair_cell", "constants", constants, [(12,), (x.shape[1], 12)], x)
    check_range("ops.hair_cell: fs", fs, 0.0, unit="Hz", low_open=True)
    coefficients = circuit_coefficients(constants if constants.ndim == 2 else constants[None], fs)
    y, end = _op(x, coefficients, initial_state("hair_cell", state, (*x.shape[:2], 1), x))
    return (y, end) if return_state else y


def circuit_coefficients(constants: Tensor, fs: float) -> Tensor:
    """Return c0, c1, a, b, scale, total, offset, drive, (1 or F, 8), with which the voltage moves by

        m1 = expm1(c1 v), m0 = expm1(c0 v), p1 = 1 + m1, p0 = 1 + m0
        q  = scale ((a + b) m1 + b p1 m0) / (1 + p1 (a + b p0))
        U[n] = U[n-1] + (q - offset) drive - (total - q) U[n-1]

    q is what the conductance has lost since silence, in units of fs capacitance; ``scale`` and ``total`` are the
    conductances in silence of the transduction channels and of the membrane.
    """  # noqa: D400
    displacement, g_max, x0, widths, capacitance, g, e = constants.split_with_sizes([1, 1, 1, 2, 1, 3, 3], -1)
    gate0, a = torch.exp(x0 / widths).split_with_sizes([1, 1], -1)
    b = a * gate0
    silence = g_max / (1.0 + a + b)
    at_rest = g.sum(-1, keepdim=True)
    offset = silence - g[..., :1]
    drive = (g * e).sum(-1, keepdim=True) / at_rest - e[..., :1]
    conductances = torch.cat([silence, at_rest + offset, offset], -1) / (fs * capacitance)
    return torch.cat([-displacement / widths, a, b, conductances, drive], -1)


def reference(
    x: Tensor, constants: Tensor, fs: float, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `hair_cell`: a loop over time in float64, differentiable, slow."""
    displacement, g_max, x0, s0, s1, capacitance, g_rest, g_kf, g_ks, e_p, e_kf, e_ks = constants.unbind(-1)
    rest = (g_rest * e_p + g_kf * e_kf + g_ks * e_ks) / (g_rest + g_kf + g_ks)
    voltage = torch.zeros_like(x[..., 0], dtype=torch.float64) if state is None else state[..., 0]
    samples = []
    for v in x.to(torch.float64).unbind(-1):
        u = displacement * v
        g = g_max / (1.0 + torch.exp((x0 - u) / s1) * (1.0 + torch.exp((x0 - u) / s0)))
        current = (g + g_kf + g_ks) * voltage + (g - g_rest) * (rest - e_p)
        voltage = voltage - current / (fs * capacitance)
        samples.append(voltage)
    y = torch.stack(samples, -1).to(x.dtype)
    return (y, voltage[..., None]) if return_state else y


@torch.library.custom_op("psysim::hair_cell", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate the voltage; ``coefficients`` (1 or F, 8) of `circuit_coefficients`."""
    return FORMS.select(x).forward(x, coefficients, state)


@torch.library.custom_op("psysim::hair_cell_backward", mutates_args=())
def _op_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_end, x, coefficients, state)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape), state.new_empty(state.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor, ...]:
    return _op_backward(grad, grad_end, *ctx.saved_tensors)


_op.register_autograd(_gradient, setup_context=_save)
