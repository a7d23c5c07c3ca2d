"""Videos and folders of frames as pictures by number, for trainings that need no depth."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError, from_os_error
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import Failure, ImageListSource, open_source
from endolux.io.video import VideoSource
from endolux.types import ImageArray

FOOTAGE = ("video", "frames")
LONGEST_SIDE = 640
"""Frames of a video are kept no larger than this; snippets are drawn in a random order, which no codec likes."""

_EDGE = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Pictures in their order.

    Attributes:
        name: short name.
        count: pictures.
        frame: reads one. Raises InputError where it cannot be read.
        fingerprint: of the contents.
    """

    name: str
    count: int
    frame: Callable[[int], ImageArray]
    fingerprint: Callable[[], str]


def read_footage(kind: str, path: str) -> Footage:
    """Open a video or a folder (or pattern) of frames.

    A video is decoded once into a temporary file, scaled down to at most 640 pixels; frames in a folder are read when
    they are needed. Frames that cannot be decoded are left out of a video's end only: elsewhere they are an error,
    because what stands beside a gap is no neighbour.

    Args:
        kind: ``video`` or ``frames``.
        path: where.

    Raises:
        InputError: as :func:`endolux.io.sources.open_source`; ``video.kind`` where it is the other kind,
            ``video.frame`` for a frame that cannot be decoded.
        DeviceError: the disk is full.
    """
    source = open_source(path)
    if kind == "frames":
        if not isinstance(source, ImageListSource):
            raise _other_kind(path, "no folder of frames", f"video:{path}")
        return _frames(source)
    if not isinstance(source, VideoSource):
        raise _other_kind(path, "no video", f"frames:{path}")
    return _video(source, path)


def _frames(source: ImageListSource) -> Footage:
    files = source.files()

    def fingerprint() -> str:
        lines = [f"{file.name}\t{file.stat().st_size}" for file in files if file.is_file()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    return Footage(source.name, len(files), lambda index: read_pixels(files[index]), fingerprint)


def _video(source: VideoSource, path: str) -> Footage:
    # It lives as long as the footage, and has no name that could be left behind.
    file = tempfile.TemporaryFile()  # noqa: SIM115
    shape: tuple[int, ...] | None = None
    count = 0
    try:
        with source:
            for item in source.frames():
                if isinstance(item, Failure):
                    raise InputError(
                        f"Frame {item.index} of '{printable(path)}' cannot be decoded",
                        why=f"{item.error.what}. What stands beside a gap is no neighbour.",
                        fix="Cut the video before that frame, or repair it.",
                        error_id="video.frame",
                    ) from item.error
                image = _small(item.image)
                if shape is None:
                    shape = image.shape
                if image.shape != shape:
                    raise InputError(
                        f"Frame {item.index} of '{printable(path)}' has another size than the first",
                        why="The frames of a snippet are seen by one camera, so they must have one size.",
                        fix="Cut the video where its size changes.",
                        error_id="video.frame-sizes",
                    )
                file.write(np.ascontiguousarray(image).data)
                count += 1
        file.flush()
    except OSError as error:
        raise from_os_error(error, tempfile.gettempdir()) from error
    frames = _mapped(file, (count, *(shape or (1, 1, 3))))

    def fingerprint() -> str:
        place = Path(path)
        size = place.stat().st_size
        with place.open("rb") as data:
            digest = hashlib.sha256(f"{place.name} {size}".encode() + data.read(_EDGE))
            data.seek(max(0, size - _EDGE))
            digest.update(data.read())
        return digest.hexdigest()

    return Footage(source.name, count, lambda index: np.array(frames[index]), fingerprint)


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    if shape[0] == 0:
        return np.zeros(shape, np.uint8)
    return np.memmap(file, np.uint8, "r", shape=shape)


def _small(image: ImageArray) -> ImageArray:
    height, width = image.shape[:2]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _other_kind(path: str, what: str, instead: str) -> InputError:
    return InputError(
        f"'{printable(path)}' is {what}",
        why="'video:' takes a file, 'frames:' a folder of pictures in their order.",
        fix=f"Write {instead}.",
        error_id="video.kind",
    )
