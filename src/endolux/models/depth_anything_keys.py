"""Names of Depth Anything's weights: the original checkpoints', those of ``transformers`` 4, and ours (5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Rule = tuple[str, str]
_BLOCK = r"backbone\.encoder\.layer\.(\d+)\."
# transformers 4 to 5.
_NEWER: Sequence[Rule] = (
    (_BLOCK + r"attention\.attention\.query\.", r"backbone.encoder.layer.\1.attention.q_proj."),
    (_BLOCK + r"attention\.attention\.key\.", r"backbone.encoder.layer.\1.attention.k_proj."),
    (_BLOCK + r"attention\.attention\.value\.", r"backbone.encoder.layer.\1.attention.v_proj."),
    (_BLOCK + r"attention\.output\.dense\.", r"backbone.encoder.layer.\1.attention.o_proj."),
)
# The original to transformers 5; queries, keys and values are one matrix there.
_TRANSFORMER: Sequence[Rule] = (
    (r"(?:pretrained|encoder)\.cls_token$", "backbone.embeddings.cls_token"),
    (r"(?:pretrained|encoder)\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"(?:pretrained|encoder)\.mask_token$", "backbone.embeddings.mask_token"),
    (r"(?:pretrained|encoder)\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"(?:pretrained|encoder)\.norm\.", "backbone.layernorm."),
    (r"(?:pretrained|encoder)\.blocks\.(\d+)\.attn\.proj\.", r"backbone.encoder.layer.\1.attention.o_proj."),
    (r"(?:pretrained|encoder)\.blocks\.(\d+)\.ls([12])\.gamma$", r"backbone.encoder.layer.\1.layer_scale\2.lambda1"),
    (r"(?:pretrained|encoder)\.blocks\.(\d+)\.(norm[12]|mlp)\.", r"backbone.encoder.layer.\1.\2."),
)
_DECODER: Sequence[Rule] = (
    (r"depth_head\.projects\.(\d)\.", r"neck.reassemble_stage.layers.\1.projection."),
    (r"depth_head\.resize_layers\.(\d)\.", r"neck.reassemble_stage.layers.\1.resize."),
    (r"depth_head\.scratch\.output_conv1\.", "head.conv1."),
    (r"depth_head\.scratch\.output_conv2\.0\.", "head.conv2."),
    (r"depth_head\.scratch\.output_conv2\.2\.", "head.conv3."),
)
_QKV = re.compile(r"(?:pretrained|encoder)\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)$")
_OURS_QKV = re.compile(r"backbone\.encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)$")
_RN = re.compile(r"depth_head\.scratch\.layer(\d)_rn\.")
_REFINE = re.compile(r"depth_head\.scratch\.refinenet(\d)\.(out_conv|resConfUnit([12])\.conv([12]))\.(weight|bias)$")


def is_original(state: Mapping[str, object]) -> bool:
    """Whether weights are named as in the original checkpoints.

    Example:
        >>> is_original({"pretrained.cls_token": 0}), is_original({"backbone.layernorm.weight": 0})
        (True, False)
    """
    return any(name.startswith(("pretrained.", "depth_head.")) for name in state)


def from_any(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names; names that no table knows stay as they are.

    Example:
        >>> list(from_any({"backbone.encoder.layer.3.attention.attention.key.bias": torch.zeros(1)}))
        ['backbone.encoder.layer.3.attention.k_proj.bias']
        >>> list(from_any({"pretrained.blocks.0.attn.qkv.bias": torch.zeros(3)}))[1]
        'backbone.encoder.layer.0.attention.k_proj.bias'
    """
    return from_original(state) if is_original(state) else {newer(name): tensor for name, tensor in state.items()}


def newer(name: str) -> str:
    """The name in transformers 5 of a weight of transformers 4 or 5."""
    return _renamed(name, _NEWER)


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an original checkpoint under our names."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _QKV.match(name)
        if match is not None:
            thirds = tensor.chunk(3) if tensor.shape[0] % 3 == 0 else (tensor,)
            for letter, part in zip("qkv", thirds, strict=False):
                found[f"backbone.encoder.layer.{match[1]}.attention.{letter}_proj.{match[2]}"] = part
            continue
        found[_renamed(_decoder(name), (*_TRANSFORMER, *_DECODER))] = tensor
    return found


def to_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights (without adapters) under the names of the original checkpoints.

    Example:
        >>> state = {f"backbone.encoder.layer.0.attention.{x}_proj.bias": torch.ones(1) for x in "qkv"}
        >>> {name: tuple(tensor.shape) for name, tensor in to_original(state).items()}
        {'pretrained.blocks.0.attn.qkv.bias': (3,)}
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _OURS_QKV.match(name)
        if match is None:
            found[_backwards(name)] = tensor
        elif match[2] == "q":
            parts = [state[f"backbone.encoder.layer.{match[1]}.attention.{x}_proj.{match[3]}"] for x in "qkv"]
            found[f"pretrained.blocks.{match[1]}.attn.qkv.{match[3]}"] = torch.cat(parts)
    return found


def _renamed(name: str, rules: Sequence[Rule]) -> str:
    for pattern, replacement in rules:
        changed, hits = re.subn("^" + pattern, replacement, name)
        if hits:
            return changed
    return name


def _decoder(name: str) -> str:
    """The names of the decoder whose numbers run the other way."""
    if match := _RN.match(name):
        return f"neck.convs.{int(match[1]) - 1}." + name[match.end() :]
    if match := _REFINE.match(name):
        stage = f"neck.fusion_stage.layers.{4 - int(match[1])}."
        part = "projection" if match[2] == "out_conv" else f"residual_layer{match[3]}.convolution{match[4]}"
        return f"{stage}{part}.{match[5]}"
    return name


_Replacement = str | Callable[[re.Match[str]], str]
_BACK: Sequence[tuple[str, _Replacement]] = (
    (r"backbone\.embeddings\.cls_token$", "pretrained.cls_token"),
    (r"backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
    (r"backbone\.embeddings\.mask_token$", "pretrained.mask_token"),
    (r"backbone\.embeddings\.patch_embeddings\.projection\.", "pretrained.patch_embed.proj."),
    (r"backbone\.layernorm\.", "pretrained.norm."),
    (_BLOCK + r"attention\.o_proj\.", r"pretrained.blocks.\1.attn.proj."),
    (_BLOCK + r"layer_scale([12])\.lambda1$", r"pretrained.blocks.\1.ls\2.gamma"),
    (_BLOCK + r"(norm[12]|mlp)\.", r"pretrained.blocks.\1.\2."),
    (r"neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"depth_head.projects.\1."),
    (r"neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"depth_head.resize_layers.\1."),
    (r"neck\.convs\.(\d)\.", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn."),
    (
        r"neck\.fusion_stage\.layers\.(\d)\.projection\.",
        lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}.out_conv.",
    ),
    (
        r"neck\.fusion_stage\.layers\.(\d)\.residual_layer([12])\.convolution([12])\.",
        lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}.resConfUnit{m[2]}.conv{m[3]}.",
    ),
    (r"head\.conv1\.", "depth_head.scratch.output_conv1."),
    (r"head\.conv2\.", "depth_head.scratch.output_conv2.0."),
    (r"head\.conv3\.", "depth_head.scratch.output_conv2.2."),
)


def _backwards(name: str) -> str:
    for pattern, replacement in _BACK:
        changed, hits = re.subn("^" + pattern, replacement, name)
        if hits:
            return changed
    return name
