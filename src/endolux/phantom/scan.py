"""Scan conversion in ray space: triangle after triangle is tested against the few rays near it, compiled.

Each triangle is turned into three planes through the common origin of the rays (Olano and Greer, "Triangle Scan
Conversion using 2D Homogeneous Coordinates", 1997). The test is the ray-triangle test itself, so depth is as exact as
with a ray caster. Sums in float64: neighbours must not leave cracks.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.clusters import NEAR_MM
from endolux.phantom.compile import compiled
from endolux.phantom.culling import is_beyond, is_hidden
from endolux.phantom.lanes import LANES, block, meet, waiting, waiting_within

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]

# Rounding of grid coordinates, which are float32.
_LOOSE = 1e-3
_FAR = np.float32(1e30)
_NO_PLANES = (0.0,) * 10
# Boxes of more columns are narrowed row by row.
_WIDE = 6


@compiled
def _brought_near(
    points: FloatArray,
    begin: int,
    end: int,
    turn: DoubleArray,
    eye: DoubleArray,
    linear: bool,
    scale: DoubleArray,
    near: FloatArray,
) -> float:
    """The corners of one cluster in the axes of the pencil (rows 0-2) and on the grid (rows 3-4); their least z.

    Grid coordinates are meaningless where z is not beyond the near plane.
    """
    least = 1e30
    for n in range(end - begin):
        k = begin + n
        dx, dy, dz = points[0, k] - eye[0], points[1, k] - eye[1], points[2, k] - eye[2]
        x = turn[0, 0] * dx + turn[1, 0] * dy + turn[2, 0] * dz
        y = turn[0, 1] * dx + turn[1, 1] * dy + turn[2, 1] * dz
        z = turn[0, 2] * dx + turn[1, 2] * dy + turn[2, 2] * dz
        near[0, n], near[1, n], near[2, n] = x, y, z
        least = min(least, float(near[2, n]))
        over_x, over_y = (z, z) if linear else (z + abs(x), z + abs(y))
        near[3, n] = x / over_x * scale[0] + scale[2]
        near[4, n] = y / over_y * scale[1] + scale[3]
    return least


@compiled
def _box_of_clipped(
    near: FloatArray, a: int, b: int, c: int, linear: bool, scale: DoubleArray
) -> tuple[float, float, float, float]:
    """Grid box of a triangle that crosses the near plane."""
    low_x, high_x, low_y, high_y = 1e9, -1e9, 1e9, -1e9
    for k in range(3):
        p, q = (a, b) if k == 0 else (b, c) if k == 1 else (c, a)
        pz, qz = np.float64(near[2, p]), np.float64(near[2, q])
        for cut in range(2):
            if cut:
                if (pz > NEAR_MM) == (qz > NEAR_MM):
                    continue
                t = (NEAR_MM - pz) / (qz - pz)
                x = near[0, p] + t * (near[0, q] - near[0, p])
                y = near[1, p] + t * (near[1, q] - near[1, p])
                z = NEAR_MM
            else:
                if pz <= NEAR_MM:
                    continue
                x, y, z = np.float64(near[0, p]), np.float64(near[1, p]), pz
            gx = (x / z if linear else x / (z + abs(x))) * scale[0] + scale[2]
            gy = (y / z if linear else y / (z + abs(y))) * scale[1] + scale[3]
            low_x, high_x = min(low_x, gx), max(high_x, gx)
            low_y, high_y = min(low_y, gy), max(high_y, gy)
    return low_x, high_x, low_y, high_y


@compiled
def _extent(near: FloatArray, count: int) -> tuple[float, float, float, float]:
    """Range of the grid coordinates of a cluster's corners."""
    low_x, high_x, low_y, high_y = near[3, 0], near[3, 0], near[4, 0], near[4, 0]
    for n in range(count):
        low_x, high_x = min(low_x, near[3, n]), max(high_x, near[3, n])
        low_y, high_y = min(low_y, near[4, n]), max(high_y, near[4, n])
    return low_x, high_x, low_y, high_y


@compiled
def _planes(
    near: FloatArray, a: int, b: int, c: int
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """The three planes through the origin and an edge of a triangle, turned inwards, and its volume with the origin."""
    ax, ay, az = np.float64(near[0, a]), np.float64(near[1, a]), np.float64(near[2, a])
    bx, by, bz = np.float64(near[0, b]), np.float64(near[1, b]), np.float64(near[2, b])
    cx, cy, cz = np.float64(near[0, c]), np.float64(near[1, c]), np.float64(near[2, c])
    px, py, pz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    qx, qy, qz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    rx, ry, rz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    volume = ax * px + ay * py + az * pz
    if volume < 0.0:
        return -px, -py, -pz, -qx, -qy, -qz, -rx, -ry, -rz, -volume
    return px, py, pz, qx, qy, qz, rx, ry, rz, volume


@compiled
def scan(
    order: npt.NDArray[np.int64],
    cells: IntArray,
    nearest: FloatArray,
    boxes: IntArray,
    first: IntArray,
    own: IntArray,
    corner_first: IntArray,
    points: FloatArray,
    slabs: DoubleArray,
    turn: DoubleArray,
    eye: DoubleArray,
    linear: bool,
    tight: bool,
    scale: DoubleArray,
    edge_u: DoubleArray,
    edge_v: DoubleArray,
    start: IntArray,
    column_at: FloatArray,
    row_at: FloatArray,
    ray_u: FloatArray,
    ray_v: FloatArray,
    any_hit: bool,
    farthest: FloatArray,
    depth: FloatArray,
    face: IntArray,
    bary_u: FloatArray,
    bary_v: FloatArray,
) -> None:
    """Lower ``depth`` to the nearest triangle along each ray, or with ``any_hit`` to -1 where there is one at all."""
    columns, rows = edge_u.size - 1, edge_v.size - 1
    last_x, last_y = columns - 1.0, rows - 1.0
    most = 1
    for number in order:
        most = max(most, corner_first[cells[number] + 1] - corner_first[cells[number]])
    local = np.empty((5, most), np.float32)
    box = np.empty(4, np.int32)
    for number in order:
        cell = cells[number]
        if is_hidden(nearest[number], boxes[number], columns, start, depth):
            continue
        if any_hit and is_beyond(slabs[cell], turn, eye, boxes[number], columns, start, ray_u, ray_v, depth):
            continue
        begin, end = corner_first[cell], corner_first[cell + 1]
        least = _brought_near(points, begin, end, turn, eye, linear, scale, local)
        if least > NEAR_MM:
            # Closer bounds than those of the sphere.
            low_x, high_x, low_y, high_y = _extent(local, end - begin)
            if high_x < -0.5 or low_x > last_x + 0.5 or high_y < -0.5 or low_y > last_y + 0.5:
                continue
            box[0] = math.floor(max(low_x - _LOOSE + 0.5, 0.0))
            box[1] = math.floor(min(high_x + _LOOSE + 0.5, last_x))
            box[2] = math.floor(max(low_y - _LOOSE + 0.5, 0.0))
            box[3] = math.floor(min(high_y + _LOOSE + 0.5, last_y))
            if is_hidden(least, box, columns, start, depth):
                continue
            if any_hit and is_beyond(slabs[cell], turn, eye, box, columns, start, ray_u, ray_v, depth):
                continue
        for f in range(first[cell], first[cell + 1]):
            a, b, c = own[f, 0], own[f, 1], own[f, 2]
            az, bz, cz = np.float64(local[2, a]), np.float64(local[2, b]), np.float64(local[2, c])
            if az > NEAR_MM and bz > NEAR_MM and cz > NEAR_MM:
                low_x = float(min(local[3, a], local[3, b], local[3, c]))
                high_x = float(max(local[3, a], local[3, b], local[3, c]))
                low_y = float(min(local[4, a], local[4, b], local[4, c]))
                high_y = float(max(local[4, a], local[4, b], local[4, c]))
            elif az <= NEAR_MM and bz <= NEAR_MM and cz <= NEAR_MM:
                continue
            else:
                low_x, high_x, low_y, high_y = _box_of_clipped(local, a, b, c, linear, scale)
            if high_x < -0.5 or low_x > last_x + 0.5 or high_y < -0.5 or low_y > last_y + 0.5:
                continue
            if tight:
                x0 = math.ceil(max(low_x - _LOOSE, 0.0))
                x1 = math.floor(min(high_x + _LOOSE, last_x))
                y0 = math.ceil(max(low_y - _LOOSE, 0.0))
                y1 = math.floor(min(high_y + _LOOSE, last_y))
            else:
                x0 = math.floor(max(low_x - _LOOSE + 0.5, 0.0))
                x1 = math.floor(min(high_x + _LOOSE + 0.5, last_x))
                y0 = math.floor(max(low_y - _LOOSE + 0.5, 0.0))
                y1 = math.floor(min(high_y + _LOOSE + 0.5, last_y))
            if x1 < x0 or y1 < y0:
                continue
            near = min(az, bz, cz)
            small = x1 - x0 < 3 and y1 - y0 < 3
            if small or (not tight and x1 - x0 < 5 and y1 - y0 < 5 and near > NEAR_MM):
                if any_hit and small and near >= farthest[y0 * columns + x0]:
                    continue
                # Most triangles of a fine mesh are hidden behind what was drawn before, or lie between the rays:
                # that is cheap to see.
                beyond = np.float32(near) if small else -_FAR
                low_x, high_x, low_y, high_y = low_x - _LOOSE, high_x + _LOOSE, low_y - _LOOSE, high_y + _LOOSE
                ready, planes = False, _NO_PLANES
                for y in range(y0, y1 + 1):
                    end_k = start[y * columns + x1 + 1]
                    for k in range(start[y * columns + x0], end_k, LANES):
                        if tight:
                            some = waiting(depth, k, end_k - k, beyond)
                        else:
                            some = waiting_within(
                                depth, k, end_k - k, beyond, column_at, row_at, low_x, high_x, low_y, high_y
                            )
                        if some == 0:
                            continue
                        if not ready:
                            ready = True
                            planes = _planes(local, a, b, c)
                        if planes[9] == 0.0:
                            continue
                        if any_hit:
                            block(ray_u, ray_v, depth, face, k, planes, f)
                        else:
                            meet(ray_u, ray_v, depth, face, bary_u, bary_v, k, planes, f)
                continue
            planes = _planes(local, a, b, c)
            if planes[9] == 0.0:
                continue
            px, py, pz, qx, qy, qz, rx, ry, rz, _ = planes
            wide = x1 - x0 > _WIDE
            for y in range(y0, y1 + 1):
                left, right = x0, x1
                if wide:
                    # Part of this row of cells that all three planes leave over.
                    low_u, high_u = edge_u[x0], edge_u[x1 + 1]
                    for side in range(3):
                        if side == 0:
                            nx, ny, nz = px, py, pz
                        elif side == 1:
                            nx, ny, nz = qx, qy, qz
                        else:
                            nx, ny, nz = rx, ry, rz
                        rest = max(ny * edge_v[y], ny * edge_v[y + 1]) + nz
                        if nx > 0.0:
                            low_u = max(low_u, -rest / nx)
                        elif nx < 0.0:
                            high_u = min(high_u, -rest / nx)
                        elif rest < 0.0:
                            high_u = -1e30
                    if low_u > high_u:
                        continue
                    from_x = low_u if linear else low_u / (1.0 + abs(low_u))
                    to_x = high_u if linear else high_u / (1.0 + abs(high_u))
                    left = max(left, math.floor(from_x * scale[0] + scale[2] + 0.5 - _LOOSE))
                    right = min(right, math.floor(to_x * scale[0] + scale[2] + 0.5 + _LOOSE))
                    if left > right:
                        continue
                for k in range(start[y * columns + left], start[y * columns + right + 1], LANES):
                    if any_hit:
                        block(ray_u, ray_v, depth, face, k, planes, f)
                    else:
                        meet(ray_u, ray_v, depth, face, bary_u, bary_v, k, planes, f)
