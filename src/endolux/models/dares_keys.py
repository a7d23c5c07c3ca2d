"""Published weights of DARES and EndoDAC: their names, and strict loading by them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from endolux.adapt.lora import load_unadapted
from endolux.adapt.strict_copy import copy_strictly
from endolux.models.depth_anything_keys import from_any, from_original, to_original

if TYPE_CHECKING:
    from endolux.models.dpt import DPTNetwork

_OLD = {"q": "attention.query", "k": "attention.key", "v": "attention.value"}
_PROJECTION = re.compile(r"(backbone\.encoder\.layer\.\d+\.attention)\.([qkvo])_proj\.(.+)$")
_BRANCH = re.compile(r"(.*\.mlp\.fc[12])\.(base_layer\.)?(.+)$")
_HEAD = re.compile(r"heads\.(\d)\.conv([123])\.(weight|bias)$")
_RESIDUAL = re.compile(r"residuals\.(\d+)\.(.+)$")
_INSIDE = {"base_layer": "w", "lora_A.default": "linear_a", "lora_B.default": "linear_b"}


def dares_names(network: DPTNetwork, *, transformers: int = 4) -> dict[str, str]:
    """Our name of every weight of a DARES network, by its published name.

    Args:
        network: with its adapters.
        transformers: major version of the library it was trained with; 4 as published.

    Example:
        >>> from endolux.models.dares import Dares
        >>> tiny = dict(hidden_size=32, blocks=4, heads=2, neck=[8, 12, 16, 24], fusion=16, head_width=8, grid=4)
        >>> names = dares_names(Dares(taps=[1, 2, 3, 4], **tiny))
        >>> names["backbone.encoder.layer.3.attention.attention.query.linear_a.weight"]
        'backbone.encoder.layer.3.attention.q_proj.lora_A.default.weight'
    """
    return {_dares_name(own, transformers): own for own in network.state_dict()}


def endodac_names(network: DPTNetwork) -> dict[str, str]:
    """Our name of every weight of an EndoDAC network, by its published name; ``qkv`` stands for three of ours.

    Queries, keys and values are one matrix in the published weights: its name maps to that of the queries.
    """
    plain = {own: own.replace(".base_layer.", ".") for own in network.state_dict()}
    found: dict[str, str] = {}
    inside: dict[str, str] = {}
    for own, name in plain.items():
        if match := _HEAD.match(own):
            found[f"depth_head.conv_depth_{int(match[1]) + 1}.head.{2 * (int(match[2]) - 1)}.{match[3]}"] = own
        elif match := _RESIDUAL.match(own):
            found[f"encoder.blocks.{int(match[1]) - 1}.residual_.{match[2]}"] = own
        else:
            inside[name] = own
    tensors = network.state_dict()
    for name in to_original({name: tensors[own] for name, own in inside.items()}):
        ours = name.replace("pretrained.", "encoder.")
        source = next(iter(from_original({name: torch.empty(3)})))
        found[ours] = inside[source]
    return found


def load_dares(network: DPTNetwork, state: Mapping[str, Tensor]) -> None:
    """See :meth:`endolux.models.dares.Dares.load_published`."""
    adapted = any(".linear_a." in name or ".lora_A." in name for name in state)
    if not adapted:
        load_unadapted(network, _with_heads(network, from_any(state)))
        return
    version = 4 if any(".attention.attention." in name for name in state) else 5
    _copy(network, dares_names(network, transformers=version), state)


def load_endodac(network: DPTNetwork, state: Mapping[str, Tensor]) -> None:
    """See :meth:`endolux.models.endodac.EndoDAC.load_published`."""
    if not any(".lora_A" in name or ".residual_." in name for name in state):
        # Only what Depth Anything has; heads and convolutions between blocks stay as they are.
        plain = {k: v for k, v in from_any(state).items() if not k.startswith("head.")}
        own = network.state_dict()
        new = {name: tensor for name, tensor in own.items() if name.startswith(("heads.", "residuals."))}
        load_unadapted(network, {**new, **plain})
        return
    names = endodac_names(network)
    split = {name: own for name, own in names.items() if name.endswith((".qkv.weight", ".qkv.bias"))}
    whole = {name: own for name, own in names.items() if name not in split}
    parts: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in split and tensor.shape[0] % 3 == 0:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                parts[f"{name}#{letter}"] = part
                whole[f"{name}#{letter}"] = split[name].replace("q_proj", f"{letter}_proj")
        else:
            parts[name] = tensor
    for name, first in split.items():
        whole.setdefault(f"{name}#q", first)
    _copy(network, whole, parts)


def _dares_name(own: str, transformers: int) -> str:
    match = _PROJECTION.match(own)
    if match is None:
        return own
    block, letter, rest = match[1], match[2], match[3]
    for ours, published in _INSIDE.items():
        rest = re.sub(rf"^{re.escape(ours)}\.", f"{published}.", rest)
    if transformers >= 5:
        return f"{block}.{letter}_proj.{rest}"
    return f"{block}.output.dense.{rest}" if letter == "o" else f"{block}.{_OLD[letter]}.{rest}"


def _with_heads(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of one head for the heads of all scales."""
    own = network.state_dict()
    added = {
        name: state[f"head.{name.split('.', 2)[2]}"]
        for name in own
        if name.startswith("heads.") and name not in state and f"head.{name.split('.', 2)[2]}" in state
    }
    return {**state, **added}


def _copy(network: DPTNetwork, names: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    copy_strictly(
        network,
        names,
        state,
        fix="Use the published checkpoint, complete and unchanged, and the published configuration.",
    )
