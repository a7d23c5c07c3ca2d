"""The result writer: depth, table, pictures and point clouds of a run, fresh or continued."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Self

from endolux.geometry.cameras import point_mask, unproject
from endolux.io.colour import ColourRange
from endolux.io.depth_codes import ContentAreaMeta, DepthMeta
from endolux.io.depth_files import open_depth_writer
from endolux.io.ply import write_ply
from endolux.io.sources import Failure
from endolux.io.tables import FrameRow, FramesCsv, make_output_folder, read_frames_csv
from endolux.io.vis import VisWriter, write_vis_png
from endolux.runtime.output_folder import OutputFolder
from endolux.runtime.pipeline import Sink
from endolux.types import Camera, DepthMap, Frame

Result = tuple[Frame, DepthMap] | Failure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which results a run writes.

    Attributes:
        vis: pictures, in the colour range of the folder's state.
        video: the frames follow each other and have one size; pictures become ``vis.mp4``.
        size: (width, height) of a video's frames.
        fps: frame rate of a video.
        camera: intrinsics for a point cloud of every frame.
    """

    vis: bool
    video: bool
    size: tuple[int, int] | None
    fps: float | None
    camera: Camera | None


class ResultWriter:
    """Writes the results of one run into its claimed folder, and continues those of an interrupted one.

    The folder's state is set back to what lies safely on the disk: counts and failures of the frames before
    ``next_index``.

    Attributes:
        next_index: the first frame of the source that is still to be done.
        results: names of the results, relative to the folder.

    Args:
        folder: the claimed folder.
        meta: description of the depth.
        wanted: which results.
    """

    def __init__(self, folder: OutputFolder, *, meta: DepthMeta, wanted: Wanted) -> None:
        self._path, self._wanted = folder.path, wanted
        self._state = folder.state
        self._vis: VisWriter | None = None
        self._table: FramesCsv | None = None
        self.results = {
            "frames": "frames.csv",
            "meta": "meta.json",
            "depth": "depth.mkv" if meta.format == "mkv" else "depth",
        }
        # The folder is ours alone, so that resuming an empty one is a fresh start.
        self._depth = open_depth_writer(folder.path, fmt=meta.format, meta=meta, resume=True, fps=wanted.fps)
        try:
            self._open(folder.path)
        except BaseException:
            self.abort()
            raise

    @property
    def saturated(self) -> int:
        """Pixels that the 16-bit codes could not hold; complete after ``close``."""
        return self._depth.meta.saturated_pixels

    @property
    def sinks(self) -> list[Sink[Result]]:
        """The stages that write, for a pipeline."""
        sinks: list[Sink[Result]] = [Sink("depth", self.write_depth)]
        if "vis" in self.results:
            sinks.append(Sink("vis", self.write_vis))
        return sinks

    def write_depth(self, result: Result) -> None:
        """Depth, point cloud and table row of one frame."""
        if self._table is None:
            return
        if isinstance(result, Failure):
            self._depth.write_invalid(result.index, result.name)
            self._table.write(FrameRow(index=result.index, name=result.name, status=result.error.error_id))
            return
        frame, depth = result
        file = self._depth.write(frame.index, frame.name, depth, pts_s=frame.pts_s)
        if self._wanted.camera is not None:
            self._points(frame, depth)
        self._table.write(FrameRow.of_depth(frame.index, frame.name, depth, pts_s=frame.pts_s, file=file))

    def write_vis(self, result: Result) -> None:
        """The picture of one frame."""
        if self._vis is not None:
            if isinstance(result, Failure):
                self._vis.write_failed(result.index)
            else:
                self._vis.write(*result)
        elif not isinstance(result, Failure):
            frame, depth = result
            write_vis_png(self._picture(frame.index), frame, depth, range=self._range)

    def content_area(self, area: ContentAreaMeta) -> None:
        """Put the content area of a clip into ``meta.json``."""
        self._depth.meta = self._depth.meta.model_copy(update={"content_area": area})

    def close(self) -> None:
        """Put everything in place."""
        self._depth.close()
        if self._vis is not None:
            self._vis.close()
        if self._table is not None:
            self._table.close()

    def abort(self) -> None:
        """Keep what is finished, for a run that continues."""
        self._depth.abort()
        if self._vis is not None:
            self._vis.abort()
        if self._table is not None:
            self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()

    @property
    def _range(self) -> ColourRange | None:
        return self._state.colour_range

    def _open(self, path: Path) -> None:
        wanted = self._wanted
        if wanted.vis and wanted.video and wanted.size is not None:
            self.results["vis"] = "vis.mp4"
            self._vis = VisWriter(path / "vis.mp4", size=wanted.size, fps=wanted.fps, range=self._range, resume=True)
        elif wanted.vis:
            self.results["vis"] = "vis"
            make_output_folder(path / "vis")
        if wanted.camera is not None:
            self.results["points"] = "points"
            make_output_folder(path / "points")
        self.next_index = self._whole_frames(path / "frames.csv")
        self._table = FramesCsv(path / "frames.csv", resume=True, start=self.next_index)

    def _whole_frames(self, table: Path) -> int:
        """Frames whose every result is there; counts them into the state."""
        state = self._state
        limit = self._depth.next_index
        if self._vis is not None:
            limit = min(limit, self._vis.next_index)
        state.frames = state.black = state.failed = 0
        whole = 0
        for row in read_frames_csv(table) if table.exists() else ():
            if row.index >= limit or row.index != whole:
                break
            if row.failed:
                state.failed += 1
            else:
                pictures = self.results.get("vis") != "vis" or self._picture(row.index).exists()
                points = "points" not in self.results or self._cloud(row.index).exists()
                if not (pictures and points):
                    break
                state.frames += 1
                state.black += row.status != "ok"
            whole += 1
        state.failures = [failure for failure in state.failures if failure.index < whole]
        return whole

    def _points(self, frame: Frame, depth: DepthMap) -> None:
        colours = frame.image[point_mask(depth, self._wanted.camera)]
        comments = [
            f"kind {depth.kind.value}",
            f"unit {depth.unit.value}",
            "camera coordinates: x right, y down, z forward",
        ]
        write_ply(self._cloud(frame.index), unproject(depth, self._wanted.camera), colours, comments=comments)

    def _picture(self, index: int) -> Path:
        return self._path / "vis" / f"{index:06d}.png"

    def _cloud(self, index: int) -> Path:
        return self._path / "points" / f"{index:06d}.ply"
