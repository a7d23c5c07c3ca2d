"""The nouns keep their rules: sizes agree, cameras move with the pixels, kinds do not turn into each other."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux import errors
from endolux.errors import EndoluxError, UsageError
from endolux.types import Camera, CameraModel, DepthKind, DepthMap, Frame, Unit

sides = st.integers(1, 4000)
offsets = st.integers(-500, 500)
lengths = st.floats(1, 5000)
centres = st.floats(-2000, 4000)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    return Camera(
        width=draw(sides), height=draw(sides), fx=draw(lengths), fy=draw(lengths), cx=draw(centres), cy=draw(centres)
    )


def close(a: Camera, b: Camera) -> bool:
    return (a.width, a.height, a.model, a.distortion) == (b.width, b.height, b.model, b.distortion) and np.allclose(
        (a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy), rtol=1e-9, atol=1e-6
    )


@given(cameras(), offsets, offsets, sides, sides)
def test_crop_moves_the_centre_and_nothing_else(camera: Camera, left: int, top: int, width: int, height: int) -> None:
    part = camera.crop(left, top, width, height)
    assert (part.width, part.height, part.fx, part.fy) == (width, height, camera.fx, camera.fy)
    assert (part.cx, part.cy) == (camera.cx - left, camera.cy - top)


@given(cameras(), *[st.integers(0, 500)] * 4)
def test_crop_undoes_pad(camera: Camera, left: int, top: int, right: int, bottom: int) -> None:
    padded = camera.pad(left, top, right, bottom)
    assert (padded.width, padded.height) == (camera.width + left + right, camera.height + top + bottom)
    assert close(padded.crop(left, top, camera.width, camera.height), camera)


@given(cameras(), *[st.integers(0, 100)] * 4)
def test_crops_add_up(camera: Camera, a: int, b: int, c: int, d: int) -> None:
    assert close(camera.crop(a, b, 50, 50).crop(c, d, 20, 20), camera.crop(a + c, b + d, 20, 20))


@given(cameras(), sides, sides, sides, sides)
def test_resizes_compose_and_undo(camera: Camera, a: int, b: int, c: int, d: int) -> None:
    assert close(camera.resize(a, b).resize(c, d), camera.resize(c, d))
    assert close(camera.resize(a, b).resize(camera.width, camera.height), camera)


@given(cameras())
def test_resize_keeps_the_field_of_view(camera: Camera) -> None:
    half = camera.resize(camera.width * 2, camera.height * 2)
    # The outer edge of the first pixel lies at -0.5 in both.
    assert np.isclose((-0.5 - camera.cx) / camera.fx, (-0.5 - half.cx) / half.fx)
    assert np.isclose((camera.width - 0.5 - camera.cx) / camera.fx, (half.width - 0.5 - half.cx) / half.fx)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(24, 40), st.integers(20, 28))
def test_resize_moves_the_camera_as_cv2_moves_the_pixels(factor_step: int, x: int, y: int) -> None:
    """A bright spot in an image stays on its ray when both are resized."""
    factor = (0.5, 1.5, 2.0, 3.0)[factor_step]
    rows, columns = np.mgrid[:48, :64]
    image = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18).astype(np.float32)
    camera = Camera(width=64, height=48, fx=50, fy=50, cx=31.5, cy=23.5)
    width, height = round(64 * factor), round(48 * factor)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    after = camera.resize(width, height)
    v, u = np.mgrid[:height, :width]
    centre_x = float((resized * u).sum() / resized.sum())
    centre_y = float((resized * v).sum() / resized.sum())
    assert (centre_x - after.cx) / after.fx == pytest.approx((x - camera.cx) / camera.fx, abs=1e-3)
    assert (centre_y - after.cy) / after.fy == pytest.approx((y - camera.cy) / camera.fy, abs=1e-3)


@given(cameras(), offsets, offsets)
def test_matrix_projects(camera: Camera, x: int, y: int) -> None:
    pixel = camera.matrix @ (x / 100, y / 100, 1)
    assert np.allclose(pixel, (camera.fx * x / 100 + camera.cx, camera.fy * y / 100 + camera.cy, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": -1},
        {"fx": 0.0},
        {"fy": -3.0},
        {"fx": float("nan")},
        {"cx": float("inf")},
        {"model": CameraModel.RADTAN},
        {"model": CameraModel.RADTAN, "distortion": (0.1,) * 6},
        {"model": CameraModel.FISHEYE, "distortion": (0.1,) * 5},
        {"distortion": (0.1,) * 4},
        {"model": CameraModel.RADTAN, "distortion": (0.1, 0.1, 0.1, float("nan"))},
    ],
)
def test_impossible_cameras(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"width": 64, "height": 48, "fx": 50.0, "fy": 50.0, "cx": 31.5, "cy": 23.5, **change}
    with pytest.raises(UsageError) as caught:
        Camera(**fields)
    assert caught.value.error_id in ("camera.impossible", "camera.distortion")


@pytest.mark.parametrize("count", [4, 5, 8])
def test_distortion_survives_crop_pad_and_resize(count: int) -> None:
    camera = Camera(
        width=64, height=48, fx=50, fy=50, cx=31, cy=23, model=CameraModel.RADTAN, distortion=(0.01,) * count
    )
    for moved in (camera.crop(1, 2, 30, 30), camera.pad(1, 2, 3, 4), camera.resize(10, 10)):
        assert (moved.model, moved.distortion) == (camera.model, camera.distortion)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 4), np.uint8),
        np.zeros((4, 6, 3), np.float32),
        np.zeros((4, 6, 3), np.uint16),
        np.zeros((0, 6, 3), np.uint8),
        np.zeros((2, 4, 6, 3), np.uint8),
    ],
)
def test_a_frame_is_rgb_of_eight_bits(image: np.ndarray) -> None:
    with pytest.raises(UsageError) as caught:
        Frame(image=image)
    assert caught.value.error_id == "frame.shape"


def test_a_frame_agrees_with_its_mask_and_camera() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    camera = Camera(width=6, height=4, fx=5, fy=5, cx=2.5, cy=1.5)
    frame = Frame(image=image, camera=camera, valid=np.ones((4, 6), bool))
    assert frame.size == (6, 4)
    with pytest.raises(UsageError):
        Frame(image=image, valid=np.ones((6, 4), bool))
    with pytest.raises(UsageError) as caught:
        Frame(image=image, camera=camera.crop(0, 0, 4, 6))
    assert caught.value.error_id == "frame.camera-size"
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.index = 3  # type: ignore[misc]


def depth(kind: DepthKind = DepthKind.METRIC, **fields: Any) -> DepthMap:
    values = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    return DepthMap(**{"values": values, "kind": kind, "valid": values > 3, **fields})


@pytest.mark.parametrize("kind", list(DepthKind))
def test_only_metric_depth_has_a_unit(kind: DepthKind) -> None:
    assert depth(kind).unit is (Unit.MM if kind is DepthKind.METRIC else Unit.NONE)


def test_depth_arrays_agree() -> None:
    for fields in (
        {"values": np.zeros((4, 6), np.float64)},
        {"values": np.zeros((4, 6, 1), np.float32)},
        {"valid": np.ones((6, 4), bool)},
        {"confidence": np.ones((4, 5), np.float32)},
    ):
        with pytest.raises(UsageError):
            depth(**fields)


@given(st.integers(-3, 9), st.integers(-3, 9))
def test_at_reads_column_then_row_and_never_wraps(x: int, y: int) -> None:
    map_ = depth()
    if not (0 <= x < 6 and 0 <= y < 4):
        with pytest.raises(UsageError):
            map_.at(x, y)
    elif map_.valid[y, x]:
        assert map_.at(x, y) == 6 * y + x + 1
    else:
        assert np.isnan(map_.at(x, y))


@given(st.floats(1e-3, 1e3))
def test_one_factor_makes_relative_depth_metric(factor: float) -> None:
    metric = depth(DepthKind.RELATIVE_DEPTH).to_metric(factor)
    assert metric.kind is DepthKind.METRIC
    assert metric.values.dtype == np.float32
    assert np.allclose(metric.values, depth().values * factor, rtol=1e-6)
    assert np.array_equal(metric.valid, depth().valid)


@pytest.mark.parametrize("kind", [DepthKind.METRIC, DepthKind.RELATIVE_DISPARITY])
def test_no_other_kind_becomes_metric_by_a_factor(kind: DepthKind) -> None:
    with pytest.raises(UsageError) as caught:
        depth(kind).to_metric(2)
    assert caught.value.error_id == "depth.conversion"


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_impossible_factors(factor: float) -> None:
    with pytest.raises(UsageError):
        depth(DepthKind.RELATIVE_DEPTH).to_metric(factor)


def test_errors_have_three_lines_distinct_codes_and_survive_a_process_border() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EndoluxError)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    for kind in kinds:
        error = pickle.loads(pickle.dumps(kind("what", why="why", fix="fix", error_id="a.b")))  # noqa: S301
        assert type(error) is kind
        assert error.lines() == ("error[a.b]: what", "  why: why", "  fix: fix")
        assert str(error).count("\n") == 2
