"""Averages of trained networks: over the steps of a run, and between a run and the run that went on from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from endolux.errors import UsageError
from endolux.models import DepthNetwork
from endolux.train.task import Batch


class MovingAverage:
    """Exponential average of a network's weights and BatchNorm statistics, smaller memory at the beginning.

    Args:
        network: its tensors are followed; they must stay the same objects.
        decay: share that the old average keeps in a step, at most.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> average = MovingAverage(network, decay=0.9)
        >>> with torch.no_grad():
        ...     _ = network.weight.add_(1.0)
        >>> average.update(step=10**6)
        >>> round(float((network.weight - average.tensors()["weight"]).detach()), 6)
        0.9
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self._live = dict(network.state_dict())
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        floats = {name for name, tensor in self._live.items() if tensor.is_floating_point()}
        # Weights may be split over processes while statistics are not; one call takes only one of the two kinds.
        self._floats = [
            ([self._average[name] for name in names], [self._live[name] for name in names])
            for split in (False, True)
            if (names := [name for name in self._live if name in floats and self._split(name) is split])
        ]
        self._others = [(self._average[name], self._live[name]) for name in self._live if name not in floats]

    def _split(self, name: str) -> bool:
        return isinstance(self._live[name], DTensor)

    @torch.no_grad()
    def update(self, *, step: int) -> None:
        """Take the network's weights after step ``step`` (from 1) in."""
        share = 1.0 - min(self._decay, (1 + step) / (10 + step))
        for old, new in self._floats:
            torch._foreach_lerp_(old, new, share)
        for kept, live in self._others:
            kept.copy_(live)

    def tensors(self) -> dict[str, Tensor]:
        """The average, whole on every process. A collective call where the weights are split over processes."""
        return {name: whole(tensor) for name, tensor in self._average.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave."""
        for name, tensor in self._average.items():
            assign(tensor, tensors[name])


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be split over processes, gathered. A collective call then."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def assign(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be split over processes."""
    if isinstance(tensor, DTensor):
        from torch.distributed.tensor import distribute_tensor

        tensor.copy_(distribute_tensor(value.to(tensor.device), tensor.device_mesh, list(tensor.placements)))
    else:
        tensor.copy_(value)


def interpolate(first: DepthNetwork, second: DepthNetwork, *, share: float) -> DepthNetwork:
    """The network between two others of one ancestry: ``(1 - share) * first + share * second``.

    Fine-tuning on new data gains there and loses elsewhere; a point between before and after keeps most of both
    (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). The BatchNorm statistics of the result are
    no average of the two: pass it through :func:`recalibrate`.

    Args:
        first: network before.
        second: network after, of the same architecture.
        share: weight of ``second``, in [0, 1].

    Raises:
        UsageError: the networks differ in shape, or ``share`` is outside [0, 1].

    Example:
        >>> from endolux.models import create
        >>> network = create("repdepth")
        >>> between = interpolate(network, network, share=0.5)
        >>> all(torch.equal(a, b) for a, b in zip(network.parameters(), between.parameters()))
        True
    """
    if not 0.0 <= share <= 1.0:
        raise UsageError(
            f"Impossible share {share}",
            why="The result lies between the two networks.",
            fix="Use a share between 0 and 1.",
            error_id="train.share",
        )
    before, after = first.state_dict(), second.state_dict()
    if {name: value.shape for name, value in before.items()} != {name: value.shape for name, value in after.items()}:
        raise UsageError(
            "The two networks do not have the same weights",
            why="Only networks of one architecture and one ancestry can be averaged.",
            fix="Give a run and the run that started from it.",
            error_id="train.average",
        )
    result = copy.deepcopy(second)
    result.load_state_dict(
        {
            name: torch.lerp(value, after[name], share) if value.is_floating_point() else after[name]
            for name, value in before.items()
        }
    )
    return result


def recalibrate(network: DepthNetwork, batches: Iterable[Batch], *, bf16: bool = True) -> DepthNetwork:
    """Measure the BatchNorm statistics anew, as plain means over the batches; in place, back in evaluation mode.

    Args:
        network: network whose weights did not come from the training that its statistics come from.
        batches: augmented training batches; a few hundred images are enough.
        bf16: autocast to bfloat16, as in training.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    network.train()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for batch in batches:
            network.log_depth(torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() * (1.0 / 255.0))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()
    return network
