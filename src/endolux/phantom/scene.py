"""Scenes by name: every anatomy that the world knows."""

from __future__ import annotations

import numpy as np

from endolux.errors import UsageError
from endolux.phantom import airway, bowel, heart, hollow, laparoscopy, liver_scene, stomach  # each fills the registry
from endolux.phantom.anatomy import ANATOMIES, Scene
from endolux.phantom.families import Family

__all__ = [
    "ANATOMIES",
    "Scene",
    "airway",
    "bowel",
    "build_scene",
    "heart",
    "hollow",
    "laparoscopy",
    "liver_scene",
    "stomach",
]


def build_scene(
    name: str, rng: np.random.Generator, *, rich_texture: float = 0.0, family: Family = Family.TRAIN
) -> Scene:
    """Build one random scene of the named anatomy.

    Args:
        name: registry name.
        rng: source of randomness.
        rich_texture: share of scenes with strong mottling and dense vessels, whose brightness says little of depth.
        family: whose shapes; those of two families have nothing in common.

    Raises:
        UsageError: unknown anatomy.
    """
    if name not in ANATOMIES:
        raise UsageError(
            f"Unknown anatomy '{name}'",
            why=f"This version knows: {', '.join(sorted(ANATOMIES))}.",
            fix="Choose one of them.",
            error_id="phantom.anatomy",
        )
    scene = ANATOMIES[name](rng, rich_texture, family)
    scene.record["family"] = family.value
    return scene
