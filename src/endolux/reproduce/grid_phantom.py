"""The parts of a grid about rendered data: stills, clips, and pictures with landmarks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from endolux.reproduce.grid_liver import Liver
from endolux.reproduce.section import Count, Section, Split

_SINCE: dict[str, object] = {"split": "train", "fps": 25.0, "preset": "", "settings": {}}
"""Settings of rendered sets that came later, and what was meant before."""


class Rendered(Section):
    """A part of the phantom world.

    Attributes:
        anatomies: equal shares of these.
        seed: of the scenes. Sets with different seeds share no scene.
        split: whose shapes: those of different splits have no family of shapes in common.
        title: for tables.
    """

    anatomies: tuple[str, ...]
    seed: Annotated[int, Field(ge=0)]
    split: Split = "train"
    title: str = ""

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        values: dict[str, object] = handler(self)
        # What every set had before it could be said is left out: reproductions begun then go on.
        return {name: value for name, value in values.items() if name not in _SINCE or value != _SINCE[name]}


class Frames(Rendered):
    """Frames of the phantom world.

    Attributes:
        frames, views_per_scene: how many.
        anatomies, seed, split, title: see :class:`Rendered`.
    """

    frames: Count
    views_per_scene: Count


class Clips(Rendered):
    """Moving pictures of the phantom world: rigid scenes, without smoke and without a held instrument.

    Attributes:
        clips, frames_per_clip: how many.
        motion: of :class:`endolux.phantom.motion.Motion`.
        fps: frames a second: the fewer, the farther the camera moves between two.
        preset: of :mod:`endolux.phantom.presets`; none for its widest choice.
        settings: other settings of the phantom, as ``endolux phantom --set`` takes them.
        anatomies, seed, split, title: see :class:`Rendered`.
    """

    clips: Count
    frames_per_clip: Annotated[int, Field(ge=3)]
    motion: str = "mixed"
    fps: Annotated[float, Field(gt=0)] = 25.0
    preset: str = ""
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class Phantom(Section):
    """Rendered data.

    Attributes:
        width, height: of the pictures.
        even_light: share of instruments that hide the fall-off of light.
        rich_texture: share of strongly mottled scenes.
        train: what is trained on.
        more: further training sets by name, for rows that name them.
        sets: test sets by role.
        clips: test sets of moving pictures by role.
        moving: training sets of moving pictures by name, for rows that name them.
        liver: training sets with landmarks by name, for rows that name them.
        liver_sets: test sets with landmarks by role.
    """

    width: Count
    height: Count
    even_light: float
    rich_texture: Annotated[float, Field(ge=0, le=1)] = 0.0
    train: Frames
    more: dict[str, Frames] = Field(default_factory=dict)
    sets: dict[str, Frames]
    clips: dict[str, Clips] = Field(default_factory=dict)
    moving: dict[str, Clips] = Field(default_factory=dict)
    liver: dict[str, Liver] = Field(default_factory=dict)
    liver_sets: dict[str, Liver] = Field(default_factory=dict)

    @property
    def roles(self) -> set[str]:
        """Roles that are rendered."""
        return {*self.sets, *self.clips, *self.liver_sets}

    @property
    def training_sets(self) -> dict[str, Frames]:
        """All training sets by name."""
        return {"train": self.train, **self.more}

    def identity(self) -> dict[str, object]:
        """Everything as JSON values; what a scale does not use is left out, so that older records stay known."""
        document = self.model_dump(mode="json")
        unused: dict[str, object] = {"rich_texture": 0.0}
        unused |= {name: {} for name in ("more", "clips", "moving", "liver", "liver_sets")}
        return {name: value for name, value in document.items() if name not in unused or value != unused[name]}
