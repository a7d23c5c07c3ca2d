"""A protocol's result as a table for people, JSON with provenance for machines, and one CSV row a frame."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from endolux.datasets.base import Averaging, Protocol
from endolux.evaluate.averages import Figure, figures, metric_names, sequence_figures
from endolux.evaluate.bootstrap import LEVEL, RESAMPLES
from endolux.evaluate.figure_text import cell, finite, short
from endolux.evaluate.frame_score import FrameScore
from endolux.evaluate.protocol_run import ProtocolResult
from endolux.evaluate.provenance import public_command, public_text, versions
from endolux.evaluate.quirks import LEAST_MEDIAN, QUIRKS
from endolux.evaluate.report import ALIGNMENT_MEANING
from endolux.evaluate.scoring import LEFT_OUT, WORST
from endolux.geometry.align import Alignment
from endolux.io.paths import input_error
from endolux.io.tables import make_output_folder, write_bytes_atomic, write_json_atomic
from endolux.metrics.depth import EXTRA_METRICS, METRICS

SCHEMA_VERSION = 1
RESULT_FILE, FRAMES_FILE, REPORT_FILE = "result.json", "frames.csv", "report.html"

AVERAGING_MEANING: Mapping[Averaging, str] = {
    Averaging.FRAME: "mean over frames of each frame's figure",
    Averaging.SEQUENCE: "mean over sequences of each sequence's mean over its frames",
    Averaging.PIXEL: "pooled over all compared pixels of all frames",
}
UNUSABLE_MEANING: Mapping[str, str] = {
    WORST: "a frame whose median prediction is not finite and positive counts as zero everywhere: AbsRel 1, deltas 0",
    LEFT_OUT: "a frame whose median prediction is not finite and positive is left out and counted, as the original "
    "skips it",
}
_COUNTS = (
    "truth_pixels",
    "compared",
    "out_of_range",
    "dropped",
    "clamped",
    "floored",
    "nonpositive",
)
_OF_VALUE = {"sq_rel", "rmse", "mae"}
_BETTER = {**METRICS, **EXTRA_METRICS}


def alignment_meaning(protocol: Protocol) -> str:
    """What the protocol fits, in words."""
    if protocol.scope == "sequence":
        return "per sequence: prediction * sum(m_p m_t) / sum(m_p^2), with m the mean depth of each frame"
    if LEAST_MEDIAN in protocol.reproduce and protocol.alignment is Alignment.MEDIAN:
        return "per frame: the factor with the least median absolute error"
    return ALIGNMENT_MEANING[protocol.alignment]


def document(
    result: ProtocolResult,
    *,
    data: str,
    split: Path | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    command: Sequence[str] = (),
) -> dict[str, JsonValue]:
    """The result with everything needed to measure it again, as plain JSON values (null for NaN).

    Args:
        result: what was measured.
        data: name of the data's root folder; the name alone, wherever it lies.
        split: the split file that was given, if any.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        command: the command line; paths in it are cut to their names.
    """
    protocol = result.protocol
    measured = [frame.measured for frame in result.frames]
    by_metric = figures(result.frames, averaging=protocol.averaging, seed=seed, resamples=resamples)
    by_sequence = sequence_figures(result.frames, averaging=protocol.averaging)
    excluded: dict[str, int] = {}
    for frame in result.frames:
        for reason, count in frame.excluded.items():
            excluded[reason] = excluded.get(reason, 0) + int(count)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "protocol",
        "protocol": {
            "id": result.identity,
            "name": protocol.name,
            "version": protocol.version,
            "dataset": protocol.dataset,
            "summary": protocol.summary,
            "source": protocol.source,
            "deviations": result.identity.partition("+")[2] or None,
            "alignment": protocol.alignment.value,
            "alignment_meaning": alignment_meaning(protocol),
            "alignment_scope": protocol.scope,
            "unusable_predictions": UNUSABLE_MEANING[protocol.unusable],
            "floor": protocol.floor or None,
            "ratio_maximum": protocol.ratio_maximum,
            "averaging": protocol.averaging.value,
            "averaging_meaning": AVERAGING_MEANING[protocol.averaging],
            "range": [finite(protocol.minimum), finite(protocol.maximum)],
            "unit": protocol.unit,
            "clamp_prediction": protocol.clamp_prediction,
            "crop": list(protocol.crop) if protocol.crop else None,
            "crop_pixels": list(protocol.crop_pixels) if protocol.crop_pixels else None,
            "resize_prediction": protocol.resize_prediction,
            "whole_picture": protocol.whole_picture,
            "reproduce": {name: QUIRKS[name] for name in protocol.reproduce},
            "notes": list(protocol.notes),
        },
        "warnings": list(result.warnings),
        "metrics": {name: _figure_document(name, figure, protocol.unit) for name, figure in by_metric.items()},
        "baselines": {
            name: {
                metric: _figure_document(metric, figure, protocol.unit)
                for metric, figure in figures(
                    rows, averaging=protocol.averaging, seed=seed, resamples=resamples
                ).items()
            }
            for name, rows in result.baselines.items()
        },
        "interval": {
            "method": "percentile bootstrap over frames (low, high) and over whole sequences (sequence_low, "
            "sequence_high); Student t over frames, or over sequences where the mean runs over them (student_low, "
            "student_high)",
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
        },
        "sequences": {
            name: {key: int(value) if key == "frames" else finite(value) for key, value in row.items()}
            for name, row in by_sequence.items()
        },
        "frames": {
            "expected": protocol.expected_frames,
            "selected": len(result.keys),
            "scored": len({str(f.key) for f in result.frames}),
            "entries": len(result.frames),
            "empty": sum(m.empty for m in measured),
            "unusable": sum(m.unusable for m in measured),
            "failed": len(result.failures),
            "list_sha256": result.list_sha256,
        },
        "limit": result.limit,
        "pixels": {key: sum(getattr(m, key) for m in measured) for key in _COUNTS}
        | {"excluded_by_reader": dict(sorted(excluded.items()))},
        "negative_scales": sum(m.scale < 0 for m in measured),
        "resized_predictions": sum(m.resized for m in measured),
        "failures": [
            {"index": f.index, "name": f.name, "id": f.error.error_id, "what": public_text(f.error.what)}
            for f in result.failures
        ],
        "model": {**result.predictor, "kind": result.prediction_kind.value},
        "data": {"root": data, "dataset": protocol.dataset, "split": split_document(split)},
        "versions": versions(),
        "command": list(public_command(command)),
        "per_frame": per_frame(result.frames),
    }


def per_frame(frames: Sequence[FrameScore]) -> dict[str, JsonValue]:
    """Columns of the per-frame figures, which a paired comparison needs."""
    return {
        "sequence": [frame.key.sequence for frame in frames],
        "index": [frame.key.index for frame in frames],
        "side": [frame.key.side for frame in frames],
        "mirrored": [frame.mirrored for frame in frames],
        "compared": [frame.measured.compared for frame in frames],
        "unusable": [frame.measured.unusable for frame in frames],
        "metrics": {name: [finite(frame.measured.metrics[name]) for frame in frames] for name in metric_names(frames)},
    }


def split_document(split: Path | None) -> dict[str, JsonValue] | None:
    """Name and hash of a split file. Raises InputError where it cannot be read."""
    if split is None:
        return None
    try:
        return {"name": split.name, "sha256": hashlib.sha256(split.read_bytes()).hexdigest()}
    except OSError as error:
        raise input_error(error, split) from error


def table(result: ProtocolResult, *, seed: int = 0, resamples: int = RESAMPLES) -> str:
    """The result for people: warnings first, then the conditions, one line a metric, and what was left out."""
    protocol = result.protocol
    high = "" if math.isinf(protocol.maximum) else f"{protocol.maximum:g}"
    conditions = [
        f"({protocol.minimum:g}, {high or 'no limit'}] {protocol.unit}",
        *(["prediction clamped to it"] if protocol.clamp_prediction else []),
        *([f"window {_window(protocol.crop)}"] if protocol.crop else []),
        *(["window rows {}..{}, columns {}..{}".format(*protocol.crop_pixels)] if protocol.crop_pixels else []),
    ]
    expected = "" if protocol.expected_frames is None else f" of {protocol.expected_frames} published"
    lines = [f"WARNING    {text}" for text in result.warnings]
    lines += [
        f"model      {result.predictor.get('name')} ({result.prediction_kind.value})",
        f"protocol   {result.identity}: {protocol.summary}",
        f"source     {protocol.source}",
        f"range      {', '.join(conditions)}",
        f"alignment  {protocol.alignment.value} ({alignment_meaning(protocol)})",
        f"averaging  {AVERAGING_MEANING[protocol.averaging]}",
        *(f"quirk      {QUIRKS[name]}" for name in protocol.reproduce),
        *(f"note       {text}" for text in protocol.notes),
        f"frames     {len(result.keys)}{expected}, list sha256 {result.list_sha256[:16]}",
        "",
        f"{'metric':<10}{'figure':>10}  {'95 % over frames':<22}{'95 % over sequences':<22}{'pooled':>9}{'frames':>7}",
    ]
    for name, figure in figures(result.frames, averaging=protocol.averaging, seed=seed, resamples=resamples).items():
        frames_span = _span(figure.low, figure.high)
        if protocol.averaging is Averaging.SEQUENCE:
            frames_span = "-"
        sequences_span = _span(figure.sequence_low, figure.sequence_high)
        label = f"{name}{f' {protocol.unit}' if name in _OF_VALUE and protocol.unit not in ('', 'none') else ''}"
        lines.append(
            f"{label:<10}{short(figure.mean):>10}  {frames_span:<22}{sequences_span:<22}{short(figure.pooled):>9}"
            f"{figure.frames:>7}"
        )
    for name, rows in result.baselines.items():
        row = figures(rows, averaging=protocol.averaging, seed=seed, resamples=1)
        shown = ", ".join(f"{metric} {short(row[metric].mean)}" for metric in ("abs_rel", "rmse", "delta1"))
        lines.append(f"baseline   {name}: {shown}")
    measured = [frame.measured for frame in result.frames]
    truth, compared = sum(m.truth_pixels for m in measured), sum(m.compared for m in measured)
    lines += [
        "",
        "pooled     over all compared pixels of all frames at once; the figure is the protocol's mean",
        f"unusable   {sum(m.unusable for m in measured)} frames; {UNUSABLE_MEANING[protocol.unusable]}",
    ]
    lines += [f"coverage   {compared / max(truth, 1):.2%} of {truth} reference pixels in range"]
    resized = sum(m.resized for m in measured)
    if resized:
        lines.append(f"note       {resized} predictions were resized to the reference ({protocol.resize_prediction})")
    by_sequence = sequence_figures(result.frames, averaging=protocol.averaging)
    if len(by_sequence) > 1:
        lines += [
            "",
            f"{'sequence':<28}{'frames':>7}{'abs_rel':>10}{'pooled':>10}{'rmse':>10}{'delta1':>10}{'pooled':>10}",
        ]
        lines += [
            f"{name:<28}{int(row['frames']):>7}{short(row['abs_rel']):>10}{short(row['pooled_abs_rel']):>10}"
            f"{short(row['rmse']):>10}{short(row['delta1']):>10}{short(row['pooled_delta1']):>10}"
            for name, row in by_sequence.items()
        ]
    return "\n".join(lines)


def frames_csv(frames: Sequence[FrameScore]) -> str:
    """One row a frame: key, metrics (empty for NaN), counts, scale and shift, with all digits of a float64."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = metric_names(frames)
    writer.writerow(["sequence", "index", "side", "mirrored", *names, *_COUNTS, "unusable", "scale", "shift"])
    for frame in frames:
        measured = frame.measured
        numbers = [measured.metrics[name] for name in names]
        writer.writerow(
            [
                frame.key.sequence,
                frame.key.index,
                frame.key.side,
                int(frame.mirrored),
                *(cell(number) for number in numbers),
                *(getattr(measured, key) for key in _COUNTS),
                int(measured.unusable),
                cell(measured.scale),
                cell(measured.shift),
            ]
        )
    return text.getvalue()


def write_result(folder: Path, content: dict[str, JsonValue], frames: Sequence[FrameScore], html: str) -> None:
    """Write ``result.json``, ``frames.csv`` and ``report.html``.

    Raises:
        UsageError: the place is not writable.
        DeviceError: the disk is full.
    """
    make_output_folder(folder)
    write_bytes_atomic(folder / FRAMES_FILE, frames_csv(frames).encode("utf-8", "surrogateescape"))
    write_bytes_atomic(folder / REPORT_FILE, html.encode("utf-8", "backslashreplace"))
    write_json_atomic(folder / RESULT_FILE, content)


def _figure_document(name: str, figure: Figure, unit: str) -> JsonValue:
    values = dataclasses.asdict(figure)
    content: dict[str, JsonValue] = {
        key: finite(value) if isinstance(value, float) else value for key, value in values.items()
    }
    return content | {"better": _BETTER[name], "unit": unit if name in _OF_VALUE and unit not in ("", "none") else None}


def _window(crop: tuple[float, float, float, float]) -> str:
    return "rows {:.1%} to {:.1%}, columns {:.1%} to {:.1%}".format(*crop)


def _span(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{short(low)} .. {short(high)}"
