"""One process or many: the accelerator, its set-up, and sums over all processes."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from endolux.errors import UsageError
from endolux.train.precision import check_precision, resolve_device

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe


def open_accelerator(recipe: Recipe) -> Accelerator:
    """The accelerator that a recipe asks for, with all processes of torchrun or another launcher.

    Raises:
        UsageError: ``device.unknown``, ``device.precision``, ``recipe.parallel``.
        DeviceError: ``device.absent``.
    """
    device = resolve_device(recipe.device)
    check_precision(recipe.precision, device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if recipe.parallel == "fsdp" and world == 1:
        raise UsageError(
            "parallel is fsdp, and there is one process",
            why="Splitting a network over processes needs several.",
            fix="Start it with 'torchrun --nproc-per-node N -m endolux train ...', or set parallel=auto.",
            error_id="recipe.parallel",
        )
    if recipe.parallel == "fsdp" and recipe.precision == "fp16":
        raise UsageError(
            "parallel is fsdp, and precision is fp16",
            why="The scaling of fp16 gradients does not know split ones.",
            fix="Use precision=bf16, or parallel=ddp.",
            error_id="recipe.parallel",
        )
    # The libraries keep one state a program; a program may train twice, in different ways.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
        cpu=device.type == "cpu",
        kwargs_handlers=[
            # Some variants keep parameters that take no part (no-skip, MobileNetV3).
            DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True),
            # The others wait while one process validates or a teacher computes ahead.
            InitProcessGroupKwargs(timeout=datetime.timedelta(days=2)),
        ],
    )


def distribute(
    module: nn.Module, optimiser: Callable[[nn.Module], torch.optim.Optimizer], accelerator: Accelerator, recipe: Recipe
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A module and its optimiser, ready for this process: copied (DDP), split (FSDP) or alone.

    Args:
        module: its forward is the loss.
        optimiser: builds the optimiser of a module.
        accelerator: from :func:`open_accelerator`.
        recipe: its ``parallel`` decides.
    """
    if recipe.parallel == "fsdp":
        # torch's own, because accelerate splits networks on GPUs only.
        mesh = dist.device_mesh.init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        fully_shard(module, mesh=mesh)
        return module, accelerator.prepare_optimizer(optimiser(module))
    prepared, ready = accelerator.prepare(module, optimiser(module))
    return prepared, ready


@contextlib.contextmanager
def unsynchronised(module: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Gradients stay on their process: for all but the last forward pass of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)
    else:
        with accelerator.no_sync(module):
            yield


def add_up(values: Mapping[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Sums over all processes of numbers that every process has under the same names."""
    if accelerator.num_processes == 1:
        return dict(values)
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=accelerator.device)
    dist.all_reduce(numbers)
    return dict(zip(values, numbers.tolist(), strict=True))


def share(value: object, accelerator: Accelerator) -> object:
    """What the main process has, on all of them."""
    if accelerator.num_processes == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def generator_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """States of torch's random generators on every process. A collective call."""
    mine = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    gathered: Sequence[Mapping[str, Tensor] | None] = [mine]
    if accelerator.num_processes > 1:
        boxes: list[Mapping[str, Tensor] | None] = [None] * accelerator.num_processes
        dist.all_gather_object(boxes, mine)
        gathered = boxes
    return {f"rng.{rank}.{name}": state for rank, box in enumerate(gathered) for name, state in (box or {}).items()}


def restore_generators(tensors: Mapping[str, Tensor], accelerator: Accelerator) -> None:
    """Put back what :func:`generator_states` gave, as far as the processes and devices are the same."""
    rank = accelerator.process_index
    if (state := tensors.get(f"rng.{rank}.cpu")) is not None:
        torch.set_rng_state(state)
    if accelerator.device.type == "cuda" and (state := tensors.get(f"rng.{rank}.cuda")) is not None:
        torch.cuda.set_rng_state(state, accelerator.device)


def finite(values: Mapping[str, float]) -> bool:
    """Whether every number is.

    Example:
        >>> finite({"total": 1.0}), finite({"total": float("nan")})
        (True, False)
    """
    return all(math.isfinite(value) for value in values.values())
