"""The training loop: AdamW on a one-cycle schedule, bf16 autocast, averaged weights, exactly resumable checkpoints."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import cv2
import torch
from torch import nn

from endolux.errors import CheckError, InputError, UsageError, from_os_error
from endolux.losses import LossWeights, depth_loss
from endolux.models import DepthNetwork, create
from endolux.train.augment import Augmentation
from endolux.train.checkpoints import (
    State,
    checkpoints,
    newest,
    read_optimiser,
    read_state,
    read_weights,
    write_checkpoint,
)
from endolux.train.data import Batch, Position, Stream

OnCheckpoint = Callable[[DepthNetwork, int], Mapping[str, float]]
"""Called with the averaged network (evaluation mode) and the step; what it returns goes to the log."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Everything a run is determined by, besides network and data.

    Attributes:
        steps: optimiser steps of the whole run.
        batch: samples a step.
        lr: peak learning rate of AdamW.
        warm_up: fraction of the steps over which the rate rises; then it falls as a cosine to 1 % of the peak.
        weight_decay: on kernels; never on biases and BatchNorm.
        clip: largest norm of the gradient.
        average_decay: of the exponential average of the weights; smaller at the beginning.
        seed: of initial weights, order and augmentation.
        size: (width, height) of the training pictures, multiples of 32; the stored size by default.
        device: torch device, such as cpu or cuda.
        bf16: autocast to bfloat16.
        threads: of torch and of OpenCV; their own choice by default.
        workers: threads that prepare batches ahead; 0 prepares them between the steps.
        checkpoint_every, log_every: steps.
    """

    steps: int = 10_000
    batch: int = 16
    lr: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.02
    clip: float = 1.0
    average_decay: float = 0.999
    seed: int = 0
    size: tuple[int, int] | None = None
    device: str = "cpu"
    bf16: bool = True
    threads: int | None = None
    workers: int = 0
    checkpoint_every: int = 500
    log_every: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise _bad(name, getattr(self, name), "at least 1")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise _bad("lr", self.lr, "positive")
        if not 0 < self.average_decay < 1:
            raise _bad("average_decay", self.average_decay, "between 0 and 1")
        if self.threads is not None and self.threads < 1:
            raise _bad("threads", self.threads, "at least 1")
        if self.size is not None and (min(self.size) < 32 or any(side % 32 for side in self.size)):
            raise _bad("size", self.size, "a width and a height that are multiples of 32")


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Rate of optimiser step ``step`` (from 0): linear warm-up, then half a cosine down to 1 % of the peak.

    Example:
        >>> settings = TrainSettings(steps=100, lr=1.0, warm_up=0.1)
        >>> [round(learning_rate(step, settings), 2) for step in (0, 9, 99)]
        [0.1, 1.0, 0.01]
    """
    rising = max(1, round(settings.warm_up * settings.steps))
    if step < rising:
        return settings.lr * (step + 1) / rising
    progress = (step - rising) / max(1, settings.steps - rising)
    return settings.lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))


def train(
    architecture: str,
    *,
    data: Sequence[Path],
    output: Path,
    settings: TrainSettings | None = None,
    config: Mapping[str, object] | None = None,
    losses: LossWeights | None = None,
    augmentation: Augmentation | None = None,
    initial: Path | None = None,
    resume: bool = False,
    on_checkpoint: OnCheckpoint | None = None,
    on_log: Callable[[Mapping[str, object]], None] | None = None,
) -> Path:
    """Train a network on shards of images with depth.

    The run folder gets ``log.jsonl`` and checkpoints ``step-NNNNNNNN``. A run that is stopped by Ctrl-C writes a
    checkpoint first. On one machine and one thread, an interrupted and resumed run gives the weights of an
    uninterrupted one.

    Args:
        architecture: name for :func:`endolux.models.create`.
        data: folders with shards, see :class:`endolux.train.data.Shard`.
        output: run folder; must be absent or empty unless ``resume``.
        settings: see :class:`TrainSettings`.
        config: arguments of the architecture.
        losses: weights of the losses.
        augmentation: settings; the full augmentation by default.
        initial: run or checkpoint whose averaged weights to start from.
        resume: go on from the newest checkpoint in ``output``.
        on_checkpoint: measures the averaged network at every checkpoint, for instance on held-out pictures.
        on_log: receives every line of the log, for progress displays.

    Returns:
        The last checkpoint.

    Raises:
        UsageError: the output exists and ``resume`` is not set, or the settings differ from those of the run.
        InputError: no usable data.
        CheckError: the loss is no longer finite; the last checkpoint is kept.
    """
    settings = settings or TrainSettings()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
        cv2.setNumThreads(settings.threads)
    found = checkpoints(output)
    if (found and not resume) or (output.exists() and not output.is_dir()):
        raise UsageError(
            f"'{output}' already exists",
            why="It holds another run, which is never overwritten.",
            fix="Choose another output folder, or go on with that run (--resume).",
            error_id="output.exists",
        )
    fingerprint = _fingerprint(settings)
    state = read_state(found[-1]) if found else None
    if state is not None:
        _check_same_run(state, architecture, fingerprint)
        config = state.config
    position = Position(**cast("dict[str, object]", state.position)) if state is not None else Position()  # type: ignore[arg-type]
    stream = Stream(
        data,
        batch=settings.batch,
        seed=settings.seed,
        augmentation=augmentation or Augmentation(),
        size=settings.size,
        workers=settings.workers,
        position=position,
    )
    torch.manual_seed(settings.seed)
    network = create(architecture, **(config or {}))
    if initial is not None and state is None:
        network.load_state_dict(read_weights(newest(initial), "average"))
    network = network.to(device=settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = _optimiser(network, settings)
    step = 0
    if state is not None:
        network.load_state_dict(read_weights(found[-1], "model"))
        average.load_state_dict(read_weights(found[-1], "average"))
        optimiser.load_state_dict(read_optimiser(found[-1]))
        step = state.step
    network.train()
    log = _Log(output, on_log)
    last = found[-1] if found else output
    started, seen = time.perf_counter(), 0

    def checkpoint(position: Position) -> Path:
        return write_checkpoint(
            output,
            state=State(
                step=step,
                architecture=architecture,
                config=network.config(),
                run=fingerprint,
                position=dataclasses.asdict(position),
            ),
            model=network.state_dict(),
            average=average.state_dict(),
            optimiser=optimiser.state_dict(),
        )

    with _interruption() as interrupted:
        for batch, position in stream.batches(first_step=step):
            if step >= settings.steps:
                break
            rate = learning_rate(step, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            parts = _step(network, optimiser, batch, settings, losses)
            _check_finite(parts, step, last)
            step += 1
            seen += len(batch.images)
            _update_average(average, network, min(settings.average_decay, (1 + step) / (10 + step)))
            if step % settings.log_every == 0 or step == settings.steps:
                elapsed = time.perf_counter() - started
                log.write({"step": step, "epoch": position.epoch, "lr": rate, **parts, "images_per_s": seen / elapsed})
                started, seen = time.perf_counter(), 0
            if step % settings.checkpoint_every == 0 or step == settings.steps or interrupted():
                last = checkpoint(position)
                if on_checkpoint is not None and not interrupted():
                    log.write({"step": step, **on_checkpoint(average, step)})
                started, seen = time.perf_counter(), 0
            if interrupted():
                raise KeyboardInterrupt
    return last


def _step(
    network: DepthNetwork,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainSettings,
    losses: LossWeights | None,
) -> dict[str, float]:
    device = torch.device(settings.device)
    # N x H x W x 3 bytes are channels_last already: the permuted view needs no copy.
    image = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2).float() * (1.0 / 255.0)
    depth = torch.from_numpy(batch.depths).to(device)[:, None]
    height, width = depth.shape[-2:]
    if height % network.multiple or width % network.multiple:
        raise InputError(
            f"The training pictures are {width}x{height}",
            why=f"{network.architecture} needs sides that are multiples of {network.multiple}.",
            fix="Give a size that is, such as --size 320x256.",
            error_id="train.size",
        )
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        log_depth = network.log_depth(image)
    parts = depth_loss(log_depth, depth, weights=losses)
    optimiser.zero_grad(set_to_none=True)
    parts["total"].backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    values = {name: float(part.detach()) for name, part in parts.items()} | {"gradient_norm": float(norm)}
    if all(math.isfinite(value) for value in values.values()):
        optimiser.step()
    return values


def _optimiser(network: DepthNetwork, settings: TrainSettings) -> torch.optim.AdamW:
    kernels = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [{"params": kernels, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


@torch.no_grad()
def _update_average(average: DepthNetwork, network: DepthNetwork, decay: float) -> None:
    # BatchNorm statistics are averaged with the weights they belong to.
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1.0 - decay)
        else:
            old.copy_(new)


def _check_finite(parts: Mapping[str, float], step: int, last: Path) -> None:
    if all(math.isfinite(value) for value in parts.values()):
        return
    raise CheckError(
        f"The loss is not finite at step {step}: {', '.join(f'{name} {value:.3g}' for name, value in parts.items())}",
        why="The training diverged, or the data hold values that are not finite.",
        fix=f"Go on from '{last}' with a smaller --lr.",
        error_id="train.not-finite",
    )


def _fingerprint(settings: TrainSettings) -> dict[str, object]:
    """What must not change within a run; threads, devices and intervals may."""
    free = {"threads", "workers", "device", "checkpoint_every", "log_every"}
    fields = json.loads(json.dumps(dataclasses.asdict(settings)))
    return {name: value for name, value in fields.items() if name not in free}


def _check_same_run(state: State, architecture: str, fingerprint: Mapping[str, object]) -> None:
    differing = [
        f"{name} was {state.run.get(name)!r} and is {value!r}"
        for name, value in fingerprint.items()
        if state.run.get(name) != value
    ]
    if state.architecture != architecture:
        differing.insert(0, f"architecture was {state.architecture!r} and is {architecture!r}")
    if differing:
        raise UsageError(
            f"The run cannot go on with other settings: {'; '.join(differing)}",
            why="The schedule and the order of samples follow from them.",
            fix="Repeat the settings of the run, or start a new one with --initial.",
            error_id="train.settings-changed",
        )


def _bad(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"{name} is {value}",
        why=f"It must be {wanted}.",
        fix=f"Set {name} to such a value.",
        error_id="train.settings",
    )


class _Log:
    """``log.jsonl``: one object a line, appended, so that a resumed run continues the file."""

    def __init__(self, folder: Path, listener: Callable[[Mapping[str, object]], None] | None) -> None:
        self._path, self._listener = folder / "log.jsonl", listener
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_os_error(error, folder) from error

    def write(self, line: Mapping[str, object]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise from_os_error(error, self._path) from error
        if self._listener is not None:
            self._listener(line)


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
