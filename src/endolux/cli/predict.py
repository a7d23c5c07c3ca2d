"""``endolux predict``: depth of an image, a folder, a glob or a video."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    # The runtime costs a few tenths of a second to import, which other verbs and --help should not pay.
    from endolux.runtime.run_predict import PredictOptions, RunReport

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Tolerance = Annotated[int | None, Parameter(validator=validators.Number(gte=0))]


def register(app: App) -> None:
    """Add the verb."""
    app.command(predict, name="predict")


def predict(
    source: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: str | None = None,
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime",
    precision: Literal["exact", "fast"] = "exact",
    threads: Count = None,
    depth_format: Annotated[Literal["png", "mkv", "npz"] | None, Parameter(name=["--format", "--depth-format"])] = None,
    vis: bool = True,
    camera: Path | None = None,
    ply: Annotated[bool, Parameter(negative=())] = False,
    limit: Count = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    max_failures: Tolerance = None,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Predict the depth of every frame of SOURCE and write it to a folder.

    Args:
        source: an image, a folder of images, a quoted glob ('frames/*.png') or a video.
        output: folder for depth, meta.json, frames.csv, vis and run.json; new or empty.
        model: name of a bundled model or a bundle's folder (default: the bundled network).
        engine: what runs the network; openvino needs its extra.
        precision: exact is full float32; fast leaves the precision to the engine.
        threads: threads of the network (default: all cores that this process may use).
        depth_format: png (16 bit), mkv (FFV1, lossless) or npz; default mkv for a video, png for images.
        vis: write vis.mp4 (video) or vis/*.png (images): frame, depth and legend.
        camera: intrinsics as JSON (width, height, fx, fy, cx, cy, model, distortion).
        ply: write a point cloud for every frame; needs --camera.
        limit: stop after so many frames.
        resume: continue an interrupted run of the same command.
        max_failures: give up when more frames than this have failed.
        commercial: refuse a model whose licence does not allow commercial use.
        as_json: print the report as JSON.
        quiet: no progress.
    """
    from endolux.runtime.run_predict import PredictOptions

    options = PredictOptions(
        model=model,
        engine=engine,
        precision=precision,
        threads=threads,
        depth_format=depth_format,
        vis=vis,
        camera=camera,
        ply=ply,
        limit=limit,
        resume=resume,
        max_failures=max_failures,
        commercial=commercial,
        command=("endolux", *sys.argv[1:]),
    )
    return run_and_render(source, output, options=options, as_json=as_json, quiet=quiet)


def run_and_render(source: str | Path, output: Path, *, options: PredictOptions, as_json: bool, quiet: bool) -> int:
    """Run a prediction with a progress line, print its report, return the exit code."""
    from endolux.runtime.run_predict import predict_source

    line = render.ProgressLine(quiet=quiet)
    try:
        report = predict_source(
            source,
            output,
            options=options,
            on_progress=lambda p: line.update(p.done, total=p.total, failed=p.failed, start=p.start),
        )
    finally:
        line.close()
    if as_json:
        render.answer_json({"ok": not report.failed, **report.document()})
    else:
        _render(report)
    return EXIT_PARTIAL if report.failed else EXIT_OK


def _render(report: RunReport) -> None:
    unit = "mm" if report.unit == "mm" else "no unit"
    if report.already_done:
        render.answer(f"{report.out} holds the finished result of this command; nothing was done again")
    render.answer(f"depth   {report.depth}  ({report.kind}, {unit}, {report.codes})")
    if report.vis:
        render.answer(f"vis     {report.vis}")
    if report.ply:
        render.answer(f"ply     {report.ply}")
    speed = f"{report.frames_per_s:.1f} frames/s" if report.frames_per_s else "no frames timed"
    resumed = f", {report.resumed_from} of them by an earlier run" if report.resumed_from else ""
    render.answer(f"frames  {report.frames}{resumed} in {render.duration(report.seconds)} ({speed})")
    render.answer(f"model   {report.model}, {report.engine}, {report.precision}")
    if report.black:
        render.answer(f"black   {report.black} of {report.frames} frames are black: no valid depth in them")
    if report.saturated:
        render.answer(f"note    {report.saturated} pixels lie beyond the range of the 16-bit codes and were clipped")
    render.partial_failure(report.failures, done=report.frames, failed=report.failed, out=report.out)
