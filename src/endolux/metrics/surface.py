"""Distances between surfaces given as point sets, after a reconstruction."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.metrics.checks import Float64, warn_empty
from endolux.metrics.similarity import check_points

THRESHOLD_MM = 1.0
_CHUNK = 65536


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceDistances:
    """Distances between two point sets, in their unit (mm).

    Attributes:
        accuracy: mean distance of a predicted point to the nearest true one.
        completeness: mean distance of a true point to the nearest predicted one.
        chamfer: mean of the two.
        rms: root mean square over both sets' distances together.
        median: median over both sets' distances together.
        hausdorff: largest distance; ``hausdorff95`` the larger of the two 95th percentiles.
        precision, recall: share of predicted (true) points within the threshold of the other set.
        f_score: their harmonic mean.
        threshold: that threshold.
        predicted_points, true_points: points that were measured (after thinning).
    """

    accuracy: float
    completeness: float
    chamfer: float
    rms: float
    median: float
    hausdorff: float
    hausdorff95: float
    precision: float
    recall: float
    f_score: float
    threshold: float
    predicted_points: int
    true_points: int


def surface_distances(
    predicted: npt.NDArray[np.floating[Any]],
    truth: npt.NDArray[np.floating[Any]],
    *,
    threshold: float = THRESHOLD_MM,
    voxel: float | None = None,
) -> SurfaceDistances:
    """Nearest-neighbour distances of a reconstruction to the true surface and back (Knapitsch et al. 2017, section 4).

    Means weigh points, not area: where one set is denser than the other, thin both with ``voxel``.

    Args:
        predicted: N x 3, already in the frame of the truth.
        truth: M x 3.
        threshold: distance within which a point counts as found.
        voxel: edge of the cubes of which each keeps the centroid of its points; None keeps all points.

    Returns:
        NaN with an ``EmptyMaskWarning`` if either set is empty.

    Raises:
        UsageError: ``metrics.points`` or ``metrics.threshold``.

    Example:
        >>> import numpy as np
        >>> wall = np.array([[0.0, 0.0, 10.0], [1.0, 0.0, 10.0]])
        >>> found = surface_distances(wall + [0, 0, 0.5], wall)
        >>> found.chamfer, found.hausdorff, found.f_score
        (0.5, 0.5, 1.0)
    """
    if not threshold > 0 or (voxel is not None and not voxel > 0):
        raise UsageError(
            f"Threshold {threshold}, voxel {voxel}",
            why="Both are lengths above 0.",
            fix="Give them in the unit of the points.",
            error_id="metrics.threshold",
        )
    p, t = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    check_points(p)
    check_points(t)
    if voxel is not None:
        p, t = thinned(p, voxel), thinned(t, voxel)
    if len(p) and len(t):
        there, back = nearest_distances(p, t), nearest_distances(t, p)
    else:
        warn_empty(f"Surface distances: {len(p)} predicted and {len(t)} true points")
        there = back = np.array([np.nan])
    both = np.concatenate([there, back])
    precision, recall = _share(there, threshold), _share(back, threshold)
    total = precision + recall
    return SurfaceDistances(
        accuracy=float(there.mean()),
        completeness=float(back.mean()),
        chamfer=float(there.mean() + back.mean()) / 2,
        rms=float(np.sqrt((both**2).mean())),
        median=float(np.median(both)),
        hausdorff=float(both.max()),
        hausdorff95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / total if total else total,
        threshold=float(threshold),
        predicted_points=len(p),
        true_points=len(t),
    )


def nearest_distances(points: Float64, others: Float64) -> Float64:
    """Distance of every point to the nearest of ``others``: exact search in float32, distance in float64.

    Args:
        points: N x 3.
        others: M x 3, M at least 1.

    Returns:
        N distances.

    Example:
        >>> import numpy as np
        >>> nearest_distances(np.array([[3.0, 4.0, 0.0]]), np.zeros((1, 3))).tolist()
        [5.0]
    """
    # float32 keeps seven digits of the coordinates: about their centre they are spent on the object, not on its place.
    centre = others.mean(axis=0)
    # Algorithm 4 is the single k-d tree, the one of OpenCV's that is exact.
    tree = cv2.flann.Index((others - centre).astype(np.float32), {"algorithm": 4, "leaf_max_size": 16})
    result = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK]
        index, _ = tree.knnSearch((chunk - centre).astype(np.float32), 1, params={"checks": -1})
        result[start : start + _CHUNK] = np.linalg.norm(chunk - others[index[:, 0]], axis=1)
    return result


def thinned(points: Float64, voxel: float) -> Float64:
    """Centroid of the points in each occupied cube of edge ``voxel``, in a fixed order.

    Example:
        >>> import numpy as np
        >>> thinned(np.array([[0.2, 0.0, 0.0], [0.4, 0.0, 0.0], [1.5, 0.0, 0.0]]), 1.0)[:, 0].round(9).tolist()
        [0.3, 1.5]
    """
    if not len(points):
        return points
    _, cell, count = np.unique(np.floor(points / voxel), axis=0, return_inverse=True, return_counts=True)
    sums = [np.bincount(cell.ravel(), points[:, axis], len(count)) for axis in range(3)]
    return np.stack(sums, axis=1) / count[:, None]


def _share(distances: Float64, threshold: float) -> float:
    return float("nan") if np.isnan(distances).any() else float((distances <= threshold).mean())
