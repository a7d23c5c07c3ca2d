"""Spatial and gradient term: the properties P1-P6, P9-P11 of their specification, golden values, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from endolux.errors import UsageError
from endolux.losses import canonical, full_size, gradient, spatial

TERMS = (spatial, gradient)
SMALL = torch.rand(2, 1, 20, 22, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bump(height: int = 256, width: int = 320) -> torch.Tensor:
    wave = torch.sin(2 * math.pi * torch.arange(width) / width) * torch.cos(
        2 * math.pi * torch.arange(height)[:, None] / height
    )
    return wave / wave.abs().mean()


@pytest.mark.parametrize("term", TERMS)
def test_p1_zero_at_equality_with_a_finite_gradient(term, scene):
    student = scene.disparity.clone().requires_grad_()
    loss = term(canonical(student, scene.mask), canonical(scene.disparity, scene.mask), scene.mask)
    loss.backward()
    assert loss == 0.0
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("term", "seen"), [(spatial, 0.020), (gradient, 0.008)])
def test_p2_p3_blind_to_scale_but_not_to_shift(term, seen, scene):
    disparity, mask = scene
    reference = canonical(disparity, mask)
    assert term(canonical(3.7 * disparity, mask), reference, mask) < 1e-12
    shifted = term(canonical(disparity + 0.1 * disparity.median(), mask), reference, mask)
    assert seen / 2 < shifted < seen * 2
    affine = canonical(disparity, mask, mode="affine")
    assert term(canonical(3.7 * disparity + 0.02, mask, mode="affine"), affine, mask) < 1e-10


@pytest.mark.parametrize("term", TERMS)
def test_p4_garbage_outside_the_mask(term):
    mask = torch.ones_like(SMALL, dtype=torch.bool)
    mask[..., :6, 12:] = False
    student, garbage = SMALL.flip(-1).clone().requires_grad_(), torch.where(mask, SMALL, torch.nan)
    loss = term(torch.where(mask, student, torch.inf), garbage, mask)
    assert loss == term(student, SMALL, mask)
    loss.backward()
    assert torch.isfinite(student.grad).all()


def test_p5_a_constant_is_seen_by_the_spatial_term_only():
    assert torch.isclose(spatial(SMALL + 0.5, SMALL), torch.tensor(0.5, dtype=torch.float64))
    assert gradient(SMALL + 0.5, SMALL) < 1e-12


def test_p6_a_common_permutation_is_seen_by_the_gradient_term_only():
    order = torch.randperm(440, generator=torch.Generator().manual_seed(1))
    student, teacher = SMALL.cumsum(-1).cumsum(-2), torch.zeros_like(SMALL)
    shuffled = student.flatten(2)[..., order].view_as(student)
    assert torch.isclose(spatial(shuffled, teacher), spatial(student, teacher), rtol=1e-12)
    assert gradient(shuffled, teacher, levels=1) > 2.0 * gradient(student, teacher, levels=1)
    ties = (SMALL > 0.5).double()
    assert spatial(ties.flatten(2)[..., order].view_as(ties), teacher) == spatial(ties, teacher)


@pytest.mark.parametrize("term", TERMS)
def test_p9_monotone(term):
    losses = [float(term(SMALL * (1 + factor), SMALL)) for factor in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert losses == sorted(losses)
    assert len(set(losses)) == 5


@pytest.mark.parametrize(("term", "reach"), [(spatial, 0), (gradient, 22)])
def test_p10_the_gradient_stays_near_the_error(term, reach):
    teacher = torch.zeros(1, 1, 128, 128)
    student = teacher.clone()
    student[..., 60:70, 60:70] = torch.rand(10, 10, generator=torch.Generator().manual_seed(2)) + 0.5
    student.requires_grad_()
    (term(student, teacher, keep=1.0) if term is spatial else term(student, teacher)).backward()
    rows, columns = torch.nonzero(student.grad[0, 0], as_tuple=True)
    assert len(rows)
    assert min(rows.min(), columns.min()) >= 60 - reach
    assert max(rows.max(), columns.max()) <= 69 + reach


def test_p11_gross_outliers_stay_bounded(scene):
    disparity, mask = scene
    wrong = torch.rand(disparity.shape, generator=torch.Generator().manual_seed(0)) < 0.08
    student, teacher = canonical(torch.where(wrong, 2 * disparity, disparity), mask), canonical(disparity, mask)
    assert spatial(student, teacher, mask) < 0.03
    assert gradient(student, teacher, mask) < 0.06
    # With the median unmoved, nothing but the trimmed tenth differs.
    assert spatial(torch.where(wrong, teacher + math.log(2), teacher), teacher, mask) == 0.0


def test_each_sees_what_the_other_does_not(scene):
    disparity, mask = scene
    teacher = canonical(disparity, mask)
    low = canonical(disparity * (1 + 0.02 * bump()), mask)
    assert 0.017 < spatial(low, teacher, mask) < 0.022  # a bump of 2 %
    assert gradient(low, teacher, mask) < 0.006
    moved = canonical(disparity.roll(3, -1), mask)
    assert gradient(moved, teacher, mask) > 4.0 * gradient(low, teacher, mask)


def test_golden_trimmed_mean_and_side_outputs():
    teacher = torch.zeros(1, 1, 1, 10)
    student = torch.arange(10.0).view(1, 1, 1, 10)
    assert spatial(student, teacher) == 4.0
    assert spatial(student, teacher, keep=1.0) == 4.5
    assert spatial(student, teacher, student <= 4, keep=0.8) == 1.5
    assert spatial([student, student, student], teacher) == 7.0
    sizes = full_size([torch.rand(1, 1, 8, 12), torch.rand(1, 1, 4, 6), torch.rand(1, 1, 2, 3)])
    assert {tuple(s.shape) for s in sizes} == {(1, 1, 8, 12)}


def test_golden_gradient_of_a_slope_doubles_with_every_octave():
    y, x = torch.arange(64.0)[:, None], torch.arange(64.0)
    plane = (0.3 * x - 0.2 * y)[None, None]
    for levels, mean in ((1, 1.0), (2, 1.5), (4, 3.75)):
        assert torch.isclose(gradient(plane, 0 * plane, levels=levels), torch.tensor(0.5 * mean), rtol=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_gradcheck_and_autocast(term):
    student, teacher = SMALL[..., :9, :8].clone().requires_grad_(), SMALL[..., 9:18, 8:16]
    mask = torch.ones_like(teacher, dtype=torch.bool)
    mask[..., 0, 0] = False
    assert torch.autograd.gradcheck(lambda s: term(s, teacher, mask), (student,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert term(SMALL.float(), SMALL.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("term", TERMS)
def test_the_teacher_gets_no_gradient(term):
    teacher, student = SMALL.clone().requires_grad_(), SMALL.flip(-1).requires_grad_()
    term(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("term", TERMS)
def test_refusals(term):
    empty = torch.zeros_like(SMALL, dtype=torch.bool)
    thin = empty.clone()
    thin[..., 5, :] = True
    for arguments, error_id in (
        ((SMALL, SMALL, empty), "loss.mask"),
        ((SMALL, SMALL[..., 1:]), "loss.shape"),
        ((SMALL[0], SMALL[0]), "loss.shape"),
    ):
        with pytest.raises(UsageError) as caught:
            term(*arguments)
        assert caught.value.error_id == error_id
    with pytest.raises(UsageError, match="eroded"):
        gradient(SMALL, SMALL, thin)
    for call in (lambda: gradient(SMALL, SMALL, levels=0), lambda: spatial(SMALL, SMALL, keep=1.5)):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.error_id == "loss.setting"
    with pytest.raises(UsageError):
        spatial([], SMALL)
