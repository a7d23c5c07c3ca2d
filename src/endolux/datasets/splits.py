"""Frame lists of protocols: everything, named sequences, or what a file of the user lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from endolux.datasets.base import FrameKey
from endolux.datasets.decode import read_text
from endolux.errors import InputError, UsageError
from endolux.io.paths import printable

Select = Callable[[Sequence[FrameKey], Path | None], Sequence[FrameKey]]


def every_frame(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    """All frames in the order of the set; a list given by the user would be ignored, so it is refused.

    Raises:
        UsageError: ``protocol.split``.
        InputError: ``protocol.empty``.
    """
    no_list(split)
    return not_empty(keys, "the whole set")


def sequences(*names: str) -> Select:
    """Frames of the named sequences, all of which must be there.

    A name stands for itself and for the sequences below it (``Test`` for ``Test/Patient_1``); ``a|b`` for a sequence
    that is called either way.

    Example:
        >>> keys = [FrameKey(sequence=name, index=0) for name in ("a", "b", "b/c")]
        >>> [key.sequence for key in sequences("b")(keys, None)]
        ['b', 'b/c']
    """

    def select(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
        no_list(split)
        chosen: list[FrameKey] = []
        missing: list[str] = []
        for name in names:
            part = [key for key in keys if any(f"{key.sequence}/".startswith(f"{one}/") for one in name.split("|"))]
            if not part:
                missing.append(name)
            chosen += part
        if missing:
            raise InputError(
                f"{len(missing)} of {len(names)} scored sequences are not in the folder: {', '.join(missing[:4])}",
                why="A score over a part of the list would look like the whole.",
                fix=f"Unpack them; the list is {', '.join(names)}.",
                error_id="protocol.sequences",
            )
        return chosen

    return select


def list_lines(split: Path | None, *, what: str) -> list[str]:
    """Lines of a list that the user must give; empty lines and those that begin with # are left out.

    Raises:
        UsageError: ``protocol.split`` where none was given.
        InputError: ``protocol.empty`` for an empty one, or the file cannot be read.
    """
    if split is None:
        raise UsageError(
            "This protocol needs the list of its frames",
            why=f"It scores {what}, which no rule produces.",
            fix="Add --split FILE with the published list.",
            error_id="protocol.split",
        )
    lines = [line.strip() for line in read_text(split).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(
            f"The list '{printable(split)}' is empty",
            why="A protocol without frames has no score.",
            fix="Give the published list, one frame a line.",
            error_id="protocol.empty",
        )
    return lines


def no_list(split: Path | None) -> None:
    """Refuse a list that this protocol does not read. Raises UsageError ``protocol.split``."""
    if split is not None:
        raise UsageError(
            f"This protocol takes no list, '{printable(split)}' was given",
            why="Its frames follow from the data set alone.",
            fix="Leave out --split.",
            error_id="protocol.split",
        )


def not_empty(keys: Sequence[FrameKey], what: str) -> Sequence[FrameKey]:
    """The keys, if there are any. Raises InputError ``protocol.empty``."""
    if not keys:
        raise InputError(
            f"No frame of {what} is in the folder",
            why="A protocol without frames has no score.",
            fix="Unpack the missing part, or run 'endolux data check' on the folder.",
            error_id="protocol.empty",
        )
    return keys
