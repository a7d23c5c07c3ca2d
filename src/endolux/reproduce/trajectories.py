"""The path of the camera through clips: how far a network's is from the truth, and those of simple cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from endolux.errors import UsageError
from endolux.metrics.checks import Float64
from endolux.metrics.pose import ate_snippets, camera_poses, rotation_angle, trajectory_errors
from endolux.reproduce.metric import Metric
from endolux.types import ImageArray

SNIPPET = 5
"""Positions of a snippet, as in the published tables of SCARED."""
PREFIX = "motion:"
"""Begins the name of a camera that moves without having seen anything."""

VIDEO_METRICS: Mapping[str, Metric] = {
    "ate": Metric(
        label="ATE (mm)",
        about="ATE: root mean square distance of the camera's places over a whole clip, after the similarity that fits "
        "best; mean over clips",
    ),
    "ate_snippet": Metric(
        label="ATE of 5 (mm)",
        about="ATE of 5: the same over snippets of 5 frames that begin together, after the factor that fits best",
    ),
    "rotation_error": Metric(
        label="rotation (°)", about="rotation: mean angle between true and predicted turns from frame to frame"
    ),
}
"""What can be measured of a predicted path, by name."""


@runtime_checkable
class Odometry(Protocol):
    """What predicts motion."""

    def motions(self, images: Sequence[ImageArray]) -> Float64:
        """(N - 1) x 4 x 4: maps of points in the camera of picture t to that of picture t + 1, of any unit."""
        ...


def path_errors(poses: Float64, motions: Float64) -> dict[str, float]:
    """Errors of predicted motions against true poses.

    Args:
        poses: N x 4 x 4 camera-to-world in mm, N at least 5.
        motions: (N - 1) x 4 x 4 predicted, translation up to one factor.

    Example:
        >>> poses = np.tile(np.eye(4), (6, 1, 1))
        >>> poses[:, 0, 3] = [0, 1, 3, 4, 4, 2]
        >>> motions = np.linalg.inv(poses[1:]) @ poses[:-1]
        >>> motions[:, :3, 3] *= 0.1
        >>> {name: round(value, 6) for name, value in path_errors(poses, motions).items()}
        {'ate': 0.0, 'ate_snippet': 0.0, 'rotation_error': 0.0}
    """
    truth = true_motions(poses)
    turns = truth[:, :3, :3] @ np.swapaxes(motions[:, :3, :3], 1, 2)
    return {
        "ate": trajectory_errors(poses, camera_poses(motions)).ate,
        "ate_snippet": float(ate_snippets(truth, motions, SNIPPET).ate.mean()),
        "rotation_error": float(np.degrees(rotation_angle(turns)).mean()),
    }


def true_motions(poses: Float64) -> Float64:
    """(N - 1) x 4 x 4 maps of points from each camera to the next, of N x 4 x 4 camera-to-world poses."""
    return np.asarray(np.linalg.inv(poses[1:]) @ poses[:-1], np.float64)


def still_errors(poses: Float64) -> dict[str, float]:
    """Errors of a camera that stands still and does not turn.

    Args:
        poses: N x 4 x 4 camera-to-world in mm.
    """
    truth = true_motions(poses)
    places = poses[:, :3, 3]
    return {
        "ate": _spread(places - places.mean(0)),
        "ate_snippet": float(ate_snippets(truth, np.tile(np.eye(4), (len(truth), 1, 1)), SNIPPET).ate.mean()),
        "rotation_error": float(np.degrees(rotation_angle(truth[:, :3, :3])).mean()),
    }


def constant_velocity_errors(poses: Float64) -> dict[str, float]:
    """Errors of a camera that goes straight on and turns evenly, at the velocities that fit the truth best.

    This is more than a baseline can know: direction and speed are fitted to the truth of the whole clip, and anew for
    every snippet, where a network's snippet is given one factor.

    Args:
        poses: N x 4 x 4 camera-to-world in mm.

    Example:
        >>> poses = np.tile(np.eye(4), (6, 1, 1))
        >>> poses[:, 1, 3] = 2 * np.arange(6)
        >>> {name: round(value, 6) for name, value in constant_velocity_errors(poses).items()}
        {'ate': 0.0, 'ate_snippet': 0.0, 'rotation_error': 0.0}
    """
    places = poses[:, :3, 3]
    turns = true_motions(poses)[:, :3, :3]
    # The rotation nearest to all of them.
    u, _, v = np.linalg.svd(turns.mean(0))
    even = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    time = np.arange(len(places), dtype=np.float64)
    free = np.stack([time, np.ones_like(time)], 1)
    fitted = free @ np.linalg.lstsq(free, places, rcond=None)[0]
    steps = np.arange(SNIPPET, dtype=np.float64)[:, None]
    errors = []
    for start in range(len(places) - SNIPPET + 1):
        way = places[start : start + SNIPPET] - places[start]
        velocity = (steps * way).sum(0) / (steps**2).sum()
        errors.append(_spread(way - steps * velocity))
    return {
        "ate": _spread(places - fitted),
        "ate_snippet": float(np.mean(errors)),
        "rotation_error": float(np.degrees(rotation_angle(turns @ even.T)).mean()),
    }


def continued_errors(poses: Float64) -> dict[str, float]:
    """Errors of a camera that goes on as it began: the first true motion, turn and shift, again and again.

    That is the constant velocity of a tracker which knows where it has just come from. The clip is brought to the truth
    by the similarity that fits best and every snippet, begun with its own first motion, by one factor, as a network's.

    Args:
        poses: N x 4 x 4 camera-to-world in mm.

    Example:
        >>> poses = np.tile(np.eye(4), (6, 1, 1))
        >>> poses[:, 1, 3] = 2 * np.arange(6)
        >>> {name: round(value, 6) for name, value in continued_errors(poses).items()}
        {'ate': 0.0, 'ate_snippet': 0.0, 'rotation_error': 0.0}
    """
    truth = true_motions(poses)
    whole = path_errors(poses, np.repeat(truth[:1], len(truth), 0))
    steps = SNIPPET - 1
    snippets = [
        ate_snippets(truth[start : start + steps], np.repeat(truth[start : start + 1], steps, 0), SNIPPET).ate.mean()
        for start in range(len(truth) - steps + 1)
    ]
    return {**whole, "ate_snippet": float(np.mean(snippets))}


class SimpleCamera:
    """A camera that moves by a rule, in the place of a network.

    Args:
        name: ``motion:still``, ``motion:constant-velocity`` or ``motion:continued``.

    Raises:
        UsageError: ``reproduce.motion`` for another name.

    Example:
        >>> SimpleCamera("motion:still").errors(np.tile(np.eye(4), (5, 1, 1)))["ate"]
        0.0
    """

    def __init__(self, name: str) -> None:
        rule = _RULES.get(name.removeprefix(PREFIX))
        if rule is None:
            raise UsageError(
                f"No camera moves by the rule '{name}'",
                why=f"Known: {', '.join(PREFIX + known for known in _RULES)}.",
                fix="Use one of them.",
                error_id="reproduce.motion",
            )
        self.name = name
        self.errors: Callable[[Float64], dict[str, float]] = rule


_RULES: Mapping[str, Callable[[Float64], dict[str, float]]] = {
    "still": still_errors,
    "constant-velocity": constant_velocity_errors,
    "continued": continued_errors,
}


def _spread(differences: Float64) -> float:
    return float(np.sqrt((differences**2).sum(1).mean()))
