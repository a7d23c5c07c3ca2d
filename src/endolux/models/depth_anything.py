"""Depth Anything 1 and 2 as trainable networks (Yang et al., arXiv 2401.10891 and 2406.09414)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, Unpack, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.adapt.lora import load_unadapted
from endolux.errors import UsageError
from endolux.models.base import register
from endolux.models.depth_anything_keys import from_any
from endolux.models.dpt import PATCH, TAPS, DPTNetwork, Options, nearest_multiple
from endolux.types import DepthKind

Output: TypeAlias = Literal["disparity", "metric", "depth", "inverse"]
OUTPUTS = ("disparity", "metric", "depth", "inverse")
_METRIC: Mapping[str, float] = {"hypersim": 20_000.0, "indoor": 20_000.0, "vkitti": 80_000.0, "outdoor": 80_000.0}
"""Largest depth in mm of the released metric networks, by what their names contain."""
LARGEST_DISPARITY = 650.0
"""Released networks give tens; only the step of 16-bit files depends on it, which is 0.01 up to 655."""


@register("depth-anything-v1-s", variant="v1-s")
@register("depth-anything-v1-b", variant="v1-b")
@register("depth-anything-v1-l", variant="v1-l")
@register("depth-anything-v2-s", variant="v2-s")
@register("depth-anything-v2-b", variant="v2-b")
@register("depth-anything-v2-l", variant="v2-l")
class DepthAnything(DPTNetwork):
    """Depth Anything with the published head, or with one that is fine-tuned for depth.

    Pictures whose sides are multiples of 14 are seen as they are. Others are resized bilinearly to the nearest
    multiples, and the output back. With ``reproduce`` the last rows and columns that fill no patch are cut off instead
    and the output is stretched over the picture with its corners aligned, as the published code does.

    Args:
        variant: ``v1-s`` to ``v2-l``.
        output: what the head gives. ``disparity``: inverse depth of unknown scale and shift, as published;
            ``metric``: the published metric head, ``max_depth_mm`` times a sigmoid; ``depth``: depth over
            ``max_depth_mm``, of a new last layer (what Surgical Depth Anything trains); ``inverse``:
            ``min_depth_mm`` over depth, which keeps the sense of the pretrained output.
        max_depth_mm: largest depth that these heads give.
        min_depth_mm: smallest.
        start: output of a new last layer before it is trained.
        reproduce: see above.
        **options: see :class:`endolux.models.dpt.DPTNetwork`.

    Raises:
        UsageError: ``model.config``; what :class:`~endolux.models.dpt.DPTNetwork` raises.

    Example:
        >>> tiny = dict(hidden_size=32, blocks=4, heads=2, neck=[8, 12, 16, 24], fusion=16, head_width=8, grid=4)
        >>> network = DepthAnything(variant="v2-s", taps=[1, 2, 3, 4], **tiny).eval()
        >>> network(torch.rand(1, 3, 56, 70)).shape, network.kind.value
        (torch.Size([1, 1, 56, 70]), 'relative_disparity')
        >>> network(torch.rand(1, 3, 50, 70)).shape
        torch.Size([1, 1, 50, 70])
    """

    multiple = PATCH

    def __init__(
        self,
        *,
        variant: str = "v2-s",
        output: str = "disparity",
        max_depth_mm: float = 200.0,
        min_depth_mm: float = 1.0,
        start: float = 0.3,
        reproduce: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if variant not in TAPS or output not in OUTPUTS or not 0.0 < min_depth_mm < max_depth_mm or not 0 < start < 1:
            raise UsageError(
                f"variant={variant!r}, output={output!r}, depth {min_depth_mm} to {max_depth_mm} mm, start={start}",
                why=f"Variants are {', '.join(TAPS)}; outputs {', '.join(OUTPUTS)}; depths rise and are positive; "
                "the start lies between 0 and 1.",
                fix="Correct model.config.",
                error_id="model.config",
            )
        super().__init__(variant=variant, **options)
        self.architecture = f"depth-anything-{variant}"
        self.reproduce = bool(reproduce)
        self.output = cast(Output, output)
        self.max_depth_mm, self.min_depth_mm, self.start = float(max_depth_mm), float(min_depth_mm), float(start)
        self.kind = DepthKind.RELATIVE_DISPARITY if output == "disparity" else DepthKind.METRIC
        if output in ("depth", "inverse"):
            self.restart_head()
        self._adapt()

    @override
    def config(self) -> dict[str, object]:
        return {
            "variant": self.variant,
            "output": self.output,
            "max_depth_mm": self.max_depth_mm,
            "min_depth_mm": self.min_depth_mm,
            "start": self.start,
            "reproduce": self.reproduce,
            **self.shape_config(),
        }

    @property
    def grid(self) -> int:
        """Rows and columns of the learned positions: of the pictures that it was trained with."""
        return cast(int, self._shape["grid"])

    @override
    def decoder_parts(self) -> Mapping[str, Sequence[nn.Module]]:
        return {"decoder": [self.neck], "head": [self.head]}

    @torch.no_grad()
    def restart_head(self) -> None:
        """Small weights and the bias ``start`` in the last layer: the output is near the middle of its targets.

        The pretrained head gives large values near the camera; where the target is depth, plain L1 training would
        first have to turn it round, and a ReLU would let no gradient through where it gives 0.
        """
        last = cast(nn.Conv2d, self.head.conv3)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.constant_(cast(Tensor, last.bias), self.start)

    @override
    def depth_range(self) -> tuple[float, float]:
        if self.output == "disparity":
            return 0.0, LARGEST_DISPARITY
        return (0.0 if self.output == "metric" else self.min_depth_mm), self.max_depth_mm

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Disparity, or the ratio of the other outputs (those of ``depth`` and ``inverse`` may leave 0 to 1)."""
        return self._decoded(image, ())[0]

    @override
    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        self._check_features(names)
        return self._decoded(image, names)

    @override
    def features(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        self._check_features(names)
        asked = {name: int(name.removeprefix("block")) for name in names}
        if not asked:
            return {}
        tokens, rows, columns = self._tokens(self._fitted(image), sorted(set(asked.values())))
        maps = {
            i: hidden[:, 1:].transpose(1, 2).reshape(image.shape[0], -1, rows, columns) for i, hidden in tokens.items()
        }
        return {name: maps[block] for name, block in asked.items()}

    @override
    def depth(self, image: Tensor) -> Tensor:
        """Disparity where ``output`` is disparity; otherwise depth in mm."""
        return self.depth_of(self(image))

    @override
    def depth_of(self, output: Tensor) -> Tensor:
        output = output.float()
        if self.output == "disparity":
            return output
        if self.output == "metric":
            return output * self.max_depth_mm
        least = self.min_depth_mm / self.max_depth_mm
        if self.output == "depth":
            return output.clamp(least, 1.0) * self.max_depth_mm
        return self.min_depth_mm / output.clamp(least, 1.0)

    @override
    def log_depth(self, image: Tensor) -> Tensor:
        """Natural logarithm of depth.

        Raises:
            UsageError: ``model.kind`` for a network of disparity, whose shift is unknown.
        """
        self._check_depth()
        return super().log_depth(image)

    @override
    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        self._check_depth()
        output, maps = self.with_features(image, names)
        return (1.0 / self.depth_of(output),), maps

    @override
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Copy weights named as in the original checkpoints or as in ``transformers``; the adapters stay.

        Weights of a published head turn into the start of a fine-tuned one: see :meth:`restart_head`.

        Raises:
            ModelError: ``model.variant``, ``model.weights``.
        """
        load_unadapted(self, from_any(state))
        if self.output == "depth":
            self.restart_head()

    def _check_depth(self) -> None:
        if self.output == "disparity":
            raise UsageError(
                f"'{self.architecture}' gives disparity of unknown scale and shift, which has no depth",
                why="An unknown shift cannot be undone by one factor.",
                fix="Use model.config.output=depth (or inverse), whose head is trained for depth.",
                error_id="model.kind",
            )

    def _fitted(self, image: Tensor) -> Tensor:
        """The picture as the patches see it."""
        height, width = image.shape[2:]
        if self.reproduce or (height % PATCH == 0 and width % PATCH == 0):
            return image
        size = nearest_multiple(height), nearest_multiple(width)
        return F.interpolate(image, size, mode="bilinear", align_corners=False)

    def _decoded(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        paths, maps, rows, columns = self._paths(self._fitted(image), names)
        values = self._head(paths[-1], rows * PATCH, columns * PATCH)
        if self.output == "disparity":
            values = values.relu()
        elif self.output == "metric":
            values = values.sigmoid()
        height, width = image.shape[2:]
        if height % PATCH or width % PATCH:
            values = F.interpolate(values.float(), (height, width), mode="bilinear", align_corners=self.reproduce)
        return values, maps


def metric_depth_of(name: str) -> float | None:
    """Largest depth in mm of the published metric network of that name; None for other names.

    Example:
        >>> metric_depth_of("depth_anything_v2_metric_hypersim_vits.pth"), metric_depth_of("depth_anything_v2_vits.pth")
        (20000.0, None)
    """
    if re.search(r"metric", name, re.I) is None:
        return None
    return next((depth for word, depth in _METRIC.items() if word in name.lower()), None)


def variant_of(name: str) -> str | None:
    """The variant that the name of a published model stands for; None for other names.

    Example:
        >>> variant_of("depth-anything/Depth-Anything-V2-Small-hf"), variant_of("LiheYoung/depth-anything-large-hf")
        ('v2-s', 'v1-l')
        >>> variant_of("depth_anything_v2_vitb.pth"), variant_of("dares")
        ('v2-b', None)
    """
    match = re.search(r"depth[-_]anything(.*?)[-_](?:vit)?(small|base|large|s|b|l)(?:14)?(?![a-z])", name, re.I)
    if match is None:
        return None
    version = "v2" if re.search(r"v2", match[1], re.I) else "v1"
    return f"{version}-{match[2][0].lower()}"
