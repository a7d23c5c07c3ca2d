"""Frames without a positive, finite median prediction: section 5.1 of Surgical Depth Anything."""

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.datasets import protocols
from endolux.datasets.pairs import TruthFormat
from endolux.errors import UsageError
from endolux.evaluate.averages import figures, sequence_figures
from endolux.evaluate.protocol_report import document, frames_csv, table
from endolux.evaluate.protocol_run import run_protocol
from endolux.evaluate.runner import compare
from endolux.evaluate.scoring import check_protocol, median_is_unusable, score
from endolux.geometry.align import Alignment
from endolux.types import DepthKind, DepthMap

from .tiny import Guess, Tiny, protocol, truth_mm, wobble

KEYS = tuple(Tiny().keys())
TRUTH = truth_mm(KEYS[0])


def depth(values, kind=DepthKind.RELATIVE_DEPTH, valid=None):
    values = np.asarray(values, np.float32)
    return DepthMap(values=values, kind=kind, valid=np.ones(values.shape, bool) if valid is None else valid)


def metric(values):
    return depth(values, DepthKind.METRIC)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros_like(TRUTH),
        -TRUTH,
        np.where(np.arange(TRUTH.size).reshape(TRUTH.shape) % 3 == 0, TRUTH, -TRUTH),
        np.full_like(TRUTH, np.nan),
        np.full_like(TRUTH, np.inf),
        np.where(np.arange(TRUTH.size).reshape(TRUTH.shape) % 3 == 0, TRUTH, np.inf),
    ],
)
@pytest.mark.parametrize("convention", [protocol(), protocol(clamp_prediction=True), protocol(floor=1e-6)])
def test_such_a_frame_counts_as_zero_everywhere(values, convention):
    found = score(depth(values), metric(TRUTH), convention)
    truth = TRUTH.astype(np.float64)
    assert found.unusable
    assert not found.empty
    assert (found.compared, found.dropped) == (TRUTH.size, 0)
    assert found.metrics["abs_rel"] == 1.0
    assert [found.metrics[f"delta{n}"] for n in (1, 2, 3)] == [0, 0, 0]
    assert found.metrics["rmse"] == pytest.approx(math.sqrt((truth**2).mean()))
    assert found.metrics["sq_rel"] == pytest.approx(truth.mean())
    assert math.isnan(found.metrics["rmse_log"])
    assert math.isnan(found.scale)


def test_only_the_scored_pixels_decide():
    values = TRUTH.copy()
    values[:20] = -1.0
    assert score(depth(values), metric(TRUTH), protocol()).unusable
    assert not score(depth(values), metric(TRUTH), protocol(crop=(20 / 24, 1.0, 0.0, 1.0))).unusable
    # Pixels that the prediction itself leaves out do not vote.
    masked = depth(values, valid=values > 0)
    assert not score(masked, metric(TRUTH), protocol()).unusable
    nothing = depth(values, valid=np.zeros(values.shape, bool))
    assert score(nothing, metric(TRUTH), protocol()).unusable
    assert median_is_unusable(nothing, np.ones(values.shape, bool))


def test_disparity_has_no_zero_of_its_own():
    shifted = depth(1 / TRUTH - 1.0, DepthKind.RELATIVE_DISPARITY)
    convention = protocol(alignment=Alignment.SCALE_SHIFT_DISPARITY)
    found = score(shifted, metric(TRUTH), convention)
    assert not found.unusable
    assert found.metrics["abs_rel"] == pytest.approx(0, abs=1e-4)
    assert score(depth(np.full_like(TRUTH, np.nan), DepthKind.RELATIVE_DISPARITY), metric(TRUTH), convention).unusable


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 0.45))
def test_floor_keeps_pixels_of_zero_and_below(seed, share):
    """p = max(s * pred, 1e-6) with s from the median over all pixels, those of zero and below included."""
    noise = np.random.default_rng(seed)
    guess = np.where(noise.random(TRUTH.shape) < share, -TRUTH, wobble(TRUTH)).astype(np.float32)
    found = score(depth(guess), metric(TRUTH), protocol(floor=1e-6, maximum=float("inf")))
    p, g = guess.astype(np.float64), TRUTH.astype(np.float64)
    s = np.median(g) / np.median(p)
    p = np.maximum(s * p, 1e-6)
    assert found.compared == TRUTH.size
    assert found.scale == pytest.approx(s, rel=1e-6)
    assert found.metrics["abs_rel"] == pytest.approx((np.abs(p - g) / g).mean(), rel=1e-6)
    assert found.metrics["delta1"] == pytest.approx((np.maximum(p / g, g / p) < 1.25).mean())


def run(function, **changes):
    predictor = Guess(function)
    return run_protocol(predictor, Tiny(), protocol(**changes), KEYS)


def bad_where_index_is_two(values):
    return np.zeros_like(values) if float(values[0, 0]) % 5 == 2 else wobble(values)


def test_the_count_is_printed_and_in_every_file():
    result = run(bad_where_index_is_two)
    bad = [frame.measured.unusable for frame in result.frames]
    assert sum(bad) == 2
    assert not result.failures
    content = document(result, data="x")
    assert content["frames"]["unusable"] == 2
    assert content["per_frame"]["unusable"] == bad
    assert "counts as zero everywhere" in content["protocol"]["unusable_predictions"]
    assert any(text.startswith("2 frames have no prediction with a positive") for text in result.warnings)
    assert "unusable   2 frames" in table(result)
    rows = list(csv.DictReader(io.StringIO(frames_csv(result.frames))))
    assert [int(row["unusable"]) for row in rows] == [int(one) for one in bad]
    figure = figures(result.frames, averaging=protocol().averaging)["abs_rel"]
    good = [frame.measured.metrics["abs_rel"] for frame in result.frames if not frame.measured.unusable]
    assert figure.mean == pytest.approx((sum(good) + 2) / 8)


def test_left_out_is_a_failure_and_says_so():
    result = run(bad_where_index_is_two, unusable="left-out")
    assert [failure.error.error_id for failure in result.failures] == ["evaluate.median"] * 2
    assert "left out and counted" in document(result, data="x")["protocol"]["unusable_predictions"]


def test_pooled_stands_beside_the_mean_over_frames():
    result = run(wobble)
    pixels = [(f.measured.metrics["abs_rel"], f.measured.metrics["rmse"], f.measured.compared) for f in result.frames]
    weight = np.array([n for *_, n in pixels], np.float64)
    found = figures(result.frames, averaging=protocol().averaging)
    assert found["abs_rel"].pooled == pytest.approx(np.average([p[0] for p in pixels], weights=weight))
    assert found["rmse"].pooled == pytest.approx(math.sqrt(np.average([p[1] ** 2 for p in pixels], weights=weight)))
    assert found["rmse"].pooled != pytest.approx(found["rmse"].mean, rel=1e-6)
    row = sequence_figures(result.frames, averaging=protocol().averaging)["a"]
    assert row["pooled_abs_rel"] == pytest.approx(np.average([p[0] for p in pixels[:3]], weights=weight[:3]))
    assert "pooled" in table(result)
    assert document(result, data="x")["metrics"]["abs_rel"]["pooled"] == found["abs_rel"].pooled


def test_pairs_follow_the_same_rule():
    truth = TRUTH.astype(np.float64)
    found = compare("a", depth(-TRUTH), truth, truth > 0, truth=TruthFormat(), alignment=Alignment.MEDIAN)
    assert found.unusable
    assert (found.metrics["abs_rel"], found.metrics["delta1"], found.compared) == (1.0, 0.0, TRUTH.size)


def test_registered_protocols_count_such_frames_unless_the_original_skips_them():
    left_out = {name for name, one in protocols().items() if one.unusable == "left-out"}
    assert left_out == {"c3vd-endodac", "hamlyn-endodac"}
    assert all(protocols()[name].floor == 1e-6 for name in ("endoslam-unity", "endoslam-unity-p0", "endoslam-unity-p1"))


@pytest.mark.parametrize(
    "changes",
    [
        {"unusable": "ignored"},
        {"scope": "video"},
        {"scope": "sequence", "alignment": Alignment.NONE},
        {"extra_metrics": ("psnr",)},
    ],
)
def test_a_definition_that_says_something_unknown_is_refused(changes):
    with pytest.raises(UsageError) as caught:
        check_protocol(protocol(**changes), prediction_kind=DepthKind.METRIC)
    assert caught.value.error_id == "protocol.settings"
