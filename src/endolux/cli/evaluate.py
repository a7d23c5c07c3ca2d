"""``endolux evaluate``: how good is the depth of a model on images whose depth is known."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_OK, EXIT_PARTIAL

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]


def register(app: cyclopts.App) -> None:
    """Add the verb."""
    app.command(evaluate, name="evaluate")


def evaluate(
    model: str,
    /,
    *,
    data: Path,
    alignment: Literal["none", "median", "scale-shift-depth", "scale-shift-disparity"] | None = None,
    depth_kind: Literal["depth", "disparity"] = "depth",
    depth_scale: float | None = None,
    prediction_kind: Literal["metric", "relative_depth", "relative_disparity"] | None = None,
    prediction_scale: float | None = None,
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime",
    precision: Literal["exact", "fast"] = "exact",
    threads: Count = None,
    limit: Count = None,
    seed: Seed = 0,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Score MODEL on a folder of images with true depth.

    The folder holds images/ and depth/ with equal stems, or NAME.png beside NAME_depth.png. Depth files are 16-bit
    grey PNG or TIFF, or .npy/.npz with floats in millimetres; 0 and NaN mean no value.

    Args:
        model: a bundled model, a bundle's folder, baseline:constant, baseline:brightness, or a folder of predictions.
        data: folder of image/depth pairs.
        alignment: what is fitted to the truth per frame; default: exactly what the model leaves open (none for metric
            depth, median for relative depth, scale-shift-disparity for disparity).
        depth_kind: what the depth files hold.
        depth_scale: codes per millimetre of 16-bit depth files (100 for 0.01 mm steps).
        prediction_kind: meaning of a prediction folder that 'endolux predict' has not written.
        prediction_scale: codes per unit of such a folder's 16-bit files.
        engine: what runs the network; openvino needs its extra.
        precision: exact is full float32; fast leaves the precision to the engine.
        threads: threads of the network (default: all cores that this process may use).
        limit: score the first so many pairs only.
        seed: of the bootstrap intervals.
        output: also write result.json and frames.csv into this folder.
        as_json: print the result as JSON.
        quiet: no progress.
    """
    from endolux.evaluate.pairs import TruthFormat, TruthKind, check_format, find_pairs
    from endolux.evaluate.predictors import open_predictor
    from endolux.evaluate.report import check_output, document, table, write_report
    from endolux.evaluate.runner import evaluate as run
    from endolux.geometry.align import Alignment
    from endolux.types import DepthKind

    if output is not None:
        check_output(output)
    truth = TruthFormat(kind=TruthKind(depth_kind), codes_per_mm=depth_scale)
    pairs = find_pairs(data)[:limit]
    check_format(pairs, truth)
    predictor = open_predictor(
        model,
        engine=engine,
        precision=precision,
        threads=threads,
        prediction_kind=DepthKind(prediction_kind) if prediction_kind else None,
        prediction_scale=prediction_scale,
    )
    line = render.ProgressLine(quiet=quiet)
    try:
        result = run(
            predictor,
            pairs,
            truth=truth,
            alignment=Alignment(alignment) if alignment else None,
            on_progress=lambda done, total, failed: line.update(done, total=total, failed=failed),
        )
    finally:
        line.close()
    command = ("endolux", *sys.argv[1:])
    content = document(result, seed=seed, data=str(data), command=command)
    if output is not None:
        write_report(output, content, result.frames)
    if as_json:
        render.answer_json({"ok": not result.failures, **content})
    else:
        render.answer(table(result, seed=seed))
        if output is not None:
            render.answer(f"report     {shlex.quote(str(output))}")
    if not result.failures:
        return EXIT_OK
    # The three-line form of error 5, so that nobody takes the figures for those of the whole folder.
    names = ", ".join(f"{f.name} ({f.error.error_id})" for f in result.failures[:5])
    more = f" and {len(result.failures) - 5} more" if len(result.failures) > 5 else ""
    render.note(f"error[run.partial]: {len(result.failures)} of {len(pairs)} pairs failed: {names}{more}")
    render.note(f"  why: {result.failures[0].error.what} ({result.failures[0].error.why})")
    render.note(f"  fix: {result.failures[0].error.fix} The figures above leave these pairs out.")
    return EXIT_PARTIAL
