"""One frame of a scene through a scope, with its exact ground truth."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom import landmarks
from endolux.phantom.anatomy import Scene
from endolux.phantom.compile import compiled
from endolux.phantom.lens import coefficients, filled_slopes, pencil, pixel_of, slopes
from endolux.phantom.mesh import Mesh
from endolux.phantom.pose import Pose
from endolux.phantom.raster import Raster, Seen
from endolux.phantom.scope import Scope
from endolux.phantom.sensor import develop, expose, shown
from endolux.phantom.shade import Points, Skin, find_points, gather, glance, illuminate, pack
from endolux.types import Camera, DepthKind, DepthMap, Frame, MaskArray

FloatArray = npt.NDArray[np.float32]

# A hit this much nearer than the surface counts as shadow: surfaces do not hide themselves.
_SLACK = 0.985
# Narrower images ask for the shadow of every pixel at once.
_COARSE_WIDTH = 128
_COARSE = 4
_JUMP = 1.15


@dataclasses.dataclass(frozen=True, slots=True)
class PhantomFrame:
    """An image and everything that is known about it.

    Attributes:
        frame: RGB image with its camera and visible area.
        depth: METRIC, exact z in mm.
        normals: H x W x 3 float32 unit normals in camera axes, towards the camera.
        labels: H x W uint8 semantic classes (``endolux.phantom.labels``).
        pose: 4 x 4 camera-to-world in mm.
        specular: H x W bool, where the mirror reflection of a light outshines the tissue.
        lines: H x W uint8 landmark lines of the liver (``endolux.phantom.landmarks``), None in scenes without.
    """

    frame: Frame
    depth: DepthMap
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    pose: Pose
    specular: MaskArray | None = None
    lines: npt.NDArray[np.uint8] | None = None

    @property
    def camera(self) -> Camera | None:
        """Intrinsics of the frame."""
        return self.frame.camera


@dataclasses.dataclass(frozen=True, slots=True)
class Surface:
    """What one camera sees before exposure.

    Attributes:
        depth_mm: H x W z, 0 where nothing is.
        normals: H x W x 3 in camera axes.
        labels: H x W.
        radiance: H x W x 3 linear light.
        facing: share of the pixels that see a surface from its proper side.
        specular: H x W bool, where mirror reflection outshines the tissue.
        hit: faces of the scene and places on them, row by row; none where nothing is or something is held.
    """

    depth_mm: FloatArray
    normals: FloatArray
    labels: npt.NDArray[np.uint8]
    radiance: FloatArray
    facing: float
    specular: MaskArray | None = None
    hit: Seen | None = None

    @property
    def held(self) -> MaskArray:
        """H x W bool, where something moves with the camera because the scope holds it."""
        if self.hit is None:
            return np.zeros(self.depth_mm.shape, bool)
        return np.asarray((self.hit.face.reshape(self.depth_mm.shape) < 0) & (self.depth_mm > 0))


class Renderer:
    """A scene prepared for rendering."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._raster = Raster(scene.mesh)
        self._skin = Skin.of(scene.mesh)
        self._atlas = pack(scene.tissues)

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
        other._atlas = self._atlas
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
            lines = landmarks.draw(self.scene.lines, scope.camera, pose, seen.depth_mm, seen.labels)
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
            parts.append((Skin.of(held), Raster(held), np.eye(4)))
            over = parts[1][1].cast(grid, np.eye(4), limit_mm=depth, rays=count)
            seen[0].face[over.face >= 0] = -1
            depth = np.where(over.face >= 0, over.depth_mm, depth)
            seen.append(over)
        into = Points.none(count)
        for (skin, raster, at), hits in zip(parts, seen, strict=True):
            self._find(into, skin, raster, hits, camera, at)
        lights = np.array([light.table(rig) for light in scope.lights], np.float32).reshape(-1, 10)
        casters = [(raster, at) for _, raster, at in parts]
        free = [
            self._free(camera, depth, lights[k, :3], casters) if light.casts_shadow else None
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
            turn=np.ascontiguousarray(pose[:3, :3], np.float32),
            atlas=self._atlas,
            ray_u=u.reshape(-1),
            ray_v=v.reshape(-1),
        )

    @staticmethod
    def _free(camera: Camera, depth: FloatArray, light: FloatArray, casters: list[tuple[Raster, Pose]]) -> FloatArray:
        """Share of a light that arrives at each pixel's point, H*W."""
        height, width = camera.height, camera.width
        u, v = filled_slopes(camera)
        # Where nothing is, the point falls onto the lens and counts as lit.
        z = np.where(np.isfinite(depth), depth, np.float32(0.0)).reshape(height, width)
        at = (float(light[0]), float(light[1]), float(light[2]))

        def seen(points: FloatArray) -> MaskArray:
            clear = np.ones(len(points), bool)
            for raster, pose in casters:
                clear &= raster.visible(points, at, pose, slack=_SLACK)
            return clear

        if width < _COARSE_WIDTH:
            plane = seen(np.stack([u * z, v * z, z], axis=-1).reshape(-1, 3)).reshape(height, width)
        else:
            # Every fourth pixel first; where those disagree or the depth jumps, all.
            few = np.s_[::_COARSE, ::_COARSE]
            coarse = seen(np.stack([u[few] * z[few], v[few] * z[few], z[few]], axis=-1).reshape(-1, 3))
            coarse_plane = coarse.reshape(z[few].shape).astype(np.uint8)
            square = np.ones((3, 3), np.uint8)
            unsure = cv2.dilate(coarse_plane, square) != cv2.erode(coarse_plane, square)
            block = np.ones((2 * _COARSE + 1, 2 * _COARSE + 1), np.uint8)
            unsure |= (cv2.dilate(z, block) > _JUMP * cv2.erode(z, block))[few]

            def spread(small: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
                return small.repeat(_COARSE, axis=0)[:height].repeat(_COARSE, axis=1)[:, :width]

            plane = spread(coarse_plane).astype(bool)
            where = spread(unsure).astype(bool)
            if where.any():
                plane[where] = seen(np.stack([u[where] * z[where], v[where] * z[where], z[where]], axis=-1))
        # A light guide is not a point: a pixel of blur stands for its penumbra.
        return np.asarray(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1.0).reshape(-1), np.float32)


def flow(
    surface: Surface,
    pose: Pose,
    next_pose: Pose,
    camera: Camera,
    *,
    next_camera: Camera | None = None,
    moved_mm: FloatArray | None = None,
) -> FloatArray:
    """Optical flow from one frame to the next: where each pixel's point goes.

    Args:
        surface: of the first frame.
        pose: 4 x 4 camera-to-world of the first frame, mm.
        next_pose: of the next frame.
        camera: intrinsics.
        next_camera: intrinsics of the next frame, the same by default.
        moved_mm: H x W x 3 displacement of each pixel's point in world axes, where the scene itself moves.

    Returns:
        H x W x 2 float32 (columns, rows) in pixels; NaN where nothing is seen or the point falls behind the camera.
        Points may be hidden in the next frame. What the scope holds stays where it is in camera axes.

    Example:
        >>> camera = Camera(width=3, height=1, fx=10.0, fy=10.0, cx=1.0, cy=0.0)
        >>> flat = np.full((1, 3), 20.0, np.float32)
        >>> zeros = np.zeros((1, 3, 3), np.float32)
        >>> seen = Surface(flat, zeros, np.ones((1, 3), np.uint8), zeros, 1.0)
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 2.0
        >>> flow(seen, np.eye(4), moved, camera)[0, 1].tolist()
        [-1.0, 0.0]
    """
    u, v = slopes(camera)
    kind, numbers = coefficients(next_camera or camera)
    there = np.linalg.inv(next_pose)
    if moved_mm is None:
        moved_mm = np.zeros((1, 1, 3), np.float32)
    turn = np.ascontiguousarray(there[:3, :3])
    result = _flow(surface.depth_mm, u, v, there @ pose, turn, moved_mm, kind, numbers)
    held = surface.held
    if held.any():
        none = np.zeros((1, 1, 3), np.float32)
        result[held] = _flow(surface.depth_mm, u, v, np.eye(4), turn, none, kind, numbers)[held]
    return result


@compiled
def _flow(
    depth_mm: FloatArray,
    u: FloatArray,
    v: FloatArray,
    between: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    moved_mm: FloatArray,
    kind: int,
    numbers: npt.NDArray[np.float64],
) -> FloatArray:
    height, width = depth_mm.shape
    result = np.empty((height, width, 2), np.float32)
    moving = moved_mm.size > 3
    at = np.empty(3)
    for i in range(height):
        for j in range(width):
            z = np.float64(depth_mm[i, j])
            result[i, j, 0] = np.nan
            result[i, j, 1] = np.nan
            if not z > 0.0 or not np.isfinite(u[i, j]):
                continue
            x, y = u[i, j] * z, v[i, j] * z
            for k in range(3):
                at[k] = between[k, 0] * x + between[k, 1] * y + between[k, 2] * z + between[k, 3]
                if moving:
                    for m in range(3):
                        at[k] += turn[k, m] * moved_mm[i, j, m]
            if at[2] > 0.0:
                column, row = pixel_of(at[0], at[1], at[2], kind, numbers)
                result[i, j, 0] = column - j
                result[i, j, 1] = row - i
    return result


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
    scattered = np.zeros(1, np.float32)
    # How many pixels the path under the surface spans, at the middle of what is seen.
    depth = points.state[5][points.state[4] >= 0][::16]
    reach_px = scope.scatter_mm * scope.camera.fx / float(np.median(depth)) if depth.size else 0.0
    if reach_px > 0.2:
        plane = irradiance.reshape(height, width)
        scattered = cv2.GaussianBlur(plane, (0, 0), min(reach_px, 0.03 * width)).reshape(-1)
    radiance, shiny = gather(irradiance, scattered, points.albedo, wet, around.reshape(-1, 3), np.float32(scope.bounce))
    return radiance.reshape(height, width, 3), shiny.reshape(height, width)
