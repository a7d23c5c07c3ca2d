"""Rows that start from another row, rows that are not trained, and sets of other families of shapes."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import TAUGHT, Clock, FakeRuns, taught_data
from pydantic import ValidationError
from test_whole import write_pairs

from endolux.errors import InputError
from endolux.reproduce.clips import clip_settings
from endolux.reproduce.data import _settings
from endolux.reproduce.grid import Clips, Frames, Grid, choose_rows, load_grid
from endolux.reproduce.job import Job, ScoredSet
from endolux.reproduce.output_folder import read_job, write_job
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.results import read_failure
from endolux.reproduce.schedule import run_jobs
from endolux.reproduce.untrained import Inverting, TeacherPredictor, inverted, scored_as_it_is
from endolux.reproduce.worker import recipe_sha256, run
from endolux.train.recipe import load_recipe
from endolux.types import DepthKind, Frame

ADAPTED: dict = copy.deepcopy(TAUGHT)
ADAPTED["rows"] = [
    {"name": "constant", "model": "baseline:constant"},
    {"name": "base", "recipe": "litenet-labels", "architecture": "litenet-t", "prior": True, "data": "books"},
    {"name": "labels", "recipe": "litenet-labels", "architecture": "litenet-t"},
    {"name": "adapted", "recipe": "litenet-labels", "architecture": "litenet-t", "start": "base"},
    {"name": "master", "recipe": "litenet-labels", "architecture": "litenet-l", "teacher": True, "data": "books"},
    {"name": "pupil", "recipe": "litenet", "architecture": "litenet-t", "taught": True, "start": "base"},
]
ADAPTED["tables"] = []


def changed(**rows: dict) -> dict:
    """The grid with keys of some rows changed."""
    return {**ADAPTED, "rows": [{**row, **rows.get(row["name"], {})} for row in ADAPTED["rows"]]}


def plan(tmp_path: Path, *, document: dict = ADAPTED, rows=None, output: Path | None = None, **named):
    grid = Grid.model_validate(document)
    return plan_jobs(
        grid.rows_of("desk") if rows is None else rows,
        grid.scale("desk"),
        data=taught_data(tmp_path),
        output=output or tmp_path / "out",
        **{"seeds": (3, 4), "teacher": "", **named},
    )


def schedule(jobs: tuple[Job, ...], runs: FakeRuns, **named):
    return run_jobs(jobs, start=runs, clock=runs.clock, sleep=runs.clock.sleep, **named)


def test_there_is_one_run_of_a_prior_and_others_start_from_it(tmp_path: Path):
    jobs = {job.name: job for job in plan(tmp_path)}
    assert list(jobs) == [
        *("constant-seed0", "base-seed0", "master-seed0"),
        *(f"{row}-seed{seed}" for seed in (3, 4) for row in ("labels", "adapted", "pupil")),
    ]
    assert [name for name, job in jobs.items() if job.once] == ["constant-seed0", "base-seed0", "master-seed0"]
    needs = {job.row: job.needs for job in jobs.values()}
    assert needs["adapted"] == ("base-seed0",)
    assert needs["pupil"] == ("master-seed0", "base-seed0")
    assert needs["labels"] == needs["base"] == ()
    # Only those who learn wait for the first one that asks the teacher.
    assert [job.name for job in jobs.values() if job.after] == ["pupil-seed4"]
    initial = {row: load_recipe(job.recipe, job.overrides).model.initial for row, job in jobs.items() if not job.model}
    folder = tmp_path / "out/runs/base-seed0/run"
    assert {row for row, path in initial.items() if path == folder} == {
        f"{row}-seed{seed}" for row in ("adapted", "pupil") for seed in (3, 4)
    }
    assert initial["labels-seed3"] is initial["base-seed0"] is None
    assert [read_job(write_job(job)) for job in jobs.values()] == list(jobs.values())


def test_what_starts_is_known_by_what_it_starts_from_wherever_it_lies(tmp_path: Path):
    keys = {job.name: job.key for job in plan(tmp_path)}
    assert {job.name: job.key for job in plan(tmp_path, output=tmp_path / "elsewhere")} == keys
    other = plan(tmp_path, document=changed(base={"overrides": ["steps=7"]}))
    assert {job.row for job in other if job.key != keys[job.name]} == {"base", "adapted", "pupil"}
    without = plan(tmp_path, document=changed(adapted={"start": ""}))
    assert {job.row for job in without if job.key != keys[job.name]} == {"adapted"}


def test_the_hash_of_a_recipe_forgets_where_it_started(tmp_path: Path):
    hashes = [
        {
            j.name: recipe_sha256(load_recipe(j.recipe, j.overrides))
            for j in plan(tmp_path, output=tmp_path / name)
            if j.recipe
        }
        for name in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


def test_what_a_row_rests_on_comes_along():
    grid = Grid.model_validate(ADAPTED)
    names = lambda *wanted: [row.name for row in choose_rows(grid, "desk", wanted)]  # noqa: E731
    assert names("adapted") == ["base", "adapted"]
    assert names("labels") == ["labels"]
    assert names("pupil") == ["base", "master", "pupil"]
    taught = Grid.model_validate(changed(master={"start": "base"}, pupil={"start": ""}))
    assert [row.name for row in choose_rows(taught, "desk", ["pupil"])] == ["base", "master", "pupil"]


def test_nothing_starts_from_a_run_that_failed(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(0,))
    outcome = schedule(jobs, FakeRuns(Clock(), failing=("base-seed0",)))
    assert {job.name for job in outcome.done} == {"constant-seed0", "master-seed0", "labels-seed0"}
    failure = read_failure(next(job for job in jobs if job.row == "adapted"))
    assert failure is not None
    assert (failure.error_id, "'base-seed0'" in failure.what) == ("reproduce.needed", True)


def test_rows_that_are_not_trained_say_nothing_of_how_long_training_takes(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(0,))
    runs = FakeRuns(Clock(), seconds={"constant": 50.0, "base": 5.0})
    outcome = schedule([job for job in jobs if job.row in ("constant", "base")], runs, seconds=60)
    assert [job.row for job in outcome.done] == ["constant", "base"]


@pytest.mark.parametrize(
    "rows",
    [
        {"adapted": {"start": "labels"}},
        {"adapted": {"start": "nowhere"}},
        {"base": {"start": "base"}},
        {"base": {"scales": ["full"]}},
        {"base": {"taught": True}},
        {"constant": {"recipe": "leve", "architecture": "leve"}},
        {"constant": {"prior": True}},
        {"constant": {"start": "base"}},
        {"labels": {"recipe": ""}},
        {"labels": {"architecture": ""}},
    ],
)
def test_a_grid_whose_rows_rest_on_nothing_is_refused(rows: dict):
    with pytest.raises(ValidationError):
        Grid.model_validate(changed(**rows))


def test_the_split_is_left_out_where_it_is_that_of_training():
    frames = {"anatomies": ["colon"], "frames": 4, "views_per_scene": 2, "seed": 1}
    clips = {"anatomies": ["colon"], "clips": 1, "frames_per_clip": 3, "seed": 1}
    assert "split" not in Frames.model_validate(frames).model_dump(mode="json")
    assert Clips.model_validate({**clips, "split": "test"}).model_dump(mode="json")["split"] == "test"
    phantom = load_grid("leve").scale("desk").phantom
    assert phantom is not None
    assert "split" not in json.dumps(phantom.identity())
    usual = {_settings(phantom, f).split for f in phantom.sets.values()}
    assert usual == {"train"}
    assert _settings(phantom, Frames.model_validate({**frames, "split": "test"})).split == "test"
    assert clip_settings(phantom, Clips.model_validate({**clips, "split": "validation"})).split == "validation"
    with pytest.raises(ValidationError):
        Frames.model_validate({**frames, "split": "exam"})


def test_scenes_of_another_split_are_others_with_the_same_seed():
    pytest.importorskip("embreex", reason="needs the extra 'phantom'")
    from endolux.phantom.streams import sequence

    phantom = load_grid("leve").scale("smoke").phantom
    assert phantom is not None
    frames = {"anatomies": ["tube"], "frames": 1, "views_per_scene": 1, "seed": 1}
    first, second = (
        next(iter(sequence(_settings(phantom, Frames.model_validate({**frames, "split": split})), 0)))
        for split in ("train", "test")
    )
    assert not np.array_equal(first.frame.image, second.frame.image)


def scored(tmp_path: Path, model: str) -> Job:
    tests = (ScoredSet(role="home", reader="folder", path=write_pairs(tmp_path / "home"), protocol="phantom-scaled"),)
    (tmp_path / "scored").mkdir()
    return Job(
        row="master",
        seed=0,
        architecture="",
        recipe="",
        overrides=(),
        tests=tests,
        conversion="correct",
        threads=1,
        folder=tmp_path / "scored",
        key="k",
        once=True,
        model=model,
    )


def test_a_baseline_is_scored_without_training(tmp_path: Path):
    from endolux.reproduce.training import train

    result = run(scored(tmp_path, "baseline:constant"), train)
    assert (result.steps, result.images, result.once) == (0, 0, True)
    # A constant, scaled to the median of depths that rise evenly from one side to the other.
    rows = [np.linspace(20 + index, 80, 24).astype(np.uint8).astype(float) for index in range(3)]
    wanted = np.mean([np.mean(np.abs(np.median(row) - row) / row) for row in rows])
    assert result.scores["home"].metrics["abs_rel"] == pytest.approx(wanted, abs=1e-4)
    assert not (tmp_path / "scored/run").exists()


def test_bundles_and_runs_are_scored_alike(tmp_path: Path, tiny_bundle: Path):
    from endolux.reproduce.training import train
    from endolux.train.engine import fit

    bundle = run(scored(tmp_path / "a", str(tiny_bundle)), train)
    assert bundle.scores["home"].metrics["abs_rel"] is not None
    assert not bundle.scores["home"].failed
    pairs = write_pairs(tmp_path / "b/home")
    recipe = load_recipe(
        "leve",
        [f"data.sources=[{pairs}]", "epochs=null", "steps=1", "batch=2", "data.size=[64, 64]", "precision=fp32"],
    )
    fit(None, recipe, None, tmp_path / "trained")
    (tmp_path / "c").mkdir()
    from_run = run(scored(tmp_path / "c", str(tmp_path / "trained")), train)
    assert from_run.scores["home"].metrics["abs_rel"] is not None
    assert not from_run.scores["home"].failed
    assert from_run.recipe_sha256 != bundle.recipe_sha256


def test_a_model_that_does_not_exist_is_named(tmp_path: Path):
    from endolux.errors import EndoluxError

    with pytest.raises(EndoluxError) as problem:
        scored_as_it_is(str(tmp_path / "nobody"))
    assert problem.value.error_id == "teacher.unknown"
    assert not isinstance(problem.value, InputError)


class Disparities:
    """A teacher that gives disparity, unknown at one pixel."""

    name, sha256, kind = "disparities", "s", DepthKind.RELATIVE_DISPARITY

    def predict(self, image: np.ndarray):
        from endolux.models.teachers import TeacherOutput

        values = np.full(image.shape[:2], 0.5, np.float32)
        values[0] = [np.nan, 4.0, 0.0]
        return TeacherOutput(map=values, kind=self.kind)


def test_disparity_is_scored_as_its_inverse():
    frame = Frame(image=np.zeros((2, 3, 3), np.uint8), index=0, name="a")
    raw = TeacherPredictor(Disparities())  # type: ignore[arg-type]
    depth = Inverting(raw).predict("a", frame)
    assert depth.kind is DepthKind.RELATIVE_DEPTH
    assert depth.valid.tolist() == [[False, True, True], [True, True, True]]
    assert depth.values[0, 1] == 0.25
    assert depth.values[1, 0] == 2.0
    # Nothing is farther than a thousand times the nearest.
    assert depth.values[0, 2] == pytest.approx(1e3 / 4.0, rel=0.2)
    found = raw.predict("a", frame)
    assert (found.kind, found.values[0, 1]) == (DepthKind.RELATIVE_DISPARITY, 4.0)
    assert inverted(np.zeros((2, 2), np.float32), np.ones((2, 2), np.bool_)).tolist() == [[1, 1], [1, 1]]
