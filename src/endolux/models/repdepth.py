"""RepDepth: reparameterised plain convolutions from a patchify stem to depth at every pixel.

The block is RepVGG's (Ding et al., CVPR 2021): 3x3, 1x1 and identity branches in training, one 3x3 convolution in
inference. Dense 3x3 convolutions at stride 4 and coarser use an ordinary CPU best; full-resolution and depthwise
layers are memory-bound there, so the stem starts at stride 4 and one narrow layer at stride 2 sharpens the boundaries.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name that torch documents)
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import DepthNetwork, register
from endolux.types import DepthKind

_Weights = tuple[Tensor, Tensor]


class ConvBN(nn.Module):
    """Convolution with BatchNorm, or one biased convolution when ``fused``. Same-size padding for odd kernels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, fused: bool = False
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2) if kernel % 2 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=fused)
        self.bn = None if fused else nn.BatchNorm2d(outputs)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x outputs x H/stride x W/stride."""
        x = self.conv(x)
        return x if self.bn is None else self.bn(x)

    def folded(self) -> _Weights:
        """Kernel and bias of the single convolution that equals this module in evaluation mode."""
        if self.bn is None:
            return self.conv.weight, cast(Tensor, self.conv.bias)
        return _fold(self.conv.weight, self.bn)

    def fuse_(self) -> None:
        """Fold the BatchNorm in place."""
        if self.bn is not None:
            self.conv = _plain_convolution(self.conv, self.folded())
            self.bn = None


class RepBlock(nn.Module):
    """3x3 + 1x1 + identity branches, each with BatchNorm, then ReLU; :meth:`fuse_` turns it into one 3x3 and ReLU.

    Args:
        inputs, outputs: channels. The identity branch exists where they are equal and ``stride`` is 1.
        stride: 1 or 2.
        dilation: of the 3x3 branch.
        fused: build the inference form.

    Example:
        >>> block = RepBlock(16, 16).eval()
        >>> x = torch.randn(1, 16, 8, 8)
        >>> before = block(x)
        >>> block.fuse_()
        >>> bool(torch.allclose(before, block(x), atol=1e-5))
        True
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1, fused: bool = False) -> None:
        super().__init__()
        self.dense = ConvBN(inputs, outputs, 3, stride=stride, dilation=dilation, fused=fused)
        self.point = None if fused else ConvBN(inputs, outputs, 1, stride=stride)
        self.identity = nn.BatchNorm2d(outputs) if not fused and inputs == outputs and stride == 1 else None

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x H x W -> N x outputs x H/stride x W/stride."""
        y = self.dense(x)
        if self.point is not None:
            y = y + self.point(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return F.relu(y, inplace=True)

    def fuse_(self) -> None:
        """Fold the three branches in place; exact up to rounding in evaluation mode."""
        if self.point is None:
            return
        kernel, bias = self.dense.folded()
        point_kernel, point_bias = self.point.folded()
        # A dilated kernel has its centre tap at the same place, so the 1x1 branches land there for any dilation.
        kernel, bias = kernel + F.pad(point_kernel, (1, 1, 1, 1)), bias + point_bias
        if self.identity is not None:
            channels = kernel.shape[0]
            unit = torch.eye(channels, dtype=kernel.dtype, device=kernel.device).reshape(channels, channels, 1, 1)
            identity_kernel, identity_bias = _fold(unit, self.identity)
            kernel, bias = kernel + F.pad(identity_kernel, (1, 1, 1, 1)), bias + identity_bias
        self.dense.conv = _plain_convolution(self.dense.conv, (kernel, bias))
        self.dense.bn = self.point = self.identity = None


class GlobalContext(nn.Module):
    """Adds a function of the image-wide mean to every position, so that the coarsest features see the whole view."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.expand = nn.Conv2d(channels // 2, channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> the same shape."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x + cast(Tensor, self.expand(F.relu(self.squeeze(mean))))


class Deep(nn.Module):
    """Adds what strides 64 and 128 say to the stride-32 features; starts as the identity."""

    def __init__(self, channels: int, width: int, *, fused: bool = False) -> None:
        super().__init__()
        self.down = RepBlock(channels, width, stride=2, fused=fused)
        self.same = RepBlock(width, width, fused=fused)
        self.lower = RepBlock(width, width, stride=2, fused=fused)
        self.lowest = RepBlock(width, width, fused=fused)
        self.expand = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(cast(Tensor, self.expand.bias))

    @override
    def forward(self, x: Tensor) -> Tensor:
        y = self.same(self.down(x))
        z = self.lowest(self.lower(y))
        y = y + F.interpolate(z, size=y.shape[-2:], mode="bilinear", align_corners=False)
        return x + F.interpolate(self.expand(y), size=x.shape[-2:], mode="bilinear", align_corners=False)


class Merge(nn.Module):
    """One decoder step: project the coarse map, upsample it to nearest, add the projected skip, one 3x3 convolution."""

    def __init__(self, coarse: int, skip: int, outputs: int, *, fused: bool = False) -> None:
        super().__init__()
        self.coarse = ConvBN(coarse, outputs, 1, fused=fused)
        self.skip = ConvBN(skip, outputs, 1, fused=fused)
        # One branch: at stride 4 the additional BatchNorms of a RepBlock cost more training time than they give.
        self.smooth = ConvBN(outputs, outputs, 3, fused=fused)

    @override
    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N x coarse x H x W, N x skip x 2H x 2W -> N x outputs x 2H x 2W."""
        x = F.interpolate(self.coarse(x), scale_factor=2.0, mode="nearest")
        return F.relu(self.smooth(F.relu(x + self.skip(skip), inplace=True)), inplace=True)


class Fine(nn.Module):
    """From stride 4 to stride 2: pixel-shuffle, plus edges taken straight from the image, then one narrow convolution.

    BatchNorm at this size is a quarter of a training step on a CPU, so that only the stride-4 part has it.
    """

    def __init__(self, inputs: int, channels: int, *, fused: bool = False) -> None:
        super().__init__()
        self.shuffle = ConvBN(inputs, 4 * channels, 1, fused=fused)
        self.edges = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)

    @override
    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """N x inputs x H x W, N x 3 x 4H x 4W -> N x channels x 2H x 2W."""
        x = F.pixel_shuffle(self.shuffle(x), 2) + self.edges(image)
        return F.relu(self.smooth(F.relu(x, inplace=True)), inplace=True)


@register("repdepth")
class RepDepth(DepthNetwork):
    """The default student: relative depth from one RGB image.

    Depth is ``exp(log(dmin) + s (log(dmax) - log(dmin)))`` with s from a sigmoid at stride 2 (4 without the fine step),
    upsampled bilinearly in log depth to every pixel.

    Args:
        widths: channels at strides 4, 8, 16, 32.
        blocks: RepBlocks at those strides; the first of each later stage halves the size.
        decoder: channels of the decoder at strides 16, 8, 4.
        fine: channels of the step to stride 2; 0 leaves it out.
        dilations: dilation of the stride-32 blocks after the first, repeated as needed.
        context: whether the stride-32 features see the mean of the whole image.
        deep: channels at strides 64 and 128, which widen the view of the stride-32 features; 0 leaves them out.
        depth_min, depth_max: range of the output; near millimetres, the kind stays relative depth.
        fused: build the inference form, to load fused weights into.

    Raises:
        UsageError: impossible widths, blocks or range.

    Example:
        >>> network = RepDepth().eval()
        >>> with torch.inference_mode():
        ...     depth = network(torch.rand(1, 3, 64, 96))
        >>> tuple(depth.shape), bool((depth > 1).all() and (depth < 400).all())
        ((1, 1, 64, 96), True)
    """

    kind = DepthKind.RELATIVE_DEPTH
    multiple = 32

    def __init__(
        self,
        *,
        widths: Sequence[int] = (48, 96, 192, 208),
        blocks: Sequence[int] = (1, 2, 4, 2),
        decoder: Sequence[int] = (128, 80, 48),
        fine: int = 16,
        dilations: Sequence[int] = (2,),
        context: bool = True,
        deep: int = 0,
        depth_min: float = 1.0,
        depth_max: float = 400.0,
        fused: bool = False,
    ) -> None:
        super().__init__()
        _check(widths, blocks, decoder, fine, dilations, deep, depth_min, depth_max)
        self._config: dict[str, object] = {
            "widths": list(widths),
            "blocks": list(blocks),
            "decoder": list(decoder),
            "fine": fine,
            "dilations": list(dilations),
            "context": context,
            "deep": deep,
            "depth_min": depth_min,
            "depth_max": depth_max,
        }
        self._fused, self._widths = fused, tuple(widths)
        self._log_min, self._log_max = math.log(depth_min), math.log(depth_max)
        self.stem = ConvBN(3, widths[0], 4, stride=4, fused=fused)
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.Sequential()
            for index in range(count):
                stride = 2 if level > 0 and index == 0 else 1
                dilation = dilations[(index - 1) % len(dilations)] if level == 3 and index > 0 else 1
                stage.append(RepBlock(inputs, width, stride=stride, dilation=dilation, fused=fused))
                inputs = width
            self.stages.append(stage)
        self.context = GlobalContext(widths[3]) if context else nn.Identity()
        self.deep = Deep(widths[3], deep, fused=fused) if deep else nn.Identity()
        self.merges = nn.ModuleList()
        for skip, width in zip(reversed(widths[:3]), decoder, strict=True):
            self.merges.append(Merge(inputs, skip, width, fused=fused))
            inputs = width
        self.fine = Fine(inputs, fine, fused=fused) if fine else None
        self.head = nn.Conv2d(fine or inputs, 1, 3, padding=1)
        # The middle of the log range (20 for 1..400) is a sensible depth to start from.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    @override
    def config(self) -> dict[str, object]:
        """See :meth:`DepthNetwork.config`."""
        return {**self._config, **({"fused": True} if self._fused else {})}

    @override
    def depth_range(self) -> tuple[float, float]:
        """See :meth:`DepthNetwork.depth_range`."""
        return math.exp(self._log_min), math.exp(self._log_max)

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Depth; see :meth:`DepthNetwork.forward`. Height and width are multiples of 32."""
        return self.depth(image)

    @override
    def depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.depth`."""
        return torch.exp(self.log_depth(image))

    @override
    def feature_names(self) -> Mapping[str, int]:
        """See :meth:`DepthNetwork.feature_names`: strides 4 to 32, the last with context."""
        return {f"stage{index + 1}": width for index, width in enumerate(self._widths)}

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_features`."""
        self._check_features(names)
        log_depth, stages = self._log_depth(image)
        return torch.exp(log_depth), {name: stages[int(name[-1]) - 1] for name in names}

    @override
    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """See :meth:`DepthNetwork.with_disparities`."""
        self._check_features(names)
        log_depth, stages = self._log_depth(image)
        return (torch.exp(-log_depth),), {name: stages[int(name[-1]) - 1] for name in names}

    @override
    def log_depth(self, image: Tensor) -> Tensor:
        """See :meth:`DepthNetwork.log_depth`."""
        return self._log_depth(image)[0]

    def _log_depth(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        image = image * 4.0 - 2.0
        x = F.relu(self.stem(image), inplace=True)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[3] = x = self.deep(self.context(x))
        for merge, skip in zip(self.merges, reversed(features[:3]), strict=True):
            x = merge(x, skip)
        if self.fine is not None:
            x = self.fine(x, image)
        # Log depth spans 6: a bf16 step there would be 1-2 % of depth, so the last steps are float32 under autocast.
        fraction = torch.sigmoid(self.head(x).float())
        log_depth = self._log_min + fraction * (self._log_max - self._log_min)
        scale = 2.0 if self.fine is not None else 4.0
        return F.interpolate(log_depth, scale_factor=scale, mode="bilinear", align_corners=False), features

    @override
    @torch.no_grad()
    def fuse(self) -> Self:
        """See :meth:`DepthNetwork.fuse`. The copy is in evaluation mode.

        Example:
            >>> RepDepth().fuse().config()["fused"]
            True
        """
        fused = copy.deepcopy(self).eval()
        for module in _foldable(fused):
            module.fuse_()
        fused._fused = True
        return fused.requires_grad_(False)


def _foldable(network: nn.Module) -> Iterator[RepBlock | ConvBN]:
    modules = [module for module in network.modules() if isinstance(module, (RepBlock, ConvBN))]
    # Blocks first: their inner ConvBN must still have its BatchNorm when the branches are summed.
    return iter(sorted(modules, key=lambda module: isinstance(module, ConvBN)))


def _fold(kernel: Tensor, bn: nn.BatchNorm2d) -> _Weights:
    mean, variance = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
    scale = bn.weight / torch.sqrt(variance + bn.eps)
    return kernel * scale.reshape(-1, 1, 1, 1), bn.bias - mean * scale


def _plain_convolution(like: nn.Conv2d, weights: _Weights) -> nn.Conv2d:
    kernel, bias = weights
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        cast(tuple[int, int], like.kernel_size),
        cast(tuple[int, int], like.stride),
        cast(tuple[int, int], like.padding),
        cast(tuple[int, int], like.dilation),
        device=kernel.device,
        dtype=kernel.dtype,
    )
    conv.weight.data.copy_(kernel)
    cast(Tensor, conv.bias).data.copy_(bias)
    return conv


def _check(
    widths: Sequence[int],
    blocks: Sequence[int],
    decoder: Sequence[int],
    fine: int,
    dilations: Sequence[int],
    deep: int,
    depth_min: float,
    depth_max: float,
) -> None:
    wrong = (
        f"widths={list(widths)}: four positive numbers"
        if len(widths) != 4 or min(widths) < 2
        else f"blocks={list(blocks)}: four positive numbers"
        if len(blocks) != 4 or min(blocks) < 1
        else f"decoder={list(decoder)}: three positive numbers"
        if len(decoder) != 3 or min(decoder) < 1
        else f"fine={fine}: zero or more"
        if fine < 0
        else f"dilations={list(dilations)}: one or more positive numbers"
        if not dilations or min(dilations) < 1
        else f"deep={deep}: zero or more"
        if deep < 0
        else f"depth_min={depth_min}, depth_max={depth_max}: 0 < depth_min < depth_max"
        if not 0 < depth_min < depth_max < math.inf
        else ""
    )
    if wrong:
        given, wanted = wrong.rsplit(": ", 1)
        raise UsageError(
            f"Impossible network: {given}",
            why=f"It must be {wanted}.",
            fix="Start from the defaults and change one thing at a time.",
            error_id="model.config",
        )
