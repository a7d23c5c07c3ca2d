"""The training loop: any task, one process or many, resumable to the byte."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import cv2
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import InputError, ModelError, UsageError
from endolux.models import DepthNetwork
from endolux.train import checkpoints as store
from endolux.train.averaging import MovingAverage, whole
from endolux.train.data import Corpus, Place, Position, Reader, Samples, Stream, draw_held_out, held_out_batches
from endolux.train.log import Listener, Log
from endolux.train.optimisers import build_optimiser, restore_state, state_tensors
from endolux.train.parallel import (
    add_up,
    distribute,
    finite,
    generator_states,
    open_accelerator,
    restore_generators,
    share,
    unsynchronised,
)
from endolux.train.precision import keep_depthwise_exact, memory_format
from endolux.train.recipe import Recipe
from endolux.train.run_folder import check_output, check_same_run, not_finite, recorded_recipe, write_record
from endolux.train.schedule import rate_factor
from endolux.train.synchronised import synchronise
from endolux.train.task import Batch, Start, Task, Tensors, Update
from endolux.train.tasks import build_task
from endolux.train.validation import Best, check_protocols, run_protocols, validate

OnCheckpoint = Callable[[DepthNetwork, int], Mapping[str, float]]
"""Called with the (averaged) exported network in evaluation mode and the step; what it returns goes to the log."""


def fit(
    task: Task | None,
    recipe: Recipe,
    data: Sequence[str | Path] | None,
    output: Path,
    *,
    resume: bool = False,
    on_log: Listener | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> Path:
    """Train.

    The run folder gets the resolved ``recipe.yaml``, ``run.json``, ``log.jsonl``, TensorBoard files and checkpoints
    ``step-NNNNNNNN``; ``best.json`` names the best one. Ctrl-C and a termination signal write a checkpoint first. On a
    CPU with the same number of threads, a run that was interrupted or killed at any moment and resumed gives the
    bytes of an undisturbed one.

    Under torchrun, ``recipe.batch`` is each process's: two of B samples train as one with 2 B.

    Args:
        task: what to train; by default what the recipe says.
        recipe: everything else.
        data: sources in place of the recipe's.
        output: run folder; must be absent or empty unless ``resume``.
        resume: go on from the newest checkpoint in ``output``, if there is one.
        on_log: receives every line of the log, for displays.
        on_checkpoint: called after every checkpoint that the recipe's interval asks for.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: the output exists, or the recipe differs from that of the run.
        InputError: no usable data.
        CheckError: ``train.not-finite``; the last checkpoint is kept and the batch saved.
        DeviceError: ``device.disk-full`` and others; the last checkpoint is kept.
        KeyboardInterrupt: after the checkpoint that an interruption asks for.
    """
    if data is not None:
        sources = tuple(str(source) for source in data)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": sources})})
    check_output(output, resume=resume)
    before = recorded_recipe(output) if resume else None
    if before is not None:
        check_same_run(before.document(), recipe.document())
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
        cv2.setNumThreads(recipe.threads)
    found = store.checkpoints(output) if resume else ()
    state = store.read_state(found[-1]) if found else None
    if state is not None and state.loop.get("finished") is True:
        return found[-1]
    accelerator = open_accelerator(recipe)
    # No process may look into the folder after another has begun to write there.
    accelerator.wait_for_everyone()
    run = _Run(task, recipe, output, accelerator, state, found[-1] if found else None)
    return run.loop(on_log, on_checkpoint)


class _Trained(nn.Module):
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
class _Part:
    """An update with what trains it."""

    update: Update
    module: nn.Module
    optimiser: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    frozen: list[nn.Parameter]
    rates: list[float]


class _Run:
    """State of one run between its steps."""

    def __init__(
        self,
        task: Task | None,
        recipe: Recipe,
        output: Path,
        accelerator: Accelerator,
        state: store.State | None,
        checkpoint: Path | None,
    ) -> None:
        self.recipe, self.output, self.accelerator = recipe, output, accelerator
        loop = dict(state.loop) if state is not None else {}
        self.step = state.step if state is not None else 0
        self._last = checkpoint or output
        fields = dict(state.position) if state is not None else {}
        self.position = Position(**fields)  # type: ignore[arg-type]
        self._open_data(loop)
        torch.manual_seed(recipe.seed)
        self.task = task or build_task(recipe)
        self._listener: Listener | None = None
        self.reader = self._reader(self._unreadable)
        unreadable = loop.get("unreadable")
        if isinstance(unreadable, Mapping):
            self.reader.unreadable.update({str(name): str(why) for name, why in unreadable.items()})
        self.stream = Stream(
            self.corpus,
            batch=recipe.batch,
            seed=recipe.seed,
            augmentation=recipe.data.augmentation,
            size=recipe.data.size,
            place=Place(rank=accelerator.process_index, world=accelerator.num_processes, micro=recipe.accumulate),
            workers=recipe.workers,
            position=self.position,
            reader=self.reader,
            extras=None if type(self.task).extras is Task.extras else self.task.extras,
            mirror_extras=recipe.distillation is None or recipe.distillation.response.mirrored,
        )
        per_epoch = loop.get("steps_per_epoch")
        self.steps_per_epoch = per_epoch if isinstance(per_epoch, int) else self.stream.steps_per_epoch()
        self.steps = recipe.steps or (recipe.epochs or 1) * self.steps_per_epoch
        self._check_world(loop)
        self.exported = self._exported()
        check_protocols(recipe.evaluation.protocols, self.exported)
        self._prepare_networks(checkpoint)
        self.best = Best(recipe.evaluation, cast("Mapping[str, object] | None", loop.get("best")))
        # D-2: after a validation the original goes on in evaluation mode until the next epoch.
        self._statistics_frozen = loop.get("statistics_frozen") is True
        self._stopped = False

    def _open_data(self, loop: Mapping[str, object]) -> None:
        data, kept = self.recipe.data, loop.get("held_out")
        drawn = tuple(kept) if isinstance(kept, list) else draw_held_out(data.sources, data.validation.fraction)
        self.corpus = Corpus(data.sources, held_out=drawn)
        self.held_out = self.corpus.kept()
        if data.validation.sources:
            self.held_out += Corpus(data.validation.sources).clips()

    def _reader(self, tell: Callable[[str, str], None] | None = None) -> Reader:
        limit = self.recipe.data.unreadable_limit
        return Reader(limit=limit, needs_depth=self.task.needs_depth, on_unreadable=tell)

    def _unreadable(self, name: str, why: str) -> None:
        self._tell({"message": f"left out: {name} ({why})"})

    def _check_world(self, loop: Mapping[str, object]) -> None:
        before = loop.get("step_samples")
        if isinstance(before, int) and before != self.stream.step_samples:
            raise UsageError(
                f"A step now has {self.stream.step_samples} samples, and had {before}",
                why="The number of processes is another one than when the run began.",
                fix=f"Resume with {self.accelerator.num_processes * before // self.stream.step_samples} processes.",
                error_id="train.recipe-changed",
            )

    def _exported(self) -> DepthNetwork:
        network = self.task.networks[self.task.exported]
        if not isinstance(network, DepthNetwork):
            raise TypeError(f"the exported network is a {type(network).__name__}, not a DepthNetwork")
        return network

    def _prepare_networks(self, checkpoint: Path | None) -> None:
        recipe, accelerator, networks = self.recipe, self.accelerator, self.task.networks
        if checkpoint is not None:
            for name, network in networks.items():
                _load(network, store.read_weights(checkpoint, name), checkpoint)
        # Validation sees a copy, before any layer learns to talk to other processes.
        self.evaluated = copy.deepcopy(self.exported).eval().requires_grad_(False).to(accelerator.device)
        for network in networks.values():
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
        self.task.autocast = accelerator.autocast
        self.parts = self._parts()
        tensors = store.read_weights(checkpoint, "state") if checkpoint is not None else {}
        for part in self.parts:
            restore_state(_inner(part.optimiser), tensors, part.update.name)
        self.average: MovingAverage | None = None
        if recipe.average_decay > 0:
            self.average = MovingAverage(self.exported, decay=recipe.average_decay)
            kept = store.read_average(checkpoint) if checkpoint is not None else None
            if kept is not None:
                self.average.restore(kept)
        # Last: building networks draws numbers, and processes must not draw the same ones for dropout.
        torch.manual_seed(recipe.seed + accelerator.process_index)
        restore_generators(tensors, accelerator)
        if accelerator.scaler is not None and "scaler.scale" in tensors:
            scaler = accelerator.scaler.state_dict()
            scaler |= {"scale": float(tensors["scaler.scale"]), "_growth_tracker": int(tensors["scaler.growth"])}
            accelerator.scaler.load_state_dict(scaler)

    def _parts(self) -> list[_Part]:
        updates, networks = self.task.updates(), self.task.networks
        names = [name for update in updates for name in update.networks]
        if self.recipe.parallel == "fsdp" and len(names) != len(set(names)):
            raise UsageError(
                "parallel is fsdp, and two updates train the same network",
                why="A network can be split over processes once.",
                fix="Use parallel=ddp.",
                error_id="recipe.parallel",
            )
        wrapped = []
        for update in updates:
            settings = update.optimiser or self.recipe.optimiser
            module, optimiser = distribute(
                _Trained(update, networks),
                lambda module, settings=settings: build_optimiser(  # type: ignore[misc]
                    [p for p in module.parameters() if p.requires_grad], settings
                ),
                self.accelerator,
                self.recipe,
            )
            wrapped.append((update, module, optimiser))
        # After all of them: splitting a network puts other parameters in the place of its own.
        trained = [(p, name) for name, network in networks.items() for p in network.parameters() if p.requires_grad]
        return [
            _Part(
                update,
                module,
                optimiser,
                [p for p in module.parameters() if p.requires_grad],
                [p for p, name in trained if name not in update.networks] if len(updates) > 1 else [],
                [float(group["lr"]) for group in optimiser.param_groups],
            )
            for update, module, optimiser in wrapped
        ]

    def loop(self, on_log: Listener | None, on_checkpoint: OnCheckpoint | None) -> Path:
        """Every step that is left."""
        recipe, main = self.recipe, self.accelerator.is_main_process
        self._listener = on_log if main else None
        self._begin_task()
        self._compute_ahead()
        log = self._begin(on_log) if main else None
        started, seen = time.perf_counter(), 0
        with contextlib.ExitStack() as stack:
            if log is not None:
                stack.callback(log.close)
            asked = stack.enter_context(_interruption())
            batches = self.stream.batches(first_step=self.step)
            stack.callback(batches.close)  # type: ignore[attr-defined]
            while self.step < self.steps and not self._stopped:
                batch, position = next(batches)
                if position.taken == self.stream.step_samples:
                    self._statistics_frozen = False
                interrupted, rate, values = self._take(batch, position, asked)
                self.step, self.position = self.step + 1, position
                seen += self.stream.step_samples
                if self.average is not None:
                    self.average.update(step=self.step)
                ends = self.step == self.steps
                if log is not None and (self.step % recipe.log_every == 0 or ends):
                    speed = seen / (time.perf_counter() - started)
                    log.write(
                        {"step": self.step, "steps": self.steps, "epoch": position.epoch, "lr": rate}
                        | values
                        | {"images_per_s": speed}
                    )
                    started, seen = time.perf_counter(), 0
                # Several processes must agree, and have done so within the step.
                interrupted = interrupted or (self.accelerator.num_processes == 1 and asked())
                better = self._evaluate(log) if self._is_evaluation(position) else False
                due = self.step % recipe.checkpoint_every == 0 or ends or self._stopped
                if due or better or interrupted:
                    self._last = self._write()
                if due and on_checkpoint is not None and not interrupted:
                    measured = on_checkpoint(self._averaged(), self.step) if main else {}
                    if log is not None and measured:
                        log.write({"step": self.step, **measured})
                if due or better:
                    started, seen = time.perf_counter(), 0
                if interrupted:
                    raise KeyboardInterrupt(f"The training was stopped after step {self.step} of {self.steps}.")
        return self._last

    def _begin_task(self) -> None:
        samples = Samples(self.corpus.clips())
        stored = self._stored_size()
        self.task.begin(
            Start(
                output=self.output,
                count=len(samples),
                image=lambda index: self.reader.load(samples, index).image,
                size=self.recipe.data.size or stored,
                wanted=(self.steps - self.step) * self.stream.step_samples,
                part=(self.accelerator.process_index, self.accelerator.num_processes),
                tell=lambda line: self._listener(line) if self._listener is not None else None,
            )
        )
        self.accelerator.wait_for_everyone()

    def _begin(self, listener: Listener | None) -> Log:
        facts = {
            "step": self.step,
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "data_sha256": self.corpus.sha256(),
            "held_out": sorted(self.corpus.held_out),
            "task": dict(self.task.summary()),
        }
        write_record(self.output, self.recipe, facts)
        return Log(self.output, step=self.step, listener=listener)

    def _compute_ahead(self) -> None:
        samples = Samples(self.corpus.clips())
        self.task.begin(
            Start(
                output=self.output,
                count=len(samples),
                image=lambda index: self.reader.load(samples, index).image,
                size=self.recipe.data.size or self._stored_size(),
                wanted=(self.steps - self.step) * self.stream.step_samples,
                part=(self.accelerator.process_index, self.accelerator.num_processes),
                tell=self._tell,
            )
        )
        self.accelerator.wait_for_everyone()

    def _tell(self, line: Mapping[str, object]) -> None:
        if self._listener is not None:
            self._listener(line)

    def _take(
        self, batches: tuple[Batch, ...], position: Position, asked: Callable[[], bool]
    ) -> tuple[bool, float, dict[str, float]]:
        """One step: every update in turn. Returns whether an interruption was asked for, the rate and the numbers."""
        for network in self.task.networks.values():
            if network.training is self._statistics_frozen:
                network.train(not self._statistics_frozen)
        tensors = [self._tensors(batch) for batch in batches]
        factor = rate_factor(
            self.recipe.schedule,
            step=self.step,
            steps=self.steps,
            epoch=position.epoch,
            epochs=self.recipe.epochs or math.ceil(self.steps / self.steps_per_epoch),
        )
        numbers: dict[str, float] = {}
        stop = float(asked())
        for index, part in enumerate(self.parts):
            values = self._update(part, tensors, factor, stop, batches)
            stop = values.pop("interrupted")
            prefix = f"{part.update.name}/" if index else ""
            numbers |= {f"{prefix}{name}": value for name, value in values.items()}
        return stop > 0, self.parts[0].rates[0] * factor, numbers

    def _update(
        self, part: _Part, tensors: Sequence[Tensors], factor: float, stop: float, batches: tuple[Batch, ...]
    ) -> dict[str, float]:
        accelerator, optimiser = self.accelerator, part.optimiser
        for group, rate in zip(optimiser.param_groups, part.rates, strict=True):
            group["lr"] = rate * factor
        weigh = part.update.weight
        weights = [1.0 if weigh is None else float(weigh(one)) for one in tensors]
        whole_weight = add_up({"weight": sum(weights)}, accelerator)["weight"] or 1.0
        optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        with _frozen(part.frozen):
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
        # The scaler of fp16 meets gradients that are not finite by design, and leaves the step out.
        if not finite({k: v for k, v in values.items() if accelerator.scaler is None or k != "gradient_norm"}):
            raise not_finite(self.output, batches, values, step=self.step + 1, rank=accelerator.process_index)
        optimiser.step()
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

    def _is_evaluation(self, position: Position) -> bool:
        every, published = self.recipe.evaluation.every, self.recipe.batchnorm == "reproduce"
        if self.recipe.epochs is not None:
            number = position.taken // self.stream.step_samples
            # As published: after batch 1000, counted from 0.
            inside = every is not None and (number - published) > 0 and (number - published) % every == 0
            return inside or position.ends(self.stream.step_samples) or self.step == self.steps
        return self.step == self.steps or (every is not None and self.step % every == 0)

    def _averaged(self) -> DepthNetwork:
        live = self.exported.state_dict()
        weights = {k: whole(v) for k, v in live.items()} if self.average is None else self.average.tensors()
        self.evaluated.load_state_dict(weights)
        return self.evaluated

    def _evaluate(self, log: Log | None) -> bool:
        """Score the exported network. Returns whether it is the best so far."""
        recipe = self.recipe
        self._statistics_frozen = recipe.batchnorm == "reproduce"
        if not self.held_out and not recipe.evaluation.protocols:
            return False
        network = self._averaged()
        scores: dict[str, float] = {}
        failure: Exception | None = None
        if self.accelerator.is_main_process:
            try:
                scores = self._scores(network)
            except Exception as error:
                # The others wait for the scores: tell them first.
                failure = error
        shared = share(None if failure is not None else scores, self.accelerator)
        if failure is not None:
            raise failure
        if not isinstance(shared, dict):
            raise ModelError(
                "The validation failed on the main process",
                why="Its message stands in the output of that process.",
                fix="Mend what it says.",
                error_id="train.validation",
            )
        if log is not None:
            log.write({"step": self.step, **shared})
        better = self.best.update(shared, self.step)
        self._stopped = self.best.exhausted
        return better

    def _scores(self, network: DepthNetwork) -> dict[str, float]:
        recipe, device = self.recipe, self.accelerator.device
        scores: dict[str, float] = {}
        size = recipe.data.size
        if self.held_out:
            batches = held_out_batches(
                self.held_out,
                batch=recipe.batch,
                size=size,
                limit=recipe.data.validation.limit,
                reader=self._reader(),
            )
            mean = recipe.evaluation.mean == "reproduce"
            measured = validate(self.task, network, batches, device=device, reproduce_mean=mean)
            scores = {f"validation/{name}": value for name, value in measured.items()}
        if recipe.evaluation.protocols:
            scores |= run_protocols(
                recipe.evaluation.protocols,
                network,
                size=size or self._stored_size(),
                device=device,
                # As the augmentation does: the endoscope's varies the aspect, the others stretch.
                stretch=recipe.data.augmentation.kind != "endoscope",
            )
        return scores

    def _stored_size(self) -> tuple[int, int]:
        image = self.corpus.clips()[0].load(0).image
        return image.shape[1], image.shape[0]

    def _write(self) -> Path:
        """A checkpoint of now. A collective call; the main process writes."""
        accelerator = self.accelerator
        networks = {
            name: {key: whole(tensor) for key, tensor in network.state_dict().items()}
            for name, network in self.task.networks.items()
        }
        average = None if self.average is None else self.average.tensors()
        tensors = generator_states(accelerator)
        for part in self.parts:
            tensors |= state_tensors(_inner(part.optimiser), part.update.name)
        if accelerator.scaler is not None:
            scaler = accelerator.scaler.state_dict()
            tensors["scaler.scale"] = torch.tensor(float(scaler["scale"]))
            tensors["scaler.growth"] = torch.tensor(int(scaler["_growth_tracker"]))
        state = store.State(
            step=self.step,
            architecture=self.exported.architecture,
            config=self.exported.config(),
            exported=self.task.exported,
            networks=tuple(self.task.networks),
            recipe=self.recipe.document(),
            position=dataclasses.asdict(self.position),
            loop={
                "finished": self.step == self.steps or self._stopped,
                "steps": self.steps,
                "steps_per_epoch": self.steps_per_epoch,
                "step_samples": self.stream.step_samples,
                "held_out": sorted(self.corpus.held_out),
                "unreadable": dict(self.reader.unreadable),
                "best": self.best.state(),
                "statistics_frozen": self._statistics_frozen,
            },
        )
        best = None if self.best.step is None else f"step-{self.best.step:08d}"
        if accelerator.is_main_process:
            store.write_checkpoint(
                self.output, state=state, networks=networks, average=average, tensors=tensors, best=best
            )
        accelerator.wait_for_everyone()
        return self.output / f"step-{self.step:08d}"


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


def _inner(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's."""
    inner = getattr(optimiser, "optimizer", optimiser)
    return cast("torch.optim.Optimizer", inner)


@contextlib.contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Keep gradients away from networks that another update trains."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a question asked between steps, so that a checkpoint never holds half a step."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def remember(_signal: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
