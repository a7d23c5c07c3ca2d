"""Alignment: closed forms, invariances, and which pairs it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.geometry.align import Alignment, align, check_alignment
from endolux.metrics import abs_rel
from endolux.types import DepthKind, DepthMap

DEPTH, DISPARITY, METRIC = DepthKind.RELATIVE_DEPTH, DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC


def depth_map(values, kind=DEPTH, valid=None):
    values = np.asarray(values, np.float32)
    return DepthMap(values=values, kind=kind, valid=np.ones(values.shape, bool) if valid is None else valid)


@pytest.fixture
def truth():
    return np.random.default_rng(0).uniform(20.0, 120.0, (12, 16))


def test_none_leaves_metric_values_alone(truth):
    prediction = depth_map(truth + 1, METRIC)
    aligned = align(prediction, truth, truth > 0, alignment=Alignment.NONE)
    assert (aligned.scale, aligned.shift) == (1.0, 0.0)
    np.testing.assert_array_equal(aligned.values, prediction.values.astype(np.float64))


def test_median_is_the_ratio_of_medians():
    truth = np.array([[1.0, 10.0, 100.0]])
    aligned = align(depth_map([[7.0, 5.0, 6.0]]), truth, truth > 0, alignment=Alignment.MEDIAN)
    assert aligned.scale == 10.0 / 6.0


def test_scale_shift_depth_recovers_an_affine_map(truth):
    aligned = align(depth_map(0.25 * truth + 3), truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DEPTH)
    assert aligned.scale == pytest.approx(4.0, rel=1e-5)
    assert aligned.shift == pytest.approx(-12.0, rel=1e-4)
    np.testing.assert_allclose(aligned.values, truth, rtol=1e-5)


def test_scale_shift_is_the_least_squares_solution(truth):
    noisy = depth_map(truth + np.random.default_rng(1).normal(0, 20, truth.shape).clip(-15, None))
    aligned = align(noisy, truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DEPTH)
    x = noisy.values.astype(np.float64).ravel()
    expected = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), truth.ravel(), rcond=None)[0]
    assert (aligned.scale, aligned.shift) == pytest.approx(tuple(expected), rel=1e-9)


def test_scale_shift_disparity_recovers_depth(truth):
    aligned = align(depth_map(5 / truth + 0.3, DISPARITY), truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DISPARITY)
    np.testing.assert_allclose(aligned.values, truth, rtol=1e-4)
    assert not aligned.inverted


def test_depth_under_disparity_alignment_is_inverted_and_says_so(truth):
    aligned = align(depth_map(truth / 7), truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DISPARITY)
    assert aligned.inverted
    np.testing.assert_allclose(aligned.values, truth, rtol=1e-5)


def test_disparity_truth_is_compared_as_disparity(truth):
    disparity = 100 / truth
    aligned = align(
        depth_map(truth), disparity, truth > 0, alignment=Alignment.SCALE_SHIFT_DISPARITY, truth_kind=DISPARITY
    )
    np.testing.assert_allclose(aligned.values, disparity, rtol=1e-5)
    assert aligned.scale == pytest.approx(100, rel=1e-4)


def test_floored_disparities_are_counted():
    truth = np.array([[10.0, 10.0, 10.0, 20.0, 20.0, 20.0]])
    prediction = depth_map([[1.0, 1.0, 1.0, 0.5, 0.5, -2.0]], DISPARITY)
    aligned = align(prediction, truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DISPARITY)
    assert aligned.floored == 1
    assert np.isfinite(aligned.values).all()
    assert aligned.values.max() == pytest.approx(20.0)


def test_constant_prediction_gives_the_mean(truth):
    aligned = align(depth_map(np.full(truth.shape, 1 / 3)), truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DEPTH)
    assert (aligned.scale, aligned.shift) == (0.0, pytest.approx(truth.mean()))


def test_anticorrelated_prediction_shows_a_negative_scale(truth):
    aligned = align(depth_map(200 - truth), truth, truth > 0, alignment=Alignment.SCALE_SHIFT_DEPTH)
    assert aligned.scale < 0


def test_unusable_predictions_are_dropped_and_counted():
    truth = np.full((1, 6), 10.0)
    valid = np.array([[True, True, True, True, True, False]])
    prediction = depth_map([[1, np.nan, np.inf, 0, -1, 1]], valid=np.ones((1, 6), bool))
    aligned = align(prediction, truth, valid, alignment=Alignment.MEDIAN)
    assert aligned.dropped == 4
    assert aligned.valid.tolist() == [[True, False, False, False, False, False]]
    assert math.isnan(aligned.values[0, 1])


def test_nothing_in_common_is_nan():
    truth = np.full((2, 2), 10.0)
    for alignment in (Alignment.MEDIAN, Alignment.SCALE_SHIFT_DEPTH, Alignment.SCALE_SHIFT_DISPARITY):
        aligned = align(depth_map(truth), truth, np.zeros((2, 2), bool), alignment=alignment)
        assert math.isnan(aligned.scale)
        assert np.isnan(aligned.values).all()
        assert not aligned.valid.any()


@pytest.mark.parametrize(
    ("prediction", "truth_kind", "allowed"),
    [
        (METRIC, METRIC, {"none", "median", "scale-shift-depth", "scale-shift-disparity"}),
        (DEPTH, METRIC, {"median", "scale-shift-depth", "scale-shift-disparity"}),
        (DISPARITY, METRIC, {"scale-shift-disparity"}),
        (METRIC, DEPTH, {"median", "scale-shift-depth", "scale-shift-disparity"}),
        (DEPTH, DISPARITY, {"scale-shift-disparity"}),
        (METRIC, DISPARITY, {"scale-shift-disparity"}),
    ],
)
def test_kinds_and_alignments(prediction, truth_kind, allowed):
    for alignment in Alignment:
        if alignment.value in allowed:
            check_alignment(alignment, prediction_kind=prediction, truth_kind=truth_kind)
        else:
            with pytest.raises(UsageError) as caught:
                check_alignment(alignment, prediction_kind=prediction, truth_kind=truth_kind)
            assert caught.value.error_id == "align.kind"
            assert all(name in caught.value.fix for name in allowed)


@pytest.mark.parametrize("bad", [0.0, -3.0, np.nan, np.inf])
def test_impossible_truth_is_refused(bad):
    truth = np.array([[10.0, bad]])
    with pytest.raises(UsageError) as caught:
        align(depth_map([[1, 2]]), truth, np.ones((1, 2), bool), alignment=Alignment.MEDIAN)
    assert caught.value.error_id == "align.truth"


def test_sizes_must_agree(truth):
    with pytest.raises(UsageError) as caught:
        align(depth_map(truth.T), truth, truth > 0, alignment=Alignment.MEDIAN)
    assert caught.value.error_id == "align.size"


seeds = st.integers(0, 2**31)


@given(seeds, st.floats(0.01, 100.0))
@settings(max_examples=40, deadline=None)
def test_median_is_invariant_to_scale(seed, factor):
    rng = np.random.default_rng(seed)
    truth, guess = rng.uniform(5, 200, (6, 7)), rng.uniform(0.1, 3, (6, 7)).astype(np.float32)
    one = align(depth_map(guess), truth, truth > 0, alignment=Alignment.MEDIAN).values
    two = align(depth_map(guess * np.float32(factor)), truth, truth > 0, alignment=Alignment.MEDIAN).values
    np.testing.assert_allclose(one, two, rtol=1e-5)


@given(seeds, st.floats(0.1, 10.0), st.floats(0.0, 5.0))
@settings(max_examples=40, deadline=None)
def test_scale_shift_is_invariant_to_both(seed, factor, shift):
    rng = np.random.default_rng(seed)
    truth, guess = rng.uniform(5, 200, (6, 7)), rng.uniform(0.5, 3, (6, 7))
    moved = guess * factor + shift
    for kind, alignment in ((DEPTH, Alignment.SCALE_SHIFT_DEPTH), (DISPARITY, Alignment.SCALE_SHIFT_DISPARITY)):
        one = align(depth_map(guess, kind), truth, truth > 0, alignment=alignment).values
        two = align(depth_map(moved, kind), truth, truth > 0, alignment=alignment).values
        np.testing.assert_allclose(one, two, rtol=1e-3)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_more_freedom_never_fits_worse(seed):
    rng = np.random.default_rng(seed)
    truth, guess = rng.uniform(5, 200, (6, 7)), depth_map(rng.uniform(5, 200, (6, 7)), METRIC)
    errors = [
        ((align(guess, truth, truth > 0, alignment=a).values - truth) ** 2).mean()
        for a in (Alignment.SCALE_SHIFT_DEPTH, Alignment.MEDIAN, Alignment.NONE)
    ]
    assert errors[0] <= errors[1] + 1e-9
    assert errors[0] <= errors[2] + 1e-9


def test_aligned_values_feed_the_metrics(truth):
    aligned = align(depth_map(truth * 3), truth, truth > 0, alignment=Alignment.MEDIAN)
    assert abs_rel(aligned.values, truth, aligned.valid) == pytest.approx(0, abs=1e-6)
