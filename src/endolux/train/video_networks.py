"""The networks beside the depth network of a training on video: fresh, published, or from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from endolux.errors import ModelError, UsageError
from endolux.models.pose_convolutions import ConvolutionalPose
from endolux.models.pose_correlation import CorrelationPose
from endolux.models.pose_flow import AppearanceFlow, IntrinsicsHead, OpticalFlow, PoseNetwork

if TYPE_CHECKING:
    from endolux.train.recipe import Video

_HEAD = "intrinsics"
_FAMILY, _HEAD_FAMILY = "dares", "endodac"
"""Whose names the files of pose and flow networks have, and who publishes a head for intrinsics."""

_POSES: Mapping[str, type[nn.Module]] = {
    "resnet18": PoseNetwork,
    "convolutions": ConvolutionalPose,
    "correlation": CorrelationPose,
}


def fresh_pose(video: Video) -> nn.Module:
    """The network of camera motion that a recipe names."""
    return _POSES[video.pose.kind]()


def video_networks(video: Video) -> dict[str, nn.Module]:
    """``pose`` and, where the recipe trains them, ``flow``, ``appearance`` and ``intrinsics``, with its first weights.

    ImageNet encoders come first, then published companions or the networks of another run.

    Raises:
        UsageError: ``recipe.video`` for sections that contradict each other.
        ModelError: weights that cannot be read or do not fit.

    Example:
        >>> from endolux.train.recipe import Video
        >>> sorted(video_networks(Video(pose={"kind": "convolutions"})))
        ['appearance', 'flow', 'pose']
    """
    _check(video)
    networks: dict[str, nn.Module] = {"pose": fresh_pose(video)}
    if video.flow:
        networks["flow"] = OpticalFlow()
    if video.appearance:
        networks["appearance"] = AppearanceFlow()
    if video.intrinsics.kind == "learned":
        networks["intrinsics"] = IntrinsicsHead()
    if video.imagenet is not None:
        from endolux.models.published import load_imagenet_encoder

        for network in networks.values():
            if isinstance(network, PoseNetwork | OpticalFlow | AppearanceFlow):
                load_imagenet_encoder(network.encoder, video.imagenet)
    if video.companions is not None:
        _load_published(video.companions, networks)
    if video.initial is not None:
        from endolux.train.checkpoints import newest

        _load_run(newest(video.initial), networks)
    return networks


def _check(video: Video) -> None:
    if video.companions is not None and video.initial is not None:
        raise _contradiction(
            "Both video.companions and video.initial are set", "A network starts from one set of weights."
        )
    published = video.companions is not None or video.imagenet is not None
    if video.pose.kind != "resnet18" and (published or video.intrinsics.kind == "learned"):
        raise _contradiction(
            f"video.pose.kind is {video.pose.kind}",
            "Published weights and the intrinsics head belong to the pose network on ResNet-18.",
        )


def _load_published(folder: Path, networks: Mapping[str, nn.Module]) -> None:
    from endolux.models.published_folder import load_companions

    wanted = [name for name in networks if name != _HEAD]
    found = load_companions(_FAMILY, folder, names=wanted)
    for name in wanted:
        networks[name].load_state_dict(found[name].state_dict())
    if _HEAD in networks:
        # Only EndoDAC publishes one; beside the others it starts fresh.
        heads = load_companions(_HEAD_FAMILY, folder)
        if _HEAD in heads:
            networks[_HEAD].load_state_dict(heads[_HEAD].state_dict())


def _load_run(checkpoint: Path, networks: Mapping[str, nn.Module]) -> None:
    from endolux.train.checkpoints import read_weights

    for name, network in networks.items():
        try:
            network.load_state_dict(read_weights(checkpoint, name))
        except RuntimeError as error:
            raise ModelError(
                f"'{checkpoint}' does not fit the network '{name}'",
                why=" ".join(str(error).split())[:200],
                fix="Give a run of the task 'video' whose section 'video' has the same networks.",
                error_id="model.checkpoint",
            ) from error


def _contradiction(what: str, why: str) -> UsageError:
    return UsageError(what, why=why, fix="Leave one of them out.", error_id="recipe.video")
