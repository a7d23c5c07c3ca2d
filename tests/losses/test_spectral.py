"""Spectral term: properties P1-P4 and P6-P11 of its specification, bands, wavelets, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from endolux.errors import UsageError
from endolux.losses import BAND_WEIGHTS, band_residuals, band_schedule, canonical, spatial, spectral

FORMS = [("energy", "fourier"), ("amplitude", "fourier"), ("energy", "haar"), ("amplitude", "haar")]
TRANSFORMS = ("fourier", "haar")
EDGES = torch.tensor([1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4])
FREQUENCY = (torch.fft.fftfreq(256)[:, None].square() + torch.fft.rfftfreq(320).square()).sqrt()
BANDS = torch.bucketize(FREQUENCY, EDGES, right=True)
SMALL = torch.rand(2, 1, 32, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def only(maps: torch.Tensor, band: int) -> torch.Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(maps) * (band == BANDS), s=(256, 320))


@pytest.mark.parametrize(("form", "transform"), FORMS)
def test_p1_p2_p3(form, transform, scene):
    disparity, mask = scene
    student = disparity.clone().requires_grad_()
    teacher = canonical(disparity, mask)
    loss = spectral(canonical(student, mask), teacher, mask, form=form, transform=transform)
    loss.backward()
    assert loss == 0.0
    assert torch.isfinite(student.grad).all()
    assert spectral(canonical(3.7 * disparity, mask), teacher, mask, form=form, transform=transform) < 1e-10
    shifted = canonical(disparity + 0.1 * disparity.median(), mask)
    assert spectral(shifted, teacher, mask, form=form, transform=transform) > 0.005


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_p4_garbage_outside_the_mask(transform):
    mask = torch.ones_like(SMALL, dtype=torch.bool)
    mask[..., :8, 30:] = False
    student = SMALL.flip(-1).clone().requires_grad_()
    loss = spectral(torch.where(mask, student, torch.nan), torch.where(mask, SMALL, 1e9), mask, transform=transform)
    assert loss == spectral(student, SMALL, mask, transform=transform)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[~mask].any()


def test_p5_a_constant_moves_the_lowest_band_only(texture):
    rho = band_residuals(texture + 0.5 * texture.std(), texture)[0]
    assert rho[0] > 0.02
    assert rho[1] < 0.1 * rho[0]  # the window's own width
    assert rho[2:].max() < 1e-3 * rho[0]


def test_p6_a_common_permutation_is_seen(scene):
    disparity, mask = scene
    order = torch.randperm(256 * 320, generator=torch.Generator().manual_seed(1))
    teacher = canonical(disparity, mask)
    student = canonical(disparity.roll(3, -1), mask)
    shuffled = [maps.flatten(2)[..., order].view_as(maps) for maps in (student, teacher)]
    assert not torch.isclose(spectral(*shuffled), spectral(student, teacher), rtol=0.1)


@pytest.mark.parametrize("band", range(6))
def test_p7_a_residual_of_one_band_moves_that_band(band, texture):
    rho = band_residuals(texture + 0.5 * only(texture, band), texture)[0]
    assert 0.21 < rho[band] < 0.255  # planted: 0.25
    others = torch.cat([rho[:band], rho[band + 1 :]])
    assert others.max() <= 0.056
    far = [float(rho[other]) for other in range(6) if abs(other - band) > 2]
    assert max(far, default=0.0) < 1e-3


def test_p7_for_wavelets_with_a_residual_of_one_octave():
    blocks = torch.rand(1, 1, 8, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    for octave in range(1, 6):
        half = 2 ** (octave - 1)
        pattern = torch.kron(sign, torch.ones(half, half, dtype=torch.float64))
        residual = torch.kron(torch.ones(128 // (2 * half), 160 // (2 * half), dtype=torch.float64), pattern)
        teacher = torch.nn.functional.interpolate(blocks, (128, 160), mode="bilinear")
        teacher = teacher + 0.1 * torch.rand(128, 160, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        rho = band_residuals(teacher + 0.1 * residual, teacher, transform="haar")[0]
        assert rho[6 - octave] > 1e-3
        assert torch.cat([rho[: 6 - octave], rho[7 - octave :]]).max() < 1e-12


def test_p8_scrambled_phase_is_caught(texture):
    generator = torch.Generator().manual_seed(0)
    phase = torch.fft.rfft2(torch.randn(256, 320, generator=generator, dtype=torch.float64))
    scrambled = torch.fft.irfft2(torch.fft.rfft2(texture).abs() * phase / phase.abs(), s=(256, 320))
    apart = (torch.fft.rfft2(scrambled).abs() - torch.fft.rfft2(texture).abs()).abs().max()
    assert apart < 1e-6  # an amplitude-only distance sees nothing
    assert abs(float(spectral(scrambled, texture)) - 1.01) < 0.1


@pytest.mark.parametrize(("form", "transform"), FORMS)
def test_p9_monotone_in_every_band(form, transform, texture):
    for band in (1, 3, 5):
        residual = only(texture, band)
        losses = [
            float(spectral(texture + factor * residual, texture, form=form, transform=transform))
            for factor in (0.0, 0.5, 1.0, 2.0, 4.0)
        ]
        assert losses == sorted(losses)
        assert len(set(losses)) == 5


def test_p10_p11_errors_spread_so_outliers_must_be_masked_first(scene):
    disparity, mask = scene
    wrong = torch.rand(disparity.shape, generator=torch.Generator().manual_seed(0)) < 0.08
    teacher = canonical(disparity, mask)
    loss = spectral(canonical(torch.where(wrong, 2 * disparity, disparity), mask), teacher, mask)
    assert 0.7 < loss < 1.0  # 0.85, against 0.05 of the gradient term


def test_4_5_what_spectral_sees_best(scene):
    disparity, mask = scene
    teacher = canonical(disparity, mask)
    offsets = torch.arange(-8.0, 9.0, dtype=torch.float64)
    kernel = torch.exp(-offsets.square() / 8.0)
    kernel = kernel / kernel.sum()
    blurred = torch.nn.functional.pad(disparity, (8, 8, 8, 8), mode="replicate")
    blurred = torch.nn.functional.conv2d(blurred, kernel.view(1, 1, 1, -1))
    blurred = canonical(torch.nn.functional.conv2d(blurred, kernel.view(1, 1, -1, 1)), mask)
    assert 0.15 < spectral(blurred, teacher, mask) < 0.3  # 0.219
    assert spectral(blurred, teacher, mask) > 20 * spatial(blurred, teacher, mask)
    moved = canonical(disparity.roll(3, -1), mask)
    assert 0.35 < spectral(moved, teacher, mask) < 0.6  # 0.462
    y, x = torch.arange(256.0)[:, None], torch.arange(320.0)
    false = torch.sin(0.7 * x + 2 * torch.sin(0.05 * y)) * torch.sin(0.3 * y)
    textured = canonical(disparity * (1 + 0.02 * false / false.abs().mean()), mask)
    low = torch.sin(2 * math.pi * x / 320) * torch.cos(2 * math.pi * y / 256)
    bumped = canonical(disparity * (1 + 0.02 * low / low.abs().mean()), mask)
    assert 0.08 < spectral(textured, teacher, mask) < 0.12  # 0.100
    assert spectral(textured, teacher, mask) > 40 * spectral(bumped, teacher, mask)  # 49


def test_relative_residual_of_gain_and_blank_is_its_closed_form(texture):
    rho = band_residuals(torch.cat([1.5 * texture, 0 * texture]), torch.cat([texture, texture]))
    assert torch.allclose(rho[0], torch.full_like(rho[0], 0.25), rtol=0.02)
    assert torch.allclose(rho[1], torch.ones_like(rho[1]), rtol=0.02)
    assert torch.isclose(spectral(0 * texture, texture), torch.tensor(math.log(2.0), dtype=torch.float64), rtol=0.01)


def test_schedule_and_merged_bands_keep_the_total_weight():
    assert math.isclose(sum(BAND_WEIGHTS), 1.0)
    assert BAND_WEIGHTS[5] == BAND_WEIGHTS[0] / 2
    assert [sum(w > 0 for w in band_schedule(e)) for e in (0.9, 1, 1.5, 3.5)] == [0, 1, 2, 6]
    assert band_schedule(5) == BAND_WEIGHTS
    for size, bands in (((256, 320), 6), ((64, 80), 5), ((32, 40), 4), ((16, 16), 3)):
        teacher = torch.rand(1, 1, *size)
        assert band_residuals(teacher.flip(-1), teacher).shape == (1, bands)
        assert torch.isclose(spectral(0 * teacher, teacher), torch.tensor(math.log(2.0)), rtol=0.01)
    assert spectral(0 * SMALL, SMALL, weights=(0,) * 6) == 0.0


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_images_without_pixels_or_relief_are_left_out(transform):
    mask = torch.ones(3, 1, 32, 40, dtype=torch.bool)
    mask[1] = False
    teacher = torch.cat([SMALL[:1], SMALL[:1], torch.zeros_like(SMALL[:1])])
    student = SMALL[1:].repeat(3, 1, 1, 1).requires_grad_()
    loss = spectral(student, teacher, mask, transform=transform)
    loss.backward()
    assert torch.isclose(loss, spectral(SMALL[1:], SMALL[:1], transform=transform))
    assert torch.isfinite(student.grad).all()
    assert not student.grad[1:].any()
    assert torch.isnan(band_residuals(student, teacher, mask, transform=transform)[1:]).all()


@pytest.mark.parametrize(("form", "transform"), FORMS)
def test_gradcheck_and_autocast(form, transform):
    student, teacher = SMALL[..., :12, :10].clone().requires_grad_(), SMALL[..., 12:24, 10:20]
    assert torch.autograd.gradcheck(lambda s: spectral(s, teacher, form=form, transform=transform), (student,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = spectral(SMALL.bfloat16(), SMALL.flip(-1).bfloat16(), form=form, transform=transform)
    assert half.dtype == torch.float32
    assert torch.isclose(half.double(), spectral(SMALL, SMALL.flip(-1), form=form, transform=transform), rtol=0.02)


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"precision": torch.float16}, "loss.precision"),
        ({"precision": torch.bfloat16}, "loss.precision"),
        ({"mask": torch.zeros_like(SMALL, dtype=torch.bool)}, "loss.mask"),
        ({"mask": torch.arange(40).expand(2, 1, 32, 40) < 3}, "loss.mask"),
        ({"form": "phase"}, "loss.setting"),
        ({"transform": "cosine"}, "loss.setting"),
        ({"weights": (1.0,)}, "loss.setting"),
        ({"weights": (1.0, 1.0, 1.0, 1.0, 1.0, -1.0)}, "loss.setting"),
        ({"teacher": SMALL[:1]}, "loss.shape"),
    ],
)
def test_refusals(change, error_id):
    # Three columns at the border are less than half of the 9 pixels that erosion asks for.
    with pytest.raises(UsageError) as caught:
        spectral(**{"student": SMALL, "teacher": SMALL.flip(-1), **change})
    assert caught.value.error_id == error_id
    assert len(caught.value.lines()) == 3
