"""Camera motion from seven plain convolutions: a small pose network for small machines.

Source: Zhou et al. (SfMLearner, CVPR 2017), without its explainability branch; the picture and the difference to its
neighbour go in, instead of both pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

WIDTHS = (16, 32, 64, 128, 256, 256, 256)
_SCALE = 0.01
_CONTRAST = 4.0


class ConvolutionalPose(nn.Module):
    """Two pictures to the motion between them.

    Motions map points of the target's camera to points of the source's, as those of
    :class:`endolux.models.pose_flow.PoseNetwork` do.

    Args:
        widths: channels after each convolution with stride 2.

    Example:
        >>> pose = ConvolutionalPose()
        >>> axisangle, translation = pose(torch.rand(2, 3, 96, 128), torch.rand(2, 3, 96, 128))
        >>> axisangle.shape, translation.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    def __init__(self, *, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = (6, *widths[:-1])
        kernels = (7, 5, *(3 for _ in widths[2:]))
        convolutions = [
            nn.Conv2d(a, b, kernel, 2, kernel // 2) for a, b, kernel in zip(inputs, widths, kernels, strict=True)
        ]
        for convolution in convolutions:
            # The default lets a signal fade by half a layer, so that seven layers in a row answer with their biases.
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        self.convolutions = nn.ModuleList(convolutions)
        # After the mean a matrix does what a 1 x 1 convolution does before it.
        self.head = nn.Linear(widths[-1], 6)

    @override
    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Two N x 3 x H x W RGB in [0, 1] -> axis-angle N x 3 in radians, translation N x 3 in units of depth."""
        # Neighbours are nearly equal: their difference is what tells the motion, and it is small.
        x = torch.cat([target, _CONTRAST * (source - target)], 1)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        motion = _SCALE * self.head(x.mean((2, 3))).float()
        return motion[:, :3], motion[:, 3:]
