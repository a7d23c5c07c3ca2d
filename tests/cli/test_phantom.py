"""``endolux phantom`` as people type it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import pytest

pytest.importorskip("numba")

from endolux.cli.root import run
from endolux.phantom.layouts import names
from endolux.phantom.presets import PRESETS
from endolux.phantom.scene import ANATOMIES

from .cli_inputs import Done, command

SMALL = ("--width", "48", "--height", "40")


def child(*arguments: str | Path) -> Done:
    done = subprocess.run(command("phantom", *arguments), capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def here(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    code = run(["phantom", *map(str, arguments)])
    text = capsys.readouterr()
    return Done(code, text.out, text.err)


def test_a_layout_goes_from_the_shell_to_its_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    few = ("tube", "-n", "3", "--layout", "scared", "--sequence-frames", "2", *SMALL)
    good = child(*few, "-o", out, "--json")
    assert good.code == 0, good.err
    answer = good.document
    assert (answer["frames"], answer["written"], answer["layout"]) == (3, 3, "scared")
    assert answer["settings"]["baseline_mm"] == 4.2
    assert run(["data", "check", str(out), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["dataset"], checked["frames"]) == ("scared", 5)
    assert not [f for f in checked["findings"] if f["severity"] != "info" and not f["code"].startswith("count.")]
    again = here(capsys, *few, "-o", out)
    assert "3 of them kept" in again.out


def test_folder_shards_and_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("tube", "--views-per-scene", "2", "--preset", "clean", *SMALL)
    assert here(capsys, *few, "-n", "2", "-o", tmp_path / "a", "--depth-format", "png", "--outputs", "labels").code == 0
    assert cv2.imread(str(tmp_path / "a" / "depth" / "000000.png"), -1).dtype == "uint16"
    assert not (tmp_path / "a" / "normals").exists()
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["codes_per_mm"] == 100
    assert here(capsys, *few, "-n", "4", "-o", tmp_path / "b", "--shards").code == 0
    assert (tmp_path / "b" / "shard-0000000" / "meta.json").is_file()
    assert here(capsys, *few, "-n", "3", "-o", tmp_path / "c.mp4", "--clip").code == 0
    assert (tmp_path / "c.mp4").stat().st_size > 500
    moving = here(capsys, *few, "-n", "2", "-o", tmp_path / "d", "--motion", "hover", "--set", "fps=10")
    assert moving.code == 0
    assert (tmp_path / "d" / "flow" / "000000.png").is_file()
    record = json.loads((tmp_path / "d" / "poses" / "000001.json").read_text())
    assert record["pts_s"] == pytest.approx(0.1)
    stereo = here(capsys, *few, "-n", "1", "-o", tmp_path / "e", "--baseline", "3", "--field-of-view", "60")
    assert stereo.code == 0
    assert (tmp_path / "e" / "right" / "images" / "000000.png").is_file()


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    listed = here(capsys, "--list", "--json").document
    assert set(listed["anatomies"]) == set(ANATOMIES)
    assert set(listed["presets"]) == set(PRESETS)
    assert set(listed["layouts"]) == set(names()) >= {"scared", "c3vd", "servct", "hamlyn", "l3d"}
    plain = here(capsys, "--list").out
    assert all(name in plain for name in (*ANATOMIES, *PRESETS, *names()))


@pytest.mark.parametrize(
    ("arguments", "error_id", "says"),
    [
        (("kolon",), "phantom.anatomy", "'colon'"),
        (("colon,kidney",), "phantom.anatomy", "kidney"),
        (("colon", "--preset", "skared-like"), "phantom.preset", "'scared-like'"),
        (("colon", "--layout", "scard"), "phantom.layout", "'scared'"),
        (("colon", "--outputs", "label"), "phantom.output", "'labels'"),
        (("colon", "--set", "wdth=3"), "phantom.setting", "'width'"),
        (("colon", "--set", "scope.look.gama=2"), "phantom.settings", "'gamma'"),
        (("colon", "--set", "width"), "phantom.set", "'width'"),
        (("colon", "--field-of-view", "0"), "phantom.settings", "field of view of 0"),
        (("colon", "--field-of-view", "200"), "phantom.settings", "200"),
        (("colon", "--baseline", "-4"), "phantom.settings", "-4.0"),
        (("colon", "--baseline", "0"), "phantom.settings", "0"),
        (("colon", "--width", "0"), "phantom.settings", "width"),
        (("colon", "-n", "0"), "phantom.settings", "frames"),
        (("colon", "--fps", "nan", "--motion", "pan"), "phantom.settings", "fps"),
        (("colon", "--motion", "fly"), "phantom.settings", "'fly'"),
        (("colon", "--split", "valid"), "phantom.settings", "'valid'"),
        (("colon", "-j", "-1"), "phantom.jobs", "-1"),
        (("colon", "--layout", "scared", "--width", "40", "--height", "80"), "phantom.layout-settings", "40x80"),
        (("colon", "--layout", "c3vd", "--preset", "clean"), "phantom.layout-settings", "camera"),
        (("colon", "--layout", "c3vd", "--field-of-view", "90"), "phantom.fixed-camera", "90"),
        (("sinus", "--layout", "endoslam-unity"), "phantom.layout-settings", "sinus"),
        (("colon", "--layout", "c3vd", "--shards"), "usage.arguments", "--shards"),
        (("colon", "--clip", "--width", "33", "-n", "2"), "phantom.clip-size", "33"),
    ],
)
def test_bad_input_is_said_in_three_lines_and_nothing_is_made(
    arguments: tuple[str, ...], error_id: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = here(capsys, *arguments, "-o", tmp_path / "x")
    assert done.code == 2
    done.assert_three_lines(error_id)
    assert says in done.err
    assert list(tmp_path.iterdir()) == []


def test_no_output_and_places_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here(capsys, "colon").assert_three_lines("usage.arguments")
    (tmp_path / "file").write_text("mine")
    taken = here(capsys, "colon", "-o", tmp_path / "file")
    assert taken.code == 2
    taken.assert_three_lines("output.is-file")
    below = child("colon", "-n", "1", "-o", tmp_path / "file" / "below")
    assert below.code == 3
    below.assert_three_lines("input.os")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    foreign = here(capsys, "colon", "-o", tmp_path / "full")
    assert foreign.code == 2
    foreign.assert_three_lines("output.foreign")
    small = ("tube", "-n", "1", "--views-per-scene", "1", *SMALL)
    assert here(capsys, *small, "-o", tmp_path / "run").code == 0
    other = here(capsys, *small, "--seed", "4", "-o", tmp_path / "run")
    assert other.code == 2
    other.assert_three_lines("output.other-run")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
