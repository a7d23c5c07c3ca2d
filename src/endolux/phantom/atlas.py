"""Textures of tissues and attributes of vertices, laid out in memory for shading."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.mesh import Mesh
from endolux.phantom.tissue import Tissue

FloatArray = npt.NDArray[np.float32]

_CHANNELS = 8
_F0 = np.float32(0.0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """The textures of several tissues side by side, texel by texel.

    Attributes:
        texels: T x 8 float32: red, green, blue, roughness, height in mm, unused (3).
        tiles: D x 1 float32 fine relief, one tile after the other.
        places: K x 5 int64: first texel, rows, columns, first tile value, side of the tile.
        numbers: K x 6 float32: size_mm (2), detail_mm, detail_height_mm, detail_albedo, specular.
    """

    texels: FloatArray
    tiles: FloatArray
    places: npt.NDArray[np.int64]
    numbers: FloatArray


def pack(tissues: tuple[Tissue, ...]) -> Atlas:
    """Lay the textures of tissues out for shading.

    Example:
        >>> import numpy as np
        >>> from endolux.phantom.tissue import sample_tissue
        >>> pack((sample_tissue(np.random.default_rng(0), shape=(64, 32), texel_mm=(1.0, 1.0)),)).texels.shape
        (2048, 8)
    """
    sizes = [tissue.height_mm.size for tissue in tissues]
    texels = np.empty((sum(sizes), _CHANNELS), np.float32)
    tiles = np.concatenate([tissue.detail.reshape(-1) for tissue in tissues]).astype(np.float32)
    places = np.zeros((len(tissues), 5), np.int64)
    numbers = np.zeros((len(tissues), 6), np.float32)
    at, tile_at = 0, 0
    for k, tissue in enumerate(tissues):
        rows, columns = tissue.height_mm.shape
        places[k] = at, rows, columns, tile_at, tissue.detail.shape[0]
        _pack_one(
            texels[at : at + sizes[k]],
            np.ascontiguousarray(tissue.albedo, np.float32).reshape(-1, 3),
            np.ascontiguousarray(tissue.roughness, np.float32).reshape(-1),
            np.ascontiguousarray(tissue.height_mm, np.float32).reshape(-1),
        )
        numbers[k] = (
            *tissue.size_mm,
            tissue.detail_mm,
            tissue.detail_height_mm,
            tissue.detail_albedo,
            tissue.specular,
        )
        at += sizes[k]
        tile_at += tissue.detail.size
    return Atlas(texels, tiles, places, numbers)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """The vertex attributes of a mesh side by side, so that a vertex costs one access to memory.

    Attributes:
        values: V x 16 float32: normal (3), texture (2), planar (2), blend, detail (2), tint (3), unused (3).
        codes: V x 2 uint8: label, tissue.
    """

    values: FloatArray
    codes: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, mesh: Mesh) -> Skin:
        """The attributes of ``mesh``."""
        values = np.concatenate(
            (
                mesh.normals,
                mesh.texture,
                mesh.planar,
                mesh.blend[:, None],
                mesh.detail,
                mesh.tint,
                np.zeros((len(mesh.vertices), 3), np.float32),
            ),
            axis=1,
            dtype=np.float32,
        )
        return cls(values, np.stack([mesh.label, mesh.tissue], axis=1).astype(np.uint8))

    def turned(self, normals: FloatArray) -> Skin:
        """The same skin with other normals, V x 3."""
        values = self.values.copy()
        values[:, :3] = normals
        return Skin(values, self.codes)


@compiled
def _pack_one(texels: FloatArray, albedo: FloatArray, roughness: FloatArray, height: FloatArray) -> None:
    for k in range(height.size):
        texels[k, 0], texels[k, 1], texels[k, 2] = albedo[k, 0], albedo[k, 1], albedo[k, 2]
        texels[k, 3], texels[k, 4] = roughness[k], height[k]
        texels[k, 5], texels[k, 6], texels[k, 7] = _F0, _F0, _F0
