"""Fine-tuning foundation models through the engine, and a student of such a teacher."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from runs import log

from endolux.adapt.lora import count
from endolux.errors import ModelError, UsageError
from endolux.losses.l1 import l1_loss
from endolux.models import create
from endolux.train.checkpoints import load_network
from endolux.train.engine import fit
from endolux.train.initial_weights import load_weights_into
from endolux.train.origins import Origin, origin_of, origins, read_origins, require_commercial_origins
from endolux.train.recipe import PolynomialSchedule, Recipe, load_recipe, recipe_from
from endolux.train.schedule import rate_factor
from endolux.train.tasks.supervised import SupervisedTask, build_network

pytest.importorskip("transformers")
pytest.importorskip("peft")
SHAPE = "hidden_size: 32, blocks: 4, heads: 2, fusion: 16, head_width: 8, grid: 4"
TINY = f"{SHAPE}, neck: [8, 12, 16, 24], taps: [1, 2, 3, 4]"
QUICK = ("batch=2", "threads=1", "device=cpu", "checkpoint_every=2", "log_every=1", "precision=fp32")
STUDENT = "model.config={max_depth_mm: 200}"


def surgical(*changes: str) -> Recipe:
    config = f"model.config={{output: depth, max_depth_mm: 200, min_depth_mm: 1, {TINY}}}"
    return load_recipe("surgical-depth-anything", [config, "data.size=56x42", "steps=3", *QUICK, *changes])


@pytest.mark.parametrize("kind", ["full", "head-only", "last-blocks", "vector-lora"])
def test_one_field_says_what_is_trained(kind: str, data: Path, tmp_path: Path) -> None:
    recipe = surgical(f"model.adapt.kind={kind}", *(["model.adapt.blocks=1"] if kind == "last-blocks" else []))
    fit(None, recipe, [data], tmp_path / "run")
    network, state = load_network(tmp_path / "run")
    start = build_network(recipe)
    trained = {name for name, p in start.named_parameters() if p.requires_grad}
    assert {name for name, p in network.named_parameters() if p.requires_grad} == trained
    outside = {name.split(".")[0] for name in trained}
    assert outside == ({"neck", "head"} if kind == "head-only" else {"backbone", "neck", "head"})
    assert state.step == 3
    assert (count(network).modules > 0) is (kind == "vector-lora")
    losses = [row["total"] for row in log(tmp_path / "run") if "total" in row]
    assert np.isfinite(losses).all()


def test_the_loss_falls_by_half(data: Path, tmp_path: Path) -> None:
    """Specification 7.5, in small."""
    changes = ("steps=25", "optimiser.lr=3e-3", "schedule.warm_up_steps=3", "data.augmentation.kind=none", "batch=4")
    fit(None, surgical(*changes), [data], tmp_path / "run")
    losses = [row["total"] for row in log(tmp_path / "run") if "total" in row]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])


def test_the_recipe_is_the_published_one() -> None:
    recipe = load_recipe("surgical-depth-anything")
    assert (recipe.model.name, recipe.batch, recipe.epochs) == ("depth-anything-v1-s", 16, 20)
    assert (recipe.optimiser.name, recipe.optimiser.lr) == ("adamw", 3e-5)
    assert recipe.loss.kind == "l1"
    assert recipe.data.size == (392, 252)
    assert recipe.model.adapt is not None
    assert recipe.model.adapt.kind == "full"


def test_l1_by_hand() -> None:
    network = create("depth-anything-v1-s", **yaml.safe_load("{" + TINY + ", output: depth}")).eval()
    task = SupervisedTask(network, loss=surgical().loss)
    image, depth = torch.rand(2, 3, 28, 42), torch.rand(2, 1, 28, 42) * 250
    depth[0, :, :5] = 0
    depth[1, :, 3] = float("nan")
    with torch.no_grad():
        found = task.loss_of(network, {"image": image, "depth": depth})["total"]
        output = network(image)
    known = torch.isfinite(depth) & (depth > 0)
    torch.testing.assert_close(found, (output - depth / 200)[known].abs().mean())
    assert l1_loss(output, depth, torch.zeros_like(known)).item() == 0.0
    inverse = create("depth-anything-v1-s", **yaml.safe_load("{" + TINY + ", output: inverse}")).eval()
    recipe = surgical("loss.target=inverse")
    with torch.no_grad():
        found = SupervisedTask(inverse, loss=recipe.loss).loss_of(inverse, {"image": image, "depth": depth})["total"]
        torch.testing.assert_close(found, (inverse(image) - 1 / depth)[known].abs().mean())


def test_disparity_is_learned_up_to_scale_and_shift() -> None:
    recipe = surgical("model.config.output=disparity", "loss.target=disparity")
    network = build_network(recipe).eval()
    task = SupervisedTask(network, loss=recipe.loss)
    image, depth = torch.rand(2, 3, 28, 42), 20 + 100 * torch.rand(2, 1, 28, 42)
    depth[0, :, :5] = 0
    with torch.no_grad():
        disparity = network(image)

        def loss_of(scale: float, shift: float) -> float:
            # The truth that the output would be right about, as far as it can be told.
            truth = 1 / (scale * disparity + shift)
            truth[0, :, :5] = 0
            return task.loss_of(network, {"image": image, "depth": truth})["total"].item()

        assert loss_of(0.01, 0.02) == pytest.approx(0, abs=1e-3)
        assert loss_of(0.03, 0.0) == pytest.approx(0, abs=1e-3)
        found = task.loss_of(network, {"image": image, "depth": depth})
    assert found["total"].item() > 0.5
    assert found["total"] == found["disparity"]
    weight = task.updates()[0].weight
    assert weight is not None
    assert weight({"depth": depth}).item() == 2


@pytest.mark.parametrize("output", ["disparity", "depth", "inverse"])
def test_random_weights_begin_so_that_something_is_learned(output: str) -> None:
    recipe = surgical(f"model.config.output={output}", f"loss.target={output}")
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_network(recipe)
        tensors = {"image": torch.rand(2, 3, 42, 56), "depth": 20 + 100 * torch.rand(2, 1, 42, 56)}
        assert (network(tensors["image"]) > 0).all()
        SupervisedTask(network, loss=recipe.loss).loss_of(network, tensors)["total"].backward()
        gradients = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
        least = 1e-5 if output == "disparity" else 1e-7
        assert gradients["neck.fusion_stage.layers.0.projection.weight"] > least
        assert max(value for name, value in gradients.items() if name.startswith("backbone")) > least


def test_losses_and_outputs_that_do_not_fit() -> None:
    for changes, told in (
        (["loss.target=inverse"], "aims at inverse"),
        (["loss.max_depth_mm=100"], "1 to 100 mm"),
        (["model.config.output=disparity"], "whose output is disparity"),
        (["loss={kind: log-depth}", "model.config.output=disparity"], "whose output is disparity"),
    ):
        recipe = surgical(*changes)
        with pytest.raises(UsageError, match=told) as caught:
            SupervisedTask.from_recipe(recipe)
        assert caught.value.error_id == "recipe.loss"
    with pytest.raises(UsageError) as caught:
        build_network(load_recipe("leve", ["model.adapt.kind=lora"]))
    assert caught.value.error_id == "recipe.adapt"
    with pytest.raises(UsageError, match="ranks and targets belong to"):
        surgical("model.adapt={kind: full, ranks: [4]}")
    with pytest.raises(ModelError) as counts:
        build_network(surgical("model.adapt={kind: lora, modules: 24}"))
    assert counts.value.error_id == "adapt.count"


def test_polynomial_schedule() -> None:
    schedule = PolynomialSchedule(warm_up_steps=10, power=0.9)
    factors = [rate_factor(schedule, step=step, steps=110) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5**0.9)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert rate_factor(PolynomialSchedule(warm_up_steps=500), step=5, steps=10) == 1.0


def test_from_a_pretrained_network_over_adapters_and_on(data: Path, tmp_path: Path) -> None:
    fit(None, surgical("steps=1", "checkpoint_every=1"), [data], tmp_path / "first")
    initial = f"model.initial={tmp_path / 'first'}"
    fit(None, surgical("steps=1", "checkpoint_every=1", "model.adapt.kind=dora", initial), [data], tmp_path / "second")
    second = load_network(tmp_path / "second")[0]
    assert count(second).modules == 8
    # A run that starts from an adapted one starts from its function.
    third = build_network(surgical(f"model.initial={tmp_path / 'second'}", "model.adapt.kind=vector-lora"))
    image = torch.rand(1, 3, 42, 56)
    with torch.no_grad():
        torch.testing.assert_close(third.eval()(image), second(image), atol=1e-4, rtol=1e-3)
    dares = build_network(
        recipe_from({"name": "d", "steps": 1, "model": {"name": "dares", "config": yaml.safe_load("{" + TINY + "}"),
                                                     "initial": str(tmp_path / "first")}})
    )  # fmt: skip
    first = load_network(tmp_path / "first")[0]
    assert torch.equal(dares.backbone.layernorm.weight, first.backbone.layernorm.weight)
    with pytest.raises(ModelError) as caught:
        load_weights_into(create("leve"), tmp_path / "first")
    assert caught.value.error_id == "model.variant"


def test_a_supervised_recipe_with_a_teacher_distils(data: Path, tmp_path: Path) -> None:
    """``endolux train leve teacher=runs/dares-a``, through the knowledge cache."""
    recipe = surgical("steps=1", "checkpoint_every=1")
    start = recipe.model_copy(update={"model": recipe.model.model_copy(update={"initial": None})})
    fit(None, start, [data], tmp_path / "pretrained")
    teacher = create("dares", **yaml.safe_load("{" + TINY + "}"))
    from endolux.train.checkpoints import State, write_checkpoint

    run = tmp_path / "dares-a"
    state = State(step=1, architecture="dares", config=teacher.config(), exported="network", networks=("network",),
                  recipe={}, position={}, loop={})  # fmt: skip
    write_checkpoint(run, state=state, networks={"network": teacher.state_dict()}, average=None, tensors={})
    released = [Origin(role="initial weights", name="Depth-Anything-V2-Base-hf", licence="CC-BY-NC-4.0")]
    (run / "run.json").write_text(json.dumps({"sessions": [{"origins": [
        {"role": o.role, "name": o.name, "licence": o.licence, "derived_from": list(o.derived_from)} for o in released
    ]}]}))  # fmt: skip
    student = load_recipe("leve", [f"teacher={run}", "data.size=96x64", "epochs=1", *QUICK, STUDENT])
    assert student.task == "distillation"
    assert student.teacher is not None
    fit(None, student, [data], tmp_path / "student")
    assert list((tmp_path / "knowledge").glob("*/about.json"))
    assert "response" in log(tmp_path / "student")[-1] or any("response" in row for row in log(tmp_path / "student"))
    (found,) = read_origins(tmp_path / "student")
    assert (found.role, found.name, found.licence) == ("teacher", "dares-a", "CC-BY-NC-4.0")
    assert read_origins(tmp_path / "student" / "step-00000002") == (found,)
    assert found.derived_from == ("initial weights: Depth-Anything-V2-Base-hf (CC-BY-NC-4.0)",)
    with pytest.raises(ModelError, match="'dares-a' is not for commercial use") as caught:
        require_commercial_origins(student)
    assert caught.value.error_id == "model.licence"


def test_origins_of_what_a_recipe_names(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"backbone_config": {"hidden_size": 768, "out_indices": [3, 6, 9, 12]}})
    )
    assert origin_of(str(folder), role="teacher").licence == "CC-BY-NC-4.0"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Mine\n")
    assert origin_of(str(folder), role="teacher").licence == "Apache-2.0"
    bundle = origin_of("repdepth-colon", role="teacher")
    assert (bundle.name, bundle.licence) == ("repdepth-colon", "Apache-2.0")
    assert origins(load_recipe("leve")) == ()
    assert read_origins(tmp_path) == ()
    require_commercial_origins(load_recipe("leve", ["teacher=repdepth-colon"]))
