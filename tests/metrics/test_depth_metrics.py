"""Depth metrics: closed forms, invariances, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from endolux.errors import UsageError
from endolux.metrics import METRICS, abs_rel, delta, depth_metrics, log10, rmse, rmse_log, silog, sq_rel

depths = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0.5, 200.0))


def every(array):
    return np.ones(array.shape, bool)


def test_closed_forms():
    truth = np.array([10.0, 20.0, 40.0])
    prediction = np.array([15.0, 20.0, 20.0])
    v = every(truth)
    assert abs_rel(prediction, truth, v) == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert sq_rel(prediction, truth, v) == pytest.approx((2.5 + 0 + 10) / 3)
    assert rmse(prediction, truth, v) == pytest.approx(math.sqrt((25 + 400) / 3))
    logs = np.array([math.log(1.5), 0.0, math.log(0.5)])
    assert rmse_log(prediction, truth, v) == pytest.approx(math.sqrt((logs**2).mean()))
    assert log10(prediction, truth, v) == pytest.approx((math.log10(1.5) + math.log10(2)) / 3)
    assert silog(prediction, truth, v) == pytest.approx(100 * logs.std())
    assert delta(prediction, truth, v) == pytest.approx(1 / 3)
    assert delta(prediction, truth, v, 2) == pytest.approx(2 / 3)  # 1.5 < 1.5625 < 2
    assert delta(prediction, truth, v, 3) == pytest.approx(2 / 3)  # 1.953 < 2


def test_delta_threshold_is_strict():
    assert delta(np.array([1.25]), np.array([1.0]), np.array([True])) == 0.0
    assert delta(np.array([1.2499]), np.array([1.0]), np.array([True])) == 1.0


def test_sq_rel_is_not_divided_by_the_square():
    assert sq_rel(np.array([40.0]), np.array([10.0]), np.array([True])) == 90.0


def test_perfect_prediction():
    truth = np.linspace(5, 200, 50)
    found = depth_metrics(truth, truth, every(truth))
    assert list(found) == list(METRICS)
    for name, value in found.items():
        assert value == (1.0 if METRICS[name] == "higher" else 0.0)


def test_empty_mask_is_nan_never_zero():
    truth = np.ones((3, 4))
    assert all(math.isnan(value) for value in depth_metrics(truth, truth, np.zeros((3, 4), bool)).values())
    for metric in (abs_rel, sq_rel, rmse, rmse_log, log10, silog, delta):
        assert math.isnan(metric(truth, truth, np.zeros((3, 4), bool)))


def test_masked_pixels_have_no_influence():
    truth = np.array([10.0, np.nan, -1.0, np.inf, 0.0])
    prediction = np.array([11.0, 5.0, np.nan, np.inf, -3.0])
    valid = np.array([True, False, False, False, False])
    assert abs_rel(prediction, truth, valid) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_impossible_truth_is_refused(bad):
    truth = np.array([1.0, bad])
    with pytest.raises(UsageError) as caught:
        abs_rel(np.ones(2), truth, every(truth))
    assert caught.value.error_id == "metrics.values"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_impossible_prediction_is_refused(bad):
    with pytest.raises(UsageError):
        delta(np.array([bad]), np.ones(1), np.array([True]))


def test_nonpositive_prediction_has_no_logarithm_and_misses_delta():
    found = depth_metrics(np.array([-1.0, 1.0]), np.ones(2), np.ones(2, bool))
    assert math.isnan(found["rmse_log"])
    assert math.isnan(found["log10"])
    assert math.isnan(found["silog"])
    assert found["delta3"] == 0.5
    assert found["abs_rel"] == 1.0


def test_shapes_must_agree():
    with pytest.raises(UsageError) as caught:
        rmse(np.ones((2, 3)), np.ones((3, 2)), np.ones((2, 3), bool))
    assert caught.value.error_id == "metrics.shape"
    with pytest.raises(UsageError):
        rmse(np.ones(3), np.ones(3), np.ones(3, np.uint8))


def test_float32_and_uint16_are_measured_in_float64():
    truth = np.full(100_000, 30_000, np.uint16)
    prediction = np.full(100_000, 30_001, np.float32)
    assert sq_rel(prediction, truth, every(truth)) == pytest.approx(1 / 30_000, rel=1e-12)
    low, high = np.array([1], np.uint8), np.array([2], np.uint8)
    assert abs_rel(low, high, np.array([True])) == 0.5  # no wrap-around of unsigned integers


@given(depths, st.data())
@settings(max_examples=50, deadline=None)
def test_permutation_of_pixels_changes_nothing(truth, data):
    prediction = data.draw(hnp.arrays(np.float64, truth.shape, elements=st.floats(0.5, 200.0)))
    order = np.random.default_rng(0).permutation(truth.size)
    one = depth_metrics(prediction, truth, every(truth))
    two = depth_metrics(prediction[order], truth[order], every(truth))
    assert one == pytest.approx(two, rel=1e-9, abs=1e-9)


@given(depths, st.data(), st.floats(0.01, 100.0))
@settings(max_examples=50, deadline=None)
def test_scale_behaviour(truth, data, factor):
    prediction = data.draw(hnp.arrays(np.float64, truth.shape, elements=st.floats(0.5, 200.0)))
    one = depth_metrics(prediction, truth, every(truth))
    both = depth_metrics(prediction * factor, truth * factor, every(truth))
    assert both["abs_rel"] == pytest.approx(one["abs_rel"], rel=1e-9, abs=1e-12)
    assert both["rmse"] == pytest.approx(one["rmse"] * factor, rel=1e-9, abs=1e-12)
    scaled = silog(prediction * factor, truth, every(truth))
    assert scaled == pytest.approx(one["silog"], rel=1e-6, abs=1e-6)
