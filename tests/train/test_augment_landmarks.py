"""Mirrored and turned landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from endolux.train.augment_landmarks import turned
from endolux.train.recipe import LandmarkAugmentation, load_recipe
from endolux.train.sources import Item, Labels


@pytest.mark.parametrize(("mirror", "seen"), [("horizontal", {"across"}), ("either", {"across", "down"})])
def test_mirrorings_are_those_that_are_asked_for(mirror: str, seen: set[str]) -> None:
    picture = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    marks = (np.arange(80).reshape(8, 10) % 4).astype(np.uint8)
    settings = LandmarkAugmentation(rotate=0.0, flip=1.0, mirror=mirror)  # type: ignore[arg-type]
    found = set()
    for seed in range(16):
        item = Item("a", picture, None, labels=Labels(landmarks=marks, inverse_depth=None))
        made = turned(item, np.random.default_rng(seed), settings)
        assert made.labels is not None
        for name, axis in (("across", 1), ("down", 0)):
            if np.array_equal(made.image, np.flip(picture, axis)):
                found.add(name)
                np.testing.assert_array_equal(made.labels.landmarks, np.flip(marks, axis))
    assert found == seen


def test_the_recipe_of_the_bundled_network_keeps_livers_upright() -> None:
    recipe = load_recipe("liver-landmarks")
    settings = recipe.data.augmentation
    assert isinstance(settings, LandmarkAugmentation)
    assert settings.mirror == "horizontal"
    assert settings.effects is not None
    assert settings.effects.flip == 0.0
    assert recipe.model.name == "landmarks-light"
