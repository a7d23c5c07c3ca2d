"""Networks that are no depth networks by themselves: pose, flow, and the halves of published depth networks."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from torch import nn

from endolux.errors import UsageError

PublishedPart = Literal[
    "dares-pose-encoder",
    "dares-pose-decoder",
    "dares-transform-encoder",
    "dares-transform-decoder",
    "dares-position-encoder",
    "dares-position-decoder",
    "af-sfmlearner-encoder",
    "af-sfmlearner-decoder",
    "endodac-intrinsics-head",
]


class Part(nn.Module):
    """A network with a name in the registry of parts.

    Attributes:
        architecture: that name; stands in errors about weights.
    """

    architecture: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry:
    network: Callable[..., Part]
    fixed: Mapping[str, object]


_PARTS: dict[str, _Entry] = {}
_Network = TypeVar("_Network", bound=type[Part])


def register_part(name: str, **fixed: object) -> Callable[[_Network], _Network]:
    """Class decorator: make a network known to :func:`create_part` under ``name``.

    Args:
        name: name in the registry; a class may carry several.
        **fixed: constructor arguments that the name stands for.

    Example:
        >>> from endolux.models import parts
        >>> "dares-pose-decoder" in parts()
        True
    """

    def add(network: _Network) -> _Network:
        if name in _PARTS:
            raise UsageError(
                f"Two networks are called '{name}'",
                why="Names of networks stand in checkpoints and must be unique.",
                fix="Register the second one under another name.",
                error_id="model.duplicate",
            )
        _PARTS[name] = _Entry(network, fixed)
        return network

    return add


def parts() -> tuple[str, ...]:
    """Names that :func:`create_part` knows, sorted."""
    return tuple(sorted(_PARTS))


def create_part(name: str, **config: object) -> Part:
    """A network with fresh weights.

    Args:
        name: one of :func:`parts`.
        **config: arguments of its constructor.

    Raises:
        UsageError: ``model.architecture`` for an unknown name (with the nearest one), ``model.config`` for arguments
            that it does not take.

    Example:
        >>> import endolux.models
        >>> decoder = create_part("dares-pose-decoder")
        >>> decoder.architecture, sum(parameter.numel() for parameter in decoder.parameters())
        ('dares-pose-decoder', 1314572)
    """
    if name not in _PARTS:
        near = difflib.get_close_matches(name, _PARTS, n=1)
        raise UsageError(
            f"No part is called '{name}'",
            why=f"Known: {', '.join(parts())}.",
            fix=f"Did you mean '{near[0]}'?" if near else "Choose one of the known names.",
            error_id="model.architecture",
        )
    entry = _PARTS[name]
    changed = sorted(key for key, value in entry.fixed.items() if config.get(key, value) != value)
    if changed:
        raise UsageError(
            f"'{name}' cannot have {changed[0]}={config[changed[0]]!r}",
            why=f"The name stands for {changed[0]}={entry.fixed[changed[0]]!r}.",
            fix=f"Leave {changed[0]} out, or choose another name.",
            error_id="model.config",
        )
    try:
        network = entry.network(**{**entry.fixed, **config})
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in config.items())[:200]
        raise UsageError(
            f"'{name}' cannot be built from {given or 'no arguments'}",
            why=str(error),
            fix="Use the arguments of its constructor.",
            error_id="model.config",
        ) from error
    network.architecture = name
    return network
