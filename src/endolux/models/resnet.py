"""ResNet-18 as the encoder of depth, pose and flow networks, with the names of published weights.

Source: He et al., CVPR 2016; Godard et al. (monodepth2), ICCV 2019, for the maps and the stem of two images.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.ddrnet import BasicBlock
from endolux.models.parts import Part, register_part

CHANNELS = (64, 64, 128, 256, 512)
"""Channels of the maps at 1/2, 1/4, 1/8, 1/16 and 1/32."""
MEAN, STD = 0.45, 0.225
"""What monodepth2 subtracts from pixels and divides them by; AF-SfMLearner, EndoDAC and DARES do not."""


class Maps(NamedTuple):
    """What the encoder computed: 64, 64, 128, 256 and 512 channels, none negative."""

    half: Tensor
    quarter: Tensor
    eighth: Tensor
    sixteenth: Tensor
    thirty_second: Tensor


class ResNet18(nn.Module):
    """The classification network; the classifier is kept for its name in published files and never computed.

    Args:
        inputs: channels of the picture, 3 an image.
    """

    FOLDS: ClassVar = (("conv1", "bn1"),)

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64)
        self.layer2 = _layer(64, 128, stride=2)
        self.layer3 = _layer(128, 256, stride=2)
        self.layer4 = _layer(256, 512, stride=2)
        self.fc: nn.Module = nn.Linear(512, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @override
    def forward(self, image: Tensor) -> Maps:
        """N x inputs x H x W -> the five maps."""
        half = F.relu(self.bn1(self.conv1(image)))
        quarter = self.layer1(F.max_pool2d(half, 3, 2, 1))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        return Maps(half, quarter, eighth, sixteenth, self.layer4(sixteenth))


@register_part("dares-position-encoder", images=2)
@register_part("dares-transform-encoder", images=2)
@register_part("dares-pose-encoder", images=2)
@register_part("af-sfmlearner-encoder", images=1)
class ResNetEncoder(Part):
    """ResNet-18 over one image, or over two images side by side in the channels.

    Args:
        images: 1 or 2.
        normalise: (x - 0.45) / 0.225 first, as monodepth2 does; its descendants for endoscopy feed [0, 1] as it is.

    Raises:
        UsageError: ``model.config`` for another number of images.

    Example:
        >>> import torch
        >>> encoder = ResNetEncoder(images=2).eval()
        >>> with torch.inference_mode():
        ...     maps = encoder(torch.rand(1, 6, 64, 96))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    """

    architecture = "resnet18"

    def __init__(self, *, images: int = 1, normalise: bool = False) -> None:
        super().__init__()
        if images not in (1, 2) or isinstance(images, bool):
            raise UsageError(
                f"Impossible network: images={images!r}",
                why="The encoder sees one image, or two for what lies between them.",
                fix="Use images=1 or images=2.",
                error_id="model.config",
            )
        self.images = images
        self.normalise = bool(normalise)
        self.encoder = ResNet18(3 * images)

    @override
    def forward(self, image: Tensor) -> Maps:
        """N x 3 images x H x W in [0, 1] -> the five maps.

        Raises:
            UsageError: ``model.input`` for another shape, or sides that are no multiples of 32.
        """
        check_input(image, name=self.architecture, channels=3 * self.images)
        return Maps(*self.encoder((image - MEAN) / STD if self.normalise else image))

    def imagenet_encoder(self) -> nn.Module:
        """The part with the names of ImageNet files, for :func:`endolux.models.published.load_imagenet_encoder`."""
        return self.encoder


def check_input(image: Tensor, *, name: str, channels: int, multiple: int = 32) -> None:
    """Refuse what a network with five halvings cannot take.

    Raises:
        UsageError: ``model.input``.
    """
    if image.ndim != 4 or image.shape[1] != channels:
        raise UsageError(
            f"'{name}' got an input of shape {tuple(image.shape)}",
            why=f"It takes N x {channels} x H x W, RGB in [0, 1]"
            + (f", {channels // 3} images one after the other in the channels." if channels > 3 else "."),
            fix="Add the batch axis, move the channels to the second axis, and drop an alpha channel.",
            error_id="model.input",
        )
    height, width = image.shape[2], image.shape[3]
    if height % multiple or width % multiple or min(height, width) < multiple:
        low = (max(multiple, side // multiple * multiple) for side in (width, height))
        raise UsageError(
            f"'{name}' got images of {width}x{height} pixels",
            why=f"Both sides must be multiples of {multiple}.",
            fix=f"Resize or pad them, for example to {'x'.join(map(str, low))}.",
            error_id="model.input",
        )


def _layer(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride=stride), BasicBlock(outputs, outputs))
