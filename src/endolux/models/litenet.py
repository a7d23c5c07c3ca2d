"""LiteNet: dilated depthwise convolutions and one global vector a stage, down to stride 16, and a dense decoder.

A clean design of four sizes for the class of network that LiteNet (Zhu et al., IEEE TMI 2026) distils into; the
network that its published evaluation runs is :mod:`endolux.models.lite_mono`. Every operation is a convolution, a
bilinear upsampling or a reduction, so that the graph has neither a fixed size nor an operation that a runtime lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import register
from endolux.models.disparity import DisparityNetwork, logit_of_depth
from endolux.models.drop_path import DropPath, drop_rates
from endolux.models.ratio import float32_convolution


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """Widths and depths of one size.

    Attributes:
        widths: channels at strides 4, 8, 16.
        blocks: residual blocks at those strides.
        decoder: channels of the decoder at strides 8, 4, 2.
    """

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    decoder: tuple[int, int, int]


SIZES: Mapping[str, Size] = {
    "t": Size((32, 64, 112), (2, 2, 6), (48, 32, 16)),
    "s": Size((40, 80, 128), (3, 3, 8), (56, 32, 16)),
    "m": Size((48, 96, 176), (3, 3, 9), (64, 40, 24)),
    "l": Size((64, 128, 256), (3, 4, 12), (96, 56, 32)),
}
_DILATIONS = (1, 2, 3)
# The last blocks of stride 16 look wider: a dilation of 6 spans 200 pixels there.
_LAST_DILATIONS = (2, 4, 6)
_CONTEXT_REDUCTION = 4
_LAYER_SCALE = 0.1


class Block(nn.Module):
    """Dilated depthwise 3x3, BatchNorm, 1x1 to four times the width, GELU, 1x1 back, layer scale, residual.

    Example:
        >>> tuple(Block(16, dilation=2)(torch.rand(2, 16, 8, 12)).shape)
        (2, 16, 8, 12)
    """

    FOLDS: ClassVar[tuple[tuple[str, str], ...]] = (("depthwise", "bn"),)

    def __init__(self, width: int, *, dilation: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, 1, dilation, dilation, groups=width, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.project = nn.Conv2d(4 * width, width, 1)
        self.scale: nn.Parameter | None = nn.Parameter(torch.full((width, 1, 1), _LAYER_SCALE))
        self.drop_path: nn.Module = DropPath(drop_path)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x width x H x W -> the same shape."""
        y = self.project(F.gelu(self.expand(self.bn(self._spread(x)))))
        if self.scale is not None:
            y = y * self.scale
        return x + cast(Tensor, self.drop_path(y))

    def _spread(self, x: Tensor) -> Tensor:
        # On a CPU the backward of a depthwise convolution in bf16 takes three times as long as in float32.
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return float32_convolution(self.depthwise, x)
        return cast(Tensor, self.depthwise(x))

    @torch.no_grad()
    def fuse_(self) -> None:
        """Fold the layer scale into the projection, in place."""
        if self.scale is not None:
            bias = cast(Tensor, self.project.bias)
            bias.mul_(self.scale.flatten())
            self.project.weight.mul_(self.scale[..., None])
        self.scale, self.drop_path = None, nn.Identity()


class GlobalContext(nn.Module):
    """Adds a function of one softmax-pooled vector of the whole image to every position (after Cao et al., 2019).

    The light's fall-off over the whole frame is the low-frequency cue of endoscopy; one vector carries it.

    Example:
        >>> x = torch.rand(2, 16, 4, 6)
        >>> added = GlobalContext(16)(x) - x
        >>> bool((added - added[:, :, :1, :1]).abs().max() < 1e-6)
        True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(width, 1, 1)
        self.squeeze = nn.Conv2d(width, width // _CONTEXT_REDUCTION, 1)
        self.expand = nn.Conv2d(width // _CONTEXT_REDUCTION, width, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x width x H x W -> the same shape."""
        # float32: under autocast a sum over 5,120 positions in bf16 would lose the small ones.
        weights = self.attention(x).float().flatten(2).softmax(dim=2).reshape(x.shape[0], 1, *x.shape[2:])
        pooled = (x.float() * weights).sum(dim=(2, 3), keepdim=True)
        return x + cast(Tensor, self.expand(F.relu(self.squeeze(pooled.to(x.dtype)))))


class Level(nn.Module):
    """One decoder level: bilinear x2, concatenated with the skip, one dense 3x3."""

    FOLDS: ClassVar[tuple[tuple[str, str], ...]] = (("conv", "bn"),)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    @override
    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """N x C x H x W and N x S x 2H x 2W -> N x outputs x 2H x 2W."""
        x = _upsample(x)
        x = x if skip is None else torch.cat((x, skip), dim=1)
        return F.relu(self.bn(self.conv(x)))


@register("litenet-t", size="t")
@register("litenet-s", size="s")
@register("litenet-m", size="m")
@register("litenet-l", size="l")
class LiteNet(DisparityNetwork):
    """LiteNet: relative depth from one RGB image; height and width are multiples of 16.

    Disparity is a sigmoid between ``1 / depth_max_mm`` and ``1 / depth_min_mm``, its logits upsampled bilinearly to
    every pixel. Heads at 1/2 and 1/4 of the size serve multi-scale losses and are absent from the fused form.

    Args:
        size: "t", "s", "m" or "l"; the names ``litenet-t`` to ``litenet-l`` stand for them.
        depth_min_mm, depth_max_mm: range of the output; near millimetres, the kind stays relative depth.
        drop_path: share of samples that skip the last block in training; rises linearly from 0 at the first.
        side_heads: whether the training form has the heads at 1/2 and 1/4.
        fused: build the inference form, to load fused weights into.

    Raises:
        UsageError: ``model.config`` for an unknown size or an impossible range or probability.

    Example:
        >>> network = LiteNet(size="t").eval()
        >>> with torch.inference_mode():
        ...     depth = network(torch.rand(1, 3, 64, 96))
        >>> tuple(depth.shape), bool((depth > 1).all() and (depth < 400).all())
        ((1, 1, 64, 96), True)
        >>> [tuple(each.shape[2:]) for each in network.disparities(torch.rand(1, 3, 64, 96))]
        [(64, 96), (32, 48), (16, 24)]
    """

    def __init__(
        self,
        *,
        size: str = "m",
        depth_min_mm: float = 1.0,
        depth_max_mm: float = 400.0,
        drop_path: float = 0.0,
        side_heads: bool = True,
        fused: bool = False,
    ) -> None:
        super().__init__(depth_min_mm=depth_min_mm, depth_max_mm=depth_max_mm)
        if size not in SIZES:
            raise UsageError(
                f"Impossible network: size={size!r}",
                why=f"It must be one of {', '.join(SIZES)}.",
                fix="Use 'm', the default, or the names litenet-t, litenet-s, litenet-m, litenet-l.",
                error_id="model.config",
            )
        self.architecture = f"litenet-{size}"
        widths, blocks, decoder = SIZES[size].widths, SIZES[size].blocks, SIZES[size].decoder
        rates = iter(drop_rates(drop_path, sum(blocks)))
        self.size, self.drop_path, self.side_heads = size, float(drop_path), bool(side_heads)
        narrow = widths[0] // 2
        self.stem = nn.Sequential(*_convolution(3, narrow, stride=2), *_convolution(narrow, narrow))
        self.downs, self.stages, self.contexts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = narrow
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            dilations = _dilations(count, last=stage == 2)
            self.downs.append(nn.Sequential(*_convolution(inputs, width, stride=2, activation=stage == 0)))
            self.stages.append(nn.Sequential(*(Block(width, dilation=d, drop_path=next(rates)) for d in dilations)))
            self.contexts.append(GlobalContext(width))
            inputs = width
        self.levels, self.heads = nn.ModuleList(), nn.ModuleList()
        for width, skip in zip(decoder, (widths[1], widths[0], 0), strict=True):
            self.levels.append(Level(inputs + skip, width))
            inputs = width
        # The geometric middle of the range (20 for 1 to 400) is a sensible depth to start from.
        middle = (self.depth_min_mm * self.depth_max_mm) ** 0.5
        for width in reversed(decoder if side_heads else decoder[2:]):
            head = nn.Conv2d(width, 1, 3, padding=1)
            nn.init.normal_(head.weight, std=0.01)
            nn.init.constant_(cast(Tensor, head.bias), logit_of_depth(middle, self.depth_min_mm, self.depth_max_mm))
            self.heads.append(head)
        if fused:
            self._fold_()

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`. Of the fused form, nothing that only training needs."""
        training: dict[str, object] = {"drop_path": self.drop_path, "side_heads": self.side_heads}
        return {"size": self.size, **super().config(), **({} if self._fused else training)}

    @override
    def feature_names(self) -> Mapping[str, int]:
        """See :meth:`DepthNetwork.feature_names`: the stages at strides 4, 8, 16; the last is the bottleneck."""
        return {f"stage{index + 1}": width for index, width in enumerate(SIZES[self.size].widths)}

    @override
    def with_logits(
        self, image: Tensor, names: Sequence[str], *, sides: bool
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """See :meth:`DisparityNetwork.with_logits`."""
        x = self.stem(image * 4.0 - 2.0)
        stages: list[Tensor] = []
        for down, blocks, context in zip(self.downs, self.stages, self.contexts, strict=True):
            x = context(blocks(down(x)))
            stages.append(x)
        decoded = []
        for level, skip in zip(self.levels, (stages[1], stages[0], None), strict=True):
            x = level(x, skip)
            decoded.append(x)
        heads = self.heads if sides else self.heads[:1]
        logits = tuple(
            _upsample(float32_convolution(head, y)) for head, y in zip(heads, reversed(decoded), strict=False)
        )
        return logits, {name: stages[int(name[-1]) - 1] for name in names}

    @override
    def _fuse_(self) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                module.fuse_()
        self.heads = self.heads[:1]


def _convolution(inputs: int, outputs: int, *, stride: int = 1, activation: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ReLU(inplace=True)] if activation else layers


def _dilations(count: int, *, last: bool) -> tuple[int, ...]:
    cycle = tuple(_DILATIONS[index % len(_DILATIONS)] for index in range(count))
    return cycle[: -len(_LAST_DILATIONS)] + _LAST_DILATIONS if last else cycle


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
