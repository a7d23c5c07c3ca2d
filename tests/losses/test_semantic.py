"""Semantic distribution alignment: the properties of section 5.2 of its specification, alternatives, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from endolux.errors import ModelError, UsageError
from endolux.losses import Prototypes, SemanticProjector, assign, fit_prototypes, semantic_alignment, whiten

KINDS = ("prototypes", "channels", "affinity", "moments", "image")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted() -> Prototypes:
    mixing = normal(96, 96, seed=1)
    return fit_prototypes(normal(1500, 96) @ mixing + 3.0, "teacher-a")


@pytest.fixture(scope="module")
def target() -> torch.Tensor:
    return normal(2, 64, 16, 20, seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_at_equality_with_a_finite_gradient(kind, fitted, target):
    student = target.clone().requires_grad_()
    loss = semantic_alignment(student, target, fitted, kind=kind)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-9
    assert torch.isfinite(student.grad).all()
    assert semantic_alignment(normal(2, 64, 16, 20, seed=4), target, fitted, kind=kind) > 1e-3


def test_zero_iff_assignments_agree_and_temperatures_must_be_equal(fitted, target):
    assigned = assign(target, fitted)
    assert semantic_alignment(target, assigned, fitted, assigned=True) < 1e-9
    other = assign(target, fitted, temperature=0.2)
    assert semantic_alignment(target, other, fitted, assigned=True) > 0.05
    half = assigned.half()
    assert abs(float(semantic_alignment(target.float(), half, fitted, assigned=True))) < 1e-3


def test_blind_to_magnitude_and_joint_rotation(fitted, target):
    student = normal(2, 64, 16, 20, seed=5)
    reference = semantic_alignment(student, target, fitted)
    assert abs(semantic_alignment(5.0 * student, 5.0 * target, fitted) - reference) < 1e-9
    rotation = torch.linalg.qr(normal(64, 64, seed=6))[0]
    turned = Prototypes(
        teacher="turned", mean=fitted.mean, whitening=rotation @ fitted.whitening, centres=fitted.centres @ rotation.T
    )
    both = [torch.einsum("ed,ndhw->nehw", rotation, features) for features in (student, target)]
    assert abs(semantic_alignment(*both, turned) - reference) < 1e-8


def test_bounded_even_in_the_worst_case(fitted):
    bound = 2 / 0.1 + math.log(64)
    assert round(bound, 1) == 24.2
    centre = fitted.centres[0].view(1, 64, 1, 1)
    assert 0.0 < semantic_alignment(-centre, centre, fitted) < bound
    assert semantic_alignment(-1e6 * normal(1, 64, 4, 4), normal(1, 64, 4, 4), fitted) < bound


def test_bounds_the_image_level_form(fitted, target):
    for seed in range(5):
        student = normal(2, 64, 16, 20, seed=10 + seed)
        dense = semantic_alignment(student, target, fitted)
        assert semantic_alignment(student, target, fitted, kind="image") <= dense
    moved = target.roll(3, -1)  # the same image-level distribution, elsewhere
    assert semantic_alignment(moved, target, fitted, kind="image") < 1e-9
    assert semantic_alignment(moved, target, fitted) > 0.3


def test_collapse_does_not_pay(fitted, target):
    noise = semantic_alignment(normal(2, 64, 16, 20, seed=7), target, fitted)
    for seed in range(4):
        constant = normal(1, 64, 1, 1, seed=20 + seed).expand_as(target)
        assert semantic_alignment(constant, target, fitted) > 0.8 * noise


def test_monotone_in_added_texture(fitted, target):
    energy = torch.rand(2, 1, 16, 20, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    direction = normal(1, 64, 1, 1, seed=9)
    losses = [
        float(semantic_alignment(target + amount * energy * direction, target, fitted)) for amount in (0, 1, 2, 4)
    ]
    assert losses == sorted(losses)
    assert losses[3] > 2 * losses[1] > 0


def test_gradient_reaches_the_stem_and_not_the_teacher(fitted):
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    encoder = nn.Sequential(stem, nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1))
    names = set(encoder.state_dict())
    projector = SemanticProjector(12)
    teacher = normal(1, 64, 4, 5).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = semantic_alignment(projector(encoder(torch.rand(1, 3, 16, 20))), teacher, fitted)
    assert loss.dtype == torch.float32
    loss.backward()
    assert stem.weight.grad is not None
    assert stem.weight.grad.abs().sum() > 0
    assert teacher.grad is None
    assert set(encoder.state_dict()) == names  # training only: nothing of it is the student's


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_cells_contribute_nothing(kind, fitted, target):
    mask = torch.ones(2, 1, 256, 320, dtype=torch.bool)
    mask[0, 0, 0, 0] = False  # one pixel is enough: its cell is no longer fully inside
    mask[1, 0, 100:, :] = False
    student = normal(2, 64, 16, 20, seed=11)
    reference = semantic_alignment(student, target, fitted, mask, kind=kind)
    cells = torch.ones(2, 1, 16, 20, dtype=torch.bool)
    cells[0, 0, 0, 0] = False
    cells[1, 0, 6:, :] = False
    garbage = torch.where(cells, student, torch.nan).requires_grad_()
    loss = semantic_alignment(garbage, torch.where(cells, target, 1e6), fitted, mask, kind=kind)
    assert torch.isclose(loss, reference, rtol=1e-12)
    loss.backward()
    assert torch.isfinite(garbage.grad).all()
    assert not garbage.grad[~cells.expand_as(garbage)].any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_cells_is_left_out(kind, fitted, target):
    mask = torch.ones(2, 1, 16, 20, dtype=torch.bool)
    mask[1] = False
    student = normal(2, 64, 16, 20, seed=12).requires_grad_()
    loss = semantic_alignment(student, target, fitted, mask, kind=kind)
    loss.backward()
    assert torch.isclose(loss, semantic_alignment(student[:1], target[:1], fitted, kind=kind))
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    small = fit_prototypes(normal(80, 6), "small", dimensions=4, count=5)
    student, teacher = normal(2, 4, 3, 4, seed=13).requires_grad_(), normal(2, 4, 3, 4, seed=14)
    mask = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    mask[0, 0, 0] = False
    assert torch.autograd.gradcheck(lambda s: semantic_alignment(s, teacher, small, mask, kind=kind), (student,))


def test_moments_closed_form():
    values = normal(1, 1, 10, 10)
    values = (values - values.mean()) / values.std(unbiased=False)
    # Two normal distributions of one dimension: (m1 - m2)^2 + (s1 - s2)^2.
    assert torch.isclose(semantic_alignment(3 * values + 2, values, kind="moments"), torch.tensor(8.0).double())


def test_whitening_and_prototypes():
    tokens = normal(4000, 10) @ normal(10, 10, seed=1) + 5.0
    fitted = fit_prototypes(tokens, "t", dimensions=6, count=12)
    white = whiten(tokens.T.reshape(1, 10, 50, 80), fitted, (50, 80), teacher="t")[0].flatten(1)
    assert white.mean(dim=1).abs().max() < 1e-9
    assert torch.allclose(white @ white.T / 4000, torch.eye(6, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(fitted.centres.norm(dim=1), torch.ones(12, dtype=torch.float64))
    again = fit_prototypes(tokens, "t", dimensions=6, count=12)
    assert torch.equal(again.centres, fitted.centres)


def test_k_means_finds_planted_directions():
    planted = torch.eye(4, dtype=torch.float64).repeat(100, 1) * 10 + 0.1 * normal(400, 4)
    fitted = fit_prototypes(planted, "t", dimensions=3, count=40)
    assigned = assign(whiten(planted.T.reshape(1, 4, 20, 20), fitted, (20, 20), teacher="t"), fitted)
    assert assigned.sum(dim=1).sub(1).abs().max() < 1e-9
    rows = assigned[0].flatten(1).T.view(100, 4, 40).mean(dim=0)
    assert (rows @ rows.T).fill_diagonal_(0).max() < 0.01 * (rows @ rows.T).diagonal().min()


def test_prototypes_of_another_teacher_are_refused(fitted):
    with pytest.raises(ModelError, match="teacher-a") as caught:
        whiten(normal(1, 96, 4, 4), fitted, (4, 4), teacher="teacher-b")
    assert caught.value.error_id == "loss.prototypes"
    assert len(caught.value.lines()) == 3


@pytest.mark.parametrize(
    ("call", "error_id"),
    [
        (lambda _f, t: semantic_alignment(t, t), "loss.setting"),
        (lambda f, t: semantic_alignment(t, t, f, kind="gram"), "loss.setting"),
        (lambda f, t: semantic_alignment(t, t, f, kind="moments", assigned=True), "loss.setting"),
        (lambda f, t: semantic_alignment(t, t, f, temperature=0.0), "loss.setting"),
        (lambda f, t: semantic_alignment(t, t[..., 1:], f), "loss.shape"),
        (lambda f, t: semantic_alignment(t[:, 1:], t[:, 1:], f), "loss.shape"),
        (lambda f, t: semantic_alignment(t, t, f, torch.zeros(2, 1, 256, 320, dtype=torch.bool)), "loss.mask"),
        (lambda f, t: semantic_alignment(t, t, f, torch.ones(2, 1, 8, 10, dtype=torch.bool)), "loss.shape"),
        (lambda f, t: whiten(t, f, (4, 5), teacher="teacher-a"), "loss.shape"),
        (lambda _f, t: fit_prototypes(t[0, :10, 0], "x"), "loss.shape"),
        (lambda _f, _t: fit_prototypes(normal(100, 8), "x"), "loss.setting"),
        (lambda _f, _t: fit_prototypes(torch.ones(100, 80), "x"), "loss.setting"),
    ],
)
def test_refusals(call, error_id, fitted, target):
    with pytest.raises(UsageError) as caught:
        call(fitted, target)
    assert caught.value.error_id == error_id
    assert len(caught.value.lines()) == 3
