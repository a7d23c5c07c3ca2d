"""Scores of landmarks as a table for people, JSON with provenance for machines, and one CSV row a frame."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from endolux.datasets.l3d import CLASSES
from endolux.evaluate.bootstrap import LEVEL, RESAMPLES, bootstrap_mean
from endolux.evaluate.figure_text import cell, finite, short
from endolux.evaluate.landmark_figures import LANDMARK_FIGURES, landmark_figures
from endolux.evaluate.landmarks import PUBLISHED, LandmarkFrame, LandmarkResult
from endolux.evaluate.protocol_report import FRAMES_FILE, REPORT_FILE, RESULT_FILE, SCHEMA_VERSION, split_document
from endolux.evaluate.provenance import public_command, public_text, versions
from endolux.io.tables import make_output_folder, write_bytes_atomic, write_json_atomic

_PER_CLASS = ("dsc", "iou", "assd", "hd95")


def landmark_document(
    result: LandmarkResult, *, data: str, split: Path | None = None, seed: int = 0, command: Sequence[str] = ()
) -> dict[str, JsonValue]:
    """The result with what is needed to measure it again, as plain JSON values (null for NaN).

    Args:
        result: what was measured.
        data: name of the data's root folder.
        split: the split file that was given, if any.
        seed: of the bootstrap.
        command: the command line; paths in it are cut to their names.
    """
    protocol, summary = result.protocol, result.summary
    rows = [landmark_figures(frame) for frame in result.frames]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "landmarks",
        "protocol": {
            "id": protocol.identity,
            "name": protocol.name,
            "version": protocol.version,
            "dataset": protocol.dataset,
            "summary": protocol.summary,
            "source": protocol.source,
            "averaging": "mean over frames of the frame's figure, classes as their rows say",
            "mask_size": "that of the truth (nearest)",
        },
        "warnings": list(result.warnings),
        "classes": {CLASSES[number]: _plain(row) for number, row in summary.classes.items()},
        "over_all": {key: value for key, value in _plain(summary).items() if key != "classes"},
        "published": {
            name: {"mean": finite(value), "meaning": PUBLISHED[name]} for name, value in result.published.items()
        },
        "intervals": {
            f"pooled_{name}": _interval([getattr(frame.scores.pooled, name) for frame in result.frames], seed)
            for name in ("dsc", "iou")
        },
        "interval": {
            "method": "percentile bootstrap over frames",
            "level": LEVEL,
            "resamples": RESAMPLES,
            "seed": seed,
        },
        "distance_unit": "px of the truth",
        "frames": {
            "expected": protocol.expected_frames,
            "selected": len(result.keys),
            "scored": len(result.frames),
            "failed": len(result.failures),
            "resized": sum(frame.resized for frame in result.frames),
            "list_sha256": result.list_sha256,
        },
        "limit": result.limit,
        "failures": [
            {"index": f.index, "name": f.name, "id": f.error.error_id, "what": public_text(f.error.what)}
            for f in result.failures
        ],
        "model": dict(result.predictor),
        "data": {"root": data, "dataset": protocol.dataset, "split": split_document(split)},
        "versions": versions(),
        "command": list(public_command(command)),
        "per_frame": {
            "sequence": [frame.key.sequence for frame in result.frames],
            "index": [frame.key.index for frame in result.frames],
            "side": [frame.key.side for frame in result.frames],
            "mirrored": [False] * len(result.frames),
            "metrics": {name: [finite(row[name]) for row in rows] for name in LANDMARK_FIGURES},
        },
    }


def landmark_table(result: LandmarkResult, *, seed: int = 0) -> str:
    """The result for people: a line a class, the pooled figures, and those of published code under their own names."""
    summary, protocol = result.summary, result.protocol
    expected = "" if protocol.expected_frames is None else f" of {protocol.expected_frames} published"
    lines = [f"WARNING    {text}" for text in result.warnings]
    lines += [
        f"masks      {result.predictor['name']} (matched by {result.predictor['matched_by']})",
        f"protocol   {protocol.identity}: {protocol.summary}",
        f"source     {protocol.source}",
        f"frames     {len(result.frames)}{expected}, list sha256 {result.list_sha256[:16]}",
        "",
        f"{'class':<12}{'DSC':>9}{'IoU':>9}{'ASSD px':>9}{'HD95 px':>9}{'missed':>9}{'false':>9}{'frames':>8}",
    ]
    for number, row in summary.classes.items():
        figures = "".join(f"{short(getattr(row, name)):>9}" for name in _PER_CLASS)
        lines.append(
            f"{CLASSES[number]:<12}{figures}{_percent(row.miss_rate):>9}{_percent(row.false_alarm_rate):>9}"
            f"{row.images:>8}"
        )
    figures = "".join(
        f"{short(value):>9}" for value in (summary.macro_dsc, summary.macro_iou, summary.assd, summary.hd95)
    )
    lines.append(
        f"{'all classes':<12}{figures}{_percent(summary.miss_rate):>9}{_percent(summary.false_alarm_rate):>9}"
        f"{summary.images:>8}"
    )
    low, high = (
        _interval([frame.scores.pooled.dsc for frame in result.frames], seed).get(key) for key in ("low", "high")
    )
    lines += [
        "",
        f"pooled     DSC {short(summary.pooled_dsc)} ({_number(low)} .. {_number(high)}, 95 % over frames), "
        f"IoU {short(summary.pooled_iou)}: classes pooled in a frame, mean over frames",
        f"distances  over {summary.pairs} pairs of frame and class that truth and prediction both have",
    ]
    lines += [f"as coded   {name} {short(value)}: {PUBLISHED[name]}" for name, value in result.published.items()]
    return "\n".join(lines)


def landmark_csv(frames: Sequence[LandmarkFrame]) -> str:
    """One row a frame: scores of every class and pooled, empty for NaN."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    numbers = list(frames[0].scores.classes) if frames else []
    names = [CLASSES[number] for number in numbers]
    heads = [f"{name}_{figure}" for name in (*names, "pooled") for figure in _PER_CLASS]
    writer.writerow(["sequence", "index", *heads, *PUBLISHED, "resized"])
    for frame in frames:
        rows = [*(frame.scores.classes[number] for number in numbers), frame.scores.pooled]
        cells = [cell(getattr(row, figure)) for row in rows for figure in _PER_CLASS]
        published = [cell(frame.published[name]) for name in PUBLISHED]
        writer.writerow([frame.key.sequence, frame.key.index, *cells, *published, int(frame.resized)])
    return text.getvalue()


def write_landmarks(folder: Path, content: dict[str, JsonValue], frames: Sequence[LandmarkFrame], page: str) -> None:
    """Write ``result.json``, ``frames.csv`` and ``report.html``.

    Raises:
        UsageError: the place is not writable.
        DeviceError: the disk is full.
    """
    make_output_folder(folder)
    write_bytes_atomic(folder / FRAMES_FILE, landmark_csv(frames).encode("utf-8", "surrogateescape"))
    write_bytes_atomic(folder / REPORT_FILE, page.encode("utf-8", "replace"))
    write_json_atomic(folder / RESULT_FILE, content)


def _plain(row: object) -> dict[str, JsonValue]:
    names = [field.name for field in dataclasses.fields(row)]  # type: ignore[arg-type]
    values = {name: getattr(row, name) for name in names if name != "classes"}
    return {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}


def _interval(values: Sequence[float], seed: int) -> dict[str, JsonValue]:
    found = bootstrap_mean(values, rng=np.random.default_rng(seed))
    return {"mean": finite(found.mean), "low": finite(found.low), "high": finite(found.high), "frames": found.frames}


def _number(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
