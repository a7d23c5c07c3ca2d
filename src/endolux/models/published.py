"""Checkpoints that others published: read without running code, unwrapped, and loaded strictly."""

from __future__ import annotations

import _codecs
import dataclasses
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from endolux.errors import ModelError, UsageError, from_os_error
from endolux.models.base import DepthNetwork
from endolux.models.ddrnet import DDRNet
from endolux.models.mobilenetv3 import MobileNetV3

StateDict = dict[str, Tensor]
LARGEST_BYTES = 1 << 31
DDRNET_USED, DDRNET_IGNORED, DDRNET_RANDOM = 254, 20, 79
"""Entries of ``DDRNet23s_imagenet.pth`` that the encoder takes and leaves, and entries of the encoder left random."""

_WRAPPERS = ("model", "state_dict", "model_state_dict", "network", "net")
_PREFIXES = ("module.", "model.", "network.", "net.", "_orig_mod.")
_CLASSIFIER = ("down5.", "last_layer.", "linear.")
_NOT_PRETRAINED = ("spp.", "final_layer.")
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


@dataclasses.dataclass(frozen=True, slots=True)
class Initialisation:
    """How many entries an ImageNet file gave.

    Attributes:
        used: entries that were copied into the encoder.
        ignored: entries of the file that the encoder has no place for.
        random: entries of the encoder that keep their random values.
    """

    used: int
    ignored: int
    random: int


@runtime_checkable
class HasEncoder(Protocol):
    """A network whose encoder can start from ImageNet weights."""

    def imagenet_encoder(self) -> nn.Module:
        """The part with the names of the ImageNet file."""
        ...


def read_state_dict(path: Path) -> StateDict:
    """The weights in a checkpoint: a bare state dict, or one under ``model``, ``state_dict`` and the like.

    Prefixes that every name shares (``module.``, ``model.``, ...) are removed. ``.safetensors`` files are read too.

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
    content = _load(path)
    state = _find(content)
    if state is None:
        kinds = sorted({type(value).__name__ for value in content.values()}) if isinstance(content, Mapping) else []
        held = f"a {type(content).__name__}" + (f" of {', '.join(kinds)}" if kinds else "")
        raise _unusable(path, f"It holds {held}; weights are tensors by name, bare or under '{_WRAPPERS[0]}'.")
    prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), "")
    while prefix:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), "")
    return state


def identify(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the published architectures that weights fit, from their names and shapes; empty if none.

    ``leve`` and ``leve-no-skips`` have the same weights and cannot be told apart.

    Example:
        >>> from endolux.models import create
        >>> identify(create("leve-3x3").state_dict()), identify(create("leve").state_dict())
        (('leve-3x3',), ('leve', 'leve-no-skips'))
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if "up_1.reduce.weight" in shapes:
        return ("guidedepth-s",) if shapes["up_1.reduce.weight"][:2] == (8, 32) else ("guidedepth",)
    block = "decoder.upsampling_block"
    first, second = (shapes.get(f"{block}1.dual_conv.conv{index}.weight", ()) for index in (1, 2))
    if len(first) != 4:
        return ()
    if any(name.startswith("encoder.backbone.features.") for name in shapes):
        return ("leve-mobilenetv3",)
    if not second:
        return ("leve-3x3",)
    if first[2] == 5:
        return ("leve-5x5-5x5",)
    if first[1] == 1:
        return ("leve-3x3-dw",)
    if len(second) == 4 and second[2] == 1:
        return ("leve-3x3-1x1",)
    if shapes.get(f"{block}3.connection_conv.weight", ())[1:2] == (64,):
        return ("leve-alt-skips",)
    return ("leve", "leve-no-skips")


def load_published(network: DepthNetwork, state: Mapping[str, Tensor]) -> None:
    """Copy weights into ``network``, in place, only if every name and shape agrees and every number is finite.

    Raises:
        ModelError: ``model.variant`` where they belong to another architecture, which is named where it is known;
            ``model.weights`` for numbers that are not finite.

    Example:
        >>> from endolux.models import create
        >>> load_published(create("leve"), create("leve-no-skips").state_dict())
        >>> load_published(create("leve"), create("leve-3x3").state_dict())
        Traceback (most recent call last):
        ...
        endolux.errors.ModelError: error[model.variant]: These are not the weights of 'leve', but of 'leve-3x3'
        ...
    """
    own = network.state_dict()
    wrong = _differences(own, state)
    if wrong:
        fits = identify(state)
        other = bool(fits) and network.architecture not in fits
        raise ModelError(
            f"These are not the weights of '{network.architecture}'"
            + (f", but of {' or '.join(repr(name) for name in fits)}" if other else ""),
            why=wrong,
            fix=f"Use '{fits[0]}'{_ambiguity(fits)}." if other else _fix_for(state),
            error_id="model.variant",
        )
    _check_finite(state)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def load_imagenet_encoder(network: DepthNetwork, path: Path) -> Initialisation:
    """Start the encoder of a Leve or GuideDepth from an ImageNet checkpoint: exactly as expected, or not at all.

    For DDRNet-23-slim, 254 entries of the classification network are used, its 20 of the classifier are ignored, and
    the 79 of pyramid pooling and head stay random. For MobileNetV3-Small every entry must match.

    Raises:
        UsageError: ``model.imagenet`` where the architecture takes no such weights.
        ModelError: ``model.imagenet`` where the file is not that network; see also :func:`read_state_dict`.
    """
    encoder = network.imagenet_encoder() if isinstance(network, HasEncoder) else None
    if not isinstance(encoder, (DDRNet, MobileNetV3)) or network.config().get("fused"):
        raise UsageError(
            f"'{network.architecture}' cannot start from ImageNet weights",
            why="Only the training form of Leve and GuideDepth has an encoder with published ImageNet weights.",
            fix="Leave the ImageNet file out.",
            error_id="model.imagenet",
        )
    state = read_state_dict(path)
    own = encoder.state_dict()
    partial = isinstance(encoder, DDRNet)
    used = {
        name: tensor for name, tensor in state.items() if not (partial and name.startswith(_CLASSIFIER)) and name in own
    }
    wanted = {name: tensor for name, tensor in own.items() if not (partial and name.startswith(_NOT_PRETRAINED))}
    rest = {name: tensor for name, tensor in state.items() if not (partial and name.startswith(_CLASSIFIER))}
    counts = Initialisation(len(used), len(state) - len(used), len(own) - len(used))
    wrong = _differences(wanted, rest)
    expected = Initialisation(DDRNET_USED, DDRNET_IGNORED, DDRNET_RANDOM) if partial else Initialisation(len(own), 0, 0)
    if wrong or counts != expected:
        what = "DDRNet-23-slim" if partial else "MobileNetV3-Small"
        raise ModelError(
            f"'{path.name}' is not the ImageNet classification network {what}",
            why=f"{counts.used} of {expected.used} entries match, {counts.ignored} of {expected.ignored} are left over"
            + (f". {wrong}" if wrong else "."),
            fix=f"Use the file whose {len(state) if not wrong else expected.used + expected.ignored} entries are those "
            f"of {what}, or leave it out to start from random weights.",
            error_id="model.imagenet",
        )
    _check_finite(used)
    with torch.no_grad():
        for name, tensor in used.items():
            own[name].copy_(tensor)
    return counts


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
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return {name: value for name, value in content.items() if value.layout is torch.strided and not value.is_meta}
    found = (_find(content.get(key), depth=depth + 1) for key in _WRAPPERS)
    return next((state for state in found if state is not None), None)


def _differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = [
        f"{name} is {str(state[name].dtype).removeprefix('torch.')}"
        for name in own
        if name in state and state[name].is_floating_point() != own[name].is_floating_point()
    ]
    parts = [
        f"{len(names)} {what} ({_some(names)})"
        for names, what in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (shapes, "of other shape"),
            (kinds, "of other type"),
        )
        if names
    ]
    return f"Of {len(own)} entries: {'; '.join(parts)}." if parts else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _ambiguity(fits: tuple[str, ...]) -> str:
    return f" (or '{fits[1]}': their weights look the same, only who trained them knows)" if len(fits) > 1 else ""


def _fix_for(state: Mapping[str, Tensor]) -> str:
    if any(name.startswith(_CLASSIFIER) for name in state):
        return "This looks like an ImageNet classification network: use it to initialise an encoder instead."
    return "Use the checkpoint of this architecture, complete and unchanged."


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"The weight '{name}' is not finite",
                why="The training that wrote this checkpoint diverged, or the file is damaged.",
                fix="Use an earlier checkpoint.",
                error_id="model.weights",
            )


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
