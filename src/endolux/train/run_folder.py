"""What lies in a run folder besides checkpoints: the recipe, the versions, and the rule that two runs never mix."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from endolux import __version__
from endolux.errors import CheckError, UsageError, from_os_error
from endolux.train.checkpoints import clear_parts, replace_text
from endolux.train.recipe import load_recipe
from endolux.train.recipe_text import flatten

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe
    from endolux.train.task import Batch

RECIPE = "recipe.yaml"
FREE = ("summary", "device", "threads", "workers", "checkpoint_every", "log_every", "teacher.cache", "teacher.fill")
"""What may change when a run goes on: it changes how, and not what is trained."""
_PACKAGES = (
    "torch",
    "accelerate",
    "numpy",
    "opencv-python-headless",
    "safetensors",
    "tensorboard",
    "transformers",
    "peft",
)
_SHOWN = 5


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse a folder that holds something, unless its run shall go on.

    Raises:
        UsageError: ``output.exists``.
    """
    foreign = output.exists() and (not output.is_dir() or (not resume and any(output.iterdir())))
    if foreign:
        raise UsageError(
            f"'{output}' already exists",
            why="It holds another run or other files, which are never overwritten.",
            fix="Choose another output folder, or go on with that run (--resume).",
            error_id="output.exists",
        )


def recorded_recipe(output: Path) -> Recipe | None:
    """The resolved recipe of the run in a folder; None where there is none yet.

    Raises:
        UsageError: it is damaged.
    """
    path = output / RECIPE
    return load_recipe(path) if path.is_file() else None


def training_size(run: Path) -> tuple[int, int] | None:
    """(width, height) of the pictures that a run, or the run of a checkpoint, trains on; None where it is not known.

    Raises:
        UsageError: the recipe is damaged.
    """
    recipe = recorded_recipe(run) or recorded_recipe(run.resolve().parent)
    return None if recipe is None else recipe.data.size


def check_same_run(before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse to go on with another recipe.

    Args:
        before: the run's recipe as :meth:`Recipe.document` gives it.
        now: the one to go on with.

    Raises:
        UsageError: ``train.recipe-changed`` with every difference.
    """
    old, new = flatten(before), flatten(now)
    free = {name for name in (*old, *new) if any(name == key or name.startswith(f"{key}.") for key in FREE)}
    differing = [
        f"{name} was {_told(old, name)} and is {_told(new, name)}"
        for name in dict.fromkeys((*old, *new))
        if name not in free and old.get(name) != new.get(name)
    ]
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise UsageError(
            f"The run cannot go on with another recipe: {'; '.join(differing[:_SHOWN])}{more}",
            why=f"The result would belong to neither. Only these may change: {', '.join(FREE)}.",
            fix="Leave the changes out, or start a new run from its weights (model.initial=RUN).",
            error_id="train.recipe-changed",
        )


def _told(values: Mapping[str, object], name: str) -> str:
    return repr(values[name]) if name in values else "not set"


def write_record(output: Path, recipe: Recipe, facts: Mapping[str, object]) -> None:
    """``recipe.yaml``, and ``run.json`` with one entry for every start of the run.

    Raises:
        EndoluxError: the folder cannot be written.
    """
    session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "endolux": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": _versions(),
        **facts,
    }
    path = output / "run.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        clear_parts(output)
        sessions = _sessions(path)
        if not (output / RECIPE).exists():
            replace_text(output / RECIPE, recipe.text())
        replace_text(path, json.dumps({"recipe": recipe.name, "sessions": [*sessions, session]}, indent=1) + "\n")
    except OSError as error:
        raise from_os_error(error, output) from error


def _sessions(path: Path) -> list[object]:
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sessions if isinstance(sessions, list) else []


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def not_finite(
    output: Path, batches: tuple[Batch, ...], values: Mapping[str, float], *, step: int, rank: int
) -> CheckError:
    """Save the batch that a loss failed on, and the error that names it."""
    told = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    path = output / f"not-finite-step-{step:08d}{f'-rank-{rank}' if rank else ''}.npz"
    keys = [key for batch in batches for key in batch.keys]
    arrays: dict[str, np.ndarray] = {"keys": np.array(keys)}
    for number, batch in enumerate(batches):
        tail = f".{number}" if len(batches) > 1 else ""
        arrays |= {f"images{tail}": batch.images, f"depths{tail}": batch.depths}
        arrays |= {f"extra.{name}{tail}": np.asarray(array) for name, array in batch.extras.items()}
    try:
        np.savez(path, allow_pickle=False, **arrays)
        saved = f"The batch is in '{path}'"
    except OSError as error:
        saved = f"The batch could not be saved ({error.strerror})"
    listed = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
    return CheckError(
        f"The loss is not finite at step {step}: {told}",
        why=f"The training diverged, or the data hold values that are not finite. {saved}: {listed}.",
        fix="Look at these samples; then go on from the last checkpoint with a smaller optimiser.lr "
        "(a new run with model.initial=RUN).",
        error_id="train.not-finite",
    )
