"""Point maps of SCARED: X, Y, Z of every pixel in a float TIFF."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from endolux.datasets.decode import decode_image
from endolux.errors import InputError
from endolux.io.images import check_pixels, pixel_limit

Points = npt.NDArray[np.float32]
"""H x W x 3 float32: X, Y, Z in millimetres in the camera's frame."""

# TIFF tags: default where absent, and what a plain file has. Bits, compression, samples, planes, format (float).
_PLAIN_VALUES = {
    258: ((), (32, 32, 32)),
    259: ((1,), (1,)),
    277: ((), (3,)),
    284: ((1,), (1,)),
    339: ((), (3, 3, 3)),
    266: ((1,), (1,)),
    274: ((1,), (1,)),
    322: ((), ()),
}
_PLAIN_TAGS = {256, 257, 273, 279, *_PLAIN_VALUES}


def read_points(data: bytes, name: str) -> Points:
    """A point map: H x W x 3 float32, X Y Z in millimetres; NaN or 0 where there is no point.

    Args:
        data: a float TIFF with three interleaved channels in the order X, Y, Z.
        name: what to call it in errors.

    Raises:
        InputError: not a TIFF or damaged (``dataset.damaged``), cut off (``input.truncated``), other channels or
            numbers (``scared.points``).
    """
    return np.ascontiguousarray(_decoded_points(data, name), dtype=np.float32)


def read_left_depth(data: bytes, name: str) -> npt.NDArray[np.float32]:
    """Z of the left view of a point map, H x W float32 mm, as stored. Raises as :func:`read_points`."""
    return np.ascontiguousarray(left_view(_decoded_points(data, name))[:, :, 2], dtype=np.float32)


def left_view(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The left picture of an array that holds one or two: left above right, or left beside right.

    One SCARED picture is 1280 x 1024, wider than high; a stack of two is higher than wide.

    Example:
        >>> left_view(np.zeros((2048, 1280, 3))).shape, left_view(np.zeros((1024, 2560))).shape
        ((1024, 1280, 3), (1024, 1280))
    """
    height, width = array.shape[:2]
    if height > width:
        return array[: height // 2]
    if width > 2 * height:
        return array[:, : width // 2]
    return array


def _decoded_points(data: bytes, name: str) -> npt.NDArray[np.generic]:
    """H x W x 3 float32, X Y Z; a view into ``data`` where that is possible."""
    plain = _plain_points(data)
    if plain is not None:
        check_pixels(name, plain.shape[1], plain.shape[0], pixel_limit())
        return plain
    pixels = decode_image(data, name)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.float32:
        raise InputError(
            f"'{name}' holds {pixels.shape} {pixels.dtype}; H x W x 3 float32 is expected",
            why="Depth of SCARED is a map of points (X, Y, Z in mm); 8-bit or grey files are pictures of it.",
            fix="Use the .tiff file of the data set.",
            error_id="scared.points",
        )
    # OpenCV takes any three channels for RGB and hands them over as BGR: Z, Y, X.
    return pixels[:, :, ::-1]


def _plain_points(data: bytes) -> npt.NDArray[np.generic] | None:
    """The points of a little-endian TIFF whose uncompressed strips follow each other, as all files of the release have.

    They lie in the file as in memory, and a general decoder takes most of the time of a frame. None for any other file.
    """
    try:
        if data[:4] != b"II*\0":
            return None
        (directory,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, directory)
        tags: dict[int, tuple[int, ...]] = {}
        for start in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from("<HHI", data, start)
            if tag in _PLAIN_TAGS:
                code = {3: "H", 4: "I"}[kind]
                place = start + 8
                if struct.calcsize(code) * count > 4:
                    (place,) = struct.unpack_from("<I", data, place)
                tags[tag] = struct.unpack_from(f"<{count}{code}", data, place)
        (width,), (height,), offsets, counts = (tags[tag] for tag in (256, 257, 273, 279))
        ends = [offset + count for offset, count in zip(offsets, counts, strict=True)]
        if (
            any(tags.get(tag, default) != expected for tag, (default, expected) in _PLAIN_VALUES.items())
            or list(offsets[1:]) != ends[:-1]
            or sum(counts) != 12 * width * height
            or ends[-1] > len(data)
        ):
            return None
    except (struct.error, KeyError, ValueError, IndexError):
        return None
    return np.frombuffer(data, "<f4", 3 * width * height, offsets[0]).reshape(height, width, 3)
