"""The updates of a task, each with the module and the optimiser that carry it out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.train.optimisers import build_optimiser
from endolux.train.parallel import distribute

if TYPE_CHECKING:
    from accelerate import Accelerator

    from endolux.train.recipe import Recipe
    from endolux.train.task import Task, Tensors, Update


class Trained(nn.Module):
    """The networks of one update with its loss as forward: what DDP and FSDP wrap, whatever methods the loss calls."""

    def __init__(self, update: Update, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({name: networks[name] for name in update.networks})
        self._loss = update.loss

    @override
    def forward(self, tensors: Tensors) -> dict[str, Tensor]:
        # accelerate opens autocast around forward; only the networks shall run in it, see Task.autocast.
        with torch.autocast(tensors["image"].device.type, enabled=False):
            return self._loss(tensors)


@dataclasses.dataclass(slots=True, eq=False)
class Part:
    """An update with what trains it.

    Attributes:
        update: what the task says.
        module: its networks and loss as this process runs them.
        optimiser: of the networks' parameters.
        parameters: those that it trains.
        frozen: those of other updates, which keep their values meanwhile.
        rates: learning rate of each group of parameters before the schedule.
    """

    update: Update
    module: nn.Module
    optimiser: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    frozen: list[nn.Parameter]
    rates: list[float]


def build_parts(task: Task, recipe: Recipe, accelerator: Accelerator) -> list[Part]:
    """The updates of a task with their optimisers, distributed over the processes.

    Raises:
        UsageError: ``recipe.parallel`` where updates share a network that shall be split.
    """
    updates, networks = task.updates(), task.networks
    names = [name for update in updates for name in update.networks]
    if recipe.parallel == "fsdp" and len(names) != len(set(names)):
        raise UsageError(
            "parallel is fsdp, and two updates train the same network",
            why="A network can be split over processes once.",
            fix="Use parallel=ddp.",
            error_id="recipe.parallel",
        )
    wrapped = []
    for update in updates:
        settings = update.optimiser or recipe.optimiser
        module, optimiser = distribute(
            Trained(update, networks),
            lambda module, settings=settings: build_optimiser(  # type: ignore[misc]
                [p for p in module.parameters() if p.requires_grad], settings, module=module, seed=recipe.seed
            ),
            accelerator,
            recipe,
        )
        wrapped.append((update, module, optimiser))
    # After all of them: splitting a network puts other parameters in the place of its own.
    trained = [(p, name) for name, network in networks.items() for p in network.parameters() if p.requires_grad]
    return [
        Part(
            update,
            module,
            optimiser,
            [p for p in module.parameters() if p.requires_grad],
            [p for p, name in trained if name not in update.networks] if len(updates) > 1 else [],
            [float(group["lr"]) for group in optimiser.param_groups],
        )
        for update, module, optimiser in wrapped
    ]


def inner_optimiser(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's."""
    inner = getattr(optimiser, "optimizer", optimiser)
    return cast("torch.optim.Optimizer", inner)


@contextlib.contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Keep gradients away from networks that another update trains."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
