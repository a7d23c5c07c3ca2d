"""The record of a run: ``log.jsonl``, and the same numbers as TensorBoard event files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from endolux.errors import from_os_error, missing_extra
from endolux.train.checkpoints import replace_text

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

Listener = Callable[[Mapping[str, object]], None]
_EVENTS = "events.out.tfevents.0.endolux"
_NO_SCALARS = frozenset({"step", "time"})


class Log:
    """One JSON object a line. A resumed run first drops what was written after its checkpoint, so nothing stands twice.

    Args:
        folder: of the run.
        step: that the run goes on from; 0 for a new one.
        listener: receives every line, for displays.

    Raises:
        EndoluxError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, step: int = 0, listener: Listener | None = None) -> None:
        self._path, self._listener = folder / "log.jsonl", listener
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [line for line in read_log(folder) if _step(line) <= step]
            replace_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
            # The event file is made anew from the log: the two cannot differ.
            self._board = _Board(folder / "tensorboard")
            for line in kept:
                self._board.write(line)
        except OSError as error:
            raise from_os_error(error, folder) from error

    def write(self, line: Mapping[str, object]) -> None:
        """Append a line; numbers that are not finite become null."""
        clean = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in {**line, "time": round(time.time(), 3)}.items()
        }
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(clean) + "\n")
            self._board.write(clean)
        except OSError as error:
            raise from_os_error(error, self._path) from error
        if self._listener is not None:
            self._listener(line)

    def close(self) -> None:
        """Close the event file."""
        self._board.close()


def read_log(folder: Path) -> Iterator[dict[str, object]]:
    """The lines of a run's log; half a line at its end, from a run that was killed, is left out.

    Example:
        >>> list(read_log(Path("/no/such/run")))
        []
    """
    try:
        text = (folder / "log.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            yield fields


def _step(line: Mapping[str, object]) -> int:
    step = line.get("step", 0)
    return step if isinstance(step, int) else 0


class _Board:
    """Scalars of one event file."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "tensorboard", "train") from error
        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        self._file: BinaryIO = (folder / _EVENTS).open("wb")
        self._writer: RecordWriter = RecordWriter(self._file)
        self._writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._file.flush()

    def write(self, line: Mapping[str, object]) -> None:
        event = self._event(step=_step(line), wall_time=_number(line.get("time")) or time.time())
        for name, value in line.items():
            number = _number(value)
            if number is not None and name not in _NO_SCALARS:
                event.summary.value.add(tag=name, simple_value=number)
        self._writer.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
