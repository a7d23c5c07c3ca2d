"""Rays from one point to surface points: exact visibility by scan conversion in ray space, compiled.

All primary rays of a camera start at its centre and all shadow rays of a point light at the light. For such a pencil
of rays no tree is needed: each triangle is turned into three planes through the common origin (Olano and Greer,
"Triangle Scan Conversion using 2D Homogeneous Coordinates", 1997) and tested against the few rays near it. The test
is the ray-triangle test itself, so depth is as exact as with a ray caster, for any lens: the rays of a distorted image
only have to be sorted into a grid once, so that the rays near a triangle are found.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.mesh import Mesh

if TYPE_CHECKING:
    from endolux.phantom.pose import Pose

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]

_NEAR_MM = 1e-3
_FACES_A_CELL = 96
_MAX_CELLS_A_SIDE = 96
_MAX_LOOKED_AT = 4000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RayGrid:
    """N rays (u, v, 1) from one origin, sorted into a grid so that those near a triangle are found.

    Attributes:
        u, v: N ray slopes x/z and y/z in grid order.
        column_at, row_at: N grid coordinates of those rays.
        order: N positions of those rays in the caller's order.
        start: rows * columns + 1; the rays of cell k are ``start[k]:start[k + 1]``.
        rows, columns: size of the grid.
        linear: whether grid coordinates are linear in the slopes, else they are linear in slope/(1 + |slope|).
        tight: whether every ray lies at a whole grid coordinate; ``column_at`` and ``row_at`` are then not filled.
        scale: multipliers (columns, rows) and offsets (columns, rows) that turn slopes into grid coordinates.
        edge_u, edge_v: slopes at the boundaries of the columns and rows.
    """

    u: FloatArray
    v: FloatArray
    column_at: FloatArray
    row_at: FloatArray
    order: IntArray
    start: IntArray
    rows: int
    columns: int
    linear: bool
    tight: bool
    scale: DoubleArray
    edge_u: DoubleArray
    edge_v: DoubleArray

    @property
    def count(self) -> int:
        """Number of rays."""
        return int(self.u.size)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Nearest surface along each ray, in the caller's order.

    Attributes:
        depth_mm: N along z; infinite where nothing was met.
        face: N index into ``Raster.faces``, -1 where nothing was met.
        u, v: N barycentric coordinates of the second and third corner.
        local: V x 3 vertices in the axes of the pencil, for shading.
    """

    depth_mm: FloatArray
    face: IntArray
    u: FloatArray
    v: FloatArray
    local: FloatArray


def grid_of_image(u: FloatArray, v: FloatArray) -> RayGrid:
    """The rays of a pinhole image: u a column, v a row, both rising in even steps.

    Example:
        >>> import numpy as np
        >>> axis = np.linspace(-1, 1, 5, dtype=np.float32)
        >>> grid_of_image(axis, axis).count
        25
    """
    columns, rows = u.size, v.size
    step_u = (float(u[-1]) - float(u[0])) / (columns - 1) if columns > 1 else 1.0
    step_v = (float(v[-1]) - float(v[0])) / (rows - 1) if rows > 1 else 1.0
    scale = np.array([1 / step_u, 1 / step_v, -float(u[0]) / step_u, -float(v[0]) / step_v])
    count = rows * columns
    return RayGrid(
        u=np.tile(u.astype(np.float32), rows),
        v=np.repeat(v.astype(np.float32), columns),
        column_at=np.zeros(1, np.float32),
        row_at=np.zeros(1, np.float32),
        order=np.arange(count, dtype=np.int32),
        start=np.arange(count + 1, dtype=np.int32),
        rows=rows,
        columns=columns,
        linear=True,
        tight=True,
        scale=scale,
        edge_u=np.asarray(float(u[0]) + (np.arange(columns + 1) - 0.5) * step_u, np.float64),
        edge_v=np.asarray(float(v[0]) + (np.arange(rows + 1) - 0.5) * step_v, np.float64),
    )


def grid_of_rays(u: FloatArray, v: FloatArray) -> RayGrid:
    """Any rays (u, v, 1); those with a slope that is not finite meet nothing.

    Args:
        u: N slopes x/z.
        v: N slopes y/z.

    Example:
        >>> import numpy as np
        >>> grid_of_rays(np.array([0.1, np.nan], np.float32), np.zeros(2, np.float32)).count
        1
    """
    usable = np.flatnonzero(np.isfinite(u) & np.isfinite(v))
    if usable.size == 0:
        usable, u, v = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.float32)
    own_u, own_v = u[usable].astype(np.float64), v[usable].astype(np.float64)
    squashed_u, squashed_v = own_u / (1 + np.abs(own_u)), own_v / (1 + np.abs(own_v))
    low_u, low_v = squashed_u.min(), squashed_v.min()
    span_u, span_v = max(squashed_u.max() - low_u, 1e-6), max(squashed_v.max() - low_v, 1e-6)
    # About one ray a cell.
    columns = int(np.clip(math.sqrt(usable.size * span_u / span_v), 1, 2048))
    rows = int(np.clip(usable.size / columns, 1, 2048))
    step_u, step_v = span_u * (1 + 1e-9) / columns, span_v * (1 + 1e-9) / rows
    # Cell k covers grid coordinates k - 0.5 .. k + 0.5, as pixels do.
    scale = np.array([1 / step_u, 1 / step_v, -low_u / step_u - 0.5, -low_v / step_v - 0.5])
    column_at, row_at = squashed_u * scale[0] + scale[2], squashed_v * scale[1] + scale[3]
    order, start = _sorted_into_cells(column_at, row_at, rows, columns)
    edge_u = low_u + np.arange(columns + 1) * step_u
    edge_v = low_v + np.arange(rows + 1) * step_v
    return RayGrid(
        u=own_u[order].astype(np.float32),
        v=own_v[order].astype(np.float32),
        column_at=column_at[order].astype(np.float32),
        row_at=row_at[order].astype(np.float32),
        order=usable[order].astype(np.int32),
        start=start,
        rows=rows,
        columns=columns,
        linear=False,
        tight=False,
        scale=scale,
        edge_u=edge_u / (1 - np.minimum(np.abs(edge_u), 1 - 1e-9)),
        edge_v=edge_v / (1 - np.minimum(np.abs(edge_v), 1 - 1e-9)),
    )


class Raster:
    """A mesh prepared for pencils of rays.

    Attributes:
        faces: F x 3 vertex indices, grouped by place; ``Seen.face`` counts in this order.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._vertices = np.ascontiguousarray(mesh.vertices, np.float32)
        faces = np.ascontiguousarray(mesh.faces, np.int32)
        centre, low, side, shape = _cells_of(self._vertices, faces)
        order, self._first = _sorted_into_voxels(centre, low, side, shape)
        self.faces: IntArray = np.ascontiguousarray(faces[order])
        self._spheres: FloatArray = _bounding_spheres(self._vertices, self.faces, self._first)

    def moved(self, vertices: FloatArray) -> Raster:
        """The same faces in the same order, with other places of their corners.

        Args:
            vertices: V x 3 mm; the less they have moved, the better faces stay grouped by place.
        """
        other = object.__new__(Raster)
        other._vertices = np.ascontiguousarray(vertices, np.float32)
        other._first, other.faces = self._first, self.faces
        other._spheres = _bounding_spheres(other._vertices, other.faces, other._first)
        return other

    def cast(
        self,
        grid: RayGrid,
        pose: Pose,
        *,
        limit_mm: FloatArray | None = None,
        rays: int | None = None,
    ) -> Seen:
        """Nearest surface along each ray of a pencil.

        Args:
            grid: the rays.
            pose: 4 x 4 to world; its translation is the common origin.
            limit_mm: depth along z beyond which surfaces are ignored, one a ray in the caller's order.
            rays: number of rays in the caller's order; the size of the grid by default.
        """
        turn = np.ascontiguousarray(pose[:3, :3], np.float64)
        eye = np.ascontiguousarray(pose[:3, 3], np.float64)
        local = np.empty(self._vertices.shape, np.float32)
        where = np.empty((len(local), 2), np.float32)
        _transform(self._vertices, turn, eye, grid.linear, grid.scale, local, where)
        cells, distance, nearest, box = _visible_cells(
            self._spheres, turn, eye, grid.linear, grid.scale, grid.edge_u, grid.edge_v
        )
        depth = np.full(grid.count, np.inf, np.float32)
        if limit_mm is not None:
            depth[:] = limit_mm[grid.order]
        face = np.full(grid.count, -1, np.int32)
        u, v = np.zeros(grid.count, np.float32), np.zeros(grid.count, np.float32)
        _cast(
            np.argsort(distance, kind="stable"),
            cells,
            nearest,
            box,
            self._first,
            self.faces,
            local,
            where,
            grid.linear,
            grid.tight,
            grid.scale,
            grid.edge_u,
            grid.edge_v,
            grid.start,
            grid.column_at,
            grid.row_at,
            grid.u,
            grid.v,
            depth,
            face,
            u,
            v,
        )
        total = grid.count if rays is None else rays
        if grid.tight and total == grid.count:
            return Seen(depth, face, u, v, local)
        seen = Seen(
            np.full(total, np.inf, np.float32),
            np.full(total, -1, np.int32),
            np.zeros(total, np.float32),
            np.zeros(total, np.float32),
            local,
        )
        _scatter(grid.order, depth, face, u, v, seen.depth_mm, seen.face, seen.u, seen.v)
        return seen

    def visible(
        self, points: FloatArray, light: tuple[float, float, float], pose: Pose, *, slack: float = 0.985
    ) -> npt.NDArray[np.bool_]:
        """Whether the light sees each point.

        Args:
            points: N x 3 in the axes of ``pose``; points that are not finite count as seen.
            light: position in the axes of ``pose``. It shines into the half space z > light z.
            pose: 4 x 4 to world.
            slack: share of the way to the point that must be free, so that a surface does not hide itself.
        """
        at = pose.copy()
        at[:3, 3] = pose[:3, :3] @ np.asarray(light, np.float64) + pose[:3, 3]
        u, v, limit = _slopes(points, np.asarray(light, np.float32), np.float32(slack))
        if not np.isfinite(u).any():
            return np.ones(len(points), bool)
        seen = self.cast(grid_of_rays(u, v), at, limit_mm=limit, rays=len(points))
        return np.asarray(seen.face < 0)


@compiled
def _slopes(points: FloatArray, light: FloatArray, slack: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    count = points.shape[0]
    u = np.empty(count, np.float32)
    v = np.empty(count, np.float32)
    limit = np.empty(count, np.float32)
    for k in range(count):
        z = points[k, 2] - light[2]
        if z > 0.01 and z < 1e30:
            u[k] = (points[k, 0] - light[0]) / z
            v[k] = (points[k, 1] - light[1]) / z
            limit[k] = slack * z
        else:
            u[k] = np.nan
            v[k] = np.nan
            limit[k] = 0.0
    return u, v, limit


@compiled
def _sorted_into_cells(
    column_at: DoubleArray, row_at: DoubleArray, rows: int, columns: int
) -> tuple[IntArray, IntArray]:
    """Counting sort of points by grid cell."""
    count = column_at.size
    cell = np.empty(count, np.int32)
    start = np.zeros(rows * columns + 1, np.int32)
    for k in range(count):
        i = min(max(math.floor(row_at[k] + 0.5), 0), rows - 1)
        j = min(max(math.floor(column_at[k] + 0.5), 0), columns - 1)
        cell[k] = i * columns + j
        start[cell[k] + 1] += 1
    for c in range(rows * columns):
        start[c + 1] += start[c]
    order = np.empty(count, np.int32)
    fill = start[:-1].copy()
    for k in range(count):
        order[fill[cell[k]]] = k
        fill[cell[k]] += 1
    return order, start


@compiled
def _cells_of(
    vertices: FloatArray, faces: IntArray
) -> tuple[FloatArray, npt.NDArray[np.float64], float, npt.NDArray[np.int64]]:
    """Face centres, and the voxel grid that holds about the wanted number of faces a cell."""
    count = faces.shape[0]
    centre = np.empty((count, 3), np.float32)
    area = 0.0
    low = np.full(3, 1e30)
    high = np.full(3, -1e30)
    for f in range(count):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        square = 0.0
        for x in range(3):
            centre[f, x] = (vertices[a, x] + vertices[b, x] + vertices[c, x]) / np.float32(3.0)
            low[x] = min(low[x], centre[f, x])
            high[x] = max(high[x], centre[f, x])
            y = (x + 1) % 3
            e1x, e1y = vertices[b, x] - vertices[a, x], vertices[b, y] - vertices[a, y]
            e2x, e2y = vertices[c, x] - vertices[a, x], vertices[c, y] - vertices[a, y]
            square += (e1x * e2y - e1y * e2x) ** 2
        area += 0.5 * math.sqrt(square)
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
def _bounding_spheres(vertices: FloatArray, faces: IntArray, first: IntArray) -> FloatArray:
    """C x 4 centre and radius of each cell's faces."""
    spheres = np.empty((first.size - 1, 4), np.float32)
    for c in range(first.size - 1):
        square = 0.0
        for x in range(3):
            low, high = 1e30, -1e30
            for f in range(first[c], first[c + 1]):
                for corner in range(3):
                    value = vertices[faces[f, corner], x]
                    low, high = min(low, value), max(high, value)
            spheres[c, x] = 0.5 * (low + high)
            square += (0.5 * (high - low)) ** 2
        spheres[c, 3] = math.sqrt(square) * 1.001 + 1e-4
    return spheres


@compiled
def _visible_cells(
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
        if high_z <= _NEAR_MM:
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
        if low_z > _NEAR_MM:
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
def _transform(
    vertices: FloatArray,
    turn: DoubleArray,
    eye: DoubleArray,
    linear: bool,
    scale: DoubleArray,
    local: FloatArray,
    where: FloatArray,
) -> None:
    """Vertices into the axes of the pencil, and their grid coordinates where they lie in front."""
    for k in range(vertices.shape[0]):
        dx, dy, dz = vertices[k, 0] - eye[0], vertices[k, 1] - eye[1], vertices[k, 2] - eye[2]
        x = turn[0, 0] * dx + turn[1, 0] * dy + turn[2, 0] * dz
        y = turn[0, 1] * dx + turn[1, 1] * dy + turn[2, 1] * dz
        z = turn[0, 2] * dx + turn[1, 2] * dy + turn[2, 2] * dz
        local[k, 0], local[k, 1], local[k, 2] = x, y, z
        if z > _NEAR_MM:
            if linear:
                where[k, 0] = x / z * scale[0] + scale[2]
                where[k, 1] = y / z * scale[1] + scale[3]
            else:
                where[k, 0] = x / (z + abs(x)) * scale[0] + scale[2]
                where[k, 1] = y / (z + abs(y)) * scale[1] + scale[3]


@compiled
def _box_of_clipped(
    local: FloatArray, a: int, b: int, c: int, linear: bool, scale: DoubleArray
) -> tuple[float, float, float, float]:
    """Grid box of a triangle that crosses the near plane."""
    low_x, high_x, low_y, high_y = 1e9, -1e9, 1e9, -1e9
    for k in range(3):
        p, q = (a, b) if k == 0 else (b, c) if k == 1 else (c, a)
        pz, qz = np.float64(local[p, 2]), np.float64(local[q, 2])
        for cut in range(2):
            if cut:
                if (pz > _NEAR_MM) == (qz > _NEAR_MM):
                    continue
                t = (_NEAR_MM - pz) / (qz - pz)
                x = local[p, 0] + t * (local[q, 0] - local[p, 0])
                y = local[p, 1] + t * (local[q, 1] - local[p, 1])
                z = _NEAR_MM
            else:
                if pz <= _NEAR_MM:
                    continue
                x, y, z = np.float64(local[p, 0]), np.float64(local[p, 1]), pz
            gx = (x / z if linear else x / (z + abs(x))) * scale[0] + scale[2]
            gy = (y / z if linear else y / (z + abs(y))) * scale[1] + scale[3]
            low_x, high_x = min(low_x, gx), max(high_x, gx)
            low_y, high_y = min(low_y, gy), max(high_y, gy)
    return low_x, high_x, low_y, high_y


@compiled
def _is_hidden(nearest: float, box: IntArray, columns: int, start: IntArray, depth: FloatArray) -> bool:
    """Whether every ray of a box already ends before a depth; boxes of many rays are not looked at."""
    if (box[1] - box[0] + 1) * (box[3] - box[2] + 1) > _MAX_LOOKED_AT:
        return False
    for y in range(box[2], box[3] + 1):
        for k in range(start[y * columns + box[0]], start[y * columns + box[1] + 1]):
            if depth[k] > nearest:
                return False
    return True


@compiled
def _cast(
    order: npt.NDArray[np.int64],
    cells: IntArray,
    nearest: FloatArray,
    box: IntArray,
    first: IntArray,
    faces: IntArray,
    local: FloatArray,
    where: FloatArray,
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
    depth: FloatArray,
    face: IntArray,
    bary_u: FloatArray,
    bary_v: FloatArray,
) -> None:
    """Lower ``depth`` to the nearest triangle along each ray. Sums in float64: neighbours must not leave cracks."""
    columns, rows = edge_u.size - 1, edge_v.size - 1
    last_x, last_y = columns - 1.0, rows - 1.0
    # Rounding of grid coordinates, which are float32.
    loose = 1e-3
    for number in order:
        cell = cells[number]
        if _is_hidden(nearest[number], box[number], columns, start, depth):
            continue
        for f in range(first[cell], first[cell + 1]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            az, bz, cz = np.float64(local[a, 2]), np.float64(local[b, 2]), np.float64(local[c, 2])
            if az > _NEAR_MM and bz > _NEAR_MM and cz > _NEAR_MM:
                low_x = float(min(where[a, 0], where[b, 0], where[c, 0]))
                high_x = float(max(where[a, 0], where[b, 0], where[c, 0]))
                low_y = float(min(where[a, 1], where[b, 1], where[c, 1]))
                high_y = float(max(where[a, 1], where[b, 1], where[c, 1]))
            elif az <= _NEAR_MM and bz <= _NEAR_MM and cz <= _NEAR_MM:
                continue
            else:
                low_x, high_x, low_y, high_y = _box_of_clipped(local, a, b, c, linear, scale)
            if high_x < -0.5 or low_x > last_x + 0.5 or high_y < -0.5 or low_y > last_y + 0.5:
                continue
            if tight:
                x0 = math.ceil(max(low_x - loose, 0.0))
                x1 = math.floor(min(high_x + loose, last_x))
                y0 = math.ceil(max(low_y - loose, 0.0))
                y1 = math.floor(min(high_y + loose, last_y))
            else:
                x0 = math.floor(max(low_x - loose + 0.5, 0.0))
                x1 = math.floor(min(high_x + loose + 0.5, last_x))
                y0 = math.floor(max(low_y - loose + 0.5, 0.0))
                y1 = math.floor(min(high_y + loose + 0.5, last_y))
            if x1 < x0 or y1 < y0:
                continue
            near = min(az, bz, cz)
            if x1 - x0 < 3 and y1 - y0 < 3:
                # Most triangles of a fine mesh are hidden behind what was drawn before, or lie between the rays:
                # that is cheap to see.
                skipped = True
                for y in range(y0, y1 + 1):
                    for k in range(start[y * columns + x0], start[y * columns + x1 + 1]):
                        if depth[k] > near and (
                            tight
                            or (
                                column_at[k] >= low_x - loose
                                and column_at[k] <= high_x + loose
                                and row_at[k] >= low_y - loose
                                and row_at[k] <= high_y + loose
                            )
                        ):
                            skipped = False
                            break
                    if not skipped:
                        break
                if skipped:
                    continue
            ax, ay = np.float64(local[a, 0]), np.float64(local[a, 1])
            bx, by = np.float64(local[b, 0]), np.float64(local[b, 1])
            cx, cy = np.float64(local[c, 0]), np.float64(local[c, 1])
            px, py, pz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
            qx, qy, qz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
            rx, ry, rz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            volume = ax * px + ay * py + az * pz
            if volume == 0.0:
                continue
            if volume < 0.0:
                volume = -volume
                px, py, pz, qx, qy, qz, rx, ry, rz = -px, -py, -pz, -qx, -qy, -qz, -rx, -ry, -rz
            wide = x1 - x0 > 6
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
                    left = max(left, math.floor(from_x * scale[0] + scale[2] + 0.5 - loose))
                    right = min(right, math.floor(to_x * scale[0] + scale[2] + 0.5 + loose))
                    if left > right:
                        continue
                for k in range(start[y * columns + left], start[y * columns + right + 1]):
                    u, v = np.float64(ray_u[k]), np.float64(ray_v[k])
                    p = u * px + v * py + pz
                    if p < 0.0:
                        continue
                    q = u * qx + v * qy + qz
                    if q < 0.0:
                        continue
                    r = u * rx + v * ry + rz
                    if r < 0.0:
                        continue
                    total = p + q + r
                    if total > 0.0 and volume < total * depth[k]:
                        depth[k] = volume / total
                        face[k] = f
                        bary_u[k] = q / total
                        bary_v[k] = r / total


@compiled
def _scatter(
    order: IntArray,
    depth: FloatArray,
    face: IntArray,
    u: FloatArray,
    v: FloatArray,
    depth_to: FloatArray,
    face_to: IntArray,
    u_to: FloatArray,
    v_to: FloatArray,
) -> None:
    for k in range(order.size):
        at = order[k]
        depth_to[at], face_to[at], u_to[at], v_to[at] = depth[k], face[k], u[k], v[k]
