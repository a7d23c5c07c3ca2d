"""What a system's experiments are: rows, test sets, published figures and claims, checked to the last key."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from endolux.errors import UsageError

METRICS = ("rmse", "abs_rel", "delta1", "delta2", "delta3")
"""Columns of the tables, in the order of the published lists; the names are those of ``endolux.metrics``."""
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3"})

Figures = tuple[float, float, float, float, float]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a grid: no unknown keys, no change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Role(Section):
    """A published test set.

    Attributes:
        title: its name.
        unit: of the published RMSE.
    """

    title: str
    unit: str


class Row(Section):
    """One kind of run.

    Attributes:
        name: in results and tables.
        recipe: for :func:`endolux.train.recipe.load_recipe`.
        architecture: for :func:`endolux.models.create`; what is timed.
        title: in tables where the name would not do.
        epsilon: share of the teacher's loss, None for a run without a teacher.
        scales: where it belongs; everywhere by default.
        size: (width, height) of the pictures where they differ from the other rows' (scale ``full`` only).
    """

    name: str
    recipe: str
    architecture: str
    title: str = ""
    epsilon: Annotated[float, Field(ge=0, le=1)] | None = None
    scales: tuple[str, ...] = ()
    size: tuple[int, int] | None = None


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


class Phantom(Section):
    """Rendered data: one training set and a test set for each role."""

    width: Count
    height: Count
    even_light: float
    train: Frames
    sets: dict[str, Frames]


class Published(Section):
    """A data set on disk.

    Attributes:
        title: for tables.
        reader, protocol: how it is read and scored.
        train: reader of the part that is trained on; empty for a set that is only scored.
        train_frames: published number of training images.
    """

    title: str
    reader: str
    protocol: str
    train: str = ""
    train_frames: Count | None = None


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
        teacher, teacher_note: who teaches the distilled rows.
        phantom: rendered data, or
        readers: data sets by role, whose folders the user names.
        timing: how latency is measured.
        overrides: of every recipe; ``distillation_overrides`` of those with a teacher as well.
    """

    summary: str
    minutes: Annotated[float, Field(gt=0)] | None = None
    seeds: tuple[int, ...]
    threads: Count | None = None
    conversion: Literal["correct", "reproduce"]
    teacher: str
    teacher_note: str
    phantom: Phantom | None = None
    readers: dict[str, Published] = {}
    timing: Timing
    overrides: tuple[str, ...] = ()
    distillation_overrides: tuple[str, ...] = ()


class Table(Section):
    """One published table: which rows on which test set."""

    title: str
    role: str
    rows: tuple[str, ...]
    reference: str | None = None
    titles: dict[str, str] = {}
    scales: tuple[str, ...] = ()


class Claim(Section):
    """A published statement in a form that figures can decide.

    Attributes:
        id, text: for people.
        kind: ``better``, ``not-better``, ``slightly-worse`` or ``faster``; see :func:`endolux.reproduce.figures.judge`.
        row, than: the two rows that are compared.
        role, metric: on which test set by which metric; none for ``faster``.
        margin: share of the value of ``than``.
        scales: where it can be decided; everywhere by default.
    """

    id: str
    text: str
    kind: Literal["better", "not-better", "slightly-worse", "faster"]
    row: str
    than: str
    role: str = ""
    metric: str = ""
    margin: Annotated[float, Field(gt=0)] | None = None
    scales: tuple[str, ...] = ()


class Grid(Section):
    """The experiments of one system.

    Attributes:
        system, title, source: what is repeated, and where it is published.
        reference: the row that differences are taken from.
        domain: role of the set that the training belongs to.
        published: role -> row -> figures in the order of ``METRICS``.
        published_timing: architecture -> (seconds, frames a second).
    """

    system: str
    title: str
    source: str
    reference: str
    domain: str
    roles: dict[str, Role]
    rows: tuple[Row, ...]
    scales: dict[str, Scale]
    tables: tuple[Table, ...]
    published: dict[str, dict[str, Figures]]
    published_timing: dict[str, tuple[float, float]]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        rows = {row.name for row in self.rows}
        used = {self.reference}
        roles = {self.domain, *self.published}
        for table in self.tables:
            used |= {*table.rows, *table.titles, *([table.reference] if table.reference else [])}
            roles.add(table.role)
        for figures in self.published.values():
            used |= set(figures)
        for claim in self.claims:
            used |= {claim.row, claim.than}
            if claim.kind != "faster":
                roles.add(claim.role)
                if claim.metric not in METRICS:
                    raise ValueError(f"claim {claim.id}: no metric {claim.metric!r}")
            if (claim.margin is None) != (claim.kind in ("better", "faster")):
                raise ValueError(f"claim {claim.id}: a margin belongs to not-better and slightly-worse alone")
        for scale in self.scales.values():
            roles |= set(scale.phantom.sets if scale.phantom else scale.readers)
        if used - rows or roles - set(self.roles):
            raise ValueError(f"unknown rows {sorted(used - rows)}, roles {sorted(roles - set(self.roles))}")
        return self

    def scale(self, name: str) -> Scale:
        """One scale. Raises UsageError ``reproduce.scale`` with the nearest name."""
        if name not in self.scales:
            raise _unknown("scale", name, self.scales, f"of '{self.system}'")
        return self.scales[name]

    def row(self, name: str) -> Row:
        """One row by its name, which must exist."""
        return next(row for row in self.rows if row.name == name)

    def rows_of(self, scale: str) -> tuple[Row, ...]:
        """Rows that belong to a scale, in order."""
        return tuple(row for row in self.rows if not row.scales or scale in row.scales)


def choose_rows(grid: Grid, scale: str, names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of those names, all rows of the scale for none; in the grid's order.

    Raises:
        UsageError: ``reproduce.row`` with the nearest name.
    """
    rows = grid.rows_of(scale)
    for name in names:
        if name not in {row.name for row in rows}:
            raise _unknown("row", name, [row.name for row in rows], f"at scale '{scale}'")
    return tuple(row for row in rows if not names or row.name in names)


def systems() -> tuple[str, ...]:
    """Names of the systems whose experiments can be rerun, sorted.

    Example:
        >>> "leve" in systems()
        True
    """
    folder = importlib.resources.files("endolux.reproduce") / "grids"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_grid(system: str) -> Grid:
    """The experiments of a system.

    Raises:
        UsageError: ``reproduce.system`` with the nearest name.

    Example:
        >>> len(load_grid("leve").rows_of("desk"))
        11
    """
    if system not in systems():
        raise _unknown("system", system, systems(), "that can be reproduced")
    path = importlib.resources.files("endolux.reproduce") / "grids" / f"{system}.yaml"
    return Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> UsageError:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return UsageError(
        f"No {what} '{name}'",
        why=f"The {what}s {where} are: {', '.join(known)}.",
        fix=f"Did you mean '{near[0]}'?" if near else "Use one of these names.",
        error_id=f"reproduce.{what}",
    )
