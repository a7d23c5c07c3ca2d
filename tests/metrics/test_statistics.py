"""Intervals and paired comparison: tables, scipy, coverage, groups."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.evaluate.bootstrap import bootstrap_mean
from endolux.metrics import EmptyMaskWarning, bootstrap_interval, compare_paired, student_interval
from endolux.metrics.student import student_quantile, student_tail


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    [(0.975, 1, 12.706205), (0.975, 10, 2.228139), (0.95, 5, 2.015048), (0.995, 30, 2.749996), (0.025, 4, -2.776445)],
)
def test_quantiles_of_the_tables(probability, freedom, value):
    assert student_quantile(probability, freedom) == pytest.approx(value, abs=1e-6)


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is the reference")
    for freedom in (1, 2, 3, 7, 30, 408, 831, 100_000):
        for probability in (0.5, 0.6, 0.9, 0.975, 0.9995, 0.01):
            expected = stats.t.ppf(probability, freedom)
            assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        for t in (0.0, 0.3, 2.0, 9.0, 40.0):
            assert student_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-8, abs=1e-300)
    a, b = rng().normal(0, 1, 40), rng(1).normal(0.3, 1, 40)
    found = compare_paired(a, b, rng=rng())
    reference = stats.ttest_rel(b, a)
    assert found.p_student == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert (found.student_low, found.student_high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("mean", "std", "count", "low", "high"),
    [(0.077612, 0.053581, 409, 0.072397, 0.082826), (0.048651, 0.028520, 832, 0.046709, 0.050593)],
)
def test_published_student_intervals(mean, std, count, low, high):
    # Values with just this mean and population deviation: EndoDAC's snippets, whose interval is printed.
    values = np.linspace(-1, 1, count)
    values = mean + std * values / values.std()
    found = student_interval(values)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1.5e-6)


def test_groups_of_one_frame_change_nothing_and_repeats_do():
    values = rng().normal(5, 1, 20)
    alone = student_interval(values)
    assert student_interval(values, groups=range(20)) == alone
    # Twenty frames, each filmed ten times: the interval must not shrink.
    repeated, groups = np.repeat(values, 10), np.repeat(np.arange(20), 10).tolist()
    grouped = student_interval(repeated, groups=groups)
    assert (grouped.mean, grouped.low, grouped.high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert (grouped.frames, grouped.groups) == (200, 20)
    naive = student_interval(repeated)
    assert naive.high - naive.low < 0.35 * (grouped.high - grouped.low)
    boot = bootstrap_interval(repeated, groups=groups, rng=rng())
    assert boot.high - boot.low == pytest.approx(alone.high - alone.low, rel=0.2)


def test_bootstrap_agrees_with_the_runner():
    values = rng().normal(5, 1, 50)
    ours, theirs = bootstrap_interval(values, rng=rng(), resamples=2000), bootstrap_mean(values, rng=rng())
    assert (ours.mean, ours.low, ours.high) == pytest.approx((theirs.mean, theirs.low, theirs.high))


def test_coverage():
    inside = [student_interval(rng(seed).normal(0, 1, 8)) for seed in range(400)]
    covered = np.mean([i.low <= 0 <= i.high for i in inside])
    assert covered == pytest.approx(0.95, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-10, 10))
def test_shift_scale_permutation_and_swap(seed, factor, shift):
    a, b = rng(seed).normal(0, 1, (2, 9))
    base = compare_paired(a, b, rng=rng(), resamples=200)
    other = compare_paired(factor * a + shift, factor * b + shift, rng=rng(), resamples=200)
    for name in ("difference", "low", "high", "student_low", "student_high"):
        assert getattr(other, name) == pytest.approx(factor * getattr(base, name), rel=1e-6, abs=1e-9)
    assert (other.p_sign_flip, other.p_student) == pytest.approx((base.p_sign_flip, base.p_student), rel=1e-5)
    order = rng(seed).permutation(9)
    permuted = compare_paired(a[order], b[order], rng=rng(), resamples=200)
    assert (permuted.p_sign_flip, permuted.difference) == pytest.approx((base.p_sign_flip, base.difference))
    swapped = compare_paired(b, a, rng=rng(), resamples=200)
    assert swapped.difference == pytest.approx(-base.difference)
    assert (swapped.p_sign_flip, swapped.p_student) == pytest.approx((base.p_sign_flip, base.p_student))
    assert swapped.second_better == pytest.approx(1 - base.second_better)


def test_sign_flip_is_the_enumeration():
    a, b = rng(5).normal(0, 1, (2, 7))
    d = b - a
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=7)]
    expected = np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)
    assert compare_paired(a, b, rng=rng()).p_sign_flip == pytest.approx(expected)


def test_many_groups_are_drawn_and_agree_with_t():
    a = rng().normal(0, 1, 300)
    b = a + rng(1).normal(0.1, 1, 300)
    found = compare_paired(a, b, rng=rng())
    assert found.p_sign_flip == pytest.approx(found.p_student, abs=0.02)
    assert (found.low, found.high) == pytest.approx((found.student_low, found.student_high), abs=0.02)
    assert found == compare_paired(a, b, rng=rng())
    certain = compare_paired(a, a + 1 + 0.1 * b, rng=rng(), resamples=999)
    assert certain.p_sign_flip == pytest.approx(0.001)


def test_frames_of_few_sequences_do_not_make_a_certain_difference():
    # Four sequences, 100 frames each, whose differences are a matter of the sequence.
    groups = np.repeat(list("abcd"), 100).tolist()
    first = rng().normal(0, 0.01, 400)
    second = first + np.repeat([1.0, 1.0, 1.0, -0.4], 100)
    frames, sequences = (
        compare_paired(first, second, rng=rng()),
        compare_paired(first, second, rng=rng(), groups=groups),
    )
    assert frames.p_sign_flip < 0.001
    assert sequences.p_sign_flip > 0.1
    assert sequences.low < 0 < frames.low
    assert (sequences.frames, sequences.groups) == (400, 4)
    assert (sequences.difference, frames.difference) == pytest.approx((0.65, 0.65))
    assert sequences.second_better == pytest.approx(0.25)


def test_missing_frames_are_counted_and_left_out_in_pairs():
    nan = float("nan")
    found = compare_paired([1, 2, nan, 4], [2, nan, 3, 5], rng=rng())
    assert (found.difference, found.frames, found.missing) == (1.0, 2, 2)
    interval = student_interval([1, nan, 3], groups=["a", "b", "c"])
    assert (interval.mean, interval.frames, interval.groups, interval.missing) == (2.0, 2, 2, 1)


def test_too_little_to_tell_is_nan():
    one = compare_paired([1.0], [2.0], rng=rng())
    assert one.difference == 1.0
    for name in ("low", "high", "student_low", "student_high", "p_sign_flip", "p_student"):
        assert math.isnan(getattr(one, name)), name
    same = compare_paired([1.0, 2.0], [3.0, 4.0], groups="aa", rng=rng())
    assert math.isnan(same.p_student)
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(student_interval([float("nan")]).mean)
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(bootstrap_interval([], rng=rng()).low)
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(compare_paired([], [], rng=rng()).difference)


def test_equal_models():
    values = [1.0, 2.0, 3.0]
    found = compare_paired(values, values, rng=rng())
    assert (found.difference, found.p_sign_flip, found.p_student, found.second_better) == (0, 1, 1, 0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: compare_paired([1.0], [1.0, 2.0], rng=rng()),
        lambda: student_interval([1.0, 2.0], groups="a"),
        lambda: student_interval([1.0, 2.0], level=1.0),
        lambda: bootstrap_interval([1.0, 2.0], rng=rng(), resamples=0),
        lambda: student_interval([1.0, float("inf")]),
        lambda: student_interval(np.ones((2, 2))),
        lambda: student_quantile(1.0, 3),
    ],
)
def test_refusals(call):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.error_id == "metrics.statistics"


def test_a_drawn_group_brings_all_its_frames():
    # Two groups, of one frame and of three: the draws are both, the first twice and the second twice.
    found = bootstrap_interval([8.0, 0.0, 0.0, 0.0], groups="abbb", rng=rng(), level=0.4)
    assert found.mean == 2.0
    # Quantiles 0.3 and 0.7 of {0: 1/4, 2: 1/2, 8: 1/4}: the mean over frames, not over groups (4).
    assert (found.low, found.high) == (2.0, 2.0)
