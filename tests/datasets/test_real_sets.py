"""The real frames beside the checkout, read through the readers."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import codes, key

from endolux.datasets import detect, get_protocol, open_dataset
from endolux.datasets.brightness import brightness_correlation, correlation
from endolux.datasets.c3vd import SIZE, C3vdDataset
from endolux.datasets.endoslam import EndoslamUnityDataset, Polarity
from endolux.datasets.manifest import write_manifest
from endolux.errors import InputError
from endolux.geometry.cameras import project, save_camera, unproject
from endolux.types import Camera, DepthKind

pytestmark = pytest.mark.real_data


def matrix(path: Path) -> np.ndarray:
    return np.array([float(text) for text in re.split(r"[,\s]+", path.read_text().strip())]).reshape(3, 3)


def test_simcol3d(shared_data: Path):
    dataset = open_dataset("auto", shared_data / "simcol3d_10frames")
    assert (dataset.name, len(dataset.keys())) == ("simcol3d", 10)
    for sample in dataset.samples():
        assert sample.depth is not None
        assert sample.depth.valid.all()
        # The source gives 0.6 to 13.3 cm.
        assert sample.depth.values.min() > 5.9
        assert sample.depth.values.max() < 134
        assert brightness_correlation(sample.frame.image, sample.depth) < -0.5
    assert codes(dataset.check()) == {"count.frames", "count.published", "depth.polarity"}
    with pytest.raises(InputError):
        get_protocol("simcol3d").select(dataset.keys(), None)


def test_endoslam(shared_data: Path):
    dataset = open_dataset("auto", shared_data / "endoslam_unity_stomach")
    assert isinstance(dataset, EndoslamUnityDataset)
    test = dataset.polarity("stomach")
    assert (test.polarity, test.frames) == (Polarity.INVERSE, 50)
    assert test.correlation > 0.5
    sample = dataset.load(key("stomach", 49))
    assert sample.frame.camera is not None
    assert sample.frame.camera.fx == pytest.approx(156.0418)
    assert sample.depth is not None
    assert sample.depth.kind is DepthKind.RELATIVE_DEPTH
    # Values 1 to 50 became 1 to 1/50.
    assert 1 / 60 < sample.depth.values[sample.depth.valid].min() < 1 / 40
    assert brightness_correlation(sample.frame.image, sample.depth) < -0.3
    # Users of the set report that its pictures and depth do not match.
    assert "depth.misaligned" in codes(dataset.check())


def test_c3vd_pictures_of_depth_are_refused(shared_data: Path, tmp_path: Path):
    source = shared_data / "c3vd_phantom/fullres_c3vd"
    folder = tmp_path / "cecum_t1_a"
    folder.mkdir()
    (folder / "0000_color.png").symlink_to(source / "cecum_gt_image.png")
    dataset = C3vdDataset(tmp_path)
    frame = dataset.load(key("cecum_t1_a", 0)).frame
    assert (frame.camera is not None) == (frame.size == SIZE)
    picture = cv2.imread(str(source / "cecum_gt_depth.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(folder / "0000_depth.tiff"), picture)
    with pytest.raises(InputError) as caught:
        C3vdDataset(tmp_path).load(key("cecum_t1_a", 0))
    assert caught.value.error_id == "dataset.depth-bits"


def test_nyu_frame_by_table(shared_data: Path, tmp_path: Path):
    folder = shared_data / "nyu_fastdepth"
    row = {"image": str(folder / "rgb.png"), "depth": str(folder / "depth.npy"), "mm_per_unit": 1000}
    write_manifest(tmp_path / "manifest.csv", [row])
    assert detect(tmp_path) == "manifest"
    sample = next(open_dataset("auto", tmp_path).samples())
    assert sample.depth is not None
    assert sample.depth.valid.all()
    assert 700 < sample.depth.values.min() < sample.depth.values.max() < 5900


def test_kitti_disparity_by_table(shared_data: Path, tmp_path: Path):
    folder = shared_data / "kitti2015_000046"
    row = {
        "image": str(folder / "image_2/000046_10.png"),
        "depth": str(folder / "disp_occ_0/000046_10.png"),
        "kind": "disparity",
    }
    write_manifest(tmp_path / "m.csv", [row])
    sample = open_dataset("manifest", tmp_path / "m.csv").load(key("000046", 10))
    assert sample.depth is not None
    assert sample.depth.kind is DepthKind.RELATIVE_DISPARITY
    assert 0.05 < sample.depth.valid.mean() < 0.25
    rows = np.nonzero(sample.depth.valid)[0]
    # The road is nearer below: disparity grows with the row.
    assert correlation(rows, sample.depth.values[sample.depth.valid]) > 0.5


def test_seven_scenes_by_table(shared_data: Path, tmp_path: Path):
    folder = shared_data / "rgbd_7scenes_kitchen"
    k = matrix(folder / "camera-intrinsics.txt")
    camera = Camera(width=640, height=480, fx=k[0, 0], fy=k[1, 1], cx=k[0, 2], cy=k[1, 2])
    save_camera(tmp_path / "camera.json", camera)
    rows = []
    for picture in sorted(folder.glob("*.color.jpg")):
        stem = picture.name.removesuffix(".color.jpg")
        rows.append(
            {
                "image": str(picture),
                "depth": str(folder / f"{stem}.depth.png"),
                "mm_per_unit": 1,
                "no_value": 65535,
                "camera": "camera.json",
                "pose": str(folder / f"{stem}.pose.txt"),
                "pose_mm": 1000,
            }
        )
    write_manifest(tmp_path / "manifest.csv", rows)
    dataset = open_dataset("auto", tmp_path)
    assert [k.index for k in dataset.keys()] == list(range(0, 90, 5))  # noqa: SIM118
    a, b = dataset.load(key("frame", 0)), dataset.load(key("frame", 5))
    assert a.depth is not None
    assert b.depth is not None
    assert a.pose is not None
    assert b.pose is not None
    # Depth, pose and camera agree: surface points of one frame lie on the surface of the other.
    points = unproject(a.depth, camera)[::97]
    motion = np.linalg.inv(b.pose) @ a.pose
    moved = points @ motion[:3, :3].T + motion[:3, 3]
    pixels = np.rint(project(moved, camera)).astype(int)
    inside = (pixels >= 0).all(1) & (pixels[:, 0] < 640) & (pixels[:, 1] < 480)
    there = b.depth.values[pixels[inside, 1], pixels[inside, 0]]
    known = there > 0
    error = np.abs(there[known] - moved[inside, 2][known]) / there[known]
    assert np.median(error) < 0.01


def test_middlebury_by_table(shared_data: Path, tmp_path: Path):
    folder = shared_data / "middlebury2014_motorcycle"
    row = {"image": str(folder / "im0.png"), "depth": str(folder / "disp0GT.pfm"), "kind": "disparity", "sequence": "m"}
    write_manifest(tmp_path / "manifest.csv", [row])
    sample = next(open_dataset("auto", tmp_path).samples())
    assert sample.depth is not None
    assert sample.depth.size == sample.frame.size == (741, 497)
    assert sample.excluded["infinite"] == int((~sample.depth.valid).sum())
    metres = 999.421 * 0.193001 / (sample.depth.values[sample.depth.valid] + 32.778)
    assert 1.9 < metres.min() < metres.max() < 4.8
