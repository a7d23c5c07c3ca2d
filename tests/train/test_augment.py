"""Augmentation: deterministic, depth values untouched, cheap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.train.augment import Augmentation, augment

NOTHING = Augmentation(
    flip=0, zoom=1, aspect=0, gamma=(1, 1), gain=(1, 1), colour=0, cast=0, grey=0, light=0, lens=0, noise=0,
    content_area=0, scaler=0, text=0, highlights=0, occluders=0, codec=0,
)  # fmt: skip
EFFECTS = ("light", "lens", "noise", "content_area", "scaler", "text", "highlights", "occluders", "codec")


def picture(width: int = 96, height: int = 64) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 2, y * 2 + 40, 120 + 60 * np.sin(x / 9)], -1).clip(0, 255).astype(np.uint8)
    return image, (5 + x + 100 * y).astype(np.float32)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_shape_type_bytes_and_depth_values(seed: int) -> None:
    image, depth = picture()
    before = image.copy(), depth.copy()
    new_image, new_depth = augment(image, depth, np.random.default_rng(seed))
    again_image, again_depth = augment(image, depth, np.random.default_rng(seed))
    assert (new_image.shape, new_image.dtype) == ((64, 96, 3), np.uint8)
    assert (new_depth.shape, new_depth.dtype) == ((64, 96), np.float32)
    assert np.array_equal(new_image, again_image)
    assert np.array_equal(new_depth, again_depth)
    assert set(np.unique(new_depth)) <= {0.0, *np.unique(depth)}, "a depth that was not there"
    assert np.array_equal(image, before[0])
    assert np.array_equal(depth, before[1])


def test_seeds_differ() -> None:
    image, depth = picture()
    first, second = (augment(image, depth, np.random.default_rng(seed))[0] for seed in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_effect_changes_pixels(effect: str) -> None:
    image, depth = picture()
    chosen = dataclasses.replace(NOTHING, **{effect: 1.0})
    changed = 0
    for seed in range(5):
        # The tone curve draws its numbers whatever is switched on, so the same seed shows the effect alone.
        new_image, new_depth = augment(image, depth, np.random.default_rng(seed), settings=chosen)
        changed += not np.array_equal(new_image, image)
        if effect in ("content_area", "occluders"):
            assert set(np.unique(new_depth)) - {0.0} <= set(np.unique(depth))
        else:
            assert np.array_equal(new_depth, depth)
    assert changed == 5


def test_mirroring_moves_image_and_depth_together() -> None:
    image, depth = picture()
    image = np.repeat((depth / depth.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    flips = set()
    for seed in range(40):
        settings_ = dataclasses.replace(NOTHING, flip=0.5)
        new_image, new_depth = augment(image, depth, np.random.default_rng(seed), settings=settings_)
        flips.add((bool(new_depth[0, 0] > new_depth[0, -1]), bool(new_depth[0, 0] > new_depth[-1, 0])))
        assert np.corrcoef(new_image[..., 0].ravel(), new_depth.ravel())[0, 1] > 0.99
    assert len(flips) == 4


def test_a_crop_keeps_image_and_depth_aligned_at_any_size() -> None:
    image, depth = picture()
    image = np.repeat((depth / depth.max() * 255).astype(np.uint8)[..., None], 3, axis=2)
    for seed in range(10):
        new_image, new_depth = augment(
            image, depth, np.random.default_rng(seed), settings=dataclasses.replace(NOTHING, zoom=2.0), size=(64, 32)
        )
        assert new_depth.shape == (32, 64)
        assert np.corrcoef(new_image[..., 0].ravel(), new_depth.ravel())[0, 1] > 0.99


def test_outside_the_content_area_is_black_and_unknown() -> None:
    image, depth = np.full((64, 96, 3), 200, np.uint8), np.full((64, 96), 9, np.float32)
    seen = 0
    for seed in range(20):
        chosen = dataclasses.replace(NOTHING, content_area=1.0, codec=1.0)
        new_image, new_depth = augment(image, depth, np.random.default_rng(seed), settings=chosen)
        outside = new_depth == 0
        seen += int(outside.sum())
        assert not new_image[outside].any()
        assert new_image[~outside].mean() > 100
        assert outside.mean() < 0.6
    assert seen > 0


def test_what_is_behind_an_occluder_is_unknown() -> None:
    image, depth = picture()
    chosen = dataclasses.replace(NOTHING, occluders=1.0)
    plain, _ = augment(image, depth, np.random.default_rng(3), settings=NOTHING)
    for seed in range(10):
        _, new_depth = augment(image, depth, np.random.default_rng(seed), settings=chosen)
        assert (new_depth == 0).any()
        assert (new_depth > 0).any()
    assert plain.shape == image.shape


def test_grey_is_grey_before_the_cast() -> None:
    image, depth = picture()
    new_image, _ = augment(image, depth, np.random.default_rng(0), settings=dataclasses.replace(NOTHING, grey=1.0))
    # White balance still tints it: channels stay proportional.
    channels = new_image.reshape(-1, 3).astype(float)
    assert np.corrcoef(channels[:, 0], channels[:, 1])[0, 1] > 0.99
