"""One frame under a protocol: window, range, resize, alignment, clamp and the metrics of what is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets.base import Protocol
from endolux.errors import InputError, UsageError
from endolux.evaluate.quirks import (
    DISPARITY_FLOOR_HALF,
    RMSE_LOG_BASE_10,
    STRICT_MAXIMUM,
    effective_kind,
    reinterpret,
)
from endolux.geometry.align import Alignment, Fit, check_alignment, fit
from endolux.metrics.depth import DELTA_BASE
from endolux.types import DepthKind, DepthMap, FloatArray, MaskArray

_Float64 = npt.NDArray[np.float64]
_Floats = npt.NDArray[np.floating[Any]]

MM_PER_UNIT: Mapping[str, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Units that a protocol may state for metric depth."""
RESIZES = ("bilinear", "bilinear-disparity", "nearest", "refuse")
"""Ways to bring a prediction of another size to the reference: values as they are, 1/values, nearest, not at all."""

_CHUNK = 1 << 15
_NO_FIT = Fit(values=np.empty(0), scale=math.nan, shift=math.nan)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one frame gave.

    Attributes:
        metrics: as ``endolux.metrics.METRICS`` names them; all NaN where no pixel was compared.
        log_bias: mean of log(prediction) - log(truth), which pooling over pixels needs; NaN as ``rmse_log``.
        truth_pixels: pixels with a reference in the protocol's window and range.
        out_of_range: reference pixels in the window that the protocol's range leaves out.
        compared: pixels that entered the metrics.
        dropped: reference pixels without a usable prediction.
        clamped: aligned pixels moved into the protocol's range.
        floored: pixels whose aligned disparity was raised to the smallest true one.
        nonpositive: compared pixels of zero or below.
        scale, shift: what the alignment fitted.
        resized: whether the prediction had another size than the reference.
    """

    metrics: Mapping[str, float]
    log_bias: float
    truth_pixels: int
    out_of_range: int
    compared: int
    dropped: int
    clamped: int
    floored: int
    nonpositive: int
    scale: float
    shift: float
    resized: bool

    @property
    def empty(self) -> bool:
        """Whether nothing could be compared."""
        return self.compared == 0


def check_protocol(protocol: Protocol, *, prediction_kind: DepthKind, truth_kind: DepthKind | None = None) -> None:
    """Refuse what would give a number without meaning.

    Args:
        protocol: the convention.
        prediction_kind: meaning of the prediction.
        truth_kind: meaning of the reference; None before one was read: what no reference would allow is refused.

    Raises:
        UsageError: ``protocol.task`` for a protocol of another task; ``align.kind`` where the alignment does
            not fit the kinds, with every honest way out; ``protocol.settings`` for an unknown unit or way to resize.

    Example:
        >>> from endolux.datasets.base import Protocol
        >>> protocol = Protocol(name="p", version=1, dataset="d", summary="", source="", select=lambda keys, _: keys)
        >>> check_protocol(protocol, prediction_kind=DepthKind.RELATIVE_DEPTH)
    """
    if protocol.task != "depth":
        raise UsageError(
            f"The protocol '{protocol.identity}' scores {protocol.task}, not depth",
            why="Its figures come from segmentation masks, which a depth predictor does not give.",
            fix="Use endolux.metrics.segmentation on the masks, or a protocol of depth ('endolux data ls').",
            error_id="protocol.task",
        )
    if protocol.unit not in MM_PER_UNIT and (truth_kind is DepthKind.METRIC or protocol.unit not in ("none", "")):
        raise _settings(f"unit '{protocol.unit}'", tuple(MM_PER_UNIT))
    if protocol.resize_prediction not in RESIZES:
        raise _settings(f"resize_prediction '{protocol.resize_prediction}'", RESIZES)
    kind = effective_kind(prediction_kind, protocol.reproduce)
    truth_kind = truth_kind or DepthKind.METRIC  # allows every alignment that any reference allows
    try:
        check_alignment(protocol.alignment, prediction_kind=kind, truth_kind=truth_kind)
    except UsageError as error:
        ways = "--alignment scale-shift-disparity" if truth_kind is not DepthKind.RELATIVE_DISPARITY else ""
        if kind is DepthKind.RELATIVE_DISPARITY and truth_kind is not DepthKind.RELATIVE_DISPARITY:
            ways += (
                "; or, only to repeat a published mistake under its own name, --reproduce disparity-as-depth or "
                "--reproduce inverse-disparity-as-depth"
            )
        elif kind is DepthKind.RELATIVE_DEPTH:
            ways = "--alignment median"
        raise UsageError(
            f"The protocol '{protocol.identity}' aligns by '{protocol.alignment.value}', which does not fit a "
            f"{kind.value} prediction against {truth_kind.value} truth",
            why="An affine disparity under median scaling, or a relative depth without scaling, gives a number that "
            "compares with nothing.",
            fix=f"State the deviation, which changes the protocol's name in the result: {ways}." if ways else error.fix,
            error_id="align.kind",
        ) from error


def score(prediction: DepthMap, truth: DepthMap, protocol: Protocol) -> Measured:
    """Measure one prediction against one reference.

    Args:
        prediction: any size; resized to the reference as the protocol says. METRIC in mm.
        truth: reference; METRIC in mm.
        protocol: the convention; see :func:`check_protocol`, which this does not repeat.

    Raises:
        InputError: ``evaluate.size`` for another size where the protocol refuses one, ``evaluate.median`` where the
            median of the prediction is not positive, ``evaluate.truth`` for a reference that is not positive.

    Example:
        >>> from endolux.datasets.base import Protocol
        >>> protocol = Protocol(name="p", version=1, dataset="d", summary="", source="", select=lambda keys, _: keys)
        >>> values = np.array([[10.0, 20.0, 30.0]], np.float32)
        >>> truth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> guess = DepthMap(values=values / 10, kind=DepthKind.RELATIVE_DEPTH, valid=values > 0)
        >>> measured = score(guess, truth, protocol)
        >>> round(measured.scale, 6), round(measured.metrics["abs_rel"], 9)
        (10.0, 0.0)
    """
    measured, _, _ = score_maps(prediction, truth, protocol)
    return measured


def score_maps(prediction: DepthMap, truth: DepthMap, protocol: Protocol) -> tuple[Measured, _Float64, MaskArray]:
    """:func:`score`, and the aligned values of the compared pixels (row by row) with the H x W mask of these pixels."""
    resized = prediction.size != truth.size
    if resized:
        prediction = resize_prediction(prediction, truth.size, how=protocol.resize_prediction)
    prediction = reinterpret(prediction, protocol.reproduce)
    counted, out_of_range = reference_mask(truth, protocol)
    truth_pixels = int(np.count_nonzero(counted))
    usable = prediction.valid & np.isfinite(prediction.values)
    inverts = protocol.alignment is Alignment.SCALE_SHIFT_DISPARITY
    if prediction.kind is not DepthKind.RELATIVE_DISPARITY and (inverts or not protocol.clamp_prediction):
        # With a clamp, values of zero and below have a place: the near end of the range.
        usable &= prediction.values > 0
    mask = usable & counted
    pixels = np.flatnonzero(mask)
    p, t = _in_unit(prediction, pixels, protocol.unit), _in_unit(truth, pixels, protocol.unit)
    fitted, clamped, values = _NO_FIT, 0, np.empty(0)
    if t.size:
        try:
            fitted = fit(p, t, alignment=protocol.alignment, prediction_kind=prediction.kind, truth_kind=truth.kind)
        except ZeroDivisionError as error:
            raise _no_median() from error
        if protocol.alignment is Alignment.MEDIAN and fitted.scale <= 0:
            raise _no_median()
        values = fitted.values
        if DISPARITY_FLOOR_HALF in protocol.reproduce and inverts and fitted.floored:
            # The fit kept no value past the smallest true disparity; undo the cut and repeat it at half of that.
            source = 1.0 / p.astype(np.float64) if fitted.inverted else p.astype(np.float64)
            values = 1.0 / np.maximum(fitted.scale * source + fitted.shift, 0.5 / float(t.max()))
        if protocol.clamp_prediction:
            low = protocol.minimum
            outside = (values < low) | (values > protocol.maximum)
            clamped = int(np.count_nonzero(outside))
            if clamped:
                values = np.clip(values, low, protocol.maximum)
    metrics, log_bias, nonpositive = pixel_metrics(values, t)
    if RMSE_LOG_BASE_10 in protocol.reproduce:
        metrics["rmse_log"] /= math.log(10.0)
    measured = Measured(
        metrics=metrics,
        log_bias=log_bias,
        truth_pixels=truth_pixels,
        out_of_range=out_of_range,
        compared=int(t.size),
        dropped=truth_pixels - int(t.size),
        clamped=clamped,
        floored=fitted.floored,
        nonpositive=nonpositive,
        scale=fitted.scale,
        shift=fitted.shift,
        resized=resized,
    )
    return measured, values, mask


def reference_mask(truth: DepthMap, protocol: Protocol) -> tuple[MaskArray, int]:
    """H x W mask of the reference pixels that the protocol counts, and how many its range leaves out.

    Raises:
        InputError: ``evaluate.truth`` where a counted reference is not positive and finite.
    """
    per_unit = MM_PER_UNIT.get(protocol.unit, 1.0) if truth.kind is DepthKind.METRIC else 1.0
    low, high = protocol.minimum * per_unit, protocol.maximum * per_unit
    window = truth.valid
    if protocol.crop is not None or protocol.crop_pixels is not None:
        rows, columns = window_of(protocol, truth.values.shape)
        window = np.zeros_like(truth.valid)
        window[rows, columns] = truth.valid[rows, columns]
    below = truth.values < high if STRICT_MAXIMUM in protocol.reproduce else truth.values <= high
    counted = (truth.values > low) & below & window
    if low < 0 or not math.isfinite(high):
        bad = counted & ~((truth.values > 0) & np.isfinite(truth.values))
        if bad.any():
            raise InputError(
                f"{int(bad.sum())} reference values called valid are not positive and finite",
                why="Depth is positive; 0, NaN and infinity mean 'no value'.",
                fix="Run 'endolux data check' on the data; its reader should have left them out.",
                error_id="evaluate.truth",
            )
    return counted, int(np.count_nonzero(window)) - int(np.count_nonzero(counted))


def window_of(protocol: Protocol, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns that the protocol scores of an H x W reference.

    Raises:
        UsageError: ``protocol.settings`` where it states its window twice.
    """
    if protocol.crop is not None and protocol.crop_pixels is not None:
        raise _settings("second window beside its first", ("crop", "crop_pixels"))
    if protocol.crop is not None:
        return crop_slices(protocol.crop, shape)
    top, bottom, left, right = protocol.crop_pixels or (0, shape[0], 0, shape[1])
    return slice(top, min(bottom, shape[0])), slice(left, min(right, shape[1]))


def crop_slices(crop: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a window given as fractions (top, bottom, left, right), cut off to whole pixels.

    Example:
        >>> crop_slices((20 / 480, 460 / 480, 24 / 640, 616 / 640), (480, 640))
        (slice(20, 460, None), slice(24, 616, None))
    """
    height, width = shape
    top, bottom, left, right = crop
    # Fractions such as 20/480 come back a hair below their pixel.
    edges = [int(part * size + 1e-6) for part, size in ((top, height), (bottom, height), (left, width), (right, width))]
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def resize_prediction(prediction: DepthMap, size: tuple[int, int], *, how: str = "bilinear") -> DepthMap:
    """Bring a prediction to (width, height); pixels whose neighbourhood is mostly invalid stay invalid.

    Args:
        prediction: any kind.
        size: (width, height) of the reference.
        how: one of ``RESIZES``.

    Raises:
        InputError: ``evaluate.size`` for ``refuse``.

    Example:
        >>> depth = DepthMap(values=np.ones((2, 2), np.float32), kind=DepthKind.METRIC, valid=np.ones((2, 2), bool))
        >>> resize_prediction(depth, (4, 6)).size
        (4, 6)
    """
    if how == "refuse":
        width, height = prediction.size
        raise InputError(
            f"The prediction has {width}x{height} pixels, the reference {size[0]}x{size[1]}",
            why="This protocol compares pixel by pixel and resizes nothing.",
            fix="Predict at the size of the reference.",
            error_id="evaluate.size",
        )
    valid = prediction.valid & np.isfinite(prediction.values)
    invert = how == "bilinear-disparity" and prediction.kind is not DepthKind.RELATIVE_DISPARITY
    if invert:
        valid &= prediction.values > 0
    values = np.where(valid, prediction.values, np.float32(1))
    if invert:
        values = (1 / values).astype(np.float32)
    if how == "nearest":
        values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        mask = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    elif valid.all():
        values, mask = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.ones(size[::-1], np.bool_)
    else:
        weight = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        mask = weight >= 0.5
        total = cv2.resize(np.where(valid, values, np.float32(0)), size, interpolation=cv2.INTER_LINEAR)
        values = np.where(mask, total / np.where(mask, weight, np.float32(1)), np.float32(1))
    if invert:
        values = 1 / values
    result: FloatArray = values.astype(np.float32, copy=False)
    return DepthMap(values=result, kind=prediction.kind, valid=mask)


def pixel_metrics(prediction: _Floats, truth: _Floats) -> tuple[dict[str, float], float, int]:
    """All metrics of ``endolux.metrics.depth_metrics`` in one pass, the mean log ratio, and the pixels of 0 or below.

    The same formulas as there, computed in pieces that stay in the cache; the sums differ in the last digits only.

    Args:
        prediction: N finite values.
        truth: N positive finite values.

    Example:
        >>> metrics, bias, _ = pixel_metrics(np.array([2.0, 2.0]), np.array([1.0, 2.0]))
        >>> metrics["abs_rel"], metrics["delta1"], round(bias, 4)
        (0.5, 0.5, 0.3466)
    """
    count = truth.size
    sums = dict.fromkeys(("abs_rel", "sq_rel", "square", "abs_log", "log_square"), 0.0)
    hits = [0, 0, 0]
    log_mean, log_moment, nonpositive = 0.0, 0.0, 0
    for start in range(0, count, _CHUNK):
        p = prediction[start : start + _CHUNK].astype(np.float64, copy=False)
        t = truth[start : start + _CHUNK].astype(np.float64, copy=False)
        difference = p - t
        square = difference * difference
        sums["square"] += float(square.sum())
        sums["sq_rel"] += float((square / t).sum())
        sums["abs_rel"] += float((np.abs(difference) / t).sum())
        for power in range(3):
            limit = DELTA_BASE ** (power + 1)
            # Products, not quotients: a prediction of zero or below is a miss, without a division by it.
            hits[power] += int(np.count_nonzero((p < limit * t) & (t < limit * p)))
        below = int(np.count_nonzero(p <= 0))
        nonpositive += below
        if nonpositive:
            continue
        log = np.log(p / t)
        sums["abs_log"] += float(np.abs(log).sum())
        sums["log_square"] += float(log @ log)
        # Chan, Golub and LeVeque (1983): the variance of the parts and of their means, without cancellation.
        mean = float(log.mean())
        log -= mean
        step, size = mean - log_mean, start + log.size
        log_moment += float(log @ log) + step * step * start * log.size / size
        log_mean += step * log.size / size
    if not count:
        nan = math.nan
        names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
        return dict.fromkeys(names, nan), nan, 0
    logs = nonpositive == 0
    return (
        {
            "abs_rel": sums["abs_rel"] / count,
            "sq_rel": sums["sq_rel"] / count,
            "rmse": math.sqrt(sums["square"] / count),
            "rmse_log": math.sqrt(sums["log_square"] / count) if logs else math.nan,
            "log10": sums["abs_log"] / count / math.log(10.0) if logs else math.nan,
            "silog": 100.0 * math.sqrt(log_moment / count) if logs else math.nan,
            "delta1": hits[0] / count,
            "delta2": hits[1] / count,
            "delta3": hits[2] / count,
        },
        log_mean if logs else math.nan,
        nonpositive,
    )


def _in_unit(depth: DepthMap, pixels: npt.NDArray[np.intp], unit: str) -> _Floats:
    # Every pixel counts in dense maps; taking by index is several times faster than by mask.
    flat = depth.values.reshape(-1)
    values = flat if pixels.size == flat.size else flat.take(pixels)
    if depth.kind is DepthKind.METRIC and unit != "mm":
        return values.astype(np.float64) / MM_PER_UNIT[unit]
    return values


def _no_median() -> InputError:
    return InputError(
        "The median of the prediction is not positive",
        why="Median scaling divides by it.",
        fix="Check what the prediction means (--prediction-kind).",
        error_id="evaluate.median",
    )


def _settings(what: str, known: tuple[str, ...]) -> UsageError:
    return UsageError(
        f"The protocol states an unknown {what}",
        why=f"There are: {', '.join(known)}.",
        fix="Correct the definition of the protocol.",
        error_id="protocol.settings",
    )
