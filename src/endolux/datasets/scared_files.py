"""The files of a SCARED keyframe folder: numbered files in folders or tar archives, the video."""

from __future__ import annotations

import abc
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from typing_extensions import override

from endolux.datasets.decode import damaged, numbered_files, read_bytes
from endolux.datasets.scared_points import left_view
from endolux.errors import InputError
from endolux.io.images import pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.io.sources import Failure
from endolux.io.video import VideoSource
from endolux.types import Frame, ImageArray

_SEEK_AHEAD = 32


class Numbered(abc.ABC):
    """Files that have a number each, in a folder or a tar archive.

    Attributes:
        path: the folder or archive.
    """

    path: Path

    @abc.abstractmethod
    def numbers(self) -> tuple[int, ...]:
        """All numbers, ascending."""

    @abc.abstractmethod
    def read(self, number: int) -> bytes:
        """Content of one file. Raises InputError where it is missing or damaged."""

    @abc.abstractmethod
    def name(self, number: int) -> str:
        """How errors call the file."""

    @abc.abstractmethod
    def file(self, number: int) -> Path:
        """The file on disk that holds it: itself, or the archive."""

    def _missing(self, number: int) -> InputError:
        return InputError(
            f"No file of number {number} in '{printable(self.path)}'",
            why="The frame is listed elsewhere, and this part of it is missing.",
            fix="Unpack the data set again, or leave the frame out.",
            error_id="dataset.missing-pair",
        )


class FolderFiles(Numbered):
    """Numbered files of a folder.

    Args:
        path: the folder.
        pattern: of whole file names, the number in its first group.
    """

    def __init__(self, path: Path, pattern: re.Pattern[str]) -> None:
        self.path = path
        self._files = numbered_files(path, pattern)

    @override
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._files)

    @override
    def read(self, number: int) -> bytes:
        return read_bytes(self.file(number))

    @override
    def name(self, number: int) -> str:
        return printable(self.file(number))

    @override
    def file(self, number: int) -> Path:
        if number not in self._files:
            raise self._missing(number)
        return self._files[number]


class TarFiles(Numbered):
    """Numbered files of a tar archive, compressed or not, read in place.

    Reading ascending numbers is one pass; going back starts anew, for a compressed archive cannot be sought in.

    Args:
        path: the archive.
        pattern: of whole base names, the number in its first group.
    """

    def __init__(self, path: Path, pattern: re.Pattern[str]) -> None:
        self.path = path
        self._pattern = pattern
        self._numbers: tuple[int, ...] | None = None
        self._archive: tarfile.TarFile | None = None
        self._last = -1
        self._broken: InputError | None = None
        check_file(path)

    @override
    def numbers(self) -> tuple[int, ...]:
        if self._numbers is None:
            with self._open() as archive:
                self._numbers = tuple(sorted({number for number, _ in self._members(archive)}))
        return self._numbers

    @override
    def read(self, number: int) -> bytes:
        if self._broken is not None and number > self._last:
            raise self._broken
        if self._archive is None or number <= self._last:
            self.close()
        found = self._read_ahead(number)
        if found is None and self._last >= 0:  # the archive may not be sorted
            self.close()
            found = self._read_ahead(number)
        if found is None:
            self.close()
            raise self._missing(number)
        return found

    @override
    def name(self, number: int) -> str:
        return f"{printable(self.path)} number {number}"

    @override
    def file(self, number: int) -> Path:
        return self.path

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        if self._archive is not None:
            self._archive.close()
        self._archive, self._last, self._broken = None, -1, None

    def _read_ahead(self, number: int) -> bytes | None:
        archive = self._archive = self._archive or self._open()
        for found, member in self._members(archive):
            self._last = max(self._last, found)
            if found == number:
                return self._extract(archive, member)
        return None

    def _members(self, archive: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo]]:
        while True:
            try:
                member = archive.next()
            except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
                raise self._cut(error) from error
            if member is None:
                return
            # The names of all members would pile up here.
            archive.members = []  # type: ignore[attr-defined]
            match = self._pattern.fullmatch(member.name.rsplit("/", 1)[-1])
            if match is not None and member.isreg():
                yield int(match.group(1)), member

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
        # Three floats a pixel and two views; a larger member is no frame of this set.
        if member.size > 32 * pixel_limit():
            raise damaged(f"{printable(self.path)}: {printable(member.name)}", f"it has {member.size} bytes")
        try:
            file = archive.extractfile(member)
            data = file.read() if file is not None else b""
        except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
            raise self._cut(error) from error
        if len(data) < member.size:
            raise self._cut(EOFError(f"{len(data)} of {member.size} bytes of '{member.name}' are there"))
        return data

    def _cut(self, error: Exception) -> InputError:
        self._broken = truncated(self.path, " ".join(str(error).split()) or "its end is missing")
        return self._broken

    def _open(self) -> tarfile.TarFile:
        try:
            return tarfile.open(self.path, "r:*")
        except (EOFError, tarfile.TarError, zlib.error) as error:
            raise damaged(printable(self.path), f"it is not a tar archive ({' '.join(str(error).split())})") from error
        except OSError as error:
            raise input_error(error, self.path) from error


class VideoFrames:
    """Frames of a video by position, read forward as long as that is possible.

    Args:
        path: the video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source: VideoSource | None = None
        self._frames: Iterator[Frame | Failure] | None = None
        self._next = 0

    def read(self, position: int) -> ImageArray:
        """The left picture of one frame, H x W x 3 RGB.

        Raises:
            InputError: no such frame (``scared.video-frame``), or it cannot be decoded.
        """
        source = self._source = self._source or VideoSource(self.path)
        if self._frames is None or not self._next <= position < self._next + _SEEK_AHEAD:
            self._frames, self._next = source.frames(position), position
        for item in self._frames:
            self._next += 1
            if self._next <= position:
                continue
            if isinstance(item, Failure):
                raise item.error
            return np.ascontiguousarray(left_view(item.image), dtype=np.uint8)
        self._frames = None
        raise InputError(
            f"'{printable(self.path)}' has no frame {position} (from 0)",
            why="Poses or point maps are listed for more frames than the video has.",
            fix="Copy the video again; it may be cut off.",
            error_id="scared.video-frame",
        )

    def count(self) -> int:
        """Number of frames, by decoding the whole video."""
        return sum(1 for _ in VideoSource(self.path).frames())


def open_numbered(folder: Path, stem: str, pattern: re.Pattern[str]) -> Numbered | None:
    """``folder/stem`` as a folder, or ``stem.tar.gz``, ``stem.tgz``, ``stem.tar`` beside it; None if there is none."""
    if (folder / stem).is_dir():
        files = FolderFiles(folder / stem, pattern)
        if files.numbers():
            return files
    for suffix in (".tar.gz", ".tgz", ".tar"):
        if (folder / f"{stem}{suffix}").is_file():
            return TarFiles(folder / f"{stem}{suffix}", pattern)
    return None


def path_exists(path: Path) -> bool:
    """Whether a regular file is there; unreadable folders count as no."""
    try:
        return path.is_file()
    except OSError:
        return False


def file_if_there(path: Path) -> list[Path]:
    """The path in a list, or nothing."""
    return [path] if path_exists(path) else []


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths are one place on disk, or one lies in the other."""
    first, second = Path(os.path.realpath(a)), Path(os.path.realpath(b))
    return first == second or first in second.parents
