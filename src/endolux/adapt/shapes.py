"""Weights as matrices, and the size of the state that is kept for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from endolux.adapt.projections import largest_rank, resolve_side


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight as a matrix: output channels x everything else.

    Example:
        >>> import torch
        >>> matrix_shape(torch.zeros(64, 32, 3, 3))
        (64, 288)
    """
    return parameter.shape[0], math.prod(parameter.shape[1:])


def is_projected(parameter: Tensor, rank: int | None, kind: str, side: str) -> bool:
    """Whether a weight is projected: it is a matrix and larger than the rank; all others take plain AdamW steps."""
    if rank is None or kind == "none" or parameter.ndim < 2:
        return False
    shape = matrix_shape(parameter)
    return rank < min(shape) and rank <= largest_rank(shape, kind, side)


def state_scalars(shape: tuple[int, int], rank: int | None, side: str = "auto") -> int:
    """Number of scalars that the optimiser keeps for a matrix: two moments and, when projected, the basis.

    Example:
        >>> state_scalars((1728, 576), None), state_scalars((1728, 576), 128)
        (1990656, 516096)
    """
    rows, columns = shape
    if rank is None or rank >= min(shape):
        return 2 * rows * columns
    if resolve_side(shape, side) == "right":
        return 2 * rows * rank + columns * rank
    return 2 * rank * columns + rows * rank


def moment_shape(parameter: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of both moments of a parameter under the options of its group."""
    if not is_projected(parameter, group["rank"], group["projection"], group["side"]):
        return tuple(parameter.shape)
    shape = matrix_shape(parameter)
    right = resolve_side(shape, group["side"]) == "right"
    return (shape[0], group["rank"]) if right else (group["rank"], shape[1])


def basis_shape(parameter: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of the basis of a parameter under the options of its group; of a plain one the parameter's own."""
    if not is_projected(parameter, group["rank"], group["projection"], group["side"]):
        return tuple(parameter.shape)
    shape = matrix_shape(parameter)
    return (shape[1] if resolve_side(shape, group["side"]) == "right" else shape[0], group["rank"])
