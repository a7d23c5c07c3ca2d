"""The one error hierarchy: what happened, why, what to do; a stable id and an exit code."""

from __future__ import annotations

import errno
from typing import ClassVar

from typing_extensions import override

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_MODEL = 4
EXIT_PARTIAL = 5
EXIT_CHECK = 6
EXIT_EXTRA = 7
EXIT_DEVICE = 8
EXIT_INTERRUPTED = 130


class EndoluxError(Exception):
    """Base of every error that a user can cause or mend.

    Args:
        what: what happened, with the offending value.
        why: the reason, in one sentence.
        fix: what the user can do now.
        error_id: stable identifier, ``<area>.<case>`` (for example ``input.truncated``).

    Example:
        >>> error = InputError("No file 'a.png'", why="It does not exist.", fix="Check it.", error_id="input.missing")
        >>> error.exit_code, error.error_id
        (3, 'input.missing')
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, what: str, *, why: str, fix: str, error_id: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.error_id = error_id

    @override
    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by default; worker processes need it.
        return (_rebuild, (type(self), self.what, self.why, self.fix, self.error_id))

    def lines(self) -> tuple[str, str, str]:
        """The three lines a terminal shows."""
        return (f"error[{self.error_id}]: {self.what}", f"  why: {self.why}", f"  fix: {self.fix}")

    @override
    def __str__(self) -> str:
        return "\n".join(self.lines())


def _rebuild(kind: type[EndoluxError], what: str, why: str, fix: str, error_id: str) -> EndoluxError:
    return kind(what, why=why, fix=fix, error_id=error_id)


class UsageError(EndoluxError):
    """The command line, a recipe or an argument is wrong (exit 2)."""

    exit_code = EXIT_USAGE


class InputError(EndoluxError):
    """An input file, frame or folder cannot be used (exit 3)."""

    exit_code = EXIT_INPUT


class ModelError(EndoluxError):
    """A bundle or checkpoint is missing, damaged or unsuitable (exit 4)."""

    exit_code = EXIT_MODEL


class PartialError(EndoluxError):
    """The run ended, and some of its inputs failed (exit 5)."""

    exit_code = EXIT_PARTIAL


class CheckError(EndoluxError):
    """A check that the user asked for did not hold (exit 6)."""

    exit_code = EXIT_CHECK


class MissingExtraError(EndoluxError):
    """An optional dependency is not installed (exit 7)."""

    exit_code = EXIT_EXTRA


class DeviceError(EndoluxError):
    """Memory, disk or an accelerator gave out (exit 8)."""

    exit_code = EXIT_DEVICE


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """The error for an absent optional package, with the line that installs it."""
    return MissingExtraError(
        f"The package '{package}' is not installed",
        why=f"It belongs to the optional extra '{extra}', which this installation lacks.",
        fix=f"pip install 'endolux[{extra}]'",
        error_id="extra.missing",
    )


def from_os_error(error: OSError, path: object) -> EndoluxError:
    """Turn an operating-system error met while writing ``path`` into one that carries the fix."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DeviceError(
            f"The disk is full while writing '{path}'",
            why=f"The operating system said: {error.strerror}.",
            fix="Free some space or choose another -o folder, then run the same command with --resume.",
            error_id="device.disk-full",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(
            f"Cannot write to '{path}'",
            why=f"The operating system said: {error.strerror}.",
            fix="Choose an output folder that you may write to (-o FOLDER).",
            error_id="output.not-writable",
        )
    return InputError(
        f"Cannot access '{path}'",
        why=f"The operating system said: {error.strerror or error}.",
        fix="Check the path and its permissions.",
        error_id="input.os",
    )
