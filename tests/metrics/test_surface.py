"""Surface distances: closed forms, an exact reference, invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.metrics import EmptyMaskWarning, surface_distances
from endolux.metrics.surface import nearest_distances, thinned


def sphere(count, radius, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def brute(points, others):
    return np.linalg.norm(points[:, None] - others[None], axis=2).min(axis=1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 50), (300, 1), (400, 300)])
def test_nearest_is_exact(n, m):
    rng = np.random.default_rng(n)
    points, others = rng.normal(size=(n, 3)) * 40, rng.normal(size=(m, 3)) * 40
    assert nearest_distances(points, others) == pytest.approx(brute(points, others), rel=1e-6)
    # Metres away from the origin, in mm: the digits belong to the object.
    far = np.array([5000.0, -3000.0, 800.0])
    assert nearest_distances(points + far, others + far) == pytest.approx(brute(points, others), rel=1e-6)


def test_duplicate_points_do_no_harm():
    points = np.zeros((100, 3))
    assert surface_distances(points, points).chamfer == 0.0


def test_parallel_planes():
    y, x = np.mgrid[:20, :20]
    wall = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(float)
    found = surface_distances(wall + np.array([0, 0, 0.75]), wall)
    for name in ("accuracy", "completeness", "chamfer", "rms", "median", "hausdorff", "hausdorff95"):
        assert getattr(found, name) == pytest.approx(0.75)
    assert (found.precision, found.recall, found.f_score) == (1, 1, 1)
    assert surface_distances(wall + np.array([0, 0, 0.75]), wall, threshold=0.5).f_score == 0.0


def test_concentric_spheres_and_half_a_reconstruction():
    inner, outer = sphere(4000, 20), sphere(4000, 21)
    found = surface_distances(inner, outer)
    assert found.chamfer == pytest.approx(1.0, abs=0.02)
    half = outer[outer[:, 2] > 0]
    found = surface_distances(half, outer)
    assert found.accuracy == 0.0
    assert found.completeness > 4
    assert found.precision == 1.0
    assert found.recall == pytest.approx(0.5, abs=0.05)
    assert found.f_score == pytest.approx(2 * found.recall / (1 + found.recall))
    assert found.hausdorff == pytest.approx(21 * math.sqrt(2), rel=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0.01, 100))
def test_symmetry_permutation_scale_and_shift(seed, factor):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    base, swapped = surface_distances(a, b), surface_distances(b, a)
    assert (base.accuracy, base.completeness) == pytest.approx((swapped.completeness, swapped.accuracy))
    assert (base.chamfer, base.hausdorff, base.rms) == pytest.approx((swapped.chamfer, swapped.hausdorff, swapped.rms))
    assert surface_distances(rng.permutation(a), b).chamfer == pytest.approx(base.chamfer)
    moved = surface_distances(factor * a + 7, factor * b + 7, threshold=factor)
    assert moved.chamfer == pytest.approx(factor * base.chamfer, rel=1e-6)
    assert moved.hausdorff95 == pytest.approx(factor * base.hausdorff95, rel=1e-6)
    assert moved.f_score == pytest.approx(base.f_score, abs=0.05)


def test_voxels_take_away_the_weight_of_density():
    flat = np.array([[x, 0.0, 0.0] for x in range(10)])
    dense = np.concatenate([flat, np.tile([[0.0, 0.0, 0.0]], (990, 1))])
    shifted = flat.copy()
    shifted[0, 2] = 0.9
    heavy = surface_distances(dense, shifted)
    even = surface_distances(dense, shifted, voxel=1.0)
    assert heavy.accuracy > 0.8
    assert even.accuracy == pytest.approx(0.09)
    assert (even.predicted_points, even.true_points) == (10, 10)
    assert thinned(dense, 1.0).tolist() == flat.tolist()


def test_empty_sets_are_nan_with_a_warning():
    some, none = np.zeros((3, 3)), np.empty((0, 3))
    for pair in ((none, some), (some, none)):
        with pytest.warns(EmptyMaskWarning):
            found = surface_distances(*pair, voxel=1.0)
        assert math.isnan(found.chamfer)
        assert math.isnan(found.f_score)
        assert math.isnan(found.hausdorff95)
    assert (found.predicted_points, found.true_points) == (1, 0)


def test_refusals():
    points = np.zeros((3, 3))
    for arguments, options, error_id in [
        ((np.full((3, 3), np.nan), points), {}, "metrics.points"),
        ((points, np.zeros((3, 2))), {}, "metrics.points"),
        ((points, points), {"threshold": 0}, "metrics.threshold"),
        ((points, points), {"voxel": -1.0}, "metrics.threshold"),
    ]:
        with pytest.raises(UsageError) as caught:
            surface_distances(*arguments, **options)
        assert caught.value.error_id == error_id


def test_percentiles_are_taken_per_direction():
    # One true point in ten is far from a prediction that covers the rest.
    truth = np.array([[x, 0.0, 0.0] for x in range(9)] + [[0.0, 50.0, 0.0]])
    found = surface_distances(np.repeat(truth[:9], 20, axis=0), truth)
    assert found.hausdorff == 50.0
    assert found.hausdorff95 == pytest.approx(np.percentile([0.0] * 9 + [50.0], 95))
