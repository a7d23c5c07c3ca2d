"""What guides D2GPLand besides its classes: edge maps, and prototypes that stand apart."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.losses.segmentation import dice_loss

Mode: TypeAlias = Literal["correct", "reproduce"]
TEMPERATURE = 0.07
_LEAST, _NOTHING = 1e-6, -1e4


def edge_loss(edges: Tensor, target: Tensor) -> Tensor:
    """Dice with binary cross-entropy of one map a landmark against its mask, brought to the maps' size bilinearly.

    Args:
        edges: N x L x h x w logits.
        target: N x (1 + L) x H x W, 0 or 1, the background first.

    Source: D2GPLand (arXiv 2406.17858).

    Example:
        >>> target = torch.zeros(1, 2, 8, 8)
        >>> target[:, 1, :, :4] = 1.0
        >>> good = F.interpolate(target[:, 1:], (4, 4)) * 40 - 20
        >>> float(edge_loss(good, target)) < 1e-4 < 1.0 < float(edge_loss(-good, target))
        True
    """
    masks = F.interpolate(target[:, 1:], edges.shape[2:], mode="bilinear", align_corners=False)
    return dice_loss(edges.sigmoid(), masks) + F.binary_cross_entropy_with_logits(edges, masks)


def prototype_loss(
    prototypes: Tensor, depth: Tensor, target: Tensor, *, mode: Mode = "correct", temperature: float = TEMPERATURE
) -> Tensor:
    """NT-Xent between the prototype of each landmark and the features where it is drawn.

    For a prototype, features of its own landmark in the batch are the positives, those of the others the negatives;
    the mean runs over pairs of a prototype and a positive. ``correct``: a feature is the mean over the pixels of a
    landmark, and landmarks that an image does not show have none. ``reproduce``: it is the mean over the channels of
    the masked map, one number a position, and images without the landmark give zeros.

    Args:
        prototypes: L x C.
        depth: N x C x h x w; with ``reproduce``, h * w must be C.
        target: N x (1 + L) x H x W, 0 or 1, the background first.
        mode: which features.
        temperature: what similarities (cosines) are divided by.

    Returns:
        Scalar; 0 where no landmark is shown.

    Source: D2GPLand (arXiv 2406.17858); Chen et al. 2020 (SimCLR) for NT-Xent.

    Example:
        >>> target = torch.zeros(1, 3, 4, 4)
        >>> target[:, 1, 0], target[:, 2, 3] = 1.0, 1.0
        >>> depth = target[:, 1:]
        >>> right, wrong = torch.eye(2), torch.eye(2).flip(0)
        >>> float(prototype_loss(right, depth, target)) < 1e-3 < 10.0 < float(prototype_loss(wrong, depth, target))
        True
    """
    masks = F.interpolate(target[:, 1:], depth.shape[2:], mode="bilinear", align_corners=False)
    masked = depth[:, None] * masks[:, :, None]
    area = masks.sum(dim=(2, 3))
    if mode == "reproduce":
        features, known = masked.mean(dim=2).flatten(2), torch.ones_like(area, dtype=torch.bool)
    else:
        features, known = masked.sum(dim=(3, 4)) / area.clamp_min(_LEAST)[..., None], area > _LEAST
    count = prototypes.shape[0]
    owner = torch.arange(count, device=depth.device).expand(len(depth), count)[known]
    alike = F.normalize(prototypes, dim=1) @ F.normalize(features[known], dim=1).T / temperature
    own = owner[None] == torch.arange(count, device=depth.device)[:, None]
    if not bool(own.any()):
        return (prototypes.sum() + depth.sum()) * 0.0
    # Finite, so that a prototype without negatives has a gradient.
    others = alike.masked_fill(own, _NOTHING).logsumexp(dim=1, keepdim=True)
    return (torch.logaddexp(alike, others) - alike)[own].mean()
