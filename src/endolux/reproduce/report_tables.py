"""A reproduction's tables in Markdown: figures, differences, cost, claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from endolux.reproduce.figures import Estimate, Judged, difference, figure, seeds_of
from endolux.reproduce.grid import METRICS, Table
from endolux.reproduce.job import SCALED
from endolux.reproduce.reproduction import Reproduction
from endolux.reproduce.timing import middle

LABELS: Mapping[str, str] = {"rmse": "RMSE", "abs_rel": "REL", "delta1": "δ1", "delta2": "δ2", "delta3": "δ3"}
DASH = "–"
"""Stands where there is no figure."""


def figures(found: Reproduction, table: Table) -> str:
    """Published and measured figures of a table's rows, with their times."""
    published = found.grid.published.get(table.role, {})
    role = found.grid.roles[table.role]
    header = ["Method"]
    for metric in METRICS:
        units = (f" ({role.unit})", f" ({found.unit(table.role)})") if metric == "rmse" else ("", "")
        header += [f"{LABELS[metric]} publ.{units[0]}", f"{LABELS[metric]} meas.{units[1]}"]
    header += ["s publ.", "s meas.", "FPS publ.", "FPS meas.", "seeds"]
    rows = []
    for name in table.rows:
        cells = [title(found, table, name)]
        for index, metric in enumerate(METRICS):
            known = published.get(name)
            cells.append(DASH if known is None else f"{known[index]:.3f}")
            cells.append(_interval(figure(found.runs, name, table.role, metric), metric))
        cells += [*_time_cells(found, found.grid.row(name).architecture), str(len(seeds_of(found.runs, name)))]
        rows.append(cells)
    return markdown_table(header, rows)


def _time_cells(found: Reproduction, architecture: str) -> list[str]:
    known, cost = found.grid.published_timing.get(architecture), found.costs.get(architecture)
    seconds = None if cost is None else middle(cost.legacy_s)
    return [
        DASH if known is None else f"{known[0]:.3f}",
        DASH if seconds is None else f"{seconds:.3f}",
        DASH if known is None else f"{known[1]:g}",
        DASH if seconds is None else f"{1 / seconds:.1f}",
    ]


def differences(found: Reproduction, table: Table) -> str:
    """Differences from the table's reference; empty for a table of it alone."""
    reference = table.reference or found.grid.reference
    published = found.grid.published.get(table.role, {})
    header = ["Method"]
    for metric in METRICS[:3]:
        header += [f"Δ{LABELS[metric]} publ.", f"Δ{LABELS[metric]} meas."]
    rows = []
    for name in table.rows:
        if name == reference:
            continue
        cells = [title(found, table, name)]
        for index, metric in enumerate(METRICS[:3]):
            pair = published.get(name), published.get(reference)
            cells.append(DASH if pair[0] is None or pair[1] is None else f"{pair[0][index] - pair[1][index]:+.3f}")
            cells.append(_interval(difference(found.runs, name, reference, table.role, metric), metric, sign=True))
        rows.append(cells)
    return markdown_table(header, rows) if rows else ""


def scaled(found: Reproduction, table: Table) -> str:
    """Measured figures after median scaling, and their differences from the reference."""
    reference, role = table.reference or found.grid.reference, table.role + SCALED
    header = ["Method"]
    for metric in METRICS[:3]:
        header += [f"{LABELS[metric]} scaled", f"Δ{LABELS[metric]} scaled"]
    rows = []
    for name in table.rows:
        cells = [title(found, table, name)]
        for metric in METRICS[:3]:
            cells.append(_interval(figure(found.runs, name, role, metric), metric))
            gap = difference(found.runs, name, reference, role, metric)
            cells.append(DASH if name == reference else _interval(gap, metric, sign=True))
        rows.append(cells)
    return markdown_table(header, rows)


def costs(found: Reproduction) -> str:
    """Size and times of every network."""
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
    return markdown_table(header, rows)


def claims(found: Reproduction) -> str:
    """Every claim with its verdict."""
    header, rows = ["Claim", "Published", "Measured", "Verdict"], []
    if found.scaled:
        header += ["After median scaling", "Verdict scaled"]
    for judged, scaled in zip(found.verdicts(), found.verdicts(SCALED), strict=True):
        claim = judged.claim
        cells = [claim.text, _published_pair(found, judged), judged.reason, f"**{judged.verdict.value}**"]
        if found.scaled:
            cells += [DASH, DASH] if claim.kind == "faster" else [scaled.reason, f"**{scaled.verdict.value}**"]
        rows.append(cells)
    return markdown_table(header, rows)


def _published_pair(found: Reproduction, judged: Judged) -> str:
    claim, grid = judged.claim, found.grid
    if claim.kind == "faster":
        times = [grid.published_timing.get(grid.row(name).architecture) for name in (claim.row, claim.than)]
        shown = [DASH if known is None else f"{known[0]:.3f} s" for known in times]
    else:
        index = METRICS.index(claim.metric)
        figures = [grid.published.get(claim.role, {}).get(name) for name in (claim.row, claim.than)]
        shown = [DASH if known is None else f"{known[index]:.3f}" for known in figures]
    return f"{shown[0]} against {shown[1]}"


def title(found: Reproduction, table: Table, name: str) -> str:
    """What a table calls a row."""
    return table.titles.get(name) or found.grid.row(name).title or name


def _interval(value: Estimate, metric: str, *, sign: bool = False) -> str:
    if value.count == 0:
        return DASH
    digits = 2 if metric == "rmse" and abs(value.mean) >= 1 else 3
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
