"""Reports of an evaluation: a table for people, JSON with provenance for machines, one CSV row a frame."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from endolux.errors import UsageError
from endolux.evaluate.bootstrap import LEVEL, RESAMPLES, Interval, bootstrap_mean
from endolux.evaluate.figure_text import finite, short
from endolux.evaluate.provenance import public_command, public_text, versions
from endolux.evaluate.runner import Evaluation, FrameResult
from endolux.geometry.align import Alignment
from endolux.io.tables import make_output_folder, write_bytes_atomic, write_json_atomic
from endolux.metrics.depth import METRICS

SCHEMA_VERSION = 1
PAIRS_PROTOCOL = "pairs/1"
"""What a folder of pairs is scored by: no published convention, every pixel with a truth, mean over frames."""
RESULT_FILE = "result.json"
FRAMES_FILE = "frames.csv"
_COUNTS = (
    "pixels",
    "truth_pixels",
    "compared",
    "infinite",
    "negative",
    "dropped",
    "floored",
    "nonpositive",
)
ALIGNMENT_MEANING = {
    Alignment.NONE: "no alignment: metric prediction against metric truth",
    Alignment.MEDIAN: "per frame: prediction * median(truth) / median(prediction)",
    Alignment.SCALE_SHIFT_DEPTH: "per frame: least squares, truth ~ scale * depth + shift",
    Alignment.SCALE_SHIFT_DISPARITY: "per frame: least squares, 1/truth ~ scale * disparity + shift",
}


def intervals(evaluation: Evaluation, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Mean over frames and its interval for every metric, each from a generator of its own seeded with ``seed``.

    The same seed draws the same frames for every metric and every model on this list of frames.
    """
    return {
        metric: bootstrap_mean(
            [frame.metrics[metric] for frame in evaluation.frames],
            rng=np.random.default_rng(seed),
            resamples=resamples,
        )
        for metric in METRICS
    }


def document(
    evaluation: Evaluation,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    data: str = "",
    command: Sequence[str] = (),
) -> dict[str, JsonValue]:
    """The result with everything needed to measure it again, as plain JSON values (null for NaN).

    Args:
        evaluation: what was measured.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        data: name of the data folder.
        command: the command line, if there was one; paths in it are cut to their names.
    """
    frames = evaluation.frames
    totals: dict[str, JsonValue] = {key: sum(getattr(frame, key) for frame in frames) for key in _COUNTS}
    unit = "mm" if evaluation.truth.depth_kind.value == "metric" else "disparity"
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "pairs",
        "protocol": {
            "id": f"{PAIRS_PROTOCOL}+alignment={evaluation.alignment.value}+truth={evaluation.truth.kind.value}",
            "dataset": "pairs",
        },
        "metrics": {
            metric: {
                "mean": finite(interval.mean),
                "low": finite(interval.low),
                "high": finite(interval.high),
                "frames": interval.frames,
                "missing": interval.missing,
                "better": METRICS[metric],
            }
            for metric, interval in intervals(evaluation, seed=seed, resamples=resamples).items()
        },
        "metrics_unit": unit,
        "averaging": "mean over frames of the frame's metric, float64",
        "interval": {
            "method": "percentile bootstrap over frames",
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
        },
        "frames": len(frames),
        "unusable_frames": sum(frame.unusable for frame in frames),
        "empty_frames": sum(frame.empty for frame in frames),
        "failed_frames": len(evaluation.failures),
        "negative_scales": sum(frame.scale < 0 for frame in frames),
        "pixels": totals,
        "failures": [
            {"index": f.index, "name": f.name, "id": f.error.error_id, "what": public_text(f.error.what)}
            for f in evaluation.failures
        ],
        "model": {**evaluation.predictor, "kind": evaluation.prediction_kind.value},
        "alignment": {
            "name": evaluation.alignment.value,
            "meaning": ALIGNMENT_MEANING[evaluation.alignment],
            "prediction_inverted": evaluation.inverted,
        },
        "truth": {"kind": evaluation.truth.kind.value, "codes_per_mm": evaluation.truth.codes_per_mm},
        "data": {
            "folder": data,
            "pairs": len(frames) + len(evaluation.failures),
            "list_sha256": evaluation.list_sha256,
        },
        "versions": versions(),
        "command": list(public_command(command)),
        "per_frame": {
            "name": [frame.name for frame in frames],
            "metrics": {metric: [finite(frame.metrics[metric]) for frame in frames] for metric in METRICS},
        },
    }


def table(evaluation: Evaluation, *, seed: int = 0, resamples: int = RESAMPLES) -> str:
    """The result for people: a heading that states the conditions, one line a metric, and what was left out."""
    frames = evaluation.frames
    truth_pixels = sum(frame.truth_pixels for frame in frames)
    compared = sum(frame.compared for frame in frames)
    lines = [
        f"model      {evaluation.predictor['name']} ({evaluation.prediction_kind.value})",
        f"alignment  {evaluation.alignment.value} ({ALIGNMENT_MEANING[evaluation.alignment]})",
    ]
    if evaluation.inverted:
        lines.append("           predicted depth was turned into 1/depth for this alignment")
    if evaluation.truth.depth_kind.value != "metric":
        lines.append(
            "           truth is inverse depth: errors are of inverse depth, not comparable with errors of depth"
        )
    lines += [
        f"data       {len(frames)} frames, list sha256 {evaluation.list_sha256[:16]}",
        "",
        f"{'metric':<10}{'mean':>10}  {'95 % interval':<22}{'frames':>7}",
    ]
    for metric, interval in intervals(evaluation, seed=seed, resamples=resamples).items():
        span = f"{short(interval.low)} .. {short(interval.high)}"
        lines.append(f"{metric:<10}{short(interval.mean):>10}  {span:<22}{interval.frames:>7}")
    lines += ["", f"coverage   {compared / max(truth_pixels, 1):.2%} of {truth_pixels} pixels with truth"]
    empty = sum(frame.empty for frame in frames)
    unusable = sum(frame.unusable for frame in frames)
    notes = {
        f"{unusable} frames have no prediction with a positive, finite median and count as zero everywhere "
        "(abs_rel 1, deltas 0)": unusable,
        f"{empty} frames have no pixel to compare and no figures": empty,
        "pixels of the truth are infinite or negative and were left out": sum(f.infinite + f.negative for f in frames),
        "pixels had an aligned disparity below the smallest true one and were set to it": sum(
            f.floored for f in frames
        ),
        "aligned values are zero or below; frames with them have no rmse_log, log10 and silog": sum(
            f.nonpositive for f in frames
        ),
        "frames were fitted with a negative scale: there the prediction runs the wrong way": sum(
            f.scale < 0 for f in frames
        ),
    }
    for text, count in notes.items():
        if count:
            lines.append(f"note       {text if text[0].isdigit() else f'{count} {text}'}")
    return "\n".join(lines)


def write_report(folder: Path, content: dict[str, JsonValue], frames: Sequence[FrameResult]) -> None:
    """Write ``result.json`` and ``frames.csv`` into a folder that is new or holds neither.

    Raises:
        UsageError: ``output.exists`` where a result lies already, or the place is not writable.
        DeviceError: the disk is full.
    """
    check_output(folder)
    make_output_folder(folder)
    write_bytes_atomic(folder / FRAMES_FILE, frames_csv(frames).encode("utf-8", "surrogateescape"))
    write_json_atomic(folder / RESULT_FILE, content)


def check_output(folder: Path) -> None:
    """Refuse a folder that holds a result already, before the work is done. Raises UsageError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            f"The output path '{folder}' is a file",
            why="A report is several files and needs a folder.",
            fix="Choose another folder with -o FOLDER.",
            error_id="output.is-file",
        )
    place = next((parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent)), folder)
    if place.is_dir() and not os.access(place, os.W_OK):
        raise UsageError(
            f"Cannot write to '{folder}'",
            why=f"'{place}' is not writable, which would show only after the whole evaluation.",
            fix="Choose an output folder that you may write to (-o FOLDER).",
            error_id="output.not-writable",
        )
    taken = [name for name in (RESULT_FILE, FRAMES_FILE, "report.html") if (folder / name).exists()]
    if taken:
        raise UsageError(
            f"'{folder / taken[0]}' exists already",
            why="Results are never overwritten.",
            fix="Choose another folder with -o FOLDER.",
            error_id="output.exists",
        )


def frames_csv(frames: Sequence[FrameResult]) -> str:
    """One row a frame: metrics (empty for NaN), counts, scale and shift, with all digits of a float64."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *METRICS, *_COUNTS, "unusable", "scale", "shift"])
    for frame in frames:
        numbers = [*(frame.metrics[metric] for metric in METRICS)]
        cells = ["" if math.isnan(n) else repr(n) for n in numbers]
        fitted = ["" if math.isnan(n) else repr(n) for n in (frame.scale, frame.shift)]
        writer.writerow([frame.name, *cells, *(getattr(frame, key) for key in _COUNTS), int(frame.unusable), *fitted])
    return text.getvalue()
