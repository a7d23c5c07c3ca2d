"""Coloured points of a depth map, where a camera saw them or where they lie in the world."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.geometry.cameras import point_mask, unproject
from endolux.types import Camera, DepthMap, FloatArray, ImageArray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """Points and, if known, their colours.

    Attributes:
        points: N x 3 float32, in the unit of the depth.
        colours: N x 3 uint8 RGB.
    """

    points: FloatArray
    colours: npt.NDArray[np.uint8] | None = None


def point_cloud(
    depth: DepthMap,
    camera: Camera | None = None,
    *,
    image: ImageArray | None = None,
    pose: npt.NDArray[np.float64] | None = None,
) -> PointCloud:
    """Points of a depth map, those of :func:`endolux.geometry.cameras.point_mask` row by row.

    Args:
        depth: METRIC, or RELATIVE_DEPTH (the points then are right up to one common factor).
        camera: intrinsics of the image that ``depth`` belongs to; ``depth.camera`` by default.
        image: H x W x 3 RGB uint8 for the colours.
        pose: 4 x 4 camera to world, translation in the unit of depth; None leaves the points in the camera's frame.

    Raises:
        UsageError: ``geometry.no-camera``, ``geometry.camera-size``, ``geometry.kind``; ``geometry.points`` for an
            image or pose of another shape.

    Example:
        >>> from endolux.types import DepthKind
        >>> camera = Camera(width=2, height=1, fx=1.0, fy=1.0, cx=0.0, cy=0.0)
        >>> values = np.full((1, 2), 5, np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
        >>> back = np.eye(4)
        >>> back[2, 3] = -5.0
        >>> point_cloud(depth, camera, pose=back).points.tolist()
        [[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    """
    points = unproject(depth, camera)
    colours = None
    if image is not None:
        if image.shape != (*depth.values.shape, 3) or image.dtype != np.uint8:
            raise _shape_error(f"an image {image.shape} {image.dtype} on depth of {depth.values.shape}")
        colours = image[point_mask(depth, camera)]
    if pose is not None:
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise _shape_error(f"a pose of shape {pose.shape}, or with numbers that are not finite")
        points = (points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
    return PointCloud(points, colours)


def _shape_error(what: str) -> UsageError:
    return UsageError(
        f"Cannot make points of {what}",
        why="The image has the size of the depth map, and a pose is 4 x 4.",
        fix="Resize them together.",
        error_id="geometry.points",
    )
