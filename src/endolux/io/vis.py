"""Pictures to look at: the frame beside its depth in colours, as one video or PNG."""

from __future__ import annotations

import dataclasses
from collections import deque
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.video.stream import VideoStream

from endolux.errors import UsageError
from endolux.io.colour import LEGEND_WIDTH, ColourRange, RangeEstimator, colour_table, colourise, legend
from endolux.io.segments import SEGMENT_FRAMES, SegmentedVideo
from endolux.io.tables import make_output_folder, write_bytes_atomic
from endolux.types import DepthKind, DepthMap, Frame, ImageArray

Layout = Literal["side-by-side", "overlay"]
PANEL_PIXELS = 800
"""Largest width and height of one panel. Larger frames shrink by a whole number, which is fast."""

_TIME_BASE = Fraction(1, 90_000)
_MINIMUM_HEIGHT = 128  # the legend needs this much


class VisWriter:
    """Writes ``vis.mp4``: frame, depth in colours and legend, H.264 yuv420p, with the source's time stamps.

    The colour range is fixed over the clip. Where none is given, the first ``range_frames`` frames (already shrunk,
    so memory stays small) wait until :class:`endolux.io.colour.RangeEstimator` has chosen it. A resumed run takes the
    range of the first run, which the video itself holds.

    Args:
        path: the video to write, ``.mp4``.
        size: (width, height) of the source frames. Frames of another size are fitted in.
        fps: frame rate where frames carry no time stamps.
        range: colour range, None to choose it from the first frames.
        layout: ``side-by-side`` or ``overlay`` (depth blended over the frame).
        palette: one of ``endolux.io.colour.PALETTES``.
        panel_pixels: largest width and height of one panel.
        resume: continue an interrupted or finished video.
        segment_frames: frames a segment (see :class:`endolux.io.segments.SegmentedVideo`).
        range_frames: frames that decide the range.
        crf: x264's quality, lower is better.

    Raises:
        UsageError: the file exists and ``resume`` is not set, is not ours, or its folder cannot be written to.
        DeviceError: the disk is full.

    Example:
        >>> import tempfile
        >>> frame = Frame(image=np.full((48, 64, 3), 90, np.uint8), pts_s=0.0)
        >>> depth = DepthMap(
        ...     values=np.full((48, 64), 30, np.float32), kind=DepthKind.METRIC, valid=np.ones((48, 64), bool)
        ... )
        >>> path = Path(tempfile.mkdtemp()) / "vis.mp4"
        >>> with VisWriter(path, size=(64, 48), fps=25, range=ColourRange(low=5, high=60)) as vis:
        ...     vis.write(frame, depth)
        >>> path.exists()
        True
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        fps: float | None = None,
        range: ColourRange | None = None,
        layout: Layout = "side-by-side",
        palette: str = "turbo",
        panel_pixels: int = PANEL_PIXELS,
        resume: bool = False,
        segment_frames: int = SEGMENT_FRAMES,
        range_frames: int = 25,
        crf: int = 23,
    ) -> None:
        if path.suffix.lower() != ".mp4":
            raise UsageError(
                f"Cannot write a video '{path.name}'",
                why="Videos to look at are MP4 files.",
                fix="Give a name that ends in .mp4.",
                error_id="vis.suffix",
            )
        make_output_folder(path.parent)
        self.range = range
        self._crf = crf
        self._range_frames = range_frames
        self._canvas = _Canvas(size, layout=layout, palette=palette, panel_pixels=panel_pixels)
        self._estimator = RangeEstimator(frames=range_frames)
        self._waiting: deque[tuple[_Panels, float | None]] = deque()
        self._kind: DepthKind | None = None
        self._options: dict[str, object] = {"canvas": list(self._canvas.size), "layout": layout, "palette": palette}
        self._video = SegmentedVideo(
            path,
            configure=self._configure,
            time_base=_TIME_BASE,
            frame_s=1.0 / fps if fps else 0.04,
            tags=self._options,
            resume=resume,
            segment_frames=segment_frames,
        )
        self._take_up(path)
        self.next_index = self._video.next_index

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Append one frame; earlier frames than ``next_index`` are there already and are skipped.

        Frame numbers that were left out become black frames, so that the video keeps the source's frame numbers.

        Raises:
            UsageError: frame and depth have different sizes, or the kind of the depth changes.
            DeviceError: the disk is full; what was finished before can be resumed.
        """
        if frame.size != depth.size or self._kind not in (None, depth.kind):
            raise UsageError(
                f"Frame {frame.index} ({frame.size}) does not go with depth {depth.size} of kind '{depth.kind}'",
                why="A depth map has the size of its frame, and a clip has one kind of depth.",
                fix="Write the depth that was predicted for this frame.",
                error_id="vis.mismatch",
            )
        if frame.index < self.next_index:
            return
        self._kind = depth.kind
        while self.next_index < frame.index:
            self.write_failed(self.next_index)
        self._push(self._canvas.panels(frame, depth), frame.pts_s)

    def write_failed(self, index: int, *, pts_s: float | None = None) -> None:
        """Append a black frame for one that could not be read."""
        if index >= self.next_index:
            self._push(self._canvas.black(), pts_s)

    def close(self) -> None:
        """Write what waits and put the video in place. Safe to call twice."""
        self._flush()
        self._video.close()

    def abort(self) -> None:
        """Stop early: keep what is finished for ``resume``, raise nothing."""
        self._waiting.clear()
        self._video.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _push(self, panels: _Panels, pts_s: float | None) -> None:
        self.next_index += 1
        if self.range is not None:
            self._encode(panels, pts_s)
            return
        self._waiting.append((panels, pts_s))
        if panels.depth is not None:
            self._estimator.update(panels.depth)
        if self._estimator.ready or (self._estimator.seen and len(self._waiting) >= 2 * self._range_frames):
            self._flush()
        elif len(self._waiting) >= 2 * self._range_frames:
            # Nothing but black so far: these frames need no range, and memory is bounded.
            self._encode(*self._waiting.popleft())

    def _flush(self) -> None:
        if self.range is None and self._estimator.seen:
            self.range = self._estimator.range()
            self._video.tags["range"] = dataclasses.asdict(self.range)
        while self._waiting:
            self._encode(*self._waiting.popleft())

    def _encode(self, panels: _Panels, pts_s: float | None) -> None:
        if self.range is not None:
            self._video.tags.setdefault("range", dataclasses.asdict(self.range))
        picture = self._canvas.paint(panels, self.range)
        self._video.write(av.VideoFrame.from_ndarray(picture, format="yuv420p"), pts_s=pts_s)

    def _configure(self, container: OutputContainer) -> VideoStream:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = self._canvas.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # OpenCV converts with the BT.601 matrix in limited range.
        context.colorspace, context.color_range = 5, 1
        # One thread and no look-ahead: x264 would otherwise hold dozens of frames and compete with the network.
        context.thread_count = 1
        context.options = {"preset": "ultrafast", "crf": str(self._crf), "bf": "0", "g": "50"}
        return stream

    def _take_up(self, path: Path) -> None:
        if not self._video.next_index:
            return
        tags = self._video.tags
        for option, now in self._options.items():
            if tags.get(option) != now:
                raise UsageError(
                    f"Cannot resume '{path}': {option} was {tags.get(option)}, now it is {now}",
                    why="All frames of a video have one size and one look.",
                    fix="Use the options of the first run, or choose another output folder.",
                    error_id="output.resume-mismatch",
                )
        stored = tags.get("range")
        if isinstance(stored, dict) and stored.keys() == {"low", "high", "scale"}:
            self.range = ColourRange(**stored)


def write_vis_png(
    path: Path,
    frame: Frame,
    depth: DepthMap,
    *,
    range: ColourRange | None = None,
    layout: Layout = "side-by-side",
    palette: str = "turbo",
) -> None:
    """Write one frame, its depth in colours and the legend as a PNG at full size.

    Args:
        path: the PNG; replaced atomically.
        frame: the frame.
        depth: its depth, of the same size.
        range: colour range; by default chosen from this frame.
        layout: ``side-by-side`` or ``overlay``.
        palette: one of ``endolux.io.colour.PALETTES``.

    Raises:
        UsageError: sizes differ, or the folder cannot be written to.
        DeviceError: the disk is full.
    """
    if frame.size != depth.size:
        raise UsageError(
            f"Frame {frame.size} does not go with depth {depth.size}",
            why="A depth map has the size of its frame.",
            fix="Give the depth that was predicted for this frame.",
            error_id="vis.mismatch",
        )
    if range is None:
        estimator = RangeEstimator(frames=1)
        estimator.update(depth)
        range = estimator.range()
    colours = colourise(depth, range, palette=palette)
    panels = [_blend(frame.image, colours)] if layout == "overlay" else [frame.image, colours]
    height = max(frame.size[1], _MINIMUM_HEIGHT)
    panels = [cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 0, cv2.BORDER_CONSTANT) for p in panels]
    picture = cv2.hconcat([*panels, legend(range, kind=depth.kind, height=height, palette=palette)])
    _, data = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_bytes_atomic(path, data.data)


@dataclasses.dataclass(frozen=True, slots=True)
class _Panels:
    """A frame and its depth at the size of a panel."""

    image: ImageArray | None
    depth: DepthMap | None


class _Canvas:
    """The picture that is filled again for every frame; the legend is drawn once."""

    def __init__(self, size: tuple[int, int], *, layout: Layout, palette: str, panel_pixels: int) -> None:
        width, height = size
        self._divisor = max(1, -(-max(width, height) // panel_pixels))
        self._source = size
        self._panel = (max(1, width // self._divisor), max(1, height // self._divisor))
        self._layout = layout
        self._palette = palette
        self._table = colour_table(palette)
        panels = 1 if layout == "overlay" else 2
        self._legend_left = panels * self._panel[0]
        total = self._legend_left + LEGEND_WIDTH
        self.size = (total + total % 2, max(_MINIMUM_HEIGHT, self._panel[1] + self._panel[1] % 2))
        self._picture: ImageArray = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        self._yuv: npt.NDArray[np.uint8] = np.empty((self.size[1] * 3 // 2, self.size[0]), np.uint8)
        self._drawn: ColourRange | None = None

    def panels(self, frame: Frame, depth: DepthMap) -> _Panels:
        """Shrink frame and depth; the copies do not keep the large arrays alive."""
        width, height = self._panel
        if frame.size == self._source:
            step = self._divisor
            image = frame.image[: height * step, : width * step]
            if step > 1:
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            middle = (slice(step // 2, height * step, step), slice(step // 2, width * step, step))
            values, valid = depth.values[middle].copy(), depth.valid[middle].copy()
        else:
            image, values, valid = self._fit(frame, depth)
        return _Panels(image, DepthMap(values=values, kind=depth.kind, valid=valid))

    def black(self) -> _Panels:
        return _Panels(None, None)

    def paint(self, panels: _Panels, range: ColourRange | None) -> npt.NDArray[np.uint8]:
        """The picture as planar YUV 4:2:0, 3/2 height x width; valid until the next call."""
        width, height = self._panel
        picture, depth, image = self._picture, panels.depth, panels.image
        if depth is None or image is None:
            picture[:, : self._legend_left] = 0
        else:
            if range is not None and range != self._drawn:
                bar = legend(range, kind=depth.kind, height=self.size[1], palette=self._palette)
                picture[:, self._legend_left : self._legend_left + LEGEND_WIDTH] = bar
                self._drawn = range
            colours = (
                np.zeros((height, width, 3), np.uint8)
                if range is None
                else colourise(depth, range, palette=self._palette)
            )
            if self._layout == "overlay":
                picture[:height, :width] = _blend(image, colours)
            else:
                picture[:height, :width] = image
                picture[:height, width : 2 * width] = colours
        cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420, self._yuv)
        return self._yuv

    def _fit(self, frame: Frame, depth: DepthMap) -> tuple[ImageArray, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        width, height = self._panel
        scale = min(width / frame.size[0], height / frame.size[1])
        inner = (max(1, round(frame.size[0] * scale)), max(1, round(frame.size[1] * scale)))
        border = (0, height - inner[1], 0, width - inner[0], cv2.BORDER_CONSTANT)
        image = cv2.resize(frame.image, inner, interpolation=cv2.INTER_AREA)
        values = cv2.resize(depth.values, inner, interpolation=cv2.INTER_NEAREST)
        valid = cv2.resize(depth.valid.astype(np.uint8), inner, interpolation=cv2.INTER_NEAREST)
        return (
            cv2.copyMakeBorder(image, *border),
            cv2.copyMakeBorder(values, *border),
            cv2.copyMakeBorder(valid, *border).astype(bool),
        )


def _blend(image: ImageArray, colours: ImageArray) -> ImageArray:
    """Half frame, half colours; the plain frame where there is no depth."""
    mixed: ImageArray = cv2.addWeighted(image, 0.5, colours, 0.5, 0.0)
    empty = ~colours.any(axis=2)
    mixed[empty] = image[empty]
    return mixed
