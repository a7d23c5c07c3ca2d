"""Distillation: golden values, what each loss is blind to, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endolux.errors import UsageError
from endolux.losses import FeatureProjector, feature_loss, relation_loss, response_loss, shift_teacher, student_loss
from endolux.losses.distillation import total

N, Y, X = (
    torch.arange(2.0).view(2, 1, 1, 1),
    torch.arange(24.0).view(1, 1, 24, 1),
    torch.arange(32.0).view(1, 1, 1, 32),
)
OUTPUT = (1 + 0.5 * N) * (3 + 2 * torch.sin(0.3 * X + 0.2 * Y + N))
TARGET = torch.where((X + Y) % 17 == 0, 0.0, 3 + 2 * torch.cos(0.25 * X - 0.15 * Y + 0.5 * N))
RAW = (1 + N) * (1 + torch.sin(0.1 * X + 0.1 * Y + N))
TEACHER = shift_teacher(RAW, "add")
SEEDS = st.integers(0, 1000)
RELATIONS = ("distance", "affinity", "similarity")


def maps(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = shape or (3, 1, 24, 32)
    first, second, third = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return (1 + 9 * first).to(dtype), (1 + 9 * second).to(dtype), third > 0.2


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    first, second = float(a.detach()), float(b.detach())
    return abs(first - second) <= tolerance * max(1.0, abs(second))


def test_golden_values() -> None:
    batch = response_loss(OUTPUT, TEACHER, maximum="batch")
    assert close(batch, torch.tensor(0.3350815))
    assert close(response_loss(OUTPUT, TEACHER, maximum="map"), torch.tensor(0.4035720))
    student = student_loss(OUTPUT, TARGET, mode="reproduce")["total"]
    for epsilon, expected in ((0.10, 2.2173977), (0.25, 1.9036784), (0.50, 1.3808127)):
        assert close(total(student, batch, epsilon=epsilon), torch.tensor(expected))
    assert float(total(student, batch, epsilon=0.0)) == float(student)
    assert float(total(student, batch, epsilon=1.0)) == float(batch)


def test_shift() -> None:
    torch.testing.assert_close(TEACHER, RAW + RAW.amin(dim=(1, 2, 3), keepdim=True).abs() + 1e-6)
    below = shift_teacher(RAW - 5.0, "subtract")
    torch.testing.assert_close(below.amin(dim=(1, 2, 3)), torch.full((2,), 1e-6))
    torch.testing.assert_close(below, shift_teacher(RAW + 3.0, "subtract"), rtol=0, atol=2e-6)
    assert torch.equal(shift_teacher(RAW, "none"), RAW)
    mask = X.expand_as(RAW) > 4
    holes = shift_teacher(torch.where(mask, RAW, float("nan")), "subtract", mask=mask)
    assert not holes[~mask].any()
    torch.testing.assert_close(holes[mask], shift_teacher(RAW[..., 5:], "subtract").flatten())


@given(seed=SEEDS, a=st.floats(0.01, 100.0), b=st.floats(0.01, 100.0))
@settings(max_examples=20, deadline=None)
def test_response_is_blind_to_scale(seed: int, a: float, b: float) -> None:
    output, teacher, mask = maps(seed)
    for maximum in ("map", "batch"):
        for chosen in (None, mask):
            expected = response_loss(output, teacher, maximum=maximum, mask=chosen)
            assert close(response_loss(a * output, b * teacher, maximum=maximum, mask=chosen), expected)
    scales = torch.tensor([a, b, 1.0]).view(3, 1, 1, 1)
    assert close(response_loss(scales * output, teacher), response_loss(output, teacher))


def test_the_maximum_of_the_batch_mixes_images_and_that_of_the_map_does_not() -> None:
    output, teacher, _ = maps(1)
    single = torch.stack([response_loss(output[i : i + 1], teacher[i : i + 1]) for i in range(3)]).mean()
    assert close(response_loss(output, teacher), single)
    scales = torch.tensor([1.0, 1.0, 9.0]).view(3, 1, 1, 1)
    assert not close(response_loss(scales * output, teacher, maximum="batch"), single, 1e-2)


def test_an_untrained_output_does_not_flip_or_explode_the_response() -> None:
    teacher = maps(2)[1]
    for output in (torch.zeros_like(teacher), -torch.ones_like(teacher)):
        output.requires_grad_()
        loss = response_loss(output, teacher)
        loss.backward()
        assert torch.isfinite(output.grad).all()
        # Downhill is up: outputs below the teacher's share must rise.
        assert float(output.grad.sum()) < 0
    ones = torch.ones_like(teacher)
    assert float(response_loss(-ones, ones, floor=0.0)) == 0.0, "the published form cannot tell the sign"
    assert torch.isfinite(response_loss(teacher, torch.zeros_like(teacher)))


@pytest.mark.parametrize("kind", RELATIONS)
@given(seed=SEEDS, a=st.floats(0.05, 20.0), b=st.floats(0.05, 20.0), shift=st.floats(-5.0, 50.0))
@settings(max_examples=12, deadline=None)
def test_relations_are_blind_to_scale_and_shift(kind: str, seed: int, a: float, b: float, shift: float) -> None:
    student, teacher, mask = maps(seed, dtype=torch.float64)
    for chosen in (None, mask):
        expected = relation_loss(student, teacher, kind=kind, mask=chosen)
        assert close(relation_loss(a * student, b * teacher, kind=kind, mask=chosen), expected, 1e-6)
        if kind != "similarity":
            assert close(relation_loss(student, b * teacher + shift, kind=kind, mask=chosen), expected, 1e-6)
        assert float(relation_loss(3.0 * student, student, kind=kind, mask=chosen)) < 1e-9
        assert float(expected) > 1e-5


def test_relations_tell_near_from_far() -> None:
    student = maps(4)[0]
    assert float(relation_loss(student, 20.0 - student, kind="distance")) > 0.5


@pytest.mark.parametrize("kind", RELATIONS)
def test_relations_do_not_care_which_way_round_the_picture_is(kind: str) -> None:
    student, teacher, _ = maps(5)
    expected = relation_loss(student, teacher, kind=kind)
    assert close(relation_loss(student.flip(3), teacher.flip(3), kind=kind), expected)
    if kind != "similarity":  # which only compares images with one another
        assert not close(relation_loss(student.flip(3), teacher, kind=kind), expected, 1e-4)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
@given(seed=SEEDS, factor=st.floats(0.1, 10.0))
@settings(max_examples=12, deadline=None)
def test_features_are_blind_to_scale(kind: str, seed: int, factor: float) -> None:
    student, teacher, _ = maps(seed, 2, 6, 8, 10, dtype=torch.float64)
    expected = feature_loss(student, teacher, kind=kind)
    assert 0.0 < float(expected) <= 2.0
    assert close(feature_loss(factor * student, teacher / factor, kind=kind), expected, 1e-4)
    assert float(feature_loss(factor * student, student, kind=kind)) < 1e-6
    if kind == "mse":
        shift = torch.arange(6.0).view(1, 6, 1, 1)
        assert close(feature_loss(student + shift, factor * teacher - shift, kind=kind), expected, 1e-4)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert close(feature_loss(student[:, order], teacher[:, order], kind=kind), expected)


def test_mse_is_one_minus_the_correlation() -> None:
    student, teacher, _ = maps(6, 1, 1, 8, 10, dtype=torch.float64)
    correlation = torch.corrcoef(torch.stack([student.flatten(), teacher.flatten()]))[0, 1]
    assert close(feature_loss(student, teacher, kind="mse"), 1 - correlation)


def test_grids_of_different_size_meet_at_the_smaller() -> None:
    student, _, _ = maps(7, 2, 4, 16, 20)
    small = torch.nn.functional.avg_pool2d(student, 2)
    for first, second in ((student, small), (small, student)):
        assert float(feature_loss(first, second)) < 1e-6
        assert float(relation_loss(first, second, kind="affinity", size=(8, 10))) < 1e-9


@pytest.mark.parametrize("poison", [1e4, float("nan")])
def test_what_lies_outside_the_mask_changes_nothing(poison: float) -> None:
    student, teacher, _ = maps(8)
    mask = torch.zeros_like(student, dtype=torch.bool)
    mask[:, :, 4:20, 4:24] = True
    losses = [
        lambda s, t: response_loss(s, t, mask=mask),
        *(lambda s, t, k=k: relation_loss(s, t, kind=k, mask=mask, size=(6, 8)) for k in RELATIONS),
    ]
    for loss in losses:
        poisoned = torch.where(mask, student, poison).requires_grad_()
        value = loss(poisoned, torch.where(mask, teacher, poison))
        assert close(value, loss(student, teacher))
        value.backward()
        assert torch.isfinite(poisoned.grad).all()
        assert not poisoned.grad[~mask].any()


def test_an_empty_mask_is_zero_with_a_zero_gradient() -> None:
    student, teacher, _ = maps(9)
    mask = torch.zeros_like(student, dtype=torch.bool)
    student.requires_grad_()
    losses = [response_loss(student, teacher, mask=mask), feature_loss(student, teacher, mask=mask)]
    losses += [relation_loss(student, teacher, kind=kind, mask=mask) for kind in RELATIONS]
    assert [float(loss.detach()) for loss in losses] == [0.0] * 5
    sum(losses).backward()
    assert not student.grad.any()


@pytest.mark.parametrize("kind", RELATIONS)
@pytest.mark.parametrize("masked", [False, True])
def test_relation_gradients_by_differences(kind: str, masked: bool) -> None:
    student, teacher, mask = maps(10, 2, 1, 8, 8, dtype=torch.float64)
    student.requires_grad_()
    chosen = mask if masked else None
    assert torch.autograd.gradcheck(
        lambda s: relation_loss(s, teacher, kind=kind, size=(4, 4), mask=chosen), (student,)
    )


def test_response_and_feature_gradients_by_differences() -> None:
    student, teacher, mask = maps(11, 2, 1, 5, 6, dtype=torch.float64)
    student.requires_grad_()
    for maximum in ("map", "batch"):
        for chosen in (None, mask):
            assert torch.autograd.gradcheck(
                lambda s, m=maximum, c=chosen: response_loss(s, teacher, maximum=m, mask=c), (student,)
            )
    features, other, _ = maps(12, 2, 3, 4, 5, dtype=torch.float64)
    features.requires_grad_()
    for kind in ("cosine", "mse"):
        assert torch.autograd.gradcheck(lambda s, k=kind: feature_loss(s, other, kind=k), (features,))


def test_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert close(response_loss(OUTPUT, TEACHER), torch.tensor(0.4035720))
        for kind in RELATIONS:
            assert relation_loss(OUTPUT.bfloat16(), TEACHER, kind=kind).dtype == torch.float32
        assert feature_loss(OUTPUT.bfloat16(), TEACHER).dtype == torch.float32


def test_the_projector_learns_a_linear_map_of_features() -> None:
    torch.manual_seed(0)
    projector = FeatureProjector({"layer.3": (4, 6), "head": (2, 3)})
    assert projector("head", torch.rand(1, 2, 3, 3)).shape == (1, 3, 3, 3)
    assert all("." not in name for name in projector.layers)
    student, mixing = torch.rand(4, 4, 6, 6), torch.randn(6, 4)
    teacher = torch.einsum("oc,nchw->nohw", mixing, student)
    optimiser = torch.optim.Adam(projector.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss = feature_loss(projector("layer.3", student), teacher)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.01


def test_refusals() -> None:
    for call, words in (
        (lambda: response_loss(OUTPUT, TEACHER[..., 1:]), "shapes"),
        (lambda: response_loss(OUTPUT, TEACHER, maximum="image"), "maximum"),
        (lambda: shift_teacher(RAW, "multiply"), "shift"),
        (lambda: total(OUTPUT.mean(), OUTPUT.mean(), epsilon=1.5), "epsilon"),
        (lambda: feature_loss(torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4, 4)), "Features"),
        (lambda: feature_loss(OUTPUT, TEACHER, kind="l1"), "feature kind"),
        (lambda: relation_loss(OUTPUT, TEACHER, kind="angle"), "relation kind"),
        (lambda: relation_loss(torch.rand(2, 3, 4, 4), TEACHER), "channels"),
        (lambda: relation_loss(OUTPUT, TEACHER, size=(0, 4)), "grid"),
        (lambda: relation_loss(OUTPUT, TEACHER[:1]), "same N"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert words in str(caught.value)
