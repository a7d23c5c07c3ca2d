"""Weights into a network of which every entry has its counterpart."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from endolux.errors import ModelError


def copy_strictly(network: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor], *, fix: str) -> None:
    """Copy a state dict into a network under other names, all of it or nothing.

    Args:
        network: to fill, in place; entries that no name leads to stay as they are.
        names: from each name in ``state`` to that in the network; what follows a ``#`` is not told to people.
        state: the weights.
        fix: what a user can do about weights that do not fit.

    Raises:
        ModelError: ``model.variant`` where names or shapes differ, ``model.weights`` for what is not finite.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> copy_strictly(layer, {"w": "weight"}, {"w": torch.ones(1, 1)}, fix="Use the right file.")
        >>> layer.weight.item()
        1.0
    """
    own = network.state_dict()
    missing = [name for name in names if name not in state]
    unexpected = [name for name in state if name not in names]
    shapes = [name for name in names if name in state and state[name].shape != own[names[name]].shape]
    if missing or unexpected or shapes:
        told = [
            f"{len(found)} {what} ({', '.join(n.partition('#')[0] for n in found[:2])}{', ...' if found[2:] else ''})"
            for found, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of other shape"))
            if found
        ]
        raise ModelError(
            f"These are not the weights of '{getattr(network, 'architecture', type(network).__name__)}'",
            why=f"Of {len(names)} entries: {'; '.join(told)}.",
            fix=fix,
            error_id="model.variant",
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"The weight '{name.partition('#')[0]}' is not finite",
                why="The training that wrote these weights diverged, or the file is damaged.",
                fix="Use an earlier checkpoint.",
                error_id="model.weights",
            )
    with torch.no_grad():
        for name, there in names.items():
            own[there].copy_(state[name])
