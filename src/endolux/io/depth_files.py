"""Depth on disk: one 16-bit PNG or NPZ a frame, or one lossless video; written, resumed and read back exactly."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from typing_extensions import override

from endolux.errors import InputError, UsageError, from_os_error
from endolux.io.depth_codes import (
    CodeArray,
    DepthCoder,
    DepthFormat,
    DepthMeta,
    codes_per_unit_for,
    decode,
    depth_map,
    read_meta,
)
from endolux.io.depth_video import VIDEO_NAME, MkvDepthWriter, completed_video_frames, read_depth_video
from endolux.io.depth_writer import _META_EVERY, DepthWriter
from endolux.io.segments import SEGMENT_FRAMES, video_files, video_state
from endolux.io.tables import make_output_folder, read_frames_csv, write_bytes_atomic
from endolux.types import DepthMap

__all__ = [
    "DepthCoder",
    "DepthFormat",
    "DepthMeta",
    "DepthWriter",
    "check_output_folder",
    "codes_per_unit_for",
    "completed_frames",
    "open_depth_writer",
    "read_depth",
    "read_depth_folder",
    "read_meta",
]

OUTPUT_NAMES = frozenset(
    {
        "depth", "depth.mkv", "depth.parts", "meta.json", "frames.csv", "run.json",
        "vis", "vis.png", "vis.mp4", "vis.parts", "points", "points.ply",
    }
)  # fmt: skip
"""Names that a run of Endolux gives to its results."""

_FRAME_FILE = re.compile(r"(\d{6,})\.(png|npz)")
_PNG_MAGIC, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    # One fixed filter instead of trying all five: smaller and a third faster on depth. Older OpenCV lacks the choice.
    _PNG_OPTIONS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
_FORMATS = ("png", "mkv", "npz")


def check_output_folder(folder: Path, *, resume: bool = False) -> None:
    """Refuse a folder in which results would mix with, or overwrite, something that is there.

    Call it once, before the first result is written.

    Raises:
        UsageError: the path is a file (``output.is-file``) or not accessible; without ``resume``, the folder holds
            results already (``output.exists``) or other files (``output.foreign``).

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> check_output_folder(folder)
        >>> _ = (folder / "thesis.txt").write_text("mine")
        >>> check_output_folder(folder)
        Traceback (most recent call last):
        ...
        endolux.errors.UsageError: error[output.foreign]: ...
    """
    _check_folder(folder, resume=resume, ours=frozenset())


def open_depth_writer(
    folder: Path,
    *,
    fmt: DepthFormat = "png",
    meta: DepthMeta,
    resume: bool = False,
    fps: float | None = None,
    segment_frames: int = SEGMENT_FRAMES,
    threads: int | None = None,
) -> DepthWriter:
    """Open a writer of depth files and write the first ``meta.json``.

    Args:
        folder: output folder, created where missing. Other results of the same run (``frames.csv``, ``vis.mp4``, ...)
            may lie in it already; depth files and files of other people only with ``resume``.
        fmt: ``png`` (``depth/000123.png``, 16-bit), ``mkv`` (``depth.mkv``, FFV1, the same codes) or ``npz``
            (``depth/000123.npz``: ``values`` float32, ``valid`` bool, ``confidence`` where there is one).
        meta: description of the depth.
        resume: continue an interrupted or finished run from ``completed_frames(folder)`` on.
        fps: frame rate of ``depth.mkv`` where frames carry no time stamps.
        segment_frames: frames a segment of ``depth.mkv``: what a killed run has to compute again at most.
        threads: encoder threads of ``depth.mkv``.

    Raises:
        UsageError: unknown format; the folder is a file, not writable, holds depth or foreign files; or, on resume,
            the description differs from that of the first run (``output.resume-mismatch``).
        DeviceError: the disk is full.

    Example:
        >>> import tempfile
        >>> from endolux.types import DepthKind
        >>> folder = Path(tempfile.mkdtemp())
        >>> meta = DepthMeta(kind=DepthKind.METRIC, codes_per_unit=100.0)
        >>> depth = DepthMap(values=np.full((4, 6), 40, np.float32), kind=meta.kind, valid=np.ones((4, 6), bool))
        >>> with open_depth_writer(folder, fmt="png", meta=meta) as writer:
        ...     writer.write(0, "a", depth)
        'depth/000000.png'
        >>> read_depth(folder / "depth/000000.png").at(5, 3)
        40.0
    """
    if fmt not in _FORMATS:
        raise UsageError(
            f"Unknown depth format '{fmt}'",
            why=f"There are {', '.join(_FORMATS)}.",
            fix="Choose one of them with --depth-format.",
            error_id="output.format",
        )
    make_output_folder(folder)
    _check_folder(folder, resume=resume, ours=OUTPUT_NAMES - {"depth", "depth.mkv", "depth.parts", "meta.json"})
    if resume and not (folder / "meta.json").exists() and any((folder / n).exists() for n in ("depth", "depth.mkv")):
        raise UsageError(
            f"Cannot resume in '{folder}': it holds depth but no meta.json",
            why="Without it nobody knows what these files are.",
            fix="Choose another output folder.",
            error_id="output.foreign",
        )
    meta = meta.model_copy(update={"format": fmt})
    if fmt == "mkv":
        return MkvDepthWriter(folder, meta=meta, resume=resume, fps=fps, segment_frames=segment_frames, threads=threads)
    return _FileDepthWriter(folder, meta=meta, resume=resume)


def completed_frames(folder: Path) -> int:
    """The frame from which an interrupted run has to go on: every earlier one is whole in every result.

    Looks at the depth files, ``vis.mp4`` and ``frames.csv``, whichever there are, and takes the least. Frames that
    ``frames.csv`` lists as failed need no depth file.

    Raises:
        UsageError: a video of one of these names is not ours.
        InputError: ``meta.json`` or ``frames.csv`` is damaged.

    Example:
        >>> import tempfile
        >>> completed_frames(Path(tempfile.mkdtemp()))
        0
    """
    if not (folder / "meta.json").exists():
        return 0
    counts: list[int] = []
    table = folder / "frames.csv"
    rows = {row.index: row.failed for row in read_frames_csv(table)} if table.exists() else None
    if rows is not None:
        counts.append(max(rows, default=-1) + 1)
    meta = read_meta(folder)
    if meta.format == "mkv":
        counts.append(completed_video_frames(folder) or 0)
    else:
        present = {index for index, path in _frame_files(folder / "depth") if path.suffix == f".{meta.format}"}
        count = 0
        while count in present or (rows is not None and rows.get(count, False)):
            count += 1
        counts.append(count)
    vis = folder / "vis.mp4"
    if vis.exists() or vis.with_suffix(".parts").exists():
        state = video_state(vis)
        counts.append(0 if state is None else state.frames)
    return min(counts)


def read_depth(path: Path, *, meta: DepthMeta | None = None) -> DepthMap:
    """Read one depth file (16-bit PNG or NPZ).

    Args:
        path: the file.
        meta: description; by default ``meta.json`` of the folder above, or of the same folder.

    Raises:
        InputError: the file is missing, damaged or cut off, is not a depth file, or has no ``meta.json``.
    """
    if meta is None:
        beside = path.parent / "meta.json"
        meta = read_meta(path.parent if beside.exists() else path.parent.parent)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"Cannot read '{path}'",
            why=f"The operating system said: {error.strerror}.",
            fix="Check the path.",
            error_id="input.missing",
        ) from error
    return _from_npz(data, path, meta) if path.suffix.lower() == ".npz" else decode(_from_png(data, path), meta)


def read_depth_folder(folder: Path) -> Iterator[tuple[int, DepthMap]]:
    """Frame number and depth of every frame of a run in order, one at a time, whatever the format.

    Args:
        folder: the output folder of a run, or the ``depth`` folder in it. Unfinished runs can be read as well.

    Raises:
        InputError: there is no depth, no ``meta.json``, or a file is damaged.
    """
    if not (folder / "meta.json").exists() and (folder.parent / "meta.json").exists():
        folder = folder.parent
    meta = read_meta(folder)
    if meta.format == "mkv":
        if video_files(folder / VIDEO_NAME):
            yield from enumerate(read_depth_video(folder / VIDEO_NAME, meta=meta))
            return
    else:
        files = sorted((i, path) for i, path in _frame_files(folder / "depth") if path.suffix == f".{meta.format}")
        for index, path in files:
            yield index, read_depth(path, meta=meta)
        if files:
            return
    raise InputError(
        f"No depth in '{folder}'",
        why="It holds neither depth files nor a depth video.",
        fix="Give the output folder of an endolux run.",
        error_id="depth.empty",
    )


class _FileDepthWriter(DepthWriter):
    """One file a frame: 16-bit PNG (fast deflate) or NPZ."""

    def __init__(self, folder: Path, *, meta: DepthMeta, resume: bool) -> None:
        super().__init__(folder, meta=meta, resume=resume)
        self._depth = make_output_folder(folder / "depth")
        self.next_index = completed_frames(folder) if resume else 0
        self._size = self.meta.size
        """Size of the last frame; a frame without depth takes it."""
        self._mixed = self._size is None and self.next_index > 0
        self._save_meta()

    @override
    def _write(self, index: int, depth: DepthMap, pts_s: float | None) -> str:
        del pts_s
        self._put(index, depth)
        return self._file(index)

    @override
    def _write_invalid(self, index: int, size: tuple[int, int] | None, pts_s: float | None) -> str:
        del pts_s
        size = size or self._size
        if size is None:
            return ""
        shape = size[::-1]
        values = np.zeros(shape, np.float32)
        self._put(index, DepthMap(values=values, kind=self.meta.kind, valid=np.zeros(shape, bool)))
        return self._file(index)

    def _put(self, index: int, depth: DepthMap) -> None:
        self._mixed = self._mixed or (self._size is not None and self._size != depth.size)
        self._size = depth.size
        if self.meta.size != (None if self._mixed else depth.size):
            self.meta = self.meta.model_copy(update={"size": None if self._mixed else depth.size})
        if self.meta.format == "npz":
            content = {"values": depth.values, "valid": depth.valid}
            if depth.confidence is not None:
                content["confidence"] = depth.confidence
            stream = io.BytesIO()
            np.savez(stream, allow_pickle=False, **content)
            data = stream.getbuffer()
        else:
            _, encoded = cv2.imencode(".png", self._coder.encode(depth), _PNG_OPTIONS)
            data = encoded.data
        write_bytes_atomic(self.folder / self._file(index), data)

    @override
    def _advance(self) -> None:
        super()._advance()
        if self.next_index % _META_EVERY == 0:
            self._save_meta()

    @override
    def _close(self) -> None:
        pass

    @override
    def _abort(self) -> None:
        pass

    @override
    def _saved_frames(self) -> int:
        return self.next_index


def _check_folder(folder: Path, *, resume: bool, ours: frozenset[str]) -> None:
    """Raise unless every entry of the folder is in ``ours``; with ``resume`` other entries may stay as they are."""
    if not folder.exists():
        return
    try:
        names = [entry.name for entry in folder.iterdir()]
    except NotADirectoryError as error:
        raise UsageError(
            f"The output path '{folder}' is a file",
            why="Results are several files and need a folder.",
            fix="Choose another folder with -o FOLDER.",
            error_id="output.is-file",
        ) from error
    except OSError as error:
        raise from_os_error(error, folder) from error
    left_over = {f".{name}.tmp" for name in OUTPUT_NAMES}
    others = sorted(set(names) - ours - left_over)
    if resume or not others:
        return
    foreign = [name for name in others if name not in OUTPUT_NAMES]
    if foreign:
        raise UsageError(
            f"The output folder '{folder}' holds files that are not results of Endolux, such as '{foreign[0]}'",
            why="Results are not mixed with files of other people.",
            fix="Choose a new or empty folder with -o FOLDER.",
            error_id="output.foreign",
        )
    raise UsageError(
        f"The output folder '{folder}' holds results already, such as '{others[0]}'",
        why="Results are never overwritten.",
        fix="Add --resume to continue that run, or choose another output folder.",
        error_id="output.exists",
    )


def _frame_files(folder: Path) -> Iterator[tuple[int, Path]]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _FRAME_FILE.fullmatch(path.name)
        if match:
            yield int(match[1]), path


def _from_png(data: bytes, path: Path) -> CodeArray:
    if not data.startswith(_PNG_MAGIC):
        raise _not_depth(path, "it is no PNG")
    # OpenCV returns the upper part of a PNG that was cut off; only the end mark shows that all of it is there.
    codes: CodeArray | None = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data.endswith(_PNG_END) else None
    )
    if codes is None:
        raise InputError(
            f"'{path}' is damaged",
            why="The PNG is cut off or its data are inconsistent.",
            fix="Restore the file or predict again.",
            error_id="input.truncated",
        )
    if codes.dtype != np.uint16 or codes.ndim != 2:
        raise _not_depth(path, f"it holds {codes.dtype} values of shape {codes.shape}")
    return codes


def _from_npz(data: bytes, path: Path, meta: DepthMeta) -> DepthMap:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            values, valid = content["values"], content["valid"]
            confidence = content.get("confidence")
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{path}' is damaged or not a depth file",
            why=f"It cannot be read as an NPZ with 'values' and 'valid': {error}.",
            fix="Restore the file or predict again.",
            error_id="input.damaged",
        ) from error
    if values.dtype != np.float32 or valid.dtype != np.bool_ or values.ndim != 2 or values.shape != valid.shape:
        raise _not_depth(path, f"it holds {values.dtype} {values.shape} and {valid.dtype} {valid.shape}")
    depth = depth_map(values, valid, meta)
    if confidence is None:
        return depth
    return DepthMap(values=values, kind=depth.kind, valid=valid, camera=depth.camera, confidence=confidence)


def _not_depth(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{path}' is not a depth file of Endolux",
        why=f"Depth files are 16-bit grey PNG or NPZ; {reason}.",
        fix="Give a file from the depth folder of an endolux run.",
        error_id="depth.not-depth",
    )
