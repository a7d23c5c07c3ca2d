"""The part of a grid about pictures with landmarks of the liver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from endolux.reproduce.section import Count, Section, Split


class Liver(Section):
    """Rendered pictures of the liver with their landmarks, in the layout of L3D.

    Attributes:
        frames, views_per_scene: how many.
        seed: of the scenes. Sets with different seeds share no scene.
        split: whose shapes: those of different splits have no family of shapes in common.
        size: (width, height) of the pictures, those of the other sets by default; training resizes them.
        reader: how lines are drawn: ``l3d``, or ``l3d-broad`` for small pictures.
        preset: of :mod:`endolux.phantom.presets`.
        settings: other settings of the phantom, as ``endolux phantom --set`` takes them.
        title: for tables.
    """

    frames: Count
    views_per_scene: Count
    seed: Annotated[int, Field(ge=0)]
    split: Split = "train"
    size: tuple[Count, Count] | None = None
    reader: Literal["l3d", "l3d-broad", "l3d-legacy"] = "l3d"
    preset: str = "l3d-like"
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    title: str = ""
