"""A DINOv2 transformer with a dense prediction decoder: what Depth Anything, DARES and EndoDAC have in common."""

from __future__ import annotations

import abc
import copy
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, TypedDict, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.adapt.lora import Adaptation, adapt_, merge_
from endolux.errors import UsageError, missing_extra
from endolux.models.base import DepthNetwork
from endolux.models.positions import check_positions, resampled_positions

PATCH = 14
SIZES: Mapping[str, Mapping[str, object]] = {
    "s": {"hidden_size": 384, "blocks": 12, "heads": 6, "neck": (48, 96, 192, 384), "fusion": 64},
    "b": {"hidden_size": 768, "blocks": 12, "heads": 12, "neck": (96, 192, 384, 768), "fusion": 128},
    "l": {"hidden_size": 1024, "blocks": 24, "heads": 16, "neck": (256, 512, 1024, 1024), "fusion": 256},
}
"""Published widths of the small, base and large networks."""
TAPS: Mapping[str, Sequence[int]] = {
    "v1-s": (9, 10, 11, 12),
    "v1-b": (9, 10, 11, 12),
    "v1-l": (21, 22, 23, 24),
    "v2-s": (3, 6, 9, 12),
    "v2-b": (3, 6, 9, 12),
    "v2-l": (5, 12, 18, 24),
}
"""Blocks that the decoder reads. The first release takes the last four; their weights do not fit each other's taps."""
_HEAD_WIDTH, _GRID = 32, 37
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = ("hidden_size", "blocks", "heads", "neck", "fusion", "head_width", "taps", "grid")
"""Options that replace published numbers."""


class Options(TypedDict, total=False):
    """What every :class:`DPTNetwork` takes; None stands for its default."""

    taps: Sequence[int] | None
    hidden_size: int | None
    blocks: int | None
    heads: int | None
    neck: Sequence[int] | None
    fusion: int | None
    head_width: int | None
    grid: int | None
    positions: str | None
    normalise: bool | None
    adapt: Mapping[str, object] | None


class DPTNetwork(DepthNetwork):
    """Transformer, neck and head with the names of ``transformers``' Depth Anything.

    Args:
        variant: release whose numbers are the defaults, one of :data:`TAPS`.
        defaults: of ``positions``, ``normalise`` and ``adapt``, where a network has its own.
        taps: blocks whose output the decoder reads, from 1, normalised by the last LayerNorm.
        hidden_size, blocks, heads: of the transformer.
        neck: channels of the four maps of the decoder, from fine to coarse.
        fusion: channels in which they are joined.
        head_width: channels before the last convolution; 32.
        grid: rows and columns of the learned positions; 37.
        positions: see :data:`endolux.models.positions.Positions`; ``size``.
        normalise: subtract ImageNet's mean from the picture and divide by its deviation; True.
        adapt: what :class:`endolux.adapt.lora.Adaptation` takes; None trains every weight.

    Raises:
        UsageError: ``model.config`` for impossible numbers, ``adapt.*`` for an impossible adaptation.
        ModelError: ``adapt.count`` where the adaptation changes other numbers of layers than it says.
        MissingExtraError: without ``transformers`` (or ``peft``, for adapters).
    """

    variant: str
    """Release whose transformer and taps it has by default: ``v1-s`` to ``v2-l``."""
    OWN_BLOCKS: ClassVar[str] = "backbone.encoder.layer"
    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        *,
        variant: str,
        defaults: Mapping[str, object] | None = None,
        taps: Sequence[int] | None = None,
        hidden_size: int | None = None,
        blocks: int | None = None,
        heads: int | None = None,
        neck: Sequence[int] | None = None,
        fusion: int | None = None,
        head_width: int | None = None,
        grid: int | None = None,
        positions: str | None = None,
        normalise: bool | None = None,
        adapt: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        usual = {"positions": "size", "normalise": True, "adapt": None, **(defaults or {})}
        given = {"hidden_size": hidden_size, "blocks": blocks, "heads": heads, "neck": neck, "fusion": fusion}
        given |= {"head_width": head_width, "grid": grid, "taps": taps}
        published = {**SIZES[variant[-1]], "head_width": _HEAD_WIDTH, "grid": _GRID, "taps": TAPS[variant]}
        shape = {key: published[key] if value is None else value for key, value in given.items()}
        shape["taps"] = tuple(cast(Sequence[int], shape["taps"]))
        self.variant = variant
        self._shape = shape
        self._positions = check_positions(cast(str, usual["positions"] if positions is None else positions))
        self._normalise = bool(usual["normalise"] if normalise is None else normalise)
        _check_shape(shape)
        self._taps = tuple(int(tap) for tap in cast(Sequence[int], shape["taps"]))
        self._build(shape)
        self.register_buffer("_mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        chosen = cast("Mapping[str, object] | None", usual["adapt"] if adapt is None else adapt)
        self.adaptation = None if chosen is None else Adaptation.from_config(chosen)

    def _build(self, shape: Mapping[str, object]) -> None:
        """The three parts with random weights, from numbers alone: nothing is fetched."""
        try:
            library = importlib.import_module("transformers")
        except ImportError as error:
            raise missing_extra("transformers", "train") from error
        grid, channels = cast(int, shape["grid"]), shape["hidden_size"]
        backbone = library.Dinov2Config(
            image_size=grid * PATCH,
            patch_size=PATCH,
            hidden_size=channels,
            num_hidden_layers=shape["blocks"],
            num_attention_heads=shape["heads"],
            out_indices=list(self._taps),
            reshape_hidden_states=False,
        )
        config = library.DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=channels,
            neck_hidden_sizes=list(cast(Sequence[int], shape["neck"])),
            fusion_hidden_size=shape["fusion"],
            head_hidden_size=shape["head_width"],
        )
        self.library_config: Mapping[str, object] = json.loads(config.to_json_string(use_diff=False))
        parts = library.DepthAnythingForDepthEstimation(config)
        self.backbone, self.neck, self.head = parts.backbone, parts.neck, parts.head

    def _adapt(self) -> None:
        """To be called when every part of the network is there."""
        if self.adaptation is not None:
            self.adapted = adapt_(self, self.adaptation)

    def shape_config(self) -> dict[str, object]:
        """The numbers of the shape and what else all of these networks take, as JSON values."""
        config: dict[str, object] = {
            key: list(value) if isinstance(value, tuple | list) else value
            for key, value in ((key, self._shape[key]) for key in SHAPE)
        }
        config |= {"positions": self._positions, "normalise": self._normalise}
        config["adapt"] = None if self.adaptation is None else self.adaptation.config()
        return config

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks that the decoder reads, from 1."""
        return self._taps

    @abc.abstractmethod
    def decoder_parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """``decoder`` and ``head``: modules that an adaptation may leave trainable; never the transformer's."""

    @abc.abstractmethod
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Copy published weights, strictly; branches that they do not have stay as they are.

        Raises:
            ModelError: ``model.variant``, ``model.weights``.
        """

    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of the transformer, first to last."""
        return list(cast(nn.ModuleList, self.backbone.encoder.layer))  # type: ignore[union-attr]

    @override
    def fuse(self) -> Self:
        copied = copy.deepcopy(self)
        if copied.adaptation is not None:
            merge_(copied)
            copied.adaptation = None
        return copied.requires_grad_(False)

    @override
    def feature_names(self) -> Mapping[str, int]:
        return {f"block{i}": cast(int, self._shape["hidden_size"]) for i in range(1, len(self.blocks()) + 1)}

    def _tokens(self, image: Tensor, wanted: Sequence[int]) -> tuple[dict[int, Tensor], int, int]:
        """Tokens after some blocks, normalised, N x (1 + rows * columns) x channels; and rows and columns."""
        embeddings = self.backbone.embeddings
        if self._normalise:
            image = (image - self._mean) / self._std
        patches: Tensor = embeddings.patch_embeddings.projection(image)  # type: ignore[union-attr,operator]
        rows, columns = patches.shape[2], patches.shape[3]
        with torch.autocast(image.device.type, enabled=False):
            places = resampled_positions(
                cast(Tensor, embeddings.position_embeddings),  # type: ignore[union-attr]
                rows,
                columns,
                rule=self._positions,
            )
        start = cast(Tensor, embeddings.cls_token).expand(image.shape[0], -1, -1)  # type: ignore[union-attr]
        hidden = torch.cat((start, patches.flatten(2).transpose(1, 2)), dim=1) + places
        found: dict[int, Tensor] = {}
        last = max(wanted)
        for number, block in enumerate(self.blocks(), start=1):
            hidden = self._after_block(number, block(hidden), rows, columns)
            if number in wanted:
                found[number] = self.backbone.layernorm(hidden)  # type: ignore[operator]
            if number == last:
                break
        return found, rows, columns

    def _after_block(self, number: int, hidden: Tensor, rows: int, columns: int) -> Tensor:
        """What stands between a block and the next."""
        del number, rows, columns
        return hidden

    def _paths(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor], int, int]:
        """The joined maps of the decoder from coarse to fine, features by name, and rows and columns of patches."""
        asked = {int(name.removeprefix("block")) for name in names}
        tokens, rows, columns = self._tokens(image, sorted({*self._taps, *asked}))
        maps = {
            i: hidden[:, 1:].transpose(1, 2).reshape(image.shape[0], -1, rows, columns) for i, hidden in tokens.items()
        }
        layers = self.neck.reassemble_stage.layers  # type: ignore[union-attr]
        skips = [
            convolution(layer(maps[tap].contiguous()))
            for tap, layer, convolution in zip(self._taps, layers, self.neck.convs, strict=True)  # type: ignore[arg-type]
        ]
        joined: list[Tensor] = []
        path: Tensor | None = None
        stages = list(zip(skips[::-1], self.neck.fusion_stage.layers, strict=True))  # type: ignore[union-attr,arg-type]
        for index, (skip, stage) in enumerate(stages):
            path = skip if path is None else path + stage.residual_layer1(skip)
            path = stage.residual_layer2(path)
            if index + 1 < len(stages):
                height, width = stages[index + 1][0].shape[2:]
            else:
                height, width = 2 * path.shape[2], 2 * path.shape[3]
            path = stage.projection(F.interpolate(path, (height, width), mode="bilinear", align_corners=True))
            joined.append(path)
        return tuple(joined), {name: maps[int(name.removeprefix("block"))] for name in names}, rows, columns

    def _head(self, path: Tensor, height: int, width: int) -> Tensor:
        """The three convolutions of the head, before its last activation."""
        head = self.head
        hidden: Tensor = head.conv1(path)  # type: ignore[operator]
        hidden = F.interpolate(hidden, (height, width), mode="bilinear", align_corners=True)
        return cast(Tensor, head.conv3(head.conv2(hidden).relu()))  # type: ignore[operator]


def _check_shape(shape: Mapping[str, object]) -> None:
    neck, taps = cast(Sequence[int], shape["neck"]), cast(Sequence[int], shape["taps"])
    numbers = [shape[key] for key in ("hidden_size", "blocks", "heads", "fusion", "head_width", "grid")]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (*numbers, *neck, *taps))
    why = ""
    if not whole:
        why = "Every number of the shape is a positive integer."
    elif cast(int, shape["hidden_size"]) % cast(int, shape["heads"]):
        why = f"{shape['hidden_size']} channels cannot be divided into {shape['heads']} heads."
    elif len(neck) != 4 or len(taps) != 4:
        why = "The decoder reads four maps: neck and taps have four numbers each."
    elif list(taps) != sorted(set(taps)) or max(taps) > cast(int, shape["blocks"]):
        why = f"Taps are four different blocks of the {shape['blocks']}, in order."
    if why:
        raise UsageError(
            f"Impossible transformer: {', '.join(f'{k}={v}' for k, v in shape.items())}"[:240],
            why=why,
            fix="Leave the numbers out for the published shape.",
            error_id="model.config",
        )


def nearest_multiple(pixels: int) -> int:
    """The multiple of the patch's side that is nearest, at least one.

    Example:
        >>> nearest_multiple(256), nearest_multiple(320), nearest_multiple(3)
        (252, 322, 14)
    """
    # Without max() and round(), which would fix the size of an exported graph.
    return (pixels + PATCH // 2) // PATCH * PATCH if pixels >= PATCH else PATCH
