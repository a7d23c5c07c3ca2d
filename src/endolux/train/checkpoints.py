"""Checkpoints of a training run: written whole or not at all, read without pickles."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from endolux.errors import ModelError, from_os_error
from endolux.models import DepthNetwork, create

_NAME = re.compile(r"step-(\d{8})")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What ``state.json`` of a checkpoint says.

    Attributes:
        step: optimiser steps done.
        architecture, config: arguments of :func:`endolux.models.create`.
        run: settings of the run, for the reader and to refuse a resume that would mix two runs.
        position: fields of :class:`endolux.train.data.Position`.
    """

    step: int
    architecture: str
    config: Mapping[str, object]
    run: Mapping[str, object]
    position: Mapping[str, object]


def write_checkpoint(
    run: Path,
    *,
    state: State,
    model: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimiser: Mapping[str, object],
    keep: int = 2,
) -> Path:
    """Write ``run/step-NNNNNNNN`` and drop all but the newest ``keep`` checkpoints.

    Raises:
        EndoluxError: the disk is full or not writable; earlier checkpoints are then untouched.
    """
    folder = run / f"step-{state.step:08d}"
    part = run / f".{folder.name}.part"
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        safetensors.torch.save_file(_dense(model), part / "model.safetensors")
        safetensors.torch.save_file(_dense(average), part / "average.safetensors")
        torch.save(dict(optimiser), part / "optimiser.pt")
        (part / "state.json").write_text(json.dumps(dataclasses.asdict(state), indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
        for old in checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    except OSError as error:
        raise from_os_error(error, folder) from error
    return folder


def checkpoints(run: Path) -> tuple[Path, ...]:
    """Complete checkpoints of a run, oldest first; none if there is no such folder."""
    if not run.is_dir():
        return ()
    return tuple(sorted(path for path in run.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()))


def newest(run: Path) -> Path:
    """The newest checkpoint of a run, or ``run`` itself if that is a checkpoint.

    Raises:
        ModelError: there is none.
    """
    if (run / "state.json").is_file():
        return run
    found = checkpoints(run)
    if not found:
        raise ModelError(
            f"No checkpoint in '{run}'",
            why="A run folder holds folders named step-00001000 and so on.",
            fix="Name the folder given to 'endolux train -o', or wait for its first checkpoint.",
            error_id="model.missing",
        )
    return found[-1]


def read_state(folder: Path) -> State:
    """``state.json`` of one checkpoint.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        return State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, error) from error


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of ``model`` or ``average`` of one checkpoint.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        return dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(folder, error) from error


def read_optimiser(folder: Path) -> dict[str, object]:
    """State of the optimiser of one checkpoint, read without unpickling code.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        state = torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise _damaged(folder, error) from error
    return dict(state)


def load_network(run: Path, *, average: bool = True) -> tuple[DepthNetwork, State]:
    """The network of the newest checkpoint of a run (or of one checkpoint), in evaluation mode.

    Args:
        run: run or checkpoint folder.
        average: take the averaged weights, which are the better ones, instead of the last ones.

    Raises:
        ModelError: none there, damaged, or not the weights of the architecture it names.
    """
    folder = newest(run)
    state = read_state(folder)
    network = create(state.architecture, **state.config)
    try:
        network.load_state_dict(read_weights(folder, "average" if average else "model"))
    except RuntimeError as error:
        raise _damaged(folder, error) from error
    return network.eval(), state


def _dense(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses channels_last strides; the layout is restored when the weights are copied into a network.
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _damaged(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The checkpoint '{folder}' cannot be read",
        why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        fix="Use an earlier checkpoint of the run, or train again.",
        error_id="model.checkpoint",
    )
