"""Recipes: every one that is shipped is whole, every mistake is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.train.augment import Augmentation
from endolux.train.recipe import (
    EndoscopeAugmentation,
    LeveAugmentation,
    LeveLoss,
    LogDepthLoss,
    StepSchedule,
    load_recipe,
    recipe_from,
    recipe_names,
)
from endolux.train.recipe_text import apply_overrides, flatten, merge, parse_yaml

NAMES = {
    "repdepth",
    "leve",
    "leve-3x3",
    "leve-3x3-1x1",
    "leve-5x5-5x5",
    "leve-3x3-dw",
    "leve-alt-skips",
    "leve-no-skips",
    "leve-mobilenetv3",
    "guidedepth",
    "guidedepth-s",
    "leve-distilled",
}


def test_the_shipped_recipes() -> None:
    assert set(recipe_names()) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_recipe_is_its_own_text(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    (tmp_path / "a.yaml").write_text(recipe.text())
    assert load_recipe(tmp_path / "a.yaml") == recipe


def test_leve_is_trained_as_published() -> None:
    recipe = load_recipe("leve")
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 1e-4, 0.0)
    assert (recipe.schedule.kind, recipe.epochs, recipe.batch) == ("constant", 20, 8)
    assert (recipe.clip, recipe.average_decay) == (None, 0.0)
    assert isinstance(recipe.loss, LeveLoss)
    assert recipe.loss.mode == "correct"
    published = load_recipe("leve-published")
    assert isinstance(published.loss, LeveLoss)
    assert (published.loss.mode, published.loss.mask, published.batchnorm) == ("reproduce", False, "reproduce")
    assert (published.evaluation.mean, published.evaluation.every) == ("reproduce", 1000)
    assert (published.data.size, published.precision) == ((640, 480), "fp32")


def test_the_augmentation_section_is_the_augmentation() -> None:
    assert EndoscopeAugmentation().settings() == Augmentation()
    assert set(EndoscopeAugmentation.model_fields) - {"kind"} == {f.name for f in dataclasses.fields(Augmentation)}


def test_the_loss_section_is_the_loss() -> None:
    from endolux.losses import LossWeights

    assert LossWeights(**LogDepthLoss().model_dump(exclude={"kind"})) == LossWeights()


@pytest.mark.parametrize(
    ("change", "error_id", "told"),
    [
        ("sed=1", "recipe.key", "'seed'"),
        ("optimiser.lrr=1", "recipe.key", "'lr'"),
        ("lr=1", "recipe.key", "'optimiser.lr'"),
        ("data.augmentation.flipp=1", "recipe.key", "'flip'"),
        ("loss.modes=correct", "recipe.key", "'mode'"),
        ("evaluation.protocols=[{nam: a, data: b}]", "recipe.key", "'name'"),
        ("schedule.kind=cosin", "recipe.value", "'cosine'"),
        ("optimiser.lr=abc", "recipe.value", "optimiser.lr is 'abc'"),
        ("optimiser.lr=0", "recipe.value", "greater than 0"),
        ("optimiser.lr=.nan", "recipe.value", "optimiser.lr"),
        ("batch=0", "recipe.value", "batch is 0"),
        ("data.size=3", "recipe.value", "data.size"),
        ("steps=null", "recipe.value", "steps or epochs"),
        ("batch", "recipe.override", "KEY.PATH=VALUE"),
        ("=3", "recipe.override", "KEY.PATH=VALUE"),
        ("batch.x=3", "recipe.override", "'x'"),
    ],
)
def test_mistakes_are_named(change: str, error_id: str, told: str) -> None:
    changes = [change] if change != "steps=null" else ["steps=3", "steps=null", "epochs=null"]
    with pytest.raises(UsageError) as caught:
        load_recipe("leve", changes)
    assert caught.value.error_id == error_id
    assert told in str(caught.value)


def test_unknown_recipe() -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("leve-3x33")
    assert caught.value.error_id == "recipe.unknown"
    assert "'leve-3x3'" in caught.value.fix


def test_overrides() -> None:
    recipe = load_recipe("leve", ["optimiser.lr=1e-5", "steps=7", "data.size=64x32", "data.augmentation.kind=none"])
    assert recipe.optimiser.lr == 1e-5
    assert (recipe.steps, recipe.epochs) == (7, None)
    assert recipe.data.size == (64, 32)
    assert recipe.data.augmentation.kind == "none"
    later = load_recipe("leve", ["steps=7", "epochs=2"])
    assert (later.steps, later.epochs) == (None, 2)
    same = load_recipe("leve", ["data.augmentation.kind=leve", "data.augmentation.flip=0"])
    assert isinstance(same.data.augmentation, LeveAugmentation)
    assert (same.data.augmentation.flip, same.data.augmentation.swap) == (0.0, 0.5)
    runs = load_recipe("leve", ["evaluation.protocols=[{name: c3vd, data: a}]", "evaluation.protocols.0.limit=3"])
    assert runs.evaluation.protocols[0].limit == 3


@pytest.mark.parametrize(
    "changes",
    [
        ["data.augmentation.kind=endoscope", "data.augmentation.zoom=1.3"],
        ["data.augmentation.zoom=1.3", "data.augmentation.kind=endoscope"],
        # What only the old kind knows goes with it.
        ["data.augmentation.swap=0", "data.augmentation.zoom=1.3", "data.augmentation.kind=endoscope"],
        ["data.augmentation.kind=none", "data.augmentation.kind=endoscope", "data.augmentation.zoom=1.3"],
        ["data.augmentation={kind: leve, flip: 0.1}", "data.augmentation.zoom=1.3", "data.augmentation.kind=endoscope"],
        ["data.augmentation={kind: endoscope, zoom: 1.3}"],
    ],
)
def test_another_kind_begins_with_its_defaults(changes: list[str], tmp_path: Path) -> None:
    expected = EndoscopeAugmentation(zoom=1.3)
    assert load_recipe("leve", changes).data.augmentation == expected
    # A recipe with every key of the old kind written out, flip among them, which both kinds know.
    (tmp_path / "whole.yaml").write_text(load_recipe("leve", ["data.augmentation.flip=0.9"]).text())
    assert load_recipe(tmp_path / "whole.yaml", changes).data.augmentation == expected


def test_changes_before_a_change_of_the_section_are_gone() -> None:
    changes = ["data.augmentation.flip=0.9", "data.augmentation={kind: none}", "data.augmentation.kind=endoscope"]
    assert load_recipe("leve", changes).data.augmentation == EndoscopeAugmentation()


def test_every_section_with_kinds_can_change_it() -> None:
    changes = ["schedule.kind=step", "schedule.every=3", "loss.kind=log-depth", "loss.silog=2"]
    recipe = load_recipe("leve", changes)
    assert (recipe.schedule, recipe.loss) == (StepSchedule(every=3), LogDepthLoss(silog=2))
    assert load_recipe("leve", [*changes[1::2], *changes[::2]]) == recipe


def test_a_kind_that_has_no_keys_of_its_own_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "base: leve-distilled\nname: a\ndistillation: {relation: {kind: distance, weight: 0.5}}\n"
    )
    (tmp_path / "b.yaml").write_text(f"base: {tmp_path / 'a.yaml'}\ndistillation: {{relation: {{kind: affinity}}}}\n")
    changed = load_recipe(tmp_path / "a.yaml", ["distillation.relation.kind=affinity"])
    for recipe in (changed, load_recipe(tmp_path / "b.yaml")):
        assert recipe.distillation is not None
        assert (recipe.distillation.relation.kind, recipe.distillation.relation.weight) == ("affinity", 0.5)


def test_no_key_is_advised_that_was_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: leve\ndata: {augmentation: {kind: endoscope, swap: 0.5}}\n")
    change = ["data.augmentation.kind=endoscope", "data.augmentation.swap=0"]
    for name, changes in ((tmp_path / "a.yaml", []), ("leve", change)):
        with pytest.raises(UsageError) as caught:
            load_recipe(name, changes)
        assert caught.value.error_id == "recipe.key"
        assert "'data.augmentation.swap'" in caught.value.what
        assert caught.value.fix == "Leave it out, or set data.augmentation.kind=leve, which has it."


def test_a_file_on_top_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: leve\nname: mine\nbatch: 2\nloss: {kind: log-depth, silog: 2}\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.batch, recipe.epochs) == ("mine", 2, 20)
    assert isinstance(recipe.loss, LogDepthLoss)
    (tmp_path / "loop.yaml").write_text(f"base: {tmp_path / 'loop.yaml'}\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "loop.yaml")
    assert caught.value.error_id == "recipe.base"


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "a: 1\na: 2", "x", "a: \x00", "!!python/object:os.system {}"])
def test_text_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "a.yaml")
    assert caught.value.error_id == "recipe.syntax"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "a.yaml")
    assert caught.value.error_id == "recipe.unreadable"


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_numbers_are_numbers(value: float) -> None:
    assert parse_yaml(f"a: {value!r}\nb: {value:.3e}", "t")["a"] == pytest.approx(value)
    assert isinstance(parse_yaml(f"b: {value:.0e}", "t")["b"], float)


plain = st.recursive(
    st.integers() | st.booleans() | st.none() | st.text("abc", max_size=3),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.text("xyz", min_size=1, max_size=3), plain, max_size=4)


@given(documents, documents)
def test_merging(below: dict, above: dict) -> None:
    assert merge(below, {}) == below
    merged = merge(below, above)
    assert set(merged) == {*below, *above}
    for path, value in flatten(above).items():
        if path and value != {}:
            assert flatten(merged)[path] == value


@given(documents, st.integers())
def test_an_override_changes_one_place(document: dict, value: int) -> None:
    changed = apply_overrides(document, [f"q.r={value}"])
    assert changed == {**document, "q": {"r": value}}


def test_recipe_from_refuses_other_things() -> None:
    with pytest.raises(UsageError):
        recipe_from({"name": "a"})
    assert yaml.safe_load(load_recipe("repdepth").text())["model"]["name"] == "repdepth"
