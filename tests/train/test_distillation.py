"""Distillation as a training: what the student receives, what is refused, and the command from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pupils import Brightness
from runs import SMALL
from shards import write_shard

from endolux.errors import UsageError
from endolux.losses import response_loss, student_loss
from endolux.losses.distillation import shift_teacher, total
from endolux.models import create
from endolux.models.ratio import to_ratio
from endolux.train.engine import fit
from endolux.train.recipe import Recipe, load_recipe
from endolux.train.recipe import Teacher as TeacherSection
from endolux.train.task import Batch, Start
from endolux.train.tasks.distillation import DistillationTask
from endolux.types import DepthKind

STUDENT = ["model.name=leve-mobilenetv3", "data.size=96x64", "batch=4", "precision=fp32", "device=cpu", "threads=1"]
FAST = ["model.name=repdepth", f"model.config={SMALL}", "loss={kind: log-depth}", "epochs=2"]
PAIRS = "distillation.feature.pairs=[{student: encoder, teacher: colours}]"


def recipe(*changes: str) -> Recipe:
    return load_recipe("leve-distilled", ["teacher.model=brightness", "log_every=1", *STUDENT, *changes])


def task(*changes: str, teacher: Brightness | None = None) -> DistillationTask:
    chosen = recipe(*changes)
    torch.manual_seed(0)
    assert chosen.teacher is not None
    assert chosen.distillation is not None
    return DistillationTask(
        create(chosen.model.name, **chosen.model.config),
        teacher or Brightness(),
        loss=chosen.loss,
        distillation=chosen.distillation,
        source=chosen.teacher,
    )


def tensors(made: DistillationTask, seed: int = 0, **extras: np.ndarray) -> dict[str, torch.Tensor]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 255, (2, 64, 96, 3)).astype(np.uint8)
    depths = generator.uniform(5, 150, (2, 64, 96)).astype(np.float32)
    depths[:, :5] = 0
    teacher = generator.uniform(1, 9, (2, 64, 96)).astype(np.float32)
    return made.prepare(Batch(images=images, depths=depths, extras={"teacher": teacher, **extras}), torch.device("cpu"))


def log(run: Path) -> list[dict[str, float]]:
    return [line for text in (run / "log.jsonl").read_text().splitlines() if "total" in (line := json.loads(text))]


@pytest.mark.parametrize("epsilon", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("published", [False, True])
def test_the_total_is_that_of_the_formula(epsilon: float, published: bool) -> None:
    changes = ["loss.mode=reproduce", "loss.mask=false"] if published else []
    if published:
        changes += ["distillation.response.maximum=batch", "distillation.response.shift=add"]
    made = task(f"distillation.response.epsilon={epsilon}", *changes)
    made.networks["network"].eval()
    given = tensors(made)
    with torch.no_grad():
        parts = made.updates()[0].loss(given)
        output = made.networks["network"](given["image"])
    depth, teacher = given["depth"], given["teacher"][:, None]
    target = to_ratio(depth, 200.0)
    if published:
        student = student_loss(output, target, mode="reproduce")["total"]
        response = response_loss(output, teacher + teacher.amin(dim=(1, 2, 3), keepdim=True) + 1e-6, maximum="batch")
    else:
        student = student_loss(output, target, mask=depth > 0)["total"]
        response = response_loss(output, shift_teacher(teacher))
    torch.testing.assert_close(parts["total"], total(student, response, epsilon=epsilon))
    torch.testing.assert_close(parts["response"], response)
    torch.testing.assert_close(parts["student"], student)


def test_a_depth_teacher_keeps_the_zero_of_its_inverse() -> None:
    for kind, shift, expected in (
        (DepthKind.RELATIVE_DISPARITY, "subtract", "subtract"),
        (DepthKind.METRIC, "subtract", "none"),
        (DepthKind.RELATIVE_DEPTH, "subtract", "none"),
        (DepthKind.METRIC, "add", "add"),
    ):
        made = task(f"distillation.response.shift={shift}", teacher=Brightness(kind=kind))
        assert made._shift() == expected


def test_what_the_teacher_does_not_know_changes_nothing() -> None:
    made = task("distillation.relation.weight=1")
    made.networks["network"].eval()
    given = tensors(made)
    given["teacher"][:, :20] = float("nan")
    value = made.updates()[0].loss(given)
    value["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in made.networks["network"].parameters() if p.grad is not None)
    given["teacher"][:] = float("nan")
    silent = made.updates()[0].loss(given)
    assert float(silent["response"]) == float(silent["relation"]) == 0.0
    assert float(value["response"]) > 0.0


def test_a_student_of_log_depth_learns_the_inverse_of_its_depth() -> None:
    made = task(*FAST)
    made.networks["network"].eval()
    given = tensors(made)
    with torch.no_grad():
        parts = made.updates()[0].loss(given)
        depth = made.networks["network"].depth(given["image"])
    expected = response_loss(1 / depth, shift_teacher(given["teacher"][:, None]), floor=0.0)
    torch.testing.assert_close(parts["response"], expected)
    # A teacher that agrees up to a factor leaves nothing to learn.
    given["teacher"] = 7.0 / depth[:, 0]
    made = task(*FAST, teacher=Brightness(kind=DepthKind.METRIC))
    made.networks["network"].eval()
    assert float(made.updates()[0].loss(given)["response"].detach()) < 1e-5


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_features_and_relations_are_one_field_each(kind: str) -> None:
    made = task("distillation.feature.weight=0.5", f"distillation.feature.kind={kind}", PAIRS)
    (update,) = made.updates()
    assert update.networks == ("network", "projector")
    given = tensors(made, **{"feature.colours": np.random.default_rng(1).random((2, 3, 8, 12)).astype(np.float32)})
    parts = update.loss(given)
    parts["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.networks["projector"].parameters())
    expected = 0.75 * parts["student"] + 0.25 * parts["response"] + 0.5 * parts["feature"]
    torch.testing.assert_close(parts["total"].detach(), expected)
    for relation in ("distance", "affinity", "similarity"):
        made = task("distillation.relation.weight=2", f"distillation.relation.kind={relation}")
        parts = made.updates()[0].loss(tensors(made))
        assert set(made.networks) == {"network"}
        torch.testing.assert_close(
            parts["total"].detach(), 0.75 * parts["student"] + 0.25 * parts["response"] + 2 * parts["relation"]
        )


def test_refusals() -> None:
    for changes, words, error_id in (
        (["distillation.feature.weight=1"], "no pairs", "recipe.pairs"),
        (["distillation.feature.weight=1", PAIRS.replace("encoder", "encodr")], "encodr", "model.feature"),
        (["distillation.feature.weight=1", PAIRS.replace("colours", "colour")], "colour", "teacher.feature"),
        (["loss.kind=leve", "model.name=repdepth", "model.config={}"], "leve", "recipe.loss"),
    ):
        with pytest.raises(UsageError) as caught:
            task(*changes)
        assert caught.value.error_id == error_id
        assert words in caught.value.what
    with pytest.raises(UsageError) as caught:
        DistillationTask.from_recipe(recipe("teacher=null"))
    assert caught.value.error_id == "recipe.teacher"
    with pytest.raises(UsageError) as caught:
        DistillationTask.from_recipe(
            recipe("batch=1", "distillation.relation.weight=1", "distillation.relation.kind=similarity")
        )
    assert caught.value.error_id == "recipe.relation"


def start(output: Path, images: list[np.ndarray], *, wanted: int, told: list | None = None) -> Start:
    return Start(
        output=output,
        count=len(images),
        image=lambda index: images[index],
        size=(96, 64),
        wanted=wanted,
        part=(0, 1),
        tell=(told if told is not None else []).append,
    )


@pytest.mark.parametrize(("fill", "wanted", "filled"), [
    ("auto", 3, True), ("auto", 2, False), ("first", 1, True), ("lazy", 100, False),
])  # fmt: skip
def test_when_the_cache_is_filled(tmp_path: Path, fill: str, wanted: int, filled: bool) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (64, 96, 3)).astype(np.uint8) for _ in range(6)]
    teacher, told = Brightness(), []
    made = task(f"teacher.fill={fill}", teacher=teacher)
    made.begin(start(tmp_path / "run", images, wanted=wanted, told=told))
    assert teacher.asked == (6 if filled else 0)
    assert bool(told) == filled
    if filled:
        text = " ".join(str(line["message"]) for line in told)
        assert "asked about 6 pictures" in text
        assert "kB each" in text
    extras = made.extras(images[2], "a/2")
    assert set(extras) == {"teacher"}
    assert extras["teacher"].shape == (64, 96)
    assert teacher.asked == (6 if filled else 1)
    assert (tmp_path / "knowledge").is_dir()
    assert made.summary()["teacher_sha256"] == "0" * 64


def test_squeezed_pictures_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    teacher = Brightness()
    made = task(teacher=teacher)
    with pytest.raises(UsageError) as caught:
        made.begin(start(tmp_path / "run", [np.zeros((100, 100, 3), np.uint8)], wanted=9))
    assert caught.value.error_id == "distillation.preprocessing"
    assert teacher.asked == 0
    assert not (tmp_path / "knowledge").exists()


def trained(data: Path, output: Path, *changes: str, teacher: Brightness | None = None) -> tuple[list, Brightness]:
    teacher = teacher or Brightness()
    fit(task(*changes, teacher=teacher), recipe(*changes), [data], output)
    return log(output), teacher


def weights(run: Path) -> bytes:
    return max(run.glob("step-*")).joinpath("network.safetensors").read_bytes()


def test_a_full_cache_an_empty_one_and_threads_give_the_same_weights(data: Path, tmp_path: Path) -> None:
    lines, first = trained(data, tmp_path / "a" / "run", *FAST)
    assert first.asked == 11
    assert {"response", "student", "silog"} <= lines[0].keys()
    _, second = trained(data, tmp_path / "a" / "again", *FAST)
    assert second.asked == 0
    _, third = trained(data, tmp_path / "b" / "run", *FAST, "teacher.fill=lazy", "workers=2")
    # Two threads may meet the same picture before either has stored the answer.
    assert 0 < third.asked <= 16
    assert weights(tmp_path / "a" / "run") == weights(tmp_path / "a" / "again") == weights(tmp_path / "b" / "run")
    # The teacher matters.
    _, other = trained(data, tmp_path / "c" / "run", *FAST, teacher=Brightness("1" * 64, hole=30))
    assert other.asked == 11
    assert weights(tmp_path / "c" / "run") != weights(tmp_path / "a" / "run")


def test_the_teacher_is_mirrored_with_the_sample_unless_published(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_shard(data / "shard-0", count=8, seed=3)

    class Learner(DistillationTask):
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []  # noqa: RUF012

        def prepare(self, batch: Batch, device: torch.device):
            made = super().prepare(batch, device)
            type(self).seen.append((made["image"].mean(dim=1), made["teacher"]))
            return made

    for mirrored in (True, False):
        Learner.seen = []
        chosen = recipe(
            *FAST, f"distillation.response.mirrored={mirrored}", "data.augmentation={kind: leve, swap: 0.0}"
        )
        assert isinstance(chosen.teacher, TeacherSection)
        assert chosen.distillation is not None
        learner = Learner(
            create("repdepth", **chosen.model.config),
            Brightness(),
            loss=chosen.loss,
            distillation=chosen.distillation,
            source=chosen.teacher,
        )
        fit(learner, chosen, [data], tmp_path / f"run-{mirrored}")
        pictures, maps = (torch.cat(part) for part in zip(*Learner.seen, strict=True))
        alike = [bool((a * 255 + 1 - b).abs().max() < 0.5) for a, b in zip(pictures, maps, strict=True)]
        turned = [bool((a.flip(1) * 255 + 1 - b).abs().max() < 0.5) for a, b in zip(pictures, maps, strict=True)]
        assert all(a or b for a, b in zip(alike, turned, strict=True))
        assert all(alike) == mirrored
        assert mirrored or 0 < sum(turned) < len(turned)


def test_an_interrupted_distillation_goes_on(data: Path, tmp_path: Path) -> None:
    changes = ["epochs=null", "steps=3", "checkpoint_every=1", "distillation.feature.weight=0.5", PAIRS]
    trained(data, tmp_path / "whole" / "run", *changes)

    def stop(line: dict[str, object]) -> None:
        if line.get("step") == 2:
            raise OSError("as if killed")

    with pytest.raises(OSError, match="as if killed"):
        fit(task(*changes), recipe(*changes), [data], tmp_path / "parts" / "run", on_log=stop)
    fit(task(*changes), recipe(*changes), [data], tmp_path / "parts" / "run", resume=True)
    for name in ("network", "projector", "state"):
        files = [max((tmp_path / way / "run").glob("step-*")) / f"{name}.safetensors" for way in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_the_command_from_end_to_end(data: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "endolux", "train", "leve-distilled", "--data", str(data)]
    changes = ["epochs=1", "teacher.model=repdepth-colon", *STUDENT]
    done = subprocess.run(
        [*arguments, *changes, "-o", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["checkpoint"]).is_dir()
    assert "asked about 11 pictures" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["sessions"][0]["task"]["teacher_kind"] == "relative_depth"
    assert (tmp_path / "knowledge").is_dir()
    assert "kB each" in done.stderr


def test_the_command_without_a_teacher(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from endolux.cli.root import run

    assert run(["train", "leve-distilled", *STUDENT, "--data", str(data), "-o", str(tmp_path / "none")]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("error[recipe.teacher]")
    assert "teacher.model=" in lines[2]
