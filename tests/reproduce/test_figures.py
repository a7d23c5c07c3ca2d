"""Means, paired differences and verdicts against closed forms."""

from __future__ import annotations

import math

import pytest
from fakes import cost, result, scened, taught_grid
from hypothesis import given
from hypothesis import strategies as st

from endolux.metrics.statistics import student_interval
from endolux.reproduce.figures import Verdict, difference, estimate, figure, judge, scene_difference
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


GAP, LEAK = taught_grid().claims


def school(pupil: list[float], *, labels: tuple[float, ...] = (0.30, 0.31, 0.29), master: float = 0.10):
    """Results of three rows with one scene; one teacher for all seeds."""
    found = {("master", 0): scened("master", 0, rel=[master], leak=[0.0], once=True)}
    for row, values in (("labels", labels), ("pupil", pupil)):
        found |= {(row, seed): scened(row, seed, rel=[value], leak=[value]) for seed, value in enumerate(values)}
    return found


@pytest.mark.parametrize(
    ("pupil", "verdict", "closed"),
    [
        ([0.15, 0.16, 0.14], Verdict.HELD, "75%"),
        ([0.20, 0.21, 0.19], Verdict.NOT_HELD, "50%"),
        ([0.10, 0.21, 0.25], Verdict.UNDECIDED, "57%"),
    ],
)
def test_a_distance_is_closed_or_not(pupil: list[float], verdict: Verdict, closed: str):
    judged = judge(GAP, taught_grid(), school(pupil), {})
    assert judged.verdict is verdict, judged
    assert judged.reason.startswith(f"{closed} of the distance; beyond 60%")
    # Linear in the figures, so that no seed divides by a small distance.
    assert judged.gain.mean == pytest.approx(0.3 - sum(pupil) / 3 - 0.6 * 0.2)


def test_there_is_nothing_to_close_where_the_teacher_is_no_better():
    judged = judge(GAP, taught_grid(), school([0.2, 0.2, 0.2], master=0.4), {})
    assert judged.verdict is Verdict.UNDECIDED
    assert "no distance to close" in judged.reason
    assert judge(GAP, taught_grid(), {}, {}).verdict is Verdict.MISSING


def test_one_teacher_is_paired_with_every_seed_and_one_lost_run_is_not():
    runs_ = school([0.15, 0.16, 0.14])
    assert difference(runs_, "master", "labels", "home", "abs_rel").count == 3
    assert difference(runs_, "labels", "master", "home", "abs_rel").mean == pytest.approx(0.2)
    assert figure(runs_, "master", "home", "abs_rel").count == 1
    alone = {key: value for key, value in runs_.items() if key[0] == "labels" or key == ("pupil", 1)}
    assert difference(alone, "pupil", "labels", "home", "abs_rel").count == 1


def test_what_is_best_at_zero_is_compared_by_its_size():
    found = {
        (row, seed): scened(row, seed, rel=[0.2], leak=[leak + 0.001 * seed])
        for row, leak in (("labels", -0.5), ("pupil", 0.1))
        for seed in range(3)
    }
    assert judge(LEAK, taught_grid(), found, {}).verdict is Verdict.HELD
    assert difference(found, "pupil", "labels", "home", "leak_slope").mean == pytest.approx(-0.398)
    assert figure(found, "labels", "home", "leak_slope").mean == pytest.approx(-0.499)


def test_over_scenes_seeds_are_averaged_and_scenes_are_paired():
    # Scenes differ much, the rows by 0.01 in each: unpaired intervals would hide it.
    found = {
        ("labels", 0): scened("labels", 0, rel=[0.1, 0.5, 0.9], leak=[0.0] * 3),
        ("labels", 1): scened("labels", 1, rel=[0.2, 0.4, 0.8], leak=[0.0] * 3),
        ("pupil", 0): scened("pupil", 0, rel=[0.08, 0.48, 0.88], leak=[0.0] * 3),
        ("pupil", 1): scened("pupil", 1, rel=[0.2, 0.4, 0.8], leak=[0.0] * 3),
    }
    gap = scene_difference(found, "pupil", "labels", "home", "abs_rel")
    assert (gap.mean, gap.count) == (pytest.approx(-0.01), 3)
    assert gap.high - gap.low == pytest.approx(0, abs=1e-9)
    judged = judge(LEAK.model_copy(update={"metric": "abs_rel"}), taught_grid(), found, {}, over="scenes")
    assert judged.verdict is Verdict.HELD
    assert "3 scenes" in judged.reason
