"""The output folder of a run: claimed once, never another's, and able to continue after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from endolux.errors import EndoluxError, UsageError, from_os_error
from endolux.io.colour import ColourRange
from endolux.io.tables import write_json_atomic

try:
    import fcntl
except ImportError:  # Windows has no flock; there a second run on one folder goes unnoticed
    fcntl = None  # type: ignore[assignment]

RUN_FILE = "run.json"
LOCK = ".lock"


class FailureRecord(BaseModel):
    """One input that failed, as ``run.json`` lists it."""

    model_config = ConfigDict(extra="forbid")

    index: int
    name: str
    error_id: str
    what: str
    why: str
    fix: str

    @classmethod
    def of(cls, index: int, name: str, error: EndoluxError) -> FailureRecord:
        """The record of an error."""
        return cls(index=index, name=name, error_id=error.error_id, what=error.what, why=error.why, fix=error.fix)


class RunState(BaseModel):
    """Contents of ``run.json``: who wrote this folder, how far it came, and what happened."""

    model_config = ConfigDict(extra="forbid")

    schema_name: str = "endolux-run"
    schema_version: int = 1
    status: str = "running"
    command: list[str] = Field(default_factory=list)
    identity: dict[str, str]
    versions: dict[str, str] = Field(default_factory=dict)
    model: dict[str, str] = Field(default_factory=dict)
    source: dict[str, object] = Field(default_factory=dict)
    colour_range: ColourRange | None = None
    frames: int = 0
    black: int = 0
    saturated: int = 0
    content_area: dict[str, object] | None = None
    seconds: float = 0.0
    frames_per_s: float | None = None
    stages_ms: dict[str, float] = Field(default_factory=dict)
    failed: int = 0
    failures: list[FailureRecord] = Field(default_factory=list)
    results: dict[str, str] = Field(default_factory=dict)


class OutputFolder:
    """A claimed output folder and its ``run.json``.

    Args:
        path: the folder; created where absent.
        identity: what makes two runs the same run (source, model, options), as text.
        resume: continue an unfinished run of the same identity.

    Raises:
        UsageError: the folder belongs to someone or something else, or cannot be written.
    """

    def __init__(self, path: Path, *, identity: Mapping[str, str], resume: bool) -> None:
        self.path = path
        self._lock: int | None = None
        self.resumed = False
        _make(path)
        found = sorted(entry.name for entry in os.scandir(path) if entry.name != LOCK)
        state: RunState | None = None
        if RUN_FILE in found:
            state = _read(path / RUN_FILE)
            _check_same(path, state, identity)
            if state.status != "done" and not resume:
                raise UsageError(
                    f"'{path}' holds an unfinished run of this command ({state.frames} frames are done)",
                    why="A new run would overwrite them.",
                    fix="Add --resume to continue it, or choose another -o folder.",
                    error_id="output.unfinished",
                )
        elif found:
            raise _foreign(path, found)
        self._acquire()
        self.done = state is not None and state.status == "done"
        self.resumed = state is not None
        self.state = state or RunState(identity=dict(identity))

    def finish(self) -> None:
        """Record the end of the run."""
        self.state.status = "done"
        self.save()

    def save(self) -> None:
        """Write ``run.json`` in one step."""
        write_json_atomic(self.path / RUN_FILE, self.state)

    def close(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()

    def _acquire(self) -> None:
        if fcntl is None:
            return
        try:
            handle = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as problem:
            raise from_os_error(problem, self.path) from problem
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"Another process is writing to '{self.path}'",
                why="Two runs cannot share an output folder.",
                fix="Wait for it to end, or choose another -o folder.",
                error_id="output.busy",
            ) from None
        except OSError:
            # Some network file systems have no locks; the run is still safe on its own.
            os.close(handle)
            return
        self._lock = handle


@contextlib.contextmanager
def claimed(path: Path, *, identity: Mapping[str, str], resume: bool) -> Iterator[OutputFolder]:
    """The output folder, released at the end of the block."""
    folder = OutputFolder(path, identity=identity, resume=resume)
    try:
        yield folder
    finally:
        folder.close()


def _make(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(
            f"The output '{path}' is a file",
            why="Results go into a folder.",
            fix="Choose the name of a new or empty folder (-o FOLDER).",
            error_id="output.is-file",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError as problem:
        raise UsageError(
            f"Cannot create the output folder '{path}'",
            why="A part of this path is a file.",
            fix="Choose another -o folder.",
            error_id="output.is-file",
        ) from problem
    except FileExistsError as problem:
        raise UsageError(
            f"Cannot create the output folder '{path}'",
            why="A file or a broken link of this name is in the way.",
            fix="Choose another -o folder.",
            error_id="output.is-file",
        ) from problem
    except OSError as problem:
        raise from_os_error(problem, path) from problem
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(
            f"Cannot write to '{path}'",
            why="The folder's permissions do not allow it.",
            fix="Choose an output folder that you may write to (-o FOLDER).",
            error_id="output.not-writable",
        )


def _foreign(path: Path, found: list[str]) -> UsageError:
    shown = ", ".join(f"'{name}'" for name in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return UsageError(
        f"The output folder '{path}' is not empty: {shown}{more}",
        why="Endolux never overwrites or mixes with files that it did not write.",
        fix="Choose a new or empty folder (-o FOLDER).",
        error_id="output.foreign",
    )


def _read(path: Path) -> RunState:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        state = RunState.model_validate(document)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as problem:
        raise UsageError(
            f"'{path}' is not the record of a run of this version of Endolux",
            why="The folder may belong to another program or version.",
            fix="Choose another -o folder.",
            error_id="output.foreign",
        ) from problem
    if state.schema_name != "endolux-run" or state.schema_version != 1:
        raise _foreign(path.parent, [path.name])
    return state


def _check_same(path: Path, state: RunState, identity: Mapping[str, str]) -> None:
    names = sorted({*identity, *state.identity})
    changed = [name for name in names if identity.get(name) != state.identity.get(name)]
    if changed:
        first = changed[0]
        raise UsageError(
            f"'{path}' holds a run with another {', '.join(changed)} "
            f"({first}: {_short(state.identity.get(first))} there, {_short(identity.get(first))} now)",
            why="Results of two different runs do not belong in one folder.",
            fix="Choose another -o folder, or repeat the command that the folder's run.json names.",
            error_id="output.other-run",
        )


def _short(value: str | None) -> str:
    return "none" if not value else value if len(value) <= 60 else value[:24] + "..." + value[-24:]
