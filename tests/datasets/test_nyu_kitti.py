"""NYU Depth V2 and KITTI in every layout that is read."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scenes import codes, cut, key, lit, ramp, save

from endolux.datasets import detect, get_protocol, open_dataset
from endolux.datasets.kitti import KittiDataset
from endolux.datasets.nyu import NyuDataset
from endolux.errors import InputError, UsageError

METRES = ramp(near=0.75, far=9.5)
DRIVE = "2011_09_26_drive_0002_sync"


def write_densedepth(root: Path) -> Path:
    """DenseDepth's reduced archive with one training pair and two test pairs."""
    save(root / "data/nyu2_train/kitchen_out/37.jpg", lit(METRES))
    save(root / "data/nyu2_train/kitchen_out/37.png", np.rint(METRES / 10 * 255).astype(np.uint8))
    (root / "data/nyu2_train.csv").write_text("data/nyu2_train/kitchen_out/37.jpg,data/nyu2_train/kitchen_out/37.png\n")
    rows = []
    for number in range(2):
        save(root / f"data/nyu2_test/{number:05d}_colors.png", lit(METRES))
        save(root / f"data/nyu2_test/{number:05d}_depth.png", np.rint(METRES * 1000).astype(np.uint16))
        rows.append(f"data/nyu2_test/{number:05d}_colors.png,data/nyu2_test/{number:05d}_depth.png")
    (root / "data/nyu2_test.csv").write_text("\n".join(rows))
    return root


def write_arrays(root: Path, dtype: type = np.float32) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "eigen_test_rgb.npy", np.stack([lit(METRES), 255 - lit(METRES)]))
    np.save(root / "eigen_test_depth.npy", np.stack([METRES, METRES + 0.1]).astype(dtype))
    return root


def zipped(folder: Path, *, compressed: bool) -> Path:
    target = folder.parent / "archive.zip"
    how = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", how) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return target


@pytest.mark.parametrize("packed", [False, True])
def test_densedepth_archive(tmp_path: Path, packed: bool):
    root = write_densedepth(tmp_path / "nyu")
    dataset = open_dataset("auto", zipped(root, compressed=True) if packed else root)
    assert dataset.name == "nyu"
    assert list(dataset.keys()) == [key("train/kitchen_out", 37), key("test", 0), key("test", 1)]
    train, test = dataset.load(dataset.keys()[0]), dataset.load(key("test", 1))
    assert train.depth is not None
    assert test.depth is not None
    assert np.abs(train.depth.values - METRES * 1000).max() <= 0.5 * 10_000 / 255 + 0.01
    np.testing.assert_allclose(test.depth.values, np.rint(METRES * 1000))
    np.testing.assert_array_equal(test.frame.image, lit(METRES))
    assert all(path.exists() for path in dataset.files(key("test", 1)))
    assert get_protocol("nyu-eigen-leve").select(dataset.keys(), None) == [key("test", 0), key("test", 1)]
    assert {"count.published", "count.train"} <= codes(dataset.check())


@pytest.mark.parametrize("form", ["folder", "stored", "deflated"])
def test_eigen_arrays(tmp_path: Path, form: str):
    root = write_arrays(tmp_path / "eigen", np.float64 if form == "stored" else np.float32)
    path = root if form == "folder" else zipped(root, compressed=form == "deflated")
    dataset = open_dataset("nyu", path)
    # Backwards too: an archive has to start its stream anew.
    for index in (1, 0, 1):
        sample = dataset.load(key("test", index))
        assert sample.depth is not None
        np.testing.assert_allclose(sample.depth.values, (METRES + 0.1 * index) * 1000, rtol=1e-6)
        np.testing.assert_array_equal(sample.frame.image, lit(METRES) if index == 0 else 255 - lit(METRES))


def test_one_archive_a_sample(tmp_path: Path):
    for number in (10, 9):
        image = lit(METRES).astype(np.float32)
        np.savez(tmp_path / f"{number}.npz", image=image, depth=np.float32(METRES + number)[:, :, None])
    dataset = open_dataset("auto", tmp_path)
    assert (dataset.name, list(dataset.keys())) == ("nyu", [key("test", 0), key("test", 1)])
    depth = dataset.load(key("test", 0)).depth
    assert depth is not None
    np.testing.assert_allclose(depth.values, (METRES + 9) * 1000, rtol=1e-6)
    np.savez(tmp_path / "9.npz", image=lit(METRES) / 255.0, depth=METRES)
    with pytest.raises(InputError) as caught:
        dataset.load(key("test", 0))
    assert caught.value.error_id == "dataset.image-range"


def test_contradictions(tmp_path: Path):
    root = write_arrays(tmp_path / "a")
    np.save(root / "eigen_test_depth.npy", METRES[None])
    with pytest.raises(InputError) as caught:
        NyuDataset(root)
    assert caught.value.error_id == "dataset.damaged"
    root = write_arrays(tmp_path / "b")
    cut(root / "eigen_test_rgb.npy")
    with pytest.raises(InputError) as caught:
        NyuDataset(root)
    assert caught.value.error_id == "input.truncated"
    root = write_densedepth(tmp_path / "c")
    save(root / "data/nyu2_test/00000_depth.png", np.zeros(METRES.shape, np.uint8))
    (root / "data/nyu2_test/00001_colors.png").unlink()
    dataset = NyuDataset(root)
    for index, expected in ((0, "dataset.depth-bits"), (1, "input.missing")):
        with pytest.raises(InputError) as caught:
            dataset.load(key("test", index))
        assert caught.value.error_id == expected
    (root / "data/nyu2_test.csv").write_text("../../secret.png,data/x.png\n")
    with pytest.raises(InputError) as caught:
        NyuDataset(root)
    assert caught.value.error_id == "dataset.damaged"
    for name in ("plain.txt", "empty.zip"):
        (tmp_path / name).write_bytes(b"no archive" if name == "plain.txt" else b"")
        with pytest.raises(InputError):
            NyuDataset(tmp_path / name)


def test_nyu_windows_are_the_published_rows_and_columns():
    for name, window in (("nyu-eigen-leve", (20, 460, 24, 616)), ("nyu-eigen", (45, 471, 41, 601))):
        crop = get_protocol(name).crop
        assert crop is not None
        assert np.allclose(np.multiply(crop, (480, 480, 640, 640)), window)


def write_kitti(root: Path, *, annotated: str = "val") -> Path:
    date = root / "2011_09_26"
    codes16 = np.rint(METRES * 256).astype(np.uint16)
    codes16[:, ::2] = 0
    for number in (5, 69):
        for place in ("image_02", "image_03"):
            save(date / DRIVE / place / f"data/{number:010d}.png", lit(METRES))
    depth = root / annotated / DRIVE / "proj_depth/groundtruth/image_02/0000000069.png"
    save(depth, codes16)
    (date / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012\nS_rect_02: 1.6e+01 1.2e+01\nP_rect_02: 7 0 8 0 0 7.5 6 0 0 0 1 0\n"
    )
    return root


@pytest.mark.parametrize("annotated", ["val", "train", "data_depth_annotated/val", ""])
def test_kitti_annotated_depth(tmp_path: Path, annotated: str):
    dataset = open_dataset("auto", write_kitti(tmp_path, annotated=annotated))
    assert (dataset.name, list(dataset.keys())) == ("kitti", [key(DRIVE, 69, "left")])
    sample = dataset.load(key(DRIVE, 69, "left"))
    assert sample.depth is not None
    assert sample.depth.valid[:, 1::2].all()
    assert not sample.depth.valid[:, ::2].any()
    # Millimetres, although the set counts in metres.
    assert np.abs(sample.depth.values - METRES * 1000)[sample.depth.valid].max() <= 0.5 * 1000 / 256 + 0.01
    assert sample.frame.camera is not None
    assert (sample.frame.camera.fx, sample.frame.camera.fy, sample.frame.camera.cx) == (7, 7.5, 8)
    assert dataset.load(key(DRIVE, 5, "left")).depth is None
    assert dataset.neighbours(key(DRIVE, 69, "left"), (-64, 1)) == [key(DRIVE, 5, "left"), None]


def test_kitti_list(tmp_path: Path):
    keys = open_dataset("kitti", write_kitti(tmp_path)).keys()
    protocol = get_protocol("kitti-eigen")
    split = tmp_path / "test_files.txt"
    for line in (f"2011_09_26/{DRIVE} 0000000069 l", f"2011_09_26/{DRIVE}/image_02/data/0000000069.png x.png 721.5"):
        split.write_text(f"{line}\n2011_09_26/{DRIVE} 5 l\n\n")
        assert protocol.select(keys, split) == [key(DRIVE, 69, "left")]
    for text, expected in (
        ("", "input.zero-bytes"),
        ("# nothing\n\n", "protocol.empty"),
        (f"{DRIVE} 0000000007 l", "protocol.empty"),
        ("frame 3", "protocol.line"),
    ):
        split.write_text(text)
        with pytest.raises(InputError) as caught:
            protocol.select(keys, split)
        assert caught.value.error_id == expected
    with pytest.raises(InputError):
        protocol.select(keys, tmp_path / "absent.txt")
    with pytest.raises(UsageError) as usage:
        protocol.select(keys, None)
    assert usage.value.error_id == "protocol.split"


def test_kitti_prepared_archives(tmp_path: Path):
    wide = ramp(30, 100, near=2, far=70)
    np.savez(tmp_path / "0.npz", image=lit(wide), depth=wide)
    assert detect(tmp_path) == "kitti"
    dataset = KittiDataset(tmp_path)
    protocol = get_protocol("kitti-eigen-leve")
    assert protocol.select(dataset.keys(), None) == [key("eigen-test", 0)]
    assert protocol.crop_pixels == (128, 381, 45, 1196)
    depth = dataset.load(key("eigen-test", 0)).depth
    assert depth is not None
    assert depth.values.max() == 70_000


def test_kitti_damage(tmp_path: Path):
    root = write_kitti(tmp_path)
    depth = root / "val" / DRIVE / "proj_depth/groundtruth/image_02/0000000069.png"
    dataset = KittiDataset(root)
    for pixels, expected in (
        (np.zeros((4, 4), np.uint16), "dataset.size"),
        (np.zeros((12, 16), np.uint8), "dataset.depth-bits"),
    ):
        save(depth, pixels)
        with pytest.raises(InputError) as caught:
            dataset.load(key(DRIVE, 69, "left"))
        assert caught.value.error_id == expected
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text("S_rect_02: wide high\n")
    with pytest.raises(InputError) as caught:
        KittiDataset(root).load(key(DRIVE, 69, "left"))
    assert caught.value.error_id == "dataset.damaged"
    shutil.rmtree(root / "2011_09_26")
    with pytest.raises(InputError) as caught:
        KittiDataset(root)
    assert caught.value.error_id == "dataset.empty"
