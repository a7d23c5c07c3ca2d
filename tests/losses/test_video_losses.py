"""Warps against closed forms and the phantom's exact flow; losses against published numbers and their derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.appearance import refined_target, transform_constraint, transform_smoothness
from endolux.losses.photometric import (
    auto_mask,
    minimum_reprojection,
    ms_ssim,
    ms_ssim_map,
    photometric_distance,
    ssim_distance,
)
from endolux.losses.smoothness import disparity_smoothness, edge_aware_smoothness, plain_smoothness
from endolux.losses.visibility import consistency, masked_mean, splat_weight, visibility
from endolux.losses.warp import backproject, pixel_grid, project, rigid_flow, sample, warp_by_depth, warp_by_flow
from endolux.models.motion import transformation


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """The two pictures of the specification's fixtures."""
    b, c = torch.arange(2.0).view(2, 1, 1, 1), torch.arange(3.0).view(1, 3, 1, 1)
    y, x = torch.arange(256.0).view(1, 1, 256, 1), torch.arange(320.0).view(1, 1, 1, 320)
    first = 0.5 + 0.3 * torch.sin(0.07 * x * (c + 1) / 2 + 0.11 * y + b) + 0.1 * torch.cos(0.31 * x - 0.23 * y + c)
    second = (
        0.5
        + 0.3 * torch.sin(0.07 * (x + 1.5) * (c + 1) / 2 + 0.11 * (y - 0.5) + b)
        + 0.1 * torch.cos(0.31 * x - 0.23 * y + c + 0.4)
        + 0.03 * torch.cos(0.02 * x)
    ).clamp(0, 1)
    return first, second


@pytest.fixture(scope="module")
def flow() -> Tensor:
    b = torch.arange(2.0).view(2, 1, 1, 1)
    y, x = torch.arange(256.0).view(1, 1, 256, 1), torch.arange(320.0).view(1, 1, 1, 320)
    down = (0.6 * torch.sin(0.02 * x)).expand(2, 1, 256, 320)
    return torch.cat([down, (1.2 * torch.cos(0.03 * y + 0.5 * b)).expand(2, 1, 256, 320)], 1)


def near(value: Tensor, expected: float, tolerance: float = 2e-6) -> bool:
    return math.isclose(float(value), expected, abs_tol=tolerance)


def intrinsics(width: int, height: int, *, focal: float = 0.9, count: int = 1) -> Tensor:
    k = torch.tensor([[focal * width, 0, (width - 1) / 2], [0, focal * width, (height - 1) / 2], [0, 0, 1.0]])
    return k.double().expand(count, 3, 3).clone()


class TestPublishedNumbers:
    """Section 7 of the specification, computed there with the official layers."""

    def test_photometric(self, pair: tuple[Tensor, Tensor]) -> None:
        first, second = pair
        assert near(ms_ssim(second, first).mean(), 0.980666)
        assert near(ms_ssim(second, first, crop_last=False).mean(), 0.980674)
        assert near(photometric_distance(second, first, mode="reproduce").mean(), 0.0205101)
        assert near(ssim_distance(second, first).mean(), 0.0207158)
        assert near(photometric_distance(second, first, kind="ssim").mean(), 0.0222727)
        assert near(photometric_distance(second, first, kind="l1").mean(), 0.0310954)

    def test_smoothness(self, pair: tuple[Tensor, Tensor], flow: Tensor) -> None:
        b = torch.arange(2.0).view(2, 1, 1, 1)
        y, x = torch.arange(256.0).view(1, 1, 256, 1), torch.arange(320.0).view(1, 1, 1, 320)
        disparity = 0.3 + 0.2 * torch.sin(0.03 * x + b) * torch.cos(0.05 * y)
        assert near(disparity_smoothness(disparity, pair[0]), 0.0209562)
        assert near(edge_aware_smoothness(flow, pair[0]), 0.0152188)
        assert near(plain_smoothness(flow), 0.0155777)

    def test_appearance(self, pair: tuple[Tensor, Tensor]) -> None:
        first, second = pair
        y, x = torch.arange(256).view(256, 1), torch.arange(320)
        mask = ((x + y) % 7 != 0).float().expand(2, 1, 256, 320)
        assert near(mask.mean(), 0.857153)
        assert near(transform_smoothness(second - first, first, second, mask), 0.0136551)
        assert near(transform_constraint(second, first, mask), 0.0310956)

    def test_visibility(self, flow: Tensor) -> None:
        weight = splat_weight(flow)
        assert near(visibility(flow).mean(), 0.992395)
        assert near(weight.mean(), 0.996195)
        assert near(weight.max(), 1.00078, 5e-6)

    def test_flow_warp(self, pair: tuple[Tensor, Tensor], flow: Tensor) -> None:
        first = pair[0]
        zoomed = (warp_by_flow(first, torch.zeros_like(flow), align_corners=False) - first).abs()
        assert near(zoomed.mean(), 0.009081)
        assert near(zoomed.max(), 0.037234)
        shifted, aligned = warp_by_flow(first, flow, align_corners=False), warp_by_flow(first, flow)
        assert near(shifted.mean(), 0.499077)
        assert near(shifted[0, 0, 100, 100], 0.816618)
        assert near(aligned.mean(), 0.499060)
        assert near(aligned[0, 0, 100, 100], 0.811581)

    def test_projection(self, pair: tuple[Tensor, Tensor]) -> None:
        b = torch.arange(2.0).view(2, 1, 1, 1)
        y, x = torch.arange(256.0).view(1, 1, 256, 1), torch.arange(320.0).view(1, 1, 1, 320)
        depth = 0.5 + 0.1 * torch.sin(0.02 * x + 0.03 * y + b)
        k = torch.tensor([[262.4, 0, 160], [0, 261.12, 128], [0, 0, 1.0]]).expand(2, 3, 3)
        motion = transformation(
            torch.tensor([[0.001, -0.002, 0.003], [0.02, 0.01, -0.03]]),
            torch.tensor([[0.001, -0.002, 0.003], [0.01, 0.02, 0.03]]),
        )
        xy, _ = project(backproject(depth, k.inverse()), k, motion)
        scaled = 2 * xy / torch.tensor([319.0, 255.0]).view(1, 2, 1, 1) - 1
        assert scaled[0, :, 100, 200].tolist() == pytest.approx([0.252694, -0.222797], abs=3e-6)
        assert scaled[1, :, 10, 20].tolist() == pytest.approx([-0.815204, -0.822881], abs=3e-6)
        moved = rigid_flow(depth, k, motion)
        assert moved[0, :, 100, 200].tolist() == pytest.approx([-0.906616, -0.195313], abs=1e-3)
        assert near(warp_by_depth(pair[0], depth, k, motion)[0].mean(), 0.499230)


class TestWarps:
    def test_nothing_moves_is_identity(self) -> None:
        generator = torch.Generator().manual_seed(1)
        image = torch.rand(2, 3, 20, 28, generator=generator, dtype=torch.float64)
        depth = 5 + 40 * torch.rand(2, 1, 20, 28, generator=generator, dtype=torch.float64)
        k = intrinsics(28, 20, count=2)
        warped, visible = warp_by_depth(image, depth, k, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
        assert torch.allclose(warped, image, atol=1e-5)
        assert bool(visible.all())
        assert torch.equal(splat_weight(torch.zeros(1, 2, 5, 6)), torch.ones(1, 1, 5, 6))
        assert torch.allclose(warp_by_flow(image, torch.zeros(2, 2, 20, 28, dtype=torch.float64)), image, atol=1e-12)

    def test_turning_needs_no_depth(self) -> None:
        k = intrinsics(28, 20)
        turn = transformation(torch.tensor([[0.02, -0.03, 0.05]]), torch.zeros(1, 3)).double()
        near_by, far_off = (rigid_flow(torch.full((1, 1, 20, 28), d).double(), k, turn) for d in (3.0, 90.0))
        assert torch.allclose(near_by, far_off, atol=1e-6)

    @pytest.mark.parametrize("shift", [(1.5, 0.0, 0.0), (0.0, -2.0, 0.0), (0.7, 0.4, 0.0)])
    def test_plane_across_the_axis(self, shift: tuple[float, float, float]) -> None:
        # A plane at one depth moves by f t / z everywhere.
        k, depth = intrinsics(28, 20), torch.full((1, 1, 20, 28), 12.0).double()
        motion = transformation(torch.zeros(1, 3), torch.tensor([shift])).double()
        expected = torch.tensor([shift[1], shift[0]]).double() * k[0, 0, 0] / 12.0
        moved = rigid_flow(depth, k, motion)
        assert torch.allclose(moved, expected.view(1, 2, 1, 1).expand_as(moved), atol=1e-6)

    def test_slanted_plane_is_a_homography(self) -> None:
        k = intrinsics(28, 20)
        normal, distance = torch.tensor([0.2, -0.1, 0.97]).double(), 15.0
        grid = pixel_grid(20, 28, like=k).flatten(1)
        rays = k[0].inverse() @ torch.cat([grid, torch.ones_like(grid[:1])])
        depth = (distance / (normal @ rays)).reshape(1, 1, 20, 28)
        motion = transformation(torch.tensor([[0.03, 0.02, -0.04]]), torch.tensor([[0.5, -0.3, 0.8]])).double()
        turn, shift = motion[0, :3, :3], motion[0, :3, 3]
        homography = k[0] @ (turn + torch.outer(shift, normal) / distance) @ k[0].inverse()
        there = homography @ torch.cat([grid, torch.ones_like(grid[:1])])
        expected = (there[:2] / there[2:]).reshape(1, 2, 20, 28)
        xy, z = project(backproject(depth, k.inverse()), k, motion)
        assert torch.allclose(xy, expected, atol=1e-5)
        assert bool((z > 0).all())

    def test_sphere_around_the_camera(self) -> None:
        # From the middle of a sphere a pure turn leaves every distance as it is.
        k = intrinsics(28, 20)
        grid = pixel_grid(20, 28, like=k).flatten(1)
        rays = k[0].inverse() @ torch.cat([grid, torch.ones_like(grid[:1])])
        depth = (30.0 / rays.norm(dim=0)).reshape(1, 1, 20, 28)
        points = backproject(depth, k.inverse())
        assert torch.allclose(points.norm(dim=1), torch.full((1, 20, 28), 30.0).double(), atol=1e-9)
        motion = transformation(torch.tensor([[0.1, -0.2, 0.1]]), torch.zeros(1, 3)).double()
        _, z = project(points, k, motion)
        turned = (motion[0, :3, :3] @ points[0].flatten(1)).norm(dim=0)
        assert torch.allclose(turned, torch.full_like(turned, 30.0), atol=1e-6)
        assert z.shape == (1, 1, 20, 28)

    def test_behind_and_outside_are_not_visible(self) -> None:
        image, depth, k = torch.rand(1, 3, 20, 28), torch.full((1, 1, 20, 28), 10.0), intrinsics(28, 20).float()
        back = transformation(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -20.0]]))
        assert not bool(warp_by_depth(image, depth, k, back)[1].any())
        aside = transformation(torch.zeros(1, 3), torch.tensor([[4.0, 0.0, 0.0]]))
        visible = warp_by_depth(image, depth, k, aside)[1]
        # 0.9 * 28 * 4 / 10 = 10.08 columns leave.
        assert not bool(visible[..., 18:].any())
        assert bool(visible[..., :17].all())

    def test_phantom(self) -> None:
        """The phantom's own flow, from its ray caster, and the flow of its depth and poses."""
        pytest.importorskip("numba")
        from endolux.phantom.presets import settings_of
        from endolux.phantom.streams import shots

        camera = {"models": {"pinhole": 1}, "field_of_view_deg": [80, 80], "centre": 0}
        changes = {"anatomies": {"colon": 1.0}, "motion": "hover", "frames": 3, "sequence_frames": 3, "fps": 6.0}
        taken = list(shots(settings_of("clean", {**changes, "width": 64, "height": 48, "scope": {"camera": camera}})))
        first, second = taken[0], taken[1]
        assert first.flow is not None
        motion = torch.from_numpy(np.linalg.inv(second.pose) @ first.pose)[None].double()
        depth = torch.from_numpy(first.depth.values)[None, None].double()
        k = torch.from_numpy(first.camera.matrix)[None]
        mine = rigid_flow(depth, k, motion)[0].flip(0).permute(1, 2, 0).numpy()
        known = np.isfinite(first.flow).all(-1) & first.depth.valid
        assert known.mean() > 0.5
        assert np.abs(mine - first.flow)[known].max() < 0.02
        assert np.linalg.norm(first.flow[known], axis=-1).mean() > 0.1
        # And a warped neighbour looks more like the frame than the neighbour itself.
        image, other = (
            torch.from_numpy(shot.frame.image.copy()).permute(2, 0, 1)[None].double() / 255 for shot in (first, second)
        )
        warped, visible = warp_by_depth(other, depth, k, motion)
        mask = visible & torch.from_numpy(known)[None, None]
        assert masked_mean((warped - image).abs(), mask.double()) < 0.8 * masked_mean(
            (other - image).abs(), mask.double()
        )

    def test_shapes_are_checked(self) -> None:
        with pytest.raises(UsageError, match="flow"):
            warp_by_flow(torch.rand(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
        with pytest.raises(UsageError, match="depth"):
            backproject(torch.rand(1, 2, 4, 4), torch.eye(3)[None])
        with pytest.raises(UsageError):
            photometric_distance(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 9))
        with pytest.raises(UsageError):
            edge_aware_smoothness(torch.rand(1, 1, 8, 8), torch.rand(1, 3, 4, 4))


class TestMasks:
    def test_what_leaves_is_not_seen(self) -> None:
        flow = torch.zeros(1, 2, 6, 8)
        flow[:, 1] = 2.0
        weight = splat_weight(flow)
        assert torch.equal(weight[..., :2], torch.zeros(1, 1, 6, 2))
        assert torch.equal(weight[..., 2:], torch.ones(1, 1, 6, 6))
        assert visibility(flow).mean() == 0.75
        assert consistency(flow, -flow)[..., :6].all()
        assert not consistency(flow, flow).any()

    def test_weights_are_kept(self) -> None:
        flow = 0.4 * torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
        flow[..., -1, :] = flow[..., -1] = 0.0
        assert torch.isclose(splat_weight(flow).sum(), torch.tensor(81.0), atol=1e-3)

    def test_static_pictures_are_left_out(self) -> None:
        still = photometric_distance(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16), kind="l1")
        assert auto_mask(still, still).sum() == 0
        assert auto_mask(still * 0.9, still).mean() == 1
        assert 0 < auto_mask(still, still, generator=torch.Generator().manual_seed(0)).mean() < 1

    def test_minimum_ignores_what_one_source_hides(self) -> None:
        one, other = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
        one[..., 2:] = 0.9
        assert minimum_reprojection([one, other]).tolist() == torch.minimum(one, other).tolist()
        assert minimum_reprojection([one]) is one

    def test_empty_mask_is_zero_with_zero_gradient(self) -> None:
        values = torch.rand(1, 1, 4, 4, requires_grad=True)
        masked_mean(values, torch.zeros(1, 1, 4, 4)).backward()
        assert values.grad is not None
        assert not values.grad.any()


class TestMsSsim:
    def test_published_form_ignores_the_mask(self, pair: tuple[Tensor, Tensor]) -> None:
        first, second = (p[:1, :, :192, :192] for p in pair)
        worse = second.clone()
        worse[..., 96:] = 1 - worse[..., 96:]
        left = torch.zeros(1, 1, 192, 192)
        left[..., :40] = 1
        published = [masked_mean(photometric_distance(o, first, mode="reproduce"), left) for o in (second, worse)]
        assert published[1] > published[0] + 0.1
        correct = [masked_mean(photometric_distance(o, first), left) for o in (second, worse)]
        # Only the coarsest windows reach across.
        assert correct[1] < correct[0] + 0.1
        assert correct[1] < 0.5 * published[1]

    def test_map_is_local_and_in_range(self, pair: tuple[Tensor, Tensor]) -> None:
        values = ms_ssim_map(pair[1], pair[0])
        assert values.shape == (2, 1, 256, 320)
        assert bool((values > 0).all())
        assert bool((values <= 1.0001).all())
        assert abs(float(values.mean()) - 0.98) < 0.01

    def test_opposite_pictures_have_a_finite_gradient(self, pair: tuple[Tensor, Tensor]) -> None:
        first = pair[0][:1, :, :192, :192]
        for mode in ("correct", "reproduce"):
            other = (1 - first).clone().requires_grad_()
            photometric_distance(other, first, mode=mode).mean().backward()  # type: ignore[arg-type]
            assert other.grad is not None
            assert bool(torch.isfinite(other.grad).all())

    def test_small_pictures(self) -> None:
        small = torch.rand(1, 3, 100, 180)
        with pytest.raises(UsageError, match="180x100") as caught:
            photometric_distance(small, small, mode="reproduce")
        assert caught.value.error_id == "loss.size"
        assert float(photometric_distance(small, small).max()) < 1e-3
        with pytest.raises(UsageError):
            ms_ssim_map(small[..., :8], small[..., :8])
        with pytest.raises(UsageError):
            photometric_distance(small, small, kind="psnr")  # type: ignore[arg-type]


def rand(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestGradients:
    """Derivatives in float64 against finite differences."""

    def test_warps(self) -> None:
        image, k = rand(0, 1, 2, 5, 6), intrinsics(6, 5)
        depth = (4 + rand(1, 1, 1, 5, 6)).requires_grad_()
        vectors = (0.05 * rand(2, 1, 6)).requires_grad_()

        def by_depth(depth: Tensor, vectors: Tensor) -> Tensor:
            motion = transformation(vectors[:, :3], 4 * vectors[:, 3:])
            return warp_by_depth(image, depth, k, motion)[0]

        assert torch.autograd.gradcheck(by_depth, (depth, vectors))
        flow = (0.2 + 0.5 * rand(3, 1, 2, 5, 6)).requires_grad_()
        assert torch.autograd.gradcheck(lambda image, flow: warp_by_flow(image, flow), (image.requires_grad_(), flow))
        focal = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)

        def by_intrinsics(focal: Tensor) -> Tensor:
            scaled = intrinsics(6, 5) * torch.stack([focal, focal, torch.ones_like(focal)]).view(1, 3, 1)
            return rigid_flow(depth.detach(), scaled, transformation(0.05 * torch.ones(1, 3).double(), rand(8, 1, 3)))

        assert torch.autograd.gradcheck(by_intrinsics, (focal,))

    @pytest.mark.parametrize(("kind", "size"), [("l1", 6), ("ssim", 6), ("ms-ssim", 11)])
    def test_photometric(self, kind: str, size: int) -> None:
        one, other = rand(4, 1, 2, size, size).requires_grad_(), rand(5, 1, 2, size, size)
        # Alike enough for no factor to rest on its floor.
        other = 0.8 * one.detach() + 0.2 * other
        assert torch.autograd.gradcheck(
            lambda one: photometric_distance(one, other, kind=kind).sum(),  # type: ignore[arg-type]
            (one,),
        )

    def test_published_ms_ssim(self) -> None:
        one = rand(6, 1, 1, 176, 176).requires_grad_()
        other = 0.8 * one.detach() + 0.2 * rand(7, 1, 1, 176, 176)
        value = photometric_distance(one, other, mode="reproduce").mean()
        (slope,) = torch.autograd.grad(value, one)
        step = rand(8, 1, 1, 176, 176) - 0.5
        ahead, behind = (
            photometric_distance(one.detach() + e * step, other, mode="reproduce").mean() for e in (1e-5, -1e-5)
        )
        assert float((slope * step).sum()) == pytest.approx(float((ahead - behind) / 2e-5), rel=1e-4)

    def test_smoothness_and_appearance(self) -> None:
        picture, values = rand(9, 1, 3, 4, 5), rand(10, 1, 3, 4, 5).requires_grad_()
        mask = (rand(11, 1, 1, 4, 5) > 0.3).double()
        for loss in (
            lambda v: disparity_smoothness(v[:, :1] + 0.1, picture),
            lambda v: edge_aware_smoothness(v[:, :2], picture),
            plain_smoothness,
            lambda v: transform_smoothness(v, picture, 1 - picture, mask),
            lambda v: transform_constraint(refined_target(0.5 * picture, 0.3 * v, mask), picture, mask),
            lambda v: masked_mean(v, mask),
        ):
            assert torch.autograd.gradcheck(loss, (values,))

    def test_registered_source_gets_none(self) -> None:
        source = torch.rand(1, 3, 4, 5, requires_grad=True)
        mask = torch.ones(1, 1, 4, 5)
        loss = transform_constraint(torch.rand(1, 3, 4, 5, requires_grad=True), source, mask)
        loss = loss + transform_smoothness(torch.rand(1, 3, 4, 5, requires_grad=True), source.detach(), source, mask)
        loss.backward()
        assert source.grad is None


def test_half_precision_does_not_reach_the_coordinates() -> None:
    image = torch.rand(1, 3, 16, 200)
    xy = pixel_grid(16, 200, like=image)[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sample(image, xy).dtype == torch.float32
        assert torch.allclose(sample(image, xy), image, atol=1e-4)


def test_lighting_is_clipped() -> None:
    target, change = torch.full((1, 3, 2, 2), 0.9), torch.full((1, 3, 2, 2), 0.5)
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    lit = refined_target(target, change, mask)
    assert lit[0, 0].tolist() == [[1.0, pytest.approx(0.9)], [1.0, pytest.approx(0.9)]]
