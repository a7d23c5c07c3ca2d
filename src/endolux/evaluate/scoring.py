"""One frame under a protocol: window, range, resize, alignment, clamp and the metrics of what is left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from endolux.datasets.base import Protocol
from endolux.errors import InputError, UsageError
from endolux.evaluate.pixel_metrics import pixel_metrics
from endolux.evaluate.quirks import (
    DISPARITY_FLOOR_HALF,
    FLOAT16_PREDICTIONS,
    LEAST_MEDIAN,
    RMSE_LOG_BASE_10,
    ROUNDED_CODE,
    ROUNDED_CODE_FACTOR,
    as_float16,
    effective_kind,
    least_median_scale,
    reinterpret,
)
from endolux.evaluate.resizing import RESIZES, resize_prediction
from endolux.evaluate.windows import MM_PER_UNIT, reference_mask, unknown_setting
from endolux.geometry.align import Alignment, Fit, check_alignment, fit, median
from endolux.metrics.depth import EXTRA_METRICS, extra_metrics
from endolux.types import DepthKind, DepthMap, MaskArray

_Float64 = npt.NDArray[np.float64]
_Floats = npt.NDArray[np.floating[Any]]

WORST, LEFT_OUT = "worst", "left-out"
SCOPES = ("frame", "sequence")

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
        unusable: whether the frame counts as a prediction of zero everywhere, see ``Protocol.unusable``.
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
    unusable: bool = False

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
            fix="Give 'endolux evaluate' a folder of predicted masks, or a protocol of depth ('endolux data ls').",
            error_id="protocol.task",
        )
    if protocol.unit not in MM_PER_UNIT and (truth_kind is DepthKind.METRIC or protocol.unit not in ("none", "")):
        raise unknown_setting(f"unit '{protocol.unit}'", tuple(MM_PER_UNIT))
    if protocol.resize_prediction not in RESIZES:
        raise unknown_setting(f"resize_prediction '{protocol.resize_prediction}'", RESIZES)
    if protocol.unusable not in (WORST, LEFT_OUT):
        raise unknown_setting(f"unusable '{protocol.unusable}'", (WORST, LEFT_OUT))
    if protocol.scope not in SCOPES or (protocol.scope == "sequence" and protocol.alignment is not Alignment.MEDIAN):
        raise unknown_setting(f"scope '{protocol.scope}' of the alignment {protocol.alignment.value}", SCOPES)
    if set(protocol.extra_metrics) - set(EXTRA_METRICS):
        raise unknown_setting(f"metric '{protocol.extra_metrics[0]}'", tuple(EXTRA_METRICS))
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


def score(prediction: DepthMap, truth: DepthMap, protocol: Protocol, *, scale: float | None = None) -> Measured:
    """Measure one prediction against one reference.

    Args:
        prediction: any size; resized to the reference as the protocol says. METRIC in mm.
        truth: reference; METRIC in mm.
        protocol: the convention; see :func:`check_protocol`, which this does not repeat.
        scale: the factor of the frame's sequence, for protocols that fit one a sequence.

    Raises:
        InputError: ``evaluate.size`` for another size where the protocol refuses one, ``evaluate.median`` for an
            unusable prediction where the protocol leaves such frames out, ``evaluate.truth`` for a reference that is
            not positive.

    Example:
        >>> from endolux.datasets.base import Protocol
        >>> protocol = Protocol(name="p", version=1, dataset="d", summary="", source="", select=lambda keys, _: keys)
        >>> values = np.array([[10.0, 20.0, 30.0]], np.float32)
        >>> truth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> guess = DepthMap(values=values / 10, kind=DepthKind.RELATIVE_DEPTH, valid=values > 0)
        >>> measured = score(guess, truth, protocol)
        >>> round(measured.scale, 6), round(measured.metrics["abs_rel"], 9)
        (10.0, 0.0)
        >>> nothing = DepthMap(values=0 * values, kind=DepthKind.RELATIVE_DEPTH, valid=values > 0)
        >>> failed = score(nothing, truth, protocol)
        >>> failed.unusable, failed.metrics["abs_rel"], failed.metrics["delta1"]
        (True, 1.0, 0.0)
    """
    measured, _, _ = score_maps(prediction, truth, protocol, scale=scale)
    return measured


def score_maps(
    prediction: DepthMap, truth: DepthMap, protocol: Protocol, *, scale: float | None = None
) -> tuple[Measured, _Float64, MaskArray]:
    """:func:`score`, and the aligned values of the compared pixels (row by row) with the H x W mask of these pixels."""
    resized = prediction.size != truth.size
    prediction = at_reference(prediction, truth, protocol)
    counted, out_of_range = reference_mask(truth, protocol)
    truth_pixels = int(np.count_nonzero(counted))
    usable = prediction.valid & np.isfinite(prediction.values)
    inverts = protocol.alignment is Alignment.SCALE_SHIFT_DISPARITY
    is_depth = prediction.kind is not DepthKind.RELATIVE_DISPARITY
    failed = truth_pixels > 0 and (
        (scale is not None and not (math.isfinite(scale) and scale > 0)) or median_is_unusable(prediction, counted)
    )
    if failed and protocol.unusable == LEFT_OUT:
        raise _no_median()
    if is_depth and (inverts or not (protocol.clamp_prediction or protocol.floor > 0)):
        # With a clamp or a floor, values of zero and below have a place: the near end.
        usable &= prediction.values > 0
    mask = counted if failed else usable & counted
    pixels = np.flatnonzero(mask)
    t = _in_unit(truth, pixels, protocol.unit)
    fitted, clamped, values = _NO_FIT, 0, np.zeros(t.size if failed else 0)
    if t.size and not failed:
        p = _in_unit(prediction, pixels, protocol.unit)
        fitted = _fit(p, t, protocol, prediction.kind, truth.kind, scale)
        values = fitted.values
        if DISPARITY_FLOOR_HALF in protocol.reproduce and inverts and fitted.floored:
            # The fit kept no value past the smallest true disparity; undo the cut and repeat it at half of that.
            source = 1.0 / p.astype(np.float64) if fitted.inverted else p.astype(np.float64)
            values = 1.0 / np.maximum(fitted.scale * source + fitted.shift, 0.5 / float(t.max()))
        low, high = protocol.floor, math.inf
        if protocol.clamp_prediction:
            low, high = max(low, protocol.minimum), protocol.maximum
        if low > 0 or protocol.clamp_prediction:
            clamped = int(np.count_nonzero((values < low) | (values > high)))
            if clamped:
                values = np.clip(values, low, high)
    metrics, log_bias, nonpositive = pixel_metrics(values, t)
    metrics |= extra_metrics(values, t, protocol.extra_metrics)
    if RMSE_LOG_BASE_10 in protocol.reproduce:
        metrics["rmse_log"] /= math.log(10.0)
    if ROUNDED_CODE in protocol.reproduce:
        metrics |= {name: metrics[name] * ROUNDED_CODE_FACTOR for name in ("rmse", "sq_rel", "mae") if name in metrics}
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
        unusable=failed,
    )
    return measured, values, mask


def at_reference(prediction: DepthMap, truth: DepthMap, protocol: Protocol) -> DepthMap:
    """The prediction at the size of the reference and in the protocol's reading of it, before any alignment."""
    if prediction.size != truth.size:
        prediction = resize_prediction(prediction, truth.size, how=protocol.resize_prediction)
    prediction = reinterpret(prediction, protocol.reproduce)
    if FLOAT16_PREDICTIONS in protocol.reproduce and prediction.kind is DepthKind.METRIC:
        prediction = as_float16(prediction, protocol.maximum * MM_PER_UNIT.get(protocol.unit, 1.0))
    return prediction


def _fit(
    p: _Floats, t: _Floats, protocol: Protocol, kind: DepthKind, truth_kind: DepthKind, scale: float | None
) -> Fit:
    if scale is not None:
        return Fit(values=p.astype(np.float64) * scale, scale=scale, shift=0.0)
    if LEAST_MEDIAN in protocol.reproduce and protocol.alignment is Alignment.MEDIAN:
        factor = least_median_scale(p, t)
        return Fit(values=p.astype(np.float64) * factor, scale=factor, shift=0.0)
    return fit(p, t, alignment=protocol.alignment, prediction_kind=kind, truth_kind=truth_kind)


def median_is_unusable(prediction: DepthMap, counted: MaskArray) -> bool:
    """Whether the median prediction over the counted pixels is not finite and positive (disparity: not finite).

    Pixels that the prediction itself leaves out, by its mask or as NaN, do not enter.

    Example:
        >>> values = np.array([[-1.0, -2.0, 3.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.RELATIVE_DEPTH, valid=np.isfinite(values))
        >>> median_is_unusable(depth, values == values), median_is_unusable(depth, values > 0)
        (True, False)
    """
    values = prediction.values[counted & prediction.valid]
    values = values[~np.isnan(values)]
    if not values.size:
        return True
    if prediction.kind is DepthKind.RELATIVE_DISPARITY:  # its zero and its sign mean nothing
        return not np.isfinite(values).any()
    low, high = values.min(), values.max()
    if low > 0 and np.isfinite(high):
        return False
    middle = median(values)
    return not (math.isfinite(middle) and middle > 0)


def _in_unit(depth: DepthMap, pixels: npt.NDArray[np.intp], unit: str) -> _Floats:
    # Every pixel counts in dense maps; taking by index is several times faster than by mask.
    flat = depth.values.reshape(-1)
    values = flat if pixels.size == flat.size else flat.take(pixels)
    if depth.kind is DepthKind.METRIC and unit != "mm":
        # A truth without a unit is aligned, so the prediction's own unit does not matter.
        return values.astype(np.float64) / MM_PER_UNIT.get(unit, 1.0)
    return values


def _no_median() -> InputError:
    return InputError(
        "The median of the prediction is not positive",
        why="Median scaling divides by it.",
        fix="Check what the prediction means (--prediction-kind).",
        error_id="evaluate.median",
    )
