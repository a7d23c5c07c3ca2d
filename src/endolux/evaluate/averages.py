"""From frames to one figure: means over frames, over sequences or over pixels, with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from endolux.datasets.base import Averaging
from endolux.evaluate.bootstrap import RESAMPLES, bootstrap_ratio
from endolux.evaluate.frame_score import FrameScore
from endolux.metrics.depth import EXTRA_METRICS, METRICS
from endolux.metrics.statistics import student_interval

_Float64 = npt.NDArray[np.float64]
_NOT_POOLED = frozenset({"median_rel"})  # the median of all pixels does not follow from medians of frames
_Finish = Callable[[_Float64], _Float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric under a protocol's averaging.

    Attributes:
        mean: the figure; NaN where no frame has a value.
        low, high: 95 % percentile bootstrap over frames (over sequences where the mean runs over them).
        student_low, student_high: 95 % Student t interval over the same units; NaN for pooled figures, which are no
            mean of units.
        sequence_low, sequence_high: the bootstrap over whole sequences, which allows for the likeness of neighbouring
            frames; NaN for fewer than two sequences.
        pooled: the same pooled over all compared pixels of all frames; NaN where that cannot be had from frames.
        frames: entries that have a value.
        missing: entries whose value is NaN.
        sequences: sequences with a value.
    """

    mean: float
    low: float
    high: float
    student_low: float
    student_high: float
    sequence_low: float
    sequence_high: float
    pooled: float
    frames: int
    missing: int
    sequences: int


def figures(
    frames: Sequence[FrameScore], *, averaging: Averaging, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """Every metric's figure. The same seed draws the same frames for every metric and every model.

    Pooling over pixels gives exactly what one pass over all compared pixels of all frames would give; the pooled
    rmse is the root of the mean square over pixels, not a mean of roots.
    """
    sequences = [frame.key.sequence for frame in frames]
    order = {name: number for number, name in enumerate(dict.fromkeys(sequences))}
    groups = np.array([order[name] for name in sequences], np.intp)
    return {
        metric: _figure(metric, frames, groups, averaging=averaging, seed=seed, resamples=resamples)
        for metric in metric_names(frames)
    }


def metric_names(frames: Sequence[FrameScore]) -> tuple[str, ...]:
    """All of ``METRICS``, and those of ``EXTRA_METRICS`` that the frames have."""
    measured = frames[0].measured.metrics if frames else {}
    return (*METRICS, *(name for name in EXTRA_METRICS if name in measured))


def sequence_figures(frames: Sequence[FrameScore], *, averaging: Averaging) -> dict[str, dict[str, float]]:
    """Mean of every metric in every sequence (over its pixels for pooled protocols), and its number of frames.

    ``pooled_`` and the metric's name is the same over all its compared pixels.
    """
    by_sequence: dict[str, list[FrameScore]] = {}
    for frame in frames:
        by_sequence.setdefault(frame.key.sequence, []).append(frame)
    result: dict[str, dict[str, float]] = {}
    for name, members in by_sequence.items():
        row: dict[str, float] = {"frames": float(len(members))}
        for metric in metric_names(members):
            numerators, weights, finish = _terms(metric, members, pixels=averaging is Averaging.PIXEL)
            row[metric] = _ratio(numerators, weights, finish)
        row |= {f"pooled_{metric}": _pooled(metric, members) for metric in metric_names(members)}
        result[name] = row
    return result


def _figure(
    metric: str,
    frames: Sequence[FrameScore],
    groups: npt.NDArray[np.intp],
    *,
    averaging: Averaging,
    seed: int,
    resamples: int,
) -> Figure:
    numerators, weights, finish = _terms(metric, frames, pixels=averaging is Averaging.PIXEL)
    present = int(np.count_nonzero(weights))
    count = int(groups.max()) + 1 if groups.size else 0
    totals: _Float64 = np.stack([_sums(groups, row, count) for row in numerators])
    group_weights = _sums(groups, weights, count)
    if averaging is Averaging.SEQUENCE:
        with np.errstate(invalid="ignore"):
            totals = np.where(group_weights > 0, totals / group_weights, 0.0)
        group_weights = (group_weights > 0).astype(np.float64)
        mean = _ratio(totals, group_weights, finish)
    else:
        mean = _ratio(numerators, weights, finish)
    over_sequences = bootstrap_ratio(
        totals, group_weights, finish=finish, rng=np.random.default_rng(seed), resamples=resamples
    )
    over_frames = over_sequences
    if averaging is not Averaging.SEQUENCE:
        over_frames = bootstrap_ratio(
            numerators, weights, finish=finish, rng=np.random.default_rng(seed), resamples=resamples
        )
    student = (math.nan, math.nan)
    if averaging is not Averaging.PIXEL:
        units = numerators[0][weights > 0] if averaging is Averaging.FRAME else totals[0][group_weights > 0]
        if units.size > 1:
            interval = student_interval(units)
            student = interval.low, interval.high
    return Figure(
        mean=mean,
        low=over_frames[0],
        high=over_frames[1],
        student_low=student[0],
        student_high=student[1],
        sequence_low=over_sequences[0],
        sequence_high=over_sequences[1],
        pooled=_pooled(metric, frames),
        frames=present,
        missing=len(frames) - present,
        sequences=int(np.count_nonzero(group_weights)),
    )


def _terms(metric: str, frames: Sequence[FrameScore], *, pixels: bool) -> tuple[_Float64, _Float64, _Finish]:
    """K x N weighted terms, N weights, and what turns K weighted means into the figure."""
    values = np.array([frame.measured.metrics[metric] for frame in frames], np.float64)
    present = np.isfinite(values)
    weights = present.astype(np.float64)
    rows = [values]
    finish: _Finish = _first
    if pixels:
        weights *= np.array([frame.measured.compared for frame in frames], np.float64)
        if metric in ("rmse", "rmse_log"):
            rows, finish = [values**2], _root
        elif metric == "silog":
            bias = np.array([frame.measured.log_bias for frame in frames], np.float64)
            rows, finish = [(values / 100.0) ** 2 + bias**2, bias], _spread
    return np.stack([np.where(present, row, 0.0) * weights for row in rows]), weights, finish


def _pooled(metric: str, frames: Sequence[FrameScore]) -> float:
    if metric in _NOT_POOLED:
        return math.nan
    return _ratio(*_terms(metric, frames, pixels=True))


def _ratio(numerators: _Float64, weights: _Float64, finish: _Finish) -> float:
    total = float(weights.sum())
    if total == 0:
        return math.nan
    return float(finish(numerators.sum(axis=1, keepdims=True) / total)[0])


def _sums(groups: npt.NDArray[np.intp], values: _Float64, count: int) -> _Float64:
    return np.bincount(groups, values, minlength=count).astype(np.float64)


def _first(means: _Float64) -> _Float64:
    first: _Float64 = means[0]
    return first


def _root(means: _Float64) -> _Float64:
    root: _Float64 = np.sqrt(means[0])
    return root


def _spread(means: _Float64) -> _Float64:
    spread: _Float64 = 100.0 * np.sqrt(np.maximum(means[0] - means[1] ** 2, 0.0))
    return spread
