"""SAM 2.1's image encoder: Hiera with its pyramid, through ``transformers``.

Sources: Ryali et al. 2023 (Hiera, arXiv 2306.00989); Ravi et al. 2024 (SAM 2, arXiv 2408.00714).
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.adapt.lora import merge_branches_
from endolux.errors import UsageError, missing_extra
from endolux.models.hub import read_image_encoder

Mode: TypeAlias = Literal["frozen", "lora", "galore", "full"]
MODES: tuple[Mode, ...] = get_args(Mode)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ATTENTION = ("attn.qkv", "attn.proj")
MULTIPLE = 32
"""Sides of a picture: four stages, the first of patches of 4 pixels."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Numbers of a Hiera.

    Attributes:
        width, heads: of the first stage; both double at every further one.
        blocks: of each of the four stages.
        windows: side of the attention windows of each stage, in tokens.
        everywhere: numbers of the blocks whose attention has no window.
        background: rows and columns of the learned positions behind those of a window.
        pyramid: channels of the maps that come out.
    """

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    everywhere: tuple[int, ...]
    background: int = 7
    pyramid: int = 256


SIZES: Mapping[str, Shape] = {
    "t": Shape(width=96, heads=1, blocks=(1, 2, 7, 2), windows=(8, 4, 14, 7), everywhere=(5, 7, 9)),
    "s": Shape(width=96, heads=1, blocks=(1, 2, 11, 2), windows=(8, 4, 14, 7), everywhere=(7, 10, 13)),
    "b+": Shape(
        width=112, heads=2, blocks=(2, 3, 16, 3), windows=(8, 4, 14, 7), everywhere=(12, 16, 20), background=14
    ),
    "l": Shape(width=144, heads=2, blocks=(2, 6, 36, 4), windows=(8, 4, 16, 8), everywhere=(23, 33, 43)),
}
"""SAM 2.1's image encoders."""


def shape_of(size: str, changes: Mapping[str, object] | None = None) -> Shape:
    """One of :data:`SIZES` with other numbers.

    Raises:
        UsageError: ``model.config``.

    Example:
        >>> shape_of("t", {"blocks": [1, 1, 1, 1], "everywhere": []}).blocks
        (1, 1, 1, 1)
    """
    names = {field.name for field in dataclasses.fields(Shape)}
    unknown = sorted(set(changes or {}) - names)
    if size not in SIZES or unknown:
        raise UsageError(
            f"Impossible image encoder: size={size!r}{f', {unknown[0]}' if unknown else ''}",
            why=f"Sizes are {', '.join(SIZES)}; what may differ: {', '.join(sorted(names))}.",
            fix="Use 'l', SAM 2.1 Hiera-Large, or 't', the smallest.",
            error_id="model.config",
        )
    plain = {k: tuple(v) if isinstance(v, Sequence) else v for k, v in (changes or {}).items()}
    shape = dataclasses.replace(SIZES[size], **plain)  # type: ignore[arg-type]
    numbers = (shape.width, shape.heads, *shape.blocks, *shape.windows, shape.background, shape.pyramid)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if not whole or len(shape.blocks) != 4 or len(shape.windows) != 4 or shape.width % shape.heads:
        raise UsageError(
            f"Impossible image encoder: {dataclasses.asdict(shape)}",
            why="Four stages have positive numbers of blocks and windows, and the width divides by the heads.",
            fix="Leave the numbers out for the published shape.",
            error_id="model.config",
        )
    firsts = {sum(shape.blocks[:stage]) for stage in range(4)}
    if firsts & set(shape.everywhere) or max(shape.everywhere, default=0) >= sum(shape.blocks):
        raise UsageError(
            f"Blocks {list(shape.everywhere)} cannot attend without a window",
            why=f"There are {sum(shape.blocks)} blocks; {sorted(firsts)} are the first of their stages and have one.",
            fix="Choose other blocks.",
            error_id="model.config",
        )
    return shape


class HieraEncoder(nn.Module):
    """SAM 2.1's image encoder with trunk and pyramid: maps of strides 4, 8 and 16.

    Args:
        shape: from :func:`shape_of`.
        mode: what of it is trained. ``galore``: the weights (not the biases) of the attention's two linear layers of
            every block, for :class:`endolux.adapt.GaLoreAdamW` with the patterns ``attn.qkv`` and ``attn.proj``;
            ``lora``: branches beside the same layers; ``full``: everything; ``frozen``: nothing.
        rank, alpha: of the branches.
        normalise: subtract ImageNet's mean and divide by its deviation, as SAM 2 was pretrained; the released
            landmark code leaves it out.

    Raises:
        UsageError: ``model.config``.
        MissingExtraError: without ``transformers`` (or ``peft``, for branches).

    Example:
        >>> small = shape_of("t", {"width": 16, "blocks": [1, 1, 1, 1], "windows": [8, 4, 2, 2], "everywhere": []})
        >>> [tuple(each.shape[1:]) for each in HieraEncoder(small).eval()(torch.rand(1, 3, 64, 96))]
        [(256, 16, 24), (256, 8, 12), (256, 4, 6)]
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self, shape: Shape, *, mode: Mode = "frozen", rank: int = 10, alpha: float = 1.0, normalise: bool = True
    ) -> None:
        super().__init__()
        if mode not in MODES or rank < 1 or not alpha > 0:
            raise UsageError(
                f"Impossible adaptation: encoders={mode!r}, rank={rank}, alpha={alpha}",
                why=f"It is one of {', '.join(MODES)}; rank and alpha are positive.",
                fix="Use 'galore', the default, or 'frozen'.",
                error_id="model.config",
            )
        self.shape, self.mode, self.normalise = shape, mode, bool(normalise)
        self.model = _build(shape)
        self.register_buffer("_mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        train_only_(self, mode, attention_layers(self.model), rank=rank, alpha=alpha)

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N x 3 x H x W RGB in [0, 1], sides multiples of 32 -> N x pyramid x H/4 x W/4, H/8, H/16."""
        height, width = image.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise UsageError(
                f"A picture of {width}x{height}",
                why=f"SAM 2's encoder takes sides that are multiples of {MULTIPLE}.",
                fix="Resize it, for example to 1024x1024.",
                error_id="model.size",
            )
        pixels = (image - self._mean) / self._std if self.normalise else image
        fine, middle, coarse = self.model(pixels).fpn_hidden_states
        return fine, middle, coarse

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Copy weights as :func:`read_sam2` gives them; branches stay as they are.

        Raises:
            ModelError: ``model.variant``, ``model.weights``.
        """
        from endolux.adapt.lora import load_unadapted

        load_unadapted(self.model, state)

    def merge_(self) -> None:
        """Add the branches to the layers that they stand beside."""
        merge_branches_(self.model)


def attention_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers of the attention of every block: four for every two blocks.

    Example:
        >>> with torch.device("meta"):
        ...     layers = attention_layers(_build(SIZES["l"]))
        >>> len(layers), layers[0]
        (96, 'backbone.blocks.0.attn.qkv')
    """
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.endswith(_ATTENTION)
    ]


def train_only_(owner: nn.Module, mode: Mode, layers: Sequence[str], *, rank: int, alpha: float) -> None:
    """Freeze what ``mode`` does not train in ``owner.model``; see :class:`HieraEncoder`."""
    model = cast(nn.Module, owner.model)
    model.requires_grad_(mode == "full")
    if mode == "galore":
        for name in layers:
            cast(nn.Linear, model.get_submodule(name)).weight.requires_grad_(True)
    elif mode == "lora":
        try:
            peft = importlib.import_module("peft")
        except ImportError as error:
            raise missing_extra("peft", "train") from error
        peft.inject_adapter_in_model(
            peft.LoraConfig(target_modules=list(layers), r=rank, lora_alpha=alpha, bias="none"), model
        )


def read_sam2(spec: str) -> dict[str, Tensor]:
    """Weights of SAM 2's image encoder in the layout of ``transformers``: a folder or a hub id; safetensors only.

    Raises:
        ModelError: ``teacher.fetch`` where it cannot be had, ``teacher.architecture`` where it is another model,
            ``teacher.weights`` where weights are missing.
        MissingExtraError: without ``transformers``.
    """
    alone = "sam2_vision_model"
    kind, network = read_image_encoder(
        spec,
        {"sam2": "Sam2Model", "sam2_video": "Sam2VideoModel", alone: "Sam2VisionModel"},
        wanted="a SAM 2",
        why="The image encoder is SAM 2.1's Hiera.",
        fix="Use facebook/sam2.1-hiera-large, -base-plus, -small or -tiny.",
        alone=alone,
    )
    encoder = network if kind == alone else network.vision_encoder
    return {key: tensor.detach() for key, tensor in encoder.state_dict().items()}


def _build(shape: Shape) -> nn.Module:
    """The encoder with random weights, from numbers alone: nothing is fetched."""
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise missing_extra("transformers", "train") from error
    widths = [shape.width * 2**stage for stage in range(4)]
    trunk: Any = library.Sam2HieraDetConfig(
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        window_positional_embedding_background_size=[shape.background, shape.background],
        blocks_per_stage=list(shape.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[shape.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(shape.windows),
        global_attention_blocks=list(shape.everywhere),
    )
    config = library.Sam2VisionConfig(
        backbone_config=trunk, backbone_channel_list=widths[::-1], fpn_hidden_size=shape.pyramid, num_feature_levels=3
    )
    return cast(nn.Module, library.Sam2VisionModel(config))
