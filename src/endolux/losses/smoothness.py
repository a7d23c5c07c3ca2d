"""Maps that change only where the picture does.

Source: Godard et al. (Monodepth, CVPR 2017; Monodepth2, ICCV 2019); AF-SfMLearner (Shao et al., 2022) for flows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.warp import exact


def edge_aware_smoothness(values: Tensor, image: Tensor) -> Tensor:
    """``mean |dx v| exp(-mean_c |dx I|)`` and the same in y, added.

    Args:
        values: N x C x H x W: disparity (see :func:`normalised`) or a flow as it is.
        image: N x 3 x H x W in [0, 1], of the same size.

    Raises:
        UsageError: ``loss.shape`` where sizes differ.

    Example:
        >>> ramp = torch.arange(5.0).expand(1, 1, 5, 5)
        >>> float(edge_aware_smoothness(ramp, torch.zeros(1, 3, 5, 5)))
        1.0
    """
    if values.ndim != 4 or values.shape[-2:] != image.shape[-2:]:
        raise UsageError(
            f"Smoothness of {tuple(values.shape)} under a picture of {tuple(image.shape)}",
            why="Both must be N x C x H x W of one size.",
            fix="Resize the picture to the map.",
            error_id="loss.shape",
        )
    values, image = exact(values), exact(image)
    across, down = _changes(values)
    edge_x, edge_y = (change.mean(1, keepdim=True) for change in _changes(image))
    return (across * torch.exp(-edge_x)).mean() + (down * torch.exp(-edge_y)).mean()


def plain_smoothness(values: Tensor) -> Tensor:
    """``mean |dx v| + mean |dy v|``: what AF-SfMLearner's first stage asks of its flow."""
    across, down = _changes(exact(values))
    return across.mean() + down.mean()


def normalised(disparity: Tensor) -> Tensor:
    """Disparity over its mean in each picture (+ 1e-7), so that shrinking all of it is no way to be smooth.

    Example:
        >>> normalised(torch.full((1, 1, 2, 2), 4.0)).mean().item()
        1.0
    """
    disparity = exact(disparity)
    return disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)


def disparity_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """:func:`edge_aware_smoothness` of the :func:`normalised` disparity."""
    return edge_aware_smoothness(normalised(disparity), image)


def _changes(values: Tensor) -> tuple[Tensor, Tensor]:
    return (values[..., :-1] - values[..., 1:]).abs(), (values[..., :-1, :] - values[..., 1:, :]).abs()
