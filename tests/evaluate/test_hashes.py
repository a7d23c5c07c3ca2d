"""Hashes of a folder: sha256sum understands them, and an interrupted run goes on."""

import hashlib
import os
import shutil
import subprocess

import pytest

from endolux.errors import EndoluxError
from endolux.evaluate import hashes
from endolux.evaluate.hashes import write_hashes


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    for name in ("b.txt", "sub/a.bin", "sub/c with space", "back\\slash", "new\nline"):
        (root / name).write_bytes(name.encode() * 3)
    return root


def test_sha256sum_accepts_it(folder, tmp_path):
    done = write_hashes(folder, tmp_path / "m.sha256")
    assert (done.files, done.reused) == (5, 0)
    assert done.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert done.sha256 == hashlib.sha256((tmp_path / "m.sha256").read_bytes()).hexdigest()
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("sha256sum is not on this machine")
    check = subprocess.run([program, "-c", "--strict", tmp_path / "m.sha256"], cwd=folder, capture_output=True)
    assert check.returncode == 0, check.stderr


def test_the_manifest_does_not_hash_itself_and_repeats(folder):
    one = write_hashes(folder, folder / "m")
    (folder / "m").unlink()
    assert write_hashes(folder, folder / "m") == one
    assert sorted(p.name for p in folder.iterdir()) == ["b.txt", "back\\slash", "m", "new\nline", "sub"]


def test_an_interrupted_run_goes_on_and_rehashes_what_changed(folder, tmp_path):
    target = tmp_path / "m"
    expected = write_hashes(folder, tmp_path / "whole").sha256

    def stop(done, _total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_hashes(folder, target, on_progress=stop)
    assert not target.exists()
    with (tmp_path / ".m.partial").open("a") as journal:
        journal.write('["half a li')
    done = write_hashes(folder, target)
    assert (done.reused, done.sha256) == (3, expected)
    assert not (tmp_path / ".m.partial").exists()
    target.unlink()
    with pytest.raises(KeyboardInterrupt):
        write_hashes(folder, target, on_progress=stop)
    (folder / "b.txt").write_bytes(b"other")
    os.utime(folder / "b.txt", ns=(1, 1))
    assert write_hashes(folder, target).reused == 2
    assert hashlib.sha256(b"other").hexdigest() in target.read_text()


@pytest.mark.parametrize("case", ["missing", "file", "empty", "exists"])
def test_bad_folders(folder, tmp_path, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").write_text("mine")
    source = {"missing": tmp_path / "no", "file": folder / "b.txt", "empty": tmp_path / "empty", "exists": folder}[case]
    with pytest.raises(EndoluxError) as caught:
        write_hashes(source, tmp_path / ("taken" if case == "exists" else "m"))
    expected = {
        "missing": "input.missing",
        "file": "input.not-a-folder",
        "empty": "data.empty",
        "exists": "output.exists",
    }
    assert caught.value.error_id == expected[case]
    assert (tmp_path / "taken").read_text() == "mine"


def test_unreadable_file_is_named(folder, tmp_path, monkeypatch):
    def refuse(path, _known):
        raise hashes.input_error(PermissionError(13, "no"), path)

    monkeypatch.setattr(hashes, "_hash", refuse)
    with pytest.raises(EndoluxError, match=r"b\.txt"):
        write_hashes(folder, tmp_path / "m")
