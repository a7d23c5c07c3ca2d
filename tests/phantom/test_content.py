"""What stands in view: growths and organs that fill the picture, instruments of the nose, smoke, clean edges."""

import numpy as np
import pytest

pytest.importorskip("numba")

from endolux.phantom.isosurface import cone_net
from endolux.phantom.labels import TOOLS, Label
from endolux.phantom.lumen import LumenShape, build_lumen
from endolux.phantom.pose import Outlook, patches, sample_close, sample_outside
from endolux.phantom.presets import settings_of
from endolux.phantom.render import Renderer
from endolux.phantom.scene import build_scene
from endolux.phantom.solids import closed_body, ellipsoid_grid
from endolux.phantom.streams import stream
from endolux.phantom.tools import NASAL
from endolux.phantom.world import PhantomSettings, draw_pose, views

SMALL = {"width": 64, "height": 48, "seed": 2}
PLAIN = {
    "length_mm": 150, "radius_mm": 20, "radius_variation": 0, "cap_mm": 10, "bend_per_100mm": 0, "lobes": 0,
    "lobe_depth": 0, "fold_spacing_mm": 30, "fold_height": 0.6, "fold_width_mm": 1.8, "fold_rows": 1,
    "fold_sharpness": 2, "fold_lean": 0, "rugae_mm": 0, "bumps_mm": 0, "bump_length_mm": 9, "cap_ridge_mm": 0,
}  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_crest_of_a_fold_has_no_teeth(seed: int) -> None:
    _, line, grid = build_lumen(np.random.default_rng(seed), LumenShape.model_validate(PLAIN))
    reach = np.linalg.norm(grid - line.points[:, None], axis=2)[:, :-1]
    # The free radius at the crest of the highest fold, column by column: one ring has one height, although it winds
    # between the rows.
    crest = reach[30:-30].min(axis=0)
    assert crest.max() < 17
    assert np.ptp(crest) < 0.02


def test_the_rim_between_two_cells_is_smooth() -> None:
    balls = np.array([[0.0, 0, 0], [0, 0, 11]], np.float32)
    net = cone_net(balls, balls, np.full((2, 2), 7.0, np.float32), blend_mm=1.2, step_mm=0.3, inward=True)
    rim = net.vertices[np.abs(net.vertices[:, 2] - 5.5) < 0.3]
    radius = np.linalg.norm(rim[:, :2], axis=1)
    assert radius.min() > 3
    # The narrowest ring is a circle to a tenth of the grid's spacing.
    around = np.arctan2(rim[:, 1], rim[:, 0])
    bins = ((around + np.pi) / (2 * np.pi) * 24).astype(int) % 24
    narrowest = np.array([radius[bins == k].min() for k in range(24)])
    assert np.ptp(narrowest) < 0.06


def test_close_views_face_a_growth_from_where_there_is_room() -> None:
    scene = build_scene("colon", np.random.default_rng(5))
    line = scene.centreline
    growths = np.array([[*(line.points[100] + 15 * line.frames[100, :, 0]), 6.0]], np.float32)
    rng = np.random.default_rng(0)
    for _ in range(30):
        pose = sample_close(rng, line, growths)
        local = (growths[0, :3] - pose[:3, 3]) @ pose[:3, :3]
        distance = float(np.linalg.norm(local))
        assert 6.0 + 2.4 < distance < 18.1
        # The axis of the camera meets the growth, or nearly.
        assert np.hypot(*local[:2]) < 1.3 * 6.0
        assert local[2] > 0
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


def test_growths_are_bodies_of_the_scene() -> None:
    for seed in range(12):
        scene = build_scene("colon", np.random.default_rng(seed))
        count = int(scene.record["polyps"]) + int(scene.record["masses"])
        assert count == (0 if scene.growths is None else len(scene.growths))
        if scene.growths is None:
            continue
        polyps = scene.mesh.vertices[scene.mesh.label == Label.POLYP]
        for *centre, radius in scene.growths:
            near = np.linalg.norm(polyps - np.asarray(centre), axis=1)
            assert near.min() < 1.2 * radius
        return
    pytest.fail("no growth in twelve colons")


def test_patches_lie_outside_and_views_of_them_look_at_the_organ() -> None:
    body = closed_body(ellipsoid_grid((30.0, 30.0, 30.0), rows=40, columns=60))
    found = patches(body, body.vertices, stride=7)
    assert found.shape[1:] == (2, 3)
    assert ((found[:, 0] * found[:, 1]).sum(1) > 0).all()
    assert (found[:, 1, 2] > -0.15).all()
    far = np.array([[0.0, 0.0, 500.0]], np.float32)
    outlook = Outlook(far, far + 90, (0.0, 1.0, 0.0), (15.0, 80.0), found)
    rng = np.random.default_rng(1)
    poses = [sample_outside(rng, outlook) for _ in range(200)]
    close = [pose for pose in poses if np.linalg.norm(pose[:3, 3]) < 90]
    assert 0.1 < len(close) / len(poses) < 0.5
    for pose in close:
        assert np.linalg.norm(pose[:3, 3]) > 30
        assert -pose[:3, 3] @ pose[:3, 2] > 0


@pytest.mark.parametrize(
    ("anatomy", "label", "often"), [("heart", Label.HEART, 0.25), ("laparoscopy", Label.LIVER, 0.1)]
)
def test_organs_from_outside_often_fill_the_view(anatomy: str, label: Label, often: float) -> None:
    scope = settings_of("clean", SMALL).instrument(np.random.default_rng(0))
    shares = []
    for seed in range(2):
        scene = build_scene(anatomy, np.random.default_rng(seed))
        renderer, rng = Renderer(scene), np.random.default_rng(seed)
        for _ in range(40):
            glance = renderer.probe(scope, draw_pose(rng, scene))
            if glance.facing > 0.95:
                shares.append(float((glance.labels[glance.depth_mm > 0] == label).mean()))
    assert (np.array(shares) > 0.5).mean() > often


@pytest.mark.parametrize("anatomy", ["sinus", "bronchus"])
def test_airways_show_instruments(anatomy: str) -> None:
    scenes = [build_scene(anatomy, np.random.default_rng(seed)) for seed in range(8)]
    equipped = [scene for scene in scenes if scene.held]
    assert 1 <= len(equipped) < 8
    mesh = equipped[0].held[0]
    assert set(np.unique(mesh.label)) <= {int(label) for label in TOOLS}
    # Beside the lens at its mouth, ahead of it at its tip.
    assert mesh.vertices[:, 2].max() > 6
    at_lens = mesh.vertices[np.abs(mesh.vertices[:, 2]) < 2]
    assert np.linalg.norm(at_lens[:, :2], axis=1).max() < 8
    assert int(mesh.tissue.max()) < len(equipped[0].tissues)


def test_nasal_instruments_point_forwards() -> None:
    assert {"cutting-forceps", "suction", "shaver"} <= set(NASAL)
    for name in sorted(NASAL):
        parts = NASAL[name](np.random.default_rng(0))
        ends = [float(part.body.vertices[:, 2].max()) for part in parts]
        assert max(ends) > 6
        for part in parts:
            body = part.body
            corners = body.vertices[body.faces].astype(np.float64)
            assert np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() > 0


def test_smoke_hangs_in_single_views_of_both_streams() -> None:
    wanted = {"anatomies": {"heart": 1.0}, "frames": 2, "views_per_scene": 2, **SMALL}
    clear = list(stream("train", smoke=0.0, **wanted))
    smoky = list(stream("train", smoke=1.0, **wanted))
    for a, b in zip(clear, smoky, strict=True):
        np.testing.assert_array_equal(a.depth.values, b.depth.values)
        assert (a.frame.image != b.frame.image).any()
        assert a.view["smoke"] is None
        assert isinstance(b.view["smoke"], dict)
        assert 0.1 <= b.view["smoke"]["density"] <= 1.2
    lumen = next(stream("train", smoke=1.0, **{**wanted, "anatomies": {"tube": 1.0}}))
    assert lumen.view["smoke"] is None
    plain = PhantomSettings(smoke=1.0, rich_texture=0.3, **wanted)
    for shot, frame in zip(smoky, views(plain, 0), strict=True):
        np.testing.assert_array_equal(shot.frame.image, frame.frame.image)


def test_an_abdomen_without_an_organ_in_reach_shows_its_floor() -> None:
    # Neither liver nor bowel nor another organ: one scene in two hundred.
    scene = build_scene("laparoscopy", np.random.default_rng(179))
    assert not set(np.unique(scene.mesh.label)) & {int(Label.LIVER), int(Label.BOWEL), int(Label.STOMACH)}
    assert scene.outlook is not None
    assert scene.outlook.patches is None
    targets = scene.outlook.targets
    assert len(targets) > 50
    assert np.abs(targets[:, 0]).max() < 110
    renderer, rng = Renderer(scene), np.random.default_rng(0)
    scope = settings_of("clean", SMALL).instrument(rng)
    assert max(renderer.probe(scope, draw_pose(rng, scene)).facing for _ in range(6)) > 0.9
