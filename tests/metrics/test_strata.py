"""Strata: a partition whose parts add up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from endolux.errors import UsageError
from endolux.metrics import EmptyMaskWarning, abs_rel, strata_masks, stratified

masks = hnp.arrays(np.bool_, (5, 7))


@given(masks, masks, masks)
def test_every_valid_pixel_is_in_exactly_one_stratum(valid, specular, tool):
    found = strata_masks(valid, specular=specular, tool=tool)
    assert set(found) == {"tissue", "specular", "tool"}
    assert np.array_equal(sum(mask.astype(int) for mask in found.values()), valid.astype(int))
    assert not (found["specular"] & tool).any()
    assert np.array_equal(strata_masks(valid, specular=specular)["specular"], valid & specular)
    assert list(strata_masks(valid)) == ["tissue"]


@settings(max_examples=30, deadline=None)
@given(masks, masks, masks, st.integers(0, 99))
@pytest.mark.filterwarnings("ignore::endolux.metrics.EmptyMaskWarning")
def test_means_add_up_by_pixels(valid, specular, tool, seed):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.uniform(5, 100, (2, 5, 7))
    found = stratified(prediction, truth, valid, specular=specular, tool=tool)
    whole = found.pop("all")
    assert whole.pixels == valid.sum() == sum(part.pixels for part in found.values())
    total = sum(part.pixels * part.metrics["abs_rel"] for part in found.values() if part.pixels)
    if whole.pixels:
        assert whole.metrics["abs_rel"] == pytest.approx(total / whole.pixels)
        assert sum(part.share for part in found.values()) == pytest.approx(1)


def test_empty_stratum_is_nan_with_a_warning_and_a_count():
    truth = np.full((2, 3), 10.0)
    with pytest.warns(EmptyMaskWarning, match="'tool'"):
        found = stratified(truth, truth, truth > 0, tool=np.zeros((2, 3), bool))
    assert found["tool"].pixels == 0
    assert found["tool"].share == 0.0
    assert all(math.isnan(value) for value in found["tool"].metrics.values())
    assert found["tissue"].metrics["abs_rel"] == 0.0


def test_own_measure_and_input_left_alone():
    truth = np.full((2, 3), 10.0)
    valid, tool = truth > 0, np.array([[True, False, False]] * 2)
    found = stratified(
        1.5 * truth, truth, valid, tool=tool, measure=lambda p, t, v: {"share": abs_rel(p, t, v), "n": float(v.sum())}
    )
    assert found["tool"].metrics == {"share": 0.5, "n": 2.0}
    assert valid.all()


def test_refusals():
    with pytest.raises(UsageError, match="do not match"):
        strata_masks(np.ones((2, 2), bool), tool=np.ones((2, 3), bool))
    with pytest.raises(UsageError, match="boolean"):
        strata_masks(np.ones((2, 2), bool), specular=np.full((2, 2), 255, np.uint8))
