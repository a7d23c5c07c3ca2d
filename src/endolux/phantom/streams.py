"""Sequences of phantom frames: stills or continuous shots, one lens or two, with flow to the next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from endolux.phantom.deform import Organ, between
from endolux.phantom.mesh import Mesh
from endolux.phantom.motion import Motion, draw_motion, path
from endolux.phantom.pose import Pose
from endolux.phantom.presets import StreamSettings, settings_of
from endolux.phantom.render import PhantomFrame, Renderer, Surface, flow
from endolux.phantom.scene import Scene
from endolux.phantom.scope import Scope
from endolux.phantom.sensor import AutoExposure, expose
from endolux.phantom.smoke import Smoke
from endolux.phantom.world import SMOKE_DENSITY, open_scene, scene_generator, still_smoke, supersampled, usable_view
from endolux.types import Camera, DepthMap, FloatArray, Frame

FlowArray = npt.NDArray[np.float32]
"""H x W x 2: columns and rows to the same surface point in the next frame; NaN where that is not known."""

_STREAM_PATH, _STREAM_FRAMES, _STREAM_SMOKE = 1_000_000, 2_000_000, 3_000_000


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
        scene: the sampled parameters of the sequence as JSON values: anatomy, and for a shot in motion its
            instrument, path, smoke and phase of deformation.
        view: those of this frame: pose and exposure, and for a still its instrument.
    """

    truth: PhantomFrame
    sequence: int
    position: int
    right: PhantomFrame | None = None
    baseline_mm: float = 0.0
    flow: FlowArray | None = None
    scene: Mapping[str, object] = dataclasses.field(default_factory=dict)
    view: Mapping[str, object] = dataclasses.field(default_factory=dict)

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
        preset: ``train``, ``clean``, ``c3vd-like``, ``scared-like``, ``l3d-like`` or ``endoslam-like``.
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
    about = _about(scene)
    for view in range(settings.length(number)):
        own = scene_generator(settings.seed, settings.scene(number), 1 + view)
        scope, pose, surface, held = usable_view(own, renderer, settings)
        index = number * settings.per_sequence + view
        if settings.supersample > 1:
            surface = supersampled(renderer, scope, pose, surface, settings.supersample, held=held)
        smoke = still_smoke(settings, settings.scene(number), view, scene)
        surface = _veiled(surface, smoke, 0.0)
        gain = expose(surface.radiance, scope)
        truth = renderer.frame(scope, pose, own, index=index, gain=gain, surface=surface)
        right = None
        if settings.baseline_mm is not None:
            seen = _right_of(settings, renderer, scope, pose, held)
            veiled = _veiled(seen.surface, smoke, 0.0)
            right = renderer.frame(seen.scope, seen.pose, own, index=index, gain=gain, surface=veiled)
        told = None if smoke is None else smoke.record()
        drawn = {"scope": scope.record(), "held": held is not None, "smoke": told} | _moment(pose, gain)
        yield Shot(truth, number, view, right, settings.baseline_mm or 0.0, scene=about, view=drawn)


def _moving(settings: StreamSettings, number: int, scene: Scene) -> Iterator[Shot]:
    frames, scene_number = settings.length(number), settings.scene(number)
    own = scene_generator(settings.seed, scene_number, _STREAM_PATH)
    renderer = Renderer(scene)
    scope, start, first, held = usable_view(own, renderer, settings)
    ahead = first.depth_mm[(first.depth_mm > 0) & ~first.held]
    reach = float(np.median(ahead)) if ahead.size else 50.0

    def clear(poses: list[Pose]) -> bool:
        chosen = {round(k * (len(poses) - 1) / 8) for k in range(9)}
        return all(_keeps_clear(renderer, scope, poses[k]) for k in sorted(chosen))

    kind = draw_motion(own, settings.motion)
    # One pose more than frames: the last frame is in motion too.
    way = path(own, scene, start, motion=kind, frames=frames + 1, fps=settings.fps, reach_mm=reach, clear=clear)
    phase = float(own.uniform(0, 2 * np.pi))
    organ = None if settings.deformation is None else Organ.of(scene, settings.deformation, phase=phase)
    smoke = _smoke(settings, scene_number, scene)
    about = _about(scene) | {
        "scope": scope.record(),
        "held": held is not None,
        "motion": way.record,
        "phase": None if organ is None else phase,
        "smoke": None if smoke is None else smoke.record(),
    }
    exposure = AutoExposure(lag_s=scope.exposure_lag_s)
    step_s = 1.0 / settings.fps
    shapes = None if organ is None else (organ.at(0.0), organ.at(step_s))
    for position in range(frames):
        pose, pts_s = way.poses[position], position * step_s
        if shapes is not None:
            renderer = renderer.deformed(shapes[0])
        surface = renderer.surface(scope, pose, held=held)
        moved = None if shapes is None else _moved(renderer, surface, shapes)
        onward = flow(surface, pose, way.poses[position + 1], scope.camera, moved_mm=moved)
        if settings.supersample > 1:
            surface = supersampled(renderer, scope, pose, surface, settings.supersample, held=held)
        surface = _veiled(surface, smoke, pts_s)
        gain = exposure.follow(expose(surface.radiance, scope), step_s=step_s)
        index = number * settings.per_sequence + position
        noise = scene_generator(settings.seed, scene_number, _STREAM_FRAMES + position)
        truth = renderer.frame(scope, pose, noise, index=index, pts_s=pts_s, gain=gain, surface=surface, motion=onward)
        right = None
        if settings.baseline_mm is not None:
            seen = _right_of(settings, renderer, scope, pose, held)
            veiled = _veiled(seen.surface, smoke, pts_s)
            right = renderer.frame(seen.scope, seen.pose, noise, index=index, pts_s=pts_s, gain=gain, surface=veiled)
        onward[~truth.depth.valid] = np.nan
        last = position + 1 == frames
        drawn = _moment(pose, gain) | ({} if smoke is None else {"smoke_density": smoke.density_at(pts_s)})
        yield Shot(truth, number, position, right, settings.baseline_mm or 0.0, None if last else onward, about, drawn)
        if organ is not None and shapes is not None:
            shapes = (shapes[1], organ.at((position + 2) * step_s))


def _about(scene: Scene) -> dict[str, object]:
    return {"anatomy": scene.anatomy, "parameters": dict(scene.record)}


def _moment(pose: Pose, gain: float) -> dict[str, object]:
    return {"camera_to_world_mm": pose.tolist(), "gain": float(gain)}


def _smoke(settings: StreamSettings, scene_number: int, scene: Scene) -> Smoke | None:
    """The smoke of a sequence, which only scenes seen from outside have, like single views."""
    rng = scene_generator(settings.seed, scene_number, _STREAM_SMOKE)
    wanted = rng.random() < settings.smoke
    return Smoke.draw(rng, SMOKE_DENSITY) if wanted and scene.outlook is not None else None


def _veiled(surface: Surface, smoke: Smoke | None, pts_s: float) -> Surface:
    if smoke is None:
        return surface
    return dataclasses.replace(surface, radiance=smoke.over(surface.radiance, surface.depth_mm, pts_s=pts_s))


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    scope: Scope
    pose: Pose
    surface: Surface


def _right_of(settings: StreamSettings, renderer: Renderer, scope: Scope, pose: Pose, held: Mesh | None) -> _Seen:
    """The second lens of a rectified pair: the same camera ``baseline_mm`` to the right, lit by the same lights."""
    baseline = settings.baseline_mm or 0.0
    lights = tuple(
        dataclasses.replace(light, position_mm=(light.position_mm[0] - baseline, *light.position_mm[1:]))
        for light in scope.lights
    )
    moved = pose.copy()
    moved[:3, 3] += baseline * pose[:3, 0]
    other = dataclasses.replace(scope, lights=lights)
    if held is not None:
        offset = np.array([baseline, 0.0, 0.0], np.float32)
        held = dataclasses.replace(held, vertices=np.ascontiguousarray(held.vertices - offset, np.float32))
    surface = renderer.surface(other, moved, held=held)
    if settings.supersample > 1:
        surface = supersampled(renderer, other, moved, surface, settings.supersample, held=held)
    return _Seen(other, moved, surface)


def _moved(renderer: Renderer, surface: Surface, shapes: tuple[Mesh, Mesh]) -> FloatArray:
    """H x W x 3 mm by which the points that are seen move in the world from the first shape to the second."""
    hit = surface.hit
    if hit is None:  # pragma: no cover - whatever was rendered has hits
        raise RuntimeError("a surface without hits")
    moved = between(shapes[0].vertices, shapes[1].vertices, renderer.faces, hit.face, hit.u, hit.v)
    return moved.reshape(*surface.depth_mm.shape, 3)


def _keeps_clear(renderer: Renderer, scope: Scope, pose: Pose) -> bool:
    """Whether nothing is nearer than 2 mm and the walls are seen from their front, at a coarse resolution."""
    surface = renderer.probe(scope, pose)
    seen = surface.depth_mm[surface.depth_mm > 0]
    return bool(seen.size and np.percentile(seen, 1) > 2.0 and surface.facing > 0.9)
