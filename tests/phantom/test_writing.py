"""What lies on disk: the same bytes again, whole frames only whenever a run stops, and nobody else's files touched."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from phantom_known import planes

pytest.importorskip("numba")

from endolux import datasets
from endolux.datasets.base import Dataset
from endolux.errors import DeviceError, EndoluxError, UsageError
from endolux.geometry.cameras import camera_from_dict
from endolux.phantom import write
from endolux.phantom.deform import Deformation
from endolux.phantom.layouts import get_layout, names
from endolux.phantom.layouts.folder import FolderLayout
from endolux.phantom.motion import Motion
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import shots
from endolux.phantom.world import open_scene
from endolux.phantom.write import SCENES, layout_settings, write_clip, write_folder, write_layout, write_shards

TUBE = StreamSettings(anatomies={"tube": 1.0}, frames=3, width=64, height=48, views_per_scene=2, seed=11)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def tiny(name: str) -> StreamSettings:
    own: dict[str, object] = {"servct": {"sequence_frames": 8}, "endoslam-unity": {"sequence_frames": 2}}.get(name, {})
    changes = {"frames": 4, "sequence_frames": 2, "views_per_scene": 2, "width": 24, "height": 16, **own}
    if name == "servct":
        changes |= {"views_per_scene": 8}
    if name == "endoslam-unity":
        changes |= {"anatomies": {"colon": 1.0, "stomach": 1.0}}
    return layout_settings(get_layout(name), changes)


class Killed(BaseException):
    """Ends a run as a kill does: nothing that cleans up after errors may run."""


class Disk:
    """Lets some writes and moves through, then ends the run, or has no room left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, allowed: int, stop: Callable[[], BaseException]) -> None:
        self.left = allowed
        self._stop = stop
        self._write, self._replace = Path.write_bytes, Path.replace
        monkeypatch.setattr(Path, "write_bytes", lambda path, data: self.write(path, data))
        monkeypatch.setattr(Path, "replace", lambda path, target: self.replace(path, target))

    def write(self, path: Path, data: bytes) -> int:
        if self.left <= 0:
            # Half of it reached the disk.
            self._write(path, data[: len(data) // 2])
            raise self._stop()
        self.left -= 1
        return self._write(path, data)

    def replace(self, path: Path, target: Path) -> Path:
        if self.left <= 0:
            raise self._stop()
        self.left -= 1
        return self._replace(path, target)


def whole_frames(reader: str, folder: Path) -> int:
    """Number of frames that the reader sees; each must load with all that its layout has."""
    try:
        data: Dataset = datasets.open_dataset(reader, folder)
    except EndoluxError:
        return 0
    for key in data.keys():  # noqa: SIM118  -- a method of data sets, not of a mapping
        sample = data.load(key)
        if reader == "l3d":
            assert "landmarks" in sample.labels
            continue
        assert sample.depth is not None
        assert sample.depth.valid.mean() > 0.9
        if reader in ("folder", "scared", "simcol3d", "c3vd", "endoslam-unity"):
            assert sample.pose is not None
        if reader in ("servct", "hamlyn", "scared", "endoslam-unity", "simcol3d"):
            assert sample.frame.camera is not None
    return len(data.keys())


@pytest.mark.parametrize("name", names())
def test_a_kill_at_any_point_leaves_whole_frames_and_the_same_bytes_later(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "sequence", planes)
    settings, layout = tiny(name), get_layout(name)
    write_layout(settings, tmp_path / "whole", layout)
    truth = tree(tmp_path / "whole")
    steps, seen = 0, set()
    while True:
        folder = tmp_path / f"{steps}"
        with monkeypatch.context() as patch:
            Disk(patch, allowed=steps, stop=Killed)
            try:
                write_layout(settings, folder, layout)
                finished = True
            except Killed:
                finished = False
        seen.add(whole_frames(layout.reader, folder))
        if finished:
            break
        write_layout(settings, folder, layout)
        assert tree(folder) == truth, steps
        steps += 1 if steps < 12 else 3
    assert steps > 10
    # Frames appeared in between, not only at the end.
    assert len(seen) > 2 or name == "servct"


def test_a_kill_between_the_marker_and_tidying_up_leaves_nothing_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "sequence", planes)
    settings = tiny("folder")
    write_layout(settings, tmp_path / "a")
    write_layout(settings, tmp_path / "b")
    (tmp_path / "b" / ".phantom" / "stage-000000").mkdir()
    (tmp_path / "b" / ".phantom" / "stage-000000" / "files.json").write_text("{}")
    assert write_layout(settings, tmp_path / "b") == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from phantom_known import planes
from endolux.phantom import write
from endolux.phantom.deform import Deformation
from endolux.phantom.motion import Motion
from endolux.phantom.presets import StreamSettings

def slowly(settings, number):
    for shot in planes(settings, number):
        time.sleep(0.005)
        yield shot

write.sequence = slowly
write.write_layout(StreamSettings(frames=200, width=24, height=16, views_per_scene=2), Path(sys.argv[2]))
"""


def test_a_killed_process_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "sequence", planes)
    settings = StreamSettings(frames=200, width=24, height=16, views_per_scene=2)
    write_layout(settings, tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", SLOW_RUN, str(Path(__file__).parent), str(folder)]
    seen = [0]
    for _ in range(2):
        running = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("images/*.png"))) <= seen[-1] + 10 and time.monotonic() < deadline:
            time.sleep(0.003)
        running.send_signal(signal.SIGKILL)
        running.wait()
        seen.append(whole_frames("folder", folder))
        assert seen[-2] < seen[-1] < 200
    assert 0 < write_layout(settings, folder) < 200
    assert tree(folder) == tree(tmp_path / "whole")


def test_workers_do_not_change_the_bytes(tmp_path: Path) -> None:
    write_layout(TUBE, tmp_path / "one")
    assert write_layout(TUBE, tmp_path / "two", workers=2) == 3
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert write_layout(TUBE, tmp_path / "two", workers=2) == 0


def test_folder_holds_the_stream_without_loss(tmp_path: Path) -> None:
    write_folder(TUBE, tmp_path)
    data = datasets.open_dataset("folder", tmp_path)
    for sample, shot in zip(data.samples(), shots(TUBE), strict=True):
        assert sample.depth is not None
        np.testing.assert_array_equal(sample.frame.image, shot.frame.image)
        np.testing.assert_array_equal(sample.depth.valid, shot.depth.valid)
        np.testing.assert_array_equal(sample.depth.values[shot.depth.valid], shot.depth.values[shot.depth.valid])
        np.testing.assert_array_equal(sample.labels["labels"], shot.truth.labels)
        np.testing.assert_array_equal(sample.pose, shot.pose)
        assert sample.frame.camera == shot.camera


def test_every_parameter_is_recorded_and_repeats(tmp_path: Path) -> None:
    moving = TUBE.model_copy(update={"motion": Motion.PAN, "sequence_frames": 2, "deformation": Deformation()})
    for name, settings in (("still", TUBE), ("moving", moving)):
        write_folder(settings, tmp_path / name)
        write_folder(settings, tmp_path / f"{name}-again")
        data = (tmp_path / name / SCENES).read_bytes()
        assert data == (tmp_path / f"{name}-again" / SCENES).read_bytes()
        manifest = json.loads((tmp_path / name / "manifest.json").read_bytes())
        assert manifest["files"][SCENES] == hashlib.sha256(data).hexdigest()
        lines = [json.loads(line) for line in data.splitlines()]
        assert [line["sequence"] for line in lines] == [entry["name"] for entry in manifest["sequences"]]
        made = list(shots(settings))
        for number, line in enumerate(lines):
            scene = open_scene(settings, line["scene"])
            assert (line["anatomy"], line["parameters"]) == ("tube", scene.record)
            own = [shot for shot in made if shot.sequence == number]
            assert len(line["views"]) == len(own)
            for view, shot in zip(line["views"], own, strict=True):
                assert (view["index"], view["pts_s"]) == (shot.frame.index, shot.frame.pts_s)
                np.testing.assert_array_equal(view["camera_to_world_mm"], shot.pose)
                assert view["gain"] > 0
                scope = view["scope"] if name == "still" else line["scope"]
                assert camera_from_dict(scope["camera"]) == shot.camera
                assert {"gamma", "lights", "exposure", "content"} <= set(scope)
            if name == "moving":
                assert line["motion"]["kind"] == "pan"
                assert {"damping", "swing_deg", "swing_period_s"} <= set(line["motion"])
                assert 0 <= line["phase"] <= 2 * np.pi


def test_depth_codes_and_outputs_on_request(tmp_path: Path) -> None:
    write_layout(TUBE, tmp_path, FolderLayout("png", ("labels",)))
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"images", "depth", "labels", "poses", ".phantom"}
    for sample, shot in zip(datasets.open_dataset("folder", tmp_path).samples(), shots(TUBE), strict=True):
        assert sample.depth is not None
        assert np.abs(sample.depth.values - shot.depth.values)[shot.depth.valid].max() < 0.00501
    with pytest.raises(UsageError, match="other settings"):
        write_layout(TUBE, tmp_path, FolderLayout("npy", ("labels",)))


def test_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "sequence", planes)
    settings = tiny("folder")
    write_layout(settings, tmp_path / "whole")
    for allowed in range(0, 50, 7):
        folder = tmp_path / str(allowed)
        with monkeypatch.context() as patch:
            Disk(patch, allowed=allowed, stop=lambda: OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(DeviceError) as caught:
                write_layout(settings, folder)
        assert caught.value.error_id == "device.disk-full"
        assert len(str(caught.value).splitlines()) == 3
        assert "same command again" in caught.value.fix
        assert whole_frames("folder", folder) <= 4
        write_layout(settings, folder)
        assert tree(folder) == tree(tmp_path / "whole")


def test_an_unwritable_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write_folder(TUBE, tmp_path / "file")
    with pytest.raises(EndoluxError) as caught:
        write_folder(TUBE, tmp_path / "file" / "below")
    assert caught.value.exit_code in (2, 3)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="Cannot write"):
            write_folder(TUBE, tmp_path / "locked" / "x")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_permission_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _data: bytes) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UsageError) as caught:
        write_folder(TUBE, tmp_path / "x")
    assert caught.value.error_id == "output.not-writable"


def test_other_runs_and_foreign_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "sequence", planes)
    settings = tiny("folder")
    write_layout(settings, tmp_path / "a")
    before = tree(tmp_path / "a")
    with pytest.raises(UsageError, match="other settings"):
        write_layout(settings.model_copy(update={"seed": 12}), tmp_path / "a")
    with pytest.raises(UsageError, match="other settings"):
        write_layout(tiny("simcol3d"), tmp_path / "a", get_layout("simcol3d"))
    monkeypatch.setattr(write, "WORLD_VERSION", -1)
    with pytest.raises(UsageError, match="other settings"):
        write_layout(settings, tmp_path / "a")
    assert tree(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        write_layout(settings, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine.txt"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")
    settings = tiny("folder")

    def greedy(inner: StreamSettings, number: int) -> object:
        with pytest.raises(UsageError, match="Another run"):
            write_layout(settings, tmp_path / "a")
        return planes(inner, number)

    monkeypatch.setattr(write, "sequence", greedy)
    assert write_layout(settings, tmp_path / "a") == 4


def test_shards_are_repeatable_and_survive_a_kill(tmp_path: Path) -> None:
    settings = TUBE.model_copy(update={"frames": 4})
    write_shards(settings, tmp_path / "a", shard_frames=2)
    write_shards(settings, tmp_path / "b", shard_frames=2)
    # A kill leaves a hidden partial folder, which no reader takes and the next run replaces.
    victim = tmp_path / "b" / "shard-0000001"
    victim.rename(tmp_path / "b" / ".shard-0000001.partial")
    write_shards(settings, tmp_path / "b", shard_frames=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    rgb, depth = np.load(victim / "rgb.npy"), np.load(victim / "depth.npy")
    assert rgb.shape == (2, 48, 64, 3)
    assert json.loads((victim / "meta.json").read_text())["complete"] == 2
    for index, shot in enumerate(list(shots(settings))[2:]):
        np.testing.assert_array_equal(rgb[index], shot.frame.image)
        np.testing.assert_array_equal(depth[index] > 0, shot.depth.valid)
        np.testing.assert_allclose(depth[index][shot.depth.valid], shot.depth.values[shot.depth.valid], rtol=1e-3)
    with pytest.raises(UsageError, match="views a scene"):
        write_shards(settings, tmp_path / "d", shard_frames=3)
    assert not (tmp_path / "d").exists()


def test_clip_is_one_sequence(tmp_path: Path) -> None:
    moving = StreamSettings(**{**TUBE.model_dump(), "motion": "hover", "sequence_frames": 3, "fps": 5.0})
    write_clip(moving, tmp_path / "a.mp4")
    write_clip(moving, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_clip(moving, tmp_path / "a.mp4")
    for wrong in (TUBE, StreamSettings(**{**moving.model_dump(), "width": 65})):
        with pytest.raises(UsageError) as caught:
            write_clip(wrong, tmp_path / "c.mp4")
        assert caught.value.error_id == "phantom.clip-size"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
