"""Segmentation: overlap and surface distance, per class and pooled, and the two published distances."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.metrics.boundary import distance_to
from endolux.metrics.checks import BoolArray, Float64, boolean, mean, one_of, same_shape, warn_empty

LANDMARK_CLASSES: tuple[int, ...] = (1, 2, 3)
"""Ridge, silhouette and falciform ligament of L3D."""
LabelArray = npt.NDArray[np.integer[Any]]
DistanceVariant = Literal["medpy"]
_PERCENTILE = 95.0


def dsc(prediction: BoolArray, truth: BoolArray) -> float:
    """Dice similarity coefficient, 2 |P & T| / (|P| + |T|); NaN with an ``EmptyMaskWarning`` if both are empty.

    Args:
        prediction: bool array.
        truth: bool array of the same shape.

    Raises:
        UsageError: ``metrics.shape`` or ``metrics.mask``.

    Example:
        >>> import numpy as np
        >>> dsc(np.array([[True, True, False]]), np.array([[True, False, False]])) == 2 / 3
        True
    """
    value = _overlap(*overlap_counts(prediction, truth))[0]
    if np.isnan(value):
        warn_empty("DSC: prediction and truth are empty")
    return value


def iou(prediction: BoolArray, truth: BoolArray) -> float:
    """Intersection over union; NaN with an ``EmptyMaskWarning`` if both are empty. Arguments and errors as :func:`dsc`.

    Example:
        >>> import numpy as np
        >>> iou(np.array([[True, True, False]]), np.array([[True, False, False]]))
        0.5
    """
    value = _overlap(*overlap_counts(prediction, truth))[1]
    if np.isnan(value):
        warn_empty("IoU: prediction and truth are empty")
    return value


def assd(
    prediction: BoolArray, truth: BoolArray, *, spacing: float = 1.0, reproduce: DistanceVariant | None = None
) -> float:
    """Average symmetric surface distance of two masks: mean over the surface pixels of both (Heimann et al. 2009).

    Surface pixels are those of the mask with a 4-neighbour outside it or outside the image. ``reproduce="medpy"`` takes
    the mean of the two directed means, which weighs a short surface as much as a long one.

    Args:
        prediction: H x W bool.
        truth: H x W bool.
        spacing: length of a pixel.
        reproduce: None or ``"medpy"``.

    Returns:
        Distance in the unit of ``spacing``; NaN with an ``EmptyMaskWarning`` if either mask is empty.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask`` or ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> row = np.zeros((5, 9), bool)
        >>> row[1, :] = True
        >>> assd(row, np.roll(row, 2, axis=0))
        2.0
    """
    there, back = surface_distance_pair(prediction, truth)
    if not there.size:
        warn_empty("ASSD: a mask is empty")
    return spacing * _assd(there, back, reproduce)


def hd95(
    prediction: BoolArray, truth: BoolArray, *, spacing: float = 1.0, reproduce: DistanceVariant | None = None
) -> float:
    """Robust Hausdorff distance: the larger of the two directed 95th percentiles (linear between ranks).

    ``reproduce="medpy"`` takes the percentile of both directions together. Other arguments, result and errors as
    :func:`assd`.

    Example:
        >>> import numpy as np
        >>> row = np.zeros((5, 9), bool)
        >>> row[1, :] = True
        >>> hd95(row, np.roll(row, 2, axis=0))
        2.0
    """
    there, back = surface_distance_pair(prediction, truth)
    if not there.size:
        warn_empty("HD95: a mask is empty")
    return spacing * _hd95(there, back, reproduce)


def surface_distance_pair(prediction: BoolArray, truth: BoolArray) -> tuple[Float64, Float64]:
    """Distances in pixels from each surface pixel of the prediction to the truth's surface, and back.

    Returns:
        Two lists; both empty if either mask is.

    Raises:
        UsageError: ``metrics.shape`` or ``metrics.mask``.

    Example:
        >>> import numpy as np
        >>> there, back = surface_distance_pair(np.array([[True, False]]), np.array([[True, True]]))
        >>> there.tolist(), back.tolist()
        ([0.0], [0.0, 1.0])
    """
    same_shape(prediction, truth, dimensions=2)
    boolean(prediction)
    boolean(truth)
    if not (prediction.any() and truth.any()):
        return np.empty(0), np.empty(0)
    # Distances inside the box of both masks are those of the whole image, and thin structures leave it mostly empty.
    rows, columns = np.flatnonzero((prediction | truth).any(axis=1)), np.flatnonzero((prediction | truth).any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    p, t = mask_surface(prediction[box]), mask_surface(truth[box])
    return distance_to(t)[p], distance_to(p)[t]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """Scores of one class, or of all pooled, in one image.

    Attributes:
        dsc, iou: NaN where truth and prediction are empty, 0 where one of them is.
        assd, hd95: NaN where either is empty.
        predicted, true: pixels.
    """

    dsc: float
    iou: float
    assd: float
    hd95: float
    predicted: int
    true: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationScores:
    """Scores of one image.

    Attributes:
        classes: scores by class number.
        pooled: overlap of all classes together (a pixel of the wrong class is wrong twice), and the distances of all
            classes that prediction and truth both have, together.
    """

    classes: Mapping[int, ClassScores]
    pooled: ClassScores


def segmentation_scores(
    prediction: LabelArray,
    truth: LabelArray,
    *,
    classes: Sequence[int] = LANDMARK_CLASSES,
    spacing: float = 1.0,
) -> SegmentationScores:
    """DSC, IoU, ASSD and HD95 of one image, per class and pooled. The background is no class.

    Args:
        prediction: H x W class numbers; numbers that are not among ``classes`` are background.
        truth: the same.
        classes: the foreground classes.
        spacing: length of a pixel.

    Raises:
        UsageError: ``metrics.shape`` or ``metrics.labels``.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[1, 1, 0], [2, 2, 0]])
        >>> found = segmentation_scores(np.array([[1, 1, 1], [2, 2, 0]]), truth)
        >>> found.classes[1].dsc, found.classes[2].dsc, round(found.pooled.dsc, 4)
        (0.8, 1.0, 0.8889)
    """
    check_labels(prediction, truth, classes)
    found: dict[int, ClassScores] = {}
    distances: list[tuple[Float64, Float64]] = []
    for number in classes:
        p, t = prediction == number, truth == number
        pair = surface_distance_pair(p, t)
        distances.append(pair)
        found[number] = _class_scores(overlap_counts(p, t), pair, spacing)
    shared, predicted, true = (
        sum(values)
        for values in zip(*(overlap_counts(prediction == number, truth == number) for number in classes), strict=True)
    )
    together = np.concatenate([pair[0] for pair in distances]), np.concatenate([pair[1] for pair in distances])
    return SegmentationScores(classes=found, pooled=_class_scores((shared, predicted, true), together, spacing))


def check_labels(prediction: LabelArray, truth: LabelArray, classes: Sequence[int]) -> None:
    """Refuse labels that cannot be compared. Raises UsageError ``metrics.shape`` or ``metrics.labels``."""
    same_shape(prediction, truth, dimensions=2)
    integer = all(np.issubdtype(labels.dtype, np.integer) for labels in (prediction, truth))
    if not integer or not classes or len(set(classes)) < len(classes) or 0 in classes:
        raise UsageError(
            f"Labels of {prediction.dtype} and {truth.dtype} with the classes {list(classes)}",
            why="Labels are whole numbers, 0 is the background, and a class is listed once.",
            fix="Take the argmax of scores first; resize label maps with the nearest neighbour.",
            error_id="metrics.labels",
        )


def overlap_counts(prediction: BoolArray, truth: BoolArray) -> tuple[int, int, int]:
    """Pixels in both, in the prediction and in the truth."""
    same_shape(prediction, truth)
    boolean(prediction)
    boolean(truth)
    return int(np.count_nonzero(prediction & truth)), int(prediction.sum()), int(truth.sum())


def _overlap(shared: int, predicted: int, true: int) -> tuple[float, float]:
    if not predicted + true:
        return float("nan"), float("nan")
    return 2 * shared / (predicted + true), shared / (predicted + true - shared)


def _class_scores(counts: tuple[int, int, int], pair: tuple[Float64, Float64], spacing: float) -> ClassScores:
    dice, jaccard = _overlap(*counts)
    return ClassScores(
        dsc=dice,
        iou=jaccard,
        assd=spacing * _assd(*pair, None),
        hd95=spacing * _hd95(*pair, None),
        predicted=counts[1],
        true=counts[2],
    )


def _assd(there: Float64, back: Float64, reproduce: str | None) -> float:
    if reproduce is not None:
        one_of(reproduce, ["medpy"], what="variant of the surface distance")
        return (mean(there) + mean(back)) / 2
    return mean(np.concatenate([there, back]))


def _hd95(there: Float64, back: Float64, reproduce: str | None) -> float:
    if reproduce is not None:
        one_of(reproduce, ["medpy"], what="variant of the surface distance")
    if not there.size:
        return float("nan")
    if reproduce is not None:
        return float(np.percentile(np.concatenate([there, back]), _PERCENTILE))
    return float(max(np.percentile(there, _PERCENTILE), np.percentile(back, _PERCENTILE)))


def mask_surface(mask: BoolArray) -> BoolArray:
    """Pixels of a mask with a neighbour outside it."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    eroded = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (eroded == 0), np.bool_)
