"""``endolux reproduce``: published experiments rerun, with the published figures beside the measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from endolux.cli import render
from endolux.errors import EXIT_OK, EXIT_PARTIAL, UsageError

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
Minutes = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]
Jobs = Annotated[int | None, Parameter(name=["--jobs", "-j"], validator=validators.Number(gte=1))]


def register(app: App) -> None:
    """Add the verb."""
    app.command(reproduce, name="reproduce")


def reproduce(
    system: str,
    /,
    *,
    scale: str = "desk",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    seeds: str | None = None,
    minutes: Minutes = None,
    data: Annotated[list[str] | None, Parameter(name="--data", negative=())] = None,
    teacher: str | None = None,
    imagenet: Path | None = None,
    imagenet_mobilenetv3: Path | None = None,
    jobs: Jobs = None,
    rows: str | None = None,
    real_data: Path | None = None,
    weights: Annotated[list[str] | None, Parameter(name="--weights", negative=())] = None,
    changes: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    as_json: JsonFlag = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False,
) -> int:
    """Rerun the published experiments of SYSTEM and print its tables, published and measured side by side.

    Run the same command again to go on where it stopped: finished runs are kept. With more seeds or more minutes it
    adds to what is there.

    Args:
        system: what to repeat, such as leve.
        scale: desk (one CPU, within the hour, on synthetic data), full (the published setting; leve needs --data), or
            smoke (everything once at toy size; its figures mean nothing).
        output: folder of the runs, results.json and tables.md; default: reproduce-SYSTEM-SCALE.
        seeds: such as 0,1,2.
        minutes: no run is begun that would not end within this budget (desk: 60).
        data: folder or zip of the training set; further sets as ROLE=PATH (kitti=PATH, endoslam=PATH).
        teacher: another teacher of the distilled rows: a bundle, a run folder or a foundation model.
        imagenet: ImageNet weights of the DDRNet-23-slim encoder.
        imagenet_mobilenetv3: ImageNet weights of the MobileNetV3-Small encoder, for the row that has it.
        jobs: runs at a time.
        rows: only these, such as 3x3+3x3,ts-25.
        real_data: folder with loose real frames as published (C3VD, SimCol3D, EndoSLAM, a liver mesh), for zero-shot
            tables; without it those tables are left out.
        weights: pretrained weights of parts of the networks, as KEY.PATH=MODEL of their recipe: a folder or a hub id.
        changes: KEY.PATH=VALUE on top of every recipe; the figures are then those of another experiment.
        as_json: print results.json instead of the tables.
        quiet: no progress.
    """
    from endolux.reproduce.command import Options
    from endolux.reproduce.command import reproduce as run
    from endolux.reproduce.report import document, markdown

    options = Options(
        scale=scale,
        seeds=None if seeds is None else parse_seeds(seeds),
        minutes=minutes,
        data=tuple(data or ()),
        teacher=teacher,
        imagenet=imagenet,
        imagenet_mobilenetv3=imagenet_mobilenetv3,
        jobs=jobs,
        rows=tuple(word.strip() for word in rows.split(",")) if rows else (),
        changes=tuple(changes or ()),
        real_data=real_data,
        weights=tuple(weights or ()),
    )
    folder = output or Path(f"reproduce-{system}-{scale}")
    found = run(system, folder, options=options, say=(lambda _line: None) if quiet else render.note)
    if as_json:
        render.answer_json({"ok": not found.failures, "output": str(folder), **document(found)})
    else:
        render.answer(markdown(found).rstrip("\n"))
    for failure in found.failures:
        render.note(f"{failure.row}-seed{failure.seed} failed: {failure.what} ({failure.fix})")
    if found.missing:
        render.note(
            f"{len(found.missing)} runs are missing ({', '.join(found.missing[:6])}"
            f"{', ...' if len(found.missing) > 6 else ''}): the same command with more --minutes adds them"
        )
    return EXIT_PARTIAL if found.failures else EXIT_OK


def parse_seeds(text: str) -> tuple[int, ...]:
    """Numbers separated by commas.

    Raises:
        UsageError: anything else.

    Example:
        >>> parse_seeds("0,1,2")
        (0, 1, 2)
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(
            f"'{text}' is no list of seeds",
            why="Seeds are whole numbers separated by commas.",
            fix="Write them like --seeds 0,1,2.",
            error_id="reproduce.seeds",
        )
    return tuple(int(word) for word in words)
