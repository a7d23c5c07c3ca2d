"""``endolux data``: check, convert, hash and list data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_CHECK, EXIT_OK, EXIT_PARTIAL, UsageError

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
QuietFlag = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())]


def register(app: App) -> None:
    """Add the verb."""
    data = App(name="data", help="Check, convert, hash and list data sets.")
    data.command(ls, name="ls")
    data.command(protocols, name="protocols")
    data.command(check, name="check")
    data.command(manifest, name="manifest")
    convert = App(name="convert", help="Prepare a raw release for reading.")
    convert.command(scared, name="scared")
    data.command(convert)
    app.command(data)


def ls(*, as_json: JsonFlag = False) -> int:
    """List the data sets that can be read and the protocols that score them.

    Args:
        as_json: print JSON.
    """
    from endolux import datasets

    protocols = [*datasets.protocols().values()]
    if as_json:
        render.answer_json(
            {
                "datasets": datasets.names(),
                "protocols": [
                    {
                        "id": p.identity,
                        "name": p.name,
                        "dataset": p.dataset,
                        "summary": p.summary,
                        "source": p.source,
                        "frames": p.expected_frames,
                        "alignment": p.alignment.value,
                        "averaging": p.averaging.value,
                        "task": p.task,
                        "reproduce": list(p.reproduce),
                    }
                    for p in protocols
                ],
            }
        )
        return EXIT_OK
    render.answer(f"data sets  {', '.join(datasets.names())}")
    render.answer("")
    rows = [
        (p.identity, p.dataset, p.expected_frames or "-", p.alignment.value, p.averaging.value, p.summary)
        for p in protocols
    ]
    header = ("protocol", "data set", "frames", "alignment", "mean over", "summary")
    render.answer(render.table(rows, header=header) if rows else "no protocols")
    return EXIT_OK


def protocols(*, markdown: Annotated[bool, Parameter(negative=())] = False, as_json: JsonFlag = False) -> int:
    """Describe every protocol: frames, range, window, alignment, averaging, quirks and where they are from.

    Args:
        markdown: print the page that docs/protocols.md is.
        as_json: print JSON.
    """
    from endolux.datasets import protocols as registered
    from endolux.evaluate.protocol_page import protocol_page

    if markdown and as_json:
        raise UsageError(
            "--markdown and --json were both given",
            why="They are two forms of the same answer.",
            fix="Leave one of them out.",
            error_id="usage.arguments",
        )
    if markdown:
        # A file made from it holds the same bytes on every machine.
        render.answer(protocol_page(registered()).rstrip("\n"))
        return EXIT_OK
    return ls(as_json=as_json)


def check(path: Path, /, *, dataset: str | None = None, as_json: JsonFlag = False) -> int:
    """Tell what a folder holds, what is missing and what is odd.

    Args:
        path: folder of an unpacked data set.
        dataset: its name ('endolux data ls'); by default it is found out.
        as_json: print JSON.
    """
    from endolux.datasets import AUTO, Severity, open_dataset

    opened = open_dataset(dataset or AUTO, path)
    name = opened.name
    findings = opened.check()
    order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    findings = sorted(findings, key=lambda finding: order[finding.severity])
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if as_json:
        render.answer_json(
            {
                "ok": not errors,
                "dataset": name,
                "frames": len(opened.keys()),
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    else:
        render.answer(f"data set   {name}")
        render.answer(f"frames     {len(opened.keys())}")
        for finding in findings:
            render.answer(f"{finding.severity.value:<9}  {finding.code}: {finding.message}")
            if finding.fix:
                render.answer(f"           {finding.fix}")
        if not findings:
            render.answer("nothing missing, nothing odd")
    if errors:
        first = findings[0]
        render.note(f"error[data.check]: {errors} findings mean that '{path.name}' cannot be used as it is")
        render.note(f"  why: {first.message}")
        render.note(f"  fix: {first.fix or 'See the findings above.'}")
        return EXIT_CHECK
    return EXIT_OK


def manifest(
    path: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Hash every file of a folder; an interrupted run goes on where it stopped. 'sha256sum -c' can check the result.

    Args:
        path: folder.
        output: file to write, one line a file.
        as_json: print JSON.
        quiet: no progress.
    """
    from endolux.evaluate.hashes import write_hashes

    line = render.ProgressLine(quiet=quiet)
    try:
        done = write_hashes(path, output, on_progress=lambda n, total: line.update(n, total=total))
    finally:
        line.close()
    if as_json:
        render.answer_json(dataclasses.asdict(done))
        return EXIT_OK
    reused = f", {done.reused} hashes from the interrupted run" if done.reused else ""
    render.answer(f"{done.files} files, {done.bytes / 1e6:.1f} MB{reused}")
    render.answer(f"sha256 {done.sha256}  {output}")
    return EXIT_OK


def scared(
    source: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    split: Path | None = None,
    sequence: Annotated[list[str] | None, Parameter(negative=())] = None,
    neighbours: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 1,
    depth_format: Literal["png", "npy", "none"] = "png",
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> int:
    """Prepare the raw SCARED release: videos to left frames, point maps and disparity to depth in millimetres.

    An interrupted conversion goes on where it stopped when the same command is run again.

    Args:
        source: folder of the raw release.
        output: folder for the converted frames.
        split: convert only the frames that this list names, and their neighbours.
        sequence: convert only this sequence (dataset3/keyframe4); may be given several times.
        neighbours: frames kept before and after each listed one.
        depth_format: png (0.01 mm steps), npy (exact, four times larger) or none.
        as_json: print JSON.
        quiet: no progress.
    """
    from endolux.datasets.scared_convert import convert_scared

    if source.resolve() == output.resolve():
        raise UsageError(
            f"'{output}' is the release itself",
            why="Converted frames are not written between the original files.",
            fix="Choose another folder with -o FOLDER.",
            error_id="output.is-source",
        )
    line = render.ProgressLine(quiet=quiet)
    try:
        done = convert_scared(
            source,
            output,
            sequences=sequence,
            split=split,
            neighbours=neighbours,
            depth_format=depth_format,
            progress=lambda n, total: line.update(n, total=total),
        )
    finally:
        line.close()
    if as_json:
        render.answer_json(
            {
                "ok": not done.failures,
                "frames": done.frames,
                "written": done.written,
                "kept": done.kept,
                "excluded": dict(done.excluded),
                "failures": [
                    {"frame": str(f.frame), "id": f.error.error_id, "what": f.error.what} for f in done.failures
                ],
            }
        )
    else:
        render.answer(f"{done.frames} frames in {output} ({done.written} files written, {done.kept} kept)")
        for reason, count in done.excluded.items():
            if count:
                render.answer(f"left out   {count} depth values: {reason}")
    if done.failures:
        first = done.failures[0]
        render.note(f"error[run.partial]: {len(done.failures)} frames failed, the first: {first.frame}")
        render.note(f"  why: {first.error.what} ({first.error.why})")
        render.note(f"  fix: {first.error.fix} Run the same command again for the rest.")
        return EXIT_PARTIAL
    return EXIT_OK
