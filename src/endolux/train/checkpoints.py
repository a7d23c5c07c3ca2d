"""Checkpoints of a training run: written whole or not at all, read without pickles."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from endolux.errors import ModelError, from_os_error
from endolux.models import DepthNetwork, create
from endolux.models.landmark_network import ExportedNetwork, LandmarkNetwork, create_landmarks
from endolux.models.parts import parts

_NAME = re.compile(r"step-(\d{8})")
_STATE = "state"
_AVERAGE = "average"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What ``state.json`` of a checkpoint says.

    Attributes:
        step: optimiser steps done.
        architecture, config: arguments of :func:`endolux.models.create` for the exported network.
        exported: name of that network, and of its file.
        networks: names of all trained networks.
        recipe: the resolved recipe, for the reader and to refuse a resume that would mix two runs.
        position: fields of :class:`endolux.train.data.Position`.
        loop: what the engine needs besides to go on exactly.
    """

    step: int
    architecture: str
    config: Mapping[str, object]
    exported: str
    networks: tuple[str, ...]
    recipe: Mapping[str, object]
    position: Mapping[str, object]
    loop: Mapping[str, object]


def write_checkpoint(
    run: Path,
    *,
    state: State,
    networks: Mapping[str, Mapping[str, Tensor]],
    average: Mapping[str, Tensor] | None,
    tensors: Mapping[str, Tensor],
    keep: int = 2,
    best: str | None = None,
) -> Path:
    """Write ``run/step-NNNNNNNN`` and drop all but the newest ``keep`` checkpoints and the best one.

    Args:
        run: folder of the run.
        state: for ``state.json``.
        networks: weights by network.
        average: averaged weights of the exported network, None where there are none.
        tensors: state of optimisers and random generators.
        keep: newest checkpoints that stay.
        best: name of a checkpoint that stays besides.

    Raises:
        EndoluxError: the disk is full or not writable; earlier checkpoints are then untouched.
    """
    folder = run / f"step-{state.step:08d}"
    part = run / f".{folder.name}.part"
    try:
        clear_parts(run)
        part.mkdir(parents=True)
        for name, weights in networks.items():
            _write(part / f"{name}.safetensors", _serialised(weights))
        if average is not None:
            _write(part / f"{_AVERAGE}.safetensors", _serialised(average))
        _write(part / f"{_STATE}.safetensors", _serialised(tensors))
        _write(part / "state.json", (json.dumps(dataclasses.asdict(state), indent=1) + "\n").encode())
        _sync(part)
        if folder.exists():
            # Another write of the same step: the old one goes only when the new one is complete.
            aside = run / f".{folder.name}.old.part"
            folder.rename(aside)
            part.rename(folder)
            shutil.rmtree(aside)
        else:
            part.rename(folder)
        _sync(run)
        if best is not None:
            replace_text(run / "best.json", json.dumps({"checkpoint": best}) + "\n")
        for old in checkpoints(run)[:-keep]:
            if old.name != best:
                shutil.rmtree(old)
    except OSError as error:
        # What was begun must not take the room that the next attempt needs.
        shutil.rmtree(part, ignore_errors=True)
        raise from_os_error(error, folder) from error
    return folder


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old or the new text, never half of one."""
    part = path.with_name(f".{path.name}.part")
    _write(part, text.encode())
    part.replace(path)


def clear_parts(run: Path) -> None:
    """Remove what an interrupted write left behind, and put back a checkpoint that it had moved aside."""
    for part in run.glob(".step-*.part"):
        name = part.name.removeprefix(".").removesuffix(".part")
        whole = run / name.removesuffix(".old")
        if name.endswith(".old") and not whole.exists():
            part.rename(whole)
        else:
            shutil.rmtree(part)


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


def best(run: Path) -> Path | None:
    """The best checkpoint of a run by its recipe's metric; None where nothing was validated."""
    try:
        name = str(json.loads((run / "best.json").read_text(encoding="utf-8"))["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run / name if _NAME.fullmatch(name) and (run / name).is_dir() else None


def read_state(folder: Path) -> State:
    """``state.json`` of one checkpoint.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        fields = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        return State(**{**fields, "networks": tuple(fields["networks"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(folder, error) from error


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint: a network's name, ``average`` or ``state``.

    Raises:
        ModelError: missing or damaged.
    """
    try:
        return dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
    except (OSError, safetensors.SafetensorError) as error:
        raise damaged(folder, error) from error


def read_average(folder: Path) -> dict[str, Tensor] | None:
    """The averaged weights of a checkpoint; None where the run keeps none."""
    return read_weights(folder, _AVERAGE) if (folder / f"{_AVERAGE}.safetensors").exists() else None


def load_network(run: Path, *, average: bool = True, which: str = "last") -> tuple[DepthNetwork, State]:
    """The exported network of a checkpoint of a run, in evaluation mode.

    Args:
        run: run or checkpoint folder.
        average: take the averaged weights, which are the better ones, instead of the last ones, where there are any.
        which: ``last`` or ``best``; for runs without validation the last one is all there is.

    Raises:
        ModelError: none there, damaged, or not the weights of the architecture it names.
    """
    network, state = load_exported(run, average=average, which=which)
    if isinstance(network, LandmarkNetwork):
        raise ModelError(
            f"The run '{run}' is of '{state.architecture}', which gives landmarks",
            why="A network of depth is wanted here.",
            fix="Give a run that was trained for depth.",
            error_id="model.kind",
        )
    return network, state


def load_exported(run: Path, *, average: bool = True, which: str = "last") -> tuple[ExportedNetwork, State]:
    """:func:`load_network` for a network of depth or of landmarks."""
    folder = (best(run) if which == "best" else None) or newest(run)
    state = read_state(folder)
    network: ExportedNetwork
    if state.architecture in parts():
        network = create_landmarks(state.architecture, **state.config)
    else:
        network = create(state.architecture, **state.config)
    weights = (read_average(folder) if average else None) or read_weights(folder, state.exported)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged(folder, error) from error
    return network.eval(), state


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    # safetensors refuses channels_last strides; the layout is restored when the weights are copied into a network.
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Tensors that share memory (tied weights) are refused as well.
    seen: set[int] = set()
    for name, tensor in dense.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            dense[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    return bytes(safetensors.torch.save(dense))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def damaged(folder: Path, error: Exception) -> ModelError:
    """What a checkpoint whose content does not fit its description is told."""
    return ModelError(
        f"The checkpoint '{folder}' cannot be read",
        why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
        fix="Use an earlier checkpoint of the run, or train again.",
        error_id="model.checkpoint",
    )
