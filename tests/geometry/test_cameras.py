"""Rays, points and pixels; cameras on disk."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import EndoluxError, InputError, UsageError
from endolux.geometry.cameras import (
    camera_from_dict,
    camera_to_dict,
    load_camera,
    point_mask,
    project,
    rays,
    save_camera,
    unproject,
)
from endolux.types import Camera, CameraModel, DepthKind, DepthMap

PINHOLE = Camera(width=64, height=48, fx=60.0, fy=61.0, cx=30.2, cy=25.1)
RADTAN = Camera(
    width=64,
    height=48,
    fx=60.0,
    fy=61.0,
    cx=30.2,
    cy=25.1,
    model=CameraModel.RADTAN,
    distortion=(-0.2, 0.05, 1e-3, -2e-3),
)
RATIONAL = Camera(
    width=64,
    height=48,
    fx=60.0,
    fy=61.0,
    cx=30.2,
    cy=25.1,
    model=CameraModel.RADTAN,
    distortion=(-0.2, 0.05, 1e-3, -2e-3, 0.01, 0.02, -0.01, 0.003),
)
FISHEYE = Camera(
    width=64,
    height=48,
    fx=40.0,
    fy=41.0,
    cx=30.2,
    cy=25.1,
    model=CameraModel.FISHEYE,
    distortion=(0.02, -0.01, 0.003, -0.001),
)
CAMERAS = [PINHOLE, RADTAN, RATIONAL, FISHEYE]


def depth_of(camera: Camera, kind: DepthKind = DepthKind.METRIC, seed: int = 0) -> DepthMap:
    rng = np.random.default_rng(seed)
    shape = (camera.height, camera.width)
    return DepthMap(
        values=rng.uniform(5, 200, shape).astype(np.float32), kind=kind, valid=rng.random(shape) > 0.3, camera=camera
    )


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: f"{camera.model}{len(camera.distortion)}")
def test_every_ray_projects_to_its_pixel(camera: Camera) -> None:
    directions = rays(camera)
    assert directions.shape == (camera.height, camera.width, 3)
    assert directions.dtype == np.float32
    assert np.isfinite(directions).all()
    assert (directions[..., 2] == 1).all()
    for scale in (0.01, 1, 300):
        pixels = project(directions.reshape(-1, 3) * scale, camera).reshape(camera.height, camera.width, 2)
        v, u = np.mgrid[: camera.height, : camera.width]
        np.testing.assert_allclose(pixels, np.stack([u, v], -1), atol=1e-4)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: f"{camera.model}{len(camera.distortion)}")
def test_projection_is_that_of_opencv(camera: Camera) -> None:
    points = np.random.default_rng(0).uniform((-30, -20, 20), (30, 20, 100), (200, 3))
    zero = np.zeros(3)
    coefficients = np.array(camera.distortion) if camera.distortion else None
    if camera.model is CameraModel.FISHEYE:
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, camera.matrix, coefficients)
    else:
        expected, _ = cv2.projectPoints(points, zero, zero, camera.matrix, coefficients)
    np.testing.assert_allclose(project(points, camera), expected.reshape(-1, 2), atol=1e-9)


def test_pinhole_in_closed_form() -> None:
    directions = rays(PINHOLE).astype(float)
    assert directions[10, 20, 0] == pytest.approx((20 - 30.2) / 60)
    assert directions[10, 20, 1] == pytest.approx((10 - 25.1) / 61)


def test_rays_are_cached_and_cannot_be_written() -> None:
    assert rays(PINHOLE) is rays(Camera(**camera_fields(PINHOLE)))
    with pytest.raises(ValueError, match="read-only"):
        rays(PINHOLE)[0, 0, 0] = 1


def camera_fields(camera: Camera) -> dict[str, object]:
    return {name: getattr(camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy", "model", "distortion")}


def test_pixels_without_a_ray_are_nan_and_left_out() -> None:
    # Half the image height is 90 degrees off the axis; a plane in front of the camera never gets there.
    wide = Camera(
        width=101,
        height=101,
        fx=20.0,
        fy=20.0,
        cx=50,
        cy=50,
        model=CameraModel.FISHEYE,
        distortion=(0.0, 0.0, 0.0, 0.0),
    )
    finite = np.isfinite(rays(wide)[..., 0])
    v, u = np.mgrid[:101, :101]
    angle = np.degrees(np.hypot(u - 50, v - 50) / 20)
    assert not finite[angle > 90].any()
    assert finite[angle < 85].all()
    depth = DepthMap(values=np.full((101, 101), 10, np.float32), kind=DepthKind.METRIC, valid=np.ones((101, 101), bool))
    points = unproject(depth, wide)
    assert np.isfinite(points).all()
    assert len(points) == point_mask(depth, wide).sum() == finite.sum()


def test_a_polynomial_that_folds_over_gives_no_ray() -> None:
    folding = Camera(
        width=101, height=3, fx=50.0, fy=50.0, cx=50, cy=1, model=CameraModel.RADTAN, distortion=(-0.8, 0.0, 0.0, 0.0)
    )
    directions = rays(folding)[1, :, 0]
    assert np.isfinite(directions[35:66]).all()
    assert not np.isfinite(directions[0])
    good = np.isfinite(directions)
    pixels = project(rays(folding)[1][good], folding)
    np.testing.assert_allclose(pixels[:, 0], np.flatnonzero(good), atol=0.06)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: f"{camera.model}{len(camera.distortion)}")
def test_points_project_back_with_their_depth(camera: Camera) -> None:
    depth = depth_of(camera)
    points = unproject(depth)
    assert points.shape == (depth.valid.sum(), 3)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[:, 2], depth.values[depth.valid])
    rows, columns = np.nonzero(depth.valid)
    np.testing.assert_allclose(project(points, camera), np.stack([columns, rows], 1), atol=1e-3)


def test_a_plane_stays_a_plane() -> None:
    # Depth of n . x = d seen through any lens gives points on it.
    normal, distance = np.array([0.2, -0.1, 1.0]), 80.0
    for camera in CAMERAS:
        values = (distance / (rays(camera) @ normal)).astype(np.float32)
        depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=np.ones(values.shape, bool), camera=camera)
        np.testing.assert_allclose(unproject(depth) @ normal, distance, rtol=1e-5)


def test_relative_depth_gives_points_up_to_a_factor() -> None:
    metric = depth_of(PINHOLE)
    relative = DepthMap(values=metric.values / 50, kind=DepthKind.RELATIVE_DEPTH, valid=metric.valid)
    np.testing.assert_allclose(unproject(relative, PINHOLE) * 50, unproject(metric), rtol=1e-5)


def test_invalid_zero_and_infinite_depths_are_left_out() -> None:
    values = np.array([[1, 0, -1, np.nan, np.inf, 2]], np.float32)
    valid = np.array([[True, True, True, True, True, False]])
    camera = Camera(width=6, height=1, fx=5, fy=5, cx=2, cy=0)
    points = unproject(DepthMap(values=values, kind=DepthKind.METRIC, valid=valid), camera)
    assert points[:, 2].tolist() == [1]


def test_empty_masks_give_no_points() -> None:
    depth = DepthMap(values=np.ones((48, 64), np.float32), kind=DepthKind.METRIC, valid=np.zeros((48, 64), bool))
    assert unproject(depth, PINHOLE).shape == (0, 3)
    assert project(np.zeros((0, 3)), FISHEYE).shape == (0, 2)


def test_refusals() -> None:
    with pytest.raises(UsageError) as caught:
        unproject(depth_of(PINHOLE, DepthKind.RELATIVE_DISPARITY))
    assert caught.value.error_id == "geometry.kind"
    bare = DepthMap(values=np.ones((4, 6), np.float32), kind=DepthKind.METRIC, valid=np.ones((4, 6), bool))
    with pytest.raises(UsageError) as caught:
        unproject(bare)
    assert caught.value.error_id == "geometry.no-camera"
    with pytest.raises(UsageError) as caught:
        unproject(bare, PINHOLE)
    assert caught.value.error_id == "geometry.camera-size"
    with pytest.raises(UsageError) as caught:
        project(np.zeros(3), PINHOLE)
    assert caught.value.error_id == "geometry.points"


def test_points_behind_the_camera_have_no_pixel() -> None:
    points = np.array([[1, 1, -5], [0, 0, 0], [1, 1, 5], [np.nan, 0, 1]], float)
    for camera in CAMERAS:
        assert np.isfinite(project(points, camera)).all(axis=1).tolist() == [False, False, True, False]


@settings(max_examples=40, deadline=None)
@given(
    camera=st.sampled_from(CAMERAS),
    left=st.integers(-20, 20),
    top=st.integers(-20, 20),
    width=st.integers(1, 100),
    height=st.integers(1, 100),
)
def test_projection_commutes_with_crop_and_resize(camera: Camera, left: int, top: int, width: int, height: int) -> None:
    points = np.random.default_rng(0).uniform((-10, -10, 20), (10, 10, 100), (20, 3))
    pixels = project(points, camera)
    np.testing.assert_allclose(project(points, camera.crop(left, top, width, height)), pixels - (left, top), atol=1e-9)
    scale = np.array([width / camera.width, height / camera.height])
    np.testing.assert_allclose(
        project(points, camera.resize(width, height)), (pixels + 0.5) * scale - 0.5, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: f"{camera.model}{len(camera.distortion)}")
def test_files_keep_every_bit(tmp_path: Path, camera: Camera) -> None:
    odd = Camera(**{**camera_fields(camera), "fx": 1 / 3, "cy": 1e-17})  # type: ignore[arg-type]
    save_camera(tmp_path / "c.json", odd)
    assert load_camera(tmp_path / "c.json") == odd
    assert camera_from_dict(camera_to_dict(odd)) == odd
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"fx": "60"},
        {"fx": None},
        {"fx": True},
        {"width": 64.5},
        {"model": "thin"},
        {"model": 3},
        {"distortion": 4},
        {"distortion": ["a"]},
        {"focal": 3},
        {"fx": 10**400},
    ],
)
def test_files_that_are_no_camera(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**camera_to_dict(PINHOLE), **change}))
    with pytest.raises(InputError) as caught:
        load_camera(path)
    assert caught.value.error_id == "camera.format"


@pytest.mark.parametrize("text", ["", "text", "[]", "3", "{}", "{", "\ufeff{}", "[" * 100_000])
def test_files_that_are_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError):
        load_camera(path)


def test_other_bad_files(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**camera_to_dict(PINHOLE), "fxx": 1.0}))
    with pytest.raises(InputError, match="did you mean 'fx'"):
        load_camera(tmp_path / "c.json")
    with pytest.raises(InputError) as caught:
        load_camera(tmp_path / "no.json")
    assert caught.value.error_id == "input.missing"
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        load_camera(tmp_path / "b.json")
    (tmp_path / "d.json").write_text(json.dumps({**camera_to_dict(PINHOLE), "fx": -1.0}))
    with pytest.raises(UsageError):
        load_camera(tmp_path / "d.json")
    with pytest.raises(EndoluxError):
        save_camera(tmp_path / "no" / "c.json", PINHOLE)
