"""Whose folder it is: the records of a reproduction and of its runs, which no other may write over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from endolux.errors import InputError, UsageError, from_os_error
from endolux.io.paths import printable
from endolux.io.tables import write_json_atomic
from endolux.reproduce.job import Job, ScoredSet

PLAN_FILE, JOB_FILE = "plan.json", "job.json"
_SCHEMA = "endolux-reproduction"


def claim_output(output: Path, identity: Mapping[str, JsonValue]) -> None:
    """Take the output folder, or go on in it where the same reproduction was begun there.

    Raises:
        UsageError: ``output.is-file``, ``output.foreign`` for a folder with other files, ``output.other-run`` for one
            of another reproduction, ``output.not-writable``.
    """
    wanted = {"schema": _SCHEMA, **identity}
    record = output / PLAN_FILE
    try:
        if output.exists() and not output.is_dir():
            raise UsageError(
                f"'{printable(output)}' is a file",
                why="A reproduction is a folder of runs and tables.",
                fix="Choose another -o FOLDER.",
                error_id="output.is-file",
            )
        if record.is_file():
            found = _read(record)
            differing = [
                f"{name} was {found.get(name)!r} and is {value!r}"
                for name, value in wanted.items()
                if found.get(name) != value
            ]
            if differing:
                raise UsageError(
                    f"'{printable(output)}' holds another reproduction: {'; '.join(differing)[:300]}",
                    why="Results of two reproductions in one folder would end in one table.",
                    fix="Choose another -o FOLDER, or repeat the settings of plan.json there.",
                    error_id="output.other-run",
                )
            return
        if output.exists() and any(output.iterdir()):
            raise UsageError(
                f"'{printable(output)}' is not empty",
                why="Endolux never overwrites files that it did not write.",
                fix="Choose an empty or new -o FOLDER.",
                error_id="output.foreign",
            )
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, output) from error
    write_json_atomic(record, wanted)


def write_job(job: Job) -> Path:
    """Write ``job.json`` into the run's folder.

    Raises:
        UsageError: ``output.other-run`` where that folder holds a run of another recipe or of other data.
    """
    record = job.folder / JOB_FILE
    if record.is_file():
        old = read_job(record)
        if old.key != job.key:
            changed = sorted(set(old.overrides) ^ set(job.overrides))
            raise UsageError(
                f"'{printable(job.folder)}' holds a run of another recipe or of other data",
                why=f"Its key is {old.key[:12]} and this one's is {job.key[:12]}. {' '.join(changed)[:200]}",
                fix="Choose another -o FOLDER; what was measured there is kept.",
                error_id="output.other-run",
            )
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, job.folder) from error
    document = dataclasses.asdict(job)
    document["folder"] = str(job.folder)
    document["tests"] = [{**dataclasses.asdict(test), "path": str(test.path)} for test in job.tests]
    write_json_atomic(record, document)
    return record


def read_job(path: Path) -> Job:
    """The job of a ``job.json``.

    Raises:
        InputError: ``reproduce.damaged``.
    """
    document = _read(path)
    try:
        tests = tuple(
            ScoredSet(**{**test, "path": Path(str(test["path"]))})  # type: ignore[arg-type]
            for test in cast("list[dict[str, object]]", document["tests"])
        )
        lists = {name: tuple(cast("Iterable[str]", document.get(name, ()))) for name in ("overrides", "needs", "after")}
        fields = {**document, **lists, "tests": tests, "folder": Path(str(document["folder"]))}
        return Job(**fields)  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(document, dict):
        raise _damaged(path, TypeError("no JSON object"))
    return document


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"Cannot read '{printable(path)}'",
        why=f"{type(error).__name__}: {error}",
        fix="Choose another -o FOLDER, or remove this folder if nothing in it is needed.",
        error_id="reproduce.damaged",
    )
