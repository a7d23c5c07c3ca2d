"""Averages of trained networks: between the weights of a run and of the run that went on from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from endolux.errors import UsageError
from endolux.models import DepthNetwork
from endolux.train.data import Batch


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
