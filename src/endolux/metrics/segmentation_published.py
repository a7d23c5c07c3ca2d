"""Overlap and surface distance of liver landmarks as the published code computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from endolux.metrics.boundary import distance_to
from endolux.metrics.checks import BoolArray, Float64, mean, one_of, warn_empty
from endolux.metrics.segmentation import LANDMARK_CLASSES, LabelArray, check_labels, mask_surface, overlap_counts

OverlapVariant = Literal["d2gpland"]
PublishedAssd = Literal["d2gpland-plus", "srft-galore"]
_SMOOTH = 1e-5
_EMPTY_PREDICTION_PX = 80.0
_BACKGROUND_SPACING = 10.0


def overlap_as_published(
    prediction: LabelArray,
    truth: LabelArray,
    *,
    classes: Sequence[int] = LANDMARK_CLASSES,
    reproduce: OverlapVariant = "d2gpland",
) -> tuple[float, float]:
    """Pooled (DSC, IoU) of one image as D2GPLand, D2GPLand-Plus and SRFT-GaLore code it.

    Dice is (2 I + 1e-5) / (|P| + |T| + 1e-5) over the classes together and IoU = Dice / (2 - Dice), so that an empty
    prediction of an empty truth counts 1 (here it is NaN elsewhere). The data set's value is the mean over images.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.labels`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> empty = np.zeros((2, 2), int)
        >>> overlap_as_published(empty, empty)
        (1.0, 1.0)
    """
    one_of(reproduce, ["d2gpland"], what="variant of the overlap")
    check_labels(prediction, truth, classes)
    counts = np.array([overlap_counts(prediction == number, truth == number) for number in classes]).sum(axis=0)
    dice = float((2 * counts[0] + _SMOOTH) / (counts[1] + counts[2] + _SMOOTH))
    return dice, dice / (2 - dice)


def assd_as_published(
    prediction: LabelArray,
    truth: LabelArray,
    *,
    reproduce: PublishedAssd,
    classes: Sequence[int] = LANDMARK_CLASSES,
) -> float:
    """The two published "ASSD" of liver landmarks, which measure different things and must not share a table.

    * ``d2gpland-plus``: the stack of class masks as one volume, spacing 1 between pixels and between classes; mean of
      the two directed means. A pixel of the wrong class is at most the number of classes away, so mix-ups hardly show.
      80 where the prediction is empty.
    * ``srft-galore``: the *background* mask; contour length elements on pixel corners, weighted by their length; 10
      units a pixel; mean of the two directed means. The image frame is part of both contours and dilutes it.

    Args:
        prediction: H x W class numbers.
        truth: H x W class numbers.
        reproduce: which.
        classes: foreground classes, in the order of the stack.

    Returns:
        Distance; NaN with an ``EmptyMaskWarning`` where the original stops with an error: truth empty, or no
        background.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.labels`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[0, 1, 0], [0, 2, 0]])
        >>> assd_as_published(truth, truth, reproduce="srft-galore")
        0.0
        >>> assd_as_published(0 * truth, truth, reproduce="d2gpland-plus")
        80.0
    """
    one_of(reproduce, ["d2gpland-plus", "srft-galore"], what="published distance")
    check_labels(prediction, truth, classes)
    if reproduce == "srft-galore":
        p, t = ~np.isin(prediction, classes), ~np.isin(truth, classes)
        if not (p.any() and t.any()):
            warn_empty("Published ASSD: no background")
            return float("nan")
        length_p, length_t = _contour(p), _contour(t)
        to_p, to_t = distance_to(length_p > 0), distance_to(length_t > 0)
        there = float((to_t * length_p)[length_p > 0].sum() / length_p.sum())
        back = float((to_p * length_t)[length_t > 0].sum() / length_t.sum())
        return _BACKGROUND_SPACING * (there + back) / 2
    stacks = [np.stack([labels == number for number in classes]) for labels in (prediction, truth)]
    if not stacks[1].any():
        warn_empty("Published ASSD: the truth is empty")
        return float("nan")
    if not stacks[0].any():
        return _EMPTY_PREDICTION_PX
    surface_p, surface_t = (_volume_surface(stack) for stack in stacks)
    there = mean(_volume_distance(surface_t)[surface_p])
    return (there + mean(_volume_distance(surface_p)[surface_t])) / 2


def _volume_surface(stack: BoolArray) -> BoolArray:
    # 6-neighbours: also the slices before and after, and nothing lies beyond the first and last.
    inner = np.stack([mask & ~mask_surface(mask) for mask in stack])
    empty = np.zeros_like(inner[:1])
    above, below = np.concatenate([empty, stack[:-1]]), np.concatenate([stack[1:], empty])
    return np.asarray(stack & ~(inner & above & below), np.bool_)


def _volume_distance(surface: BoolArray) -> Float64:
    # A few slices: the exact 3-D distance is the least over slices of the plane distance and the step between them.
    planes = np.stack([distance_to(layer) for layer in surface]) ** 2
    place = np.arange(len(surface))
    steps = (place[:, None] - place[None, :]) ** 2
    return np.stack([np.sqrt((planes + row[:, None, None]).min(axis=0)) for row in steps.astype(np.float64)])


def _contour(mask: BoolArray) -> Float64:
    # Length of the contour through every pixel corner: half a diagonal where one or three of the four pixels around it
    # are set, a side for two neighbours, a diagonal for two opposite ones. Beyond the image nothing is set.
    m = np.pad(mask, 1).astype(np.int8)
    a, b, c, d = m[:-1, :-1], m[:-1, 1:], m[1:, :-1], m[1:, 1:]
    count = a + b + c + d
    opposite = (count == 2) & (a == d)
    lengths = np.array([0.0, np.sqrt(0.5), 1.0, np.sqrt(0.5), 0.0])[count]
    return np.asarray(np.where(opposite, np.sqrt(2.0), lengths), np.float64)
