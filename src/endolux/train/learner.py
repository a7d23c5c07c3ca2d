"""The networks in training: one step of all updates, and what a checkpoint keeps of them."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from endolux.adapt import GaLoreAdamW
from endolux.errors import InputError, ModelError
from endolux.models.landmark_network import ExportedNetwork
from endolux.train import checkpoints as store
from endolux.train.averaging import MovingAverage, whole
from endolux.train.optimisers import restore_state, state_tensors
from endolux.train.parallel import add_up, finite, generator_states, restore_generators, unsynchronised
from endolux.train.parts import Part, build_parts, frozen, inner_optimiser
from endolux.train.precision import keep_depthwise_exact, memory_format
from endolux.train.run_folder import not_finite
from endolux.train.synchronised import synchronise

if TYPE_CHECKING:
    from accelerate import Accelerator

    from endolux.train.recipe import Recipe
    from endolux.train.task import Batch, Task, Tensors


class Learner:
    """The networks of a task on their device, with optimisers and the moving average.

    Args:
        task: what is trained.
        exported: the task's exported network.
        recipe: precision, optimiser, averaging, parallelism.
        accelerator: from :func:`endolux.train.parallel.open_accelerator`.
        output: run folder, where a batch is saved that a loss failed on.
        checkpoint: where to go on from.

    Attributes:
        statistics_frozen: whether the networks are in evaluation mode (D-2: after a validation the original goes on
            in it until the next epoch).

    Raises:
        ModelError: ``model.checkpoint`` where the checkpoint holds other networks.
        UsageError: ``recipe.parallel``.
    """

    def __init__(
        self,
        task: Task,
        exported: ExportedNetwork,
        recipe: Recipe,
        accelerator: Accelerator,
        *,
        output: Path,
        checkpoint: Path | None,
    ) -> None:
        self.task, self.exported = task, exported
        self.recipe, self.accelerator, self.output = recipe, accelerator, output
        self.statistics_frozen = False
        if checkpoint is not None:
            for name, network in task.networks.items():
                _load(network, store.read_weights(checkpoint, name), checkpoint)
        # Validation sees a copy, before any layer learns to talk to other processes.
        self._evaluated = copy.deepcopy(exported).eval().requires_grad_(False).to(accelerator.device)
        for network in task.networks.values():
            self._place(network)
        task.autocast = accelerator.autocast
        self.parts = build_parts(task, recipe, accelerator)
        self.average = MovingAverage(exported, decay=recipe.average_decay) if recipe.average_decay > 0 else None
        self._restore(checkpoint)

    def _place(self, network: nn.Module) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        layout = torch.contiguous_format
        if recipe.parallel != "fsdp":
            # Split networks must be contiguous.
            layout = memory_format(network, device=accelerator.device, precision=recipe.precision)
        network.to(device=accelerator.device, memory_format=layout)  # type: ignore[call-overload]
        if recipe.precision == "bf16" and accelerator.device.type == "cpu":
            keep_depthwise_exact(network)
        if accelerator.num_processes > 1 and recipe.synchronise_batchnorm:
            synchronise(network)
        network.train()

    def _restore(self, checkpoint: Path | None) -> None:
        """Optimisers, average, random generators and the scaler of fp16 as the checkpoint has them."""
        accelerator = self.accelerator
        tensors = store.read_weights(checkpoint, "state") if checkpoint is not None else {}
        for part in self.parts:
            restore_state(inner_optimiser(part.optimiser), tensors, part.update.name)
        if self.average is not None and checkpoint is not None:
            kept = store.read_average(checkpoint)
            if kept is not None:
                self.average.restore(kept)
        # Last: building networks draws numbers, and processes must not draw the same ones for dropout.
        torch.manual_seed(self.recipe.seed + accelerator.process_index)
        restore_generators(tensors, accelerator)
        if accelerator.scaler is not None and "scaler.scale" in tensors:
            scaler = accelerator.scaler.state_dict()
            scaler |= {"scale": float(tensors["scaler.scale"]), "_growth_tracker": int(tensors["scaler.growth"])}
            accelerator.scaler.load_state_dict(scaler)

    def take(
        self, batches: tuple[Batch, ...], factor: float, *, step: int, interrupted: bool
    ) -> tuple[bool, float, dict[str, float]]:
        """One step: every update in turn.

        Args:
            batches: one for each forward pass.
            factor: of the learning rates, from the schedule.
            step: steps that were taken before.
            interrupted: whether this process was asked to stop.

        Returns:
            Whether any process was asked to stop, the learning rate, and losses and norms by name.

        Raises:
            InputError: ``train.size``.
            CheckError: ``train.not-finite``; the batch is saved.
        """
        for network in self.task.networks.values():
            if network.training is self.statistics_frozen:
                network.train(not self.statistics_frozen)
        tensors = [self._tensors(batch) for batch in batches]
        numbers: dict[str, float] = {}
        stop = float(interrupted)
        for index, part in enumerate(self.parts):
            values = self._update(part, tensors, factor, stop, batches, step)
            stop = values.pop("interrupted")
            prefix = f"{part.update.name}/" if index else ""
            numbers |= {f"{prefix}{name}": value for name, value in values.items()}
        return stop > 0, self.parts[0].rates[0] * factor, numbers

    def _update(
        self,
        part: Part,
        tensors: Sequence[Tensors],
        factor: float,
        stop: float,
        batches: tuple[Batch, ...],
        step: int,
    ) -> dict[str, float]:
        accelerator, optimiser = self.accelerator, part.optimiser
        for group, rate in zip(optimiser.param_groups, part.rates, strict=True):
            group["lr"] = rate * factor
        weigh = part.update.weight
        weights = [1.0 if weigh is None else float(weigh(one)) for one in tensors]
        whole_weight = add_up({"weight": sum(weights)}, accelerator)["weight"] or 1.0
        optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        with frozen(part.frozen):
            for number, (one, weight) in enumerate(zip(tensors, weights, strict=True)):
                last = number == len(tensors) - 1
                with contextlib.nullcontext() if last else unsynchronised(part.module, accelerator):
                    losses = part.module(one)
                    # Gradients are averaged over processes; the sum of all shares shall be the mean over all samples.
                    accelerator.backward(losses["total"] * (weight * accelerator.num_processes / whole_weight))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) * weight
        sums = add_up({**sums, "interrupted": stop}, accelerator)
        stop = sums.pop("interrupted")
        values = {name: value / whole_weight for name, value in sums.items()}
        if finite(values):
            clip = self.recipe.clip if self.recipe.clip is not None else math.inf
            norm = accelerator.clip_grad_norm_(part.parameters, clip)
            values["gradient_norm"] = float(whole(norm)) if isinstance(norm, Tensor) else float(norm)
        inner = inner_optimiser(optimiser)
        # The scaler of fp16 meets gradients that are not finite by design, and leaves the step out; so does GaLore,
        # which counts them and gives up after some in a row.
        borne = accelerator.scaler is not None or isinstance(inner, GaLoreAdamW)
        if not finite({k: v for k, v in values.items() if not borne or k != "gradient_norm"}):
            raise not_finite(self.output, batches, values, step=step + 1, rank=accelerator.process_index)
        optimiser.step()
        if isinstance(inner, GaLoreAdamW):
            values["skipped"] = float(inner.skipped)
        return {**values, "interrupted": stop}

    def _tensors(self, batch: Batch) -> Tensors:
        tensors = self.task.prepare(batch, self.accelerator.device)
        height, width = batch.depths.shape[1:]
        multiple = self.exported.multiple
        if height % multiple or width % multiple:
            raise InputError(
                f"The training pictures are {width}x{height}",
                why=f"{self.exported.architecture} needs sides that are multiples of {multiple}.",
                fix="Give a size that is, such as data.size=320x256.",
                error_id="train.size",
            )
        return tensors

    def count_in(self, step: int) -> None:
        """Bring the weights after ``step`` steps into the average."""
        if self.average is not None:
            self.average.update(step=step)

    def averaged(self) -> ExportedNetwork:
        """The exported network with the averaged weights, in evaluation mode; a copy that every call fills anew."""
        live = self.exported.state_dict()
        weights = {k: whole(v) for k, v in live.items()} if self.average is None else self.average.tensors()
        self._evaluated.load_state_dict(weights)
        return self._evaluated

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Whole weights of every network. A collective call."""
        return {
            name: {key: whole(tensor) for key, tensor in network.state_dict().items()}
            for name, network in self.task.networks.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Optimisers, random generators and the scaler of fp16. A collective call."""
        accelerator = self.accelerator
        tensors = generator_states(accelerator)
        for part in self.parts:
            tensors |= state_tensors(inner_optimiser(part.optimiser), part.update.name)
        if accelerator.scaler is not None:
            scaler = accelerator.scaler.state_dict()
            tensors["scaler.scale"] = torch.tensor(float(scaler["scale"]))
            tensors["scaler.growth"] = torch.tensor(int(scaler["_growth_tracker"]))
        return tensors


def _load(network: nn.Module, weights: Mapping[str, Tensor], checkpoint: Path) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"The checkpoint '{checkpoint}' does not fit the network",
            why=" ".join(str(error).split())[:200],
            fix="Resume with the recipe and the release that the run began with.",
            error_id="model.checkpoint",
        ) from error
