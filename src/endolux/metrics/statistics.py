"""Intervals of a mean, and the comparison of two models on the same frames."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.metrics.checks import Float64, warn_empty
from endolux.metrics.student import student_quantile, student_tail

LEVEL = 0.95
RESAMPLES = 10_000
_EXACT_GROUPS = 14
_CHUNK = 4_000_000
Values = Sequence[float] | npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean and its interval.

    Attributes:
        mean: over the frames that have a value; NaN if none has.
        low, high: bounds; NaN for fewer than two groups.
        frames: frames that have a value.
        groups: independent groups of frames that the interval rests on.
        missing: frames whose value is NaN.
    """

    mean: float
    low: float
    high: float
    frames: int
    groups: int
    missing: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Difference of two models over the frames that both have a value for.

    Attributes:
        difference: mean of second minus first.
        low, high: percentile bootstrap interval of it.
        student_low, student_high: Student interval of it.
        p_sign_flip: two-sided, from flipping the sign of whole groups (exact up to 14 groups).
        p_student: two-sided, from the t statistic.
        second_better: share of frames on which the second value is lower, ties counting half.
        frames, groups: what the numbers rest on.
        missing: frames for which at least one value is NaN.
    """

    difference: float
    low: float
    high: float
    student_low: float
    student_high: float
    p_sign_flip: float
    p_student: float
    second_better: float
    frames: int
    groups: int
    missing: int


def student_interval(values: Values, *, groups: Sequence[Hashable] | None = None, level: float = LEVEL) -> MeanInterval:
    """Mean and Student t interval.

    Neighbouring frames of a video are not independent, and an interval over frames is then many times too narrow. With
    ``groups`` (the sequence or patient of each frame) the mean stays the mean over frames, and its variance comes from
    the sums of whole groups (Cochran 1977, section 2.11), with one degree of freedom fewer than groups.

    Args:
        values: one number a frame; NaN counts as missing.
        groups: one name a frame; by default every frame is on its own.
        level: coverage between 0 and 1.

    Raises:
        UsageError: ``metrics.statistics``.

    Example:
        >>> interval = student_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.high, 4)
        (2.0, 4.4841)
    """
    _check_level(level)
    sums, counts, missing = _grouped(np.asarray(values, np.float64), groups)
    mean, error = _mean_and_error(sums, counts)
    if not counts.size:
        warn_empty(f"Student interval: none of {missing} frames has a value")
    reach = student_quantile((1 + level) / 2, counts.size - 1) * error if counts.size > 1 else float("nan")
    return MeanInterval(
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        frames=int(counts.sum()),
        groups=counts.size,
        missing=missing,
    )


def bootstrap_interval(
    values: Values,
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> MeanInterval:
    """Mean and percentile bootstrap interval; with ``groups``, whole groups are drawn. Arguments as above.

    Args:
        values: one number a frame; NaN counts as missing.
        rng: where the draws come from; the same state gives the same interval.
        groups: one name a frame; by default every frame is on its own.
        resamples: number of draws.
        level: coverage between 0 and 1.

    Raises:
        UsageError: ``metrics.statistics``.

    Example:
        >>> interval = bootstrap_interval([1.0, 1.0, 3.0, 3.0], rng=np.random.default_rng(0), groups="aabb")
        >>> interval.mean, interval.low, interval.high, interval.groups
        (2.0, 1.0, 3.0, 2)
    """
    _check_level(level, resamples)
    sums, counts, missing = _grouped(np.asarray(values, np.float64), groups)
    mean, _ = _mean_and_error(sums, counts)
    if not counts.size:
        warn_empty(f"Bootstrap interval: none of {missing} frames has a value")
    low, high = _bootstrap(sums, counts, rng, resamples, level)
    return MeanInterval(mean=mean, low=low, high=high, frames=int(counts.sum()), groups=counts.size, missing=missing)


def compare_paired(
    first: Values,
    second: Values,
    *,
    rng: np.random.Generator,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> PairedComparison:
    """Is one model better than another on the same frames? Bootstrap and Student intervals, sign-flip and t tests.

    Args:
        first: one number a frame; a frame where either is NaN is missing.
        second: the same frames, in the same order.
        rng: where the draws come from.
        groups: the sequence or patient of each frame; whole groups are drawn and flipped.
        resamples: draws of the bootstrap, and of the sign flips above 14 groups.
        level: coverage between 0 and 1.

    Returns:
        NaN where fewer than two groups have frames; an ``EmptyMaskWarning`` if none has.

    Raises:
        UsageError: ``metrics.statistics``.

    Example:
        >>> first = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        >>> found = compare_paired(first, [x - 0.5 for x in first], rng=np.random.default_rng(0))
        >>> found.difference, found.p_sign_flip, found.second_better
        (-0.5, 0.03125, 1.0)
    """
    _check_level(level, resamples)
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise _statistics_error(f"{a.size} values against {b.size}", "Pair the frames of the two results first.")
    difference = b - a
    sums, counts, missing = _grouped(difference, groups)
    mean, error = _mean_and_error(sums, counts)
    if not counts.size:
        warn_empty(f"Paired comparison: none of {missing} frames has both values")
    low, high = _bootstrap(sums, counts, rng, resamples, level)
    freedom = counts.size - 1
    reach = student_quantile((1 + level) / 2, freedom) * error if freedom > 0 else float("nan")
    if freedom < 1:
        p_student = float("nan")
    elif error > 0:
        p_student = student_tail(mean / error, freedom)
    else:
        p_student = 1.0 if mean == 0 else 0.0
    present = difference[~np.isnan(difference)]
    return PairedComparison(
        difference=mean,
        low=low,
        high=high,
        student_low=mean - reach,
        student_high=mean + reach,
        p_sign_flip=_sign_flip(sums, rng, resamples) if freedom > 0 else float("nan"),
        p_student=p_student,
        second_better=float(((present < 0) + 0.5 * (present == 0)).mean()) if present.size else float("nan"),
        frames=int(counts.sum()),
        groups=counts.size,
        missing=missing,
    )


def _grouped(values: Float64, groups: Sequence[Hashable] | None) -> tuple[Float64, Float64, int]:
    # Sum and number of the present values of each group, in order of first appearance.
    if values.ndim != 1 or (groups is not None and len(groups) != values.size):
        raise _statistics_error(
            f"Values of shape {values.shape} with {'no' if groups is None else len(groups)} groups",
            "Give one value and one group a frame.",
        )
    present = ~np.isnan(values)
    if not np.isfinite(values[present]).all():
        raise _statistics_error("Infinite values", "Find out where they come from; NaN is the mark of a missing one.")
    missing = int(values.size - present.sum())
    if groups is None:
        return values[present], np.ones(int(present.sum())), missing
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(g, len(number)) for g, p in zip(groups, present, strict=True) if p], np.intp)
    return np.bincount(index, values[present]).astype(np.float64), np.bincount(index).astype(np.float64), missing


def _mean_and_error(sums: Float64, counts: Float64) -> tuple[float, float]:
    if not counts.size:
        return float("nan"), float("nan")
    total = float(counts.sum())
    mean = float(sums.sum()) / total
    if counts.size < 2:
        return mean, float("nan")
    squares = float(((sums - counts * mean) ** 2).sum())
    return mean, math.sqrt(squares * counts.size / (counts.size - 1)) / total


def _bootstrap(
    sums: Float64, counts: Float64, rng: np.random.Generator, resamples: int, level: float
) -> tuple[float, float]:
    if counts.size < 2:
        return float("nan"), float("nan")
    means = np.empty(resamples)
    rows = max(1, _CHUNK // counts.size)
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, counts.size, (min(rows, resamples - start), counts.size))
        means[start : start + rows] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flip(sums: Float64, rng: np.random.Generator, resamples: int) -> float:
    observed = abs(float(sums.sum()))
    # Sums of the same numbers in another order differ in the last digits; they count as ties.
    bound = observed - 1e-12 * float(np.abs(sums).sum())
    if sums.size <= _EXACT_GROUPS:
        bits = (np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1
        return float((np.abs((1 - 2 * bits) @ sums) >= bound).mean())
    extreme, rows = 0, max(1, _CHUNK // sums.size)
    for start in range(0, resamples, rows):
        signs = rng.integers(0, 2, (min(rows, resamples - start), sums.size), dtype=np.int8)
        extreme += int((np.abs((1.0 - 2.0 * signs) @ sums) >= bound).sum())
    return (extreme + 1) / (resamples + 1)


def _check_level(level: float, resamples: int = 1) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise _statistics_error(
            f"{resamples} resamples at level {level}", f"Use the defaults, {RESAMPLES} and {LEVEL}."
        )


def _statistics_error(what: str, fix: str) -> UsageError:
    return UsageError(
        what, why="The statistics of a list of frames need it otherwise.", fix=fix, error_id="metrics.statistics"
    )
