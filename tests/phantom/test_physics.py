"""The phantom's light and geometry against closed forms."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("numba")

from endolux.geometry.cameras import project
from endolux.phantom.lumen import Centreline
from endolux.phantom.mesh import Mesh, grid_faces, grid_normals
from endolux.phantom.raycast import RayCaster
from endolux.phantom.render import Renderer
from endolux.phantom.scene import ANATOMIES, Scene, build_scene
from endolux.phantom.scope import Light, Scope, rays_of
from endolux.phantom.tissue import Tissue
from endolux.phantom.world import PhantomSettings, clip
from endolux.types import Camera, CameraModel


def plain_tissue(*, albedo: float = 1.0) -> Tissue:
    shape = (8, 8)
    return Tissue(
        albedo=np.full((*shape, 3), albedo, np.float32),
        height_mm=np.zeros(shape, np.float32),
        roughness=np.full(shape, 0.5, np.float32),
        detail=np.zeros((8, 8), np.float32),
        detail_mm=10.0,
        detail_height_mm=0.0,
        detail_albedo=0.0,
        size_mm=(10.0, 10.0),
        specular=0.0,
        palette="white",
    )


def grid_mesh(grid: np.ndarray, *, wrap: bool = False) -> Mesh:
    rows, columns = grid.shape[:2]
    count = rows * columns
    u, v = np.mgrid[0:rows, 0:columns]
    texture = np.stack([u / rows, v / columns], -1).reshape(count, 2).astype(np.float32)
    return Mesh(
        vertices=np.ascontiguousarray(grid.reshape(count, 3), np.float32),
        faces=grid_faces(rows, columns),
        normals=grid_normals(grid.astype(np.float32), wrap=wrap).reshape(count, 3),
        texture=texture,
        planar=np.zeros((count, 2), np.float32),
        blend=np.zeros(count, np.float32),
        detail=texture * 10,
        tint=np.ones((count, 3), np.float32),
        label=np.ones(count, np.uint8),
    )


def plane(distance: float, *, slope: float = 0.0) -> Mesh:
    # Rows run along y and columns along x, so that rows x columns faces the camera (towards -z).
    y, x = np.meshgrid(np.linspace(-400, 400, 21), np.linspace(-400, 400, 21), indexing="ij")
    return grid_mesh(np.stack([x, y, distance + slope * x], -1))


def scope(*, size: int = 65, wrap: float = 0.0, bounce: float = 0.0) -> Scope:
    camera = Camera(width=size, height=size, fx=60.0, fy=60.0, cx=(size - 1) / 2, cy=(size - 1) / 2)
    return Scope(
        camera=camera,
        lights=(Light((0.0, 0.0, 0.0), power=1.0, beam=0.0, casts_shadow=False),),
        falloff=2.0,
        wrap=wrap,
        bounce=bounce,
        exposure=0.5,
        gamma=2.2,
        shoulder=0.0,
        white_balance=(1.0, 1.0, 1.0),
        vignette=0.0,
        blur_px=0.0,
        chroma_blur_px=0.0,
        shot_noise=0.0,
        read_noise=0.0,
        jpeg_quality=0,
        content=np.ones((size, size), bool),
    )


def scene_of(mesh: Mesh, tissue: Tissue | None = None) -> Scene:
    line = Centreline(np.zeros((2, 3), np.float32), np.stack([np.eye(3, dtype=np.float32)] * 2), np.ones(2), 1.0)
    return Scene("test", mesh, tissue or plain_tissue(), line, {})


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_white_plane_falls_as_cosine_over_squared_distance(slope: float) -> None:
    seen = Renderer(scene_of(plane(40.0, slope=slope))).surface(scope(), np.eye(4))
    rays = rays_of(scope().camera).reshape(65, 65, 3).astype(np.float64)
    depth = 40.0 / (1.0 - slope * rays[..., 0])
    points = rays * depth[..., None]
    distance = np.linalg.norm(points, axis=-1)
    normal = np.array([slope, 0.0, -1.0]) / np.hypot(slope, 1.0)
    cosine = -(points @ normal) / distance
    np.testing.assert_allclose(seen.depth_mm, depth, rtol=1e-5)
    np.testing.assert_allclose(seen.radiance[..., 1], cosine / distance**2, rtol=1e-4)
    np.testing.assert_allclose(seen.normals, np.broadcast_to(normal, seen.normals.shape), atol=1e-5)


def test_light_beside_the_lens_follows_its_own_distance() -> None:
    moved = dataclasses.replace(scope(), lights=(Light((5.0, 0.0, 0.0), power=2.0, beam=0.0, casts_shadow=True),))
    seen = Renderer(scene_of(plane(20.0))).surface(moved, np.eye(4))
    points = rays_of(moved.camera).reshape(65, 65, 3) * 20.0
    reach = np.linalg.norm(points - [5.0, 0.0, 0.0], axis=-1)
    np.testing.assert_allclose(seen.radiance[..., 0], 2.0 * 20.0 / reach**3, rtol=1e-4)


def test_sphere_from_inside_matches_closed_form() -> None:
    latitude, longitude = np.meshgrid(np.linspace(0, np.pi, 401), np.linspace(0, 2 * np.pi, 801), indexing="ij")
    radius, offset = 30.0, np.array([6.0, -4.0, 3.0])
    ball = radius * np.stack(
        [np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude), np.cos(latitude)], -1
    )
    pose = np.eye(4)
    pose[:3, 3] = offset
    seen = Renderer(scene_of(grid_mesh(ball, wrap=True))).surface(scope(), pose)
    rays = rays_of(scope().camera).astype(np.float64).reshape(65, 65, 3)
    a, b, c = (rays**2).sum(-1), rays @ offset, offset @ offset - radius**2
    depth = (-b + np.sqrt(b**2 - a * c)) / a
    np.testing.assert_allclose(seen.depth_mm, depth, rtol=1e-3)
    inward = -(offset + rays * depth[..., None]) / radius
    np.testing.assert_allclose(seen.normals, inward, atol=5e-3)
    assert seen.facing == 1.0


def test_shadow_falls_where_the_light_is_hidden() -> None:
    far = plane(60.0)
    y, x = np.meshgrid(np.linspace(-4, 4, 9), np.linspace(-4, 4, 9), indexing="ij")
    near = grid_mesh(np.stack([x, y, np.full_like(x, 30.0)], -1))
    both = dataclasses.replace(
        far,
        **{
            field.name: np.concatenate([getattr(far, field.name), getattr(near, field.name)])
            for field in dataclasses.fields(far)
            if field.name != "faces"
        },
        faces=np.concatenate([far.faces, near.faces + len(far.vertices)]).astype(np.int32),
    )
    light = Light((20.0, 0.0, 0.0), power=1.0, beam=0.0, casts_shadow=True)
    shadowed = Renderer(scene_of(both)).surface(dataclasses.replace(scope(), lights=(light,)), np.eye(4))
    # The blocker's centre (0, 0, 30) seen from the light (20, 0, 0) covers (-20, 0, 60) on the far plane.
    column = round(32 + 60.0 * -20.0 / 60.0)
    assert shadowed.depth_mm[32, column] == pytest.approx(60.0, rel=1e-4)
    assert shadowed.radiance[32, column, 0] < 0.02 * shadowed.radiance[32, 64 - column, 0]


def test_ray_caster_reports_misses() -> None:
    hits = RayCaster(plane(10.0)).nearest(np.zeros((2, 3), np.float32), np.array([[0, 0, 1], [0, 0, -1]], np.float32))
    assert hits.face[1] == -1
    assert np.isinf(hits.distance[1])
    assert hits.distance[0] == pytest.approx(10.0)


@pytest.mark.parametrize("name", sorted(ANATOMIES))
def test_depth_and_poses_of_a_clip_agree(name: str) -> None:
    # What is held moves with the camera, not with the wall.
    settings = PhantomSettings(anatomies={name: 1.0}, frames=4, width=96, height=80, seed=3, held=0.0)
    items = list(clip(settings, fps=5.0))
    first, second = items[0], items[1]
    rays = rays_of(first.camera).reshape(80, 96, 3).astype(np.float64)
    world = rays * first.depth.values[..., None] @ first.pose[:3, :3].T + first.pose[:3, 3]
    inside = first.depth.valid
    local = (world[inside] - second.pose[:3, 3]) @ second.pose[:3, :3]
    pixels = np.rint(project(local, second.camera)).astype(int)
    ok = (local[:, 2] > 1) & (pixels >= 0).all(1) & (pixels[:, 0] < 96) & (pixels[:, 1] < 80)
    there = second.depth.values[pixels[ok, 1], pixels[ok, 0]]
    close = np.abs(there / local[ok, 2] - 1) < 0.03
    # What is not close is newly hidden behind a fold.
    assert ok.mean() > 0.5
    assert close.mean() > 0.85


@pytest.mark.parametrize("name", sorted(ANATOMIES))
def test_scenes_are_well_formed(name: str) -> None:
    scene = build_scene(name, np.random.default_rng(5))
    mesh = scene.mesh
    assert np.isfinite(mesh.vertices).all()
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < len(mesh.vertices)
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-3)
    assert scene.tissue.albedo.min() > 0
    assert scene.tissue.albedo.max() < 1


def test_pixels_that_the_lens_cannot_reach_are_invalid() -> None:
    camera = Camera(
        width=65,
        height=65,
        fx=20.0,
        fy=20.0,
        cx=32.0,
        cy=32.0,
        model=CameraModel.RADTAN,
        distortion=(-0.2, 0.0, 0.0, 0.0),
    )
    assert not np.isfinite(rays_of(camera)).all()
    seen = Renderer(scene_of(plane(40.0))).surface(dataclasses.replace(scope(), camera=camera), np.eye(4))
    missing = ~np.isfinite(rays_of(camera)).all(axis=1).reshape(65, 65)
    np.testing.assert_array_equal(seen.depth_mm == 0, missing)
