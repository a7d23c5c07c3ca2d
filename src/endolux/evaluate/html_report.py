"""The report of a protocol's result: one HTML file with figures, plots, and the best, median and worst frames."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import cast

import cv2
import numpy as np
from pydantic import JsonValue

from endolux.datasets.base import Dataset
from endolux.errors import EndoluxError
from endolux.evaluate.frame_score import FrameScore, predict, reference
from endolux.evaluate.plots import colour_bar, dots, histogram, sorted_curve
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.protocol_run import ProtocolResult
from endolux.evaluate.provenance import public_text
from endolux.evaluate.scoring import score_maps
from endolux.evaluate.windows import MM_PER_UNIT, reference_mask
from endolux.io.colour import ColourRange, Scale, colourise
from endolux.types import DepthKind, DepthMap, ImageArray

RANKED_BY = "abs_rel"
_TILE = 320
_LOG_ABOVE = 4.0
_QUALITY = 82
_LIMITS = (0.05, 0.1, 0.2, 0.5, 1.0)
_TOO_NEAR, _RIGHT, _TOO_FAR = (33, 102, 172), (247, 247, 247), (178, 24, 43)
_NOT_COMPARED = (60, 60, 60)

_STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:1184px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px}
h2{font-size:18px;margin:34px 0 10px;border-bottom:1px solid #d9dee3;padding-bottom:4px}
p.lead{margin:0 0 16px;color:#4c5661}
.warning{background:#fff3cd;border-left:5px solid #d39e00;padding:8px 12px;margin:8px 0;font-weight:600}
table{border-collapse:collapse;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px 4px 0;text-align:left;vertical-align:top;border-bottom:1px solid #eceff2}
td.n,th.n{text-align:right}table.figures td,table.figures th{white-space:nowrap}
.scroll{overflow-x:auto}
.plots{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}
svg.plot{width:556px;max-width:100%;height:auto;border:1px solid #eceff2}
svg.scale{width:560px;max-width:100%;height:auto}
svg text{font:12px system-ui,sans-serif;fill:#333}
svg .title{font-size:14px;font-weight:600}svg .tick{font-size:11px;fill:#5b6672}svg .name{font-size:11px}
svg .grid{stroke:#e6e9ed}svg .curve{fill:none;stroke:#1f6fb2;stroke-width:2}svg .bar{fill:#1f6fb2}
svg .mark{stroke:#c0392b;stroke-dasharray:5 4}svg .note{fill:#c0392b}
svg .span{stroke:#9fb6cc;stroke-width:5;stroke-linecap:round}svg .dot{fill:#1f6fb2}
.frame{margin:14px 0 20px}.frame h3{font-size:15px;margin:0 0 6px}
.tiles{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:8px}
figure{margin:0}figure img{width:100%;display:block;background:#000}figcaption{font-size:12px;color:#4c5661}
code{font-size:12px;word-break:break-all}
@media(max-width:760px){.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}}
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One frame as pictures.

    Attributes:
        title: which frame and why it is shown.
        tiles: caption and RGB picture, in order.
        problem: what went wrong if the frame could not be made again.
    """

    title: str
    tiles: tuple[tuple[str, ImageArray], ...] = ()
    problem: str = ""


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
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # Nothing is fetched, whatever a name from a data set might contain.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_safe(title)}</h1>",
        f'<p class="lead">{_safe(str(protocol.get("summary", "")))}</p>',
        *(f'<p class="warning" role="alert">{_safe(text)}</p>' for text in result.warnings),
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
        *(_example_html(example) for example in examples),
        *(_failures(result)),
        "<h2>Conditions</h2>",
        _conditions(content),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def ranked(frames: Sequence[FrameScore], *, count: int) -> list[tuple[str, FrameScore]]:
    """The best, median and worst frames with a title each; every frame at most once.

    Frames without a figure cannot be ranked and are left out.
    """
    order = sorted(
        (f for f in frames if not f.mirrored and math.isfinite(f.measured.metrics[RANKED_BY])),
        key=lambda f: (f.measured.metrics[RANKED_BY], str(f.key)),
    )
    total = len(order)
    middle = max(0, (total - count) // 2)
    groups = (
        ("best", range(min(count, total))),
        ("median", range(middle, min(middle + count, total))),
        ("worst", range(total - 1, max(total - 1 - count, -1), -1)),
    )
    chosen: dict[int, str] = {}
    for name, positions in (groups[0], groups[2], groups[1]):
        for position in positions:
            chosen.setdefault(position, name)
    rank = {name: number for number, (name, _) in enumerate(groups)}
    listed = sorted(chosen, key=lambda p: (rank[chosen[p]], -p if chosen[p] == "worst" else p))
    return [
        (f"{chosen[p]}: {order[p].key}, {RANKED_BY} {order[p].measured.metrics[RANKED_BY]:.4g}", order[p])
        for p in listed
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
            ("image", _small(sample.frame.image, smooth=True)),
            (f"reference, {span}", _small(colourise(true_map, shared))),
            ("aligned prediction", _small(colourise(predicted, shared))),
            ("relative error", _small(error_picture(relative, mask, limit))),
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


def _small(image: ImageArray, *, smooth: bool = False) -> ImageArray:
    height, width = image.shape[:2]
    if width <= _TILE:
        return image
    size = (_TILE, max(1, round(height * _TILE / width)))
    result: ImageArray = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST)
    return result


def _jpeg(image: ImageArray) -> str:
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _example_html(example: Example) -> str:
    if example.problem:
        return f'<div class="frame"><h3>{_safe(example.title)}</h3><p>{_safe(example.problem)}</p></div>'
    tiles = "".join(
        f'<figure><img alt="{_safe(caption)}" src="{_jpeg(picture)}"><figcaption>{_safe(caption)}</figcaption></figure>'
        for caption, picture in example.tiles
    )
    return f'<div class="frame"><h3>{_safe(example.title)}</h3><div class="tiles">{tiles}</div></div>'


def _metric_table(content: Mapping[str, JsonValue]) -> str:
    rows = []
    for name, figure in cast("Mapping[str, Mapping[str, JsonValue]]", content["metrics"]).items():
        unit = f" ({figure['unit']})" if figure.get("unit") else ""
        rows.append(
            f"<tr><td>{_safe(name + unit)}</td><td class=n>{_number(figure['mean'])}</td>"
            f"<td>{_span(figure, 'low', 'high')}</td><td>{_span(figure, 'student_low', 'student_high')}</td>"
            f"<td>{_span(figure, 'sequence_low', 'sequence_high')}</td>"
            f"<td>{figure['better']} is better</td><td class=n>{_number(figure['pooled'])}</td>"
            f"<td class=n>{figure['frames']}</td></tr>"
        )
    for baseline, row in cast("Mapping[str, Mapping[str, Mapping[str, JsonValue]]]", content["baselines"]).items():
        text = ", ".join(f"{metric} {_number(row[metric]['mean'])}" for metric in ("abs_rel", "rmse", "delta1"))
        rows.append(f"<tr><td>{_safe(baseline)}</td><td colspan=7>{_safe(text)}</td></tr>")
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


def _failures(result: ProtocolResult) -> list[str]:
    if not result.failures:
        return []
    rows = "".join(
        f"<tr><td>{_safe(f.name)}</td><td>{_safe(f.error.error_id)}</td><td>{_safe(public_text(f.error.what))}</td></tr>"
        for f in result.failures[:50]
    )
    more = f"<p>and {len(result.failures) - 50} more</p>" if len(result.failures) > 50 else ""
    return [f"<h2>Frames that failed</h2><table>{rows}</table>{more}"]


def _conditions(content: Mapping[str, JsonValue]) -> str:
    rows = []
    for section in ("protocol", "model", "data", "frames", "pixels", "interval", "versions"):
        for key, value in cast("Mapping[str, JsonValue]", content[section]).items():
            if value is None or value == {} or (key == "name" and section == "protocol"):
                continue
            text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            rows.append(f"<tr><td>{_safe(section)}</td><td>{_safe(key)}</td><td><code>{_safe(text)}</code></td></tr>")
    command = " ".join(str(part) for part in cast("list[JsonValue]", content["command"]))
    if command:
        rows.append(f"<tr><td>command</td><td></td><td><code>{_safe(command)}</code></td></tr>")
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _span(figure: Mapping[str, JsonValue], low: str, high: str) -> str:
    return "-" if figure[low] is None else f"{_number(figure[low])} to {_number(figure[high])}"


def _number(value: JsonValue) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*colour)


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
