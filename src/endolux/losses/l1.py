"""Mean absolute difference over known pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_loss(output: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """``mean |output - target|`` over the known pixels of the whole batch (Surgical Depth Anything, section 3).

    Args:
        output: N x 1 x H x W.
        target: the same shape; anything where it is unknown.
        known: the same shape, bool.

    Returns:
        Scalar; 0 with a zero gradient where nothing is known.

    Example:
        >>> output, target = torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, float("nan")]])
        >>> l1_loss(output, target, torch.isfinite(target)).item()
        1.0
    """
    difference = torch.where(known, output - torch.where(known, target, 0.0), 0.0).abs()
    return difference.sum() / known.sum().clamp(min=1)
