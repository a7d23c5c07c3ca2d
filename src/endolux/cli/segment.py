"""``endolux segment``: landmarks of an image, a folder, a glob or a video."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    from endolux.runtime.run_segment import SegmentReport

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]


def register(app: App) -> None:
    """Add the verb."""
    app.command(segment, name="segment")


def segment(
    source: str,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: str | None = None,
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime",
    precision: Literal["exact", "fast"] = "exact",
    threads: Count = None,
    overlay: bool = True,
    limit: Count = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Find the liver's landmarks in every frame of SOURCE: ridge, silhouette and falciform ligament.

    A research tool: nothing for clinical decisions.

    Args:
        source: an image, a folder of images, a quoted glob ('frames/*.png') or a video.
        output: folder for masks, polylines, overlay, frames.csv and run.json; new or empty.
        model: name of a bundled model or a bundle's folder (default: liver-landmarks, where it is there).
        engine: what runs the network; openvino needs its extra.
        precision: exact is full float32; fast leaves the precision to the engine.
        threads: threads of the network (default: all cores that this process may use).
        overlay: write overlay.mp4 (video) or overlay/*.png (images).
        limit: stop after so many frames.
        resume: continue an interrupted run of the same command.
        commercial: refuse a model whose licence does not allow commercial use.
        as_json: print the report as JSON.
        quiet: no progress.
    """
    from endolux.runtime.run_segment import SegmentOptions, segment_source

    options = SegmentOptions(
        model=model,
        engine=engine,
        precision=precision,
        threads=threads,
        overlay=overlay,
        limit=limit,
        resume=resume,
        commercial=commercial,
        command=("endolux", *sys.argv[1:]),
    )
    line = render.ProgressLine(quiet=quiet)
    try:
        report = segment_source(
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


def _render(report: SegmentReport) -> None:
    if report.already_done:
        render.answer(f"{report.out} holds the finished result of this command; nothing was done again")
    numbers = ", ".join(f"{number} {name}" for number, name in enumerate(report.classes))
    render.answer(f"masks      {report.masks}  ({numbers})")
    render.answer(f"polylines  {report.polylines}")
    if report.overlay:
        render.answer(f"overlay    {report.overlay}")
    speed = f"{report.frames_per_s:.1f} frames/s" if report.frames_per_s else "no frames timed"
    resumed = f", {report.resumed_from} of them by an earlier run" if report.resumed_from else ""
    render.answer(f"frames     {report.frames}{resumed} in {render.duration(report.seconds)} ({speed})")
    render.answer(f"found      {', '.join(f'{name} in {count}' for name, count in report.found.items())}")
    render.answer(f"model      {report.model}, {report.engine}")
    render.partial_failure(report.failures, done=report.frames, failed=report.failed, out=report.out)
