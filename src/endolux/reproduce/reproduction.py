"""All that a reproduction found, whatever it is shown as."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from endolux.reproduce.figures import Judged, Runs, judge
from endolux.reproduce.grid import Grid, Scale, Table
from endolux.reproduce.job import SCALED, Data, Job
from endolux.reproduce.results import RunFailure
from endolux.reproduce.timing import Cost


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """Everything that a report is made from.

    Attributes:
        grid, scale_name: what was repeated at which size.
        rows, seeds: that were asked for.
        changes: of every recipe beyond the scale's.
        data: what it was trained and tested on.
        teacher: who taught.
        runs: results by (row, seed).
        costs: by architecture.
        failures: runs that ended badly.
        missing: names of the other runs without a result.
        left_out: what could not be measured for want of data, a line each.
        provenance: versions, threads, seconds.
    """

    grid: Grid
    scale_name: str
    rows: tuple[str, ...]
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    data: Data
    teacher: str
    runs: Runs
    costs: Mapping[str, Cost]
    failures: tuple[RunFailure, ...]
    missing: tuple[str, ...]
    provenance: Mapping[str, JsonValue]
    left_out: tuple[str, ...] = ()

    @property
    def scale(self) -> Scale:
        """The scale's settings."""
        return self.grid.scale(self.scale_name)

    def tables(self) -> list[Table]:
        """Tables that this scale has data for."""
        return [
            table
            for table in self.grid.tables
            if (not table.scales or self.scale_name in table.scales)
            and table.role in self.data.titles
            and set(table.rows) & set(self.rows)
        ]

    @property
    def scaled(self) -> bool:
        """Whether the sets were scored after median scaling as well."""
        return any(test.role.endswith(SCALED) for test in self.data.tests)

    @property
    def published(self) -> bool:
        """Whether there are published figures to stand beside the measured ones."""
        return bool(self.grid.published)

    def place(self, role: str) -> str:
        """What a role's figures are measured on."""
        known = self.grid.roles.get(role)
        return known.title if known is not None and known.real else self.data.titles.get(role, role)

    def metrics(self, table: Table) -> tuple[str, ...]:
        """Columns of a table."""
        return table.metrics or self.grid.metrics

    def shown(self, table: Table) -> list[str]:
        """Rows of a table that were asked for, in its order."""
        return [row for row in table.rows if row in self.rows]

    def verdicts(self, ending: str = "", *, over: Literal["seeds", "scenes"] = "seeds") -> list[Judged]:
        """Every claim that this scale can decide, by the figures of roles with this ending."""
        return [
            judge(claim, self.grid, self.runs, self.costs, ending=ending, over=over)
            for claim in self.grid.claims
            if (not claim.scales or self.scale_name in claim.scales)
            and (claim.kind == "faster" or claim.role in self.data.titles)
            and {claim.row, claim.than, *([claim.toward] if claim.toward else [])} <= set(self.rows)
        ]

    def unit(self, role: str) -> str:
        """Unit of the measured RMSE of a role."""
        for result in self.runs.values():
            if role in result.scores:
                return result.scores[role].unit
        return "mm" if self.data.facts.get("kind") == "phantom" else self.grid.roles[role].unit


def missing_jobs(jobs: Sequence[Job], runs: Runs, failures: Sequence[RunFailure]) -> tuple[str, ...]:
    """Names of runs that neither have a result nor failed."""
    failed = {(failure.row, failure.seed) for failure in failures}
    return tuple(job.name for job in jobs if (job.row, job.seed) not in runs and (job.row, job.seed) not in failed)
