"""Files of data sets into arrays: 16-bit codes, float images, JSON and text, with errors that name the file."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.io.headers import ImageHeader, check_complete, read_header
from endolux.io.images import check_pixels, pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.types import Camera, DepthKind, DepthMap

_LARGEST_TEXT = 1 << 26
_PLANAR_TAG = 284


def decode_image(data: bytes, name: str) -> npt.NDArray[np.generic]:
    """The pixels of an encoded image as they are stored (OpenCV's channel order), checked for completeness first.

    Args:
        data: PNG, TIFF, JPEG, BMP or WebP.
        name: what to call it in errors.

    Raises:
        InputError: not an image or damaged (``dataset.damaged``), cut off (``input.truncated``), too many pixels
            (``input.too-large``).

    Example:
        >>> import cv2
        >>> coded = cv2.imencode(".png", np.full((2, 3), 500, np.uint16))[1].tobytes()
        >>> decode_image(coded, "x")[0].tolist()
        [500, 500, 500]
    """
    try:
        header = read_header(io.BytesIO(data))
        if header is None:
            raise ValueError("it is not an image")
        check_pixels(name, header.width, header.height, pixel_limit())
        check_complete(data, header)
        if header.format == "tiff":
            _check_interleaved(data)
        return _checked(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), header)
    except EOFError as error:
        raise truncated(name, str(error) or "it ends early") from error
    except cv2.error as error:
        raise damaged(name, "the decoder gave up") from error
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise damaged(name, str(error)) from error


def read_bytes(path: Path) -> bytes:
    """The content of a regular, non-empty file. Raises InputError."""
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise input_error(error, path) from error


def read_codes(path: Path) -> npt.NDArray[np.uint16]:
    """H x W codes of a 16-bit single-channel image.

    Raises:
        InputError: as :func:`decode_image`; ``dataset.depth-bits`` for other bits or channels.
    """
    return codes_of(decode_image(read_bytes(path), printable(path)), printable(path))


def codes_of(pixels: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint16]:
    """The pixels if they are H x W uint16; InputError ``dataset.depth-bits`` otherwise."""
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise InputError(
            f"'{name}' has {pixels.dtype.itemsize * 8} bits and {channels} channel(s)",
            why="This depth is stored as 16-bit grey; anything else is a picture of depth, or was re-saved.",
            fix="Use the original file of the data set.",
            error_id="dataset.depth-bits",
        )
    codes: npt.NDArray[np.uint16] = pixels.view(np.uint16)
    return codes


def metric_depth(
    values_mm: npt.NDArray[np.floating] | npt.NDArray[np.integer], *, camera: Camera | None = None
) -> tuple[DepthMap, dict[str, int]]:
    """A METRIC depth map and the counts of values that cannot be a depth.

    0 and NaN mean "no value" and are not counted; infinite and negative values are left out and counted.

    Args:
        values_mm: H x W, millimetres along the optical axis.
        camera: attached where it has the size of the map.

    Example:
        >>> depth, excluded = metric_depth(np.array([[5.0, 0.0, np.nan, np.inf, -3.0]]))
        >>> depth.valid.tolist(), excluded
        ([[True, False, False, False, False]], {'infinite': 1, 'negative': 1})
    """
    with np.errstate(over="ignore"):
        values = np.array(values_mm, dtype=np.float32, order="C")
    valid = (values > 0) & (values < np.inf)
    infinite, negative = int(np.count_nonzero(np.isinf(values))), int(np.count_nonzero(values < 0))
    if infinite:
        negative -= int(np.count_nonzero(values == -np.inf))
    counts = {"infinite": infinite, "negative": negative}
    np.copyto(values, np.float32(0), where=~valid)
    if camera is not None and (camera.height, camera.width) != values.shape:
        camera = None
    depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=valid, camera=camera)
    return depth, {reason: count for reason, count in counts.items() if count}


def read_json(path: Path) -> object:
    """A JSON document. Raises InputError (``dataset.damaged`` where it is not JSON)."""
    return parse_json(_read_text_bytes(path), printable(path))


def parse_json(data: bytes, name: str) -> object:
    """JSON from bytes. Raises InputError ``dataset.damaged``."""
    try:
        content: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(name, f"it is not JSON ({' '.join(str(error).split())})") from error
    return content


def read_text(path: Path) -> str:
    """A text file of moderate size. Raises InputError."""
    return _read_text_bytes(path).decode("utf-8", "replace")


def matrix_of(value: object, shape: tuple[int, int], name: str) -> npt.NDArray[np.float64]:
    """A finite matrix from nested lists, a flat list, or OpenCV's ``{rows, cols, data}``.

    Raises:
        InputError: another shape, or values that are not finite numbers (``dataset.matrix``).

    Example:
        >>> matrix_of({"rows": 1, "cols": 2, "dt": "d", "data": [1, 2]}, (1, 2), "x").tolist()
        [[1.0, 2.0]]
    """
    if isinstance(value, dict):
        value = value.get("data")
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _not_matrix(name, shape) from error
    if matrix.size != shape[0] * shape[1] or not np.isfinite(matrix).all():
        raise _not_matrix(name, shape)
    return matrix.reshape(shape)


def folders(folder: Path) -> list[Path]:
    """Sub-folders, sorted by name; hidden ones left out.

    Raises:
        InputError: missing, not readable, or a file (``input.not-a-folder``).
    """
    return [Path(entry) for entry in _scan(folder, of_files=False)]


def numbered_files(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Files whose whole name matches ``pattern``, by the number in its first group, ascending.

    Raises:
        InputError: as :func:`folders`; ``dataset.ambiguous`` for two files of one number.
    """
    found: dict[int, Path] = {}
    for entry in _scan(folder, of_files=True):
        match = pattern.fullmatch(os.path.basename(entry))  # noqa: PTH119  -- names only, of hundreds of thousands
        if match is None:
            continue
        number = int(match.group(1))
        if number in found:
            raise InputError(
                f"Frame {number} has two files: '{printable(found[number])}' and '{printable(entry)}'",
                why="Frames are found by the number in the file name.",
                fix="Keep one of them in the folder.",
                error_id="dataset.ambiguous",
            )
        found[number] = Path(entry)
    return dict(sorted(found.items()))


def damaged(name: str, detail: str) -> InputError:
    """The error for a file that contradicts its format."""
    return InputError(
        f"'{name}' is damaged: {detail}",
        why="Its content contradicts its format.",
        fix="Copy or unpack the file again from the data set.",
        error_id="dataset.damaged",
    )


def wrong_size(name: str, size: tuple[int, int], expected: tuple[int, int], what: str) -> InputError:
    """The error for two (width, height) sizes that must agree."""
    return InputError(
        f"'{name}' is {size[0]}x{size[1]}, {what} is {expected[0]}x{expected[1]}",
        why="The two describe the same pixels; resizing one of them would move the depth.",
        fix="Use the original files of the data set.",
        error_id="dataset.size",
    )


def _scan(folder: Path, *, of_files: bool) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                e.path for e in entries if not e.name.startswith(".") and (e.is_file() if of_files else e.is_dir())
            )
    except NotADirectoryError as error:
        raise InputError(
            f"'{printable(folder)}' is a file, the folder of a data set was expected",
            why="A data set is many files.",
            fix="Unpack the archive and give the folder.",
            error_id="input.not-a-folder",
        ) from error
    except (OSError, ValueError) as error:
        raise input_error(error, folder) from error


def _read_text_bytes(path: Path) -> bytes:
    if check_file(path) > _LARGEST_TEXT:
        raise damaged(printable(path), "it is far too large for a text file")
    return read_bytes(path)


def _not_matrix(name: str, shape: tuple[int, int]) -> InputError:
    return InputError(
        f"{name} is not a {shape[0]} x {shape[1]} matrix of finite numbers",
        why="A calibration or pose file is damaged, or of another data set.",
        fix="Unpack the file again from the data set.",
        error_id="dataset.matrix",
    )


def _checked(pixels: npt.NDArray[np.generic] | None, header: ImageHeader) -> npt.NDArray[np.generic]:
    if pixels is None:
        raise ValueError("its pixels cannot be decoded")
    if pixels.shape[:2] != (header.height, header.width):
        raise ValueError(f"it announces {header.width}x{header.height} pixels and holds {pixels.shape}")
    return pixels


def _check_interleaved(data: bytes) -> None:
    # OpenCV reads a TIFF whose channels lie in separate planes as if they were interleaved, and says nothing.
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"

    def number(start: int, length: int) -> int:
        return int.from_bytes(data[start : start + length], order)

    big = number(2, 2) == 43
    first = number(8, 8) if big else number(4, 4)
    entries, size, start = (number(first, 8), 20, first + 8) if big else (number(first, 2), 12, first + 2)
    for position in range(start, min(start + size * entries, len(data) - size + 1), size):
        if number(position, 2) == _PLANAR_TAG and number(position + (12 if big else 8), 2) == 2:
            raise ValueError("its channels are stored in separate planes, which is not read")
