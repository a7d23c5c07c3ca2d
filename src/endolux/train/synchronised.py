"""Batch normalisation over all processes, also on CPUs, where torch has none."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override


def _sum(values: Tensor) -> Tensor:
    values = values.contiguous().clone()
    dist.all_reduce(values)
    return values


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    @override
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of the batches of all processes together.

    Sums and counts are added up by a differentiable all-reduce, so that forward, backward and running statistics are
    those of one process with the whole batch, whatever the shares.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Normalise; as the parent does in evaluation mode or alone."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        values = input if input.dtype == torch.float64 else input.float()
        channels = values.shape[1]
        count = values.new_tensor([values.numel() / channels])
        # Sums of squares around 0 would cancel: the mean of all goes first, as a mere origin without gradient.
        rough = _sum(torch.cat([values.detach().sum(dim=(0, 2, 3)), count]))
        number = rough[channels]
        origin = rough[:channels] / number
        shifted = values - origin[None, :, None, None]
        local = torch.cat([shifted.sum(dim=(0, 2, 3)), shifted.square().sum(dim=(0, 2, 3))])
        total = cast("Tensor", _Sum.apply(local))  # type: ignore[no-untyped-call]
        mean = total[:channels] / number
        variance = (total[channels:] / number - mean.square()).clamp(min=0.0)
        self._follow(mean + origin, variance, number)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        offset = -mean * scale
        if self.bias is not None:
            offset = offset + self.bias
        return (shifted * scale[None, :, None, None] + offset[None, :, None, None]).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.detach(), share)
        self.running_var.lerp_(variance.detach() * number / (number - 1).clamp(min=1.0), share)


def synchronise(network: nn.Module) -> int:
    """Let every BatchNorm2d of a network use the statistics of all processes. Returns how many there are.

    Example:
        >>> synchronise(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)))
        1
    """
    found = [module for module in network.modules() if type(module) is nn.BatchNorm2d]
    for module in found:
        # The class only adds behaviour: the module's state and the keys of its weights stay as they are.
        module.__class__ = SynchronisedBatchNorm2d
    return len(found)
