"""How a scope moves in time: smooth six-degree-of-freedom paths."""

from __future__ import annotations

import dataclasses
import enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from endolux.phantom.lumen import Centreline
from endolux.phantom.pose import Pose, look_along
from endolux.phantom.scene import Scene

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
    SWEEP = "sweep"
    """Moved sideways to and fro, looking the same way."""
    MIXED = "mixed"
    """Insertion, withdrawal, hovering or panning, drawn for each sequence."""


class ClearanceCheck(Protocol):
    """Whether a path keeps clear of the walls."""

    def __call__(self, poses: list[Pose]) -> bool: ...  # noqa: D102


def draw_motion(rng: np.random.Generator, motion: Motion) -> Motion:
    """The kind itself, or one drawn for ``MIXED``."""
    kinds = (Motion.INSERTION, Motion.WITHDRAWAL, Motion.HOVER, Motion.PAN)
    drawn = kinds[int(rng.integers(len(kinds)))]
    return drawn if motion is Motion.MIXED else motion


@dataclasses.dataclass(frozen=True, slots=True)
class Path:
    """Where a scope goes.

    Attributes:
        poses: camera-to-world, mm, one a frame.
        record: the sampled numbers.
    """

    poses: list[Pose]
    record: dict[str, object]


def path(
    rng: np.random.Generator,
    scene: Scene,
    start: Pose,
    *,
    motion: Motion,
    frames: int,
    fps: float,
    reach_mm: float,
    clear: ClearanceCheck,
) -> Path:
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

    """
    time = np.arange(frames) / fps
    travels = motion in (Motion.INSERTION, Motion.WITHDRAWAL)
    state = rng.bit_generator.state
    for damping in _DAMPING:
        # Every try draws the same waves, only smaller.
        rng.bit_generator.state = state
        if travels and scene.outlook is None and damping >= _DAMPING[2]:
            made = _along(rng, scene.centreline, time, inward=motion is Motion.INSERTION, sway=damping)
        else:
            made = _around(rng, start, time, motion=motion, reach_mm=reach_mm, size=damping)
        if damping == 0.0 or clear(made.poses):
            return Path(made.poses, {"kind": motion.value, "damping": damping, **made.record})
    raise AssertionError("the last damping is 0")  # pragma: no cover


def _along(rng: np.random.Generator, line: Centreline, time: Wave, *, inward: bool, sway: float) -> Path:
    count = len(line.points)
    usable = (1 - 2 * _EDGE) * count
    speed_mm_s = float(rng.uniform(6.0, 16.0))
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
    poses = [
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
    travelled = {"from_mm": first * line.step_mm, "travel_mm": travel * line.step_mm, "inward": inward}
    return Path(poses, {"speed_mm_s": speed_mm_s, "sway_mm": reach, **travelled})


def _around(rng: np.random.Generator, start: Pose, time: Wave, *, motion: Motion, reach_mm: float, size: float) -> Path:
    hand = size * float(np.clip(0.03 * reach_mm, 0.3, 3.0))
    record: dict[str, object] = {"reach_mm": reach_mm, "hand_mm": hand}
    shift = np.stack([_wave(rng, time, hand, period) for period in (4.0, 5.3, 6.1)], axis=1)
    turn = np.stack([_wave(rng, time, size * amplitude, period) for amplitude, period in _HAND_TURNS], axis=1)
    if motion is Motion.PAN:
        angle, wide_deg, period_s = rng.uniform(0, 2 * np.pi), rng.uniform(12, 28), rng.uniform(5.0, 10.0)
        swing = size * np.deg2rad(wide_deg) * np.sin(2 * np.pi * time / period_s)
        record |= {"swing_deg": size * wide_deg, "swing_angle_rad": angle, "swing_period_s": period_s}
        turn[:, 0] += swing * np.cos(angle)
        turn[:, 1] += swing * np.sin(angle)
    elif motion is Motion.SWEEP:
        angle, wide_mm, period_s = rng.uniform(0, 2 * np.pi), reach_mm * rng.uniform(0.08, 0.16), rng.uniform(4.0, 7.0)
        along, across = rng.uniform(0, 2 * np.pi, 2)
        turns = 2 * np.pi * time / period_s
        to_and_fro = size * wide_mm * (np.sin(turns + along) - np.sin(along))
        sideways = 0.5 * size * wide_mm * (np.sin(1.6 * turns + across) - np.sin(across))
        record |= {"sweep_mm": size * wide_mm, "sweep_angle_rad": angle, "sweep_period_s": period_s}
        shift[:, 0] += to_and_fro * np.cos(angle) - sideways * np.sin(angle)
        shift[:, 1] += to_and_fro * np.sin(angle) + sideways * np.cos(angle)
    elif motion in (Motion.INSERTION, Motion.WITHDRAWAL):
        # Nearer by at most two fifths of the way; no farther than the wall behind is likely to be.
        length = size * min(0.4 * reach_mm, rng.uniform(8.0, 20.0) * max(float(time[-1]), 0.0))
        share = time / time[-1] if time[-1] > 0 else np.zeros_like(time)
        travel = length * (share if motion is Motion.INSERTION else -0.5 * share)
        shift[:, 2] += travel
        record |= {"travel_mm": float(travel[-1])}
    poses = []
    for offset, rotation in zip(shift, turn, strict=True):
        step = np.eye(4)
        step[:3, :3] = _rotation(rotation)
        step[:3, 3] = offset
        poses.append(start @ step)
    return Path(poses, record)


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
