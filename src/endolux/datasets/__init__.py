"""Data sets: one file each, with the reader of that set and the protocols it is scored by.

Example:
    >>> from endolux import datasets
    >>> "c3vd" in datasets.names(), datasets.get_protocol("simcol3d").expected_frames
    (True, 9009)
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from endolux.datasets.base import (
    PROTOCOLS,
    READERS,
    Averaging,
    Dataset,
    Finding,
    FrameKey,
    Opener,
    Protocol,
    Sample,
    Severity,
    frame_list_sha256,
    protocol,
    reader,
)
from endolux.errors import UsageError
from endolux.io.paths import printable

__all__ = [
    "AUTO",
    "Averaging",
    "Dataset",
    "Finding",
    "FrameKey",
    "Opener",
    "Protocol",
    "Sample",
    "Severity",
    "detect",
    "frame_list_sha256",
    "get_protocol",
    "names",
    "open_dataset",
    "protocol",
    "protocols",
    "reader",
]

AUTO = "auto"
"""Name that stands for whatever :func:`detect` finds."""


def names() -> list[str]:
    """Names of all readers, sorted.

    Example:
        >>> [name for name in names() if name.startswith("servct")]
        ['servct']
    """
    _import_readers()
    return sorted(READERS)


def protocols() -> Mapping[str, Protocol]:
    """All protocols by name.

    Example:
        >>> protocols()["nyu-eigen"].unit
        'm'
    """
    _import_readers()
    return MappingProxyType(dict(sorted(PROTOCOLS.items())))


def get_protocol(name: str) -> Protocol:
    """The protocol of that name, with or without its version (``c3vd/1``).

    Raises:
        UsageError: ``protocol.unknown`` with the nearest name, ``protocol.version`` for another version than this
            release has.

    Example:
        >>> get_protocol("c3vd/1").identity
        'c3vd/1'
    """
    plain, _, version = name.partition("/")
    found = protocols().get(plain)
    if found is None:
        raise _unknown("protocol", plain, protocols(), error_id="protocol.unknown")
    if version and version != str(found.version):
        raise UsageError(
            f"Protocol '{printable(name)}' is not in this release",
            why=f"It has '{found.identity}'; versions are raised whenever a number could change.",
            fix="Use that one, or the release that had the other.",
            error_id="protocol.version",
        )
    return found


def open_dataset(name: str, path: str | os.PathLike[str]) -> Dataset:
    """Open an unpacked data set. Files are listed; nothing is decoded before ``load``.

    Args:
        name: a name from :func:`names`, or ``auto`` to tell from the files.
        path: its folder; for some readers also a zip archive or a table.

    Raises:
        UsageError: ``dataset.name`` for an unknown reader, with the nearest name.
        InputError: nothing there, not this set, a file where a folder is expected; ``dataset.unknown`` and
            ``dataset.ambiguous`` from detection.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a_1.png", "a_1_depth.npy"):
        ...     (folder / name).touch()
        >>> dataset = open_dataset("auto", folder)
        >>> dataset.name, [str(key) for key in dataset.keys()]
        ('folder', ['a 1'])
    """
    _import_readers()
    root = Path(path)
    if name == AUTO:
        name = detect(root)
    opener = READERS.get(name)
    if opener is None:
        raise _unknown("data set", name, [*READERS, AUTO], error_id="dataset.name")
    return opener(root)


def detect(path: str | os.PathLike[str]) -> str:
    """Name of the reader for what lies at ``path``.

    Raises:
        InputError: ``input.missing``, ``input.not-a-folder`` for a file that is no table, ``dataset.unknown`` where
            nothing fits, ``dataset.ambiguous`` where more than one data set does.

    Example:
        >>> detect("/no/such/folder")
        Traceback (most recent call last):
        ...
        endolux.errors.InputError: error[input.missing]: No such file or folder: '/no/such/folder'
        ...
    """
    from endolux.datasets.detection import detect_reader

    _import_readers()
    return detect_reader(Path(path), READERS)


@cache
def _import_readers() -> None:
    # Readers and protocols register themselves; importing them all is put off until one is asked for.
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def _unknown(what: str, name: str, known: Iterable[str], *, error_id: str) -> UsageError:
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
    return UsageError(
        f"No {what} '{printable(name)}'" if name else f"No {what} was named",
        why=f"There are: {', '.join(listed)}.",
        fix=f"Did you mean '{near[0]}'?" if near else "Use one of these names.",
        error_id=error_id,
    )
