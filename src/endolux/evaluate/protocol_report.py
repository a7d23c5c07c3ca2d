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

from endolux.datasets.base import Averaging
from endolux.evaluate.averages import Figure, figures, sequence_figures
from endolux.evaluate.bootstrap import LEVEL, RESAMPLES
from endolux.evaluate.protocol_run import FrameScore, ProtocolResult
from endolux.evaluate.provenance import public_command, public_text, versions
from endolux.evaluate.quirks import QUIRKS
from endolux.evaluate.report import ALIGNMENT_MEANING
from endolux.io.paths import input_error
from endolux.io.tables import make_output_folder, write_bytes_atomic, write_json_atomic
from endolux.metrics.depth import METRICS

SCHEMA_VERSION = 1
RESULT_FILE, FRAMES_FILE, REPORT_FILE = "result.json", "frames.csv", "report.html"

AVERAGING_MEANING: Mapping[Averaging, str] = {
    Averaging.FRAME: "mean over frames of each frame's figure",
    Averaging.SEQUENCE: "mean over sequences of each sequence's mean over its frames",
    Averaging.PIXEL: "pooled over all compared pixels of all frames",
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
_OF_VALUE = {"sq_rel", "rmse"}


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
            "alignment_meaning": ALIGNMENT_MEANING[protocol.alignment],
            "averaging": protocol.averaging.value,
            "averaging_meaning": AVERAGING_MEANING[protocol.averaging],
            "range": [_finite(protocol.minimum), _finite(protocol.maximum)],
            "unit": protocol.unit,
            "clamp_prediction": protocol.clamp_prediction,
            "crop": list(protocol.crop) if protocol.crop else None,
            "crop_pixels": list(protocol.crop_pixels) if protocol.crop_pixels else None,
            "resize_prediction": protocol.resize_prediction,
            "reproduce": {name: QUIRKS[name] for name in protocol.reproduce},
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
            name: {key: int(value) if key == "frames" else _finite(value) for key, value in row.items()}
            for name, row in by_sequence.items()
        },
        "frames": {
            "expected": protocol.expected_frames,
            "selected": len(result.keys),
            "scored": len({str(f.key) for f in result.frames}),
            "entries": len(result.frames),
            "empty": sum(m.empty for m in measured),
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
        "metrics": {name: [_finite(frame.measured.metrics[name]) for frame in frames] for name in METRICS},
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
        f"alignment  {protocol.alignment.value} ({ALIGNMENT_MEANING[protocol.alignment]})",
        f"averaging  {AVERAGING_MEANING[protocol.averaging]}",
        *(f"quirk      {QUIRKS[name]}" for name in protocol.reproduce),
        f"frames     {len(result.keys)}{expected}, list sha256 {result.list_sha256[:16]}",
        "",
        f"{'metric':<10}{'figure':>10}  {'95 % over frames':<22}{'95 % over sequences':<22}{'frames':>7}",
    ]
    for name, figure in figures(result.frames, averaging=protocol.averaging, seed=seed, resamples=resamples).items():
        frames_span = _span(figure.low, figure.high)
        if protocol.averaging is Averaging.SEQUENCE:
            frames_span = "-"
        sequences_span = _span(figure.sequence_low, figure.sequence_high)
        label = f"{name}{f' {protocol.unit}' if name in _OF_VALUE and protocol.unit not in ('', 'none') else ''}"
        lines.append(f"{label:<10}{_text(figure.mean):>10}  {frames_span:<22}{sequences_span:<22}{figure.frames:>7}")
    for name, rows in result.baselines.items():
        row = figures(rows, averaging=protocol.averaging, seed=seed, resamples=1)
        shown = ", ".join(f"{metric} {_text(row[metric].mean)}" for metric in ("abs_rel", "rmse", "delta1"))
        lines.append(f"baseline   {name}: {shown}")
    measured = [frame.measured for frame in result.frames]
    truth, compared = sum(m.truth_pixels for m in measured), sum(m.compared for m in measured)
    lines += ["", f"coverage   {compared / max(truth, 1):.2%} of {truth} reference pixels in range"]
    resized = sum(m.resized for m in measured)
    if resized:
        lines.append(f"note       {resized} predictions were resized to the reference ({protocol.resize_prediction})")
    by_sequence = sequence_figures(result.frames, averaging=protocol.averaging)
    if len(by_sequence) > 1:
        lines += ["", f"{'sequence':<28}{'frames':>7}{'abs_rel':>10}{'rmse':>10}{'delta1':>10}"]
        lines += [
            f"{name:<28}{int(row['frames']):>7}{_text(row['abs_rel']):>10}{_text(row['rmse']):>10}"
            f"{_text(row['delta1']):>10}"
            for name, row in by_sequence.items()
        ]
    return "\n".join(lines)


def frames_csv(frames: Sequence[FrameScore]) -> str:
    """One row a frame: key, metrics (empty for NaN), counts, scale and shift, with all digits of a float64."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sequence", "index", "side", "mirrored", *METRICS, *_COUNTS, "scale", "shift"])
    for frame in frames:
        measured = frame.measured
        numbers = [measured.metrics[name] for name in METRICS]
        writer.writerow(
            [
                frame.key.sequence,
                frame.key.index,
                frame.key.side,
                int(frame.mirrored),
                *(_cell(number) for number in numbers),
                *(getattr(measured, key) for key in _COUNTS),
                _cell(measured.scale),
                _cell(measured.shift),
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
        key: _finite(value) if isinstance(value, float) else value for key, value in values.items()
    }
    return content | {"better": METRICS[name], "unit": unit if name in _OF_VALUE and unit not in ("", "none") else None}


def _window(crop: tuple[float, float, float, float]) -> str:
    return "rows {:.1%} to {:.1%}, columns {:.1%} to {:.1%}".format(*crop)


def _span(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{_text(low)} .. {_text(high)}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
