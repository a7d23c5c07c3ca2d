"""Camera motion from where the parts of a picture have gone: a pose network that learns within some hundred steps.

Convolutions on two pictures have to find out first that motion is displacement. Here features of the two pictures are
compared at every displacement within a window (a cost volume, Dosovitskiy et al., FlowNet, ICCV 2015), and what comes
of it is averaged with weights 1, x, y, x2, xy, y2: the flow of a moving camera before a plane is a polynomial of these
(Longuet-Higgins and Prazdny, 1980).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

ROWS = 64
"""Rows of the pictures that are compared: larger ones are made smaller, so that a window holds larger motions."""
REACH = 4
"""Largest displacement, in quarters of such a picture's pixels."""

_STRIDE, _MOMENTS = 4, 6
_SCALE = 0.03
_SHARPNESS = 20.0
_PEAK = 8.0


class CorrelationPose(nn.Module):
    """Two pictures to the motion between them.

    Motions map points of the target's camera to points of the source's, as those of
    :class:`endolux.models.pose_flow.PoseNetwork` do.

    Args:
        channels: of the features that are compared.
        width: channels of what is averaged.

    Example:
        >>> pose = CorrelationPose()
        >>> axisangle, translation = pose(torch.rand(2, 3, 96, 128), torch.rand(2, 3, 96, 128))
        >>> axisangle.shape, translation.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    def __init__(self, *, channels: int = 24, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, channels, 3, 2, 1))
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        places = (2 * REACH + 1) ** 2
        self.reading = nn.Sequential(
            nn.Conv2d(places + 2, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, width, 3, 1, 1), nn.ReLU()
        )
        self.head = nn.Linear(_MOMENTS * (width + 2), 6)
        # Before it has learnt anything it moves little, and in no direction always.
        nn.init.zeros_(self.head.bias)

    @override
    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Two N x 3 x H x W RGB in [0, 1] -> axis-angle N x 3 in radians, translation N x 3 in units of depth."""
        source, target = self._small(source), self._small(target)
        probability = self._matches(self._described(source), self._described(target))
        flow = torch.einsum("kp,nphw->nkhw", _displacements(probability), probability)
        read = torch.cat([self.reading(torch.cat([_PEAK * probability, flow], 1)), flow], 1)
        moments = torch.einsum("nkhw,bhw->nkb", read, _polynomials(read)).flatten(1)
        motion = _SCALE * self.head(moments).float()
        return motion[:, :3], motion[:, 3:]

    def _small(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        if height <= ROWS:
            return picture
        columns = max(round(width * ROWS / height / _STRIDE), 1) * _STRIDE
        return F.interpolate(picture, (ROWS, columns), mode="area")

    def _described(self, picture: Tensor) -> Tensor:
        found: Tensor = self.features(picture - picture.mean((2, 3), keepdim=True))
        return F.normalize(found - found.mean((2, 3), keepdim=True), dim=1)

    def _matches(self, source: Tensor, target: Tensor) -> Tensor:
        """How likely each displacement is, N x (2 REACH + 1) ** 2 x h x w, rows before columns."""
        height, width = target.shape[-2:]
        padded = F.pad(source, (REACH,) * 4, mode="replicate")
        similar = [
            (target * padded[:, :, y : y + height, x : x + width]).sum(1)
            for y in range(2 * REACH + 1)
            for x in range(2 * REACH + 1)
        ]
        return torch.softmax(self.sharpness * torch.stack(similar, 1), 1)


def _displacements(like: Tensor) -> Tensor:
    """2 x (2 REACH + 1) ** 2: columns and rows of every place in the window."""
    steps = torch.arange(-REACH, REACH + 1, dtype=like.dtype, device=like.device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()])


def _polynomials(like: Tensor) -> Tensor:
    """6 x h x w weights of a mean; the picture is three wide."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5 - height / 2) * (3 / width),
        (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5 - width / 2) * (3 / width),
        indexing="ij",
    )
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y]) / (height * width)
