"""vis.mp4: true time stamps, fixed range, odd sizes, resume."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from endolux.errors import DeviceError, UsageError
from endolux.io.colour import LEGEND_WIDTH, ColourRange, colourise
from endolux.io.depth_files import DepthMeta, completed_frames, open_depth_writer
from endolux.io.vis import VisWriter, write_vis_png
from endolux.types import DepthKind, DepthMap, Frame

RANGE = ColourRange(low=10, high=100)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pair(index: int, size: tuple[int, int] = (160, 130), pts_s: float | None = None) -> tuple[Frame, DepthMap]:
    width, height = size
    image = np.full((height, width, 3), (200, 60, 30 + index % 100), np.uint8)
    values = np.tile(np.linspace(12, 95, width, dtype=np.float32), (height, 1))
    valid = np.ones((height, width), bool)
    valid[: height // 4] = False
    return (
        Frame(image=image, index=index, pts_s=index / 25 if pts_s is None else pts_s),
        DepthMap(values=values, kind=DepthKind.METRIC, valid=valid),
    )


def read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = list(container.decode(stream))
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.pts * f.time_base) for f in frames]


def test_frame_depth_and_legend_stand_side_by_side(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE, crf=1) as vis:
        vis.write(*pair(0))
    picture = read(tmp_path / "vis.mp4")[0][0]
    assert picture.shape == (130, 320 + LEGEND_WIDTH, 3)
    frame, depth = pair(0)
    assert np.abs(picture[40:120, 10:150].astype(int) - frame.image[40:120, 10:150]).mean() < 6
    wanted = colourise(depth, RANGE)[40:120, 10:150].astype(int)
    assert np.abs(picture[40:120, 170:310] - wanted).mean() < 12
    assert picture[:28, 170:310].max() < 20  # invalid is black
    assert (picture[:, 320:] > 180).any()


@pytest.mark.parametrize("segment_frames", [100, 3])
def test_variable_frame_rate_is_kept_through_the_segments(tmp_path, segment_frames):
    stamps = [0.2, 0.24, 0.3, 0.3123, 0.5, 1.7, 1.74]
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE, segment_frames=segment_frames) as vis:
        for index, pts_s in enumerate(stamps):
            vis.write(*pair(index, pts_s=pts_s))
    _, got = read(tmp_path / "vis.mp4")
    assert got == pytest.approx(stamps, abs=1 / 45_000)
    assert names(tmp_path) == ["vis.mp4"]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (161, 131), (641, 479), (1920, 1080), (1350, 1080), (100, 2000)])
@pytest.mark.parametrize("layout", ["side-by-side", "overlay"])
def test_any_size_gives_an_even_picture_of_bounded_size(tmp_path, size, layout):
    with VisWriter(tmp_path / "vis.mp4", size=size, range=RANGE, layout=layout) as vis:
        vis.write(*pair(0, size))
    height, width, _ = read(tmp_path / "vis.mp4")[0][0].shape
    assert width % 2 == height % 2 == 0
    assert width <= 1920
    assert height <= 1080


def test_frames_of_another_size_are_fitted_in(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE) as vis:
        vis.write(*pair(0))
        vis.write(*pair(1, (400, 100)))
        vis.write(*pair(2, (7, 90)))
    frames, _ = read(tmp_path / "vis.mp4")
    assert len(frames) == 3
    assert frames[1][50:, :160].max() < 30  # below the fitted 160 x 40 picture


def test_the_range_is_chosen_once_and_stays(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range_frames=4) as vis:
        for index in range(12):
            frame, depth = pair(index)
            if index >= 6:
                depth = DepthMap(values=depth.values * 50, kind=depth.kind, valid=depth.valid)
            vis.write(frame, depth)
            assert (vis.range is None) == (index < 3)
    assert vis.range.low < 12
    assert 95 < vis.range.high < 150
    frames, stamps = read(tmp_path / "vis.mp4")
    assert len(frames) == 12
    assert stamps == pytest.approx([i / 25 for i in range(12)], abs=1e-4)
    assert np.abs(frames[0][:, 320:].astype(int) - frames[11][:, 320:]).mean() < 4


def test_failed_and_missing_frames_are_black_and_keep_their_place(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE) as vis:
        vis.write(*pair(0))
        vis.write_failed(1, pts_s=0.04)
        vis.write(*pair(4))
    frames, stamps = read(tmp_path / "vis.mp4")
    assert [f[60, 80, 0] > 100 for f in frames] == [True, False, False, False, True]
    assert stamps == pytest.approx([0, 0.04, 0.08, 0.12, 0.16], abs=1e-4)


def test_a_clip_that_is_black_throughout(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range_frames=2) as vis:
        for index in range(9):
            frame, depth = pair(index)
            vis.write(frame, DepthMap(values=depth.values, kind=depth.kind, valid=np.zeros_like(depth.valid)))
    assert len(read(tmp_path / "vis.mp4")[0]) == 9


def test_resume_goes_on_with_the_range_of_the_first_run(tmp_path):
    path = tmp_path / "vis.mp4"
    first = ColourRange(low=3.0, high=70.0)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        VisWriter(path, size=(160, 130), range=first, segment_frames=4) as vis,
    ):
        for index in range(6):
            vis.write(*pair(index))
        raise KeyboardInterrupt
    assert not path.exists()
    for stop in (8, 10):
        with VisWriter(path, size=(160, 130), range=None, resume=True, segment_frames=4) as vis:
            assert vis.range == first
            assert vis.next_index == stop - 2
            for index in range(stop):
                vis.write(*pair(index))
    frames, stamps = read(path)
    assert stamps == pytest.approx([i / 25 for i in range(10)], abs=1e-4)
    assert len(frames) == 10
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["comment"])["endolux"]["frames"] == 10
    with pytest.raises(UsageError):
        VisWriter(path, size=(320, 200), resume=True)
    with pytest.raises(UsageError, match="palette"):
        VisWriter(path, size=(160, 130), resume=True, palette="grey")
    with pytest.raises(UsageError):
        VisWriter(path, size=(160, 130))


def test_depth_and_vis_agree_on_where_to_resume(tmp_path):
    meta = DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0)
    writer = open_depth_writer(tmp_path, fmt="mkv", meta=meta, segment_frames=4)
    vis = VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE, segment_frames=3)
    for index in range(7):
        frame, depth = pair(index)
        writer.write(index, "", depth)
        vis.write(frame, depth)
    del writer, vis  # a kill: nothing is closed
    assert completed_frames(tmp_path) == 4


def test_mismatched_pairs_and_names_are_refused(tmp_path):
    with VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE) as vis:
        vis.write(*pair(0))
        frame, depth = pair(1)
        with pytest.raises(UsageError):
            vis.write(frame, pair(1, (8, 8))[1])
        with pytest.raises(UsageError):
            vis.write(frame, DepthMap(values=depth.values, kind=DepthKind.RELATIVE_DEPTH, valid=depth.valid))
    with pytest.raises(UsageError):
        VisWriter(tmp_path / "vis.avi", size=(160, 130))
    (tmp_path / "other.mp4").write_bytes(b"holiday")
    for resume in (False, True):
        with pytest.raises(UsageError):
            VisWriter(tmp_path / "other.mp4", size=(160, 130), resume=resume)
    assert (tmp_path / "other.mp4").read_bytes() == b"holiday"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(tmp_path):
    vis = VisWriter(tmp_path / "vis.mp4", size=(160, 130), range=RANGE)
    (tmp_path / "vis.parts").mkdir()
    (tmp_path / "vis.parts/.part-000000000.mp4.tmp").symlink_to("/dev/full")
    with pytest.raises(DeviceError):  # noqa: PT012
        for index in range(5):
            vis.write(*pair(index))
        vis.close()
    assert not (tmp_path / "vis.mp4").exists()


def test_memory_does_not_grow_with_the_clip(tmp_path):
    meta = DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0)
    pairs = [pair(i, (320, 240)) for i in range(2)]

    def resident() -> int:
        pages = Path("/proc/self/statm")
        return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else 0

    marks = []
    with (
        open_depth_writer(tmp_path, fmt="mkv", meta=meta, segment_frames=50) as writer,
        VisWriter(tmp_path / "vis.mp4", size=(320, 240), segment_frames=50) as vis,
    ):
        for index in range(450):
            frame, depth = pairs[index % 2]
            writer.write(index, "", depth)
            vis.write(Frame(image=frame.image, index=index, pts_s=index / 25), depth)
            if index % 150 == 149:
                marks.append(resident())
    assert marks[2] - marks[1] < 8_000_000


@pytest.mark.parametrize("layout", ["side-by-side", "overlay"])
def test_png(tmp_path, layout):
    frame, depth = pair(0, (161, 50))
    write_vis_png(tmp_path / "vis.png", frame, depth, layout=layout)
    picture = cv2.imread(str(tmp_path / "vis.png"))[:, :, ::-1]
    assert picture.shape[0] >= 128
    assert picture.shape[1] == 161 * (2 if layout == "side-by-side" else 1) + LEGEND_WIDTH
    assert np.array_equal(picture[:12, :161], frame.image[:12])  # invalid rows show the plain frame in both layouts
    with pytest.raises(UsageError):
        write_vis_png(tmp_path / "b.png", frame, pair(0, (4, 4))[1])
