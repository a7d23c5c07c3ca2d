"""Segmentation over a data set: means of the images' scores, with what they leave out counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from endolux.errors import UsageError
from endolux.metrics.checks import BoolArray, mean, nan_mean, warn_empty
from endolux.metrics.segmentation import SegmentationScores


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """One class over a data set.

    Attributes:
        dsc, iou: means over the images where the truth has the class; a miss counts 0.
        assd, hd95: means over the images where both have it.
        miss_rate: share of the images with the class in which the prediction has none of it.
        false_alarm_rate: share of the images without the class in which the prediction has some.
        images: images where the truth has the class; ``distances`` where both have it.
    """

    dsc: float
    iou: float
    assd: float
    hd95: float
    miss_rate: float
    false_alarm_rate: float
    images: int
    distances: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSummary:
    """A data set.

    Attributes:
        classes: by class number.
        macro_dsc, macro_iou: means over classes of their means over images.
        assd, hd95: means over all pairs of image and class that prediction and truth both have.
        pooled_dsc, pooled_iou: means over images of the pooled scores.
        miss_rate, false_alarm_rate: over all pairs of image and class.
        images: images; ``empty`` those without any class in prediction and truth, left out of the pooled means.
        pairs: pairs behind ``assd``.
    """

    classes: Mapping[int, ClassSummary]
    macro_dsc: float
    macro_iou: float
    assd: float
    hd95: float
    pooled_dsc: float
    pooled_iou: float
    miss_rate: float
    false_alarm_rate: float
    images: int
    empty: int
    pairs: int


def summarise_segmentation(images: Sequence[SegmentationScores]) -> SegmentationSummary:
    """Means over a data set, with what they leave out counted. Warns (``EmptyMaskWarning``) of images without a class.

    Raises:
        UsageError: ``metrics.labels`` for no images, or images with different classes.

    Example:
        >>> import numpy as np
        >>> from endolux.metrics.segmentation import segmentation_scores
        >>> truth = np.array([[1, 1, 0], [2, 2, 0]])
        >>> missed = segmentation_scores(np.where(truth == 2, 0, truth), truth, classes=(1, 2))
        >>> summary = summarise_segmentation([missed])
        >>> summary.classes[2].miss_rate, summary.macro_dsc, summary.assd, summary.pairs
        (1.0, 0.5, 0.0, 1)
    """
    numbers = list(images[0].classes) if images else []
    if not numbers or any(list(image.classes) != numbers for image in images):
        raise UsageError(
            f"{len(images)} images to summarise",
            why="At least one is needed, and all have the same classes.",
            fix="Score all images with one list of classes.",
            error_id="metrics.labels",
        )
    # image x class x (dsc, iou, assd, hd95, predicted, true)
    table = np.array([[dataclasses.astuple(image.classes[n]) for n in numbers] for image in images], np.float64)
    scores, predicted, true = table[..., :4], table[..., 4] > 0, table[..., 5] > 0
    both = predicted & true

    def rates(p: BoolArray, t: BoolArray) -> tuple[float, float]:
        return mean((~p[t]).astype(np.float64)), mean(p[~t].astype(np.float64))

    classes = {}
    for index, number in enumerate(numbers):
        present, paired = true[:, index], both[:, index]
        miss, false_alarm = rates(predicted[:, index], present)
        classes[number] = ClassSummary(
            dsc=mean(scores[present, index, 0]),
            iou=mean(scores[present, index, 1]),
            assd=mean(scores[paired, index, 2]),
            hd95=mean(scores[paired, index, 3]),
            miss_rate=miss,
            false_alarm_rate=false_alarm,
            images=int(present.sum()),
            distances=int(paired.sum()),
        )
    pooled = np.array([(image.pooled.dsc, image.pooled.iou) for image in images])
    empty = int(np.isnan(pooled[:, 0]).sum())
    if empty or not both.any():
        warn_empty(
            f"Segmentation: {empty} of {len(images)} images are empty, {int(both.sum())} classes have a distance"
        )
    miss, false_alarm = rates(predicted, true)
    return SegmentationSummary(
        classes=classes,
        macro_dsc=nan_mean(np.array([c.dsc for c in classes.values()])),
        macro_iou=nan_mean(np.array([c.iou for c in classes.values()])),
        assd=mean(scores[both, 2]),
        hd95=mean(scores[both, 3]),
        pooled_dsc=nan_mean(pooled[:, 0]),
        pooled_iou=nan_mean(pooled[:, 1]),
        miss_rate=miss,
        false_alarm_rate=false_alarm,
        images=len(images),
        empty=empty,
        pairs=int(both.sum()),
    )
