"""Quirks of published evaluations that a protocol may keep: what each does, by the name that results cite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.types import DepthKind, DepthMap

DISPARITY_AS_DEPTH = "disparity-as-depth"
INVERSE_DISPARITY_AS_DEPTH = "inverse-disparity-as-depth"
RMSE_LOG_BASE_10 = "rmse-log-base-10"
MIRRORED_ENTRIES = "mirrored-entries"
DISPARITY_FLOOR_HALF = "disparity-floor-half"
STRICT_MAXIMUM = "strict-maximum"
FLOAT16_PREDICTIONS = "float16-predictions"
LEAST_MEDIAN = "least-median-scale"
ROUNDED_CODE = "rounded-code-1.525um"
ROUNDED_CODE_FACTOR = 1.525e-3 * 65535.0 / 100.0
"""Millimetres of a code that was rounded to 1.525e-6 m, over its true 100 mm / 65535."""

QUIRKS: Mapping[str, str] = {
    DISPARITY_AS_DEPTH: "disparity is scored as if it were depth, without inverting it: near and far are swapped",
    INVERSE_DISPARITY_AS_DEPTH: "disparity is inverted as 1/max(disparity, 1e-3 * its 99th percentile) and scored as "
    "relative depth: its unknown shift is taken to be zero",
    RMSE_LOG_BASE_10: "rmse_log is taken with decimal logarithms",
    MIRRORED_ENTRIES: "every frame enters twice, as it is and mirrored left to right",
    STRICT_MAXIMUM: "a reference equal to the far end of the range does not count",
    DISPARITY_FLOOR_HALF: "aligned disparity is cut at half the smallest true one instead of at the smallest",
    FLOAT16_PREDICTIONS: "metric predictions are cut to the protocol's range and rounded to half precision as a share "
    "of its far end, as the challenge takes them in",
    LEAST_MEDIAN: "the factor is the one with the least median absolute error, instead of the ratio of medians",
    ROUNDED_CODE: "absolute errors are in millimetres of 1.525e-6 m a code instead of 100 mm / 65535: 0.06 % too small",
}
"""Every quirk that the runner can reproduce."""

_FLOOR = 1e-3
_SAMPLE, _GRID, _ROUNDS = 20_000, 41, 6
_PERCENTILE = 99.0


def check_quirks(names: Iterable[str]) -> None:
    """Refuse a name that the runner does not know: a quirk that is cited must be a quirk that is done.

    Raises:
        UsageError: ``protocol.quirk``.

    Example:
        >>> check_quirks(["disparity-as-depth"])
    """
    unknown = sorted(set(names) - set(QUIRKS))
    if unknown:
        raise UsageError(
            f"No quirk '{unknown[0]}'",
            why=f"The runner reproduces: {', '.join(sorted(QUIRKS))}.",
            fix="Use one of these names.",
            error_id="protocol.quirk",
        )


def reinterpret(prediction: DepthMap, quirks: Iterable[str]) -> DepthMap:
    """The prediction as the quirks take it; unchanged where none of them concerns its kind.

    Example:
        >>> values = np.array([[1.0, 4.0]], np.float32)
        >>> disparity = DepthMap(values=values, kind=DepthKind.RELATIVE_DISPARITY, valid=values > 0)
        >>> reinterpret(disparity, ["inverse-disparity-as-depth"]).values.tolist()
        [[1.0, 0.25]]
    """
    quirks = set(quirks)
    if prediction.kind is not DepthKind.RELATIVE_DISPARITY:
        return prediction
    if DISPARITY_AS_DEPTH in quirks:
        return DepthMap(values=prediction.values, kind=DepthKind.RELATIVE_DEPTH, valid=prediction.valid)
    if INVERSE_DISPARITY_AS_DEPTH in quirks:
        valid = prediction.valid & np.isfinite(prediction.values)
        present = prediction.values[valid]
        floor = _FLOOR * float(np.percentile(present, _PERCENTILE)) if present.size else 0.0
        if floor <= 0:
            return DepthMap(values=prediction.values, kind=DepthKind.RELATIVE_DEPTH, valid=np.zeros_like(valid))
        safe = np.where(valid, np.maximum(prediction.values, np.float32(floor)), np.float32(1))
        return DepthMap(values=(1 / safe).astype(np.float32), kind=DepthKind.RELATIVE_DEPTH, valid=valid)
    return prediction


def effective_kind(kind: DepthKind, quirks: Iterable[str]) -> DepthKind:
    """The kind that :func:`reinterpret` gives.

    Example:
        >>> effective_kind(DepthKind.RELATIVE_DISPARITY, ["disparity-as-depth"])
        <DepthKind.RELATIVE_DEPTH: 'relative_depth'>
    """
    swapped = {DISPARITY_AS_DEPTH, INVERSE_DISPARITY_AS_DEPTH} & set(quirks)
    return DepthKind.RELATIVE_DEPTH if kind is DepthKind.RELATIVE_DISPARITY and swapped else kind


def as_float16(prediction: DepthMap, full_scale: float) -> DepthMap:
    """Depth as half-precision shares of ``full_scale``, cut to 0..1, in its own unit again.

    Example:
        >>> values = np.array([[50.01, 300.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> as_float16(depth, 200.0).values.tolist()
        [[50.0, 200.0]]
    """
    share = np.clip(prediction.values / np.float32(full_scale), 0, 1).astype(np.float16)
    return DepthMap(
        values=share.astype(np.float32) * np.float32(full_scale), kind=prediction.kind, valid=prediction.valid
    )


def least_median_scale(prediction: npt.NDArray[np.floating[Any]], truth: npt.NDArray[np.floating[Any]]) -> float:
    """The factor s with the least median of |s * prediction - truth|, to about 1e-6 of itself.

    The median of absolute errors has many small dips, so the search looks at a grid of factors between the 1st and the
    99th percentile of truth / prediction first, and then closes in on the best of them. Of more than 20,000 pixels an
    even sample is used.

    Args:
        prediction: N positive values.
        truth: N positive values.

    Example:
        >>> least_median_scale(np.array([1.0, 2.0, 3.0, 1.0]), np.array([2.0, 4.0, 6.0, 90.0]))
        2.0
    """
    step = max(1, truth.size // _SAMPLE)
    p, t = prediction[::step].astype(np.float64), truth[::step].astype(np.float64)
    ratios = t[p > 0] / p[p > 0]
    if not ratios.size:
        return float("nan")
    best = float(np.median(ratios))

    def cost(factor: float) -> float:
        return float(np.median(np.abs(factor * p - t)))

    low, high = (float(value) for value in np.percentile(ratios, (1.0, 99.0)))
    width = (high - low) / (_GRID - 1)
    for _ in range(_ROUNDS):
        grid = [best, *np.linspace(max(low, best - _GRID * width), min(high, best + _GRID * width), _GRID)]
        best = float(min(grid, key=cost))
        width /= _GRID / 4
    return best
