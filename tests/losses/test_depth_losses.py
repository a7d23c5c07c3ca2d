"""Losses: zero at truth, invariant where they say so, blind outside the mask, calm without one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.losses import LossWeights, depth_loss, gradient_matching, log_l1, scale_invariant_log

ALL = [scale_invariant_log, gradient_matching, log_l1]


def sample(seed: int, *, valid: float = 0.7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction, truth, chance = (torch.rand(2, 1, 16, 24, generator=generator) for _ in range(3))
    return prediction * 3, truth * 3, chance < valid


@pytest.mark.parametrize("loss", ALL)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_zero_at_truth_and_positive_elsewhere(loss, seed: int) -> None:
    prediction, truth, valid = sample(seed)
    assert float(loss(truth, truth, valid)) == 0.0
    assert float(loss(prediction, truth, valid)) > 0.01


@given(seed=st.integers(0, 2**31), factor=st.floats(0.01, 100.0))
@settings(max_examples=30, deadline=None)
def test_a_factor_on_depth_changes_nothing(seed: int, factor: float) -> None:
    prediction, truth, valid = sample(seed)
    scaled = prediction + math.log(factor)
    for loss in (
        lambda p: scale_invariant_log(p, truth, valid, variance_focus=1.0),
        lambda p: gradient_matching(p, truth, valid),
    ):
        assert float(loss(scaled)) == pytest.approx(float(loss(prediction)), rel=1e-3)


def test_the_anchored_losses_notice_a_factor() -> None:
    _, truth, valid = sample(1)
    assert float(log_l1(truth + 0.5, truth, valid)) == pytest.approx(0.5, rel=1e-4)
    # sqrt(0.15) * 0.5
    assert float(scale_invariant_log(truth + 0.5, truth, valid)) == pytest.approx(0.5 * math.sqrt(0.15), abs=2e-3)


def test_scale_invariant_log_is_eigens_formula() -> None:
    prediction, truth, valid = sample(3, valid=2.0)
    expected = [
        math.sqrt(float((d**2).mean() - 0.85 * d.mean() ** 2)) for d in (prediction - truth).double().flatten(1)
    ]
    actual = float(scale_invariant_log(prediction, truth, valid))
    assert actual == pytest.approx(sum(expected) / 2, abs=2e-3)


def test_gradient_matching_by_hand() -> None:
    truth = torch.zeros(1, 1, 2, 2)
    prediction = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    # Two pairs across differ by 1, two pairs down by 0; coarser scales have no pair.
    assert float(gradient_matching(prediction, truth, torch.ones(1, 1, 2, 2, dtype=torch.bool))) == pytest.approx(0.5)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_pixels_outside_the_mask_count_for_nothing(loss, poison: float) -> None:
    prediction, truth, valid = sample(4)
    clean = prediction.clone().requires_grad_()
    loss(clean, truth, valid).backward()
    dirty = prediction.clone().requires_grad_()
    value = loss(dirty, torch.where(valid, truth, poison), valid)
    value.backward()
    assert float(value.detach()) == float(loss(clean, truth, valid).detach())
    assert torch.equal(clean.grad, dirty.grad)
    assert not dirty.grad[~valid].any()


@pytest.mark.parametrize("loss", ALL)
def test_an_empty_mask_gives_zero_and_a_zero_gradient(loss) -> None:
    prediction, truth, valid = sample(5)
    prediction.requires_grad_()
    value = loss(prediction, truth, torch.zeros_like(valid))
    value.backward()
    assert float(value.detach()) == 0.0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("loss", ALL)
def test_an_image_without_truth_does_not_dilute_the_batch(loss) -> None:
    prediction, truth, valid = sample(6)
    alone = float(loss(prediction[:1], truth[:1], valid[:1]))
    valid[1] = False
    assert float(loss(prediction, truth, valid)) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_float32_inside_autocast(loss) -> None:
    prediction, truth, valid = sample(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(prediction, truth, valid)
    assert value.dtype == torch.float32
    assert float(value) == float(loss(prediction, truth, valid))


def test_depth_loss_adds_its_parts_and_reads_the_mask_from_depth() -> None:
    prediction, truth, valid = sample(8)
    depth = torch.where(valid, truth.exp(), 0.0)
    depth[0, 0, 0, 0] = float("nan")
    weights = LossWeights(silog=2.0, gradient=3.0, anchor=5.0)
    parts = depth_loss(prediction.requires_grad_(), depth, weights=weights)
    expected = 2 * parts["silog"] + 3 * parts["gradient"] + 5 * parts["anchor"]
    assert float(parts["total"].detach()) == pytest.approx(float(expected), rel=1e-6)
    parts["total"].backward()
    assert torch.isfinite(prediction.grad).all()
    assert not prediction.grad[0, 0, 0, 0].any()


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError) as caught:
        log_l1(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))
    assert caught.value.error_id == "loss.shape"
