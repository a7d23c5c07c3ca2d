"""One run: what it is made of, what it is scored on, and how test sets are scored, by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

RUN_FOLDER = "run"
"""Of the training, in the folder of a run."""
PHANTOM_PROTOCOL = "phantom"
"""Stands for the convention of :func:`endolux.reproduce.worker.phantom_protocol`, which is no registered protocol."""
SCALED_PROTOCOL = "phantom-scaled"
"""The same after median scaling."""
SHAPE_PROTOCOL, CLIP_PROTOCOL, REAL_PROTOCOL = "phantom-shape", "phantom-clips", "real-frames"
"""Rendered stills, rendered clips and loose real frames by :mod:`endolux.reproduce.measures`."""
VIDEO_PROTOCOL = "phantom-video"
"""Rendered clips, their depth and the path of their camera, by :mod:`endolux.reproduce.video_measures`."""
RELATIVE_PROTOCOL = "relative"
"""Frames with depth by :mod:`endolux.reproduce.relative`."""
LANDMARK_PROTOCOL = "landmarks"
"""Pictures with drawn landmarks, by :mod:`endolux.reproduce.landmark_measures`."""
SCALED = ":scaled"
"""Ends the role of a set that is scored after median scaling as well."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSet:
    """A set that every run is scored on.

    Attributes:
        role: whose part it plays.
        reader, path: how and where it is read.
        protocol: how it is scored.
        shape: boundaries, texture and bands are measured as well.
        scene_frames: frames in a row that show one scene; 0 where the reader's sequences say so.
        sequence: only sequences whose names begin so.
    """

    role: str
    reader: str
    path: Path
    protocol: str
    shape: bool = False
    scene_frames: int = 0
    sequence: str = ""

    @property
    def identity(self) -> list[JsonValue]:
        """What moves its figures, without the place on disk."""
        extra: list[JsonValue] = [self.shape, self.scene_frames] if self.shape or self.scene_frames else []
        return [self.role, self.reader, self.protocol, *extra, *([self.sequence] if self.sequence else [])]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a reproduction is trained and tested on.

    Attributes:
        sources: of the training, as recipes name them.
        tests: sets that are scored, by role.
        titles: what each role's set is.
        sha256: of all of it; moves the key of every result.
        facts: for the report, JSON values without paths.
        more_sources: of further training sets by name, for rows that name them.
    """

    sources: tuple[str, ...]
    tests: tuple[ScoredSet, ...]
    titles: Mapping[str, str]
    sha256: str
    facts: Mapping[str, JsonValue]
    more_sources: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def sources_of(self, name: str) -> tuple[str, ...]:
        """Sources of a training set by its name."""
        return self.sources if name == "train" else self.more_sources[name]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: a recipe, trained in a folder and scored on the test sets.

    Attributes:
        row, seed: which place of the tables it fills.
        architecture: of its network.
        recipe, overrides: for :func:`endolux.train.recipe.load_recipe`.
        tests: what it is scored on.
        conversion: of ratios to depth, ``correct`` or ``reproduce``.
        threads: of the process, None for all.
        folder: of the run.
        key: hash of everything that can move its figures.
        needs: names of runs that must have a result before it can begin.
        after: names of runs that must have ended, well or badly, before it begins.
        once: one run for all seeds.
        model: what is scored as it is instead of being trained.
    """

    row: str
    seed: int
    architecture: str
    recipe: str
    overrides: tuple[str, ...]
    tests: tuple[ScoredSet, ...]
    conversion: str
    threads: int | None
    folder: Path
    key: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False
    model: str = ""

    @property
    def name(self) -> str:
        """For people and folders: ``ts-25-seed1``."""
        return f"{self.row}-seed{self.seed}"


def sha256_of(document: object) -> str:
    """Hash of JSON values, independent of the order of keys.

    Example:
        >>> sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
