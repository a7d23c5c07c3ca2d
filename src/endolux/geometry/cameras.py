"""Pixels to rays, depth to points, points to pixels; cameras on disk."""

from __future__ import annotations

import difflib
import functools
import json
import os
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError, UsageError, from_os_error
from endolux.types import Camera, CameraModel, DepthKind, DepthMap, FloatArray, MaskArray

PointArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# OpenCV's fisheye inversion stops at 10 rounds and 1e-8 by default, the radial-tangential one at 5.
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
# A ray is trusted if it projects back this close to its pixel: outside the range where the polynomial can be inverted,
# the iteration ends anywhere.
_ROUND_TRIP_PX = 0.05
_NUMBERS = ("fx", "fy", "cx", "cy")
_KEYS = ("width", "height", *_NUMBERS, "model", "distortion")


@functools.lru_cache(maxsize=4)
def rays(camera: Camera) -> FloatArray:
    """Direction of every pixel, scaled to z = 1, so that point = depth * ray.

    Returns:
        H x W x 3 float32 (x/z, y/z, 1) in camera coordinates (x right, y down, z forward), read-only and cached. NaN
        where the model has no ray in front of the camera: corners of a wide fisheye, or pixels outside the range in
        which a distortion polynomial can be inverted.

    Example:
        >>> camera = Camera(width=3, height=1, fx=2.0, fy=2.0, cx=1.0, cy=0.0)
        >>> rays(camera)[0, :, 0].tolist()
        [-0.5, 0.0, 0.5]
    """
    u, v = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    if camera.model is CameraModel.PINHOLE:
        x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
        directions = np.stack([x, y, np.ones_like(x)], axis=-1)
    else:
        pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
        coefficients = np.array(camera.distortion)
        undistort = cv2.fisheye.undistortPoints if camera.model is CameraModel.FISHEYE else cv2.undistortPoints
        xy = undistort(pixels, camera.matrix, coefficients, criteria=_CRITERIA).reshape(-1, 2)
        points = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(project(points, camera) - pixels.reshape(-1, 2)).max(axis=1)
        points[~(error < _ROUND_TRIP_PX)] = np.nan
        directions = points.reshape(camera.height, camera.width, 3)
    result = directions.astype(np.float32)
    result.setflags(write=False)
    return result


def point_mask(depth: DepthMap, camera: Camera | None = None) -> MaskArray:
    """Pixels that ``unproject`` turns into points: valid, with a finite positive depth and a ray. H x W bool.

    Select colours with it: ``frame.image[point_mask(depth)]``.
    """
    camera = _camera_of(depth, camera)
    mask: MaskArray = depth.valid & np.isfinite(depth.values) & (depth.values > 0)
    return mask & np.isfinite(rays(camera)[:, :, 0])


def unproject(depth: DepthMap, camera: Camera | None = None) -> FloatArray:
    """Points of a depth map in camera coordinates.

    Args:
        depth: METRIC, or RELATIVE_DEPTH (the points then are right up to one common factor).
        camera: intrinsics of the image that ``depth`` belongs to; ``depth.camera`` by default.

    Returns:
        N x 3 float32, in the depth's unit (mm for METRIC), the pixels of ``point_mask`` row by row.

    Raises:
        UsageError: no camera, a camera of another size, or a disparity, whose unknown shift would bend space.

    Example:
        >>> import numpy as np
        >>> camera = Camera(width=2, height=1, fx=1.0, fy=1.0, cx=0.0, cy=0.0)
        >>> values = np.full((1, 2), 5, np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
        >>> unproject(depth, camera).tolist()
        [[0.0, 0.0, 5.0], [5.0, 0.0, 5.0]]
    """
    camera = _camera_of(depth, camera)
    if depth.kind is DepthKind.RELATIVE_DISPARITY:
        raise UsageError(
            "Cannot make points from a relative disparity",
            why="Its scale and shift are unknown, and a wrong shift bends flat walls.",
            fix="Align it to known depth first (endolux.geometry.align), or use a model that predicts depth.",
            error_id="geometry.kind",
        )
    mask = point_mask(depth, camera)
    points: FloatArray = rays(camera)[mask] * depth.values[mask][:, None]
    return points


def project(points: PointArray, camera: Camera) -> npt.NDArray[np.float64]:
    """Pixels of points in camera coordinates.

    Args:
        points: N x 3.
        camera: intrinsics.

    Returns:
        N x 2 float64 (column, row), also outside the image; NaN for points that do not lie in front of the camera.

    Raises:
        UsageError: another shape.

    Example:
        >>> import numpy as np
        >>> camera = Camera(width=640, height=480, fx=500.0, fy=500.0, cx=319.5, cy=239.5)
        >>> project(np.array([[0.0, 10.0, 100.0]]), camera).tolist()
        [[319.5, 289.5]]
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise UsageError(
            f"Cannot project an array of shape {points.shape}",
            why="Points are N x 3: x, y, z.",
            fix="Use points.reshape(-1, 3).",
            error_id="geometry.points",
        )
    points = points.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        front = points[:, 2:] > 0
        xy = np.where(front, points[:, :2] / points[:, 2:], np.nan)
        distorted = _distort(xy, camera)
    return distorted * (camera.fx, camera.fy) + (camera.cx, camera.cy)


def camera_to_dict(camera: Camera) -> dict[str, int | float | str | list[float]]:
    """The camera as plain JSON values; ``camera_from_dict`` reads it back without loss."""
    return {
        "width": camera.width,
        "height": camera.height,
        "fx": camera.fx,
        "fy": camera.fy,
        "cx": camera.cx,
        "cy": camera.cy,
        "model": camera.model.value,
        "distortion": list(camera.distortion),
    }


def camera_from_dict(values: object, *, name: str = "camera") -> Camera:
    """Build a camera from JSON values: width, height, fx, fy, cx, cy, and if any model and distortion.

    Raises:
        InputError: unknown or missing keys, or values of a wrong type (``camera.format``).
        UsageError: values that no camera has (``camera.impossible``, ``camera.distortion``).

    Example:
        >>> camera = Camera(width=64, height=48, fx=50.0, fy=50.0, cx=31.5, cy=23.5)
        >>> camera_from_dict(camera_to_dict(camera)) == camera
        True
    """
    if not isinstance(values, dict):
        raise _format_error(name, "it is not a JSON object")
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise _format_error(name, f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    missing = [key for key in _KEYS[:-2] if key not in values]
    if missing:
        raise _format_error(name, f"{', '.join(missing)} missing")
    distortion = values.get("distortion", [])
    if not isinstance(distortion, list):
        raise _format_error(name, "distortion is not a list")
    numbers = [*(values[key] for key in _NUMBERS), *distortion]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise _format_error(name, "fx, fy, cx, cy and distortion must be numbers")
    width, height = values["width"], values["height"]
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in (width, height)):
        raise _format_error(name, "width and height must be whole numbers")
    try:
        model = CameraModel(values.get("model", CameraModel.PINHOLE))
        fx, fy, cx, cy = (float(values[key]) for key in _NUMBERS)
        coefficients = tuple(float(number) for number in distortion)
    except (ValueError, OverflowError) as error:
        raise _format_error(name, str(error)) from error
    return Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, model=model, distortion=coefficients)


def load_camera(path: str | os.PathLike[str]) -> Camera:
    """Read a camera from a JSON file.

    Raises:
        InputError: no such file, not JSON, or not a camera.
        UsageError: values that no camera has.
    """
    from endolux.io.paths import check_file, input_error, printable

    path = Path(path)
    name = printable(path)
    if check_file(path) > 1 << 20:
        raise _format_error(name, "it is far too large for a camera")
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise input_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise _format_error(name, f"it is not JSON ({error})") from error
    return camera_from_dict(values, name=name)


def save_camera(path: str | os.PathLike[str], camera: Camera) -> None:
    """Write a camera as JSON; the file appears whole or not at all.

    Raises:
        EndoluxError: not writable or disk full.

    Example:
        >>> import pathlib, tempfile
        >>> camera = Camera(width=64, height=48, fx=50.0, fy=50.0, cx=31.5, cy=23.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_camera(pathlib.Path(folder, "camera.json"), camera)
        ...     load_camera(pathlib.Path(folder, "camera.json")) == camera
        True
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(camera_to_dict(camera), indent=2) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise from_os_error(error, path) from error


def _camera_of(depth: DepthMap, camera: Camera | None) -> Camera:
    camera = camera or depth.camera
    if camera is None:
        raise UsageError(
            "Cannot make points without a camera",
            why="The depth map carries no intrinsics and none were given.",
            fix="Pass camera=..., or calibrate the endoscope with a chessboard.",
            error_id="geometry.no-camera",
        )
    if (camera.width, camera.height) != depth.size:
        raise UsageError(
            f"Camera of {camera.width}x{camera.height} for a depth map of {depth.size[0]}x{depth.size[1]}",
            why="Intrinsics belong to one image size.",
            fix="Use camera.resize or camera.crop so that the camera follows the pixels.",
            error_id="geometry.camera-size",
        )
    return camera


def _distort(xy: npt.NDArray[np.float64], camera: Camera) -> npt.NDArray[np.float64]:
    """N x 2 normalised coordinates to distorted ones, by OpenCV's formulas."""
    if camera.model is CameraModel.PINHOLE:
        return xy
    x, y = xy[:, 0], xy[:, 1]
    r2 = x * x + y * y
    if camera.model is CameraModel.FISHEYE:
        r = np.sqrt(r2)
        theta = np.arctan(r)
        t2 = theta * theta
        k1, k2, k3, k4 = camera.distortion
        bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        factor = np.where(r > 1e-12, bent / np.maximum(r, 1e-300), 1.0)
        return np.stack([x * factor, y * factor], axis=1)
    k1, k2, p1, p2, k3, k4, k5, k6 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0)[:8]
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack([x * radial + dx, y * radial + dy], axis=1)


def _format_error(name: str, detail: str) -> InputError:
    return InputError(
        f"'{name}' is not a camera: {detail}",
        why=f"A camera is a JSON object with {', '.join(_KEYS[:-2])} and, if any, model and distortion.",
        fix=f"model is one of {', '.join(CameraModel)}; write such a file with endolux.geometry.cameras.save_camera.",
        error_id="camera.format",
    )
