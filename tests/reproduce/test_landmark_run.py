"""Runs of landmarks from start to score, and what the command refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from endolux.reproduce.grid import load_grid
from endolux.reproduce.job import LANDMARK_PROTOCOL, Data, ScoredSet
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.worker import main, run
from train.landmark_pictures import write_l3d

pytest.importorskip("transformers", reason="needs the extra 'train'")


def test_a_run_trains_and_scores_its_masks(tmp_path: Path) -> None:
    """The smoke scale's network on drawn pictures, started from random encoders."""
    from endolux.reproduce.output_folder import write_job
    from endolux.reproduce.results import RunResult
    from endolux.reproduce.training import train

    grid = load_grid("srft-galore")
    row = next(row for row in grid.rows_of("smoke") if row.name == "srft")
    row = row.model_copy(update={"starts": {}, "data": "train", "overrides": ("segmentation=null",)})
    root = write_l3d(write_l3d(tmp_path / "set", split="Test", patients=1), patients=2)
    test = ScoredSet(role="scenes", reader="l3d", path=root, protocol=LANDMARK_PROTOCOL)
    depth = ScoredSet(role="depth", reader="folder", path=root, protocol="phantom-shape")
    data = Data(
        sources=(f"l3d-train:{root}",), tests=(test, depth), titles={"scenes": "s", "depth": "d"}, sha256="d", facts={}
    )
    (job,) = plan_jobs((row,), grid.scale("smoke"), seeds=(3,), data=data, output=tmp_path / "out", teacher="")
    found = run(job, train) if write_job(job) else None
    assert isinstance(found, RunResult)
    assert (found.steps, found.images, set(found.scores)) == (2, 4, {"scenes"})
    score = found.scores["scenes"]
    assert (score.entries, score.failed, score.counts["ridge"]) == (3, 0, 3)
    assert 0.0 <= (score.metrics["d2gpland_dsc"] or 0.0) <= 1.0
    # A second call trains nothing and gives the same masks.
    assert run(job, train).scores == found.scores


def test_a_run_whose_prior_is_missing_leaves_a_failure(tmp_path: Path) -> None:
    from endolux.reproduce.output_folder import JOB_FILE, write_job
    from endolux.reproduce.results import read_failure

    grid = load_grid("srft-galore")
    rows = [row for row in grid.rows_of("smoke") if row.name in ("prior-image", "srft-plain")]
    root = write_l3d(tmp_path / "set")
    data = Data(
        sources=("nowhere",), tests=(), titles={}, sha256="d", facts={}, more_sources={"liver": (f"l3d-train:{root}",)}
    )
    jobs = plan_jobs(rows, grid.scale("smoke"), seeds=(0,), data=data, output=tmp_path / "out", teacher="")
    job = next(job for job in jobs if job.row == "srft-plain")
    write_job(job)
    assert main([str(job.folder / JOB_FILE)]) != 0
    failure = read_failure(job)
    assert failure is not None
    assert failure.error_id.startswith("teacher.")


@pytest.mark.parametrize(
    ("options", "error_id"),
    [
        (["--weights", "segmentation.image_encoder=a/b"], "reproduce.weights"),
        (["--scale", "full"], "reproduce.data"),
    ],
)
def test_the_command_refuses_in_three_lines(tmp_path: Path, options: list[str], error_id: str) -> None:
    command = [sys.executable, "-m", "endolux", "reproduce", "srft-galore", "-o", str(tmp_path / "out"), *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 2
    assert found.stdout == ""
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert lines[0].startswith(f"error[{error_id}]")
    assert lines[1].strip().startswith("why:")
    assert not (tmp_path / "out").exists()
