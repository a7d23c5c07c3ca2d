"""The shell around the verbs: help, usage errors, bugs, models, doctor, demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from endolux import __version__
from endolux.cli import render, root
from endolux.cli.demo import free_folder
from endolux.errors import UsageError


def test_help_lists_the_verbs_and_exit_codes(endolux):
    done = endolux("--help")
    assert done.code == 0
    for word in ("predict", "models", "doctor", "demo", "130 interrupted"):
        assert word in done.out


def test_version(endolux):
    done = endolux("--version")
    assert (done.code, done.out.strip()) == (0, f"endolux {__version__}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("predict", "a.png", "-o", "out", "--modle", "x"), "--model"),
        (("predcit", "a.png"), "predict"),
        (("predict", "a.png"), "--output"),
        (("predict", "a.png", "-o", "out", "--format", "gif"), "gif"),
        (("predict", "a.png", "-o", "out", "--limit", "0"), "limit"),
        (("predict", "a.png", "-o", "out", "--limit", "many"), "many"),
        (("predict", "a.png", "-o", "out", "--threads", "-3"), "threads"),
        (("models", "show"), "name"),
    ],
)
def test_usage_errors_are_three_lines_and_exit_2(arguments, says, capsys):
    assert root.run(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 3, captured.err
    assert lines[0].startswith("error[usage.arguments]")
    assert says.lower() in captured.err.lower()
    assert captured.out == ""


def test_usage_error_as_json(capsys):
    assert root.run(["predict", "a.png", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["id"] == "usage.arguments"


def test_a_bug_says_that_it_is_ours(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(root, "build", broken)
    monkeypatch.delenv("ENDOLUX_DEBUG", raising=False)
    assert root.run(["doctor"]) == 1
    err = capsys.readouterr().err
    assert "error[bug.unexpected]: ZeroDivisionError: surprise" in err
    assert __version__ in err
    assert "Traceback" not in err
    monkeypatch.setenv("ENDOLUX_DEBUG", "1")
    assert root.run(["doctor"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(MemoryError(), 8), (KeyboardInterrupt(), 130), (BrokenPipeError(), 0)])
def test_other_ends(monkeypatch, error, code):
    def broken():
        raise error

    monkeypatch.setattr(root, "build", broken)
    if isinstance(error, BrokenPipeError):
        monkeypatch.setattr(root.os, "dup2", lambda *_: None)
    assert root.run(["doctor"]) == code


def test_line_breaks_do_not_add_lines(capsys):
    render.error(UsageError("a\nb", why="c\nd", fix="e", error_id="x.y"), as_json=False)
    assert capsys.readouterr().err.splitlines() == ["error[x.y]: a b", "  why: c d", "  fix: e"]


def test_models(endolux, tiny_bundle: Path):
    done = endolux("models", "ls", "--json")
    assert done.code == 0, done.err
    assert isinstance(done.document, list)
    done = endolux("models", "show", tiny_bundle)
    assert done.code == 0
    assert "metric (mm)" in done.out
    assert "It knows nothing." in done.out
    assert endolux("models", "show", tiny_bundle, "--json").document["name"] == "tiny"
    done = endolux("models", "verify", tiny_bundle, "--json")
    assert done.code == 0
    assert done.document["ok"] is True
    assert done.document["files"] == {"model.onnx": "ok"}
    assert endolux("models", "show", "no-such").code == 4


def test_doctor(endolux, tiny_bundle: Path):
    done = endolux("doctor", "--model", tiny_bundle, "--json")
    checks = {check["name"]: check for check in done.document["checks"]}
    assert done.code == (0 if done.document["ok"] else 6)
    assert checks["python"]["state"] == "ok"
    assert checks["core packages"]["state"] == "ok"
    assert any(name.startswith("speed tiny") and " ms " in check["finding"] for name, check in checks.items())
    assert {"extra openvino", "extra train", "extra phantom", "disk", "processor"} <= set(checks)


def test_doctor_finds_a_broken_model(endolux, tmp_path: Path):
    done = endolux("doctor", "--model", tmp_path)
    assert done.code == 6
    assert "broken" in done.out


def test_demo_runs_on_the_clip_in_the_package(endolux, tiny_bundle: Path, tmp_path: Path):
    done = endolux("demo", "-o", "out", "--model", tiny_bundle, "--json", "-q")
    assert done.code == 0, done.err
    assert done.document["frames"] > 25
    assert (tmp_path / "out" / "vis.mp4").stat().st_size > 10_000
    assert (tmp_path / "out" / "depth.mkv").stat().st_size > 10_000


def test_demo_takes_a_free_folder(tmp_path: Path):
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_plain_progress_is_rare_and_quiet_is_quiet(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(render.time, "monotonic", lambda: clock[0])
    line = render.ProgressLine()
    for second in range(21):
        clock[0] = second
        line.update(second, total=100, failed=1)
    line.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "20 of 100 frames, 1.0/s, 1 min 20 s left, 1 failed"
    quiet = render.ProgressLine(quiet=True)
    clock[0] = 99
    quiet.update(5, total=None)
    assert capsys.readouterr().err == ""
