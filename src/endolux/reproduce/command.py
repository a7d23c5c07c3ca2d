"""The whole of a reproduction: data, timing, runs, tables."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from endolux.errors import InputError, UsageError, missing_extra
from endolux.evaluate.provenance import versions
from endolux.io.paths import printable
from endolux.io.tables import write_bytes_atomic, write_json_atomic
from endolux.reproduce.costs import TimeNetworks, measure_costs, relative_costs
from endolux.reproduce.data import open_published, parse_paths, phantom_data
from endolux.reproduce.grid import Grid, Scale, choose_rows, load_grid
from endolux.reproduce.job import Data, Job
from endolux.reproduce.output_folder import claim_output
from endolux.reproduce.plan import plan_jobs
from endolux.reproduce.real_frames import present
from endolux.reproduce.report import Reproduction, document, markdown, missing_jobs
from endolux.reproduce.results import RunFailure, RunResult, read_failure, read_result
from endolux.reproduce.schedule import Process, Start, run_jobs
from endolux.reproduce.timing import timing_threads
from endolux.reproduce.weights import parse_weights

RESULTS_FILE, TABLES_FILE = "results.json", "tables.md"
_NEEDED = ("torch", "accelerate", "safetensors")
_REPORT_S = 15.0
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may choose.

    Attributes:
        scale: name of a scale.
        seeds: None for the scale's.
        minutes: budget, None for the scale's.
        data: ``PATH`` and ``ROLE=PATH``.
        teacher: None for the scale's.
        imagenet: published weights of the DDRNet-23-slim encoder.
        imagenet_mobilenetv3: those of MobileNetV3-Small, which the row with that encoder needs for a fair comparison.
        jobs: runs at a time; None for one a core where a run has one thread, else one.
        rows: names of rows, none for all of the scale.
        changes: ``key.path=value`` on top of every recipe; the figures are then those of another experiment.
        real_data: folder with the loose real frames of :mod:`endolux.reproduce.real_frames`, for zero-shot tables.
        weights: ``KEY=MODEL``, see :func:`endolux.reproduce.weights.parse_weights`.
    """

    scale: str = "desk"
    seeds: tuple[int, ...] | None = None
    minutes: float | None = None
    data: tuple[str, ...] = ()
    teacher: str | None = None
    imagenet: Path | None = None
    imagenet_mobilenetv3: Path | None = None
    jobs: int | None = None
    rows: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    real_data: Path | None = None
    weights: tuple[str, ...] = ()


def reproduce(
    system: str,
    output: Path,
    *,
    options: Options,
    say: Say = lambda _line: None,
    start: Start = Process,
    time_networks: TimeNetworks | None = None,
) -> Reproduction:
    """Rerun a system's experiments in a folder, or go on with them.

    Leaves ``results.json`` and ``tables.md`` in the folder, written anew after every call, also where runs are missing.

    Args:
        system: a name from :func:`endolux.reproduce.grid.systems`.
        output: new folder, or that of the same reproduction.
        options: what the user chose.
        say: told what happens, a line each.
        start: begins a run; another one for tests.
        time_networks: from folder and architectures to costs; another one for tests.

    Raises:
        MissingExtraError: a package of the extras ``train`` or ``phantom`` is not installed.
        UsageError: unknown system or scale (with the nearest name), missing data, an output folder of something else.
        InputError: data that cannot be read.
        KeyboardInterrupt: after running runs were stopped; the same call continues them.
    """
    began = time.monotonic()
    grid = load_grid(system)
    scale = grid.scale(options.scale)
    for package in _NEEDED:
        if find_spec(package) is None:
            raise missing_extra(package, "train")
    seeds = _seeds(options.seeds if options.seeds is not None else scale.seeds)
    rows = choose_rows(grid, options.scale, options.rows)
    paths = parse_paths(options.data, grid, scale)
    weights = parse_weights(options.weights, rows)
    teacher = options.teacher or scale.teacher
    if options.teacher:
        # Who teaches from outside is no run of this grid, and has figures all the same.
        rows = tuple(
            row.model_copy(update={"model": options.teacher, "recipe": "", "architecture": ""}) if row.teacher else row
            for row in rows
        )
    _check_real_data(grid, options.real_data)
    for name, path in _encoders(options).items():
        if not path.is_file():
            raise InputError(
                f"No file '{printable(path)}'",
                why="The encoder was to start from it.",
                fix=f"Check the path given to --{name.replace('_', '-')}.",
                error_id="input.missing",
            )
    cores = _cores()
    slots = options.jobs or (cores if scale.threads == 1 else 1)
    published = None if scale.phantom is not None else open_published(grid, scale, paths, say=say)
    claim_output(
        output,
        {
            "system": system,
            "scale": options.scale,
            "teacher": teacher,
            "changes": list(options.changes),
            "imagenet": None,
            **{name: path.name for name, path in _encoders(options).items()},
            "data": cast("JsonValue", scale.phantom.identity()) if scale.phantom is not None else _sha256(published),
            **({"real_data": _real_sets(options)} if _scores_real(grid) else {}),
            **({"weights": {key: Path(model).name for key, model in weights.items()}} if weights else {}),
        },
    )
    data = published or phantom_data(
        scale,
        output / "data",
        workers=cores,
        say=say,
        scoring=grid.scoring,
        real=options.real_data,
        paths=paths,
    )
    jobs = plan_jobs(
        rows,
        scale,
        seeds=seeds,
        data=data,
        output=output.resolve(),
        teacher=teacher,
        **{name: path.resolve() for name, path in _encoders(options).items()},
        pretrained=weights,
        changes=options.changes,
    )
    costs = measure_costs(grid, rows, scale, output, say=say, time_networks=time_networks)
    minutes = options.minutes if options.minutes is not None else scale.minutes
    spent = time.monotonic() - began
    outcome = run_jobs(
        jobs,
        slots=slots,
        seconds=None if minutes is None else minutes * 60.0 - spent - _REPORT_S,
        weights=relative_costs(rows, jobs, costs),
        start=start,
        on_change=say,
    )
    runs, failures = _collect(jobs)
    found = Reproduction(
        grid=grid,
        scale_name=options.scale,
        rows=tuple(row.name for row in rows),
        changes=options.changes,
        seeds=seeds,
        data=data,
        teacher=teacher,
        runs=runs,
        costs=costs,
        failures=failures,
        missing=missing_jobs(jobs, runs, failures),
        left_out=_left_out(grid, scale, data, options),
        provenance=_provenance(output, slots=slots, threads=scale.threads, seconds=time.monotonic() - began)
        | ({"weights": ", ".join(f"{key}={Path(model).name}" for key, model in weights.items())} if weights else {})
        | {"finished before this call": len(outcome.kept)},
    )
    write_json_atomic(output / RESULTS_FILE, document(found))
    write_bytes_atomic(output / TABLES_FILE, markdown(found).encode())
    return found


def _check_real_data(grid: Grid, folder: Path | None) -> None:
    if folder is None:
        return
    if not _scores_real(grid):
        raise UsageError(
            f"'{grid.system}' has no tables on real frames",
            why="Its experiments are scored on the sets of the scale alone.",
            fix="Leave --real-data out.",
            error_id="reproduce.real-data",
        )
    present(folder)


def _scores_real(grid: Grid) -> bool:
    return any(role.real for role in grid.roles.values())


def _real_sets(options: Options) -> list[JsonValue] | None:
    return None if options.real_data is None else [*present(options.real_data)]


def _left_out(grid: Grid, scale: Scale, data: Data, options: Options) -> tuple[str, ...]:
    lines = []
    real = [name for name, role in grid.roles.items() if role.real and name not in data.titles]
    if real:
        reason = (
            "no --real-data was given" if options.real_data is None else "they are not in the folder of --real-data"
        )
        lines.append(f"zero-shot tables of {', '.join(real)}: {reason}")
    further = [role for role in scale.readers if scale.phantom is not None and role not in data.titles]
    if further:
        lines.append(f"tables of {', '.join(further)}: no --data ROLE=PATH was given")
    return tuple(lines)


def _collect(jobs: Sequence[Job]) -> tuple[dict[tuple[str, int], RunResult], tuple[RunFailure, ...]]:
    runs: dict[tuple[str, int], RunResult] = {}
    failures: list[RunFailure] = []
    for job in jobs:
        result = read_result(job)
        failure = None if result is not None else read_failure(job)
        if result is not None:
            runs[job.row, job.seed] = result
        elif failure is not None:
            failures.append(failure)
    return runs, tuple(failures)


def _provenance(output: Path, *, slots: int, threads: int | None, seconds: float) -> dict[str, JsonValue]:
    packages: dict[str, JsonValue] = {name: importlib.metadata.version(name) for name in _NEEDED}
    return {
        "versions": {**versions(), **packages},
        "machine": f"{platform.system()} {platform.machine()}, {_cores()} cores",
        "runs at a time": slots,
        "threads of a run": threads,
        "timing_threads": timing_threads(output),
        "seconds of this call": round(seconds, 1),
    }


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError(
            f"Impossible seeds {', '.join(map(str, seeds)) or '(none)'}",
            why="Each is a number of 0 or more and stands once: the same seed twice is the same run twice.",
            fix="Write them like --seeds 0,1,2.",
            error_id="reproduce.seeds",
        )
    return tuple(seeds)


def _sha256(data: Data | None) -> str | None:
    return None if data is None else data.sha256


def _encoders(options: Options) -> dict[str, Path]:
    """Files with ImageNet weights that the user named, by the name of the option."""
    named = {"imagenet": options.imagenet, "imagenet_mobilenetv3": options.imagenet_mobilenetv3}
    return {name: path for name, path in named.items() if path is not None}


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
