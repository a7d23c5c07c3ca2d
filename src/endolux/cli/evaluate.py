"""``endolux evaluate``: how good is the depth of a model on images whose depth is known."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_OK, EXIT_PARTIAL, UsageError
from endolux.io.sources import Failure

if TYPE_CHECKING:
    from endolux.datasets.base import Dataset, FrameKey, Protocol

Count = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0))]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
AlignmentName = Literal["none", "median", "scale-shift-depth", "scale-shift-disparity"]
KindName = Literal["metric", "relative_depth", "relative_disparity"]


def register(app: cyclopts.App) -> None:
    """Add the verb."""
    verb = cyclopts.App(name="evaluate")
    verb.default(evaluate)
    verb.command(compare, name="compare")
    app.command(verb)


def evaluate(
    model: str,
    /,
    *,
    data: Path,
    protocol: str | None = None,
    split: Path | None = None,
    alignment: AlignmentName | None = None,
    reproduce: Annotated[list[str] | None, Parameter(negative=())] = None,
    depth_kind: Literal["depth", "disparity"] = "depth",
    depth_scale: float | None = None,
    prediction_kind: KindName | None = None,
    prediction_scale: float | None = None,
    in_order: Annotated[bool, Parameter(negative=())] = False,
    command: str | None = None,
    timeout: Seconds = 300.0,
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime",
    precision: Literal["exact", "fast"] = "exact",
    threads: Count = None,
    limit: Count = None,
    seed: Seed = 0,
    commercial: Annotated[bool, Parameter(negative=())] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    as_json: JsonFlag = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Score MODEL under a protocol, or on a folder of images with true depth.

    With --protocol, DATA is the folder of that data set, and frames, valid range, crop, alignment and averaging are
    those of the protocol ('endolux data ls' lists them). Without it, DATA holds images/ and depth/ with equal stems,
    or NAME.png beside NAME_depth.png: 16-bit grey PNG or TIFF, or .npy/.npz with floats in millimetres; 0 and NaN mean
    no value.

    Args:
        model: a bundled model, a bundle's folder, baseline:constant, baseline:brightness, a folder of predictions (of
            any software: npy, npz, 16-bit PNG; named SEQUENCE/INDEX, SEQUENCE_INDEX or as the images), or with
            --protocol one N x H x W .npy in its order. Protocols of landmarks take a folder of class masks.
        data: folder of the data set, or of image/depth pairs.
        protocol: name of a protocol.
        split: file that lists the scored frames, for protocols that need one.
        alignment: what is fitted to the truth per frame; default: the protocol's, or exactly what the model leaves
            open. Another than the protocol's gives the result another name.
        reproduce: repeat a quirk of published evaluations on top of the protocol; gives the result another name.
        depth_kind: what the depth files of pairs hold.
        depth_scale: codes per millimetre of 16-bit depth files of pairs (100 for 0.01 mm).
        prediction_kind: meaning of predictions that 'endolux predict' has not written.
        prediction_scale: codes per unit of their 16-bit files.
        in_order: predictions belong to the protocol's frames by their order, not by their names.
        command: program that predicts one frame, such as "tool {image} {output}"; no shell is involved. MODEL is then
            its name in the report.
        timeout: seconds that the program may take for a frame.
        engine: what runs the network; openvino needs its extra.
        precision: exact is full float32; fast leaves the precision to the engine.
        threads: threads of the network (default: all cores that this process may use).
        limit: score the first so many frames only.
        seed: of the bootstrap intervals.
        commercial: refuse a model whose licence does not allow commercial use.
        output: also write result.json, frames.csv and, with --protocol, report.html into this folder.
        as_json: print the result as JSON.
        quiet: no progress.
    """
    from endolux.datasets import get_protocol, open_dataset
    from endolux.evaluate.opening import open_command, open_for_frames
    from endolux.evaluate.report import check_output
    from endolux.geometry.align import Alignment
    from endolux.types import DepthKind

    if output is not None:
        check_output(output)
    if commercial:
        _require_commercial(model, command)
    kind = DepthKind(prediction_kind) if prediction_kind else None
    wanted = Alignment(alignment) if alignment else None
    line = render.ProgressLine(quiet=quiet)

    def progress(done: int, total: int, failed: int) -> None:
        line.update(done, total=total, failed=failed)

    if protocol is not None:
        _refuse({"--depth-kind": depth_kind != "depth", "--depth-scale": depth_scale is not None}, given="--protocol")
        from endolux.evaluate.html_report import html_report
        from endolux.evaluate.protocol_report import document, table, write_result
        from endolux.evaluate.protocol_run import deviate, run_protocol, select_frames

        convention, identity = deviate(get_protocol(protocol), alignment=wanted, reproduce=reproduce or ())
        dataset = open_dataset(convention.dataset, data)
        keys = select_frames(dataset, convention, split)
        if convention.task == "landmarks":
            given = {
                "--alignment": alignment is not None,
                "--reproduce": bool(reproduce),
                "--prediction-kind": kind is not None,
                "--prediction-scale": prediction_scale is not None,
                "--command": command is not None,
            }
            _refuse(given, given=f"--protocol {protocol}, which scores masks")
            return _landmarks(
                Path(model),
                dataset,
                convention,
                keys,
                data,
                split,
                in_order,
                limit,
                seed,
                output,
                as_json,
                line,
                progress,
            )
        predictor = open_for_frames(
            model,
            dataset,
            keys,
            engine=engine,
            precision=precision,
            threads=threads,
            prediction_kind=kind,
            prediction_scale=prediction_scale,
            in_order=in_order,
            command=command,
            timeout_s=timeout,
        )
        try:
            result = run_protocol(
                predictor, dataset, convention, keys, identity=identity, limit=limit, on_progress=progress
            )
        finally:
            line.close()
        content = document(result, data=data.resolve().name, split=split, seed=seed, command=("endolux", *sys.argv[1:]))
        if output is not None:
            page = html_report(result, content, dataset=dataset, predictor=predictor)
            write_result(output, content, result.frames, page)
        if as_json:
            render.answer_json({"ok": not result.failures, **content})
        else:
            render.answer(table(result, seed=seed))
        for text in result.warnings if as_json else ():
            render.note(f"warning: {text}")
        return _finish(result.failures, result.limit or len(result.keys), output, as_json=as_json, what="frames")

    _refuse(
        {"--split": split is not None, "--reproduce": bool(reproduce), "--in-order": in_order}, missing="--protocol"
    )
    from endolux.datasets.pairs import TruthFormat, TruthKind, check_format, find_pairs
    from endolux.evaluate.predictors import open_predictor
    from endolux.evaluate.report import document as pairs_document
    from endolux.evaluate.report import table as pairs_table
    from endolux.evaluate.report import write_report
    from endolux.evaluate.runner import evaluate as run

    truth = TruthFormat(kind=TruthKind(depth_kind), codes_per_mm=depth_scale)
    pairs = find_pairs(data)[:limit]
    check_format(pairs, truth)
    pair_predictor = (
        open_command(model, command, kind=kind, scale=prediction_scale, timeout_s=timeout)
        if command is not None
        else open_predictor(
            model,
            engine=engine,
            precision=precision,
            threads=threads,
            prediction_kind=kind,
            prediction_scale=prediction_scale,
        )
    )
    try:
        measured = run(pair_predictor, pairs, truth=truth, alignment=wanted, on_progress=progress)
    finally:
        line.close()
    content = pairs_document(measured, seed=seed, data=data.resolve().name, command=("endolux", *sys.argv[1:]))
    if output is not None:
        write_report(output, content, measured.frames)
    if as_json:
        render.answer_json({"ok": not measured.failures, **content})
    else:
        render.answer(pairs_table(measured, seed=seed))
    return _finish(measured.failures, len(pairs), output, as_json=as_json, what="pairs")


def _landmarks(
    masks: Path,
    dataset: Dataset,
    convention: Protocol,
    keys: Sequence[FrameKey],
    data: Path,
    split: Path | None,
    in_order: bool,
    limit: int | None,
    seed: int,
    output: Path | None,
    as_json: bool,
    line: render.ProgressLine,
    progress: Callable[[int, int, int], None],
) -> int:
    from endolux.evaluate.landmarks import run_landmarks
    from endolux.evaluate.landmarks_page import landmarks_page
    from endolux.evaluate.landmarks_report import landmark_document, landmark_table, write_landmarks

    try:
        result = run_landmarks(masks, dataset, convention, keys, in_order=in_order, limit=limit, on_progress=progress)
    finally:
        line.close()
    command = ("endolux", *sys.argv[1:])
    content = landmark_document(result, data=data.resolve().name, split=split, seed=seed, command=command)
    if output is not None:
        write_landmarks(output, content, result.frames, landmarks_page(result, content, dataset=dataset))
    if as_json:
        render.answer_json({"ok": not result.failures, **content})
        for text in result.warnings:
            render.note(f"warning: {text}")
    else:
        render.answer(landmark_table(result, seed=seed))
    return _finish(result.failures, result.limit or len(result.keys), output, as_json=as_json, what="frames")


def compare(
    first: Path,
    second: Path,
    /,
    *,
    seed: Seed = 0,
    as_json: JsonFlag = False,
) -> int:
    """Compare two results frame by frame: is SECOND better than FIRST.

    Args:
        first: result.json of one model, or the folder that holds it.
        second: result.json of the other, measured under the same protocol on the same frames.
        seed: of the bootstrap intervals.
        as_json: print the comparison as JSON.
    """
    from endolux.evaluate.compare import compare_results, comparison_document, comparison_table

    found = compare_results(first, second, seed=seed)
    if as_json:
        render.answer_json(comparison_document(found))
    else:
        render.answer(comparison_table(found))
    return EXIT_OK


def _finish(failures: Sequence[Failure], total: int, output: Path | None, *, as_json: bool, what: str) -> int:
    if output is not None and not as_json:
        render.answer(f"report     {shlex.quote(str(output))}")
    if not failures:
        return EXIT_OK
    # The three-line form of error 5, so that nobody takes the figures for those of the whole folder.
    names = ", ".join(f"{f.name} ({f.error.error_id})" for f in failures[:5])
    more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
    render.note(f"error[run.partial]: {len(failures)} of {total} {what} failed: {names}{more}")
    render.note(f"  why: {failures[0].error.what} ({failures[0].error.why})")
    render.note(f"  fix: {failures[0].error.fix} The figures above leave these {what} out.")
    return EXIT_PARTIAL


def _require_commercial(model: str, command: str | None) -> None:
    from endolux.evaluate.baselines import PREFIX
    from endolux.runtime.bundles import CARD, list_bundles, load_bundle
    from endolux.runtime.licences import require_commercial

    if model.startswith(PREFIX):
        return
    if command is not None or not (model in list_bundles() or (Path(model) / CARD).is_file()):
        raise UsageError(
            f"--commercial does not apply to '{model}'",
            why="Only the card of a model states a licence; predictions and programs of others have none.",
            fix="Leave --commercial out, or give a bundle.",
            error_id="usage.arguments",
        )
    bundle = load_bundle(model)
    require_commercial(bundle.name, bundle.card.licence)


def _refuse(options: dict[str, bool], *, given: str = "", missing: str = "") -> None:
    for option, present in options.items():
        if present:
            raise UsageError(
                f"{option} does not go {'with' if given else 'without'} {given or missing}",
                why="The protocol's data set knows its own files."
                if given
                else "It changes how a protocol's frames are chosen or scored.",
                fix=f"Leave out {option}, or {given}." if given else f"Leave out {option}, or add {missing} NAME.",
                error_id="usage.arguments",
            )
