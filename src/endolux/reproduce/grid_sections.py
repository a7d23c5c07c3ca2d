"""The parts of a grid: rows, frames, scales, tables and claims, checked to the last key."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Scoring = Literal["leve", "shape"]
"""How rendered test sets are scored: as Leve does, or depth, boundaries, texture and time after median scaling."""


class Section(BaseModel):
    """A part of a grid: no unknown keys, no change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Role(Section):
    """A test set: a published one that something stands for, or one of this reproduction's own.

    Attributes:
        title: its name.
        unit: of the published RMSE.
        real: one of the loose real frames of :mod:`endolux.reproduce.real_frames`, whose folder the user names; its
            figures stand in the tables only then.
    """

    title: str
    unit: str = "mm"
    real: bool = False


class Row(Section):
    """One kind of run.

    Attributes:
        name: in results and tables.
        recipe: for :func:`endolux.train.recipe.load_recipe`.
        architecture: for :func:`endolux.models.create`; what is timed.
        title: in tables where the name would not do.
        epsilon: share of the teacher's loss, None where the recipe has no such thing.
        scales: where it belongs; everywhere by default.
        size: (width, height) of the pictures where they differ from the other rows' (scale ``full`` only).
        teacher: this row is trained once, before all that are ``taught``, and teaches them.
        taught: it learns from a teacher.
        overrides: of the recipe, for this row alone.
        data: name of the training set, ``train`` by default.
    """

    name: str
    recipe: str
    architecture: str
    title: str = ""
    epsilon: Annotated[float, Field(ge=0, le=1)] | None = None
    scales: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    teacher: bool = False
    taught: bool = False
    overrides: tuple[str, ...] = ()
    data: str = "train"

    @property
    def learns(self) -> bool:
        """Whether a teacher has a say."""
        return self.taught or self.epsilon is not None


class Frames(Section):
    """Frames of the phantom world.

    Attributes:
        anatomies: equal shares of these.
        frames, views_per_scene: how many.
        seed: of the scenes. Sets with different seeds share no scene.
        title: for tables.
    """

    anatomies: tuple[str, ...]
    frames: Count
    views_per_scene: Count
    seed: Annotated[int, Field(ge=0)]
    title: str = ""


class Clips(Section):
    """Moving pictures of the phantom world: rigid scenes, without smoke and without a held instrument.

    Attributes:
        anatomies: equal shares of these.
        clips, frames_per_clip: how many.
        motion: of :class:`endolux.phantom.motion.Motion`.
        seed: of the scenes.
        title: for tables.
    """

    anatomies: tuple[str, ...]
    clips: Count
    frames_per_clip: Annotated[int, Field(ge=3)]
    motion: str = "mixed"
    seed: Annotated[int, Field(ge=0)]
    title: str = ""


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
    """

    width: Count
    height: Count
    even_light: float
    rich_texture: Annotated[float, Field(ge=0, le=1)] = 0.0
    train: Frames
    more: dict[str, Frames] = {}
    sets: dict[str, Frames]
    clips: dict[str, Clips] = {}

    @property
    def roles(self) -> set[str]:
        """Roles that are rendered."""
        return {*self.sets, *self.clips}

    @property
    def training_sets(self) -> dict[str, Frames]:
        """All training sets by name."""
        return {"train": self.train, **self.more}

    def identity(self) -> dict[str, object]:
        """Everything as JSON values; what a scale does not use is left out, so that older records stay known."""
        document = self.model_dump(mode="json")
        unused = {"rich_texture": 0.0, "more": {}, "clips": {}}
        return {name: value for name, value in document.items() if name not in unused or value != unused[name]}


class Published(Section):
    """A data set on disk.

    Attributes:
        title: for tables.
        reader, protocol: how it is read and scored.
        train: reader of the part that is trained on; empty for a set that is only scored.
        train_frames: published number of training images.
        shape: measure boundaries, texture and bands as well.
    """

    title: str
    reader: str
    protocol: str
    train: str = ""
    train_frames: Count | None = None
    shape: bool = False


class Timing(Section):
    """Size of the pictures on which latency is measured, and how often."""

    width: Count
    height: Count
    rounds: Annotated[int, Field(ge=2)]


class Scale(Section):
    """A size of the experiment.

    Attributes:
        summary: one line.
        minutes: budget, None for no limit.
        seeds: default ones.
        threads: of one run; None for all.
        conversion: of ratios to depth, ``correct`` or ``reproduce`` (D-15 of the specification).
        teacher, teacher_note: who teaches the distilled rows; no teacher where a row of the grid does.
        phantom: rendered data, or
        readers: data sets by role, whose folders the user names; beside rendered data, further test sets.
        timing: how latency is measured.
        overrides: of every recipe; ``distillation_overrides`` of those with a teacher as well; ``row_overrides`` of
            single rows.
        architectures: of the rows -> what stands for them at this scale (the overrides have to say so too).
        notes: what a reader of the tables has to know of this scale.
    """

    summary: str
    minutes: Annotated[float, Field(gt=0)] | None = None
    seeds: tuple[int, ...]
    threads: Count | None = None
    conversion: Literal["correct", "reproduce"] = "correct"
    teacher: str = ""
    teacher_note: str = ""
    phantom: Phantom | None = None
    readers: dict[str, Published] = {}
    timing: Timing
    overrides: tuple[str, ...] = ()
    distillation_overrides: tuple[str, ...] = ()
    row_overrides: dict[str, tuple[str, ...]] = {}
    architectures: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> set[str]:
        """Roles that this scale can score."""
        return {*self.readers, *(self.phantom.roles if self.phantom is not None else ())}


class Table(Section):
    """One table: which rows on which test set.

    Attributes:
        title, role, rows: what it shows.
        reference: the row that differences are taken from, the grid's by default.
        titles: of rows, where they differ from the grid's.
        metrics: columns, the grid's by default.
        scales: where it belongs; everywhere by default.
    """

    title: str
    role: str
    rows: tuple[str, ...]
    reference: str | None = None
    titles: dict[str, str] = {}
    metrics: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()


class Claim(Section):
    """A statement in a form that figures can decide.

    Attributes:
        id, text: for people.
        kind: ``better``, ``not-better``, ``slightly-worse``, ``closes`` or ``faster``; see
            :func:`endolux.reproduce.figures.judge`.
        row, than: the two rows that are compared.
        toward: for ``closes``, the row whose distance from ``than`` is to be closed.
        role, metric: on which test set by which metric; none for ``faster``.
        margin: share of the value of ``than``; for ``closes``, share of the distance.
        scales: where it can be decided; everywhere by default.
    """

    id: str
    text: str
    kind: Literal["better", "not-better", "slightly-worse", "closes", "faster"]
    row: str
    than: str
    toward: str = ""
    role: str = ""
    metric: str = ""
    margin: Annotated[float, Field(gt=0)] | None = None
    scales: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.margin is None) != (self.kind in ("better", "faster")):
            raise ValueError(f"claim {self.id}: a margin belongs to not-better, slightly-worse and closes alone")
        if bool(self.toward) != (self.kind == "closes"):
            raise ValueError(f"claim {self.id}: 'toward' belongs to closes alone")
        return self
