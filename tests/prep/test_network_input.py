from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from endolux.errors import UsageError
from endolux.prep.network_input import network_input, network_size, resize, restore
from endolux.runtime.card import Preprocessing

SPEC = Preprocessing(height=256, width=320)


def gradient(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / max(1, width - 1), 255 * y / max(1, height - 1)
    return np.stack([red, green, 0 * red + 77], axis=-1).astype(np.uint8)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([8, 14, 32]))
def test_size_rules(width: int, height: int, multiple: int) -> None:
    spec = Preprocessing(height=256, width=320, multiple=multiple)
    net_width, net_height = network_size(width, height, spec=spec)
    assert net_width % multiple == 0
    assert net_height % multiple == 0
    assert net_width * net_height <= 1.45 * spec.width * spec.height
    if 0.4 < width / height < 2.5:
        assert abs(np.log(net_width / net_height * height / width)) < 0.18
        assert abs(np.log(net_width * net_height / (spec.width * spec.height))) < 0.2


def test_known_sizes() -> None:
    assert network_size(1280, 720, spec=SPEC) == (384, 224)
    assert network_size(320, 256, spec=SPEC) == (320, 256)
    assert network_size(1, 1, spec=SPEC) == (288, 288)


@pytest.mark.parametrize("size", [(1280, 720), (320, 256), (333, 217), (1, 1), (3000, 2), (2, 3000)])
def test_round_trip_of_geometry(size: tuple[int, int]) -> None:
    """A smooth picture comes back where it was."""
    image = gradient(*size)
    source = network_input(image, spec=SPEC)
    assert source.array.shape[0] == 1
    assert source.array.dtype == np.uint8
    back = restore(np.ascontiguousarray(source.array[0, :, :, 0].astype(np.float32)), source)
    assert back.shape == image.shape[:2]
    if min(size) > 100:
        inner = (slice(8, -8), slice(8, -8))
        assert np.abs(back[inner] - image[:, :, 0][inner].astype(np.float32)).max() < 3


def test_crop_fill_and_back() -> None:
    image = gradient(640, 480)
    valid = np.zeros((480, 640), bool)
    cv2.circle(mask := np.zeros((480, 640), np.uint8), (300, 240), 150, 1, -1)
    valid[:] = mask > 0
    spec = Preprocessing(height=256, width=320, fill=(9, 8, 7))
    source = network_input(image, valid=valid, spec=spec)
    left, top, width, height = source.bbox
    assert abs(left - 150) <= 1
    assert abs(top - 90) <= 1
    assert abs(width - 301) <= 1
    assert abs(height - 301) <= 1
    assert source.array[0, 0, 0].tolist() == [9, 8, 7]
    middle = source.array[0, source.array.shape[1] // 2, source.array.shape[2] // 2]
    assert np.abs(middle.astype(int) - image[240, 300]).max() <= 2
    back = restore(np.ones(source.array.shape[1:3], np.float32), source)
    assert back.shape == (480, 640)
    assert back[valid].min() == 1
    assert back[:, : left - 1].max() == 0


@pytest.mark.parametrize("width", [1281, 1283, 1132, 1131])
def test_odd_boxes_stay_in_place(width: int) -> None:
    image = gradient(1400, 720)
    source = network_input(image, bbox=(60, 0, width, 719), spec=SPEC)
    left, top, box_width, box_height = source.bbox
    assert left <= 60
    assert left + box_width >= 60 + width
    assert top + box_height >= 719
    back = restore(np.ascontiguousarray(source.array[0, :, :, 0].astype(np.float32)), source)
    assert np.abs(back[20:-20, 80:1100] - image[20:-20, 80:1100, 0]).max() < 3


def test_restore_to_another_size() -> None:
    source = network_input(gradient(1280, 720), bbox=(320, 180, 640, 360), spec=SPEC)
    back = restore(np.ones(source.array.shape[1:3], np.float32), source, size=(640, 360))
    assert back.shape == (360, 640)
    assert back[90:270, 160:480].min() == 1
    assert back.sum() == 320 * 180


def test_float_layout() -> None:
    spec = Preprocessing(height=64, width=64, layout="nchw-float32", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    array = network_input(np.full((64, 64, 3), 255, np.uint8), spec=spec).array
    assert array.shape == (1, 3, 64, 64)
    assert array.dtype == np.float32
    assert array[0, :, 0, 0] == pytest.approx([2.5, 2.0, 1.75], rel=1e-6)


def test_shrinking_averages() -> None:
    """A chequerboard of single pixels becomes grey, not a moire."""
    board = (np.indices((720, 1280)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize(np.repeat(board[:, :, None], 3, axis=2), 384, 224)
    assert small.std() < 3
    assert abs(float(small.mean()) - 127.5) < 2


def test_same_pixels_same_bytes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (719, 1277, 3), dtype=np.uint8)
    assert network_input(image, spec=SPEC).array.tobytes() == network_input(image.copy(), spec=SPEC).array.tobytes()


@pytest.mark.parametrize(
    ("image", "options", "error_id"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, "prep.image"),
        (np.zeros((4, 4), np.uint8), {}, "prep.image"),
        (np.zeros((4, 4, 4), np.uint8), {}, "prep.image"),
        (np.zeros((0, 4, 3), np.uint8), {}, "prep.image"),
        (np.zeros((4, 4, 3), np.uint8), {"valid": np.zeros((4, 4), bool)}, "prep.empty"),
        (np.zeros((4, 4, 3), np.uint8), {"bbox": (0, 0, 5, 4)}, "prep.empty"),
        (np.zeros((4, 4, 3), np.uint8), {"bbox": (0, 0, 0, 0)}, "prep.empty"),
        (np.zeros((4, 4, 3), np.uint8), {"valid": np.ones((5, 4), bool)}, "types.size"),
    ],
)
def test_bad_input(image: np.ndarray, options: dict, error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        network_input(image, spec=SPEC, **options)
    assert caught.value.error_id == error_id


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (300, 900), (97, 33)])
def test_stretched_input_has_exactly_the_size_of_the_card(width: int, height: int) -> None:
    spec = Preprocessing(height=240, width=320, multiple=8, resize="stretch")
    assert network_size(width, height, spec=spec) == (320, 240)
    x = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    source = network_input(np.ascontiguousarray(x), spec=spec)
    assert source.array.shape == (1, 240, 320, 3)
    assert source.bbox == (0, 0, width, height)
    ramp = source.array[0, :, :, 0].astype(np.float32)
    assert np.abs(ramp - np.linspace(0, 255, 320)[None]).max() < 5
    back = restore(ramp, source)
    assert back.shape == (height, width)
    assert np.abs(back - x[:, :, 0]).max() < 8


def test_a_size_that_cannot_be_stretched_to_is_refused() -> None:
    with pytest.raises(ValidationError, match="not multiples of 8"):
        Preprocessing(height=244, width=320, multiple=8, resize="stretch")
    assert Preprocessing(height=244, width=320, multiple=8).resize == "keep-aspect"
