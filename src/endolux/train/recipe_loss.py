"""The sections of a recipe about losses."""

from __future__ import annotations

from typing import Literal

from endolux.train.recipe_section import NotNegative, Positive, Section, Share


class LogDepthLoss(Section):
    """:func:`endolux.losses.depth_loss`."""

    kind: Literal["log-depth"] = "log-depth"
    silog: NotNegative = 1.0
    gradient: NotNegative = 0.5
    anchor: NotNegative = 0.1
    variance_focus: Share = 0.85


class LeveLoss(Section):
    """Leve's loss on ratios (specification 2.5).

    Attributes:
        mode: ``correct`` as the thesis writes the structural term, ``reproduce`` as it was coded (D-3).
        dynamic_range: L of the structural term.
        mask: leave pixels of unknown depth out; the original does not (D-31).
    """

    kind: Literal["leve"] = "leve"
    mode: Literal["correct", "reproduce"] = "correct"
    dynamic_range: Positive = 10.0
    mask: bool = True
