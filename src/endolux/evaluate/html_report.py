"""The report of a protocol's result: one HTML file with figures, plots, and the best, median and worst frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from pydantic import JsonValue

from endolux.datasets.base import Dataset
from endolux.errors import EndoluxError
from endolux.evaluate.frame_score import FrameScore, predict, reference
from endolux.evaluate.page import (
    Example,
    best_median_worst,
    conditions,
    example_html,
    failed_frames,
    number,
    safe,
    small,
    whole_page,
)
from endolux.evaluate.plots import colour_bar, dots, histogram, sorted_curve
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.protocol_run import ProtocolResult
from endolux.evaluate.provenance import public_text
from endolux.evaluate.scoring import score_maps
from endolux.evaluate.windows import MM_PER_UNIT, reference_mask
from endolux.io.colour import ColourRange, Scale, colourise
from endolux.types import DepthKind, DepthMap, ImageArray

RANKED_BY = "abs_rel"
_LOG_ABOVE = 4.0
_LIMITS = (0.05, 0.1, 0.2, 0.5, 1.0)
_TOO_NEAR, _RIGHT, _TOO_FAR = (33, 102, 172), (247, 247, 247), (178, 24, 43)
_NOT_COMPARED = (60, 60, 60)


def html_report(
    result: ProtocolResult,
    content: Mapping[str, JsonValue],
    *,
    dataset: Dataset,
    predictor: Predictor,
    shown: int = 3,
) -> str:
    """The whole report as one file: pictures are JPEG inside it, plots are SVG, and it loads nothing.

    Args:
        result: what was measured.
        content: its document, from ``protocol_report.document``.
        dataset: reads the shown frames again.
        predictor: predicts them again.
        shown: frames of each of best, median and worst.
    """
    limit = error_limit(result.frames)
    examples = [
        make_example(title, frame, result=result, dataset=dataset, predictor=predictor, limit=limit)
        for title, frame in ranked(result.frames, count=shown)
    ]
    model = cast("Mapping[str, JsonValue]", content["model"])
    protocol = cast("Mapping[str, JsonValue]", content["protocol"])
    title = f"{model.get('name')} under {protocol['id']}"
    percent = f"{100 * limit:g} %"
    scale = colour_bar(
        [_css(_TOO_NEAR), _css(_RIGHT), _css(_TOO_FAR)],
        low=f"too near by {percent} or more",
        middle="relative error 0",
        high=f"too far by {percent} or more",
    )
    body = [
        "<h2>Figures</h2>",
        _metric_table(content),
        "<h2>Frames</h2>",
        '<div class="plots">',
        *_plots(result, content),
        "</div>",
        "<h2>Best, median and worst frames</h2>",
        f"<p>Ranked by {RANKED_BY}. Reference and aligned prediction share one colour range a frame, near is warm. "
        "Error is (prediction - reference) / reference; dark pixels were not compared.</p>",
        scale,
        *(example_html(example) for example in examples),
        *failed_frames(result.failures),
        "<h2>Conditions</h2>",
        conditions(content, ("protocol", "model", "data", "frames", "pixels", "interval", "versions")),
    ]
    return whole_page(title, lead=str(protocol.get("summary", "")), warnings=result.warnings, body=body)


def ranked(frames: Sequence[FrameScore], *, count: int) -> list[tuple[str, FrameScore]]:
    """The best, median and worst frames with a title each; every frame at most once.

    Frames without a figure cannot be ranked and are left out.
    """
    own = [frame for frame in frames if not frame.mirrored]
    values = [frame.measured.metrics[RANKED_BY] for frame in own]
    return [
        (f"{group}: {own[position].key}, {RANKED_BY} {values[position]:.4g}", own[position])
        for group, position in best_median_worst(values, [str(frame.key) for frame in own], count=count)
    ]


def error_limit(frames: Sequence[FrameScore]) -> float:
    """The relative error at the ends of the colour scale, one for all frames: about twice the median frame's error."""
    values = [f.measured.metrics[RANKED_BY] for f in frames if math.isfinite(f.measured.metrics[RANKED_BY])]
    wanted = 2 * float(np.median(values)) if values else 1.0
    return next((limit for limit in _LIMITS if limit >= wanted), _LIMITS[-1])


def make_example(
    title: str,
    frame: FrameScore,
    *,
    result: ProtocolResult,
    dataset: Dataset,
    predictor: Predictor,
    limit: float,
) -> Example:
    """Read and predict a frame again and draw it; a frame that fails now is an example with its problem."""
    protocol = result.protocol
    try:
        sample = dataset.load(frame.key)
        truth = reference(sample, frame.key)
        prediction = predict(predictor, frame.key, sample.frame, protocol)
        scale = frame.measured.scale if protocol.scope == "sequence" else None
        _, values, mask = score_maps(prediction, truth, protocol, scale=scale)
        counted, _ = reference_mask(truth, protocol)
    except EndoluxError as error:
        return Example(title=title, problem=public_text(error.what))
    metric = truth.kind is DepthKind.METRIC
    to_mm = MM_PER_UNIT.get(protocol.unit, 1.0) if metric else 1.0
    aligned = np.zeros(mask.shape, np.float32)
    aligned[mask] = values * to_mm
    shared = _colour_range(truth.values[counted])
    relative = np.zeros(mask.shape, np.float32)
    relative[mask] = aligned[mask] / truth.values[mask] - 1
    true_map = DepthMap(values=truth.values, kind=truth.kind, valid=counted)
    predicted = DepthMap(values=aligned, kind=truth.kind, valid=mask)
    unit = "mm" if metric else truth.kind.value.replace("_", " ")
    span = f"{shared.low:.3g} to {shared.high:.3g} {unit}{', log' if shared.scale == 'log' else ''}"
    return Example(
        title=title,
        tiles=(
            ("image", small(sample.frame.image, smooth=True)),
            (f"reference, {span}", small(colourise(true_map, shared))),
            ("aligned prediction", small(colourise(predicted, shared))),
            ("relative error", small(error_picture(relative, mask, limit))),
        ),
    )


def error_picture(
    error: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    limit: float,
) -> ImageArray:
    """Signed relative errors as colours: blue too near, white right, red too far, grey not compared.

    Args:
        error: H x W, (prediction - reference) / reference.
        mask: H x W, True where compared.
        limit: error at the full colour.

    Example:
        >>> error_picture(np.float32([[-1.0, 0.0]]), np.array([[True, True]]), 0.5)[0].tolist()
        [[33, 102, 172], [247, 247, 247]]
    """
    share = np.clip(error / np.float32(limit), -1, 1)[..., None]
    centre = np.array(_RIGHT, np.float32)
    end = np.where(share < 0, np.array(_TOO_NEAR, np.float32), np.array(_TOO_FAR, np.float32))
    picture = centre + np.abs(share) * (end - centre)
    picture[~mask] = _NOT_COMPARED
    result: ImageArray = np.rint(picture).astype(np.uint8)
    return result


def _colour_range(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> ColourRange:
    if not values.size:
        return ColourRange(low=0.0, high=1.0)
    low, high = (float(v) for v in np.percentile(values, (1, 99)))
    # Light and tissue fill the near end of a lumen; a linear range would spend all its colours on the far end.
    scale: Scale = "log" if low > 0 and high > _LOG_ABOVE * low else "linear"
    return ColourRange(low=low, high=high if high > low else low * 1.01 + 1e-6, scale=scale)


def _metric_table(content: Mapping[str, JsonValue]) -> str:
    rows = []
    for name, figure in cast("Mapping[str, Mapping[str, JsonValue]]", content["metrics"]).items():
        unit = f" ({figure['unit']})" if figure.get("unit") else ""
        rows.append(
            f"<tr><td>{safe(name + unit)}</td><td class=n>{number(figure['mean'])}</td>"
            f"<td>{_span(figure, 'low', 'high')}</td><td>{_span(figure, 'student_low', 'student_high')}</td>"
            f"<td>{_span(figure, 'sequence_low', 'sequence_high')}</td>"
            f"<td>{figure['better']} is better</td><td class=n>{number(figure['pooled'])}</td>"
            f"<td class=n>{figure['frames']}</td></tr>"
        )
    for baseline, row in cast("Mapping[str, Mapping[str, Mapping[str, JsonValue]]]", content["baselines"]).items():
        text = ", ".join(f"{metric} {number(row[metric]['mean'])}" for metric in ("abs_rel", "rmse", "delta1"))
        rows.append(f"<tr><td>{safe(baseline)}</td><td colspan=7>{safe(text)}</td></tr>")
    return (
        '<div class="scroll"><table class="figures"><thead><tr><th>metric</th><th class=n>figure</th>'
        "<th>95 % bootstrap over frames</th>"
        "<th>95 % Student</th><th>95 % bootstrap over sequences</th><th></th>"
        "<th class=n>pooled</th><th class=n>frames</th></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table></div><p>Neighbouring frames of a video are alike: for statements about other patients or "
        "clips only the interval over sequences is honest.</p>"
    )


def _plots(result: ProtocolResult, content: Mapping[str, JsonValue]) -> list[str]:
    values = [frame.measured.metrics[RANKED_BY] for frame in result.frames]
    deltas = [frame.measured.metrics["delta1"] for frame in result.frames]
    parts = [
        sorted_curve(values, title=f"{RANKED_BY} of every frame", label=RANKED_BY),
        histogram(values, title=f"{RANKED_BY}, how often", label=RANKED_BY),
        histogram(deltas, title="delta1, how often", label="delta1"),
    ]
    sequences = cast("Mapping[str, Mapping[str, float | None]]", content["sequences"])
    if len(sequences) > 1:
        by_name: dict[str, list[float]] = {}
        for frame, value in zip(result.frames, values, strict=True):
            if math.isfinite(value):
                by_name.setdefault(frame.key.sequence, []).append(value)
        rows = []
        for name, row in sequences.items():
            low, high = np.quantile(by_name[name], (0.05, 0.95)) if name in by_name else (math.nan, math.nan)
            mean = row[RANKED_BY]
            rows.append((name, math.nan if mean is None else mean, float(low), float(high)))
        parts.append(dots(rows, title="sequences", label=f"{RANKED_BY}; bar: 5 % to 95 % of the frames"))
    return parts


def _span(figure: Mapping[str, JsonValue], low: str, high: str) -> str:
    return "-" if figure[low] is None else f"{number(figure[low])} to {number(figure[high])}"


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*colour)
