"""Where a network's first weights come from: another run, a bundle, or what others have published."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from endolux.errors import ModelError
from endolux.models import DepthNetwork
from endolux.models.dpt import DPTNetwork
from endolux.models.landmark_network import LandmarkNetwork
from endolux.models.landmarks_light import LandmarksLight
from endolux.models.litenet import LiteNet
from endolux.models.transplant import load_merged, load_released, start_from
from endolux.runtime.bundles import CARD, find_bundle, list_bundles, load_bundle
from endolux.train.checkpoints import (
    checkpoints,
    damaged,
    load_exported,
    load_network,
    newest,
    read_average,
    read_state,
    read_weights,
)
from endolux.types import DepthKind

_WEIGHTS = "model.safetensors"


def load_landmarks_into(network: LandmarkNetwork, source: Path) -> None:
    """Start a network of landmarks from another run, or the light one from the encoder of a LiteNet trained for depth.

    Raises:
        ModelError: ``model.variant`` for weights of another architecture; ``model.missing``, ``model.checkpoint``.
    """
    folder = newest(source)
    other, state = load_exported(folder)
    if state.architecture == network.architecture:
        try:
            network.load_state_dict(other.state_dict())
        except RuntimeError as error:
            raise damaged(folder, error) from error
        return
    if isinstance(network, LandmarksLight) and isinstance(other, LiteNet) and other.size == network.size:
        network.load_encoder(other)
        return
    raise ModelError(
        f"The checkpoint '{folder}' is of '{state.architecture}', and the network is '{network.architecture}'",
        why="Weights belong to one architecture. The light network of landmarks may start from a litenet of its size.",
        fix=f"Give a checkpoint of '{network.architecture}'.",
        error_id="model.variant",
    )


def load_weights_into(network: DepthNetwork, source: Path) -> None:
    """Start a network from the weights of another run, or from a published file.

    Args:
        network: to fill, in place.
        source: run or checkpoint folder, name or folder of a bundle with ``model.safetensors``, a file for
            :func:`endolux.models.published.load_published`, or a folder for
            :func:`endolux.models.published_folder.load_depth`; for networks with a transformer also what
            :func:`endolux.models.transplant.load_released` takes, and the bundle of a Depth Anything of their release.

    Raises:
        ModelError: ``model.variant`` for weights of another architecture; ``model.missing``, ``model.checkpoint``;
            ``model.graph-only`` for a bundle without weights to go on from, ``model.folded`` for one whose weights
            need the inference form of the network.
    """
    if _is_bundle(source):
        _load_bundle_into(network, source)
        return
    if isinstance(network, DPTNetwork) and (source.is_file() or _is_foundation(source)):
        load_released(network, str(source))
        return
    if source.is_file():
        from endolux.models.published import load_published, read_state_dict

        load_published(network, read_state_dict(source))
        return
    if not checkpoints(source) and not (source / "state.json").is_file():
        from endolux.models.published import load_published, read_state_dict
        from endolux.models.published_folder import FAMILIES, is_published_folder, load_depth

        if network.architecture in FAMILIES and is_published_folder(source):
            load_depth(network, source)
            return
        if is_published_folder(source):
            load_published(network, read_state_dict(source))
            return
    folder = newest(source)
    if isinstance(network, DPTNetwork):
        start_from(network, load_network(folder)[0])
        return
    state = read_state(folder)
    if state.architecture != network.architecture:
        raise _other_architecture(f"The checkpoint '{folder}'", state.architecture, network.architecture)
    try:
        network.load_state_dict(read_average(folder) or read_weights(folder, state.exported))
    except RuntimeError as error:
        raise damaged(folder, error) from error


def _is_foundation(source: Path) -> bool:
    """Whether a path is a folder in the layout of transformers, or a hub id (``OWNER/NAME``, and no such path)."""
    if source.exists():
        return (source / "config.json").is_file()
    return len(source.parts) == 2 and not source.is_absolute() and source.suffix not in (".pth", ".pt", ".safetensors")


def _is_bundle(source: Path) -> bool:
    return str(source) in list_bundles() or (source / CARD).is_file()


def _load_bundle_into(network: DepthNetwork, source: Path) -> None:
    bundle = load_bundle(str(source))
    card = bundle.card
    start = isinstance(network, DPTNetwork) and card.architecture == f"depth-anything-{network.variant}"
    if not start and card.architecture != network.architecture:
        raise _other_architecture(f"The bundle '{card.name}'", card.architecture, network.architecture)
    path = find_bundle(str(source)) / _WEIGHTS
    if _WEIGHTS not in card.files or not path.is_file():
        raise ModelError(
            f"The bundle '{card.name}' has no weights to train on from",
            why=f"It carries the graph alone, without {_WEIGHTS}, to be small or as its weights are rounded.",
            fix="Start from a run folder, or from a bundle with that file (repdepth-colon has it).",
            error_id="model.graph-only",
        )
    try:
        weights: dict[str, Tensor] = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in safetensors.torch.load_file(path).items()
        }
    except (safetensors.SafetensorError, OSError) as error:
        raise damaged(path.parent, error) from error
    if isinstance(network, DPTNetwork):
        load_merged(network, weights, new_head=card.output.kind == DepthKind.RELATIVE_DISPARITY)
        return
    names = set(network.state_dict())
    if set(weights) != names and set(weights) == set(network.fuse().state_dict()):
        raise ModelError(
            f"The weights of the bundle '{card.name}' are folded for inference",
            why=f"Branches and normalisation became single convolutions; this '{network.architecture}' still has them.",
            fix="Train the folded form: model.config.fused=true.",
            error_id="model.folded",
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"The weights of the bundle '{card.name}' do not fit this '{network.architecture}'",
            why=" ".join(str(error).split())[:200],
            fix="Leave model.config as the bundle was made with; it differs in sizes or parts.",
            error_id="model.variant",
        ) from error


def _other_architecture(what: str, theirs: str, ours: str) -> ModelError:
    return ModelError(
        f"{what} is of '{theirs}', and the network is '{ours}'",
        why="Weights belong to one architecture; some variants even have the same names and shapes.",
        fix=f"Train '{theirs}' from it, or give a checkpoint of '{ours}'.",
        error_id="model.variant",
    )
