"""A reproduction as tables for people and as one document for machines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from endolux.reproduce.figures import Estimate, Judged, Runs, difference, figure, judge, seeds_of
from endolux.reproduce.grid import METRICS, Grid, Scale, Table
from endolux.reproduce.plan import SCALED, Data, Job
from endolux.reproduce.results import RunFailure
from endolux.reproduce.timing import Cost, middle

LABELS: Mapping[str, str] = {"rmse": "RMSE", "abs_rel": "REL", "delta1": "δ1", "delta2": "δ2", "delta3": "δ3"}
_DASH = "–"


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


def missing_jobs(jobs: Sequence[Job], runs: Runs, failures: Sequence[RunFailure]) -> tuple[str, ...]:
    """Names of runs that neither have a result nor failed."""
    failed = {(failure.row, failure.seed) for failure in failures}
    return tuple(job.name for job in jobs if (job.row, job.seed) not in runs and (job.row, job.seed) not in failed)


def document(found: Reproduction) -> dict[str, JsonValue]:
    """All of it as JSON values; NaN becomes null."""
    grid = found.grid
    return {
        "schema_version": 1,
        "system": grid.system,
        "source": grid.source,
        "scale": found.scale_name,
        "rows": list(found.rows),
        "changes": list(found.changes),
        "seeds": list(found.seeds),
        "teacher": found.teacher,
        "data": {**found.data.facts, "sha256": found.data.sha256},
        "runs": [found.runs[key].model_dump(mode="json") for key in sorted(found.runs)],
        "failures": [failure.model_dump(mode="json") for failure in found.failures],
        "missing": list(found.missing),
        "costs": {
            name: {
                "parameters": cost.parameters,
                "macs": cost.macs,
                "legacy_s": list(cost.legacy_s),
                "single_s": list(cost.single_s),
                "published": list(grid.published_timing[name]) if name in grid.published_timing else None,
            }
            for name, cost in found.costs.items()
        },
        "tables": [_table_document(found, table) for table in found.tables()],
        "claims": _claims_document(found),
        "provenance": dict(found.provenance),
    }


def markdown(found: Reproduction) -> str:
    """The tables, the claims and how they were made, as Markdown that also reads in a terminal."""
    grid, scale = found.grid, found.scale
    parts = [f"# {grid.title}: published and measured, scale `{found.scale_name}`", _preface(found)]
    for table in found.tables():
        role = grid.roles[table.role]
        parts += [
            f"## {table.title}",
            f"Published on {role.title} (RMSE in {role.unit}). Measured on {found.data.titles[table.role]} "
            f"(RMSE in {_unit(found, table.role)}).",
            _figures(found, table),
        ]
        differences = _differences(found, table)
        if differences:
            reference = _title(found, table, table.reference or grid.reference)
            parts += [f"Difference from {reference}, paired by seed (published beside it):", differences]
        if found.scaled:
            parts += ["The same pictures after median scaling, which leaves the shape alone to be judged:"]
            parts += [_scaled(found, table)]
    parts += ["## Cost", _cost_preface(found), _costs(found), "## Claims", _CLAIMS_PREFACE, _claims(found)]
    if found.failures or found.missing:
        parts += ["## Not measured", _gaps(found)]
    parts += ["## How it was made", _conditions(found, scale), "## Rerun", _rerun(found)]
    return "\n\n".join(parts) + "\n"


_CLAIMS_PREFACE = (
    "A claim is held where the whole 95 % interval of the gain speaks for it, not held where all of it speaks against "
    "it, and undecided otherwise. The gain is positive where the first row is the better one."
)


def _preface(found: Reproduction) -> str:
    counts = sorted({len(seeds_of(found.runs, row)) for row in found.rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Source of the published figures: {found.grid.source}. Scale: {found.scale.summary}. Measured figures are "
        f"means over {seeds} seed(s) with 95 % Student intervals in brackets; the published ones come from single runs "
        "without intervals. The two stand on different data: compare differences between rows, not values."
    )


def _figures(found: Reproduction, table: Table) -> str:
    published = found.grid.published.get(table.role, {})
    role = found.grid.roles[table.role]
    header = ["Method"]
    for metric in METRICS:
        units = (f" ({role.unit})", f" ({_unit(found, table.role)})") if metric == "rmse" else ("", "")
        header += [f"{LABELS[metric]} publ.{units[0]}", f"{LABELS[metric]} meas.{units[1]}"]
    header += ["s publ.", "s meas.", "FPS publ.", "FPS meas.", "seeds"]
    rows = []
    for name in table.rows:
        cells = [_title(found, table, name)]
        for index, metric in enumerate(METRICS):
            known = published.get(name)
            cells.append(_DASH if known is None else f"{known[index]:.3f}")
            cells.append(_interval(figure(found.runs, name, table.role, metric), metric))
        cells += [*_time_cells(found, found.grid.row(name).architecture), str(len(seeds_of(found.runs, name)))]
        rows.append(cells)
    return _grid(header, rows)


def _time_cells(found: Reproduction, architecture: str) -> list[str]:
    known, cost = found.grid.published_timing.get(architecture), found.costs.get(architecture)
    seconds = None if cost is None else middle(cost.legacy_s)
    return [
        _DASH if known is None else f"{known[0]:.3f}",
        _DASH if seconds is None else f"{seconds:.3f}",
        _DASH if known is None else f"{known[1]:g}",
        _DASH if seconds is None else f"{1 / seconds:.1f}",
    ]


def _differences(found: Reproduction, table: Table) -> str:
    reference = table.reference or found.grid.reference
    published = found.grid.published.get(table.role, {})
    header = ["Method"]
    for metric in METRICS[:3]:
        header += [f"Δ{LABELS[metric]} publ.", f"Δ{LABELS[metric]} meas."]
    rows = []
    for name in table.rows:
        if name == reference:
            continue
        cells = [_title(found, table, name)]
        for index, metric in enumerate(METRICS[:3]):
            pair = published.get(name), published.get(reference)
            cells.append(_DASH if pair[0] is None or pair[1] is None else f"{pair[0][index] - pair[1][index]:+.3f}")
            cells.append(_interval(difference(found.runs, name, reference, table.role, metric), metric, sign=True))
        rows.append(cells)
    return _grid(header, rows) if rows else ""


def _scaled(found: Reproduction, table: Table) -> str:
    reference, role = table.reference or found.grid.reference, table.role + SCALED
    header = ["Method"]
    for metric in METRICS[:3]:
        header += [f"{LABELS[metric]} scaled", f"Δ{LABELS[metric]} scaled"]
    rows = []
    for name in table.rows:
        cells = [_title(found, table, name)]
        for metric in METRICS[:3]:
            cells.append(_interval(figure(found.runs, name, role, metric), metric))
            gap = difference(found.runs, name, reference, role, metric)
            cells.append(_DASH if name == reference else _interval(gap, metric, sign=True))
        rows.append(cells)
    return _grid(header, rows)


def _costs(found: Reproduction) -> str:
    header = ["Network", "Parameters", "GMAC", "s publ.", "s meas.", "FPS publ.", "FPS meas.", "one picture (ms)"]
    rows = [
        [
            name,
            f"{cost.parameters:,}",
            f"{cost.macs / 1e9:.3f}",
            *_time_cells(found, name),
            f"{middle(cost.single_s) * 1e3:.0f}",
        ]
        for name, cost in found.costs.items()
    ]
    return _grid(header, rows)


def _cost_preface(found: Reproduction) -> str:
    timing = found.scale.timing
    return (
        f"At {timing.height}x{timing.width}, float32, on {found.provenance.get('timing_threads')} threads of this "
        "machine's CPU. Seconds and FPS as published: a batch of two, autograd on, FPS counts batches (D-13; the "
        f"published ones on a GTX 1650 Ti). The last column is the correct form: one picture, no autograd. Medians of "
        f"{timing.rounds} rounds."
    )


def _claims(found: Reproduction) -> str:
    header, rows = ["Claim", "Published", "Measured", "Verdict"], []
    if found.scaled:
        header += ["After median scaling", "Verdict scaled"]
    for judged, scaled in zip(found.verdicts(), found.verdicts(SCALED), strict=True):
        claim = judged.claim
        cells = [claim.text, _published_pair(found, judged), judged.reason, f"**{judged.verdict.value}**"]
        if found.scaled:
            cells += [_DASH, _DASH] if claim.kind == "faster" else [scaled.reason, f"**{scaled.verdict.value}**"]
        rows.append(cells)
    return _grid(header, rows)


def _published_pair(found: Reproduction, judged: Judged) -> str:
    claim, grid = judged.claim, found.grid
    if claim.kind == "faster":
        times = [grid.published_timing.get(grid.row(name).architecture) for name in (claim.row, claim.than)]
        shown = [_DASH if known is None else f"{known[0]:.3f} s" for known in times]
    else:
        index = METRICS.index(claim.metric)
        figures = [grid.published.get(claim.role, {}).get(name) for name in (claim.row, claim.than)]
        shown = [_DASH if known is None else f"{known[index]:.3f}" for known in figures]
    return f"{shown[0]} against {shown[1]}"


def _gaps(found: Reproduction) -> str:
    lines = [f"- {failure.row}-seed{failure.seed} failed: {failure.what}" for failure in found.failures]
    lines += [f"- {name}: outside the time budget" for name in found.missing]
    return "\n".join(lines)


def _conditions(found: Reproduction, scale: Scale) -> str:
    runs = [found.runs[key] for key in sorted(found.runs)]
    lines = [
        f"- Teacher of the distilled rows: {scale.teacher_note if found.teacher == scale.teacher else found.teacher}."
    ]
    if runs:
        steps, images = sorted({run.steps for run in runs}), sorted({run.images for run in runs})
        seconds = [run.seconds for run in runs]
        mean = sum(seconds) / len(seconds)
        lines.append(
            f"- {len(runs)} runs of {_span(steps)} steps ({_span(images)} pictures), {mean:.0f} s on average "
            f"({min(seconds):.0f} to {max(seconds):.0f} s). Runs of a seed share order and augmentation of the samples."
        )
        entries = {role: score.entries for role, score in runs[0].scores.items() if not role.endswith(SCALED)}
        shown = ", ".join(f"{found.data.titles.get(role, role)}: {count}" for role, count in entries.items())
        lines.append(f"- Entries a figure is the mean of (mirrored copies count): {shown}.")
        lines.append("- No alignment where nothing else is said, as published; means over entries, also for RMSE.")
    if found.data.facts.get("kind") == "phantom":
        lines.append(
            "- Every test scene has a seed of its own that no training scene has. Networks start from random weights: "
            "no ImageNet, so encoders are compared without what pre-training would give either of them."
        )
    lines += [f"- Recipe changes: `{change}`" for change in (*scale.overrides, *found.changes)]
    lines.append(f"- Data: sha256 `{found.data.sha256[:16]}`.")
    lines += [f"- {name}: {value}" for name, value in found.provenance.items() if not isinstance(value, dict | list)]
    versions = found.provenance.get("versions")
    if isinstance(versions, dict):
        lines.append("- " + ", ".join(f"{name} {value}" for name, value in versions.items() if value))
    return "\n".join(lines)


def _rerun(found: Reproduction) -> str:
    rows = (
        ""
        if set(found.rows) == {row.name for row in found.grid.rows_of(found.scale_name)}
        else (f" --rows {','.join(found.rows)}")
    )
    changes = "".join(f" --set '{change}'" for change in found.changes)
    data = "" if found.data.facts.get("kind") == "phantom" else " --data PATH"
    seeds = ",".join(map(str, found.seeds))
    return (
        "    pip install 'endolux[train,phantom]'\n"
        f"    endolux reproduce {found.grid.system} --scale {found.scale_name}{data} --seeds {seeds}{rows}{changes} "
        "-o FOLDER\n\n"
        "Stopped or out of time, the same command goes on where it was: finished runs are kept. `results.json` in the "
        "folder holds every figure of every seed, the hashes of recipes and data, and the versions."
    )


def _table_document(found: Reproduction, table: Table) -> dict[str, JsonValue]:
    reference = table.reference or found.grid.reference
    published = found.grid.published.get(table.role, {})
    rows: list[JsonValue] = []
    for name in table.rows:
        known = published.get(name)
        rows.append(
            {
                "row": name,
                "published": None if known is None else dict(zip(METRICS, known, strict=True)),
                "measured": {metric: _json(figure(found.runs, name, table.role, metric)) for metric in METRICS},
                "difference": None
                if name == reference
                else {metric: _json(difference(found.runs, name, reference, table.role, metric)) for metric in METRICS},
                "scaled": {metric: _json(figure(found.runs, name, table.role + SCALED, metric)) for metric in METRICS}
                if found.scaled
                else None,
                "scaled_difference": {
                    metric: _json(difference(found.runs, name, reference, table.role + SCALED, metric))
                    for metric in METRICS
                }
                if found.scaled and name != reference
                else None,
                "seeds": [*seeds_of(found.runs, name)],
            }
        )
    return {
        "title": table.title,
        "role": table.role,
        "published_on": found.grid.roles[table.role].title,
        "published_unit": found.grid.roles[table.role].unit,
        "measured_on": found.data.titles[table.role],
        "measured_unit": _unit(found, table.role),
        "reference": reference,
        "rows": rows,
    }


def _claims_document(found: Reproduction) -> list[JsonValue]:
    documents: list[JsonValue] = []
    for judged, scaled in zip(found.verdicts(), found.verdicts(SCALED), strict=True):
        both = found.scaled and judged.claim.kind != "faster"
        documents.append({**_claim_document(judged), "scaled": _judgement(scaled) if both else None})
    return documents


def _claim_document(judged: Judged) -> dict[str, JsonValue]:
    return {**judged.claim.model_dump(mode="json"), **_judgement(judged)}


def _judgement(judged: Judged) -> dict[str, JsonValue]:
    return {
        "gain": _json(judged.gain),
        "margin_value": _number(judged.margin),
        "verdict": judged.verdict.value,
        "reason": judged.reason,
    }


def _json(value: Estimate) -> dict[str, JsonValue]:
    return {"mean": _number(value.mean), "low": _number(value.low), "high": _number(value.high), "seeds": value.count}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unit(found: Reproduction, role: str) -> str:
    for result in found.runs.values():
        if role in result.scores:
            return result.scores[role].unit
    return "mm" if found.data.facts.get("kind") == "phantom" else found.grid.roles[role].unit


def _title(found: Reproduction, table: Table, name: str) -> str:
    return table.titles.get(name) or found.grid.row(name).title or name


def _interval(value: Estimate, metric: str, *, sign: bool = False) -> str:
    if value.count == 0:
        return _DASH
    digits = 2 if metric == "rmse" and abs(value.mean) >= 1 else 3
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _span(values: Sequence[int]) -> str:
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
