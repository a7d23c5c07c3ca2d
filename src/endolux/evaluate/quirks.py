"""Quirks of published evaluations that a protocol may keep: what each does, by the name that results cite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from endolux.errors import UsageError
from endolux.types import DepthKind, DepthMap

DISPARITY_AS_DEPTH = "disparity-as-depth"
INVERSE_DISPARITY_AS_DEPTH = "inverse-disparity-as-depth"
RMSE_LOG_BASE_10 = "rmse-log-base-10"
MIRRORED_ENTRIES = "mirrored-entries"
DISPARITY_FLOOR_HALF = "disparity-floor-half"
STRICT_MAXIMUM = "strict-maximum"

QUIRKS: Mapping[str, str] = {
    DISPARITY_AS_DEPTH: "disparity is scored as if it were depth, without inverting it: near and far are swapped",
    INVERSE_DISPARITY_AS_DEPTH: "disparity is inverted as 1/max(disparity, 1e-3 * its 99th percentile) and scored as "
    "relative depth: its unknown shift is taken to be zero",
    RMSE_LOG_BASE_10: "rmse_log is taken with decimal logarithms",
    MIRRORED_ENTRIES: "every frame enters twice, as it is and mirrored left to right",
    STRICT_MAXIMUM: "a reference equal to the far end of the range does not count",
    DISPARITY_FLOOR_HALF: "aligned disparity is cut at half the smallest true one instead of at the smallest",
}
"""Every quirk that the runner can reproduce."""

_FLOOR = 1e-3
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
