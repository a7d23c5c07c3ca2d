"""What all depth writers share: frame numbers, ``meta.json``, failed frames, clean ends."""

from __future__ import annotations

import abc
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from endolux.errors import EndoluxError, UsageError
from endolux.io.depth_codes import DepthCoder, DepthMeta, read_meta
from endolux.io.tables import make_output_folder, write_json_atomic
from endolux.types import DepthMap

_META_EVERY = 100
"""Frames between two updates of ``meta.json``, for formats that have no segments."""


class DepthWriter(abc.ABC):
    """Writes the depth of one run into a folder, together with ``meta.json``.

    Use it as a context manager: a block that ends with an exception keeps what is finished, for ``resume``.

    Attributes:
        folder: the output folder.
        meta: description of the depth. May be replaced while writing (for example when the content area is known);
            the last one is on the disk after ``close``.
        next_index: the frame that comes next. Earlier ones are there already and are skipped when written again.
    """

    def __init__(self, folder: Path, *, meta: DepthMeta, resume: bool) -> None:
        self.folder = make_output_folder(folder)
        if resume and (folder / "meta.json").exists():
            meta = _continued(read_meta(folder), meta, folder)
        self.meta = meta
        self.next_index = 0
        self._coder = DepthCoder(codes_per_unit=meta.codes_per_unit)
        self._coder.saturated_pixels = meta.saturated_pixels
        self._coder.nonfinite_pixels = meta.nonfinite_pixels
        self._closed = False

    def write(self, index: int, name: str, depth: DepthMap, *, pts_s: float | None = None) -> str:
        """Write the depth of frame ``index``.

        Args:
            index: frame number in the source, from 0. Numbers left out become frames without depth.
            name: the frame's name, for error messages.
            depth: the depth map.
            pts_s: presentation time in seconds (used by depth.mkv).

        Returns:
            Where it lies, relative to the folder: the ``file`` column of ``frames.csv``.

        Raises:
            UsageError: the depth is of another kind than ``meta`` says, or of a size that the format cannot hold.
            DeviceError: the disk is full; what was written before stays readable.
        """
        if depth.kind is not self.meta.kind:
            raise UsageError(
                f"Depth of kind '{depth.kind}' for frame {index} ('{name}') in a run of kind '{self.meta.kind}'",
                why="All frames of a run share one meaning, which meta.json states.",
                fix="Write each kind into its own folder.",
                error_id="depth.kind-changed",
            )
        if index < self.next_index:
            return self._file(index)
        self._leave_out(index)
        file = self._write(index, depth, pts_s)
        self._advance()
        return file

    def write_invalid(
        self, index: int, name: str = "", *, size: tuple[int, int] | None = None, pts_s: float | None = None
    ) -> str:
        """Write a frame without any depth, so that later frames keep their numbers.

        Args:
            index: frame number in the source.
            name: the frame's name.
            size: (width, height) in pixels; by default that of the other frames.
            pts_s: presentation time in seconds.

        Returns:
            Where it lies; empty where the format writes nothing because the size is unknown.
        """
        del name
        if index < self.next_index:
            return self._file(index)
        self._leave_out(index)
        file = self._write_invalid(index, size or self.meta.size, pts_s)
        self._advance()
        return file

    def close(self) -> None:
        """Finish every file and write the final ``meta.json``. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._close()
        self._save_meta()

    def abort(self) -> None:
        """Stop early: keep what is finished, raise nothing."""
        if not self._closed:
            self._closed = True
            self._abort()
            # Best effort: a resumed run then goes on counting from here.
            with contextlib.suppress(EndoluxError):
                self._save_meta()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _leave_out(self, index: int) -> None:
        while self.next_index < index:
            self._write_invalid(self.next_index, self.meta.size, None)
            self._advance()

    def _advance(self) -> None:
        self.next_index += 1

    def _save_meta(self) -> None:
        self.meta = self.meta.model_copy(
            update={
                "saturated_pixels": self._coder.saturated_pixels,
                "nonfinite_pixels": self._coder.nonfinite_pixels,
                "frames": self._saved_frames(),
            }
        )
        write_json_atomic(self.folder / "meta.json", self.meta)

    def _file(self, index: int) -> str:
        return f"depth.{self.meta.format}" if self.meta.format == "mkv" else f"depth/{index:06d}.{self.meta.format}"

    @abc.abstractmethod
    def _write(self, index: int, depth: DepthMap, pts_s: float | None) -> str: ...

    @abc.abstractmethod
    def _write_invalid(self, index: int, size: tuple[int, int] | None, pts_s: float | None) -> str: ...

    @abc.abstractmethod
    def _close(self) -> None: ...

    @abc.abstractmethod
    def _abort(self) -> None: ...

    @abc.abstractmethod
    def _saved_frames(self) -> int: ...


def _continued(before: DepthMeta, now: DepthMeta, folder: Path) -> DepthMeta:
    """The description of a run that goes on: the old one, provided that nothing that matters changed."""
    for field in ("kind", "format", "codes_per_unit", "model", "engine", "precision", "camera"):
        old, new = getattr(before, field), getattr(now, field)
        if old != new:
            raise UsageError(
                f"Cannot resume in '{folder}': {field} was {_short(old)}, now it is {_short(new)}",
                why="One folder holds the depth of one model with one set of options.",
                fix="Use the options of the first run, or choose another output folder.",
                error_id="output.resume-mismatch",
            )
    update = {"content_area": now.content_area or before.content_area, "endolux_version": now.endolux_version}
    return before.model_copy(update=update)


def _short(value: object) -> str:
    return "not set" if value is None else f"'{value}'"
