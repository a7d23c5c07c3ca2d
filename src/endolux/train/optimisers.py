"""Optimisers from a recipe, and their state as plain tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from endolux.adapt import GaLoreAdamW, galore_groups
from endolux.adapt.shapes import basis_shape, moment_shape
from endolux.errors import ModelError, UsageError

if TYPE_CHECKING:
    from endolux.train.recipe import Optimiser

_COUNTS, _SKIPS = "galore", ("skipped", "skipped_in_a_row")


def build_optimiser(
    parameters: Iterable[nn.Parameter],
    settings: Optimiser,
    *,
    fused: bool = True,
    module: nn.Module | None = None,
    seed: int = 0,
) -> torch.optim.Optimizer:
    """Adam, AdamW or GaLore; decay acts on kernels (two axes and more), never on biases and norms.

    Args:
        parameters: to train.
        settings: section of a recipe.
        fused: one pass over the memory a step; torch's fused kernels exist for CPU and CUDA.
        module: what the parameters belong to; GaLore chooses matrices by the names of its modules.
        seed: of GaLore's bases.

    Raises:
        UsageError: ``adapt.*`` where GaLore cannot adapt what the settings say; ``recipe.parallel`` where parameters
            are split over processes.

    Example:
        >>> from endolux.train.recipe import Optimiser
        >>> optimiser = build_optimiser(nn.Linear(2, 2).parameters(), Optimiser(weight_decay=0.1))
        >>> [group["weight_decay"] for group in optimiser.param_groups]
        [0.1, 0.0]
    """
    trained = list(parameters)
    if settings.name == "galore":
        return _galore(trained, settings, module, seed=seed, fused=fused)
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


def _galore(
    parameters: list[nn.Parameter], settings: Optimiser, module: nn.Module | None, *, seed: int, fused: bool
) -> GaLoreAdamW:
    """The matched matrices with projection first, then the other kernels, then biases and norms without decay."""
    if module is None:
        raise TypeError("galore chooses matrices by the names of modules, and none was given")
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        raise UsageError(
            "optimiser.name is galore, and parallel is fsdp",
            why="A basis belongs to a whole matrix, and the matrices are split over the processes.",
            fix="Use parallel=ddp.",
            error_id="recipe.parallel",
        )
    chosen = {id(parameter) for parameter in parameters}
    options = {
        name: getattr(settings, name)
        for name in ("projection", "side", "scale", "update_interval", "moments", "oversampling", "power", "oversized")
    }
    groups = galore_groups(module, settings.pattern, rank=settings.rank, expected=settings.adapted, **options)
    adapted, rest = groups[0], [p for group in groups[1:] for p in group["params"] if id(p) in chosen]
    del adapted["names"]
    split: list[dict[str, object]] = [
        {**adapted, "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim >= 2], "rank": None, "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "rank": None, "weight_decay": 0.0},
    ]
    return GaLoreAdamW(
        [group for group in split if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        seed=seed,
        skip_limit=settings.skip_limit,
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
    if isinstance(optimiser, GaLoreAdamW):
        # Counts of the whole optimiser, which torch keeps in its groups.
        first = optimiser.param_groups[0]
        tensors |= {f"{prefix}.{_COUNTS}.{name}": torch.tensor(int(first[name])) for name in _SKIPS}
    return tensors


def restore_state(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what :func:`state_tensors` gave.

    Raises:
        ModelError: ``model.checkpoint`` where it belongs to other parameters.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+|{_COUNTS})\.(\w+)")
    parameters = _parameters(optimiser)
    for key, value in tensors.items():
        match = pattern.fullmatch(key)
        if match is None:
            continue
        name = match[2]
        if match[1] == _COUNTS:
            if isinstance(optimiser, GaLoreAdamW) and name in _SKIPS:
                optimiser.param_groups[0][name] = int(value)
            continue
        number = int(match[1])
        wanted = _state_shape(optimiser, number, name) if number < len(parameters) else None
        if wanted is None or (value.ndim and tuple(value.shape) != wanted):
            raise ModelError(
                f"The optimiser's state '{key}' fits no parameter",
                why=f"It has the shape {tuple(value.shape)}"
                + ("." if wanted is None else f", and this optimiser's has {wanted}."),
                fix="Resume with the recipe and the release that the run began with.",
                error_id="model.checkpoint",
            )
        parameter = parameters[number]
        if isinstance(parameter, DTensor) and value.ndim:
            restored: Tensor = distribute_tensor(
                value.to(parameter.device), parameter.device_mesh, list(parameter.placements)
            )
        elif value.ndim and value.shape != parameter.shape:
            restored = value.to(parameter.device, copy=True)
        else:
            # Step counters stay on the CPU unless the kernel is fused on an accelerator.
            device = parameter.device if value.ndim or _on_device(optimiser, parameter) else torch.device("cpu")
            restored = torch.empty_like(parameter) if value.ndim else torch.empty((), dtype=value.dtype, device=device)
            restored = restored.detach().copy_(value)
        optimiser.state[parameter][name] = restored


def _state_shape(optimiser: torch.optim.Optimizer, number: int, name: str) -> tuple[int, ...]:
    """The shape that a tensor of the state has."""
    for group in optimiser.param_groups:
        if number < len(group["params"]):
            break
        number -= len(group["params"])
    parameter = group["params"][number]
    if not isinstance(optimiser, GaLoreAdamW):
        return tuple(parameter.shape)
    return basis_shape(parameter, group) if name == "basis" else moment_shape(parameter, group)


def _on_device(optimiser: torch.optim.Optimizer, parameter: Tensor) -> bool:
    projected = isinstance(optimiser, GaLoreAdamW) and "basis" in optimiser.state.get(parameter, {})
    return parameter.is_cuda and not projected


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
