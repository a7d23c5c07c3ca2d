"""A run that is killed, interrupted or runs out of disk loses nothing, and goes on with --resume."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .cli_inputs import command, files_of, write_clip

FRAMES = 420


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames=FRAMES, width=256, height=192)


def start(source: Path, out: Path, bundle: Path, *more: str) -> subprocess.Popen:
    arguments = ("predict", source, "-o", out, "--model", bundle, "--threads", "1", *more)
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_frames(out: Path, process: subprocess.Popen, *, rows: int) -> None:
    """Until the table has some rows; the run must still be going on then."""
    deadline = time.monotonic() + 60
    table = out / "frames.csv"
    while not (table.exists() and table.read_bytes().count(b"\n") > rows):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("depth_format", ["png", "mkv"])
def test_killed_and_resumed_is_as_undisturbed(tmp_path: Path, tiny_bundle: Path, long_clip: Path, depth_format: str):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(long_clip, whole, tiny_bundle, "--format", depth_format)
    assert process.wait(timeout=120) == 0

    process = start(long_clip, killed, tiny_bundle, "--format", depth_format)
    wait_for_frames(killed, process, rows=160)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((killed / "run.json").read_text())["status"] == "running"

    refused = start(long_clip, killed, tiny_bundle, "--format", depth_format)
    _, err = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "error[output.unfinished]" in err
    assert "--resume" in err

    again = start(long_clip, killed, tiny_bundle, "--format", depth_format, "--resume", "--json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads(out)["frames"] == FRAMES
    assert 0 < json.loads(out)["resumed_from"] < FRAMES
    assert files_of(killed) == files_of(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_interrupted_is_130_and_resumable(tmp_path: Path, tiny_bundle: Path, long_clip: Path, number: int):
    out = tmp_path / "out"
    process = start(long_clip, out, tiny_bundle)
    wait_for_frames(out, process, rows=40)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    lines = err.splitlines()
    assert lines[-3].startswith("error[run.interrupted]")
    assert "--resume" in lines[-1]
    assert "Traceback" not in err
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    process = start(long_clip, out, tiny_bundle, "--resume", "--json")
    answer, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report = json.loads(answer)
    assert report["frames"] == FRAMES
    assert report["resumed_from"] > 0


def test_full_disk_is_8_and_resumable(tmp_path: Path, tiny_bundle: Path, long_clip: Path):
    out = tmp_path / "out"
    limit = 3_000_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    arguments = command("predict", long_clip, "-o", out, "--model", tiny_bundle, "--threads", "1", "--no-vis")
    done = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=small_files, check=False, timeout=120)
    assert done.returncode == 8, done.stderr
    assert "error[device.disk-full]" in done.stderr
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*arguments, "--resume", "--json"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == FRAMES


def test_two_runs_do_not_share_a_folder(tmp_path: Path, tiny_bundle: Path, long_clip: Path):
    out = tmp_path / "out"
    process = start(long_clip, out, tiny_bundle)
    wait_for_frames(out, process, rows=5)
    process.send_signal(signal.SIGSTOP)  # it must not finish while the second one starts
    second = start(long_clip, out, tiny_bundle, "--resume")
    _, err = second.communicate(timeout=60)
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert "error[output.busy]" in err
