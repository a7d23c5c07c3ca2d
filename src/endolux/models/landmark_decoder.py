"""What joins colour and depth, and makes classes of them: the parts of the SRFT-GaLore network behind its encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

_BATCHNORM_EPS = 1e-3


class CrossAttention(nn.Module):
    """Depth asks, colour answers: attention from the tokens of one map to those of another.

    As published there is no position, no residual and no norm: one linear layer on the colour tokens, and attention
    of two heads with projections of its own.

    Args:
        width: channels of both maps.
        heads: of the attention.
        residual: add residual, norm and a feed-forward of four times the width with ReLU, as an experiment of the
            authors does.

    Source: arXiv 2511.03163, figure 2.

    Example:
        >>> import torch
        >>> fusion = CrossAttention(256)
        >>> sum(p.numel() for p in fusion.parameters())
        328960
        >>> tuple(fusion(torch.rand(1, 256, 4, 6), torch.rand(1, 256, 4, 6)).shape)
        (1, 256, 4, 6)
    """

    def __init__(self, width: int = 256, *, heads: int = 2, residual: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.values = nn.Linear(width, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 if residual else 0))
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        if not residual:
            self.feed = nn.Sequential()

    @override
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """N x width x h x w of the asking map, and the map that is asked -> N x width x h x w of the asking one."""
        count, width, rows, columns = query.shape
        asking = query.flatten(2).transpose(1, 2)
        asked = self.values(key.flatten(2).transpose(1, 2))
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        query_, key_, value_ = (
            F.linear(tokens, weight[i * width : (i + 1) * width], bias[i * width : (i + 1) * width])
            .reshape(count, -1, self.heads, width // self.heads)
            .transpose(1, 2)
            for i, tokens in enumerate((asking, asked, asked))
        )
        # Never the weights themselves: 4096 x 4096 of them a head at 1024 pixels.
        mixed = F.scaled_dot_product_attention(query_, key_, value_).transpose(1, 2).reshape(count, -1, width)
        result: Tensor = self.attention.out_proj(mixed)
        if len(self.norms):
            result = self.norms[0](asking + result)
            result = self.norms[1](result + self.feed(result))
        return result.transpose(1, 2).reshape(count, width, rows, columns)


class FactorisedBlock(nn.Module):
    """Two pairs of 3x1 and 1x3 convolutions with a residual (Romera et al. 2018), without dropout.

    Example:
        >>> sum(p.numel() for p in FactorisedBlock(256).parameters())
        788480
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [
                nn.Conv2d(width, width, (3, 1), padding=(1, 0)),
                nn.ReLU(),
                nn.Conv2d(width, width, (1, 3), padding=(0, 1)),
                nn.BatchNorm2d(width, eps=_BATCHNORM_EPS),
            ]
            layers += [] if last else [nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x width x H x W -> the same shape."""
        return F.relu(x + self.layers(x))


class DecoderModule(nn.Module):
    """Convolution, factorised block, and the skip added.

    Example:
        >>> sum(p.numel() for p in DecoderModule(256).parameters())
        1378816
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.block = FactorisedBlock(width)

    @override
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N x width x H x W twice -> the same shape."""
        result: Tensor = self.block(self.conv(x)) + skip
        return result


class LandmarkDecoder(nn.Module):
    """Three modules and a classifier at a quarter of the picture's size.

    By default the resolution doubles from module to module, each with the skip of its stride. With ``reproduce`` all
    three work at stride 16, on skips that are shrunk to it, strides 4, 8, 16 in this order, and the classes are then
    enlarged four times: thin lines are a cell or two wide there.

    Args:
        width: channels.
        classes: how many.
        reproduce: see above.

    Source: arXiv 2511.03163 and its released code; D2GPLand (arXiv 2406.17858).

    Example:
        >>> import torch
        >>> decoder = LandmarkDecoder(256, 4)
        >>> sum(p.numel() for p in decoder.parameters())
        4145668
        >>> skips = [torch.rand(2, 256, 16 // s, 24 // s) for s in (1, 2, 4)]
        >>> tuple(decoder(torch.rand(2, 256, 4, 6), skips).shape)
        (2, 4, 16, 24)
    """

    def __init__(self, width: int, classes: int, *, reproduce: bool = False) -> None:
        super().__init__()
        self.reproduce = reproduce
        self.stages = nn.ModuleList(DecoderModule(width) for _ in range(3))
        self.classify = nn.Conv2d(width, classes, 3, padding=1)

    @override
    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The fused map of stride 16 and the skips of strides 4, 8, 16 -> scores of stride 4."""
        if self.reproduce:
            for stage, skip in zip(self.stages, skips, strict=True):
                x = stage(x, F.interpolate(skip, x.shape[2:], mode="bilinear", align_corners=False))
            x = self.classify(x)
            for _ in range(2):
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            return x
        scores: Tensor = self.classify(self.refined(x, skips))
        return scores

    def refined(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The maps of stride 4 that the classifier reads, by the plan that doubles the resolution."""
        for number, (stage, skip) in enumerate(zip(self.stages, reversed(skips), strict=True)):
            if number:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = stage(x, skip)
        return x
