"""Two results on the same frames: the difference of each metric, frame by frame, with intervals and tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import JsonValue

from endolux.errors import InputError, UsageError
from endolux.evaluate.cards import read_result
from endolux.evaluate.landmark_figures import LANDMARK_FIGURES
from endolux.io.paths import printable
from endolux.metrics.depth import EXTRA_METRICS, METRICS
from endolux.metrics.statistics import PairedComparison, compare_paired

RESAMPLES = 10_000

_BETTER: Mapping[str, str] = {**METRICS, **EXTRA_METRICS, **LANDMARK_FIGURES}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two results side by side.

    Attributes:
        first, second: names of the two models.
        protocol: identity of the protocol, the same for both.
        list_sha256: hash of the frame list, the same for both.
        means: metric -> the two means over the frames that both have.
        paired: metric -> second minus first.
        by_sequence: metric -> the same with whole sequences as units; empty for a single sequence.
        frames: frames that both results hold.
        lone: frames that only one of them holds (they failed in the other).
    """

    first: str
    second: str
    protocol: str
    list_sha256: str
    means: Mapping[str, tuple[float, float]]
    paired: Mapping[str, PairedComparison]
    by_sequence: Mapping[str, PairedComparison]
    frames: int
    lone: int


def compare_results(first: str | Path, second: str | Path, *, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Compare two result files (or report folders), paired by frame.

    Results of depth and of landmarks alike; of landmarks every class has figures of its own. A figure is compared over
    the frames that have it in both results. Differences are of per-frame figures, whatever the protocol's averaging.
    With several sequences the tests are also made with whole sequences as units, because neighbouring frames are alike.

    Args:
        first: ``result.json`` of ``endolux evaluate``, or the folder that holds it.
        second: the other one.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: unreadable files, ``result.json`` for files that hold no per-frame figures.
        UsageError: ``compare.protocol`` for different protocols, ``compare.frames`` for different frame lists,
            ``compare.no-frames`` where they share none.
    """
    a, b = read_result(first), read_result(second)
    protocols = [_protocol(content, path) for content, path in ((a, first), (b, second))]
    if protocols[0] != protocols[1]:
        raise UsageError(
            f"The results follow different protocols: '{protocols[0]}' and '{protocols[1]}'",
            why="Figures of two conventions differ even for one and the same prediction.",
            fix="Evaluate both models under the same protocol, version and deviations.",
            error_id="compare.protocol",
        )
    lists = [_list_hash(content, path) for content, path in ((a, first), (b, second))]
    if lists[0] != lists[1]:
        raise UsageError(
            f"The results were measured on different frames: list sha256 {lists[0][:16]} and {lists[1][:16]}",
            why="A paired comparison needs the same frames in the same order.",
            fix="Evaluate both models on the same data, with the same --split and --limit.",
            error_id="compare.frames",
        )
    rows_a, rows_b = _rows(a, first), _rows(b, second)
    shared = [key for key in rows_a if key in rows_b]
    if not shared:
        raise UsageError(
            "The results share no frame",
            why="Every frame failed in one of the two.",
            fix="Look at their failures, and evaluate again.",
            error_id="compare.no-frames",
        )
    groups = [key[0] for key in shared]
    several = len(set(groups)) > 1
    means, paired, by_sequence = {}, {}, {}
    for metric in [name for name in _BETTER if all(name in row for row in (rows_a[shared[0]], rows_b[shared[0]]))]:
        x = np.array([rows_a[key][metric] for key in shared])
        y = np.array([rows_b[key][metric] for key in shared])
        both = ~(np.isnan(x) | np.isnan(y))
        if not both.any():
            continue
        means[metric] = float(x[both].mean()), float(y[both].mean())
        paired[metric] = compare_paired(x, y, rng=np.random.default_rng(seed), resamples=resamples)
        if several:
            by_sequence[metric] = compare_paired(
                x, y, rng=np.random.default_rng(seed), groups=groups, resamples=resamples
            )
    return Comparison(
        first=_model(a),
        second=_model(b),
        protocol=protocols[0],
        list_sha256=lists[0],
        means=means,
        paired=paired,
        by_sequence=by_sequence,
        frames=len(shared),
        lone=len(rows_a) + len(rows_b) - 2 * len(shared),
    )


def better_share(comparison: PairedComparison, metric: str) -> float:
    """Share of frames on which the second model is better, which for some metrics means higher."""
    share = comparison.second_better
    return share if _BETTER[metric] == "lower" else 1.0 - share


def verdict(comparison: PairedComparison, metric: str) -> str:
    """Which model both intervals of the difference favour, or that they do not tell the two apart.

    Both, because a percentile bootstrap of few units is too narrow, and Student's t needs no skew.
    """
    low, high = min(comparison.low, comparison.student_low), max(comparison.high, comparison.student_high)
    if math.isnan(low + high) or low <= 0 <= high:
        return "no difference shown"
    return "second better" if (high < 0) == (_BETTER[metric] == "lower") else "first better"


def comparison_table(comparison: Comparison) -> str:
    """The comparison for people."""
    width = max((10, *(len(metric) + 1 for metric in comparison.means)))
    lines = [
        f"first      {comparison.first}",
        f"second     {comparison.second}",
        f"protocol   {comparison.protocol}, list sha256 {comparison.list_sha256[:16]}",
        f"frames     {comparison.frames} in both"
        + (f"; WARNING: {comparison.lone} in only one of them are left out" if comparison.lone else ""),
        "",
        f"{'metric':<{width}}{'first':>10}{'second':>10}{'difference':>12}  {'95 % bootstrap':<24}{'95 % Student':<24}"
        f"{'p':>9}{'2nd wins':>10}{'frames':>8}  verdict",
    ]
    for metric, (a, b) in comparison.means.items():
        found = comparison.paired[metric]
        lines.append(
            f"{metric:<{width}}{a:>10.4g}{b:>10.4g}{found.difference:>+12.4g}  {_span(found.low, found.high):<24}"
            f"{_span(found.student_low, found.student_high):<24}{_p(found.p_student):>9}"
            f"{better_share(found, metric):>10.1%}{found.frames:>8}  {verdict(found, metric)}"
        )
    if comparison.by_sequence:
        groups = next(iter(comparison.by_sequence.values())).groups
        lines += [
            "",
            f"over {groups} sequences as units (frames of one sequence are alike; trust these intervals):",
            f"{'metric':<{width}}{'difference':>12}  {'95 % bootstrap':<24}{'95 % Student':<24}{'p flip':>9}  verdict",
        ]
        for metric, found in comparison.by_sequence.items():
            lines.append(
                f"{metric:<{width}}{found.difference:>+12.4g}  {_span(found.low, found.high):<24}"
                f"{_span(found.student_low, found.student_high):<24}{_p(found.p_sign_flip):>9}  "
                f"{verdict(found, metric)}"
            )
    return "\n".join(lines)


def comparison_document(comparison: Comparison) -> dict[str, JsonValue]:
    """The comparison as plain JSON values (null for NaN)."""

    def plain(found: PairedComparison, metric: str) -> dict[str, JsonValue]:
        values = {key: (value if math.isfinite(value) else None) for key, value in dataclasses.asdict(found).items()}
        values["second_better"] = better_share(found, metric)
        return {**values, "verdict": verdict(found, metric)}

    return {
        "first": comparison.first,
        "second": comparison.second,
        "protocol": comparison.protocol,
        "list_sha256": comparison.list_sha256,
        "frames": comparison.frames,
        "frames_in_one_only": comparison.lone,
        "metrics": {
            metric: {
                "better": _BETTER[metric],
                "first": means[0],
                "second": means[1],
                "over_frames": plain(comparison.paired[metric], metric),
                "over_sequences": plain(comparison.by_sequence[metric], metric)
                if metric in comparison.by_sequence
                else None,
            }
            for metric, means in comparison.means.items()
        },
    }


def _protocol(content: Mapping[str, JsonValue], path: str | Path) -> str:
    protocol = content["protocol"]
    if not isinstance(protocol, dict) or not isinstance(protocol.get("id"), str):
        raise _incomplete(path, "it names no protocol")
    return str(protocol["id"])


def _list_hash(content: Mapping[str, JsonValue], path: str | Path) -> str:
    for section in ("frames", "data"):
        part = content.get(section)
        if isinstance(part, dict) and isinstance(part.get("list_sha256"), str):
            return str(part["list_sha256"])
    raise _incomplete(path, "it has no hash of its frame list")


def _model(content: Mapping[str, JsonValue]) -> str:
    model = cast("Mapping[str, JsonValue]", content["model"])
    parts = [str(model.get("name")), *(str(model[key]) for key in ("engine", "precision") if model.get(key))]
    return " ".join(parts)


def _rows(content: Mapping[str, JsonValue], path: str | Path) -> dict[tuple[str, ...], dict[str, float]]:
    try:
        columns = cast("dict[str, list[JsonValue]]", content["per_frame"])
        metrics = cast("dict[str, list[float | None]]", columns["metrics"])
        if "name" in columns:
            keys: list[tuple[str, ...]] = [("", str(name)) for name in columns["name"]]
        else:
            names = ("sequence", "index", "side", "mirrored")
            keys = [tuple(str(v) for v in row) for row in zip(*(columns[name] for name in names), strict=True)]
        values = [
            {name: math.nan if value is None else float(value) for name, value in zip(metrics, row, strict=True)}
            for row in zip(*metrics.values(), strict=True)
        ]
        needed = set(LANDMARK_FIGURES if content.get("kind") == "landmarks" else METRICS)
        if needed - set(metrics):
            raise KeyError(f"no column {sorted(needed - set(metrics))[0]}")
        return dict(zip(keys, values, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise _incomplete(path, f"its per-frame figures are missing or damaged ({error})") from error


def _incomplete(path: str | Path, reason: str) -> InputError:
    return InputError(
        f"'{printable(Path(path))}' cannot be compared: {reason}",
        why="A paired comparison needs the figures of every frame.",
        fix="Evaluate again with this release and -o FOLDER.",
        error_id="result.json",
    )


def _span(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:+.4g} .. {high:+.4g}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "<0.0001" if value < 1e-4 else f"{value:.4f}"
