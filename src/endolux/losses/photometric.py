"""How different two pictures look: L1 with SSIM (Monodepth2, AF-SfMLearner) or with MS-SSIM (DARES).

Pictures are N x 3 x H x W in [0, 1]; a distance is a map N x 1 x H x W, so that masks and minima can act on it.

Source: Wang et al. (TIP 2004; Asilomar 2003); Godard et al. (ICCV 2019); DARES (Zeinoddin et al., 2024).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.warp import exact, resize

Kind: TypeAlias = Literal["l1", "ssim", "ms-ssim"]
Mode: TypeAlias = Literal["correct", "reproduce"]

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, finest first."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_FLOOR = 1e-4


def ssim_distance(one: Tensor, other: Tensor) -> Tensor:
    """``clip((1 - SSIM) / 2, 0, 1)`` of 3 x 3 means over a reflected border, N x C x H x W.

    Raises:
        UsageError: ``loss.shape``.

    Example:
        >>> picture = torch.rand(1, 3, 8, 8)
        >>> float(ssim_distance(picture, picture).max()) < 1e-4
        True
    """
    one, other = _checked(one, other)

    channels = one.shape[1]
    # A depth-wise convolution takes a quarter of the time of average pooling on a CPU.
    kernel = one.new_full((channels, 1, 3, 3), 1 / 9)

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.pad(values, (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)

    mean_one, mean_other = mean(one), mean(other)
    spread_one = mean(one * one) - mean_one * mean_one
    spread_other = mean(other * other) - mean_other * mean_other
    shared = mean(one * other) - mean_one * mean_other
    above = (2 * mean_one * mean_other + _C1) * (2 * shared + _C2)
    below = (mean_one.square() + mean_other.square() + _C1) * (spread_one + spread_other + _C2)
    return ((1 - above / below) / 2).clamp(0, 1)


def ms_ssim(one: Tensor, other: Tensor, *, crop_last: bool = True, floor: float = 0.0) -> Tensor:
    """Multi-scale SSIM of each picture, N values: as torchmetrics computes it with data range 1.

    Args:
        one: pictures, at least 176 pixels on the smaller side.
        other: the same shape.
        crop_last: leave the outermost 5 pixels out at the coarsest scale as at the others (torchmetrics up to 1.4);
            False counts them there (1.9).
        floor: smallest value of a scale. With 0, as published, a scale that is not positive gives an infinite
            derivative, and so NaN.

    Raises:
        UsageError: ``loss.shape``, also for pictures that are too small.

    Example:
        >>> picture = torch.rand(2, 3, 176, 176)
        >>> bool(torch.allclose(ms_ssim(picture, picture), torch.ones(2), atol=1e-5))
        True
    """
    one, other = _checked(one, other)
    smallest = _WINDOW * 2 ** (len(BETAS) - 1)
    if min(one.shape[-2:]) < smallest:
        raise UsageError(
            f"MS-SSIM of pictures of {one.shape[-1]}x{one.shape[-2]}",
            why=f"Five scales and a window of {_WINDOW} need {smallest} pixels on the smaller side.",
            fix="Use larger pictures, photometric.mode=correct (as many scales as fit), or photometric.kind=ssim.",
            error_id="loss.size",
        )
    result = one.new_ones(len(one))
    edge = _WINDOW // 2
    for scale, beta in enumerate(BETAS):
        luminance, structure = _similarity(one, other)
        last = scale == len(BETAS) - 1
        values = luminance * structure if last else structure
        if crop_last or not last:
            values = values[..., edge:-edge, edge:-edge]
        result = result * values.mean((1, 2, 3)).clamp(min=floor) ** beta
        if not last:
            one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
    return result


def ms_ssim_map(one: Tensor, other: Tensor) -> Tensor:
    """Multi-scale SSIM of every pixel's neighbourhoods, N x 1 x H x W.

    The factors of every scale are brought to full size bilinearly and multiplied with the published exponents; where
    the pictures are too small for five scales there are as many as fit, their exponents divided by their sum. Factors
    stay above 1e-4, so that the gradient is finite everywhere.

    Raises:
        UsageError: ``loss.shape``; ``loss.size`` below 11 pixels.

    Example:
        >>> picture = torch.rand(1, 3, 40, 48)
        >>> values = ms_ssim_map(picture, picture)
        >>> values.shape, bool((values > 0.999).all())
        (torch.Size([1, 1, 40, 48]), True)
    """
    one, other = _checked(one, other)
    size = (one.shape[-2], one.shape[-1])
    if min(size) < _WINDOW:
        raise UsageError(
            f"MS-SSIM of pictures of {size[1]}x{size[0]}",
            why=f"Its window has {_WINDOW} pixels.",
            fix="Use larger pictures.",
            error_id="loss.size",
        )
    scales = min(len(BETAS), int(math.log2(min(size) / _WINDOW)) + 1)
    betas = [beta / sum(BETAS[:scales]) for beta in BETAS[:scales]]
    logarithm = one.new_zeros(len(one), 1, *size)
    for scale, beta in enumerate(betas):
        luminance, structure = _similarity(one, other)
        values = luminance * structure if scale == scales - 1 else structure
        values = values.clamp(min=_FLOOR).log().mean(1, keepdim=True)
        # Half-pixel centres: a coarse pixel is the mean of an area.
        logarithm = logarithm + beta * resize(values, size, align_corners=False)
        if scale < scales - 1:
            one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
    return logarithm.exp()


def photometric_distance(one: Tensor, other: Tensor, *, kind: Kind = "ms-ssim", mode: Mode = "correct") -> Tensor:
    """The distance that is minimised, N x 1 x H x W.

    Args:
        one: pictures.
        other: the same shape.
        kind: ``l1``; ``ssim``: 0.85 SSIM distance + 0.15 L1 (AF-SfMLearner, EndoDAC, Monodepth2); ``ms-ssim``:
            0.9 (1 - MS-SSIM) + 0.1 L1 (DARES).
        mode: of MS-SSIM. ``reproduce`` takes one number for the whole batch, as published, which no mask or minimum
            can act on (G4); ``correct`` takes :func:`ms_ssim_map`.

    Raises:
        UsageError: ``loss.shape``, ``loss.size``; ``loss.setting`` for an unknown kind.

    Example:
        >>> picture = torch.rand(1, 3, 32, 32)
        >>> float(photometric_distance(picture, picture).max()) < 1e-3
        True
    """
    one, other = _checked(one, other)
    with torch.autocast(one.device.type, enabled=False):
        difference = (one - other).abs().mean(1, keepdim=True)
        if kind == "l1":
            return difference
        if kind == "ssim":
            return 0.85 * ssim_distance(one, other).mean(1, keepdim=True) + 0.15 * difference
        if kind != "ms-ssim":
            raise UsageError(
                f"No photometric distance {kind!r}",
                why="It is l1, ssim or ms-ssim.",
                fix="Use ms-ssim.",
                error_id="loss.setting",
            )
        if mode == "reproduce":
            # The floor lies far below any published value, and keeps a hopeless batch from giving NaN.
            return 0.9 * (1 - ms_ssim(one, other, floor=1e-6).mean()) + 0.1 * difference
        return 0.9 * (1 - ms_ssim_map(one, other)) + 0.1 * difference


def minimum_reprojection(distances: Sequence[Tensor]) -> Tensor:
    """The smallest distance of each pixel over the sources, N x 1 x H x W: what one of them hides, another shows."""
    return torch.stack(list(distances)).amin(0) if len(distances) > 1 else distances[0]


@torch.no_grad()
def auto_mask(reprojected: Tensor, unmoved: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """1 where the warped source is nearer to the target than the source as it is, N x 1 x H x W.

    It leaves out pictures that do not move and what moves with the camera (Godard et al., ICCV 2019).

    Args:
        reprojected: distance of the warped sources (their minimum or mean).
        unmoved: the same of the sources as they are.
        generator: of the noise of 1e-5 that breaks ties, as published; without one, what is nearer by less than 1e-5
            is left out, for it is rounding that decides there.
    """
    noise = torch.full_like(unmoved, -1e-5)
    if generator is not None:
        noise = 1e-5 * torch.randn(unmoved.shape, generator=generator, dtype=unmoved.dtype, device=unmoved.device)
    return (reprojected < unmoved + noise).to(reprojected.dtype)


def _similarity(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps, N x C x H x W, over a reflected border."""
    count, channels = one.shape[:2]
    moments = _blur(torch.cat([one, other, one * one, other * other, one * other], 1))
    mean_one, mean_other, square_one, square_other, product = moments.reshape(
        count, 5, channels, *one.shape[-2:]
    ).unbind(1)
    both = mean_one * mean_other
    spread_one = (square_one - mean_one.square()).clamp(min=0)
    spread_other = (square_other - mean_other.square()).clamp(min=0)
    structure = (2 * (product - both) + _C2) / (spread_one + spread_other + _C2)
    luminance = (2 * both + _C1) / (mean_one.square() + mean_other.square() + _C1)
    return luminance, structure


def _blur(values: Tensor) -> Tensor:
    channels, edge = values.shape[1], _WINDOW // 2
    kernel = _kernel(values.dtype, values.device)
    values = F.pad(values, (edge, edge, edge, edge), mode="reflect")
    values = F.conv2d(values, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(values, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


@functools.lru_cache(maxsize=16)
def _kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    # Not an inference tensor, even if the first to ask is a validation: the backward pass of later calls keeps it.
    with torch.inference_mode(False):
        offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
        weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
        return (weights / weights.sum()).to(dtype=dtype, device=device)


def _checked(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if one.shape != other.shape or one.ndim != 4 or 0 in one.shape:
        raise UsageError(
            f"Pictures of shapes {tuple(one.shape)} and {tuple(other.shape)} are compared",
            why="Both must be the same N x C x H x W, and not empty.",
            fix="Resize one of them first.",
            error_id="loss.shape",
        )
    return exact(one), exact(other)
