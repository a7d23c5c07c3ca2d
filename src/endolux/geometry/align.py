"""Alignment: the freedom a prediction is granted before it is compared with the truth."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.types import DepthKind, DepthMap, MaskArray

_Float64 = npt.NDArray[np.float64]
_LARGE, _SAMPLE = 100_000, 4_000


class Alignment(enum.StrEnum):
    """What is fitted to the truth, per frame, over the pixels that are valid in both."""

    NONE = "none"
    """Nothing: metric prediction against metric truth."""
    MEDIAN = "median"
    """One factor, median(truth) / median(prediction)."""
    SCALE_SHIFT_DEPTH = "scale-shift-depth"
    """Least squares of truth ~ scale * depth + shift."""
    SCALE_SHIFT_DISPARITY = "scale-shift-disparity"
    """Least squares of 1/truth ~ scale * disparity + shift."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedDepth:
    """A prediction in the space of its truth.

    Attributes:
        values: H x W float64, in the unit of the truth; NaN where not ``valid``.
        valid: H x W bool: valid in prediction and truth.
        scale, shift: what was fitted (NaN where no pixel is valid).
        alignment: how it was fitted.
        inverted: True where a depth was turned into 1/depth for the fit.
        floored: pixels whose aligned disparity fell below the smallest true one and was set to it, so that
            1/disparity exists (only scale-shift-disparity against a depth truth).
        dropped: truth-valid pixels left out because the prediction has no usable value there.
    """

    values: _Float64
    valid: MaskArray
    scale: float
    shift: float
    alignment: Alignment
    inverted: bool = False
    floored: int = 0
    dropped: int = 0


_ALLOWED: dict[DepthKind, tuple[Alignment, ...]] = {
    DepthKind.METRIC: tuple(Alignment),
    DepthKind.RELATIVE_DEPTH: (Alignment.MEDIAN, Alignment.SCALE_SHIFT_DEPTH, Alignment.SCALE_SHIFT_DISPARITY),
    DepthKind.RELATIVE_DISPARITY: (Alignment.SCALE_SHIFT_DISPARITY,),
}


def check_alignment(
    alignment: Alignment, *, prediction_kind: DepthKind, truth_kind: DepthKind = DepthKind.METRIC
) -> None:
    """Refuse an alignment that leaves more open than it fits, or that compares different quantities.

    Raises:
        UsageError: ``align.kind``, with the alignments that this pair allows.

    Example:
        >>> check_alignment(Alignment.MEDIAN, prediction_kind=DepthKind.RELATIVE_DEPTH)
    """
    allowed = [a for a in _ALLOWED[prediction_kind] if a in _ALLOWED[truth_kind]]
    if alignment not in allowed:
        names = ", ".join(a.value for a in allowed)
        raise UsageError(
            f"Alignment '{alignment.value}' does not fit a {prediction_kind.value} prediction "
            f"against {truth_kind.value} truth",
            why="It fits fewer unknowns than these kinds leave open (relative depth: a factor; relative disparity: "
            "a factor and a shift in 1/depth).",
            fix=f"Use one of: {names}.",
            error_id="align.kind",
        )


def align(
    prediction: DepthMap,
    truth_values: npt.NDArray[np.floating[Any]],
    truth_valid: MaskArray,
    *,
    alignment: Alignment,
    truth_kind: DepthKind = DepthKind.METRIC,
) -> AlignedDepth:
    """Fit a prediction to the truth of one frame and return it in the truth's space.

    A depth prediction under ``scale-shift-disparity`` is turned into 1/depth first; the result says so
    (``inverted``). Where the truth is a depth, the fitted disparity is turned back; values below the smallest true
    disparity have no depth in the range of the truth, are set to that smallest disparity and counted (``floored``).
    The scale of a least-squares fit is free to come out negative: then the prediction runs the wrong way, and the
    caller can see it. A prediction without variation gets scale 0 and the mean as shift.

    Args:
        prediction: H x W; pixels that are not finite (or not positive, for depths) are dropped and counted.
        truth_values: H x W; positive and finite where ``truth_valid``.
        truth_valid: H x W bool.
        alignment: what to fit.
        truth_kind: METRIC (mm), RELATIVE_DEPTH (depth up to a factor) or RELATIVE_DISPARITY.

    Raises:
        UsageError: ``align.kind`` for a pair that this alignment cannot compare, ``align.size`` for different
            sizes, ``align.truth`` for valid true values that are not positive and finite.

    Source: least squares in disparity as in Ranftl et al. 2020 (MiDaS), section 5; the median ratio as in Zhou et
    al. 2017, section 4.1.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[10.0, 20.0, 40.0]])
        >>> guess = DepthMap(values=np.float32([[1, 2, 4]]), kind=DepthKind.RELATIVE_DEPTH, valid=truth > 0)
        >>> aligned = align(guess, truth, truth > 0, alignment=Alignment.MEDIAN)
        >>> aligned.scale, aligned.values.tolist()
        (10.0, [[10.0, 20.0, 40.0]])
    """
    check_alignment(alignment, prediction_kind=prediction.kind, truth_kind=truth_kind)
    if not (prediction.values.shape == truth_values.shape == truth_valid.shape):
        raise UsageError(
            f"Prediction {prediction.values.shape}, truth {truth_values.shape}, mask {truth_valid.shape}",
            why="Alignment compares the same pixels.",
            fix="Resize the prediction to the size of the truth, never the truth.",
            error_id="align.size",
        )
    is_depth = prediction.kind is not DepthKind.RELATIVE_DISPARITY
    usable = prediction.valid & np.isfinite(prediction.values)
    if is_depth:
        usable &= prediction.values > 0
    valid = usable & truth_valid
    dropped = int(np.count_nonzero(truth_valid)) - int(np.count_nonzero(valid))
    p = prediction.values[valid].astype(np.float64)
    t = truth_values[valid].astype(np.float64)
    if not (np.isfinite(t).all() and (t > 0).all()):
        raise UsageError(
            f"{int((~(np.isfinite(t) & (t > 0))).sum())} valid true values are not positive and finite",
            why="Depth and disparity are positive; 0, NaN and infinity mean 'no value'.",
            fix="Leave those pixels out of truth_valid.",
            error_id="align.truth",
        )
    values = np.full(truth_values.shape, np.nan)
    if not t.size:
        return AlignedDepth(
            values=values, valid=valid, scale=np.nan, shift=np.nan, alignment=alignment, dropped=dropped
        )
    fitted = fit(p, t, alignment=alignment, prediction_kind=prediction.kind, truth_kind=truth_kind)
    values[valid] = fitted.values
    return AlignedDepth(
        values=values,
        valid=valid,
        scale=fitted.scale,
        shift=fitted.shift,
        alignment=alignment,
        inverted=fitted.inverted,
        floored=fitted.floored,
        dropped=dropped,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Fitted values of the pixels alone; the other attributes as in :class:`AlignedDepth`."""

    values: _Float64
    scale: float
    shift: float
    inverted: bool = False
    floored: int = 0


def fit(
    prediction: npt.NDArray[np.floating[Any]],
    truth: npt.NDArray[np.floating[Any]],
    *,
    alignment: Alignment,
    prediction_kind: DepthKind,
    truth_kind: DepthKind = DepthKind.METRIC,
) -> Fit:
    """The core of :func:`align`, on the compared pixels only and without its checks: for callers that made them.

    Args:
        prediction: N usable values.
        truth: N positive finite values, N at least 1.
        alignment: what to fit; one that ``check_alignment`` allows.
        prediction_kind: meaning of the prediction.
        truth_kind: meaning of the truth.

    Example:
        >>> import numpy as np
        >>> pixels = np.array([1.0, 2.0, 4.0])
        >>> fit(pixels, 3 * pixels, alignment=Alignment.MEDIAN, prediction_kind=DepthKind.RELATIVE_DEPTH).scale
        3.0
    """
    p, t = prediction.astype(np.float64, copy=False), truth.astype(np.float64, copy=False)
    if alignment is Alignment.MEDIAN:
        scale = median(truth) / median(prediction)
        return Fit(values=p * scale, scale=scale, shift=0.0)
    if alignment is Alignment.SCALE_SHIFT_DEPTH:
        scale, shift = _least_squares(p, t)
        return Fit(values=scale * p + shift, scale=scale, shift=shift)
    if alignment is Alignment.SCALE_SHIFT_DISPARITY:
        inverted = prediction_kind is not DepthKind.RELATIVE_DISPARITY
        truth_is_disparity = truth_kind is DepthKind.RELATIVE_DISPARITY
        target = t if truth_is_disparity else 1.0 / t
        source = 1.0 / p if inverted else p
        scale, shift = _least_squares(source, target)
        fitted, floored = scale * source + shift, 0
        if not truth_is_disparity:
            low = float(target.min())
            # A constant frame rounds below its own minimum; only a real shortfall is counted.
            floored = int(np.count_nonzero(fitted < low * (1.0 - 1e-9)))
            fitted = 1.0 / np.maximum(fitted, low)
        return Fit(values=fitted, scale=scale, shift=shift, inverted=inverted, floored=floored)
    return Fit(values=p, scale=1.0, shift=0.0)


def median(values: npt.NDArray[np.floating[Any]]) -> float:
    """Median of finite numbers, the mean of the two middle ones in float64 for an even count.

    Partitions in the array's own precision, which is faster for float32 and gives the same two numbers. Of large
    arrays only the values between two bounds are partitioned; the bounds come from a sample, and where the middle does
    not lie between them everything is, so that the sample never shows in the result.

    Example:
        >>> import numpy as np
        >>> median(np.float32([4, 1, 3, 2]))
        2.5
    """
    middle, even = values.size // 2, values.size % 2 == 0
    if values.size > _LARGE:
        sample = np.sort(values[:: values.size // _SAMPLE])
        low, high = sample[int(0.45 * sample.size)], sample[int(0.55 * sample.size)]
        below = int(np.count_nonzero(values < low))
        inside = values[np.flatnonzero((values >= low) & (values <= high))]
        if below + 1 <= middle < below + inside.size:
            values, middle = inside, middle - below
    parts = np.partition(values, middle, axis=None)
    upper = float(parts[middle])
    return 0.5 * (float(parts[:middle].max()) + upper) if even else upper


def _least_squares(x: _Float64, y: _Float64) -> tuple[float, float]:
    # Centred normal equations: well conditioned for two unknowns, and one pass over the pixels.
    x_mean, y_mean = float(x.mean()), float(y.mean())
    dx = x - x_mean
    variance = float(dx @ dx)
    if variance <= x.size * (abs(x_mean) * 1e-7) ** 2:  # no more than float32 rounding of a constant
        return 0.0, y_mean
    scale = float(dx @ (y - y_mean)) / variance
    return scale, y_mean - scale * x_mean
