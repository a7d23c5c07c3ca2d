"""Whether gradients can be used at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from endolux.errors import UsageError


def all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether every number of every gradient is finite.

    Raises:
        UsageError: sparse or complex gradients (``adapt.gradient``).

    Example:
        >>> all_finite([torch.ones(3), torch.full((2,), 1e38)]), all_finite([torch.tensor([1.0, torch.inf])])
        (True, False)
    """
    for gradient in gradients:
        if gradient.is_sparse or gradient.is_complex():
            raise UsageError(
                f"A gradient of layout {gradient.layout} and type {gradient.dtype} cannot be used",
                why="The moments are dense and real.",
                fix="Train this parameter with another optimiser (embeddings: sparse=False).",
                error_id="adapt.gradient",
            )
    if not gradients:
        return True
    # A finite sum has only finite terms, and sums are several times faster than norms. They may overflow.
    sums = torch.stack([gradient.sum().to(gradients[0].device, torch.float32) for gradient in gradients])
    if bool(sums.isfinite().all()):
        return True
    return bool(torch.nn.utils.get_total_norm(gradients, norm_type=math.inf).isfinite())
