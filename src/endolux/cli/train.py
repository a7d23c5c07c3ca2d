"""``endolux train``: a network from shards of images with depth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import UsageError, missing_extra

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
Resume = Annotated[bool, Parameter(name="--resume", negative=())]


def register(app: App) -> None:
    """Add the verb."""
    app.command(train, name="train")


def train(
    architecture: str,
    /,
    *,
    data: Annotated[list[Path], Parameter(name="--data", consume_multiple=True)],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    steps: int = 10_000,
    batch: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
    size: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    checkpoint_every: int = 500,
    initial: Path | None = None,
    resume: Resume = False,
    as_json: JsonFlag = False,
) -> int:
    """Train a network on folders of shards, such as 'endolux phantom' writes.

    Args:
        architecture: name of the network, such as repdepth.
        data: folders with shards; they may grow while the run goes on.
        output: folder of the run: checkpoints and log.jsonl.
        steps: optimiser steps.
        batch: samples a step.
        lr: peak learning rate.
        seed: of initial weights, order and augmentation.
        size: WIDTHxHEIGHT of the training pictures, multiples of 32; the stored size by default.
        device: torch device.
        threads: threads of torch.
        workers: threads that prepare batches ahead.
        checkpoint_every: steps between checkpoints.
        initial: run or checkpoint to take the first weights from.
        resume: go on with the run in the output folder.
        as_json: print JSON.
    """
    pixels = None if size is None else parse_size(size)
    try:
        from endolux.train.loop import TrainSettings
        from endolux.train.loop import train as run
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    settings = TrainSettings(
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        size=pixels,
        device=device,
        threads=threads,
        workers=workers,
        checkpoint_every=checkpoint_every,
    )
    last = run(
        architecture,
        data=data,
        output=output,
        settings=settings,
        initial=initial,
        resume=resume,
        on_log=lambda line: _show(line, steps),
    )
    if as_json:
        render.answer_json({"ok": True, "checkpoint": str(last), "steps": steps})
    else:
        render.answer(str(last))
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` as two numbers.

    Raises:
        UsageError: anything else.

    Example:
        >>> parse_size("320x256")
        (320, 256)
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise UsageError(
            f"'{text}' is not a size",
            why="A size is WIDTHxHEIGHT in pixels.",
            fix="Write it like 320x256.",
            error_id="usage.size",
        )
    return int(width), int(height)


def _show(line: Mapping[str, object], steps: int) -> None:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if isinstance(value, float))
    render.note(f"step {line['step']}/{steps}  {numbers}")
