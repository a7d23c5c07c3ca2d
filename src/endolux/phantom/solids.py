"""Solid bodies without seams: swept tubes, ellipsoids, height fields, and their skin."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.facets import by_axis, directions
from endolux.phantom.labels import Label
from endolux.phantom.mesh import Mesh

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
Array = npt.NDArray[np.floating]
_BLEND_FROM = 0.5
_PLACES = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """Bare geometry: V x 3 vertices in mm, F x 3 faces, V x 3 unit normals towards the side that is seen."""

    vertices: FloatArray
    faces: IntArray
    normals: FloatArray


def closed_body(grid: Array, *, inward: bool = False) -> Body:
    """A body from a rows x columns x 3 grid that closes around its columns and to a point at both ends.

    The grid runs along an axis (rows) and, seen along that axis, clockwise around it (columns); then normals point
    out of the body, or into it with ``inward``.

    Example:
        >>> import numpy as np
        >>> ball = closed_body(ellipsoid_grid((2.0, 2.0, 2.0), rows=9, columns=12))
        >>> bool((ball.normals * ball.vertices).sum(1).min() > 1.9)
        True
    """
    rows, columns = grid.shape[:2]
    inner = np.asarray(grid[1:-1], np.float32).reshape(-1, 3)
    first, last = grid[0].mean(axis=0), grid[-1].mean(axis=0)
    vertices = np.concatenate([inner, [first], [last]]).astype(np.float32)
    start, end = len(inner), len(inner) + 1
    turn = np.arange(columns)
    after = np.roll(turn, -1)
    corner = np.arange(rows - 3)[:, None] * columns
    a, b = (corner + turn).reshape(-1), (corner + after).reshape(-1)
    c, d = a + columns, b + columns
    low = (rows - 3) * columns
    faces = np.concatenate(
        [
            np.stack([a, c, b], 1),
            np.stack([b, c, d], 1),
            np.stack([np.full(columns, start), turn, after], 1),
            np.stack([np.full(columns, end), low + after, low + turn], 1),
        ]
    )
    if inward:
        faces = faces[:, ::-1]
    return body_of(vertices, np.ascontiguousarray(faces, np.int32))


def open_body(grid: Array) -> Body:
    """A sheet from a rows x columns x 3 grid, seen from the side of rows x columns."""
    rows, columns = grid.shape[:2]
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    faces = np.concatenate(
        [
            np.stack([a, a + columns, a + 1], 1),
            np.stack([a + 1, a + columns, a + columns + 1], 1),
        ]
    )
    return body_of(np.asarray(grid, np.float32).reshape(-1, 3), faces.astype(np.int32))


def body_of(vertices: FloatArray, faces: IntArray) -> Body:
    """A body whose normals are the area-weighted means of its faces'."""
    normals, size = directions(np.ascontiguousarray(vertices), faces)
    length = size[:, None]
    # Faces around a point may be too small to have a direction: such a point faces away from the middle.
    flat_out = length[:, 0] < 1e-12
    if flat_out.any():
        normals[flat_out] = vertices[flat_out] - vertices.mean(axis=0) + [0.0, 0.0, 1e-6]
        length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= length
    return Body(np.ascontiguousarray(vertices, np.float32), faces, normals.astype(np.float32))


def displace(body: Body, amount_mm: Array) -> Body:
    """Move every vertex along its normal; V amounts in mm."""
    return body_of(body.vertices + body.normals * np.asarray(amount_mm, np.float32)[:, None], body.faces)


def moved(body: Body, turn: Array, shift: Array) -> Body:
    """Rotate (3 x 3) and then shift (3)."""
    return Body(
        np.ascontiguousarray(body.vertices @ np.asarray(turn, np.float32).T + np.asarray(shift, np.float32)),
        body.faces,
        np.ascontiguousarray(body.normals @ np.asarray(turn, np.float32).T),
    )


def frame_on(normal: Array, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A rotation whose third column is a surface's normal, turned at random about it."""
    third = np.asarray(normal, np.float64) / max(float(np.linalg.norm(normal)), 1e-9)
    first = np.cross(third, rng.standard_normal(3))
    first /= max(float(np.linalg.norm(first)), 1e-9)
    return np.stack([first, np.cross(third, first), third], 1)


def ellipsoid_grid(radii: tuple[float, float, float], *, rows: int, columns: int) -> FloatArray:
    """Grid of an ellipsoid around the origin, from the pole at +z to the pole at -z."""
    latitude = np.linspace(0, np.pi, rows)[:, None]
    # Clockwise about the direction of the rows, which is -z.
    longitude = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    return np.stack(
        [
            radii[0] * np.sin(latitude) * np.cos(longitude),
            radii[1] * np.sin(latitude) * np.sin(longitude),
            radii[2] * np.cos(latitude) * np.ones_like(longitude),
        ],
        axis=-1,
    ).astype(np.float32)


def sweep_grid(points: Array, radius: Array, *, columns: int, up: Array | None = None, flat: float = 1.0) -> FloatArray:
    """Grid of a tube along a path; the ends close if the radius goes to zero there.

    Args:
        points: N x 3 path in mm.
        radius: N or N x columns in mm.
        columns: points around the path.
        up: 3 or N x 3, direction of the section's first axis; carried along without twist when None.
        flat: size of the section's second axis relative to the first.
    """
    points = np.asarray(points, np.float64)
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    first = _carried(tangent) if up is None else np.broadcast_to(np.asarray(up, np.float64), points.shape).copy()
    first = first - tangent * (first * tangent).sum(axis=1, keepdims=True)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    second = np.cross(tangent, first)
    angle = -np.linspace(0, 2 * np.pi, columns, endpoint=False)
    reach = np.asarray(radius, np.float64)
    reach = reach[:, None] * np.ones(columns) if reach.ndim == 1 else reach
    around = np.cos(angle)[None, :, None] * first[:, None] + flat * np.sin(angle)[None, :, None] * second[:, None]
    return np.asarray(points[:, None] + reach[..., None] * around, np.float32)


def _carried(tangent: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Normals carried along a path without twist."""
    first = np.empty_like(tangent)
    helper = np.eye(3)[int(np.argmin(np.abs(tangent[0])))]
    for k, direction in enumerate(tangent):
        helper = helper - direction * float(direction @ helper)
        helper /= max(float(np.linalg.norm(helper)), 1e-12)
        first[k] = helper
    return first


def round_ends(count: int, *, share: float) -> FloatArray:
    """Factors on a radius that close both ends of a tube like half balls over ``share`` of its length each.

    Example:
        >>> round_ends(5, share=0.25).tolist()
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    place = np.linspace(0, 1, count)
    from_end = np.minimum(place, 1 - place) / max(share, 1e-6)
    return np.asarray(np.sqrt(np.clip(1 - (1 - np.minimum(from_end, 1.0)) ** 2, 0, 1)), np.float32)


def smooth_path(knots: Array, *, count: int) -> FloatArray:
    """``count`` points on a Catmull-Rom curve through K x 3 knots, equally spaced."""
    knots = np.asarray(knots, np.float64)
    padded = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    fine = []
    for k in range(len(knots) - 1):
        a, b, c, d = padded[k : k + 4]
        t = np.linspace(0, 1, 24, endpoint=False)[:, None]
        fine.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    dense = np.concatenate([*fine, knots[-1:]])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, dense[:, axis]) for axis in range(3)], 1).astype(np.float32)


def solid_noise(rng: np.random.Generator, points: Array, *, scale_mm: float, waves: int = 28) -> FloatArray:
    """Smooth noise in space of unit deviation, for N x 3 points: no seams and no poles.

    Args:
        rng: source of randomness.
        points: N x 3 mm.
        scale_mm: correlation length.
        waves: number of plane waves.
    """
    turns = rng.standard_normal((3, waves)).astype(np.float32) / np.float32(scale_mm)
    phase = rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
    places = np.asarray(points, np.float32)
    total = np.empty(len(places), np.float32)
    # As many at a time as the cache holds.
    for start in range(0, len(places), _PLACES):
        several = places[start : start + _PLACES] @ turns
        several += phase
        np.cos(several, out=several).sum(axis=1, out=total[start : start + _PLACES])
    return np.asarray(total * np.sqrt(2.0 / waves), np.float32)


def skin(
    body: Body,
    *,
    tissue: int,
    size_mm: tuple[float, float],
    label: int | npt.NDArray[np.uint8],
    tint: Array | None = None,
    shift_mm: Array | None = None,
    scale: float = 1.0,
) -> Mesh:
    """Lay a tissue over a body by projection along the axes, blended where two axes compete.

    A face takes the two axes that its normal has most of, so each vertex needs only two pairs of coordinates;
    vertices between faces of different axes are doubled.

    Args:
        body: the geometry.
        tissue: index into the scene's tissues.
        size_mm: what that tissue's texture spans.
        label: class of the surface, one or V.
        tint: 3 or V x 3 factors on the albedo.
        shift_mm: 3, where the texture starts.
        scale: enlarges the texture.
    """
    vertices, normals = body.vertices, body.normals
    source, axis, faces = by_axis(normals, body.faces)
    place = vertices[source] / np.float32(scale)
    if shift_mm is not None:
        place = place + np.asarray(shift_mm, np.float32)
    weight = np.maximum(np.abs(normals[source]) - _BLEND_FROM, 1e-4)
    first, second = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    span = np.asarray(size_mm, np.float32)

    def flat(along: npt.NDArray[np.int64]) -> FloatArray:
        # Seen along one axis, the other two are the coordinates.
        pair = np.array([[1, 2], [0, 2], [0, 1]])[along]
        return np.asarray(np.take_along_axis(place, pair, axis=1), np.float32)

    take = np.arange(len(source))
    share = weight[take, second] / (weight[take, first] + weight[take, second])
    tints = np.ones(3) if tint is None else np.asarray(tint)
    tints = tints[source] if tints.ndim == 2 else np.broadcast_to(tints, (len(source), 3))
    labels = np.full(len(vertices), label, np.uint8) if isinstance(label, (int, Label)) else label
    detail = flat(first)
    return Mesh(
        vertices=np.ascontiguousarray(vertices[source]),
        faces=faces,
        normals=np.ascontiguousarray(normals[source]),
        texture=np.ascontiguousarray(detail / span),
        planar=np.ascontiguousarray(flat(second) / span),
        blend=share.astype(np.float32),
        detail=detail,
        tint=np.ascontiguousarray(tints, np.float32),
        label=np.ascontiguousarray(labels[source]),
        tissue=np.full(len(source), tissue, np.uint8),
    )
