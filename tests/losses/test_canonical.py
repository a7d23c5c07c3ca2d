"""Canonical maps and validity: invariances, what is refused, which pixels are left."""

from __future__ import annotations

import pytest
import torch

from endolux.errors import UsageError
from endolux.losses import canonical, canonical_pair, reliable, spatial, speculars, validity_mask

MAPS = torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
NOTHING = torch.zeros(2, 1, 12, 14, dtype=torch.bool)


def test_p2_scale_mode_is_blind_to_a_factor_and_not_to_a_shift(scene):
    disparity, mask = scene
    reference = canonical(disparity.float(), mask)
    assert (canonical(3.7 * disparity.float(), mask) - reference).abs().max() < 5e-6
    assert (canonical(disparity.float() + 0.02, mask) - reference).abs().max() > 0.1


def test_p2_affine_mode_is_blind_to_a_factor_and_a_shift_in_float32(scene):
    disparity, mask = scene
    small = disparity.float() * 0.2  # about 0.02, where an added 1e-6 costs 1e-4
    reference = canonical(small, mask, mode="affine")
    assert (canonical(3.7 * small + 0.02, mask, mode="affine") - reference).abs().max() < 2e-5


def test_closed_form():
    disparity = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 1, 1, 5)
    expected = torch.log(torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0]))
    assert torch.allclose(canonical(disparity).flatten(), expected, atol=1e-6)
    affine = canonical(disparity, mode="affine").flatten()
    assert torch.allclose(affine, torch.tensor([-3.0, -2.0, 0.0, 4.0, 12.0]) / 4.2)


def test_outside_the_mask_nothing_counts_and_images_are_independent():
    mask = MAPS < 0.9
    garbage = torch.where(mask, MAPS, torch.nan)
    for mode in ("scale", "affine"):
        assert torch.equal(canonical(garbage, mask, mode=mode), canonical(MAPS, mask, mode=mode))
        assert torch.equal(canonical(MAPS, mask, mode=mode)[1:], canonical(MAPS[1:], mask[1:], mode=mode))
        assert not canonical(MAPS, mask, mode=mode)[~mask].any()


def test_an_image_without_pixels_beside_one_with_them_is_zero_with_a_finite_gradient():
    mask = NOTHING.clone()
    mask[0] = True
    student = MAPS.clone().requires_grad_()
    loss = spatial(canonical(student, mask), canonical(1 / MAPS, mask), mask)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert not student.grad[1].any()
    assert torch.isclose(loss, spatial(canonical(MAPS[:1]), canonical(1 / MAPS[:1])))


@pytest.mark.parametrize("size", [(12, 12), (11, 14)])
def test_windows_have_their_own_medians(size):
    maps = MAPS[..., : size[0], : size[1]]
    local = canonical(maps, windows=4)
    assert local.shape == maps.shape
    part = canonical(maps[..., :3, : -(-size[1] // 4)])
    assert torch.equal(local[..., :3, : -(-size[1] // 4)], part)
    factors = torch.ones_like(maps)
    factors[..., :3, : -(-size[1] // 4)] = 5.0
    assert torch.allclose(canonical(maps * factors, windows=4), local)


@pytest.mark.parametrize("mode", ["scale", "affine"])
def test_gradcheck(mode):
    maps = MAPS[:, :, :4, :5].clone().requires_grad_()
    mask = MAPS[:, :, :4, :5] > 0.2
    assert torch.autograd.gradcheck(lambda m: canonical(m, mask, mode=mode), (maps,))


def test_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = canonical(MAPS.bfloat16())
    assert result.dtype == torch.float32


def test_pair_converts_resizes_detaches_and_drops_what_the_teacher_does_not_know():
    depth = (1 / MAPS).float().requires_grad_()
    student, teacher, mask = canonical_pair(MAPS.float(), 7 * depth, teacher_kind="depth", mode="scale")
    assert torch.allclose(student, teacher, atol=1e-5)
    assert not teacher.requires_grad
    assert mask.all()
    broken = depth.detach().clone()
    broken[0, 0, 3, 4] = torch.inf
    mask = canonical_pair(1 / MAPS.float(), broken)[2]
    assert mask.sum() == mask.numel() - 1
    assert not mask[0, 0, 3, 4]
    assert canonical_pair(MAPS, torch.rand(2, 1, 30, 40) + 1)[1].shape == MAPS.shape


def test_pair_leaves_out_images_without_relief_in_affine_mode():
    flat = MAPS.clone()
    flat[0] = 0.3
    for student, teacher in ((MAPS, flat), (flat, MAPS)):
        mask = canonical_pair(student, teacher, student_kind="affine", teacher_kind="affine")[2]
        assert not mask[0].any()
        assert mask[1].all()


def test_kinds_that_differ_need_a_mode():
    for kinds in (("disparity", "affine"), ("depth", "disparity")):
        with pytest.raises(UsageError, match="without a stated mode") as caught:
            canonical_pair(MAPS, MAPS, student_kind=kinds[0], teacher_kind=kinds[1])
        assert caught.value.error_id == "loss.kind"
        assert len(caught.value.lines()) == 3
    assert canonical_pair(MAPS, MAPS, teacher_kind="affine", mode="affine")[2].all()


@pytest.mark.parametrize(
    ("call", "error_id"),
    [
        (lambda: canonical(MAPS, NOTHING), "loss.mask"),
        (lambda: canonical_pair(MAPS, MAPS * torch.nan), "loss.mask"),
        (lambda: canonical(MAPS - 0.2), "loss.kind"),
        (lambda: canonical(MAPS, mode="shift"), "loss.setting"),
        (lambda: canonical(MAPS, windows=13), "loss.setting"),
        (lambda: canonical(MAPS[0]), "loss.shape"),
        (lambda: canonical(MAPS, NOTHING.float()), "loss.shape"),
        (lambda: canonical_pair(MAPS, MAPS[:1]), "loss.shape"),
        (lambda: canonical_pair(MAPS, MAPS, teacher_kind="metric"), "loss.setting"),
        (lambda: validity_mask(MAPS * torch.nan), "loss.mask"),
        (lambda: validity_mask(MAPS, frames=torch.ones(2, 3, 12, 14)), "loss.mask"),
        (lambda: validity_mask(MAPS, frames=torch.ones(2, 3, 6, 7)), "loss.shape"),
        (lambda: speculars(MAPS), "loss.shape"),
        (lambda: reliable(MAPS, MAPS, share=0.0), "loss.setting"),
    ],
)
def test_refusals(call, error_id):
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.error_id == error_id
    assert len(caught.value.lines()) == 3


def test_speculars_are_bright_and_pale_and_grow_by_three_pixels():
    frames = torch.full((1, 3, 20, 20), 0.5)
    frames[:, :, 10, 10] = torch.tensor([1.0, 0.95, 0.85])
    frames[:, :, 10, 2] = torch.tensor([1.0, 0.7, 0.7])  # bright, but red
    found = speculars(frames)
    expected = torch.zeros_like(found)
    expected[..., 7:14, 7:14] = True
    assert torch.equal(found, expected)


def test_reliability_drops_the_tenth_where_the_mirrored_teacher_says_otherwise():
    mirrored = MAPS.flip(-1).clone()
    assert reliable(MAPS, mirrored).all()
    assert reliable(MAPS, 9.0 * mirrored).sum() >= 0.9 * MAPS.numel() - 2
    mirrored[..., :3, 0] *= 40.0  # the left of the mirror image is the right of the picture
    kept = reliable(MAPS, mirrored)
    assert not kept[..., :3, -1].any()
    noise = torch.rand(MAPS.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    assert reliable(MAPS, MAPS.flip(-1) * noise).sum() == 2 * int(0.9 * 12 * 14)


def test_validity_is_the_product_of_its_parts():
    field = torch.ones_like(NOTHING)
    field[..., 0] = False
    frames = torch.full((2, 3, 12, 14), 0.5)
    frames[..., 11, 13] = 1.0
    teacher = MAPS.clone()
    teacher[0, 0, 5, 5], teacher[1, 0, 5, 5] = torch.nan, -1.0
    mask = validity_mask(teacher, frames=frames, field=field, mirrored=teacher.flip(-1))
    expected = field & ~speculars(frames)
    expected[:, 0, 5, 5] = False
    # What the mirrored teacher does not know is not reliable either; it is the same pixel here.
    assert torch.equal(mask, expected)
