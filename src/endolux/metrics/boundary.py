"""Depth boundaries: are the steps where they belong, and how large is the error beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from endolux.errors import UsageError
from endolux.metrics.checks import BoolArray, Float64, NumberArray, depth_pair, mean, one_of, warn_empty

THRESHOLDS: tuple[float, ...] = tuple(float(t) for t in np.linspace(1.05, 1.25, 10))
"""Depth ratios of neighbouring pixels that count as a boundary (Bochkovskii et al. 2024, section 3.3)."""
EDGE_RATIO = 1.05
BAND_PX = 3.0
BoundaryVariant = Literal["depth-pro"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryScores:
    """Agreement of the boundaries of two depth maps.

    Attributes:
        f1, precision, recall: means over the thresholds, weighted by them; NaN where the truth has no boundary.
        truth_pairs, predicted_pairs: boundary pixel pairs at the lowest threshold.
    """

    f1: float
    precision: float
    recall: float
    truth_pairs: int
    predicted_pairs: int


def boundary_scores(
    prediction: NumberArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    reproduce: BoundaryVariant | None = None,
) -> BoundaryScores:
    """Scale-invariant boundary F1 (Bochkovskii et al. 2024, "Depth Pro", equations 3 and 4).

    A pair of 4-neighbours is a boundary in the direction of the nearer pixel if their depth ratio exceeds the
    threshold. A predicted pair is right if the truth has the same pair in the same direction: there is no tolerance, so
    a boundary that lies one pixel off is wrong twice.

    ``reproduce="depth-pro"`` is the published code, which EndoStreamDepth restricts to pairs that are valid on both
    sides (all pixels valid: Depth Pro itself). It differs in two ways. Precision and recall are means over the four
    directions, and a direction without boundaries counts as 0 (a perfect prediction of a scene whose steps all face one
    way scores 0.25). And a threshold at which neither side has a boundary counts as 0. Here the pairs of all directions
    are pooled, and thresholds at which the truth has no boundary are left out.

    Args:
        prediction: H x W depth up to a factor.
        truth: H x W depth, positive and finite where ``valid``.
        valid: H x W bool; a pair counts if both of its pixels do.
        thresholds: depth ratios above 1.
        reproduce: None or ``"depth-pro"``.

    Returns:
        Scores in [0, 1]; NaN with an ``EmptyMaskWarning`` where the truth has no boundary or a prediction is not
        positive.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``, ``metrics.name``, ``metrics.threshold``.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[10.0, 10.0, 20.0]])
        >>> boundary_scores(3 * truth, truth, truth > 0).f1
        1.0
    """
    if reproduce is not None:
        one_of(reproduce, ["depth-pro"], what="variant of the boundary score")
    ratios = np.asarray(thresholds, np.float64)
    if not ratios.size or not (np.isfinite(ratios).all() and (ratios > 1).all()):
        raise UsageError(
            f"Thresholds {list(thresholds)}",
            why="A boundary is a ratio of depths above 1.",
            fix="Leave them out, or give ratios such as 1.05 to 1.25.",
            error_id="metrics.threshold",
        )
    p, t = depth_pair(prediction, truth, valid)
    # Counts per threshold and direction: true pairs, predicted pairs, both.
    counts = np.zeros((3, ratios.size, 4))
    positive = bool((p > 0).all())
    if positive:
        for direction, (a, b) in enumerate(zip(_steps(t, valid), _steps(p, valid), strict=True)):
            for index, ratio in enumerate(ratios):
                in_truth, in_prediction = a > ratio, b > ratio
                counts[:, index, direction] = (
                    np.count_nonzero(in_truth),
                    np.count_nonzero(in_prediction),
                    np.count_nonzero(in_truth & in_prediction),
                )
    lowest = int(ratios.argmin())
    pairs = {"truth_pairs": int(counts[0, lowest].sum()), "predicted_pairs": int(counts[1, lowest].sum())}
    nan = float("nan")
    if reproduce is None:
        counts = counts.sum(axis=2, keepdims=True)
        counted = counts[0, :, 0] > 0
    else:
        counted = np.ones(ratios.size, bool)
    if not positive or not counted.any():
        warn_empty(
            "Boundary score: the truth has no boundary" if positive else "Boundary score: a depth is not positive"
        )
        return BoundaryScores(f1=nan, precision=nan, recall=nan, **pairs)
    true, predicted, both = counts
    recall = (both / np.maximum(true, 1)).mean(axis=1)
    precision = (both / np.maximum(predicted, 1)).mean(axis=1)
    total = recall + precision
    f1 = np.where(total > 0, 2 * recall * precision / np.where(total > 0, total, 1), 0.0)
    weights = np.where(counted, ratios, 0.0)
    weights /= weights.sum()
    return BoundaryScores(
        f1=float(f1 @ weights), precision=float(precision @ weights), recall=float(recall @ weights), **pairs
    )


def boundary_f1(
    prediction: NumberArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    reproduce: BoundaryVariant | None = None,
) -> float:
    """The F1 of :func:`boundary_scores`, with its arguments and errors.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[10.0, 10.0, 20.0]])
        >>> boundary_f1(np.array([[10.0, 20.0, 20.0]]), truth, truth > 0)
        0.0
    """
    return boundary_scores(prediction, truth, valid, thresholds=thresholds, reproduce=reproduce).f1


def depth_edges(depth: NumberArray, valid: BoolArray, *, ratio: float = EDGE_RATIO) -> BoolArray:
    """Pixels on either side of a depth step: a valid 4-neighbour is nearer or farther by more than ``ratio``.

    Returns:
        H x W bool.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``.

    Example:
        >>> import numpy as np
        >>> depth = np.array([[10.0, 10.0, 20.0, 20.0]])
        >>> depth_edges(depth, depth > 0).tolist()
        [[False, True, True, False]]
    """
    d, _ = depth_pair(depth, depth, valid)
    left, right, up, down = _steps(d, valid)
    edges = np.zeros(valid.shape, np.bool_)
    across, along = (left > ratio) | (right > ratio), (up > ratio) | (down > ratio)
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= along
    edges[:-1] |= along
    return edges


def edge_band(
    depth: NumberArray, valid: BoolArray, *, width_px: float = BAND_PX, ratio: float = EDGE_RATIO
) -> BoolArray:
    """Valid pixels within ``width_px`` of a depth step: that many pixels on either side of it. Errors as above.

    Example:
        >>> import numpy as np
        >>> depth = np.array([[10.0, 10.0, 10.0, 20.0, 20.0, 20.0]])
        >>> edge_band(depth, depth > 0, width_px=2).tolist()
        [[False, True, True, True, True, False]]
    """
    band: BoolArray = valid & (distance_to(depth_edges(depth, valid, ratio=ratio)) < width_px)
    return band


def distance_to(mask: BoolArray) -> Float64:
    """Euclidean distance of every pixel to the nearest True one, exact for images up to 4096 px; infinite if none.

    Example:
        >>> import numpy as np
        >>> distance_to(np.array([[True, False, False]])).tolist()
        [[0.0, 1.0, 2.0]]
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The squares are whole numbers; float32 holds the root only.
    return np.asarray(np.sqrt(np.rint(np.asarray(distance, np.float64) ** 2)), np.float64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EdgeBandError:
    """Error beside the true depth steps and away from them.

    Attributes:
        log_error, abs_rel: mean |log prediction - log truth| and mean |prediction - truth| / truth in the band.
        log_error_away, abs_rel_away: the same over the other valid pixels.
        pixels, pixels_away: how many there are.
    """

    log_error: float
    abs_rel: float
    log_error_away: float
    abs_rel_away: float
    pixels: int
    pixels_away: int


def edge_band_error(
    prediction: NumberArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    width_px: float = BAND_PX,
    ratio: float = EDGE_RATIO,
) -> EdgeBandError:
    """Error in a band around the steps of the truth. Align the prediction first.

    Args:
        prediction: H x W depth in the unit of the truth.
        truth: H x W depth, positive and finite where ``valid``.
        valid: H x W bool.
        width_px: pixels on either side of a step.
        ratio: depth ratio of 4-neighbours that makes a step.

    Returns:
        Means; NaN (with an ``EmptyMaskWarning``) where there is no step, and for the logarithms where a counted
        prediction is not positive.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[10.0, 10.0, 20.0, 20.0, 20.0]])
        >>> found = edge_band_error(np.array([[10.0, 20.0, 20.0, 20.0, 20.0]]), truth, truth > 0, width_px=1)
        >>> found.abs_rel, found.abs_rel_away, found.pixels
        (0.5, 0.0, 2)
    """
    p, t = depth_pair(prediction, truth, valid)
    band = edge_band(truth, valid, width_px=width_px, ratio=ratio)
    away = valid & ~band
    if not band.any():
        warn_empty("Edge-band error: the truth has no depth step under the mask")
    relative = np.abs(p - t) / t
    with np.errstate(invalid="ignore", divide="ignore"):
        logarithm = np.where(p > 0, np.abs(np.log(np.where(p > 0, p, 1.0)) - np.log(t)), np.nan)
    return EdgeBandError(
        log_error=mean(logarithm[band]),
        abs_rel=mean(relative[band]),
        log_error_away=mean(logarithm[away]),
        abs_rel_away=mean(relative[away]),
        pixels=int(np.count_nonzero(band)),
        pixels_away=int(np.count_nonzero(away)),
    )


def _steps(depth: Float64, valid: BoolArray) -> tuple[Float64, Float64, Float64, Float64]:
    # Ratio of inverse depths, nearer over farther, for the nearer pixel on the left, right, top and bottom; 0 where a
    # pixel of the pair does not count. Inverse depths, in this order of division, as the published code does.
    near = 1.0 / depth
    across, along = valid[:, 1:] & valid[:, :-1], valid[1:] & valid[:-1]
    return (
        np.where(across, near[:, :-1] / near[:, 1:], 0.0),
        np.where(across, near[:, 1:] / near[:, :-1], 0.0),
        np.where(along, near[:-1] / near[1:], 0.0),
        np.where(along, near[1:] / near[:-1], 0.0),
    )
