"""One row teaches the others: order of the runs, what waits for what, and what a failure or a budget does then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import TAUGHT, Clock, FakeRuns, taught_data, taught_grid
from pydantic import ValidationError

from endolux.reproduce.grid import Grid, choose_rows, load_grid
from endolux.reproduce.job import Job
from endolux.reproduce.output_folder import read_job, write_job
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.results import read_failure
from endolux.reproduce.schedule import Outcome, run_jobs
from endolux.train.recipe import load_recipe

TAUGHT_ROWS = ("pupil", "friend")


def plan(tmp_path: Path, *, seeds: tuple[int, ...] = (0, 1), teacher: str = "", rows=None, output=None, **named):
    grid = taught_grid()
    rows = rows if rows is not None else grid.rows_of("desk")
    output = output or tmp_path / "out"
    return plan_jobs(
        rows, grid.scale("desk"), seeds=seeds, data=taught_data(tmp_path), output=output, teacher=teacher, **named
    )


def schedule(jobs: tuple[Job, ...], runs: FakeRuns, **named) -> Outcome:
    return run_jobs(jobs, start=runs, clock=runs.clock, sleep=runs.clock.sleep, **named)


def test_there_is_one_teacher_for_all_seeds_and_it_comes_first(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(3, 4))
    names = [job.name for job in jobs]
    assert names == ["master-seed0", *(f"{row}-seed{seed}" for seed in (3, 4) for row in ("labels", *TAUGHT_ROWS))]
    assert [job.once for job in jobs] == [True] + [False] * 6
    for job in jobs:
        assert job.needs == (("master-seed0",) if job.row in TAUGHT_ROWS else ())
    # The first one fills the cache of the teacher's answers; the others wait for it.
    assert [job.after for job in jobs if job.needs] == [(), *[("pupil-seed3",)] * 3]
    assert [read_job(write_job(job)) for job in jobs] == list(jobs)


def test_recipes_name_the_teachers_run_and_their_own_data(tmp_path: Path):
    recipes = {job.name: load_recipe(job.recipe, job.overrides) for job in plan(tmp_path, seeds=(0,))}
    pupil, master = recipes["pupil-seed0"], recipes["master-seed0"]
    assert pupil.teacher is not None
    assert pupil.teacher.model == str(tmp_path / "out/runs/master-seed0/run")
    assert pupil.teacher.cache == tmp_path / "out/teacher"
    assert pupil.distillation is not None
    assert pupil.distillation.semantic.weight == 0
    assert recipes["friend-seed0"].distillation.semantic.weight > 0  # type: ignore[union-attr]
    assert recipes["labels-seed0"].teacher is None
    assert (master.steps, pupil.steps) == (9, 4)
    assert master.data.sources == (str(tmp_path / "books"),)
    assert pupil.data.sources == (str(tmp_path / "train"),)


def test_what_is_taught_is_known_by_its_teacher_wherever_it_lies(tmp_path: Path):
    keys = {job.name: job.key for job in plan(tmp_path)}
    assert {job.name: job.key for job in plan(tmp_path, output=tmp_path / "elsewhere")} == keys
    changed = {job.name: job.key for job in plan(tmp_path, changes=("optimiser.lr=1e-2",))}
    assert not set(changed.values()) & set(keys.values())
    # Another teacher, and nothing else: the students of it are other students.
    grid = json.loads(json.dumps(TAUGHT))
    grid["scales"]["desk"]["row_overrides"]["master"] = ["steps=10"]
    other = Grid.model_validate(grid)
    jobs = plan_jobs(
        other.rows_of("desk"),
        other.scale("desk"),
        seeds=(0, 1),
        data=taught_data(tmp_path),
        output=tmp_path / "out",
        teacher="",
    )
    moved = {job.row for job in jobs if job.key != keys[job.name]}
    assert moved == {"master", *TAUGHT_ROWS}


def test_a_teacher_from_outside_needs_no_run(tmp_path: Path):
    rows = tuple(row for row in taught_grid().rows_of("desk") if not row.teacher)
    jobs = plan(tmp_path, seeds=(0,), teacher="repdepth-colon", rows=rows)
    assert [job.row for job in jobs] == ["labels", *TAUGHT_ROWS]
    assert not any(job.needs for job in jobs)
    recipe = load_recipe(jobs[1].recipe, jobs[1].overrides)
    assert recipe.teacher is not None
    assert recipe.teacher.model == "repdepth-colon"


def test_who_teaches_comes_along_with_who_is_taught():
    grid = taught_grid()
    assert [row.name for row in choose_rows(grid, "desk", ["pupil"])] == ["master", "pupil"]
    assert [row.name for row in choose_rows(grid, "desk", ["labels"])] == ["labels"]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_students_wait_for_their_teacher_and_the_others_do_not(tmp_path: Path, slots: int):
    jobs = plan(tmp_path)
    ended: dict[str, float] = {}
    begun: dict[str, float] = {}
    runs = FakeRuns(Clock(), seconds={"master": 20.0})

    class Watched:
        def __init__(self, job: Job) -> None:
            begun[job.name] = runs.clock()
            self.run, self.job = FakeRuns.__call__(runs, job), job

        def poll(self) -> int | None:
            code = self.run.poll()
            if code is not None:
                ended[self.job.name] = runs.clock()
            return code

        def stop(self) -> None:
            self.run.stop()

    outcome = run_jobs(jobs, slots=slots, start=Watched, clock=runs.clock, sleep=runs.clock.sleep)
    assert len(outcome.done) == 7
    assert runs.most <= slots
    for job in jobs:
        for needed in (*job.needs, *job.after):
            assert begun[job.name] >= ended[needed]
    if slots > 1:
        assert max(begun["labels-seed0"], begun["labels-seed1"]) < ended["master-seed0"]


def test_without_a_teacher_there_are_no_students(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(0,))
    outcome = schedule(jobs, FakeRuns(Clock(), failing=("master-seed0",)), slots=2)
    assert [job.name for job in outcome.done] == ["labels-seed0"]
    assert {job.name for job in outcome.failed} == {"master-seed0", "pupil-seed0", "friend-seed0"}
    failure = read_failure(jobs[2])
    assert failure is not None
    assert failure.error_id == "reproduce.needed"
    assert "'master-seed0'" in failure.what
    # The next call tries the teacher again, and its students then.
    again = FakeRuns(Clock())
    assert not schedule(jobs, again, slots=2).failed
    assert again.begun == ["master-seed0", "pupil-seed0", "friend-seed0"]


def test_a_failed_student_holds_nobody_up(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(0,))
    outcome = schedule(jobs, FakeRuns(Clock(), failing=("pupil-seed0",)))
    assert [job.name for job in outcome.failed] == ["pupil-seed0"]
    assert [job.name for job in outcome.done] == ["master-seed0", "labels-seed0", "friend-seed0"]


def test_a_teacher_outside_the_budget_leaves_its_students_out(tmp_path: Path):
    jobs = plan(tmp_path, seeds=(0,))
    write = FakeRuns(Clock(), seconds={"labels": 30.0})
    schedule(jobs[1:2], write)
    outcome = schedule(jobs, FakeRuns(Clock()), seconds=25, weights={"master": 2.0})
    assert not outcome.failed
    assert [job.name for job in outcome.left] == ["master-seed0", "pupil-seed0", "friend-seed0"]
    assert read_failure(jobs[2]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [{**row, "teacher": True} for row in TAUGHT["rows"]]},
        {"rows": TAUGHT["rows"][1:]},
        {"rows": [*TAUGHT["rows"][:3], {**TAUGHT["rows"][3], "data": "nowhere"}]},
        {"claims": [{**TAUGHT["claims"][0], "toward": ""}]},
        {"claims": [{**TAUGHT["claims"][0], "toward": "ghost"}]},
        {"claims": [{**TAUGHT["claims"][1], "toward": "master"}]},
        {"metrics": ["nonsense"]},
        {"tables": [{**TAUGHT["tables"][0], "metrics": ["nonsense"]}]},
    ],
)
def test_a_school_that_contradicts_itself_is_refused(change: dict):
    with pytest.raises(ValidationError):
        Grid.model_validate({**TAUGHT, **change})


def test_the_grid_of_litenet_is_that_of_the_specification():
    grid = load_grid("litenet")
    assert grid.teacher is not None
    names = {row.name for row in grid.rows if row.taught}
    assert {"spat", "spat+grad", "spat+spec", "trinity", "trinity+sda", "trinity+cwd", "trinity+image"} < names
    assert {"affine", "amplitude"} < names
    for scale_name in grid.scales:
        scale = grid.scale(scale_name)
        assert scale.phantom is not None
        seeds = [frames.seed for frames in scale.phantom.training_sets.values()]
        seeds += [frames.seed for frames in (*scale.phantom.sets.values(), *scale.phantom.clips.values())]
        assert len(set(seeds)) == len(seeds)
        held_out = set(scale.phantom.sets["anatomy"].anatomies)
        assert not held_out & {name for f in scale.phantom.training_sets.values() for name in f.anatomies}
        assert scale.phantom.width % 32 == scale.phantom.height % 32 == 0
        for claim in grid.claims:
            assert claim.role in scale.roles or grid.roles[claim.role].real


@pytest.mark.parametrize("scale", ["desk", "smoke", "full"])
def test_recipes_of_litenet_differ_in_what_the_row_says(scale: str):
    from endolux.models import create

    grid = load_grid("litenet")
    size = grid.scale(scale)
    recipes = {}
    for row in grid.rows_of(scale):
        taught = ["teacher.model=x", *size.distillation_overrides] if row.learns else []
        overrides = [*size.overrides, *taught, *row.overrides, *size.row_overrides.get(row.name, ())]
        recipes[row.name] = load_recipe(row.recipe, overrides)
        assert recipes[row.name].model.name == row.architecture
        assert (recipes[row.name].task == "trinity") == row.learns
    trinity = {name: recipe.distillation for name, recipe in recipes.items() if recipe.task == "trinity"}
    parts = {name: d.trinity for name, d in trinity.items() if d is not None}
    assert (parts["spat"].gradient, parts["spat"].spectral) == (0, 0)
    assert (parts["spat+grad"].gradient > 0, parts["spat+grad"].spectral) == (True, 0)
    assert (parts["spat+spec"].gradient, parts["spat+spec"].spectral > 0) == (0, True)
    assert (parts["affine"].mode, parts["amplitude"].spectral_form) == ("affine", "amplitude")
    kinds = {name: d.semantic.kind for name, d in trinity.items() if d is not None and d.semantic.weight > 0}
    assert kinds == {
        "trinity+sda": "prototypes",
        "trinity+cwd": "cwd",
        "trinity+image": "image",
        "all": "prototypes",
        "affine": "prototypes",
    }
    assert {name: d.base for name, d in trinity.items() if d is not None and d.base != "none"} == {
        "all": "labels",
        "affine": "labels",
    }
    first = recipes["teacher"].model.name
    second = recipes["labels"].model.name
    sizes = [sum(p.numel() for p in create(name).parameters()) for name in (first, second)]
    assert sizes[0] > 2 * sizes[1]
