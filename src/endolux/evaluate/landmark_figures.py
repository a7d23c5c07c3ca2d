"""Figures of a frame with landmarks, one name each, as paired comparisons and plots take them."""

from __future__ import annotations

from collections.abc import Mapping

from endolux.datasets.l3d import CLASSES
from endolux.evaluate.landmarks import PUBLISHED, LandmarkFrame
from endolux.metrics.segmentation import LANDMARK_CLASSES

_OVERLAP, _DISTANCE = ("dsc", "iou"), ("assd", "hd95")
LANDMARK_FIGURES: Mapping[str, str] = {
    **{
        f"{CLASSES[number]}_{name}": "higher" if name in _OVERLAP else "lower"
        for number in LANDMARK_CLASSES
        for name in (*_OVERLAP, *_DISTANCE, "missed", "false_alarm")
    },
    **{f"pooled_{name}": "higher" if name in _OVERLAP else "lower" for name in (*_OVERLAP, *_DISTANCE)},
    **{name: "lower" if name.endswith("assd") else "higher" for name in PUBLISHED},
}
"""Name of the figure -> whether lower or higher is better."""


def landmark_figures(frame: LandmarkFrame) -> dict[str, float]:
    """Figures of one frame by the names of ``LANDMARK_FIGURES``, so that their means are those of the class table.

    Overlap of a class counts where the truth has it (a miss is 0), distances where both have it; ``missed`` is 0 or 1
    where the truth has the class, ``false_alarm`` where it has not. Everything else is NaN.
    """
    nan = float("nan")
    found: dict[str, float] = {}
    for number in LANDMARK_CLASSES:
        row, name = frame.scores.classes[number], CLASSES[number]
        found |= {f"{name}_{figure}": getattr(row, figure) if row.true else nan for figure in _OVERLAP}
        found |= {f"{name}_{figure}": getattr(row, figure) for figure in _DISTANCE}
        found[f"{name}_missed"] = float(not row.predicted) if row.true else nan
        found[f"{name}_false_alarm"] = nan if row.true else float(row.predicted > 0)
    found |= {f"pooled_{figure}": getattr(frame.scores.pooled, figure) for figure in (*_OVERLAP, *_DISTANCE)}
    return found | dict(frame.published)
