"""C3VD and C3VDv2 written from a known ramp of depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scenes import codes, cut, is_three_lines, key, lit, ramp, save

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.c3vd import CAPPED_CODE, C3vdDataset, omnidirectional_as_fisheye
from endolux.errors import InputError, UsageError
from endolux.geometry.align import Alignment
from endolux.types import DepthKind

DEPTH = ramp(near=10, far=90)


def coded(depth_mm: np.ndarray) -> np.ndarray:
    """As the set is written: floor(65535 * z / 100), saturated."""
    return np.floor(65535 * np.clip(depth_mm / 100, 0, 1)).astype(np.uint16)


def pose_of(number: int) -> np.ndarray:
    """Quarter turn about z, moved by (number, 2, 3) mm."""
    pose = np.eye(4)
    pose[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose[:3, 3] = [number, 2, 3]
    return pose


def write(root: Path, name: str, frames: int = 3, *, depth: np.ndarray = DEPTH) -> Path:
    folder = root / name
    for number in range(frames):
        save(folder / f"{number:04d}_color.png", lit(depth))
        save(folder / f"{number:04d}_depth.tiff", coded(depth))
    lines = [",".join(map(str, pose_of(number).T.ravel())) for number in range(frames)]
    (folder / "pose.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_depth_pose_and_order(tmp_path: Path):
    for name in ("trans_t1_a", "cecum_t1_a"):
        write(tmp_path, name)
    dataset = open_dataset("c3vd", tmp_path)
    assert [str(k) for k in dataset.keys()][:4] == ["cecum_t1_a 0", "cecum_t1_a 1", "cecum_t1_a 2", "trans_t1_a 0"]  # noqa: SIM118
    sample = dataset.load(key("trans_t1_a", 2))
    assert sample.depth is not None
    assert sample.depth.kind is DepthKind.METRIC
    assert sample.depth.valid.all()
    assert np.abs(sample.depth.values - DEPTH).max() <= 100 / 65535
    np.testing.assert_array_equal(sample.pose, pose_of(2))
    np.testing.assert_array_equal(sample.frame.image, lit(DEPTH))
    assert sample.frame.camera is None  # not of the published size
    assert dataset.neighbours(key("trans_t1_a", 0)) == [None, key("trans_t1_a", 1)]
    assert [p.name for p in dataset.files(key("trans_t1_a", 1))] == ["0001_color.png", "0001_depth.tiff", "pose.txt"]


def test_saturated_depth_is_left_out_and_counted(tmp_path: Path):
    depth = DEPTH.copy()
    depth[:2] = 100.0
    depth[2] = 0.0
    write(tmp_path, "desc_t4_a", 1, depth=np.maximum(depth, 1e-9))
    sample = C3vdDataset(tmp_path).load(key("desc_t4_a", 0))
    assert sample.depth is not None
    assert sample.excluded == {"capped": 2 * 16}
    assert not sample.depth.valid[:3].any()
    assert sample.depth.valid[3:].all()
    assert coded(np.array([250.0]))[0] == CAPPED_CODE


@pytest.mark.parametrize("form", ["v2", "registered", "unpadded", "one"])
def test_other_arrangements(tmp_path: Path, form: str):
    root, name = tmp_path, "c1_ascending_t1_v1" if form == "v2" else "sigmoid_t3_a"
    if form == "v2":
        save(root / name / "rgb/0000.png", lit(DEPTH))
        save(root / name / "depth/0000_depth.tiff", coded(DEPTH))
    elif form == "registered":
        write(root / "registered", name, 1)
    else:
        save(root / name / "0_color.png", lit(DEPTH))
        save(root / name / "0000_depth.tiff", coded(DEPTH))
        root = root / name if form == "one" else root
    dataset = open_dataset("auto", root)
    assert (dataset.name, list(dataset.keys())) == ("c3vd", [key(name, 0)])
    assert dataset.load(key(name, 0)).depth is not None
    assert ("dataset.version" in codes(dataset.check())) == (form == "v2")


def test_window_cuts_picture_depth_and_camera(tmp_path: Path):
    depth = ramp(1080, 1350)
    write(tmp_path, "trans_t1_a", 1, depth=depth)
    whole = open_dataset("c3vd", tmp_path).load(key("trans_t1_a", 0))
    part = open_dataset("c3vd-window", tmp_path).load(key("trans_t1_a", 0))
    assert whole.frame.camera == omnidirectional_as_fisheye()
    assert part.frame.size == (950, 720)
    assert part.depth is not None
    assert whole.depth is not None
    np.testing.assert_array_equal(part.depth.values, whole.depth.values[180:900, 200:1150])
    np.testing.assert_array_equal(part.frame.image, whole.frame.image[180:900, 200:1150])
    assert part.frame.camera is not None
    assert part.frame.camera.cx == whole.frame.camera.cx - 200
    write(tmp_path / "small", "trans_t1_a", 1)
    with pytest.raises(InputError) as caught:
        open_dataset("c3vd-window", tmp_path / "small").load(key("trans_t1_a", 0))
    assert caught.value.error_id == "dataset.size"


def test_fisheye_follows_the_published_polynomial():
    camera = omnidirectional_as_fisheye()
    radius = np.linspace(5, 780, 50)
    angle = np.arctan2(radius, 769.2436 - 8.12771e-4 * radius**2 + 6.25674e-7 * radius**3 - 1.19662e-9 * radius**4)
    k = camera.distortion
    mine = camera.fx * angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
    assert np.abs(mine - radius).max() < 0.4


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: save(f / "0000_depth.tiff", (DEPTH * 2).astype(np.uint8)), "dataset.depth-bits"),
        (lambda f: cut(f / "0000_depth.tiff"), "input.truncated"),
        (lambda f: cut(f / "0000_color.png"), "input.truncated"),
        (lambda f: save(f / "0000_depth.tiff", coded(DEPTH[:5])), "dataset.size"),
        (lambda f: (f / "0000_depth.tiff").write_bytes(b""), "input.zero-bytes"),
        (lambda f: (f / "pose.txt").write_text("1,2\n" + "0," * 16 + "\n"), "dataset.matrix"),
    ],
)
def test_damage_is_an_error_and_a_finding(tmp_path: Path, damage, expected: str):
    damage(write(tmp_path, "trans_t1_a", 1))
    dataset = C3vdDataset(tmp_path)
    with pytest.raises(InputError) as caught:
        dataset.load(key("trans_t1_a", 0))
    assert caught.value.error_id == expected
    assert is_three_lines(caught.value)
    if expected != "dataset.matrix":
        assert expected in codes(dataset.check())


def test_missing_depth_and_lone_depth(tmp_path: Path):
    folder = write(tmp_path, "trans_t1_a", 3)
    (folder / "0001_depth.tiff").unlink()
    (folder / "0002_color.png").unlink()
    dataset = C3vdDataset(tmp_path)
    assert dataset.load(key("trans_t1_a", 1)).depth is None
    assert {"depth.missing", "image.missing", "pose.count", "count.published"} <= codes(dataset.check())
    # A removed frame does not shift the poses of the others.
    (folder / "0000_color.png").unlink()
    np.testing.assert_array_equal(C3vdDataset(tmp_path).load(key("trans_t1_a", 1)).pose, pose_of(1))


def test_inverted_depth_is_noticed(tmp_path: Path):
    folder = write(tmp_path, "trans_t1_a", 1)
    save(folder / "0000_depth.tiff", coded(100 - DEPTH))
    finding = next(f for f in C3vdDataset(tmp_path).check() if f.code == "depth.polarity")
    assert finding.severity == "warning"


def test_protocols_name_their_videos(tmp_path: Path):
    names = [f"trans_t{t}_{s}" for t, s in ("1a", "1b", "2a", "2b", "2c", "3a", "3b", "4a", "4b")]
    for name in [*names, "desc_t4_a", "cecum_t1_a", "cecum_t2_a", "cecum_t3_a", "sigmoid_t3_a"]:
        write(tmp_path, name, 1)
    keys = open_dataset("c3vd", tmp_path).keys()
    assert [k.sequence for k in get_protocol("c3vd-transverse7").select(keys, None)] == names[:7]
    assert [k.sequence for k in get_protocol("c3vd-transverse9").select(keys, None)] == names
    assert len(get_protocol("c3vd-ppsnet8").select(keys, None)) == 8
    assert get_protocol("c3vd-transverse9").alignment is Alignment.NONE
    with pytest.raises(InputError) as caught:
        get_protocol("c3vd-endoomni-val").select(keys, None)
    assert caught.value.error_id == "protocol.sequences"
    with pytest.raises(UsageError) as usage:
        get_protocol("c3vd").select(keys, tmp_path / "list.txt")
    assert usage.value.error_id == "protocol.split"


def test_not_there(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        C3vdDataset(tmp_path)
    assert caught.value.error_id == "dataset.empty"
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError) as caught:
        C3vdDataset(tmp_path / "file")
    assert caught.value.error_id == "input.not-a-folder"
    with pytest.raises(InputError) as caught:
        C3vdDataset(tmp_path / "absent")
    assert caught.value.error_id == "input.missing"
    write(tmp_path, "trans_t1_a", 1)
    with pytest.raises(UsageError) as usage:
        C3vdDataset(tmp_path).load(key("trans_t1_a", 7))
    assert usage.value.error_id == "dataset.key"
