"""Polyps: sessile or stalked bodies growing from a wall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.fields import smooth_field
from endolux.phantom.mesh import Mesh, grid_faces, grid_normals

LABEL_POLYP = 2
_LATITUDES, _LONGITUDES = 26, 49


def build_polyp(
    rng: np.random.Generator,
    *,
    base: npt.NDArray[np.floating],
    normal: npt.NDArray[np.floating],
    radius_mm: float,
    stalk_mm: float,
    texture: tuple[float, float],
) -> list[Mesh]:
    """A polyp on a wall point.

    Args:
        rng: source of randomness.
        base: wall point, 3, millimetres.
        normal: unit normal of the wall into the lumen, 3.
        radius_mm: radius of the head.
        stalk_mm: length of the stalk, 0 for a sessile polyp.
        texture: texture coordinates of the base, so that colours match the surroundings.
    """
    tint = np.exp(rng.normal(0, 0.08, 3) + rng.choice((-1.0, 1.0)) * np.array([0.0, 0.15, 0.12]))
    squash = rng.uniform(0.55, 1.0)
    sink = stalk_mm if stalk_mm > 0 else radius_mm * squash * rng.uniform(-0.1, 0.5)
    axis: npt.NDArray[np.floating] = normal + 0.25 * rng.standard_normal(3).astype(np.float32)
    axis /= np.linalg.norm(axis)
    head = _body(
        rng, base + axis * sink, axis, radius_mm * np.array([1.0, rng.uniform(0.8, 1.2), squash]), tint, texture
    )
    if stalk_mm <= 0:
        return [head]
    neck = radius_mm * rng.uniform(0.25, 0.45)
    stalk = _body(rng, base + axis * stalk_mm * 0.5, axis, np.array([neck, neck, 0.75 * stalk_mm]), np.ones(3), texture)
    return [head, stalk]


def _body(
    rng: np.random.Generator,
    centre: npt.NDArray[np.floating],
    axis: npt.NDArray[np.floating],
    radii: npt.NDArray[np.floating],
    tint: npt.NDArray[np.floating],
    texture: tuple[float, float],
) -> Mesh:
    latitude = np.linspace(0, np.pi, _LATITUDES)[:, None]
    longitude = np.linspace(0, 2 * np.pi, _LONGITUDES)[None]
    helper = np.array([1.0, 0.0, 0.0]) if abs(axis[0]) < 0.8 else np.array([0.0, 1.0, 0.0])
    first: npt.NDArray[np.floating] = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    noise = smooth_field(rng, (2 * _LATITUDES, _LONGITUDES - 1), scale=(6.0, 12.0))[:_LATITUDES]
    lumps = np.concatenate([noise, noise[:, :1]], axis=1) * np.sin(latitude) * rng.uniform(0.02, 0.10)
    swell = 1.0 + lumps
    local = np.stack(
        [
            swell * np.sin(latitude) * np.cos(longitude) * radii[0],
            swell * np.sin(latitude) * np.sin(longitude) * radii[1],
            swell * np.cos(latitude) * radii[2] * np.ones_like(longitude),
        ],
        axis=-1,
    )
    basis = np.stack([first, second, axis], axis=0)
    grid = (centre + local @ basis).astype(np.float32)
    rows, columns = grid.shape[:2]
    count = rows * columns
    reach = np.stack([(1 - np.cos(latitude)) * np.ones_like(longitude), longitude + 0 * latitude], axis=-1)
    mm = (reach * [radii[0], radii[0]]).reshape(count, 2)
    return Mesh(
        vertices=grid.reshape(count, 3),
        faces=grid_faces(rows, columns),
        normals=grid_normals(grid, wrap=True).reshape(count, 3),
        texture=(np.asarray(texture) + mm * 0.003).astype(np.float32),
        planar=np.zeros((count, 2), np.float32),
        blend=np.zeros(count, np.float32),
        detail=mm.astype(np.float32),
        tint=np.broadcast_to(tint, (count, 3)).astype(np.float32),
        label=np.full(count, LABEL_POLYP, np.uint8),
    )
