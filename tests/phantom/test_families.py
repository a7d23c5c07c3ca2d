"""Families of shapes: what is trained on and what is validated on never share a shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from endolux.phantom.families import SHAPES, SPLIT_SCENES, Family, family_of
from endolux.phantom.layouts import get_layout
from endolux.phantom.presets import SPLITS, settings_of
from endolux.phantom.scene import ANATOMIES, build_scene
from endolux.phantom.world import PhantomSettings, open_scene
from endolux.phantom.write import write_layout

RANGES = [(anatomy, name) for anatomy, found in SHAPES.items() for name in found]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RANGES), st.sampled_from(list(Family)), st.integers(0, 2**32 - 1))
def test_a_drawn_shape_is_of_its_family_and_within_its_range(which: tuple[str, str], family: Family, seed: int) -> None:
    low, high = SHAPES[which[0]][which[1]]
    value = family.draw(np.random.default_rng(seed), *which)
    assert low < value < high
    assert family_of(*which, value) is family
    # Records are rounded to six places.
    assert family_of(*which, round(value, 6)) is family


@pytest.mark.parametrize(("anatomy", "name"), RANGES)
def test_families_interleave_and_keep_apart(anatomy: str, name: str) -> None:
    rng = np.random.default_rng(0)
    low, high = SHAPES[anatomy][name]
    drawn = {family: np.array([family.draw(rng, anatomy, name) for _ in range(400)]) for family in Family}
    train = drawn[Family.TRAIN]
    for family in (Family.VALIDATION, Family.TEST):
        gaps = np.abs(drawn[family][:, None] - train[None]).min()
        assert gaps > 0.003 * (high - low)
        # Validation asks between what was trained on, not beyond it.
        assert train.min() < drawn[family].min()
        assert drawn[family].max() < train.max()
        assert len(np.unique(((drawn[family] - low) / (high - low) * 3).astype(int))) == 3
    assert train.max() - train.min() > 0.9 * (high - low)


def test_values_between_and_beyond_families_belong_to_none() -> None:
    assert family_of("sinus", "openness", 1 / 24) is None
    assert family_of("sinus", "openness", 0.5 / 24) is Family.TRAIN
    assert family_of("sinus", "openness", 2.5 / 24) is Family.VALIDATION
    assert family_of("sinus", "openness", -0.1) is None
    assert family_of("sinus", "openness", 1.1) is None


def test_splits_are_families_by_the_scenes_number() -> None:
    assert {name: Family.of_scene(first).value for name, first in SPLITS.items()} == {name: name for name in SPLITS}
    assert Family.of_scene(SPLIT_SCENES - 1) is Family.TRAIN
    assert Family.of_scene(SPLIT_SCENES) is Family.VALIDATION
    assert Family.of_scene(99 * SPLIT_SCENES) is Family.TEST
    scene = open_scene(PhantomSettings(anatomies={"tube": 1.0}), SPLIT_SCENES + 3)
    assert scene.record["family"] == "validation"


@pytest.mark.parametrize("anatomy", sorted(ANATOMIES))
def test_every_anatomy_records_its_designated_shape(anatomy: str) -> None:
    assert set(SHAPES) == set(ANATOMIES)
    for family in Family:
        record = build_scene(anatomy, np.random.default_rng(3), family=family).record
        assert record["family"] == family.value
        for name in SHAPES[anatomy]:
            value = record[name]
            assert isinstance(value, float)
            assert family_of(anatomy, name, value) is family


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_written_data_set_tells_its_family(split: str, tmp_path: Path) -> None:
    changes = {"anatomies": {"tube": 1}, "frames": 2, "views_per_scene": 1, "width": 32, "height": 24, "split": split}
    write_layout(settings_of("clean", changes), tmp_path / "set", get_layout("folder"))
    for line in (tmp_path / "set" / "scenes.jsonl").read_text().splitlines():
        parameters = json.loads(line)["parameters"]
        assert parameters["family"] == split
        found = family_of("tube", "radius_mm", parameters["radius_mm"])
        assert found is not None
        assert found.value == split
