"""Hashes of every file of a folder, in the format of ``sha256sum``; an interrupted run goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from endolux.errors import InputError, UsageError, from_os_error
from endolux.io.paths import input_error, printable
from endolux.io.tables import write_bytes_atomic


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HashedFolder:
    """What was hashed.

    Attributes:
        files: number of files.
        bytes: their size together.
        reused: files whose hash came from the interrupted run.
        sha256: hash of the manifest itself: one number for the whole folder.
    """

    files: int
    bytes: int
    reused: int
    sha256: str


def write_hashes(
    folder: str | Path, output: str | Path, *, on_progress: Callable[[int, int], None] | None = None
) -> HashedFolder:
    """Hash every regular file under a folder into a file that ``sha256sum -c`` understands (run it in the folder).

    Names are relative, sorted, with ``/``; linked folders are not entered. While it runs, finished hashes stand in
    ``.NAME.partial`` beside the output; a second run takes those whose file has the same size and time of change.

    Args:
        folder: what to hash.
        output: file to write; must not exist.
        on_progress: called with (files done, files in all).

    Raises:
        UsageError: ``output.exists``, or the place is not writable.
        InputError: the folder is missing, no folder or empty (``data.empty``), or a file cannot be read.
        DeviceError: the disk is full.

    Example:
        >>> import tempfile
        >>> data = Path(tempfile.mkdtemp())
        >>> _ = (data / "a.txt").write_text("a")
        >>> write_hashes(data, data / "manifest.sha256").files
        1
    """
    root, target = Path(folder), Path(output)
    if os.path.lexists(target):
        raise UsageError(
            f"'{printable(target)}' exists already",
            why="Manifests are never overwritten.",
            fix="Choose another file with -o FILE.",
            error_id="output.exists",
        )
    journal = target.with_name(f".{target.name}.partial")
    own = {target.absolute(), journal.absolute()}
    names = sorted(name for name in _walk(root) if (root / name).absolute() not in own)
    if not names:
        raise InputError(
            f"No files in '{printable(root)}'",
            why="There is nothing to hash.",
            fix="Give the folder of the unpacked data set.",
            error_id="data.empty",
        )
    known = _read_journal(journal)
    lines: list[bytes] = []
    total, reused = 0, 0
    try:
        with journal.open("a", encoding="utf-8", errors="surrogateescape") as record:
            for number, name in enumerate(names):
                stamp, digest, fresh = _hash(root / name, known.get(name))
                total += stamp[0]
                reused += not fresh
                if fresh:
                    record.write(json.dumps([name, *stamp, digest]) + "\n")
                    record.flush()
                lines.append(_line(name, digest))
                if on_progress is not None:
                    on_progress(number + 1, len(names))
    except OSError as error:
        raise from_os_error(error, target) from error
    content = b"".join(lines)
    write_bytes_atomic(target, content, durable=True)
    journal.unlink(missing_ok=True)
    return HashedFolder(files=len(names), bytes=total, reused=reused, sha256=hashlib.sha256(content).hexdigest())


def _walk(root: Path) -> Iterator[str]:
    if root.exists() and not root.is_dir():
        raise InputError(
            f"'{printable(root)}' is a file, a folder was expected",
            why="A manifest covers a whole folder.",
            fix="Give the folder that holds it.",
            error_id="input.not-a-folder",
        )

    def fail(error: OSError) -> None:
        raise input_error(error, error.filename or root)

    for folder, folders, names in os.walk(root, onerror=fail):
        folders.sort()
        relative = os.path.relpath(folder, root)
        for name in names:
            if (Path(folder) / name).is_file():
                yield name if relative == "." else f"{relative.replace(os.sep, '/')}/{name}"


def _hash(path: Path, known: tuple[tuple[int, int], str] | None) -> tuple[tuple[int, int], str, bool]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = status.st_size, status.st_mtime_ns
            if known is not None and known[0] == stamp:
                return stamp, known[1], False
            return stamp, hashlib.file_digest(file, "sha256").hexdigest(), True
    except OSError as error:
        raise input_error(error, path) from error


def _read_journal(path: Path) -> dict[str, tuple[tuple[int, int], str]]:
    known: dict[str, tuple[tuple[int, int], str]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return known
    for line in text.splitlines():
        try:
            name, size, time, digest = json.loads(line)
            known[str(name)] = (int(size), int(time)), str(digest)
        except (ValueError, TypeError):
            continue  # the line that was being written when the run stopped
    return known


def _line(name: str, digest: str) -> bytes:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape")
