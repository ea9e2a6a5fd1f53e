r"""Inner product of every row with its template, summed in an order that does not depend on the batch.

    product[b] = sum_n x[b, n] templates[index[b], n]

Rows are cut into chunks of fixed length, chunks into lanes; products and sums are float64. A matrix product would
choose its order by the number of rows, and a track would depend on which other tracks run beside it.
Shapes: ``x`` (B, N), ``templates`` (C, N), ``index`` and output (B,). Forms: numba on the CPU.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.ops.base import check_coefficient, check_signal, forms_of

__all__ = ["FORMS", "reference", "template_product"]

FORMS = forms_of("template_product", "template")


def template_product(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Correlate internal representations with templates.

    Parameters
    ----------
    x : Tensor
        Representations, flattened, (B, N), float32 or float64.
    templates : Tensor
        Templates, (C, N), float32 or float64.
    index : Tensor
        Template of each row, (B,), int64, 0 ... C - 1.

    Returns
    -------
    Tensor
        (B,), always float64: the sum of products, not divided by anything. Bitwise the same for a row whatever the
        other rows are. Differentiable with respect to ``x`` and ``templates``.

    Raises
    ------
    SpecError
        For a wrong shape, dtype or index, or a device without an implementation.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> template_product(x, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1, 1]))
    tensor([ 1.,  7., 11.], dtype=torch.float64)
    """
    check_signal("template_product", x, ("B", "N"))
    check_signal("template_product", templates, ("C", "N"), "templates")
    if templates.shape[1] != x.shape[1]:
        raise SpecError(
            f"ops.template_product: x has {x.shape[1]} values per row but the templates have {templates.shape[1]}."
        )
    if templates.device != x.device:
        raise SpecError(f"ops.template_product: templates are on '{templates.device}' but x is on '{x.device}'.")
    check_coefficient("template_product", "index", index, [(x.shape[0],)], x, torch.int64)
    return _op(x, templates, index)


def reference(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Definition of `template_product`, one row at a time."""
    rows = [(row.double() * templates[int(i)].double()).sum() for row, i in zip(x, index, strict=True)]
    return torch.stack(rows)


@torch.library.custom_op("psysim::template_product", mutates_args=())
def _op(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    return FORMS.select(x).forward(x, templates, index)


@torch.library.custom_op("psysim::template_product_backward", mutates_args=())
def _op_backward(
    grad: Tensor, x: Tensor, templates: Tensor, index: Tensor, learn: bool, learn_templates: bool
) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, templates, index, learn, learn_templates)


@_op.register_fake
def _fake(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.float64)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    templates: Tensor,
    index: Tensor,
    learn: bool,
    learn_templates: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape if learn else (0,)), templates.new_empty(templates.shape if learn_templates else (0,))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    learn, learn_templates = ctx.needs_input_grad[:2]
    grad_x, grad_templates = _op_backward(grad, *ctx.saved_tensors, learn, learn_templates)
    return grad_x if learn else None, grad_templates if learn_templates else None, None


_op.register_autograd(_gradient, setup_context=_save)
