"""Augmentation: deterministic, depth values untouched, cheap."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from endolux.train.augment import Augmentation, augment, augment_leve, augment_view
from endolux.train.viewport import View

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


def test_maps_follow_the_view_at_any_resolution() -> None:
    image, depth = picture()
    for seed in range(20):
        chosen = dataclasses.replace(NOTHING, flip=0.5, zoom=2.0, aspect=0.2)
        _, new_depth, view = augment_view(image, depth, np.random.default_rng(seed), settings=chosen, size=(48, 40))
        # A plane is reproduced exactly by bilinear sampling, whatever the resolution, up to the border.
        y, x = np.mgrid[0:64, 0:96].astype(np.float32)
        plane = 3 * x + 5 * y
        here = view.apply(plane, size=(48, 40))
        half = plane.reshape(32, 2, 48, 2).mean(axis=(1, 3))
        coarse = view.apply(half, size=(48, 40))
        assert here.shape == coarse.shape == new_depth.shape
        assert np.abs(here - coarse)[4:-4, 4:-4].max() < 2e-3 * plane.max()
        # Depth is x + 100 y, taken at one of the pixels around.
        spread = view.apply(depth, size=(48, 40))
        assert np.abs(spread - new_depth).max() <= 101.0 * 1.5
        stacked = view.apply(np.stack([half, 2 * half]))
        assert stacked.shape == (2, 32, 48)
        np.testing.assert_allclose(stacked[1], 2 * stacked[0], rtol=1e-6)
        unmirrored = view.apply(plane, size=(48, 40), mirrored=False)
        code = (slice(None, None, -1 if view.vertical else 1), slice(None, None, -1 if view.horizontal else 1))
        np.testing.assert_array_equal(unmirrored[code], here)


def test_a_view_of_everything_changes_nothing_and_shares_nothing() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = View(source=(8, 6), window=(0, 0, 8, 6)).apply(values)
    assert np.array_equal(found, values)
    assert not np.shares_memory(found, values)
    mirrored = View(source=(8, 6), window=(0, 0, 8, 6), horizontal=True, vertical=True).apply(values)
    assert np.array_equal(mirrored, values[::-1, ::-1])


def test_unknown_spreads_only_to_what_it_is_mixed_into() -> None:
    values = np.ones((4, 6), np.float32)
    values[1, 2] = np.nan
    same = View(source=(6, 4), window=(0, 0, 6, 4))
    assert np.isnan(same.apply(values)).sum() == 1
    wide = same.apply(values, size=(12, 8))
    assert 4 <= np.isnan(wide).sum() <= 16
    assert np.nanmin(wide) == np.nanmax(wide) == 1.0


def test_shrinking_far_takes_means() -> None:
    checks = (np.indices((64, 96)).sum(axis=0) % 2).astype(np.float32)
    small = View(source=(96, 64), window=(0, 0, 96, 64)).apply(checks, size=(12, 8))
    np.testing.assert_allclose(small, 0.5)


def test_augment_is_augment_view_without_the_view() -> None:
    image, depth = picture()
    for seed in range(5):
        plain = augment(image, depth, np.random.default_rng(seed))
        seen = augment_view(image, depth, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(plain, seen, strict=False))


def test_hidden_pixels_are_those_painted_over() -> None:
    image, depth = picture()
    for name in ("occluders", "content_area"):
        chosen = dataclasses.replace(NOTHING, **{name: 1.0})
        for seed in range(5):
            _, new_depth, view = augment_view(image, depth, np.random.default_rng(seed), settings=chosen)
            assert view.hidden is not None
            assert np.array_equal(view.hidden, new_depth == 0)
    assert augment_view(image, depth, np.random.default_rng(0), settings=NOTHING)[2].hidden is None


@pytest.mark.parametrize("size", [(48, 32), (40, 50), (192, 128), (96, 64)])
def test_leve_resizes_like_the_published_code(size: tuple[int, int]) -> None:
    image, depth = picture()
    image = np.random.default_rng(0).integers(0, 255, image.shape).astype(np.uint8)
    new_image, new_depth, _ = augment_leve(
        image, depth, np.random.default_rng(0), flip=0, swap=0, size=size, reproduce=True
    )
    expected = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    assert np.abs(new_image.astype(int) - expected).max() <= 1
    np.testing.assert_allclose(
        new_depth, np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BILINEAR)), rtol=1e-5
    )
    nearest = augment_leve(image, depth, np.random.default_rng(0), flip=0, swap=0, size=size)[1]
    assert set(np.unique(nearest)) <= set(np.unique(depth))


def test_leve_mirrors_and_swaps_as_often_as_it_says() -> None:
    image, depth = picture(16, 8)
    flipped, orders = 0, []
    for seed in range(400):
        new_image, new_depth, view = augment_leve(image, depth, np.random.default_rng(seed))
        assert view.horizontal == bool(new_depth[0, 0] > new_depth[0, -1])
        assert not view.vertical
        flipped += view.horizontal
        expected = image[:, ::-1] if view.horizontal else image
        order = [p for p in itertools.permutations(range(3)) if np.array_equal(new_image, expected[..., list(p)])]
        assert order
        orders.append(order[0])
    assert 160 < flipped < 240
    # Half of the time one of six, the identity among them: 5/12 change the picture.
    changed = sum(order != (0, 1, 2) for order in orders)
    assert 130 < changed < 205
    assert len(set(orders)) == 6
