"""Checkpoints that others published: read without running code, and unwrapped."""

from __future__ import annotations

import _codecs
import dataclasses
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from endolux.errors import ModelError, from_os_error

StateDict = dict[str, Tensor]
LARGEST_BYTES = 1 << 31
FACTS = ("height", "width", "use_stereo")
"""What Monodepth2 and its descendants store beside the weights of a depth encoder."""

_WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net")
_PREFIXES = ("module.", "model.", "network.", "net.", "_orig_mod.")
# What the counter of operations thop leaves among the weights.
_COUNTS = ("total_ops", "total_params")
_PAIR = ("encoder.pth", "depth.pth")
_SCALAR = cast(Callable[..., object], np.float64(0).__reduce__()[0])
# Training loops store averages as NumPy scalars beside the weights; these names rebuild numbers and run nothing else.
_NUMBERS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
    _codecs.encode,
]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a published file holds.

    Attributes:
        state: weights by name.
        facts: numbers that stood among them, one of :data:`FACTS` each.
    """

    state: StateDict
    facts: Mapping[str, int]


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a checkpoint and the facts beside them; see :func:`read_state_dict`."""
    if path.is_dir():
        return _read_pair(path)
    content = _load(path)
    state = _find(content)
    if state is None:
        raise _unusable(path, _told(content))
    prefix = _shared_prefix(state)
    while prefix:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        prefix = _shared_prefix(state)
    facts = {key: int(cast(int, content[key])) for key in FACTS if isinstance(content, Mapping) and key in content}
    return Checkpoint(state, facts)


def read_state_dict(path: Path) -> StateDict:
    """The weights in a checkpoint: a bare state dict, or one under ``model``, ``state_dict`` and the like.

    Prefixes that every name shares (``module.``, ``model.``, ...) are removed. ``.safetensors`` files are read too.
    Sizes and operation counts that Monodepth2 and its descendants (Lite-Mono, AF-SfMLearner, ...) store beside the
    weights are left out. Of a folder, ``encoder.pth`` and ``depth.pth`` are read together, the former's names behind
    ``encoder.``.

    Raises:
        ModelError: ``model.missing``; ``model.checkpoint`` for what is empty, damaged, too large, no checkpoint, or a
            pickle of more than tensors and numbers, which is refused and not run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "weights.pth"
        ...     torch.save({"epoch": 3, "model": {"module.a.bias": torch.ones(2)}}, path)
        ...     read_state_dict(path)
        {'a.bias': tensor([1., 1.])}
    """
    return read_checkpoint(path).state


def _load(path: Path) -> object:
    try:
        size = path.stat().st_size if path.is_file() else -1
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:
        raise ModelError(
            f"No checkpoint '{path}'",
            why="There is no such file.",
            fix="Check the path.",
            error_id="model.missing",
        ) from error
    except OSError as error:
        raise from_os_error(error, path) from error
    if size == 0:
        raise _unusable(path, "It is empty.")
    if size > LARGEST_BYTES:
        raise _unusable(path, f"It has {size / 1e9:.1f} GB; checkpoints of these networks are far below 2 GB.")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        if head[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                inside = sum(entry.file_size for entry in archive.infolist())
            if inside > LARGEST_BYTES:
                raise _unusable(path, f"Unpacked, it would have {inside / 1e9:.1f} GB.")
        elif head[:1] != b"\x80":
            raise _unusable(path, "It begins neither like a zip archive nor like a pickle.")
        with torch.serialization.safe_globals(_NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unusable(path, f"Refused without running it: {_summary(error)}") from error
    except OSError as error:
        raise from_os_error(error, path) from error
    except ModelError:
        raise
    except Exception as error:
        # A damaged pickle makes the reader fail in any way: KeyError, AttributeError, struct.error, ...
        raise _unusable(path, f"It is truncated or damaged: {type(error).__name__}: {_summary(error)}") from error


def _find(content: object, *, depth: int = 0) -> StateDict | None:
    if not isinstance(content, Mapping) or not content or depth > 2:
        return None
    found = {name: value for name, value in content.items() if not _is_note(name, value)}
    if found and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        return {name: value for name, value in found.items() if value.layout is torch.strided and not value.is_meta}
    below = (_find(content.get(key), depth=depth + 1) for key in _WRAPPERS)
    return next((state for state in below if state is not None), None)


def _shared_prefix(state: StateDict) -> str:
    # A decoder whose only child is called 'net' has this prefix by right: nothing but numbers would be left.
    return next(
        (
            prefix
            for prefix in _PREFIXES
            if all(name.startswith(prefix) and not name[len(prefix) : len(prefix) + 1].isdigit() for name in state)
        ),
        "",
    )


def _told(content: object) -> str:
    if isinstance(content, Mapping) and set(content) == {"state", "param_groups"}:
        return "It is the state of an optimiser, without the weights that it moved."
    kinds = sorted({type(value).__name__ for value in content.values()}) if isinstance(content, Mapping) else []
    held = f"a {type(content).__name__}" + (f" of {', '.join(kinds)}" if kinds else "")
    return f"It holds {held}; weights are tensors by name, bare or under '{_WRAPPERS[0]}'."


def _is_note(name: object, value: object) -> bool:
    if not isinstance(name, str):
        return False
    return (name in FACTS and isinstance(value, (bool, int, float))) or name.rpartition(".")[2] in _COUNTS


def _read_pair(folder: Path) -> Checkpoint:
    missing = [name for name in _PAIR if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"The folder '{folder}' holds no {' and no '.join(missing)}",
            why=f"A network published as a folder has its weights in {' and '.join(_PAIR)}.",
            fix="Give the folder that holds both, or the checkpoint file itself.",
            error_id="model.missing",
        )
    encoder, depth = (read_checkpoint(folder / name) for name in _PAIR)
    renamed = {f"encoder.{name}": tensor for name, tensor in encoder.state.items()}
    return Checkpoint({**renamed, **depth.state}, {**depth.facts, **encoder.facts})


def _unusable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"'{path}' is no usable checkpoint",
        why=why,
        fix="Download it again, or save its state dict alone with torch.save(network.state_dict(), FILE).",
        error_id="model.checkpoint",
    )


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), lines[0] if lines else "")
    return telling[:200] or "no further detail"
