"""Hollow organs seen from inside: a tube around a curved centreline, with folds, closed at both ends."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from endolux.phantom.compile import compiled
from endolux.phantom.fields import fractal_field, smooth_field
from endolux.phantom.mesh import Mesh, grid_faces, grid_normals

FloatArray = npt.NDArray[np.float32]
LABEL_WALL = 1
_ROW_MM = 0.6
_COLUMNS = 208
_COLUMN_MM = 0.75


class LumenShape(BaseModel):
    """Every number that shapes a lumen; lengths in millimetres, angles in radians."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length_mm: float = Field(gt=20, le=800)
    radius_mm: float = Field(gt=2, le=100)
    radius_variation: float = Field(ge=0, le=0.9, description="Relative deviation of the radius along the lumen.")
    cap_mm: float = Field(gt=1, description="Length over which each end closes.")
    bend_per_100mm: float = Field(ge=0, le=4, description="Typical turn of the centreline.")
    lobes: int = Field(ge=0, le=6, description="Corners of the cross-section; 3 is the colon's triangle.")
    lobe_depth: float = Field(ge=0, le=0.6)
    fold_spacing_mm: float = Field(ge=0, description="0: no folds.")
    fold_height: float = Field(ge=0, le=0.9, description="Relative to the radius.")
    fold_width_mm: float = Field(gt=0.3)
    fold_rows: int = Field(ge=1, le=4, description="Separate arcs around the lumen; 1 is a full ring.")
    fold_sharpness: float = Field(ge=1.0, le=4.0)
    fold_lean: float = Field(ge=-1.5, le=1.5)
    rugae_mm: float = Field(ge=0, le=15)
    bumps_mm: float = Field(ge=0, le=15)
    bump_length_mm: float = Field(gt=1)
    cap_ridge_mm: float = Field(ge=0, le=20, description="Radial ridges on the end wall, as in the caecum.")
    neck_at: float = Field(default=0.0, ge=0, lt=1, description="Place of a narrow ring along the lumen; 0: none.")
    neck_radius_mm: float = Field(default=4.0, gt=1)
    neck_width_mm: float = Field(default=6.0, gt=1)
    diverticula: int = Field(default=0, ge=0, le=40, description="Small pouches through the wall.")
    fold_reach: float = Field(default=0.0, ge=0, le=2, description="Extra length of a fold's arc around the lumen.")


@dataclasses.dataclass(frozen=True, slots=True)
class Centreline:
    """Sampled axis of a lumen.

    Attributes:
        points: N x 3 millimetres.
        frames: N x 3 x 3; columns are two normals and the tangent.
        radius_mm: N free radius around the axis.
        step_mm: spacing of the samples.
    """

    points: FloatArray
    frames: FloatArray
    radius_mm: FloatArray
    step_mm: float


def build_lumen(rng: np.random.Generator, shape: LumenShape) -> tuple[Mesh, Centreline, npt.NDArray[np.float32]]:
    """The wall of a lumen.

    Args:
        rng: source of randomness for everything that ``shape`` leaves open.
        shape: the numbers.

    Returns:
        wall mesh, centreline, and the rows x columns x 3 grid of wall points.
    """
    rows = max(40, round(shape.length_mm / _ROW_MM))
    along_mm = np.linspace(0.0, shape.length_mm, rows, dtype=np.float32)
    radius = _radius(rng, shape, along_mm)
    points, frames = _centreline(rng, shape, radius)
    # Wide cavities take more columns, so that a fold there is no coarser than in a narrow one.
    columns = int(np.clip(2 * np.pi * shape.radius_mm / _COLUMN_MM, _COLUMNS, 2 * _COLUMNS))
    theta = np.linspace(0.0, 2 * np.pi, columns + 1, dtype=np.float32)
    inward = _folds(rng, shape, along_mm, theta, radius)
    # Folds drape, but a tip that leaves its base behind would fold the surface through itself.
    lean = np.float32(shape.fold_lean) * np.minimum(inward, 2.0 * np.float32(shape.fold_width_mm))
    # Crests are stretched smooth; the wall between them is not.
    calm = 1.0 - 0.9 * np.minimum(inward / np.maximum(0.3 * shape.fold_height * radius[:, None], 1e-3), 1.0)
    cap = _cap(shape, along_mm)
    section = np.ones((rows, theta.size), np.float32)
    if shape.lobes:
        # The triangle turns slowly along the colon, as the taeniae do.
        phase = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.01, rows)).astype(np.float32)
        section -= (
            np.float32(shape.lobe_depth)
            * 0.5
            * (1 + np.cos(shape.lobes * (theta[None] - phase[:, None])))
            * cap[:, None]
        )
    inward = (inward + calm * _noise(rng, shape, radius, columns)) * cap[:, None] ** 2
    if shape.diverticula:
        inward -= _pits(rng, shape, along_mm, theta, radius) * cap[:, None]
    limit = 0.88 * (radius * cap)[:, None] * section
    reach = (radius * cap)[:, None] * section - np.minimum(inward, limit)
    direction = (
        np.cos(theta)[None, :, None] * frames[:, None, :, 0] + np.sin(theta)[None, :, None] * frames[:, None, :, 1]
    )
    grid = points[:, None] + reach[..., None] * direction + (lean * cap[:, None])[..., None] * frames[:, None, :, 2]
    grid += _cap_ridges(rng, shape, along_mm, theta, cap, radius)[..., None] * frames[:, None, :, 2]
    grid[:, -1] = grid[:, 0]
    grid = np.ascontiguousarray(grid, np.float32)
    free = reach[:, :-1].min(axis=1)
    # Around the poles the columns run together: there the texture lies flat on the end wall.
    pole = np.clip((1.0 - cap) * 4.0 - 0.6, 0.0, 1.0)
    flat = np.stack(
        [reach * np.cos(theta) / shape.length_mm, reach * np.sin(theta) / (2 * np.pi * shape.radius_mm)], -1
    )
    line = Centreline(points.astype(np.float32), frames.astype(np.float32), free, shape.length_mm / (rows - 1))
    # Texture follows the surface, not the axis: on the flanks of folds it would be drawn out into streaks. One length
    # for a whole ring keeps neighbouring columns together.
    stretch = np.percentile(np.linalg.norm(np.diff(grid, axis=0), axis=-1), 75, axis=1)
    surface_mm = np.concatenate([[0.0], np.cumsum(stretch)]).astype(np.float32)
    return _wall(grid, surface_mm, theta, shape, flat.astype(np.float32), pole.astype(np.float32)), line, grid


def _wall(
    grid: FloatArray, surface_mm: FloatArray, theta: FloatArray, shape: LumenShape, flat: FloatArray, pole: FloatArray
) -> Mesh:
    rows, columns = grid.shape[:2]
    count = rows * columns
    u = np.broadcast_to((surface_mm / surface_mm[-1])[:, None], (rows, columns))
    v = np.broadcast_to((theta / (2 * np.pi))[None], (rows, columns))
    texture = np.stack([u, v], axis=-1).reshape(count, 2)
    around_mm = 2 * np.pi * shape.radius_mm
    detail = texture * np.array([surface_mm[-1], around_mm], np.float32)
    return Mesh(
        vertices=grid.reshape(count, 3),
        faces=grid_faces(rows, columns),
        normals=grid_normals(grid, wrap=True).reshape(count, 3),
        texture=np.ascontiguousarray(texture, np.float32),
        planar=flat.reshape(count, 2),
        blend=np.repeat(pole, columns),
        detail=np.ascontiguousarray(detail, np.float32),
        tint=np.ones((count, 3), np.float32),
        label=np.full(count, LABEL_WALL, np.uint8),
    )


def _centreline(rng: np.random.Generator, shape: LumenShape, radius: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = len(radius)
    step = shape.length_mm / (rows - 1)
    # Curvature is smooth noise in two directions of a parallel-transported frame.
    curvature = np.stack([smooth_field(rng, (1, 2 * rows), scale=(1.0, 60.0 / step))[0, :rows] for _ in range(2)], -1)
    curvature *= shape.bend_per_100mm / 100.0
    # A tighter turn than the radius would fold the wall through itself.
    strength = np.linalg.norm(curvature, axis=1, keepdims=True)
    wide = max(1, round(0.5 * shape.radius_mm / step))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(radius, wide, mode="edge"), 2 * wide + 1).max(axis=1)
    limit = 0.65 / around[:, None]
    curvature *= np.minimum(1.0, limit / np.maximum(strength, 1e-9))
    return _transported(curvature.astype(np.float64), step)


@compiled
def _transported(curvature: npt.NDArray[np.float64], step: float) -> tuple[FloatArray, FloatArray]:
    """Follow a parallel-transported frame; points and frames."""
    rows = curvature.shape[0]
    points = np.zeros((rows, 3), np.float32)
    frames = np.zeros((rows, 3, 3), np.float32)
    first, second, tangent, at = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    first[0], second[1], tangent[2] = 1.0, 1.0, 1.0
    for i in range(rows):
        if i > 0:
            tangent += step * (curvature[i, 0] * first + curvature[i, 1] * second)
            tangent /= np.sqrt((tangent**2).sum())
            first -= tangent * (first * tangent).sum()
            first /= np.sqrt((first**2).sum())
            second[0] = tangent[1] * first[2] - tangent[2] * first[1]
            second[1] = tangent[2] * first[0] - tangent[0] * first[2]
            second[2] = tangent[0] * first[1] - tangent[1] * first[0]
            at += step * tangent
        points[i] = at
        frames[i, :, 0], frames[i, :, 1], frames[i, :, 2] = first, second, tangent
    return points, frames


def _radius(rng: np.random.Generator, shape: LumenShape, along_mm: FloatArray) -> FloatArray:
    rows = along_mm.size
    step = float(along_mm[1])
    noise = smooth_field(rng, (1, 2 * rows), scale=(1.0, 70.0 / step))[0, :rows]
    radius = shape.radius_mm * np.exp(np.clip(shape.radius_variation * noise, -1.1, 1.1))
    if shape.neck_at > 0:
        from_neck = np.abs(along_mm - shape.neck_at * shape.length_mm) / shape.neck_width_mm
        radius += (np.minimum(shape.neck_radius_mm, radius) - radius) * np.exp(-(from_neck**2.5))
        # What follows a sphincter is a narrower organ.
        beyond = np.clip((along_mm / shape.length_mm - shape.neck_at) * 20, 0, 1)
        radius *= 1.0 - 0.45 * beyond * (1 - np.exp(-(from_neck**2.5)))
    return np.asarray(radius, np.float32)


def _pits(
    rng: np.random.Generator, shape: LumenShape, along_mm: FloatArray, theta: FloatArray, radius: FloatArray
) -> FloatArray:
    """Outward displacement of diverticula: pits with steep sides and a flat floor."""
    total = np.zeros((along_mm.size, theta.size), np.float32)
    for _ in range(shape.diverticula):
        at, turn = rng.uniform(0.1, 0.9) * shape.length_mm, rng.uniform(0, 2 * np.pi)
        width, depth = rng.uniform(1.5, 5.0), rng.uniform(2.0, 10.0)
        low, high = np.searchsorted(along_mm, [at - 2 * width, at + 2 * width])
        local = float(np.interp(at, along_mm, radius))
        across = ((theta - turn + np.pi) % (2 * np.pi) - np.pi) * local
        far2 = ((along_mm[low:high, None] - at) ** 2 + across[None] ** 2) / width**2
        total[low:high] = np.maximum(total[low:high], depth * np.exp(-(far2**2)))
    return total


def _cap(shape: LumenShape, along_mm: FloatArray) -> FloatArray:
    from_end = np.minimum(along_mm, shape.length_mm - along_mm)
    t = np.clip(1.0 - from_end / shape.cap_mm, 0.0, 1.0)
    return np.asarray(np.sqrt(np.maximum(0.0, 1.0 - t**2.4)), np.float32)


def _folds(
    rng: np.random.Generator, shape: LumenShape, along_mm: FloatArray, theta: FloatArray, radius: FloatArray
) -> FloatArray:
    inward = np.zeros((along_mm.size, theta.size), np.float32)
    if shape.fold_spacing_mm <= 0 or shape.fold_height <= 0:
        return inward
    rows = shape.fold_rows
    start, row_mm = rng.uniform(0, 2 * np.pi), float(along_mm[1])
    for row in range(rows):
        centre = start + row * 2 * np.pi / rows
        at = rng.uniform(0.1, 1.0) * shape.fold_spacing_mm
        while at < shape.length_mm:
            height = shape.fold_height * float(np.interp(at, along_mm, radius)) * rng.uniform(0.35, 1.15)
            width = shape.fold_width_mm * rng.uniform(0.7, 1.5)
            turn = (theta - centre - rng.normal(0, 0.12) + np.pi) % (2 * np.pi) - np.pi
            arc = np.ones_like(turn)
            if rows > 1:
                half = rng.uniform(0.85, 1.25) * (1.0 + shape.fold_reach) * np.pi / rows
                arc = np.exp(-(np.abs(turn / half) ** rng.uniform(2.5, 5.0)))
            # The crest wanders instead of following a perfect circle.
            crest = at + sum(
                rng.normal(0, 0.13) * shape.fold_spacing_mm / k * np.sin(k * theta + rng.uniform(0, 6.3))
                for k in (1, 2, 3)
            )
            low, high = np.searchsorted(along_mm, [at - 1.2 * shape.fold_spacing_mm, at + 1.2 * shape.fold_spacing_mm])
            # A crest is as wide as a row: one that falls between two rows would come out with teeth.
            offset = np.maximum(np.abs(along_mm[low:high, None] - crest[None]) - 0.6 * row_mm, 0) / width
            profile = np.exp(-(offset**shape.fold_sharpness))
            shown = rng.random() < 0.93
            if shown:
                # Overlapping arcs merge like tissue, they do not add up.
                part = (height * arc)[None] * profile
                inward[low:high] = np.maximum(inward[low:high], part) + 0.25 * np.minimum(inward[low:high], part)
            at += shape.fold_spacing_mm * rng.uniform(0.65, 1.4)
    return inward


def _noise(rng: np.random.Generator, shape: LumenShape, radius: FloatArray, columns: int) -> FloatArray:
    rows = len(radius)
    size = (rows, columns)
    around_mm = 2 * np.pi * shape.radius_mm / columns
    length = shape.bump_length_mm
    total = np.float32(shape.bumps_mm) * fractal_field(
        rng, size, scale=(length / _ROW_MM, length / around_mm), octaves=3, gain=0.45
    )
    if shape.rugae_mm > 0:
        ridge = smooth_field(rng, size, scale=(40.0 / _ROW_MM, rng.uniform(6.0, 14.0) / around_mm))
        total += np.float32(shape.rugae_mm) * (1.0 - np.minimum(np.abs(ridge) * 1.6, 1.0)) ** 1.5
    total = np.concatenate([total, total[:, :1]], axis=1)
    return np.asarray(total * np.minimum(1.0, radius / shape.radius_mm)[:, None], np.float32)


def _cap_ridges(
    rng: np.random.Generator,
    shape: LumenShape,
    along_mm: FloatArray,
    theta: FloatArray,
    cap: FloatArray,
    radius: FloatArray,
) -> FloatArray:
    """Displacement along the axis that raises radial ridges on both end walls."""
    if shape.cap_ridge_mm <= 0:
        return np.zeros((along_mm.size, theta.size), np.float32)
    count = int(rng.integers(2, 5))
    phase = rng.uniform(0, 2 * np.pi)
    uneven = rng.normal(0, 0.25, count)
    ridge = np.zeros_like(theta)
    for k in range(count):
        turn = (theta - phase - 2 * np.pi * k / count - uneven[k] + np.pi) % (2 * np.pi) - np.pi
        ridge = np.maximum(ridge, np.exp(-((turn / rng.uniform(0.12, 0.3)) ** 2)) * rng.uniform(0.5, 1.0))
    # Full on the end wall, fading towards the side wall; zero at the pole where all columns meet.
    centre = np.minimum(cap * radius / (0.25 * radius), 1.0)
    weight = (1.0 - cap) ** 0.5 * centre
    sign = np.where(along_mm < shape.length_mm / 2, 1.0, -1.0)
    return (shape.cap_ridge_mm * (weight * sign)[:, None] * ridge[None]).astype(np.float32)
