"""Rigid motions on tensors: axis-angle and translation to matrices, differentiable also where nothing moves.

Source: Rodrigues' formula. ``reproduce`` is the form of monodepth2 and its descendants.
"""

from __future__ import annotations

import torch
from torch import Tensor

from endolux.errors import UsageError

_SMALL = 1e-4
_PUBLISHED_EPSILON = 1e-7


def rotation(axisangle: Tensor, *, reproduce: bool = False) -> Tensor:
    """Rotation matrices.

    Args:
        axisangle: N x 3; direction is the axis, length the angle in radians.
        reproduce: divide by the angle plus 1e-7, as published: then the matrix is not quite a rotation for small
            angles, and has no gradient where nothing rotates.

    Returns:
        N x 3 x 3.

    Raises:
        UsageError: ``motion.shape``.

    Example:
        >>> import math
        >>> quarter = rotation(torch.tensor([[0.0, 0.0, math.pi / 2]]))
        >>> (quarter[0] @ torch.tensor([1.0, 0.0, 0.0])).round(decimals=6).tolist()
        [0.0, 1.0, 0.0]
    """
    _check(axisangle, "axis-angle")
    squared = (axisangle**2).sum(dim=1)
    if reproduce:
        angle = torch.linalg.vector_norm(axisangle, dim=1)
        axis = axisangle / (angle + _PUBLISHED_EPSILON)[:, None]
        cosine = angle.cos()[:, None, None]
        outer = axis[:, :, None] * axis[:, None, :]
        unit = torch.eye(3, dtype=axis.dtype, device=axis.device)
        published: Tensor = outer * (1 - cosine) + unit * cosine + _skew(axis) * angle.sin()[:, None, None]
        return published
    small = squared < _SMALL
    # Both branches of a where are differentiated, so that neither may divide by zero.
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - squared / 6 + squared**2 / 120, angle.sin() / angle)
    # 2 sin(a/2)^2 instead of 1 - cos(a), which loses half its digits.
    second = torch.where(small, 0.5 - squared / 24 + squared**2 / 720, 2 * (0.5 * angle).sin() ** 2 / safe)
    cross = _skew(axisangle)
    unit = torch.eye(3, dtype=axisangle.dtype, device=axisangle.device)
    turn: Tensor = unit + first[:, None, None] * cross + second[:, None, None] * (cross @ cross)
    return turn


def transformation(axisangle: Tensor, translation: Tensor, *, invert: bool = False, reproduce: bool = False) -> Tensor:
    """Matrices that rotate points and then move them.

    Args:
        axisangle: N x 3, radians.
        translation: N x 3, in the unit of depth.
        invert: the inverse motion.
        reproduce: see :func:`rotation`. The inverse is then made with the transposed matrix, as published.

    Returns:
        N x 4 x 4: x' = R x + t.

    Raises:
        UsageError: ``motion.shape``.

    Example:
        >>> t = torch.tensor([[1.0, 2.0, 3.0]])
        >>> transformation(torch.zeros(1, 3), t, invert=True)[0, :3, 3].tolist()
        [-1.0, -2.0, -3.0]
    """
    _check(translation, "translation")
    turn = rotation(axisangle, reproduce=reproduce)
    if turn.shape[0] != translation.shape[0]:
        raise UsageError(
            f"{turn.shape[0]} rotations for {translation.shape[0]} translations",
            why="A motion is one of each.",
            fix="Give tensors of the same N x 3.",
            error_id="motion.shape",
        )
    shift = translation[:, :, None]
    if invert:
        turn = turn.transpose(1, 2)
        shift = -turn @ shift
    last = torch.zeros_like(turn[:, :1, :])
    corner = torch.ones_like(shift[:, :1, :])
    return torch.cat([torch.cat([turn, shift], dim=2), torch.cat([last, corner], dim=2)], dim=1)


def _skew(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(dim=1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)


def _check(vectors: Tensor, what: str) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != 3 or not vectors.is_floating_point():
        raise UsageError(
            f"A {what} of shape {tuple(vectors.shape)} and type {str(vectors.dtype).removeprefix('torch.')}",
            why="It is N x 3 floating-point numbers.",
            fix="Reshape it, or take the first of the motions that a pose decoder gives.",
            error_id="motion.shape",
        )
