"""Stochastic depth: residual branches left out at random, a whole sample at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError


class DropPath(nn.Module):
    """Drop a residual branch per sample with the given probability, and scale what stays (Huang et al., ECCV 2016).

    The identity in evaluation mode.

    Args:
        probability: in [0, 1).

    Example:
        >>> _ = torch.manual_seed(0)
        >>> branch = DropPath(0.5)
        >>> sorted(set(branch(torch.ones(64, 1, 2, 2)).flatten().tolist()))
        [0.0, 2.0]
        >>> branch.eval()(torch.ones(1, 1, 1, 1)).item()
        1.0
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = float(probability)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x ... -> the same shape."""
        if not self.training or self.probability == 0:
            return x
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= self.probability
        return x * (kept / (1.0 - self.probability)).to(x.dtype)


def drop_rates(largest: float, count: int) -> list[float]:
    """Probabilities that rise linearly from 0 at the first of ``count`` blocks to ``largest`` at the last.

    Raises:
        UsageError: ``model.config`` for a probability outside [0, 1).

    Example:
        >>> drop_rates(0.2, 3)
        [0.0, 0.1, 0.2]
    """
    number = isinstance(largest, (int, float)) and not isinstance(largest, bool)
    if not number or not 0 <= largest < 1:
        raise UsageError(
            f"Impossible network: drop_path={largest!r}",
            why="It must be a probability in [0, 1): the share of samples that skip the last block.",
            fix="Leave it out (0), or use 0.05 to 0.2.",
            error_id="model.config",
        )
    return [largest * index / max(count - 1, 1) for index in range(count)]
