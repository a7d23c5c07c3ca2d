"""KITTI's laser scans, projected: a wall and two posts of known place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, cut, is_three_lines, key, lit, ramp, save

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.kitti_velodyne import AS_PUBLISHED, KittiVelodyneDataset, project_points, read_scan
from endolux.errors import InputError

DAY, DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
SIZE = (16, 12)
FOCAL, CENTRE = 20.0, (8.0, 6.0)
OFFSET = (0.3, -0.2, 0.5)
"""The scanner's origin in the camera's axes, m."""


def scanner_points(points_of_camera: np.ndarray) -> np.ndarray:
    """Camera axes (x right, y down, z forward) to the scanner's (x forward, y left, z up)."""
    x, y, z = (points_of_camera - OFFSET).T
    return np.stack([z, -x, -y], axis=1)


def write_day(root: Path, points: np.ndarray) -> Path:
    drive = root / DAY / DRIVE
    save(drive / "image_02/data/0000000005.png", lit(ramp()))
    save(drive / "image_02/data/0000000006.png", lit(ramp()))
    scan = drive / "velodyne_points/data/0000000005.bin"
    scan.parent.mkdir(parents=True)
    np.concatenate([points, np.full((len(points), 1), 0.5)], axis=1).astype("<f4").tofile(scan)
    place = "0 -1 0 0 0 -1 1 0 0"
    shift = " ".join(str(value) for value in OFFSET)
    (root / DAY / "calib_velo_to_cam.txt").write_text(f"calib_time: 15-Mar-2012 11:37:16\nR: {place}\nT: {shift}\n")
    p = f"{FOCAL} 0 {CENTRE[0]} 0 0 {FOCAL} {CENTRE[1]} 0 0 0 1 0"
    (root / DAY / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: {SIZE[0]} {SIZE[1]}\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: {p}\nP_rect_03: {p}\n"
    )
    return root


def seen_at(column: float, row: float, depth: float) -> list[float]:
    return [(column - CENTRE[0]) * depth / FOCAL, (row - CENTRE[1]) * depth / FOCAL, depth]


def test_points_land_where_geometry_says_and_the_nearest_wins(tmp_path: Path):
    posts = [seen_at(3, 4, 12.5), seen_at(3.2, 4.1, 30.0), seen_at(10, 9, 7.0), seen_at(10, 9, 6.0)]
    behind, outside = [0.0, 0.0, -5.0], seen_at(40, 4, 10.0)
    write_day(tmp_path, scanner_points(np.array([*posts, behind, outside])))
    dataset = open_dataset("kitti-velodyne", tmp_path)
    depth = dataset.load(key(DRIVE, 5, "left")).depth
    assert depth is not None
    assert {(int(x), int(y)) for y, x in np.argwhere(depth.valid)} == {(3, 4), (10, 9)}
    assert depth.at(3, 4) == pytest.approx(12_500, rel=1e-5)
    assert depth.at(10, 9) == pytest.approx(6_000, rel=1e-5)
    camera = dataset.load(key(DRIVE, 5, "left")).frame.camera
    assert camera is not None
    assert (camera.fx, camera.cx) == (FOCAL, CENTRE[0])


def test_the_published_projection_moves_points_and_measures_from_the_scanner(tmp_path: Path):
    write_day(tmp_path, scanner_points(np.array([seen_at(3, 4, 12.5), seen_at(0, 0, 8.0)])))
    depth = open_dataset("kitti-velodyne-published", tmp_path).load(key(DRIVE, 5, "left")).depth
    assert depth is not None
    assert np.argwhere(depth.valid).tolist() == [[3, 2]]  # one up and left; the other point left the picture
    assert depth.at(2, 3) == pytest.approx(1000 * (12.5 - OFFSET[2]), rel=1e-5)


def test_a_dense_wall_covers_every_pixel():
    columns, rows = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    points = np.stack([np.full(columns.size, 9.0), -columns.ravel() * 9.0, -rows.ravel() * 9.0], axis=1)
    matrix = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(project_points(points, matrix, SIZE), np.full(SIZE[::-1], 9.0))
    moved = project_points(points, matrix, SIZE, projection=AS_PUBLISHED)
    assert (moved[:-1, :-1] > 0).all()
    assert not moved[-1].any()


def test_protocol_follows_the_list(tmp_path: Path):
    write_day(tmp_path / "raw", scanner_points(np.array([seen_at(3, 4, 12.5)])))
    split = tmp_path / "test.txt"
    split.write_text(f"{DAY}/{DRIVE} 0000000005 l\n{DAY}/{DRIVE} 0000000099 l\n")
    dataset = open_dataset("kitti-velodyne-published", tmp_path / "raw")
    protocol = get_protocol("kitti-eigen-velodyne")
    assert protocol.dataset == dataset.name
    assert protocol.select(dataset.keys(), split) == [key(DRIVE, 5, "left")]
    assert {"count.scans", "depth.missing"} <= codes(dataset.check())
    assert dataset.load(key(DRIVE, 6, "left")).depth is None


def test_damage(tmp_path: Path):
    write_day(tmp_path, scanner_points(np.array([seen_at(3, 4, 12.5), seen_at(5, 4, 12.5)])))
    scan = tmp_path / DAY / DRIVE / "velodyne_points/data/0000000005.bin"
    good = scan.read_bytes()

    def fails(expected: str) -> None:
        with pytest.raises(InputError) as caught:
            KittiVelodyneDataset(tmp_path).load(key(DRIVE, 5, "left"))
        assert caught.value.error_id == expected
        assert is_three_lines(caught.value)

    cut(scan, 0.7)
    fails("input.truncated")
    np.full((2, 4), np.nan, "<f4").tofile(scan)
    fails("dataset.damaged")
    scan.write_bytes(b"")
    with pytest.raises(InputError):
        read_scan(scan)
    scan.write_bytes(good)
    calibration = tmp_path / DAY / "calib_velo_to_cam.txt"
    text = calibration.read_text()
    calibration.write_text(text.replace("R: 0", "Q: 0"))
    fails("dataset.damaged")
    calibration.write_text(text.replace("-1", "x"))
    fails("dataset.damaged")
    calibration.unlink()
    fails("input.missing")
