"""Users' own data: plain folders and tables."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import codes, cut, key, lit, ramp, save

from endolux.datasets import open_dataset
from endolux.datasets.folder import Description, FolderDataset
from endolux.datasets.manifest import ManifestDataset, write_manifest
from endolux.datasets.pairs import find_pairs
from endolux.datasets.stored import read_pfm, read_values
from endolux.errors import InputError, MissingExtraError, UsageError
from endolux.types import DepthKind

DEPTH = ramp(near=10, far=90)


def write_pair(folder: Path, stem: str = "a_1", *, side_by_side: bool = True) -> None:
    image, depth = (f"{stem}.png", f"{stem}_depth.png") if side_by_side else (f"images/{stem}.png", f"depth/{stem}.png")
    save(folder / image, lit(DEPTH))
    save(folder / depth, np.rint(DEPTH * 100).astype(np.uint16))


@pytest.mark.parametrize("side_by_side", [True, False])
def test_folder_finds_what_the_evaluator_finds(tmp_path: Path, side_by_side: bool):
    for number in (10, 9, 1):
        write_pair(tmp_path, f"f{number}", side_by_side=side_by_side)
    (tmp_path / "dataset.json").write_text('{"codes_per_mm": 100}')
    dataset = open_dataset("auto", tmp_path)
    assert isinstance(dataset, FolderDataset)
    assert [dataset.files(k) for k in dataset.keys()] == [[p.image, p.depth] for p in find_pairs(tmp_path)]  # noqa: SIM118
    depth = dataset.load(key("f", 9)).depth
    assert depth is not None
    assert np.abs(depth.values - DEPTH).max() <= 0.005 + 1e-5
    assert dataset.neighbours(key("f", 9)) == [None, key("f", 10)]


def test_phantom_folder_brings_pose_camera_and_labels(tmp_path: Path):
    write_pair(tmp_path, "000003", side_by_side=False)
    save(tmp_path / "labels/000003.png", np.full(DEPTH.shape, 4, np.uint8))
    pose = np.eye(4)
    pose[0, 3] = 5
    camera = {
        "width": 16,
        "height": 12,
        "fx": 9.0,
        "fy": 9.0,
        "cx": 7.5,
        "cy": 5.5,
        "model": "pinhole",
        "distortion": [],
    }
    (tmp_path / "poses").mkdir()
    record = {"index": 3, "camera_to_world_mm": pose.tolist(), "camera": camera}
    (tmp_path / "poses/000003.json").write_text(json.dumps(record))
    (tmp_path / "manifest.json").write_text(json.dumps({"world_version": 1, "frames": 1, "codes_per_mm": 100}))
    dataset = open_dataset("auto", tmp_path)
    sample = dataset.load(key("frames", 3))
    assert dataset.name == "folder"
    np.testing.assert_array_equal(sample.pose, pose)
    assert sample.frame.camera is not None
    assert sample.depth is not None
    assert sample.depth.camera == sample.frame.camera
    assert (sample.labels["labels"] == 4).all()
    assert len(dataset.files(key("frames", 3))) == 4


def test_folder_counts_what_is_no_depth(tmp_path: Path):
    values = DEPTH.astype(np.float32)
    values[0, :5] = [np.nan, np.inf, -np.inf, -3, 0]
    save(tmp_path / "a.png", lit(DEPTH))
    np.save(tmp_path / "a_depth.npy", values)
    sample = FolderDataset(tmp_path).load(key("a", 0))
    assert sample.depth is not None
    assert sample.depth.valid.sum() == DEPTH.size - 5
    assert sample.excluded == {"infinite": 2, "negative": 1}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({}, "dataset.depth-scale"),
        ({"codes_per_mm": 0}, "dataset.description"),
        ({"codes_per_mm": True}, "dataset.description"),
        ({"codes_per_m": 1}, "dataset.description"),
        ({"kind": "metres"}, "dataset.description"),
        ([], "dataset.description"),
    ],
)
def test_folder_of_unknown_unit_is_refused(tmp_path: Path, description: object, expected: str):
    write_pair(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError) as caught:
        FolderDataset(tmp_path).load(key("a", 1))
    assert caught.value.error_id == expected


def test_folder_bad_input(tmp_path: Path):
    write_pair(tmp_path, "a_1")
    given_scale = Description(codes_per_mm=100)
    save(tmp_path / "a_1_depth.png", DEPTH.astype(np.uint8))
    with pytest.raises(InputError) as caught:
        FolderDataset(tmp_path, description=given_scale).load(key("a", 1))
    assert caught.value.error_id == "dataset.depth-bits"
    write_pair(tmp_path, "a_1")
    cut(tmp_path / "a_1_depth.png")
    assert "input.truncated" in codes(FolderDataset(tmp_path, description=given_scale).check())
    write_pair(tmp_path, "a_01")
    with pytest.raises(InputError) as caught:
        FolderDataset(tmp_path)
    assert caught.value.error_id == "dataset.ambiguous"
    (tmp_path / "a_01_depth.png").unlink()
    (tmp_path / "a_1.png").unlink()
    assert {"depth.missing", "image.missing"} <= codes(FolderDataset(tmp_path, description=given_scale).check())
    with pytest.raises(UsageError):
        Description(codes_per_mm=-1)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_unreadable_file(tmp_path: Path):
    write_pair(tmp_path)
    (tmp_path / "a_1_depth.png").chmod(0)
    with pytest.raises(InputError) as caught:
        FolderDataset(tmp_path, description=Description(codes_per_mm=1)).load(key("a", 1))
    assert caught.value.error_id == "input.unreadable"


def test_manifest_full_row(tmp_path: Path):
    save(tmp_path / "rgb/x.png", lit(DEPTH))
    codes16 = np.rint(DEPTH).astype(np.uint16)
    codes16[0, 0] = 65535
    save(tmp_path / "x_depth.png", codes16)
    mask = np.full(DEPTH.shape, 255, np.uint8)
    mask[1] = 0
    save(tmp_path / "mask.png", mask)
    save(tmp_path / "tool.png", np.full(DEPTH.shape, 2, np.uint8))
    camera = {"width": 16, "height": 12, "fx": 9.0, "fy": 9.0, "cx": 7.5, "cy": 5.5}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    pose = np.eye(4)
    pose[:3, 3] = [0.1, 0.2, 0.3]
    np.savetxt(tmp_path / "pose.txt", pose)
    row: dict[str, str | int | float] = {
        "image": "rgb/x.png", "depth": "x_depth.png", "mm_per_unit": 2, "no_value": 65535, "valid": "mask.png",
        "camera": "camera.json", "pose": "pose.txt", "pose_mm": 1000, "sequence": "kitchen", "index": 5, "side": "left",
        "label:tool": "tool.png",
    }  # fmt: skip
    assert write_manifest(tmp_path / "manifest.csv", [row]) == 1
    dataset = open_dataset("auto", tmp_path)
    assert dataset.name == "manifest"
    sample = dataset.load(key("kitchen", 5, "left"))
    assert sample.depth is not None
    assert sample.depth.valid.sum() == DEPTH.size - 16 - 1
    np.testing.assert_allclose(sample.depth.values[2:], 2 * codes16[2:].astype(float))
    assert sample.pose is not None
    np.testing.assert_allclose(sample.pose[:3, 3], [100, 200, 300])
    assert sample.frame.camera is not None
    assert (sample.labels["tool"] == 2).all()
    assert len(dataset.files(sample.key)) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "manifest.column"),
        ("picture\na.png\n", "manifest.column"),
        ("image,image\na.png,b.png\n", "manifest.column"),
        ("image,dept\na.png,b.png\n", "manifest.column"),
        ("image\n", "dataset.empty"),
        ("image,depth\na.png\n", "manifest.value"),
        ("image,kind\na.png,metric\n", "manifest.value"),
        ("image,index\na.png,1.5\n", "manifest.value"),
        ("image,mm_per_unit\na.png,zero\n", "manifest.value"),
        ("image,mm_per_unit\na.png,-1\n", "manifest.value"),
        ("image,depth\n,b.png\n", "manifest.value"),
        ("image\na_1.png\na_01.png\n", "dataset.ambiguous"),
        ('image\n"a.png\n', "dataset.damaged"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, expected: str):
    table = tmp_path / "m.csv"
    table.write_text(text or " ")
    with pytest.raises(InputError) as caught:
        ManifestDataset(table)
    assert caught.value.error_id == expected
    if "dept\n" in text:
        assert "depth" in caught.value.fix


def test_codes_without_a_unit_are_refused(tmp_path: Path):
    write_pair(tmp_path)
    (tmp_path / "m.csv").write_text("image,depth\na_1.png,a_1_depth.png")
    dataset = ManifestDataset(tmp_path / "m.csv")
    with pytest.raises(InputError) as caught:
        dataset.load(key("a", 1))
    assert caught.value.error_id == "dataset.depth-scale"
    assert {"manifest.final-newline", "dataset.depth-scale"} <= codes(dataset.check())
    (tmp_path / "m.csv").write_text("image,depth,kind\na_1.png,a_1_depth.png,disparity\n")
    depth = ManifestDataset(tmp_path / "m.csv").load(key("a", 1)).depth
    assert depth is not None
    assert depth.kind is DepthKind.RELATIVE_DISPARITY


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError) as caught:
        ManifestDataset(tmp_path / "m.parquet")
    assert "endolux[tables]" in caught.value.fix


def test_parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra 'tables'")
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs the extra 'tables'")
    write_pair(tmp_path)
    columns = {"image": ["a_1.png"], "depth": ["a_1_depth.png"], "mm_per_unit": [0.01], "index": [4], "side": [None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    depth = ManifestDataset(tmp_path / "m.parquet").load(key("a", 4)).depth
    assert depth is not None
    assert np.abs(depth.values - DEPTH).max() <= 0.005 + 1e-5
    cut(tmp_path / "m.parquet")
    with pytest.raises(InputError) as caught:
        ManifestDataset(tmp_path / "m.parquet")
    assert caught.value.error_id == "dataset.damaged"


def pfm(values: np.ndarray, *, big: bool = False) -> bytes:
    height, width = values.shape
    head = f"Pf\n{width} {height}\n{1.0 if big else -1.0}\n".encode()
    return head + values[::-1].astype(">f4" if big else "<f4").tobytes()


@given(height=st.integers(1, 5), width=st.integers(1, 5), big=st.booleans())
def test_pfm_rows_run_from_bottom_to_top(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, big: bool):
    values = np.arange(height * width, dtype=np.float32).reshape(height, width)
    path = tmp_path_factory.mktemp("pfm") / "a.pfm"
    path.write_bytes(pfm(values, big=big))
    np.testing.assert_array_equal(read_pfm(path), values)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError) as caught:
        read_pfm(path)
    assert caught.value.error_id == "input.truncated"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.pfm", b"PF\n1 1\n-1\n" + b"0" * 12, "dataset.damaged"),
        ("a.pfm", b"Pf\n99999 99999\n-1\n", "input.too-large"),
        ("a.npy", b"\x93NUMPY", "input.truncated"),
        ("a.npz", b"PK\3\4nothing", "dataset.damaged"),
        ("a.txt", b"1 2 3", "dataset.depth-file"),
        ("a.png", b"no image", "dataset.damaged"),
    ],
)
def test_bad_depth_files(tmp_path: Path, name: str, content: bytes, expected: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_values(tmp_path / name)
    assert caught.value.error_id == expected
