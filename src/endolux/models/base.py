"""What every depth network of Endolux offers, and the registry of architectures."""

from __future__ import annotations

import abc
import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, Self, TypeVar, overload

from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.models.parts import PublishedPart, create_part, parts
from endolux.types import DepthKind


class DepthNetwork(nn.Module, abc.ABC):
    """A network that maps an image to depth, as training and export see it.

    Attributes:
        architecture: name in the registry; stands in checkpoints and cards.
        kind: meaning of the values that :meth:`depth` gives.
        multiple: height and width of the input must be multiples of this.
    """

    architecture: str
    kind: DepthKind
    multiple: int
    FEATURES: ClassVar[Mapping[str, int]] = {}
    """What :meth:`feature_names` gives where the configuration does not change it."""

    @abc.abstractmethod
    def config(self) -> dict[str, object]:
        """Constructor arguments as JSON values: ``create(self.architecture, **self.config())`` builds it again."""

    @abc.abstractmethod
    def depth_range(self) -> tuple[float, float]:
        """Smallest and largest depth the network can give."""

    @abc.abstractmethod
    def fuse(self) -> Self:
        """A copy for inference: every branch and BatchNorm folded into plain convolutions; the same function."""

    @abc.abstractmethod
    @override
    def forward(self, image: Tensor) -> Tensor:
        """The network's own output, as published: N x 1 x H x W for N x 3 x H x W RGB in [0, 1]."""

    @abc.abstractmethod
    def depth(self, image: Tensor) -> Tensor:
        """Positive depth of the given :attr:`kind`, N x 1 x H x W float32, for N x 3 x H x W RGB in [0, 1]."""

    def depth_of(self, output: Tensor) -> Tensor:
        """What :meth:`depth` gives for an output of :meth:`forward`: the output itself where that is depth."""
        return output.float()

    def log_depth(self, image: Tensor) -> Tensor:
        """Natural logarithm of :meth:`depth`."""
        return self.depth(image).log()

    def feature_names(self) -> Mapping[str, int]:
        """Channels of every intermediate map that :meth:`features` gives, by name."""
        return self.FEATURES

    def features(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Intermediate maps by name, for feature distillation.

        Raises:
            UsageError: ``model.feature`` for a name that :meth:`feature_names` lacks.
        """
        return self.with_features(image, names)[1]

    def with_features(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """What :meth:`forward` and :meth:`features` give, in one pass."""
        self._check_features(names)
        return self(image), {}

    def disparities(self, image: Tensor) -> tuple[Tensor, ...]:
        """Positive inverse depth in 1/unit, finest first, N x 1 x H/2^s x W/2^s float32.

        More than one only where the network has side outputs in its training form; multi-scale losses read them all.

        Example:
            >>> import torch
            >>> network, image = create("repdepth").eval(), torch.rand(1, 3, 32, 64)
            >>> [tuple(each.shape) for each in network.disparities(image)]
            [(1, 1, 32, 64)]
        """
        return self.with_disparities(image, ())[0]

    def with_disparities(self, image: Tensor, names: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """What :meth:`disparities` and :meth:`features` give, in one pass where the network can.

        Raises:
            UsageError: ``model.feature`` for a name that :meth:`feature_names` lacks.
        """
        self._check_features(names)
        # Networks differ in what forward gives, so that only a network of its own can share the pass with the maps.
        return (1.0 / self.depth(image).float(),), self.features(image, names) if names else {}

    def discontinuous(self, image: Tensor) -> Tensor | None:
        """N x 1 x H x W, True where rounding alone may move :meth:`depth` far; None: nowhere."""
        del image
        return None

    def _check_features(self, names: Sequence[str]) -> None:
        known = self.feature_names()
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UsageError(
                    f"'{self.architecture}' has no feature map '{name}'",
                    why=f"Known: {', '.join(known)}." if known else "It offers none.",
                    fix=f"Did you mean '{near[0]}'?" if near else "Choose one of the known names.",
                    error_id="model.feature",
                )


class _Constructor(Protocol):
    # Architectures differ in their arguments; recipes and checkpoints carry them as JSON values.
    def __call__(self, **config: object) -> DepthNetwork: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Architecture:
    network: Callable[..., DepthNetwork]
    fixed: Mapping[str, object]


_ARCHITECTURES: dict[str, _Architecture] = {}
_Network = TypeVar("_Network", bound=type[DepthNetwork])


def register(name: str, **fixed: object) -> Callable[[_Network], _Network]:
    """Class decorator: make a network known to :func:`create` under ``name``.

    Args:
        name: name in the registry.
        **fixed: constructor arguments that make the variant; a class may carry several decorators.

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
        _ARCHITECTURES[name] = _Architecture(network, fixed)
        if not fixed:
            network.architecture = name
        return network

    return add


def architectures() -> tuple[str, ...]:
    """Names that :func:`create` knows, sorted."""
    return tuple(sorted(_ARCHITECTURES))


@overload
def create(name: PublishedPart, **config: object) -> nn.Module: ...  # type: ignore[overload-overlap]


@overload
def create(name: str, **config: object) -> DepthNetwork: ...


def create(name: str, **config: object) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: one of :func:`architectures`, or of :func:`endolux.models.parts.parts` for a network that gives no depth
            by itself.
        **config: arguments of its constructor, as ``DepthNetwork.config`` gives them.

    Raises:
        UsageError: unknown name (with the nearest one) or unsuitable arguments.

    Example:
        >>> create("repdepth").config()["widths"]
        [48, 96, 192, 208]
        >>> create("leve-3x3").architecture
        'leve-3x3'
    """
    if name in parts():
        return create_part(name, **config)
    if name not in _ARCHITECTURES:
        near = difflib.get_close_matches(name, (*_ARCHITECTURES, *parts()), n=1)
        raise UsageError(
            f"No architecture is called '{name}'",
            why=f"Known: {', '.join(architectures())}.",
            fix=f"Did you mean '{near[0]}'?" if near else "Choose one of the known names.",
            error_id="model.architecture",
        )
    found = _ARCHITECTURES[name]
    for key, value in found.fixed.items():
        if key in config and config[key] != value:
            raise UsageError(
                f"'{name}' cannot have {key}={config[key]!r}",
                why=f"The name stands for {key}={value!r}.",
                fix=f"Leave {key} out, or choose the architecture of another name.",
                error_id="model.config",
            )
    constructor: _Constructor = found.network
    try:
        network = constructor(**{**found.fixed, **config})
    except TypeError as error:
        raise UsageError(
            f"'{name}' cannot be built from {_short(config)}",
            why=str(error),
            fix="Use the arguments of its constructor.",
            error_id="model.config",
        ) from error
    network.architecture = name
    return network


def _short(config: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in config.items())[:200] or "no arguments"
