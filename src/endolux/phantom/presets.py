"""Presets: named settings of the whole world, as data, and the splits that keep training and testing apart."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AllowInfNan, Field, ValidationError, model_validator
from typing_extensions import override

from endolux.errors import UsageError
from endolux.phantom.deform import Deformation
from endolux.phantom.families import SPLIT_SCENES, Family
from endolux.phantom.instrument import ScopeChoice
from endolux.phantom.motion import Motion
from endolux.phantom.preset_table import PRESETS, Preset
from endolux.phantom.scene import ANATOMIES
from endolux.phantom.scope import Scope
from endolux.phantom.world import PhantomSettings

__all__ = ["PRESETS", "SPLITS", "Preset", "StreamSettings", "merged", "settings_of", "unknown", "validated"]

SPLITS = {family.value: family.first_scene for family in Family}
"""Number of the first scene of each split: no scene belongs to two, and no shape either (``families``)."""

_Positive = Annotated[float, Field(gt=0), AllowInfNan(False)]


class StreamSettings(PhantomSettings):
    """Everything about a stream of frames. The same settings and world version give the same bytes.

    Attributes:
        preset: what these settings started from.
        split: ``first_scene`` counts within it.
        motion: ``still`` for single views; otherwise every sequence is one continuous shot.
        fps: frame rate of moving sequences.
        sequence_frames: frames of a moving sequence.
        baseline_mm: distance of a second lens to the right, None for one lens.
        deformation: how the organ moves, None for a rigid one.
        supersample: pixels are averaged from this many squared; ground truth stays that of pixel centres.
        scope: what instruments are allowed.

    Example:
        >>> settings = StreamSettings(frames=20, motion="hover", sequence_frames=8)
        >>> settings.sequences, settings.length(2), settings.scene(2)
        (3, 4, 2)
    """

    preset: str = "custom"
    split: Literal["train", "validation", "test"] = "train"
    motion: Motion = Motion.STILL
    fps: Annotated[_Positive, Field(le=1000)] = 25.0
    sequence_frames: int = Field(default=25, ge=1)
    baseline_mm: Annotated[_Positive, Field(le=100)] | None = None
    deformation: Deformation | None = None
    supersample: int = Field(default=1, ge=1, le=4)
    scope: ScopeChoice = ScopeChoice()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.deformation is not None and self.motion is Motion.STILL:
            raise ValueError("deformation needs a motion other than 'still'")
        if self.first_scene + self.sequences > SPLIT_SCENES:
            raise ValueError(f"a split has {SPLIT_SCENES} scenes")
        for name in self.anatomies:
            if not 0 <= self.anatomies[name] < math.inf:
                raise ValueError(f"the weight of '{name}' is not a positive number")
        if not sum(self.anatomies.values()) > 0:
            raise ValueError("no anatomy has a weight")
        return self

    @property
    def per_sequence(self) -> int:
        """Frames of a full sequence."""
        return self.views_per_scene if self.motion is Motion.STILL else self.sequence_frames

    @property
    def sequences(self) -> int:
        """Number of sequences; each has a scene of its own."""
        return -(-self.frames // self.per_sequence)

    def length(self, number: int) -> int:
        """Frames of sequence ``number``."""
        return min(self.per_sequence, self.frames - number * self.per_sequence)

    def scene(self, number: int) -> int:
        """Number of the scene of sequence ``number``, unique over all splits."""
        return SPLITS[self.split] + self.first_scene + number

    @override
    def instrument(self, rng: np.random.Generator) -> Scope:
        return self.scope.narrow(super().instrument(rng), rng)


_WEIGHTS = {
    "laparoscopy": 4.2,
    "colon": 3.6,
    "stomach": 1.5,
    "heart": 1.2,
    "phantom-silicone": 1.2,
    "tube": 0.6,
    "pouch": 0.6,
}
# Made for one preset; in the mixture it would only be more of the same.
_ASIDE = frozenset({"liver"})


def settings_of(preset: str = "train", changes: Mapping[str, object] | None = None) -> StreamSettings:
    """Settings of a preset, with changes.

    Args:
        preset: name in :data:`PRESETS`.
        changes: settings by name; dictionaries are merged, not replaced, except ``anatomies``.

    Raises:
        UsageError: an unknown preset or anatomy, with the nearest name; impossible values (``phantom.settings``).

    Example:
        >>> settings = settings_of("clean", {"frames": 3, "scope": {"look": {"gamma": 1.8}}})
        >>> settings.frames, settings.scope.look["gamma"], settings.scope.content
        (3, (1.8, 1.8), 'full')
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    found = PRESETS[preset]
    start: dict[str, object] = {"preset": preset, "anatomies": _weights(found.anatomies), **found.settings}
    values = merged(start, changes or {})
    _check_fixed(changes or {}, values)
    for name in values["anatomies"] if isinstance(values["anatomies"], dict) else ():
        if name not in ANATOMIES:
            raise unknown("anatomy", str(name), ANATOMIES)
    return validated(values)


def validated(values: Mapping[str, object]) -> StreamSettings:
    """Settings from plain values. Raises UsageError ``phantom.settings`` with the first thing that is wrong."""
    try:
        return StreamSettings.model_validate(dict(values))
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(map(str, first["loc"]))
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise unknown("setting", name, _setting_names()) from problem
        shown, why = repr(first["input"]), f"{text[0].upper()}{text[1:]}."
        if isinstance(first["input"], Mapping):
            shown, why = text, "The values contradict each other, or what an instrument can be."
        raise UsageError(
            f"Impossible {name or 'settings'}: {shown}",
            why=why,
            fix="Run 'endolux phantom --help' for what each option takes.",
            error_id="phantom.settings",
        ) from problem


def merged(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """``base`` with ``changes``; dictionaries are merged, except weights (``anatomies``, ``models``).

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
        {'a': {'b': 3, 'c': 2}}
    """
    result = dict(base)
    for name, value in changes.items():
        current = result.get(name)
        whole = name in ("anatomies", "models", "fixed")
        if isinstance(current, Mapping) and isinstance(value, Mapping) and not whole:
            result[name] = merged(current, value)
        else:
            result[name] = value
    return result


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a registry, with the nearest one."""
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
    return UsageError(
        f"Unknown {what} '{name}'",
        why=f"This version knows: {', '.join(listed)}.",
        fix=f"Did you mean '{near[0]}'?" if near else "Choose one of them.",
        error_id=f"phantom.{what}",
    )


def _check_fixed(changes: Mapping[str, object], values: Mapping[str, object]) -> None:
    def camera(of: Mapping[str, object]) -> Mapping[str, object]:
        scope = of.get("scope")
        found = scope.get("camera") if isinstance(scope, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    if "field_of_view_deg" in camera(changes) and camera(values).get("fixed") is not None:
        raise UsageError(
            f"A field of view of {camera(changes)['field_of_view_deg']} degrees for a camera that is fixed",
            why="This preset or layout has one exact camera, whose field of view follows from it.",
            fix="Leave out the field of view, or set scope.camera.fixed to null where the layout allows it.",
            error_id="phantom.fixed-camera",
        )


def _weights(wanted: Mapping[str, float]) -> dict[str, float]:
    known = {name: weight for name, weight in wanted.items() if name in ANATOMIES}
    return known or {name: _WEIGHTS.get(name, 1.0) for name in sorted(ANATOMIES) if name not in _ASIDE}


def _setting_names() -> list[str]:
    return list(StreamSettings.model_fields)
