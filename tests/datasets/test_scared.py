"""SCARED in every layout, written from one known scene: a tilted plane that the camera approaches along its axis.

World plane Z = 50 + 0.2 X (mm), camera of frame i at (0, 0, i - 1): depth at ray (x, y, 1) is (51 - i) / (1 - 0.2 x).
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
import tarfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from endolux.datasets import detect
from endolux.datasets.base import PROTOCOLS, READERS, FrameKey, Severity, frame_list_sha256
from endolux.datasets.scared import Scared, ScaredCorrected, open_scared
from endolux.datasets.scared_cameras import depth_of_disparity, read_calibration
from endolux.datasets.scared_convert import convert_scared
from endolux.datasets.scared_files import TarFiles
from endolux.datasets.scared_points import left_view, read_points
from endolux.datasets.scared_splits import check_split, pose_trajectory, read_split
from endolux.errors import InputError, UsageError
from endolux.geometry.align import Alignment
from endolux.types import DepthKind

WIDTH, HEIGHT = 40, 32
FX, CX, CY = 50.0, 22.5, 15.0
FRAMES = 5
SEQUENCE = "dataset3/keyframe4"

Array = npt.NDArray[np.float64]


def key(index: int, sequence: str = SEQUENCE) -> FrameKey:
    return FrameKey(sequence=sequence, index=index, side="left")


def plane(index: int) -> Array:
    """Depth of frame ``index`` in closed form; the still (0) and frame 1 share their place."""
    x = (np.arange(WIDTH) - CX) / FX
    return np.tile((50.0 - max(index - 1, 0)) / (1 - 0.2 * x), (HEIGHT, 1))


def xyz(depth: Array) -> npt.NDArray[np.float32]:
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    return np.stack([(u - CX) / FX * depth, (v - CY) / FX * depth, depth], -1).astype(np.float32)


def tiff(points: npt.NDArray[np.float32], *, planar: int = 1) -> bytes:
    """A float TIFF with three interleaved channels, written by hand: the order of channels is the file's own."""
    height, width, channels = points.shape
    data = points.astype("<f4").tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8 + len(data)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, planar),
        (339, 3, 3, 14 + len(data)),
    ]
    tail = struct.pack("<3H", 32, 32, 32) + struct.pack("<3H", 3, 3, 3)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + b"\0\0\0\0"
    # The directory comes last, so that a cut file has lost it.
    return b"II*\0" + struct.pack("<I", 8 + len(data) + len(tail)) + data + tail + directory


def stacked(index: int) -> bytes:
    """Left above right; 0 means no point, as in the interpolated files."""
    left = xyz(plane(index))
    left[0, 0] = 0
    return tiff(np.concatenate([left, np.full_like(left, 7)]))


def pose(index: int) -> dict[str, object]:
    matrix = np.eye(4)
    matrix[2, 3] = -(index - 1)
    camera = [[FX, 0, CX], [0, FX, CY], [0, 0, 1]]
    calibration = {"KL": camera, "KR": camera, "DL": [[0.0]] * 5, "R": np.eye(3).tolist(), "T": [[-4.0], [0], [0]]}
    return {"camera-calibration": calibration, "camera-pose": matrix.tolist(), "timestamp": index}


def picture(index: int) -> npt.NDArray[np.uint8]:
    """Red ramp, green level that names the frame."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, WIDTH)
    image[..., 1] = 30 * index
    return image


def png(image: npt.NDArray[np.generic]) -> bytes:
    pixels = image[..., ::-1] if image.ndim == 3 else image
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def pack(path: Path, files: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def video(path: Path, *, both: bool = True, frames: int = FRAMES) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT * (2 if both else 1), "yuv420p"
        for index in range(1, frames + 1):
            left = picture(index)
            image = np.concatenate([left, np.full_like(left, 255)]) if both else left
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


CALIBRATION = """%YAML:1.0
---
M1: !!opencv-matrix
   rows: 3
   cols: 3
   dt: f
   data: [ 50., 0., 22.5, 0., 50., 15., 0., 0., 1. ]
D1: !!opencv-matrix
   rows: 1
   cols: 5
   dt: f
   data: [ -6.0e-04, 7.0e-04, -3.0e-04, 0., 0. ]
"""


def write_raw(root: Path, *, folder: str = "dataset_3/keyframe_4", packed: bool = True, both: bool = True) -> Path:
    keyframe = root / folder
    data = keyframe / "data"
    data.mkdir(parents=True)
    (keyframe / "Left_Image.png").write_bytes(png(picture(0)))
    still = xyz(plane(0))
    still[0, :2] = np.nan
    (keyframe / "left_depth_map.tiff").write_bytes(tiff(still))
    (keyframe / "endoscope_calibration.yaml").write_text(CALIBRATION)
    video(data / "rgb.mp4", both=both)
    points = [(f"./scene_points{i - 1:06d}.tiff", stacked(i)) for i in range(1, FRAMES + 1)]
    poses = [(f"frame_data{i - 1:06d}.json", json.dumps(pose(i)).encode()) for i in range(1, FRAMES + 1)]
    for name, files in (("scene_points", points), ("frame_data", poses)):
        if packed:
            pack(data / f"{name}.tar.gz", files)
        else:
            (data / name).mkdir()
            for file, content in files:
                (data / name / file).write_bytes(content)
    return keyframe


def write_af(root: Path) -> Path:
    data = root / SEQUENCE / "image_02" / "data"
    (data / "groundtruth").mkdir(parents=True)
    (data / "frame_data").mkdir()
    for i in range(1, FRAMES + 1):
        (data / f"{i:010d}.png").write_bytes(png(picture(i)))
        (data / "groundtruth" / f"scene_points{i - 1:06d}.tiff").write_bytes(stacked(i))
        (data / "frame_data" / f"frame_data{i - 1:06d}.json").write_text(json.dumps(pose(i)))
    return data


def write_extracted(root: Path) -> None:
    data = root / "train" / SEQUENCE / "data"
    for name in ("left", "scene_points", "frame_data"):
        (data / name).mkdir(parents=True)
    for i in range(1, FRAMES + 1):
        (data / "left" / f"frame_data{i - 1:06d}.png").write_bytes(png(picture(i)))
        (data / "scene_points" / f"scene_points{i - 1:06d}.tiff").write_bytes(stacked(i))
        (data / "frame_data" / f"frame_data{i - 1:06d}.json").write_text(json.dumps(pose(i)))


def write_rectified(root: Path) -> None:
    data = root / "dataset_3_keyframe_4" / "data"
    for name in ("left_finalpass", "disparity", "reprojection_data"):
        (data / name).mkdir(parents=True)
    q = [[1, 0, 0, -CX], [0, 1, 0, -CY], [0, 0, 0, FX], [0, 0, 1 / 4.0, 0]]
    for i in range(1, FRAMES + 1):
        disparity = (FX * 4.0 / plane(i)).astype(np.float32)
        disparity[0, 0] = 0
        (data / "left_finalpass" / f"frame_data{i - 1:06d}.png").write_bytes(png(picture(i)))
        ok, coded = cv2.imencode(".tiff", disparity)
        assert ok
        (data / "disparity" / f"frame_data{i - 1:06d}.tiff").write_bytes(coded.tobytes())
        (data / "reprojection_data" / f"frame_data{i - 1:06d}.json").write_text(json.dumps({"reprojection-matrix": q}))


def write_corrected(root: Path) -> Path:
    data = root / "dataset_3" / "keyframe_4" / "data"
    data.mkdir(parents=True)
    indices = [1, 2, 4, 5]  # structure from motion lost frame 3
    images = [(f"frame{i:06d}.png", png(picture(i))) for i in indices]
    points = []
    for i in indices:
        left = xyz(plane(i))
        left[0, 0] = 0
        points.append((f"scene_points{i:06d}.tiff", tiff(left)))
    poses = []
    for i in indices:
        content = {**pose(i), "camera-calibration": "intrinsics_colmap.yaml"}
        poses.append((f"frame_data{i:06d}.json", json.dumps(content).encode()))
    pack(data / "rgb_frames.tar.gz", images)
    pack(data / "scene_points.tar.gz", points)
    pack(data / "frame_data.tar.gz", poses)
    text = CALIBRATION.split("D1")[0].replace("M1", "K")
    (data.parent / "intrinsics_colmap.yaml").write_text(text + f"image_width: {WIDTH}\nimage_height: {HEIGHT}\n")
    return data


WRITERS: dict[str, Callable[[Path], object]] = {
    "raw": write_raw,
    "af": write_af,
    "extracted": write_extracted,
    "rectified": write_rectified,
    "scared-c": write_corrected,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_one_scene_reads_the_same_in_every_layout(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    data = Scared(tmp_path)
    assert data.sequences[SEQUENCE].layout == layout
    expected = [0] * (layout == "raw") + ([1, 2, 4, 5] if layout == "scared-c" else [1, 2, 3, 4, 5])
    assert list(data.keys()) == [key(i) for i in expected]
    for index in (5, 2, 4):  # backwards as well: archives and videos are read forward
        sample = data.load(key(index))
        assert sample.depth is not None
        assert sample.depth.kind is DepthKind.METRIC
        assert not sample.depth.valid[0, 0]
        assert sample.depth.valid.sum() == WIDTH * HEIGHT - 1
        np.testing.assert_allclose(sample.depth.values[sample.depth.valid], plane(index)[sample.depth.valid], rtol=1e-6)
        assert abs(int(sample.frame.image[..., 1].mean()) - 30 * index) <= 3
        assert sample.frame.size == (WIDTH, HEIGHT)
        assert sample.frame.camera is not None
        assert (sample.frame.camera.fx, sample.frame.camera.cx, sample.frame.camera.cy) == (FX, CX, CY)
        if layout == "rectified":
            assert sample.pose is None
        else:
            assert sample.pose is not None
            np.testing.assert_allclose(sample.pose[:3, 3], [0, 0, index - 1], atol=1e-12)
        assert all(path.is_file() for path in data.files(key(index)))


def test_points_of_two_frames_are_one_surface_under_their_poses(tmp_path: Path) -> None:
    write_af(tmp_path)
    data = open_scared(tmp_path)
    for index in (1, 5):
        sample = data.load(key(index))
        assert sample.depth is not None
        assert sample.pose is not None
        world = xyz(sample.depth.values.astype(np.float64))[sample.depth.valid] @ sample.pose[:3, :3].T
        world += sample.pose[:3, 3]
        np.testing.assert_allclose(world[:, 2], 50 + 0.2 * world[:, 0], atol=1e-4)


def test_still_is_frame_0_with_its_own_files(tmp_path: Path) -> None:
    write_raw(tmp_path)
    data = open_scared(tmp_path)
    sample = data.load(key(0))
    assert sample.depth is not None
    assert sample.pose is not None
    assert sample.frame.camera is not None
    assert (~sample.depth.valid).sum() == 2  # NaN is "no point", and not counted as impossible
    assert sample.excluded == {}
    np.testing.assert_array_equal(sample.frame.image, picture(0))
    np.testing.assert_array_equal(sample.pose, np.eye(4))
    assert sample.frame.camera.distortion == pytest.approx((-6e-4, 7e-4, -3e-4, 0, 0))
    assert {p.name for p in data.files(key(0))} == {
        "Left_Image.png",
        "left_depth_map.tiff",
        "endoscope_calibration.yaml",
    }


def test_neighbours_stay_in_the_video(tmp_path: Path) -> None:
    write_raw(tmp_path)
    data = open_scared(tmp_path)
    assert data.neighbours(key(3)) == [key(2), key(4)]
    assert data.neighbours(key(1)) == [None, key(2)]  # the still is no neighbour
    assert data.neighbours(key(5), (1, -2)) == [None, key(3)]
    assert data.neighbours(key(0)) == [None, None]


def test_frame_lists_agree_across_layouts(tmp_path: Path) -> None:
    lists = []
    for layout in ("raw", "af", "extracted"):
        WRITERS[layout](tmp_path / layout)
        keys = open_scared(tmp_path / layout).keys()
        lists.append(frame_list_sha256([k for k in keys if k.index]))
    assert len(set(lists)) == 1


def test_keyframes_counted_from_0_become_those_of_the_lists(tmp_path: Path) -> None:
    for number in (0, 3):
        write_raw(tmp_path, folder=f"dataset_8/keyframe_{number}", packed=False)
    write_raw(tmp_path, folder="dataset_3/keyframe_3", packed=False)
    assert sorted(open_scared(tmp_path).sequences) == ["dataset3/keyframe3", "dataset8/keyframe1", "dataset8/keyframe4"]


def test_unpacked_archives_and_left_only_video(tmp_path: Path) -> None:
    write_raw(tmp_path, packed=False, both=False)
    sample = open_scared(tmp_path).load(key(4))
    assert sample.frame.size == (WIDTH, HEIGHT)
    assert sample.depth is not None
    np.testing.assert_allclose(sample.depth.values[1:], plane(4)[1:], rtol=1e-6)


def test_two_copies_of_a_sequence_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "train")
    write_raw(tmp_path / "test")
    with pytest.raises(InputError, match="dataset3/keyframe4") as caught:
        open_scared(tmp_path)
    assert caught.value.error_id == "dataset.ambiguous"


# --- point maps ---------------------------------------------------------------------------------------------------


def test_channels_are_x_y_z_as_the_file_has_them() -> None:
    points = np.zeros((2, 3, 3), np.float32)
    points[...] = (1, 2, 3)
    np.testing.assert_array_equal(read_points(tiff(points), "x"), points)


@pytest.mark.parametrize("compression", [1, 5, 8, 32946])
@pytest.mark.parametrize("rows_per_strip", [3, 1000])
def test_plain_and_compressed_files_read_alike(compression: int, rows_per_strip: int) -> None:
    points = xyz(plane(3))
    points[2, 3] = (np.nan, np.inf, -np.inf)
    options = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, rows_per_strip]
    options += [cv2.IMWRITE_TIFF_PREDICTOR, cv2.IMWRITE_TIFF_PREDICTOR_NONE]
    ok, data = cv2.imencode(".tiff", points[..., ::-1], options)  # OpenCV swaps the channels when it writes
    assert ok
    np.testing.assert_array_equal(read_points(data.tobytes(), "x"), points)
    np.testing.assert_array_equal(read_points(tiff(points), "x"), points)


def test_left_view_of_each_arrangement() -> None:
    assert left_view(np.zeros((64, 40))).shape == (32, 40)
    assert left_view(np.zeros((32, 80))).shape == (32, 40)
    assert left_view(np.zeros((32, 40))).shape == (32, 40)


@pytest.mark.parametrize(
    ("data", "error_id"),
    [
        (tiff(np.ones((4, 5, 3), np.float32))[:100], "input.truncated"),
        (tiff(np.ones((40, 50, 3), np.float32), planar=2), "dataset.damaged"),
        (b"no picture at all", "dataset.damaged"),
        (png(np.zeros((4, 5), np.uint8)), "scared.points"),
        (png(np.zeros((4, 5, 3), np.uint8)), "scared.points"),
    ],
)
def test_bad_point_maps_are_errors(data: bytes, error_id: str) -> None:
    with pytest.raises(InputError) as caught:
        read_points(data, "x.tiff")
    assert caught.value.error_id == error_id


def test_every_cut_of_a_point_map_is_an_error() -> None:
    data = tiff(xyz(plane(1)))
    for end in range(0, len(data) - 5, 997):
        with pytest.raises(InputError):
            read_points(data[:end], "x.tiff")


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOLUX_MAX_PIXELS", "100")
    with pytest.raises(InputError) as caught:
        read_points(tiff(np.ones((40, 50, 3), np.float32)), "x.tiff")
    assert caught.value.error_id == "input.too-large"


def test_impossible_values_are_counted_exclusions(tmp_path: Path) -> None:
    data = write_af(tmp_path)
    points = xyz(plane(2))
    points[0, 0] = 0
    points[1, 1, 2], points[2, :3, 2], points[3, 3, 2], points[4, 4, 2] = np.inf, -5, np.nan, -np.inf
    (data / "groundtruth" / "scene_points000001.tiff").write_bytes(tiff(np.concatenate([points, points])))
    sample = open_scared(tmp_path).load(key(2))
    assert sample.depth is not None
    assert sample.excluded == {"infinite": 2, "negative": 3}
    assert (~sample.depth.valid).sum() == 7
    assert np.isfinite(sample.depth.values).all()


# --- damage -------------------------------------------------------------------------------------------------------


def test_missing_parts_name_the_frame(tmp_path: Path) -> None:
    data = write_af(tmp_path)
    (data / "groundtruth" / "scene_points000001.tiff").unlink()
    scared = open_scared(tmp_path)
    with pytest.raises(InputError) as caught:
        scared.load(key(2))
    assert caught.value.error_id == "dataset.missing-pair"
    assert scared.load(key(3)).depth is not None
    for absent in (key(0), key(99), key(1, "dataset1/keyframe1"), FrameKey(sequence=SEQUENCE, index=1, side="right")):
        with pytest.raises(InputError):
            scared.load(absent)


def test_depth_of_another_size_is_refused(tmp_path: Path) -> None:
    data = write_af(tmp_path)
    (data / "groundtruth" / "scene_points000001.tiff").write_bytes(tiff(np.ones((48, 30, 3), np.float32)))
    with pytest.raises(InputError, match="30x24") as caught:
        open_scared(tmp_path).load(key(2))
    assert caught.value.error_id == "dataset.size"


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"camera-pose": [[1]]}', json.dumps({"camera-pose": np.zeros((4, 4)).tolist()})]
)
def test_bad_pose_files(tmp_path: Path, content: str) -> None:
    data = write_af(tmp_path)
    (data / "frame_data" / "frame_data000001.json").write_text(content)
    with pytest.raises(InputError):
        open_scared(tmp_path).load(key(2))


def test_cut_archive_gives_the_frames_it_has(tmp_path: Path) -> None:
    keyframe = write_raw(tmp_path)
    archive = keyframe / "data" / "scene_points.tar.gz"
    # Incompressible content, so that a cut in the middle hits a later member.
    noise = np.random.default_rng(0).random((256, 200, 3), np.float32) + 50
    pack(archive, [(f"scene_points{i:06d}.tiff", tiff(noise)) for i in range(FRAMES)])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 3 // 5])
    scared = open_scared(tmp_path)
    assert scared.depth(key(1))[0] is not None
    for index in (5, 4):
        with pytest.raises(InputError) as caught:
            scared.depth(key(index))
        assert caught.value.error_id == "input.truncated"
    assert scared.depth(key(2))[0] is not None


def test_archive_out_of_order_and_not_an_archive(tmp_path: Path) -> None:
    import re

    pattern = re.compile(r"a(\d+)\.bin")
    pack(tmp_path / "a.tar", [("x/a3.bin", b"three"), ("a1.bin", b"one"), ("a2.bin", b"two"), ("other.txt", b"")])
    files = TarFiles(tmp_path / "a.tar", pattern)
    assert files.numbers() == (1, 2, 3)
    assert [files.read(n) for n in (1, 3, 2, 2, 1)] == [b"one", b"three", b"two", b"two", b"one"]
    with pytest.raises(InputError):
        files.read(9)
    (tmp_path / "b.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError) as caught:
        TarFiles(tmp_path / "b.tar.gz", pattern).numbers()
    assert caught.value.error_id == "dataset.damaged"


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    import re

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert TarFiles(tmp_path / "a.tar", re.compile(r"a(\d+)\.bin")).numbers() == ()


def test_video_shorter_than_its_poses(tmp_path: Path) -> None:
    keyframe = write_raw(tmp_path)
    (keyframe / "data" / "rgb.mp4").unlink()
    video(keyframe / "data" / "rgb.mp4", frames=2)
    scared = open_scared(tmp_path)
    assert scared.load(key(2)).depth is not None
    with pytest.raises(InputError) as caught:
        scared.load(key(4))
    assert caught.value.error_id == "scared.video-frame"


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "empty").mkdir()
    for path, error_id in (
        (file, "input.not-a-folder"),
        (tmp_path / "none", "input.missing"),
        (tmp_path / "empty", "dataset.layout"),
    ):
        with pytest.raises(InputError) as caught:
            open_scared(path)
        assert caught.value.error_id == error_id
    with pytest.raises(UsageError):
        Scared(tmp_path, layout="nonsense")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    data = write_af(tmp_path)
    path = data / "groundtruth" / "scene_points000001.tiff"
    path.chmod(0)
    with pytest.raises(InputError) as caught:
        open_scared(tmp_path).load(key(2))
    assert caught.value.error_id == "input.unreadable"


def test_unreadable_is_told_by_errno(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_af(tmp_path)
    scared = open_scared(tmp_path)
    real = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "scene_points000001.tiff":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError) as caught:
        scared.load(key(2))
    assert caught.value.error_id == "input.unreadable"
    assert data.is_dir()


# --- calibration --------------------------------------------------------------------------------------------------


def test_calibration_without_yaml_line_and_without_camera(tmp_path: Path) -> None:
    path = tmp_path / "endoscope_calibration.yaml"
    path.write_text(CALIBRATION.split("---\n")[1])
    assert read_calibration(path, (40, 32)).fx == 50
    path.write_text("%YAML:1.0\n---\nA: 1\n")
    with pytest.raises(InputError) as caught:
        read_calibration(path, (40, 32))
    assert caught.value.error_id == "scared.calibration"
    path.write_bytes(b"%YAML:1.0\n---\nM1: [")
    with pytest.raises(InputError):
        read_calibration(path, (40, 32))


def test_disparity_is_depth_by_the_closed_form() -> None:
    q = np.array([[1, 0, 0, -5], [0, 1, 0, -5], [0, 0, 0, 800.0], [0, 0, 0.2, -0.4]])
    disparity = np.array([[12.0, 0.0, np.nan]])
    assert depth_of_disparity(disparity, q)[0, 0] == pytest.approx(800 / (0.2 * 12 - 0.4))
    assert np.isnan(depth_of_disparity(disparity, q)[0, 1:]).all()


# --- splits and protocols -----------------------------------------------------------------------------------------


def split_file(folder: Path, lines: Sequence[str], *, name: str = "test_files.txt", end: str = "") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + end)
    return path


def test_split_without_final_newline_keeps_its_last_frame(tmp_path: Path) -> None:
    lines = [f"{SEQUENCE}\t{i}\tl" if i % 2 else f"{SEQUENCE}   {i} l" for i in (3, 1, 2)]
    path = split_file(tmp_path, lines)
    assert read_split(path) == [key(3), key(1), key(2)]
    assert read_split(split_file(tmp_path, lines, name="b.txt", end="\r\n\n")) == read_split(path)
    codes = {finding.code for finding in check_split(path)}
    assert codes == {"split.final-newline", "split.count", "split.sequences"}


@pytest.mark.parametrize(
    ("text", "error_id"),
    [
        ("", "input.zero-bytes"),
        ("\n \n", "split.empty"),
        (f"{SEQUENCE} 1", "split.format"),
        (f"{SEQUENCE} one l", "split.format"),
        (f"{SEQUENCE} 1 r", "split.format"),
        (f"{SEQUENCE} 1 l\n{SEQUENCE} 1 l", "split.format"),
    ],
)
def test_bad_split_files(tmp_path: Path, text: str, error_id: str) -> None:
    path = tmp_path / "test_files.txt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_split(path)
    assert caught.value.error_id == error_id


def test_a_split_that_is_a_folder_or_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_split(tmp_path)
    with pytest.raises(InputError):
        read_split(tmp_path / "none.txt")


def test_af_protocol_scores_the_listed_frames_in_order(tmp_path: Path) -> None:
    write_af(tmp_path)
    protocol, data = PROTOCOLS["scared-afsfm-551"], open_scared(tmp_path)
    path = split_file(tmp_path, [f"{SEQUENCE} {i} l" for i in (4, 2)])
    assert list(protocol.select(data.keys(), path)) == [key(4), key(2)]
    with pytest.raises(UsageError, match="test_files") as required:
        protocol.select(data.keys(), None)
    assert required.value.error_id == "split.required"
    with pytest.raises(InputError, match="1 of 2 frames") as missing:
        protocol.select(data.keys(), split_file(tmp_path, [f"{SEQUENCE} 2 l", f"{SEQUENCE} 77 l"]))
    assert missing.value.error_id == "split.missing-frames"


def test_the_conventions_are_the_published_ones() -> None:
    afsfm = PROTOCOLS["scared-afsfm-551"]
    assert (afsfm.expected_frames, afsfm.minimum, afsfm.maximum) == (551, 1e-3, 150.0)
    assert afsfm.alignment is Alignment.MEDIAN
    assert afsfm.clamp_prediction
    assert afsfm.crop is None
    assert PROTOCOLS["scared-keyframes"].expected_frames == 35
    assert {PROTOCOLS[n].dataset for n in PROTOCOLS if n.startswith("scared")} <= set(READERS)


def test_keyframe_protocol_takes_stills_of_data_sets_1_to_7(tmp_path: Path) -> None:
    write_raw(tmp_path)
    write_raw(tmp_path, folder="dataset_9/keyframe_1")
    protocol = PROTOCOLS["scared-keyframes"]
    assert list(protocol.select(open_scared(tmp_path).keys(), None)) == [key(0)]
    with pytest.raises(UsageError):
        protocol.select(open_scared(tmp_path).keys(), tmp_path / "x.txt")
    write_af(tmp_path / "af")
    with pytest.raises(InputError) as caught:
        protocol.select(open_scared(tmp_path / "af").keys(), None)
    assert caught.value.error_id == "scared.no-keyframes"


def test_corrected_release_is_recognised(tmp_path: Path) -> None:
    write_corrected(tmp_path)
    assert detect(tmp_path) == "scared-c"


def test_corrected_protocol(tmp_path: Path) -> None:
    write_corrected(tmp_path)
    data = READERS["scared-c"](tmp_path)
    assert isinstance(data, ScaredCorrected)
    select = PROTOCOLS["scared-c"].select
    assert [k.index for k in select(data.keys(), None)] == [1, 2, 4, 5]
    # Frame 3 has no corrected pose: it leaves the list, and the frame-list hash tells.
    path = split_file(tmp_path, [f"{SEQUENCE} {i} l" for i in (5, 3, 1)])
    assert [k.index for k in select(data.keys(), path)] == [5, 1]
    with pytest.raises(InputError):
        select(data.keys(), split_file(tmp_path, [f"{SEQUENCE} 3 l"]))
    write_raw(tmp_path / "raw")
    with pytest.raises(InputError):
        READERS["scared-c"](tmp_path / "raw")


def test_pose_trajectories_follow_their_rule() -> None:
    assert len(pose_trajectory(2)) == 833
    assert pose_trajectory(2)[-1] == key(833)
    with pytest.raises(UsageError):
        pose_trajectory(3)


# --- check --------------------------------------------------------------------------------------------------------


def codes_of(data: Scared, severity: Severity | None = None) -> set[str]:
    return {f.code for f in data.check() if severity is None or f.severity is severity}


def test_check_of_a_good_copy_has_no_error(tmp_path: Path) -> None:
    write_raw(tmp_path)
    data = open_scared(tmp_path)
    assert codes_of(data, Severity.ERROR) == set()
    assert {"scared.layout", "count.sequences", "scared.packed"} <= codes_of(data)


def test_check_sees_damage_units_calibration_and_lone_files(tmp_path: Path) -> None:
    data = write_af(tmp_path)
    split_file(tmp_path, [f"{SEQUENCE} 2 l"])
    (data / "0000000003.png").unlink()
    (data / "groundtruth" / "scene_points000003.tiff").unlink()
    found = [f.message for f in open_scared(tmp_path).check() if f.code == "pair.missing"]
    assert len(found) == 2
    assert "no depth, the first is 4" in found[0]
    assert "no picture, the first is 3" in found[1]
    assert "split.final-newline" in codes_of(open_scared(tmp_path))

    first = data / "groundtruth" / "scene_points000000.tiff"
    good = first.read_bytes()
    first.write_bytes(good[:500])
    assert "input.truncated" in codes_of(open_scared(tmp_path), Severity.ERROR)
    metres = xyz(plane(1) / 1000)
    first.write_bytes(tiff(np.concatenate([metres, metres])))
    assert "depth.unit" in codes_of(open_scared(tmp_path), Severity.ERROR)
    swapped = xyz(plane(1))[..., [1, 0, 2]]
    first.write_bytes(tiff(np.concatenate([swapped, swapped])))
    assert "depth.misaligned" in codes_of(open_scared(tmp_path), Severity.WARNING)
    first.write_bytes(tiff(np.zeros((64, 40, 3), np.float32)))
    assert "depth.empty" in codes_of(open_scared(tmp_path), Severity.WARNING)
    first.write_bytes(good)
    assert codes_of(open_scared(tmp_path), Severity.ERROR) == set()


def test_check_names_the_data_sets_of_known_wrong_calibration(tmp_path: Path) -> None:
    write_raw(tmp_path, folder="dataset_4/keyframe_4")
    assert "calibration.known-wrong" in codes_of(open_scared(tmp_path))


# --- conversion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth_format", "tolerance"), [("png", 0.005), ("npy", 1e-5)])
def test_conversion_reads_back_as_the_same_frames(tmp_path: Path, depth_format: str, tolerance: float) -> None:
    write_raw(tmp_path / "raw")
    seen: list[tuple[int, int]] = []
    result = convert_scared(
        tmp_path / "raw",
        tmp_path / "out",
        depth_format=depth_format,  # type: ignore[arg-type]
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (result.frames, result.failures, dict(result.excluded)) == (6, (), {})
    assert seen == [(i, 6) for i in range(1, 7)]
    before, after = open_scared(tmp_path / "raw"), open_scared(tmp_path / "out")
    assert list(after.keys()) == list(before.keys())
    keys = before.keys()
    for k in keys:
        a, b = before.load(k), after.load(k)
        assert a.depth is not None
        assert b.depth is not None
        assert a.pose is not None
        assert b.pose is not None
        np.testing.assert_array_equal(a.frame.image, b.frame.image)
        np.testing.assert_array_equal(a.depth.valid, b.depth.valid)
        assert np.abs(a.depth.values - b.depth.values).max() <= tolerance + 1e-6
        np.testing.assert_array_equal(a.pose, b.pose)
        assert a.frame.camera == b.frame.camera
    assert {f.code for f in after.check() if f.severity is Severity.ERROR} == set()
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["frames"] == 6


def test_conversion_resumes_and_leaves_finished_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path / "raw")
    real = Scared.image

    def stop(self: Scared, k: FrameKey) -> npt.NDArray[np.uint8]:
        if k.index == 3:
            raise KeyboardInterrupt
        return real(self, k)

    monkeypatch.setattr(Scared, "image", stop)
    with pytest.raises(KeyboardInterrupt):
        convert_scared(tmp_path / "raw", tmp_path / "out")
    monkeypatch.setattr(Scared, "image", real)
    folder = tmp_path / "out" / SEQUENCE / "image_02" / "data"
    assert sorted(p.name for p in folder.glob("*.png")) == [f"{i:010d}.png" for i in (0, 1, 2)]
    assert not list((tmp_path / "out").rglob("*.tmp"))
    stamp = (folder / "0000000001.png").stat().st_mtime_ns
    result = convert_scared(tmp_path / "raw", tmp_path / "out")
    assert (result.frames, result.kept) == (6, 1 + 2 + 3 + 3 + 2)  # calibration, still, 1, 2, part of 3
    assert (folder / "0000000001.png").stat().st_mtime_ns == stamp
    again = convert_scared(tmp_path / "raw", tmp_path / "out")
    assert (again.written, again.frames) == (0, 6)


def test_a_damaged_frame_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    keyframe = write_raw(tmp_path / "raw", packed=False)
    broken = keyframe / "data" / "scene_points" / "scene_points000001.tiff"
    good = broken.read_bytes()
    broken.write_bytes(good[:300])
    result = convert_scared(tmp_path / "raw", tmp_path / "out")
    assert [(str(f.frame), f.error.error_id) for f in result.failures] == [(f"{SEQUENCE} 2 left", "input.truncated")]
    assert result.frames == 5
    assert not (tmp_path / "out" / SEQUENCE / "image_02" / "data" / "0000000002.png").exists()
    broken.write_bytes(good)
    assert convert_scared(tmp_path / "raw", tmp_path / "out").failures == ()


def test_conversion_of_listed_frames_with_neighbours(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    path = split_file(tmp_path, [f"{SEQUENCE} 1 l", f"{SEQUENCE} 4 l"])
    assert convert_scared(tmp_path / "raw", tmp_path / "a", split=path, neighbours=0).frames == 2
    convert_scared(tmp_path / "raw", tmp_path / "b", split=path)
    keys = open_scared(tmp_path / "b").keys()
    assert [k.index for k in keys] == [1, 2, 3, 4, 5]
    assert convert_scared(tmp_path / "raw", tmp_path / "c", sequences=[SEQUENCE]).frames == 6
    with pytest.raises(InputError) as caught:
        convert_scared(tmp_path / "raw", tmp_path / "d", sequences=["dataset_3/keyframe_4"])
    assert caught.value.error_id == "scared.sequence"
    with pytest.raises(InputError):
        convert_scared(tmp_path / "raw", tmp_path / "d", split=split_file(tmp_path, ["dataset7/keyframe4 1 l"]))


def test_conversion_refuses_bad_outputs(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    for output in (tmp_path / "raw", tmp_path / "raw" / "out"):
        with pytest.raises(UsageError) as caught:
            convert_scared(tmp_path / "raw", output)
        assert caught.value.error_id == "output.is-source"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        convert_scared(tmp_path / "raw", tmp_path / "file")
    convert_scared(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UsageError) as other:
        convert_scared(tmp_path / "raw", tmp_path / "out", depth_format="npy")
    assert other.value.error_id == "output.format"
    with pytest.raises(UsageError):
        convert_scared(tmp_path / "raw", tmp_path / "out2", neighbours=-1)
    with pytest.raises(InputError):
        convert_scared(tmp_path / "none", tmp_path / "out3")


def test_depth_beyond_the_codes_is_counted_and_left_out(tmp_path: Path) -> None:
    keyframe = write_raw(tmp_path / "raw", packed=False)
    points = xyz(plane(1))
    points[5, 5:8, 2], points[6, 6, 2], points[7, 7, 2] = 655.36, 655.35, 0.001
    (keyframe / "data" / "scene_points" / "scene_points000000.tiff").write_bytes(tiff(np.concatenate([points, points])))
    result = convert_scared(tmp_path / "raw", tmp_path / "out")
    assert dict(result.excluded) == {"too-far": 3}
    sample = open_scared(tmp_path / "out").load(key(1))
    assert sample.depth is not None
    assert not sample.depth.valid[5, 5:8].any()
    assert sample.depth.at(6, 6) == pytest.approx(655.35)
    assert sample.depth.at(7, 7) == pytest.approx(0.01)


def test_conversion_of_rectified_frames_keeps_their_own_camera(tmp_path: Path) -> None:
    write_rectified(tmp_path / "in")
    # The released calibration describes the pictures before rectification.
    (tmp_path / "in" / "dataset_3_keyframe_4" / "endoscope_calibration.yaml").write_text(
        CALIBRATION.replace("50.", "99.")
    )
    convert_scared(tmp_path / "in", tmp_path / "out")
    camera = open_scared(tmp_path / "out").load(key(3)).frame.camera
    assert camera is not None
    assert (camera.fx, camera.cx) == (FX, CX)


def test_converted_scared_c_stays_scared_c(tmp_path: Path) -> None:
    write_corrected(tmp_path / "in")
    result = convert_scared(tmp_path / "in", tmp_path / "out")
    assert (result.frames, result.failures) == (4, ())
    before, after = READERS["scared-c"](tmp_path / "in"), READERS["scared-c"](tmp_path / "out")
    assert after.keys() == before.keys()
    for k in after.keys():  # noqa: SIM118
        a, b = before.load(k), after.load(k)
        assert a.depth is not None
        assert b.depth is not None
        assert np.abs(a.depth.values - b.depth.values).max() <= 0.00501
        assert a.frame.camera == b.frame.camera
        np.testing.assert_array_equal(a.pose, b.pose)  # type: ignore[arg-type]
    for folder in ("in", "out"):  # and the corrected depth does not pass for the released one
        with pytest.raises(InputError) as caught:
            open_scared(tmp_path / folder)
        assert caught.value.error_id == "scared.corrected"
    write_raw(tmp_path / "raw")
    convert_scared(tmp_path / "raw", tmp_path / "kinematic")
    with pytest.raises(InputError):  # the old poses do not pass for corrected ones
        READERS["scared-c"](tmp_path / "kinematic")


def test_full_disk_ends_the_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from endolux.errors import DeviceError

    write_raw(tmp_path / "raw")

    def full(_self: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DeviceError):
        convert_scared(tmp_path / "raw", tmp_path / "out")


def test_nothing_is_decoded_when_a_set_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_af(tmp_path)

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    data = open_scared(tmp_path)
    assert len(data.keys()) == FRAMES
    assert math.isclose(len(data.sequences), 1)


def test_changed_headers_are_read_or_refused_and_never_crash() -> None:
    """Every file that decodes is H x W x 3; every other one is an InputError."""
    good, generator = bytearray(tiff(xyz(plane(1)))), np.random.default_rng(1)
    places = [*range(8), *range(len(good) - 160, len(good))]
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        for place in generator.choice(places, 2):
            data[place] = generator.integers(256)
        try:
            assert read_points(bytes(data), "x").shape[2] == 3
        except InputError:
            refused += 1
    assert 0 < refused < 400
