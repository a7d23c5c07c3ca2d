"""Temporal consistency: exact on planes, planted jumps are found, the published form."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.metrics import EmptyMaskWarning, flicker, temporal_alignment_error
from endolux.types import Camera, CameraModel

CAMERA = Camera(width=24, height=18, fx=22.0, fy=21.0, cx=11.3, cy=8.8)


def pose(seed, size=1.0):
    rng = np.random.default_rng(seed)
    x, y, z = rng.normal(0, 0.03 * size, 3)
    out = np.eye(4)
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    out[:3, :3], out[:3, 3] = rx @ ry @ rz, rng.normal(0, 0.5 * size, 3)
    return out


def plane(matrix, camera=CAMERA, normal=(0.2, -0.3, 1.0), offset=20.0):
    """True depth of the plane normal . x = offset, seen from a camera-to-world pose."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    directions = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    n = np.asarray(normal)
    return (offset - n @ matrix[:3, 3]) / (directions @ (matrix[:3, :3].T @ n))


POSES = [pose(seed) for seed in range(4)]


def test_the_truth_of_a_tilted_plane_has_no_error():
    found = temporal_alignment_error([plane(p) for p in POSES], POSES, CAMERA)
    assert found.error < 1e-12
    assert found.pairs.shape == (3, 2)
    assert found.pixels.min() > 100
    # Rounding to pixels costs the slope of the plane.
    coded = temporal_alignment_error([plane(p) for p in POSES], POSES, CAMERA, reproduce="video-depth-anything")
    assert coded.error > 1e-3


def test_a_jump_of_scale_is_found_exactly():
    wall = np.full((18, 24), 20.0)
    found = temporal_alignment_error([wall, 1.1 * wall], [np.eye(4)] * 2, CAMERA)
    assert found.pairs.tolist() == [pytest.approx([1 / 11, 0.1])]
    assert found.error == pytest.approx((1 / 11 + 0.1) / 2)
    assert found.pixels.tolist() == [[432, 432]]


def test_unit_and_world_frame_do_not_matter():
    rng = np.random.default_rng(0)
    depths = [plane(p) * np.exp(rng.normal(0, 0.02, (18, 24))) for p in POSES]
    base = temporal_alignment_error(depths, POSES, CAMERA).error
    metres = [p.copy() for p in POSES]
    for p in metres:
        p[:3, 3] /= 1000
    assert temporal_alignment_error([d / 1000 for d in depths], metres, CAMERA).error == pytest.approx(base)
    other = [pose(9, 30) @ p for p in POSES]
    assert temporal_alignment_error(depths, other, CAMERA).error == pytest.approx(base)
    backwards = temporal_alignment_error(depths[::-1], POSES[::-1], CAMERA)
    assert backwards.error == pytest.approx(base)
    # Relative depth under a wrong factor is inconsistent with the poses: the clip must be aligned first.
    assert temporal_alignment_error([3 * plane(p) for p in POSES], POSES, CAMERA).error > 1e-3


def published(depths, poses, camera, masks):
    """The published code's loop, with its empty case, for reference."""
    total = 0.0
    height, width = depths[0].shape

    def directed(a, b):
        motion = np.linalg.inv(poses[b]) @ poses[a]
        projected = np.zeros((height, width))
        for y in range(height):
            for x in range(width):
                d = depths[a][y, x]
                q = motion[:3, :3] @ [(x - camera.cx) * d / camera.fx, (y - camera.cy) * d / camera.fy, d]
                q = q + motion[:3, 3]
                u, v = round(q[0] * camera.fx / q[2] + camera.cx), round(q[1] * camera.fy / q[2] + camera.cy)
                if 0 <= u < width and 0 <= v < height:
                    projected[v, u] = q[2]
        kept = (projected > 0) & (depths[b] > 0) & masks[b]
        return (np.abs(projected - depths[b]) / np.where(kept, depths[b], 1))[kept].mean() if kept.any() else 0.0

    for k in range(len(depths) - 1):
        total += directed(k, k + 1) + directed(k + 1, k)
    return total / (2 * (len(depths) - 1))


def test_reproduces_the_published_formula():
    rng = np.random.default_rng(3)
    depths = [plane(p) * np.exp(rng.normal(0, 0.05, (18, 24))) for p in POSES]
    masks = [rng.random((18, 24)) > 0.2 for _ in POSES]
    whole = [np.ones((18, 24), bool)] * len(POSES)
    found = temporal_alignment_error(depths, POSES, CAMERA, reproduce="video-depth-anything")
    assert found.error == pytest.approx(published(depths, POSES, CAMERA, whole), abs=1e-9)
    # A pixel that is invalid has depth 0 in both.
    zeroed = [np.where(m, d, 0) for d, m in zip(depths, masks, strict=True)]
    masked = temporal_alignment_error(zeroed, POSES, CAMERA, valid=masks, reproduce="video-depth-anything")
    assert masked.error == pytest.approx(published(zeroed, POSES, CAMERA, masks), abs=1e-9)
    away = np.eye(4)
    away[:3, :3] = np.diag([-1.0, 1, -1])
    with pytest.warns(EmptyMaskWarning):
        none = temporal_alignment_error(depths[:2], [np.eye(4), away], CAMERA, reproduce="video-depth-anything")
    assert none.error == 0.0
    assert none.missing == 2


def test_hidden_points_do_not_count():
    # A near strip before a far wall; the camera moves sideways, so that the strip hides other parts of the wall.
    camera = Camera(width=40, height=4, fx=40.0, fy=40.0, cx=19.5, cy=1.5)
    side = np.eye(4)
    side[0, 3] = 2.0
    frames = []
    for centre in (0.0, 2.0):
        x = (np.arange(40) - 19.5) / 40 * 10.0 + centre
        frames.append(np.tile(np.where(np.abs(x) < 1.5, 10.0, 40.0), (4, 1)))
    found = temporal_alignment_error(frames, [np.eye(4), side], camera)
    coded = temporal_alignment_error(frames, [np.eye(4), side], camera, reproduce="video-depth-anything")
    assert found.error < 0.05
    assert found.error < coded.error


def test_garbage_outside_the_mask_changes_nothing():
    rng = np.random.default_rng(1)
    depths = [plane(p) * np.exp(rng.normal(0, 0.02, (18, 24))) for p in POSES]
    masks = [rng.random((18, 24)) > 0.02 for _ in POSES]
    dirty = [np.where(m, d, np.nan) for d, m in zip(depths, masks, strict=True)]
    base = temporal_alignment_error(depths, POSES, CAMERA, valid=masks)
    assert temporal_alignment_error(dirty, POSES, CAMERA, valid=masks).error == pytest.approx(base.error)
    assert temporal_alignment_error(dirty, POSES, CAMERA).error == pytest.approx(base.error)


def test_distorted_camera():
    camera = Camera(
        width=24, height=18, fx=22.0, fy=21.0, cx=11.3, cy=8.8, model=CameraModel.FISHEYE, distortion=(0.0, 0, 0, 0)
    )
    wall = np.full((18, 24), 20.0)
    near = np.eye(4)
    near[2, 3] = 4.0
    found = temporal_alignment_error([wall, wall - 4], [np.eye(4), near], camera)
    assert found.error < 1e-6
    with pytest.raises(UsageError, match="pinhole"):
        temporal_alignment_error([wall] * 2, [np.eye(4)] * 2, camera, reproduce="video-depth-anything")


def test_nothing_in_common_is_nan_with_a_warning_and_a_count():
    wall = np.full((18, 24), 20.0)
    away = np.eye(4)
    away[:3, :3] = np.diag([-1.0, 1, -1])
    with pytest.warns(EmptyMaskWarning, match="2 of 4"):
        found = temporal_alignment_error([wall] * 3, [np.eye(4), np.eye(4), away], CAMERA)
    assert found.missing == 2
    assert found.error == 0.0
    assert np.isnan(found.pairs[1]).all()
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(temporal_alignment_error([wall], [np.eye(4)], CAMERA).error)


def test_clip_refusals():
    wall = np.full((18, 24), 20.0)
    for arguments, error_id in [
        (([wall] * 3, [np.eye(4)] * 2, CAMERA), "metrics.clip"),
        (([wall] * 2, [np.eye(4)] * 3, CAMERA), "metrics.clip"),
        (([wall[:9]] * 2, [np.eye(4)] * 2, CAMERA), "metrics.shape"),
        (([wall] * 2, [np.full((4, 4), np.nan)] * 2, CAMERA), "metrics.poses"),
    ]:
        with pytest.raises(UsageError) as caught:
            temporal_alignment_error(*arguments)
        assert caught.value.error_id == error_id
    with pytest.raises(UsageError) as caught:
        temporal_alignment_error([wall] * 2, [np.eye(4)] * 2, CAMERA, reproduce="vda")
    assert caught.value.error_id == "metrics.name"
    with pytest.raises(UsageError) as caught:
        flicker([wall] * 3, valid=[wall > 0] * 2)
    assert caught.value.error_id == "metrics.clip"
    with pytest.raises(UsageError) as caught:
        flicker([wall, wall[:9], wall])
    assert caught.value.error_id == "metrics.shape"


def test_flicker_of_noise_is_its_mean_deviation():
    rng = np.random.default_rng(0)
    clip = [50 * np.exp(rng.normal(0, 0.03, (60, 80))) for _ in range(8)]
    found = flicker(clip)
    assert found.total == pytest.approx(0.03 * math.sqrt(2 / math.pi), rel=0.02)
    assert found.shape == pytest.approx(found.total, rel=0.01)
    assert found.scale < 0.05 * found.total
    assert (found.triples, found.missing) == (6, 0)


def test_flicker_of_the_scale_alone():
    clip = [plane(np.eye(4)) * factor for factor in (1.0, 1.1, 1.0, 1.1)]
    found = flicker(clip)
    assert found.total == pytest.approx(2 * math.log(1.1) / math.sqrt(6))
    assert found.scale == pytest.approx(found.total)
    assert found.shape == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 100), st.floats(-0.5, 0.5))
def test_flicker_is_blind_to_scale_steady_change_and_direction(seed, factor, rate):
    rng = np.random.default_rng(seed)
    clip = [rng.uniform(10, 100, (4, 5)) for _ in range(5)]
    base = flicker(clip)
    changed = flicker([factor * frame * math.exp(rate * t) for t, frame in enumerate(clip)])
    for name in ("total", "scale", "shape"):
        assert getattr(changed, name) == pytest.approx(getattr(base, name), rel=1e-6, abs=1e-9)
    assert flicker(clip[::-1]).total == pytest.approx(base.total)


def test_flicker_reads_a_stream_once_and_counts_what_is_missing():
    frames = [np.full((2, 2), 10.0)] * 5
    masks = [np.ones((2, 2), bool)] * 4 + [np.zeros((2, 2), bool)]
    with pytest.warns(EmptyMaskWarning, match="1 triples"):
        found = flicker(iter(frames), valid=iter(masks))
    assert (found.total, found.triples, found.missing) == (0.0, 2, 1)
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(flicker(frames[:2]).total)


@pytest.mark.real_data
def test_true_depth_and_poses_of_a_kinect_agree_and_wrong_poses_do_not(shared_data):
    folder = shared_data / "rgbd_7scenes_kitchen"
    if not folder.is_dir():
        pytest.skip(f"no real frames: '{folder}' is absent")
    import cv2

    camera = Camera(width=640, height=480, fx=585.0, fy=585.0, cx=320.0, cy=240.0)
    depths, poses = [], []
    for path in sorted(folder.glob("*.depth.png"))[:3]:
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64)
        depths.append(np.where(depth == 65535, 0, depth))
        matrix = np.loadtxt(path.with_name(path.name.replace("depth.png", "pose.txt")))
        matrix[:3, 3] *= 1000
        poses.append(matrix)
    right = temporal_alignment_error(depths, poses, camera)
    wrong = temporal_alignment_error(depths, [np.linalg.inv(p) for p in poses], camera)
    assert right.error < 0.03
    assert wrong.error > 1.5 * right.error
    assert right.missing == 0


def test_holes_in_the_target_are_not_interpolated_across():
    rng = np.random.default_rng(4)
    masks = [rng.random((18, 24)) > 0.1 for _ in POSES]
    found = temporal_alignment_error([plane(p) for p in POSES], POSES, CAMERA, valid=masks)
    assert found.error < 1e-12
    assert found.pixels.min() > 100
