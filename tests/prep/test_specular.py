from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.prep.specular import specular_mask


def scene(width: int = 640, height: int = 480) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (160, 70, 60)
    return image


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (320, 240)])
def test_small_white_spots_are_found(size: tuple[int, int]) -> None:
    image = scene(*size)
    radius = max(3, size[0] // 100)
    cv2.circle(image, (size[0] // 3, size[1] // 3), radius, (250, 248, 245), -1)
    mask = specular_mask(image)
    assert mask.shape == image.shape[:2]
    assert mask.dtype == np.bool_
    assert mask[size[1] // 3, size[0] // 3]
    assert mask.mean() < 0.01


def test_dim_frames_have_highlights_too() -> None:
    image = (scene() // 3).astype(np.uint8)
    cv2.circle(image, (200, 200), 6, (110, 108, 105), -1)
    assert specular_mask(image)[200, 200]


def test_colour_and_large_areas_are_no_highlights() -> None:
    image = scene()
    cv2.circle(image, (150, 150), 6, (255, 40, 40), -1)  # saturated red
    cv2.circle(image, (450, 300), 120, (250, 250, 250), -1)  # gauze
    mask = specular_mask(image)
    assert not mask[150, 150]
    assert not mask[300, 450]


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_images_have_none(level: int) -> None:
    assert not specular_mask(np.full((100, 160, 3), level, np.uint8)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_any_size(size: tuple[int, int]) -> None:
    assert specular_mask(np.full((*size, 3), 200, np.uint8)).shape == size


@pytest.mark.real_data
def test_real_colonoscopy(shared_data: Path) -> None:
    path = shared_data / "kvasir_seg_5/images/cju0rx1idathl0835detmsp84.jpg"
    image = np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])
    mask = specular_mask(image)
    assert 0.005 < mask.mean() < 0.08
    assert image[mask].min(axis=1).mean() > 2 * image[~mask].min(axis=1).mean()
