"""What a training of the trinity needs to have decided: mode, layers, schedule; and what it refuses."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from endolux.errors import UsageError
from endolux.losses.canonical import CanonicalMode
from endolux.train.recipe_distillation import Distillation, Release
from endolux.train.task import Progress
from endolux.types import DepthKind

if TYPE_CHECKING:
    from endolux.models.teachers import Teacher


def released(release: Release, progress: Progress) -> float:
    """Periods of the schedule that have passed; infinite where everything counts from the beginning.

    Example:
        >>> progress = Progress(step=30, steps=100, steps_per_epoch=20)
        >>> ways = (("epoch", 1), ("step", 10), ("share", 0.1))
        >>> [released(Release(unit=unit, period=period), progress) for unit, period in ways]
        [1.5, 3.0, 3.0]
    """
    if release.unit == "none":
        return float("inf")
    whole = {"epoch": progress.steps_per_epoch, "step": 1, "share": progress.steps}[release.unit]
    # Rounded: 30 / (100 * 0.1) must not fall short of 3.
    return round(progress.step / (whole * release.period), 9)


def canonical_mode(teacher: Teacher, distillation: Distillation) -> CanonicalMode:
    """The mode of the canonical maps that fits the teacher and has what it needs.

    Raises:
        UsageError: ``recipe.mode``, ``recipe.anchor``.
    """
    affine, mode = teacher.kind is DepthKind.RELATIVE_DISPARITY, distillation.trinity.mode
    if affine and mode != "affine":
        raise UsageError(
            f"The teacher '{teacher.name}' gives disparity of unknown scale and shift, the student depth"
            + ("" if mode is None else f", and distillation.trinity.mode is {mode}"),
            why="What both mean is known up to scale and shift only; which freedom to take out must be stated."
            if mode is None
            else "The logarithm of a disparity with an unknown shift means nothing.",
            fix="Set distillation.trinity.mode=affine"
            + (", and distillation.base=labels or video as an anchor." if distillation.base == "none" else "."),
            error_id="recipe.mode",
        )
    if mode == "affine" and distillation.base == "none":
        raise UsageError(
            "distillation.trinity.mode is affine, and distillation.base is none",
            why="Nothing then says where the student's disparity is 0: its depth would be meaningless even after "
            "median scaling.",
            fix="Set distillation.base=labels or video as an anchor"
            + ("." if affine else ", or mode=scale, which this teacher allows."),
            error_id="recipe.anchor",
        )
    return mode or "scale"


def semantic_layer(known: Mapping[str, int], name: str | None, owner: str, *, taught: bool = False) -> str:
    """The named map, or the one in which meanings are most likely found.

    Raises:
        UsageError: ``teacher.feature`` or ``model.feature``.
    """
    if name is None and known:
        names = list(known)
        if all(part.startswith("block") for part in names):
            # A transformer is of one size throughout; the third of four stages ends three quarters of the way.
            return names[max(0, 3 * len(names) // 4 - 1)]
        return names[2] if len(names) >= 3 else names[-1]
    if name in known:
        return str(name)
    near = difflib.get_close_matches(name or "", known, n=1)
    side = "teacher" if taught else "student"
    raise UsageError(
        f"The {side} '{owner}' has no map " + (f"'{name}'" if name else "to align meanings with"),
        why=f"It has {', '.join(known)}." if known else "It gives its depth and nothing else.",
        fix=f"Did you mean '{near[0]}'?" if near else f"Choose another {side}, or set distillation.semantic.weight=0.",
        error_id="teacher.feature" if taught else "model.feature",
    )


def no_video() -> UsageError:
    """For the base ``video`` without its section."""
    return UsageError(
        "distillation.base is video, and the recipe has no section 'video'",
        why="It says what a picture is rebuilt from.",
        fix="Add 'video: {}' for the defaults, or use the recipe litenet-video.",
        error_id="recipe.video",
    )


def no_teacher() -> UsageError:
    """For terms that learn from a teacher, without one."""
    return UsageError(
        "The recipe distils, and has no teacher",
        why="Distillation needs a model to learn from.",
        fix="Add teacher.model=MODEL: a run folder, a bundle or a foundation model.",
        error_id="recipe.teacher",
    )
