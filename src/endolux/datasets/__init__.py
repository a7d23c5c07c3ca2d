"""Data sets: one file each, with the reader of that set and the protocols it is scored by.

A reader is a function from the folder of an unpacked data set to (image, depth file) paths in a fixed order; a module
registers it with ``reader``. No set is registered yet: folders of image/depth pairs need no reader
(``endolux.evaluate.pairs``). Protocols (frame list, valid range, crop, alignment, averaging) will stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Reader = Callable[[Path], Iterable[tuple[Path, Path]]]
READERS: dict[str, Reader] = {}


def reader(name: str) -> Callable[[Reader], Reader]:
    """Register the reader of a data set under ``name``.

    Example:
        >>> @reader("nothing")
        ... def read_nothing(folder):
        ...     return ()
        >>> READERS.pop("nothing")(Path("."))
        ()
    """

    def decorate(function: Reader) -> Reader:
        READERS[name] = function
        return function

    return decorate
