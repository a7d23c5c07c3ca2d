"""Data that is not as it should be: an error, or a counted exclusion; never a silent number."""

import json
import os

import cv2
import numpy as np
import pytest

from endolux.cli import root

SIZE = (64, 48)


def depth_mm(size=SIZE):
    return np.tile(np.linspace(20, 180, size[0]), (size[1], 1))


def codes(values):
    return np.rint(values * 255 * 256 / 200).astype(np.uint16)


def image(values):
    grey = 250 * (values.min() / values) ** 2
    return np.repeat(grey[:, :, None], 3, axis=2).round().astype(np.uint8)


@pytest.fixture
def simcol(tmp_path):
    """Three frames in SimCol3D's layout."""
    folder = tmp_path / "SyntheticColon_I/Frames_S1"
    folder.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"FrameBuffer_{number:04d}.png"), image(depth_mm()))
        cv2.imwrite(str(folder / f"Depth_{number:04d}.png"), codes(depth_mm()))
    return folder


@pytest.fixture
def floats(tmp_path):
    """Three pairs with float depth."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"p_{number}.png"), image(depth_mm()))
        np.save(folder / f"p_{number}_depth.npy", depth_mm().astype(np.float32))
    return folder


def run(capsys, *arguments):
    code = root.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def scored(capsys, protocol, data, *more):
    code, out, err = run(
        capsys, "evaluate", "baseline:constant", "--protocol", protocol, "--data", data, "--json", "-q", *more
    )
    return code, json.loads(out), err


def one_frame_fails(capsys, protocol, data, error_id):
    code, content, err = scored(capsys, protocol, data)
    assert code == 5
    assert content["ok"] is False
    assert [failure["id"] for failure in content["failures"]] == [error_id]
    assert content["frames"]["scored"] == 2
    assert any("1 of 3 frames failed and are left out" in text for text in content["warnings"])
    assert err.splitlines()[-3].startswith("error[run.partial]: 1 of 3")


@pytest.mark.parametrize(
    ("spoil", "error_id"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "input.truncated"),
        (lambda path: path.write_bytes(b""), "input.zero-bytes"),
        (lambda path: path.write_bytes(b"no picture at all"), "dataset.damaged"),
        (lambda path: cv2.imwrite(str(path), codes(depth_mm((32, 24)))), "dataset.size"),
        (lambda path: cv2.imwrite(str(path), depth_mm().astype(np.uint8)), "dataset.depth-bits"),
        (lambda path: cv2.imwrite(str(path), image(depth_mm())), "dataset.depth-bits"),
        (lambda path: path.unlink(), "evaluate.no-reference"),
    ],
)
def test_one_bad_depth_file(simcol, capsys, spoil, error_id):
    spoil(simcol / "Depth_0001.png")
    one_frame_fails(capsys, "simcol3d-any", simcol, error_id)
    code, out, _ = run(capsys, "data", "check", simcol, "--json")
    found = json.loads(out)
    assert code == (0 if error_id == "evaluate.no-reference" else 6)
    assert any(error_id in (one["code"],) or one["code"] == "depth.missing" for one in found["findings"])


def test_truncated_tiff(tmp_path, capsys):
    folder = tmp_path / "C3VD/cecum_t1_a"
    folder.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(folder / f"{number:04d}_color.png"), image(depth_mm()))
        cv2.imwrite(str(folder / f"{number:04d}_depth.tiff"), np.rint(depth_mm() / 200 * 65535).astype(np.uint16))
    path = folder / "0002_depth.tiff"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    one_frame_fails(capsys, "c3vd", tmp_path / "C3VD", "input.truncated")


def test_numbers_that_are_no_depth_are_counted(floats, capsys):
    values = depth_mm().astype(np.float32)
    values[0, :5], values[1, :4], values[2, :3], values[3, :2] = np.nan, np.inf, -1.0, 0.0
    np.save(floats / "p_1_depth.npy", values)
    code, content, _ = scored(capsys, "folder", floats)
    assert code == 0
    assert content["pixels"]["excluded_by_reader"] == {"infinite": 4, "negative": 3}
    assert content["pixels"]["truth_pixels"] == 3 * values.size - 5 - 4 - 3 - 2
    code, out, _ = run(capsys, "evaluate", "baseline:constant", "--data", floats, "-q")
    assert code == 0
    assert "7 pixels of the truth are infinite or negative and were left out" in out


def test_bad_predictions_are_refused_or_counted(floats, tmp_path, capsys):
    folder = tmp_path / "predictions"
    folder.mkdir()
    good = depth_mm().astype(np.float32)
    nan = np.where(np.arange(SIZE[0]) < 16, np.nan, good).astype(np.float32)
    for number, values in enumerate((good, nan, -good)):
        np.save(folder / f"p_{number}.npy", values)
    arguments = ("--protocol", "folder", "--data", floats, "--prediction-kind", "relative_depth", "--json", "-q")
    code, out, err = run(capsys, "evaluate", folder, *arguments)
    content = json.loads(out)
    assert code == 0
    assert content["frames"]["unusable"] == 1
    assert content["pixels"]["dropped"] == 16 * SIZE[1]
    assert content["per_frame"]["metrics"]["abs_rel"] == pytest.approx([0, 0, 1], abs=1e-5)
    assert "warning: 1 frames have no prediction" in err
    (folder / "p_1.npy").unlink()
    code, out, _ = run(capsys, "evaluate", folder, *arguments)
    assert code == 5
    assert [one["id"] for one in json.loads(out)["failures"]] == ["evaluate.no-prediction"]


@pytest.mark.parametrize("mode", ["protocol", "pairs"])
def test_unreadable_permissions(floats, capsys, mode, monkeypatch):
    if os.geteuid() == 0:
        # Permissions do not bind this user: let the system refuse in their place.
        real = os.open

        def refuse(path, *rest, **more):
            if str(path).endswith("p_1_depth.npy"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **more)

        from pathlib import Path

        real_open = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda self, *a, **k: refuse(self) if self.name == "p_1_depth.npy" else real_open(self, *a, **k),
        )
        real_load = np.load
        monkeypatch.setattr(
            np, "load", lambda p, *a, **k: refuse(p) if str(p).endswith("p_1_depth.npy") else real_load(p, *a, **k)
        )
    else:
        (floats / "p_1_depth.npy").chmod(0)
    more = ["--protocol", "folder"] if mode == "protocol" else []
    code, out, err = run(capsys, "evaluate", "baseline:constant", "--data", floats, "--json", "-q", *more)
    content = json.loads(out)
    assert code == 5
    assert [one["id"] for one in content["failures"]] == ["input.unreadable"]
    assert "run.partial" in err


@pytest.mark.parametrize(
    ("arguments", "code", "error_id"),
    [
        (["--protocol", "simcol3d-any", "--data", "{file}"], 3, "input.not-a-folder"),
        (["--protocol", "simcol3d-any", "--data", "{missing}"], 3, "input.missing"),
        (["--protocol", "simcol3d-any", "--data", "{empty}"], 3, "dataset.empty"),
        (["--protocol", "simcol3d", "--data", "{simcol}"], 3, "protocol.sequences"),
        (["--protocol", "simcol3d-any", "--data", "{simcol}", "--split", "{file}"], 2, "protocol.split"),
        (["--protocol", "kitti-eigen", "--data", "{kitti}", "--split", "{nothing}"], 3, "protocol.empty"),
        (["--protocol", "kitti-eigen", "--data", "{kitti}"], 2, "protocol.split"),
        (["--protocol", "simcol3d-any", "--data", "{simcol}", "-o", "{file}"], 2, "output.is-file"),
        (["--data", "{file}"], 3, "input.not-a-folder"),
        (["--data", "{empty}"], 3, "evaluate.no-pairs"),
    ],
)
def test_the_place_itself_is_wrong(simcol, tmp_path, capsys, arguments, code, error_id):
    kitti = tmp_path / "kitti/2011_09_26/2011_09_26_drive_0002_sync/image_02/data"
    kitti.mkdir(parents=True)
    cv2.imwrite(str(kitti / "0000000005.png"), image(depth_mm()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.txt").write_text("\n# nothing\n")
    (tmp_path / "file.txt").write_text("x")
    places = {
        "file": tmp_path / "file.txt",
        "missing": tmp_path / "no",
        "empty": tmp_path / "empty",
        "nothing": tmp_path / "nothing.txt",
        "simcol": simcol,
        "kitti": tmp_path / "kitti",
    }
    filled = [text.format(**places) for text in arguments]
    found, out, err = run(capsys, "evaluate", "baseline:constant", *filled, "-q")
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 3
    assert f"error[{error_id}]" in err.splitlines()[0]


def test_missing_pair(floats, capsys):
    (floats / "p_1_depth.npy").unlink()
    code, out, err = run(capsys, "evaluate", "baseline:constant", "--data", floats, "-q")
    assert (code, out) == (3, "")
    assert "error[evaluate.unpaired]" in err
