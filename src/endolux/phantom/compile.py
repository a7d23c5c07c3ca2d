"""Compilation of inner loops, and a stand-in that says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

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


def _compiled(function: Callable[..., Result], *, fast: bool) -> Callable[..., Result]:
    if njit is None:

        def refuse(*_arguments: object, **_options: object) -> Result:
            raise missing_extra("numba", "phantom")

        return refuse
    # Code from a string has no file beside which it could be kept.
    kept = not function.__code__.co_filename.startswith("<")
    made: Callable[..., Result] = njit(cache=kept, error_model="numpy", fastmath=_FAST if fast else False)(function)
    return made
