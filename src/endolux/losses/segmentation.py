"""Losses of landmark segmentation: Dice with cross-entropy, and relative inverse depth beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError

Mode: TypeAlias = Literal["correct", "reproduce"]
NO_CLASS = 255
"""Label of a pixel that has no class at all."""
_SMOOTH = 1e-5


def one_hot(labels: Tensor, classes: int, size: Sequence[int] | None = None) -> Tensor:
    """Class numbers as planes, at another size by the nearest pixel.

    Args:
        labels: N x H x W, 0 to ``classes - 1``, or ``NO_CLASS``: all planes are 0 there.
        classes: how many.
        size: (height, width) of the result.

    Returns:
        N x classes x h x w float32.

    Raises:
        UsageError: ``loss.labels`` for other numbers.

    Example:
        >>> one_hot(torch.tensor([[[0, 1, 255]]]), 2).tolist()
        [[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]]
    """
    if size is not None and tuple(size) != tuple(labels.shape[1:]):
        labels = F.interpolate(labels[:, None].float(), tuple(size), mode="nearest")[:, 0]
    numbers = labels.long()
    wrong = (numbers >= classes) & (numbers != NO_CLASS) | (numbers < 0)
    if bool(wrong.any()):
        raise UsageError(
            f"A label map holds the number {int(numbers[wrong][0])}",
            why=f"The network has {classes} classes, 0 to {classes - 1}.",
            fix="Correct the labels, or build the network for them (model.config.classes).",
            error_id="loss.labels",
        )
    return torch.stack([numbers == number for number in range(classes)], dim=1).float()


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1e-5) / (sum(p) + sum(t) + 1e-5), the mean over images and all classes.

    Args:
        probabilities: N x C x h x w.
        target: the same shape, 0 or 1.

    Source: D2GPLand's and SRFT-GaLore's code: the background counts as a class.

    Example:
        >>> target = one_hot(torch.tensor([[[0, 1]]]), 2)
        >>> float(dice_loss(target, target)), round(float(dice_loss(1 - target, target)), 3)
        (0.0, 1.0)
    """
    both = (probabilities * target).sum(dim=(2, 3))
    total = probabilities.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
    return (1.0 - (2.0 * both + _SMOOTH) / (total + _SMOOTH)).mean()


def entropy_loss(
    scores: Tensor, target: Tensor, *, mode: Mode = "correct", weights: Sequence[float] | None = None
) -> Tensor:
    """Cross-entropy of the classes, the mean over all pixels that have one.

    With ``reproduce`` it is binary cross-entropy "with logits" of log-probabilities over all pixels and classes, as
    the released code has it: a perfect prediction still costs log(2) / classes.

    Args:
        scores: N x C x h x w.
        target: the same shape, 0 or 1.
        mode: which.
        weights: of each class; only with ``correct``. The mean is then the weighted one.

    Example:
        >>> target = one_hot(torch.tensor([[[0, 1, 2, 3]]]), 4)
        >>> abs(round(float(entropy_loss(100 * target, target)), 4))
        0.0
        >>> round(float(entropy_loss(100 * target, target, mode="reproduce")), 4)
        0.1733
    """
    logarithms = scores.log_softmax(dim=1)
    if mode == "reproduce":
        return F.binary_cross_entropy_with_logits(logarithms, target)
    if weights is not None:
        target = target * target.new_tensor(list(weights)).view(1, -1, 1, 1)
    return -(logarithms * target).sum() / target.sum().clamp_min(_SMOOTH)


def inverse_depth_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference after each map has median 0 and mean absolute deviation 1; unknown pixels count not.

    Args:
        predicted: N x 1 x h x w, of any scale and shift.
        target: N x 1 x H x W, NaN where unknown; resized to the prediction by the nearest pixel.

    Returns:
        Scalar; 0 where nothing is known.

    Source: Ranftl et al. 2020 (MiDaS, arXiv 1907.01341), section 5.

    Example:
        >>> target = torch.rand(2, 1, 8, 8)
        >>> float(inverse_depth_loss(3.0 * target + 5.0, target)) < 1e-5
        True
    """
    if target.shape[2:] != predicted.shape[2:]:
        target = F.interpolate(target, predicted.shape[2:], mode="nearest")
    total, images = predicted.sum() * 0.0, 0
    for output, truth in zip(predicted.float(), target, strict=True):
        known = torch.isfinite(truth)
        if int(known.sum()) < 2 or float(truth[known].max() - truth[known].min()) <= 0.0:
            continue
        total = total + (_normalised(output[known]) - _normalised(truth[known])).abs().mean()
        images += 1
    return total / max(1, images)


def _normalised(values: Tensor) -> Tensor:
    centred = values - values.median()
    return centred / centred.abs().mean().clamp_min(1e-6)
