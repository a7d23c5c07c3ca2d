"""What every metric checks, and the warning that a mask left nothing to measure."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError

NumberArray: TypeAlias = npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Float64: TypeAlias = npt.NDArray[np.float64]


class EmptyMaskWarning(UserWarning):
    """A mask left nothing to measure, so the value is NaN. The result holds the count."""


def warn_empty(what: str) -> None:
    """Warn the caller's caller that ``what`` is NaN."""
    warnings.warn(f"{what}: the value is NaN", EmptyMaskWarning, stacklevel=3)


def same_shape(first: npt.NDArray[Any], *others: npt.NDArray[Any], dimensions: int | None = None) -> None:
    """Refuse arrays that do not cover the same pixels.

    Raises:
        UsageError: ``metrics.shape``.
    """
    shapes = [first.shape, *(other.shape for other in others)]
    if len(set(shapes)) > 1 or (dimensions is not None and first.ndim != dimensions):
        raise UsageError(
            f"Arrays of {', '.join(map(str, shapes))} do not match",
            why="A metric compares the same pixels"
            + ("." if dimensions is None else f", in arrays with {dimensions} dimensions."),
            fix="Bring them to one size first; resize the prediction, never the truth.",
            error_id="metrics.shape",
        )


def boolean(mask: npt.NDArray[Any]) -> None:
    """Refuse a mask that is not boolean: 0/255 masks invert silently under ``~``.

    Raises:
        UsageError: ``metrics.mask``.
    """
    if mask.dtype != np.bool_:
        raise UsageError(
            f"A mask of {mask.dtype}",
            why="Masks are boolean, True where a pixel counts.",
            fix="Use mask > 0.",
            error_id="metrics.mask",
        )


def depth_pair(prediction: NumberArray, truth: NumberArray, valid: BoolArray) -> tuple[Float64, Float64]:
    """H x W float64 copies with 1 where not ``valid``.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, or ``metrics.values`` for true values that are not positive and
            finite or predictions that are not finite under the mask.
    """
    same_shape(prediction, truth, valid, dimensions=2)
    boolean(valid)
    p = np.where(valid, prediction, 1).astype(np.float64)
    t = np.where(valid, truth, 1).astype(np.float64)
    bad_p, bad_t = int((~np.isfinite(p)).sum()), int((~(np.isfinite(t) & (t > 0))).sum())
    if bad_p or bad_t:
        raise UsageError(
            f"{bad_p} predictions are not finite and {bad_t} true values are not positive and finite under the mask",
            why="One such pixel would turn the mean into a number without meaning.",
            fix="Leave them out of the mask and report how many there were.",
            error_id="metrics.values",
        )
    return p, t


def one_of(value: str, allowed: Sequence[str], *, what: str) -> None:
    """Refuse a name that is not among ``allowed``, naming the nearest.

    Raises:
        UsageError: ``metrics.name``.
    """
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, 1)
        raise UsageError(
            f"Unknown {what} '{value}'",
            why=f"There are: {', '.join(allowed)}.",
            fix=f"Did you mean '{near[0]}'?" if near else "Choose one of them, or leave it out.",
            error_id="metrics.name",
        )


def mean(values: Float64) -> float:
    """Mean, NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def nan_mean(values: Float64) -> float:
    """Mean of the numbers among the values, NaN of nothing."""
    return mean(values[~np.isnan(values)])
