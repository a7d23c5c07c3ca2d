"""Weights of several losses, rescaled once so that their gradients have stated norms, then frozen."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

TERMS = ("spatial", "gradient", "spectral", "semantic")


class Balance(nn.Module):
    """The weights of the four terms. They are buffers: a checkpoint keeps them, and a resumed run goes on with them.

    Args:
        weights: to begin with, by term.

    Example:
        >>> balance = Balance({"spatial": 1.0, "gradient": 0.5, "spectral": 0.1, "semantic": 0.1})
        >>> round(balance.weights()["spectral"], 6), balance.done
        (0.1, False)
    """

    values: Tensor
    settled: Tensor

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.register_buffer("values", torch.tensor([weights[name] for name in TERMS], dtype=torch.float32))
        self.register_buffer("settled", torch.zeros((), dtype=torch.uint8))

    @property
    def done(self) -> bool:
        """Whether they were rescaled."""
        return bool(self.settled)

    def weights(self) -> dict[str, float]:
        """By term."""
        return dict(zip(TERMS, self.values.tolist(), strict=True))

    @torch.no_grad()
    def settle(self, norms: Mapping[str, tuple[float, float]], shares: Sequence[float]) -> None:
        """Rescale all but the spatial weight, for good.

        A term whose weight or gradient is 0 keeps its weight, and so do all where the spatial one is.

        Args:
            norms: by term: the norm of its own gradient and that of the spatial term's, at the same place.
            shares: of the weighted norms, in the order of the terms.
        """
        weights = self.weights()
        for index, name in enumerate(TERMS[1:], 1):
            own, spatial = norms.get(name, (0.0, 0.0))
            if min(own, spatial, weights[name], weights["spatial"]) > 0.0:
                self.values[index] = shares[index] / shares[0] * weights["spatial"] * spatial / own
        self.settled.fill_(1)


def gradient_norm(term: Tensor, place: Tensor) -> float:
    """Norm of a loss's gradient at a tensor; over all processes, of the mean of their losses.

    Example:
        >>> place = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> round(gradient_norm((2 * place).sum(), place), 4)
        2.8284
    """
    found = None
    if term.requires_grad:
        (found,) = torch.autograd.grad(term, place, retain_graph=True, allow_unused=True)
    value = torch.zeros_like(place) if found is None else found.detach()
    square = value.double().square().sum()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        if place.is_leaf:
            dist.all_reduce(value)
            square = (value.double() / dist.get_world_size()).square().sum()
        else:
            # Activations of other pictures: every process has its own.
            dist.all_reduce(square)
    norm = float(square.sqrt())
    return norm if norm < float("inf") else 0.0


def last_convolution(output: Tensor) -> Tensor:
    """The weight of the convolution nearest to an output, in steps of its graph; the output itself if there is none.

    Example:
        >>> layer = nn.Conv2d(3, 1, 1)
        >>> last_convolution(layer(torch.ones(1, 3, 4, 4)).sigmoid()) is layer.weight
        True
    """
    queue: collections.deque[Any] = collections.deque([output.grad_fn])
    seen = {None}
    while queue:
        node = queue.popleft()
        if node in seen:
            continue
        seen.add(node)
        if "onvolution" in node.name():
            for source, _ in node.next_functions[1:2]:
                weight = _leaf(source)
                if weight is not None:
                    return weight
        queue.extend(source for source, _ in node.next_functions)
    return output


def _leaf(node: Any) -> Tensor | None:  # noqa: ANN401 -- nodes of a graph have no type
    """The parameter behind a node, through the conversion of its type."""
    while node is not None:
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            return variable
        if len(node.next_functions) != 1:
            return None
        node = node.next_functions[0][0]
    return None
