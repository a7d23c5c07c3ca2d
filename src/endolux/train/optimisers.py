"""Optimisers from a recipe, and their state as plain tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from endolux.errors import ModelError

if TYPE_CHECKING:
    from endolux.train.recipe import Optimiser


def build_optimiser(
    parameters: Iterable[nn.Parameter], settings: Optimiser, *, fused: bool = True
) -> torch.optim.Optimizer:
    """Adam or AdamW; decay acts on kernels (two axes and more), never on biases and norms.

    Args:
        parameters: to train.
        settings: section of a recipe.
        fused: one pass over the memory a step; torch's fused kernels exist for CPU and CUDA.

    Example:
        >>> from endolux.train.recipe import Optimiser
        >>> optimiser = build_optimiser(nn.Linear(2, 2).parameters(), Optimiser(weight_decay=0.1))
        >>> [group["weight_decay"] for group in optimiser.param_groups]
        [0.1, 0.0]
    """
    trained = list(parameters)
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=fused,
    )


def state_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state, whole on every process, as ``PREFIX.NUMBER.NAME``; numbers count parameters over the groups.

    A collective call where the parameters are split over processes.
    """
    tensors: dict[str, Tensor] = {}
    for number, parameter in enumerate(_parameters(optimiser)):
        for name, value in sorted(optimiser.state.get(parameter, {}).items()):
            whole = value.full_tensor() if isinstance(value, DTensor) else torch.as_tensor(value)
            tensors[f"{prefix}.{number}.{name}"] = whole.detach()
    return tensors


def restore_state(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what :func:`state_tensors` gave.

    Raises:
        ModelError: ``model.checkpoint`` where it belongs to other parameters.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.(\w+)")
    parameters = _parameters(optimiser)
    for key, value in tensors.items():
        match = pattern.fullmatch(key)
        if match is None:
            continue
        number, name = int(match[1]), match[2]
        if number >= len(parameters) or (value.ndim and value.shape != parameters[number].shape):
            raise ModelError(
                f"The optimiser's state '{key}' fits no parameter",
                why=f"It has the shape {tuple(value.shape)}.",
                fix="Resume with the recipe and the release that the run began with.",
                error_id="model.checkpoint",
            )
        parameter = parameters[number]
        if isinstance(parameter, DTensor) and value.ndim:
            restored: Tensor = distribute_tensor(
                value.to(parameter.device), parameter.device_mesh, list(parameter.placements)
            )
        else:
            # Step counters stay on the CPU unless the kernel is fused on an accelerator.
            device = parameter.device if value.ndim or parameter.is_cuda else torch.device("cpu")
            restored = torch.empty_like(parameter) if value.ndim else torch.empty((), dtype=value.dtype, device=device)
            restored = restored.detach().copy_(value)
        optimiser.state[parameter][name] = restored


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
