"""BatchNorm folded into the convolution before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn


def fold_batchnorm_(network: nn.Module) -> None:
    """Fold, in place, every BatchNorm that follows a convolution; the same function in evaluation mode.

    Pairs are neighbours in an ``nn.Sequential``, and (convolution, BatchNorm) attribute names that a module lists in
    its class attribute ``FOLDS``. The BatchNorm becomes an identity, so that names of the other entries stay.

    Example:
        >>> block = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
        >>> x = torch.rand(1, 3, 8, 8)
        >>> before = block(x)
        >>> fold_batchnorm_(block)
        >>> sorted(block.state_dict()), bool(torch.allclose(before, block(x), atol=1e-6))
        (['0.bias', '0.weight'], True)
    """
    for owner in list(network.modules()):
        for conv_name, bn_name in _pairs(owner):
            conv, bn = owner.get_submodule(conv_name), owner.get_submodule(bn_name)
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                _fold_(conv, bn)
                owner.set_submodule(bn_name, nn.Identity())


def _pairs(owner: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(owner, nn.Sequential):
        names = [name for name, _ in owner.named_children()]
        yield from itertools.pairwise(names)
    yield from cast("tuple[tuple[str, str], ...]", getattr(owner, "FOLDS", ()))


@torch.no_grad()
def _fold_(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
    # In float64: a channel of tiny variance has a huge factor, and its bias is a difference of large numbers.
    mean, variance = cast(Tensor, bn.running_mean).double(), cast(Tensor, bn.running_var).double()
    factor = bn.weight.double() / torch.sqrt(variance + bn.eps)
    before = conv.bias.double() if conv.bias is not None else torch.zeros_like(mean)
    weight = conv.weight.double() * factor.reshape(-1, 1, 1, 1)
    bias = bn.bias.double() + (before - mean) * factor
    kind = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(kind), requires_grad=conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(kind), requires_grad=conv.weight.requires_grad)
