"""Streams of phantom frames: the same settings and seed give the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from endolux.phantom.pose import Pose, sample_pose, withdrawal_path
from endolux.phantom.render import PhantomFrame, Renderer, Surface
from endolux.phantom.scene import build_scene
from endolux.phantom.scope import Scope, erode, sample_scope
from endolux.phantom.sensor import expose

WORLD_VERSION = 1
"""Raised whenever the same settings would give other bytes."""

_MAX_TRIES = 25


class PhantomSettings(BaseModel):
    """What to render. Everything random follows from ``seed``.

    Example:
        >>> PhantomSettings(anatomies={"colon": 1.0}, frames=10).views_per_scene
        8
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anatomies: dict[str, float] = Field(default={"colon": 0.6, "pouch": 0.25, "tube": 0.15}, min_length=1)
    frames: int = Field(default=100, ge=1)
    width: int = Field(default=320, ge=16, le=4096)
    height: int = Field(default=256, ge=16, le=4096)
    views_per_scene: int = Field(default=8, ge=1)
    first_scene: int = Field(default=0, ge=0, description="Scenes are numbered; ranges of numbers never overlap.")
    seed: int = Field(default=0, ge=0)
    even_light: float = Field(default=0.18, ge=0, le=1, description="Share of scopes that hide the fall-off of light.")
    rich_texture: float = Field(default=0.0, ge=0, le=1, description="Share of strongly mottled, vessel-rich scenes.")


def scene_generator(seed: int, scene: int, stream: int) -> np.random.Generator:
    """Independent randomness for one purpose of one scene."""
    return np.random.default_rng([WORLD_VERSION, seed, scene, stream])


def views(settings: PhantomSettings, scene: int) -> Iterator[PhantomFrame]:
    """The single views of one scene, each through another scope."""
    rng = scene_generator(settings.seed, scene, 0)
    names = sorted(settings.anatomies)
    weights = np.array([settings.anatomies[name] for name in names])
    built = build_scene(str(rng.choice(names, p=weights / weights.sum())), rng, rich_texture=settings.rich_texture)
    renderer = Renderer(built)
    for view in range(settings.views_per_scene):
        own = scene_generator(settings.seed, scene, 1 + view)
        scope, pose, surface = _usable_view(own, renderer, settings)
        index = (scene - settings.first_scene) * settings.views_per_scene + view
        yield renderer.frame(scope, pose, own, index=index, surface=surface)


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

    Args:
        settings: ``first_scene`` chooses the scene, ``frames`` the length.
        fps: frame rate.
        supersample: render at this multiple and average down; ground truth stays exact at pixel centres.
    """
    rng = scene_generator(settings.seed, settings.first_scene, 0)
    names = sorted(settings.anatomies)
    weights = np.array([settings.anatomies[name] for name in names])
    built = build_scene(str(rng.choice(names, p=weights / weights.sum())), rng, rich_texture=settings.rich_texture)
    renderer = Renderer(built)
    own = scene_generator(settings.seed, settings.first_scene, 1)
    scope = sample_scope(own, width=settings.width, height=settings.height, even_light=settings.even_light)
    gain: float | None = None
    for index, pose in enumerate(withdrawal_path(own, built.centreline, frames=settings.frames, fps=fps)):
        surface = renderer.surface(scope, pose)
        if supersample > 1:
            surface = _supersampled(renderer, scope, pose, surface, supersample)
        wanted = expose(surface.radiance, scope)
        gain = wanted if gain is None else gain + 0.15 * (wanted - gain)
        yield renderer.frame(scope, pose, own, index=index, pts_s=index / fps, gain=gain, surface=surface)


def _usable_view(
    rng: np.random.Generator, renderer: Renderer, settings: PhantomSettings
) -> tuple[Scope, Pose, Surface]:
    """Draw views until the scope is inside the organ and not pressed against its wall."""
    scope = sample_scope(rng, width=settings.width, height=settings.height, even_light=settings.even_light)
    best: tuple[float, Pose, Surface] | None = None
    for _ in range(_MAX_TRIES):
        pose = sample_pose(rng, renderer.scene.centreline)
        surface = renderer.surface(scope, pose)
        seen = erode(scope.content) & (surface.depth_mm > 0)
        nearest = float(np.percentile(surface.depth_mm[seen], 1)) if seen.any() else 0.0
        score = surface.facing if nearest > 2.0 else 0.0
        if best is None or score > best[0]:
            best = (score, pose, surface)
        if score > 0.985:
            break
    if best is None:  # pragma: no cover - _MAX_TRIES is positive
        raise RuntimeError("no view was drawn")
    return scope, best[1], best[2]


def _supersampled(renderer: Renderer, scope: Scope, pose: Pose, surface: Surface, factor: int) -> Surface:
    import cv2

    camera = scope.camera
    large = dataclasses.replace(
        scope,
        camera=camera.resize(camera.width * factor, camera.height * factor),
        content=np.ones((camera.height * factor, camera.width * factor), bool),
    )
    fine = renderer.surface(large, pose).radiance
    size = (camera.width, camera.height)
    return dataclasses.replace(surface, radiance=cv2.resize(fine, size, interpolation=cv2.INTER_AREA))
