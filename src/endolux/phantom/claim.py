"""A folder that belongs to one run of the phantom."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

from endolux.errors import UsageError
from endolux.phantom.disk import os_error, write_bytes

RECORD = "settings.json"
"""What the run is, by which it is known again."""

HIDDEN = ".phantom"
"""Folder of what a run needs to go on: sequences in the making, marks of those that are done, the lock."""


class claimed:  # noqa: N801 - used as a function
    """A folder that holds this run and nothing else, while the block runs.

    Raises:
        UsageError: it is a file, holds other files or another run, or another process writes into it.
    """

    def __init__(self, folder: Path, record: Mapping[str, object]) -> None:
        self._folder = folder
        self._wanted = json.dumps(record, indent=1, sort_keys=True).encode()
        self._lock: int | None = None

    def __enter__(self) -> None:
        folder, record = self._folder, self._folder / RECORD
        try:
            if folder.exists() and not folder.is_dir():
                raise UsageError(
                    f"'{folder}' is a file",
                    why="Frames are written into a folder.",
                    fix="Choose another -o FOLDER.",
                    error_id="output.is-file",
                )
            if record.exists():
                if record.read_bytes() != self._wanted:
                    raise UsageError(
                        f"'{folder}' holds phantom frames made with other settings",
                        why="Mixing two runs in one folder would make its manifest wrong.",
                        fix=f"Choose another -o FOLDER, or repeat the settings of {RECORD} there.",
                        error_id="output.other-run",
                    )
            elif folder.exists() and any(not _is_ours(path) for path in folder.iterdir()):
                raise UsageError(
                    f"'{folder}' is not empty",
                    why="Endolux never overwrites files that it did not write.",
                    fix="Choose an empty or new -o FOLDER.",
                    error_id="output.foreign",
                )
            (folder / HIDDEN).mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / HIDDEN / "lock", folder)
            self._recorded()
        except OSError as error:
            self.__exit__()
            raise os_error(error, folder) from error
        except BaseException:
            self.__exit__()
            raise

    def _recorded(self) -> None:
        folder, record = self._folder, self._folder / RECORD
        for left in (*folder.glob(".*.tmp"), *(folder / HIDDEN).glob(".*.tmp")):
            left.unlink(missing_ok=True)
        if not record.exists():
            write_bytes(record, self._wanted)

    def __exit__(self, *_problem: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _is_ours(path: Path) -> bool:
    """Whether a file is what a run leaves that was killed before it could say what it is."""
    return path.name == HIDDEN or (path.name.startswith(f".{RECORD}.") and path.name.endswith(".tmp"))


def _lock(path: Path, folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - no such locks on this system
        return None
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return None
        raise UsageError(
            f"Another run is writing to '{folder}'",
            why="Two runs would move each other's files.",
            fix="Wait for it, or choose another -o FOLDER.",
            error_id="output.busy",
        ) from error
    return handle
