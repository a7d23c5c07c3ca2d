"""Self-supervised training on video: depth from motion, without any truth."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models import DepthNetwork
from endolux.train.recipe import Recipe
from endolux.train.task import Batch, Progress, Task, Tensors, Update
from endolux.train.tasks.supervised import build_network
from endolux.train.tasks.video_losses import VideoLosses, evaluating, snippet_tensors

_Motions: TypeAlias = npt.NDArray[np.float64]


class VideoTask(Task):
    """Alternates two updates: optical flow (A), then depth, camera motion and appearance flow (B).

    Args:
        network: depth network; the more side outputs its ``disparities`` give, the more scales are compared.
        losses: see there.
        motion_first: share of the run in which the depth network stays as it is.

    Example:
        >>> from endolux.models import create
        >>> from endolux.train.recipe import Video
        >>> settings = Video(appearance=False, flow=False, pose={"kind": "convolutions"})
        >>> task = VideoTask(create("repdepth"), losses=VideoLosses.from_settings(settings))
        >>> sorted(task.networks), [update.name for update in task.updates()]
        (['network', 'pose'], ['depth'])
    """

    needs_depth: ClassVar[bool] = False

    def __init__(self, network: DepthNetwork, *, losses: VideoLosses, motion_first: float = 0.0) -> None:
        self.networks: dict[str, nn.Module] = {"network": network, **losses.networks()}
        self.exported = "network"
        self._network, self._losses = network, losses
        self._motion_first, self._waits = motion_first, motion_first > 0
        # The engine sets the task's context after this.
        losses.autocast = lambda: self.autocast()

    @classmethod
    @override
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build the recipe's networks.

        Raises:
            UsageError: ``recipe.video`` without the section.
        """
        if recipe.video is None:
            raise UsageError(
                f"The recipe '{recipe.name}' has no section 'video'",
                why="The task 'video' is determined by it.",
                fix="Add 'video: {}' for the defaults.",
                error_id="recipe.video",
            )
        network = build_network(recipe)
        losses = VideoLosses.from_settings(recipe.video, depth_range=network.depth_range())
        return cls(network, losses=losses, motion_first=recipe.video.motion_first)

    @override
    def updates(self) -> Sequence[Update]:
        """That of the optical flow, where there is one, and that of depth."""
        flow = self._losses.flow_update()
        networks = ("network", *self._losses.depth_networks)
        return [*([flow] if flow is not None else []), Update(name="depth", networks=networks, loss=self._loss)]

    @override
    def advance(self, progress: Progress) -> None:
        """Let the depth network learn as soon as its time has come."""
        self._waits = progress.step < self._motion_first * progress.steps

    @override
    def prepare(self, batch: Batch, device: torch.device) -> Tensors:
        """Tensors of snippets."""
        return snippet_tensors(super().prepare(batch, device))

    @override
    def validation(self, network: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
        """The loss, and the error of the camera positions where the motions are known.

        ``ate`` is in mm: the root mean square distance of the camera positions of a snippet (the picture itself at the
        origin), the predicted ones times the factor that fits best, as far as that of a camera that stands still,
        ``ate_still``.
        """
        if not isinstance(network, DepthNetwork):
            return {}
        with self.autocast():
            disparities = network.disparities(tensors["image"])
        values = {"loss": self._losses.depth_losses(disparities, tensors)["total"]}
        known = torch.isfinite(tensors["motions"]).flatten(1).all(1) if "motions" in tensors else None
        if known is not None and bool(known.any()):
            motions, _ = self._losses.motions(tensors)
            predicted = torch.stack(motions, 1)[known].double().cpu().numpy()
            truth = tensors["motions"][known].double().cpu().numpy()
            error, still = position_errors(truth, predicted)
            values |= {"ate": torch.tensor(error.mean()), "ate_still": torch.tensor(still.mean())}
        return values

    @override
    def summary(self) -> Mapping[str, object]:
        """How many parameters are trained."""
        return {
            "parameters": {
                name: {
                    "all": sum(p.numel() for p in network.parameters()),
                    "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
                }
                for name, network in self.networks.items()
            }
        }

    def _loss(self, tensors: Tensors) -> dict[str, Tensor]:
        with evaluating(self._network) if self._waits else contextlib.nullcontext(), self.autocast():
            disparities = self._network.disparities(tensors["image"])
        return self._losses.depth_losses(disparities, tensors)


def position_errors(
    truth: _Motions,
    predicted: _Motions,
) -> tuple[_Motions, _Motions]:
    """How far the cameras of snippets are from where they were.

    Args:
        truth: N x F x 4 x 4, points of the picture's camera to points of each neighbour's, in mm.
        predicted: the same, translation up to one factor a snippet.

    Returns:
        Root mean square distance over the F + 1 cameras, for the predicted motions and for a camera that stands still;
        N each, mm.

    Example:
        >>> motions = np.tile(np.eye(4), (1, 2, 1, 1))
        >>> motions[0, :, 2, 3] = [1.0, -1.0]
        >>> error, still = position_errors(motions, 0.1 * motions + 0.9 * np.eye(4))
        >>> error.round(6).tolist(), still.round(3).tolist()
        ([0.0], [0.816])
    """

    def centres(motions: _Motions) -> _Motions:
        return np.asarray(-np.einsum("nfji,nfj->nfi", motions[..., :3, :3], motions[..., :3, 3]))

    true, guess = centres(truth), centres(predicted)
    energy = (guess**2).sum((1, 2))
    factor = np.where(energy > 0, (guess * true).sum((1, 2)) / np.where(energy > 0, energy, 1.0), 0.0)
    count = truth.shape[1] + 1
    error = np.sqrt(((factor[:, None, None] * guess - true) ** 2).sum((1, 2)) / count)
    return error, np.sqrt((true**2).sum((1, 2)) / count)
