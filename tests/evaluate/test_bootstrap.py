"""Bootstrap intervals."""

import math

import numpy as np
import pytest

from endolux.errors import UsageError
from endolux.evaluate.bootstrap import bootstrap_mean


def rng(seed=0):
    return np.random.default_rng(seed)


def test_interval_matches_the_normal_approximation():
    values = rng(1).normal(10, 2, 400)
    interval = bootstrap_mean(values, rng=rng())
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05)


def test_same_seed_same_interval_and_another_seed_another():
    values = rng(1).normal(10, 2, 30)
    assert bootstrap_mean(values, rng=rng(3)) == bootstrap_mean(values, rng=rng(3))
    assert bootstrap_mean(values, rng=rng(3)) != bootstrap_mean(values, rng=rng(4))


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = rng(1).normal(10, 2, 30)
    whole = bootstrap_mean(values, rng=rng())
    monkeypatch.setattr("endolux.evaluate.bootstrap._CHUNK", 100)
    assert bootstrap_mean(values, rng=rng()) == whole


def test_missing_values_are_left_out_and_counted():
    interval = bootstrap_mean([1.0, math.nan, 3.0, math.nan], rng=rng())
    assert (interval.mean, interval.frames, interval.missing) == (2.0, 2, 2)


def test_one_frame_has_no_interval_and_none_no_mean():
    one = bootstrap_mean([4.0], rng=rng())
    assert (one.mean, one.frames) == (4.0, 1)
    assert math.isnan(one.low)
    none = bootstrap_mean([math.nan], rng=rng())
    assert math.isnan(none.mean)
    assert (none.frames, none.missing) == (0, 1)
    assert math.isnan(bootstrap_mean([], rng=rng()).mean)


@pytest.mark.parametrize("arguments", [{"resamples": 0}, {"level": 0.0}, {"level": 1.0}])
def test_impossible_settings(arguments):
    with pytest.raises(UsageError):
        bootstrap_mean([1.0, 2.0], rng=rng(), **arguments)
