"""SAM's image encoder, through ``transformers``: the depth encoder of D2GPLand (Kirillov et al. 2023)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from endolux.errors import ModelError, UsageError, missing_extra
from endolux.models.hub import read_image_encoder

CHANNELS = 256
"""Of the map that comes out."""

TINY_SAM: Mapping[str, object] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 4,
    "window_size": 4,
    "global_attn_indexes": [1],
}
"""The smallest depth encoder that makes sense: for trying a training."""


def build_sam(numbers: Mapping[str, object]) -> Any:  # noqa: ANN401  -- a class of an untyped library
    """The encoder with random weights, from numbers alone: nothing is fetched.

    Args:
        numbers: what differs from ViT-B, named as in ``transformers.SamVisionConfig``.

    Returns:
        A ``transformers.SamVisionModel``.

    Raises:
        UsageError: ``model.config``.
        MissingExtraError: without ``transformers``.

    Example:
        >>> encoder = build_sam(TINY_SAM).eval()
        >>> tuple(encoder(torch.rand(1, 3, 64, 64)).last_hidden_state.shape)
        (1, 256, 16, 16)
    """
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise missing_extra("transformers", "train") from error
    known = {*TINY_SAM, "mlp_dim"}
    unknown = sorted(set(numbers) - known)
    if unknown:
        raise _impossible(f"sam has {unknown[0]!r}", f"What may differ: {', '.join(sorted(known))}.")
    try:
        # The library's default deviation, 1e-10, leaves fresh weights without any effect.
        config = library.SamVisionConfig(**{"output_channels": CHANNELS, "initializer_range": 0.02, **numbers})
        return library.SamVisionModel(config)
    except Exception as error:
        # The library's checks of its configurations raise errors of their own besides Python's.
        raise _impossible("the numbers of sam", " ".join(str(error).split())[:200]) from error


def read_sam(spec: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the image encoder: a folder in the layout of transformers, or a hub id; safetensors only.

    Args:
        spec: which.
        own: the state that they have to fit.

    Raises:
        ModelError: ``teacher.fetch`` where they cannot be had, ``teacher.architecture`` where it is another model,
            ``teacher.weights`` where weights are missing, ``model.variant`` where they have another shape.
        MissingExtraError: without ``transformers``.
    """
    _, network = read_image_encoder(
        spec,
        {"sam": "SamModel", "sam_vision_model": "SamVisionModel"},
        wanted="a SAM",
        why="D2GPLand's depth encoder is the image encoder of SAM.",
        fix="Use facebook/sam-vit-base.",
    )
    given = {key: t.detach() for key, t in network.state_dict().items() if key.startswith("vision_encoder.")}
    wrong = [key for key in own if key not in given or given[key].shape != own[key].shape]
    if wrong or len(given) != len(own):
        raise ModelError(
            f"'{spec}' has not the shape of the depth encoder",
            why=f"{wrong[0] if wrong else 'Its number of layers'} differs.",
            fix="Use facebook/sam-vit-base, or its numbers in model.config.sam.",
            error_id="model.variant",
        )
    return given


def _impossible(what: str, why: str) -> UsageError:
    return UsageError(f"Impossible network: {what}", why=why, fix="Correct model.config.", error_id="model.config")
