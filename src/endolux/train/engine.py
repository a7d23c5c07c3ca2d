"""The training loop: any task, one process or many, resumable to the byte."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import cv2
import torch
from accelerate import Accelerator

from endolux.models import DepthNetwork
from endolux.models.landmark_network import ExportedNetwork, LandmarkNetwork
from endolux.train import checkpoints as store
from endolux.train.examiner import Examiner
from endolux.train.feed import Feed, open_data
from endolux.train.interruption import interruption
from endolux.train.learner import Learner
from endolux.train.log import Listener, Log
from endolux.train.origins import notes_of_start, origins
from endolux.train.parallel import open_accelerator
from endolux.train.recipe import Recipe
from endolux.train.run_folder import check_output, check_same_run, recorded_recipe, write_record
from endolux.train.schedule import rate_factor
from endolux.train.snippets import SnippetRule
from endolux.train.stream import Position
from endolux.train.task import Progress, Task
from endolux.train.tasks import build_task
from endolux.train.validation import check_protocols

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
        self._listener: Listener | None = None
        fields = dict(state.position) if state is not None else {}
        self.position = Position(**fields)  # type: ignore[arg-type]
        corpus, held_out = open_data(
            recipe.data, loop, snippets=None if recipe.video is None else SnippetRule.of(recipe.video)
        )
        torch.manual_seed(recipe.seed)
        self.task = task or build_task(recipe)
        self.feed = Feed(
            recipe, self.task, corpus, held_out, accelerator, loop=loop, position=self.position, tell=self._tell
        )
        self.steps = self.feed.steps
        exported = _exported(self.task)
        check_protocols(recipe.evaluation.protocols, exported)
        self._notes = notes_of_start(recipe, exported) if self.step == 0 else ()
        self.learner = Learner(self.task, exported, recipe, accelerator, output=output, checkpoint=checkpoint)
        self.learner.statistics_frozen = loop.get("statistics_frozen") is True
        best = cast("Mapping[str, object] | None", loop.get("best"))
        self.examiner = Examiner(recipe, self.task, self.feed, accelerator, best)
        self._stopped = False

    def _tell(self, line: Mapping[str, object]) -> None:
        if self._listener is not None:
            self._listener(line)

    def loop(self, on_log: Listener | None, on_checkpoint: OnCheckpoint | None) -> Path:
        """Every step that is left."""
        recipe, main = self.recipe, self.accelerator.is_main_process
        self._listener = on_log if main else None
        for note in self._notes:
            self._tell({"message": note})
        self.task.begin(self.feed.start(self.output, self.step))
        self.accelerator.wait_for_everyone()
        log = self._begin(on_log) if main else None
        started, seen = time.perf_counter(), 0
        with contextlib.ExitStack() as stack:
            if log is not None:
                stack.callback(log.close)
            asked = stack.enter_context(interruption())
            batches = self.feed.stream.batches(first_step=self.step)
            stack.callback(batches.close)  # type: ignore[attr-defined]
            while self.step < self.steps and not self._stopped:
                batch, position = next(batches)
                if position.taken == self.feed.stream.step_samples:
                    self.learner.statistics_frozen = False
                self.task.advance(Progress(step=self.step, steps=self.steps, steps_per_epoch=self.feed.steps_per_epoch))
                interrupted, rate, values = self.learner.take(
                    batch, self._factor(position), step=self.step, interrupted=asked()
                )
                self.step, self.position = self.step + 1, position
                seen += self.feed.stream.step_samples
                self.learner.count_in(self.step)
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
                better = self._evaluate(log) if self.examiner.due(self.step, position) else False
                due = self.step % recipe.checkpoint_every == 0 or ends or self._stopped
                if due or better or interrupted:
                    self._last = self._write()
                if due and on_checkpoint is not None and not interrupted:
                    measured = on_checkpoint(cast(DepthNetwork, self.learner.averaged()), self.step) if main else {}
                    if log is not None and measured:
                        log.write({"step": self.step, **measured})
                if due or better:
                    started, seen = time.perf_counter(), 0
                if interrupted:
                    raise KeyboardInterrupt(f"The training was stopped after step {self.step} of {self.steps}.")
        return self._last

    def _begin(self, listener: Listener | None) -> Log:
        facts = {
            "step": self.step,
            "steps": self.steps,
            "steps_per_epoch": self.feed.steps_per_epoch,
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "data_sha256": self.feed.corpus.sha256(),
            "held_out": sorted(self.feed.corpus.held_out),
            "origins": [dataclasses.asdict(origin) for origin in origins(self.recipe)],
            "task": dict(self.task.summary()),
            "notes": [*self.feed.corpus.notes, *self._notes],
        }
        write_record(self.output, self.recipe, facts)
        return Log(self.output, step=self.step, listener=listener)

    def _factor(self, position: Position) -> float:
        return rate_factor(
            self.recipe.schedule,
            step=self.step,
            steps=self.steps,
            epoch=position.epoch,
            epochs=self.recipe.epochs or math.ceil(self.steps / self.feed.steps_per_epoch),
        )

    def _evaluate(self, log: Log | None) -> bool:
        """Score the exported network. Returns whether it is the best so far."""
        self.learner.statistics_frozen = self.recipe.batchnorm == "reproduce"
        if not self.examiner.has_work:
            return False
        scores = self.examiner.examine(self.learner.averaged())
        if log is not None:
            log.write({"step": self.step, **scores})
        better = self.examiner.best.update(scores, self.step)
        self._stopped = self.examiner.best.exhausted
        return better

    def _write(self) -> Path:
        """A checkpoint of now. A collective call; the main process writes."""
        accelerator, learner, best = self.accelerator, self.learner, self.examiner.best
        networks = learner.weights()
        average = None if learner.average is None else learner.average.tensors()
        tensors = learner.state()
        state = store.State(
            step=self.step,
            architecture=learner.exported.architecture,
            config=learner.exported.config(),
            exported=self.task.exported,
            networks=tuple(self.task.networks),
            recipe=self.recipe.document(),
            position=dataclasses.asdict(self.position),
            loop={
                "finished": self.step == self.steps or self._stopped,
                "steps": self.steps,
                "steps_per_epoch": self.feed.steps_per_epoch,
                "step_samples": self.feed.stream.step_samples,
                "held_out": sorted(self.feed.corpus.held_out),
                "unreadable": dict(self.feed.reader.unreadable),
                "best": best.state(),
                "statistics_frozen": learner.statistics_frozen,
            },
        )
        if accelerator.is_main_process:
            store.write_checkpoint(
                self.output,
                state=state,
                networks=networks,
                average=average,
                tensors=tensors,
                best=None if best.step is None else f"step-{best.step:08d}",
            )
        accelerator.wait_for_everyone()
        return self.output / f"step-{self.step:08d}"


def _exported(task: Task) -> ExportedNetwork:
    network = task.networks[task.exported]
    if not isinstance(network, DepthNetwork | LandmarkNetwork):
        raise TypeError(f"the exported network is a {type(network).__name__}, and gives neither depth nor landmarks")
    return network
