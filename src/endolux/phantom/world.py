"""Streams of phantom frames: the same settings and seed give the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from endolux.phantom.families import Family
from endolux.phantom.handling import Handling
from endolux.phantom.mesh import Mesh
from endolux.phantom.pose import Pose, sample_close, sample_outside, sample_pose, sample_sight, withdrawal_path
from endolux.phantom.render import PhantomFrame, Renderer, Surface
from endolux.phantom.scene import Scene, build_scene
from endolux.phantom.scope import Scope, erode, sample_scope
from endolux.phantom.sensor import expose, luminance
from endolux.phantom.smoke import Smoke

WORLD_VERSION = 3
"""Raised whenever the same settings would give other bytes."""

MIX: dict[str, float] = {
    "colon": 0.26,
    "pouch": 0.05,
    "tube": 0.03,
    "stomach": 0.08,
    "small-intestine": 0.05,
    "phantom-silicone": 0.08,
    "bronchus": 0.05,
    "sinus": 0.06,
    "laparoscopy": 0.27,
    "heart": 0.07,
}
"""Shares of the anatomies where nothing else is asked for."""

_MAX_TRIES = 25
_SIGHT_SHARE = 0.4
_CLOSE_SHARE = 0.2
_DARK_SHARE = 0.12
_SINCE_FIRST = {"held": 0.7, "smoke": 0.08}
SMOKE_DENSITY = (0.1, 1.2)
"""Thinnest and thickest smoke, as optical depth over the median distance."""

_NEAR_MM = 1.5
_GOOD = 0.985
_STILL_SMOKE, _CLIP_SMOKE, _CLIP_TOOL = 4_000_000, 5_000_000, 6_000_000


class PhantomSettings(BaseModel):
    """What to render. Everything random follows from ``seed``.

    Example:
        >>> PhantomSettings(anatomies={"colon": 1.0}, frames=10).views_per_scene
        8
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anatomies: dict[str, float] = Field(default_factory=lambda: dict(MIX), min_length=1)
    frames: int = Field(default=100, ge=1)
    width: int = Field(default=320, ge=16, le=4096)
    height: int = Field(default=256, ge=16, le=4096)
    views_per_scene: int = Field(default=8, ge=1)
    first_scene: int = Field(default=0, ge=0, description="Scenes are numbered; ranges of numbers never overlap.")
    seed: int = Field(default=0, ge=0)
    even_light: float = Field(default=0.18, ge=0, le=1, description="Share of scopes that hide the fall-off of light.")
    rich_texture: float = Field(default=0.0, ge=0, le=1, description="Share of strongly mottled, vessel-rich scenes.")
    held: float = Field(
        default=_SINCE_FIRST["held"], ge=0, le=1, description="Share of views that show the instrument of their scene."
    )
    smoke: float = Field(
        default=_SINCE_FIRST["smoke"], ge=0, le=1, description="Share of views from outside that are in smoke."
    )

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = handler(self)
        # What every run had before it could be said is left out: runs begun then are known again and go on.
        return {name: value for name, value in values.items() if (name, value) not in _SINCE_FIRST.items()}

    def instrument(self, rng: np.random.Generator) -> Scope:
        """Draw the instrument of one view or sequence."""
        return sample_scope(rng, width=self.width, height=self.height, even_light=self.even_light)


def scene_generator(seed: int, scene: int, stream: int) -> np.random.Generator:
    """Independent randomness for one purpose of one scene."""
    return np.random.default_rng([WORLD_VERSION, seed, scene, stream])


def open_scene(settings: PhantomSettings, scene: int) -> Scene:
    """Draw the anatomy of one scene and build it, in the family of shapes that its number belongs to."""
    rng = scene_generator(settings.seed, scene, 0)
    names = sorted(settings.anatomies)
    weights = np.array([settings.anatomies[name] for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return build_scene(name, rng, rich_texture=settings.rich_texture, family=Family.of_scene(scene))


def views(settings: PhantomSettings, scene: int) -> Iterator[PhantomFrame]:
    """The single views of one scene, each through another scope."""
    renderer = Renderer(open_scene(settings, scene))
    for view in range(settings.views_per_scene):
        own = scene_generator(settings.seed, scene, 1 + view)
        scope, pose, surface, _ = usable_view(own, renderer, settings)
        smoke = still_smoke(settings, scene, view, renderer.scene)
        if smoke is not None:
            surface = dataclasses.replace(surface, radiance=smoke.over(surface.radiance, surface.depth_mm, pts_s=0.0))
        index = (scene - settings.first_scene) * settings.views_per_scene + view
        yield renderer.frame(scope, pose, own, index=index, surface=surface)


def still_smoke(settings: PhantomSettings, scene: int, view: int, built: Scene) -> Smoke | None:
    """The smoke in one single view; only what is seen from outside has any."""
    rng = scene_generator(settings.seed, scene, _STILL_SMOKE + view)
    wanted = rng.random() < settings.smoke
    return Smoke.draw(rng, SMOKE_DENSITY) if wanted and built.outlook is not None else None


def frames(settings: PhantomSettings) -> Iterator[PhantomFrame]:
    """All single views of the settings, in order."""
    made = 0
    scene = settings.first_scene
    while made < settings.frames:
        for frame in views(settings, scene):
            if made >= settings.frames:
                return
            yield frame
            made += 1
        scene += 1


def clip(settings: PhantomSettings, *, fps: float, supersample: int = 1) -> Iterator[PhantomFrame]:
    """A continuous withdrawal through one scene with one scope and a lagging exposure.

    The instrument of the scene's channel may be in view, and is handled while the scope moves; what is seen from
    outside may lie in smoke that drifts. ``settings.held`` and ``settings.smoke`` say how often.

    Args:
        settings: ``first_scene`` chooses the scene, ``frames`` the length.
        fps: frame rate.
        supersample: render at this multiple and average down; ground truth stays exact at pixel centres.
    """
    scene = settings.first_scene
    built = open_scene(settings, scene)
    renderer = Renderer(built)
    own = scene_generator(settings.seed, scene, 1)
    scope = settings.instrument(own)
    handled = scene_generator(settings.seed, scene, _CLIP_TOOL)
    held = built.held[0] if built.held and handled.random() < settings.held else None
    handling = Handling.draw(handled)
    smoke = _clip_smoke(settings, scene, built)
    gain: float | None = None
    for index, pose in enumerate(withdrawal_path(own, built.centreline, frames=settings.frames, fps=fps)):
        now = None if held is None else handling.moved(held, index / fps)
        surface = renderer.surface(scope, pose, held=now)
        if supersample > 1:
            surface = supersampled(renderer, scope, pose, surface, supersample, held=now)
        if smoke is not None:
            veiled = smoke.over(surface.radiance, surface.depth_mm, pts_s=index / fps)
            surface = dataclasses.replace(surface, radiance=veiled)
        wanted = expose(surface.radiance, scope)
        gain = wanted if gain is None else gain + 0.15 * (wanted - gain)
        yield renderer.frame(scope, pose, own, index=index, pts_s=index / fps, gain=gain, surface=surface)


def _clip_smoke(settings: PhantomSettings, scene: int, built: Scene) -> Smoke | None:
    rng = scene_generator(settings.seed, scene, _CLIP_SMOKE)
    wanted = rng.random() < settings.smoke
    return Smoke.draw(rng, SMOKE_DENSITY) if wanted and built.outlook is not None else None


def draw_pose(rng: np.random.Generator, scene: Scene) -> Pose:
    """One random view of a scene, from inside or from outside as its anatomy wants it; it may be unusable."""
    if scene.outlook is not None:
        return sample_outside(rng, scene.outlook)
    if scene.growths is not None and len(scene.growths) and rng.random() < _CLOSE_SHARE:
        return sample_close(rng, scene.centreline, scene.growths)
    if scene.sights is not None and len(scene.sights) and rng.random() < _SIGHT_SHARE:
        return sample_sight(rng, scene.centreline, scene.sights)
    return sample_pose(rng, scene.centreline)


def _lit(surface: Surface, seen: npt.NDArray[np.bool_]) -> bool:
    """Whether the lights reach the scene: one beside the lens may stand behind the wall."""
    light = luminance(surface.radiance, seen, 2) if seen.any() else np.zeros(1, np.float32)
    return float(np.mean(light <= 2e-3 * np.percentile(light, 90))) < _DARK_SHARE


def usable_view(
    rng: np.random.Generator, renderer: Renderer, settings: PhantomSettings
) -> tuple[Scope, Pose, Surface, Mesh | None]:
    """Draw views until the scope is inside the organ and not pressed against its wall.

    Returns:
        the instrument, where it is held, what it sees, and what it holds into the view.
    """
    scope = settings.instrument(rng)
    scene = renderer.scene
    held = scene.held[0] if scene.held and rng.random() < settings.held else None
    near_mm = _NEAR_MM if scene.outlook is None else 0.6 * scene.outlook.reach_mm[0]
    ranked: list[tuple[float, Pose]] = []
    for _ in range(_MAX_TRIES):
        pose = draw_pose(rng, scene)
        glance = renderer.probe(scope, pose)
        inside = _shrunk(scope.content, glance.depth_mm.shape) & (glance.depth_mm > 0)
        nearest = float(np.percentile(glance.depth_mm[inside], 1)) if inside.any() else 0.0
        # If no view is good, the least near of the too near ones.
        score = glance.facing if nearest > near_mm else 0.1 * glance.facing * nearest / near_mm
        ranked.append((score, pose))
        if score > _GOOD:
            surface = renderer.surface(scope, pose, held=held)
            if _lit(surface, erode(scope.content) & (surface.depth_mm > 0)):
                return scope, pose, surface, held
    pose = max(ranked, key=lambda entry: entry[0])[1]
    return scope, pose, renderer.surface(scope, pose, held=held), held


def _shrunk(content: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The visible area at another size, without its rim."""
    small = cv2.resize(content.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return erode(np.asarray(small, bool))


def supersampled(
    renderer: Renderer, scope: Scope, pose: Pose, surface: Surface, factor: int, *, held: Mesh | None = None
) -> Surface:
    """The surface with light averaged from ``factor`` squared points a pixel; its ground truth stays."""
    camera = scope.camera
    large = dataclasses.replace(
        scope,
        camera=camera.resize(camera.width * factor, camera.height * factor),
        content=np.ones((camera.height * factor, camera.width * factor), bool),
    )
    fine = renderer.surface(large, pose, held=held).radiance
    size = (camera.width, camera.height)
    return dataclasses.replace(surface, radiance=cv2.resize(fine, size, interpolation=cv2.INTER_AREA))
