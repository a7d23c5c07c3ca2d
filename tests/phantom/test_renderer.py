"""The phantom's renderer: visibility, lenses, light, sensor and motion against closed forms and other programs."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

pytest.importorskip("numba")

from test_physics import grid_mesh, plain_tissue, plane, scene_of, scope

from endolux.errors import UsageError
from endolux.geometry.cameras import project, rays
from endolux.phantom import sensor
from endolux.phantom.fields import fractal_field, smooth_field
from endolux.phantom.lens import coefficients as lens_coefficients
from endolux.phantom.lens import pencil, pixel_of, rays_of, slopes
from endolux.phantom.mesh import Mesh, join
from endolux.phantom.powers import exp2, log2
from endolux.phantom.raster import Raster, grid_of_rays
from endolux.phantom.render import Renderer, Surface, flow
from endolux.phantom.scene import build_scene
from endolux.phantom.scope import Light, Scope, sample_scope
from endolux.phantom.tissue import Tissue
from endolux.phantom.vessels import vessel_map
from endolux.types import Camera, CameraModel

SIZE = {"width": 96, "height": 80, "cx": 48.3, "cy": 39.1}
CAMERAS = {
    "pinhole": Camera(fx=60.0, fy=58.0, **SIZE),
    "barrel": Camera(fx=60.0, fy=58.0, model=CameraModel.RADTAN, distortion=(-0.08, 0.01, 0.0, 0.0), **SIZE),
    "decentred": Camera(fx=70.0, fy=70.0, model=CameraModel.RADTAN, distortion=(0.05, 0.0, 0.004, -0.003), **SIZE),
    "eight": Camera(
        fx=60.0, fy=60.0, model=CameraModel.RADTAN, distortion=(0.2, 0.01, 0.0, 0.0, 0.0, 0.3, 0.01, 0.0), **SIZE
    ),
    "fisheye": Camera(fx=45.0, fy=44.0, model=CameraModel.FISHEYE, distortion=(-0.02, 0.005, 0.0, 0.0), **SIZE),
    "170 degrees": Camera(fx=42.0, fy=42.0, model=CameraModel.FISHEYE, distortion=(0.0, 0.0, 0.0, 0.0), **SIZE),
}


def spin(rng: np.random.Generator) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if np.linalg.det(pose[:3, :3]) < 0:
        pose[:3, 0] *= -1
    return pose


def shifted(mesh: Mesh, offset: tuple[float, float, float]) -> Mesh:
    return dataclasses.replace(mesh, vertices=mesh.vertices + np.asarray(offset, np.float32))


def patch(half: float, z: float, *, tissue: int = 0, label: int = 1) -> Mesh:
    y, x = np.meshgrid(np.linspace(-half, half, 5), np.linspace(-half, half, 5), indexing="ij")
    mesh = grid_mesh(np.stack([x, y, np.full_like(x, z)], -1))
    return dataclasses.replace(mesh, tissue=np.full(25, tissue, np.uint8), label=np.full(25, label, np.uint8))


def soup(rng: np.random.Generator, count: int = 900) -> Mesh:
    """Triangles of all sizes all around, some through the near plane."""
    centre = rng.normal(size=(count, 1, 3)) * 25.0
    corners = centre + rng.normal(size=(count, 3, 3)) * np.exp(rng.normal(0.3, 1.2, (count, 1, 1)))
    vertices = corners.reshape(-1, 3).astype(np.float32)
    total = len(vertices)
    return Mesh(
        vertices=vertices,
        faces=np.arange(total, dtype=np.int32).reshape(-1, 3),
        normals=np.tile(np.float32([0, 0, -1]), (total, 1)),
        texture=np.zeros((total, 2), np.float32),
        planar=np.zeros((total, 2), np.float32),
        blend=np.zeros(total, np.float32),
        detail=np.zeros((total, 2), np.float32),
        tint=np.ones((total, 3), np.float32),
        label=np.ones(total, np.uint8),
    )


# --- visibility


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_raster_meets_what_embree_meets(name: str) -> None:
    pytest.importorskip("embreex")
    from endolux.phantom.raycast import RayCaster

    rng = np.random.default_rng(sorted(CAMERAS).index(name))
    mesh, pose = soup(rng), spin(rng)
    pose[:3, 3] = rng.normal(size=3)
    local = rays_of(CAMERAS[name])
    usable = np.isfinite(local).all(axis=1)
    directions = (local[usable].astype(np.float64) @ pose[:3, :3].T).astype(np.float32)
    truth = RayCaster(mesh).nearest(np.broadcast_to(pose[:3, 3].astype(np.float32), directions.shape), directions)
    raster = Raster(mesh)
    seen = raster.cast(pencil(CAMERAS[name]), pose, rays=len(local))
    assert (seen.face[~usable] == -1).all()
    depth, face = seen.depth_mm[usable], seen.face[usable]
    hit = truth.face >= 0
    assert 0.3 < hit.mean() < 1.0
    same = np.isfinite(depth) == hit
    # Rays that graze an edge may fall on either side of it.
    assert same.mean() > 0.999
    both = same & hit
    close = np.abs(depth[both] / truth.distance[both] - 1) < 1e-4
    assert close.mean() > 0.998
    corners = mesh.vertices[raster.faces[face[both]]].astype(np.float64)
    u, v = seen.u[usable][both, None], seen.v[usable][both, None]
    points = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
    there = (points - pose[:3, 3]) @ pose[:3, :3]
    np.testing.assert_allclose(there[:, 2], depth[both], rtol=1e-3, atol=1e-3)


def test_shadow_rays_agree_with_embree_exactly() -> None:
    pytest.importorskip("embreex")
    from endolux.phantom.raycast import RayCaster

    rng = np.random.default_rng(3)
    mesh, pose = soup(rng, 300), spin(rng)
    points = rng.uniform(-20, 20, (4000, 3)).astype(np.float32)
    points[:, 2] = np.abs(points[:, 2]) + 2
    light = (3.0, -1.0, 0.4)
    world = (points @ pose[:3, :3].T).astype(np.float32)
    at = (pose[:3, :3] @ np.asarray(light)).astype(np.float32)
    truth = RayCaster(mesh).visible(world, at)
    assert 0.05 < truth.mean() < 0.95
    assert (Raster(mesh).visible(points, light, pose) == truth).mean() > 0.9995


def test_wide_images_have_the_same_shadows_as_full_ones() -> None:
    scene = build_scene("colon", np.random.default_rng(2))
    light = Light((4.0, 1.0, 0.0), power=1.0, beam=0.0, casts_shadow=True)
    camera = Camera(width=160, height=128, fx=80.0, fy=80.0, cx=79.5, cy=63.5)
    at = len(scene.centreline.points) // 3
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = scene.centreline.frames[at], scene.centreline.points[at]
    renderer = Renderer(scene)
    wide = renderer.surface(
        dataclasses.replace(scope(), camera=camera, lights=(light,), content=np.ones((128, 160), bool)), pose
    )
    points = rays_of(camera) * wide.depth_mm.reshape(-1, 1)
    clear = Raster(scene.mesh).visible(points, light.position_mm, pose).reshape(128, 160)
    assert 0.005 < 1 - clear.mean() < 0.6
    dark = cv2.erode((~clear).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (wide.radiance[..., 1][dark] <= 1e-3 * wide.radiance[..., 1].max()).all()
    # Darkness has no other cause than a shadow or a surface turned away.
    black = (wide.radiance[..., 1] == 0) & clear
    free = cv2.GaussianBlur(clear.astype(np.float32), (0, 0), 1.0)
    assert (black & (free > 0.5)).mean() < 0.01


def test_points_that_no_light_can_reach_count_as_seen() -> None:
    raster = Raster(plane(5.0))
    points = np.array([[0, 0, -4], [np.nan, 0, 3], [0, 0, np.inf]], np.float32)
    assert raster.visible(points, (0.0, 0.0, 0.0), np.eye(4)).all()


def test_a_closed_surface_has_no_cracks() -> None:
    latitude, longitude = np.meshgrid(np.linspace(0, np.pi, 90), np.linspace(0, 2 * np.pi, 181), indexing="ij")
    ball = 10 * np.stack(
        [np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)], -1
    )
    raster = Raster(grid_mesh(ball, wrap=True))
    axis = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    for seed in range(3):
        pose = spin(np.random.default_rng(seed))
        pose[:3, 3] = np.random.default_rng(seed).uniform(-4, 4, 3)
        seen = raster.cast(grid_of_rays(u.reshape(-1), v.reshape(-1)), pose)
        assert (seen.face >= 0).all()


# --- lenses


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_rays_match_the_cameras_and_opencv(name: str) -> None:
    camera = CAMERAS[name]
    u, v = slopes(camera)
    exact = rays(camera)
    known = np.isfinite(u)
    assert known.mean() > 0.8
    # The other program finds the limit of the lens by iteration: at the very rim they may differ.
    assert (known == np.isfinite(exact[..., 0])).mean() > 0.98
    both = known & np.isfinite(exact[..., 0])
    points = np.stack([u[both], v[both], np.ones(both.sum())], -1).astype(np.float64)
    rows, columns = np.nonzero(both)
    pixels = np.stack([columns, rows], -1)
    np.testing.assert_allclose(project(points, camera), pixels, atol=2e-3)
    if camera.model is CameraModel.FISHEYE:
        bent = cv2.fisheye.distortPoints(
            points[:, None, :2], camera.matrix, np.asarray(camera.distortion, np.float64)
        ).reshape(-1, 2)
        np.testing.assert_allclose(bent, pixels, atol=5e-3)
    kind, numbers = lens_coefficients(camera)
    for k in range(0, len(points), 971):
        np.testing.assert_allclose(pixel_of(*(points[k] * 7.0), kind, numbers), pixels[k], atol=2e-3)


def test_a_lens_of_170_degrees_sees_that_far_and_no_farther() -> None:
    camera = CAMERAS["170 degrees"]
    u, v = slopes(camera)
    angle = np.rad2deg(np.arctan(np.hypot(u, v)))
    radius = np.hypot((np.arange(96) - camera.cx) / camera.fx, ((np.arange(80) - camera.cy) / camera.fy)[:, None])
    np.testing.assert_array_equal(np.isfinite(u), radius < np.pi / 2 - 1e-6)
    np.testing.assert_allclose(angle[np.isfinite(u)], np.rad2deg(radius[np.isfinite(u)]), atol=1e-3)


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_depth_of_a_plane_is_exact_through_every_lens(name: str) -> None:
    seen = Renderer(scene_of(plane(40.0, slope=0.3))).surface(
        dataclasses.replace(scope(), camera=CAMERAS[name], content=np.ones((80, 96), bool)), np.eye(4)
    )
    u, _ = slopes(CAMERAS[name])
    with np.errstate(invalid="ignore"):
        truth = np.where(np.isfinite(u) & (u * 0.3 < 1), 40.0 / (1 - 0.3 * u), 0.0)
    inside = seen.depth_mm > 0
    assert inside.mean() > 0.7
    np.testing.assert_allclose(seen.depth_mm[inside], truth[inside], rtol=1e-5)
    assert np.isfinite(seen.radiance).all()


# --- light


def _spot(**changes: object) -> Scope:
    light = Light((0.0, 0.0, 0.0), power=1.0, beam=0.0, casts_shadow=False)
    return dataclasses.replace(scope(), lights=(dataclasses.replace(light, **changes),))


def test_beam_and_cone_shape_the_emission() -> None:
    renderer = Renderer(scene_of(plane(40.0)))
    even = renderer.surface(_spot(), np.eye(4)).radiance[..., 0]
    direction = rays_of(scope().camera).reshape(65, 65, 3)
    cosine = 1 / np.linalg.norm(direction, axis=-1)
    beam = renderer.surface(_spot(beam=3.0), np.eye(4)).radiance[..., 0]
    np.testing.assert_allclose(beam, even * cosine**3, rtol=1e-4)
    spot = renderer.surface(_spot(cone_deg=40.0), np.eye(4)).radiance[..., 0]
    angle = np.rad2deg(np.arccos(cosine))
    assert (spot[angle > 20.01] == 0).all()
    np.testing.assert_allclose(spot[angle < 15.9], even[angle < 15.9], rtol=1e-4)
    turned = renderer.surface(_spot(cone_deg=40.0, axis=(1.0, 0.0, 2.0)), np.eye(4)).radiance[..., 0]
    column = np.unravel_index(int(turned.argmax()), turned.shape)[1]
    assert column > 40


def test_even_light_follows_its_exponent() -> None:
    near, far = (
        Renderer(scene_of(plane(z))).surface(dataclasses.replace(scope(), falloff=0.7), np.eye(4)).radiance[32, 32, 0]
        for z in (20.0, 60.0)
    )
    assert near / far == pytest.approx(3.0**0.7, rel=1e-4)


def _wet(roughness: float, specular: float) -> Tissue:
    return dataclasses.replace(
        plain_tissue(albedo=0.0), roughness=np.full((8, 8), roughness, np.float32), specular=specular
    )


@pytest.mark.parametrize("roughness", [0.2, 0.5])
def test_wet_layer_is_ggx(roughness: float) -> None:
    light = Light((6.0, 0.0, 0.0), power=1.0, beam=0.0, casts_shadow=False)
    wet = dataclasses.replace(scope(), lights=(light,))
    seen = Renderer(scene_of(plane(20.0), _wet(roughness, 0.04))).surface(wet, np.eye(4))
    points = 20.0 * rays_of(wet.camera).reshape(65, 65, 3).astype(np.float64)
    to_eye = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    to_light = np.array([6.0, 0, 0]) - points
    reach = np.linalg.norm(to_light, axis=-1)
    to_light /= reach[..., None]
    half = to_eye + to_light
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    nl, nv, nh = -to_light[..., 2], -to_eye[..., 2], -half[..., 2]
    a2 = max(roughness**2, 1e-3) ** 2
    facets = a2 / (np.pi * (nh**2 * (a2 - 1) + 1) ** 2)
    fresnel = 0.04 + 0.96 * (1 - (half * to_eye).sum(-1)) ** 5
    smith = 0.5 / (nl * np.sqrt(nv**2 * (1 - a2) + a2) + nv * np.sqrt(nl**2 * (1 - a2) + a2))
    truth = np.pi * facets * fresnel * smith * nl / reach**2
    np.testing.assert_allclose(seen.radiance[..., 1], truth, rtol=2e-3, atol=truth.max() * 1e-5)
    row, column = np.unravel_index(int(seen.radiance[..., 1].argmax()), (65, 65))
    # The mirror image of the light stands half way.
    assert abs(row - 32) <= 1
    assert abs(column - (32 + 60 * 3 / 20)) <= 2
    assert seen.specular is not None
    assert seen.specular.all()


def test_wrap_bounce_and_scatter_only_soften() -> None:
    tilted = Renderer(scene_of(plane(40.0, slope=0.9)))
    hard, soft = (tilted.surface(scope(wrap=w), np.eye(4)) for w in (0.0, 0.4))
    direction = rays_of(scope().camera).reshape(65, 65, 3)
    cosine = -(hard.normals * direction).sum(-1) / np.linalg.norm(direction, axis=-1)
    np.testing.assert_allclose(
        soft.radiance[..., 0], hard.radiance[..., 0] * (cosine + 0.4) / (1.4 * cosine), rtol=1e-3
    )
    flat = Renderer(scene_of(plane(40.0), plain_tissue(albedo=0.5)))
    dark, lit = (flat.surface(scope(bounce=b), np.eye(4)).radiance for b in (0.0, 0.5))
    assert (lit > dark).all()
    spread = flat.surface(dataclasses.replace(scope(), scatter_mm=1.0), np.eye(4)).radiance
    np.testing.assert_allclose(spread.mean(), dark.mean(), rtol=0.02)


def test_each_part_of_a_scene_has_its_own_tissue() -> None:
    scene = scene_of(join([plane(60.0), patch(6.0, 40.0, tissue=1, label=9)]))
    metal = dataclasses.replace(_wet(0.3, 0.7), detail=np.zeros((16, 16), np.float32))
    scene = dataclasses.replace(scene, tissues=(plain_tissue(albedo=0.25), metal))
    seen = Renderer(scene).surface(scope(), np.eye(4))
    inside = seen.labels == 9
    assert 280 < inside.sum() < 370
    np.testing.assert_allclose(seen.depth_mm[inside], 40.0, rtol=1e-5)
    assert seen.specular is not None
    np.testing.assert_array_equal(seen.specular, inside)
    direction = np.linalg.norm(rays_of(scope().camera).reshape(65, 65, 3), axis=-1)
    np.testing.assert_allclose(seen.radiance[~inside, 0], (0.25 / (60.0**2 * direction**3))[~inside], rtol=2e-3)


def test_what_the_scope_holds_hides_and_shades() -> None:
    light = Light((4.0, 0.0, 0.0), power=1.0, beam=0.0, casts_shadow=True)
    lit = dataclasses.replace(scope(), lights=(light,))
    renderer = Renderer(scene_of(plane(40.0)))
    pose = spin(np.random.default_rng(0))
    # A plane in camera axes: the scene is turned along.
    turned = plane(40.0)
    turned = dataclasses.replace(
        turned,
        vertices=(turned.vertices @ pose[:3, :3].T).astype(np.float32),
        normals=(turned.normals @ pose[:3, :3].T).astype(np.float32),
    )
    renderer = Renderer(scene_of(turned))
    bare = renderer.surface(lit, pose)
    seen = renderer.surface(lit, pose, held=patch(1.5, 10.0, label=15))
    held = seen.labels == 15
    assert 200 < held.sum() < 400
    np.testing.assert_allclose(seen.depth_mm[held], 10.0, rtol=1e-5)
    np.testing.assert_allclose(seen.depth_mm[~held], bare.depth_mm[~held], rtol=1e-6)
    # Its shadow falls to the left: light at +4, blocker at 10 of 40 mm.
    row, column = 32, round(32 + 60 * (4 + (0 - 4) * 4) / 40)
    assert not held[row, column]
    assert seen.radiance[row, column, 0] < 0.02 * bare.radiance[row, column, 0]


def test_probe_is_the_surface_seen_coarsely() -> None:
    scene = build_scene("colon", np.random.default_rng(4))
    renderer = Renderer(scene)
    wide = sample_scope(np.random.default_rng(1), width=96, height=80)
    pose = np.eye(4)
    at = len(scene.centreline.points) // 2
    pose[:3, :3], pose[:3, 3] = scene.centreline.frames[at], scene.centreline.points[at]
    full, coarse = renderer.surface(wide, pose), renderer.probe(wide, pose)
    assert coarse.depth_mm.shape == (20, 24)
    assert coarse.facing == pytest.approx(full.facing, abs=0.03)
    median = [np.median(item.depth_mm[item.depth_mm > 0]) for item in (full, coarse)]
    assert median[0] == pytest.approx(median[1], rel=0.05)
    moved = renderer.deformed(shifted(scene.mesh, (0.0, 0.0, 1.0)))
    follow = pose.copy()
    follow[2, 3] += 1.0
    np.testing.assert_allclose(moved.surface(wide, follow).depth_mm, full.depth_mm, rtol=2e-3, atol=2e-3)


# --- motion and stereo


def _next(pose: np.ndarray, *, forward: float = 1.5, turn: float = 0.04) -> np.ndarray:
    step = np.eye(4)
    step[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    step[:3, 3] = 0.5, -0.3, forward
    return np.asarray(pose @ step)


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_flow_follows_points_and_pictures(name: str) -> None:
    camera = CAMERAS[name]
    wavy = 0.5 + 0.3 * smooth_field(np.random.default_rng(0), (256, 256), scale=(10.0, 10.0)).clip(-1, 1)
    tissue = dataclasses.replace(
        plain_tissue(), albedo=np.repeat(wavy[..., None], 3, axis=2), height_mm=np.zeros((256, 256), np.float32),
        roughness=np.full((256, 256), 0.5, np.float32),
    )  # fmt: skip
    renderer = Renderer(scene_of(plane(40.0, slope=0.2), tissue))
    steady = dataclasses.replace(scope(), camera=camera, content=np.ones((80, 96), bool), falloff=0.0)
    first_pose = np.eye(4)
    second_pose = _next(first_pose)
    # The light stays where it was in the world, so only geometry changes the picture.
    there = np.linalg.inv(second_pose)[:3, 3]
    fixed = dataclasses.replace(steady.lights[0], position_mm=(float(there[0]), float(there[1]), float(there[2])))
    first = renderer.surface(steady, first_pose)
    second = renderer.surface(dataclasses.replace(steady, lights=(fixed,)), second_pose)
    found = flow(first, first_pose, second_pose, camera)
    known = np.isfinite(found[..., 0])
    np.testing.assert_array_equal(known, first.depth_mm > 0)
    points = rays_of(camera).reshape(80, 96, 3).astype(np.float64) * first.depth_mm[..., None]
    local = (points[known] @ first_pose[:3, :3].T - second_pose[:3, 3]) @ second_pose[:3, :3]
    rows, columns = np.nonzero(known)
    target = project(local, camera)
    np.testing.assert_allclose(found[known], target - np.stack([columns, rows], -1), atol=1e-3)
    at = np.full((80, 96, 2), -9, np.float32)
    at[known] = target
    inside = known & (at > 1).all(-1) & (at[..., 0] < 94) & (at[..., 1] < 78)
    warped = cv2.remap(second.radiance, at[..., 0], at[..., 1], cv2.INTER_CUBIC)
    error = np.abs(warped - first.radiance)[inside] / first.radiance[inside].mean()
    assert inside.mean() > 0.5
    assert np.median(error) < 0.01
    assert np.percentile(error, 95) < 0.06


def test_flow_of_a_moving_scene_adds_its_displacement() -> None:
    camera = scope().camera
    seen = Renderer(scene_of(plane(30.0))).surface(scope(), np.eye(4))
    moved = np.broadcast_to(np.float32([1.0, -0.5, 0.0]), (65, 65, 3))
    found = flow(seen, np.eye(4), np.eye(4), camera, moved_mm=np.ascontiguousarray(moved))
    np.testing.assert_allclose(found, np.broadcast_to([2.0, -1.0], found.shape), atol=1e-4)
    behind = np.eye(4)
    behind[2, 3] = 31.0
    assert np.isnan(flow(seen, np.eye(4), behind, camera)).all()


def test_stereo_disparity_is_focal_times_baseline_over_depth() -> None:
    wavy = 0.5 + 0.3 * smooth_field(np.random.default_rng(0), (128, 128), scale=(3.0, 3.0)).clip(-1, 1)
    tissue = dataclasses.replace(
        plain_tissue(), albedo=np.repeat(wavy[..., None], 3, axis=2), height_mm=np.zeros((128, 128), np.float32),
        roughness=np.full((128, 128), 0.5, np.float32),
    )  # fmt: skip
    pose = spin(np.random.default_rng(5))
    mesh = plane(40.0, slope=0.3)
    mesh = dataclasses.replace(
        mesh,
        vertices=(mesh.vertices @ pose[:3, :3].T).astype(np.float32),
        normals=(mesh.normals @ pose[:3, :3].T).astype(np.float32),
    )
    left, right, right_pose = Renderer(scene_of(mesh, tissue)).stereo(scope(), pose, baseline_mm=4.0)
    np.testing.assert_allclose((np.linalg.inv(pose) @ right_pose)[:3, 3], [4.0, 0, 0], atol=1e-9)
    disparity = 60.0 * 4.0 / left.depth_mm
    np.testing.assert_allclose(flow(left, pose, right_pose, scope().camera)[..., 0], -disparity, atol=1e-3)
    y, x = np.mgrid[0:65, 0:65].astype(np.float32)
    warped = cv2.remap(right.radiance, x - disparity, y, cv2.INTER_CUBIC)
    inside = x - disparity > 2
    # The same light from the same place: the picture differs by interpolation alone.
    assert np.abs(warped / left.radiance - 1)[inside].max() < 0.03
    depth = cv2.remap(right.depth_mm, x - disparity, y, cv2.INTER_LINEAR)
    np.testing.assert_allclose(depth[inside], left.depth_mm[inside], rtol=1e-3)


@pytest.mark.parametrize("baseline", [0.0, -4.0, float("nan")])
def test_an_impossible_baseline_is_refused(baseline: float) -> None:
    with pytest.raises(UsageError, match="baseline"):
        Renderer(scene_of(plane(40.0))).stereo(scope(), np.eye(4), baseline_mm=baseline)


# --- sensor


def _flat(level: float = 0.2, *, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.float32)


def _scope(**changes: object) -> Scope:
    base = dataclasses.replace(scope(), content=np.ones((48, 64), bool))
    return dataclasses.replace(base, **changes)


def _edge() -> np.ndarray:
    image = _flat(0.1)
    image[:, 32:] = 0.6
    return image


RNG = np.random.default_rng


def test_gamma_white_balance_and_exposure_are_as_written() -> None:
    image = sensor.develop(_flat(), _scope(white_balance=(1.2, 1.0, 0.8)), RNG(0), gain=2.0)
    truth = 255 * np.clip(0.4 * np.array([1.2, 1.0, 0.8]), 0, 1) ** (1 / 2.2)
    np.testing.assert_allclose(image.reshape(-1, 3), np.broadcast_to(truth, (48 * 64, 3)), atol=0.6)
    assert sensor.expose(_flat(), _scope()) == pytest.approx(0.5 / 0.2, rel=1e-5)
    assert sensor.expose(_flat(0.0), _scope()) == 1.0
    hidden = np.zeros((48, 64), bool)
    assert sensor.expose(_flat(), _scope(content=hidden)) == 1.0


def test_saturation_moves_colours_from_grey_and_keeps_brightness() -> None:
    colour = _flat()
    colour[:] = (0.4, 0.2, 0.15)
    linear = []
    for saturation in (0.0, 1.0, 1.5):
        image = sensor.develop(colour, _scope(saturation=saturation), RNG(0), gain=1.0)[0, 0]
        linear.append((image / 255.0) ** 2.2)
    luma = [float(light @ (0.2126, 0.7152, 0.0722)) for light in linear]
    np.testing.assert_allclose(luma, luma[1], rtol=0.02)
    np.testing.assert_allclose(linear[0], luma[1], rtol=0.02)
    np.testing.assert_allclose(linear[2] - luma[2], 1.5 * (linear[1] - luma[1]), atol=0.005)


def test_shoulder_never_clips_earlier_and_stays_monotone() -> None:
    ramp = np.repeat(np.linspace(0, 3, 64, dtype=np.float32)[None, :, None], 48, axis=0).repeat(3, axis=2)
    hard, soft = (sensor.develop(ramp, _scope(shoulder=s), RNG(0), gain=1.0)[0, :, 0].astype(int) for s in (0.0, 1.0))
    assert (np.diff(soft) >= 0).all()
    assert (hard == 255).sum() > (soft == 255).sum()


def test_auto_exposure_lags_like_a_first_order_loop() -> None:
    loop = sensor.AutoExposure(lag_s=0.5)
    assert loop.follow(1.0, step_s=0.04) == 1.0
    gains = [loop.follow(3.0, step_s=0.04) for _ in range(25)]
    np.testing.assert_allclose(gains, 3.0 - 2.0 * np.exp(-0.04 * np.arange(1, 26) / 0.5), rtol=1e-9)
    at_once = sensor.AutoExposure(lag_s=0.0)
    assert [at_once.follow(g, step_s=0.04) for g in (1.0, 5.0)] == [1.0, 5.0]


def test_narrow_band_shows_vessels_dark_and_mucosa_not_red() -> None:
    assert set(sensor.spectra()) >= {"white", "narrow-band"}
    mucosa, vessel = np.array([0.72, 0.33, 0.28]), np.array([0.55, 0.12, 0.10])
    pair = np.empty((48, 64, 3), np.float32)
    pair[:, :32], pair[:, 32:] = mucosa, vessel
    contrast = {}
    for name in ("white", "narrow-band"):
        image = sensor.develop(pair, _scope(spectrum=name), RNG(0), gain=1.0).astype(float)
        contrast[name] = image[0, 0].mean() / image[0, 63].mean()
        if name == "narrow-band":
            assert abs(image[0, 0, 0] - image[0, 0, 1]) < 40
    assert contrast["narrow-band"] > 1.1 * contrast["white"]


@pytest.mark.parametrize("demosaic", [False, True])
def test_noise_has_the_variance_that_is_asked_for(demosaic: bool) -> None:
    noisy = _scope(read_noise=0.01, shot_noise=0.02, demosaic=demosaic)
    radiance = _flat(0.25, height=48, width=64)
    stack = np.stack([sensor.develop(radiance, noisy, RNG(k), gain=1.0) for k in range(40)]).astype(float) / 255
    level = 0.25 ** (1 / 2.2)
    sigma = 0.01 + 0.02 * np.sqrt(level)
    inner = stack[:, 4:-4, 4:-4]
    assert inner.mean() == pytest.approx(level, abs=0.003)
    if demosaic:
        # Averages of neighbours are calmer than one sample, and colours hang together.
        assert 0.5 * sigma < inner.std() < sigma
    else:
        assert np.sqrt(inner.var(axis=0).mean() - 1 / 12 / 255**2) == pytest.approx(sigma, rel=0.05)


def test_demosaic_softens_edges_and_keeps_flats() -> None:
    np.testing.assert_allclose(
        sensor.develop(_flat(), _scope(demosaic=True), RNG(0), gain=1.0).astype(int),
        sensor.develop(_flat(), _scope(), RNG(0), gain=1.0).astype(int),
        atol=1,
    )
    coloured = _flat(0.0)
    coloured[:, 32:] = (0.6, 0.1, 0.05)
    sharp, soft = (sensor.develop(coloured, _scope(demosaic=d), RNG(0), gain=1.0).astype(int) for d in (False, True))
    assert np.abs(np.diff(soft[20, :, 0])).max() <= np.abs(np.diff(sharp[20, :, 0])).max()
    np.testing.assert_allclose(soft[20, 48], sharp[20, 48], atol=2)


def test_motion_blur_keeps_light_and_widens_edges() -> None:
    still = sensor._in_motion(_edge(), _scope(), None)
    np.testing.assert_array_equal(still, _edge())
    moved = sensor._in_motion(_edge(), _scope(shutter=1.0, shake_px=(6.0, 0.0)), None)
    assert moved.mean() == pytest.approx(_edge().mean(), rel=0.01)
    between = ((moved[20, :, 0] > 0.15) & (moved[20, :, 0] < 0.55)).sum()
    assert 4 <= between <= 7
    flowing = np.zeros((48, 64, 2), np.float32)
    flowing[..., 0] = 6.0
    np.testing.assert_allclose(sensor._in_motion(_edge(), _scope(shutter=1.0), flowing), moved, atol=1e-6)


def _edge_column(light: np.ndarray, row: int) -> float:
    return float(64 - (light[row, :, 0] - 0.1).sum() / 0.5)


def test_rolling_shutter_shears_and_interlace_combs() -> None:
    # 8 px a frame to the right: the first row is read half a frame before the middle one, the edge stands 4 px left.
    rolled = sensor._in_motion(_edge(), _scope(rolling=1.0, shake_px=(8.0, 0.0)), None)
    shift = [_edge_column(rolled, row) - _edge_column(_edge(), row) for row in range(48)]
    np.testing.assert_allclose(shift, 8.0 * (np.arange(48) / 47 - 0.5), atol=0.06)
    comb = sensor._in_motion(_edge(), _scope(interlaced=True, shake_px=(8.0, 0.0)), None)
    shift = [_edge_column(comb, row) - _edge_column(_edge(), row) for row in range(48)]
    np.testing.assert_allclose(shift, np.tile([0.0, 4.0], 24), atol=0.06)


def test_chromatic_aberration_moves_red_out_and_blue_in() -> None:
    image = _flat(0.1)
    image[:, 56:] = 0.6
    light = sensor._through_lens(image.copy(), _scope(chromatic_px=2.0), None)
    half = 0.5 * np.hypot(64, 48)

    def edge(channel: int) -> float:
        return float(64 - (light[24, :, channel] - 0.1).sum() / 0.5)

    expected = 2.0 * (55.5 - 32) / half
    assert edge(0) - edge(1) == pytest.approx(expected, abs=0.3)
    assert edge(1) - edge(2) == pytest.approx(expected, abs=0.3)


def test_defocus_blurs_what_is_away_from_the_focus() -> None:
    depth = np.full((48, 64), 20.0, np.float32)
    depth[24:] = 4.0
    blurred = sensor._through_lens(_edge(), _scope(defocus_px=2.0, focus_mm=20.0), depth)
    slope = np.abs(np.diff(blurred[..., 0], axis=1)).max(axis=1)
    assert slope[5] > 0.45
    assert slope[44] < 0.15


def test_chroma_is_subsampled_and_brightness_is_not() -> None:
    stripes = _flat(0.3)
    stripes[:, ::2] = (0.5, 0.1, 0.1)
    plain, coarse = (
        sensor.develop(stripes, _scope(chroma_subsampling=c), RNG(0), gain=1.0).astype(float) for c in (444, 420)
    )
    luma = [image.mean(axis=-1) for image in (plain, coarse)]
    np.testing.assert_allclose(luma[0], luma[1], atol=2.0)
    colour = [np.ptp(image[20, 10:50, 0] - image[20, 10:50, 1]) for image in (plain, coarse)]
    assert colour[1] < 0.3 * colour[0]


def test_sharpening_overshoots_at_edges_only() -> None:
    plain, sharp = (
        sensor.develop(_edge(), _scope(sharpen=s, blur_px=1.0), RNG(0), gain=1.0).astype(int) for s in (0.0, 1.0)
    )
    assert sharp.max() > plain.max()
    np.testing.assert_allclose(sharp[20, :20], plain[20, :20], atol=1)


@pytest.mark.parametrize("codec", [{"jpeg_quality": 60}, {"h264_crf": 28}])
def test_compression_loses_a_little_and_repeats(codec: dict[str, int]) -> None:
    texture = np.exp(0.4 * smooth_field(RNG(0), (48, 64), scale=(2.0, 2.0)))[..., None] * np.float32([0.4, 0.2, 0.15])
    plain = sensor.develop(texture, _scope(), RNG(0), gain=1.0).astype(float)
    first, again = (sensor.develop(texture, _scope(**codec), RNG(0), gain=1.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    error = np.abs(first - plain)
    assert 0.3 < error.mean() < 12


def test_overlays_are_drawn_and_counted_out() -> None:
    with_text = _scope(overlay_seed=5)
    shown = sensor.shown(with_text)
    assert 0.5 < shown.mean() < 1.0
    plain, text = (sensor.develop(_flat(), item, RNG(0), gain=1.0) for item in (_scope(), with_text))
    np.testing.assert_array_equal(plain[shown], text[shown])
    assert (plain != text).any()
    camera = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
    frame = Renderer(scene_of(plane(30.0))).frame(dataclasses.replace(with_text, camera=camera), np.eye(4), RNG(0))
    np.testing.assert_array_equal(frame.frame.valid, shown)
    assert not frame.depth.valid[~shown].any()
    # The geometry behind the text stays known.
    assert (frame.depth.values > 0).all()


def test_light_that_is_no_number_becomes_dark() -> None:
    broken = _flat()
    broken[3, 4] = np.nan
    broken[5, 6] = 1e30
    broken[7, 8] = np.inf
    image = sensor.develop(broken, _scope(), RNG(0), gain=1.0)
    assert image[3, 4].max() == 0
    assert image[5, 6].min() == 255
    assert image[9, 9].min() == image[40, 40].max()


def test_random_scopes_are_complete_repeatable_and_varied() -> None:
    scopes = [sample_scope(RNG(k), width=64, height=48) for k in range(300)]
    assert json.loads(json.dumps(scopes[0].record()))["camera"]["width"] == 64
    again = sample_scope(RNG(7), width=64, height=48)
    assert json.dumps(again.record()) == json.dumps(scopes[7].record())
    for name in ("interlaced", "demosaic", "chroma_subsampling", "spectrum"):
        assert len({getattr(item, name) for item in scopes}) > 1, name
    for name in (
        "h264_crf",
        "overlay_seed",
        "sharpen",
        "rolling",
        "shutter",
        "defocus_px",
        "chromatic_px",
        "scatter_mm",
    ):
        on = np.mean([getattr(item, name) > 0 for item in scopes])
        assert 0.02 < on < 0.6, name
    assert {len(item.lights) for item in scopes} == {1, 2, 3, 4}
    assert any(light.cone_deg < 180 for item in scopes for light in item.lights)
    fields = []
    for item in scopes:
        u, v = slopes(item.camera)
        edge = np.hypot(u, v)[np.isfinite(u)]
        fields.append(2 * np.rad2deg(np.arctan(edge.max())))
    assert min(fields) < 65
    assert max(fields) > 150


def test_the_same_seed_gives_the_same_bytes() -> None:
    def bytes_of() -> bytes:
        rng = RNG(11)
        scene = build_scene("tube", rng)
        renderer = Renderer(scene)
        busy = dataclasses.replace(
            sample_scope(rng, width=64, height=48), h264_crf=24, demosaic=True, read_noise=0.01, rolling=0.5,
            shake_px=(2.0, 1.0), overlay_seed=4, scatter_mm=1.0,
        )  # fmt: skip
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = scene.centreline.frames[60], scene.centreline.points[60]
        frame = renderer.frame(busy, pose, rng)
        return frame.frame.image.tobytes() + frame.depth.values.tobytes() + frame.normals.tobytes()

    assert bytes_of() == bytes_of()


# --- fields, vessels, arithmetic


def test_smooth_fields_have_their_correlation() -> None:
    # Amplitudes exp(-2 pi f^2 s^2) give a power whose transform is exp(-pi r^2 / (4 s^2)).
    values = np.mean(
        [
            [(field * np.roll(field, lag, axis)).mean() for axis in (0, 1) for lag in (4, 8, 16)]
            for field in (smooth_field(RNG(k), (128, 256), scale=(6.0, 10.0)) for k in range(24))
        ],
        axis=0,
    )
    truth = [np.exp(-np.pi * lag**2 / (4 * s**2)) for s in (6.0, 10.0) for lag in (4, 8, 16)]
    np.testing.assert_allclose(values, truth, atol=0.05)


@pytest.mark.parametrize("shape", [(64, 32), (1, 500), (7, 9), (33, 64)])
def test_fields_are_normal_periodic_and_different(shape: tuple[int, int]) -> None:
    field = fractal_field(RNG(0), shape, scale=(3.0, 3.0), octaves=3)
    assert field.shape == shape
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(1.0, abs=1e-4)
    assert abs(field.mean()) < 1e-4
    np.testing.assert_array_equal(field, fractal_field(RNG(0), shape, scale=(3.0, 3.0), octaves=3))
    assert (
        abs(np.corrcoef(field.ravel(), fractal_field(RNG(1), shape, scale=(3.0, 3.0), octaves=3).ravel())[0, 1]) < 0.9
    )
    if shape[1] > 30:
        # Wrapping around is no larger a step than going on.
        inner, around = np.abs(np.diff(field, axis=1)).mean(), np.abs(field[:, 0] - field[:, -1]).mean()
        assert around < 3 * inner + 0.3


def test_vessels_branch_within_the_texture() -> None:
    few, many = (vessel_map(RNG(1), (128, 96), trees=t, trunk_px=2.5, wiggle=0.2) for t in (1, 12))
    assert few.dtype == np.float32
    assert 0 <= many.min() <= many.max() <= 1
    assert few.mean() < many.mean()
    assert not vessel_map(RNG(1), (16, 16), trees=0, trunk_px=2.0, wiggle=0.2).any()
    np.testing.assert_array_equal(few, vessel_map(RNG(1), (128, 96), trees=1, trunk_px=2.5, wiggle=0.2))


def test_fast_powers_are_accurate() -> None:
    numbers = np.exp(np.linspace(-20, 20, 801)).astype(np.float32)
    np.testing.assert_allclose([log2(x) for x in numbers], np.log2(numbers.astype(float)), atol=4e-6)
    powers = np.linspace(-100, 100, 801).astype(np.float32)
    np.testing.assert_allclose([exp2(x) for x in powers], 2.0 ** powers.astype(float), rtol=1e-6)
    assert exp2(np.float32(-1e9)) >= 0


def test_a_surface_can_be_made_by_hand() -> None:
    flat = np.full((2, 2), 9.0, np.float32)
    blank = np.zeros((2, 2, 3), np.float32)
    assert Surface(flat, blank, np.ones((2, 2), np.uint8), blank, 1.0).specular is None
