"""Instruments and what lies about in an organ."""

import numpy as np
import pytest

pytest.importorskip("numba")

from endolux.phantom.assembly import Assembly
from endolux.phantom.labels import TOOLS as TOOL_LABELS
from endolux.phantom.labels import Label
from endolux.phantom.litter import BLOOD, THINGS, Ground, furnish, smear
from endolux.phantom.looks import LOOKS
from endolux.phantom.organs import organ_tissue
from endolux.phantom.render import Renderer
from endolux.phantom.scene import build_scene
from endolux.phantom.scope import sample_scope
from endolux.phantom.smoke import veil
from endolux.phantom.solids import closed_body, ellipsoid_grid, skin
from endolux.phantom.things import clump, hemoclip, pool, strand, suture
from endolux.phantom.tools import HELD, TOOLS, in_channel, laparoscopic, lay_out, rod
from endolux.phantom.world import PhantomSettings, views


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_heads_have_their_tip_at_the_origin_and_lie_before_the_shaft(name: str) -> None:
    for seed in range(3):
        parts = TOOLS[name](np.random.default_rng(seed))
        points = np.concatenate([part.body.vertices for part in parts])
        assert -1.5 < points[:, 2].min() < 1.5
        assert points[:, 2].max() < 70
        assert all(part.label in TOOL_LABELS for part in parts)
        assert np.isfinite(points).all()


def test_an_instrument_is_one_long_piece() -> None:
    seen = set()
    for seed in range(20):
        name, parts = laparoscopic(np.random.default_rng(seed))
        seen.add(name)
        shaft = next(part.body for part in parts if part.label is Label.TOOL_SHAFT)
        head = np.concatenate([part.body.vertices for part in parts if part.label is Label.TOOL_TIP])
        # The shaft starts inside the head.
        assert shaft.vertices[:, 2].min() < head[:, 2].max()
        assert np.ptp(shaft.vertices[:, 2]) > 200
    assert len(seen) >= 5


def test_instruments_are_laid_from_their_trocar_to_their_tip() -> None:
    rng = np.random.default_rng(0)
    kit = Assembly(rng, rich=0.0)
    tips, entries = np.array([[0.0, 0, 0], [30, 0, 0]]), np.array([[100.0, 0, 100], [-60, 80, 90]])
    names = lay_out(kit, rng, tips=tips, entries=entries)
    mesh = kit.mesh()
    assert len(names) == 2
    for tip, entry in zip(tips, entries, strict=True):
        assert np.linalg.norm(mesh.vertices - tip, axis=1).min() < 6
        assert np.linalg.norm(mesh.vertices - entry, axis=1).min() < 6
    assert set(mesh.label) == {int(label) for label in TOOL_LABELS}


@pytest.mark.parametrize("name", sorted(HELD))
def test_channel_instruments_come_from_beside_the_lens_into_the_view(name: str) -> None:
    parts = HELD[name](np.random.default_rng(1))
    points = np.concatenate([part.body.vertices for part in parts])
    assert points[:, 2].min() < 0
    assert 5 < points[:, 2].max() < 60
    assert {part.label for part in parts} == set(TOOL_LABELS)


def test_a_held_instrument_is_seen_labelled_and_nearer_than_the_wall() -> None:
    rng = np.random.default_rng(4)
    scene = next(s for s in (build_scene("colon", np.random.default_rng(k)) for k in range(40)) if s.held)
    assert int(scene.held[0].tissue.max()) < len(scene.tissues)
    renderer = Renderer(scene)
    scope = sample_scope(rng, width=80, height=64)
    line = scene.centreline
    pose = np.eye(4)
    middle = len(line.points) // 2
    pose[:3, :3], pose[:3, 3] = line.frames[middle], line.points[middle]
    without, held = renderer.surface(scope, pose), renderer.surface(scope, pose, held=scene.held[0])
    tool = np.isin(held.labels, [int(label) for label in TOOL_LABELS])
    assert tool.any()
    assert not np.isin(without.labels, [int(label) for label in TOOL_LABELS]).any()
    assert (held.depth_mm[tool] <= without.depth_mm[tool] + 1e-3).all()
    np.testing.assert_allclose(held.depth_mm[~tool], without.depth_mm[~tool], rtol=1e-4)


def test_channel_instruments_carry_tissues_of_their_scene() -> None:
    rng = np.random.default_rng(0)
    kit = Assembly(rng, rich=0.0)
    kit.tissue("mucosa", side=64)
    mesh = in_channel(kit, rng)
    assert set(mesh.tissue) <= {1, 2}
    assert [tissue.palette for tissue in kit.tissues] == ["mucosa", "metal", "plastic"]


def test_rods_are_round_and_as_long_as_asked() -> None:
    body = rod(np.zeros(3), np.array([0.0, 0, 50]), 2.5)
    middle = body.vertices[(body.vertices[:, 2] > 5) & (body.vertices[:, 2] < 45)]
    np.testing.assert_allclose(np.linalg.norm(middle[:, :2], axis=1), 2.5, rtol=1e-4)
    assert np.ptp(body.vertices[:, 2]) == pytest.approx(50, abs=0.1)


@pytest.mark.parametrize("kind", sorted(LOOKS))
def test_tissues_of_every_kind_are_physical(kind: str) -> None:
    tissue = organ_tissue(np.random.default_rng(0), kind, side=64)
    assert tissue.palette == kind
    assert 0 < tissue.albedo.min() <= tissue.albedo.max() < 1
    assert 0 < tissue.roughness.min() <= tissue.roughness.max() <= 1
    assert 0 <= tissue.specular < 1
    assert tissue.albedo.tobytes() == organ_tissue(np.random.default_rng(0), kind, side=64).albedo.tobytes()


def test_metal_mirrors_and_plastic_does_not() -> None:
    metal = [organ_tissue(np.random.default_rng(k), "metal", side=32).specular for k in range(5)]
    plastic = [organ_tissue(np.random.default_rng(k), "plastic", side=32).specular for k in range(5)]
    assert min(metal) > 4 * max(plastic)


def test_things_stay_where_they_are_put() -> None:
    rng = np.random.default_rng(0)
    at, up = np.array([10.0, 20, 30]), np.array([0.0, 0, 1])
    for body, reach in (
        (clump(rng, at, up, 3.0), 6.0),
        (hemoclip(rng, at, up), 12.0),
        (suture(rng, at, up), 14.0),
        (strand(rng, at, at + 8.0, 0.4), 20.0),
    ):
        assert np.linalg.norm(body.vertices - at, axis=1).max() < reach
    level = pool(rng, at, up, 15.0)
    assert np.ptp(level.vertices[:, 2]) < 0.6
    assert level.normals[:, 2].mean() > 0.95


def test_a_smear_stains_near_its_centre_only() -> None:
    ball = closed_body(ellipsoid_grid((30.0, 30.0, 30.0), rows=60, columns=90))
    mesh = skin(ball, tissue=0, size_mm=(50.0, 50.0), label=Label.FAT)
    stained = smear(
        np.random.default_rng(1), mesh, centre=np.array([0, 0, 30.0]), radius_mm=8.0, colour=BLOOD, label=Label.BLOOD
    )
    changed = (stained.tint != mesh.tint).any(axis=1)
    assert changed.any()
    assert np.linalg.norm(mesh.vertices[changed] - [0, 0, 30], axis=1).max() < 20
    assert (stained.tint[:, 1] <= mesh.tint[:, 1]).all()
    assert int(Label.BLOOD) in stained.label
    assert (mesh.label == Label.FAT).all()


def test_furnishing_gives_every_thing_in_time() -> None:
    seen: set[str] = set()
    ball = closed_body(ellipsoid_grid((20.0, 20.0, 20.0), rows=24, columns=36), inward=True)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kit = Assembly(rng, rich=0.0)
        kit.adopt(organ_tissue(np.random.default_rng(0), "mucosa", side=32))
        kit.add(ball, 0, Label.WALL)
        seen |= set(furnish(kit, rng, Ground(ball.vertices, ball.normals, size_mm=20.0, inside=True)))
        assert int(kit.mesh().tissue.max()) < len(kit.tissues)
    assert seen == set(THINGS)


def test_smoke_veils_the_far_more_than_the_near_and_keeps_clear_air() -> None:
    depth = np.full((40, 40), 20.0, np.float32)
    depth[:, 20:] = 200.0
    light = np.zeros((40, 40, 3), np.float32)
    light[::2] = 1.0
    clear = veil(light, depth, np.random.default_rng(0), density=0.0)
    np.testing.assert_array_equal(clear, light)
    hazy = veil(light, depth, np.random.default_rng(0), density=1.0)
    contrast = np.abs(np.diff(hazy.mean(axis=-1), axis=0))
    assert contrast[:, 25:].mean() < 0.5 * contrast[:, :15].mean()
    assert (hazy >= 0).all()


def test_tools_appear_in_laparoscopic_views() -> None:
    settings = PhantomSettings(anatomies={"laparoscopy": 1.0}, width=48, height=40, views_per_scene=1, seed=2)
    found = 0
    for scene in range(6):
        found += any(
            np.isin(item.labels, [int(label) for label in TOOL_LABELS]).any() for item in views(settings, scene)
        )
    assert found >= 1
