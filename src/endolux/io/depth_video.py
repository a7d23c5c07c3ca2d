"""Depth as one lossless video: FFV1, 16-bit grey, in Matroska."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from typing_extensions import override

from endolux.errors import InputError, UsageError
from endolux.io.depth_codes import CodeArray, DepthMeta, decode
from endolux.io.depth_writer import DepthWriter
from endolux.io.segments import SEGMENT_FRAMES, SegmentedVideo, read_tags, video_files, video_state
from endolux.types import DepthMap

VIDEO_NAME = "depth.mkv"
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_TIME_BASE = Fraction(1, 1000)  # Matroska's own tick; a finer one would be rounded to it


class MkvDepthWriter(DepthWriter):
    """Writes ``depth.mkv``. Frame k of the video is frame k of the source: frames without depth are all invalid.

    Every frame is a key frame with checksums, so that any frame can be read alone and damage is noticed.

    Args:
        folder: the output folder.
        meta: description of the depth.
        resume: continue an interrupted or finished run.
        fps: frame rate where the source gives no time stamps.
        segment_frames: frames a segment (see :class:`endolux.io.segments.SegmentedVideo`).
        threads: encoder threads; by default up to four.
    """

    def __init__(
        self,
        folder: Path,
        *,
        meta: DepthMeta,
        resume: bool = False,
        fps: float | None = None,
        segment_frames: int = SEGMENT_FRAMES,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, meta=meta, resume=resume)
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._pending = 0
        self._video = SegmentedVideo(
            folder / VIDEO_NAME,
            configure=self._configure,
            time_base=_TIME_BASE,
            frame_s=1.0 / fps if fps else 0.04,
            resume=resume,
            segment_frames=segment_frames,
        )
        self.next_index = self._video.next_index
        self._save_meta()

    @override
    def _write(self, index: int, depth: DepthMap, pts_s: float | None) -> str:
        size = self.meta.size
        if size is None:
            self.meta = self.meta.model_copy(update={"size": depth.size})
            size = depth.size
        if depth.size != size:
            raise UsageError(
                f"Frame {index} is {depth.size[0]}x{depth.size[1]}, the video {size[0]}x{size[1]}",
                why="All frames of a depth.mkv have one size.",
                fix="Use --depth-format png for images of different sizes.",
                error_id="depth.size-changed",
            )
        self._fill()
        self._append(self._coder.encode(depth), pts_s)
        return VIDEO_NAME

    @override
    def _write_invalid(self, index: int, size: tuple[int, int] | None, pts_s: float | None) -> str:
        del index
        if self.meta.size is None and size is not None:
            self.meta = self.meta.model_copy(update={"size": size})
        if self.meta.size is None:
            # Until the first good frame tells the size there is nothing to write.
            self._pending += 1
            return VIDEO_NAME
        self._fill()
        self._append(np.zeros(self.meta.size[::-1], np.uint16), pts_s)
        return VIDEO_NAME

    def _fill(self) -> None:
        if self.meta.size is not None:
            while self._pending:
                self._pending -= 1
                self._append(np.zeros(self.meta.size[::-1], np.uint16), None)

    def _append(self, codes: CodeArray, pts_s: float | None) -> None:
        saved = self._video.saved_frames
        self._video.write(av.VideoFrame.from_ndarray(codes, format="gray16le"), pts_s=pts_s)
        if self._video.saved_frames != saved:
            self._save_meta()

    def _configure(self, container: OutputContainer) -> VideoStream:
        width, height = self.meta.size or (1, 1)
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "gray16le"
        context = stream.codec_context
        context.color_range = 2  # full range: tools must not stretch the codes
        context.thread_count = self._threads
        context.options = {
            "level": "3",
            "g": "1",
            "slices": "4" if min(width, height) >= 16 else "1",
            "slicecrc": "1",
        } | ({"qtable": "greater8bit"} if _has_qtable() else {})
        return stream

    @override
    def _close(self) -> None:
        self._fill()
        self._video.close()

    @override
    def _abort(self) -> None:
        self._video.abort()

    @override
    def _saved_frames(self) -> int:
        return self._video.saved_frames


def completed_video_frames(folder: Path) -> int | None:
    """Frames that lie finished in ``depth.mkv`` or its segments; None where there is neither."""
    state = video_state(folder / VIDEO_NAME)
    return None if state is None else state.frames


def read_depth_video(path: Path, *, meta: DepthMeta) -> Iterator[DepthMap]:
    """Depth maps of a ``depth.mkv`` in order, one at a time.

    Args:
        path: the video. Where it does not exist yet, the finished segments beside it are read.
        meta: description of the depth (:func:`endolux.io.depth_codes.read_meta`).

    Raises:
        InputError: the file is no depth video (``depth.not-depth``), is damaged or ends early (``input.truncated``).
    """
    files = video_files(path)
    if not files:
        raise InputError(
            f"No depth video '{path}'",
            why="Neither the file nor finished segments of it exist.",
            fix="Give the output folder of an endolux run.",
            error_id="input.missing",
        )
    for file in files:
        yield from _read_one(file, meta)


def _read_one(path: Path, meta: DepthMeta) -> Iterator[DepthMap]:
    count = 0
    try:
        with av.open(f"file:{path}", "r") as container:
            if not container.streams.video:
                raise _not_depth(path, "it has no video stream")
            stream = container.streams.video[0]
            context = stream.codec_context
            if context.name != "ffv1" or context.pix_fmt != "gray16le":
                raise _not_depth(path, f"it is {context.name} {context.pix_fmt}, not ffv1 gray16le")
            context.thread_count = min(4, os.cpu_count() or 1)
            tags = read_tags(container)
            expected = (tags or {}).get("frames")
            for number, packet in enumerate(container.demux(stream)):
                if packet.size and tags is not None and not _checksums_hold(bytes(packet)):
                    raise _damaged(path, number, "a checksum does not fit")
                for frame in packet.decode():
                    count += 1
                    yield decode(frame.to_ndarray(), meta)
    except (OSError, av.FFmpegError) as error:
        raise _damaged(path, count, str(error)) from error
    if isinstance(expected, int) and count < expected:
        raise InputError(
            f"'{path}' ends after {count} of {expected} frames",
            why="The file was cut off, for example by an interrupted copy.",
            fix="Copy it again or predict again.",
            error_id="input.truncated",
        )


def _checksums_hold(packet: bytes) -> bool:
    """Whether every slice of an FFV1 version 3 frame agrees with its CRC (RFC 9043, 4.9).

    FFmpeg's decoder only logs a wrong checksum and repairs the picture with the one before, which is not lossless.
    """
    end = len(packet)
    while end > 0:
        start = end - 8 - int.from_bytes(packet[end - 8 : end - 5], "big") if end >= 8 else -1
        if start < 0:
            return False
        # zlib's CRC takes bits from the other end, starts at and is inverted with all ones; FFV1's starts at 0.
        mirrored = packet[start:end].translate(_MIRRORED)
        if zlib.crc32(mirrored, 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = start
    return True


def _damaged(path: Path, number: int, reason: str) -> InputError:
    return InputError(
        f"Cannot read frame {number} of '{path}'",
        why=f"The file is damaged: {reason}.",
        fix="Predict again into another folder, or restore the file.",
        error_id="input.damaged",
    )


def _not_depth(path: Path, reason: str) -> InputError:
    return InputError(
        f"'{path}' is not a depth video of Endolux",
        why=f"Depth videos are FFV1 with 16-bit grey; {reason}.",
        fix="Give the depth.mkv of an endolux run.",
        error_id="depth.not-depth",
    )


def _has_qtable() -> bool:
    # The option appeared with FFmpeg 7.1; unknown options are an error.
    major, minor, _ = av.library_versions["libavcodec"]
    return (major, minor) >= (61, 19)
