"""A video written in whole segments, so that an interrupted run loses a few seconds at most and can go on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from endolux.errors import DeviceError, EndoluxError, InputError, UsageError, from_os_error
from endolux.io.tables import atomic_path

SEGMENT_FRAMES = 100
"""Frames a segment: what a killed run has to compute again at most."""

_TAG = "endolux"
_MUXERS = {
    ".mkv": ("matroska", {"fflags": "+bitexact"}),
    # The start of a segment is kept in ticks of the movie, by default a millisecond.
    ".mp4": ("mp4", {"fflags": "+bitexact", "movie_timescale": "90000"}),
}


class SegmentedVideo:
    """One video file that grows in segments and becomes whole, without a second encoding, when it is closed.

    While it grows, ``clip.mkv`` lies as ``clip.parts/part-000000000.mkv``, ``part-000000100.mkv``, ...: each named by
    its first frame, complete, playable, and put in place atomically. ``close`` copies their packets into
    ``clip.mkv`` and removes them. A run that is killed leaves the finished segments, and a new writer with ``resume``
    continues behind them; it also continues a video that was closed. Presentation times pass through unchanged up to
    ``time_base``.

    The encoder must give one packet a frame, in order, and start afresh with each segment (no B-frames).

    Args:
        path: the final file; its suffix names the format.
        configure: adds the video stream to a new container and sets up its encoder.
        time_base: length of one tick of the time stamps in seconds.
        frame_s: time between frames where the source gives no time stamps.
        tags: text that is kept in the file and read back on resume.
        resume: continue an earlier video.
        segment_frames: frames a segment.

    Raises:
        UsageError: ``path`` or its segments exist and ``resume`` is not set, or they are not ours.
        DeviceError: the disk is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        configure: Callable[[OutputContainer], VideoStream],
        time_base: Fraction,
        frame_s: float = 0.04,
        tags: Mapping[str, object] | None = None,
        resume: bool = False,
        segment_frames: int = SEGMENT_FRAMES,
    ) -> None:
        self.path = path
        self.tags: dict[str, object] = dict(tags or {})
        self._configure = configure
        self._time_base = time_base
        self._frame_ticks = max(1, round(frame_s / time_base))
        self._segment_frames = segment_frames
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._in_segment = 0
        self._last_ticks: int | None = None
        self._closed = False
        if not resume and (path.exists() or parts_folder(path).exists()):
            raise UsageError(
                f"'{path}' or its segments exist already",
                why="Results are never overwritten.",
                fix="Add --resume to continue that run, or choose another output folder.",
                error_id="output.exists",
            )
        state = video_state(path) if resume else None
        self.next_index = 0
        if state is not None:
            self.next_index = state.frames
            self.tags = {**self.tags, **state.tags}
            if state.last_pts_s is not None:
                self._last_ticks = round(state.last_pts_s / time_base)
        self.saved_frames = self.next_index
        """Frames that a kill cannot take away any more."""

    def write(self, frame: av.VideoFrame, *, pts_s: float | None = None) -> None:
        """Append one frame of the size and pixel format that ``configure`` set.

        Args:
            frame: the picture.
            pts_s: presentation time in seconds; made to increase strictly. None: one frame time after the last.

        Raises:
            DeviceError: the disk is full. What was finished before stays and can be resumed.
        """
        with self._errors():
            if self._container is None:
                self._begin()
            ticks = round(pts_s / self._time_base) if pts_s is not None else None
            if self._last_ticks is None:
                ticks = ticks or 0
            elif ticks is None:
                ticks = self._last_ticks + self._frame_ticks
            else:
                ticks = max(ticks, self._last_ticks + 1)
            self._last_ticks = ticks
            frame.pts = ticks
            frame.time_base = self._time_base
            self._encode(frame)
            self._in_segment += 1
            self.next_index += 1
            if self._in_segment >= self._segment_frames:
                self._finish()

    def close(self) -> None:
        """Finish the last segment and put the whole video in place. Safe to call twice."""
        if self._closed:
            return
        with self._errors():
            self._finish()
            parts = list(_parts(self.path))
            if parts:
                with atomic_path(self.path) as temporary:
                    self._join(parts, temporary)
                shutil.rmtree(parts_folder(self.path))
        self._closed = True

    def abort(self) -> None:
        """Keep what is finished as segments, for ``resume``; raises nothing, since an error is under way already."""
        if self._closed:
            return
        self._closed = True
        try:
            self._finish()
        except (OSError, av.FFmpegError, EndoluxError):
            self._discard()

    def _begin(self) -> None:
        folder = parts_folder(self.path)
        if self.path.exists():
            # A closed video that is continued becomes the first segment; segments beside it are left-overs of a
            # run that was killed between joining and tidying up, and hold nothing that it lacks.
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
            self.path.replace(folder / _part_name(0, self.path.suffix))
        folder.mkdir(exist_ok=True)
        self._part = folder / _part_name(self.next_index, self.path.suffix)
        self._temporary = self._part.with_name(f".{self._part.name}.tmp")
        self._container = _open_output(self._temporary, self.path.suffix, self.tags)
        self._stream = self._configure(self._container)
        self._stream.codec_context.time_base = self._time_base
        self._stream.time_base = self._time_base
        self._in_segment = 0

    def _encode(self, frame: av.VideoFrame | None) -> None:
        if self._stream is None or self._container is None:
            return
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _finish(self) -> None:
        if self._container is None:
            return
        self._encode(None)
        self._container.close()
        self._container = self._stream = None
        with self._temporary.open("rb+") as file:
            os.fsync(file.fileno())
        self._temporary.replace(self._part)
        self.saved_frames = self.next_index

    def _join(self, parts: list[Path], target: Path) -> None:
        tags = {**self.tags, "frames": self.next_index}
        with contextlib.closing(_open_output(target, self.path.suffix, tags)) as output:
            stream: VideoStream | None = None
            header = b""
            for part in parts:
                with _open_input(part) as source:
                    template = source.streams.video[0]
                    if stream is None:
                        stream = output.add_stream_from_template(template)
                        stream.time_base = self._time_base
                        header = _codec_header(template)
                    elif _codec_header(template) != header:
                        raise InputError(
                            f"The segments of '{self.path}' were not written by the same encoder",
                            why="Only segments with equal codec headers can be joined without a second encoding.",
                            fix=f"Play or join the files in '{part.parent}' with another tool, or predict again.",
                            error_id="output.segments",
                        )
                    for packet in source.demux(template):
                        if packet.dts is not None:
                            packet.stream = stream
                            output.mux(packet)

    def _discard(self) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            with contextlib.suppress(OSError, av.FFmpegError):
                container.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        if self._closed:
            raise UsageError(
                f"'{self.path}' is closed",
                why="The writer was closed, or failed before.",
                fix="Open a new writer with resume=True.",
                error_id="output.closed",
            )
        try:
            yield
        except EndoluxError:
            self._closed = True
            self._discard()
            raise
        except (OSError, av.FFmpegError) as error:
            self._closed = True
            self._discard()
            raise _video_error(error, self.path) from error


class VideoState:
    """What is there of a video: ``frames``, ``last_pts_s`` and ``tags``."""

    def __init__(self, *, frames: int, last_pts_s: float | None, tags: Mapping[str, object]) -> None:
        self.frames = frames
        self.last_pts_s = last_pts_s
        self.tags = dict(tags)


def video_state(path: Path) -> VideoState | None:
    """Frames that lie finished in ``path`` or its segments, or None where there are none.

    Raises:
        UsageError: a file of that name exists that Endolux did not write.
    """
    parts = [path] if path.exists() else list(_parts(path))
    if not parts:
        return None
    last = parts[-1]
    count, last_pts_s, tags = _inspect(last)
    first = 0 if last == path else _first_index(last)
    tags.pop("frames", None)
    return VideoState(frames=first + count, last_pts_s=last_pts_s, tags=tags)


def video_files(path: Path) -> list[Path]:
    """The closed video, or the finished segments of an open one, in order."""
    return [path] if path.exists() else list(_parts(path))


def parts_folder(path: Path) -> Path:
    """Where the segments of ``path`` lie."""
    return path.with_suffix(".parts")


def read_tags(container: av.container.Container) -> dict[str, object] | None:
    """The tags of a video that Endolux wrote, None for any other."""
    # Matroska capitalises the keys of its tags, MP4 does not.
    comment = {key.lower(): value for key, value in container.metadata.items()}.get("comment", "")
    try:
        content = json.loads(comment)
    except ValueError:
        return None
    tags = content.get(_TAG) if isinstance(content, dict) else None
    return tags if isinstance(tags, dict) else None


def _inspect(path: Path) -> tuple[int, float | None, dict[str, object]]:
    count, last_pts_s = 0, None
    try:
        with _open_input(path) as container:
            tags = read_tags(container)
            if tags is None or not container.streams.video:
                raise _foreign(path)
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is not None:
                    count += 1
                    last_pts_s = float(packet.pts * packet.time_base)
    except (OSError, av.FFmpegError) as error:
        raise _foreign(path) from error
    return count, last_pts_s, tags


def _foreign(path: Path) -> UsageError:
    return UsageError(
        f"'{path}' was not written by Endolux",
        why="Files of other people are never continued or overwritten.",
        fix="Choose another output folder with -o FOLDER.",
        error_id="output.foreign",
    )


def _parts(path: Path) -> Iterator[Path]:
    """Finished segments in order."""
    folder = parts_folder(path)
    if folder.is_dir():
        yield from sorted(folder.glob(f"part-*{path.suffix}"))


def _part_name(first: int, suffix: str) -> str:
    return f"part-{first:09d}{suffix}"


def _first_index(part: Path) -> int:
    digits = part.stem.removeprefix("part-")
    if not digits.isascii() or not digits.isdigit():
        raise _foreign(part)
    return int(digits)


def _open_output(path: Path, suffix: str, tags: Mapping[str, object]) -> OutputContainer:
    name, options = _MUXERS[suffix]
    # The prefix keeps FFmpeg from reading a colon in a folder name as a protocol.
    container: OutputContainer = av.open(f"file:{path}", "w", format=name, options=options)
    container.metadata["comment"] = json.dumps({_TAG: dict(tags)})
    return container


def _codec_header(stream: VideoStream) -> bytes:
    return bytes(stream.codec_context.extradata or b"")


def _open_input(path: Path) -> av.container.InputContainer:
    return av.open(f"file:{path}", "r")


def _video_error(error: OSError | av.FFmpegError, path: Path) -> EndoluxError:
    number = error.errno if isinstance(error.errno, int) else 0
    if isinstance(error, OSError) or 0 < number < 200:
        return from_os_error(OSError(number, error.strerror or str(error)), path)
    return DeviceError(
        f"The video encoder failed while writing '{path}'",
        why=f"FFmpeg said: {error}.",
        fix="Run the same command with --resume, or choose --depth-format png.",
        error_id="device.encoder",
    )
