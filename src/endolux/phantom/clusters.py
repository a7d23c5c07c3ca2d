"""A mesh cut into clusters of neighbouring triangles, so that what cannot be seen is passed over at once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]

NEAR_MM = 1e-3
"""Nothing nearer than this to the common origin of the rays is met."""

_FACES_A_CELL = 96
_MAX_CELLS_A_SIDE = 96
_SAMPLED_FACES = 20000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Triangles grouped by place, each group with corners of its own.

    Attributes:
        faces: F x 3 vertex indices, group after group.
        first: C + 1; the faces of group c are ``first[c]:first[c + 1]``.
        own: F x 3 the same corners, counted within their group.
        corner_first: C + 1; the corners of group c are ``corner_first[c]:corner_first[c + 1]``.
        corners: M vertex indices.
        points: 3 x M mm, where those vertices are.
        spheres: C x 4 centre and radius around each group.
        slabs: C x 5 mean direction n of the faces, and the range of n . x over the group.
    """

    faces: IntArray
    first: IntArray
    own: IntArray
    corner_first: IntArray
    corners: IntArray
    points: FloatArray
    spheres: FloatArray
    slabs: DoubleArray

    @classmethod
    def of(cls, vertices: FloatArray, faces: IntArray) -> Clusters:
        """Group the triangles of a mesh.

        Example:
            >>> corners = np.zeros((3, 3), np.float32)
            >>> Clusters.of(corners, np.array([[0, 1, 2]], np.int32)).corners.tolist()
            [0, 1, 2]
        """
        centre, low, side, shape = _cells_of(vertices, faces)
        order, first = _sorted_into_voxels(centre, low, side, shape)
        sorted_faces = np.ascontiguousarray(faces[order])
        own, corner_first, corners = _own_corners(sorted_faces, first, len(vertices))
        points = _points_at(vertices, corners)
        spheres, slabs = _bounds(points, own, first, corner_first)
        return cls(sorted_faces, first, own, corner_first, corners, points, spheres, slabs)

    def moved(self, vertices: FloatArray) -> Clusters:
        """The same groups with other places of their vertices, V x 3 mm."""
        points = _points_at(vertices, self.corners)
        spheres, slabs = _bounds(points, self.own, self.first, self.corner_first)
        return dataclasses.replace(self, points=points, spheres=spheres, slabs=slabs)


@compiled
def _cells_of(
    vertices: FloatArray, faces: IntArray
) -> tuple[FloatArray, npt.NDArray[np.float64], float, npt.NDArray[np.int64]]:
    """Face centres, and the voxel grid that holds about the wanted number of faces a cell."""
    count = faces.shape[0]
    centre = np.empty((count, 3), np.float32)
    low = np.full(3, 1e30)
    high = np.full(3, -1e30)
    for f in range(count):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        for x in range(3):
            centre[f, x] = (vertices[a, x] + vertices[b, x] + vertices[c, x]) / np.float32(3.0)
            low[x] = min(low[x], centre[f, x])
            high[x] = max(high[x], centre[f, x])
    area = 0.0
    # Some of the faces are enough to know their mean area.
    step = max(count // _SAMPLED_FACES, 1)
    for f in range(0, count, step):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        square = 0.0
        for x in range(3):
            y = (x + 1) % 3
            e1x, e1y = vertices[b, x] - vertices[a, x], vertices[b, y] - vertices[a, y]
            e2x, e2y = vertices[c, x] - vertices[a, x], vertices[c, y] - vertices[a, y]
            square += (e1x * e2y - e1y * e2x) ** 2
        area += 0.5 * math.sqrt(square) * step
    side = math.sqrt(area * _FACES_A_CELL / max(count, 1))
    widest = 0.0
    for x in range(3):
        widest = max(widest, high[x] - low[x])
    side = max(side, widest / _MAX_CELLS_A_SIDE, 1e-3)
    shape = np.empty(3, np.int64)
    for x in range(3):
        shape[x] = int((high[x] - low[x]) / side) + 1
    return centre, low, side, shape


@compiled
def _sorted_into_voxels(
    centre: FloatArray, low: npt.NDArray[np.float64], side: float, shape: npt.NDArray[np.int64]
) -> tuple[IntArray, IntArray]:
    """Faces sorted by voxel, and where each voxel that holds any starts."""
    count = centre.shape[0]
    cell = np.empty(count, np.int32)
    total = shape[0] * shape[1] * shape[2]
    start = np.zeros(total + 1, np.int32)
    for f in range(count):
        at = 0
        for x in range(3):
            at = at * shape[x] + min(int((centre[f, x] - low[x]) / side), shape[x] - 1)
        cell[f] = at
        start[at + 1] += 1
    used = 0
    for c in range(total):
        used += start[c + 1] > 0
        start[c + 1] += start[c]
    first = np.empty(used + 1, np.int32)
    k = 0
    for c in range(total):
        if start[c + 1] > start[c]:
            first[k] = start[c]
            k += 1
    first[used] = count
    order = np.empty(count, np.int32)
    fill = start[:-1].copy()
    for f in range(count):
        order[fill[cell[f]]] = f
        fill[cell[f]] += 1
    return order, first


@compiled
def _own_corners(faces: IntArray, first: IntArray, vertices: int) -> tuple[IntArray, IntArray, IntArray]:
    """The corners of faces as numbers within their group; where each group's corners start; their vertices."""
    own = np.empty((faces.shape[0], 3), np.int32)
    corners = np.empty(3 * faces.shape[0], np.int32)
    corner_first = np.empty(first.size, np.int32)
    # Of each vertex, the group that met it last and its number there.
    group = np.full(vertices, -1, np.int32)
    number = np.empty(vertices, np.int32)
    filled = 0
    for c in range(first.size - 1):
        corner_first[c] = filled
        for f in range(first[c], first[c + 1]):
            for x in range(3):
                vertex = faces[f, x]
                if group[vertex] != c:
                    group[vertex] = c
                    number[vertex] = filled - corner_first[c]
                    corners[filled] = vertex
                    filled += 1
                own[f, x] = number[vertex]
    corner_first[first.size - 1] = filled
    return own, corner_first, corners[:filled].copy()


@compiled
def _points_at(vertices: FloatArray, corners: IntArray) -> FloatArray:
    points = np.empty((3, corners.size), np.float32)
    for k in range(corners.size):
        for x in range(3):
            points[x, k] = vertices[corners[k], x]
    return points


@compiled
def _bounds(
    points: FloatArray, own: IntArray, first: IntArray, corner_first: IntArray
) -> tuple[FloatArray, DoubleArray]:
    """Spheres and slabs of all groups."""
    spheres = np.empty((first.size - 1, 4), np.float32)
    slabs = np.empty((first.size - 1, 5))
    for c in range(first.size - 1):
        begin, end = corner_first[c], corner_first[c + 1]
        square = 0.0
        for x in range(3):
            low, high = 1e30, -1e30
            for k in range(begin, end):
                low, high = min(low, points[x, k]), max(high, points[x, k])
            spheres[c, x] = 0.5 * (low + high)
            square += (0.5 * (high - low)) ** 2
        spheres[c, 3] = math.sqrt(square) * 1.001 + 1e-4
        nx, ny, nz = 0.0, 0.0, 0.0
        for f in range(first[c], first[c + 1]):
            i, j, k = begin + own[f, 0], begin + own[f, 1], begin + own[f, 2]
            ax, ay, az = points[0, j] - points[0, i], points[1, j] - points[1, i], points[2, j] - points[2, i]
            bx, by, bz = points[0, k] - points[0, i], points[1, k] - points[1, i], points[2, k] - points[2, i]
            nx += ay * bz - az * by
            ny += az * bx - ax * bz
            nz += ax * by - ay * bx
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        scale = 1.0 / length if length > 0.0 else 0.0
        nx, ny, nz = nx * scale, ny * scale, nz * scale
        low, high = 1e30, -1e30
        for k in range(begin, end):
            along = nx * points[0, k] + ny * points[1, k] + nz * points[2, k]
            low, high = min(low, along), max(high, along)
        slabs[c, 0], slabs[c, 1], slabs[c, 2], slabs[c, 3], slabs[c, 4] = nx, ny, nz, low, high
    return spheres, slabs
