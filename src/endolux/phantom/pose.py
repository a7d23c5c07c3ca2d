"""Where the scope is held: single views and smooth paths along a centreline."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.lumen import Centreline
from endolux.phantom.solids import Body

Pose = npt.NDArray[np.float64]
"""4 x 4 camera-to-world, millimetres, OpenCV axes."""

_CLOSE_SHARE = 0.25
_FAR_SHARE = 0.45


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """What a rigid scope looks at from outside.

    Attributes:
        targets: N x 3 places worth looking at, mm.
        trocars: M x 3 places where the scope enters, mm.
        up: 3, direction that is up in the picture.
        reach_mm: nearest and farthest distance between lens and target.
        patches: K x 2 x 3 points on the outside of organs and their normals, for views that an organ fills.
        turned: share of views that are rolled by any angle; the horizon of the others is nearly level.
    """

    targets: npt.NDArray[np.float32]
    trocars: npt.NDArray[np.float32]
    up: tuple[float, float, float]
    reach_mm: tuple[float, float]
    patches: npt.NDArray[np.float32] | None = None
    turned: float = 0.2


def patches(body: Body, near: npt.NDArray[np.floating], *, stride: int) -> npt.NDArray[np.float32]:
    """Some points of a body that look up or sideways, with their normals: K x 2 x 3.

    Args:
        body: an organ.
        near: N x 3 mm; only points within 25 mm of the middle half of these are taken.
        stride: every so many vertices.
    """
    low, high = np.percentile(near, [10, 90], axis=0)
    inside = ((body.vertices > low - 25) & (body.vertices < high + 25)).all(axis=1)
    chosen = np.flatnonzero(inside & (body.normals[:, 2] > -0.15))[::stride]
    return np.stack([body.vertices[chosen], body.normals[chosen]], 1).astype(np.float32)


def look_at(
    position: npt.NDArray[np.floating], target: npt.NDArray[np.floating], up: npt.NDArray[np.floating], *, roll: float
) -> Pose:
    """The pose at ``position`` that has ``target`` in the middle and ``up`` upwards, then rolled by ``roll`` radians.

    Example:
        >>> import numpy as np
        >>> pose = look_at(np.zeros(3), np.array([0.0, 0.0, 9.0]), np.array([0.0, -1.0, 0.0]), roll=0.0)
        >>> bool(np.allclose(pose, np.eye(4)))
        True
    """
    view = np.asarray(target, np.float64) - position
    view /= max(float(np.linalg.norm(view)), 1e-9)
    upward = np.asarray(up, np.float64)
    if abs(view @ upward) > 0.98 * float(np.linalg.norm(upward)):
        upward = np.eye(3)[int(np.argmin(np.abs(view)))]
    right = np.cross(view, upward)
    right /= np.linalg.norm(right)
    down = np.cross(view, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = -np.sin(roll) * right + np.cos(roll) * down
    pose[:3, 2] = view
    pose[:3, 3] = position
    return pose


def sample_outside(rng: np.random.Generator, outlook: Outlook) -> Pose:
    """One view from a trocar: near the target or far from it, not quite centred, the horizon nearly level.

    Some views come close to an organ, whose bulge then fills the picture.
    """
    if outlook.patches is not None and len(outlook.patches) and rng.random() < _CLOSE_SHARE:
        point, normal = outlook.patches[int(rng.integers(len(outlook.patches)))].astype(np.float64)
        way = normal + 0.3 * rng.standard_normal(3)
        way /= np.linalg.norm(way)
        low, high = outlook.reach_mm
        distance = float(np.exp(rng.uniform(np.log(low), np.log(0.5 * high))))
        aim = point + rng.normal(0, 0.12 * distance, 3)
        turn = float(rng.normal(0, 0.4))
        return look_at(point + distance * way, aim, np.asarray(outlook.up), roll=turn)
    target = outlook.targets[int(rng.integers(len(outlook.targets)))].astype(np.float64)
    trocar = outlook.trocars[int(rng.integers(len(outlook.trocars)))].astype(np.float64)
    axis = trocar - target
    far = float(np.linalg.norm(axis))
    low, high = outlook.reach_mm
    distance = min(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 0.93 * far)
    position = target + axis / far * distance + rng.normal(0, 0.06 * distance, 3)
    aim = target + rng.normal(0, 0.18 * distance, 3)
    roll = float(rng.normal(0, 0.25)) if rng.random() < 1 - outlook.turned else float(rng.uniform(0, 2 * np.pi))
    return look_at(position, aim, np.asarray(outlook.up), roll=roll)


def sample_sight(rng: np.random.Generator, line: Centreline, sights: npt.NDArray[np.float32]) -> Pose:
    """One view from inside a lumen towards a place that deserves a look, from near or from some way off."""
    sight = sights[int(rng.integers(len(sights)))].astype(np.float64)
    distance = np.linalg.norm(line.points - sight, axis=1)
    # Somewhere along the axis at about a chosen distance; right beside the sight if the axis never comes nearer.
    nearest = float(distance.min())
    wanted = nearest + float(np.exp(rng.uniform(np.log(0.1), np.log(2.2)))) * max(nearest, 4.0)
    around = np.abs(distance - wanted)
    close = np.flatnonzero(around <= around.min() + 2.0 * line.step_mm)
    at = int(close[int(rng.integers(len(close)))])
    reach = 0.6 * float(line.radius_mm[at]) * np.sqrt(rng.uniform(0, 1))
    angle = rng.uniform(0, 2 * np.pi)
    frame = line.frames[at].astype(np.float64)
    position = line.points[at] + reach * (np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 1])
    way = float(np.linalg.norm(sight - position))
    aim = sight + rng.normal(0, 0.2 * way, 3)
    return look_at(position, aim, frame[:, 1], roll=float(rng.uniform(0, 2 * np.pi)))


def sample_close(rng: np.random.Generator, line: Centreline, growths: npt.NDArray[np.float32]) -> Pose:
    """One view from inside a lumen with a growth that fills much of the picture, or all of it.

    Args:
        rng: source of randomness.
        line: axis of the lumen.
        growths: N x 4 centres and radii, mm.
    """
    *centre, radius = growths[int(rng.integers(len(growths)))].astype(np.float64)
    middle = np.asarray(centre)
    at = int(np.argmin(np.linalg.norm(line.points - middle, axis=1)))
    way = line.points[at] - middle
    way = way / max(float(np.linalg.norm(way)), 1e-9) + 0.45 * rng.standard_normal(3)
    way /= np.linalg.norm(way)
    distance = max(radius * float(np.exp(rng.uniform(np.log(1.25), np.log(3.0)))), radius + 2.5)
    aim = middle + rng.normal(0, 0.25 * radius, 3)
    up = line.frames[at].astype(np.float64)[:, 1]
    return look_at(middle + distance * way, aim, up, roll=float(rng.uniform(0, 2 * np.pi)))


def sample_pose(rng: np.random.Generator, line: Centreline) -> Pose:
    """One view: somewhere in the lumen, looking mostly along it, sometimes at the wall, sometimes far ahead."""
    count = len(line.points)
    if rng.random() < _FAR_SHARE:
        # Beside a wall, with as much of the lumen ahead as there is.
        start = rng.uniform(0.06, 0.35)
        forward = 1.0 if rng.random() < 0.5 else -1.0
        at = int((start if forward > 0 else 1 - start) * (count - 1))
        reach = float(rng.uniform(0.65, 0.96)) * float(line.radius_mm[at])
        angle = rng.uniform(0, 2 * np.pi)
        return look_along(
            line,
            at=float(at),
            offset_mm=(reach * float(np.cos(angle)), reach * float(np.sin(angle))),
            forward=forward,
            # Mostly towards the wall beside the lens, which then stands large at the border.
            tilt=abs(float(rng.normal(0.2, 0.25))),
            azimuth=float(angle + rng.normal(0.0, 0.9)),
            roll=float(rng.uniform(0, 2 * np.pi)),
        )
    at = int(rng.uniform(0.05, 0.95) * count)
    forward = 1.0 if rng.random() < 0.5 else -1.0
    reach = 0.75 * float(line.radius_mm[at]) * np.sqrt(rng.uniform(0, 1))
    angle = rng.uniform(0, 2 * np.pi)
    tilt = abs(rng.normal(0.0, 0.4)) if rng.random() < 0.75 else rng.uniform(0.4, 1.7)
    return look_along(
        line,
        at=float(at),
        offset_mm=(reach * float(np.cos(angle)), reach * float(np.sin(angle))),
        forward=forward,
        tilt=float(tilt),
        azimuth=float(rng.uniform(0, 2 * np.pi)),
        roll=float(rng.uniform(0, 2 * np.pi)),
    )


def look_along(
    line: Centreline,
    *,
    at: float,
    offset_mm: tuple[float, float],
    forward: float,
    tilt: float,
    azimuth: float,
    roll: float,
) -> Pose:
    """The pose at sample ``at`` of the centreline.

    Args:
        line: centreline.
        at: fractional sample number.
        offset_mm: displacement along the two normals of the centreline's frame.
        forward: 1 looks towards growing ``at``, -1 back.
        tilt: angle between view and tangent, radians.
        azimuth: direction of the tilt around the tangent, radians.
        roll: rotation about the viewing axis, radians.
    """
    low = int(np.clip(np.floor(at), 0, len(line.points) - 2))
    share = at - low
    point = (1 - share) * line.points[low] + share * line.points[low + 1]
    frame = (1 - share) * line.frames[low].astype(np.float64) + share * line.frames[low + 1]
    first = frame[:, 0] / np.linalg.norm(frame[:, 0])
    tangent = frame[:, 2] - first * (frame[:, 2] @ first)
    tangent /= np.linalg.norm(tangent)
    second = np.cross(tangent, first)
    position = point + offset_mm[0] * first + offset_mm[1] * second
    across = np.cos(azimuth) * first + np.sin(azimuth) * second
    view = np.cos(tilt) * forward * tangent + np.sin(tilt) * across
    helper = second if abs(view @ second) < 0.9 else first
    right = np.cross(helper, view)
    right /= np.linalg.norm(right)
    down = np.cross(view, right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
    pose[:3, 1] = -np.sin(roll) * right + np.cos(roll) * down
    pose[:3, 2] = view
    pose[:3, 3] = position
    return pose


def withdrawal_path(rng: np.random.Generator, line: Centreline, *, frames: int, fps: float) -> list[Pose]:
    """A smooth withdrawal: slow travel, small sway, slow turning."""
    count = len(line.points)
    speed_mm_s = rng.uniform(6.0, 14.0)
    travel = min(speed_mm_s * frames / fps / line.step_mm, 0.75 * count)
    start = rng.uniform(0.15 * count + travel, 0.9 * count) if 0.15 * count + travel < 0.9 * count else 0.9 * count
    time = np.arange(frames) / fps

    def wave(size: float, period_s: float) -> npt.NDArray[np.float64]:
        phases = rng.uniform(0, 2 * np.pi, 3)
        waves = [np.sin(2 * np.pi * time / (period_s / (k + 1)) + phases[k]) / (k + 1) for k in range(3)]
        return np.asarray(size * np.sum(waves, axis=0))

    at = start - travel * time / max(time[-1], 1e-9) + wave(1.5, 5.0) / line.step_mm
    reach = 0.35 * float(np.median(line.radius_mm))
    # Where the lumen narrows the scope keeps to its middle.
    room = np.minimum(np.interp(at, np.arange(count), line.radius_mm) / float(np.median(line.radius_mm)), 1.0)
    x, y = room * wave(reach * 0.6, 7.0), room * wave(reach * 0.6, 9.0)
    tilt, azimuth = 0.18 + wave(0.12, 6.0), wave(1.0, 11.0) + rng.uniform(0, 2 * np.pi)
    roll = wave(0.25, 13.0)
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
        for k in range(frames)
    ]
