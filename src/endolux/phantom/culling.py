"""Clusters of triangles that no ray of a pencil can meet, compiled."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.clusters import NEAR_MM
from endolux.phantom.compile import compiled
from endolux.phantom.lanes import LANES, reaching, waiting

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]

# Looking at more rays costs more than drawing what they may hide.
_MAX_LOOKED_AT = 4000


@compiled
def visible_cells(
    spheres: FloatArray,
    turn: DoubleArray,
    eye: DoubleArray,
    linear: bool,
    scale: DoubleArray,
    edge_u: DoubleArray,
    edge_v: DoubleArray,
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """Cells that reach into the pencil: their numbers, distances, least depths and grid boxes (x0, x1, y0, y1)."""
    total = spheres.shape[0]
    columns, rows = edge_u.size - 1, edge_v.size - 1
    cells = np.empty(total, np.int32)
    distance = np.empty(total, np.float32)
    nearest = np.empty(total, np.float32)
    box = np.empty((total, 4), np.int32)
    found = 0
    at = np.empty(3)
    for c in range(total):
        for x in range(3):
            at[x] = 0.0
            for y in range(3):
                at[x] += turn[y, x] * (spheres[c, y] - eye[y])
        radius = np.float64(spheres[c, 3])
        low_z, high_z = at[2] - radius, at[2] + radius
        if high_z <= NEAR_MM:
            continue
        inside = True
        for axis in range(2):
            first, last = (edge_u[0], edge_u[columns]) if axis == 0 else (edge_v[0], edge_v[rows])
            if first * at[2] - at[axis] > radius * math.sqrt(1.0 + first * first):
                inside = False
            if at[axis] - last * at[2] > radius * math.sqrt(1.0 + last * last):
                inside = False
        if not inside:
            continue
        cells[found] = c
        distance[found] = math.sqrt(at[0] * at[0] + at[1] * at[1] + at[2] * at[2]) - radius
        nearest[found] = low_z
        box[found, 0], box[found, 1], box[found, 2], box[found, 3] = 0, columns - 1, 0, rows - 1
        if low_z > NEAR_MM:
            for axis in range(2):
                low, high = at[axis] - radius, at[axis] + radius
                low = low / (low_z if low < 0 else high_z)
                high = high / (low_z if high > 0 else high_z)
                if not linear:
                    low, high = low / (1.0 + abs(low)), high / (1.0 + abs(high))
                last = columns - 1 if axis == 0 else rows - 1
                box[found, 2 * axis] = int(min(max(low * scale[axis] + scale[axis + 2], 0.0), last))
                box[found, 2 * axis + 1] = int(min(max(high * scale[axis] + scale[axis + 2] + 1.0, 0.0), last))
        found += 1
    return cells[:found], distance[:found], nearest[:found], box[:found]


@compiled
def is_hidden(nearest: float, box: IntArray, columns: int, start: IntArray, depth: FloatArray) -> bool:
    """Whether every ray of a box already ends before a depth; boxes of many rays are not looked at."""
    if (box[1] - box[0] + 1) * (box[3] - box[2] + 1) > _MAX_LOOKED_AT:
        return False
    for y in range(box[2], box[3] + 1):
        end = start[y * columns + box[1] + 1]
        for k in range(start[y * columns + box[0]], end, LANES):
            if waiting(depth, k, end - k, nearest) != 0:
                return False
    return True


@compiled
def is_beyond(
    slab: DoubleArray,
    turn: DoubleArray,
    eye: DoubleArray,
    box: IntArray,
    columns: int,
    start: IntArray,
    ray_u: FloatArray,
    ray_v: FloatArray,
    depth: FloatArray,
) -> bool:
    """Whether every ray of a box ends before the slab that a cluster lies in."""
    if (box[1] - box[0] + 1) * (box[3] - box[2] + 1) > _MAX_LOOKED_AT:
        return False
    low, high = slab[3], slab[4]
    for x in range(3):
        low -= slab[x] * eye[x]
        high -= slab[x] * eye[x]
    # The side of the slab that is nearer; the origin must not lie within.
    sign = 1.0
    if high < 0.0:
        sign, low = -1.0, -high
    # Rounding of the corners, which are float32.
    low -= 1e-4
    if low <= 0.0:
        return False
    nx = sign * (turn[0, 0] * slab[0] + turn[1, 0] * slab[1] + turn[2, 0] * slab[2])
    ny = sign * (turn[0, 1] * slab[0] + turn[1, 1] * slab[1] + turn[2, 1] * slab[2])
    nz = sign * (turn[0, 2] * slab[0] + turn[1, 2] * slab[1] + turn[2, 2] * slab[2])
    for y in range(box[2], box[3] + 1):
        end = start[y * columns + box[1] + 1]
        for k in range(start[y * columns + box[0]], end, LANES):
            if reaching(depth, ray_u, ray_v, k, end - k, nx, ny, nz, low) != 0:
                return False
    return True


@compiled
def farthest_nearby(depth: FloatArray, start: IntArray, rows: int, columns: int) -> FloatArray:
    """For each cell of a grid, the greatest depth of the rays in the 3 x 3 cells from it on, to the right and down."""
    own = np.full((rows + 2, columns + 2), -np.inf, np.float32)
    for i in range(rows):
        for j in range(columns):
            for k in range(start[i * columns + j], start[i * columns + j + 1]):
                own[i, j] = max(own[i, j], depth[k])
    for i in range(rows):
        for j in range(columns):
            own[i, j] = max(own[i, j], max(own[i, j + 1], own[i, j + 2]))
    result = np.empty(rows * columns, np.float32)
    for i in range(rows):
        for j in range(columns):
            result[i * columns + j] = max(own[i, j], max(own[i + 1, j], own[i + 2, j]))
    return result
