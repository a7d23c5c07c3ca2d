"""The depth network of AF-SfMLearner, which is monodepth2's: ResNet-18, skips, and a sigmoid for the disparity."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import DepthNetwork, register
from endolux.models.disparity import scaled_disparity
from endolux.models.folding import fold_batchnorm_
from endolux.models.resnet import CHANNELS, ResNetEncoder, check_input
from endolux.models.skip_decoder import SCALES, WIDTHS, SkipDecoder
from endolux.types import DepthKind

_MAPS = ("half", "quarter", "eighth", "sixteenth", "thirty_second")


@register("af-sfmlearner")
class AfSfmLearner(DepthNetwork):
    """AF-SfMLearner's depth network. The depth is right up to one factor.

    Weights are published as two files, ``encoder.pth`` and ``depth.pth``.

    Args:
        depth_min, depth_max: depth where the sigmoid is 1 and 0; monodepth2 has 100 for the largest.
        normalise: see :class:`endolux.models.resnet.ResNetEncoder`; True for weights of monodepth2.
        fused: build the inference form, to load fused weights into.

    Raises:
        UsageError: impossible range.

    Example:
        >>> network = AfSfmLearner().eval()
        >>> with torch.inference_mode():
        ...     depth = network.depth(torch.rand(1, 3, 64, 96))
        >>> tuple(depth.shape), bool((depth > 0.1).all() and (depth < 150).all())
        ((1, 1, 64, 96), True)
    """

    kind = DepthKind.RELATIVE_DEPTH
    multiple = 32
    FEATURES: ClassVar[Mapping[str, int]] = {
        **dict(zip(_MAPS, CHANNELS, strict=True)),
        **{f"decoder{level}": width for level, width in enumerate(WIDTHS)},
    }

    def __init__(
        self, *, depth_min: float = 0.1, depth_max: float = 150.0, normalise: bool = False, fused: bool = False
    ) -> None:
        super().__init__()
        if not 0 < depth_min < depth_max < math.inf:
            raise UsageError(
                f"Impossible network: depth_min={depth_min}, depth_max={depth_max}",
                why="It must be 0 < depth_min < depth_max.",
                fix="Use 0.1 and 150 for weights of AF-SfMLearner.",
                error_id="model.config",
            )
        self.depth_min, self.depth_max = float(depth_min), float(depth_max)
        self.encoder = ResNetEncoder(images=1, normalise=normalise)
        self.decoder = SkipDecoder(head="disparity")
        self._fused = False
        if fused:
            self._fuse_()

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        config: dict[str, object] = {"depth_min": self.depth_min, "depth_max": self.depth_max}
        if self.encoder.normalise:
            config["normalise"] = True
        if self._fused:
            config["fused"] = True
        return config

    @override
    def depth_range(self) -> tuple[float, float]:
        """See :meth:`DepthNetwork.depth_range`."""
        return self.depth_min, self.depth_max

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Depth; see :meth:`DepthNetwork.forward`."""
        return self.depth(image)

    @override
    def depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.depth`."""
        return self.with_features(image, ())[0]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`."""
        self._check_features(names)
        known = self._maps(image)
        return 1 / self._disparity(0, known), {name: known[name] for name in names}

    @override
    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_disparities`: four sizes, of the inference form only the finest."""
        self._check_features(names)
        known = self._maps(image)
        disparities = tuple(self._disparity(scale, known) for scale in range(1 if self._fused else SCALES))
        return disparities, {name: known[name] for name in names}

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`endolux.models.published.HasPublishedNames`: names of ``depth.pth`` lie one level deeper here."""
        return {
            f"decoder.{name}" if name.removeprefix("decoder.")[:1].isdigit() else name: tensor
            for name, tensor in state.items()
        }

    def imagenet_encoder(self) -> nn.Module:
        """The ResNet-18, for :func:`endolux.models.published.load_imagenet_encoder`."""
        return self.encoder.encoder

    @override
    @torch.no_grad()
    def fuse(self) -> Self:
        """See :meth:`DepthNetwork.fuse`. The copy is in evaluation mode, without the classifier and the coarse outputs.

        Example:
            >>> sum(parameter.numel() for parameter in AfSfmLearner().fuse().parameters())
            14322417
        """
        fused = copy.deepcopy(self).eval()
        if not fused._fused:
            fused._fuse_()
        return fused.requires_grad_(False)

    def _fuse_(self) -> None:
        fold_batchnorm_(self)
        self.encoder.encoder.fc = nn.Identity()
        self.decoder.keep_finest_()
        self._fused = True

    def _disparity(self, scale: int, known: Mapping[str, Tensor]) -> Tensor:
        return scaled_disparity(self.decoder.output(scale, known[f"decoder{scale}"]), self.depth_min, self.depth_max)

    def _maps(self, image: Tensor) -> dict[str, Tensor]:
        check_input(image, name=self.architecture, channels=3, multiple=self.multiple)
        maps = self.encoder(image)
        levels = self.decoder.doublings(maps)
        return {
            **dict(zip(_MAPS, maps, strict=True)),
            **{f"decoder{level}": x for level, x in enumerate(levels)},
        }
