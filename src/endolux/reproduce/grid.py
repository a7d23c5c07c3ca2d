"""What a system's experiments are: rows, test sets, published figures and claims, checked to the last key."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Iterable, Sequence
from typing import Self

import yaml
from pydantic import Field, model_validator

from endolux.errors import UsageError
from endolux.reproduce import metric_names
from endolux.reproduce.grid_phantom import Clips, Frames, Phantom
from endolux.reproduce.grid_sections import (
    Claim,
    Published,
    Role,
    Row,
    Scale,
    Scoring,
    Table,
    Timing,
)
from endolux.reproduce.section import Section

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "Claim",
    "Clips",
    "Frames",
    "Grid",
    "Phantom",
    "Published",
    "Role",
    "Row",
    "Scale",
    "Scoring",
    "Section",
    "Table",
    "Timing",
    "choose_rows",
    "load_grid",
    "systems",
]

METRICS = ("rmse", "abs_rel", "delta1", "delta2", "delta3")
"""Columns of the published tables, in the order of the published lists; the names are those of ``endolux.metrics``."""
HIGHER_IS_BETTER = frozenset(name for name, metric in metric_names.METRICS.items() if metric.higher)

Figures = tuple[float, float, float, float, float]


class Grid(Section):
    """The experiments of one system.

    Attributes:
        system, title, source: what is repeated, and where it is published.
        reference: the row that differences are taken from.
        domain: role of the set that the training belongs to.
        scoring: how rendered test sets are scored.
        metrics: columns of a table that names none.
        published: role -> row -> figures in the order of ``METRICS``; none where the source has no such tables.
        published_timing: architecture -> (seconds, frames a second).
    """

    system: str
    title: str
    source: str
    reference: str
    domain: str
    scoring: Scoring = "leve"
    metrics: tuple[str, ...] = METRICS
    roles: dict[str, Role]
    rows: tuple[Row, ...]
    scales: dict[str, Scale]
    tables: tuple[Table, ...]
    published: dict[str, dict[str, Figures]] = Field(default_factory=dict)
    published_timing: dict[str, tuple[float, float]] = Field(default_factory=dict)
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        rows = {row.name for row in self.rows}
        used = {self.reference}
        roles = {self.domain, *self.published}
        metrics = set(self.metrics)
        for table in self.tables:
            used |= {*table.rows, *table.titles, *([table.reference] if table.reference else [])}
            roles.add(table.role)
            metrics |= set(table.metrics)
        for figures in self.published.values():
            used |= set(figures)
        for claim in self.claims:
            used |= {claim.row, claim.than, *([claim.toward] if claim.toward else [])}
            if claim.kind != "faster":
                roles.add(claim.role)
                metrics.add(claim.metric)
        for scale in self.scales.values():
            roles |= scale.roles
            used |= {*scale.row_overrides, *scale.models}
        if used - rows or roles - set(self.roles) or metrics - set(metric_names.METRICS):
            unknown = sorted(metrics - set(metric_names.METRICS))
            raise ValueError(
                f"unknown rows {sorted(used - rows)}, roles {sorted(roles - set(self.roles))}, metrics {unknown}"
            )
        return self._check_teaching()

    def _check_teaching(self) -> Self:
        teachers = [row.name for row in self.rows if row.teacher]
        if len(teachers) > 1:
            raise ValueError(f"one row teaches the others, not {teachers}")
        for name, scale in self.scales.items():
            if any(row.learns for row in self.rows_of(name)) and not (teachers or scale.teacher):
                raise ValueError(f"scale {name}: nobody teaches")
            sets = (
                {*scale.phantom.training_sets, *scale.phantom.moving, *scale.phantom.liver}
                if scale.phantom is not None
                else {"train"}
            )
            unknown = {row.data for row in self.rows_of(name)} - sets
            if unknown:
                raise ValueError(f"scale {name}: no training set {sorted(unknown)}")
            known: set[str] = set()
            for row in self.rows_of(name):
                if lacking := sorted(row.begins_from - known):
                    raise ValueError(
                        f"scale {name}: '{row.name}' starts from '{lacking[0]}', which is no prior above it"
                    )
                if row.prior and row.learns and not (teachers and teachers[0] in {r.name for r in self._above(row)}):
                    raise ValueError(f"the prior '{row.name}' learns from a teacher that is not above it")
                known |= {row.name} if row.prior else set()
        return self

    def _above(self, row: Row) -> tuple[Row, ...]:
        return self.rows[: [other.name for other in self.rows].index(row.name)]

    @property
    def teacher(self) -> Row | None:
        """The row that teaches the others, None where somebody from outside does."""
        return next((row for row in self.rows if row.teacher), None)

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
        found = [row for row in self.rows if not row.scales or scale in row.scales]
        names = {row.name for row in found}
        other = self.scales[scale].architectures if scale in self.scales else {}
        rendered = scale in self.scales and self.scales[scale].phantom is not None
        return tuple(
            row.model_copy(
                update={
                    "architecture": other.get(row.architecture, row.architecture),
                    # Published data have one training set, and priors that a scale lacks are weights from elsewhere.
                    "data": row.data if rendered else "train",
                    "starts": {key: start if start in names else "" for key, start in row.starts.items()},
                }
                | _not_trained(self.scales[scale].models.get(row.name) if scale in self.scales else None)
            )
            for row in found
        )


def _not_trained(model: str | None) -> dict[str, str]:
    return {} if model is None else {"model": model, "recipe": "", "architecture": ""}


def choose_rows(grid: Grid, scale: str, names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of those names, all rows of the scale for none; in the grid's order. What they need comes along.

    That is who teaches them, and what they start from.

    Raises:
        UsageError: ``reproduce.row`` with the nearest name.
    """
    rows = grid.rows_of(scale)
    for name in names:
        if name not in {row.name for row in rows}:
            raise _unknown("row", name, [row.name for row in rows], f"at scale '{scale}'")
    wanted = {row.name for row in rows} if not names else set(names)
    # A row stands below what it starts from, and what is taught may be the start of another.
    for _ in rows:
        wanted |= {start for row in rows if row.name in wanted for start in row.begins_from}
        if any(row.learns for row in rows if row.name in wanted):
            wanted |= {row.name for row in rows if row.teacher}
    return tuple(row for row in rows if row.name in wanted)


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
