"""A whole run of landmarks: a source in; masks, polylines and overlays out. It can go on after any end."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from endolux.io.landmark_files import OverlayVideo, read_mask, write_mask, write_overlay, write_polylines
from endolux.io.paths import printable
from endolux.io.sources import Failure, ImageListSource, Source, open_source
from endolux.io.tables import make_output_folder, write_bytes_atomic
from endolux.prep.content_area import ContentArea
from endolux.runtime.frame_run import QUEUE, FrameRun, Progress, source_identity
from endolux.runtime.landmarks import DEFAULT_LANDMARKS, LandmarkModel, load_landmarks
from endolux.runtime.output_folder import FailureRecord, OutputFolder, claimed
from endolux.runtime.pipeline import Sink, run_pipeline
from endolux.types import Frame, LandmarkMap

Result = tuple[Frame, LandmarkMap] | Failure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOptions:
    """What a run may be told.

    Attributes:
        model: name of a bundled model or a bundle's folder; None for the bundled one.
        engine, precision, threads: as in :func:`endolux.load`.
        overlay: write pictures to look at.
        limit: number of frames.
        resume: continue an interrupted run.
        commercial: refuse a model whose licence is not known to allow commercial use.
        command: the command line, for ``run.json``.
    """

    model: str | None = None
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
    precision: Literal["exact", "fast"] = "exact"
    threads: int | None = None
    overlay: bool = True
    limit: int | None = None
    resume: bool = False
    commercial: bool = False
    command: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReport:
    """What a run made.

    Attributes:
        out: output folder; ``masks``, ``polylines`` and ``overlay`` (None where not asked for) lie in it.
        classes: names of the mask's numbers.
        found: frames that show each class, without the background.
        frames: frames with a mask; ``resumed_from`` of them by an earlier run.
        seconds: wall time, earlier runs included; ``frames_per_s`` of this run, None where nothing was done.
        stages_ms: mean busy time of each stage a frame; stages overlap.
        failed: number of inputs that failed; ``failures`` describes them (the first thousand).
        already_done: the folder held the finished run; nothing was done.
    """

    out: Path
    masks: Path
    polylines: Path
    overlay: Path | None
    model: str
    engine: str
    classes: tuple[str, ...]
    found: Mapping[str, int]
    frames: int
    resumed_from: int
    seconds: float
    frames_per_s: float | None
    stages_ms: Mapping[str, float]
    failed: int
    failures: tuple[FailureRecord, ...]
    already_done: bool

    def document(self) -> dict[str, object]:
        """The report as plain values."""
        document = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("out", "masks", "polylines", "overlay"):
            document[name] = None if document[name] is None else str(document[name])
        document |= {"found": dict(self.found), "stages_ms": dict(self.stages_ms)}
        document["failures"] = [failure.model_dump() for failure in self.failures]
        return document


def segment_source(
    source: str | Path,
    out: str | Path,
    *,
    options: SegmentOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SegmentReport:
    """Find the landmarks in every frame of a source and write them to a folder.

    ``masks/NAME.png`` holds class numbers, ``polylines/NAME.json`` the middles of the lines, ``overlay.mp4`` (or
    ``overlay/NAME.png``) pictures to look at, ``frames.csv`` the pixels of each class, ``run.json`` the record.

    Args:
        source: image, folder, glob or video.
        out: new or empty folder, or that of the same run.
        options: see :class:`SegmentOptions`.
        on_progress: called after every frame.

    Raises:
        UsageError: the folder belongs to something else.
        InputError: the source cannot be read, or none of its frames could.
        ModelError: the model cannot be used.
        DeviceError: disk or memory gave out; what is written stays.
    """
    options = options or SegmentOptions()
    out, started = Path(out), time.perf_counter()
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source, limit=options.limit))
        model = load_landmarks(
            options.model or DEFAULT_LANDMARKS,
            engine=options.engine,
            precision=options.precision,
            threads=options.threads,
            commercial=options.commercial,
        )
        identity = _identity(source, frames, model, options)
        folder = stack.enter_context(claimed(out, identity=identity, resume=options.resume))
        run = _Run(frames, folder, model=model, options=options, started=started)
        if folder.done:
            return run.report(already_done=True)
        with run.recorded(out, stopped=lambda: f"Stopped; what is done is kept in '{out}'"):
            run.execute(source, on_progress)
        return run.report(already_done=False)


class _Run(FrameRun[LandmarkModel]):
    """The state of one run."""

    def __init__(
        self, source: Source, folder: OutputFolder, *, model: LandmarkModel, options: SegmentOptions, started: float
    ) -> None:
        super().__init__(source, folder, model=model, started=started)
        self.options, self.done = options, 0
        self.video: OverlayVideo | None = None
        self.rows: dict[int, list[object]] = {}
        self.names = _names(source)
        self.found: Counter[str] = Counter()
        if folder.done:
            self._read_table()

    def execute(self, source: str | Path, on_progress: Callable[[Progress], None] | None) -> None:
        """Do what is left of the run."""
        state, clock = self.state, time.perf_counter()
        # Frames of an earlier run are met again, and counted again.
        state.failed, state.failures, state.frames = 0, [], 0
        self.begin(source, self.options.command)
        for name in ("masks", "polylines", *(["overlay"] if self.options.overlay and not self.is_video else [])):
            make_output_folder(self.folder.path / name)
        if self.options.overlay and self.is_video and self.source.size is not None:
            path = self.folder.path / "overlay.mp4"
            self.video = OverlayVideo(path, size=self.source.size, fps=self.source.fps)

        def progress(done: int) -> None:
            if on_progress is not None:
                on_progress(Progress(done=done, total=self.source.count, failed=state.failed, start=0))

        try:
            report = run_pipeline(
                self.frames(), self._predict, [Sink("write", self._write)], depth=QUEUE, on_item=progress
            )
        except BaseException:
            if self.video is not None:
                self.video.abort()
            raise
        if self.video is not None:
            self.video.close()
        if state.frames or not state.failures:
            self._write_table()
        state.results = self._results()
        self.finish(done=self.done, busy_s=time.perf_counter() - clock, stages_s=report.busy_s)

    def report(self, *, already_done: bool) -> SegmentReport:
        """The report from the state."""
        state, out = self.state, self.folder.path
        return SegmentReport(
            out=out,
            masks=out / "masks",
            polylines=out / "polylines",
            overlay=out / state.results["overlay"] if "overlay" in state.results else None,
            model=self.model.bundle.name,
            engine=self.model.engine.name,
            classes=self.model.classes,
            found={name: self.found[name] for name in self.model.classes[1:]},
            frames=state.frames,
            resumed_from=self.resumed_from,
            seconds=state.seconds,
            frames_per_s=state.frames_per_s,
            stages_ms=state.stages_ms,
            failed=state.failed,
            failures=tuple(state.failures),
            already_done=already_done,
        )

    def _results(self) -> dict[str, str]:
        results = {"masks": "masks", "polylines": "polylines", "frames": "frames.csv"}
        if self.options.overlay:
            results["overlay"] = "overlay.mp4" if self.is_video else "overlay"
        return results

    def _predict(self, item: tuple[Frame, ContentArea] | Failure) -> Result:
        if isinstance(item, Failure):
            self.record_failure(item)
            return item
        frame, area = item
        kept = self._kept(frame, area) if self.options.resume else None
        self.state.frames += 1
        if kept is not None:
            self.resumed_from += 1
            return frame, kept
        self.done += 1
        return frame, self.model.predict(frame, area=area)

    def _kept(self, frame: Frame, area: ContentArea) -> LandmarkMap | None:
        """The classes that an earlier run wrote for a frame."""
        mask, lines = self._paths(frame.index, frame.name)
        if not (mask.is_file() and lines.is_file()):
            return None
        labels = read_mask(mask)
        if labels.shape != frame.image.shape[:2]:
            return None
        width, height = frame.size
        ones = np.ones(labels.shape, np.float32)
        return LandmarkMap(labels=labels, classes=self.model.classes, probability=ones, valid=area.mask(width, height))

    def _write(self, result: Result) -> None:
        if isinstance(result, Failure):
            self.rows[result.index] = [result.index, result.name, "", result.error.error_id]
            if self.video is not None:
                self.video.write_failed(result.index)
            return
        frame, landmarks = result
        mask, lines = self._paths(frame.index, frame.name)
        # The mask comes last: a frame with one is a whole frame.
        if not (mask.is_file() and lines.is_file()):
            write_polylines(lines, landmarks, picture=frame.name)
            write_mask(mask, landmarks)
        if self.video is not None:
            self.video.write(frame, landmarks)
        elif self.options.overlay:
            path = self.folder.path / "overlay" / mask.name
            if not path.is_file():
                write_overlay(path, frame, landmarks)
        pixels = [int(n) for n in np.bincount(landmarks.labels.ravel(), minlength=len(landmarks.classes))[1:]]
        self.found.update(name for name, n in zip(landmarks.classes[1:], pixels, strict=False) if n)
        seen = "ok" if landmarks.valid.any() else "black"
        self.rows[frame.index] = [
            frame.index,
            frame.name,
            "" if frame.pts_s is None else f"{frame.pts_s:.6f}",
            seen,
            *pixels,
        ]

    def _paths(self, index: int, name: str) -> tuple[Path, Path]:
        stem = self.names.get(name, f"{index:06d}")
        return self.folder.path / "masks" / f"{stem}.png", self.folder.path / "polylines" / f"{stem}.json"

    def _write_table(self) -> None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "name", "pts_s", "status", *(f"{name}_px" for name in self.model.classes[1:])])
        table.writerows(self.rows[index] for index in sorted(self.rows))
        write_bytes_atomic(self.folder.path / "frames.csv", text.getvalue().encode("utf-8", "backslashreplace"))

    def _read_table(self) -> None:
        path = self.folder.path / "frames.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self.found.update(n for n in self.model.classes[1:] if (row.get(f"{n}_px") or "0") != "0")


def _names(source: Source) -> dict[str, str]:
    """Stems for the files of images: their own where no two share one; nothing for videos."""
    if source.kind == "image":
        return {source.name: Path(source.name).stem}
    if not isinstance(source, ImageListSource):
        return {}
    names = [printable(str(name)) for name in source.relative_names]
    stems = Counter(Path(name).stem for name in names)
    return {name: Path(name).stem for name in names if stems[Path(name).stem] == 1}


def _identity(source: str | Path, frames: Source, model: LandmarkModel, options: SegmentOptions) -> dict[str, str]:
    """What makes two runs the same run, as text that can be shown where they differ."""
    return {
        "verb": "segment",
        "source": source_identity(source, frames),
        "model": f"{model.bundle.name} {model.bundle.card_sha256}",
        "engine": f"{model.engine.name} {model.engine.precision}",
        "overlay": str(options.overlay),
        "limit": str(options.limit or ""),
    }
