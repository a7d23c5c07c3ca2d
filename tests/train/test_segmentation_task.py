"""The segmentation task: losses, labels in views, training, validation, resuming."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import InputError, ModelError, UsageError
from endolux.losses.segmentation import dice_loss, entropy_loss, inverse_depth_loss, one_hot
from endolux.models.landmarks import TINY
from endolux.train.augment_landmarks import labels_in_view, turned
from endolux.train.checkpoints import load_exported, load_network
from endolux.train.engine import fit
from endolux.train.origins import origins
from endolux.train.recipe import Recipe, load_recipe, recipe_names
from endolux.train.recipe_data import LandmarkAugmentation
from endolux.train.sources import Item, Labels, open_source
from endolux.train.tasks import build_task
from endolux.train.viewport import View
from train.landmark_pictures import write_l3d
from train.runs import differing, log

BASE = (
    "data.size=[64,64]",
    "data.augmentation={kind: landmarks}",
    "steps=4",
    "batch=2",
    "threads=1",
    "device=cpu",
    "precision=fp32",
    "checkpoint_every=2",
    "log_every=1",
    "average_decay=0.9",
)
ENCODERS = ("segmentation=null", f"model.config={json.dumps(dict(TINY))}", "optimiser.adapted=10", "optimiser.rank=4")


def recipe(*changes: str, name: str = "landmarks-light") -> Recipe:
    return load_recipe(name, [*BASE, *changes])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 5))
def test_dice_is_published(seed: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(generator.integers(0, classes, (2, 6, 7)))
    scores = torch.from_numpy(generator.normal(size=(2, classes, 6, 7)))
    p, t = scores.softmax(dim=1).numpy(), one_hot(labels, classes).double().numpy()
    expected = np.mean(
        [
            1 - (2 * (p[n, c] * t[n, c]).sum() + 1e-5) / (p[n, c].sum() + t[n, c].sum() + 1e-5)
            for n in range(2)
            for c in range(classes)
        ]
    )
    assert float(dice_loss(scores.softmax(dim=1), torch.from_numpy(t))) == pytest.approx(expected, rel=1e-9)
    wanted = torch.nn.functional.cross_entropy(scores, labels)
    assert float(entropy_loss(scores, torch.from_numpy(t))) == pytest.approx(float(wanted), rel=1e-6)


def test_entropy_as_released() -> None:
    scores = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    target = one_hot(torch.randint(0, 4, (2, 5, 5)), 4)
    p = scores.softmax(dim=1)
    expected = (target * -(p / (1 + p)).log() + (1 - target) * (1 + p).log()).mean()
    torch.testing.assert_close(entropy_loss(scores, target, mode="reproduce"), expected)


def test_pixels_without_a_class() -> None:
    labels = torch.tensor([[[0, 1, 255, 255]]])
    target, scores = one_hot(labels, 2), torch.randn(1, 2, 1, 4)
    changed = scores.clone()
    changed[..., 2:] += torch.randn(1, 2, 1, 2)
    assert torch.equal(entropy_loss(scores, target), entropy_loss(changed, target))
    with pytest.raises(UsageError) as caught:
        one_hot(torch.tensor([[[7]]]), 4)
    assert caught.value.error_id == "loss.labels"


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 30.0), st.floats(-5.0, 5.0))
def test_inverse_depth_has_no_scale_and_shift(scale: float, shift: float) -> None:
    target = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    target[0, 0, :2] = math.nan
    assert float(inverse_depth_loss(torch.nan_to_num(target) * scale + shift, target)) < 1e-4
    assert float(inverse_depth_loss(-torch.nan_to_num(target), target)) > 0.5
    nothing = torch.full_like(target, math.nan)
    assert float(inverse_depth_loss(target.nan_to_num(), nothing)) == 0.0


def test_labels_are_never_mixed() -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20], labels[20:30] = 2, 3
    item = Item("a", np.zeros((40, 60, 3), np.uint8), None, labels=Labels(landmarks=labels, inverse_depth=None))
    generator = np.random.default_rng(0)
    for _ in range(20):
        seen = turned(item, generator, LandmarkAugmentation(rotate=1.0))
        assert seen.labels is not None
        view = View(source=(60, 40), window=(3, 2, 50, 30), horizontal=True)
        assert set(np.unique(labels_in_view(seen.labels, view, (33, 17))["landmarks"])) <= {0, 2, 3}
    corners = turned(item, generator, LandmarkAugmentation(rotate=1.0, degrees=180.0, corners="reproduce"))
    assert corners.labels is not None
    assert 255 in corners.labels.landmarks


def test_view_of_labels_follows_the_picture() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, (16, 24)).astype(np.uint8)
    view = View(source=(24, 16), window=(4, 2, 16, 12), vertical=True)
    seen = labels_in_view(Labels(landmarks=labels, inverse_depth=None), view, (16, 12))["landmarks"]
    assert np.array_equal(seen, labels[2:14, 4:20][::-1])
    hidden = np.zeros((12, 16), bool)
    hidden[0] = True
    view = View(source=(24, 16), window=(4, 2, 16, 12), hidden=hidden)
    assert not labels_in_view(Labels(landmarks=labels, inverse_depth=None), view, (16, 12))["landmarks"][0].any()


def test_reader_gives_labels_and_depth(tmp_path: Path) -> None:
    (clip, _) = open_source(f"l3d:{write_l3d(tmp_path)}").clips()
    labels = clip.load(0).labels
    assert labels is not None
    assert set(np.unique(labels.landmarks)) == {0, 1, 2}
    assert labels.inverse_depth is not None
    assert 0.07 < float(np.nanmin(labels.inverse_depth)) < float(np.nanmax(labels.inverse_depth)) == 1.0


def test_light_run_validates_and_resumes(tmp_path: Path) -> None:
    data = f"l3d:{write_l3d(tmp_path / 'data')}"
    changes = ("data.validation.fraction=0.5", "evaluation.every=2")
    whole = fit(None, recipe(*changes), [data], tmp_path / "whole")
    found = [line for line in log(tmp_path / "whole") if "validation/pooled_dsc" in line]
    assert found[-1]["validation/images"] == 3
    assert found[-1]["validation/dsc/ligament"] is None
    assert 0 <= found[-1]["validation/macro_dsc"] <= 1
    assert {"validation/d2gpland_dsc", "validation/srft_galore_assd", "validation/miss_rate"} <= found[-1].keys()
    assert {"dice", "entropy", "depth"} <= log(tmp_path / "whole")[0].keys()

    def stop(line: object) -> None:
        if isinstance(line, dict) and line.get("step") == 3 and "total" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(None, recipe(*changes), [data], tmp_path / "parts", on_log=stop)
    parts = fit(None, recipe(*changes), [data], tmp_path / "parts", resume=True)
    assert differing(whole, parts) == []
    network, state = load_exported(tmp_path / "whole")
    assert state.architecture == "landmarks-light"
    with pytest.raises(ModelError) as caught:
        load_network(tmp_path / "whole")
    assert caught.value.error_id == "model.kind"
    again = build_task(recipe(f"model.initial={tmp_path / 'whole'}"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.networks["network"].state_dict()[name])


def test_light_network_learns(tmp_path: Path) -> None:
    data = f"l3d:{write_l3d(tmp_path, patients=1, frames=2)}"
    changes = ("steps=40", "data.augmentation={kind: none}", "checkpoint_every=40", "optimiser.lr=4e-3", "log_every=1")
    fit(None, recipe(*changes), [data], tmp_path / "run")
    dice = [line["dice"] for line in log(tmp_path / "run") if "dice" in line]
    assert dice[-1] < dice[0] - 0.15


@pytest.mark.parametrize("encoders", ["galore", "lora"])
def test_big_network_trains(tmp_path: Path, encoders: str) -> None:
    data = f"l3d:{write_l3d(tmp_path / 'data')}"
    own = ENCODERS if encoders == "galore" else (*ENCODERS[:2], "optimiser={name: adamw, lr: 1e-3}")
    config = f"model.config.encoders={encoders}"
    given = recipe(*own, config, "steps=2", "average_decay=0", name="srft-galore")
    torch.manual_seed(given.seed)
    before = {k: v.clone() for k, v in build_task(given).networks["network"].state_dict().items()}
    fit(None, given, [data], tmp_path / "run")
    after = load_exported(tmp_path / "run")[0].state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith("depth_encoder") for name in moved)
    image = {name for name in moved if name.startswith("image_encoder")}
    assert image
    ending = (
        ("attn.qkv.weight", "attn.proj.weight")
        if encoders == "galore"
        else ("lora_A.default.weight", "lora_B.default.weight")
    )
    assert all(name.endswith(ending) for name in image)
    if encoders == "galore":
        assert "skipped" in log(tmp_path / "run")[0]


def test_published_recipe() -> None:
    assert {"srft-galore", "srft-galore-published", "landmarks-light"} <= set(recipe_names())
    given = load_recipe("srft-galore-published")
    assert given.optimiser.projection == "srft-released"
    assert given.schedule.kind == "constant"
    assert given.loss.kind == "landmarks"
    assert given.loss.mode == "reproduce"
    small = load_recipe("srft-galore-published", [ENCODERS[0]])
    assert small.model.config["decoder"] == "reproduce"


def test_pictures_without_labels(tmp_path: Path) -> None:
    root = write_l3d(tmp_path / "data", patients=1, frames=3)
    (root / "Train/labels/Patient_0001_00001.json").unlink()
    with pytest.raises(InputError) as caught:
        fit(None, recipe(), [f"l3d:{root}"], tmp_path / "run")
    assert caught.value.error_id == "train.unreadable"
    assert "it has no landmarks" in str(caught.value)
    fit(None, recipe("data.unreadable_limit=1"), [f"l3d:{root}"], tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "error_id"),
    [
        (("model.name=litenet-t", "model.config={}"), "recipe.segmentation"),
        (("model.adapt.kind=lora",), "recipe.segmentation"),
        (("segmentation.image_encoder=a/b",), "recipe.segmentation"),
        (("loss={kind: log-depth}",), "recipe.loss"),
        (("loss.weights=[1,1]",), "recipe.loss"),
        (("model.config.depth=some",), "model.config"),
    ],
)
def test_refusals(changes: tuple[str, ...], error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_task(recipe(*changes))
    assert caught.value.error_id == error_id


@pytest.mark.parametrize("change", ["data.augmentation={kind: landmarks}", "loss={kind: landmarks}", "segmentation={}"])
def test_sections_of_another_task(change: str) -> None:
    with pytest.raises(UsageError, match="belong"):
        load_recipe("repdepth", [change])


def test_wrong_start(tmp_path: Path) -> None:
    data = f"l3d:{write_l3d(tmp_path / 'data')}"
    fit(None, recipe("steps=1"), [data], tmp_path / "run")
    with pytest.raises(ModelError) as caught:
        build_task(recipe(*ENCODERS, f"model.initial={tmp_path / 'run'}", name="srft-galore"))
    assert caught.value.error_id == "model.variant"
    with pytest.raises(UsageError) as usage:
        fit(None, recipe("evaluation.protocols=[{name: l3d, data: x}]"), [data], tmp_path / "other")
    assert usage.value.error_id == "recipe.protocols"


@pytest.mark.parametrize("task", ["supervised", "trinity"])
def test_other_tasks_refuse_networks_of_landmarks(task: str) -> None:
    base = {"supervised": "repdepth", "trinity": "litenet"}[task]
    with pytest.raises(UsageError) as caught:
        build_task(load_recipe(base, ["model.name=landmarks-light", "model.config={}", *_NO_TEACHER[task]]))
    assert caught.value.error_id == "recipe.model"


_NO_TEACHER = {
    "supervised": (),
    "trinity": (
        "distillation.base=labels",
        "distillation.trinity.weight=0",
        "distillation.semantic.weight=0",
        "teacher=null",
    ),
}


def test_origins_of_encoders() -> None:
    found = {origin.role: origin.licence for origin in origins(load_recipe("srft-galore"))}
    assert found == {"image encoder": "Apache-2.0", "depth encoder": "Apache-2.0"}
