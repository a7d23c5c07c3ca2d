"""Hamlyn written from a staircase of depths, so that every crop is seen in the numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from endolux.datasets.base import PROTOCOLS, READERS, FrameKey, Severity
from endolux.datasets.hamlyn import Hamlyn, open_hamlyn
from endolux.errors import InputError, UsageError

WIDTH, HEIGHT = 640, 300


def key(sequence: str, index: int, side: str = "left") -> FrameKey:
    return FrameKey(sequence=sequence, index=index, side=side)


def depth_codes() -> npt.NDArray[np.uint16]:
    """Whole millimetres: 20 + column / 10, no value in the first row."""
    values = np.tile(20 + np.arange(WIDTH) // 10, (HEIGHT, 1)).astype(np.uint16)
    values[0] = 0
    return values


def picture() -> npt.NDArray[np.uint8]:
    """A black border of 40 columns left and right."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, 40:600] = (60, 90, 150)
    image[::7, 40:600] = (70, 110, 190)
    return image


def write(root: Path, sequence: str, *, numbers: tuple[int, ...] = (0, 1, 2), nested: bool = False) -> Path:
    folder = root / sequence / sequence if nested else root / sequence
    for name in ("image01", "image02", "depth01", "depth02"):
        (folder / name).mkdir(parents=True)
    for number in numbers:
        for camera in ("01", "02"):
            image = folder / f"image{camera}" / f"{number:010d}.jpg"
            assert cv2.imwrite(str(image), picture(), [cv2.IMWRITE_JPEG_QUALITY, 98])
            assert cv2.imwrite(str(folder / f"depth{camera}" / f"{number:010d}.png"), depth_codes())
    (folder / "intrinsics.txt").write_text("380.5 0 312.25 0\n0 381 148 0\n0 0 1 0\n")
    (folder / "extrinsics.txt").write_text("1 0 0 -5.4\n0 1 0 0\n0 0 1 0\n")
    return folder


def test_codes_are_millimetres(tmp_path: Path) -> None:
    write(tmp_path, "rectified01")
    data = open_hamlyn(tmp_path)
    assert len(data.keys()) == 6
    sample = data.load(key("rectified01", 1))
    assert sample.depth is not None
    assert sample.depth.at(405, 5) == 60.0
    assert not sample.depth.valid[0].any()
    assert sample.depth.valid[1:].all()
    camera = sample.frame.camera
    assert camera is not None
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (380.5, 381.0, 312.25, 148.0)
    assert data.neighbours(key("rectified01", 1)) == [key("rectified01", 0), key("rectified01", 2)]
    assert data.neighbours(key("rectified01", 2, "right")) == [key("rectified01", 1, "right"), None]
    assert [p.name for p in data.files(key("rectified01", 1))] == ["0000000001.jpg", "0000000001.png", "intrinsics.txt"]


@pytest.mark.parametrize("nested", [True, False])
def test_nested_archives_and_the_sequence_itself(tmp_path: Path, nested: bool) -> None:
    folder = write(tmp_path, "rectified04", nested=nested)
    assert len(open_hamlyn(tmp_path).keys()) == 6
    assert open_hamlyn(folder).keys() == open_hamlyn(tmp_path).keys()


def test_tracking_layout_has_one_camera(tmp_path: Path) -> None:
    folder = write(tmp_path, "test1")
    for old, new in (("image01", "color"), ("depth01", "depth")):
        (folder / old).rename(folder / new)
    data = open_hamlyn(tmp_path)
    assert data.load(key("rectified01", 2)).depth is not None
    assert {k.sequence for k in data.keys()} == {"rectified01"}  # noqa: SIM118


def test_content_crop_moves_picture_depth_and_camera_together(tmp_path: Path) -> None:
    write(tmp_path, "rectified01")
    sample = READERS["hamlyn-content"](tmp_path).load(key("rectified01", 0))
    assert sample.depth is not None
    width, height = sample.frame.size
    assert (width, height) == sample.depth.size
    assert abs(width - 560) <= 2
    assert height == HEIGHT
    left = 312.25 - sample.frame.camera.cx  # type: ignore[union-attr]
    assert abs(left - 40) <= 1
    assert sample.depth.at(5, 5) == 20 + (5 + int(left)) // 10
    assert int(sample.frame.image[5, 5].max()) > 100


def test_endodac_crop_applies_after_sequence_13(tmp_path: Path) -> None:
    write(tmp_path, "rectified14")
    write(tmp_path, "rectified08")
    data = READERS["hamlyn-endodac"](tmp_path)
    sample = data.load(key("rectified14", 0))
    assert sample.depth is not None
    assert sample.frame.size == (410, 288)
    assert sample.depth.at(0, 5) == 20 + 180 // 10
    assert sample.depth.at(409, 5) == 20 + 589 // 10
    assert sample.frame.camera is not None
    assert sample.frame.camera.cx == 312.25 - 180
    assert data.load(key("rectified08", 0)).frame.size == (WIDTH, HEIGHT)


def test_endodac_takes_frames_with_all_four_files(tmp_path: Path) -> None:
    folder = write(tmp_path, "rectified14")
    (folder / "depth02" / "0000000001.png").unlink()
    keys = READERS["hamlyn-endodac"](tmp_path).keys()
    assert [k.index for k in PROTOCOLS["hamlyn-endodac"].select(keys, None)] == [0, 2]
    whole = open_hamlyn(tmp_path)
    assert len(whole.keys()) == 6
    assert whole.load(key("rectified14", 1, "right")).depth is None
    assert "pair.no-depth" in {f.code for f in whole.check()}


def test_protocols_leave_out_rectified09_and_the_right_camera(tmp_path: Path) -> None:
    for sequence in ("rectified01", "rectified09"):
        write(tmp_path, sequence)
    keys = open_hamlyn(tmp_path).keys()
    for name in ("hamlyn-edm", "hamlyn-endoomni"):
        selected = PROTOCOLS[name].select(keys, None)
        assert {(k.sequence, k.side) for k in selected} == {("rectified01", "left")}
        with pytest.raises(UsageError):
            PROTOCOLS[name].select(keys, tmp_path / "split.txt")
    assert len(PROTOCOLS["hamlyn-endodac"].select(keys, None)) == 6
    assert (PROTOCOLS["hamlyn-edm"].minimum, PROTOCOLS["hamlyn-edm"].maximum) == (1.0, 300.0)
    assert PROTOCOLS["hamlyn-endoomni"].maximum == 150.0
    assert {PROTOCOLS[n].dataset for n in PROTOCOLS if n.startswith("hamlyn")} <= set(READERS)


def test_check_sees_units_damage_and_saturation(tmp_path: Path) -> None:
    folder = write(tmp_path, "rectified01")
    assert {f.code for f in open_hamlyn(tmp_path).check()} == {"count.sequences"}
    path = folder / "depth01" / "0000000000.png"
    assert cv2.imwrite(str(path), depth_codes() * 256)
    errors = {f.code for f in open_hamlyn(tmp_path).check() if f.severity is Severity.ERROR}
    assert errors == {"depth.unit"}
    saturated = depth_codes()
    saturated[:, 500:] = 300
    assert cv2.imwrite(str(path), saturated)
    assert "depth.saturated" in {f.code for f in open_hamlyn(tmp_path).check()}
    path.write_bytes(path.read_bytes()[:80])
    assert "input.truncated" in {f.code for f in open_hamlyn(tmp_path).check()}
    assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH), np.uint16))
    (folder / "intrinsics.txt").unlink()
    assert {"depth.empty", "camera.missing"} <= {f.code for f in open_hamlyn(tmp_path).check()}


def test_eight_bits_other_sizes_and_black_frames(tmp_path: Path) -> None:
    folder = write(tmp_path, "rectified01")
    path = folder / "depth01" / "0000000000.png"
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 80, np.uint8))
    with pytest.raises(InputError) as bits:
        open_hamlyn(tmp_path).load(key("rectified01", 0))
    assert bits.value.error_id == "dataset.depth-bits"
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH - 1), 80, np.uint16))
    with pytest.raises(InputError) as size:
        open_hamlyn(tmp_path).load(key("rectified01", 0))
    assert size.value.error_id == "dataset.size"
    assert cv2.imwrite(str(folder / "image01" / "0000000001.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(InputError) as black:
        READERS["hamlyn-content"](tmp_path).load(key("rectified01", 1))
    assert black.value.error_id == "hamlyn.black"


def test_two_pictures_of_one_number_are_ambiguous(tmp_path: Path) -> None:
    folder = write(tmp_path, "rectified01")
    assert cv2.imwrite(str(folder / "image01" / "0000000001.png"), picture())
    with pytest.raises(InputError) as caught:
        open_hamlyn(tmp_path)
    assert caught.value.error_id == "dataset.ambiguous"


def test_bad_intrinsics_and_paths(tmp_path: Path) -> None:
    folder = write(tmp_path, "rectified01")
    (folder / "intrinsics.txt").write_text("380 nan 3\n")
    with pytest.raises(InputError) as caught:
        open_hamlyn(tmp_path).load(key("rectified01", 0))
    assert caught.value.error_id == "dataset.matrix"
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty", "none"):
        with pytest.raises(InputError):
            open_hamlyn(tmp_path / name)
    with pytest.raises(UsageError):
        Hamlyn(tmp_path, crop="tight")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        open_hamlyn(tmp_path).load(key("rectified01", 77))
