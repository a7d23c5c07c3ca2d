"""Shading correction as an augmentation."""

import numpy as np

from endolux.train.augment import Augmentation, _flatten, augment


def slope(image: np.ndarray) -> float:
    columns = np.log(image.astype(float).mean(axis=(0, 2)))
    return float(np.ptp(columns))


def test_flatten_evens_out_light() -> None:
    ramp = np.linspace(30, 220, 96)
    image = np.broadcast_to(ramp[None, :, None], (64, 96, 3)).astype(np.uint8)
    spans = [slope(_flatten(image, np.random.default_rng(seed))) for seed in range(10)]
    assert max(spans) < slope(image)
    assert np.mean(spans) < 0.85 * slope(image)


def test_flatten_keeps_depth() -> None:
    image, depth = np.full((64, 96, 3), 120, np.uint8), np.full((64, 96), 30.0, np.float32)
    settings = Augmentation(flatten=1.0, content_area=0.0, occluders=0.0)
    np.testing.assert_array_equal(augment(image, depth, np.random.default_rng(3), settings=settings)[1], depth)


def test_settings_without_flatten_draw_nothing_for_it() -> None:
    image = np.full((64, 96, 3), 120, np.uint8)
    depth = np.full((64, 96), 30.0, np.float32)
    generator, reference = np.random.default_rng(5), np.random.default_rng(5)
    augment(image, depth, generator, settings=Augmentation(flatten=0.0))
    augment(image, depth, reference, settings=Augmentation())
    assert generator.random() == reference.random()
