"""All that a reproduction found, whatever it is shown as."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from endolux.reproduce.figures import Judged, Runs, judge
from endolux.reproduce.grid import Grid, Scale, Table
from endolux.reproduce.plan import SCALED, Data, Job
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

    def verdicts(self, ending: str = "") -> list[Judged]:
        """Every claim that this scale can decide, by the figures of roles with this ending."""
        return [
            judge(claim, self.grid, self.runs, self.costs, ending=ending)
            for claim in self.grid.claims
            if (not claim.scales or self.scale_name in claim.scales)
            and (claim.kind == "faster" or claim.role in self.data.titles)
            and {claim.row, claim.than} <= set(self.rows)
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
