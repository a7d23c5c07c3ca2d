"""Depth as a ratio: the output of Leve and GuideDepth, and the way back to depth."""

from __future__ import annotations

import abc
import copy
import math
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import DepthNetwork
from endolux.models.folding import fold_batchnorm_
from endolux.types import DepthKind

LARGEST_RATIO = 100.0
"""Depths below ``max_depth / 100`` count as ``max_depth / 100``."""


def to_ratio(depth: Tensor, max_depth: float) -> Tensor:
    """``max_depth / depth``, the training target of Leve and GuideDepth.

    Args:
        depth: any shape, in the unit of ``max_depth``; 0 means unknown and stays 0.
        max_depth: depths are clamped to [max_depth / 100, max_depth].

    Returns:
        Ratios in [1, 100], or 0.

    Example:
        >>> to_ratio(torch.tensor([0.0, 0.05, 2.5, 20.0]), 10.0).tolist()
        [0.0, 100.0, 4.0, 1.0]
    """
    ratio = max_depth / depth.clamp(max_depth / LARGEST_RATIO, max_depth)
    return torch.where(depth == 0, torch.zeros_like(ratio), ratio)


def from_ratio(ratio: Tensor, max_depth: float, reproduce: bool = False) -> Tensor:
    """Depth from a ratio.

    Args:
        ratio: any shape; a linear output, so that it may be negative.
        max_depth: depth where the ratio is 1.
        reproduce: as published: a negative ratio gives the *nearest* depth and exactly 0 gives 0. Otherwise everything
            below 1 is far, without a jump.

    Returns:
        Depth in the unit of ``max_depth``.

    Example:
        >>> ratio = torch.tensor([-1.0, 0.0, 0.5, 4.0, 200.0])
        >>> [round(depth, 4) for depth in from_ratio(ratio, 10.0).tolist()]
        [10.0, 10.0, 10.0, 2.5, 0.1]
        >>> [round(depth, 4) for depth in from_ratio(ratio, 10.0, reproduce=True).tolist()]
        [0.1, 0.0, 10.0, 2.5, 0.1]
    """
    if not reproduce:
        return max_depth / ratio.clamp(1.0, LARGEST_RATIO)
    depth = (max_depth / ratio).clamp(max_depth / LARGEST_RATIO, max_depth)
    return torch.where(ratio == 0, torch.zeros_like(depth), depth)


class RatioNetwork(DepthNetwork, abc.ABC):
    """A network whose forward gives the ratio ``max_depth / depth``, linear and without bounds.

    Args:
        max_depth_mm: depth in mm where the ratio is 1; NYU's 10 m, unless trained otherwise.
        reproduce: whether :meth:`depth` treats ratios up to 0 as published; see :func:`from_ratio`.

    Raises:
        UsageError: impossible ``max_depth_mm``.
    """

    kind = DepthKind.METRIC
    multiple = 8

    def __init__(self, *, max_depth_mm: float, reproduce: bool) -> None:
        super().__init__()
        number = isinstance(max_depth_mm, (int, float)) and not isinstance(max_depth_mm, bool)
        if not number or not 0 < max_depth_mm < math.inf:
            raise UsageError(
                f"Impossible network: max_depth_mm={max_depth_mm!r}",
                why="It must be a positive number of millimetres.",
                fix="Use the largest depth of the training data; 10000 for networks published for NYU.",
                error_id="model.config",
            )
        self.max_depth_mm = float(max_depth_mm)
        self.reproduce = bool(reproduce)
        self._fused = False

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        config: dict[str, object] = {"max_depth_mm": self.max_depth_mm}
        if self.reproduce:
            config["reproduce"] = True
        if self._fused:
            config["fused"] = True
        return config

    @override
    def depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.depth`; in mm."""
        return self.depth_of(self(image))

    @override
    def depth_of(self, output: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.depth_of`; in mm."""
        return from_ratio(output.float(), self.max_depth_mm, self.reproduce)

    @override
    def depth_range(self) -> tuple[float, float]:
        """See :meth:`DepthNetwork.depth_range`."""
        return (0.0 if self.reproduce else self.max_depth_mm / LARGEST_RATIO), self.max_depth_mm

    @override
    def discontinuous(self, image: Tensor) -> Tensor | None:
        """See :meth:`DepthNetwork.discontinuous`."""
        return self(image).abs() < 1e-3 if self.reproduce else None

    @override
    @torch.no_grad()
    def fuse(self) -> Self:
        """See :meth:`DepthNetwork.fuse`. The copy is in evaluation mode and without parameters that have no effect."""
        fused = copy.deepcopy(self).eval()
        if not fused._fused:
            fused._fuse_()
        return fused.requires_grad_(False)

    def _fuse_(self) -> None:
        fold_batchnorm_(self)
        self._fused = True

    def check_image(self, image: Tensor) -> None:
        """Refuse what the network cannot take.

        Raises:
            UsageError: ``model.input`` for anything but N x 3 x H x W with sides that are multiples of ``multiple``.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise UsageError(
                f"'{self.architecture}' got an input of shape {tuple(image.shape)}",
                why="It takes N x 3 x H x W, RGB in [0, 1].",
                fix="Add the batch axis, move the channels to the second axis, and drop an alpha channel.",
                error_id="model.input",
            )
        height, width = image.shape[2], image.shape[3]
        if height % self.multiple or width % self.multiple or height < self.multiple or width < self.multiple:
            down_height, down_width = (
                max(self.multiple, side // self.multiple * self.multiple) for side in (height, width)
            )
            raise UsageError(
                f"'{self.architecture}' got an image of {width}x{height} pixels",
                why=f"Both sides must be multiples of {self.multiple}.",
                fix=f"Resize or pad it, for example to {down_width}x{down_height}.",
                error_id="model.input",
            )


def float32_convolution(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply ``conv`` in float32 even under autocast: in bf16 the ratio would move in steps of 0.4 %."""
    kind = x.device.type
    result: Tensor
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        result = conv(x)
    else:
        with torch.autocast(kind, enabled=False):
            result = conv(x.float())
    return result
