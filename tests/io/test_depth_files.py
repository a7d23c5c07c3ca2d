"""Depth files: exact round trips, resume after a kill, full disks, other people's files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from endolux.errors import DeviceError, InputError, UsageError
from endolux.io.depth_codes import ContentAreaMeta, ModelMeta
from endolux.io.depth_files import (
    DepthCoder,
    DepthMeta,
    check_output_folder,
    codes_per_unit_for,
    completed_frames,
    open_depth_writer,
    read_depth,
    read_depth_folder,
    read_meta,
)
from endolux.io.tables import FrameRow, FramesCsv
from endolux.runtime.card import Output
from endolux.types import Camera, DepthKind, DepthMap

FORMATS = ("png", "mkv", "npz")
META = DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def from_codes(codes: np.ndarray, meta: DepthMeta = META) -> DepthMap:
    values = codes.astype(np.float32) / np.float32(meta.codes_per_unit)
    return DepthMap(values=values, kind=meta.kind, valid=codes != 0)


def clip(count: int, shape: tuple[int, int] = (24, 32), seed: int = 0) -> list[DepthMap]:
    rng = np.random.default_rng(seed)
    return [from_codes(rng.integers(0, 65536, shape).astype(np.uint16)) for _ in range(count)]


def codes(depth: DepthMap, meta: DepthMeta = META) -> np.ndarray:
    return DepthCoder(codes_per_unit=meta.codes_per_unit).encode(depth)


def write(folder: Path, fmt: str, depths: list[DepthMap], **options: object) -> None:
    with open_depth_writer(folder, fmt=fmt, meta=META, **options) as writer:
        for index, depth in enumerate(depths):
            writer.write(index, str(index), depth)


def assert_same(folder: Path, depths: list[DepthMap]) -> None:
    read = list(read_depth_folder(folder))
    assert [index for index, _ in read] == list(range(len(depths)))
    for (_, got), wanted in zip(read, depths, strict=True):
        assert np.array_equal(got.valid, wanted.valid)
        assert np.array_equal(got.values[got.valid], wanted.values[wanted.valid])


# -- exactness ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    stack=hnp.arrays(np.uint16, st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))),
    kind=st.sampled_from(list(DepthKind)),
    power=st.integers(-2, 6),
    fmt=st.sampled_from(FORMATS),
)
def test_codes_survive_every_format_and_kind(stack, kind, power, fmt):
    meta = DepthMeta(kind=kind, codes_per_unit=10.0**power)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_depth_writer(folder, fmt=fmt, meta=meta) as writer:
            for index, frame in enumerate(stack):
                writer.write(index, "", from_codes(frame, meta))
        read = [depth for _, depth in read_depth_folder(folder)]
        assert len(read) == len(stack)
        for got, wanted in zip(read, stack, strict=True):
            assert got.kind is kind
            assert got.unit is read_meta(folder).unit
            assert np.array_equal(codes(got, meta), wanted)
        assert read_meta(folder).saturated_pixels == 0


@settings(max_examples=20, deadline=None)
@given(
    values=hnp.arrays(np.float32, (5, 7), elements=st.floats(width=32)),
    valid=hnp.arrays(np.bool_, (5, 7)),
)
def test_npz_keeps_every_float_bit(values, valid):
    with tempfile.TemporaryDirectory() as name:
        depth = DepthMap(values=values, kind=DepthKind.RELATIVE_DISPARITY, valid=valid, confidence=np.abs(values))
        meta = DepthMeta(kind=DepthKind.RELATIVE_DISPARITY, codes_per_unit=1.0)
        with open_depth_writer(Path(name), fmt="npz", meta=meta) as writer:
            writer.write(0, "", depth)
        got = read_depth(Path(name) / "depth/000000.npz")
        assert got.values.tobytes() == values.tobytes()
        assert np.array_equal(got.valid, valid)
        assert got.confidence.tobytes() == np.abs(values).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(np.float32, (4, 6), elements=st.floats(width=32)),
    valid=hnp.arrays(np.bool_, (4, 6)),
)
def test_coding_any_float_follows_the_definition(values, valid):
    coder = DepthCoder(codes_per_unit=100.0)
    got = coder.encode(DepthMap(values=values, kind=DepthKind.METRIC, valid=valid))
    with np.errstate(all="ignore"):
        scaled = np.rint(values * np.float32(100))
    wanted = np.where(valid & ~np.isnan(values), np.clip(np.nan_to_num(scaled, nan=0), 1, 65535), 0)
    assert np.array_equal(got, wanted.astype(np.uint16))
    assert coder.saturated_pixels == np.count_nonzero(valid & ((scaled < 1) | (scaled > 65535)))
    assert coder.nonfinite_pixels == np.count_nonzero(valid & np.isnan(values))


@pytest.mark.parametrize(
    ("kind", "maximum", "wanted"),
    [
        (DepthKind.METRIC, 300.0, 100.0),
        (DepthKind.METRIC, 655.35, 100.0),
        (DepthKind.METRIC, 656.0, 10.0),
        (DepthKind.METRIC, 1.0, 100.0),
        (DepthKind.RELATIVE_DEPTH, 1.0, 10_000.0),
        (DepthKind.RELATIVE_DEPTH, 6.5535, 10_000.0),
        (DepthKind.RELATIVE_DISPARITY, 1e6, 0.01),
    ],
)
def test_step_of_the_codes(kind, maximum, wanted):
    got = codes_per_unit_for(Output(kind=kind, minimum=0.0, maximum=maximum))
    assert got == wanted
    assert got * maximum <= 65535 * (1 + 1e-9)


def test_no_step_for_an_impossible_maximum():
    with pytest.raises(UsageError):
        codes_per_unit_for(Output(kind=DepthKind.METRIC, minimum=-1.0, maximum=0.0))


def test_png_is_plain_16_bit_grey_for_everyone(tmp_path):
    frames = clip(1)
    write(tmp_path, "png", frames)
    raw = cv2.imread(str(tmp_path / "depth/000000.png"), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16
    assert np.array_equal(raw, codes(frames[0]))


def test_mkv_is_intra_ffv1_with_the_sources_time_stamps(tmp_path):
    stamps = [0.5, 0.54, 0.7, 0.7, 1.0]
    with open_depth_writer(tmp_path, fmt="mkv", meta=META, segment_frames=2) as writer:
        for index, (depth, pts_s) in enumerate(zip(clip(5), stamps, strict=True)):
            assert writer.write(index, "", depth, pts_s=pts_s) == "depth.mkv"
    with av.open(str(tmp_path / "depth.mkv")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("ffv1", "gray16le")
    assert [round(float(f.pts * f.time_base), 3) for f in frames] == [0.5, 0.54, 0.7, 0.701, 1.0]
    assert all(f.key_frame for f in frames)
    assert names(tmp_path) == ["depth.mkv", "meta.json"]


def test_meta_says_everything_and_reads_back(tmp_path):
    camera = Camera(width=32, height=24, fx=20.0, fy=21.0, cx=15.5, cy=11.5)
    meta = DepthMeta(
        kind=DepthKind.METRIC,
        codes_per_unit=100.0,
        camera=camera,
        content_area=ContentAreaMeta(shape="circle", left=1, top=2, width=20, height=20),
        model=ModelMeta(name="m", card_sha256="0" * 64),
        engine="onnxruntime",
        precision="exact",
    )
    with open_depth_writer(tmp_path, fmt="png", meta=meta) as writer:
        values = np.full((24, 32), 5.0, np.float32)
        values[0, :7], values[1, :3] = 900.0, np.nan
        writer.write(0, "", DepthMap(values=values, kind=meta.kind, valid=np.ones((24, 32), bool)))
    got = read_meta(tmp_path)
    assert (got.saturated_pixels, got.nonfinite_pixels, got.frames, got.size) == (7, 3, 1, (32, 24))
    assert (got.camera, got.content_area, got.model) == (camera, meta.content_area, meta.model)
    assert read_depth(tmp_path / "depth/000000.png").camera == camera
    content = json.loads((tmp_path / "meta.json").read_text())
    assert content["unit"] == "mm"
    assert content["schema_version"] == 1
    assert content["endolux_version"]


# -- frames without depth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
def test_failed_frames_keep_the_numbers_aligned(tmp_path, fmt):
    frames = clip(6)
    with open_depth_writer(tmp_path, fmt=fmt, meta=META, segment_frames=2) as writer:
        writer.write_invalid(0, "lost", size=(32, 24))
        writer.write(1, "", frames[1])
        writer.write_invalid(2, "lost")
        writer.write(5, "", frames[5])  # 3 and 4 were never mentioned
    read = dict(read_depth_folder(tmp_path))
    assert sorted(read) == list(range(6))
    for index in (0, 2, 3, 4):
        assert not read[index].valid.any()
        assert read[index].size == (32, 24)
    for index in (1, 5):
        assert np.array_equal(codes(read[index]), codes(frames[index]))


def test_mkv_that_begins_with_failures_of_unknown_size(tmp_path):
    frames = clip(3)
    with open_depth_writer(tmp_path, fmt="mkv", meta=META) as writer:
        writer.write_invalid(0)
        writer.write_invalid(1)
        writer.write(2, "", frames[2])
    read = [depth for _, depth in read_depth_folder(tmp_path)]
    assert [bool(depth.valid.any()) for depth in read] == [False, False, True]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_run_in_which_everything_failed_has_no_depth(tmp_path, fmt):
    with open_depth_writer(tmp_path, fmt=fmt, meta=META) as writer:
        writer.write_invalid(0)
    with pytest.raises(InputError) as caught:
        list(read_depth_folder(tmp_path))
    assert caught.value.error_id == "depth.empty"


def test_sizes_may_differ_in_files_and_not_in_a_video(tmp_path):
    small, large = clip(1, (4, 6))[0], clip(1, (8, 8))[0]
    write(tmp_path / "png", "png", [small, large])
    assert [depth.size for _, depth in read_depth_folder(tmp_path / "png")] == [(6, 4), (8, 8)]
    assert read_meta(tmp_path / "png").size is None
    with pytest.raises(UsageError) as caught:
        write(tmp_path / "mkv", "mkv", [small, large])
    assert caught.value.error_id == "depth.size-changed"
    assert completed_frames(tmp_path / "mkv") == 1


def test_kind_must_not_change(tmp_path):
    with open_depth_writer(tmp_path, meta=META) as writer, pytest.raises(UsageError) as caught:
        writer.write(
            0, "", from_codes(np.ones((2, 2), np.uint16), META.model_copy(update={"kind": DepthKind.RELATIVE_DEPTH}))
        )
    assert caught.value.error_id == "depth.kind-changed"


# -- resume ------------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_depth_files import META, clip
from endolux.io.depth_files import open_depth_writer
writer = open_depth_writer(Path({folder!r}), fmt={fmt!r}, meta=META, segment_frames=4)
for index, depth in enumerate(clip(11)):
    writer.write(index, "", depth)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("fmt", FORMATS)
def test_killed_run_resumes_to_the_same_result(tmp_path, fmt):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "o"), fmt=fmt)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    frames = clip(14)
    done = completed_frames(tmp_path / "o")
    assert done == (8 if fmt == "mkv" else 11)
    assert len(list(read_depth_folder(tmp_path / "o"))) == done
    with open_depth_writer(tmp_path / "o", fmt=fmt, meta=META, resume=True, segment_frames=4) as writer:
        assert writer.next_index == done
        for index in range(done, 14):
            writer.write(index, "", frames[index])
    assert_same(tmp_path / "o", frames)
    assert read_meta(tmp_path / "o").frames == 14
    assert names(tmp_path / "o") == (["depth.mkv", "meta.json"] if fmt == "mkv" else ["depth", "meta.json"])
    if fmt == "mkv":
        write(tmp_path / "whole", fmt, frames)
        assert_same(tmp_path / "whole", frames)


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_exception_keeps_what_is_there_and_a_finished_run_can_go_on(tmp_path, fmt):
    frames = clip(9)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        open_depth_writer(tmp_path, fmt=fmt, meta=META, segment_frames=4) as writer,
    ):
        for index in range(6):
            writer.write(index, "", frames[index])
        raise KeyboardInterrupt
    assert completed_frames(tmp_path) == 6
    for stop in (7, 7, 9):  # the second run adds nothing
        with open_depth_writer(tmp_path, fmt=fmt, meta=META, resume=True, segment_frames=4) as writer:
            for index in range(stop):  # earlier frames are skipped
                writer.write(index, "", frames[index])
        assert_same(tmp_path, frames[:stop])


def test_kill_between_joining_and_tidying_up(tmp_path):
    frames = clip(7)
    write(tmp_path, "mkv", frames[:6], segment_frames=4)
    (tmp_path / "depth.parts").mkdir()
    (tmp_path / "depth.parts/part-000000000.mkv").write_bytes(b"left over")
    assert completed_frames(tmp_path) == 6
    with open_depth_writer(tmp_path, fmt="mkv", meta=META, resume=True) as writer:
        writer.write(6, "", frames[6])
    assert_same(tmp_path, frames)


def test_resume_point_is_the_least_of_all_results(tmp_path):
    frames = clip(6)
    write(tmp_path, "png", frames)
    with FramesCsv(tmp_path / "frames.csv") as table:
        for index in range(4):
            table.write(FrameRow(index=index, name=""))
    assert completed_frames(tmp_path) == 4
    (tmp_path / "depth/000001.png").unlink()
    assert completed_frames(tmp_path) == 1


def test_frames_that_failed_need_no_file(tmp_path):
    with open_depth_writer(tmp_path, meta=META) as writer, FramesCsv(tmp_path / "frames.csv") as table:
        table.write(FrameRow(index=0, name="bad", status="input.truncated"))
        assert writer.write_invalid(0) == ""
        table.write(FrameRow(index=1, name="good"))
        writer.write(1, "", clip(1)[0])
    assert completed_frames(tmp_path) == 2


@pytest.mark.parametrize(
    "change", [{"codes_per_unit": 10.0}, {"kind": DepthKind.RELATIVE_DEPTH, "unit": "none"}, {"precision": "fast"}]
)
def test_resume_with_other_options_is_refused(tmp_path, change):
    write(tmp_path, "png", clip(2))
    before = (tmp_path / "meta.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        open_depth_writer(tmp_path, fmt="png", meta=META.model_copy(update=change), resume=True)
    assert caught.value.error_id == "output.resume-mismatch"
    with pytest.raises(UsageError):
        open_depth_writer(tmp_path, fmt="mkv", meta=META, resume=True)
    assert (tmp_path / "meta.json").read_bytes() == before


# -- other people's files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS)
def test_results_are_never_overwritten(tmp_path, fmt):
    write(tmp_path, fmt, clip(2))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for again in FORMATS:
        with pytest.raises(UsageError) as caught:
            open_depth_writer(tmp_path, fmt=again, meta=META)
        assert caught.value.error_id == "output.exists"
    with pytest.raises(UsageError):
        check_output_folder(tmp_path)
    check_output_folder(tmp_path, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        open_depth_writer(tmp_path, meta=META)
    assert caught.value.error_id == "output.foreign"
    assert names(tmp_path) == ["notes.txt"]


def test_resume_does_not_take_over_a_foreign_video(tmp_path):
    (tmp_path / "depth.mkv").write_bytes(b"holiday")
    with pytest.raises(UsageError) as caught:
        open_depth_writer(tmp_path, fmt="mkv", meta=META, resume=True)
    assert caught.value.error_id == "output.foreign"
    (tmp_path / "meta.json").write_text(META.model_copy(update={"format": "mkv"}).model_dump_json())
    with pytest.raises(UsageError):
        open_depth_writer(tmp_path, fmt="mkv", meta=META, resume=True)
    assert (tmp_path / "depth.mkv").read_bytes() == b"holiday"


def test_output_path_that_is_a_file(tmp_path):
    (tmp_path / "o").write_text("x")
    with pytest.raises(UsageError) as caught:
        open_depth_writer(tmp_path / "o", meta=META)
    assert caught.value.error_id == "output.is-file"
    with pytest.raises(UsageError):
        check_output_folder(tmp_path / "o")


def test_unknown_format(tmp_path):
    with pytest.raises(UsageError, match="png, mkv, npz"):
        open_depth_writer(tmp_path, fmt="exr", meta=META)


def test_names_with_colons_spaces_and_unicode(tmp_path):
    folder = tmp_path / "http: -x ünï %03d"
    write(folder, "mkv", clip(3), segment_frames=2)
    assert_same(folder, clip(3))


def test_sizes_that_differ_across_a_resume(tmp_path):
    small, large = clip(1, (4, 6))[0], clip(1, (8, 8))[0]
    write(tmp_path, "png", [small, large])
    with open_depth_writer(tmp_path, fmt="png", meta=META, resume=True) as writer:
        assert writer.write_invalid(2) == ""  # no size to give it
        writer.write(3, "", small)
        writer.write_invalid(4)
    assert read_meta(tmp_path).size is None
    assert {index: depth.size for index, depth in read_depth_folder(tmp_path)} == {
        0: (6, 4),
        1: (8, 8),
        3: (6, 4),
        4: (6, 4),
    }


def test_counts_go_on_after_an_interruption(tmp_path):
    far = DepthMap(values=np.full((2, 3), 1e6, np.float32), kind=META.kind, valid=np.ones((2, 3), bool))
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        open_depth_writer(tmp_path, fmt="png", meta=META) as writer,
    ):
        writer.write(0, "", far)
        raise KeyboardInterrupt
    assert read_meta(tmp_path).saturated_pixels == 6
    with open_depth_writer(tmp_path, fmt="png", meta=META, resume=True) as writer:
        writer.write(1, "", far)
    assert read_meta(tmp_path).saturated_pixels == 12


# -- full disks --------------------------------------------------------------------------------------------------------

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@needs_dev_full
def test_full_disk_under_a_video_keeps_the_finished_segments(tmp_path):
    frames = clip(10, (120, 160))
    writer = open_depth_writer(tmp_path, fmt="mkv", meta=META, segment_frames=3)
    for index in range(3):
        writer.write(index, "", frames[index])
    (tmp_path / "depth.parts/.part-000000003.mkv.tmp").symlink_to("/dev/full")
    with pytest.raises(DeviceError) as caught:  # noqa: PT012
        for index in range(3, 10):
            writer.write(index, "", frames[index])
    assert caught.value.error_id == "device.disk-full"
    with pytest.raises(UsageError):
        writer.write(9, "", frames[9])
    writer.abort()
    assert names(tmp_path / "depth.parts") == ["part-000000000.mkv"]
    assert completed_frames(tmp_path) == 3
    with open_depth_writer(tmp_path, fmt="mkv", meta=META, resume=True, segment_frames=3) as writer:
        for index in range(3, 10):
            writer.write(index, "", frames[index])
    assert_same(tmp_path, frames)


@needs_dev_full
def test_full_disk_while_joining_keeps_the_segments(tmp_path):
    frames = clip(5, (120, 160))
    (tmp_path / ".depth.mkv.tmp").symlink_to("/dev/full")
    with pytest.raises(DeviceError):
        write(tmp_path, "mkv", frames, segment_frames=3)
    assert not (tmp_path / "depth.mkv").exists()
    assert completed_frames(tmp_path) == 5
    write(tmp_path, "mkv", frames, segment_frames=3, resume=True)
    assert_same(tmp_path, frames)


@needs_dev_full
@pytest.mark.parametrize("fmt", ["png", "npz"])
def test_full_disk_under_files_leaves_no_half_file(tmp_path, fmt):
    frames = clip(2)
    with open_depth_writer(tmp_path, fmt=fmt, meta=META) as writer:
        writer.write(0, "", frames[0])
        (tmp_path / f"depth/.000001.{fmt}.tmp").symlink_to("/dev/full")
        with pytest.raises(DeviceError):
            writer.write(1, "", frames[1])
    assert names(tmp_path / "depth") == [f"000000.{fmt}"]
    assert completed_frames(tmp_path) == 1


@pytest.mark.parametrize("fmt", FORMATS)
def test_really_full_file_system(tmp_path, fmt):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        frames = clip(200, (64, 64))
        with pytest.raises(DeviceError) as caught:
            write(disk / "o", fmt, frames, segment_frames=5)
        assert caught.value.error_id == "device.disk-full"
        done = completed_frames(disk / "o")
        assert done >= 1
        assert_same(disk / "o", frames[:done])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -- garbage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 8, 40, -1, -13])
def test_cut_png_is_refused(tmp_path, keep):
    write(tmp_path, "png", clip(1))
    path = tmp_path / "depth/000000.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        read_depth(path)


@pytest.mark.parametrize("keep", [0, 100, -1, -200])
def test_cut_npz_is_refused(tmp_path, keep):
    write(tmp_path, "npz", clip(1))
    path = tmp_path / "depth/000000.npz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        read_depth(path)


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_cut_video_gives_its_frames_and_then_the_error(tmp_path, part):
    write(tmp_path, "mkv", clip(8))
    path = tmp_path / "depth.mkv"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    reader = read_depth_folder(tmp_path)
    seen = 0
    with pytest.raises(InputError) as caught:  # noqa: PT012
        for (_, got), wanted in zip(reader, clip(8), strict=False):
            assert np.array_equal(codes(got), codes(wanted))
            seen += 1
        next(reader)
    assert caught.value.exit_code == 3
    assert seen < 8


def test_one_flipped_bit_in_a_video_are_noticed(tmp_path):
    write(tmp_path, "mkv", clip(4))
    path = tmp_path / "depth.mkv"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(read_depth_folder(tmp_path))
    assert caught.value.error_id == "input.damaged"


def test_ordinary_pictures_and_videos_are_not_depth(tmp_path):
    (tmp_path / "meta.json").write_text(META.model_copy(update={"format": "mkv"}).model_dump_json())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError) as caught:
        read_depth(tmp_path / "a.png")
    assert caught.value.error_id == "depth.not-depth"
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(InputError):
        read_depth(tmp_path / "b.png")
    with av.open(str(tmp_path / "depth.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())
    with pytest.raises(InputError) as caught:
        list(read_depth_folder(tmp_path))
    assert caught.value.error_id == "depth.not-depth"
    np.savez(tmp_path / "c.npz", values=np.array([None], object), valid=np.ones(1, bool))
    with pytest.raises(InputError):
        read_depth(tmp_path / "c.npz")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"schema_version": 99}',
        '{"schema_version": 1}',
        '{"schema_version": 1, "kind": "metric", "unit": "none", "codes_per_unit": 1}',
        '{"schema_version": 1, "kind": "metric", "codes_per_unit": 1, '
        '"camera": {"width": 0, "height": 1, "fx": 1, "fy": 1, "cx": 0, "cy": 0}}',
    ],
)
def test_damaged_meta(tmp_path, text):
    write(tmp_path, "png", clip(1))
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_depth(tmp_path / "depth/000000.png")
    assert caught.value.error_id == "depth.meta"
    (tmp_path / "meta.json").unlink()
    with pytest.raises(InputError) as caught:
        read_depth(tmp_path / "depth/000000.png")
    assert caught.value.error_id == "depth.no-meta"
    assert np.array_equal(codes(read_depth(tmp_path / "depth/000000.png", meta=META)), codes(clip(1)[0]))
