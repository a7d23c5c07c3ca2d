"""One frame of a scene through a scope, with its exact ground truth."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.pose import Pose
from endolux.phantom.raycast import RayCaster
from endolux.phantom.scene import Scene
from endolux.phantom.scope import Scope, rays_of
from endolux.phantom.sensor import develop
from endolux.phantom.shade import shade
from endolux.types import Camera, DepthKind, DepthMap, Frame, MaskArray

FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class PhantomFrame:
    """An image and everything that is known about it.

    Attributes:
        frame: RGB image with its camera and visible area.
        depth: METRIC, exact z in mm.
        normals: H x W x 3 float32 unit normals in camera axes, towards the camera.
        labels: H x W uint8 semantic classes (0 nothing, 1 wall, 2 polyp).
        pose: 4 x 4 camera-to-world in mm.
    """

    frame: Frame
    depth: DepthMap
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    pose: Pose

    @property
    def camera(self) -> Camera | None:
        """Intrinsics of the frame."""
        return self.frame.camera


@dataclasses.dataclass(frozen=True, slots=True)
class Surface:
    """Geometry seen by one camera: depth z (H x W, 0 where nothing), normals, labels, and the linear light."""

    depth_mm: FloatArray
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    radiance: FloatArray
    facing: float


class Renderer:
    """A scene prepared for rendering."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._caster = RayCaster(scene.mesh)

    def surface(self, scope: Scope, pose: Pose) -> Surface:
        """Cast the rays and gather the light, before exposure."""
        mesh, tissue = self.scene.mesh, self.scene.tissue
        camera = scope.camera
        shape = (camera.height, camera.width)
        local = rays_of(camera)
        # Pixels that the lens model cannot reach have no ray; embree would never return from a NaN.
        reachable = np.asarray(np.isfinite(local).all(axis=1))
        if not reachable.all():
            local = np.where(reachable[:, None], local, np.array([0.0, 0.0, 1.0], np.float32))
        turn = pose[:3, :3].astype(np.float32)
        eye = np.ascontiguousarray(pose[:3, 3], np.float32)
        directions = local @ turn.T
        origins = np.broadcast_to(eye, directions.shape)
        hits = self._caster.nearest(origins, directions)
        found = (hits.face >= 0) & reachable
        depth = np.where(found, hits.distance, np.float32(0.0))
        points = eye + directions * depth[:, None]
        light_at = np.array(
            [eye + turn @ np.asarray(light.position_mm, np.float32) for light in scope.lights], np.float32
        )
        free = np.ones((len(scope.lights), len(points)), np.float32)
        for k, light in enumerate(scope.lights):
            if light.casts_shadow:
                clear = self._caster.visible(points, light_at[k]).astype(np.float32).reshape(shape)
                # A light guide is not a point: half a pixel of blur stands for its penumbra.
                free[k] = cv2.GaussianBlur(clear, (0, 0), 1.0).reshape(-1)
        irradiance, wet, albedo, smooth = shade(
            np.where(found, hits.face, -1).astype(np.int32),
            hits.u,
            hits.v,
            np.ascontiguousarray(points, np.float32),
            eye,
            np.ascontiguousarray(turn[:, 2]),
            mesh.vertices,
            mesh.faces,
            mesh.normals,
            mesh.texture,
            mesh.planar,
            mesh.blend,
            mesh.detail,
            mesh.tint,
            tissue.albedo,
            tissue.height_mm,
            tissue.roughness,
            tissue.detail,
            np.asarray(tissue.size_mm, np.float32),
            tissue.detail_mm,
            tissue.detail_height_mm,
            tissue.detail_albedo,
            tissue.specular,
            light_at,
            np.array([light.power for light in scope.lights], np.float32),
            np.array([light.beam for light in scope.lights], np.float32),
            free,
            scope.falloff,
            scope.wrap,
        )
        radiance = self._gather(irradiance, wet, albedo, scope)
        towards = (smooth * -directions).sum(axis=1)
        label = np.where(found, mesh.label[mesh.faces[np.maximum(hits.face, 0), 0]], 0).astype(np.uint8)
        return Surface(
            depth_mm=depth.reshape(shape),
            normals=(smooth @ turn).reshape(*shape, 3),
            labels=label.reshape(shape),
            radiance=radiance,
            facing=float(np.mean((towards > -0.05) & found)),
        )

    def frame(
        self,
        scope: Scope,
        pose: Pose,
        rng: np.random.Generator,
        *,
        index: int = 0,
        pts_s: float | None = None,
        gain: float | None = None,
        surface: Surface | None = None,
    ) -> PhantomFrame:
        """Render one frame; ``surface`` may be passed when it was cast before."""
        seen = surface if surface is not None else self.surface(scope, pose)
        image = develop(seen.radiance, scope, rng, gain=gain)
        valid: MaskArray = scope.content & (seen.depth_mm > 0)
        return PhantomFrame(
            frame=Frame(
                image=image,
                index=index,
                name=f"{index:06d}",
                pts_s=pts_s,
                camera=scope.camera,
                valid=scope.content,
            ),
            depth=DepthMap(values=seen.depth_mm, kind=DepthKind.METRIC, valid=valid, camera=scope.camera),
            normals=seen.normals,
            labels=seen.labels,
            pose=pose,
        )

    @staticmethod
    def _gather(irradiance: FloatArray, wet: FloatArray, albedo: FloatArray, scope: Scope) -> FloatArray:
        height, width = scope.camera.height, scope.camera.width
        diffuse = (albedo * irradiance[:, None]).reshape(height, width, 3)
        # Light bounces between the walls of a closed organ: what arrives at a place from its surroundings is
        # approximated by the image's own light, blurred over a sixth of its width, and its mean.
        ceiling = np.percentile(irradiance, 97) if irradiance.size else 0.0
        small = cv2.resize(np.minimum(diffuse, ceiling), (64, 64), interpolation=cv2.INTER_AREA)
        near = cv2.resize(cv2.GaussianBlur(small, (0, 0), 9.0), (width, height), interpolation=cv2.INTER_LINEAR)
        around = 0.6 * near + 0.4 * small.mean(axis=(0, 1))
        colour = albedo.reshape(height, width, 3)
        return np.asarray(
            diffuse + np.float32(scope.bounce) * colour * around + wet.reshape(height, width, 1), np.float32
        )
