"""A whole run of landmarks: a source in; masks, polylines and overlays out. It can go on after any end."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from endolux import __version__
from endolux.errors import EndoluxError, InputError, from_os_error
from endolux.io.landmark_files import OverlayVideo, read_mask, write_mask, write_overlay, write_polylines
from endolux.io.paths import printable
from endolux.io.sources import Failure, ImageListSource, Source, open_source
from endolux.io.tables import make_output_folder, write_bytes_atomic
from endolux.prep.content_area import ContentArea, ContentAreaTracker, find_content_area
from endolux.runtime.landmarks import DEFAULT_LANDMARKS, LandmarkModel, load_landmarks
from endolux.runtime.output_folder import FailureRecord, OutputFolder, claimed
from endolux.runtime.pipeline import Sink, run_pipeline
from endolux.runtime.run_predict import Progress
from endolux.types import Frame, LandmarkMap

Result = tuple[Frame, LandmarkMap] | Failure
_QUEUE = 3
_MOST_RECORDS = 1000


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
        seconds: of this run; ``frames_per_s`` of it, None where nothing was done.
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
    out = Path(out)
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
        run = _Run(frames, folder, model, options)
        if folder.done:
            return run.report(0.0, already_done=True)
        try:
            return run.execute(source, on_progress)
        except OSError as problem:
            run.leave("failed")
            raise from_os_error(problem, out) from problem
        except KeyboardInterrupt:
            run.leave("interrupted")
            raise KeyboardInterrupt(f"Stopped; what is done is kept in '{out}'") from None
        except BaseException:
            run.leave("failed")
            raise


class _Run:
    """The state of one run."""

    def __init__(self, source: Source, folder: OutputFolder, model: LandmarkModel, options: SegmentOptions) -> None:
        self.source, self.folder, self.model, self.options = source, folder, model, options
        self.state, self.is_video = folder.state, source.kind == "video"
        self.resumed_from, self.stages, self.done = 0, dict[str, float](), 0
        self.video: OverlayVideo | None = None
        self.rows: dict[int, list[object]] = {}
        self.names = _names(source)
        self.found: Counter[str] = Counter()
        if folder.done:
            self._read_table()

    def execute(self, source: str | Path, on_progress: Callable[[Progress], None] | None) -> SegmentReport:
        """Do what is left of the run."""
        started, state = time.perf_counter(), self.state
        state.status, state.failed, state.failures, state.frames = "running", 0, [], 0
        state.command = [argument.encode("utf-8", "backslashreplace").decode() for argument in self.options.command]
        state.versions = {"endolux": __version__}
        state.model = {"name": self.model.bundle.name, "card_sha256": self.model.bundle.card_sha256}
        state.source = {"path": printable(source), "kind": self.source.kind, "count": self.source.count}
        self.folder.save()
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
                self._frames(), self._predict, [Sink("write", self._write)], depth=_QUEUE, on_item=progress
            )
        except BaseException:
            if self.video is not None:
                self.video.abort()
            raise
        if self.video is not None:
            self.video.close()
        if state.frames == 0 and state.failures:
            first = state.failures[0]
            raise InputError(
                f"None of the {state.failed} inputs could be read; the first, '{first.name}': {first.what}",
                why=first.why,
                fix=first.fix,
                error_id=first.error_id,
            )
        self._write_table()
        if self.done:
            state.frames_per_s = round(self.done / report.wall_s, 3)
            state.stages_ms = {name: round(1e3 * total / self.done, 3) for name, total in report.busy_s.items()}
        state.results = self._results()
        state.seconds = round(state.seconds + time.perf_counter() - started, 3)
        self.folder.finish()
        return self.report(time.perf_counter() - started, already_done=False)

    def leave(self, status: str) -> None:
        """Record an early end; where even that fails (full disk), the last saved state stands."""
        self.state.status = status
        try:
            self.folder.save()
        except (EndoluxError, OSError):
            return

    def report(self, seconds: float, *, already_done: bool) -> SegmentReport:
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
            seconds=round(seconds, 3),
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

    def _frames(self) -> Iterator[tuple[Frame, ContentArea] | Failure]:
        tracker = ContentAreaTracker() if self.is_video else None
        for item in self.source.frames():
            if isinstance(item, Failure):
                yield item
            else:
                yield item, tracker.update(item.image) if tracker is not None else find_content_area(item.image)

    def _predict(self, item: tuple[Frame, ContentArea] | Failure) -> Result:
        if isinstance(item, Failure):
            self.state.failed += 1
            if len(self.state.failures) < _MOST_RECORDS:
                self.state.failures.append(FailureRecord.of(item.index, item.name, item.error))
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
    path = Path(os.fsdecode(source))
    what = str(path.resolve())
    if path.is_file():
        status = path.stat()
        what += f" ({status.st_size} bytes, modified {status.st_mtime_ns})"
    else:
        what += f" ({frames.count} files)"
    return {
        "verb": "segment",
        "source": what.encode("utf-8", "backslashreplace").decode(),
        "model": f"{model.bundle.name} {model.bundle.card_sha256}",
        "engine": f"{model.engine.name} {model.engine.precision}",
        "overlay": str(options.overlay),
        "limit": str(options.limit or ""),
    }
