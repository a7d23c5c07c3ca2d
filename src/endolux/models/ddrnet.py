"""The encoder DDRNet-23-slim as GuideDepth and Leve use it: features at 1/8, with the names of published weights.

Two branches of different resolution exchange their maps twice; a pyramid of poolings (DAPPM) ends the coarse one.
Source: Hong et al., Deep Dual-resolution Networks, 2021; Rudolph et al., ICRA 2022.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError

PLANES = 32
HIGH_PLANES = 64
POOL_PLANES = 128
HEAD_PLANES = 64


def resample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, half-pixel centres, to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear, half-pixel centres, by a whole factor."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False) if factor > 1 else x


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual; ``final_relu`` False leaves the sum as it is."""

    FOLDS: ClassVar = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, final_relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)
        self.final_relu = final_relu

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x outputs x H/stride x W/stride."""
        y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = y + (x if self.downsample is None else self.downsample(x))
        return F.relu(y) if self.final_relu else y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to twice the channels and a projected residual; no final ReLU."""

    FOLDS: ClassVar = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, inputs: int, planes: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 2 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * planes)
        self.downsample = _projection(inputs, 2 * planes, stride)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x 2 planes x H/stride x W/stride."""
        y: Tensor = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return y + (x if self.downsample is None else self.downsample(x))


class PyramidPooling(nn.Module):
    """DAPPM: poolings of four sizes, each added to the next finer result before a convolution."""

    def __init__(self, inputs: int, planes: int, outputs: int) -> None:
        super().__init__()
        self.scale1 = _pre_activated(inputs, planes, 1, nn.AvgPool2d(5, 2, 2))
        self.scale2 = _pre_activated(inputs, planes, 1, nn.AvgPool2d(9, 4, 4))
        self.scale3 = _pre_activated(inputs, planes, 1, nn.AvgPool2d(17, 8, 8))
        self.scale4 = _pre_activated(inputs, planes, 1, nn.AdaptiveAvgPool2d((1, 1)))
        self.scale0 = _pre_activated(inputs, planes, 1)
        self.process1 = _pre_activated(planes, planes, 3)
        self.process2 = _pre_activated(planes, planes, 3)
        self.process3 = _pre_activated(planes, planes, 3)
        self.process4 = _pre_activated(planes, planes, 3)
        self.compression = _pre_activated(5 * planes, outputs, 1)
        self.shortcut = _pre_activated(inputs, outputs, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x h x w -> N x outputs x h x w."""
        y: Tensor = self.scale0(x)
        maps = [y]
        for scale, process in (
            (self.scale1, self.process1),
            (self.scale2, self.process2),
            (self.scale3, self.process3),
            (self.scale4, self.process4),
        ):
            y = process(resample(scale(x), x) + y)
            maps.append(y)
        result: Tensor = self.compression(torch.cat(maps, dim=1)) + self.shortcut(x)
        return result


class Head(nn.Module):
    """The segmentation head turned into features."""

    FOLDS: ClassVar = (("conv1", "bn2"),)

    def __init__(self, inputs: int, planes: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, outputs, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x h x w -> N x outputs x h x w."""
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return y


@dataclasses.dataclass(frozen=True, slots=True)
class Maps:
    """What the encoder computed; every map before its ReLU.

    Attributes:
        a1, a2, a3, a4: coarse branch at 1/4, 1/8, 1/16, 1/32 (32, 64, 128, 256 channels), before the exchange.
        h3, h4: fine branch at 1/8 after the first and the second exchange (64 channels).
        context: result of the pyramid pooling, at 1/8 (128 channels).
        encoder: output of the head at 1/8.
    """

    a1: Tensor
    a2: Tensor
    a3: Tensor
    a4: Tensor
    h3: Tensor
    h4: Tensor
    context: Tensor
    encoder: Tensor


MAP_CHANNELS = {"a1": 32, "a2": 64, "a3": 128, "a4": 256, "h3": 64, "h4": 64, "context": 128, "encoder": 64}


class DDRNet(nn.Module):
    """DDRNet-23-slim with a head of ``outputs`` feature channels at 1/8.

    Height and width must be multiples of 8.

    Example:
        >>> network = DDRNet().eval()
        >>> with torch.inference_mode():
        ...     maps = network(torch.rand(1, 3, 64, 96))
        >>> tuple(maps.encoder.shape), tuple(maps.a1.shape)
        ((1, 64, 8, 12), (1, 32, 16, 24))
    """

    def __init__(self, outputs: int = 64) -> None:
        super().__init__()
        c, h = PLANES, HIGH_PLANES
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, c, 3, 2, 1),
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, c, 3, 2, 1),
            nn.BatchNorm2d(c),
            nn.ReLU(),
        )
        self.layer1 = _layer(c, c)
        self.layer2 = _layer(c, 2 * c, stride=2)
        self.layer3 = _layer(2 * c, 4 * c, stride=2)
        self.layer4 = _layer(4 * c, 8 * c, stride=2)
        self.compression3 = nn.Sequential(nn.Conv2d(4 * c, h, 1, bias=False), nn.BatchNorm2d(h))
        self.compression4 = nn.Sequential(nn.Conv2d(8 * c, h, 1, bias=False), nn.BatchNorm2d(h))
        self.down3 = nn.Sequential(nn.Conv2d(h, 4 * c, 3, 2, 1, bias=False), nn.BatchNorm2d(4 * c))
        self.down4 = nn.Sequential(
            nn.Conv2d(h, 4 * c, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4 * c),
            nn.ReLU(),
            nn.Conv2d(4 * c, 8 * c, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8 * c),
        )
        self.layer3_ = _layer(h, h)
        self.layer4_ = _layer(h, h)
        self.layer5_ = nn.Sequential(Bottleneck(h, h))
        self.layer5 = nn.Sequential(Bottleneck(8 * c, 8 * c, stride=2))
        self.spp = PyramidPooling(16 * c, POOL_PLANES, POOL_PLANES)
        self.final_layer = Head(POOL_PLANES, HEAD_PLANES, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @override
    def forward(self, image: Tensor) -> Maps:
        """N x 3 x H x W, RGB in [0, 1] without further normalisation, to the maps.

        Raises:
            UsageError: ``model.batch`` for one image in training mode.
        """
        if self.spp.scale4[1].training and image.shape[0] == 1:
            raise UsageError(
                "A batch of one image cannot train this encoder",
                why="Its global pooling leaves one value a channel, and BatchNorm needs two to have a variance.",
                fix="Use a batch of 2 or more, or put the BatchNorm layers into evaluation mode.",
                error_id="model.batch",
            )
        a1 = self.layer1(self.conv1(image))
        a2 = self.layer2(F.relu(a1))
        shared = F.relu(a2)
        a3, fine = self.layer3(shared), self.layer3_(shared)
        coarse = a3 + self.down3(F.relu(fine))
        # What goes to the fine branch is the coarse map of before the exchange.
        h3 = fine + resample(self.compression3(F.relu(a3)), fine)
        a4, fine = self.layer4(F.relu(coarse)), self.layer4_(F.relu(h3))
        coarse = a4 + self.down4(F.relu(fine))
        h4 = fine + resample(self.compression4(F.relu(a4)), fine)
        h5 = self.layer5_(F.relu(h4))
        context = resample(self.spp(self.layer5(F.relu(coarse))), h5)
        return Maps(a1, a2, a3, a4, h3, h4, context, self.final_layer(context + h5))


def _layer(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride=stride),
        BasicBlock(outputs, outputs, final_relu=False),
    )


def _pre_activated(inputs: int, outputs: int, kernel: int, *pool: nn.Module) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(*pool, nn.BatchNorm2d(inputs), nn.ReLU(), conv)
