"""Tables of a reproduction that has no published figures to stand beside: measured figures, differences, claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

from endolux.reproduce.figures import Estimate, difference, figure, seeds_of
from endolux.reproduce.grid import Table
from endolux.reproduce.metric_names import METRICS
from endolux.reproduce.report_tables import DASH, markdown_table, title
from endolux.reproduce.reproduction import Reproduction
from endolux.reproduce.timing import middle


def measured(found: Reproduction, table: Table) -> str:
    """A table's rows: means over seeds with intervals."""
    names = found.metrics(table)
    header = ["Method", *(_label(found, table, name) for name in names), "seeds"]
    rows = [
        [
            title(found, table, row),
            *(cell(figure(found.runs, row, table.role, name), name) for name in names),
            str(len(seeds_of(found.runs, row))),
        ]
        for row in found.shown(table)
    ]
    return markdown_table(header, rows)


def measured_differences(found: Reproduction, table: Table) -> str:
    """Differences from the table's reference, paired by seed; empty where there is nothing to compare."""
    reference = table.reference or found.grid.reference
    if reference not in found.rows:
        return ""
    names = found.metrics(table)
    header = ["Method", *(_label(found, table, name, delta=True) for name in names)]
    rows = [
        [
            title(found, table, row),
            *(cell(difference(found.runs, row, reference, table.role, name), name, sign=True) for name in names),
        ]
        for row in found.shown(table)
        if row != reference
    ]
    return markdown_table(header, rows) if rows else ""


def measured_costs(found: Reproduction) -> str:
    """Size and time of every network."""
    rows = [
        [name, f"{cost.parameters:,}", f"{cost.macs / 1e9:.3f}", f"{middle(cost.single_s) * 1e3:.1f}"]
        for name, cost in found.costs.items()
    ]
    return markdown_table(["Network", "Parameters", "GMAC", "one picture (ms)"], rows)


def measured_claims(found: Reproduction) -> str:
    """Every claim with its verdict over seeds and over scenes."""
    header = ["Claim", "Over seeds", "Verdict", "Over scenes", "Verdict over scenes"]
    rows = []
    for judged, scenes in zip(found.verdicts(), found.verdicts(over="scenes"), strict=True):
        cells = [judged.claim.text, judged.reason, f"**{judged.verdict.value}**"]
        fixed = judged.claim.kind == "faster"
        cells += [DASH, DASH] if fixed else [scenes.reason, f"**{scenes.verdict.value}**"]
        rows.append(cells)
    return markdown_table(header, rows)


def legend(names: Sequence[str]) -> str:
    """What the columns are, where their names do not say."""
    return "; ".join(METRICS[name].about for name in names if METRICS[name].about)


def cell(value: Estimate, metric: str, *, sign: bool = False) -> str:
    """A number with its interval."""
    if value.count == 0:
        return DASH
    digits = METRICS[metric].digits
    if METRICS[metric].lengths and abs(value.mean) >= 1:
        digits = 2
    form = f"{'+' if sign else ''}.{digits}f"
    if math.isnan(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _label(found: Reproduction, table: Table, name: str, *, delta: bool = False) -> str:
    metric = METRICS[name]
    label = f"{metric.label} ({found.unit(table.role)})" if metric.lengths and not delta else metric.label
    return (f"Δ size of {label}" if metric.signed else f"Δ{label}") if delta else label
