"""Surfaces of distance fields: smooth unions of round cones and balls, meshed by surface nets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.solids import Body, body_of

FloatArray = npt.NDArray[np.float32]


def round_cones(
    points: FloatArray, starts: FloatArray, ends: FloatArray, radii: FloatArray, *, blend_mm: float
) -> tuple[FloatArray, npt.NDArray[np.int32], FloatArray]:
    """Signed distance to a smooth union of tapered capsules, negative inside.

    Args:
        points: N x 3 mm.
        starts: K x 3 mm, one end of each axis.
        ends: K x 3 mm, the other; equal to the start for a ball.
        radii: K x 2 mm at both ends.
        blend_mm: width over which neighbours melt together.

    Returns:
        distance N, the nearest capsule N, and the place along its axis N in mm.

    Example:
        >>> import numpy as np
        >>> zero = np.zeros((1, 3), np.float32)
        >>> round_cones(zero, zero, zero + 5, np.array([[2.0, 1.0]], np.float32), blend_mm=0.1)[0].tolist()
        [-2.0]
    """
    total = np.full(len(points), np.inf, np.float32)
    best = np.full(len(points), np.inf, np.float32)
    nearest = np.zeros(len(points), np.int32)
    along = np.zeros(len(points), np.float32)
    for k, (start, end, radius) in enumerate(zip(starts, ends, radii, strict=True)):
        axis = (end - start).astype(np.float32)
        length2 = float(axis @ axis)
        offset = points - start.astype(np.float32)
        share = np.clip(offset @ axis / max(length2, 1e-6), 0, 1).astype(np.float32)
        offset -= share[:, None] * axis
        distance = np.sqrt(np.einsum("ij,ij->i", offset, offset)) - (radius[0] + share * (radius[1] - radius[0]))
        closer = distance < best
        best = np.where(closer, distance, best)
        nearest[closer] = k
        along[closer] = share[closer] * np.float32(np.sqrt(length2))
        # The polynomial smooth minimum: exact where the two differ by more than the blend.
        gap = np.maximum(blend_mm - np.abs(np.minimum(total, 1e6) - distance), 0) / blend_mm
        total = np.minimum(total, distance) - gap * gap * np.float32(0.25 * blend_mm)
    return total.astype(np.float32), nearest, along


def cone_net(
    starts: FloatArray, ends: FloatArray, radii: FloatArray, *, blend_mm: float, step_mm: float, inward: bool
) -> Body:
    """The surface of a smooth union of tapered capsules; the field is made only near each of them.

    Args:
        starts: K x 3 mm, one end of each axis.
        ends: K x 3 mm, the other.
        radii: K x 2 mm at both ends.
        blend_mm: as for ``round_cones``.
        step_mm: spacing of the grid.
        inward: normals point into the union, as for a lumen.

    Example:
        >>> import numpy as np
        >>> at, radii = np.zeros((1, 3)), np.full((1, 2), 3.0)
        >>> body = cone_net(at, at, radii, blend_mm=1.0, step_mm=0.5, inward=True)
        >>> bool((body.vertices * body.normals).sum(1).max() < 0)
        True
    """
    reach = radii.max(axis=1)[:, None] + blend_mm + 2.5 * step_mm
    lows, highs = np.minimum(starts, ends) - reach, np.maximum(starts, ends) + reach
    origin = lows.min(axis=0) - step_mm
    shape = np.ceil((highs.max(axis=0) + step_mm - origin) / step_mm).astype(int) + 1
    values = np.full(shape, 4.0 * step_mm + blend_mm, np.float32)
    for k in range(len(starts)):
        first = np.floor((lows[k] - origin) / step_mm).astype(int)
        last = np.ceil((highs[k] - origin) / step_mm).astype(int) + 1
        axes = [origin[x] + step_mm * np.arange(first[x], last[x]) - starts[k, x] for x in range(3)]
        x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        axis = np.asarray(ends[k] - starts[k], np.float64)
        along = (x * axis[0] + y * axis[1] + z * axis[2]) / max(float(axis @ axis), 1e-9)
        share = np.clip(along, 0, 1).astype(np.float32)
        x, y, z = (axes[i].astype(np.float32).reshape([-1 if j == i else 1 for j in range(3)]) for i in range(3))
        far = (x - share * np.float32(axis[0])) ** 2
        far += (y - share * np.float32(axis[1])) ** 2
        far += (z - share * np.float32(axis[2])) ** 2
        distance = np.sqrt(far) - (np.float32(radii[k, 0]) + share * np.float32(radii[k, 1] - radii[k, 0]))
        box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        gap = np.maximum(blend_mm - np.abs(values[box] - distance), 0) / np.float32(blend_mm)
        values[box] = np.minimum(values[box], distance) - gap * gap * np.float32(0.25 * blend_mm)
    return relaxed(surface_net(values, origin=origin.astype(np.float32), step_mm=step_mm, inward=inward))


def relaxed(body: Body, *, rounds: int = 2) -> Body:
    """Move every vertex halfway to the mean of its neighbours: takes the grid's facets out of the normals."""
    vertices = body.vertices.astype(np.float64)
    # Each edge of a closed surface stands once in either direction.
    start = body.faces.reshape(-1)
    end = np.roll(body.faces, -1, axis=1).reshape(-1)
    degree = np.maximum(np.bincount(start, minlength=len(vertices)), 1)
    for _ in range(rounds):
        mean = np.stack([np.bincount(start, vertices[end, axis], len(vertices)) for axis in range(3)], 1)
        vertices = 0.5 * (vertices + mean / degree[:, None])
    return body_of(vertices.astype(np.float32), body.faces)


def surface_net(values: FloatArray, *, origin: FloatArray, step_mm: float, inward: bool) -> Body:
    """The zero surface of values on a grid: one vertex a crossed cell, at the mean of its crossings.

    Source: S. F. F. Gibson, Constrained elastic surface nets, MICCAI 1998; without its relaxation.

    Args:
        values: X x Y x Z, negative inside; positive on the whole border, so that the surface closes.
        origin: 3 mm, of the first sample.
        step_mm: spacing of the samples.
        inward: normals point to the negative side.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-5, 5, 21, dtype=np.float32)
        >>> ball = np.sqrt(x[:, None, None]**2 + x[None, :, None]**2 + x**2) - 3
        >>> body = surface_net(ball, origin=np.full(3, -5.0), step_mm=0.5, inward=False)
        >>> bool(abs(np.linalg.norm(body.vertices, axis=1) - 3).max() < 0.1)
        True
    """
    inside = values < 0
    cells = np.zeros(tuple(size - 1 for size in values.shape), np.int8)
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    for i, j, k in corners:
        cells += inside[i : i + cells.shape[0], j : j + cells.shape[1], k : k + cells.shape[2]]
    crossed = np.argwhere((cells > 0) & (cells < 8))
    number = np.full(cells.shape, -1, np.int32)
    number[tuple(crossed.T)] = np.arange(len(crossed), dtype=np.int32)
    total = np.zeros((len(crossed), 3), np.float32)
    count = np.zeros(len(crossed), np.float32)
    for corner in corners:
        for axis in range(3):
            if corner[axis]:
                continue
            low = crossed + corner
            high = low.copy()
            high[:, axis] += 1
            a, b = values[tuple(low.T)], values[tuple(high.T)]
            cut = (a < 0) != (b < 0)
            share = np.where(cut, a / np.where(cut, a - b, 1), 0)
            at = np.array(corner, np.float32)[None].repeat(len(crossed), 0)
            at[:, axis] += share
            total[cut] += at[cut]
            count += cut
    vertices = (crossed + total / count[:, None]) * np.float32(step_mm) + np.asarray(origin, np.float32)
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        before = tuple(slice(0, -1) if k == axis else slice(1, -1) for k in range(3))
        behind = tuple(slice(1, None) if k == axis else slice(1, -1) for k in range(3))
        cut = np.argwhere(inside[before] != inside[behind])
        for other in (u, v):
            cut[:, other] += 1
        leaving = inside[tuple(cut.T)]
        # The four cells around a crossed edge, in turn about it.
        ring = []
        for du, dv in ((1, 1), (0, 1), (0, 0), (1, 0)):
            cell = cut.copy()
            cell[:, u] -= du
            cell[:, v] -= dv
            ring.append(number[tuple(cell.T)])
        quad = np.stack(ring, 1)
        quad[~leaving] = quad[~leaving][:, ::-1]
        faces += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    joined = np.concatenate(faces).astype(np.int32)
    if inward:
        joined = np.ascontiguousarray(joined[:, ::-1])
    return body_of(vertices.astype(np.float32), joined)
