"""Losses on log depth. One loss a function: N x 1 x H x W float tensors and a bool mask in, a scalar out.

Every function works in float32 whatever the autocast, ignores pixels outside the mask, weighs each image of a batch
equally, and gives 0 with a zero gradient for an empty mask.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from endolux.errors import UsageError

_TINY = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much of each loss :func:`depth_loss` adds up.

    Attributes:
        silog: of :func:`scale_invariant_log`.
        gradient: of :func:`gradient_matching`.
        anchor: of :func:`log_l1`; small, it only keeps the values near millimetres.
        variance_focus: lambda of the scale-invariant loss.
    """

    silog: float = 1.0
    gradient: float = 0.5
    anchor: float = 0.1
    variance_focus: float = 0.85


def scale_invariant_log(log_depth: Tensor, log_truth: Tensor, valid: Tensor, *, variance_focus: float = 0.85) -> Tensor:
    """Root of ``mean(d^2) - lambda mean(d)^2`` with d the difference of log depths, averaged over images.

    Eigen et al. (NeurIPS 2014, equation 4) with the root of Lee et al. (BTS, 2019), which keeps the gradient from
    fading as the error shrinks. With lambda 1 a factor on the depth changes nothing; 0.85 still asks for 15 % of it.

    Args:
        log_depth: prediction, N x 1 x H x W.
        log_truth: truth, same shape; anything finite outside the mask.
        valid: bool, same shape.
        variance_focus: lambda, in [0, 1].

    Raises:
        UsageError: shapes differ.

    Example:
        >>> truth = torch.rand(2, 1, 4, 4)
        >>> valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        >>> float(scale_invariant_log(truth + 0.7, truth, valid, variance_focus=1.0)) < 2e-3
        True
    """
    difference, weight, count = _masked_difference(log_depth, log_truth, valid)
    # Around the mean first: mean(d^2) - mean(d)^2 cancels to rounding noise, even below 0, where the factor is large.
    mean = difference.sum(dim=(1, 2, 3), keepdim=True) / count
    spread = ((difference - mean) * weight).square().sum(dim=(1, 2, 3), keepdim=True) / count
    inner = spread + (1.0 - variance_focus) * mean.square()
    root = torch.sqrt(inner + _TINY) - _TINY**0.5
    return _mean_over_images(root, weight)


def log_l1(log_depth: Tensor, log_truth: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference of log depths: close to the absolute relative error, and not scale-invariant.

    Shapes as for :func:`scale_invariant_log`.

    Example:
        >>> truth, valid = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)
        >>> round(float(log_l1(truth + 0.1, truth, valid)), 4)
        0.1
    """
    difference, weight, count = _masked_difference(log_depth, log_truth, valid)
    return _mean_over_images(difference.abs().sum(dim=(1, 2, 3), keepdim=True) / count, weight)


def gradient_matching(log_depth: Tensor, log_truth: Tensor, valid: Tensor, *, scales: int = 4) -> Tensor:
    """Mean absolute x and y differences of the log-depth error, over subsampled scales 1, 2, 4, ...

    Li and Snavely (MegaDepth, CVPR 2018, equation 3); also in MiDaS (Ranftl et al., TPAMI 2022, equation 11). It
    punishes boundaries at the wrong place and bumps that are not there. A factor on the depth changes nothing.

    Shapes as for :func:`scale_invariant_log`; pairs of pixels count where both are valid.

    Example:
        >>> truth, valid = torch.rand(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
        >>> float(gradient_matching(truth + 2.0, truth, valid)) < 1e-5
        True
    """
    difference, weight, _ = _masked_difference(log_depth, log_truth, valid)
    total = difference.new_zeros(())
    for scale in range(scales):
        step = 2**scale
        error, mask = difference[:, :, ::step, ::step], weight[:, :, ::step, ::step]
        across, down = mask[..., 1:] * mask[..., :-1], mask[..., 1:, :] * mask[..., :-1, :]
        change_x = (error[..., 1:] - error[..., :-1]).abs() * across
        change_y = (error[..., 1:, :] - error[..., :-1, :]).abs() * down
        pairs = (across.sum(dim=(1, 2, 3)) + down.sum(dim=(1, 2, 3))).clamp(min=1.0)
        changes = (change_x.sum(dim=(1, 2, 3)) + change_y.sum(dim=(1, 2, 3))) / pairs
        total = total + _mean_over_images(changes, mask)
    return total


def depth_loss(log_depth: Tensor, depth: Tensor, *, weights: LossWeights | None = None) -> dict[str, Tensor]:
    """The training loss and its parts.

    Args:
        log_depth: prediction, N x 1 x H x W.
        depth: truth in millimetres, same shape; 0 or not finite where there is none.
        weights: how much of each; ``LossWeights()`` by default.

    Returns:
        ``total`` (differentiable) and the unweighted ``silog``, ``gradient`` and ``anchor``.

    Example:
        >>> depth = torch.full((1, 1, 16, 16), 30.0)
        >>> float(depth_loss(depth.log(), depth)["total"])
        0.0
    """
    weights = weights or LossWeights()
    valid = torch.isfinite(depth) & (depth > 0)
    log_truth = torch.where(valid, depth, 1.0).float().log()
    parts = {
        "silog": scale_invariant_log(log_depth, log_truth, valid, variance_focus=weights.variance_focus),
        "gradient": gradient_matching(log_depth, log_truth, valid),
        "anchor": log_l1(log_depth, log_truth, valid),
    }
    total = weights.silog * parts["silog"] + weights.gradient * parts["gradient"] + weights.anchor * parts["anchor"]
    return {"total": total, **{name: part.detach() for name, part in parts.items()}}


def _masked_difference(log_depth: Tensor, log_truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Difference (0 outside the mask), the mask as float, and pixels per image (at least 1, N x 1 x 1 x 1)."""
    if not (log_depth.shape == log_truth.shape == valid.shape and log_depth.ndim == 4):
        raise UsageError(
            f"Losses got shapes {tuple(log_depth.shape)}, {tuple(log_truth.shape)} and {tuple(valid.shape)}",
            why="Prediction, truth and mask must all be the same N x 1 x H x W.",
            fix="Add the channel axis or resize before the loss.",
            error_id="loss.shape",
        )
    # where, not a product: 0 * NaN is NaN, and so would be its gradient.
    difference = torch.where(valid, log_depth.float() - log_truth.float(), 0.0)
    weight = valid.float()
    return difference, weight, weight.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1.0)


def _mean_over_images(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of per-image values over the images that have a valid pixel at all."""
    images = (weight.sum(dim=(1, 2, 3)) > 0).sum().clamp(min=1)
    return values.sum() / images
