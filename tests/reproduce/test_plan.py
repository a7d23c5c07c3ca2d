"""What runs are made of, by which key their results are known, and whose folder it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from fakes import data

from endolux.errors import InputError, UsageError
from endolux.reproduce.grid import Grid, load_grid
from endolux.reproduce.output_folder import claim_output, read_job, write_job
from endolux.reproduce.plan import plan_jobs


def plan(grid: Grid, tmp_path: Path, scale: str = "desk", **named):
    named = {"seeds": (0, 1), "data": data(tmp_path), "output": tmp_path / "out", "teacher": "repdepth-colon", **named}
    return plan_jobs(grid.rows_of(scale), grid.scale(scale), **named)


def test_seeds_are_interleaved(grid: Grid, tmp_path: Path):
    jobs = plan(grid, tmp_path)
    assert [job.name for job in jobs] == [f"{row}-seed{seed}" for seed in (0, 1) for row in ("base", "big", "taught")]
    assert len({job.key for job in jobs}) == len(jobs)


def test_runs_of_a_seed_differ_in_the_row_alone(grid: Grid, tmp_path: Path):
    base, big, taught = plan(grid, tmp_path, seeds=(7,))
    assert base.overrides == big.overrides
    assert set(base.overrides) <= set(taught.overrides)
    added = [change.partition("=")[0] for change in taught.overrides if change not in base.overrides]
    assert added == ["teacher.model", "distillation.response.epsilon", "teacher.cache"]
    assert "seed=7" in base.overrides
    assert "steps=4" in base.overrides


def test_recipes_load_with_the_overrides(grid: Grid, tmp_path: Path):
    from endolux.train.recipe import load_recipe

    for job in plan(grid, tmp_path):
        recipe = load_recipe(job.recipe, job.overrides)
        assert (recipe.steps, recipe.seed, recipe.data.sources) == (4, job.seed, (str(tmp_path / "train"),))
        assert (recipe.teacher is not None) == (job.row == "taught")
    huge = plan(grid, tmp_path, "full", imagenet=tmp_path / "net.pth")[-1]
    recipe = load_recipe(huge.recipe, huge.overrides)
    assert recipe.data.size == (64, 32)
    assert recipe.model.imagenet == tmp_path / "net.pth"
    taught = plan(grid, tmp_path, "full")[2]
    response = load_recipe(taught.recipe, taught.overrides).distillation.response
    assert (response.epsilon, response.maximum) == (0.25, "batch")


def test_each_encoder_has_weights_of_its_own(tmp_path: Path):
    leve = load_grid("leve")
    jobs = plan_jobs(
        leve.rows_of("full"),
        leve.scale("full"),
        seeds=(0,),
        data=data(tmp_path),
        output=tmp_path / "out",
        teacher="repdepth-colon",
        imagenet=tmp_path / "ddrnet.pth",
        imagenet_mobilenetv3=tmp_path / "mobile.pth",
    )
    given = {job.row: [text for text in job.overrides if text.startswith("model.imagenet=")] for job in jobs}
    assert given["mobilenetv3"] == [f'model.imagenet="{tmp_path / "mobile.pth"}"']
    assert all(
        files == [f'model.imagenet="{tmp_path / "ddrnet.pth"}"'] for row, files in given.items() if row != "mobilenetv3"
    )


def test_the_key_moves_with_what_moves_figures_and_with_nothing_else(grid: Grid, tmp_path: Path):
    def keys(**named):
        return [job.key for job in plan(grid, tmp_path, **named)]

    usual = keys()
    assert keys() == usual
    assert keys(output=tmp_path / "elsewhere") == usual
    other = dataclasses.replace(data(tmp_path), sources=("/moved/train",))
    assert keys(data=other) == usual
    assert not set(keys(data=data(tmp_path, sha256="e" * 64))) & set(usual)
    assert not set(keys(changes=("optimiser.lr=1e-2",))) & set(usual)
    moved = keys(teacher="another")
    assert [a == b for a, b in zip(moved, usual, strict=True)] == [True, True, False] * 2


def test_a_job_survives_its_file(grid: Grid, tmp_path: Path):
    for job in plan(grid, tmp_path):
        assert read_job(write_job(job)) == job


def test_a_run_of_another_recipe_is_refused_and_kept(grid: Grid, tmp_path: Path):
    job = plan(grid, tmp_path)[0]
    path = write_job(job)
    before = path.read_bytes()
    write_job(job)
    changed = plan(grid, tmp_path, changes=("steps=9",))[0]
    with pytest.raises(UsageError) as problem:
        write_job(changed)
    assert problem.value.error_id == "output.other-run"
    assert "steps=9" in problem.value.why
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tests": 3}'])
def test_a_damaged_job_is_named(tmp_path: Path, content: str):
    path = tmp_path / "job.json"
    path.write_text(content)
    with pytest.raises(InputError) as problem:
        read_job(path)
    assert problem.value.error_id == "reproduce.damaged"


def test_the_output_folder_is_claimed_once(tmp_path: Path):
    output = tmp_path / "out"
    claim_output(output, {"system": "toy", "scale": "desk"})
    claim_output(output, {"system": "toy", "scale": "desk"})
    before = (output / "plan.json").read_bytes()
    with pytest.raises(UsageError) as problem:
        claim_output(output, {"system": "toy", "scale": "full"})
    assert problem.value.error_id == "output.other-run"
    assert "'desk'" in problem.value.what
    assert (output / "plan.json").read_bytes() == before


def test_foreign_folders_are_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError) as problem:
        claim_output(tmp_path, {"system": "toy"})
    assert problem.value.error_id == "output.foreign"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError) as problem:
        claim_output(tmp_path / "thesis.txt", {"system": "toy"})
    assert problem.value.error_id == "output.is-file"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "plan.json").write_text("{")
    with pytest.raises(InputError):
        claim_output(tmp_path / "broken", {"system": "toy"})


def test_the_job_file_is_plain_json(grid: Grid, tmp_path: Path):
    document = json.loads(write_job(plan(grid, tmp_path)[2]).read_text())
    assert document["row"] == "taught"
    wanted = {"role": "home", "reader": "folder", "path": str(tmp_path / "home"), "protocol": "phantom"}
    assert document["tests"][0] == {**wanted, "shape": False, "scene_frames": 0, "sequence": ""}


def test_rendered_pictures_are_trained_on_at_their_own_size(tmp_path: Path):
    from endolux.reproduce.grid import load_grid
    from endolux.train.recipe import load_recipe

    leve = load_grid("leve")
    for scale in ("desk", "smoke"):
        phantom = leve.scale(scale).phantom
        assert phantom is not None
        for job in plan(leve, tmp_path, scale, seeds=(0,)):
            assert load_recipe(job.recipe, job.overrides).data.size == (phantom.width, phantom.height)
    sizes = {
        job.row: load_recipe(job.recipe, job.overrides).data.size for job in plan(leve, tmp_path, "full", seeds=(0,))
    }
    assert sizes["3x3+3x3"] == (320, 240)
    assert sizes["main-480x640"] == (640, 480)
