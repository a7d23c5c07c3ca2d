"""Depth from SAM 2's image encoder: what gives a Hiera of any size weights that know of depth."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self, cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.models.base import register
from endolux.models.disparity import DisparityNetwork, logit_of_depth
from endolux.models.hiera import MULTIPLE, HieraEncoder, Mode, shape_of
from endolux.models.landmark_decoder import LandmarkDecoder
from endolux.models.ratio import float32_convolution


@register("hiera-depth")
class HieraDepth(DisparityNetwork):
    """SAM 2.1's image encoder under the decoder of the landmarks, trained for relative depth.

    There are no SAM 2 weights for encoders below its smallest one. A training of this network makes some: a network of
    landmarks then starts from its encoder (``segmentation.image_encoder=RUN``).

    Args:
        size: of Hiera: ``t``, ``s``, ``b+`` or ``l``.
        image_encoder: other numbers for it, see :class:`endolux.models.hiera.Shape`.
        encoders: what of the encoder is trained, see :class:`endolux.models.hiera.HieraEncoder`.
        depth_min_mm, depth_max_mm: range of the output; near millimetres, the kind stays relative depth.

    Raises:
        UsageError: ``model.config``; ``model.input`` for sides that are no multiples of 32.
        MissingExtraError: without ``transformers``.

    Example:
        >>> import torch
        >>> from endolux.models.landmarks import TINY
        >>> network = HieraDepth(size="t", image_encoder=TINY["image_encoder"]).eval()
        >>> with torch.inference_mode():
        ...     depth = network(torch.rand(1, 3, 64, 96))
        >>> tuple(depth.shape), bool((depth > 1).all() and (depth < 400).all())
        ((1, 1, 64, 96), True)
    """

    multiple = MULTIPLE

    def __init__(
        self,
        *,
        size: str = "t",
        image_encoder: Mapping[str, object] | None = None,
        encoders: Mode = "full",
        depth_min_mm: float = 1.0,
        depth_max_mm: float = 400.0,
    ) -> None:
        super().__init__(depth_min_mm=depth_min_mm, depth_max_mm=depth_max_mm)
        shape = shape_of(size, image_encoder)
        self.size, self.encoders = size, encoders
        self.image_encoder = HieraEncoder(shape, mode=encoders)
        self.decoder = LandmarkDecoder(shape.pyramid, 1)
        head = self.decoder.classify
        middle = (self.depth_min_mm * self.depth_max_mm) ** 0.5
        nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(cast(Tensor, head.bias), logit_of_depth(middle, self.depth_min_mm, self.depth_max_mm))

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        numbers = dataclasses.asdict(self.image_encoder.shape).items()
        return {
            "size": self.size,
            "image_encoder": {name: list(value) if isinstance(value, tuple) else value for name, value in numbers},
            "encoders": self.encoders,
            **super().config(),
        }

    @override
    def with_logits(
        self, image: Tensor, names: Sequence[str], *, sides: bool
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """See :meth:`DisparityNetwork.with_logits`; there are no coarser heads."""
        skips = self.image_encoder(image)
        x = self.decoder.refined(skips[-1], skips)
        logits = float32_convolution(self.decoder.classify, x)
        return (F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False),), {}

    @override
    def fuse(self) -> Self:
        """See :meth:`DepthNetwork.fuse`. Nothing is folded."""
        copied = copy.deepcopy(self).eval()
        copied.image_encoder.merge_()
        copied.encoders = "frozen" if self.encoders == "lora" else self.encoders
        return copied.requires_grad_(False)

    @override
    def _fuse_(self) -> None:
        return
