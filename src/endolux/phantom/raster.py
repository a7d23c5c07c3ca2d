"""Rays from one point to surface points: exact visibility by scan conversion in ray space.

All primary rays of a camera start at its centre and all shadow rays of a point light at the light. For such a pencil
of rays no tree is needed: each triangle is tested against the few rays near it (``endolux.phantom.scan``), for any
lens: the rays of a distorted image only have to be sorted into a grid once (``endolux.phantom.pencils``), so that the
rays near a triangle are found.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from endolux.phantom.clusters import Clusters
from endolux.phantom.compile import compiled
from endolux.phantom.culling import farthest_nearby, visible_cells
from endolux.phantom.lanes import LANES
from endolux.phantom.mesh import Mesh
from endolux.phantom.pencils import RayGrid as RayGrid
from endolux.phantom.pencils import grid_of_image as grid_of_image
from endolux.phantom.pencils import grid_of_rays as grid_of_rays
from endolux.phantom.scan import scan

if TYPE_CHECKING:
    from endolux.phantom.pose import Pose

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Nearest surface along each ray, in the caller's order.

    Attributes:
        depth_mm: N along z; infinite where nothing was met.
        face: N index into ``Raster.faces``, -1 where nothing was met.
        u, v: N barycentric coordinates of the second and third corner.
    """

    depth_mm: FloatArray
    face: IntArray
    u: FloatArray
    v: FloatArray


class Raster:
    """A mesh prepared for pencils of rays."""

    def __init__(self, mesh: Mesh) -> None:
        self._vertices = np.ascontiguousarray(mesh.vertices, np.float32)
        self._clusters = Clusters.of(self._vertices, np.ascontiguousarray(mesh.faces, np.int32))

    @property
    def faces(self) -> IntArray:
        """F x 3 vertex indices, grouped by place; ``Seen.face`` counts in this order."""
        return self._clusters.faces

    def moved(self, vertices: FloatArray) -> Raster:
        """The same faces in the same order, with other places of their corners.

        Args:
            vertices: V x 3 mm; the less they have moved, the better faces stay grouped by place.
        """
        other = object.__new__(Raster)
        other._vertices = np.ascontiguousarray(vertices, np.float32)
        other._clusters = self._clusters.moved(other._vertices)
        return other

    def local(self, pose: Pose) -> FloatArray:
        """V x 3 mm, the vertices in the axes of a pose (4 x 4 to world)."""
        return _local(self._vertices, *_turn_and_eye(pose))

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
        own = self._scanned(grid, pose, limit_mm, any_hit=False)
        total = grid.count if rays is None else rays
        if grid.tight and total == grid.count:
            return own
        seen = Seen(
            np.full(total, np.inf, np.float32),
            np.full(total, -1, np.int32),
            np.zeros(total, np.float32),
            np.zeros(total, np.float32),
        )
        _scatter(grid.order, own.depth_mm, own.face, own.u, own.v, seen.depth_mm, seen.face, seen.u, seen.v)
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
        u, v, limit = _slopes(points, np.asarray(light, np.float32), np.float32(slack))
        return ~self.blocked(u, v, limit, light, pose)

    def blocked(
        self, u: FloatArray, v: FloatArray, limit_mm: FloatArray, light: tuple[float, float, float], pose: Pose
    ) -> npt.NDArray[np.bool_]:
        """Whether anything stands in the way of N rays from a light.

        Args:
            u: N slopes x/z in the axes of ``pose``; rays whose slopes are not finite are free.
            v: N slopes y/z.
            limit_mm: N lengths along z up to which the way must be free.
            light: position in the axes of ``pose``.
            pose: 4 x 4 to world.
        """
        blocked = np.zeros(u.size, bool)
        if not np.isfinite(u).any():
            return blocked
        at = pose.copy()
        at[:3, 3] = pose[:3, :3] @ np.asarray(light, np.float64) + pose[:3, 3]
        grid = grid_of_rays(u, v)
        blocked[grid.order] = self._scanned(grid, at, limit_mm, any_hit=True).face >= 0
        return blocked

    def _scanned(self, grid: RayGrid, pose: Pose, limit_mm: FloatArray | None, *, any_hit: bool) -> Seen:
        """What the rays meet, in the order of the grid."""
        turn, eye = _turn_and_eye(pose)
        clusters = self._clusters
        cells, distance, nearest, boxes = visible_cells(
            clusters.spheres, turn, eye, grid.linear, grid.scale, grid.edge_u, grid.edge_v
        )
        count, total = grid.count, grid.count + LANES
        depth = np.full(total, np.inf, np.float32)
        if limit_mm is not None:
            depth[:count] = limit_mm[grid.order]
        face = np.full(total, -1, np.int32)
        # Nobody asks where a ray is blocked.
        u, v = (np.zeros(LANES if any_hit else total, np.float32) for _ in range(2))
        # Ends of rays do not move while it is asked whether anything is before them.
        farthest = farthest_nearby(depth, grid.start, grid.rows, grid.columns) if any_hit else u
        scan(
            np.argsort(distance, kind="stable"),
            cells,
            nearest,
            boxes,
            clusters.first,
            clusters.own,
            clusters.corner_first,
            clusters.points,
            clusters.slabs,
            turn,
            eye,
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
            any_hit,
            farthest,
            depth,
            face,
            u,
            v,
        )
        return Seen(depth[:count], face[:count], u[:count], v[:count])


def _turn_and_eye(pose: Pose) -> tuple[DoubleArray, DoubleArray]:
    return np.ascontiguousarray(pose[:3, :3], np.float64), np.ascontiguousarray(pose[:3, 3], np.float64)


@compiled
def _local(vertices: FloatArray, turn: DoubleArray, eye: DoubleArray) -> FloatArray:
    local = np.empty(vertices.shape, np.float32)
    for k in range(vertices.shape[0]):
        dx, dy, dz = vertices[k, 0] - eye[0], vertices[k, 1] - eye[1], vertices[k, 2] - eye[2]
        local[k, 0] = turn[0, 0] * dx + turn[1, 0] * dy + turn[2, 0] * dz
        local[k, 1] = turn[0, 1] * dx + turn[1, 1] * dy + turn[2, 1] * dz
        local[k, 2] = turn[0, 2] * dx + turn[1, 2] * dy + turn[2, 2] * dz
    return local


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
