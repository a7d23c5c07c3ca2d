"""A reproduction as one document for machines."""

from __future__ import annotations

import math

from pydantic import JsonValue

from endolux.reproduce.figures import Estimate, Judged, difference, figure, scene_difference, seeds_of
from endolux.reproduce.grid import METRICS, Table
from endolux.reproduce.job import SCALED
from endolux.reproduce.reproduction import Reproduction


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
        **({"left_out": list(found.left_out)} if found.left_out else {}),
        "costs": {
            name: {
                "parameters": cost.parameters,
                "macs": cost.macs,
                "legacy_s": list(cost.legacy_s),
                "single_s": list(cost.single_s),
                **({"extra_s": {key: list(times) for key, times in cost.extra.items()}} if cost.extra else {}),
                **({"counts": dict(cost.counts)} if cost.counts else {}),
                "published": list(grid.published_timing[name]) if name in grid.published_timing else None,
            }
            for name, cost in found.costs.items()
        },
        "tables": [
            _table_document(found, table) if found.published else _measured_document(found, table)
            for table in found.tables()
        ],
        "claims": _claims_document(found),
        "provenance": dict(found.provenance),
    }


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
        "measured_unit": found.unit(table.role),
        "reference": reference,
        "rows": rows,
    }


def _measured_document(found: Reproduction, table: Table) -> dict[str, JsonValue]:
    reference, names = table.reference or found.grid.reference, found.metrics(table)
    rows: list[JsonValue] = []
    for row in found.shown(table):
        compared = row != reference and reference in found.rows
        rows.append(
            {
                "row": row,
                "measured": {name: _json(figure(found.runs, row, table.role, name)) for name in names},
                "difference": {name: _json(difference(found.runs, row, reference, table.role, name)) for name in names}
                if compared
                else None,
                "scene_difference": {
                    name: _json(scene_difference(found.runs, row, reference, table.role, name)) for name in names
                }
                if compared
                else None,
                "seeds": [*seeds_of(found.runs, row)],
            }
        )
    return {
        "title": table.title,
        "role": table.role,
        "measured_on": found.place(table.role),
        "unit": found.unit(table.role),
        "reference": reference,
        "rows": rows,
    }


def _claims_document(found: Reproduction) -> list[JsonValue]:
    documents: list[JsonValue] = []
    if not found.published:
        for judged, scenes in zip(found.verdicts(), found.verdicts(over="scenes"), strict=True):
            own = None if judged.claim.kind == "faster" else _judgement(scenes)
            documents.append({**_claim_document(judged), "scenes": own})
        return documents
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
