"""The decoder of monodepth2: five doublings with skips and an output at each of the last four sizes.

Source: Godard et al., ICCV 2019; Shao et al. (AF-SfMLearner), Medical Image Analysis 2022, for the two flows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.parts import Part, register_part
from endolux.models.resnet import CHANNELS

SCALES = 4
WIDTHS = (16, 32, 64, 128, 256)
"""Channels after the doubling to 1/1, 1/2, 1/4, 1/8 and 1/16."""
_HEADS = {"disparity": 1, "appearance": 3, "flow": 2}


class PaddedConvolution(nn.Module):
    """3x3 behind a border of reflected pixels.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x h x w -> N x outputs x h x w; both sides at least 2."""
        y: Tensor = self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        return y


class ConvolutionBlock(nn.Module):
    """A :class:`PaddedConvolution` and ELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = PaddedConvolution(inputs, outputs)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x h x w -> N x outputs x h x w."""
        return F.elu(self.conv(x))


@register_part("dares-position-decoder", head="flow")
@register_part("dares-transform-decoder", head="appearance")
@register_part("af-sfmlearner-decoder", head="disparity")
class SkipDecoder(Part):
    """From the five maps of a :class:`endolux.models.resnet.ResNetEncoder` to outputs at four sizes.

    Args:
        head: ``disparity``: 1 channel, sigmoid; ``appearance``: 3 channels, tanh; ``flow``: 2 channels, linear, begun
            near zero.

    Example:
        >>> from endolux.models.resnet import ResNetEncoder
        >>> with torch.inference_mode():
        ...     maps = ResNetEncoder().eval()(torch.rand(1, 3, 64, 96))
        ...     [tuple(x.shape[1:]) for x in SkipDecoder(head="appearance")(maps)]
        [(3, 64, 96), (3, 32, 48), (3, 16, 24), (3, 8, 12)]
    """

    architecture = "skip-decoder"

    def __init__(self, *, head: Literal["disparity", "appearance", "flow"] = "disparity") -> None:
        super().__init__()
        self.head = head
        outputs = _HEADS[head]
        blocks: list[nn.Module] = []
        inputs = CHANNELS[-1]
        for level in reversed(range(len(WIDTHS))):
            skip = CHANNELS[level - 1] if level else 0
            blocks.append(ConvolutionBlock(inputs, WIDTHS[level]))
            blocks.append(ConvolutionBlock(WIDTHS[level] + skip, WIDTHS[level]))
            inputs = WIDTHS[level]
        for scale in range(SCALES):
            blocks.append(_flow_head(WIDTHS[scale]) if head == "flow" else PaddedConvolution(WIDTHS[scale], outputs))
        # One list for all, because published weights number them through.
        self.decoder = nn.ModuleList(blocks)

    @override
    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs at 1/1, 1/2, 1/4 and 1/8, N x channels each, float32 also under autocast.

        Raises:
            UsageError: ``model.input`` for maps of images below 64 pixels, which have nothing to reflect.
        """
        return tuple(self.output(scale, x) for scale, x in enumerate(self.doublings(maps)[:SCALES]))

    def doublings(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The maps behind the outputs: 16 channels at 1/1, 32 at 1/2, ..., 256 at 1/16."""
        x = maps[-1]
        # Under export the sides are symbols, and comparing them would fix them.
        if not torch.compiler.is_compiling() and min(x.shape[-2:]) < 2:
            raise UsageError(
                f"'{self.architecture}' got maps of {x.shape[-1]}x{x.shape[-2]} pixels at 1/32",
                why="Its borders are reflections, which need two pixels on either side.",
                fix="Use images of 64 pixels and more on both sides.",
                error_id="model.input",
            )
        found = []
        for level in reversed(range(len(WIDTHS))):
            first = 2 * (len(WIDTHS) - 1 - level)
            x = F.interpolate(self.decoder[first](x), scale_factor=2.0, mode="nearest")
            if level:
                x = torch.cat([x, maps[level - 1]], dim=1)
            x = self.decoder[first + 1](x)
            found.append(x)
        return tuple(reversed(found))

    def output(self, scale: int, x: Tensor) -> Tensor:
        """What the head of one scale makes of its map."""
        y: Tensor = self.decoder[2 * len(WIDTHS) + scale](x)
        if self.head == "disparity":
            return torch.sigmoid(y.float())
        return torch.tanh(y.float()) if self.head == "appearance" else y.float()

    def keep_finest_(self) -> None:
        """Remove, in place, the outputs at the three coarser sizes."""
        for scale in range(1, SCALES):
            self.decoder[2 * len(WIDTHS) + scale] = nn.Identity()


def _flow_head(inputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, 2, 3, padding=1)
    nn.init.normal_(conv.weight, std=1e-5)
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv
