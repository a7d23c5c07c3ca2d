"""What is trained: networks, the updates that change them, and how a batch becomes tensors."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from endolux.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.train.recipe import Optimiser, Recipe

Tensors = dict[str, Tensor]
"""What :meth:`Task.prepare` makes of a batch: ``image`` N x 3 x H x W float in [0, 1], ``depth`` N x 1 x H x W, ..."""
Loss = Callable[[Tensors], dict[str, Tensor]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Samples as the data side delivers them.

    Attributes:
        images: uint8 N x H x W x 3, RGB.
        depths: float32 N x H x W, z in millimetres (any unit for relative data), 0 where unknown.
        extras: more arrays that went through the same crop and mirroring, by name, first axis N (``teacher``).
        keys: stable name of each sample.
    """

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32]
    extras: Mapping[str, npt.NDArray[np.generic]] = dataclasses.field(default_factory=dict)
    keys: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One optimiser and what it minimises.

    Attributes:
        name: in logs (``NAME/total``; the first update's parts stand without it) and checkpoints.
        networks: names in :attr:`Task.networks` that this optimiser trains; the others are frozen meanwhile.
        loss: from prepared tensors to ``total`` (differentiable scalar) and named parts (scalars, detached).
        weight: from prepared tensors to what the mean of the loss runs over (images with truth, valid pixels), as a
            scalar tensor. With it, two processes and accumulated batches give exactly the mean over all samples
            although their counts differ; None weighs every batch equally.
        optimiser: other settings than the recipe's.
    """

    name: str
    networks: tuple[str, ...]
    loss: Loss
    weight: Callable[[Tensors], Tensor] | None = None
    optimiser: Optimiser | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """What a task may need before the first batch.

    Attributes:
        output: run folder.
        count: training samples that are there now.
        image: reads picture ``i`` of them as stored, before any augmentation.
        size: (width, height) of the training pictures.
        wanted: samples that the rest of the run will use.
        part: (rank, world) of this process.
        tell: shows a line (``message``, or ``step``, ``steps`` and numbers).
    """

    output: Path
    count: int
    image: Callable[[int], ImageArray]
    size: tuple[int, int]
    wanted: int
    part: tuple[int, int]
    tell: Callable[[Mapping[str, object]], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        step: steps that were taken.
        steps: of the whole run.
        steps_per_epoch: of one pass over the data.
    """

    step: int
    steps: int
    steps_per_epoch: int


class Task(abc.ABC):
    """A kind of training. The engine owns the loop, the task owns the meaning.

    Attributes:
        networks: every trained module by name, the exported one first; checkpoints keep one file for each.
        exported: name of the network that becomes the bundle, is averaged and validated; a ``DepthNetwork`` or a
            ``LandmarkNetwork``.
        autocast: context for calls of networks, set by the engine to the recipe's precision. Losses belong outside
            it: they are computed in float32.
        needs_depth, needs_labels: whether samples without depth or landmarks are of no use.

    Example:
        A task of one network::

            class Mine(Task):
                def updates(self):
                    return [Update(name="depth", networks=("network",), loss=self._loss)]

                def _loss(self, tensors):
                    with self.autocast():
                        output = self.networks["network"].log_depth(tensors["image"])
                    return depth_loss(output, tensors["depth"])
    """

    networks: dict[str, nn.Module]
    exported: str
    needs_depth: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    autocast: Callable[[], AbstractContextManager[object]] = staticmethod(contextlib.nullcontext)

    @classmethod
    @abc.abstractmethod
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build networks with fresh (or the recipe's initial) weights. The engine has seeded torch before."""

    @abc.abstractmethod
    def updates(self) -> Sequence[Update]:
        """One optimiser each, executed in this order for every batch; several make an alternating training."""

    def begin(self, start: Start) -> None:  # noqa: B027 -- most tasks have nothing to do
        """Called once in every process before the first batch, also of a resumed run: the place to compute ahead."""

    def advance(self, progress: Progress) -> None:  # noqa: B027 -- most tasks are the same in every step
        """Called in every process before each step: the place for schedules of losses."""

    def prepare(self, batch: Batch, device: torch.device) -> Tensors:
        """Tensors of a batch on the device: ``image``, ``depth`` and every extra under its name."""
        # N x H x W x 3 bytes are channels_last already: the permuted view needs no copy.
        image = torch.from_numpy(batch.images).to(device, non_blocking=True).permute(0, 3, 1, 2)
        tensors = {
            "image": image.float().mul_(1.0 / 255.0),
            "depth": torch.from_numpy(batch.depths).to(device, non_blocking=True)[:, None],
        }
        for name, array in batch.extras.items():
            tensors[name] = torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
        return tensors

    def extras(self, image: ImageArray, key: str) -> Mapping[str, FloatArray]:  # noqa: ARG002
        """Maps that belong to the un-augmented image (a teacher's output); they follow its crop and mirroring.

        Called by the threads that prepare batches, so it must be safe to call at once from several.

        Args:
            image: H x W x 3 uint8, as stored, before any augmentation.
            key: stable name of the sample.

        Returns:
            Name -> h x w or C x h x w float32, of any resolution that covers the whole image.
        """
        return {}

    def validation(self, network: nn.Module, tensors: Tensors) -> dict[str, Tensor]:  # noqa: ARG002
        """Scalars of a held-out batch for ``network``, which holds the (averaged) weights of the exported one.

        Called in evaluation mode without gradients. Keys such as ``loss`` are logged as ``validation/loss``.
        """
        return {}

    def examine(self, network: nn.Module, batches: Iterable[Tensors]) -> Mapping[str, float]:  # noqa: ARG002
        """All figures of held-out batches, in place of depth errors, for a network that gives no depth."""
        return {}

    def summary(self) -> Mapping[str, object]:
        """Facts for ``run.json`` (a teacher's hash); JSON values."""
        return {}
