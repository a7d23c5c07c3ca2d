"""Point clouds as binary PLY files, which MeshLab, CloudCompare, Blender and Open3D read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError, from_os_error
from endolux.types import FloatArray

_CHUNK = 1 << 20


def write_ply(
    path: str | os.PathLike[str],
    points: FloatArray | npt.NDArray[np.float64],
    colours: npt.NDArray[np.uint8] | None = None,
    *,
    comments: Sequence[str] = (),
) -> None:
    r"""Write a point cloud, binary little endian. The file appears whole or not at all; an older one is replaced.

    Args:
        path: file to write.
        points: N x 3, x y z; stored as float32. N may be 0.
        colours: N x 3 uint8 RGB.
        comments: lines for the header, for example the unit.

    Raises:
        UsageError: shapes that do not fit, or coordinates that are not finite (``ply.points``); no permission
            (``output.not-writable``).
        DeviceError: disk full (``device.disk-full``).

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "cloud.ply")
        ...     write_ply(file, np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8), comments=["unit mm"])
        ...     file.read_bytes()[:38]
        b'ply\nformat binary_little_endian 1.0\nco'
    """
    path = Path(path)
    _check(points, colours)
    fields: list[tuple[str, str]] = [(axis, "<f4") for axis in "xyz"]
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {_ascii(comment)}" for comment in comments]
    lines += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    if colours is not None:
        fields += [(channel, "u1") for channel in ("red", "green", "blue")]
        lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines.append("end_header")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(("\n".join(lines) + "\n").encode("ascii"))
            for start in range(0, len(points), _CHUNK):
                chunk = points[start : start + _CHUNK]
                rows = np.empty(len(chunk), fields)
                for column, axis in enumerate("xyz"):
                    rows[axis] = chunk[:, column]
                if colours is not None:
                    for column, channel in enumerate(("red", "green", "blue")):
                        rows[channel] = colours[start : start + _CHUNK, column]
                file.write(rows.tobytes())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise from_os_error(error, path) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check(points: npt.NDArray[np.floating], colours: npt.NDArray[np.uint8] | None) -> None:
    problem = ""
    if points.ndim != 2 or points.shape[1] != 3:
        problem = f"points of shape {points.shape}"
    elif not np.isfinite(points).all():
        problem = f"{int((~np.isfinite(points).all(axis=1)).sum())} points that are not finite"
    elif colours is not None and (colours.shape != points.shape or colours.dtype != np.uint8):
        problem = f"colours {colours.shape} {colours.dtype} for points {points.shape}"
    if problem:
        raise UsageError(
            f"Cannot write {problem} as a point cloud",
            why="It takes N x 3 finite coordinates and, if any, N x 3 uint8 colours.",
            fix="Keep valid pixels only; endolux.geometry.cameras.unproject does.",
            error_id="ply.points",
        )


def _ascii(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()
