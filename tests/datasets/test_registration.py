"""Edges of depth over edges of pictures."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.datasets.registration import edge_offset
from endolux.types import DepthKind, DepthMap, ImageArray


def scene(seed: int, *, kind: DepthKind = DepthKind.METRIC) -> tuple[ImageArray, DepthMap]:
    """Boxes at random depths, each with a brightness of its own, 240 x 320."""
    generator = np.random.default_rng(seed)
    depth = np.full((240, 320), 100, np.float32)
    grey = np.full((240, 320), 90.0)
    for _ in range(12):
        top, left = int(generator.integers(0, 200)), int(generator.integers(0, 280))
        box = (slice(top, top + 40), slice(left, left + 50))
        depth[box], grey[box] = generator.uniform(20, 90), generator.uniform(20, 250)
    image = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    return image, DepthMap(values=depth, kind=kind, valid=depth > 0)


@pytest.mark.parametrize("shift", [(12, -8), (0, 20), (-10, 0)])
def test_a_moved_picture_is_found(shift: tuple[int, int]):
    pairs = [(np.roll(image, shift[::-1], (0, 1)), depth) for image, depth in (scene(seed) for seed in range(4))]
    offset = edge_offset(pairs)
    assert offset.misaligned
    assert (offset.x, offset.y) == pytest.approx(shift, abs=2)
    assert offset.frames == 4


def test_depth_in_place_or_without_edges_is_left_alone():
    assert not edge_offset(scene(seed) for seed in range(4)).misaligned
    image, depth = scene(0)
    flat = DepthMap(values=np.full_like(depth.values, 7), kind=depth.kind, valid=depth.valid)
    nothing = DepthMap(values=depth.values, kind=depth.kind, valid=np.zeros_like(depth.valid))
    assert edge_offset([(image, flat), (image, nothing), (image[:50, :50], flat)]).frames == 0


def test_depth_of_other_frames_gives_no_offset():
    pairs = [(scene(seed)[0], scene(seed + 50)[1]) for seed in range(8)]
    assert edge_offset(pairs).peak < 0.2 or not edge_offset(pairs).misaligned
