"""Streams, files and the command line of the phantom."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("numba")

from endolux.errors import DeviceError, UsageError
from endolux.phantom import write
from endolux.phantom.world import PhantomSettings, frames
from endolux.types import DepthKind

SMALL = PhantomSettings(frames=3, width=64, height=48, views_per_scene=2, seed=11)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "endolux", "phantom", *arguments], capture_output=True, text=True, check=False
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_frames_are_metric_valid_and_repeatable() -> None:
    first, again = list(frames(SMALL)), list(frames(SMALL))
    assert [item.frame.index for item in first] == [0, 1, 2]
    for a, b in zip(first, again, strict=True):
        assert a.frame.image.tobytes() == b.frame.image.tobytes()
        assert a.depth.values.tobytes() == b.depth.values.tobytes()
        assert a.depth.kind is DepthKind.METRIC
        assert (a.depth.values[a.depth.valid] > 0).all()
        assert not a.depth.valid[~a.frame.valid].any()
        np.testing.assert_allclose(a.pose[:3, :3] @ a.pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(a.pose[:3, :3]) == pytest.approx(1.0, abs=1e-6)


def test_scene_ranges_share_nothing_and_continue_each_other() -> None:
    whole = [item.frame.image.tobytes() for item in frames(SMALL.model_copy(update={"frames": 4}))]
    later = [item.frame.image.tobytes() for item in frames(SMALL.model_copy(update={"frames": 2, "first_scene": 1}))]
    assert whole[2:] == later
    assert not set(whole[:2]) & set(later)


def test_folder_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    write.write_folder(SMALL, tmp_path / "a")
    write.write_folder(SMALL, tmp_path / "b")
    (tmp_path / "b" / "manifest.json").unlink()
    (tmp_path / "b" / "poses" / "000001.json").unlink()
    assert write.write_folder(SMALL, tmp_path / "b") == 1
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    depth = cv2.imread(str(tmp_path / "a" / "depth" / "000000.png"), cv2.IMREAD_UNCHANGED)
    exact = next(iter(frames(SMALL)))
    assert depth.dtype == np.uint16
    np.testing.assert_array_equal(depth > 0, exact.depth.valid)
    np.testing.assert_allclose(depth[depth > 0] / 100, exact.depth.values[exact.depth.valid], atol=0.0051)


def test_shards_are_repeatable_in_parallel_and_survive_a_kill(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"frames": 4})
    write.write_shards(settings, tmp_path / "a", shard_frames=2, workers=2)
    write.write_shards(settings, tmp_path / "b", shard_frames=2)
    # A kill leaves a hidden partial folder, which no reader takes and the next run replaces.
    victim = tmp_path / "b" / "shard-0000001"
    victim.rename(tmp_path / "b" / ".shard-0000001.partial")
    write.write_shards(settings, tmp_path / "b", shard_frames=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    rgb = np.load(victim / "rgb.npy")
    assert rgb.shape == (2, 48, 64, 3)
    assert json.loads((victim / "meta.json").read_text())["complete"] == 2


def test_other_settings_and_foreign_files_are_refused(tmp_path: Path) -> None:
    write.write_folder(SMALL, tmp_path / "a")
    with pytest.raises(UsageError, match="other settings"):
        write.write_folder(SMALL.model_copy(update={"seed": 12}), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        write.write_folder(SMALL, tmp_path / "b")
    (tmp_path / "c").write_text("keep")
    with pytest.raises(UsageError, match="is a file"):
        write.write_folder(SMALL, tmp_path / "c")
    with pytest.raises(UsageError, match="views a scene"):
        write.write_shards(SMALL, tmp_path / "d", shard_frames=3)
    assert (tmp_path / "b" / "mine.txt").read_text() == "keep"
    assert (tmp_path / "c").read_text() == "keep"


def test_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    write.write_folder(SMALL, tmp_path / "a")
    (tmp_path / "a" / "poses" / "000001.json").unlink()
    monkeypatch.setattr(write, "_write_bytes", full)
    with pytest.raises(DeviceError):
        write.write_folder(SMALL, tmp_path / "a")


def test_command_line(tmp_path: Path) -> None:
    small = ["--width", "64", "--height", "48", "--views-per-scene", "2"]
    good = run("tube", "-n", "2", "-o", str(tmp_path / "out"), "--json", *small)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["frames"] == 2
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 2
    film = run("colon", "--clip", "-n", "3", "-o", str(tmp_path / "clip.mp4"), *small)
    assert film.returncode == 0, film.stderr
    assert (tmp_path / "clip.mp4").stat().st_size > 500
    unknown = run("kidney", "-o", str(tmp_path / "x"))
    assert unknown.returncode == 2
    assert len(unknown.stderr.strip().splitlines()) == 3
    assert "colon" in unknown.stderr
    wrong = run("colon", "-o", str(tmp_path / "x"), "--width", "0")
    assert wrong.returncode == 2
    assert "width" in wrong.stderr
    assert not (tmp_path / "x").exists()
