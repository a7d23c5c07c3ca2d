"""Video files through PyAV: every frame once, upright, deinterlaced, with its true time stamp."""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import itertools
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import av.filter
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import Colorspace, VideoReformatter
from typing_extensions import override

from endolux.errors import EndoluxError, InputError
from endolux.io.images import check_pixels, pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.io.sources import Failure, Source, check_start
from endolux.types import Camera, Frame, ImageArray

# Frame threads each hold reference pictures; more than a few only add memory, since the network is slower than they.
_MOST_THREADS = 4
# Below this many frames, decoding from the beginning beats looking for a key frame.
_SEEK_FROM = 64
_UNSPECIFIED_COLORSPACE = 2
# AVColorSpace to swscale's numbers: older PyAV does not look at the frame's own tag.
_COLORSPACES = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M}
# FFmpeg would also draw a text file as a film of letters, and follow play lists to other files. Its own option
# format_whitelist crashes on MPEG program streams (PyAV 16), so the name is checked after opening.
# fmt: off
_FORMATS = frozenset((
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "h264", "hevc", "m4v", "mjpeg", "mpjpeg",
    "asf", "flv", "gif", "apng", "ogg", "dv",
    "mxf", "nut", "ivf", "obu", "av1", "yuv4mpegpipe", "wav", "mp3", "aac", "flac",
))
# fmt: on
_FIELD_ORDERS = (2, 3, 4, 5)


class VideoSource(Source):
    """One video file.

    Opening it decodes the first frame, so that a file without a usable picture is refused at once. Decoding runs ahead
    in FFmpeg's threads; memory does not grow with the length. Audio and subtitles are skipped.

    Attributes:
        interlaced: the container or the first frame says so. Frames flagged as interlaced pass a motion-adaptive
            deinterlacer that gives one frame a frame, at the same time stamp.

    Args:
        path: video file.
        limit: stop before this position.
        camera: intrinsics of the upright frames, if known.

    Raises:
        InputError: no video stream (``input.no-video``), not a video (``input.not-video``), cut off before its first
            frame (``input.truncated``), no decoder (``input.codec``), too large (``input.too-large``).
    """

    kind = "video"

    def __init__(self, path: Path, *, limit: int | None = None, camera: Camera | None = None) -> None:
        self.name = printable(path.name)
        self._path = path
        self._limit = limit
        self._camera = camera
        self._max_pixels = pixel_limit()
        self._file_bytes = check_file(path)
        try:
            with path.open("rb") as file:
                self._layout = _layout(file, self._file_bytes)
        except OSError as error:
            raise input_error(error, path) from error
        self._probe()

    @override
    def frames(self, start: int = 0) -> Iterator[Frame | Failure]:
        """Decode the video, the first ``start`` positions left out.

        Yields:
            Frames with ``pts_s`` from the container (variable frame rates included) and the frame number as name. A
            picture that cannot be decoded is a Failure and counts; a file that ends too early gives the frames it has
            and then one Failure (``input.truncated``).
        """
        check_start(start)
        converter = _Converter()
        position, pictures = self._pictures(start)
        with contextlib.closing(pictures):
            for picture in pictures:
                if self._limit is not None and position >= self._limit:
                    return
                if position >= start:
                    yield self._item(position, picture, converter)
                position += 1

    def _item(self, index: int, picture: _Picture | EndoluxError, converter: _Converter) -> Frame | Failure:
        name = f"{index:06d}"
        if isinstance(picture, EndoluxError):
            return Failure(index=index, name=name, error=picture)
        try:
            check_pixels(self._path, picture.frame.width, picture.frame.height, self._max_pixels)
            image = converter.rgb(picture)
            return Frame(image=image, index=index, name=name, pts_s=picture.pts_s, camera=self._camera)
        except EndoluxError as error:
            return Failure(index=index, name=name, error=error)

    def _probe(self) -> None:
        with self._open() as container:
            stream = _video_stream(container)
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            self.fps = float(rate) if rate else None
            seconds = None
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration:
                seconds = container.duration / av.time_base
            count = stream.frames or (round(seconds * self.fps) if seconds and self.fps else None)
            self.count = min(count, self._limit) if count and self._limit else count
            order = getattr(stream.codec_context, "field_order", 0)
        error: EndoluxError | None = None
        with contextlib.closing(self._decode(None)) as decoded:
            for item in decoded:
                if isinstance(item, EndoluxError):
                    error = error or item
                    continue
                self.interlaced = bool(item.interlaced_frame) or int(order) in _FIELD_ORDERS
                turned = _orientation(item).transpose
                self.size = (item.height, item.width) if turned else (item.width, item.height)
                return
        raise error or InputError(
            f"'{printable(self._path)}' has a video stream without a single frame",
            why="Nothing was recorded, or the file was cut off right after its header.",
            fix="Record or copy the video again.",
            error_id="input.no-video",
        )

    def _open(self) -> av.container.InputContainer:
        container = self._open_any()
        if _FORMATS.isdisjoint(container.format.name.split(",")):
            container.close()
            raise self._not_video()
        return container

    def _open_any(self) -> av.container.InputContainer:
        # The prefix keeps names such as "concat:a" or "-i" from being read as protocols; the metadata of recorders is
        # often not Unicode.
        address = b"file:" + os.fsencode(self._path)
        try:
            return av.open(address.decode("utf-8", "surrogateescape"), metadata_errors="replace")
        except UnicodeError:
            pass
        except av.error.InvalidDataError as error:
            if self._layout.cut:
                raise truncated(self._path, f"{self._layout.detail}") from error
            raise self._not_video() from error
        except (av.error.FFmpegError, OSError) as error:
            raise self._system_error(error) from error
        try:
            return av.open(self._path.open("rb"), metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise self._system_error(error) from error

    def _pictures(self, start: int) -> tuple[int, Generator[_Picture | EndoluxError, None, None]]:
        """Position of the first picture, and the pictures from there on; the position is ``start`` or before."""
        place = self._key_frame_before(start) if start >= _SEEK_FROM and not self._layout.cut else None
        if place is None:
            return 0, _deinterlace(self._decode(None))
        return place.index, _deinterlace(self._decode(place))

    def _key_frame_before(self, start: int) -> _KeyFrame | None:
        """The last key frame at or before position ``start``, from time stamps alone; None where they do not tell."""
        stamps: list[int] = []
        keys: list[int] = []
        try:
            with self._open() as container:
                stream = _video_stream(container)
                for packet in container.demux(stream):
                    if packet.size == 0:
                        continue
                    if packet.pts is None or packet.is_discard or packet.is_corrupt:
                        return None
                    stamps.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except (EndoluxError, av.error.FFmpegError):
            return None
        if not stamps:
            return None
        stamps.sort()
        if any(a == b for a, b in itertools.pairwise(stamps)):
            return None
        # One key frame further back, for the pictures that a decoder drops after a jump into the middle.
        earlier = [key for key in sorted(keys) if key <= stamps[min(start, len(stamps) - 1)]][:-1]
        if not earlier:
            return None
        return _KeyFrame(pts=earlier[-1], index=bisect.bisect_left(stamps, earlier[-1]))

    def _decode(self, place: _KeyFrame | None) -> Generator[av.VideoFrame | EndoluxError, None, None]:
        """Decoded frames in display order, an error in the place of each that is lost."""
        with self._open() as container:
            stream = _video_stream(container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(_MOST_THREADS, os.cpu_count() or 1)
            if place is not None:
                container.seek(place.pts, stream=stream, backward=True)
            cut = self._layout.cut
            packets = container.demux(stream)
            while True:
                packet = None
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    if packet.is_corrupt and cut:
                        continue
                    decoded = packet.decode()
                except av.error.EOFError:
                    break
                except av.error.InvalidDataError:
                    if packet is None:
                        break
                    yield self._lost_picture()
                    continue
                except av.error.FFmpegError as error:
                    yield self._system_error(error)
                    return
                for frame in decoded:
                    if place is not None and (frame.pts is None or frame.pts < place.pts):
                        continue
                    yield self._lost_picture() if frame.is_corrupt else frame
            if cut:
                yield truncated(self._path, self._layout.detail)

    def _lost_picture(self) -> InputError:
        return InputError(
            f"A picture of '{printable(self._path)}' is damaged",
            why="Its data cannot be decoded, or refer to pictures that are missing.",
            fix="Copy the video again from its source; the other frames are not affected.",
            error_id="input.damaged-frame",
        )

    def _not_video(self) -> InputError:
        suffix = self._path.suffix.lower()
        dicom = suffix in (".dcm", ".dicom")
        return InputError(
            f"'{printable(self._path)}' is neither an image nor a video that Endolux reads",
            why="DICOM objects are not read."
            if dicom
            else "Its content matches no known format, whatever its name says.",
            fix="Export it as MP4 or PNG." if dicom else "Check that it plays in a video player, or convert it to MP4.",
            error_id="input.not-video",
        )

    def _system_error(self, error: Exception) -> EndoluxError:
        if isinstance(error, av.error.DecoderNotFoundError | av.error.PatchWelcomeError):
            return _no_decoder(self._path)
        if isinstance(error, OSError) and not isinstance(error, av.error.ValueError):
            return input_error(error, self._path)
        return self._not_video()


@dataclasses.dataclass(frozen=True, slots=True)
class _KeyFrame:
    pts: int
    index: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Orientation:
    """Transpose first, then mirror."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class _Picture:
    frame: av.VideoFrame
    pts_s: float | None
    orientation: _Orientation


@dataclasses.dataclass(frozen=True, slots=True)
class _Layout:
    """What the outermost boxes of a container say about its length."""

    cut: bool = False
    detail: str = ""


class _Converter:
    """Decoded pictures to upright RGB. Holds one scaler context, which is costly to make."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def rgb(self, picture: _Picture) -> ImageArray:
        frame, orientation = picture.frame, picture.orientation
        colorspace = _COLORSPACES.get(frame.colorspace)
        if frame.colorspace == _UNSPECIFIED_COLORSPACE and not frame.format.is_rgb:
            # The convention of players: untagged high definition is BT.709, anything smaller BT.601.
            colorspace = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
        rgb = self._reformatter.reformat(frame, format="rgb24", src_colorspace=colorspace)
        image = np.asarray(rgb.to_ndarray(), np.uint8)
        if orientation.transpose:
            image = cv2.transpose(image)
        if orientation.mirror_x or orientation.mirror_y:
            image = image[:: -1 if orientation.mirror_y else 1, :: -1 if orientation.mirror_x else 1]
        return np.ascontiguousarray(image)


class _Deinterlacer:
    """FFmpeg's bwdif in its one-frame-a-frame mode; progressive frames pass through it untouched."""

    def __init__(self, frame: av.VideoFrame) -> None:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or Fraction(1, av.time_base),
        )
        sieve = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, sieve, graph.add("buffersink")).configure()
        self._graph = graph
        self.key = _graph_key(frame)

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """Filtered frames that are ready; None flushes."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _deinterlace(items: Iterator[av.VideoFrame | EndoluxError]) -> Generator[_Picture | EndoluxError, None, None]:
    """Pictures in order; from the first interlaced one on they pass the filter, which answers one frame late."""
    graph: _Deinterlacer | None = None
    waiting: collections.deque[_Picture] = collections.deque()
    # Asked of one frame only: in PyAV a frame and its side data refer to each other, and only the garbage collector
    # frees such a pair, hundreds of megabytes later.
    orientation: _Orientation | None = None

    def filtered(frame: av.VideoFrame | None) -> Iterator[_Picture]:
        if graph is not None:
            for out in graph.push(frame):
                # Time stamps are kept beside the filter: it doubles its clock, and gives one frame for each.
                yield dataclasses.replace(waiting.popleft(), frame=out)

    for item in items:
        if isinstance(item, EndoluxError) or (graph is not None and graph.key != _graph_key(item)):
            yield from filtered(None)
            yield from waiting
            waiting.clear()
            graph = None
        if isinstance(item, EndoluxError):
            yield item
            continue
        orientation = orientation or _orientation(item)
        picture = _Picture(item, _seconds(item), orientation)
        if graph is None and not item.interlaced_frame:
            yield picture
            continue
        if graph is None:
            graph = _Deinterlacer(item)
        waiting.append(picture)
        yield from filtered(item)
    yield from filtered(None)
    yield from waiting


def _graph_key(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _seconds(frame: av.VideoFrame) -> float | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """From the display matrix: destination x = a x + c y, y = b x + d y, entries in 16.16 fixed point."""
    try:
        matrix = np.frombuffer(bytes(frame.side_data[SideDataType.DISPLAYMATRIX]), np.int32)
    except KeyError:
        return _Orientation()
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Orientation(False, a < 0, d < 0)
    return _Orientation(True, c < 0, b < 0)


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    for stream in container.streams.video:
        # Cover art of a sound recording counts as a video stream for FFmpeg.
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise _no_decoder(Path(container.name.removeprefix("file:")))
            check_pixels(
                container.name.removeprefix("file:"),
                stream.codec_context.width,
                stream.codec_context.height,
                pixel_limit(),
            )
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
    raise InputError(
        f"'{printable(container.name.removeprefix('file:'))}' has no video stream",
        why=f"It holds {' and '.join(kinds)} only.",
        fix="Give the file that holds the pictures.",
        error_id="input.no-video",
    )


def _no_decoder(path: Path) -> InputError:
    return InputError(
        f"No decoder for the video in '{printable(path)}'",
        why="The FFmpeg that PyAV brings does not know this codec.",
        fix="Convert the video to H.264 in MP4 on a machine that plays it.",
        error_id="input.codec",
    )


def _layout(file: BinaryIO, size: int) -> _Layout:
    head = file.read(16)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _mp4_layout(file, size)
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return _ends(8 + int.from_bytes(head[4:8], "little"), size)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _matroska_layout(file, size)
    return _Layout()


def _mp4_layout(file: BinaryIO, size: int) -> _Layout:
    position, index = 0, False
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8:
            break
        # A fragmented file keeps a small index in every fragment; the one at its front is enough to read the rest.
        index = index or kind in (b"moov", b"moof")
        position += length
    if position > size:
        detail = f"{size} of {position} bytes are there"
        return _Layout(True, detail if index else f"{detail}, and the index (moov) that belongs at its end is missing")
    return _Layout() if index else _Layout(True, "the index (moov) that belongs at its end is missing")


def _matroska_layout(file: BinaryIO, size: int) -> _Layout:
    file.seek(4)
    length, _ = _ebml_size(file)
    file.seek(length, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return _Layout()
    length, unknown = _ebml_size(file)
    # A recording that was never closed has no length; then its end cannot be told from a cut.
    return _Layout() if unknown else _ends(file.tell() + length, size)


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    first = file.read(1)
    if not first or first[0] == 0:
        return 0, True
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> extra)]) + file.read(extra), "big")
    return value, value == (1 << 7 * (extra + 1)) - 1


def _ends(end: int, size: int) -> _Layout:
    return _Layout(True, f"{size} of {end} bytes are there") if end > size else _Layout()
