"""GuideDepth and GuideDepth-S (Rudolph et al., ICRA 2022): upsampling guided by the image at each size.

Module names are those of the published weights, so that they load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.models.base import register
from endolux.models.ddrnet import MAP_CHANNELS, DDRNet, Maps, upsample
from endolux.models.ratio import RatioNetwork, float32_convolution

_CHANNELS = {False: ((64, 64, 32), (32, 32, 16), (16, 16, 1)), True: ((32, 32, 8), (8, 8, 4), (4, 4, 1))}


class ChannelAttention(nn.Module):
    """Squeeze and excitation without reduction and without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.ReLU(),
            nn.Linear(channels, channels, bias=False),
            nn.Sigmoid(),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same shape."""
        scale: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * scale[:, :, None, None]


class GuidedUpsampling(nn.Module):
    """Features of the depth map and of the image, weighed together and added to the map."""

    def __init__(self, inputs: int, expanded: int, outputs: int) -> None:
        super().__init__()
        half = expanded // 2
        self.feature_conv = _pair(inputs, expanded, half)
        self.guide_conv = _pair(3, expanded, half)
        self.comb_conv = _pair(2 * half, expanded, inputs)
        self.reduce = nn.Conv2d(inputs, outputs, 1)
        self.SE_block = ChannelAttention(2 * half)

    @override
    def forward(self, guide: Tensor, depth: Tensor) -> Tensor:
        """N x 3 x h x w and N x inputs x h x w -> N x outputs x h x w."""
        joined = torch.cat([self.feature_conv(depth), self.guide_conv(guide)], dim=1)
        combined: Tensor = self.comb_conv(self.SE_block(joined))
        return float32_convolution(self.reduce, combined + depth)


@register("guidedepth-s", small=True)
@register("guidedepth")
class GuideDepth(RatioNetwork):
    """GuideDepth. The output is the ratio ``max_depth / depth``; height and width are multiples of 8.

    Args:
        small: GuideDepth-S.
        max_depth_mm: depth where the ratio is 1.
        reproduce: see :func:`endolux.models.ratio.from_ratio`.
        fused: build the inference form, to load fused weights into.

    Example:
        >>> sum(parameter.numel() for parameter in GuideDepth().parameters())
        5824513
    """

    def __init__(
        self,
        *,
        small: bool = False,
        max_depth_mm: float = 10000.0,
        reproduce: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(max_depth_mm=max_depth_mm, reproduce=reproduce)
        self.small = bool(small)
        first, second, third = _CHANNELS[self.small]
        self.feature_extractor = DDRNet(first[0])
        self.up_1 = GuidedUpsampling(*first)
        self.up_2 = GuidedUpsampling(*second)
        self.up_3 = GuidedUpsampling(*third)
        if fused:
            self._fuse_()

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        return {"small": self.small, **super().config()}

    @override
    def feature_names(self) -> Mapping[str, int]:
        """See :meth:`DepthNetwork.feature_names`."""
        first, second, _ = _CHANNELS[self.small]
        return {**MAP_CHANNELS, "encoder": first[0], "block1": first[2], "block2": second[2]}

    @override
    def forward(self, image: Tensor) -> Tensor:
        """The ratio, N x 1 x H x W, linear."""
        return self.with_features(image, ())[0]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`. Maps of the encoder are before their ReLU."""
        self._check_features(names)
        self.check_image(image)
        maps: Maps = self.feature_extractor(image)
        # Nearest subsampling by 4 and 2 takes exactly these pixels.
        first: Tensor = self.up_1(image[:, :, ::4, ::4], upsample(maps.encoder, 2))
        second: Tensor = self.up_2(image[:, :, ::2, ::2], upsample(first, 2))
        ratio: Tensor = self.up_3(image, upsample(second, 2))
        blocks = {"block1": first, "block2": second}
        return ratio, {name: blocks[name] if name in blocks else getattr(maps, name) for name in names}

    def imagenet_encoder(self) -> nn.Module:
        """The DDRNet-23-slim, for :func:`endolux.models.published.load_imagenet_encoder`."""
        return self.feature_extractor


def _pair(inputs: int, between: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, between, 3, padding=1),
        nn.BatchNorm2d(between),
        nn.ReLU(),
        nn.Conv2d(between, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
