"""Pose errors: the published formulas written out, closed forms, invariances, refusals."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.metrics import (
    EmptyMaskWarning,
    ate_snippets,
    camera_poses,
    rotation_angle,
    similarity,
    student_interval,
    trajectory_errors,
)


def rotation(vector):
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-300)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def motions(count, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    out = np.tile(np.eye(4), (count, 1, 1))
    steps = np.cumsum(rng.normal(0, 0.1, (count, 6)), axis=0) * 0.1
    steps += noise * np.random.default_rng(seed + 1).normal(0, 0.05, (count, 6))
    for matrix, step in zip(out, steps, strict=True):
        matrix[:3, :3], matrix[:3, 3] = rotation(step[:3] * 0.1), step[3:]
    return out


def as_coded(truth, predicted, length=5):
    """The SfMLearner family's figure, window by window."""
    ates, angles = [], []
    for i in range(len(truth) - 1):
        positions, turns = [], []
        for steps in (truth[i : i + length - 1], predicted[i : i + length - 1]):
            c = np.eye(4)
            chain = [c]
            for step in steps:
                c = c @ step
                chain.append(c)
            positions.append(np.array([m[:3, 3] for m in chain]))
            turns.append(np.array([m[:3, :3] for m in chain]))
        g, p = positions
        p = p + (g[0] - p[0])
        s = (g * p).sum() / (p * p).sum()
        ates.append(np.sqrt(((s * p - g) ** 2).sum()) / len(g))
        total = 0.0
        for a, b in zip(*turns, strict=True):
            r = a @ np.linalg.inv(b)
            vee = np.array([r[0, 1] - r[1, 0], r[1, 2] - r[2, 1], r[0, 2] - r[2, 0]])
            total += np.arctan2(np.linalg.norm(vee), np.trace(r) - 1)
        angles.append(total / len(g))
    return np.array(ates), np.array(angles)


@pytest.mark.parametrize(("count", "length"), [(12, 5), (30, 5), (4, 5), (9, 3), (2, 5)])
def test_reproduces_the_published_code(count, length):
    truth, predicted = motions(count, 0), motions(count, 0, noise=1.0)
    ate, angle = as_coded(truth, predicted, length)
    for flag in ("af-sfmlearner", True):
        found = ate_snippets(truth, predicted, length=length, reproduce=flag)
        assert found.ate == pytest.approx(ate, abs=1e-12)
        assert found.rotation_rad == pytest.approx(angle, abs=1e-9)
        assert found.reproduce == "af-sfmlearner"
    assert found.summary()["snippets"] == count - 1
    assert found.ate_mean == pytest.approx(ate.mean())
    assert found.ate_std == pytest.approx(ate.std())
    assert found.rotation_std == pytest.approx(angle.std())


def test_correct_form_is_the_rmse_of_camera_centres():
    truth, predicted = motions(20, 3), motions(20, 3, noise=1.0)
    found = ate_snippets(truth, predicted)
    assert found.reproduce is None
    assert found.ate.size == 20 - 5 + 2
    assert set(found.positions.tolist()) == {5}
    world_t, world_p = camera_poses(truth), camera_poses(predicted)
    for start in (0, 7, 16):
        g, p = ((np.linalg.inv(world[start]) @ world[start : start + 5])[:, :3, 3] for world in (world_t, world_p))
        s = (g * p).sum() / (p * p).sum()
        assert found.ate[start] == pytest.approx(np.sqrt(((s * p - g) ** 2).sum(axis=1).mean()))
        assert found.scale[start] == pytest.approx(s)


def test_the_two_forms_differ_by_the_root_of_n_for_pure_translation():
    truth, predicted = motions(10, 1), motions(10, 1, noise=1.0)
    truth[:, :3, :3] = predicted[:, :3, :3] = np.eye(3)
    correct = ate_snippets(truth, predicted)
    coded = ate_snippets(truth, predicted, reproduce=True)
    assert correct.ate == pytest.approx(math.sqrt(5) * coded.ate[: correct.ate.size])
    assert coded.positions[-3:].tolist() == [5, 4, 3]


def test_closed_form_right_angle():
    # Truth moves along x, the prediction along y: the best scale is 0, the error the root mean square of 1 and 2.
    truth, predicted = np.tile(np.eye(4), (2, 2, 1, 1))
    truth[:, 0, 3], predicted[:, 1, 3] = 1.0, 1.0
    found = ate_snippets(truth, predicted, length=3)
    assert found.ate.tolist() == pytest.approx([math.sqrt(5 / 3)])
    assert found.scale.tolist() == [0.0]


def test_standing_still_has_the_error_of_no_motion_and_no_nan():
    truth = motions(8, 2)
    still = np.tile(np.eye(4), (8, 1, 1))
    found = ate_snippets(truth, still, reproduce="af-sfmlearner")
    chain = [np.eye(4)]
    for step in truth[:4]:
        chain.append(chain[-1] @ step)
    assert found.ate[0] == pytest.approx(np.sqrt(sum((m[:3, 3] ** 2).sum() for m in chain)) / 5)
    assert np.isfinite(found.ate).all()
    assert (found.scale == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.sampled_from([None, "af-sfmlearner"]))
def test_scale_of_the_prediction_is_free_and_of_the_truth_is_the_unit(seed, factor, variant):
    truth, predicted = motions(7, seed), motions(7, seed, noise=1.0)
    base = ate_snippets(truth, predicted, reproduce=variant)
    larger, metres = predicted.copy(), truth.copy()
    larger[:, :3, 3] *= factor
    metres[:, :3, 3] *= factor
    assert ate_snippets(truth, larger, reproduce=variant).ate == pytest.approx(base.ate, rel=1e-9, abs=1e-12)
    assert ate_snippets(metres, predicted, reproduce=variant).ate == pytest.approx(factor * base.ate, rel=1e-9)
    swapped = ate_snippets(predicted, truth, reproduce=variant)
    assert swapped.rotation_rad == pytest.approx(base.rotation_rad, abs=1e-9)
    assert ate_snippets(truth, truth, reproduce=variant).ate_mean == pytest.approx(0, abs=1e-12)


def test_too_few_motions_are_nan_with_a_warning():
    one = motions(1, 0)
    for variant in (None, True):
        with pytest.warns(EmptyMaskWarning):
            found = ate_snippets(one, one, reproduce=variant)
        assert math.isnan(found.ate_mean)
        assert math.isnan(found.ate_std)
        assert found.summary()["snippets"] == 0


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"predicted": motions(5, 0)}, "metrics.poses"),
        ({"truth": np.zeros((6, 3, 4))}, "metrics.poses"),
        ({"truth": np.full((6, 4, 4), np.nan)}, "metrics.poses"),
        ({"truth": np.swapaxes(motions(6, 0), 1, 2)}, "metrics.poses"),
        ({"truth": 2 * motions(6, 0)}, "metrics.poses"),
        ({"length": 1}, "metrics.length"),
        ({"reproduce": "sfm"}, "metrics.name"),
    ],
)
def test_snippet_refusals(change, error_id):
    with pytest.raises(UsageError) as caught:
        ate_snippets(**{"truth": motions(6, 0), "predicted": motions(6, 0), **change})
    assert caught.value.error_id == error_id


GOLDEN = [
    (1, 409, 0.077612, 0.053581, (0.072397, 0.082826), 0.003063, 0.001834, 0.279619, 0.006161),
    (2, 832, 0.048651, 0.028520, (0.046709, 0.050593), 0.003077, 0.002032, 0.192278, 0.006964),
]


@pytest.mark.real_data
@pytest.mark.parametrize("row", GOLDEN, ids=["sequence1", "sequence2"])
def test_golden_values_of_the_published_predictions(row):
    folder = os.environ.get("ENDOLUX_ENDODAC_POSES")
    if not folder:
        pytest.skip("set ENDOLUX_ENDODAC_POSES to the folder 'splits/endovis/curve' of EndoDAC's repository")
    number, windows, ate, std, interval, rotation_error, rotation_std, still_ate, still_rotation = row
    truth, predicted = (np.load(Path(folder) / f"{kind}_poses_sequence{number}.npz")["data"] for kind in ("gt", "pred"))
    found = ate_snippets(truth, predicted, length=5, reproduce="af-sfmlearner")
    assert found.ate.size == windows
    assert (found.ate_mean, found.ate_std) == pytest.approx((ate, std), abs=1e-6)
    assert (found.rotation_mean, found.rotation_std) == pytest.approx((rotation_error, rotation_std), abs=1e-6)
    student = student_interval(found.ate)
    assert (student.low, student.high) == pytest.approx(interval, abs=1e-6)
    still = ate_snippets(truth, np.tile(np.eye(4), (len(truth), 1, 1)), reproduce="af-sfmlearner")
    assert (still.ate_mean, still.rotation_mean) == pytest.approx((still_ate, still_rotation), abs=1e-6)


def world(count, seed, noise=0.0):
    return camera_poses(motions(count - 1, seed, noise))


def moved(poses, scale=1.0, seed=5):
    """The same trajectory in another world frame and unit."""
    rng = np.random.default_rng(seed)
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rotation(rng.normal(size=3)), rng.normal(size=3) * 10
    out = frame @ poses
    out[:, :3, 3] *= scale
    return out


def test_each_alignment_grants_what_its_name_says():
    truth = world(15, 0)
    assert trajectory_errors(truth, moved(truth, 0.2)).ate == pytest.approx(0, abs=1e-9)
    assert trajectory_errors(truth, moved(truth, 0.2)).scale == pytest.approx(5)
    assert trajectory_errors(truth, moved(truth), alignment="se3").ate == pytest.approx(0, abs=1e-9)
    assert trajectory_errors(truth, moved(truth, 0.2), alignment="se3").ate > 0.1
    assert trajectory_errors(truth, moved(truth, 0.2), alignment="scale").ate == pytest.approx(0, abs=1e-9)
    assert trajectory_errors(truth, moved(truth), alignment="none").ate > 1
    assert trajectory_errors(truth, truth, alignment="none").ate == 0


def test_more_freedom_never_costs():
    truth, predicted = world(25, 1), moved(world(25, 1, noise=1.0), 0.7)
    none, rigid, full = (trajectory_errors(truth, predicted, alignment=a).ate for a in ("none", "se3", "sim3"))
    assert full <= rigid <= none


def test_relative_errors_closed_form():
    truth = np.tile(np.eye(4), (6, 1, 1))
    truth[:, 2, 3] = np.arange(6)
    predicted = truth.copy()
    predicted[:, 2, 3] *= 1.5
    found = trajectory_errors(truth, predicted, alignment="none", delta=2)
    assert found.rte == pytest.approx(1.0)
    assert found.relative_errors.size == 4
    assert found.ate == pytest.approx(np.sqrt((0.25 * np.arange(6) ** 2).mean()))
    turned = truth.copy()
    for index in range(6):
        turned[index, :3, :3] = rotation(np.array([0, 0, 0.1 * index]))
    assert trajectory_errors(truth, turned, alignment="none").rotation_deg == pytest.approx(math.degrees(0.1))


def simcol(truth, predicted):
    """The SimCol3D challenge's figures, step by step."""
    relative = [[np.linalg.inv(p[i]) @ p[i + 1] for i in range(len(p) - 1)] for p in (truth, predicted)]
    chains = []
    for steps in relative:
        chain = [np.eye(4)]
        for step in steps:
            chain.append(chain[-1] @ step)
        chains.append(np.array(chain))
    gt, pred = chains
    g, p = (np.array([m[:3, 3] for m in steps]) for steps in relative)
    pred[:, :3, 3] *= (g * p).sum() / (p**2).sum()
    translation, angle = [], []
    for i in range(len(gt) - 1):
        e = np.linalg.inv(np.linalg.inv(gt[i]) @ gt[i + 1]) @ np.linalg.inv(pred[i]) @ pred[i + 1]
        translation.append(np.linalg.norm(e[:3, 3]))
        angle.append(np.arccos((np.clip(np.trace(e[:3, :3]), -3, 3) - 1) / 2))
    distance = np.linalg.norm(gt[:, :3, 3] - pred[:, :3, 3], axis=1)
    return np.median(distance), np.median(translation), np.degrees(np.median(angle))


def test_reproduces_simcol3d():
    truth, predicted = world(30, 4), moved(world(30, 4, noise=1.0), 0.3)
    found = trajectory_errors(truth, predicted, reproduce="simcol3d")
    assert (found.ate, found.rte, found.rotation_deg) == pytest.approx(simcol(truth, predicted), abs=1e-6)
    assert trajectory_errors(truth, predicted).ate != pytest.approx(found.ate)


def test_single_pose_has_no_relative_error():
    with pytest.warns(EmptyMaskWarning):
        found = trajectory_errors(world(1, 0), world(1, 0), reproduce="simcol3d")
    assert math.isnan(found.rte)
    assert found.ate == 0.0


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"predicted": world(4, 0)}, "metrics.poses"),
        ({"truth": np.empty((0, 4, 4)), "predicted": np.empty((0, 4, 4))}, "metrics.poses"),
        ({"delta": 0}, "metrics.length"),
        ({"alignment": "sim4"}, "metrics.name"),
        ({"reproduce": "simcol"}, "metrics.name"),
    ],
)
def test_trajectory_refusals(change, error_id):
    with pytest.raises(UsageError) as caught:
        trajectory_errors(**{"truth": world(5, 0), "predicted": world(5, 0), **change})
    assert caught.value.error_id == error_id


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3).filter(lambda v: 1e-6 < np.linalg.norm(v) < math.pi))
def test_rotation_angle(vector):
    assert rotation_angle(rotation(np.array(vector))) == pytest.approx(np.linalg.norm(vector), abs=1e-7)


def test_similarity_never_reflects_and_points_without_extent_have_no_scale():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(20, 3))
    _, turn, _ = similarity(source, source * [1, 1, -1], alignment="sim3")
    assert np.linalg.det(turn) == pytest.approx(1)
    scale, _, shift = similarity(np.ones((3, 3)), np.full((3, 3), 4.0), alignment="sim3")
    assert scale == 0.0
    assert shift.tolist() == [4, 4, 4]
    with pytest.raises(UsageError, match="points"):
        similarity(source, source[:5], alignment="se3")
