"""A light, depth-aware network of landmarks that runs in real time on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.drop_path import drop_rates
from endolux.models.folding import fold_batchnorm_
from endolux.models.landmark_network import LANDMARKS, LandmarkNetwork
from endolux.models.litenet import SIZES, Block, GlobalContext, Level, _convolution, _dilations
from endolux.models.parts import register_part

DEPTHS = ("none", "auxiliary", "input")
_RARE = -4.0
"""Score of a landmark before training: lines cover few pixels, and a network that begins with a quarter for each
class would spend its first steps on unlearning them."""


@register_part("landmarks-light")
class LandmarksLight(LandmarkNetwork):
    """LiteNet's encoder and decoder with scores of classes at half the picture's size; sides are multiples of 16.

    What makes it aware of depth: with ``auxiliary`` it learns relative inverse depth beside the landmarks, from the
    same features, and needs the picture alone at run time; with ``input`` it reads a map of it as a fourth channel.

    Args:
        size: of LiteNet, ``t`` to ``l``.
        depth: ``none``, ``auxiliary`` or ``input``.
        drop_path: share of samples that skip the last block in training.
        classes: names, the background first.
        fused: build the inference form, to load fused weights into.

    Raises:
        UsageError: ``model.config``.

    Example:
        >>> network = LandmarksLight(size="t").eval()
        >>> tuple(network(torch.rand(1, 3, 64, 96)).shape), tuple(network.probabilities(torch.rand(1, 3, 64, 96)).shape)
        ((1, 4, 32, 48), (1, 4, 64, 96))
    """

    multiple = 16

    def __init__(
        self,
        *,
        size: str = "t",
        depth: Literal["none", "auxiliary", "input"] = "auxiliary",
        drop_path: float = 0.0,
        classes: Sequence[str] = LANDMARKS,
        fused: bool = False,
    ) -> None:
        super().__init__(classes=classes)
        if size not in SIZES or depth not in DEPTHS:
            raise UsageError(
                f"Impossible network: size={size!r}, depth={depth!r}",
                why=f"Sizes are {', '.join(SIZES)}; depth is one of {', '.join(DEPTHS)}.",
                fix="Use size 't' with depth 'auxiliary', the defaults.",
                error_id="model.config",
            )
        self.architecture = "landmarks-light"
        self.size, self.depth, self.drop_path, self.fused = size, depth, float(drop_path), False
        self.reads_depth = depth == "input"
        self.exportable = not self.reads_depth
        widths, blocks, decoder = SIZES[size].widths, SIZES[size].blocks, SIZES[size].decoder
        rates = iter(drop_rates(drop_path, sum(blocks)))
        narrow, channels = widths[0] // 2, 4 if depth == "input" else 3
        # Names as LiteNet's, so that an encoder trained for depth fits.
        self.stem = nn.Sequential(*_convolution(channels, narrow, stride=2), *_convolution(narrow, narrow))
        self.downs, self.stages, self.contexts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = narrow
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            dilations = _dilations(count, last=stage == 2)
            self.downs.append(nn.Sequential(*_convolution(inputs, width, stride=2, activation=stage == 0)))
            self.stages.append(nn.Sequential(*(Block(width, dilation=d, drop_path=next(rates)) for d in dilations)))
            self.contexts.append(GlobalContext(width))
            inputs = width
        self.levels = nn.ModuleList()
        for width, skip in zip(decoder, (widths[1], widths[0], narrow), strict=True):
            self.levels.append(Level(inputs + skip, width))
            inputs = width
        self.classify = nn.Conv2d(inputs, len(self.classes), 3, padding=1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.classify.bias[1:] = _RARE  # type: ignore[index]
        self.inverse = nn.Conv2d(inputs, 1, 3, padding=1) if depth == "auxiliary" and not fused else None
        if fused:
            self._fuse_()

    @override
    def config(self) -> dict[str, object]:
        config: dict[str, object] = {"size": self.size, "depth": self.depth, "classes": list(self.classes)}
        return config | ({"fused": True} if self.fused else {"drop_path": self.drop_path})

    @override
    def fuse(self) -> Self:
        copied = copy.deepcopy(self).eval()
        if not copied.fused:
            copied._fuse_()
        return copied.requires_grad_(False)

    @override
    def forward(self, image: Tensor) -> Tensor:
        return self.with_inverse_depth(image)[0]

    @override
    def with_inverse_depth(self, image: Tensor, inverse_depth: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.depth == "input":
            if inverse_depth is None:
                raise UsageError(
                    "This network of landmarks reads depth beside the picture, and none was given",
                    why="It was built with depth='input'.",
                    fix="Give inverse depth of 0 to 1, or train with model.config.depth=auxiliary.",
                    error_id="model.depth",
                )
            image = torch.cat((image, inverse_depth), dim=1)
        x = self.stem(image * 4.0 - 2.0)
        skips = [x]
        for down, blocks, context in zip(self.downs, self.stages, self.contexts, strict=True):
            x = context(blocks(down(x)))
            skips.append(x)
        for level, skip in zip(self.levels, (skips[2], skips[1], skips[0]), strict=True):
            x = level(x, skip)
        scores: Tensor = self.classify(x)
        return scores, None if self.inverse is None else self.inverse(x)

    def load_encoder(self, network: nn.Module) -> int:
        """Take over what a LiteNet trained for depth has of the same names and shapes; returns how many tensors."""
        own, given = self.state_dict(), network.state_dict()
        fitting = {name: t for name, t in given.items() if name in own and own[name].shape == t.shape}
        self.load_state_dict(fitting, strict=False)
        return len(fitting)

    def _fuse_(self) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                module.fuse_()
        fold_batchnorm_(self)
        self.inverse, self.fused = None, True
