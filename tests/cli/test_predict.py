"""`endolux predict`: what it writes, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from endolux.io.depth_files import read_depth_folder

from .cli_inputs import files_of, picture, write_clip, write_png


def test_video_gives_every_result(predict, clip: Path, tmp_path: Path):
    done = predict(clip)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"depth.mkv", "meta.json", "frames.csv", "vis.mp4", "run.json"}
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "done"
    assert run["frames"] == 30
    assert set(run["stages_ms"]) == {"read", "predict", "depth", "vis"}
    assert run["versions"]["endolux"]
    assert "predict" in run["command"]
    meta = json.loads((out / "meta.json").read_text())
    assert meta["kind"] == "metric"
    assert meta["unit"] == "mm"
    assert meta["model"]["card_sha256"] == run["model"]["card_sha256"]
    assert len((out / "frames.csv").read_text().splitlines()) == 31
    assert len(list(read_depth_folder(out))) == 30
    for word in ("out/depth.mkv", "metric", "mm", "vis.mp4", "30", "frames/s"):
        assert word in done.out


def test_depth_is_that_of_the_library(predict, image: Path, tmp_path: Path, tiny_bundle: Path):
    import endolux

    assert predict(image, "out", "--format", "npz").code == 0
    expected = endolux.load(tiny_bundle, threads=1).predict(endolux.read(image))
    ((index, found),) = read_depth_folder(tmp_path / "out")
    assert index == 0
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.valid, expected.valid)


def test_json_is_the_only_thing_on_stdout(predict, folder: Path):
    done = predict(folder, "out", "--json", "--quiet")
    assert done.code == 0
    assert done.document["ok"] is True
    assert done.document["frames"] == 12
    assert done.document["unit"] == "mm"
    assert done.document["failures"] == []
    assert done.err == ""


def test_no_vis_and_limit_and_glob(predict, folder: Path, tmp_path: Path):
    done = predict(folder.relative_to(tmp_path) / "*.png", "out", "--no-vis", "--limit", "3", "--json")
    assert done.code == 0, done.err
    assert done.document["vis"] is None
    assert sorted(path.name for path in (tmp_path / "out" / "depth").iterdir()) == [f"{i:06d}.png" for i in range(3)]
    assert not (tmp_path / "out" / "vis").exists()


def test_point_cloud_with_a_camera(predict, image: Path, tmp_path: Path):
    camera = {"width": 96, "height": 64, "fx": 80.0, "fy": 80.0, "cx": 47.5, "cy": 31.5}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    done = predict(image, "out", "--camera", "camera.json", "--ply", "--json")
    assert done.code == 0, done.err
    (cloud,) = (tmp_path / "out" / "points").iterdir()
    assert cloud.read_bytes().startswith(b"ply\nformat binary_little_endian")
    predict(image, "two", "--ply").assert_three_lines("predict.ply-camera")


def test_same_input_same_bytes_in_two_processes(predict, clip: Path, tmp_path: Path):
    assert predict(clip, "a").code == predict(clip, "b").code == 0
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_black_frames_are_counted_and_said(predict, tmp_path: Path):
    source = write_clip(tmp_path / "clip.mp4", frames=6, black=(3,))
    done = predict(source, "out")
    assert done.code == 0, done.err
    assert "black   1 of 6" in done.out
    depths = [depth for _, depth in read_depth_folder(tmp_path / "out")]
    assert [bool(depth.valid.any()) for depth in depths] == [True, True, True, False, True, True]
    write_png(tmp_path / "black.png", np.zeros((64, 96, 3), np.uint8))
    done = predict("black.png", "black", "--json")
    assert done.code == 0, done.err
    assert done.document["black"] == 1


def test_images_of_different_sizes(predict, tmp_path: Path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_png(folder / "a.png", picture())
    write_png(folder / "b.png", picture(width=50, height=80))
    assert predict(folder).code == 0
    sizes = [depth.size for _, depth in read_depth_folder(tmp_path / "out")]
    assert sizes == [(96, 64), (50, 80)]
    predict(folder, "two", "--format", "mkv").assert_three_lines("depth.size-changed")


@pytest.mark.parametrize("name", ["two words.png", "größe 内視鏡.png", "-o.png", "--help", "100%.png", "a[1].png"])
def test_odd_names(predict, tmp_path: Path, name: str):
    source = tmp_path / name
    source.write_bytes(cv2.imencode(".png", picture())[1].tobytes())
    done = predict(name, "aus gabe é", "--json")
    assert done.code == 0, done.err
    assert (tmp_path / "aus gabe é" / "depth" / "000000.png").exists()


def test_a_name_that_is_no_unicode(predict, tmp_path: Path):
    name = b"caf\xe9.png"
    (Path(str(tmp_path)) / name.decode("utf-8", "surrogateescape")).write_bytes(
        cv2.imencode(".png", picture())[1].tobytes()
    )
    done = predict(name.decode("utf-8", "surrogateescape"), "out", "--json")
    assert done.code == 0, done.err
    assert done.document["frames"] == 1


@pytest.mark.slow
def test_hundreds_of_thousands_of_files(predict, tmp_path: Path):
    folder = tmp_path / "many"
    folder.mkdir()
    content = cv2.imencode(".png", picture(width=32, height=32))[1].tobytes()
    for index in range(200_000):
        (folder / f"{index}.png").write_bytes(content if index < 5 else b"")
    done = predict(folder, "out", "--limit", "5", "--json")
    assert done.code == 0, done.err
    assert done.document["frames"] == 5


@pytest.mark.real_data
def test_real_clip(predict, shared_data: Path, tmp_path: Path):
    done = predict(shared_data / "rvim_laparoscopy" / "endo.mp4", "out", "--limit", "5", "--json")
    assert done.code == 0, done.err
    assert [depth.size for _, depth in read_depth_folder(tmp_path / "out")] == [(1280, 720)] * 5
