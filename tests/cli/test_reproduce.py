"""``endolux reproduce`` as a child process."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
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
        (["leve", "--real-data", "x"], "reproduce.real-data", "Leave"),
        (["litenet", "--rows", "trinty"], "reproduce.row", "'trinity'"),
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
    done = endolux("reproduce", "litenet", "--real-data", "nowhere")
    assert done.code == 3
    done.assert_three_lines("reproduce.real-data")
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


def write_simcol(folder: Path) -> None:
    """SimCol3D's two files a frame, 16 bits as published."""
    folder.mkdir(parents=True)
    depth_mm = np.tile(np.linspace(20, 180, 64), (64, 1))
    for index in range(2):
        colour = np.full((64, 64, 4), 30000, np.uint16)
        cv2.imwrite(str(folder / f"FrameBuffer_{index:04d}.png"), colour)
        cv2.imwrite(str(folder / f"Depth_{index:04d}.png"), np.rint(depth_mm / 200.0 * 65535).astype(np.uint16))


def test_litenet_at_toy_size_with_real_frames(endolux, tmp_path: Path):
    pytest.importorskip("embreex", reason="needs the extra 'phantom'")
    write_simcol(tmp_path / "real/simcol3d_10frames")
    arguments = (
        "reproduce",
        "litenet",
        "--scale",
        "smoke",
        "-o",
        "out",
        "--real-data",
        "real",
        "--rows",
        "trinity+sda",
    )
    done = endolux(*arguments, "--json", timeout=600)
    assert done.code == 0, done.err
    document_ = done.document
    runs = {run["row"]: run for run in document_["runs"]}
    assert set(runs) == {"teacher", "start", "trinity+sda"}
    assert [runs[row]["once"] for row in ("teacher", "start", "trinity+sda")] == [True, True, False]
    scores = runs["trinity+sda"]["scores"]
    assert set(scores) == {"scenes", "anatomy", "clips", "simcol3d"}
    assert {"abs_rel", "boundary_f1", "edge_error", "leak_slope", "rho_5"} <= set(scores["scenes"]["metrics"])
    assert len(scores["scenes"]["scenes"]["abs_rel"]) == 2
    assert set(scores["clips"]["metrics"]) == {"flicker", "temporal_error"}
    assert scores["simcol3d"]["entries"] == 2
    # The teacher was asked by the run that learns from it, and by nobody else.
    assert list((tmp_path / "out/teacher").iterdir())
    titles = [table["title"] for table in document_["tables"]]
    assert "Zero-shot: SimCol3D" in titles
    assert not any("EndoSLAM" in title for title in titles)
    tables_ = (tmp_path / "out" / "tables.md").read_text()
    assert "c3vd-c3v4" in tables_.split("## Not measured")[1]
