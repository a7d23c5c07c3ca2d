"""Errors of camera paths: closed forms, invariances, and cameras that move by a rule."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.errors import UsageError
from endolux.metrics.pose import ate_snippets
from endolux.reproduce.trajectories import (
    SNIPPET,
    SimpleCamera,
    constant_velocity_errors,
    continued_errors,
    path_errors,
    still_errors,
    true_motions,
)


def turn(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def wandering(frames: int = 9, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for index in range(1, frames):
        step = np.eye(4)
        step[:3, :3] = turn(rng.normal(0, 0.05, 3))
        step[:3, 3] = rng.normal(0, 2, 3)
        poses[index] = poses[index - 1] @ step
    return poses


def test_the_truth_at_another_scale_has_no_error() -> None:
    poses = wandering()
    motions = true_motions(poses)
    motions[:, :3, 3] *= 0.02
    assert path_errors(poses, motions) == pytest.approx(
        dict.fromkeys(("ate", "ate_snippet", "rotation_error"), 0), abs=1e-5
    )


def test_errors_do_not_depend_on_where_the_world_is() -> None:
    poses, guess = wandering(seed=1), true_motions(wandering(seed=2))
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = turn(np.array([0.4, -1.0, 0.3])), (30, -20, 5)
    for rule in (lambda p: path_errors(p, guess), still_errors, constant_velocity_errors, continued_errors):
        assert rule(moved @ poses) == pytest.approx(rule(poses), abs=1e-6)


def test_a_turn_is_counted_in_degrees() -> None:
    poses = wandering()
    motions = true_motions(poses)
    motions[:, :3, :3] = turn(np.array([0.0, np.radians(2.0), 0.0])) @ motions[:, :3, :3]
    assert path_errors(poses, motions)["rotation_error"] == pytest.approx(2.0)


def test_a_camera_that_stands_still() -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = [0, 1, 2, 3, 4]
    found = still_errors(poses)
    # Of five places on a line about their mean, and about the first of them.
    assert found["ate"] == pytest.approx(np.sqrt(2))
    assert found["ate_snippet"] == pytest.approx(np.sqrt(6))
    assert found["rotation_error"] == 0


def test_no_straight_path_is_nearer_than_the_constant_velocity() -> None:
    poses = wandering(12, seed=3)
    found = constant_velocity_errors(poses)
    assert found["ate"] < still_errors(poses)["ate"]
    assert found["ate_snippet"] < still_errors(poses)["ate_snippet"]
    rng = np.random.default_rng(4)
    for _ in range(20):
        motions = np.tile(np.eye(4), (len(poses) - 1, 1, 1))
        motions[:, :3, 3] = rng.normal(size=3)
        assert path_errors(poses, motions)["ate"] >= found["ate"] - 1e-9
        assert ate_snippets(true_motions(poses), motions, SNIPPET).ate.mean() >= found["ate_snippet"] - 1e-9


def test_a_zigzag_is_no_constant_velocity() -> None:
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = [0, 3, 0, 3, 0, 3]
    assert constant_velocity_errors(poses)["ate"] > 1.3


def test_a_screw_goes_on_as_it_began() -> None:
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = turn(np.array([0.05, 0.1, -0.02])), (1, 0.5, 0.2)
    poses = np.stack([np.linalg.matrix_power(step, index) for index in range(8)])
    found = continued_errors(poses)
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-5)
    # A bent path is no straight line.
    assert constant_velocity_errors(poses)["ate"] > 0.1


def test_snippets_begin_with_their_own_motion() -> None:
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:5, 0, 3], poses[4:, 0, 3] = np.arange(5), 4
    poses[4:, 1, 3] = np.arange(5)
    # The first and the last snippet are straight, and those between turn by a right angle.
    one, last = continued_errors(poses[:5])["ate_snippet"], continued_errors(poses[4:])["ate_snippet"]
    assert one == pytest.approx(0, abs=1e-9)
    assert last == pytest.approx(0, abs=1e-9)
    assert continued_errors(poses)["ate_snippet"] > 0.5


def test_the_mean_turn_is_the_rotation_of_the_constant_velocity() -> None:
    poses = np.tile(np.eye(4), (6, 1, 1))
    for index in range(6):
        poses[index, :3, :3] = turn(np.array([0.0, 0.0, 0.1 * index + 1e-9]))
    assert constant_velocity_errors(poses)["rotation_error"] == pytest.approx(0.0, abs=1e-5)
    assert still_errors(poses)["rotation_error"] == pytest.approx(np.degrees(0.1), rel=1e-5)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        SimpleCamera("motion:sideways")
    assert caught.value.error_id == "reproduce.motion"
    assert "motion:constant-velocity" in caught.value.why
