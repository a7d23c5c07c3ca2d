"""Pixels to rays of one lens, fast: radial models are inverted along one radius and looked up for every pixel."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.pencils import RayGrid, grid_of_image, grid_of_rays
from endolux.types import Camera, CameraModel

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

_KNOTS = 1024


@functools.lru_cache(maxsize=8)
def slopes(camera: Camera) -> tuple[FloatArray, FloatArray]:
    """Slopes x/z and y/z of the ray of every pixel.

    Args:
        camera: any model of ``endolux.types.CameraModel``.

    Returns:
        two H x W float32 arrays, read-only and cached; NaN where the lens model has no ray in front of the camera.

    Example:
        >>> u, v = slopes(Camera(width=3, height=1, fx=2.0, fy=2.0, cx=1.0, cy=0.0))
        >>> u.tolist()
        [[-0.5, 0.0, 0.5]]
    """
    x = (np.arange(camera.width, dtype=np.float64) - camera.cx) / camera.fx
    y = (np.arange(camera.height, dtype=np.float64) - camera.cy) / camera.fy
    shape = (camera.height, camera.width)
    if camera.model is CameraModel.PINHOLE:
        u, v = np.broadcast_to(x, shape).astype(np.float32), np.broadcast_to(y[:, None], shape).astype(np.float32)
    elif camera.model is CameraModel.RADTAN and (camera.distortion[2] or camera.distortion[3]):
        from endolux.geometry.cameras import rays

        # Decentred lenses have no single radius.
        exact = rays(camera)
        u, v = exact[..., 0].copy(), exact[..., 1].copy()
    else:
        fisheye = camera.model is CameraModel.FISHEYE
        largest, angle, slope = _inverse(camera)
        u, v = _look_up(x, y, largest, angle, slope, fisheye)
    u.setflags(write=False)
    v.setflags(write=False)
    return u, v


@functools.lru_cache(maxsize=8)
def filled_slopes(camera: Camera) -> tuple[FloatArray, FloatArray]:
    """``slopes`` with 0 where there is no ray, for sums over all pixels.

    Example:
        >>> filled_slopes(Camera(width=1, height=1, fx=2.0, fy=2.0, cx=0.0, cy=0.0))[0].tolist()
        [[0.0]]
    """
    u, v = slopes(camera)
    return np.nan_to_num(u), np.nan_to_num(v)


@functools.lru_cache(maxsize=4)
def pencil(camera: Camera) -> RayGrid:
    """The rays of a camera, ready for ``Raster.cast``; cached.

    Example:
        >>> pencil(Camera(width=3, height=2, fx=2.0, fy=2.0, cx=1.0, cy=0.5)).count
        6
    """
    u, v = slopes(camera)
    if camera.model is CameraModel.PINHOLE:
        return grid_of_image(u[0], v[:, 0])
    return grid_of_rays(u.reshape(-1), v.reshape(-1))


def rays_of(camera: Camera) -> FloatArray:
    """H*W x 3 directions with z = 1 in camera axes; NaN where there is none.

    Example:
        >>> rays_of(Camera(width=1, height=1, fx=2.0, fy=2.0, cx=0.0, cy=0.0)).tolist()
        [[0.0, 0.0, 1.0]]
    """
    u, v = slopes(camera)
    directions = np.stack([u, v, np.where(np.isnan(u), np.nan, 1.0)], axis=-1)
    return np.ascontiguousarray(directions.reshape(-1, 3), np.float32)


def _inverse(camera: Camera) -> tuple[float, DoubleArray, DoubleArray]:
    """Knots of the undistorted radius (angle for fisheye) over the distorted one, evenly spaced, with derivatives.

    Only the part before the distortion first turns back is invertible.
    """
    if camera.model is CameraModel.FISHEYE:
        k = np.asarray(camera.distortion)
        top = np.pi / 2 - 1e-6

        def bend(t: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
            s = t * t
            value = t * (1 + s * (k[0] + s * (k[1] + s * (k[2] + s * k[3]))))
            return value, 1 + s * (3 * k[0] + s * (5 * k[1] + s * (7 * k[2] + s * 9 * k[3])))
    else:
        k1, k2, _, _, k3, k4, k5, k6 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0)[:8]
        top = 60.0

        def bend(t: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
            s = t * t
            above, below = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
            # Derivatives by s, then by t.
            above_s, below_s = k1 + s * (2 * k2 + s * 3 * k3), k4 + s * (2 * k5 + s * 3 * k6)
            ratio = above / below
            return t * ratio, ratio + 2 * s * (above_s - ratio * below_s) / below

    corners = np.hypot(
        max(abs(camera.cx), abs(camera.width - 1 - camera.cx)) / camera.fx,
        max(abs(camera.cy), abs(camera.height - 1 - camera.cy)) / camera.fy,
    )
    fine = top * np.linspace(0.0, 1.0, 4097) ** 2
    value, rate = bend(fine)
    turned = np.flatnonzero((rate <= 1e-6) | (np.diff(value, prepend=-1.0) <= 0))
    last = int(turned[0]) - 1 if turned.size else fine.size - 1
    largest = float(min(value[last], corners * (1 + 1e-9) + 1e-12))
    wanted = np.linspace(0.0, largest, _KNOTS)
    angle = np.interp(wanted, value[: last + 1], fine[: last + 1])
    for _ in range(5):
        value, rate = bend(angle)
        angle = np.clip(angle - (value - wanted) / np.maximum(rate, 1e-6), 0.0, fine[last])
    return largest, angle, 1.0 / np.maximum(bend(angle)[1], 1e-6)


@compiled
def _look_up(
    x: DoubleArray, y: DoubleArray, largest: float, angle: DoubleArray, slope: DoubleArray, fisheye: bool
) -> tuple[FloatArray, FloatArray]:
    u = np.empty((y.size, x.size), np.float32)
    v = np.empty((y.size, x.size), np.float32)
    step = largest / (angle.size - 1)
    for i in range(y.size):
        for j in range(x.size):
            radius = np.sqrt(x[j] * x[j] + y[i] * y[i])
            if radius > largest * (1 + 1e-9):
                u[i, j] = np.nan
                v[i, j] = np.nan
                continue
            k = min(int(radius / step), angle.size - 2)
            t = radius / step - k
            # Cubic Hermite interpolation.
            value = (
                angle[k] * (1 + 2 * t) * (1 - t) ** 2
                + slope[k] * step * t * (1 - t) ** 2
                + angle[k + 1] * t * t * (3 - 2 * t)
                - slope[k + 1] * step * t * t * (1 - t)
            )
            true = np.tan(value) if fisheye else value
            factor = true / radius if radius > 1e-12 else 1.0
            u[i, j] = x[j] * factor
            v[i, j] = y[i] * factor
    return u, v


def coefficients(camera: Camera) -> tuple[int, DoubleArray]:
    """The lens model as plain numbers for compiled code: its kind, and fx, fy, cx, cy and eight coefficients.

    Example:
        >>> coefficients(Camera(width=1, height=1, fx=2.0, fy=2.0, cx=0.0, cy=0.0))[0]
        0
    """
    kind = {CameraModel.PINHOLE: 0, CameraModel.RADTAN: 1, CameraModel.FISHEYE: 2}[camera.model]
    numbers = np.zeros(12)
    numbers[:4] = camera.fx, camera.fy, camera.cx, camera.cy
    numbers[4 : 4 + len(camera.distortion)] = camera.distortion
    return kind, numbers


@compiled
def pixel_of(x: float, y: float, z: float, kind: int, numbers: DoubleArray) -> tuple[float, float]:
    """Column and row of a point in camera axes with z > 0, by the formulas of ``endolux.geometry.cameras``."""
    u, v = x / z, y / z
    if kind == 1:
        s = u * u + v * v
        k1, k2, p1, p2 = numbers[4], numbers[5], numbers[6], numbers[7]
        above = 1 + s * (k1 + s * (k2 + s * numbers[8]))
        radial = above / (1 + s * (numbers[9] + s * (numbers[10] + s * numbers[11])))
        tangential_u = 2 * p1 * u * v + p2 * (s + 2 * u * u)
        tangential_v = p1 * (s + 2 * v * v) + 2 * p2 * u * v
        u, v = u * radial + tangential_u, v * radial + tangential_v
    elif kind == 2:
        radius = np.sqrt(u * u + v * v)
        if radius > 1e-12:
            angle = np.arctan(radius)
            s = angle * angle
            bent = angle * (1 + s * (numbers[4] + s * (numbers[5] + s * (numbers[6] + s * numbers[7]))))
            u, v = u * bent / radius, v * bent / radius
    return u * numbers[0] + numbers[2], v * numbers[1] + numbers[3]
