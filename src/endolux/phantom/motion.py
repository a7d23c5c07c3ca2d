"""How a scope and an organ move in time: smooth six-degree-of-freedom paths, breathing and peristalsis."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field

from endolux.phantom.lumen import Centreline
from endolux.phantom.mesh import Mesh
from endolux.phantom.pose import Pose, look_along
from endolux.phantom.scene import Scene

Points = npt.NDArray[np.floating]
Wave = npt.NDArray[np.float64]

_EDGE = 0.06
_DAMPING = (1.0, 0.6, 0.35, 0.15, 0.0)


class Motion(enum.StrEnum):
    """What a sequence shows.

    Example:
        >>> Motion("pan").value
        'pan'
    """

    STILL = "still"
    """Single views, each from another place and through another instrument."""
    INSERTION = "insertion"
    """Forwards along the organ, looking ahead."""
    WITHDRAWAL = "withdrawal"
    """Backwards along the organ, looking ahead."""
    HOVER = "hover"
    """Held in one place by a hand."""
    PAN = "pan"
    """Turning to and fro in one place."""
    MIXED = "mixed"
    """One of the four moving kinds, drawn for each sequence."""


class Deformation(BaseModel):
    """How the organ itself moves: breathing shifts it as a slow wave, peristalsis narrows a lumen in travelling rings.

    The surface is displaced vertex by vertex and prepared anew for every frame, which makes a frame several times
    slower; depth, normals and flow stay exact.

    Attributes:
        breathing_mm: amplitude of the respiratory shift.
        breathing_period_s: of one breath.
        peristalsis: largest share of the radius by which a ring narrows the lumen.
        wave_mm: distance of two rings.
        wave_mm_s: their speed, negative for the other way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    breathing_mm: Annotated[float, Field(ge=0, le=30), AllowInfNan(False)] = 3.0
    breathing_period_s: Annotated[float, Field(gt=0.2, le=60), AllowInfNan(False)] = 4.0
    peristalsis: Annotated[float, Field(ge=0, le=0.6), AllowInfNan(False)] = 0.0
    wave_mm: Annotated[float, Field(ge=10, le=500), AllowInfNan(False)] = 60.0
    wave_mm_s: Annotated[float, Field(ge=-100, le=100), AllowInfNan(False)] = 8.0


class ClearanceCheck(Protocol):
    """Whether a path keeps clear of the walls."""

    def __call__(self, poses: list[Pose]) -> bool: ...  # noqa: D102


def draw_motion(rng: np.random.Generator, motion: Motion) -> Motion:
    """The kind itself, or one drawn for ``MIXED``."""
    kinds = (Motion.INSERTION, Motion.WITHDRAWAL, Motion.HOVER, Motion.PAN)
    drawn = kinds[int(rng.integers(len(kinds)))]
    return drawn if motion is Motion.MIXED else motion


def path(
    rng: np.random.Generator,
    scene: Scene,
    start: Pose,
    *,
    motion: Literal[Motion.INSERTION, Motion.WITHDRAWAL, Motion.HOVER, Motion.PAN] | Motion,
    frames: int,
    fps: float,
    reach_mm: float,
    clear: ClearanceCheck,
) -> list[Pose]:
    """A smooth path: sums of slow sine waves and a steady travel, so that no velocity ever jumps.

    Insertion and withdrawal follow the centreline of a lumen; from outside they go along the view. A path that would
    touch a wall is tried again with smaller amplitude, down to holding still.

    Args:
        rng: source of randomness.
        scene: what is looked at.
        start: a usable view, where hovering and panning take place.
        motion: kind of motion; ``MIXED`` and ``STILL`` are not paths.
        frames: number of poses.
        fps: frame rate.
        reach_mm: median depth at ``start``; amplitudes grow with it.
        clear: tells whether poses keep clear of the walls.

    Returns:
        camera-to-world poses, mm.
    """
    time = np.arange(frames) / fps
    travels = motion in (Motion.INSERTION, Motion.WITHDRAWAL)
    state = rng.bit_generator.state
    for damping in _DAMPING:
        # Every try draws the same waves, only smaller.
        rng.bit_generator.state = state
        if travels and scene.outlook is None and damping >= _DAMPING[2]:
            poses = _along(rng, scene.centreline, time, inward=motion is Motion.INSERTION, sway=damping)
        else:
            poses = _around(rng, start, time, motion=motion, reach_mm=reach_mm, size=damping)
        if damping == 0.0 or clear(poses):
            return poses
    raise AssertionError("the last damping is 0")  # pragma: no cover


def displacement(
    points: Points, deformation: Deformation, *, scene: Scene, pts_s: float, phase: float
) -> npt.NDArray[np.float64]:
    """Where the organ's points have moved at a time, N x 3 mm, as a smooth function of their place at rest.

    Args:
        points: N x 3 at rest.
        deformation: how it moves.
        scene: for its centreline; peristalsis needs a lumen.
        pts_s: time in seconds.
        phase: radians, of the breath at time 0.

    Example:
        >>> import numpy as np
        >>> still = Deformation(breathing_mm=0)
        >>> displacement(np.ones((1, 3)), still, scene=None, pts_s=1.0, phase=0.0).tolist()
        [[0.0, 0.0, 0.0]]
    """
    rest = points.astype(np.float64)
    moved = np.zeros_like(rest)
    if deformation.breathing_mm > 0:
        breath = 2 * np.pi * pts_s / deformation.breathing_period_s + phase
        # What lies 150 mm away breathes otherwise, so that the organ bends as it shifts.
        share = 0.7 + 0.3 * np.cos(rest @ (2 * np.pi / 150.0 * _direction(phase + 1.0)))
        moved += deformation.breathing_mm * np.sin(breath) * share[:, None] * _direction(phase)
    if deformation.peristalsis > 0 and scene.outlook is None:
        along_mm, axis, radius = _nearest_on(scene.centreline, rest)
        angle = 2 * np.pi * (along_mm - deformation.wave_mm_s * pts_s) / deformation.wave_mm
        # A ring is narrow and the relaxed stretch between two rings long.
        ring = np.maximum(np.cos(angle / 2) ** 2, 1e-9) ** 3
        inward = axis - rest
        distance = np.maximum(np.linalg.norm(inward, axis=1), 1e-6)
        # What lies near the axis, and the end walls, hardly moves.
        grip = np.clip(distance / np.maximum(radius, 1e-6), 0.0, 1.0) ** 2
        moved += inward * (deformation.peristalsis * ring * grip)[:, None]
    return moved


def at_rest(
    points: Points, deformation: Deformation, *, scene: Scene, pts_s: float, phase: float
) -> npt.NDArray[np.float64]:
    """Places at rest of points that have moved: the inverse of :func:`displacement`, by fixed-point iteration."""
    rest = points.astype(np.float64)
    for _ in range(12):
        rest = points - displacement(rest, deformation, scene=scene, pts_s=pts_s, phase=phase)
    return rest


def deformed(scene: Scene, deformation: Deformation, *, pts_s: float, phase: float) -> Scene:
    """The scene at a time: vertices displaced, normals turned with the surface."""
    mesh = scene.mesh

    def move(points: Points) -> npt.NDArray[np.float64]:
        return points + displacement(points, deformation, scene=scene, pts_s=pts_s, phase=phase)

    step = 0.2
    normals = mesh.normals.astype(np.float64)
    helper = np.where(np.abs(normals[:, :1]) < 0.8, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normals, helper)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    second = np.cross(normals, first)
    here = mesh.vertices.astype(np.float64)
    along = move(here + step * first) - move(here - step * first)
    across = move(here + step * second) - move(here - step * second)
    turned = np.cross(along, across)
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
    moved: Mesh = dataclasses.replace(
        mesh,
        vertices=np.ascontiguousarray(move(here), np.float32),
        normals=np.ascontiguousarray(turned, np.float32),
    )
    return dataclasses.replace(scene, mesh=moved)


def _along(rng: np.random.Generator, line: Centreline, time: Wave, *, inward: bool, sway: float) -> list[Pose]:
    count = len(line.points)
    usable = (1 - 2 * _EDGE) * count
    speed_mm_s = rng.uniform(6.0, 16.0)
    duration = float(time[-1]) if len(time) > 1 else 0.0
    travel = min(speed_mm_s * duration / line.step_mm, 0.8 * usable)
    first = _EDGE * count + float(rng.uniform(0, 1)) * (usable - travel)
    share = time / duration if duration > 0 else np.zeros_like(time)
    at = first + travel * (share if inward else 1.0 - share)
    at = at + sway * _wave(rng, time, 1.2, 5.0) / line.step_mm
    reach = 0.3 * sway * float(np.median(line.radius_mm))
    x, y = _wave(rng, time, reach, 7.0), _wave(rng, time, reach, 9.0)
    tilt = 0.15 + sway * _wave(rng, time, 0.12, 6.0)
    azimuth = _wave(rng, time, 1.0, 11.0) + rng.uniform(0, 2 * np.pi)
    roll = _wave(rng, time, 0.25, 13.0)
    return [
        look_along(
            line,
            at=float(np.clip(at[k], 2, count - 3)),
            offset_mm=(float(x[k]), float(y[k])),
            forward=1.0,
            tilt=float(tilt[k]),
            azimuth=float(azimuth[k]),
            roll=float(roll[k]),
        )
        for k in range(len(time))
    ]


def _around(
    rng: np.random.Generator, start: Pose, time: Wave, *, motion: Motion, reach_mm: float, size: float
) -> list[Pose]:
    hand = size * np.clip(0.03 * reach_mm, 0.3, 3.0)
    shift = np.stack([_wave(rng, time, hand, period) for period in (4.0, 5.3, 6.1)], axis=1)
    turn = np.stack([_wave(rng, time, size * amplitude, period) for amplitude, period in _HAND_TURNS], axis=1)
    if motion is Motion.PAN:
        angle = rng.uniform(0, 2 * np.pi)
        swing = size * np.deg2rad(rng.uniform(12, 28)) * np.sin(2 * np.pi * time / rng.uniform(5.0, 10.0))
        turn[:, 0] += swing * np.cos(angle)
        turn[:, 1] += swing * np.sin(angle)
    elif motion in (Motion.INSERTION, Motion.WITHDRAWAL):
        # Nearer by at most two fifths of the way; no farther than the wall behind is likely to be.
        length = size * min(0.4 * reach_mm, rng.uniform(8.0, 20.0) * max(float(time[-1]), 0.0))
        share = time / time[-1] if time[-1] > 0 else np.zeros_like(time)
        shift[:, 2] += length * (share if motion is Motion.INSERTION else -0.5 * share)
    poses = []
    for offset, rotation in zip(shift, turn, strict=True):
        step = np.eye(4)
        step[:3, :3] = _rotation(rotation)
        step[:3, 3] = offset
        poses.append(start @ step)
    return poses


_HAND_TURNS = ((0.05, 4.7), (0.05, 5.9), (0.04, 8.3))


def _wave(rng: np.random.Generator, time: Wave, size: float, period_s: float) -> Wave:
    """Three sine waves of falling size, 0 at time 0."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    parts = [
        (np.sin(2 * np.pi * time * (k + 1) / period_s + phases[k]) - np.sin(phases[k])) / (k + 1) ** 2 for k in range(3)
    ]
    return np.asarray(size * np.sum(parts, axis=0), np.float64)


def _rotation(vector: Wave) -> npt.NDArray[np.float64]:
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross, np.float64)


def _direction(phase: float) -> npt.NDArray[np.float64]:
    vector = np.array([np.cos(1.7 * phase), np.sin(2.3 * phase), 0.5 + 0.5 * np.cos(phase)])
    return np.asarray(vector / np.linalg.norm(vector), np.float64)


def _nearest_on(
    line: Centreline, points: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Length along the axis, nearest place on it and its free radius, for N points; continuous along the axis."""
    skip = max(1, round(4.0 / line.step_mm))
    knots = line.points[::skip].astype(np.float64)
    tangents = line.frames[::skip, :, 2].astype(np.float64)
    radii = line.radius_mm[::skip].astype(np.float64)
    index = np.empty(len(points), np.intp)
    square = (knots**2).sum(axis=1)
    for low in range(0, len(points), 65536):
        part = points[low : low + 65536]
        index[low : low + 65536] = np.argmin(square[None] - 2.0 * part @ knots.T, axis=1)
    ahead = ((points - knots[index]) * tangents[index]).sum(axis=1)
    axis = knots[index] + ahead[:, None] * tangents[index]
    spacing = skip * line.step_mm
    return index * spacing + ahead, axis, radii[index]
