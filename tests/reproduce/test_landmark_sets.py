"""Sets of the liver: rendered once, read by name, hashed with how their lines are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from endolux.datasets import open_dataset
from endolux.errors import UsageError
from endolux.reproduce.grid import load_grid
from endolux.reproduce.grid_liver import Liver
from endolux.reproduce.grid_phantom import Phantom
from endolux.reproduce.job import LANDMARK_PROTOCOL
from endolux.reproduce.landmark_sets import liver_settings, render_livers

pytest.importorskip("embreex", reason="needs the extra 'phantom'")


def phantom(**changes: object) -> Phantom:
    whole = load_grid("srft-galore").scale("smoke").phantom
    assert whole is not None
    livers = {
        "liver": {"liver": Liver(frames=2, views_per_scene=1, seed=5)},
        "liver_sets": {"scenes": Liver(frames=2, views_per_scene=2, seed=5, split="test", title="two", **changes)},
    }
    return whole.model_copy(update=livers)


def test_sets_are_rendered_once_and_read_by_their_names(tmp_path: Path) -> None:
    found = render_livers(phantom(reader="l3d-broad"), tmp_path, workers=1)
    assert found.sources == {"liver": (f"l3d:{tmp_path / 'liver'}",)}
    (test,) = found.tests
    assert (test.role, test.reader, test.protocol, test.scene_frames) == ("scenes", "l3d-broad", LANDMARK_PROTOCOL, 2)
    assert found.titles == {"scenes": "two"}
    train, scenes = open_dataset("l3d", tmp_path / "liver"), open_dataset("l3d-broad", tmp_path / "scenes")
    assert {key.sequence.split("/")[0] for key in train.keys()} == {"Train"}  # noqa: SIM118
    assert {key.sequence.split("/")[0] for key in scenes.keys()} == {"Test"}  # noqa: SIM118
    assert scenes.load(scenes.keys()[0]).frame.size == (96, 64)
    thin = open_dataset("l3d", tmp_path / "scenes")
    broad, narrow = (
        sum(int(np.count_nonzero(each.load(key).labels["landmarks"])) for key in each.keys())  # noqa: SIM118
        for each in (scenes, thin)
    )
    assert broad > 1.5 * narrow > 0
    marked = (tmp_path / "scenes/manifest.json").stat().st_mtime_ns
    again = render_livers(phantom(), tmp_path, workers=1)
    assert (tmp_path / "scenes/manifest.json").stat().st_mtime_ns == marked
    # The same files with other lines are another set.
    assert again.digests["scenes"] == found.digests["scenes"]
    assert again.digests != found.digests


def test_settings_are_those_of_the_preset_with_changes() -> None:
    whole = phantom(size=(64, 32), settings={"even_light": 1.0, "scope": {"content": "full"}})
    settings = liver_settings(whole, whole.liver_sets["scenes"])
    assert (settings.width, settings.height, settings.even_light, settings.split) == (64, 32, 1.0, "test")
    assert settings.scope.content == "full"
    assert settings.preset == "l3d-like"
    with pytest.raises(UsageError) as caught:
        liver_settings(whole, Liver(frames=1, views_per_scene=1, seed=0, settings={"even_lihgt": 1.0}))
    assert caught.value.error_id == "phantom.setting"
    with pytest.raises(UsageError) as caught:
        liver_settings(whole, Liver(frames=1, views_per_scene=1, seed=0, preset="l3d-lik"))
    assert caught.value.error_id == "phantom.preset"
