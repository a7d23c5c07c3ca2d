"""Where frames come from: one image, a folder, a glob pattern or a video."""

from __future__ import annotations

import abc
import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from typing_extensions import override

from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.headers import SIGNATURE_BYTES, sniff
from endolux.io.images import IMAGE_SUFFIXES, pixel_limit, read_pixels
from endolux.io.paths import check_file, input_error, printable
from endolux.types import Camera, Frame

_DIGITS = re.compile(r"([0-9]+)")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One input that could not be read; the run goes on.

    Attributes:
        index: position in the source, counted like the frames.
        name: file name or frame number.
        error: what happened, why, and the fix.
    """

    index: int
    name: str
    error: EndoluxError


class Source(abc.ABC):
    """A finite sequence of frames with stable positions.

    Attributes:
        kind: image, folder, glob or video.
        name: short name for reports.
        fps: mean frame rate of a video, None for images.
        count: number of frames; exact for images, an estimate for a video, None if its container does not say.
        size: (width, height) of the upright frames of an image or video; None for folders, whose images may differ.
        interlaced: the video is coded in fields (and is deinterlaced on the way).
    """

    kind: ClassVar[str]
    name: str
    fps: float | None = None
    count: int | None = None
    size: tuple[int, int] | None = None
    interlaced: bool = False

    @abc.abstractmethod
    def frames(self, start: int = 0) -> Iterator[Frame | Failure]:
        """Frames in order, the first ``start`` left out; indices count from 0 at the beginning of the source.

        May be called again; every call reads anew and holds one frame at a time.
        """

    def close(self) -> None:  # noqa: B027
        """Release files; a closed source can be read again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(source: str | os.PathLike[str], *, limit: int | None = None, camera: Camera | None = None) -> Source:
    """Open an image, a folder of images, a glob pattern or a video.

    Folders and patterns are sorted naturally by name (``2.png`` before ``10.png``), folders are not searched
    recursively, names that begin with a dot are left out. A path that exists is taken literally even if it holds
    ``*``, ``?`` or ``[``.

    Args:
        source: path or pattern. Patterns follow the shell, ``**`` included.
        limit: stop before this position.
        camera: intrinsics of every (upright) frame, if known.

    Returns:
        An open source. A bad image in a folder, or a bad frame in a video, comes out of it as a ``Failure``; a bad
        single image is raised from ``frames``.

    Raises:
        InputError: nothing there (``input.missing``, ``input.empty``, ``input.no-images``), a video that cannot be
            opened (``input.no-video``, ``input.truncated``, ``input.not-video``).
        UsageError: an address instead of a file (``input.url``), an impossible limit (``input.limit``).

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in (10, 9):
        ...         np.save(f"{folder}/{number}.npy", np.full((2, 3), number, np.uint8))
        ...     with open_source(folder) as source:
        ...         names = [frame.name for frame in source.frames()]
        >>> names
        ['9.npy', '10.npy']
    """
    if limit is not None and limit < 1:
        raise UsageError(
            f"Impossible limit {limit}",
            why="It is the number of frames to read.",
            fix="Give 1 or more, or leave it out to read all.",
            error_id="input.limit",
        )
    text = os.fspath(source)
    if not text:
        raise UsageError(
            "The input path is empty",
            why="An empty text names no file.",
            fix="Give an image, a folder, a quoted pattern or a video.",
            error_id="input.no-path",
        )
    if _URL.match(text):
        raise UsageError(
            f"'{printable(text)}' is an address, not a file",
            why="Endolux reads local files only and never opens the network.",
            fix="Download the file first, then give its path.",
            error_id="input.url",
        )
    path = Path(text)
    try:
        exists = os.path.lexists(path)
        folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise input_error(error, text) from error
    if folder:
        return _open_folder(path, limit, camera)
    if not exists and glob.has_magic(text):
        return _open_glob(text, limit, camera)
    return _open_file(path, limit, camera)


class ImageSource(Source):
    """One image file."""

    kind = "image"

    def __init__(self, path: Path, *, camera: Camera | None = None) -> None:
        self.name = printable(path.name)
        self.count = 1
        self._path = path
        self._camera = camera
        self._max_pixels = pixel_limit()

    @override
    def frames(self, start: int = 0) -> Iterator[Frame | Failure]:
        """The image, unless it is skipped. Raises InputError where it cannot be read: nothing else is left."""
        check_start(start)
        if start == 0:
            image = read_pixels(self._path, max_pixels=self._max_pixels)
            self.size = (image.shape[1], image.shape[0])
            yield Frame(image=image, name=self.name, camera=self._camera)


class ImageListSource(Source):
    """Many image files, read one at a time in the order given.

    Args:
        names: paths relative to ``root``.
        root: folder they lie in.
        name: short name of the source.
        camera: intrinsics of every upright image.
    """

    kind = "folder"

    def __init__(self, names: Sequence[str], *, root: str, name: str, camera: Camera | None = None) -> None:
        self.name = name
        self.count = len(names)
        self._names = names
        self._root = root
        self._camera = camera
        self._max_pixels = pixel_limit()

    @override
    def frames(self, start: int = 0) -> Iterator[Frame | Failure]:
        """Frames in order; a file that cannot be read comes out as a Failure."""
        check_start(start)
        for index in range(start, len(self._names)):
            path = Path(self._root, self._names[index])
            name = printable(self._names[index])
            item: Frame | Failure
            try:
                image = read_pixels(path, max_pixels=self._max_pixels)
                item = Frame(image=image, index=index, name=name, camera=self._camera)
            except EndoluxError as error:
                item = Failure(index=index, name=name, error=error)
            yield item

    @property
    def relative_names(self) -> tuple[str, ...]:
        """The names as :meth:`frames` gives them, in order."""
        return tuple(self._names)

    def files(self) -> list[Path]:
        """The files in their order, for whoever reads them in another one."""
        return [Path(self._root, name) for name in self._names]


class GlobSource(ImageListSource):
    """Image files that match a pattern."""

    kind = "glob"


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that orders runs of digits by value; the name itself breaks ties such as ``1`` and ``01``.

    Example:
        >>> sorted(["f10.png", "f9.png", "F1.png"], key=natural_key)
        ['F1.png', 'f9.png', 'f10.png']
    """
    parts: list[str | int] = list(_DIGITS.split(name.casefold()))
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts), name


def check_start(start: int) -> None:
    """Refuse a negative start (UsageError ``input.start``)."""
    if start < 0:
        raise UsageError(
            f"Impossible start {start}",
            why="It is the number of frames to leave out.",
            fix="Give 0 or more.",
            error_id="input.start",
        )


def _open_folder(path: Path, limit: int | None, camera: Camera | None) -> Source:
    names: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # Links are not followed here: a broken one is to be counted as a failure, not overlooked.
                wanted = _is_image_name(entry.name) and not entry.is_dir(follow_symlinks=False)
                if wanted:
                    names.append(entry.name)
                elif len(others) < 3:
                    others.append(entry.name)
    except OSError as error:
        raise input_error(error, path) from error
    if not names:
        raise _nothing_to_read(f"The folder '{printable(path)}'", others)
    names.sort(key=natural_key)
    root = os.fspath(path)
    return ImageListSource(names[:limit], root=root, name=printable(path.resolve().name or root), camera=camera)


def _open_glob(pattern: str, limit: int | None, camera: Camera | None) -> Source:
    # The fixed folders before the first wildcard are common to all matches and say nothing about any of them.
    fixed = pattern[: re.search(r"[*?\[]", pattern).start()]  # type: ignore[union-attr]
    root = fixed[: fixed.rfind(os.sep) + 1]
    try:
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
    except (OSError, ValueError, re.error) as error:
        raise InputError(
            f"Cannot use the pattern '{printable(pattern)}'",
            why=f"Matching it failed: {error}.",
            fix="Quote the pattern, and write it like 'frames/*.png'.",
            error_id="input.pattern",
        ) from error
    if not matches:
        raise InputError(
            f"Nothing matches '{printable(pattern)}'",
            why="No file of that pattern exists; * and ? do not match names that begin with a dot.",
            fix="Check the folder and the ending; quote the pattern so that the shell leaves it alone.",
            error_id="input.empty",
        )
    names = [match for match in matches if _is_image_name(match)]
    if not names:
        raise _nothing_to_read(f"The pattern '{printable(pattern)}'", sorted(matches)[:3])
    names = [name[len(root) :] for name in names]
    names.sort(key=natural_key)
    return GlobSource(names[:limit], root=root, name=printable(pattern), camera=camera)


def _open_file(path: Path, limit: int | None, camera: Camera | None) -> Source:
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(SIGNATURE_BYTES)
    except OSError as error:
        raise input_error(error, path) from error
    if sniff(head) or _is_image_name(path.name):
        return ImageSource(path, camera=camera)
    # PyAV costs a sixth of a second to import, which a still image should not pay.
    from endolux.io.video import VideoSource

    return VideoSource(path, limit=limit, camera=camera)


def _is_image_name(name: str) -> bool:
    dot = name.rfind(".")
    return dot >= 0 and name[dot:].lower() in IMAGE_SUFFIXES


def _nothing_to_read(what: str, others: list[str]) -> InputError:
    if not others:
        return InputError(
            f"{what} is empty",
            why="There is no file in it (names that begin with a dot do not count).",
            fix="Give a folder with images, or a video.",
            error_id="input.empty",
        )
    return InputError(
        f"{what} holds no images",
        why=f"It holds {', '.join(printable(name) for name in others)}; folders in it are not searched.",
        fix="Give the folder that holds the images themselves, or name one video.",
        error_id="input.no-images",
    )
