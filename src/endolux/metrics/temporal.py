"""Consistency over time: reprojection error with known motion, flicker without."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import repeat
from typing import Literal

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.geometry.cameras import project, rays
from endolux.metrics.checks import BoolArray, Float64, NumberArray, depth_pair, nan_mean, one_of, same_shape, warn_empty
from endolux.types import Camera, CameraModel

TemporalVariant = Literal["video-depth-anything"]
OCCLUSION = 0.05
_NOISE = float(np.sqrt(6.0))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TemporalError:
    """Disagreement of neighbouring depth maps after moving one into the camera of the other.

    Attributes:
        error: mean over the directed pairs that have pixels, as a share of the depth (published: times 100).
        pairs: (N - 1) x 2: forward and backward error of each pair of neighbours; NaN where no pixel can be compared.
        pixels: (N - 1) x 2: pixels compared.
        missing: directed pairs without a pixel.
    """

    error: float
    pairs: Float64
    pixels: npt.NDArray[np.intp]
    missing: int


def temporal_alignment_error(
    depths: Iterable[NumberArray],
    poses: Iterable[NumberArray],
    camera: Camera,
    *,
    valid: Iterable[BoolArray] | None = None,
    reproduce: TemporalVariant | None = None,
) -> TemporalError:
    """Temporal alignment error (after Chen et al. 2025, "Video Depth Anything", equation 5): both directions, relative.

    Points of a frame are moved by the true camera motion into the next frame and compared with the depth there, and the
    other way round. The scene must not move. Depths are aligned once for the whole clip beforehand; an alignment per
    frame would hide what is measured. Frames are taken one after the other; two are in memory.

    Here the depth at the place of a moved point is interpolated linearly in 1/depth, which is exact on planes, and
    points that lie behind others of their own frame by more than 5 % are left out. ``reproduce="video-depth-anything"``
    is the published code: points are rounded to pixels; of several points on a pixel the last in reading order stays,
    near or far; only the target's mask counts; and a direction without a pixel counts as error 0.

    Args:
        depths: H x W each, in the unit of the poses; positive and finite where valid.
        poses: 4 x 4 camera-to-world each.
        camera: intrinsics of all frames (without distortion if ``reproduce``).
        valid: H x W bool each; by default every positive finite pixel.
        reproduce: None or ``"video-depth-anything"``.

    Returns:
        NaN with an ``EmptyMaskWarning`` for clips of fewer than two frames or without common pixels.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``, ``metrics.poses``, ``metrics.name``, or
            ``metrics.clip`` where the inputs differ in length.

    Example:
        >>> import numpy as np
        >>> camera = Camera(width=8, height=6, fx=8.0, fy=8.0, cx=3.5, cy=2.5)
        >>> near = np.eye(4)
        >>> near[2, 3] = 1.0
        >>> walls = [np.full((6, 8), 10.0), np.full((6, 8), 9.0)]
        >>> round(temporal_alignment_error(walls, [np.eye(4), near], camera).error, 6)
        0.0
    """
    if reproduce is not None:
        one_of(reproduce, ["video-depth-anything"], what="variant of the temporal error")
        if camera.model is not CameraModel.PINHOLE:
            raise UsageError(
                f"The published temporal error with a {camera.model.value} camera",
                why="It knows pinhole cameras only.",
                fix="Undistort the depth maps, or leave 'reproduce' out.",
                error_id="metrics.name",
            )
    previous: tuple[Float64, BoolArray, Float64] | None = None
    errors: list[tuple[float, float]] = []
    counts: list[tuple[int, int]] = []
    directions = _directions(camera)
    for depth, mask, pose in _clip(depths, valid, poses):
        if depth.shape != (camera.height, camera.width):
            raise UsageError(
                f"Depth of {depth.shape[1]}x{depth.shape[0]} with a camera of {camera.width}x{camera.height}",
                why="Intrinsics belong to one image size.",
                fix="Use camera.resize so that the camera follows the pixels.",
                error_id="metrics.shape",
            )
        current = (depth, mask, pose)
        if previous is not None:
            pair = _as_coded if reproduce is not None else _directed
            forward = pair(previous, current, camera, directions)
            backward = pair(current, previous, camera, directions)
            errors.append((forward[0], backward[0]))
            counts.append((forward[1], backward[1]))
        previous = current
    pairs, pixels = np.array(errors).reshape(-1, 2), np.array(counts, np.intp).reshape(-1, 2)
    missing = int((pixels == 0).sum())
    if missing or not pairs.size:
        warn_empty(f"Temporal error: {missing} of {pairs.size} directed pairs have no common pixel")
    return TemporalError(error=nan_mean(pairs.ravel()), pairs=pairs, pixels=pixels, missing=missing)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flicker:
    """Jitter of log depth over triples of frames; independent noise of standard deviation s gives 0.80 s.

    Attributes:
        total: mean |second difference of log depth| / sqrt(6) over pixels and triples.
        scale: the part that a change of the whole frame's scale explains (its median).
        shape: what remains when that is taken out.
        triples: triples of frames with common pixels.
        missing: triples without.
    """

    total: float
    scale: float
    shape: float
    triples: int
    missing: int


def flicker(depths: Iterable[NumberArray], *, valid: Iterable[BoolArray] | None = None) -> Flicker:
    """Flicker of a clip without poses, from second differences in time: steady change of log depth costs nothing.

    Camera motion that accelerates, and steps of depth that move through a pixel, count as flicker; compare models on
    the same clip only. The result does not depend on the clip's scale. Three frames are in memory.

    Args:
        depths: H x W each, positive and finite where valid.
        valid: H x W bool each; by default every positive finite pixel.

    Returns:
        Means over triples; NaN with an ``EmptyMaskWarning`` where there is no triple.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values`` or ``metrics.clip``.

    Example:
        >>> import numpy as np
        >>> found = flicker([np.full((2, 2), 10.0), np.full((2, 2), 20.0), np.full((2, 2), 40.0)])
        >>> round(found.total, 9), found.triples
        (0.0, 1)
    """
    window: list[tuple[Float64, BoolArray]] = []
    found: list[tuple[float, float, float]] = []
    missing = 0
    for depth, mask, _ in _clip(depths, valid, None):
        if window:
            same_shape(window[-1][0], depth)
        window.append((np.log(np.where(mask, depth, 1.0)), mask))
        if len(window) < 3:
            continue
        (a, mask_a), (b, mask_b), (c, mask_c) = window
        common = mask_a & mask_b & mask_c
        window.pop(0)
        if not common.any():
            missing += 1
            continue
        second = (a - 2 * b + c)[common] / _NOISE
        middle = float(np.median(second))
        found.append((float(np.abs(second).mean()), abs(middle), float(np.abs(second - middle).mean())))
    if missing or not found:
        warn_empty(f"Flicker: {missing} triples of frames have no common pixel, {len(found)} have")
    total, scale, shape = np.mean(found, axis=0) if found else (np.nan, np.nan, np.nan)
    return Flicker(total=float(total), scale=float(scale), shape=float(shape), triples=len(found), missing=missing)


def _clip(
    depths: Iterable[NumberArray], valid: Iterable[BoolArray] | None, poses: Iterable[NumberArray] | None
) -> Iterable[tuple[Float64, BoolArray, Float64]]:
    masks: Iterable[BoolArray | None] = repeat(None) if valid is None else valid
    motions: Iterable[NumberArray | None] = repeat(None) if poses is None else poses
    streams = [iter(depths), iter(masks), iter(motions)]
    while True:
        values = [next(stream, _END) for stream in streams]
        ended = [value is _END for value in values]
        # The endless stand-ins never end; everything that the caller gave must end together.
        if any(ended):
            given = [True, valid is not None, poses is not None]
            if any(g and not e for g, e in zip(given, ended, strict=True)):
                raise UsageError(
                    "Depth maps, masks and poses differ in number",
                    why="Every frame has one of each.",
                    fix="Pair them by frame first.",
                    error_id="metrics.clip",
                )
            return
        depth, mask, pose = values
        array = np.asarray(depth)
        usable = np.isfinite(array) & (array > 0) if mask is None else np.asarray(mask)
        values64, _ = depth_pair(array, array, usable)
        yield np.where(usable, values64, 0.0), usable, _motion(pose)


_END = object()


def _motion(pose: object) -> Float64:
    if pose is None:
        return np.eye(4)
    matrix = np.asarray(pose, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3]) - 1) > 1e-2:
        raise UsageError(
            f"A pose of shape {matrix.shape} that is no finite rigid motion",
            why="A pose is a 4 x 4 camera-to-world matrix.",
            fix="Leave frames without a pose out of the clip.",
            error_id="metrics.poses",
        )
    return matrix


def _directions(camera: Camera) -> Float64:
    if camera.model is not CameraModel.PINHOLE:
        return rays(camera).astype(np.float64)
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    grid = np.broadcast_arrays(x[None, :], y[:, None], np.ones((camera.height, camera.width)))
    return np.stack(grid, axis=-1)


def _moved(
    source: tuple[Float64, BoolArray, Float64], target: tuple[Float64, BoolArray, Float64], points: Float64
) -> Float64:
    motion = np.linalg.inv(target[2]) @ source[2]
    return np.asarray(points @ motion[:3, :3].T + motion[:3, 3], np.float64)


def _directed(
    source: tuple[Float64, BoolArray, Float64],
    target: tuple[Float64, BoolArray, Float64],
    camera: Camera,
    directions: Float64,
) -> tuple[float, int]:
    depth, mask, _ = source
    height, width = depth.shape
    mask = mask & np.isfinite(directions[..., 0])
    moved = _moved(source, target, directions[mask] * depth[mask][:, None])
    uv = project(moved, camera)
    # Bounds with room for rounding: a point on the last pixel's centre is inside. NaN (behind the camera) is not.
    inside = ((uv >= -1e-9) & (uv <= [width - 1 + 1e-9, height - 1 + 1e-9])).all(axis=1)
    uv, z = np.clip(uv[inside], 0, [width - 1, height - 1]), moved[inside, 2]
    if not z.size:
        return float("nan"), 0
    cell = np.rint(uv).astype(np.intp)
    index = cell[:, 1] * width + cell[:, 0]
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, index, z)
    visible = z <= nearest[index] * (1 + OCCLUSION)
    uv, z = uv[visible], z[visible]
    there, known = _interpolated(target[0], target[1], uv)
    if not known.any():
        return float("nan"), 0
    return float((np.abs(z[known] - there[known]) / there[known]).mean()), int(np.count_nonzero(known))


def _interpolated(depth: Float64, mask: BoolArray, uv: Float64) -> tuple[Float64, BoolArray]:
    # Bilinear in 1/depth at subpixel places; known where every pixel with weight is valid.
    height, width = depth.shape
    inverse = np.where(mask, 1.0 / np.where(mask, depth, 1.0), 0.0)
    corner = np.floor(uv).astype(np.intp)
    fraction = uv - corner
    # A point within rounding of a pixel centre needs that pixel only.
    fraction = np.where(fraction < 1e-9, 0.0, np.where(fraction > 1 - 1e-9, 1.0, fraction))
    value, known = np.zeros(len(uv)), np.ones(len(uv), np.bool_)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
            row, column = np.minimum(corner[:, 1] + dy, height - 1), np.minimum(corner[:, 0] + dx, width - 1)
            value += weight * inverse[row, column]
            known &= (weight == 0) | mask[row, column]
    return 1.0 / np.where(known, value, 1.0), known


def _as_coded(
    source: tuple[Float64, BoolArray, Float64],
    target: tuple[Float64, BoolArray, Float64],
    camera: Camera,
    directions: Float64,
) -> tuple[float, int]:
    depth = source[0]
    height, width = depth.shape
    moved = _moved(source, target, (directions * depth[..., None]).reshape(-1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.rint(moved[:, 0] * camera.fx / moved[:, 2] + camera.cx)
        v = np.rint(moved[:, 1] * camera.fy / moved[:, 2] + camera.cy)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    projected = np.zeros((height, width))
    projected[v[inside].astype(np.intp), u[inside].astype(np.intp)] = moved[inside, 2]
    compared = (projected > 0) & target[1]
    count = int(np.count_nonzero(compared))
    if not count:
        return 0.0, 0
    return float((np.abs(projected - target[0])[compared] / target[0][compared]).mean()), count
