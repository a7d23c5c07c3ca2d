"""Triangle meshes with what shading needs at each vertex."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles in millimetres.

    Attributes:
        vertices: V x 3 positions.
        faces: F x 3 vertex indices, counter-clockwise seen from the side that is seen.
        normals: V x 3 unit normals towards the side that is seen.
        texture: V x 2 texture coordinates in [0, 1], periodic.
        planar: V x 2 second texture coordinates, used where the first pinch together.
        blend: V weight of the second coordinates in [0, 1].
        detail: V x 2 coordinates in millimetres for the repeated fine texture (of the first coordinates).
        tint: V x 3 factors on the albedo.
        label: V semantic class of the surface.
        tissue: V index into the scene's tissues; a face has that of its first corner. None: all 0.
    """

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray
    texture: FloatArray
    planar: FloatArray
    blend: FloatArray
    detail: FloatArray
    tint: FloatArray
    label: npt.NDArray[np.uint8]
    tissue: npt.NDArray[np.uint8] = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        if self.tissue is None:
            object.__setattr__(self, "tissue", np.zeros(len(self.vertices), np.uint8))


def grid_faces(rows: int, columns: int) -> IntArray:
    """Triangles of a rows x columns vertex grid (no wrap), seen from the side where rows x columns turns left.

    Example:
        >>> grid_faces(2, 2).tolist()
        [[0, 1, 2], [1, 3, 2]]
    """
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).reshape(-1)
    first = np.stack([corner, corner + 1, corner + columns], axis=1)
    second = np.stack([corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.concatenate([first, second]).astype(np.int32)


def grid_normals(points: FloatArray, *, wrap: bool) -> FloatArray:
    """Unit normals of a rows x columns x 3 grid: derivative along rows x derivative across columns.

    Args:
        points: rows x columns x 3. With ``wrap`` the first and last columns are the same points.
        wrap: whether columns close on themselves.
    """
    along = np.gradient(points, axis=0)
    if wrap:
        inner = points[:, :-1]
        across = np.roll(inner, -1, axis=1) - np.roll(inner, 1, axis=1)
        across = np.concatenate([across, across[:, :1]], axis=1)
    else:
        across = np.gradient(points, axis=1)
    normals = np.cross(along, across)
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals / np.maximum(lengths, 1e-12)
    # Where a row shrinks to one point it has no normal of its own: it takes its neighbours' mean.
    for row, neighbour in ((0, 1), (-1, -2)):
        if lengths[row].max() < 1e-6:
            mean = normals[neighbour].mean(axis=0)
            normals[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return np.asarray(normals, np.float32)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All meshes as one."""
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        vertices=np.ascontiguousarray(np.concatenate([mesh.vertices for mesh in meshes])),
        faces=np.concatenate([mesh.faces + offset for mesh, offset in zip(meshes, offsets, strict=True)]).astype(
            np.int32
        ),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
        texture=np.concatenate([mesh.texture for mesh in meshes]),
        planar=np.concatenate([mesh.planar for mesh in meshes]),
        blend=np.concatenate([mesh.blend for mesh in meshes]),
        detail=np.concatenate([mesh.detail for mesh in meshes]),
        tint=np.concatenate([mesh.tint for mesh in meshes]),
        label=np.concatenate([mesh.label for mesh in meshes]),
        tissue=np.concatenate([mesh.tissue for mesh in meshes]),
    )
