"""What of a target picture another view can show: masks from optical flow.

Source: AF-SfMLearner (Shao et al., Medical Image Analysis 2022); the forward-backward check is that of Sundaram et al.
(ECCV 2010) and UnFlow (Meister et al., AAAI 2018).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from endolux.losses.warp import exact, pixel_grid, warp_by_flow

Mode: TypeAlias = Literal["correct", "reproduce"]


def splat_weight(flow: Tensor) -> Tensor:
    """How much of another picture lands on each pixel of this one, when every pixel of it goes where its flow points.

    Args:
        flow: from the other picture, N x 2 x H x W, (dy, dx) in pixels.

    Returns:
        N x 1 x H x W, sums of bilinear weights: 1 where the flow is zero, 0 where nothing lands.

    Example:
        >>> splat_weight(torch.zeros(1, 2, 2, 3)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    flow = exact(flow)
    count, _, height, width = flow.shape
    xy = pixel_grid(height, width, like=flow) + flow.flip(1)
    corner = xy.floor()
    share = xy - corner
    total = flow.new_zeros(count, height * width)
    for down in (0, 1):
        for right in (0, 1):
            x, y = corner[:, 0] + right, corner[:, 1] + down
            weight = (share[:, 0] if right else 1.0 - share[:, 0]) * (share[:, 1] if down else 1.0 - share[:, 1])
            inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long()
            total.scatter_add_(1, place.flatten(1), torch.where(inside, weight, 0.0).flatten(1))
    return total.reshape(count, 1, height, width)


@torch.no_grad()
def visibility(backward_flow: Tensor, *, threshold: float = 0.95) -> Tensor:
    """1 where more than ``threshold`` of another picture lands, 0 elsewhere: N x 1 x H x W, without gradient.

    Args:
        backward_flow: run on (target, source): where pixels of the source lie in the target, N x 2 x H x W, (dy, dx).
        threshold: published 0.95.
    """
    return (splat_weight(backward_flow) > threshold).to(exact(backward_flow).dtype)


@torch.no_grad()
def consistency(forward_flow: Tensor, backward_flow: Tensor, *, relative: float = 0.01, slack: float = 0.5) -> Tensor:
    """1 where going there and back ends near the start, N x 1 x H x W; the published code computes one and drops it.

    Args:
        forward_flow: from this picture into the other, N x 2 x H x W.
        backward_flow: from the other into this one.
        relative: r in ``|f + b|^2 < r (|f|^2 + |b|^2) + s``.
        slack: s, in pixels squared.

    Example:
        >>> flow = torch.full((1, 2, 4, 4), 1.0)
        >>> consistency(flow, -flow).mean().item(), consistency(flow, flow).mean().item()
        (1.0, 0.0)
    """
    forward_flow, backward_flow = exact(forward_flow), exact(backward_flow)
    there = warp_by_flow(backward_flow, forward_flow)
    gap = (forward_flow + there).square().sum(1, keepdim=True)
    size = forward_flow.square().sum(1, keepdim=True) + there.square().sum(1, keepdim=True)
    return (gap < relative * size + slack).to(gap.dtype)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """``sum(values * mask) / sum(mask)`` over everything, 0 with a zero gradient where the mask is empty.

    Args:
        values: N x C x H x W, or a scalar, which the mask leaves as it is.
        mask: N x 1 x H x W of weights.
    """
    weight = mask.expand_as(values) if values.ndim == mask.ndim else mask
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)
