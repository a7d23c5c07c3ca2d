"""Appearance flow: the change of brightness between two views, learnt so that reprojection need not explain it.

An endoscope carries its light, so that a point changes its brightness whenever the camera moves. A network gives the
additive change C that makes the target look as lit as the source.

Source: AF-SfMLearner (Shao et al., Medical Image Analysis 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from endolux.losses.smoothness import _changes
from endolux.losses.visibility import masked_mean
from endolux.losses.warp import exact


def refined_target(target: Tensor, change: Tensor, visible: Tensor) -> Tensor:
    """The target lit as the source: ``clip(target + change * visible, 0, 1)``.

    Args:
        target: N x 3 x H x W in [0, 1].
        change: C, N x 3 x H x W.
        visible: N x 1 x H x W.

    Example:
        >>> refined_target(torch.full((1, 3, 1, 1), 0.75), torch.full((1, 3, 1, 1), 0.5), torch.ones(1, 1, 1, 1)).max()
        tensor(1.)
    """
    return (exact(target) + exact(change) * visible).clamp(0.0, 1.0)


def transform_constraint(refined: Tensor, registered: Tensor, visible: Tensor) -> Tensor:
    """Masked mean of ``mean_c |refined - registered|``; the registered source gets no gradient.

    Args:
        refined: from :func:`refined_target`.
        registered: the source warped by optical flow onto the target, N x 3 x H x W.
        visible: N x 1 x H x W.
    """
    difference = (exact(refined) - exact(registered).detach()).abs().mean(1, keepdim=True)
    return masked_mean(difference, visible)


def transform_smoothness(change: Tensor, target: Tensor, registered: Tensor, visible: Tensor) -> Tensor:
    """Masked mean of ``mean_c |dx C| exp(-mean_c |dx (target - registered)|)``, and the same in y, added.

    Brightness may change abruptly only where the difference that it has to explain does.

    Args:
        change: C, N x 3 x H x W.
        target: N x 3 x H x W.
        registered: the source on the target's grid, without gradient.
        visible: N x 1 x H x W; its last column (row) takes no part in the term in x (y).
    """
    across, down = (each.mean(1, keepdim=True) for each in _changes(exact(change)))
    with torch.no_grad():
        edge_x, edge_y = (each.mean(1, keepdim=True) for each in _changes(exact(target) - exact(registered)))
    term_x = masked_mean(across * torch.exp(-edge_x), visible[..., :-1])
    return term_x + masked_mean(down * torch.exp(-edge_y), visible[..., :-1, :])
