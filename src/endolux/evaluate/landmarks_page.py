"""The report of landmark masks: one HTML file with figures, plots, and frames with true and predicted masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import cv2
import numpy as np
from pydantic import JsonValue

from endolux.datasets.base import Dataset
from endolux.datasets.l3d import CLASSES
from endolux.errors import EndoluxError
from endolux.evaluate.landmark_figures import landmark_figures
from endolux.evaluate.landmark_masks import Labels, read_pair
from endolux.evaluate.landmarks import LandmarkFrame, LandmarkResult
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
from endolux.evaluate.plots import histogram, sorted_curve
from endolux.evaluate.provenance import public_text
from endolux.types import ImageArray

RANKED_BY = "pooled_dsc"
_CLASS_COLOURS = {1: (230, 159, 0), 2: (0, 158, 115), 3: (204, 121, 167)}
_RIGHT, _MISSED, _FALSE = (0, 200, 83), (41, 121, 255), (255, 61, 0)
_COLUMNS = ("dsc", "iou", "assd", "hd95", "miss_rate", "false_alarm_rate")


def landmarks_page(
    result: LandmarkResult, content: Mapping[str, JsonValue], *, dataset: Dataset, shown: int = 3
) -> str:
    """The whole report as one file: pictures are JPEG inside it, plots are SVG, and it loads nothing.

    Args:
        result: what was measured.
        content: its document, from ``landmarks_report.landmark_document``.
        dataset: reads the shown frames again.
        shown: frames of each of best, median and worst by pooled DSC.
    """
    rows = [landmark_figures(frame) for frame in result.frames]
    values = [row[RANKED_BY] for row in rows]
    names = [str(frame.key) for frame in result.frames]
    chosen = best_median_worst(values, names, count=shown, higher_is_better=True)
    plots = [
        sorted_curve(values, title="pooled DSC of every frame", label="pooled DSC"),
        histogram(values, title="pooled DSC, how often", label="pooled DSC"),
        *(
            histogram([row[f"{CLASSES[n]}_dsc"] for row in rows], title=f"DSC of the {CLASSES[n]}", label="DSC")
            for n in _CLASS_COLOURS
        ),
    ]
    body = [
        "<h2>Figures</h2>",
        _class_table(content),
        _published_table(content),
        "<h2>Frames</h2>",
        f'<div class="plots">{"".join(plots)}</div>',
        "<h2>Best, median and worst frames</h2>",
        "<p>Ranked by the DSC of all classes pooled; frames without a landmark in truth and prediction are not ranked. "
        f"{_legend(_CLASS_COLOURS)}. Last picture: {_legend_of_errors()}.</p>",
        *(
            example_html(_example(f"{group}: {names[i]}, DSC {values[i]:.4g}", result.frames[i], result, dataset))
            for group, i in chosen
        ),
        *failed_frames(result.failures),
        "<h2>Conditions</h2>",
        conditions(content, ("protocol", "model", "data", "frames", "interval", "versions")),
    ]
    title = f"{result.predictor['name']} under {result.protocol.identity}"
    return whole_page(title, lead=result.protocol.summary, warnings=result.warnings, body=body)


def draw_labels(image: ImageArray, labels: Labels) -> ImageArray:
    """A picture with its landmarks in the colours of their classes.

    Lines of a few pixels would vanish in a smaller picture, so each of its pixels shows the class that it touches.

    Args:
        image: h x w x 3, already small.
        labels: H x W class numbers.

    Example:
        >>> labels = np.zeros((8, 8), np.uint8)
        >>> labels[5, 5] = 2
        >>> drawn = draw_labels(np.zeros((2, 2, 3), np.uint8), labels)
        >>> drawn[1, 1].tolist(), int(drawn[0].max())
        ([0, 158, 115], 0)
    """
    return _paint(image, {colour: labels == n for n, colour in _CLASS_COLOURS.items()})


def draw_errors(image: ImageArray, predicted: Labels, truth: Labels) -> ImageArray:
    """A picture with right, missed and false pixels; a wrong class is false. Arguments as :func:`draw_labels`."""
    right = (predicted == truth) & (truth > 0)
    # The last colour wins where a small pixel touches several.
    return _paint(image, {_MISSED: (truth > 0) & (predicted == 0), _FALSE: (predicted > 0) & ~right, _RIGHT: right})


def _paint(
    image: ImageArray, masks: Mapping[tuple[int, int, int], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]
) -> ImageArray:
    drawn = image.copy()
    size = (image.shape[1], image.shape[0])
    for colour, mask in masks.items():
        touched = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
        drawn[touched] = colour
    return drawn


def _example(title: str, frame: LandmarkFrame, result: LandmarkResult, dataset: Dataset) -> Example:
    try:
        pair = read_pair(result.files.get(str(frame.key)), dataset, frame.key)
    except EndoluxError as error:
        return Example(title=title, problem=public_text(error.what))
    image = small(pair.image, smooth=True)
    return Example(
        title=title,
        tiles=(
            ("image", image),
            ("truth", draw_labels(image, pair.truth)),
            ("prediction", draw_labels(image, pair.predicted)),
            ("right, missed and false", draw_errors(image, pair.predicted, pair.truth)),
        ),
    )


def _class_table(content: Mapping[str, JsonValue]) -> str:
    rows = []
    for name, row in cast("Mapping[str, Mapping[str, JsonValue]]", content["classes"]).items():
        cells = "".join(f"<td class=n>{number(row[column])}</td>" for column in _COLUMNS)
        rows.append(f"<tr><td>{safe(name)}</td>{cells}<td class=n>{row['images']}</td></tr>")
    over = cast("Mapping[str, JsonValue]", content["over_all"])
    keys = ("macro_dsc", "macro_iou", *_COLUMNS[2:])
    cells = "".join(f"<td class=n>{number(over[column])}</td>" for column in keys)
    rows.append(f"<tr><td>all classes</td>{cells}<td class=n>{over['images']}</td></tr>")
    intervals = cast("Mapping[str, Mapping[str, JsonValue]]", content["intervals"])
    pooled = "; ".join(
        f"{name.replace('_', ' ')} {number(found['mean'])} ({number(found['low'])} to {number(found['high'])})"
        for name, found in intervals.items()
    )
    heads = "".join(
        f"<th class=n>{head}</th>" for head in ("DSC", "IoU", "ASSD px", "HD95 px", "missed", "false alarms", "frames")
    )
    return (
        f'<div class="scroll"><table class="figures"><thead><tr><th>class</th>{heads}</tr></thead><tbody>'
        + "".join(rows)
        + "</tbody></table></div><p>Overlap of a class is over the frames whose truth has it, distance over those "
        f"where both have it. Classes pooled in a frame, 95 % bootstrap over frames: {safe(pooled)}.</p>"
    )


def _published_table(content: Mapping[str, JsonValue]) -> str:
    rows = "".join(
        f"<tr><td>{safe(name)}</td><td class=n>{number(row['mean'])}</td><td>{safe(str(row['meaning']))}</td></tr>"
        for name, row in cast("Mapping[str, Mapping[str, JsonValue]]", content["published"]).items()
    )
    return f'<h2>As published code counts</h2><div class="scroll"><table>{rows}</table></div>'


def _legend(colours: Mapping[int, tuple[int, int, int]]) -> str:
    return "Colours: " + ", ".join(_patch(colour, CLASSES[n]) for n, colour in colours.items())


def _legend_of_errors() -> str:
    return ", ".join((_patch(_RIGHT, "right"), _patch(_MISSED, "missed"), _patch(_FALSE, "false or of another class")))


def _patch(colour: tuple[int, int, int], text: str) -> str:
    fill = "rgb({},{},{})".format(*colour)
    return (
        f'<svg width="12" height="12" role="img" aria-label="{safe(text)}">'
        f'<rect width="12" height="12" fill="{fill}"/></svg> {safe(text)}'
    )
