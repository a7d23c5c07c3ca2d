"""Means, paired differences and verdicts against closed forms."""

from __future__ import annotations

import math

import pytest
from fakes import cost, result
from hypothesis import given
from hypothesis import strategies as st

from endolux.metrics.statistics import student_interval
from endolux.reproduce.figures import Verdict, difference, estimate, figure, judge
from endolux.reproduce.grid import Claim, Grid

T_TWO = 4.302652729911275  # 97.5 % quantile of Student's t with two degrees of freedom


def runs(**rows: list[float]):
    """Results by row; the n-th number is the figure of seed n."""
    return {
        (row, seed): result(row, seed, home=value, away=value)
        for row, values in rows.items()
        for seed, value in enumerate(values)
        if not math.isnan(value)
    }


def claim(kind: str = "better", *, metric: str = "abs_rel", margin: float | None = None) -> Claim:
    role = "" if kind == "faster" else "home"
    metric = "" if kind == "faster" else metric
    return Claim(id="c", text="", kind=kind, row="big", than="base", role=role, metric=metric, margin=margin)


def test_a_figure_is_the_mean_over_seeds_with_students_interval():
    found = figure(runs(base=[0.1, 0.2, 0.3]), "base", "home", "abs_rel")
    assert found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(T_TWO * 0.1 / math.sqrt(3))
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_one_seed_has_no_interval_and_none_no_figure():
    found = figure(runs(base=[0.1]), "base", "home", "abs_rel")
    assert (found.mean, found.count) == (0.1, 1)
    assert math.isnan(found.low)
    assert figure(runs(base=[0.1]), "big", "home", "abs_rel").count == 0
    assert math.isnan(figure({}, "base", "home", "abs_rel").mean)


def test_differences_are_paired_by_seed():
    # Seeds differ much, the rows hardly: unpaired intervals would hide the difference.
    found = difference(runs(base=[0.1, 0.5, 0.9], big=[0.11, 0.52, 0.93]), "big", "base", "home", "abs_rel")
    assert found.mean == pytest.approx(0.02)
    assert found.high - found.mean == pytest.approx(T_TWO * 0.01 / math.sqrt(3))


def test_only_seeds_of_both_rows_are_paired():
    found = difference(runs(base=[0.1, 0.5, 0.9], big=[math.nan, 0.6]), "big", "base", "home", "abs_rel")
    assert found.count == 1
    assert found.mean == pytest.approx(0.1)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(-5, 5))
def test_the_estimate_is_the_house_interval_and_moves_with_its_values(values: list[float], shift: float):
    found, known = estimate(values), student_interval(values)
    assert (found.mean, found.low, found.high) == (known.mean, known.low, known.high)
    moved = estimate([value + shift for value in values])
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "metric", "margin", "big", "verdict"),
    [
        ("better", "abs_rel", None, [0.10, 0.11, 0.10], Verdict.HELD),
        ("better", "abs_rel", None, [0.30, 0.31, 0.30], Verdict.NOT_HELD),
        ("better", "abs_rel", None, [0.10, 0.30, 0.20], Verdict.UNDECIDED),
        ("better", "delta1", None, [0.30, 0.31, 0.30], Verdict.HELD),
        ("better", "delta1", None, [0.10, 0.11, 0.10], Verdict.NOT_HELD),
        ("better", "abs_rel", None, [0.10], Verdict.UNDECIDED),
        ("better", "abs_rel", None, [], Verdict.MISSING),
        ("not-better", "abs_rel", 0.05, [0.199, 0.200, 0.1995], Verdict.HELD),
        ("not-better", "abs_rel", 0.05, [0.25, 0.26, 0.25], Verdict.HELD),
        ("not-better", "abs_rel", 0.05, [0.15, 0.151, 0.15], Verdict.NOT_HELD),
        ("not-better", "abs_rel", 0.05, [0.18, 0.22, 0.20], Verdict.UNDECIDED),
        ("slightly-worse", "abs_rel", 0.10, [0.210, 0.211, 0.2105], Verdict.HELD),
        ("slightly-worse", "abs_rel", 0.10, [0.19, 0.191, 0.19], Verdict.NOT_HELD),
        ("slightly-worse", "abs_rel", 0.10, [0.30, 0.31, 0.30], Verdict.NOT_HELD),
        ("slightly-worse", "abs_rel", 0.10, [0.215, 0.225, 0.22], Verdict.UNDECIDED),
    ],
)
def test_verdicts_follow_from_intervals(
    grid: Grid, kind: str, metric: str, margin: float | None, big: list[float], verdict: Verdict
):
    base = [0.2, 0.2, 0.2][: max(len(big), 1)]
    judged = judge(claim(kind, metric=metric, margin=margin), grid, runs(base=base, big=big), {})
    assert judged.verdict is verdict, judged
    assert judged.reason


def test_a_gain_is_positive_where_the_row_is_better(grid: Grid):
    found = runs(base=[0.2, 0.2], big=[0.1, 0.1])
    assert judge(claim(), grid, found, {}).gain.mean == pytest.approx(0.1)
    assert judge(claim(metric="delta2"), grid, found, {}).gain.mean == pytest.approx(-0.1)


def test_speed_is_judged_by_the_ratio_of_each_round(grid: Grid):
    fast, slow = cost(0.10, 0.20, 0.15), cost(0.20, 0.41, 0.29)
    judged = judge(claim("faster"), grid, {}, {"leve-5x5-5x5": fast, "leve": slow})
    assert judged.verdict is Verdict.HELD
    assert math.exp(judged.gain.mean) == pytest.approx((2 * 2.05 * (0.29 / 0.15)) ** (1 / 3))
    assert judge(claim("faster"), grid, {}, {"leve-5x5-5x5": slow, "leve": fast}).verdict is Verdict.NOT_HELD
    assert judge(claim("faster"), grid, {}, {"leve": fast}).verdict is Verdict.MISSING
    noisy = judge(claim("faster"), grid, {}, {"leve-5x5-5x5": cost(0.1, 0.9), "leve": cost(0.3, 0.3)})
    assert noisy.verdict is Verdict.UNDECIDED
