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


class LandmarkLoss(Section):
    """:mod:`endolux.losses.segmentation`: Dice with cross-entropy.

    Attributes:
        mode: ``reproduce`` takes binary cross-entropy of log-probabilities, as the released code does.
        dice, entropy: weights of the terms.
        depth: weight of relative inverse depth, for networks that learn it beside the landmarks.
        weights: of each class in the cross-entropy.
    """

    kind: Literal["landmarks"] = "landmarks"
    mode: Literal["correct", "reproduce"] = "correct"
    dice: NotNegative = 1.0
    entropy: NotNegative = 1.0
    depth: NotNegative = 0.1
    weights: tuple[Positive, ...] | None = None


class L1Loss(Section):
    """Mean absolute difference over the pixels of a batch whose depth is known (Surgical Depth Anything).

    Attributes:
        target: ``depth``: depth over ``max_depth_mm``; ``inverse``: ``min_depth_mm`` over depth. A network with an
            output of its own for one of them (Depth Anything) must be built for the same target and depths.
            ``disparity``: inverse depth of each picture after both have median 0 and mean absolute deviation 1, which
            leaves scale and shift open, as Depth Anything is pretrained; a mean over pictures.
        max_depth_mm, min_depth_mm: what the targets are relative to.
    """

    kind: Literal["l1"] = "l1"
    target: Literal["depth", "inverse", "disparity"] = "depth"
    max_depth_mm: Positive = 200.0
    min_depth_mm: Positive = 1.0
