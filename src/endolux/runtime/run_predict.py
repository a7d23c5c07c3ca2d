"""A whole run: a source in, an output folder out; its stages run side by side, and it can continue after any end."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from endolux import __version__
from endolux.errors import InputError, UsageError
from endolux.io.depth_codes import ContentAreaMeta, DepthMeta, ModelMeta, codes_per_unit_for
from endolux.io.sources import Failure, Source, open_source
from endolux.prep.content_area import ContentArea
from endolux.runtime.bundles import DEFAULT_MODEL
from endolux.runtime.colour_range import colour_range
from endolux.runtime.frame_run import QUEUE, FrameRun, Progress, source_identity
from endolux.runtime.model import Model, load
from endolux.runtime.output_folder import FailureRecord, OutputFolder, claimed
from endolux.runtime.pipeline import run_pipeline
from endolux.runtime.result_writer import Result, ResultWriter, Wanted
from endolux.types import Camera, DepthKind, Frame

DepthFormat = Literal["png", "mkv", "npz"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What a run may be told.

    Attributes:
        model: name of a bundled model or a bundle's folder; None for the bundled network.
        engine, precision, threads: as in :func:`endolux.load`.
        depth_format: png, mkv or npz; None for mkv from a video and png from images.
        vis: write coloured pictures.
        camera: JSON file with intrinsics of the frames.
        ply: write a point cloud for every frame; needs ``camera``.
        limit: number of frames.
        resume: continue an interrupted run.
        max_failures: failures after which the run gives up; None for never.
        commercial: refuse a model whose licence is not known to allow commercial use.
        command: the command line, for ``run.json``.
    """

    model: str | None = None
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
    precision: Literal["exact", "fast"] = "exact"
    threads: int | None = None
    depth_format: DepthFormat | None = None
    vis: bool = True
    camera: Path | None = None
    ply: bool = False
    limit: int | None = None
    resume: bool = False
    max_failures: int | None = None
    commercial: bool = False
    command: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run made.

    Attributes:
        out: output folder.
        depth, vis, ply: where they lie; None where not asked for.
        kind, unit: meaning of the depth.
        codes: how to read the files, for people.
        frames: frames with depth in the folder; ``resumed_from`` of them by an earlier run.
        black: frames without a single valid pixel.
        saturated: pixels clipped by the 16-bit codes.
        seconds: wall time, earlier runs included.
        frames_per_s: of this run, model loading left out; None where nothing was done.
        stages_ms: mean busy time of each stage a frame, in milliseconds; stages overlap.
        failed: number of inputs that failed; ``failures`` describes them (the first thousand).
        already_done: the folder held the finished run; nothing was done.
    """

    out: Path
    depth: Path
    vis: Path | None
    ply: Path | None
    kind: str
    unit: str
    codes: str
    model: str
    engine: str
    precision: str
    frames: int
    resumed_from: int
    black: int
    saturated: int
    seconds: float
    frames_per_s: float | None
    stages_ms: dict[str, float]
    failed: int
    failures: tuple[FailureRecord, ...]
    already_done: bool

    def document(self) -> dict[str, object]:
        """The report as plain values."""
        document = dataclasses.asdict(self)
        for name in ("out", "depth", "vis", "ply"):
            document[name] = None if document[name] is None else str(document[name])
        document["failures"] = [failure.model_dump() for failure in self.failures]
        return document


def predict_source(
    source: str | Path,
    out: str | Path,
    *,
    options: PredictOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Predict the depth of every frame of a source and write it to a folder.

    The folder gets depth files, ``meta.json``, ``frames.csv``, pictures and ``run.json``. Work is committed in parts: a
    run that ends early, by any cause, continues with ``resume`` and gives the same files as an undisturbed one.

    Args:
        source: image, folder, glob or video.
        out: new or empty folder, or that of the same run.
        options: see :class:`PredictOptions`.
        on_progress: called after every frame.

    Raises:
        UsageError: the folder belongs to something else, options contradict each other.
        InputError: the source cannot be read, or none of its frames could.
        ModelError: the model cannot be used.
        DeviceError: disk or memory gave out; what is committed stays.

    Example:
        >>> from endolux.runtime.run_predict import predict_source  # doctest: +SKIP
        >>> report = predict_source("clip.mp4", "out")  # doctest: +SKIP
        >>> report.frames, report.kind, report.unit  # doctest: +SKIP
        (250, 'relative_depth', 'none')
    """
    options = options or PredictOptions()
    out = Path(out)
    started = time.perf_counter()
    camera = _camera(options)
    with ExitStack() as stack:
        frames = stack.enter_context(open_source(source, limit=options.limit, camera=camera))
        model = load(
            options.model or DEFAULT_MODEL,
            engine=options.engine,
            precision=options.precision,
            threads=options.threads,
            commercial=options.commercial,
        )
        if options.ply and model.bundle.card.depth.kind is DepthKind.RELATIVE_DISPARITY:
            raise UsageError(
                f"No point cloud from the model '{model.bundle.name}'",
                why="It gives disparity with an unknown shift, which has no three-dimensional shape.",
                fix="Leave --ply out, or use a model of another kind.",
                error_id="predict.ply-kind",
            )
        depth_format: DepthFormat = options.depth_format or ("mkv" if frames.kind == "video" else "png")
        identity = _identity(source, frames, model=model, depth_format=depth_format, options=options, camera=camera)
        folder = stack.enter_context(claimed(out, identity=identity, resume=options.resume))
        run = _Run(
            frames, folder, model=model, options=options, depth_format=depth_format, camera=camera, started=started
        )
        if folder.done:
            return run.report(already_done=True)
        with run.recorded(out, stopped=lambda: f"Stopped after {folder.state.frames} frames; they are kept in '{out}'"):
            run.execute(source, on_progress)
        return run.report(already_done=False)


class _Run(FrameRun[Model]):
    """The state of one run."""

    def __init__(
        self,
        source: Source,
        folder: OutputFolder,
        *,
        model: Model,
        options: PredictOptions,
        depth_format: DepthFormat,
        camera: Camera | None,
        started: float,
    ) -> None:
        super().__init__(source, folder, model=model, started=started)
        self.options, self.depth_format, self.camera = options, depth_format, camera
        card = model.bundle.card
        self.meta = DepthMeta(
            format=depth_format,
            kind=card.depth.kind,
            codes_per_unit=codes_per_unit_for(card.depth),
            camera=camera,
            model=ModelMeta(name=card.name, card_sha256=model.bundle.card_sha256),
            engine=model.engine.name,
            precision=model.engine.precision,
        )

    def execute(self, source: str | Path, on_progress: Callable[[Progress], None] | None) -> None:
        """Do what is left of the run."""
        state = self.state
        self.begin(source, self.options.command)
        clock = time.perf_counter()
        if state.colour_range is None and self.options.vis:
            state.colour_range = colour_range(self.source, self.model)
            self.folder.save()
        wanted = Wanted(
            vis=self.options.vis,
            video=self.is_video,
            size=self.source.size,
            fps=self.source.fps,
            camera=self.camera if self.options.ply else None,
        )
        with ResultWriter(self.folder, meta=self.meta, wanted=wanted) as writer:
            start = writer.next_index
            self.resumed_from = state.frames

            def progress(done: int) -> None:
                if on_progress is not None:
                    shown = Progress(done=start + done, total=self.source.count, failed=state.failed, start=start)
                    on_progress(shown)

            report = run_pipeline(self.frames(start), self._predict, writer.sinks, depth=QUEUE, on_item=progress)
            if self.is_video and state.content_area is not None:
                writer.content_area(ContentAreaMeta.model_validate(state.content_area))
            writer.close()
        busy = time.perf_counter() - clock
        state.results, state.saturated = writer.results, writer.saturated
        self.finish(done=state.frames - self.resumed_from, busy_s=busy, stages_s=report.busy_s)

    def report(self, *, already_done: bool) -> RunReport:
        """The report from the state."""
        state, out, meta = self.state, self.folder.path, self.meta
        step = 1 / meta.codes_per_unit
        unit = " mm" if meta.unit.value == "mm" else ""
        codes = "float32" if self.depth_format == "npz" else f"16 bit, {step:g}{unit} a step, 0 is invalid"
        return RunReport(
            out=out,
            depth=out / state.results.get("depth", "depth"),
            vis=out / state.results["vis"] if "vis" in state.results else None,
            ply=out / state.results["points"] if "points" in state.results else None,
            kind=meta.kind.value,
            unit=meta.unit.value,
            codes=codes,
            model=self.model.bundle.name,
            engine=self.model.engine.name,
            precision=self.model.engine.precision,
            frames=state.frames,
            resumed_from=self.resumed_from,
            black=state.black,
            saturated=state.saturated,
            seconds=state.seconds,
            frames_per_s=state.frames_per_s,
            stages_ms=state.stages_ms,
            failed=state.failed,
            failures=tuple(state.failures),
            already_done=already_done,
        )

    def _predict(self, item: tuple[Frame, ContentArea] | Failure) -> Result:
        state = self.state
        if isinstance(item, Failure):
            self._failure(item)
            return item
        frame, area = item
        if area.shape != "none" and state.content_area is None:
            state.content_area = _area_document(area)
        depth = self.model.predict(frame, area=area)
        state.frames += 1
        state.black += not depth.valid.any()
        return frame, depth

    def _failure(self, failure: Failure) -> None:
        state = self.state
        if self.record_failure(failure):
            # Before its row in frames.csv: a resumed run must not know of a failure without its reason.
            self.folder.save()
        limit = self.options.max_failures
        if limit is not None and state.failed > limit:
            raise InputError(
                f"{state.failed} inputs have failed, the last '{failure.name}': {failure.error.what}",
                why=f"The run was told to give up after {limit} (--max-failures).",
                fix=f"{failure.error.fix} Then start again in a new folder.",
                error_id="run.too-many-failures",
            )


def _camera(options: PredictOptions) -> Camera | None:
    if options.camera is None:
        if options.ply:
            raise UsageError(
                "A point cloud was asked for without a camera",
                why="Without intrinsics nobody knows in which direction a pixel looks.",
                fix="Add --camera camera.json, or leave --ply out.",
                error_id="predict.ply-camera",
            )
        return None
    from endolux.geometry.cameras import load_camera

    return load_camera(options.camera)


def _identity(
    source: str | Path,
    frames: Source,
    *,
    model: Model,
    depth_format: str,
    options: PredictOptions,
    camera: Camera | None,
) -> dict[str, str]:
    """What makes two runs the same run, as text that can be shown where they differ."""
    return {
        "source": source_identity(source, frames),
        "model": f"{model.bundle.name} {model.bundle.card_sha256}",
        "engine": model.engine.name,
        "precision": model.engine.precision,
        "format": depth_format,
        "vis": str(options.vis).lower(),
        "ply": str(options.ply).lower(),
        "limit": str(options.limit or "none"),
        "camera": "none" if camera is None else hashlib.sha256(repr(camera).encode()).hexdigest()[:16],
        "endolux": __version__,
    }


def _area_document(area: ContentArea) -> dict[str, object]:
    left, top, width, height = area.bbox
    return {"shape": area.shape, "left": left, "top": top, "width": width, "height": height}
