"""Every anatomy: closed, well skinned, of plausible size, and disjoint between ranges of scenes."""

import numpy as np
import pytest

pytest.importorskip("numba")

from endolux.errors import UsageError
from endolux.phantom.isosurface import cone_net, round_cones, surface_net
from endolux.phantom.labels import Label
from endolux.phantom.landmarks import Landmark, Line, draw
from endolux.phantom.lumen import LumenShape, build_lumen
from endolux.phantom.mesh import join
from endolux.phantom.pose import Outlook, look_at, sample_outside, sample_sight
from endolux.phantom.scene import ANATOMIES, build_scene
from endolux.phantom.solids import (
    Body,
    body_of,
    closed_body,
    displace,
    ellipsoid_grid,
    open_body,
    round_ends,
    skin,
    smooth_path,
    solid_noise,
    sweep_grid,
)
from endolux.phantom.world import MIX, PhantomSettings, draw_pose, frames
from endolux.types import Camera

# Percentiles of depth over a scene's views that each kind of anatomy keeps to, mm: (1 % at least, 99 % at most).
RANGES = {
    "colon": (1.0, 330.0),
    "pouch": (1.0, 330.0),
    "tube": (1.0, 260.0),
    "stomach": (1.0, 330.0),
    "small-intestine": (1.0, 240.0),
    "phantom-silicone": (1.0, 330.0),
    "bronchus": (1.0, 150.0),
    "sinus": (1.0, 90.0),
    "laparoscopy": (4.0, 380.0),
    "heart": (4.0, 260.0),
    "liver": (4.0, 380.0),
}


def edges_of(body: Body) -> dict[tuple[int, int], int]:
    """How often each directed edge occurs."""
    counts: dict[tuple[int, int], int] = {}
    for a, b in ((0, 1), (1, 2), (2, 0)):
        for start, end in body.faces[:, [a, b]].tolist():
            counts[start, end] = counts.get((start, end), 0) + 1
    return counts


def volume(body: Body) -> float:
    corners = body.vertices[body.faces].astype(np.float64)
    return float(np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


def bent_tube() -> Body:
    knots = np.array([[0.0, 0, 0], [10, 3, 2], [20, -2, 8], [24, 6, 20]])
    return closed_body(sweep_grid(smooth_path(knots, count=60), 2.0 * round_ends(60, share=0.08), columns=24))


def hollow_net() -> Body:
    x = np.linspace(-9, 9, 37, dtype=np.float32)
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1).reshape(-1, 3)
    starts = np.array([[-3.0, 0, 0], [3, 0, 0]], np.float32)
    values, _, _ = round_cones(grid, starts, starts, np.full((2, 2), 4.0, np.float32), blend_mm=1.0)
    return surface_net(values.reshape(37, 37, 37), origin=np.full(3, -9.0, np.float32), step_mm=0.5, inward=False)


@pytest.mark.parametrize(
    "body", [closed_body(ellipsoid_grid((3.0, 4.0, 5.0), rows=12, columns=16)), bent_tube(), hollow_net()]
)
def test_closed_bodies_are_watertight_and_wound_outwards(body: Body) -> None:
    counts = edges_of(body)
    assert set(counts.values()) == {1}
    assert all((end, start) in counts for start, end in counts)
    assert volume(body) > 0
    np.testing.assert_allclose(np.linalg.norm(body.normals, axis=1), 1.0, atol=1e-4)


def test_volumes_match_closed_forms() -> None:
    ball = closed_body(ellipsoid_grid((3.0, 4.0, 5.0), rows=80, columns=120))
    assert volume(ball) == pytest.approx(4 / 3 * np.pi * 60, rel=0.01)
    inside = closed_body(ellipsoid_grid((3.0, 4.0, 5.0), rows=80, columns=120), inward=True)
    assert volume(inside) == pytest.approx(-volume(ball), rel=1e-6)
    grown = displace(
        closed_body(ellipsoid_grid((5.0, 5.0, 5.0), rows=80, columns=120)), np.float32(1.0) + np.zeros(9362)
    )
    assert volume(grown) == pytest.approx(4 / 3 * np.pi * 216, rel=0.02)
    x = np.linspace(-6, 6, 49, dtype=np.float32)
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1).reshape(-1, 3)
    axis = np.array([[0.0, 0, -2]], np.float32), np.array([[0.0, 0, 2]], np.float32)
    values, _, along = round_cones(grid, *axis, np.full((1, 2), 3.0, np.float32), blend_mm=0.5)
    capsule = surface_net(values.reshape(49, 49, 49), origin=np.full(3, -6.0, np.float32), step_mm=0.25, inward=False)
    assert volume(capsule) == pytest.approx(np.pi * 9 * 4 + 4 / 3 * np.pi * 27, rel=0.01)
    near = cone_net(*axis, np.full((1, 2), 3.0), blend_mm=0.5, step_mm=0.25, inward=True)
    assert volume(near) == pytest.approx(-volume(capsule), rel=0.01)
    assert along.min() == 0
    assert along.max() == pytest.approx(4.0)


def test_a_smooth_union_only_adds() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (500, 3)).astype(np.float32)
    ends = rng.uniform(-4, 4, (2, 2, 3)).astype(np.float32)
    radii = np.full((2, 2), 1.0, np.float32)
    both, nearest, _ = round_cones(points, ends[0], ends[1], radii, blend_mm=1.0)
    parts = np.stack(
        [round_cones(points, ends[0, k : k + 1], ends[1, k : k + 1], radii[:1], blend_mm=1.0)[0] for k in (0, 1)]
    )
    assert (both <= parts.min(axis=0) + 1e-5).all()
    assert (both >= parts.min(axis=0) - 0.2501).all()
    np.testing.assert_array_equal(nearest, parts.argmin(axis=0))


def test_open_sheets_face_rows_across_columns() -> None:
    x, y = np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij")
    sheet = open_body(np.stack([x, y, 0 * x], -1))
    np.testing.assert_allclose(sheet.normals, np.broadcast_to([0, 0, 1.0], (20, 3)))


def test_degenerate_points_still_have_a_normal() -> None:
    points = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1.0, 0, 0]], np.float32)
    body = body_of(points, np.array([[0, 1, 2], [1, 2, 3]], np.int32))
    np.testing.assert_allclose(np.linalg.norm(body.normals, axis=1), 1.0, atol=1e-5)


def test_noise_has_unit_deviation_and_its_length() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 400, (4000, 3))
    noise = np.concatenate([solid_noise(np.random.default_rng(k), points, scale_mm=10.0) for k in range(4)])
    assert noise.std() == pytest.approx(1.0, abs=0.1)
    near = solid_noise(np.random.default_rng(5), points + np.array([1.0, 0, 0]), scale_mm=10.0)
    assert np.abs(near - solid_noise(np.random.default_rng(5), points, scale_mm=10.0)).mean() < 0.15


def test_skin_keeps_the_surface_and_stretches_no_texture() -> None:
    body = displace(bent_tube(), 0.1 * solid_noise(np.random.default_rng(2), bent_tube().vertices, scale_mm=2.0))
    mesh = skin(body, tissue=3, size_mm=(20.0, 40.0), label=Label.FAT)
    corners, original = mesh.vertices[mesh.faces], body.vertices[body.faces]
    np.testing.assert_array_equal(corners, original)
    assert set(mesh.tissue) == {3}
    assert set(mesh.label) == {int(Label.FAT)}
    assert ((mesh.blend >= 0) & (mesh.blend <= 1)).all()
    # Texture lengths, weighted as they are blended, stay near lengths on the surface.
    span = np.array([20.0, 40.0])
    share = mesh.blend[mesh.faces].mean(axis=1)
    for coordinates, weight in ((mesh.texture, 1 - share), (mesh.planar, share)):
        flat = (coordinates * span)[mesh.faces]
        first, second = (flat[:, 1] - flat[:, 0]).T, (flat[:, 2] - flat[:, 0]).T
        area = 0.5 * np.abs(first[0] * second[1] - first[1] * second[0])
        real = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        used = (weight > 0.5) & (real > 1e-9)
        assert (area[used] / real[used]).min() > 0.4


def test_every_anatomy_of_the_issue_is_there_and_in_the_mix() -> None:
    wanted = {
        "colon",
        "stomach",
        "small-intestine",
        "sinus",
        "bronchus",
        "laparoscopy",
        "phantom-silicone",
        "pouch",
        "tube",
    }
    assert wanted <= set(ANATOMIES)
    assert set(MIX) <= set(ANATOMIES)
    assert wanted <= set(MIX)
    assert set(RANGES) == set(ANATOMIES)
    assert sum(MIX.values()) == pytest.approx(1.0)
    with pytest.raises(UsageError, match="kidney"):
        build_scene("kidney", np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(ANATOMIES))
def test_scenes_are_well_formed_and_repeatable(name: str) -> None:
    scene, again = (build_scene(name, np.random.default_rng(21)) for _ in range(2))
    mesh = scene.mesh
    assert scene.anatomy == name
    assert mesh.vertices.tobytes() == again.mesh.vertices.tobytes()
    assert all(a.albedo.tobytes() == b.albedo.tobytes() for a, b in zip(scene.tissues, again.tissues, strict=True))
    assert mesh.vertices.tobytes() != build_scene(name, np.random.default_rng(22)).mesh.vertices.tobytes()
    assert len(mesh.tissue) == len(mesh.vertices) == len(mesh.label)
    assert int(mesh.tissue.max()) < len(scene.tissues)
    # All corners of a face agree on the tissue: it is never interpolated.
    assert (mesh.tissue[mesh.faces] == mesh.tissue[mesh.faces[:, :1]]).all()
    assert set(np.unique(mesh.label)) <= {int(label) for label in Label}
    for array in (mesh.vertices, mesh.normals, mesh.texture, mesh.planar, mesh.blend, mesh.detail, mesh.tint):
        assert np.isfinite(array).all()
    assert (mesh.tint > 0).all()
    for tissue in scene.tissues:
        assert 0 < tissue.albedo.min() <= tissue.albedo.max() < 1
    # Numbers for the manifest only.
    assert all(isinstance(value, (int, float, str)) for value in scene.record.values())


@pytest.mark.parametrize("name", sorted(ANATOMIES))
def test_views_are_usable_and_of_plausible_depth(name: str) -> None:
    settings = PhantomSettings(anatomies={name: 1.0}, frames=4, width=64, height=52, views_per_scene=2, seed=5)
    low, high = RANGES[name]
    for item in frames(settings):
        inside = item.frame.valid
        assert item.depth.valid[inside].mean() > 0.9
        depth = item.depth.values[item.depth.valid]
        # Views are judged on a sixteenth of the pixels: at this size a near corner can slip through.
        assert np.percentile(depth, 2) > low
        assert np.percentile(depth, 99) < high
        assert item.labels[item.depth.valid].min() > 0
        assert item.frame.image[inside].std() > 3


def test_a_laparoscopic_scene_holds_organs_of_very_different_albedo() -> None:
    contrasts = []
    for seed in range(6):
        scene = build_scene("laparoscopy", np.random.default_rng(seed))
        levels = [float(tissue.albedo.mean()) for tissue in scene.tissues]
        contrasts.append(max(levels) / min(levels))
        labels = set(np.unique(scene.mesh.label))
        assert {int(Label.FAT), int(Label.ABDOMINAL_WALL)} <= labels
        assert bool(scene.lines) == (int(Label.LIVER) in labels)
        assert scene.outlook is not None
    assert np.median(contrasts) > 2.5


def test_a_heart_bulges_towards_the_camera() -> None:
    scene = build_scene("heart", np.random.default_rng(3))
    heart = scene.mesh.label == Label.HEART
    centre = scene.mesh.vertices[heart].mean(axis=0)
    outward = ((scene.mesh.vertices[heart] - centre) * scene.mesh.normals[heart]).sum(axis=1)
    # The undersides of the vessels on it are the rest.
    assert (outward > 0).mean() > 0.75


def test_a_carina_lies_between_two_openings() -> None:
    ends = np.array([[-5.0, 0, 10], [5, 0, 10]], np.float32)
    starts = np.zeros((2, 3), np.float32)
    axis = np.array([[0.0, 0, z] for z in (0.0, 9.0)], np.float32)
    values, _, _ = round_cones(axis, starts, ends, np.full((2, 2), 2.0, np.float32), blend_mm=0.3)
    assert values[0] < 0 < values[1]


def test_a_neck_narrows_the_lumen_and_pits_leave_it() -> None:
    base = {
        "length_mm": 150, "radius_mm": 20, "radius_variation": 0, "cap_mm": 20, "bend_per_100mm": 0, "lobes": 0,
        "lobe_depth": 0, "fold_spacing_mm": 0, "fold_height": 0, "fold_width_mm": 2, "fold_rows": 1,
        "fold_sharpness": 2, "fold_lean": 0, "rugae_mm": 0, "bumps_mm": 0, "bump_length_mm": 9, "cap_ridge_mm": 0,
    }  # fmt: skip
    _, plain, grid = build_lumen(np.random.default_rng(0), LumenShape.model_validate(base))
    necked = {"neck_at": 0.6, "neck_radius_mm": 4.0}
    _, narrow, _ = build_lumen(np.random.default_rng(0), LumenShape.model_validate(base | necked))
    at = int(0.6 * len(narrow.radius_mm))
    assert narrow.radius_mm[at] == pytest.approx(4.0, abs=0.2)
    assert plain.radius_mm[at] == pytest.approx(20.0, rel=1e-3)
    _, _, pitted = build_lumen(np.random.default_rng(0), LumenShape.model_validate(base | {"diverticula": 8}))
    reach = np.linalg.norm(pitted[..., :2], axis=-1) - np.linalg.norm(grid[..., :2], axis=-1)
    assert reach.max() > 1.5
    assert reach.min() > -1e-3


def test_bends_never_fold_a_lumen_through_itself() -> None:
    for seed in range(4):
        scene = build_scene("stomach", np.random.default_rng(seed))
        line = scene.centreline
        turn = np.arccos(np.clip((line.frames[1:, :, 2] * line.frames[:-1, :, 2]).sum(1), -1, 1)) / line.step_mm
        assert (turn[5:-5] * line.radius_mm[6:-5]).max() < 0.95


def test_look_at_and_outside_views_point_at_their_target() -> None:
    pose = look_at(np.array([1.0, 2, 3]), np.array([1.0, 2, 50]), np.array([0.0, -1, 0]), roll=0.3)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose[:3, 2], [0, 0, 1], atol=1e-12)
    outlook = Outlook(
        np.zeros((1, 3), np.float32), np.array([[0, 0, 200.0]], np.float32), (0.0, 1.0, 0.0), (20.0, 150.0)
    )
    rng = np.random.default_rng(0)
    poses = [sample_outside(rng, outlook) for _ in range(200)]
    distances = np.array([np.linalg.norm(pose[:3, 3]) for pose in poses])
    assert distances.min() > 12
    assert distances.max() < 200
    towards = [float(pose[:3, 2] @ -pose[:3, 3] / np.linalg.norm(pose[:3, 3])) for pose in poses]
    assert np.median(towards) > 0.9
    # A target straight above the lens has no up direction of its own; the pose is still a rotation.
    above = look_at(np.zeros(3), np.array([0, 0, 5.0]), np.array([0, 0, 1.0]), roll=0.0)
    assert np.linalg.det(above[:3, :3]) == pytest.approx(1.0)


def test_sights_are_looked_at() -> None:
    scene = next(s for s in (build_scene("sinus", np.random.default_rng(k)) for k in range(9)) if s.sights is not None)
    assert scene.sights is not None
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        pose = sample_sight(rng, scene.centreline, scene.sights)
        offset = scene.sights - pose[:3, 3]
        hits += bool(((offset @ pose[:3, 2]) / np.linalg.norm(offset, axis=1)).max() > 0.9)
    assert hits > 50
    assert np.isfinite(draw_pose(rng, scene)).all()


def test_lines_are_drawn_where_they_are_seen_and_hidden_where_not() -> None:
    camera = Camera(width=96, height=72, fx=80.0, fy=80.0, cx=47.5, cy=35.5)
    depth = np.full((72, 96), 100.0, np.float32)
    depth[:, 48:] = 40.0
    labels = np.full((72, 96), int(Label.FAT), np.uint8)
    labels[20:50, 10:40] = Label.LIVER
    depth[20:50, 10:40] = 80.0
    ridge = np.stack([np.linspace(-40, 40, 60), np.full(60, 10.0), np.full(60, 80.0)], 1).astype(np.float32)
    seen = draw((Line(Landmark.RIDGE, ridge),), camera, np.eye(4), depth, labels)
    row = round(35.5 + 80 * 10 / 80)
    assert (seen[row, 12:38] == Landmark.RIDGE).all()
    # Right of column 48 something nearer covers the line.
    assert not (seen[:, 52:] == Landmark.RIDGE).any()
    # The upper outline lies before what is behind it: silhouette; the part beside the ridge is not.
    assert (seen[20, 12:38] == Landmark.SILHOUETTE).all()
    assert not (seen[row - 1 : row + 2, 12:38] == Landmark.SILHOUETTE).any()
    assert not draw((), camera, np.eye(4), depth, np.zeros_like(labels)).any()


def test_join_keeps_tissues_apart() -> None:
    ball = closed_body(ellipsoid_grid((3.0, 4.0, 5.0), rows=12, columns=16))
    parts = [skin(ball, tissue=k, size_mm=(10.0, 10.0), label=Label.FAT) for k in (0, 2)]
    both = join(parts)
    assert sorted(set(both.tissue)) == [0, 2]
    np.testing.assert_array_equal(both.tissue[both.faces[: len(parts[0].faces)]], 0)


def test_ranges_of_scenes_share_no_family() -> None:
    names = {"heart": 0.5, "sinus": 0.5}
    train = PhantomSettings(anatomies=names, frames=2, width=32, height=24, views_per_scene=1, seed=1)
    held_out = train.model_copy(update={"first_scene": 2})
    first = {item.frame.image.tobytes() for item in frames(train)}
    assert not first & {item.frame.image.tobytes() for item in frames(held_out)}
