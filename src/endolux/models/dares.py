"""DARES: Depth Anything 2 Small with Vector-LoRA and disparity at four scales (arXiv 2408.17433)."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Unpack, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.base import register
from endolux.models.dares_keys import load_dares
from endolux.models.disparity import scaled_disparity
from endolux.models.dpt import SHAPE, TAPS, DPTNetwork, Options, nearest_multiple
from endolux.types import DepthKind

SCALES = 4
MIN_DEPTH, MAX_DEPTH = 0.1, 150.0
"""The depths, in an unknown unit, between which the whole family of networks works."""
COUNTS = {"modules": 24, "parameters": 184_320, "trainable": 2_912_833}
"""Adapted layers, parameters of Vector-LoRA and all trained ones, as published; the network refuses others."""


class SigmoidDisparity(DPTNetwork):
    """A network whose heads give sigmoid disparity at four scales.

    Attributes:
        min_depth, max_depth: depths between which it works, in its own unknown unit.
    """

    kind = DepthKind.RELATIVE_DEPTH
    min_depth: float
    max_depth: float

    def _set_range(self, min_depth: float, max_depth: float) -> None:
        if not 0.0 < min_depth < max_depth:
            raise UsageError(
                f"The depths {min_depth} to {max_depth}",
                why="The smallest depth is positive and below the largest.",
                fix="Correct model.config; published networks have 0.1 and 150.",
                error_id="model.config",
            )
        self.min_depth, self.max_depth = float(min_depth), float(max_depth)

    @override
    def depth_range(self) -> tuple[float, float]:
        return self.min_depth, self.max_depth

    @abc.abstractmethod
    def _decoded(
        self, image: Tensor, names: Sequence[str], scales: int
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Sigmoid disparity, finest first, and features."""

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Sigmoid disparity of the finest scale, in (0, 1)."""
        return self._decoded(image, (), 1)[0][0]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        self._check_features(names)
        outputs, maps = self._decoded(image, names, 1)
        return outputs[0], maps

    @override
    def features(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        return self.with_features(image, names)[1]

    @override
    def depth(self, image: Tensor) -> Tensor:
        return self.depth_of(self(image))

    @override
    def depth_of(self, output: Tensor) -> Tensor:
        return 1.0 / self._scaled(output)

    @override
    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        self._check_features(names)
        outputs, maps = self._decoded(image, names, SCALES)
        return tuple(self._scaled(output) for output in outputs), maps

    def _scaled(self, sigmoid: Tensor) -> Tensor:
        return scaled_disparity(sigmoid.float(), self.min_depth, self.max_depth)


@register("dares")
class Dares(SigmoidDisparity):
    """DARES's depth network: 24,969,409 parameters, of which 2,912,833 are trained, 184,320 of them of Vector-LoRA.

    With ``reproduce`` as published: pictures are not normalised, the rows and columns that fill no patch of 14 are cut
    off although the output is stretched over all of the picture (G1, G2), and learned positions are resampled as in
    the release of its time. Otherwise pictures are resized bilinearly to the nearest multiples of 14, and normalised.

    Args:
        reproduce: see above.
        shared_head: one head for the four scales, as published; otherwise one for each (G3).
        min_depth, max_depth: depths between which it works.
        size: width of the transformer: ``s`` as published, ``b`` or ``l``.
        merged: built without branches, as :meth:`fuse` leaves it.
        **options: see :class:`endolux.models.dpt.DPTNetwork`. By default Vector-LoRA; with reproduce ``positions`` is
            ``offset`` and nothing is normalised.

    Example:
        >>> tiny = dict(hidden_size=32, blocks=4, heads=2, neck=[8, 12, 16, 24], fusion=16, head_width=8, grid=4)
        >>> network = Dares(taps=[1, 2, 3, 4], **tiny).eval()
        >>> [tuple(each.shape[2:]) for each in network.disparities(torch.rand(1, 3, 64, 80))]
        [(64, 80), (32, 40), (16, 20), (8, 10)]
    """

    # Of the coarsest of the four scales.
    multiple = 8

    def __init__(
        self,
        *,
        reproduce: bool = False,
        shared_head: bool = True,
        min_depth: float = MIN_DEPTH,
        max_depth: float = MAX_DEPTH,
        size: str = "s",
        merged: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if f"v2-{size}" not in TAPS:
            raise UsageError(
                f"No transformer of size {size!r}",
                why="Depth Anything 2 has the sizes s, b and l.",
                fix="Use s, as published.",
                error_id="model.config",
            )
        published = size == "s" and shared_head and all(options.get(name) is None for name in SHAPE)
        super().__init__(
            variant=f"v2-{size}",
            defaults={
                "positions": "offset" if reproduce else "size",
                "normalise": not reproduce,
                "adapt": None if merged else {"kind": "vector-lora", **(COUNTS if published else {})},
            },
            **options,
        )
        self.architecture = "dares"
        self.reproduce, self.shared_head, self._size = bool(reproduce), bool(shared_head), size
        self._set_range(min_depth, max_depth)
        if not shared_head:
            self.heads = nn.ModuleList(copy.deepcopy(self.head) for _ in range(SCALES - 1))
        self._adapt()

    @override
    def config(self) -> dict[str, object]:
        return {
            "reproduce": self.reproduce,
            "shared_head": self.shared_head,
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            "size": self._size,
            **self.shape_config(),
            "merged": self.adaptation is None,
        }

    @override
    def decoder_parts(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"decoder": [self.neck], "head": [self.head, *([] if self.shared_head else [self.heads])]}

    @override
    def _decoded(
        self, image: Tensor, names: Sequence[str], scales: int
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        height, width = image.shape[2:]
        if not self.reproduce:
            # Also where nothing changes: a graph must not depend on whether the size happens to fit.
            size = nearest_multiple(height), nearest_multiple(width)
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        paths, maps, _, _ = self._paths(image, names)
        outputs = []
        for scale, path in enumerate(paths[::-1][:scales]):
            values = self._of(scale, path, height // 2**scale, width // 2**scale)
            outputs.append(values.float().sigmoid())
        return tuple(outputs), maps

    def _of(self, scale: int, path: Tensor, height: int, width: int) -> Tensor:
        if scale == 0 or self.shared_head:
            return self._head(path, height, width)
        head = self.heads[scale - 1]
        hidden = F.interpolate(head.conv1(path), (height, width), mode="bilinear", align_corners=True)  # type: ignore[operator]
        return cast(Tensor, head.conv3(head.conv2(hidden).relu()))  # type: ignore[operator]

    @override
    @torch.no_grad()
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights of DARES (with its adapters), or of Depth Anything 2 to start from (without).

        Names may be those of transformers 4 or 5, or of the original Depth Anything.

        Raises:
            ModelError: ``model.variant`` where names or shapes differ, ``model.weights`` for what is not finite.
        """
        load_dares(self, state)
        if not self.shared_head and not any(name.startswith("heads.") for name in state):
            for head in self.heads:
                head.load_state_dict(self.head.state_dict())
