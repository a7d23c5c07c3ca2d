"""Depth files that others wrote: one number a pixel, and which pixels the file itself calls valid."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.io.headers import check_complete, read_header
from endolux.io.images import check_pixels, pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.types import MaskArray

CODE_SUFFIXES = (".png", ".tif", ".tiff")
FLOAT_SUFFIXES = (".npy", ".npz")
DEPTH_SUFFIXES = CODE_SUFFIXES + FLOAT_SUFFIXES

_Plane = tuple[npt.NDArray[np.float64], MaskArray]


def read_plane(path: Path, *, squeeze: bool = False) -> _Plane:
    """The numbers of a depth file as they are stored, H x W float64, and which pixels the file itself calls valid.

    Args:
        path: 16-bit single-channel PNG or TIFF, ``.npy`` with H x W floats, or ``.npz`` with one such array (or
            ``depth`` or ``values``) and optionally a boolean ``valid``.
        squeeze: also take arrays with axes of length 1, such as 1 x H x W, as networks give them.

    Raises:
        InputError: missing, empty or damaged file, too many pixels; ``evaluate.depth-bits`` for an image that is not
            16-bit and single-channel; ``evaluate.depth-array`` for an array that is not H x W float.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([[5.0, 0.0]]))
        >>> read_plane(file)[0].tolist()
        [[5.0, 0.0]]
    """
    size = check_file(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _checked(path, np.load(path, mmap_mode="r", allow_pickle=False), None, squeeze)
        if suffix == ".npz":
            return _read_npz(path, size, squeeze)
        if suffix in CODE_SUFFIXES:
            return _read_codes(path)
    except EOFError as error:
        raise truncated(path, str(error) or "nothing follows its header") from error
    except OSError as error:
        raise input_error(error, path) from error
    except (ValueError, zipfile.BadZipFile, KeyError) as error:
        raise _damaged(path, " ".join(str(error).split())) from error
    raise InputError(
        f"'{printable(path)}' is not a depth file",
        why=f"Depth is read from {', '.join(DEPTH_SUFFIXES)}.",
        fix="Convert it to a 16-bit PNG or a float .npy.",
        error_id="evaluate.depth-file",
    )


def _read_codes(path: Path) -> _Plane:
    # The size is checked before anything is decoded: a small file can unpack to gigabytes.
    with path.open("rb") as file:
        header = read_header(file)
        if header is None:
            raise ValueError("it is not an image")
        check_pixels(path, header.width, header.height, pixel_limit())
        file.seek(0)
        data = file.read()
    check_complete(data, header)
    try:
        codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("its pixels cannot be decoded") from error
    if codes is None:
        raise ValueError("its pixels cannot be decoded")
    if codes.dtype != np.uint16 or codes.ndim != 2:
        channels = 1 if codes.ndim == 2 else codes.shape[2]
        raise InputError(
            f"'{printable(path)}' has {codes.dtype.itemsize * 8} bits and {channels} channel(s); "
            "16 bits and one channel are expected",
            why="Eight bits are too coarse for depth, and a colour image is usually a picture of depth, not depth.",
            fix="Use the original 16-bit file; if 8 bits are all there is, convert to a float .npy knowingly.",
            error_id="evaluate.depth-bits",
        )
    return codes.astype(np.float64), np.ones(codes.shape, np.bool_)


def _read_npz(path: Path, size: int, squeeze: bool) -> _Plane:
    limit = pixel_limit()
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    # Eight bytes a value and one for the mask, with room for headers.
    if unpacked > max(2 * size, 10 * limit):
        check_pixels(path, 1, unpacked // 9, limit)
    with np.load(path, allow_pickle=False) as content:
        names = [name for name in ("depth", "values") if name in content.files]
        names = names or [name for name in content.files if name != "valid"]
        if len(names) != 1:
            raise ValueError(f"it holds {', '.join(content.files) or 'nothing'}, and no single array 'depth'")
        valid = content["valid"] if "valid" in content.files else None
        return _checked(path, content[names[0]], valid, squeeze)


def _checked(
    path: Path, array: npt.NDArray[np.generic], valid: npt.NDArray[np.generic] | None, squeeze: bool
) -> _Plane:
    if squeeze and array.ndim > 2:
        array = array.reshape([n for n in array.shape if n != 1] or (1, 1))
        valid = valid if valid is None else valid.reshape([n for n in valid.shape if n != 1] or (1, 1))
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise InputError(
            f"'{printable(path)}' holds {array.shape} {array.dtype}; H x W floats are expected",
            why="Depth arrays are one float a pixel, in millimetres; integers would leave the unit open.",
            fix="Save array.astype('float32') in millimetres, without channel axes.",
            error_id="evaluate.depth-array",
        )
    check_pixels(path, array.shape[1], array.shape[0], pixel_limit())
    if valid is not None and (valid.shape != array.shape or valid.dtype != np.bool_):
        raise InputError(
            f"'valid' in '{printable(path)}' is {valid.shape} {valid.dtype}, the depth {array.shape}",
            why="The mask is one boolean a pixel.",
            fix="Save both with the same shape.",
            error_id="evaluate.depth-array",
        )
    mask = np.ones(array.shape, np.bool_) if valid is None else np.asarray(valid, np.bool_)
    return np.array(array, np.float64), mask


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"Cannot read depth from '{printable(path)}'",
        why=f"The file is damaged or of another kind: {reason}.",
        fix="Copy or export the file again.",
        error_id="evaluate.depth-file",
    )
