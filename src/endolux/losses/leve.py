"""Leve's student loss on depth ratios. One loss a function: N x 1 x H x W tensors in, a scalar out.

The ratio is ``max_depth / depth``: an inverse depth of at least 1, which the network gives without a final activation.
Every function works in float32 whatever the autocast (in float64 if that is what it gets). Without a mask each is the
published formula, in which pixels of unknown depth take part with the target 0. With one, pixels outside it change
nothing, images weigh equally, and an empty mask gives 0 with a zero gradient; a mask that is True everywhere gives
what no mask gives.

Source: A. Drăgan, Leve (Babeș-Bolyai University, 2024), which took it from GuideDepth (Rudolph et al., ICRA 2022) and
DenseDepth (Alhashim and Wonka, 2018).
"""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError

Mode: TypeAlias = Literal["correct", "reproduce"]
"""``reproduce``: as the published code computes it; ``correct``: as the thesis writes it."""

WINDOW = 11
SIGMA = 1.5


def ratio_l1(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference of ratios.

    Args:
        output: ratios of the network, N x 1 x H x W.
        target: true ratios, same shape.
        mask: bool, same shape: pixels that count; None means all.

    Raises:
        UsageError: ``loss.shape`` where shapes differ.

    Example:
        >>> float(ratio_l1(torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 4, 4), 1.0)))
        2.0
    """
    with _exact(output):
        output, target = _checked(output, target, mask)
        return _mean((output - target).abs(), mask)


def gradient_loss(output: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean absolute error of the forward differences in x plus that in y, at one scale.

    The last column has no difference in x and the last row none in y; both still count in the mean, as published.
    With a mask, a difference counts where both its pixels do.

    Shapes and errors as for :func:`ratio_l1`.

    Example:
        >>> ramp = torch.arange(4.0).expand(1, 1, 4, 4)
        >>> float(gradient_loss(ramp + 5.0, ramp)), float(gradient_loss(2.0 * ramp, ramp))
        (0.0, 0.75)
    """
    with _exact(output):
        output, target = _checked(output, target, mask)
        return _gradient(output - target, mask)


def ssim_map(output: Tensor, target: Tensor, *, dynamic_range: float = 10.0, mask: Tensor | None = None) -> Tensor:
    """Structural similarity of every pixel's neighbourhood, in [-1, 1].

    Gaussian window 11 x 11, sigma 1.5, zero padding 5, biased moments (Wang et al., TIP 2004). For maps smaller than
    11 the window shrinks to the smaller side and the padding stays, as published, so that the result is larger than
    the input.

    Args:
        output: ratios of the network, N x 1 x H x W.
        target: true ratios, same shape.
        dynamic_range: L of the constants (0.01 L)^2 and (0.03 L)^2. Published: 10, though ratios go up to 100.
        mask: bool, same shape. Local moments are then weighted means over the pixels inside.

    Returns:
        N x 1 x H x W; 1 outside the mask.

    Raises:
        UsageError: ``loss.shape`` where shapes differ, or where a mask is given for maps smaller than 11;
            ``loss.setting`` for a dynamic range that is not positive.

    Example:
        >>> picture = torch.rand(1, 1, 16, 16)
        >>> bool((ssim_map(picture, picture) > 1 - 1e-5).all())
        True
    """
    with _exact(output):
        output, target = _checked(output, target, mask)
        return _ssim(output, target, dynamic_range, mask)


def ssim_loss(
    output: Tensor,
    target: Tensor,
    *,
    mode: Mode = "correct",
    dynamic_range: float = 10.0,
    mask: Tensor | None = None,
) -> Tensor:
    """``clamp((1 - SSIM) / 2, 0, 1)`` of the mean SSIM; as coded in Leve ``clamp(1 - SSIM / 2, 0, 1)``.

    The coded form is the other plus 0.5, with the same gradient, as long as the mean SSIM is not negative; below 0 it
    saturates at 1 and its gradient vanishes.

    Args and errors as for :func:`ssim_map`; ``mode`` is ``correct`` or ``reproduce``.

    Example:
        >>> picture = torch.rand(1, 1, 16, 16)
        >>> round(float(ssim_loss(picture, picture, mode="reproduce")), 5)
        0.5
    """
    _check_mode(mode)
    with _exact(output):
        output, target = _checked(output, target, mask)
        similarity = _mean(_ssim(output, target, dynamic_range, mask), mask, empty=1.0)
        return _dissimilarity(similarity, mode)


def student_loss(
    output: Tensor,
    target: Tensor,
    *,
    mode: Mode = "correct",
    dynamic_range: float = 10.0,
    mask: Tensor | None = None,
    l1: float = 0.1,
    ssim: float = 1.0,
    gradient: float = 1.0,
) -> dict[str, Tensor]:
    """Leve's loss, ``0.1 l1 + ssim + gradient``, and its parts.

    Args:
        output: ratios of the network, N x 1 x H x W.
        target: true ratios, same shape, 0 where unknown.
        mode: ``correct`` is the thesis's SSIM term, ``reproduce`` the code's, which is larger by 0.5.
        dynamic_range: of the SSIM, see :func:`ssim_map`.
        mask: bool, same shape: pixels that count. None, as published, lets unknown pixels count with the target 0.
        l1: weight of that term.
        ssim: weight of that term.
        gradient: weight of that term.

    Returns:
        ``total`` (differentiable) and the unweighted ``l1``, ``ssim`` and ``gradient``, detached.

    Raises:
        UsageError: see :func:`ssim_map`; ``loss.setting`` for an unknown mode.

    Example:
        >>> ratio = torch.rand(1, 1, 16, 16) * 9 + 1
        >>> abs(round(float(student_loss(ratio, ratio)["total"]), 5))
        0.0
        >>> round(float(student_loss(ratio, ratio, mode="reproduce")["total"]), 5)
        0.5
    """
    _check_mode(mode)
    with _exact(output):
        output, target = _checked(output, target, mask)
        difference = output - target
        parts = {
            "l1": _mean(difference.abs(), mask),
            "ssim": _dissimilarity(_mean(_ssim(output, target, dynamic_range, mask), mask, empty=1.0), mode),
            "gradient": _gradient(difference, mask),
        }
        total = l1 * parts["l1"] + ssim * parts["ssim"] + gradient * parts["gradient"]
    return {"total": total, **{name: part.detach() for name, part in parts.items()}}


def _exact(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _checked(output: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both maps in the precision of the loss; what lies outside the mask replaced by 0, so that it cannot matter."""
    shapes = [tuple(tensor.shape) for tensor in (output, target) + (() if mask is None else (mask,))]
    if len(set(shapes)) != 1 or output.ndim != 4 or output.shape[1] != 1 or 0 in output.shape:
        raise UsageError(
            f"Losses got shapes {', '.join(map(str, shapes))}",
            why="Output, target and mask must all be the same N x 1 x H x W, and not empty.",
            fix="Add the channel axis or resize before the loss.",
            error_id="loss.shape",
        )
    precision = torch.float64 if output.dtype == torch.float64 else torch.float32
    output, target = output.to(precision), target.to(precision)
    if mask is not None:
        # where, not a product: 0 * NaN is NaN, and so would be its gradient.
        output, target = torch.where(mask, output, 0.0), torch.where(mask, target, 0.0)
    return output, target


def _check_mode(mode: str) -> None:
    if mode not in ("correct", "reproduce"):
        raise UsageError(
            f"No mode {mode!r} of Leve's loss",
            why="It is 'correct' (the thesis) or 'reproduce' (the published code).",
            fix="Use mode='correct'.",
            error_id="loss.setting",
        )


def _mean(values: Tensor, mask: Tensor | None, *, empty: float = 0.0) -> Tensor:
    """Mean over all values, or over each image's mask and then over the images that have one."""
    if mask is None:
        return values.mean()
    counts = mask.sum(dim=(1, 2, 3))
    sums = torch.where(mask, values, 0.0).sum(dim=(1, 2, 3))
    means = torch.where(counts > 0, sums / counts.clamp(min=1), 0.0)
    images = (counts > 0).sum()
    return torch.where(images > 0, means.sum() / images.clamp(min=1), empty)


def _gradient(difference: Tensor, mask: Tensor | None) -> Tensor:
    # The difference of differences is the difference of the error: half the work of differencing both maps.
    across = (difference[..., 1:] - difference[..., :-1]).abs()
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs()
    if mask is None:
        return (across.sum() + down.sum()) / difference.numel()
    across = torch.where(mask[..., 1:] & mask[..., :-1], across, 0.0)
    down = torch.where(mask[..., 1:, :] & mask[..., :-1, :], down, 0.0)
    counts = mask.sum(dim=(1, 2, 3))
    means = (across.sum(dim=(1, 2, 3)) + down.sum(dim=(1, 2, 3))) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


def _dissimilarity(similarity: Tensor, mode: Mode) -> Tensor:
    value = 1.0 - 0.5 * similarity if mode == "reproduce" else 0.5 * (1.0 - similarity)
    return value.clamp(0.0, 1.0)


def _ssim(output: Tensor, target: Tensor, dynamic_range: float, mask: Tensor | None) -> Tensor:
    if not 0.0 < dynamic_range < float("inf"):
        raise UsageError(
            f"Impossible dynamic range {dynamic_range}",
            why="The constants of SSIM are (0.01 L)^2 and (0.03 L)^2 with L > 0.",
            fix="Published: 10. The range of the ratios themselves: 100.",
            error_id="loss.setting",
        )
    height, width = output.shape[2:]
    if mask is not None and min(height, width) < WINDOW:
        raise UsageError(
            f"A masked SSIM of {width}x{height} pixels",
            why=f"The window has {WINDOW} pixels; the published form for smaller maps has no place for a mask.",
            fix="Use larger maps, or no mask.",
            error_id="loss.shape",
        )
    o, t = output[:, 0], target[:, 0]
    # Channels last: the depth-wise filter is then several times as fast on a CPU.
    moments = _blur(torch.stack([o, t, o * o, t * t, o * t], dim=-1))
    if mask is not None:
        moments = moments * _blur_weights(mask[:, 0], moments.dtype)
    mean_o, mean_t, square_o, square_t, product = moments.unbind(-1)
    c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
    means, squares = mean_o * mean_t, mean_o * mean_o + mean_t * mean_t
    above = (2.0 * means + c1) * (2.0 * (product - means) + c2)
    below = (squares + c1) * (square_o + square_t - squares + c2)
    similarity = (above / below)[:, None]
    return similarity if mask is None else torch.where(mask, similarity, 1.0)


def _blur_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What turns window sums of a masked map into weighted means, N x H x W x 1; 1 where the window is all inside.

    Relative to the window's weight inside the picture, because the unmasked form counts the padding as zeros.
    """
    with torch.no_grad():
        inside = mask.to(dtype)[..., None]
        whole = _blur(torch.ones_like(inside[:1]))
        return torch.where(mask[..., None], whole / _blur(inside).clamp(min=1e-6), 0.0)


def _blur(maps: Tensor) -> Tensor:
    """Separable Gaussian of N x H x W x C maps, zero padding 5."""
    channels, window = maps.shape[3], min(WINDOW, maps.shape[1], maps.shape[2])
    kernel = _kernel(window, maps.dtype, maps.device)
    padding = WINDOW // 2
    blurred = F.conv2d(
        maps.permute(0, 3, 1, 2),
        kernel.view(1, 1, 1, window).expand(channels, 1, 1, window),
        padding=(0, padding),
        groups=channels,
    )
    blurred = F.conv2d(
        blurred, kernel.view(1, 1, window, 1).expand(channels, 1, window, 1), padding=(padding, 0), groups=channels
    )
    return blurred.permute(0, 2, 3, 1)


@functools.lru_cache(maxsize=16)
def _kernel(window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Centred on window // 2: an even window, which only small maps have, is as lopsided as the published one.
    # Not an inference tensor, even if the first to ask is a validation: the backward pass of later calls keeps it.
    with torch.inference_mode(False):
        offsets = torch.arange(window, dtype=torch.float64) - window // 2
        weights = torch.exp(-offsets.square() / (2.0 * SIGMA**2))
        return (weights / weights.sum()).to(dtype=dtype, device=device)
