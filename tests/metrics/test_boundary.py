"""Boundaries: closed forms, the published formula, invariances, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.metrics import EmptyMaskWarning, boundary_f1, boundary_scores, depth_edges, edge_band, edge_band_error
from endolux.metrics.boundary import distance_to


def scene(seed, shape=(17, 23)):
    rng = np.random.default_rng(seed)
    depth = 40 + np.cumsum(rng.normal(0, 2, shape), axis=1)
    depth[4:11, 6:15] *= 0.6
    return np.clip(depth, 5, None), rng


def published(prediction, truth, valid):
    """Depth Pro's formula, on pairs that are valid on both sides, written out pair by pair."""
    height, width = truth.shape
    total = weight_sum = 0.0
    for t in np.linspace(1.05, 1.25, 10):
        precision = recall = 0.0
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            a = b = both = 0
            for y in range(height):
                for x in range(width):
                    v, u = y + dy, x + dx
                    if not (0 <= v < height and 0 <= u < width and valid[y, x] and valid[v, u]):
                        continue
                    in_truth = (1 / truth[y, x]) / (1 / truth[v, u]) > t
                    in_prediction = (1 / prediction[y, x]) / (1 / prediction[v, u]) > t
                    a, b, both = a + in_truth, b + in_prediction, both + (in_truth and in_prediction)
            recall += 0.25 * both / max(a, 1)
            precision += 0.25 * both / max(b, 1)
        total += t * (2 * recall * precision / (recall + precision) if recall + precision else 0.0)
        weight_sum += t
    return total / weight_sum


@pytest.mark.parametrize("seed", range(3))
def test_reproduces_the_published_formula(seed):
    truth, rng = scene(seed)
    prediction = truth * np.exp(rng.normal(0, 0.05, truth.shape))
    valid = rng.random(truth.shape) > 0.1
    found = boundary_f1(prediction, truth, valid, reproduce="depth-pro")
    assert found == pytest.approx(published(prediction, truth, valid), abs=1e-12)
    assert 0.1 < found < 0.9


def test_quirk_a_perfect_prediction_of_one_step_scores_a_quarter():
    truth = np.full((6, 8), 20.0)
    truth[:, 4:] = 40.0
    every = truth > 0
    assert boundary_f1(truth, truth, every, reproduce="depth-pro") == pytest.approx(0.25)
    assert boundary_f1(truth, truth, every) == 1.0


def test_one_pixel_off_is_wrong_and_half_the_steps_is_two_thirds():
    truth = np.full((6, 9), 20.0)
    truth[:, 3:] = 40.0
    assert boundary_f1(np.roll(truth, 1, axis=1)[:, 1:], truth[:, 1:], truth[:, 1:] > 0) == 0.0
    truth[:, 6:] = 80.0
    half = truth.copy()
    half[:, 6:] = 40.0
    found = boundary_scores(half, truth, truth > 0)
    assert (found.precision, found.recall) == pytest.approx((1.0, 0.5))
    assert found.f1 == pytest.approx(2 / 3)
    assert (found.truth_pairs, found.predicted_pairs) == (12, 6)


def test_reversed_step_is_wrong():
    truth = np.full((4, 8), 20.0)
    truth[:, 4:] = 40.0
    assert boundary_f1(800 / truth, truth, truth > 0) == 0.0


def test_threshold_weights():
    # A step of 1.1 in the prediction where the truth has 1.3: found below 1.1 only.
    truth = np.array([[10.0, 13.0]])
    thresholds = (1.05, 1.2)
    assert boundary_f1(np.array([[10.0, 11.0]]), truth, truth > 0, thresholds=thresholds) == pytest.approx(1.05 / 2.25)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_scale_flip_and_mask(seed, factor):
    truth, rng = scene(seed, (9, 12))
    prediction = truth * np.exp(rng.normal(0, 0.05, truth.shape))
    valid = rng.random(truth.shape) > 0.2
    valid[4:8] = True
    value = boundary_f1(prediction, truth, valid)
    assert boundary_f1(prediction[::-1, ::-1], truth[::-1, ::-1], valid[::-1, ::-1]) == pytest.approx(
        value, nan_ok=True
    )
    assert boundary_f1(prediction.T, truth.T, valid.T) == pytest.approx(value, nan_ok=True)
    garbage, dirty = prediction.copy(), truth.copy()
    garbage[~valid], dirty[~valid] = np.nan, -1
    assert boundary_f1(garbage, dirty, valid) == pytest.approx(value, nan_ok=True)
    # A power of two changes no digit, so no pair crosses a threshold.
    assert boundary_f1(prediction * 2.0 ** round(math.log2(factor)), truth, valid) == pytest.approx(value, nan_ok=True)


def test_symmetric_in_prediction_and_truth_where_pairs_exist():
    truth, rng = scene(3)
    prediction = truth * np.exp(rng.normal(0, 0.05, truth.shape))
    forward, backward = (
        boundary_scores(a, b, truth > 0, thresholds=(1.1,)) for a, b in ((prediction, truth), (truth, prediction))
    )
    assert forward.f1 == pytest.approx(backward.f1)
    assert (forward.precision, forward.recall) == pytest.approx((backward.recall, backward.precision))


def test_no_boundary_is_nan_with_a_warning():
    flat = np.full((5, 5), 10.0)
    with pytest.warns(EmptyMaskWarning, match="no boundary"):
        found = boundary_scores(flat, flat, flat > 0)
    assert math.isnan(found.f1)
    assert found.truth_pairs == 0
    with pytest.warns(EmptyMaskWarning):
        assert math.isnan(boundary_f1(flat, flat, np.zeros((5, 5), bool)))
    assert boundary_f1(flat, flat, flat > 0, reproduce="depth-pro") == 0.0
    with pytest.warns(EmptyMaskWarning, match="not positive"):
        assert math.isnan(boundary_f1(flat - 10, flat, flat > 0))


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"prediction": np.ones((2, 3))}, "metrics.shape"),
        ({"valid": np.ones((2, 2), np.uint8)}, "metrics.mask"),
        ({"prediction": np.full((2, 2), np.nan)}, "metrics.values"),
        ({"truth": np.zeros((2, 2))}, "metrics.values"),
        ({"thresholds": (0.9,)}, "metrics.threshold"),
        ({"thresholds": ()}, "metrics.threshold"),
        ({"reproduce": "depth-por"}, "metrics.name"),
    ],
)
def test_refusals(change, error_id):
    arguments = {"prediction": np.ones((2, 2)), "truth": np.ones((2, 2)), "valid": np.ones((2, 2), bool), **change}
    with pytest.raises(UsageError) as caught:
        boundary_f1(**arguments)
    assert caught.value.error_id == error_id


def test_unknown_variant_names_the_nearest():
    one = np.ones((2, 2))
    with pytest.raises(UsageError, match="'depth-pro'"):
        boundary_f1(one, one, one > 0, reproduce="depthpro")


def test_edges_and_band_around_a_disc():
    y, x = np.mgrid[:40, :40]
    inside = (x - 20) ** 2 + (y - 20) ** 2 < 100
    depth = np.where(inside, 20.0, 50.0)
    edges = depth_edges(depth, depth > 0)
    # Both sides of the step, nothing else: an edge pixel has a 4-neighbour across.
    across = np.zeros_like(inside)
    across[:, 1:] |= inside[:, 1:] != inside[:, :-1]
    across[:, :-1] |= inside[:, 1:] != inside[:, :-1]
    across[1:] |= inside[1:] != inside[:-1]
    across[:-1] |= inside[1:] != inside[:-1]
    assert np.array_equal(edges, across)
    wide = edge_band(depth, depth > 0, width_px=3)
    assert (wide & ~edges).any()
    assert edges.sum() < wide.sum() < edge_band(depth, depth > 0, width_px=5).sum()
    half = x < 20
    assert not edge_band(depth, half, width_px=3)[~half].any()


def test_no_edge_across_invalid_pixels():
    depth = np.array([[10.0, 10.0, 99.0, 30.0, 30.0]])
    assert not depth_edges(depth, np.array([[True, True, False, True, True]])).any()


def test_distance_is_exact():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    mask = np.random.default_rng(0).random((61, 47)) < 0.01
    assert np.abs(distance_to(mask) - ndimage.distance_transform_edt(~mask)).max() < 1e-12
    assert np.isinf(distance_to(np.zeros((3, 3), bool))).all()


def test_edge_band_error_closed_form():
    truth = np.full((10, 20), 20.0)
    truth[:, 10:] = 40.0
    prediction = truth.copy()
    prediction[:, 7:13] *= 1.1
    found = edge_band_error(prediction, truth, truth > 0)
    assert (found.pixels, found.pixels_away) == (60, 140)
    assert found.abs_rel == pytest.approx(0.1)
    assert found.log_error == pytest.approx(math.log(1.1))
    assert (found.abs_rel_away, found.log_error_away) == (0.0, 0.0)
    scaled = edge_band_error(3 * prediction, 3 * truth, truth > 0)
    assert scaled.log_error == pytest.approx(found.log_error)
    assert scaled.abs_rel == pytest.approx(found.abs_rel)


def test_edge_band_without_an_edge_is_nan():
    flat = np.full((5, 5), 10.0)
    with pytest.warns(EmptyMaskWarning):
        found = edge_band_error(flat, flat, flat > 0)
    assert math.isnan(found.abs_rel)
    assert math.isnan(found.log_error)
    assert (found.pixels, found.pixels_away, found.abs_rel_away) == (0, 25, 0.0)


def test_edge_band_log_error_of_a_prediction_below_zero_is_nan():
    truth = np.array([[10.0, 20.0]])
    found = edge_band_error(np.array([[-1.0, 20.0]]), truth, truth > 0)
    assert math.isnan(found.log_error)
    assert found.abs_rel == pytest.approx(0.55)
