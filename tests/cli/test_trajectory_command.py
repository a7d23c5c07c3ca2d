"""``endolux trajectory``: poses and point clouds along the path of the camera, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from endolux.cli.root import run
from endolux.geometry.cameras import save_camera
from endolux.io.trajectory import read_tum
from endolux.models.odometry import POSE_FILE, Odometer, pose_bytes, read_pose
from endolux.models.pose_convolutions import ConvolutionalPose
from endolux.runtime.bundles import load_bundle, read_file, write_bundle
from endolux.runtime.model import load
from endolux.types import Camera

from .cli_inputs import Done, command, picture, write_png

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled depth network with a pose network beside it."""
    depth = load_bundle("repdepth-colon")
    torch.manual_seed(0)
    files = {name: read_file(depth, name) for name in depth.card.files}
    fields = depth.card.model_dump(exclude={"files", "schema_version"}) | {"name": "with-pose"}
    folder = tmp_path_factory.mktemp("bundles") / "with-pose"
    write_bundle(folder, card_fields=fields, files={**files, POSE_FILE: pose_bytes(ConvolutionalPose(), unit=20.0)})
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for index in range(4):
        write_png(folder / f"{index}.png", picture(3 * index, width=120, height=90))
    return folder


def finished(*arguments: str | Path) -> Done:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_trajectory_and_clouds(bundle: Path, clip: Path, tmp_path: Path) -> None:
    camera = Camera(width=120, height=90, fx=100.0, fy=101.0, cx=59.5, cy=44.5)
    save_camera(tmp_path / "camera.json", camera)
    done = finished(
        *("trajectory", bundle, clip, "-o", tmp_path / "path.txt", "--clouds", tmp_path / "clouds"),
        *("--frames", "0,3,9", "--camera", tmp_path / "camera.json", "--mm-per-unit", "20", "--fps", "25", "--json"),
    )
    assert done.code == 0, done.err
    assert done.document == {
        "ok": True,
        "trajectory": str(tmp_path / "path.txt"),
        "frames": 4,
        "length": pytest.approx(done.document["length"]),
        "unit": "mm",
        "clouds": ["cloud_000000.ply", "cloud_000003.ply"],
    }
    assert "no frame 9" in done.err
    assert "taken to be" not in done.err
    times, poses = read_tum(tmp_path / "path.txt")
    np.testing.assert_allclose(times, np.arange(4) / 25)
    loaded = load_bundle(bundle)
    pose, unit = read_pose((bundle / POSE_FILE).read_bytes())
    assert unit == 20
    odometer = Odometer(pose, loaded.card.preprocessing, unit=20 * unit)
    images = [picture(3 * index, width=120, height=90) for index in range(4)]
    wanted = np.eye(4)
    for before, after, found in zip(images[:-1], images[1:], poses[1:], strict=True):
        wanted = wanted @ np.linalg.inv(odometer.motion(after, before))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert done.document["length"] > 0
    header, _, body = (tmp_path / "clouds" / "cloud_000000.ply").read_bytes().partition(b"end_header\n")
    assert b"comment unit mm\n" in header
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    depth = load(bundle).predict(images[0])
    np.testing.assert_allclose(points["xyz"][:, 2], 20 * depth.values[depth.valid], rtol=1e-5)
    np.testing.assert_array_equal(points["rgb"], images[0][depth.valid])


def test_without_a_camera_it_says_what_it_assumes(
    bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, clouds = tmp_path / "path.txt", tmp_path / "clouds"
    assert run(["trajectory", str(bundle), str(clip), "-o", str(output), "--clouds", str(clouds), "--limit", "2"]) == 0
    told = capsys.readouterr()
    assert "no intrinsics given; taken to be fx 98.4, fy 91.8, cx 60.0, cy 45.0 px" in told.err
    assert told.out.startswith(f"{output}  2 poses, ")
    assert output.read_text().splitlines()[1] == "# unit unknown (one factor is missing)"
    assert [path.name for path in clouds.iterdir()] == ["cloud_000000.ply"]
    before = output.read_bytes()
    assert run(["trajectory", str(bundle), str(clip), "-o", str(output)]) == 2
    assert output.read_bytes() == before
    again = tmp_path / "again.txt"
    assert run(["trajectory", str(bundle), str(clip), "-o", str(again), "--limit", "2", "-q"]) == 0
    assert again.read_bytes() == before


BAD = {
    "one frame": (["BUNDLE", "CLIP/0.png"], 3, "trajectory.short"),
    "no clip": (["BUNDLE", "CLIP/none.mp4"], 3, "input.missing"),
    "no pose": (["repdepth-colon", "CLIP"], 4, "model.no-pose"),
    "no model": (["no-such-model", "CLIP"], 4, "model.missing"),
    "frames without clouds": (["BUNDLE", "CLIP", "--frames", "0"], 2, "trajectory.frames"),
    "frames": (["BUNDLE", "CLIP", "--clouds", "OUT/c", "--frames", "0,-1"], 2, "trajectory.frames"),
    "scale": (["BUNDLE", "CLIP", "--mm-per-unit", "0"], 2, "usage.arguments"),
    "full folder": (["BUNDLE", "CLIP", "--clouds", "CLIP"], 2, "output.exists"),
    "other camera": (["BUNDLE", "CLIP", "--camera", "OUT/camera.json"], 2, "frame.camera-size"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(bundle: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    arguments, code, error_id = BAD[case]
    save_camera(tmp_path / "camera.json", Camera(width=64, height=64, fx=60.0, fy=60.0, cx=31.5, cy=31.5))
    places = {"BUNDLE": str(bundle), "CLIP": str(clip), "OUT": str(tmp_path)}
    filled = [next((a.replace(k, v) for k, v in places.items() if a.startswith(k)), a) for a in arguments]
    assert run(["trajectory", *filled, "-o", str(tmp_path / "path.txt"), "--json"]) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["id"] == error_id
    Done(code, told.out, told.err).assert_three_lines(error_id)
    assert not (tmp_path / "path.txt").exists()
