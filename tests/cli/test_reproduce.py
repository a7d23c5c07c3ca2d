"""``endolux reproduce`` as a child process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")


@pytest.mark.parametrize(
    ("arguments", "error_id", "said"),
    [
        (["levee"], "reproduce.system", "'leve'"),
        (["leve", "--scale", "dsk"], "reproduce.scale", "'desk'"),
        (["leve", "--scale", "full"], "reproduce.data", "--data"),
        (["leve", "--data", "x"], "reproduce.data", "Leave it out"),
        (["leve", "--seeds", "0,x"], "reproduce.seeds", "0,1,2"),
        (["leve", "--seeds", "1,1"], "reproduce.seeds", "0,1,2"),
        (["leve", "--rows", "ts25"], "reproduce.row", "'ts-25'"),
        (["leve", "--minutes", "0"], "usage.arguments", "--help"),
        (["leve", "--scal", "desk"], "usage.arguments", "--scale"),
    ],
)
def test_bad_options(endolux, tmp_path: Path, arguments: list[str], error_id: str, said: str):
    done = endolux("reproduce", *arguments)
    assert done.code == 2
    done.assert_three_lines(error_id)
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_bad_data_and_folders(endolux, tmp_path: Path):
    done = endolux("reproduce", "leve", "--scale", "full", "--data", "nowhere")
    assert done.code == 3
    done.assert_three_lines("input.missing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    done = endolux("reproduce", "leve", "--scale", "smoke", "-o", "mine")
    assert done.code == 2
    done.assert_three_lines("output.foreign")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_smoke_prints_tables_and_goes_on(endolux, tmp_path: Path):
    pytest.importorskip("embreex", reason="needs the extra 'phantom'")
    arguments = ("reproduce", "leve", "--scale", "smoke", "--seeds", "0", "-o", "out", "--rows")
    done = endolux(*arguments, "3x3", timeout=300)
    assert done.code == 0, done.err
    assert "| 3x3 " in done.out
    assert "0.143" in done.out
    assert "3x3-seed0 finished" in done.err
    assert (tmp_path / "out" / "tables.md").read_text().rstrip("\n") == done.out.rstrip("\n")
    done = endolux(*arguments, "3x3,ts-25", "--json", timeout=300)
    assert done.code == 0, done.err
    assert "1 of 2 runs were finished before" in done.err
    assert "3x3-seed0 begun" not in done.err
    document = done.document
    assert document["ok"] is True
    assert [(run["row"], run["seed"]) for run in document["runs"]] == [("3x3", 0), ("ts-25", 0)]
    assert document["provenance"]["versions"]["torch"]
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored == {name: value for name, value in document.items() if name not in ("ok", "output")}
