"""Optical flow of rendered views, from depth and poses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.lens import coefficients, pixel_of, slopes
from endolux.phantom.pose import Pose
from endolux.phantom.surface import Surface
from endolux.types import Camera

FloatArray = npt.NDArray[np.float32]


def flow(
    surface: Surface,
    pose: Pose,
    next_pose: Pose,
    camera: Camera,
    *,
    next_camera: Camera | None = None,
    moved_mm: FloatArray | None = None,
) -> FloatArray:
    """Optical flow from one frame to the next: where each pixel's point goes.

    Args:
        surface: of the first frame.
        pose: 4 x 4 camera-to-world of the first frame, mm.
        next_pose: of the next frame.
        camera: intrinsics.
        next_camera: intrinsics of the next frame, the same by default.
        moved_mm: H x W x 3 displacement of each pixel's point in world axes, where the scene itself moves.

    Returns:
        H x W x 2 float32 (columns, rows) in pixels; NaN where nothing is seen or the point falls behind the camera.
        Points may be hidden in the next frame. What the scope holds stays where it is in camera axes.

    Example:
        >>> camera = Camera(width=3, height=1, fx=10.0, fy=10.0, cx=1.0, cy=0.0)
        >>> flat = np.full((1, 3), 20.0, np.float32)
        >>> zeros = np.zeros((1, 3, 3), np.float32)
        >>> seen = Surface(flat, zeros, np.ones((1, 3), np.uint8), zeros, 1.0)
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 2.0
        >>> flow(seen, np.eye(4), moved, camera)[0, 1].tolist()
        [-1.0, 0.0]
    """
    u, v = slopes(camera)
    kind, numbers = coefficients(next_camera or camera)
    there = np.linalg.inv(next_pose)
    if moved_mm is None:
        moved_mm = np.zeros((1, 1, 3), np.float32)
    turn = np.ascontiguousarray(there[:3, :3])
    result = _flow(surface.depth_mm, u, v, there @ pose, turn, moved_mm, kind, numbers)
    held = surface.held
    if held.any():
        none = np.zeros((1, 1, 3), np.float32)
        result[held] = _flow(surface.depth_mm, u, v, np.eye(4), turn, none, kind, numbers)[held]
    return result


@compiled
def _flow(
    depth_mm: FloatArray,
    u: FloatArray,
    v: FloatArray,
    between: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    moved_mm: FloatArray,
    kind: int,
    numbers: npt.NDArray[np.float64],
) -> FloatArray:
    height, width = depth_mm.shape
    result = np.empty((height, width, 2), np.float32)
    moving = moved_mm.size > 3
    at = np.empty(3)
    for i in range(height):
        for j in range(width):
            z = np.float64(depth_mm[i, j])
            result[i, j, 0] = np.nan
            result[i, j, 1] = np.nan
            if not z > 0.0 or not np.isfinite(u[i, j]):
                continue
            x, y = u[i, j] * z, v[i, j] * z
            for k in range(3):
                at[k] = between[k, 0] * x + between[k, 1] * y + between[k, 2] * z + between[k, 3]
                if moving:
                    for m in range(3):
                        at[k] += turn[k, m] * moved_mm[i, j, m]
            if at[2] > 0.0:
                column, row = pixel_of(at[0], at[1], at[2], kind, numbers)
                result[i, j, 0] = column - j
                result[i, j, 1] = row - i
    return result
