"""EndoDAC: Depth Anything 1 Base with DV-LoRA, convolutions between blocks and four heads (arXiv 2405.08672)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.models.base import register
from endolux.models.dares import MAX_DEPTH, MIN_DEPTH, SCALES, SigmoidDisparity
from endolux.models.dares_keys import load_endodac
from endolux.models.dpt import PATCH, Options

_NARROWER = 8
_EVERY = 3


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Residual(nn.Module):
    """Three convolutions through an eighth of the channels; nothing before training, for the last norm is zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // _NARROWER)
        self.conv1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.norm1 = _ChannelNorm(narrow, eps=1e-6)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.norm2 = _ChannelNorm(narrow, eps=1e-6)
        self.conv3 = nn.Conv2d(narrow, channels, 1, bias=False)
        self.norm3 = _ChannelNorm(channels, eps=1e-6)
        nn.init.zeros_(self.norm3.weight)

    @override
    def forward(self, input: Tensor) -> Tensor:
        hidden = F.gelu(self.norm1(self.conv1(input)))
        hidden = F.gelu(self.norm2(self.conv2(hidden)))
        return cast(Tensor, self.norm3(self.conv3(hidden)))


class _Head(nn.Module):
    """Sigmoid disparity of one scale, at twice the size of its map."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(channels // 2, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 1, 1)

    @override
    def forward(self, path: Tensor) -> Tensor:
        hidden = self.conv1(path)
        size = 2 * path.shape[2], 2 * path.shape[3]
        hidden = F.interpolate(hidden, size, mode="bilinear", align_corners=True)
        return cast(Tensor, self.conv3(self.conv2(hidden).relu()))


@register("endodac")
class EndoDAC(SigmoidDisparity):
    """EndoDAC's depth network: 99,091,748 parameters, of which 1,667,076 are trained (and U and V, unless fixed).

    A picture of H x W is resized to 7/8 of its size with corners aligned (256 x 320 to 224 x 280), so that a patch of
    14 is 16 pixels of it, and every output has exactly the size that its scale asks for.

    Args:
        min_depth, max_depth: depths between which it works.
        merged: built without branches, as :meth:`fuse` leaves it.
        **options: see :class:`endolux.models.dpt.DPTNetwork`. By default DV-LoRA on the MLP with only the heads
            trained outside the transformer; ``positions`` is ``offset``, as in the original DINOv2 code, and nothing
            is normalised.

    Example:
        >>> tiny = dict(hidden_size=32, blocks=6, heads=2, neck=[8, 12, 16, 24], fusion=16, head_width=8, grid=4)
        >>> network = EndoDAC(taps=[3, 4, 5, 6], **tiny).eval()
        >>> [tuple(each.shape[2:]) for each in network.disparities(torch.rand(1, 3, 64, 80))]
        [(64, 80), (32, 40), (16, 20), (8, 10)]
    """

    multiple = 16

    def __init__(
        self,
        *,
        min_depth: float = MIN_DEPTH,
        max_depth: float = MAX_DEPTH,
        merged: bool = False,
        **options: Unpack[Options],
    ) -> None:
        adapt = None if merged else {"kind": "dv-lora", "decoder": "head"}
        super().__init__(
            variant="v1-b", defaults={"positions": "offset", "normalise": False, "adapt": adapt}, **options
        )
        self.architecture = "endodac"
        self._set_range(min_depth, max_depth)
        channels, joined, width = (cast(int, self._shape[key]) for key in ("hidden_size", "fusion", "head_width"))
        del self.head
        self.heads = nn.ModuleList(_Head(joined, width) for _ in range(SCALES))
        # After the third, sixth, ... block.
        places = range(_EVERY, len(self.blocks()) + 1, _EVERY)
        self.residuals = nn.ModuleDict({str(number): _Residual(channels) for number in places})
        self._adapt()

    @override
    def config(self) -> dict[str, object]:
        return {
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            **self.shape_config(),
            "merged": self.adaptation is None,
        }

    @override
    def decoder_parts(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"decoder": [self.neck], "head": [self.heads, self.residuals]}

    @override
    def _after_block(self, number: int, hidden: Tensor, rows: int, columns: int) -> Tensor:
        key = str(number)
        if key not in self.residuals:
            return hidden
        first, patches = hidden[:, :1], hidden[:, 1:]
        change = self.residuals[key](patches.transpose(1, 2).reshape(hidden.shape[0], -1, rows, columns))
        return torch.cat((first, patches + change.flatten(2).transpose(1, 2)), dim=1)

    @override
    def _decoded(
        self, image: Tensor, names: Sequence[str], scales: int
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        height, width = image.shape[2:]
        inside = height // self.multiple * PATCH, width // self.multiple * PATCH
        image = F.interpolate(image, inside, mode="bilinear", align_corners=True)
        paths, maps, _, _ = self._paths(image, names)
        outputs = zip(self.heads, paths[::-1], range(scales), strict=False)
        return tuple(head(path).float().sigmoid() for head, path, _ in outputs), maps

    @override
    @torch.no_grad()
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of EndoDAC, or the transformer and decoder of Depth Anything 1 to start from.

        Raises:
            ModelError: ``model.variant`` where names or shapes differ, ``model.weights`` for what is not finite.
        """
        load_endodac(self, state)
