"""Liver landmarks from colour and depth: SAM 2 and Depth Anything, cross-attention, a decoder (arXiv 2511.03163)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Self, TypeAlias, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.depth_anything import DepthAnything
from endolux.models.dpt import TAPS, nearest_multiple
from endolux.models.hiera import MODES, MULTIPLE, HieraEncoder, Mode, shape_of, train_only_
from endolux.models.landmark_decoder import CrossAttention, LandmarkDecoder
from endolux.models.landmark_network import LANDMARKS, LandmarkNetwork
from endolux.models.parts import register_part

Choice: TypeAlias = Literal["correct", "reproduce"]
_DEPTH_LAYERS = ("attention.query", "attention.key", "attention.value", "attention.output.dense")
_SIDE, _DEPTH_SIDE = 1024, 518


@register_part("srft-galore")
class SrftGaloreNetwork(LandmarkNetwork):
    """The network of SRFT-GaLore. No depth is read at run time: the depth encoder sees the same picture.

    Each published defect is a choice of its own; ``correct`` is the default everywhere.

    Args:
        size: of SAM 2.1's Hiera: ``t``, ``s``, ``b+`` or ``l``.
        image_encoder: other numbers for it, see :class:`endolux.models.hiera.Shape`.
        depth: whether the depth branch is there; without it the decoder reads SAM 2's map of stride 16.
        depth_encoder: the variant of Depth Anything (``v2-s``), or numbers of its shape with ``variant``.
        encoders: what of SAM 2 is trained: ``frozen``, ``lora``, ``galore`` (only the attention's weights; the
            optimiser makes it GaLore) or ``full``.
        depth_training: the same for Depth Anything; the paper keeps it frozen.
        rank, alpha: of LoRA.
        fusion: ``released``, or ``residual`` with norm and feed-forward.
        swap: let colour ask and depth answer, as an ablation of the authors does.
        normalisation: ``reproduce`` shows SAM 2 values of [0, 1] without ImageNet's mean and deviation.
        tokens: ``reproduce`` keeps the class token and drops the last patch, which shifts the map by one patch.
        depth_projection: ``reproduce`` leaves the projection of the depth map at its random values; only the
            statistics of its BatchNorm move.
        decoder: ``reproduce`` decodes at stride 16, see :class:`~endolux.models.landmark_decoder.LandmarkDecoder`.
        resize: ``reproduce`` enlarges the scores to the picture by repeating them; ``correct`` bilinearly.
        classes: names, the background first.

    Raises:
        UsageError: ``model.config``, ``model.size``.
        MissingExtraError: without ``transformers``.

    Example:
        >>> network, image = SrftGaloreNetwork(**TINY).eval(), torch.rand(1, 3, 64, 96)
        >>> with torch.inference_mode():
        ...     tuple(network(image).shape), tuple(network.probabilities(image).shape)
        ((1, 4, 16, 24), (1, 4, 64, 96))
    """

    multiple = MULTIPLE
    any_size = False

    def __init__(
        self,
        *,
        size: str = "l",
        image_encoder: Mapping[str, object] | None = None,
        depth: bool = True,
        depth_encoder: Mapping[str, object] | str = "v2-s",
        encoders: Mode = "galore",
        depth_training: Mode = "frozen",
        rank: int = 10,
        alpha: float = 1.0,
        fusion: Literal["released", "residual"] = "released",
        swap: bool = False,
        normalisation: Choice = "correct",
        tokens: Choice = "correct",
        depth_projection: Choice = "correct",
        decoder: Choice = "correct",
        resize: Choice = "correct",
        classes: Sequence[str] = LANDMARKS,
    ) -> None:
        super().__init__(classes=classes)
        self.architecture = "srft-galore"
        choices = {
            "normalisation": normalisation,
            "tokens": tokens,
            "depth_projection": depth_projection,
            "decoder": decoder,
            "resize": resize,
        }
        _check(choices, encoders, depth_training, fusion)
        shape = shape_of(size, image_encoder)
        self._config: dict[str, object] = {
            "size": size,
            "image_encoder": {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(shape).items()},
            "depth": bool(depth),
            "depth_encoder": depth_encoder if isinstance(depth_encoder, str) else dict(depth_encoder),
            "encoders": encoders,
            "depth_training": depth_training,
            "rank": rank,
            "alpha": alpha,
            "fusion": fusion,
            "swap": bool(swap),
            **choices,
            "classes": list(self.classes),
        }
        self._choices, self.swap, width = choices, bool(swap), shape.pyramid
        self.image_encoder = HieraEncoder(
            shape, mode=encoders, rank=rank, alpha=alpha, normalise=normalisation == "correct"
        )
        self.depth_encoder: DepthTokens | None = None
        if depth:
            self.depth_encoder = DepthTokens(depth_encoder, mode=depth_training, rank=rank, alpha=alpha)
            self.project = nn.Sequential(
                nn.Conv2d(self.depth_encoder.width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
            )
            if depth_projection == "reproduce":
                self.project.requires_grad_(False)
            self.fusion = CrossAttention(width, residual=fusion == "residual")
        self.decoder = LandmarkDecoder(width, len(self.classes), reproduce=decoder == "reproduce")

    @override
    def config(self) -> dict[str, object]:
        return dict(self._config)

    @override
    def fuse(self) -> Self:
        copied = copy.deepcopy(self)
        copied.image_encoder.merge_()
        if copied.depth_encoder is not None:
            copied.depth_encoder.merge_()
        for name in ("encoders", "depth_training"):
            if copied._config[name] == "lora":
                copied._config[name] = "frozen"
        return copied.requires_grad_(False).eval()

    @override
    def fixed(self, size: tuple[int, int]) -> Self:
        copied = copy.deepcopy(self)
        if copied.depth_encoder is not None:
            copied.depth_encoder.fix_(size)
        return copied

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # What is frozen is the same in every step: no dropout, no stochastic depth.
        if self._config["encoders"] == "frozen":
            self.image_encoder.eval()
        if self.depth_encoder is not None and self._config["depth_training"] == "frozen":
            self.depth_encoder.eval()
        return self

    @override
    def forward(self, image: Tensor) -> Tensor:
        skips = self._colour(image)
        if self.depth_encoder is None:
            return self._decoded(skips[-1], skips)
        depth = self._depth(image, skips[-1].shape[2:])
        asking, asked = (skips[-1], depth) if self.swap else (depth, skips[-1])
        return self._decoded(self.fusion(asking, asked), skips)

    @override
    def probabilities(self, image: Tensor) -> Tensor:
        if self._choices["resize"] == "correct":
            return super().probabilities(image)
        return F.interpolate(self(image).float(), image.shape[2:], mode="nearest").softmax(dim=1)

    def _colour(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._config["encoders"] != "frozen"):
            maps: tuple[Tensor, Tensor, Tensor] = self.image_encoder(image)
        return maps

    def _depth(self, image: Tensor, size: Sequence[int]) -> Tensor:
        encoder = cast(DepthTokens, self.depth_encoder)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._config["depth_training"] != "frozen"):
            tokens, rows, columns = encoder(image)
        # The class token comes first.
        patches = tokens[:, :-1] if self._choices["tokens"] == "reproduce" else tokens[:, 1:]
        maps = patches.transpose(1, 2).reshape(len(image), -1, rows, columns)
        return F.interpolate(self.project(maps), tuple(size), mode="bilinear", align_corners=False)

    def _decoded(self, fused: Tensor, skips: Sequence[Tensor]) -> Tensor:
        scores: Tensor = self.decoder(fused, skips)
        return scores


class DepthTokens(nn.Module):
    """The transformer of Depth Anything without its decoder: the tokens of the last tap, normalised.

    Args:
        variant: ``v2-s`` and so on, or numbers for :class:`~endolux.models.depth_anything.DepthAnything`.
        mode, rank, alpha: as in :class:`~endolux.models.hiera.HieraEncoder`, for query, key, value and output.
    """

    def __init__(self, variant: Mapping[str, object] | str, *, mode: Mode, rank: int, alpha: float) -> None:
        super().__init__()
        numbers: dict[str, object] = {"variant": variant} if isinstance(variant, str) else dict(variant)
        if numbers.get("variant", "v2-s") not in TAPS:
            raise UsageError(
                f"There is no Depth Anything '{numbers['variant']}'",
                why=f"Variants are {', '.join(TAPS)}.",
                fix="Use v2-s, the published choice.",
                error_id="model.config",
            )
        try:
            self.model = DepthAnything(**numbers)  # type: ignore[arg-type]
        except TypeError as error:
            raise UsageError(
                "model.config.depth_encoder cannot be built",
                why=str(error),
                fix="Use the arguments of Depth Anything, or 'v2-s'.",
                error_id="model.config",
            ) from error
        self.model.neck, self.model.head = nn.Identity(), nn.Identity()
        self.width = self.model.feature_names()["block1"]
        layers = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and name.endswith(_DEPTH_LAYERS)
        ]
        train_only_(self, mode, layers, rank=rank, alpha=alpha)
        self._resizing: tuple[Tensor, Tensor] | None = None

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, int, int]:
        """N x 3 x H x W RGB in [0, 1] -> N x (1 + rows * columns) x width, class token first; rows and columns."""
        if self._resizing is not None:
            rows_of, columns_of = self._resizing
            pixels = rows_of @ image @ columns_of.T
        else:
            size = [_depth_side(side) for side in image.shape[2:]]
            pixels = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
        last = self.model.taps[-1]
        tokens, rows, columns = self.model._tokens(pixels.clamp(0.0, 1.0), [last])
        return tokens[last], rows, columns

    def fix_(self, size: tuple[int, int]) -> None:
        """Resize pictures of this (width, height) by two matrices: ONNX has another antialiased cubic."""
        width, height = size
        self._resizing = (_resizing(height, _depth_side(height)), _resizing(width, _depth_side(width)))

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Copy the transformer of a whole Depth Anything, names as in ``transformers`` or the original files.

        Raises:
            ModelError: ``model.variant``, ``model.weights``.
        """
        from endolux.adapt.lora import load_unadapted
        from endolux.models.depth_anything_keys import from_any

        backbone = {k: v for k, v in from_any(state).items() if k.startswith("backbone.")}
        load_unadapted(self.model, backbone)

    def merge_(self) -> None:
        """Add the branches to the layers that they stand beside."""
        from endolux.adapt.lora import merge_branches_

        merge_branches_(self.model)


TINY: Mapping[str, object] = {
    "size": "t",
    "image_encoder": {
        "width": 16,
        "blocks": [1, 1, 2, 1],
        "windows": [8, 4, 2, 2],
        "everywhere": [3],
        "pyramid": 32,
    },
    "depth_encoder": {
        "variant": "v2-s",
        "hidden_size": 32,
        "blocks": 4,
        "heads": 2,
        "neck": [8, 12, 16, 24],
        "fusion": 16,
        "head_width": 8,
        "grid": 4,
        "taps": [1, 2, 3, 4],
    },
}
"""The smallest network of this kind that makes sense: for trying a training, and for experiments at desk scale."""


def _depth_side(side: int) -> int:
    return nearest_multiple(round(side * _DEPTH_SIDE / _SIDE))


def _resizing(before: int, after: int) -> Tensor:
    """The matrix (after x before) that one axis of a picture is multiplied with to be resized."""
    lines = torch.eye(before)[None, None]
    resized = F.interpolate(lines, (after, before), mode="bicubic", antialias=True, align_corners=False)
    return resized[0, 0]


def _check(choices: Mapping[str, str], encoders: str, depth_training: str, fusion: str) -> None:
    for name, value in choices.items():
        if value not in ("correct", "reproduce"):
            raise _impossible(f"{name}={value!r}", "It is 'correct' or 'reproduce'.")
    for name, value in (("encoders", encoders), ("depth_training", depth_training)):
        if value not in MODES:
            raise _impossible(f"{name}={value!r}", f"It is one of {', '.join(MODES)}.")
    if fusion not in ("released", "residual"):
        raise _impossible(f"fusion={fusion!r}", "It is 'released' or 'residual'.")


def _impossible(what: str, why: str) -> UsageError:
    return UsageError(f"Impossible network: {what}", why=why, fix="Correct model.config.", error_id="model.config")
