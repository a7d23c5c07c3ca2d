"""Depth and pictures that users and natural-image sets store: arrays, archives, PFM, TIFF and PNG."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from endolux.datasets.decode import damaged, decode_image, read_bytes
from endolux.errors import InputError
from endolux.io.images import check_pixels, pixel_limit, to_rgb8
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.types import ImageArray

T = TypeVar("T")
_PFM = re.compile(rb"Pf\s+(\d+)\s+(\d+)\s+([-+.\deE]+)\s")
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".pfm")


def read_values(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], bool]:
    """The numbers of a depth file as stored.

    Args:
        path: 16-bit grey PNG or TIFF, float TIFF, ``.npy`` with H x W numbers, ``.npz`` with ``depth`` or ``values``
            or one such array and optionally a boolean ``valid``, or grey PFM (rows from bottom to top).

    Returns:
        H x W float64, H x W bool as the file itself calls pixels valid, and whether the numbers are whole (codes).

    Raises:
        InputError: missing, empty, cut off or damaged file; ``dataset.depth-bits`` for 8 bits or several channels;
            ``dataset.depth-array`` for an array that is not H x W numbers; ``dataset.depth-file`` for another ending.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([[5.0, 0.0]], np.float32))
        >>> values, valid, whole = read_values(file)
        >>> values.tolist(), bool(valid.all()), whole
        ([[5.0, 0.0]], True, False)
    """
    suffix = path.suffix.lower()
    name = printable(path)
    valid: npt.NDArray[np.generic] | None = None
    array: npt.NDArray[np.generic]
    if suffix in (".png", ".tif", ".tiff"):
        array = decode_image(read_bytes(path), name)
        if array.ndim != 2 or array.dtype == np.uint8:
            channels = 1 if array.ndim == 2 else array.shape[2]
            raise InputError(
                f"'{name}' has {array.dtype.itemsize * 8} bits and {channels} channel(s)",
                why="Eight bits are too coarse for depth, and a colour image is a picture of depth, not depth.",
                fix="Use the 16-bit or float file; if 8 bits are all there is, convert to a float .npy knowingly.",
                error_id="dataset.depth-bits",
            )
    elif suffix == ".npy":
        array = numpy_file(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    elif suffix == ".npz":
        array, valid = numpy_file(path, lambda: _read_npz(path))
    elif suffix == ".pfm":
        array = read_pfm(path)
    else:
        raise InputError(
            f"'{name}' is not a depth file",
            why=f"Depth is read from {', '.join(DEPTH_SUFFIXES)}.",
            fix="Convert it to a 16-bit PNG or a float .npy.",
            error_id="dataset.depth-file",
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fui":
        raise _not_depth(name, array)
    check_pixels(path, array.shape[1], array.shape[0], pixel_limit())
    mask = np.ones(array.shape, np.bool_) if valid is None else np.asarray(valid)
    if mask.shape != array.shape or mask.dtype != np.bool_:
        raise damaged(name, f"'valid' is {mask.shape} {mask.dtype}, the depth {array.shape}")
    return np.array(array, np.float64), mask.astype(np.bool_, copy=False), array.dtype.kind in "ui"


def read_pfm(path: Path) -> npt.NDArray[np.float32]:
    """A grey PFM image, rows turned to run from top to bottom.

    Raises:
        InputError: not a grey PFM (``dataset.damaged``) or cut off (``input.truncated``).
    """
    data = read_bytes(path)
    match = _PFM.match(data)
    if match is None:
        raise damaged(printable(path), "it does not begin like a grey PFM image")
    width, height = int(match.group(1)), int(match.group(2))
    try:
        scale = float(match.group(3))
    except ValueError as error:
        raise damaged(printable(path), "its scale is not a number") from error
    if width < 1 or height < 1 or not math.isfinite(scale) or scale == 0:
        raise damaged(printable(path), f"it claims {width} x {height} pixels of scale {scale}")
    check_pixels(path, width, height, pixel_limit())
    end = match.end() + 4 * width * height
    if len(data) < end:
        raise truncated(path, f"{len(data)} of {end} bytes are there")
    pixels = np.frombuffer(data[match.end() : end], "<f4" if scale < 0 else ">f4").reshape(height, width)
    return np.ascontiguousarray(pixels[::-1], dtype=np.float32)


def rgb_of(data: bytes, name: str) -> ImageArray:
    """An encoded picture as H x W x 3 uint8 RGB. Raises InputError."""
    pixels = decode_image(data, name)
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, 2::-1]
    return to_rgb8(pixels, name=name)


def rgb_of_array(array: npt.NDArray[np.generic], name: str) -> ImageArray:
    """An H x W x 3 array of 0..255 as uint8 RGB, whatever its type.

    Raises:
        InputError: ``input.shape``; ``dataset.image-range`` for values outside 0..255, or that seem to be 0..1.

    Example:
        >>> rgb_of_array(np.full((1, 1, 3), 200.0), "x").tolist()
        [[[200, 200, 200]]]
    """
    if array.dtype != np.uint8 and array.dtype.kind in "fui" and array.size:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and 0 < high <= 1):
            raise InputError(
                f"The picture in '{name}' has values from {low:g} to {high:g}",
                why="Pictures of this set are stored as 0..255; another range would make every frame dark or white.",
                fix="Scale it to 0..255 and save it again as uint8.",
                error_id="dataset.image-range",
            )
        array = np.rint(array).astype(np.uint8)
    return to_rgb8(array, name=name)


def read_archive(path: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.float64]]:
    """``image`` (0..255 RGB) and ``depth`` (H x W or H x W x 1) of one ``.npz`` file.

    Raises:
        InputError: damaged, or one of the two is missing or of another shape.
    """
    check_file(path)

    def read() -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as content:
            return content["image"], content["depth"]

    image, depth = numpy_file(path, read)
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[:, :, 0]
    if depth.ndim != 2 or 0 in depth.shape or depth.dtype.kind != "f":
        raise _not_depth(printable(path), depth)
    if image.shape[:2] != depth.shape:
        raise damaged(printable(path), f"its image is {image.shape}, its depth {depth.shape}")
    return image, depth.astype(np.float64)


def _read_npz(path: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic] | None]:
    _check_unpacked(path)
    with np.load(path, allow_pickle=False) as content:
        names = [name for name in ("depth", "values") if name in content.files][:1]
        names = names or [name for name in content.files if name not in ("valid", "image")]
        if len(names) != 1:
            raise ValueError(f"it holds {', '.join(content.files) or 'nothing'}, and no single array 'depth'")
        return content[names[0]], content["valid"] if "valid" in content.files else None


def _check_unpacked(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    # Three bytes or floats of colour and eight bytes of depth a pixel, at most.
    check_pixels(path, 1, unpacked // 32, pixel_limit())


def numpy_file(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` gives; its failures as errors about ``path``. Raises InputError."""
    check_file(path)
    try:
        return read()
    except EOFError as error:
        raise truncated(path, str(error) or "nothing follows its header") from error
    except InputError:
        raise
    except OSError as error:
        raise input_error(error, path) from error
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error, struct.error, io.UnsupportedOperation) as error:
        text = " ".join(str(error).split())
        if "mmap length is greater" in text or "EOF" in text:
            raise truncated(path, "it is shorter than its header announces") from error
        raise damaged(printable(path), text) from error


def _not_depth(name: str, array: npt.NDArray[np.generic]) -> InputError:
    return InputError(
        f"'{name}' holds {array.shape} {array.dtype}; H x W numbers are expected",
        why="Depth is one number a pixel.",
        fix="Save it without channel axes.",
        error_id="dataset.depth-array",
    )
