"""What every depth network of Endolux offers, and the registry of architectures."""

from __future__ import annotations

import abc
import difflib
from collections.abc import Callable, Mapping
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.types import DepthKind


class DepthNetwork(nn.Module, abc.ABC):
    """A network that maps an image to depth, as training and export see it.

    Attributes:
        architecture: name in the registry; stands in checkpoints and cards.
        kind: meaning of the values that ``forward`` gives.
        multiple: height and width of the input must be multiples of this.
    """

    architecture: str
    kind: DepthKind
    multiple: int

    @abc.abstractmethod
    def config(self) -> dict[str, object]:
        """Constructor arguments as JSON values: ``create(self.architecture, **self.config())`` builds it again."""

    @abc.abstractmethod
    def log_depth(self, image: Tensor) -> Tensor:
        """Natural logarithm of depth, N x 1 x H x W float32, for N x 3 x H x W RGB in [0, 1]."""

    @abc.abstractmethod
    def depth_range(self) -> tuple[float, float]:
        """Smallest and largest depth the network can give."""

    @abc.abstractmethod
    def fuse(self) -> Self:
        """A copy for inference: every branch and BatchNorm folded into plain convolutions; the same function."""

    @override
    def forward(self, image: Tensor) -> Tensor:
        """Depth, N x 1 x H x W float32, for N x 3 x H x W RGB in [0, 1]."""
        return torch.exp(self.log_depth(image))


class _Constructor(Protocol):
    # Architectures differ in their arguments; recipes and checkpoints carry them as JSON values.
    def __call__(self, **config: object) -> DepthNetwork: ...


_ARCHITECTURES: dict[str, Callable[..., DepthNetwork]] = {}
_Network = TypeVar("_Network", bound=type[DepthNetwork])


def register(name: str) -> Callable[[_Network], _Network]:
    """Class decorator: make a network known to :func:`create` under ``name``.

    Example:
        >>> from endolux.models import architectures
        >>> "repdepth" in architectures()
        True
    """

    def add(network: _Network) -> _Network:
        if name in _ARCHITECTURES:
            raise UsageError(
                f"Two networks are called '{name}'",
                why="Names of architectures stand in checkpoints and must be unique.",
                fix="Register the second one under another name.",
                error_id="model.duplicate",
            )
        _ARCHITECTURES[name] = network
        network.architecture = name
        return network

    return add


def architectures() -> tuple[str, ...]:
    """Names that :func:`create` knows, sorted."""
    return tuple(sorted(_ARCHITECTURES))


def create(name: str, **config: object) -> DepthNetwork:
    """A network with fresh weights.

    Args:
        name: one of :func:`architectures`.
        **config: arguments of its constructor, as ``DepthNetwork.config`` gives them.

    Raises:
        UsageError: unknown name (with the nearest one) or unsuitable arguments.

    Example:
        >>> create("repdepth").config()["widths"]
        [48, 96, 192, 208]
    """
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(name, _ARCHITECTURES, n=1)
        raise UsageError(
            f"No architecture is called '{name}'",
            why=f"Known: {', '.join(architectures())}.",
            fix=f"Did you mean '{near[0]}'?" if near else "Choose one of the known names.",
            error_id="model.architecture",
        )
    constructor: _Constructor = _ARCHITECTURES[name]
    try:
        return constructor(**config)
    except TypeError as error:
        raise UsageError(
            f"'{name}' cannot be built from {_short(config)}",
            why=str(error),
            fix="Use the arguments of its constructor.",
            error_id="model.config",
        ) from error


def _short(config: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in config.items())[:200] or "no arguments"
