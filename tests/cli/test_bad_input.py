"""Every kind of bad input: three lines or a counted failure, the right exit code, nothing lost or overwritten."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from .cli_inputs import picture, write_clip, write_png


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def make_missing(path: Path) -> Path:
    return path / "nowhere.mp4"


def make_empty_folder(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def make_text(path: Path) -> Path:
    (path / "notes.png").write_text("This is no picture.")
    return path / "notes.png"


def make_truncated_jpeg(path: Path) -> Path:
    data = cv2.imencode(".jpg", picture(width=320, height=240))[1].tobytes()
    (path / "cut.jpg").write_bytes(data[: len(data) // 2])
    return path / "cut.jpg"


def make_truncated_png(path: Path) -> Path:
    data = cv2.imencode(".png", picture(width=320, height=240))[1].tobytes()
    (path / "cut.png").write_bytes(data[: len(data) // 2])
    return path / "cut.png"


def make_zero_bytes(path: Path) -> Path:
    (path / "zero.png").touch()
    return path / "zero.png"


def make_zero_video(path: Path) -> Path:
    (path / "zero.mp4").touch()
    return path / "zero.mp4"


def make_huge(path: Path) -> Path:
    (path / "huge.png").write_bytes(png_header(20_000, 10_000))
    return path / "huge.png"


def make_bomb(path: Path) -> Path:
    (path / "bomb.png").write_bytes(png_header(2_000_000, 2_000_000))
    return path / "bomb.png"


def make_float_npy(path: Path) -> Path:
    np.save(path / "float.npy", np.zeros((8, 8, 3), np.float32))
    return path / "float.npy"


def make_float_tiff(path: Path) -> Path:
    assert cv2.imwrite(str(path / "float.tiff"), np.zeros((8, 8, 3), np.float32))
    return path / "float.tiff"


def make_audio(path: Path) -> Path:
    import av

    with av.open(str(path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path / "audio.mp4"


def make_headless_video(path: Path) -> Path:
    whole = write_clip(path / "whole.mp4", frames=20).read_bytes()
    (path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return path / "cut.mp4"


@pytest.mark.parametrize(
    "make",
    [
        make_missing,
        make_empty_folder,
        make_text,
        make_truncated_jpeg,
        make_truncated_png,
        make_zero_bytes,
        make_zero_video,
        make_huge,
        make_bomb,
        make_float_npy,
        make_float_tiff,
        make_audio,
        make_headless_video,
    ],
    ids=lambda make: make.__name__.removeprefix("make_"),
)
def test_unusable_input_is_exit_3(predict, tmp_path: Path, make):
    source = make(tmp_path)
    before = source.read_bytes() if source.is_file() else None
    # 20000 x 10000 pixels are 600 MB: bounded memory means that they are never decoded.
    done = predict(source, "out", "--json", preexec_fn=limit_memory)
    assert done.code == 3, done.err
    error = done.document["error"]
    assert error["exit_code"] == 3
    done.assert_three_lines(error["id"])
    assert error["id"].startswith("input.")
    assert before is None or source.read_bytes() == before


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def test_one_pixel(predict, tmp_path: Path):
    write_png(tmp_path / "one.png", np.full((1, 1, 3), 120, np.uint8))
    assert predict("one.png").code == 0


@pytest.mark.parametrize(
    "image",
    [
        np.full((64, 96, 3), 30_000, np.uint16),
        np.full((64, 96, 4), 120, np.uint8),
        np.full((64, 96), 120, np.uint8),
    ],
    ids=["16-bit", "alpha", "grey"],
)
def test_other_pixels_are_converted(predict, tmp_path: Path, image: np.ndarray):
    assert cv2.imwrite(str(tmp_path / "image.png"), image)
    assert predict("image.png").code == 0


def test_bad_files_in_a_folder_are_counted(predict, folder: Path, tmp_path: Path):
    (folder / "5.png").write_text("text")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    done = predict(folder)
    assert done.code == 5
    done.assert_three_lines("run.partial")
    assert "2 of 12 inputs failed" in done.err
    assert "5.png" in done.err
    assert "7.png" in done.err
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [failure["name"] for failure in run["failures"]] == ["5.png", "7.png"]
    names = sorted(int(path.stem) for path in (tmp_path / "out" / "depth").iterdir())
    assert set(range(12)) - {5, 7} <= set(names)
    rows = (tmp_path / "out" / "frames.csv").read_text().splitlines()
    assert len(rows) == 13
    assert "input." in rows[6]


def test_all_files_bad_is_exit_3(predict, tmp_path: Path):
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "bad" / name).write_text("text")
    done = predict("bad")
    assert done.code == 3
    assert "None of the 2 inputs" in done.err


def test_max_failures(predict, folder: Path):
    for name in ("0.png", "1.png", "2.png"):
        (folder / name).write_text("text")
    done = predict(folder, "out", "--max-failures", "1")
    assert done.code == 3
    done.assert_three_lines("run.too-many-failures")


def test_truncated_video_gives_the_frames_it_has(predict, tmp_path: Path):
    import av

    source = tmp_path / "whole.mp4"
    with av.open(str(source), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(60):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * 0.7)])
    done = predict("cut.mp4", "out", "--json")
    assert done.code == 5, done.err
    assert 0 < done.document["frames"] < 60
    assert done.document["failures"][-1]["error_id"] == "input.truncated"
    assert (tmp_path / "out" / "depth.mkv").exists()


def test_output_folder_of_someone_else(predict, image: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    done = predict(image)
    assert done.code == 2
    done.assert_three_lines("output.foreign")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert (out / "thesis.txt").read_text() == "mine"
    done = predict(image, "out", "--resume")
    assert done.code == 2
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_run_json_of_someone_else(predict, image: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text('{"mine": true}')
    done = predict(image, "out", "--resume")
    assert done.code == 2
    done.assert_three_lines("output.foreign")
    assert (out / "run.json").read_text() == '{"mine": true}'


def test_output_is_a_file(predict, image: Path, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    done = predict(image)
    assert done.code == 2
    done.assert_three_lines("output.is-file")
    predict(image, "out/inner").assert_three_lines("output.is-file")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_is_not_writable(predict, image: Path, tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    done = predict(image, "locked/out")
    assert done.code == 2
    done.assert_three_lines("output.not-writable")


def test_output_on_a_file_system_that_nobody_writes_to(predict, image: Path):
    done = predict(image, "/proc/endolux")
    assert done.code in (2, 3)
    assert done.err.startswith("error[")


def test_finished_run_says_so_and_another_is_refused(predict, folder: Path, tmp_path: Path):
    assert predict(folder).code == 0
    stamp = (tmp_path / "out" / "depth" / "000003.png").stat().st_mtime_ns
    for more in ((), ("--resume",)):
        done = predict(folder, "out", *more)
        assert done.code == 0, done.err
        assert "nothing was done again" in done.out
    assert (tmp_path / "out" / "depth" / "000003.png").stat().st_mtime_ns == stamp
    done = predict(folder, "out", "--format", "npz")
    assert done.code == 2
    done.assert_three_lines("output.other-run")
    assert "format" in done.err


def test_tampered_bundle(endolux, tiny_bundle: Path, image: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[-1] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    done = endolux("predict", image, "-o", "out", "--model", bundle)
    assert done.code == 4
    done.assert_three_lines("model.hash")
    assert not (tmp_path / "out").exists()
    done = endolux("models", "verify", bundle)
    assert done.code == 4
    done.assert_three_lines("model.hash")


def test_bundle_of_an_unknown_schema(endolux, tiny_bundle: Path, image: Path, tmp_path: Path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps({**card, "schema_version": 99}))
    done = endolux("predict", image, "-o", "out", "--model", bundle)
    assert done.code == 4
    done.assert_three_lines("model.schema")


def test_missing_extra_names_the_line_that_installs_it(predict, image: Path, tmp_path: Path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "openvino.py").write_text("raise ImportError('hidden')")
    done = predict(image, "out", "--engine", "openvino", env={"PYTHONPATH": str(hidden)})
    assert done.code == 7
    done.assert_three_lines("extra.missing")
    assert "pip install 'endolux[openvino]'" in done.err


def test_unknown_model(endolux, image: Path):
    done = endolux("predict", image, "-o", "out", "--model", "no-such-model", "--json")
    assert done.code == 4
    assert done.document["error"]["id"] == "model.missing"
