"""Videos: every frame once, upright, with its time; damage is said and counted."""

from __future__ import annotations

import gc
import itertools
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from endolux.errors import InputError
from endolux.io.sources import Failure, Source, open_source
from endolux.types import Frame

DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
CLIP = DATA / "rvim_laparoscopy" / "endo.mp4"
needs_clip = pytest.mark.skipif(not CLIP.exists(), reason=f"no real clip at {CLIP}")


def level(index: int) -> int:
    return 20 + index * 7 % 220


def grey(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level(index), np.uint8)


def encode(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    audio: bool = False,
    container_options: dict[str, str] | None = None,
    colorspace: int | None = None,
    color_range: int | None = None,
    interlaced: bool = False,
) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        # Fine enough for uneven time stamps.
        stream.codec_context.time_base = Fraction(1, 1000) if pts else Fraction(1, rate)
        stream.options = options or ({"crf": "1", "g": "8"} if codec == "libx264" else {})
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if interlaced:
            stream.codec_context.flags |= 0x00040000 | 0x20000000
        sound = container.add_stream("aac", rate=44100) if audio else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if colorspace is not None or color_range is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.time_base = stream.codec_context.time_base
            frame.pts = pts[number] if pts else number
            container.mux(stream.encode(frame))
            if sound is not None:
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts = 44100, number * 1024
                container.mux(sound.encode(block))
        container.mux(stream.encode())
        if sound is not None:
            container.mux(sound.encode())
    return path


def everything(source: Source, start: int = 0) -> list[Frame | Failure]:
    return list(source.frames(start))


def good(items: list[Frame | Failure]) -> list[Frame]:
    assert all(isinstance(item, Frame) for item in items), [item for item in items if isinstance(item, Failure)]
    return [item for item in items if isinstance(item, Frame)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", [grey(i) for i in range(90)])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mkv", "ffv1", "bgr0"),
        ("c.avi", "mjpeg", "yuvj420p"),
        ("d.mov", "mpeg4", "yuv420p"),
        ("e.mpg", "mpeg2video", "yuv420p"),
        ("f.ts", "libx264", "yuv420p"),
        ("g.mkv", "libx264", "yuv420p10le"),
        ("h.mkv", "ffv1", "gray"),
    ],
)
def test_every_frame_once_in_order_in_every_container(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = encode(tmp_path / name, [grey(i) for i in range(12)], codec=codec, pix_fmt=pix_fmt)
    with open_source(path) as source:
        assert (source.kind, source.name, source.size, source.interlaced) == ("video", name, (64, 48), False)
        assert source.fps == pytest.approx(25)
        frames = good(everything(source))
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.name for frame in frames[:2]] == ["000000", "000001"]
    for frame in frames:
        assert abs(float(frame.image.mean()) - level(frame.index)) < 4, frame.index
    steps = np.diff([frame.pts_s for frame in frames])
    np.testing.assert_allclose(steps, 0.04, atol=1.1e-3)


def test_uneven_time_stamps_are_kept(tmp_path: Path) -> None:
    pts = [0, 40, 45, 200, 1000, 1001, 2500]
    path = encode(tmp_path / "vfr.mp4", [grey(i) for i in range(len(pts))], pts=pts)
    frames = good(everything(open_source(path)))
    np.testing.assert_allclose([frame.pts_s for frame in frames], np.array(pts) / 1000, atol=1e-4)


def test_a_second_reading_and_a_count(clip: Path) -> None:
    source = open_source(clip)
    assert source.count == 90
    first, second = good(everything(source)), good(everything(source))
    assert len(first) == len(second) == 90
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("start", [0, 1, 63, 64, 70, 89, 90, 500])
def test_skipping_gives_the_very_same_frames(clip: Path, start: int) -> None:
    source = open_source(clip)
    whole, rest = good(everything(source)), good(everything(source, start))
    assert [frame.index for frame in rest] == list(range(start, 90))
    for frame in rest:
        assert frame.pts_s == whole[frame.index].pts_s
        assert np.array_equal(frame.image, whole[frame.index].image)


def test_limit_counts_positions(clip: Path) -> None:
    source = open_source(clip, limit=5)
    assert source.count == 5
    assert [item.index for item in source.frames()] == [0, 1, 2, 3, 4]
    assert [item.index for item in source.frames(3)] == [3, 4]
    assert everything(source, 5) == []


@pytest.mark.parametrize("size", [(65, 48), (64, 47), (63, 47), (3, 3), (1, 1)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = 200
    path = encode(tmp_path / "odd.mkv", [image] * 2, codec="ffv1", pix_fmt="yuv444p")
    source = open_source(path)
    assert source.size == size
    frame = good(everything(source))[1]
    assert frame.size == size
    assert np.abs(frame.image.astype(int) - image).max() <= 4


@pytest.mark.parametrize(("height", "colorspace"), [(48, 5), (48, 1), (720, 1), (720, 5)])
@pytest.mark.parametrize("color_range", [1, 2])
def test_tagged_colours_survive(tmp_path: Path, height: int, colorspace: int, color_range: int) -> None:
    image = np.zeros((height, 96, 3), np.uint8)
    image[:, :32], image[:, 32:64], image[:, 64:] = (180, 40, 50), (60, 160, 70), (210, 150, 120)
    path = encode(tmp_path / "c.mp4", [image] * 2, colorspace=colorspace, color_range=color_range)
    frame = good(everything(open_source(path)))[0]
    for column in (16, 48, 80):
        assert np.abs(frame.image[height // 2, column].astype(int) - image[height // 2, column]).max() <= 4


@pytest.mark.parametrize(("height", "colorspace"), [(48, 5), (720, 1)])
def test_untagged_colours_follow_the_convention_of_players(tmp_path: Path, height: int, colorspace: int) -> None:
    image = np.full((height, 64, 3), (180, 40, 50), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=colorspace, dst_color_range=1
    )
    path = tmp_path / "untagged.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        frame.colorspace, frame.color_range, frame.pts = 2, 0, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    out = good(everything(open_source(path)))[0]
    assert np.abs(out.image[height // 2, 32].astype(int) - (180, 40, 50)).max() <= 4


def patch_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    struct.pack_into(">iiiiiiiii", data, start, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    ],
)
def test_display_matrix_turns_the_picture(tmp_path: Path, matrix: tuple[int, int, int, int], turn: object) -> None:
    image = np.full((48, 64, 3), 40, np.uint8)
    image[:24, :32], image[:24, 32:] = (200, 60, 60), (60, 200, 60)
    path = encode(tmp_path / "turned.mp4", [image] * 3)
    patch_matrix(path, *matrix)
    expected = turn(image)  # type: ignore[operator]
    source = open_source(path)
    assert source.size == (expected.shape[1], expected.shape[0])
    for frame in good(everything(source)):
        assert frame.image.flags["C_CONTIGUOUS"]
        assert frame.image.shape == expected.shape
        assert np.abs(frame.image.astype(int) - expected).mean() < 4


def combed(index: int) -> np.ndarray:
    """A bar that moves between the two fields, as an interlaced camera sees it."""
    image = np.full((96, 128, 3), 30, np.uint8)
    for field in (0, 1):
        left = 10 + (2 * index + field) * 4
        image[field::2, left : left + 30] = 220
    return image


def combing(image: np.ndarray) -> float:
    rows = image[:, :, 0].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("i.mp4", "libx264", {"crf": "1", "x264-params": "tff=1"}), ("i.mpg", "mpeg2video", {"qmin": "1", "qmax": "2"})],
)
def test_interlaced_video_is_deinterlaced_frame_by_frame(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    images = [combed(i) for i in range(8)]
    path = encode(tmp_path / name, images, codec=codec, options=options, interlaced=True)
    source = open_source(path)
    assert source.interlaced
    frames = good(everything(source))
    assert [frame.index for frame in frames] == list(range(8))
    np.testing.assert_allclose(np.diff([frame.pts_s for frame in frames]), 0.04, atol=1e-3)
    bars: list[int] = []
    for frame in frames[1:-1]:
        assert combing(frame.image) < combing(images[frame.index]) / 3
        # The bar is where one field of this frame, always the same one, saw it.
        bars.append(np.flatnonzero(frame.image[48, :, 0] > 125)[0] - 10 - 8 * frame.index)
    assert max(bars) - min(bars) <= 2
    assert -2 <= min(bars) <= 6


def test_audio_is_ignored(tmp_path: Path) -> None:
    path = encode(tmp_path / "sound.mp4", [grey(i) for i in range(10)], audio=True)
    assert [frame.index for frame in good(everything(open_source(path)))] == list(range(10))


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        for number in range(20):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts = 44100, number * 1024
            container.mux(sound.encode(block))
        container.mux(sound.encode())
    return path


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "voice.mp4")
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert caught.value.error_id == "input.no-video"
    assert "audio" in caught.value.why


@pytest.mark.parametrize("content", [b"this is a text\n" * 40, os.urandom(4096), b"\0" * 4096, b"x"])
def test_garbage_named_mp4(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert caught.value.error_id in ("input.not-video", "input.truncated", "input.no-video")
    assert caught.value.exit_code == 3


def test_text_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("this is a text\n" * 40)
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert caught.value.error_id == "input.not-video"


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "clip.mp4")
    assert caught.value.error_id == "input.zero-bytes"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_cut_without_index_is_refused(clip: Path, tmp_path: Path, share: float) -> None:
    data = clip.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(data.index(b"moov") * share)])
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert caught.value.error_id == "input.truncated"
    assert "moov" in caught.value.what


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_cut_with_index_gives_what_is_there_and_one_failure(tmp_path: Path, name: str, share: float) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = encode(tmp_path / name, images, container_options=options, options={"crf": "20", "g": "8"})
    data = path.read_bytes()
    whole = good(everything(open_source(path)))
    path.write_bytes(data[: int(len(data) * share)])
    source = open_source(path)
    items = everything(source)
    assert [item.index for item in items] == list(range(len(items)))
    assert isinstance(items[-1], Failure)
    assert items[-1].error.error_id == "input.truncated"
    frames = good(items[:-1])
    assert 60 * (share - 0.25) < len(frames) < 60 * (share + 0.1)
    for frame in frames:
        assert np.array_equal(frame.image, whole[frame.index].image), frame.index
    assert [item.index for item in source.frames(5)] == [item.index for item in items[5:]]


def test_cut_right_after_the_index_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "c.mp4", [grey(i) for i in range(5)], container_options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 6])
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert caught.value.error_id == "input.truncated"


@pytest.mark.parametrize("options", [{"crf": "10", "g": "1"}, {"crf": "10", "g": "10", "bf": "2"}])
def test_damage_in_the_middle_is_counted_not_fatal(tmp_path: Path, options: dict[str, str]) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = encode(tmp_path / "d.mp4", images, options=options)
    whole = good(everything(open_source(path)))
    data = bytearray(path.read_bytes())
    middle = data.index(b"moov") // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    items = everything(open_source(path))
    assert [item.index for item in items] == list(range(30))
    failures = [item for item in items if isinstance(item, Failure)]
    assert failures
    assert all(failure.error.error_id == "input.damaged-frame" for failure in failures)
    # Not a picture before the damage, nor after the next key frame, is touched.
    for item in (*items[:9], *items[-9:]):
        assert isinstance(item, Frame)
        assert np.array_equal(item.image, whole[item.index].image)


@pytest.mark.parametrize(
    "name", ["two words.mp4", "-i.mp4", "Größe 胃.mp4", "concat:a.mp4", "100%20d.mp4", "%03d.mp4", "a[1]*.mp4"]
)
def test_names_that_look_like_something_else(
    clip: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(good(everything(open_source(name)))) == 90


def test_name_that_is_not_unicode(clip: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        (tmp_path / name).write_bytes(clip.read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    source = open_source(tmp_path / name)
    source.name.encode()
    assert len(good(everything(source))) == 90


def test_missing_video(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "no.mp4")
    assert caught.value.error_id == "input.missing"


def test_too_many_pixels_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDOLUX_MAX_PIXELS", str(64 * 48 - 1))
    with pytest.raises(InputError) as caught:
        open_source(clip)
    assert caught.value.error_id == "input.too-large"


def test_frames_are_freed_without_the_garbage_collector(clip: Path) -> None:
    # Decoded pictures that wait for the collector add up to a gigabyte in a few minutes of 720p.
    source = open_source(clip)
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in source.frames()) == 90
        unreachable = gc.collect()
    finally:
        gc.enable()
    assert unreachable < 60


def test_stopping_early_closes_the_file(clip: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    before = len(list(folder.iterdir()))
    for _ in range(5):
        frames = open_source(clip).frames()
        list(itertools.islice(frames, 2))
        frames.close()  # type: ignore[attr-defined]
    assert len(list(folder.iterdir())) <= before


@pytest.mark.real_data
@needs_clip
def test_real_clip() -> None:
    source = open_source(CLIP)
    assert (source.count, source.fps, source.size) == (250, 25.0, (1280, 720))
    stamps = []
    for item in source.frames():
        assert isinstance(item, Frame)
        assert item.size == (1280, 720)
        stamps.append(item.pts_s)
    np.testing.assert_allclose(stamps, np.arange(250) / 25, atol=1e-6)
