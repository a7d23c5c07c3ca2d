"""Pretrained encoders of a network of landmarks: published ones, or those of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from endolux.errors import ModelError, UsageError
from endolux.models.depth_anything import DepthAnything
from endolux.models.hiera import read_sam2
from endolux.models.hiera_depth import HieraDepth
from endolux.models.landmark_network import ExportedNetwork
from endolux.models.landmarks import SrftGaloreNetwork
from endolux.models.transplant import depth_anything_from
from endolux.train.checkpoints import checkpoints, load_exported


def load_encoders(network: SrftGaloreNetwork, image: str | None, depth: str | None) -> None:
    """Copy pretrained encoders into a network; branches beside them stay as they are.

    Args:
        network: to fill, in place.
        image: SAM 2.1: a folder in the layout of transformers, a hub id, or the run of a ``hiera-depth`` or of another
            ``srft-galore`` with an encoder of the same shape.
        depth: Depth Anything, likewise; the run of a ``depth-anything-v2-s`` or so.

    Raises:
        ModelError: ``model.variant``, ``model.kind``, ``teacher.*``.
        UsageError: ``recipe.segmentation`` for a depth encoder that the network does not have.
    """
    if image:
        network.image_encoder.load_pretrained(_image_state(Path(image)) if is_run(image) else read_sam2(image))
    if depth:
        if network.depth_encoder is None:
            raise UsageError(
                "segmentation.depth_encoder is set, and the network has no depth branch",
                why="model.config.depth is false.",
                fix="Set segmentation.depth_encoder to null.",
                error_id="recipe.segmentation",
            )
        state = _depth_state(Path(depth)) if is_run(depth) else depth_anything_from(depth).state_dict()
        network.depth_encoder.load_pretrained(state)


def is_run(spec: str) -> bool:
    """Whether this names a run or a checkpoint, and no pretrained model."""
    path = Path(spec)
    return bool(checkpoints(path)) or (path / "state.json").is_file()


def _image_state(run: Path) -> Mapping[str, Tensor]:
    found = _merged(run)
    if not isinstance(found, HieraDepth | SrftGaloreNetwork):
        raise _unsuitable(run, "SAM 2", "hiera-depth or srft-galore")
    return found.image_encoder.model.state_dict()


def _depth_state(run: Path) -> Mapping[str, Tensor]:
    found = _merged(run)
    if isinstance(found, SrftGaloreNetwork) and found.depth_encoder is not None:
        return found.depth_encoder.model.state_dict()
    if not isinstance(found, DepthAnything):
        raise _unsuitable(run, "Depth Anything", "depth-anything-v2-s")
    return found.state_dict()


def _merged(run: Path) -> ExportedNetwork:
    """The network of a run with its branches added to what they stand beside."""
    network, _ = load_exported(run)
    return network.fuse() if isinstance(network, HieraDepth | SrftGaloreNetwork | DepthAnything) else network


def _unsuitable(run: Path, what: str, wanted: str) -> ModelError:
    return ModelError(
        f"The run '{run}' has no encoder of {what}",
        why="Its network is made of other parts.",
        fix=f"Give the run of a {wanted}, or pretrained weights in the layout of transformers.",
        error_id="model.kind",
    )
