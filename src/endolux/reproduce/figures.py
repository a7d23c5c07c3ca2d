"""Means over seeds, differences between rows, and what they say about a claim."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from endolux.metrics.statistics import student_interval
from endolux.reproduce.grid import Claim, Grid, Row
from endolux.reproduce.metric_names import comparable, gain_sign
from endolux.reproduce.results import RunResult
from endolux.reproduce.timing import Cost

Runs = Mapping[tuple[str, int], RunResult]
"""Results by (row, seed)."""


class Verdict(enum.StrEnum):
    """What figures say about a claim."""

    HELD = "held"
    NOT_HELD = "not held"
    UNDECIDED = "undecided"
    MISSING = "not measured"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds with its 95 % Student interval; NaN where there are too few."""

    mean: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and what was found.

    Attributes:
        claim: the statement.
        gain: how much better the row is than the other, in the metric's unit; for ``faster`` the logarithm of the
            ratio of the seconds. Positive is better, whatever the metric.
        margin: in the metric's unit, NaN for none.
        verdict: from the interval of ``gain`` alone.
        reason: in words.
    """

    claim: Claim
    gain: Estimate
    margin: float
    verdict: Verdict
    reason: str


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of one number a seed; missing ones (NaN) are left out.

    Example:
        >>> found = estimate([1.0, 2.0, 3.0])
        >>> found.mean, round(found.high, 3), found.count
        (2.0, 4.484, 3)
    """
    present = [value for value in values if not math.isnan(value)]
    if not present:
        return Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0)
    found = student_interval(present)
    return Estimate(mean=found.mean, low=found.low, high=found.high, count=found.frames)


def seeds_of(runs: Runs, row: str) -> list[int]:
    """Seeds for which a row has a result, sorted."""
    return sorted(seed for name, seed in runs if name == row)


def figure(runs: Runs, row: str, role: str, metric: str) -> Estimate:
    """A row's figure on a test set, mean over its seeds."""
    return estimate([_value(runs[row, seed], role, metric) for seed in seeds_of(runs, row)])


def difference(runs: Runs, row: str, reference: str, role: str, metric: str) -> Estimate:
    """Row minus reference, paired by seed: both saw the same samples in the same order.

    Seeds that only one of them has are left out; a row with one run for all seeds, as a teacher, is paired with each.
    Metrics whose best value is zero are compared by their size.
    """
    pairs = _pairs(runs, row, reference)
    return estimate([_compared(first, role, metric) - _compared(second, role, metric) for first, second in pairs])


def scene_difference(runs: Runs, row: str, reference: str, role: str, metric: str) -> Estimate:
    """Row minus reference, paired by scene, each scene's numbers averaged over the seeds that both rows have.

    How much the test scenes matter, where the interval over seeds tells how much the training does.
    """
    return estimate(_scene_differences(runs, row, reference, role, metric))


def judge(
    claim: Claim,
    grid: Grid,
    runs: Runs,
    costs: Mapping[str, Cost],
    *,
    ending: str = "",
    over: Literal["seeds", "scenes"] = "seeds",
) -> Judged:
    """What the figures say about a claim, by the interval of the gain of ``row`` over ``than``.

    With ``ending`` the figures are those of the role with that ending, for a set that is scored in another way too.
    The interval runs over seeds (does another training say the same) or over test scenes (do other scenes).

    * ``better``, ``faster``: held if the whole interval is above zero, not held if it is below, else undecided.
    * ``not-better``: held if the gain is below the margin throughout, not held if it is above it throughout.
    * ``slightly-worse``: held if the loss is above zero and below the margin throughout; not held if it is below zero
      or above the margin throughout.
    * ``closes``: held if ``row`` closes more than the margin's share of the distance from ``than`` to ``toward``
      throughout, not held if less; undecided where ``toward`` is no better than ``than``.
    """
    margin = math.nan
    if claim.kind == "faster":
        first, second = (cost_of(costs, grid.row(name)) for name in (claim.row, claim.than))
        ratios = (
            []
            if first is None or second is None
            # Rounds are interleaved, so the n-th times of two networks were taken under the same load.
            else [math.log(b / a) for a, b in zip(first.times(claim.metric), second.times(claim.metric), strict=False)]
        )
        gain = estimate(ratios)
    else:
        role = claim.role + ending
        gain = _gain(claim, runs, role, over)
        if claim.kind == "closes":
            distance = gain_sign(claim.metric) * difference(runs, claim.toward, claim.than, role, claim.metric).mean
            if gain.count and not distance > 0:
                reason = f"no distance to close: {claim.toward} is better than {claim.than} by {distance:+.4g}"
                return Judged(claim=claim, gain=gain, margin=margin, verdict=Verdict.UNDECIDED, reason=reason)
        elif claim.margin is not None:
            margin = claim.margin * abs(figure(runs, claim.than, role, claim.metric).mean)
    verdict = _verdict(claim.kind, gain, margin)
    reason = _reason(claim, gain, margin, over)
    if claim.kind == "closes" and gain.count:
        reason = f"{_closed(claim, runs, claim.role + ending):.0%} of the distance; {reason}"
    return Judged(claim=claim, gain=gain, margin=margin, verdict=verdict, reason=reason)


def cost_of(costs: Mapping[str, Cost], row: Row) -> Cost | None:
    """What a row costs: its own, where rows of one architecture differ in how they are trained."""
    return costs.get(row.name) or costs.get(row.architecture)


def _gain(claim: Claim, runs: Runs, role: str, over: Literal["seeds", "scenes"]) -> Estimate:
    sign, name = gain_sign(claim.metric), claim.metric
    if over == "scenes":
        values = _scene_differences(runs, claim.row, claim.than, role, name)
        aims = _scene_differences(runs, claim.toward, claim.than, role, name) if claim.toward else []
    else:
        values = [_compared(a, role, name) - _compared(b, role, name) for a, b in _pairs(runs, claim.row, claim.than)]
        aims = [_compared(a, role, name) - _compared(b, role, name) for a, b in _pairs(runs, claim.toward, claim.than)]
    if claim.kind == "closes":
        if len(aims) != len(values):
            aims = [math.nan] * len(values)
        values = [value - (claim.margin or 0.0) * aim for value, aim in zip(values, aims, strict=True)]
    found = estimate(values)
    bounds = sorted((sign * found.low, sign * found.high)) if found.count > 1 else [math.nan, math.nan]
    return Estimate(mean=sign * found.mean, low=bounds[0], high=bounds[1], count=found.count)


def _closed(claim: Claim, runs: Runs, role: str) -> float:
    gained = difference(runs, claim.row, claim.than, role, claim.metric).mean
    return gained / difference(runs, claim.toward, claim.than, role, claim.metric).mean


def _pairs(runs: Runs, row: str, reference: str) -> list[tuple[RunResult, RunResult]]:
    first = {seed: runs[row, seed] for seed in seeds_of(runs, row)}
    second = {seed: runs[reference, seed] for seed in seeds_of(runs, reference)}
    # There is one teacher for all seeds.
    if len(first) == 1 and next(iter(first.values())).once:
        first = dict.fromkeys(second, *first.values())
    elif len(second) == 1 and next(iter(second.values())).once:
        second = dict.fromkeys(first, *second.values())
    return [(result, second[seed]) for seed, result in first.items() if seed in second]


def _scene_differences(runs: Runs, row: str, reference: str, role: str, metric: str) -> list[float]:
    per_pair = []
    for first, second in _pairs(runs, row, reference):
        a, b = (_scenes(result, role, metric) for result in (first, second))
        if len(a) == len(b):
            per_pair.append([x - y for x, y in zip(a, b, strict=True)])
    return [sum(values) / len(values) for values in zip(*per_pair, strict=True)] if per_pair else []


def _scenes(result: RunResult, role: str, metric: str) -> list[float]:
    score = result.scores.get(role)
    values = [] if score is None else score.scenes.get(metric, [])
    return [math.nan if value is None else comparable(metric, value) for value in values]


def _compared(result: RunResult, role: str, metric: str) -> float:
    return comparable(metric, _value(result, role, metric))


def _verdict(kind: str, gain: Estimate, margin: float) -> Verdict:
    if gain.count == 0:
        return Verdict.MISSING
    low, high = gain.low, gain.high
    if math.isnan(low) or math.isnan(high):
        return Verdict.UNDECIDED
    if kind == "not-better":
        held, refuted = high < margin, low > margin
    elif kind == "slightly-worse":
        held, refuted = high < 0 and -low < margin, low > 0 or -high > margin
    else:
        held, refuted = low > 0, high < 0
    return Verdict.HELD if held else Verdict.NOT_HELD if refuted else Verdict.UNDECIDED


def _reason(claim: Claim, gain: Estimate, margin: float, over: str) -> str:
    if gain.count == 0:
        return "no pair of runs"
    if claim.kind == "faster":
        factors = [math.exp(value) for value in (gain.mean, gain.low, gain.high)]
        return f"{factors[0]:.2f} times as fast [{factors[1]:.2f}, {factors[2]:.2f}], {gain.count} rounds"
    what = "gain" if claim.kind != "closes" else f"beyond {claim.margin:.0%}"
    if gain.count == 1:
        return f"{what} {gain.mean:+.4g}, one {over.removesuffix('s')}: no interval"
    text = f"{what} {gain.mean:+.4g} [{gain.low:+.4g}, {gain.high:+.4g}], {gain.count} {over}"
    return text if math.isnan(margin) else f"{text}, margin {margin:.3g}"


def _value(result: RunResult, role: str, metric: str) -> float:
    score = result.scores.get(role)
    value = None if score is None else score.metrics.get(metric)
    return math.nan if value is None else value


def median(values: Sequence[float]) -> float:
    """The middle of some numbers, NaN for none.

    Example:
        >>> median([3.0, 1.0, 2.0])
        2.0
    """
    return float(np.median(values)) if len(values) else math.nan
