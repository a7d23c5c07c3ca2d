"""Input paths: what can be wrong with them, said once and with the fix."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from endolux.errors import EndoluxError, InputError


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as it may stand in a message or a table: one line, valid Unicode.

    Names on disk are bytes: they can hold line breaks and invalid UTF-8, which break three-line errors and CSV rows.

    Example:
        >>> printable("two\nlines.png")
        'two\\nlines.png'
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def input_error(error: OSError | ValueError, path: str | os.PathLike[str]) -> EndoluxError:
    """The error for an operating-system error met while reading ``path``.

    Example:
        >>> input_error(FileNotFoundError(2, "No such file or directory"), "a.png").error_id
        'input.missing'
    """
    name = printable(path) if "\0" not in os.fspath(path) else repr(os.fspath(path))
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        if number == errno.ENOENT and isinstance(error, OSError) and os.path.islink(path):  # noqa: PTH114
            return InputError(
                f"'{name}' is a link to something that does not exist",
                why="The link is broken: its target was moved or deleted.",
                fix="Repair the link, or give the path of the real file.",
                error_id="input.missing",
            )
        return InputError(
            f"No such file or folder: '{name}'",
            why="The path does not exist.",
            fix=f"Check the spelling; relative paths start from '{_working_folder()}'.",
            error_id="input.missing",
        )
    if number == errno.ELOOP:
        return InputError(
            f"'{name}' is a link that leads back to itself",
            why="Following the symbolic link never reaches a file.",
            fix="Repair the link, or give the path of the real file.",
            error_id="input.link-loop",
        )
    if number in (errno.EACCES, errno.EPERM):
        return InputError(
            f"Not allowed to read '{name}'",
            why="The permissions of the file, or of a folder above it, forbid it.",
            fix="Change them (chmod u+r FILE), or copy the file to a place of yours.",
            error_id="input.unreadable",
        )
    if number == errno.EISDIR:
        return _folder_where_file(name)
    return InputError(
        f"Cannot read '{name}'",
        why=f"The operating system said: {error}.",
        fix="Check the disk or the network drive that holds it.",
        error_id="input.os",
    )


def check_file(path: Path) -> int:
    """Size in bytes of a regular, non-empty file.

    Raises:
        InputError: missing, a folder, a device or pipe, unreadable or empty.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise input_error(error, path) from error
    if stat.S_ISDIR(status.st_mode):
        raise _folder_where_file(printable(path))
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"'{printable(path)}' is not a regular file",
            why="Pipes and devices cannot be sought in, and may never end.",
            fix="Save it to a file first.",
            error_id="input.not-a-file",
        )
    if status.st_size == 0:
        raise InputError(
            f"'{printable(path)}' is empty (0 bytes)",
            why="A copy or a recording was probably interrupted.",
            fix="Copy or record the file again.",
            error_id="input.zero-bytes",
        )
    return status.st_size


def truncated(path: str | os.PathLike[str], detail: str) -> InputError:
    """The error for a file that ends too early."""
    return InputError(
        f"'{printable(path)}' is cut off: {detail}",
        why="The file ends before its content does; a copy, a download or a recording was probably interrupted.",
        fix="Copy the file again from its source.",
        error_id="input.truncated",
    )


def _folder_where_file(name: str) -> InputError:
    return InputError(
        f"'{name}' is a folder, a file was expected",
        why="One image or one video is read here.",
        fix="Name a file in it; a whole folder is what endolux.io.sources.open_source and 'endolux predict' take.",
        error_id="input.folder",
    )


def _working_folder() -> str:
    try:
        return printable(Path.cwd())
    except OSError:
        return "."
