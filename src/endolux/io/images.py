"""Image files in, RGB frames out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError, UsageError
from endolux.io.headers import SIGNATURE_BYTES, ImageHeader, check_complete, read_header, sniff
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.types import Camera, Frame, ImageArray

MAX_PIXELS = 64_000_000
"""Largest image that is decoded, in pixels: 8K video is 33 million, no endoscope comes near."""
MAX_PIXELS_VARIABLE = "ENDOLUX_MAX_PIXELS"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".npy"})

_FORMATS = "PNG, JPEG, TIFF, BMP, WebP or .npy"
# Largest uncompressed pixel is 16-bit RGBA (8 bytes); the rest is room for metadata.
_MAX_BYTES_PER_PIXEL, _METADATA_BYTES = 8, 64 << 20


def read(path: str | os.PathLike[str], *, camera: Camera | None = None, max_pixels: int | None = None) -> Frame:
    """Read one image file as an 8-bit RGB frame.

    PNG (1 to 16 bits, grey, palette), JPEG (also CMYK and greyscale), TIFF (8 and 16 bits), BMP, WebP and ``.npy``
    (H x W x 3 RGB or H x W grey). The content decides, not the file's name. 16-bit values keep their high byte, alpha
    is dropped, EXIF rotation is applied.

    Args:
        path: image file.
        camera: intrinsics of the upright image, if known.
        max_pixels: refuse larger images before decoding; ``ENDOLUX_MAX_PIXELS`` in the environment or 64 million by
            default.

    Returns:
        Frame with an H x W x 3 uint8 image, named after the file, index 0, no time stamp.

    Raises:
        InputError: missing (``input.missing``), empty, not an image (``input.not-image``), cut off
            (``input.truncated``), damaged (``input.damaged``), too large (``input.too-large``) or of a type that has no
            single meaning as a picture (``input.dtype``).

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "frame.npy")
        ...     np.save(file, np.zeros((4, 6, 3), np.uint8))
        ...     frame = read(file)
        >>> frame.size, frame.name
        ((6, 4), 'frame.npy')
    """
    path = Path(path)
    image = read_pixels(path, max_pixels=pixel_limit(max_pixels))
    return Frame(image=image, name=printable(path.name), camera=camera)


def read_pixels(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """The H x W x 3 uint8 RGB pixels of one image file; see ``read`` for formats and errors."""
    size = check_file(path)
    try:
        with path.open("rb") as file:
            kind = sniff(file.read(SIGNATURE_BYTES))
            if kind == "npy":
                return _read_npy(path, max_pixels)
            header = read_header(file) if kind else None
            if header is None:
                raise _not_image(path)
            _check_size(path, header, size, max_pixels)
            file.seek(0)
            data = file.read()
        check_complete(data, header)
    except OSError as error:
        raise input_error(error, path) from error
    except EOFError as error:
        raise truncated(path, str(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return _decode(path, data, header)


def pixel_limit(max_pixels: int | None = None) -> int:
    """The limit on pixels in force: the argument, else the environment, else ``MAX_PIXELS``.

    Raises:
        UsageError: not a positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE) if max_pixels is None else str(max_pixels)
    if text is None:
        return MAX_PIXELS
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(
            f"Impossible limit of {text!r} pixels",
            why=f"{MAX_PIXELS_VARIABLE} and max_pixels take a positive whole number.",
            fix=f"Give for example {MAX_PIXELS}, or leave it out.",
            error_id="input.max-pixels",
        )
    return int(text)


def check_pixels(path: str | os.PathLike[str], width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels`` pixels (InputError ``input.too-large``)."""
    if width * height > max_pixels:
        raise InputError(
            f"'{printable(path)}' has {width} x {height} pixels, the limit is {max_pixels}",
            why="Such a size is more likely damage or a decompression bomb than endoscopy, and could exhaust memory.",
            fix=f"If it is meant, set {MAX_PIXELS_VARIABLE}={width * height} in the environment; else shrink it.",
            error_id="input.too-large",
        )


def to_rgb8(array: npt.NDArray[np.generic], *, name: str) -> ImageArray:
    """H x W, H x W x 1, H x W x 3 (RGB) or H x W x 4 (RGBA) of 8 or 16 bits as H x W x 3 uint8.

    Raises:
        InputError: other shapes (``input.shape``) or types (``input.dtype``).

    Example:
        >>> import numpy as np
        >>> to_rgb8(np.full((1, 1), 0xAB12, np.uint16), name="x").tolist()
        [[[171, 171, 171]]]
    """
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"'{name}' holds an array of shape {array.shape}",
            why="One image is H x W x 3 (RGB) or H x W (grey).",
            fix="Save one image a file: numpy.save(path, image) with the channels last.",
            error_id="input.shape",
        )
    if array.dtype == np.uint16:
        array = np.right_shift(array, 8, dtype=np.uint16).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(
            f"'{name}' holds {array.dtype} numbers",
            why="Their range is not stated (0..1? 0..255? linear light?), and guessing would change the depth.",
            fix="Scale to 0..255 and save 8-bit RGB, e.g. numpy.save(path, (image * 255).round().astype('uint8')).",
            error_id="input.dtype",
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.array(array[:, :, :3], dtype=np.uint8, order="C")


def _decode(path: Path, data: bytes, header: ImageHeader) -> ImageArray:
    if header.alpha_tag is not None:
        # libtiff would blend the colours with black; told that this has happened, it leaves them alone.
        at, value = header.alpha_tag
        data = data[:at] + value + data[at + len(value) :]
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise _damaged(path, "the decoder gave up") from error
    if decoded is None:
        raise _damaged(path, "the decoder gave up")
    array: npt.NDArray[np.generic] = decoded
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        rgb: ImageArray = cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
        return rgb
    if array.ndim == 3 and array.shape[2] >= 3:
        array = array[:, :, 2::-1]
    return to_rgb8(array, name=printable(path))


def _read_npy(path: Path, max_pixels: int) -> ImageArray:
    try:
        # Mapping reads the header alone, never unpickles, and checks the claimed shape against the size of the file.
        array: npt.NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        # NumPy has no class of its own for these.
        if "mmap length is greater" in str(error) or "EOF" in str(error):
            raise EOFError("it is shorter than its header announces") from error
        raise
    if array.ndim in (2, 3):
        check_pixels(path, array.shape[1], array.shape[0], max_pixels)
    return to_rgb8(array, name=printable(path))


def _check_size(path: Path, header: ImageHeader, file_bytes: int, max_pixels: int) -> None:
    check_pixels(path, header.width, header.height, max_pixels)
    # A tile may pass the edge of a small image, but not be larger than any image may.
    check_pixels(path, header.largest_block, 1, max(max_pixels, MAX_PIXELS))
    most = _MAX_BYTES_PER_PIXEL * max(header.width * header.height, MAX_PIXELS) + _METADATA_BYTES
    if file_bytes > most:
        raise InputError(
            f"'{printable(path)}' has {file_bytes} bytes for {header.width} x {header.height} pixels",
            why="No image of that size needs so many; it may hold several pictures, or something else.",
            fix="Save the one picture you need as PNG.",
            error_id="input.too-large",
        )


def _not_image(path: Path) -> InputError:
    return InputError(
        f"'{printable(path)}' is not an image that Endolux reads",
        why=f"Its content does not begin like {_FORMATS}, whatever its name says.",
        fix="Open it in an image viewer and save it as PNG.",
        error_id="input.not-image",
    )


def _damaged(path: Path, detail: str) -> InputError:
    return InputError(
        f"'{printable(path)}' is damaged: {detail}",
        why="The file begins like an image, but its content contradicts its format.",
        fix="Copy the file again from its source, or save it anew as PNG.",
        error_id="input.damaged",
    )
