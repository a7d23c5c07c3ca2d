"""Colours: warm is near, black is invalid, the range stays."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.errors import UsageError
from endolux.io.colour import (
    LEGEND_WIDTH,
    PALETTES,
    ColourRange,
    RangeEstimator,
    colour_table,
    colourise,
    legend,
)
from endolux.types import DepthKind, DepthMap


def depth(values: object, kind: DepthKind = DepthKind.METRIC, valid: np.ndarray | None = None) -> DepthMap:
    array = np.asarray(values, np.float32)
    return DepthMap(values=array, kind=kind, valid=np.ones(array.shape, bool) if valid is None else valid)


def warmth(pixel: np.ndarray) -> int:
    return int(pixel[0]) - int(pixel[2])


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("kind", list(DepthKind))
def test_near_is_warm_for_every_kind(kind, scale):
    low, high = colourise(depth([[12.0, 95.0]], kind), ColourRange(low=10, high=100, scale=scale))[0]
    near, far = (high, low) if kind is DepthKind.RELATIVE_DISPARITY else (low, high)
    assert warmth(near) > 60
    assert warmth(far) < 0


@pytest.mark.parametrize("palette", PALETTES)
def test_invalid_is_black_and_valid_never_has_the_invalid_entry(palette):
    values = np.array([[-5.0, 0.0, 10, 100, 1e9, np.nan, 50]], np.float32)
    valid = np.array([[1, 1, 1, 1, 1, 0, 0]], bool)
    image = colourise(depth(values, valid=valid), ColourRange(low=10, high=100), palette=palette)
    assert image.dtype == np.uint8
    assert image.shape == (1, 7, 3)
    assert not image[0, 5:].any()
    table = colour_table(palette)
    near, far = table[255, 0].tolist(), table[1, 0].tolist()
    assert [p.tolist() for p in image[0, :5]] == [near, near, near, far, far]


def test_turbo_is_opencvs_turbo_in_rgb():
    import cv2

    ramp = np.arange(256, dtype=np.uint8).reshape(256, 1)
    expected = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    assert np.array_equal(colour_table()[1:], expected[1:])


def test_linear_and_log_levels_follow_their_formula():
    values = np.geomspace(1, 1000, 50, dtype=np.float32)[None]
    position = {
        "linear": (values - 1) / 999,
        "log": np.log(values) / np.log(1000),
    }
    for scale, fraction in position.items():
        got = colourise(depth(values), ColourRange(low=1, high=1000, scale=scale), palette="grey")[0, :, 0]
        assert np.abs(got.astype(float) - (255 - 254 * fraction[0])).max() <= 0.51


@pytest.mark.parametrize(
    ("low", "high", "scale"), [(1, 1, "linear"), (2, 1, "linear"), (0, 1, "log"), (0, np.inf, "linear")]
)
def test_impossible_ranges(low, high, scale):
    with pytest.raises(UsageError):
        ColourRange(low=low, high=high, scale=scale)


def test_unknown_palette_names_the_known():
    with pytest.raises(UsageError, match="turbo"):
        colourise(depth([[1.0]]), ColourRange(low=0, high=1), palette="jet")


def test_estimated_range_is_robust_and_does_not_move_once_fixed():
    rng = np.random.default_rng(1)
    estimator = RangeEstimator(frames=3)
    for _ in range(3):
        values = rng.uniform(20, 80, (200, 300)).astype(np.float32)
        values[0, :5] = 1e6
        estimator.update(depth(values))
    assert estimator.ready
    before = estimator.range()
    assert 12 <= before.low <= 17
    assert 95 <= before.high <= 105
    assert before.scale == "linear"
    estimator.update(depth(np.full((200, 300), 5000.0)))
    assert estimator.range() == before


def test_wide_depth_is_logarithmic_and_disparity_never():
    values = np.geomspace(1, 400, 5000, dtype=np.float32).reshape(50, 100)
    for kind, scale in ((DepthKind.METRIC, "log"), (DepthKind.RELATIVE_DISPARITY, "linear")):
        estimator = RangeEstimator(frames=1)
        estimator.update(depth(values, kind))
        assert estimator.range().scale == scale


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("value", [0.0, 1e-9, -3.0, 42.0])
def test_constant_frames_give_a_usable_range(kind, value):
    estimator = RangeEstimator(frames=1)
    estimator.update(depth(np.full((20, 20), value), kind))
    assert estimator.range().low < estimator.range().high


def test_empty_frames_do_not_decide():
    estimator = RangeEstimator(frames=1)
    estimator.update(depth(np.ones((4, 4)), valid=np.zeros((4, 4), bool)))
    assert not estimator.ready
    assert estimator.range() == ColourRange(low=0, high=1)


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("height", [1, 96, 200, 1080])
def test_legend_has_near_on_top_and_text(kind, height):
    image = legend(ColourRange(low=0.02, high=1.7), kind=kind, height=height)
    assert image.shape == (max(height, 96), LEGEND_WIDTH, 3)
    bar = image[34:-12, 12]
    assert warmth(bar[0]) > 60
    assert warmth(bar[-1]) < 0
    assert (image[:30] > 200).any()
