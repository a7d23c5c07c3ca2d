"""One frame of a scene through a scope, with its exact ground truth."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom import landmarks
from endolux.phantom.anatomy import Scene
from endolux.phantom.atlas import Skin, pack
from endolux.phantom.compile import unread
from endolux.phantom.flow import flow as flow
from endolux.phantom.lens import filled_slopes, pencil
from endolux.phantom.mesh import Mesh
from endolux.phantom.points import Points, find_points, glance
from endolux.phantom.pose import Pose
from endolux.phantom.raster import Raster, Seen
from endolux.phantom.scope import Scope
from endolux.phantom.sensor import develop, expose, shown
from endolux.phantom.shade import gather, illuminate
from endolux.phantom.shadows import Arrivals
from endolux.phantom.surface import PhantomFrame as PhantomFrame
from endolux.phantom.surface import Surface as Surface
from endolux.types import Camera, DepthKind, DepthMap, Frame, MaskArray

FloatArray = npt.NDArray[np.float32]


class Renderer:
    """A scene prepared for rendering."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._raster = Raster(scene.mesh)
        self._skin = Skin.of(scene.mesh)
        self._atlas = pack(scene.tissues)
        self._held: tuple[Mesh, Skin, Raster] | None = None

    def surface(self, scope: Scope, pose: Pose, *, held: Mesh | None = None) -> Surface:
        """Find what each pixel sees and gather its light, before exposure.

        Args:
            scope: the instrument.
            pose: 4 x 4 camera-to-world in mm.
            held: what the scope itself holds into the view, in camera axes; its tissues are the scene's.
        """
        return self._surface(scope, pose, held, np.zeros(3))

    def probe(self, scope: Scope, pose: Pose) -> Surface:
        """Depth, labels and facing at a quarter of the side, without light: to reject views cheaply."""
        camera = scope.camera
        small = camera.resize(max(8, camera.width // 4), max(8, camera.height // 4))
        count = small.width * small.height
        seen = self._raster.cast(pencil(small), pose, rays=count)
        u, v = filled_slopes(small)
        turn = np.ascontiguousarray(pose[:3, :3], np.float32)
        normals, labels, facing = glance(self._skin, self._raster.faces, seen, turn, u.reshape(-1), v.reshape(-1))
        shape = (small.height, small.width)
        return Surface(
            depth_mm=np.where(seen.face >= 0, seen.depth_mm, np.float32(0.0)).reshape(shape),
            normals=normals.reshape(*shape, 3),
            labels=labels.reshape(shape),
            radiance=np.zeros((*shape, 3), np.float32),
            facing=float(facing.mean()),
        )

    def deformed(self, mesh: Mesh) -> Renderer:
        """A renderer of the same scene with another shape of its mesh; textures are not laid out again.

        Args:
            mesh: the scene's with other vertices and normals.
        """
        other = object.__new__(Renderer)
        other.scene = dataclasses.replace(self.scene, mesh=mesh)
        other._raster = self._raster.moved(mesh.vertices)
        other._skin = self._skin.turned(mesh.normals)
        other._atlas, other._held = self._atlas, self._held
        return other

    @property
    def faces(self) -> npt.NDArray[np.int32]:
        """F x 3 vertex indices in the order in which ``Surface.hit`` counts."""
        return self._raster.faces

    def stereo(
        self, scope: Scope, pose: Pose, *, baseline_mm: float, held: Mesh | None = None
    ) -> tuple[Surface, Surface, Pose]:
        """Both views of a rig whose right camera stands ``baseline_mm`` to the right, axes parallel.

        Disparity of a pinhole rig is ``fx * baseline_mm / depth``. The lights are fixed to the rig.

        Args:
            scope: the left instrument; the right one is equal.
            pose: of the left camera.
            baseline_mm: positive.
            held: as for ``surface``, in axes of the left camera.

        Returns:
            left surface, right surface, pose of the right camera.

        Raises:
            UsageError: the baseline is not positive.
        """
        from endolux.errors import UsageError

        if not (np.isfinite(baseline_mm) and baseline_mm > 0):
            raise UsageError(
                f"Impossible baseline of {baseline_mm} mm",
                why="The right camera of a stereo rig stands to the right of the left one.",
                fix="Give a positive baseline in mm; laparoscopes have about 4 to 6.",
                error_id="phantom.baseline",
            )
        right = pose.copy()
        right[:3, 3] = pose[:3, 3] + baseline_mm * pose[:3, 0]
        offset = np.array([baseline_mm, 0.0, 0.0])
        moved = None if held is None else dataclasses.replace(held, vertices=held.vertices - offset.astype(np.float32))
        return self.surface(scope, pose, held=held), self._surface(scope, right, moved, -offset), right

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
        motion: FloatArray | None = None,
    ) -> PhantomFrame:
        """Render one frame.

        Args:
            scope: the instrument.
            pose: 4 x 4 camera-to-world in mm.
            rng: noise.
            index: position in its stream.
            pts_s: time stamp.
            gain: exposure; measured when None.
            surface: what ``surface`` returned for this view, when it was called before.
            motion: H x W x 2 optical flow over one frame time, for motion blur and the like.
        """
        seen = surface if surface is not None else self.surface(scope, pose)
        used = expose(seen.radiance, scope) if gain is None else gain
        image = develop(seen.radiance, scope, rng, gain=used, depth_mm=seen.depth_mm, motion=motion)
        visible = shown(scope)
        valid: MaskArray = visible & (seen.depth_mm > 0)
        lines = None
        if self.scene.lines:
            known = self.scene.annotated
            lines = landmarks.draw(self.scene.lines, scope.camera, pose, seen.depth_mm, seen.labels, touching=known)
            if known:
                lines[~visible] = landmarks.Landmark.NOTHING
        specular = None
        if seen.specular is not None:
            specular = seen.specular & (seen.radiance[..., 0] * np.float32(used) > 0.7) & visible
        return PhantomFrame(
            frame=Frame(
                image=image,
                index=index,
                name=f"{index:06d}",
                pts_s=pts_s,
                camera=scope.camera,
                valid=visible,
            ),
            depth=DepthMap(values=seen.depth_mm, kind=DepthKind.METRIC, valid=valid, camera=scope.camera),
            normals=seen.normals,
            labels=seen.labels,
            pose=pose,
            specular=specular,
            lines=lines,
        )

    def _surface(self, scope: Scope, pose: Pose, held: Mesh | None, rig: npt.NDArray[np.float64]) -> Surface:
        camera = scope.camera
        shape = (camera.height, camera.width)
        count = camera.height * camera.width
        grid = pencil(camera)
        parts = [(self._skin, self._raster, pose)]
        seen = [self._raster.cast(grid, pose, rays=count)]
        depth = seen[0].depth_mm
        if held is not None:
            # The held thing lives in camera axes: for it the camera stands at the origin.
            if self._held is None or self._held[0] is not held:
                self._held = (held, Skin.of(held), Raster(held))
            parts.append((*self._held[1:], np.eye(4)))
            over = parts[1][1].cast(grid, np.eye(4), limit_mm=depth, rays=count)
            seen[0].face[over.face >= 0] = -1
            depth = np.where(over.face >= 0, over.depth_mm, depth)
            seen.append(over)
        into = Points.none(count)
        for (skin, raster, at), hits in zip(parts, seen, strict=True):
            self._find(into, skin, raster, hits, camera, at)
        lights = np.array([light.table(rig) for light in scope.lights], np.float32).reshape(-1, 10)
        u, v = filled_slopes(camera)
        arrivals = Arrivals(u, v, depth, [(raster, at) for _, raster, at in parts])
        free = [
            arrivals.of((float(lights[k, 0]), float(lights[k, 1]), float(lights[k, 2]))) if light.casts_shadow else None
            for k, light in enumerate(scope.lights)
        ]
        radiance, specular = _gather(into, lights, free, scope)
        return Surface(
            depth_mm=np.where(np.isfinite(depth), depth, np.float32(0.0)).reshape(shape),
            normals=into.normals.reshape(*shape, 3),
            labels=into.labels.reshape(shape),
            radiance=radiance,
            facing=float(into.facing.mean()),
            specular=specular,
            hit=seen[0],
        )

    def _find(self, into: Points, skin: Skin, raster: Raster, hits: Seen, camera: Camera, pose: Pose) -> None:
        u, v = filled_slopes(camera)
        find_points(
            into,
            skin=skin,
            faces=raster.faces,
            seen=hits,
            local=raster.local(pose),
            turn=np.ascontiguousarray(pose[:3, :3], np.float32),
            atlas=self._atlas,
            ray_u=u.reshape(-1),
            ray_v=v.reshape(-1),
        )


def _gather(
    points: Points, lights: FloatArray, free: list[FloatArray | None], scope: Scope
) -> tuple[FloatArray, MaskArray]:
    height, width = scope.camera.height, scope.camera.width
    u, v = filled_slopes(scope.camera)
    irradiance, wet = illuminate(
        points,
        ray_u=u.reshape(-1),
        ray_v=v.reshape(-1),
        lights=lights,
        free=free,
        falloff=scope.falloff,
        wrap=scope.wrap,
    )
    # Light bounces between the walls of a closed organ: what arrives at a place from its surroundings is
    # approximated by the image's own light, blurred over a sixth of its width, and its mean.
    ceiling = np.float32(np.percentile(irradiance[::5], 97))
    diffuse = points.albedo * np.minimum(irradiance, ceiling)[:, None]
    small = cv2.resize(np.minimum(diffuse, ceiling).reshape(height, width, 3), (64, 64), interpolation=cv2.INTER_AREA)
    near = 0.6 * cv2.GaussianBlur(small, (0, 0), 9.0) + 0.4 * small.mean(axis=(0, 1))
    around = cv2.resize(near.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    scattered = unread(width * height)
    # How many pixels the path under the surface spans, at the middle of what is seen.
    depth = points.state[5][points.state[4] >= 0][::16]
    reach_px = scope.scatter_mm * scope.camera.fx / float(np.median(depth)) if depth.size else 0.0
    if reach_px > 0.2:
        plane = irradiance.reshape(height, width)
        scattered = cv2.GaussianBlur(plane, (0, 0), min(reach_px, 0.03 * width)).reshape(-1)
    radiance, shiny = gather(irradiance, scattered, points.albedo, wet, around.reshape(-1, 3), np.float32(scope.bounce))
    return radiance.reshape(height, width, 3), shiny.reshape(height, width)
