"""Compilation of inner loops, and a stand-in that says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from endolux.errors import missing_extra

Result = TypeVar("Result")

try:
    from numba import njit
except ImportError:
    njit = None

# NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compile with IEEE arithmetic; the machine code is kept on disk.

    Example:
        >>> @compiled
        ... def twice(x):
        ...     return 2 * x
        >>> twice(3)
        6
    """
    return _compiled(function, fast=False)


def compiled_fast(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compile with arithmetic whose order may change; NaN and infinity keep their meaning."""
    return _compiled(function, fast=True)


def unread(count: int) -> npt.NDArray[np.float32]:
    """One zero in the place of ``count`` numbers that compiled code takes but does not read.

    A vectorised loop looks at run time whether its arrays could overlap, as if it read all ``count`` of them, and with
    arithmetic of free order its scalar form has other last bits. So there is room for all of them behind the one:
    otherwise the place of other arrays in memory would decide about bits.

    Example:
        >>> unread(5).size, unread(5).base.size
        (1, 5)
    """
    return np.zeros(max(count, 1), np.float32)[:1]


def _compiled(function: Callable[..., Result], *, fast: bool) -> Callable[..., Result]:
    if njit is None:

        def refuse(*_arguments: object, **_options: object) -> Result:
            raise missing_extra("numba", "phantom")

        return refuse
    # Code from a string has no file beside which it could be kept.
    kept = not function.__code__.co_filename.startswith("<")
    made: Callable[..., Result] = njit(cache=kept, error_model="numpy", fastmath=_FAST if fast else False)(function)
    return made
