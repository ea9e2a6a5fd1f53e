from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal

__all__ = ["reference", "template_product"]


def template_product(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Inner product of each row with its template."""
    check_signal("template_product", x, ("B", "N"))
    check_signal("template_product", templates, ("C", "N"), "templates")
    check_coefficient("template_product", "index", index, [(x.shape[0],)], x, torch.int64)
    return reference(x, templates, index)


def reference(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Definition of `template_product`."""
    rows = [(a.to(torch.float64) * templates[i].to(torch.float64)).sum() for a, i in zip(x, index, strict=True)]
    return torch.stack(rows)
