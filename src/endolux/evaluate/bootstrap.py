"""Bootstrap intervals of a mean over frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over frames and its percentile interval.

    Attributes:
        mean: mean of the frames that have a value; NaN if none has.
        low, high: bounds of the interval; NaN for fewer than two frames.
        frames: frames that have a value.
        missing: frames whose value is NaN (an empty mask, or a logarithm of a depth that is not positive).
    """

    mean: float
    low: float
    high: float
    frames: int
    missing: int


def bootstrap_mean(
    values: Sequence[float] | npt.NDArray[np.float64],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Mean of per-frame values and its percentile bootstrap interval (Efron 1979).

    Frames are drawn as if independent. Neighbouring frames of one video are not, so the interval of a single clip
    is too narrow for statements about other clips.

    Args:
        values: one number a frame; NaN counts as missing.
        rng: where the draws come from; the same state gives the same interval.
        resamples: number of draws, at least 1.
        level: coverage between 0 and 1.

    Raises:
        UsageError: ``evaluate.bootstrap`` for impossible settings.

    Example:
        >>> interval = bootstrap_mean([1.0, 2.0, 3.0, float("nan")], rng=np.random.default_rng(0))
        >>> interval.mean, interval.frames, interval.missing, interval.low <= 2.0 <= interval.high
        (2.0, 3, 1, True)
    """
    if resamples < 1 or not 0 < level < 1:
        raise UsageError(
            f"{resamples} resamples at level {level}",
            why="At least one resample and a level between 0 and 1 are needed.",
            fix=f"Use the defaults, {RESAMPLES} and {LEVEL}.",
            error_id="evaluate.bootstrap",
        )
    every = np.asarray(values, np.float64)
    present = every[~np.isnan(every)]
    missing = every.size - present.size
    if present.size < 2:
        mean = float(present[0]) if present.size else float("nan")
        return Interval(mean=mean, low=float("nan"), high=float("nan"), frames=int(present.size), missing=missing)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // present.size)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        means[start : start + count] = present[rng.integers(0, present.size, (count, present.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        mean=float(present.mean()), low=float(low), high=float(high), frames=int(present.size), missing=missing
    )


def bootstrap_ratio(
    numerators: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    *,
    finish: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Percentile interval of ``finish(sum(numerators) / sum(weights))`` when units are drawn with replacement.

    Args:
        numerators: K x N, one column a unit (frame or sequence).
        weights: N, not negative; units of weight 0 may be drawn and add nothing.
        finish: from K x R means to R values.
        rng: where the draws come from.
        resamples: number of draws.
        level: coverage between 0 and 1.

    Returns:
        (low, high); NaN for fewer than two units of positive weight.

    Example:
        >>> ones = np.ones((1, 5))
        >>> bootstrap_ratio(ones, np.ones(5), finish=lambda means: means[0], rng=np.random.default_rng(0))
        (1.0, 1.0)
    """
    keep = weights > 0
    numerators, weights = numerators[:, keep], weights[keep]
    if weights.size < 2:
        return float("nan"), float("nan")
    values = np.empty(resamples)
    rows = max(1, _CHUNK // weights.size)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(0, weights.size, (count, weights.size))
        total = weights[drawn].sum(axis=1)
        values[start : start + count] = finish(np.stack([row[drawn].sum(axis=1) / total for row in numerators]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
