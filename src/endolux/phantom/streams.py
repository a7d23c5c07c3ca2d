"""Sequences of phantom frames: stills or continuous shots, one lens or two, with flow to the next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from endolux.geometry.cameras import rays
from endolux.phantom.motion import Deformation, Motion, at_rest, deformed, displacement, draw_motion, path
from endolux.phantom.pose import Pose
from endolux.phantom.presets import StreamSettings, settings_of
from endolux.phantom.render import PhantomFrame, Renderer, Surface, flow
from endolux.phantom.scene import Scene
from endolux.phantom.scope import Scope
from endolux.phantom.sensor import AutoExposure, expose
from endolux.phantom.world import open_scene, scene_generator, usable_view
from endolux.types import Camera, DepthMap, FloatArray, Frame

FlowArray = npt.NDArray[np.float32]
"""H x W x 2: columns and rows to the same surface point in the next frame; NaN where that is not known."""

_STREAM_PATH, _STREAM_FRAMES = 1_000_000, 2_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """One frame of a sequence.

    Attributes:
        truth: picture and ground truth of the (left) lens.
        sequence: number of the sequence in its stream.
        position: number of the frame in its sequence.
        right: the second lens, None without one.
        baseline_mm: distance of the lenses, 0 without a second one.
        flow: to the next frame of the sequence; None for stills and for the last frame.
    """

    truth: PhantomFrame
    sequence: int
    position: int
    right: PhantomFrame | None = None
    baseline_mm: float = 0.0
    flow: FlowArray | None = None

    @property
    def frame(self) -> Frame:
        """Picture with its camera and visible area."""
        return self.truth.frame

    @property
    def depth(self) -> DepthMap:
        """METRIC, exact z in mm."""
        return self.truth.depth

    @property
    def pose(self) -> Pose:
        """4 x 4 camera-to-world in mm."""
        return self.truth.pose

    @property
    def camera(self) -> Camera:
        """Intrinsics; every phantom frame has them."""
        camera = self.truth.frame.camera
        if camera is None:  # pragma: no cover - the renderer always sets it
            raise RuntimeError("a phantom frame without camera")
        return camera


def stream(preset: str = "train", *, frames: int = 100, **changes: object) -> Iterator[Shot]:
    """Frames with exact ground truth, as they are rendered.

    Args:
        preset: ``train``, ``clean``, ``c3vd-like``, ``scared-like`` or ``endoslam-like``.
        frames: how many.
        changes: any setting of :class:`~endolux.phantom.presets.StreamSettings`, for example ``anatomies``, ``seed``,
            ``motion``, ``width``; dictionaries are merged into those of the preset.

    Raises:
        UsageError: unknown names and impossible values.
        MissingExtraError: embreex or numba is not installed.

    Example:
        >>> shot = next(stream("clean", frames=1, anatomies={"colon": 1}, width=32, height=24))
        >>> shot.frame.size, shot.depth.unit.value
        ((32, 24), 'mm')
    """
    return shots(settings_of(preset, {"frames": frames, **changes}))


def shots(settings: StreamSettings) -> Iterator[Shot]:
    """All frames of the settings, sequence after sequence."""
    for number in range(settings.sequences):
        yield from sequence(settings, number)


def sequence(settings: StreamSettings, number: int) -> Iterator[Shot]:
    """The frames of one sequence; the same whatever was rendered before."""
    scene = open_scene(settings, settings.scene(number))
    if settings.motion is Motion.STILL:
        return _stills(settings, number, scene)
    return _moving(settings, number, scene)


def _stills(settings: StreamSettings, number: int, scene: Scene) -> Iterator[Shot]:
    renderer = Renderer(scene)
    for view in range(settings.length(number)):
        own = scene_generator(settings.seed, settings.scene(number), 1 + view)
        scope, pose, surface = usable_view(own, renderer, settings)
        index = number * settings.per_sequence + view
        if settings.supersample > 1:
            surface = _supersampled(renderer, scope, pose, surface, settings.supersample)
        truth = renderer.frame(scope, pose, own, index=index, surface=surface)
        right = None
        if settings.baseline_mm is not None:
            gain = expose(surface.radiance, scope)
            right = _right_of(settings, renderer, scope, pose, own, index=index, pts_s=None, gain=gain)
        yield Shot(truth, number, view, right, settings.baseline_mm or 0.0)


def _moving(settings: StreamSettings, number: int, scene: Scene) -> Iterator[Shot]:
    frames, scene_number = settings.length(number), settings.scene(number)
    own = scene_generator(settings.seed, scene_number, _STREAM_PATH)
    renderer = Renderer(scene)
    scope, start, first = usable_view(own, renderer, settings)
    reach = float(np.median(first.depth_mm[first.depth_mm > 0])) if (first.depth_mm > 0).any() else 50.0

    def clear(poses: list[Pose]) -> bool:
        chosen = {round(k * (len(poses) - 1) / 8) for k in range(9)}
        return all(_keeps_clear(renderer, scope, poses[k]) for k in sorted(chosen))

    kind = draw_motion(own, settings.motion)
    # One pose more than frames: the last frame is in motion too.
    poses = path(own, scene, start, motion=kind, frames=frames + 1, fps=settings.fps, reach_mm=reach, clear=clear)
    phase = float(own.uniform(0, 2 * np.pi))
    exposure = AutoExposure(lag_s=scope.exposure_lag_s)
    step_s = 1.0 / settings.fps
    still = renderer
    for position in range(frames):
        pose, pts_s = poses[position], position * step_s
        if settings.deformation is not None:
            renderer = still.deformed(deformed(scene, settings.deformation, pts_s=pts_s, phase=phase).mesh)
        surface = renderer.surface(scope, pose)
        moved = None
        if settings.deformation is not None:
            seconds = (pts_s, pts_s + step_s)
            moved = _moved(scene, settings.deformation, surface, scope.camera, pose, seconds, phase)
        onward = flow(surface, pose, poses[position + 1], scope.camera, moved_mm=moved)
        if settings.supersample > 1:
            surface = _supersampled(renderer, scope, pose, surface, settings.supersample)
        gain = exposure.follow(expose(surface.radiance, scope), step_s=step_s)
        index = number * settings.per_sequence + position
        noise = scene_generator(settings.seed, scene_number, _STREAM_FRAMES + position)
        truth = renderer.frame(scope, pose, noise, index=index, pts_s=pts_s, gain=gain, surface=surface, motion=onward)
        right = None
        if settings.baseline_mm is not None:
            right = _right_of(settings, renderer, scope, pose, noise, index=index, pts_s=pts_s, gain=gain)
        onward[~truth.depth.valid] = np.nan
        last = position + 1 == frames
        yield Shot(truth, number, position, right, settings.baseline_mm or 0.0, None if last else onward)


def _right_of(
    settings: StreamSettings,
    renderer: Renderer,
    scope: Scope,
    pose: Pose,
    rng: np.random.Generator,
    *,
    index: int,
    pts_s: float | None,
    gain: float,
) -> PhantomFrame:
    """The second lens of a rectified pair: the same camera ``baseline_mm`` to the right, lit by the same lights."""
    baseline = settings.baseline_mm or 0.0
    lights = tuple(
        dataclasses.replace(light, position_mm=(light.position_mm[0] - baseline, *light.position_mm[1:]))
        for light in scope.lights
    )
    moved = pose.copy()
    moved[:3, 3] += baseline * pose[:3, 0]
    other = dataclasses.replace(scope, lights=lights)
    surface = renderer.surface(other, moved)
    if settings.supersample > 1:
        surface = _supersampled(renderer, other, moved, surface, settings.supersample)
    return renderer.frame(other, moved, rng, index=index, pts_s=pts_s, gain=gain, surface=surface)


def _moved(
    scene: Scene,
    deformation: Deformation,
    surface: Surface,
    camera: Camera,
    pose: Pose,
    seconds: tuple[float, float],
    phase: float,
) -> FloatArray:
    """H x W x 3 mm by which the points that are seen move in the world between two times."""
    directions = np.nan_to_num(rays(camera)).reshape(-1, 3).astype(np.float64)
    world = directions * surface.depth_mm.reshape(-1, 1) @ pose[:3, :3].T + pose[:3, 3]
    rest = at_rest(world, deformation, scene=scene, pts_s=seconds[0], phase=phase)
    moved = displacement(rest, deformation, scene=scene, pts_s=seconds[1], phase=phase) + rest - world
    return moved.astype(np.float32).reshape(*surface.depth_mm.shape, 3)


def _keeps_clear(renderer: Renderer, scope: Scope, pose: Pose) -> bool:
    """Whether nothing is nearer than 2 mm and the walls are seen from their front, at a coarse resolution."""
    surface = renderer.probe(scope, pose)
    seen = surface.depth_mm[surface.depth_mm > 0]
    return bool(seen.size and np.percentile(seen, 1) > 2.0 and surface.facing > 0.9)


def _supersampled(renderer: Renderer, scope: Scope, pose: Pose, surface: Surface, factor: int) -> Surface:
    camera = scope.camera
    large = dataclasses.replace(
        scope,
        camera=camera.resize(camera.width * factor, camera.height * factor),
        content=np.ones((camera.height * factor, camera.width * factor), bool),
    )
    fine = renderer.surface(large, pose).radiance
    size = (camera.width, camera.height)
    return dataclasses.replace(surface, radiance=cv2.resize(fine, size, interpolation=cv2.INTER_AREA))
