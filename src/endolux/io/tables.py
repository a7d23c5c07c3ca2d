"""Files that are whole or absent: atomic replacement, JSON, and ``frames.csv``."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from pydantic import BaseModel

from endolux.errors import InputError, UsageError, from_os_error
from endolux.types import DepthMap

COLUMNS = ("index", "name", "pts_s", "status", "min", "median", "max", "valid_fraction", "file")
"""Header of ``frames.csv``."""

STATUS_OK = "ok"
STATUS_EMPTY = "empty"
"""The frame was read, and no pixel of it has a depth (for example an all-black frame)."""

_MEDIAN_PIXELS = 60_000
"""The median is taken over about this many pixels on a regular grid: exact for small maps, and cheap for large ones."""


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: the file to create or replace.
        durable: also wait until the bytes lie on the disk, so that a full disk shows here and not later.

    Yields:
        The path to write to.

    Raises:
        DeviceError: the disk is full.
        UsageError: the folder may not be written to.
        InputError: any other operating-system error.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove_quietly(temporary)
        raise from_os_error(error, path) from error
    except BaseException:
        _remove_quietly(temporary)
        raise


def write_bytes_atomic(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write ``data`` so that ``path`` holds all of it or does not change. Raises as :func:`atomic_path`."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_json_atomic(path: Path, data: BaseModel | Mapping[str, object]) -> None:
    """Write a JSON document so that a reader sees the old one or the new one, never half of it.

    Args:
        path: the file to create or replace.
        data: a pydantic model or a mapping. Numbers that JSON lacks (NaN, infinity) are refused.

    Raises:
        UsageError: the document holds a number that JSON lacks, or the folder may not be written to.
        DeviceError: the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.json"
        >>> write_json_atomic(path, {"frames": 3})
        >>> json.loads(path.read_text(encoding="utf-8"))
        {'frames': 3}
    """
    content = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"Cannot write '{path}': {error}",
            why="JSON has no NaN, no infinity and no arbitrary objects.",
            fix="Use null for a number that is not known, and plain lists, mappings, numbers and text.",
            error_id="output.json",
        ) from error
    write_bytes_atomic(path, (text + "\n").encode("utf-8", "surrogateescape"), durable=True)


def make_output_folder(folder: Path) -> Path:
    """Create ``folder`` and its parents where they are missing.

    Raises:
        UsageError: a file stands in the way (``output.is-file``), or the place is not writable.
        DeviceError: the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"The output path '{folder}' is a file or lies inside one",
            why="Results are several files and need a folder.",
            fix="Choose another folder with -o FOLDER.",
            error_id="output.is-file",
        ) from error
    except OSError as error:
        raise from_os_error(error, folder) from error
    return folder


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DepthStatistics:
    """Figures of one depth map over its valid pixels; NaN where there are none.

    Attributes:
        minimum, maximum: extreme values in the map's unit.
        median: median in the map's unit, over a regular grid of pixels when the map is large.
        valid_fraction: valid pixels by all pixels.
    """

    minimum: float
    median: float
    maximum: float
    valid_fraction: float


def depth_statistics(depth: DepthMap) -> DepthStatistics:
    """Minimum, median, maximum and valid fraction of one depth map.

    Example:
        >>> from endolux.types import DepthKind
        >>> values = np.array([[10, 20, 90]], np.float32)
        >>> valid = np.array([[True, True, False]])
        >>> depth_statistics(DepthMap(values=values, kind=DepthKind.METRIC, valid=valid)).maximum
        20.0
    """
    values, valid = depth.values, np.ascontiguousarray(depth.valid)
    count = int(np.count_nonzero(valid))
    if count == 0:
        return DepthStatistics(minimum=math.nan, median=math.nan, maximum=math.nan, valid_fraction=0.0)
    if count == valid.size:
        minimum, maximum = float(values.min()), float(values.max())
    else:
        minimum, maximum, _, _ = cv2.minMaxLoc(values, valid.view(np.uint8))
    step = max(1, math.isqrt(values.size // _MEDIAN_PIXELS))
    sample = values[::step, ::step][valid[::step, ::step]]
    if not sample.size:
        sample = values[valid]
    return DepthStatistics(
        minimum=float(minimum),
        median=float(np.median(sample)),
        maximum=float(maximum),
        valid_fraction=count / valid.size,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """One row of ``frames.csv``.

    Attributes:
        index: frame number in the source, from 0.
        name: file name or frame name.
        pts_s: presentation time in seconds, None for still images.
        status: ``ok``, ``empty`` (no valid pixel) or the stable id of the error that stopped this frame.
        statistics: figures of the depth, None for a failed frame.
        file: where the depth lies, relative to the output folder; empty if nowhere.
    """

    index: int
    name: str
    pts_s: float | None = None
    status: str = STATUS_OK
    statistics: DepthStatistics | None = None
    file: str = ""

    @classmethod
    def of_depth(cls, index: int, name: str, depth: DepthMap, *, pts_s: float | None = None, file: str = "") -> Self:
        """The row of a frame that has a depth map."""
        statistics = depth_statistics(depth)
        status = STATUS_OK if statistics.valid_fraction > 0 else STATUS_EMPTY
        return cls(index=index, name=name, pts_s=pts_s, status=status, statistics=statistics, file=file)

    @property
    def failed(self) -> bool:
        """Whether this frame gave no depth map at all."""
        return self.status not in (STATUS_OK, STATUS_EMPTY)

    def fields(self) -> tuple[str, ...]:
        """The row as text, in the order of ``COLUMNS``."""
        figures = self.statistics or DepthStatistics(
            minimum=math.nan, median=math.nan, maximum=math.nan, valid_fraction=math.nan
        )
        return (
            str(self.index),
            self.name,
            "" if self.pts_s is None else f"{self.pts_s:.6f}",
            self.status,
            _number(figures.minimum),
            _number(figures.median),
            _number(figures.maximum),
            _number(figures.valid_fraction),
            self.file,
        )

    @classmethod
    def from_fields(cls, fields: Sequence[str]) -> Self:
        """The reverse of :meth:`fields`. Raises ValueError for a row that is torn or not ours."""
        index, name, pts_s, status, minimum, median, maximum, valid_fraction, file = fields
        statistics = None
        if valid_fraction:
            statistics = DepthStatistics(
                minimum=_parse(minimum),
                median=_parse(median),
                maximum=_parse(maximum),
                valid_fraction=float(valid_fraction),
            )
        return cls(
            index=int(index),
            name=name,
            pts_s=float(pts_s) if pts_s else None,
            status=status,
            statistics=statistics,
            file=file,
        )


class FramesCsv:
    """``frames.csv``: one row a frame, on the disk as soon as it is written.

    Args:
        path: the file. It must not exist unless ``resume``.
        resume: keep the rows of an interrupted run; a torn last row is dropped.
        start: with ``resume``, drop the rows from this frame on, whose depth was lost with the interruption.

    Raises:
        UsageError: the file exists and ``resume`` is not set, or it is not a ``frames.csv``.
        DeviceError: the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "frames.csv"
        >>> with FramesCsv(path) as table:
        ...     table.write(FrameRow(index=0, name="a.png", status="input.truncated"))
        >>> [row.status for row in read_frames_csv(path)]
        ['input.truncated']
    """

    def __init__(self, path: Path, *, resume: bool = False, start: int | None = None) -> None:
        self.path = path
        self.next_index = 0
        exists = path.exists()
        if exists and not resume:
            raise UsageError(
                f"'{path}' exists already",
                why="Results are never overwritten.",
                fix="Add --resume to continue that run, or choose another output folder.",
                error_id="output.exists",
            )
        kept = list(_kept_rows(path, start)) if exists else []
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in kept:
            writer.writerow(row.fields())
            self.next_index = row.index + 1
        write_bytes_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"), durable=True)
        try:
            self._file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise from_os_error(error, path) from error
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, row: FrameRow) -> None:
        """Append one row; a row of an earlier frame, which the table holds already, is skipped."""
        if row.index < self.next_index:
            return
        try:
            self._writer.writerow(row.fields())
            self._file.flush()
        except OSError as error:
            raise from_os_error(error, self.path) from error
        self.next_index = row.index + 1

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        try:
            self._file.close()
        except OSError as error:
            raise from_os_error(error, self.path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_frames_csv(path: Path) -> Iterator[FrameRow]:
    """Rows of a ``frames.csv`` in order; reading ends quietly at a row that an interruption tore.

    Raises:
        InputError: the file cannot be read or has another header.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(_whole_lines(file))
            if tuple(next(reader, ())) != COLUMNS:
                raise InputError(
                    f"'{path}' is not a frames.csv of Endolux",
                    why=f"Its first line is not '{','.join(COLUMNS)}'.",
                    fix="Give the output folder of an endolux run.",
                    error_id="output.frames-csv",
                )
            last = -1
            for fields in reader:
                try:
                    row = FrameRow.from_fields(fields)
                except ValueError:
                    return
                if row.index <= last:
                    return
                last = row.index
                yield row
    except (OSError, csv.Error) as error:
        raise InputError(
            f"Cannot read '{path}'", why=f"{error}.", fix="Check the file.", error_id="output.frames-csv"
        ) from error


def _kept_rows(path: Path, start: int | None) -> Iterator[FrameRow]:
    try:
        for row in read_frames_csv(path):
            if start is not None and row.index >= start:
                return
            yield row
    except InputError as error:
        raise UsageError(
            error.what, why=error.why, fix="Choose another output folder.", error_id=error.error_id
        ) from error


def _whole_lines(file: io.TextIOBase | io.TextIOWrapper) -> Iterator[str]:
    for line in file:
        if line.endswith("\n"):
            yield line


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _parse(text: str) -> float:
    return float(text) if text else math.nan


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
