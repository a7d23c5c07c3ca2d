"""The parts of a grid: rows, scales, tables and claims, checked to the last key."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from endolux.reproduce.grid_phantom import Phantom
from endolux.reproduce.section import Count, Section

Scoring = Literal["leve", "shape", "relative", "video", "landmarks"]
"""How rendered test sets are scored: as Leve does; depth, boundaries, texture and time after median scaling; relative
depth as it is, inverted and fitted; depth and trajectories of clips; masks of landmarks."""


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
        recipe: for :func:`endolux.train.recipe.load_recipe`; none for a row that is not trained.
        architecture: for :func:`endolux.models.create`; what is timed.
        model: what is scored as it is instead of being trained: a bundle, a training run, a foundation model, or a
            baseline such as ``baseline:constant``.
        title: in tables where the name would not do.
        epsilon: share of the teacher's loss, None where the recipe has no such thing.
        scales: where it belongs; everywhere by default.
        size: (width, height) of the pictures where they differ from the other rows' (scale ``full`` only).
        teacher: this row is trained once, before all that are ``taught``, and teaches them.
        taught: it learns from a teacher.
        prior: this row is trained once, whatever the seeds: others start from it.
        start: the prior whose trained weights this row starts from.
        starts: keys of the recipe -> the priors whose runs they name, where parts of a network start from several; at a
            scale without such a prior, what the recipe or ``--weights`` names.
        overrides: of the recipe, for this row alone.
        data: name of the training set, ``train`` by default.
    """

    name: str
    recipe: str = ""
    architecture: str = ""
    model: str = ""
    title: str = ""
    epsilon: Annotated[float, Field(ge=0, le=1)] | None = None
    scales: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    teacher: bool = False
    taught: bool = False
    prior: bool = False
    start: str = ""
    starts: dict[str, str] = Field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    data: str = "train"

    @property
    def learns(self) -> bool:
        """Whether a teacher has a say."""
        return self.taught or self.epsilon is not None

    @property
    def begins_from(self) -> frozenset[str]:
        """The priors that have to be trained before."""
        return frozenset(name for name in (self.start, *self.starts.values()) if name)

    @property
    def once(self) -> bool:
        """Whether there is one run for all seeds."""
        return self.teacher or self.prior or bool(self.model)

    @model_validator(mode="after")
    def _trained_or_not(self) -> Self:
        if bool(self.recipe) == bool(self.model) or bool(self.recipe) != bool(self.architecture):
            raise ValueError(f"row {self.name}: either a recipe and its architecture, or a model that is not trained")
        if self.model and (self.learns or self.prior or self.begins_from):
            raise ValueError(f"row {self.name}: what is not trained learns from nobody and starts nothing")
        return self


class Published(Section):
    """A data set on disk.

    Attributes:
        title: for tables.
        reader, protocol: how it is read and scored.
        train: reader of the part that is trained on; empty for a set that is only scored.
        train_frames: published number of training images.
        shape: measure boundaries, texture and bands as well.
        sequence: only sequences whose names begin so are scored.
        part_of: how the user names its folder, where several roles are parts of one set.
    """

    title: str
    reader: str
    protocol: str
    train: str = ""
    train_frames: Count | None = None
    shape: bool = False
    sequence: str = ""
    part_of: str = ""


class Timing(Section):
    """How latency is measured.

    Attributes:
        width, height: of the pictures.
        rounds: how often.
        steps: whether rows of landmarks are timed; without it, their sizes are counted and only new bases are timed.
    """

    width: Count
    height: Count
    rounds: Annotated[int, Field(ge=2)]
    steps: bool = True


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
        models: rows -> what is scored as it is at this scale instead of being trained; where it is a prior, others
            start from it.
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
    readers: dict[str, Published] = Field(default_factory=dict)
    timing: Timing
    overrides: tuple[str, ...] = ()
    distillation_overrides: tuple[str, ...] = ()
    row_overrides: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    architectures: dict[str, str] = Field(default_factory=dict)
    models: dict[str, str] = Field(default_factory=dict)
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
    titles: dict[str, str] = Field(default_factory=dict)
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
        role, metric: on which test set by which metric; for ``faster`` no set, and as metric a name of
            :attr:`endolux.reproduce.timing.Cost.extra` or none.
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
