"""The similarity that brings one point list nearest to another."""

from __future__ import annotations

from typing import Literal

import numpy as np

from endolux.errors import UsageError
from endolux.metrics.checks import Float64, one_of

TrajectoryAlignment = Literal["none", "scale", "se3", "sim3"]
ALIGNMENTS: tuple[str, ...] = ("none", "scale", "se3", "sim3")


def similarity(source: Float64, target: Float64, *, alignment: TrajectoryAlignment) -> tuple[float, Float64, Float64]:
    """Least-squares similarity: target ~ scale * rotation @ source + translation (Umeyama 1991).

    Args:
        source: N x 3.
        target: N x 3, point by point.
        alignment: ``none``; ``scale``: about the origin; ``se3``: rotation and translation; ``sim3``: all three.

    Returns:
        Scale, 3 x 3 rotation (never a reflection) and 3-vector. The scale of points without extent is 0.

    Raises:
        UsageError: ``metrics.points`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> source = np.eye(3)
        >>> scale, rotation, translation = similarity(source, 2 * source + 1, alignment="sim3")
        >>> round(scale, 9), bool(np.allclose(rotation, np.eye(3))), bool(np.allclose(translation, 1))
        (2.0, True, True)
    """
    one_of(alignment, ALIGNMENTS, what="alignment")
    check_points(source)
    check_points(target)
    if source.shape != target.shape or not len(source):
        raise UsageError(
            f"{len(source)} points against {len(target)}",
            why="The points correspond one by one, and there is at least one.",
            fix="Pair them first.",
            error_id="metrics.points",
        )
    identity, origin = np.eye(3), np.zeros(3)
    if alignment == "none":
        return 1.0, identity, origin
    if alignment == "scale":
        energy = float((source**2).sum())
        return (float((source * target).sum()) / energy if energy > 0 else 0.0), identity, origin
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, singular, vt = np.linalg.svd(b.T @ a / len(source))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = np.asarray((u * sign) @ vt, np.float64)
    scale = 1.0
    if alignment == "sim3":
        variance = float((a**2).sum()) / len(source)
        scale = float(singular @ sign) / variance if variance > 0 else 0.0
    return scale, rotation, np.asarray(target_mean - scale * rotation @ source_mean, np.float64)


def check_points(points: Float64) -> None:
    """Refuse what is not N x 3 and finite.

    Raises:
        UsageError: ``metrics.points``.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise UsageError(
            f"Points of shape {points.shape}, {int((~np.isfinite(points)).sum())} numbers not finite",
            why="Points are N x 3 finite numbers.",
            fix="Leave out the ones that are not, and report how many there were.",
            error_id="metrics.points",
        )
