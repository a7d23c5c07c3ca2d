"""Readings of data sets that single publications use: Leve's EndoSLAM, PPSNet's C3VD, GuideDepth's window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, key, lit, ramp, save

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.c3vd import SIZE, omnidirectional_as_fisheye
from endolux.datasets.c3vd_ppsnet import CAMERA
from endolux.errors import InputError
from endolux.evaluate.windows import window_of
from endolux.geometry.align import Alignment
from endolux.types import DepthKind

STEPS = np.rint(ramp(near=0, far=255)).astype(np.uint8)


def test_leves_endoslam_is_a_share_of_a_metre_and_a_millionth(tmp_path: Path):
    for number in (9, 10):
        save(tmp_path / f"frames/image_{number}.png", lit(ramp()))
        save(tmp_path / f"depths/aov_image_{number}.png", np.stack([STEPS, STEPS, STEPS, STEPS * 0 + 255], axis=2))
    dataset = open_dataset("endoslam-leve", tmp_path)
    assert list(dataset.keys()) == [key("subset", 0), key("subset", 1)]
    depth = dataset.load(key("subset", 1)).depth
    assert depth is not None
    assert depth.kind is DepthKind.METRIC
    assert depth.valid.all()
    np.testing.assert_allclose(depth.values, 1000 * (STEPS / 255 + 1e-6), rtol=1e-6)
    assert float(depth.values.min()) == pytest.approx(1e-3)
    assert "count.published" in codes(dataset.check())
    protocol = get_protocol("endoslam-leve")
    assert (protocol.alignment, protocol.crop_pixels, protocol.unit) == (Alignment.NONE, (0, 320, 0, 320), "m")
    assert (protocol.ratio_maximum, protocol.expected_frames) == (1.0, 600)
    assert {"mirrored-entries", "rmse-log-base-10"} <= set(protocol.reproduce)
    (tmp_path / "depths/aov_image_9.png").unlink()
    with pytest.raises(InputError) as caught:
        open_dataset("endoslam-leve", tmp_path)
    assert caught.value.error_id == "dataset.unpaired"


def test_leves_endoslam_reads_unitycam_too(tmp_path: Path):
    organ = tmp_path / "UnityCam/Colon"
    save(organ / "Frames/image_0007.png", lit(ramp()))
    save(organ / "Pixelwise Depths/aov_image_0007.png", STEPS)
    dataset = open_dataset("endoslam-leve", tmp_path)
    assert list(dataset.keys()) == [key("colon", 7)]
    assert dataset.load(key("colon", 7)).depth is not None
    save(organ / "Pixelwise Depths/aov_image_0007.png", STEPS[:4])
    with pytest.raises(InputError):
        dataset.load(key("colon", 7))


def test_guidedepths_window_follows_the_size():
    protocol = get_protocol("kitti-eigen-guidedepth")
    for height, width in ((375, 1242), (370, 1224)):
        rows, columns = window_of(protocol, (height, width))
        assert (rows.start, rows.stop) == (int(0.3324324 * height), int(0.91351351 * height))
        assert (columns.start, columns.stop) == (int(0.0359477 * width), int(0.96405229 * width))
    rows, columns = window_of(get_protocol("kitti-eigen-leve"), (375, 1242))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (128, 375, 45, 1196)


def test_ppsnet_sees_a_plane_through_a_pinhole(tmp_path: Path):
    """Depth rises with the ray's slope, so every pixel of the pinhole picture says which ray it shows."""
    fisheye = omnidirectional_as_fisheye()
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    radius = np.hypot((x - fisheye.cx) / fisheye.fx, (y - fisheye.cy) / fisheye.fy)
    angle = np.linspace(0.0, 1.3, 4000)
    distorted = angle.copy()
    for power, term in enumerate(fisheye.distortion, 1):
        distorted += term * angle ** (2 * power + 1)
    rising = np.maximum.accumulate(distorted)
    slope = np.tan(np.interp(radius, rising, angle))
    depth_mm = 20.0 + 30.0 * np.clip(slope, 0, 2.6)
    root = tmp_path / "cecum_t1_a"
    save(root / "0000_color.png", np.full((SIZE[1], SIZE[0], 3), 99, np.uint8))
    save(root / "0000_depth.tiff", np.floor(65535 * depth_mm / 100).astype(np.uint16))
    dataset = open_dataset("c3vd-ppsnet", tmp_path)
    sample = dataset.load(key("cecum_t1_a", 0))
    assert sample.frame.size == (518, 518)
    depth = sample.depth
    assert depth is not None
    assert depth.size == (384, 384)
    camera = depth.camera
    assert camera is not None
    assert camera.fx == pytest.approx(CAMERA.fx * 384 / 1080, rel=1e-3)
    column, row = np.meshgrid(np.arange(384), np.arange(384))
    ray = np.hypot((column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy)
    # Nearest pixels, twice: half a pixel of 384 is 0.2 mm here.
    error = np.abs(depth.values - (20.0 + 30.0 * ray))[depth.valid]
    assert depth.valid.mean() > 0.95
    assert np.median(error) < 0.12
    assert np.percentile(error, 99) < 0.35


def test_ppsnet_refuses_another_size(tmp_path: Path):
    save(tmp_path / "cecum_t1_a/0000_color.png", lit(ramp()))
    save(tmp_path / "cecum_t1_a/0000_depth.tiff", np.full((12, 16), 9999, np.uint16))
    with pytest.raises(InputError, match="1350x1080"):
        open_dataset("c3vd-ppsnet", tmp_path).load(key("cecum_t1_a", 0))


def test_official_protocols_state_what_they_fit():
    official = get_protocol("simcol3d-official")
    assert (official.scope, official.extra_metrics) == ("sequence", ("mae", "median_rel"))
    ppsnet = get_protocol("c3vd-ppsnet")
    assert {"least-median-scale", "rounded-code-1.525um"} == set(ppsnet.reproduce)
    assert "desc_t4_a_p2|desc_t4_a" not in ppsnet.summary
