"""Networks whose output is a sigmoid between two disparities, at several scales in training."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import DepthNetwork
from endolux.models.folding import fold_batchnorm_
from endolux.types import DepthKind


def scaled_disparity(fraction: Tensor, minimum: float, maximum: float) -> Tensor:
    """Disparity between ``1 / maximum`` and ``1 / minimum`` of what a sigmoid gave (Godard et al., ICCV 2019).

    Args:
        fraction: any shape, between 0 and 1.
        minimum: smallest depth, in any unit.
        maximum: largest depth, in the same unit.

    Returns:
        Inverse depth in 1 / unit, the shape of ``fraction``.

    Example:
        >>> fractions = torch.tensor([0, 0.25, 0.5, 1], dtype=torch.float64)
        >>> [round(depth, 6) for depth in (1 / scaled_disparity(fractions, 0.1, 150.0)).tolist()]
        [150.0, 0.399202, 0.199867, 0.1]
    """
    nearest, farthest = 1.0 / minimum, 1.0 / maximum
    return farthest + (nearest - farthest) * fraction


def sigmoid_disparity(logits: Tensor, depth_min: float, depth_max: float) -> Tensor:
    """:func:`scaled_disparity` of logits, in float32.

    Args:
        logits: any shape.
        depth_min: smallest depth, in any unit.
        depth_max: largest depth, in the same unit.

    Returns:
        Float32 inverse depth in 1 / unit, the shape of ``logits``.

    Example:
        >>> depth = 1 / sigmoid_disparity(torch.tensor([-200.0, 0.0, 200.0]), 0.1, 150.0)
        >>> [round(each, 3) for each in depth.tolist()]
        [150.0, 0.2, 0.1]
    """
    return scaled_disparity(torch.sigmoid(logits.float()), depth_min, depth_max)


def logit_of_depth(depth: float, depth_min: float, depth_max: float) -> float:
    """The logit that :func:`sigmoid_disparity` turns into ``1 / depth``, to start training from a sensible depth.

    Example:
        >>> logit = logit_of_depth(20.0, 1.0, 400.0)
        >>> round(float(1 / sigmoid_disparity(torch.tensor(logit), 1.0, 400.0)), 3)
        20.0
    """
    share = (1.0 / depth - 1.0 / depth_max) / (1.0 / depth_min - 1.0 / depth_max)
    return math.log(share / (1.0 - share))


class DisparityNetwork(DepthNetwork, abc.ABC):
    """A network whose heads give the sigmoid of :func:`sigmoid_disparity`; :meth:`forward` gives depth.

    Args:
        depth_min_mm, depth_max_mm: range of the depth; near millimetres, the kind stays relative depth.

    Raises:
        UsageError: ``model.config`` for an impossible range.
    """

    kind = DepthKind.RELATIVE_DEPTH
    multiple = 16

    def __init__(self, *, depth_min_mm: float, depth_max_mm: float) -> None:
        super().__init__()
        numbers = all(
            isinstance(value, (int, float)) and not isinstance(value, bool) for value in (depth_min_mm, depth_max_mm)
        )
        if not numbers or not 0 < depth_min_mm < depth_max_mm < math.inf:
            raise UsageError(
                f"Impossible network: depth_min_mm={depth_min_mm!r}, depth_max_mm={depth_max_mm!r}",
                why="It must be 0 < depth_min_mm < depth_max_mm.",
                fix="Use the smallest and largest depth that the training data can hold.",
                error_id="model.config",
            )
        self.depth_min_mm, self.depth_max_mm = float(depth_min_mm), float(depth_max_mm)
        self._fused = False

    @abc.abstractmethod
    def with_logits(
        self, image: Tensor, names: Sequence[str], *, sides: bool
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Logits of the disparity, finest (every pixel) first, and maps by name, in one pass.

        Args:
            image: N x 3 x H x W RGB in [0, 1].
            names: of :meth:`feature_names`.
            sides: whether the coarser heads are evaluated too, where the network has them.
        """

    @abc.abstractmethod
    def _fuse_(self) -> None:
        """Fold in place what is not BatchNorm, and drop what inference does not need."""

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        config: dict[str, object] = {"depth_min_mm": self.depth_min_mm, "depth_max_mm": self.depth_max_mm}
        return {**config, **({"fused": True} if self._fused else {})}

    @override
    def depth_range(self) -> tuple[float, float]:
        """See :meth:`DepthNetwork.depth_range`."""
        return self.depth_min_mm, self.depth_max_mm

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Depth; see :meth:`DepthNetwork.forward`."""
        return self.depth(image)

    @override
    def depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.depth`."""
        return 1.0 / self._disparity(image)

    @override
    def log_depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.log_depth`."""
        return -self._disparity(image).log()

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`."""
        self._check_features(names)
        logits, maps = self._logits(image, names, sides=False)
        return 1.0 / self._between(logits[0]), maps

    @override
    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_disparities`."""
        self._check_features(names)
        logits, maps = self._logits(image, names, sides=True)
        return tuple(self._between(each) for each in logits), maps

    @override
    @torch.no_grad()
    def fuse(self) -> Self:
        """See :meth:`DepthNetwork.fuse`. The copy is in evaluation mode and without what only training needs."""
        fused = copy.deepcopy(self).eval()
        if not fused._fused:
            fused._fold_()
        return fused.requires_grad_(False)

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
            fits = [max(self.multiple, side // self.multiple * self.multiple) for side in (width, height)]
            raise UsageError(
                f"'{self.architecture}' got an image of {width}x{height} pixels",
                why=f"Both sides must be multiples of {self.multiple}.",
                fix=f"Resize or pad it, for example to {fits[0]}x{fits[1]}.",
                error_id="model.input",
            )

    def _fold_(self) -> None:
        fold_batchnorm_(self)
        self._fuse_()
        self._fused = True

    def _logits(
        self, image: Tensor, names: Sequence[str], *, sides: bool
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        self.check_image(image)
        return self.with_logits(image, names, sides=sides)

    def _disparity(self, image: Tensor) -> Tensor:
        return self._between(self._logits(image, (), sides=False)[0][0])

    def _between(self, logits: Tensor) -> Tensor:
        return sigmoid_disparity(logits, self.depth_min_mm, self.depth_max_mm)
