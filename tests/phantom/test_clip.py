"""Clips: an instrument that is handled and smoke that drifts while the scope moves."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")

from endolux.phantom import world
from endolux.phantom.handling import Handling
from endolux.phantom.labels import TOOLS
from endolux.phantom.scene import build_scene
from endolux.phantom.world import PhantomSettings, clip, open_scene

SMALL = {"frames": 5, "width": 64, "height": 48}


def equipped() -> PhantomSettings:
    """Settings whose first scene is a bronchus with an instrument in the channel."""
    for seed in range(40):
        settings = PhantomSettings(anatomies={"bronchus": 1.0}, seed=seed, smoke=0.0, held=1.0, **SMALL)
        if open_scene(settings, 0).held:
            return settings
    pytest.fail("no instrument in forty scenes")


def test_an_instrument_moves_in_the_picture_and_leaves_the_wall_alone() -> None:
    settings = equipped()
    shown = list(clip(settings, fps=5.0))
    without = list(clip(settings.model_copy(update={"held": 0.0}), fps=5.0))
    tools = [np.isin(item.labels, [int(label) for label in TOOLS]) for item in shown]
    assert all(tool.sum() > 10 for tool in tools)
    assert any((a != b).any() for a, b in itertools.pairwise(tools))
    for item, plain, tool in zip(shown, without, tools, strict=True):
        assert not np.isin(plain.labels, [int(label) for label in TOOLS]).any()
        np.testing.assert_array_equal(item.pose, plain.pose)
        np.testing.assert_array_equal(item.depth.values[~tool], plain.depth.values[~tool])
        # What is held stands in front of the wall.
        both = tool & item.depth.valid & plain.depth.valid
        assert (item.depth.values[both] <= plain.depth.values[both] + 1e-4).all()


def test_clips_repeat() -> None:
    settings = equipped().model_copy(update={"frames": 2})
    first, again = list(clip(settings, fps=5.0)), list(clip(settings, fps=5.0))
    assert [item.frame.image.tobytes() for item in first] == [item.frame.image.tobytes() for item in again]


def test_smoke_drifts_over_a_clip_of_what_is_seen_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    heart = build_scene("heart", np.random.default_rng(2))
    monkeypatch.setattr(world, "open_scene", lambda *_: heart)
    clear = PhantomSettings(smoke=0.0, held=0.0, seed=4, **{**SMALL, "frames": 3})
    hazy = clear.model_copy(update={"smoke": 1.0})
    for plain, veiled in zip(clip(clear, fps=5.0), clip(hazy, fps=5.0), strict=True):
        np.testing.assert_array_equal(plain.depth.values, veiled.depth.values)
        assert (plain.frame.image != veiled.frame.image).mean() > 0.2


def test_handling_is_rigid_smooth_and_bounded() -> None:
    held = next(
        scene.held[0] for seed in range(40) if (scene := build_scene("bronchus", np.random.default_rng(seed))).held
    )
    handling = Handling.draw(np.random.default_rng(1))
    corners = held.faces[::37]
    rest = held.vertices[corners].astype(np.float64)
    last = None
    for pts_s in np.arange(0.0, 4.0, 0.04):
        motion = handling.at(float(pts_s))
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-12)
        assert abs(motion[2, 3]) <= handling.push_mm
        mesh = handling.moved(held, float(pts_s))
        now = mesh.vertices[corners].astype(np.float64)
        for a, b in ((0, 1), (1, 2)):
            before, after = (np.linalg.norm(p[:, a] - p[:, b], axis=1) for p in (rest, now))
            np.testing.assert_allclose(after, before, atol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(mesh.normals, axis=1), np.linalg.norm(held.normals, axis=1), atol=1e-4
        )
        if last is not None:
            assert np.abs(mesh.vertices - last).max() < 2.0
        last = mesh.vertices
    numbers = handling.record()
    assert numbers["push_mm"] == handling.push_mm
