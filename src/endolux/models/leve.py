"""Leve (Dragan, Babes-Bolyai University, 2024): a dual-resolution encoder and three upsampling blocks with skips.

Module names are those of the published weights, so that they load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import register
from endolux.models.ddrnet import MAP_CHANNELS, DDRNet, Maps, upsample
from endolux.models.mobilenetv3 import MobileNetV3
from endolux.models.ratio import RatioNetwork, float32_convolution

LCBS = ("3x3+3x3", "3x3", "3x3+1x1", "5x5+5x5", "3x3-dw")
SKIPS = ("main", "alternative", "none")


class _Step(NamedTuple):
    inputs: int
    outputs: int
    skip: int
    factor: int
    """By how much the skip is enlarged before it is added."""


_MAIN = (_Step(64, 32, 64, 2), _Step(32, 16, 32, 2), _Step(16, 1, 3, 1))
_ALTERNATIVE = (_Step(64, 32, 64, 2), _Step(32, 16, 64, 4), _Step(16, 1, 64, 8))
_MOBILE = (_Step(48, 24, 24, 1), _Step(24, 16, 16, 1), _Step(16, 1, 3, 1))


class LocalConvolutions(nn.Module):
    """The LCB: one or two convolutions with BatchNorm and ReLU that keep channels and size.

    Args:
        channels: inputs and outputs.
        kind: one of :data:`LCBS`.
    """

    FOLDS: ClassVar = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        first = 5 if kind == "5x5+5x5" else 3
        second = {"3x3+3x3": 3, "3x3": 0, "3x3+1x1": 1, "5x5+5x5": 5, "3x3-dw": 1}[kind]
        groups = channels if kind == "3x3-dw" else 1
        # Published weights list both convolutions before both BatchNorms.
        self.conv1 = nn.Conv2d(channels, channels, first, padding=first // 2, groups=groups)
        self.conv2 = nn.Conv2d(channels, channels, second, padding=second // 2) if second else nn.Identity()
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        self.bn2: nn.Module = nn.BatchNorm2d(channels) if second else nn.Identity()
        self.two = second > 0

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same shape, not negative."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x))) if self.two else x


class UpsamplingBlock(nn.Module):
    """Doubles the size: convolutions, the skip and the upsampled map itself are summed and projected.

    Args:
        step: channels, and by how much the skip is enlarged.
        lcb: one of :data:`LCBS`.
        skip: whether the skip is added; its weights exist either way, as in the published files.
    """

    def __init__(self, step: _Step, lcb: str, *, skip: bool) -> None:
        super().__init__()
        self.connection_conv = nn.Conv2d(step.skip, step.inputs, 1)
        self.dual_conv = LocalConvolutions(step.inputs, lcb)
        self.result_conv = nn.Conv2d(step.inputs, step.outputs, 1)
        self.factor = step.factor
        self.skip = skip

    @override
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N x inputs x h x w and the skip -> N x outputs x 2h x 2w."""
        up = upsample(x, 2)
        total: Tensor = self.dual_conv(up) + up
        if self.skip:
            total = total + self.connection_conv(upsample(skip, self.factor))
        return float32_convolution(self.result_conv, total)


class MergedBlock(nn.Module):
    """An :class:`UpsamplingBlock` with the last projection taken into each summand: less work at full size.

    A 1x1 convolution and a bilinear interpolation commute, so that the skip and the map itself are projected to the few
    output channels before they are enlarged.
    """

    def __init__(self, block: UpsamplingBlock) -> None:
        super().__init__()
        result, connection = block.result_conv, block.connection_conv
        projection = result.weight.double().flatten(1)
        self.factor = block.factor
        self.dual_conv = block.dual_conv
        self.result_conv = result
        self.through = nn.Conv2d(result.in_channels, result.out_channels, 1, bias=False).to(result.weight)
        self.through.weight.copy_(result.weight)
        self.connection_conv: nn.Conv2d | None = None
        if block.skip:
            merged = nn.Conv2d(connection.in_channels, result.out_channels, 1).to(result.weight)
            merged.weight.copy_((projection @ connection.weight.double().flatten(1))[:, :, None, None])
            cast(Tensor, merged.bias).copy_(projection @ cast(Tensor, connection.bias).double())
            self.connection_conv = merged

    @override
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N x inputs x h x w and the skip -> N x outputs x 2h x 2w."""
        result: Tensor = self.result_conv(self.dual_conv(upsample(x, 2)))
        small: Tensor = self.through(x)
        if self.connection_conv is None:
            return result + upsample(small, 2)
        side: Tensor = self.connection_conv(skip)
        if self.factor == 2:
            return result + upsample(small + side, 2)
        return result + upsample(small, 2) + upsample(side, self.factor)


class Decoder(nn.Module):
    """Three upsampling blocks.

    Args:
        steps: channels and factors.
        lcb: one of :data:`LCBS`.
        skip: whether skips are added.
        gap: additional enlargement of the map after the first block.
    """

    def __init__(self, steps: tuple[_Step, _Step, _Step], lcb: str, *, skip: bool = True, gap: int = 1) -> None:
        super().__init__()
        self.upsampling_block1: nn.Module = UpsamplingBlock(steps[0], lcb, skip=skip)
        self.upsampling_block2: nn.Module = UpsamplingBlock(steps[1], lcb, skip=skip)
        self.upsampling_block3: nn.Module = UpsamplingBlock(steps[2], lcb, skip=skip)
        self.gap = gap

    @override
    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The output of each block; the last is N x 1 x H x W."""
        first: Tensor = self.upsampling_block1(x, skips[0])
        second: Tensor = self.upsampling_block2(upsample(first, self.gap), skips[1])
        ratio: Tensor = self.upsampling_block3(second, skips[2])
        return first, second, ratio

    @torch.no_grad()
    def merge_(self) -> None:
        """Replace, in place, each block by a :class:`MergedBlock`."""
        for name, block in list(self.named_children()):
            if isinstance(block, UpsamplingBlock):
                setattr(self, name, MergedBlock(block))


class _Encoder(nn.Module):
    # Only a level of names.
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


@register("leve-no-skips", skips="none")
@register("leve-alt-skips", skips="alternative")
@register("leve-3x3-dw", lcb="3x3-dw")
@register("leve-5x5-5x5", lcb="5x5+5x5")
@register("leve-3x3-1x1", lcb="3x3+1x1")
@register("leve-3x3", lcb="3x3")
@register("leve")
class Leve(RatioNetwork):
    """Leve with its DDRNet-23-slim encoder. The output is the ratio ``max_depth / depth``.

    Args:
        lcb: convolutions of the upsampling blocks, one of :data:`LCBS`.
        skips: which maps the upsampling blocks see, one of :data:`SKIPS`.
        max_depth_mm: depth where the ratio is 1.
        reproduce: see :func:`endolux.models.ratio.from_ratio`.
        fused: build the inference form, to load fused weights into.

    Raises:
        UsageError: unknown ``lcb`` or ``skips``, impossible depth.

    Example:
        >>> network = Leve().eval()
        >>> sum(parameter.numel() for parameter in network.parameters())
        5804257
        >>> with torch.inference_mode():
        ...     ratio, depth_mm = network(torch.rand(1, 3, 64, 96)), network.depth(torch.rand(1, 3, 64, 96))
        >>> tuple(ratio.shape), bool((depth_mm >= 100).all() and (depth_mm <= 10000).all())
        ((1, 1, 64, 96), True)
    """

    FEATURES: ClassVar[Mapping[str, int]] = {**MAP_CHANNELS, "block1": 32, "block2": 16}

    def __init__(
        self,
        *,
        lcb: str = "3x3+3x3",
        skips: str = "main",
        max_depth_mm: float = 10000.0,
        reproduce: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(max_depth_mm=max_depth_mm, reproduce=reproduce)
        _check_choice("lcb", lcb, LCBS)
        _check_choice("skips", skips, SKIPS)
        self.lcb, self.skips = lcb, skips
        self.encoder = _Encoder(DDRNet())
        self.decoder = Decoder(_ALTERNATIVE if skips == "alternative" else _MAIN, lcb, skip=skips != "none")
        if fused:
            self._fuse_()

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        return {"lcb": self.lcb, "skips": self.skips, **super().config()}

    @override
    def forward(self, image: Tensor) -> Tensor:
        """The ratio, N x 1 x H x W, linear; height and width are multiples of 8."""
        return self._maps(image)[1][2]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`. Maps of the encoder are before their ReLU."""
        self._check_features(names)
        maps, blocks = self._maps(image)
        decoder = {"block1": blocks[0], "block2": blocks[1]}
        return blocks[2], {name: decoder[name] if name in decoder else getattr(maps, name) for name in names}

    def imagenet_encoder(self) -> nn.Module:
        """The DDRNet-23-slim, for :func:`endolux.models.published.load_imagenet_encoder`."""
        return self.encoder.backbone

    def _maps(self, image: Tensor) -> tuple[Maps, tuple[Tensor, Tensor, Tensor]]:
        self.check_image(image)
        maps: Maps = self.encoder.backbone(image)
        skips = (maps.h4, maps.h3, maps.a2) if self.skips == "alternative" else (maps.h4, maps.a1, image)
        return maps, self.decoder(maps.encoder, skips)

    @override
    def _fuse_(self) -> None:
        super()._fuse_()
        self.decoder.merge_()


@register("leve-mobilenetv3")
class LeveMobileNetV3(RatioNetwork):
    """Leve with a MobileNetV3-Small encoder; height and width are multiples of 16.

    Args:
        max_depth_mm: depth where the ratio is 1.
        reproduce: see :func:`endolux.models.ratio.from_ratio`.
        fused: build the inference form, to load fused weights into.

    Example:
        >>> network = LeveMobileNetV3().eval()
        >>> sum(p.numel() for p in network.parameters()), sum(p.numel() for p in network.fuse().parameters())
        (2603097, 248853)
    """

    multiple = 16
    FEATURES: ClassVar[Mapping[str, int]] = {"half": 16, "eighth": 24, "encoder": 48, "block1": 24, "block2": 16}

    def __init__(self, *, max_depth_mm: float = 10000.0, reproduce: bool = False, fused: bool = False) -> None:
        super().__init__(max_depth_mm=max_depth_mm, reproduce=reproduce)
        self.encoder = _Encoder(MobileNetV3())
        self.decoder = Decoder(_MOBILE, "3x3+3x3", gap=2)
        if fused:
            self._fuse_()

    @override
    def forward(self, image: Tensor) -> Tensor:
        """The ratio, N x 1 x H x W, linear."""
        return self.with_features(image, ())[0]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`."""
        self._check_features(names)
        self.check_image(image)
        half, eighth, encoder = self.encoder.backbone(image)
        first, second, ratio = self.decoder(encoder, (eighth, half, image))
        maps = {"half": half, "eighth": eighth, "encoder": encoder, "block1": first, "block2": second}
        return ratio, {name: maps[name] for name in names}

    def imagenet_encoder(self) -> nn.Module:
        """The MobileNetV3-Small, for :func:`endolux.models.published.load_imagenet_encoder`."""
        return self.encoder.backbone

    @override
    def _fuse_(self) -> None:
        if isinstance(self.encoder.backbone, MobileNetV3):
            self.encoder.backbone.drop_unused_()
        super()._fuse_()
        self.decoder.merge_()


def _check_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(
            f"Impossible network: {what}={value!r}",
            why=f"It must be one of {', '.join(known)}.",
            fix="Start from the defaults and change one thing at a time.",
            error_id="model.config",
        )
