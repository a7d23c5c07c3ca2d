"""Rays to surface points, by embree."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.errors import missing_extra
from endolux.phantom.mesh import Mesh

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Hits:
    """Nearest intersections of N rays.

    Attributes:
        distance: N, in lengths of the ray direction; infinite where nothing was hit.
        face: N triangle index, -1 where nothing was hit.
        u, v: N barycentric coordinates of the second and third corner.
    """

    distance: FloatArray
    face: npt.NDArray[np.int32]
    u: FloatArray
    v: FloatArray


class RayCaster:
    """A mesh prepared for ray queries."""

    def __init__(self, mesh: Mesh) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise missing_extra("embreex", "phantom") from error
        self._scene = EmbreeScene()
        # The scene keeps no reference of its own to the geometry.
        self._geometry = TriangleMesh(self._scene, mesh.vertices, mesh.faces)

    def nearest(self, origins: FloatArray, directions: FloatArray) -> Hits:
        """Nearest hit of each ray; both arguments N x 3."""
        found = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), output=1
        )
        missed = found["primID"] < 0
        distance = np.where(missed, np.float32(np.inf), found["tfar"])
        return Hits(distance, found["primID"], found["u"], found["v"])

    def visible(self, points: FloatArray, light: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether the segment from each point (N x 3) to the light (3) is free."""
        # Rays start at the light: a start on the surface would hit the surface itself.
        directions = points - light[None]
        found = self.nearest(np.broadcast_to(light, points.shape), directions)
        return np.asarray(found.distance > 0.985)
