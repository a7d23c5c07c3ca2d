"""Files of the phantom on disk: whole or not there, and errors that say what to do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from endolux.errors import DeviceError, EndoluxError, InputError, from_os_error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, and its folders, at once: a reader finds all of it or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def os_error(error: OSError, path: Path) -> EndoluxError:
    """What a failed write becomes: a full disk or a folder that cannot be written, each with its way out."""
    found = from_os_error(error, error.filename or path)
    if isinstance(found, DeviceError):
        return DeviceError(
            found.what,
            why=found.why,
            fix="Free some space and run the same command again: what is finished is kept.",
            error_id=found.error_id,
        )
    if isinstance(found, InputError):
        return InputError(found.what, why=found.why, fix="Choose another -o FOLDER.", error_id=found.error_id)
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
