"""Weights that others published, loaded strictly: everything fits, or nothing is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from endolux.errors import ModelError, UsageError
from endolux.models.base import DepthNetwork
from endolux.models.checkpoint_files import read_state_dict
from endolux.models.ddrnet import DDRNet
from endolux.models.identify import identify
from endolux.models.mobilenetv3 import MobileNetV3
from endolux.models.parts import Part
from endolux.models.resnet import ResNet18

__all__ = [
    "DDRNET_IGNORED",
    "DDRNET_RANDOM",
    "DDRNET_USED",
    "RESNET18_USED",
    "HasEncoder",
    "HasPublishedNames",
    "Initialisation",
    "LoadsPublished",
    "identify",
    "load_imagenet_encoder",
    "load_published",
    "read_state_dict",
]

DDRNET_USED, DDRNET_IGNORED, DDRNET_RANDOM = 254, 20, 79
"""Entries of ``DDRNet23s_imagenet.pth`` that the encoder takes and leaves, and entries of the encoder left random."""
RESNET18_USED = 102
"""Entries of ImageNet files of ResNet-18, without the counters of its BatchNorms that some of them hold besides."""

_CLASSIFIER = ("down5.", "last_layer.", "linear.")
_NOT_PRETRAINED = ("spp.", "final_layer.")
_COUNTER = "num_batches_tracked"


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


@runtime_checkable
class HasPublishedNames(Protocol):
    """A network whose weights were published under other names than its own."""

    def from_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Published entries under the network's own names; names that it does not know stay as they are."""
        ...


@runtime_checkable
class LoadsPublished(Protocol):
    """A network whose published weights come in several forms, which it tells apart itself, as strictly."""

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Copy them, or raise what :func:`load_published` raises."""
        ...


def load_published(network: DepthNetwork | Part, state: Mapping[str, Tensor]) -> None:
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
    if isinstance(network, LoadsPublished):
        network.load_published(state)
        return
    own = network.state_dict()
    published, state = state, network.from_published(state) if isinstance(network, HasPublishedNames) else state
    wrong = _differences(own, state)
    if wrong:
        fits = identify(published)
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


def load_imagenet_encoder(network: DepthNetwork | Part, path: Path) -> Initialisation:
    """Start an encoder from an ImageNet checkpoint: exactly as expected, or not at all.

    For DDRNet-23-slim, 254 entries of the classification network are used, its 20 of the classifier are ignored, and
    the 79 of pyramid pooling and head stay random. For MobileNetV3-Small every entry must match, and for ResNet-18 the
    102 that are no counters; an encoder of two images gets the first convolution twice, halved.

    Raises:
        UsageError: ``model.imagenet`` where the architecture takes no such weights.
        ModelError: ``model.imagenet`` where the file is not that network; see also :func:`read_state_dict`.
    """
    encoder = network.imagenet_encoder() if isinstance(network, HasEncoder) else None
    fused = isinstance(network, DepthNetwork) and bool(network.config().get("fused"))
    if not isinstance(encoder, (DDRNet, MobileNetV3, ResNet18)) or fused:
        raise UsageError(
            f"'{network.architecture}' cannot start from ImageNet weights",
            why="Only the training form of Leve, GuideDepth and AF-SfMLearner and the encoders of two images have a "
            "part with published ImageNet weights.",
            fix="Leave the ImageNet file out.",
            error_id="model.imagenet",
        )
    state = read_state_dict(path)
    if isinstance(encoder, ResNet18):
        return _start_resnet(encoder, state, path)
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


def _start_resnet(encoder: ResNet18, state: Mapping[str, Tensor], path: Path) -> Initialisation:
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not name.endswith(_COUNTER)}
    images = encoder.conv1.in_channels // 3
    used = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    stem = used.get("conv1.weight")
    if stem is not None and images > 1 and stem.ndim == 4:
        used["conv1.weight"] = stem.repeat(1, images, 1, 1) / images
    wrong = _differences(own, used)
    if wrong:
        fits = identify(state)
        matching = sum(name in own and own[name].shape == tensor.shape for name, tensor in used.items())
        raise ModelError(
            f"'{path.name}' is not the ImageNet classification network ResNet-18",
            why=f"{matching} of {RESNET18_USED} entries match. {wrong}",
            fix=f"These are weights of '{fits[0]}': load them as such."
            if fits
            else "Use the file of ResNet-18, or leave it out to start from random weights.",
            error_id="model.imagenet",
        )
    _check_finite(used)
    with torch.no_grad():
        for name, tensor in used.items():
            own[name].copy_(tensor)
    return Initialisation(len(used), len(state) - len(used), 0)


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
