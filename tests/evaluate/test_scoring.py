"""One frame under a protocol: closed forms, agreement with the metrics' own formulas, and refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.datasets.base import FrameKey
from endolux.errors import InputError, UsageError
from endolux.evaluate import quirks
from endolux.evaluate.pixel_metrics import pixel_metrics
from endolux.evaluate.resizing import resize_prediction
from endolux.evaluate.scoring import check_protocol, score
from endolux.evaluate.windows import crop_slices
from endolux.geometry.align import Alignment, align, median
from endolux.metrics.depth import METRICS, depth_metrics
from endolux.types import DepthKind, DepthMap

from .tiny import protocol, truth_mm, wobble

TRUTH = truth_mm(FrameKey(sequence="a", index=0))


def depth(values, kind=DepthKind.METRIC, valid=None):
    values = np.asarray(values, np.float32)
    return DepthMap(values=values, kind=kind, valid=np.ones(values.shape, bool) if valid is None else valid)


@pytest.mark.parametrize("alignment", list(Alignment))
def test_agrees_with_align_and_the_plain_metrics(alignment):
    kind = DepthKind.METRIC if alignment is Alignment.NONE else DepthKind.RELATIVE_DEPTH
    values = wobble(TRUTH)
    valid = np.random.default_rng(0).random(TRUTH.shape) > 0.3
    guess, true = depth(values, kind), depth(TRUTH, valid=valid)
    found = score(guess, true, protocol(alignment=alignment, maximum=60.0))
    mask = valid & (TRUTH <= 60)
    expected = align(guess, TRUTH, mask, alignment=alignment)
    for name, value in depth_metrics(expected.values, TRUTH, expected.valid).items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-11), name
    assert (found.scale, found.shift) == pytest.approx((expected.scale, expected.shift), rel=1e-12)
    assert found.compared == mask.sum()
    assert found.out_of_range == (valid & (TRUTH > 60)).sum() > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80_000), st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_one_pass_metrics_are_the_plain_ones(count, seed, scale):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 100, count).astype(np.float32)
    guess = truth * np.exp(rng.normal(0, 0.3, count)) * scale
    found, bias, nonpositive = pixel_metrics(guess, truth)
    expected = depth_metrics(guess, truth, np.ones(count, bool))
    assert set(found) == set(METRICS)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    assert bias == pytest.approx(np.log(guess / truth.astype(float)).mean(), abs=1e-10)
    assert nonpositive == 0


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-2, 1e2), st.integers(0, 2**31))
def test_median_scaling_ignores_the_scale_and_the_order_of_pixels(scale, seed):
    guess = wobble(TRUTH)
    base = score(depth(guess, DepthKind.RELATIVE_DEPTH), depth(TRUTH), protocol())
    order = np.random.default_rng(seed).permutation(TRUTH.size)
    shuffled = (guess.ravel()[order].reshape(TRUTH.shape), TRUTH.ravel()[order].reshape(TRUTH.shape))
    other = score(depth(scale * shuffled[0], DepthKind.RELATIVE_DEPTH), depth(shuffled[1]), protocol())
    for name in METRICS:
        assert other.metrics[name] == pytest.approx(base.metrics[name], rel=1e-5, abs=1e-6)


def test_empty_window_is_nan_never_zero():
    found = score(depth(TRUTH), depth(TRUTH), protocol(minimum=500.0, maximum=600.0))
    assert found.empty
    assert all(math.isnan(value) for value in found.metrics.values())
    assert math.isnan(found.scale)


def test_range_is_open_below_and_closed_above():
    truth = depth([[10.0, 20.0, 30.0]])
    assert score(truth, truth, protocol(minimum=10.0, maximum=30.0)).compared == 2
    strict = protocol(minimum=10.0, maximum=30.0, reproduce=(quirks.STRICT_MAXIMUM,))
    assert score(truth, truth, strict).compared == 1


def test_clamp_comes_after_alignment_and_is_counted():
    truth = depth([[10.0, 20.0, 100.0]])
    guess = depth([[1.0, 2.0, 40.0]], DepthKind.RELATIVE_DEPTH)
    found = score(guess, truth, protocol(clamp_prediction=True, maximum=150.0))
    assert (found.scale, found.clamped) == (10.0, 1)
    assert found.metrics["abs_rel"] == pytest.approx(0.5 / 3)
    free = score(guess, truth, protocol(maximum=150.0))
    assert (free.clamped, free.metrics["abs_rel"]) == (0, pytest.approx(1.0))


def test_clamp_gives_zero_predictions_a_place_instead_of_leaving_them_out():
    truth = depth([[10.0, 20.0, 30.0]])
    guess = depth([[0.0, 20.0, 30.0]])
    settings_ = {"alignment": Alignment.NONE, "minimum": 1.0}
    assert score(guess, truth, protocol(**settings_)).dropped == 1
    found = score(guess, truth, protocol(clamp_prediction=True, **settings_))
    assert (found.dropped, found.clamped, found.metrics["abs_rel"]) == (0, 1, pytest.approx(0.3))


def test_crop_is_a_window_of_rows_and_columns():
    found = score(depth(TRUTH), depth(TRUTH), protocol(crop=(0.25, 0.75, 0.5, 1.0)))
    assert found.truth_pixels == 12 * 16
    for height, width in ((480, 640), (375, 1242), (256, 320)):
        rows, columns = crop_slices((128 / height, 200 / height, 45 / width, 300 / width), (height, width))
        assert (rows.start, rows.stop, columns.start, columns.stop) == (128, 200, 45, 300)


def test_a_metric_prediction_scores_against_truth_without_a_unit():
    unitless = protocol(unit="none", maximum=math.inf)
    truth = depth(TRUTH / 50.0, DepthKind.RELATIVE_DEPTH)
    found = score(depth(TRUTH), truth, unitless)
    assert found.metrics["abs_rel"] == pytest.approx(0.0, abs=1e-6)


def test_units_of_range_and_errors():
    found = score(depth(TRUTH + 10), depth(TRUTH), protocol(unit="cm", maximum=15.0, alignment=Alignment.NONE))
    assert found.metrics["rmse"] == pytest.approx(1.0, rel=1e-6)
    assert found.compared == TRUTH.size
    with pytest.raises(UsageError, match="inch"):
        check_protocol(protocol(unit="inch"), prediction_kind=DepthKind.METRIC)


@pytest.mark.parametrize("how", ["bilinear", "bilinear-disparity", "nearest"])
def test_constant_survives_every_resize_and_invalid_stays_out(how):
    valid = np.ones((12, 16), bool)
    valid[:, :4] = False
    values = np.where(valid, 7.0, np.nan).astype(np.float32)
    big = resize_prediction(depth(values, valid=valid), (32, 24), how=how)
    assert big.valid[:, 8:].all()
    assert not big.valid[:, :7].any()
    np.testing.assert_allclose(big.values[big.valid], 7.0, rtol=1e-6)


def test_resize_of_disparity_is_not_resize_of_depth():
    values = depth([[1.0, 9.0]])
    assert resize_prediction(values, (1, 1)).at(0, 0) == pytest.approx(5.0)
    assert resize_prediction(values, (1, 1), how="bilinear-disparity").at(0, 0) == pytest.approx(1.8)
    with pytest.raises(InputError, match="2x1"):
        resize_prediction(values, (1, 1), how="refuse")


@pytest.mark.parametrize(
    ("alignment", "kind", "fine"),
    [
        (Alignment.MEDIAN, DepthKind.RELATIVE_DISPARITY, False),
        (Alignment.NONE, DepthKind.RELATIVE_DEPTH, False),
        (Alignment.SCALE_SHIFT_DEPTH, DepthKind.RELATIVE_DISPARITY, False),
        (Alignment.MEDIAN, DepthKind.METRIC, True),
        (Alignment.SCALE_SHIFT_DISPARITY, DepthKind.RELATIVE_DISPARITY, True),
    ],
)
def test_alignment_that_does_not_fit_is_refused_with_the_ways_out(alignment, kind, fine):
    if fine:
        check_protocol(protocol(alignment=alignment), prediction_kind=kind)
        return
    with pytest.raises(UsageError) as caught:
        check_protocol(protocol(alignment=alignment), prediction_kind=kind)
    assert caught.value.error_id == "align.kind"
    assert "tiny-all/1" in caught.value.what
    assert "--alignment" in caught.value.fix


def test_disparity_taken_as_depth_scores_worse_than_a_constant():
    disparity = depth(1 / TRUTH, DepthKind.RELATIVE_DISPARITY)
    wrong = score(disparity, depth(TRUTH), protocol(reproduce=(quirks.DISPARITY_AS_DEPTH,)))
    constant = score(depth(np.ones_like(TRUTH), DepthKind.RELATIVE_DEPTH), depth(TRUTH), protocol())
    inverted = score(disparity, depth(TRUTH), protocol(reproduce=(quirks.INVERSE_DISPARITY_AS_DEPTH,)))
    assert wrong.metrics["abs_rel"] > constant.metrics["abs_rel"] > inverted.metrics["abs_rel"]
    assert inverted.metrics["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_other_quirks():
    guess = depth(wobble(TRUTH), DepthKind.RELATIVE_DEPTH)
    plain = score(guess, depth(TRUTH), protocol())
    base10 = score(guess, depth(TRUTH), protocol(reproduce=(quirks.RMSE_LOG_BASE_10,)))
    assert base10.metrics["rmse_log"] == pytest.approx(plain.metrics["rmse_log"] / math.log(10))
    with pytest.raises(UsageError, match="no-such"):
        quirks.check_quirks(["no-such"])
    truth = np.float32([[10, 20, 40, 40, 40, 40]])
    disparity = depth([[0.10, 0.05, 0.025, 0.025, 0.025, -0.02]], DepthKind.RELATIVE_DISPARITY)
    settings_ = {"alignment": Alignment.SCALE_SHIFT_DISPARITY}
    smallest = score(disparity, depth(truth), protocol(**settings_))
    half = score(disparity, depth(truth), protocol(**settings_, reproduce=(quirks.DISPARITY_FLOOR_HALF,)))
    assert smallest.floored >= 1
    assert half.metrics["rmse"] > smallest.metrics["rmse"]


def test_zero_median_and_bad_truth_are_errors_of_the_frame():
    with pytest.raises(InputError) as caught:
        score(depth(np.zeros_like(TRUTH)), depth(TRUTH), protocol(clamp_prediction=True, unusable="left-out"))
    assert caught.value.error_id == "evaluate.median"
    with pytest.raises(InputError) as caught:
        score(depth(TRUTH), depth([[1.0, np.inf]]), protocol(maximum=float("inf")))
    assert caught.value.error_id == "evaluate.truth"


@settings(max_examples=30, deadline=None)
@given(st.integers(100_001, 140_000), st.integers(0, 2**31), st.booleans(), st.booleans())
def test_fast_median_is_the_median(count, seed, rounded, ordered):
    values = np.random.default_rng(seed).lognormal(3, 1, count).astype(np.float32)
    values = np.round(values / 40) if rounded else values
    values = np.sort(values) if ordered else values
    assert median(values) == float(np.median(values.astype(np.float64)))
