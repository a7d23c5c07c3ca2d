"""One factor a sequence, least-median factors, half precision, and networks of ratios."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.datasets import get_protocol
from endolux.datasets.base import Averaging
from endolux.errors import UsageError
from endolux.evaluate import quirks
from endolux.evaluate.averages import figures
from endolux.evaluate.compare import compare_results
from endolux.evaluate.html_report import html_report
from endolux.evaluate.protocol_report import document, table, write_result
from endolux.evaluate.protocol_run import run_protocol, sequence_scales
from endolux.evaluate.scoring import score
from endolux.geometry.align import Alignment
from endolux.metrics.depth import EXTRA_METRICS, extra_metrics
from endolux.types import DepthKind, DepthMap

from .tiny import Guess, Tiny, protocol, truth_mm, wobble

KEYS = tuple(Tiny().keys())
OFFICIAL = protocol(scope="sequence", averaging=Averaging.SEQUENCE, extra_metrics=("mae", "median_rel"))


def run(predictor=None, convention=OFFICIAL, data=None):
    return run_protocol(predictor or Guess(wobble), data or Tiny(), convention, KEYS)


def masked(key):
    values = truth_mm(key).astype(np.float64)
    valid = np.ones(values.shape, bool)
    valid[0, :2] = False
    return values, valid


def test_one_factor_a_sequence_is_the_official_one():
    result = run()
    for name in ("a", "bb/1"):
        pairs = []
        for key in KEYS:
            if key.sequence == name:
                values, valid = masked(key)
                pairs.append((np.float32(wobble(np.float32(values)))[valid].astype(float), values[valid]))
        means = np.array([(p.mean(), t.mean()) for p, t in pairs])
        expected = (means[:, 0] * means[:, 1]).sum() / (means[:, 0] ** 2).sum()
        frames = [frame.measured for frame in result.frames if frame.key.sequence == name]
        assert [frame.scale for frame in frames] == pytest.approx([expected] * len(frames), rel=1e-7)
        for measured, (p, t) in zip(frames, pairs, strict=True):
            error = np.abs(expected * p - t)
            assert measured.metrics["mae"] == pytest.approx(error.mean(), rel=1e-6)
            assert measured.metrics["median_rel"] == pytest.approx(np.median(error / t), rel=1e-6)
    text = table(result)
    assert "median_rel" in text
    assert "per sequence" in text
    assert document(result, data="x")["protocol"]["alignment_scope"] == "sequence"


def test_a_factor_a_sequence_is_not_a_factor_a_frame():
    def drifting(values):
        return values * (1 + 0.05 * (float(values[0, 0]) % 5))

    frame = figures(run(Guess(drifting), protocol()).frames, averaging=Averaging.FRAME)["abs_rel"].mean
    sequence = figures(run(Guess(drifting)).frames, averaging=Averaging.SEQUENCE)["abs_rel"].mean
    assert frame == pytest.approx(0, abs=1e-6)
    assert sequence > 0.01
    twice = run(Guess(lambda values: 7 * wobble(values)))
    once = run()
    for one, two in zip(once.frames, twice.frames, strict=True):
        assert one.measured.metrics["abs_rel"] == pytest.approx(two.measured.metrics["abs_rel"], rel=1e-5)


def test_a_sequence_without_any_prediction_counts_as_zero():
    result = run(Guess(lambda values: np.full_like(values, np.nan)))
    assert all(frame.measured.unusable for frame in result.frames)
    assert np.isnan(list(sequence_scales(Guess(np.zeros_like), Tiny(), OFFICIAL, KEYS).values())).all()
    broken = run(data=Tiny(broken=["a 1"]))
    assert [failure.name for failure in broken.failures] == ["a 1"]


def test_results_with_extra_metrics_compare_and_draw(tmp_path):
    for name, function in (("one", wobble), ("two", lambda values: wobble(wobble(values)))):
        predictor = Guess(function)
        result = run(predictor)
        content = document(result, data="x")
        page = html_report(result, content, dataset=Tiny(), predictor=predictor)
        write_result(tmp_path / name, content, result.frames, page)
    assert "mae" in compare_results(tmp_path / "one", tmp_path / "two", seed=0).means


def test_float16_is_for_metric_depth_only():
    convention = protocol(alignment=Alignment.NONE, maximum=20.0, unit="cm", reproduce=(quirks.FLOAT16_PREDICTIONS,))
    truth = DepthMap(values=np.float32([[50.0, 100.0]]), kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
    guess = DepthMap(values=np.float32([[50.01, 300.0]]), kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
    assert score(guess, truth, convention).metrics["abs_rel"] == pytest.approx(0.5)
    relative = DepthMap(values=guess.values, kind=DepthKind.RELATIVE_DEPTH, valid=guess.valid)
    found = score(relative, truth, protocol(reproduce=(quirks.FLOAT16_PREDICTIONS,)))
    assert found.scale == pytest.approx(75 / ((50.01 + 300) / 2), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20.0), st.integers(0, 2**31))
def test_least_median_factor_ignores_two_fifths_of_outliers(factor, seed):
    noise = np.random.default_rng(seed)
    prediction = noise.uniform(1, 10, 500)
    truth = factor * prediction
    truth[:200] *= noise.uniform(3, 9, 200)
    assert quirks.least_median_scale(prediction, truth) == pytest.approx(factor, rel=2e-3)


def test_least_median_is_the_smallest_of_many():
    noise = np.random.default_rng(5)
    prediction = noise.uniform(1, 10, 400)
    truth = prediction * noise.uniform(0.5, 2.0, 400)
    found = quirks.least_median_scale(prediction, truth)
    grid = np.linspace(0.4, 2.2, 4001)
    costs = np.median(np.abs(grid[:, None] * prediction - truth), axis=1)
    assert np.median(np.abs(found * prediction - truth)) <= costs.min() * 1.005


def test_ppsnets_millimetres_are_a_little_short():
    truth = DepthMap(values=np.float32([[50.0, 100.0]]), kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
    guess = DepthMap(values=np.float32([[55.0, 100.0]]), kind=DepthKind.METRIC, valid=np.ones((1, 2), bool))
    plain = score(guess, truth, protocol(alignment=Alignment.NONE)).metrics
    short = score(guess, truth, protocol(alignment=Alignment.NONE, reproduce=(quirks.ROUNDED_CODE,))).metrics
    assert short["rmse"] / plain["rmse"] == pytest.approx(1.525e-6 / (0.1 / 65535))
    assert short["abs_rel"] == plain["abs_rel"]


def test_a_network_of_ratios_takes_the_protocols_largest_depth():
    """clamp(1 / r, 0.01, 1) m is a tenth of clamp(10 / r, 0.1, 10) m."""
    leve = get_protocol("endoslam-leve")
    convention = protocol(alignment=Alignment.NONE, unit="m", maximum=float("inf"), minimum=0.0, ratio_maximum=1.0)
    assert leve.ratio_maximum == convention.ratio_maximum
    predictor = Guess(lambda values: 10 * values, DepthKind.METRIC)
    assert figures(run(predictor, convention).frames, averaging=Averaging.FRAME)["abs_rel"].mean == pytest.approx(9)
    predictor.ratio_maximum_mm = 10_000.0
    result = run(predictor, convention)
    assert figures(result.frames, averaging=Averaging.FRAME)["abs_rel"].mean == pytest.approx(0, abs=1e-6)
    assert result.predictor["depth_factor"] == pytest.approx(0.1)
    relative = Guess(lambda values: values)
    relative.ratio_maximum_mm = 10_000.0
    assert "depth_factor" not in run(relative, protocol(ratio_maximum=1.0, unit="m")).predictor


def test_extra_metrics_by_hand_and_by_wrong_name():
    assert extra_metrics(np.array([1.05, 3.0]), np.array([1.0, 2.0]), EXTRA_METRICS) == {
        "mae": pytest.approx(0.525),
        "median_rel": pytest.approx(0.275),
        "within10": 0.5,
    }
    assert np.isnan(extra_metrics(np.empty(0), np.empty(0), ("mae",))["mae"])
    with pytest.raises(UsageError) as caught:
        extra_metrics(np.ones(1), np.ones(1), ("ssim",))
    assert caught.value.error_id == "metrics.name"
