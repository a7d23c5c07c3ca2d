"""D2GPLand: liver landmarks from colour and a depth picture, guided by prototypes of the classes (arXiv 2406.17858)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import ModelError, UsageError
from endolux.io.paths import printable
from endolux.models.checkpoint_files import read_state_dict
from endolux.models.ddrnet import BasicBlock
from endolux.models.landmark_decoder import DecoderModule
from endolux.models.landmark_network import LANDMARKS, LandmarkNetwork
from endolux.models.parts import register_part
from endolux.models.resnet import ResNet18
from endolux.models.sam import CHANNELS, TINY_SAM, build_sam, read_sam

Choice: TypeAlias = Literal["correct", "reproduce"]
GRID = 16
"""Side of the grid on which prototypes meet the depth features: 256 positions, as many as channels."""
WIDTH = 128
__all__ = ["GRID", "TINY_SAM", "WIDTH", "D2gplandNetwork", "Guided", "Prompt", "Pyramid", "ResNet34"]

_RESNET34 = ((64, 64, 3), (64, 128, 4), (128, 256, 6), (256, 512, 3))


class Guided(NamedTuple):
    """What the network computes for a training.

    Attributes:
        scores: N x classes x H x W.
        edges: N x landmarks x 16 x 16, logits of one map a landmark.
        depth: N x 256 x 16 x 16, features of the depth picture.
        prototypes: landmarks x 256.
    """

    scores: Tensor
    edges: Tensor
    depth: Tensor
    prototypes: Tensor


@register_part("d2gpland")
class D2gplandNetwork(LandmarkNetwork):
    """The baseline of SRFT-GaLore: it reads a picture and its monocular depth, as L3D brings it.

    Built from a description in words, not from the published code. Where that leaves a point open, the choice is said:
    the bottleneck of the prompts has one ReLU inside; the reversed attention multiplies the map of the pyramid; what is
    joined for the decoder are the three maps before it; modules enlarge after their convolutions.

    Args:
        sam: numbers for the depth encoder, SAM's ViT-B; see ``transformers.SamVisionConfig``.
        similarity: ``reproduce`` multiplies the 256 channels x 256 positions of the depth features with a prototype
            over the positions, as the published code does; ``correct`` over the channels, which gives a map.
        classes: names, the background first.

    Raises:
        UsageError: ``model.config``.
        MissingExtraError: without ``transformers``.

    Example:
        >>> network, image = D2gplandNetwork(sam=TINY_SAM).eval(), torch.rand(1, 3, 64, 96)
        >>> with torch.inference_mode():
        ...     tuple(network.with_inverse_depth(image, torch.rand(1, 1, 64, 96))[0].shape)
        (1, 4, 64, 96)
    """

    multiple = 32
    exportable = False
    reads_depth = True

    def __init__(
        self,
        *,
        sam: Mapping[str, object] | None = None,
        similarity: Choice = "correct",
        classes: Sequence[str] = LANDMARKS,
    ) -> None:
        super().__init__(classes=classes)
        if similarity not in ("correct", "reproduce"):
            raise _impossible(f"similarity={similarity!r}", "It is 'correct' or 'reproduce'.")
        self.architecture = "d2gpland"
        self._config: dict[str, object] = {
            "sam": dict(sam or {}),
            "similarity": similarity,
            "classes": list(self.classes),
        }
        landmarks = len(self.classes) - 1
        self.colour = ResNet34()
        self.skips = nn.ModuleList([_joined(64, WIDTH), nn.Identity(), _joined(256, WIDTH)])
        self.to_colour = _joined(1, 3)
        self.sam = build_sam(dict(sam or {}))
        # Frozen as published; what is before it still learns through it.
        self.sam.requires_grad_(False)
        self.join = _joined(512 + CHANNELS, 512)
        self.pyramid = Pyramid(512, WIDTH)
        self.prototypes = nn.Parameter(torch.randn(landmarks, CHANNELS) * CHANNELS**-0.5)
        self.prompts = nn.ModuleList(Prompt(similarity) for _ in range(landmarks))
        self.reduce = nn.Sequential(_joined(landmarks * WIDTH, 256), _joined(256, WIDTH))
        self.stages = nn.ModuleList(DecoderModule(WIDTH) for _ in range(3))
        self.classify = nn.Conv2d(WIDTH, len(self.classes), 3, padding=1)

    @override
    def config(self) -> dict[str, Any]:
        return dict(self._config)

    @override
    def fuse(self) -> Self:
        return copy.deepcopy(self).requires_grad_(False).eval()

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.sam.eval()
        return self

    @override
    def forward(self, image: Tensor) -> Tensor:
        return self.with_inverse_depth(image)[0]

    @override
    def with_inverse_depth(self, image: Tensor, inverse_depth: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.guided(image, inverse_depth).scores, None

    def guided(self, image: Tensor, inverse_depth: Tensor | None) -> Guided:
        """Scores with what the losses of its guidance need.

        Raises:
            UsageError: ``model.depth`` without depth, ``model.size`` for sides that are no multiples of 32.
        """
        if inverse_depth is None:
            raise UsageError(
                "D2GPLand reads depth beside the picture, and none was given",
                why="Its guidance is features of a depth picture.",
                fix="Give inverse depth of 0 to 1 (L3D has it in depth_AdelaiDepth).",
                error_id="model.depth",
            )
        height, width = image.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise UsageError(
                f"A picture of {width}x{height}",
                why=f"D2GPLand takes sides that are multiples of {self.multiple}.",
                fix="Resize it, for example to 1024x1024.",
                error_id="model.size",
            )
        maps = self.colour(image)
        skips = [skip(each) for skip, each in zip(self.skips, (maps.quarter, maps.eighth, maps.sixteenth), strict=True)]
        side = self.sam.config.image_size
        depth = F.interpolate(inverse_depth, (side, side), mode="area")
        depth = self.sam(self.to_colour(depth)).last_hidden_state
        coarse = maps.thirty_second
        joined = self.join(torch.cat((coarse, F.interpolate(depth, coarse.shape[2:], mode="area")), dim=1))
        seen = F.interpolate(self.pyramid(joined), (GRID, GRID), mode="area")
        depth = F.interpolate(depth, (GRID, GRID), mode="area")
        pairs = [
            prompt(depth, prototype, seen) for prompt, prototype in zip(self.prompts, self.prototypes, strict=True)
        ]
        x = self.reduce(torch.cat([features for features, _ in pairs], dim=1))
        x = F.interpolate(x, coarse.shape[2:], mode="area")
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            module = cast(DecoderModule, stage)
            x = F.interpolate(module.block(module.conv(x)), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = x + skip
        scores = self.classify(x)
        for _ in range(2):
            scores = F.interpolate(scores, scale_factor=2.0, mode="bilinear", align_corners=False)
        return Guided(scores, torch.cat([edge for _, edge in pairs], dim=1), depth, self.prototypes)

    def load_encoders(self, image: str | None, depth: str | None) -> None:
        """Copy pretrained encoders; each is exactly as expected, or nothing is changed.

        Args:
            image: file of a ResNet-34 trained on ImageNet, with the names of torchvision.
            depth: SAM with ViT-B: a folder in the layout of transformers, or a hub id.

        Raises:
            ModelError: ``model.imagenet``, ``model.variant``, ``teacher.*``; see also
                :func:`endolux.models.checkpoint_files.read_state_dict`.
        """
        if image:
            state = read_state_dict(Path(image))
            own = self.colour.state_dict()
            given = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape}
            wrong = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
            wrong += [key for key in state if key not in own and not key.startswith("fc.")]
            if wrong:
                raise ModelError(
                    f"'{printable(Path(image))}' is not a ResNet-34",
                    why=f"'{wrong[0]}' differs, and {len(wrong) - 1} more.",
                    fix="Use the ImageNet weights of ResNet-34, or leave segmentation.image_encoder out.",
                    error_id="model.imagenet",
                )
            self.colour.load_state_dict({**own, **given})
        if depth:
            self.sam.load_state_dict(read_sam(depth, self.sam.state_dict()))


class ResNet34(ResNet18):
    """ResNet-34 with the names of published files; the classifier is never computed."""

    def __init__(self) -> None:
        super().__init__()
        for number, (inputs, outputs, count) in enumerate(_RESNET34, 1):
            blocks = [BasicBlock(inputs if not n else outputs, outputs, stride=1 + (not n and number > 1)) for n in
                      range(count)]  # fmt: skip
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.fc = nn.Identity()


class Pyramid(nn.Module):
    """Pyramid pooling with bins 1 and 5.

    Example:
        >>> tuple(Pyramid(512, 128).eval()(torch.rand(1, 512, 4, 6)).shape)
        (1, 128, 4, 6)
    """

    def __init__(self, inputs: int, outputs: int, bins: Sequence[int] = (1, 5)) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.branches = nn.ModuleList(_joined(inputs, outputs) for _ in self.bins)
        self.out = _joined(inputs + len(self.bins) * outputs, outputs)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """N x inputs x h x w -> N x outputs x h x w."""
        maps = [x]
        for size, branch in zip(self.bins, self.branches, strict=True):
            pooled = branch(F.adaptive_avg_pool2d(x, size))
            maps.append(F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
        result: Tensor = self.out(torch.cat(maps, dim=1))
        return result


class Prompt(nn.Module):
    """Depth features brought out by their similarity to the prototype of one landmark, and an edge map of it."""

    def __init__(self, similarity: Choice) -> None:
        super().__init__()
        self.similarity = similarity
        self.bottleneck = nn.Sequential(nn.Conv2d(CHANNELS, WIDTH, 1), nn.ReLU(), nn.Conv2d(WIDTH, CHANNELS, 1))
        widths = (CHANNELS + WIDTH, 256, WIDTH, WIDTH)
        self.mix = nn.Sequential(*(_joined(a, b, kernel=3) for a, b in itertools.pairwise(widths)))
        self.edge = nn.Sequential(
            nn.Conv2d(WIDTH, 64, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1), nn.Conv2d(32, 1, 3, padding=1)
        )

    @override
    def forward(self, depth: Tensor, prototype: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """N x 256 x 16 x 16, 256, N x 128 x 16 x 16 -> features N x 128 x 16 x 16, edges N x 1 x 16 x 16."""
        flat = depth.flatten(2)
        if self.similarity == "reproduce":
            alike = (flat @ prototype)[:, :, None]
        else:
            alike = torch.einsum("ncp,c->np", flat, prototype)[:, None]
        brought_out = self.bottleneck((flat + flat * alike).reshape(depth.shape))
        features = self.mix(torch.cat((brought_out, seen), dim=1))
        return features, self.edge((1.0 - features.sigmoid()) * seen)


def _joined(inputs: int, outputs: int, *, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _impossible(what: str, why: str) -> UsageError:
    return UsageError(f"Impossible network: {what}", why=why, fix="Correct model.config.", error_id="model.config")
