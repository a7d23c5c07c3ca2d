"""What runs over the frames of a source have in common: their record, their frames, and how they end."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from endolux import __version__
from endolux.errors import EndoluxError, InputError, from_os_error
from endolux.io.paths import printable
from endolux.io.sources import Failure, Source
from endolux.prep.content_area import ContentArea, ContentAreaTracker, find_content_area
from endolux.runtime.bundle_model import BundleModel
from endolux.runtime.output_folder import FailureRecord, OutputFolder
from endolux.types import Frame

QUEUE = 3
"""Frames that wait between two stages of a run."""
_MOST_RECORDS = 1000
"""Failures that run.json describes; frames.csv lists all of them."""

ModelT = TypeVar("ModelT", bound=BundleModel)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: frames seen, their total if known, those that failed, and where this run began."""

    done: int
    total: int | None
    failed: int
    start: int


class FrameRun(Generic[ModelT]):
    """The state of one run of a model over a source, kept in its output folder.

    Attributes:
        source, folder, model: what is read, where it goes, and by what.
        state: the folder's record.
        is_video: whether the source is one clip.
        resumed_from: frames that an earlier run had finished.
        started: clock at the start; ``earlier_s``: seconds of earlier runs.
    """

    def __init__(self, source: Source, folder: OutputFolder, *, model: ModelT, started: float) -> None:
        self.source, self.folder, self.model, self.state = source, folder, model, folder.state
        self.is_video = source.kind == "video"
        self.resumed_from = 0
        self.started, self.earlier_s = started, self.state.seconds

    def begin(self, source: str | Path, command: Sequence[str]) -> None:
        """Record what is about to be done."""
        state = self.state
        state.status = "running"
        state.command = [argument.encode("utf-8", "backslashreplace").decode() for argument in command]
        state.versions = _versions()
        state.model = {"name": self.model.bundle.name, "card_sha256": self.model.bundle.card_sha256}
        state.source = {"path": printable(source), "kind": self.source.kind, "count": self.source.count}
        self.folder.save()

    def frames(self, start: int = 0) -> Iterator[tuple[Frame, ContentArea] | Failure]:
        """Frames with their content area, from position ``start``; runs in the decoding thread."""
        # The tracker of a video sees the frames that a resumed run skips, so that it finds the same area as an
        # undisturbed run; images of a folder have nothing to do with each other.
        tracker = ContentAreaTracker() if self.is_video else None
        for item in self.source.frames(0 if tracker is not None else start):
            if isinstance(item, Failure):
                if item.index >= start:
                    yield item
                continue
            area = tracker.update(item.image) if tracker is not None else find_content_area(item.image)
            if item.index >= start:
                yield item, area

    def record_failure(self, failure: Failure) -> bool:
        """Count an input that failed; whether there was room to describe it."""
        self.state.failed += 1
        described = len(self.state.failures) < _MOST_RECORDS
        if described:
            self.state.failures.append(FailureRecord.of(failure.index, failure.name, failure.error))
        return described

    def finish(self, *, done: int, busy_s: float, stages_s: dict[str, float]) -> None:
        """Record a whole run, of which ``done`` frames were computed now.

        Raises:
            InputError: there are failures and nothing else.
        """
        state = self.state
        if state.frames == 0 and state.failures:
            first = state.failures[0]
            raise InputError(
                f"None of the {state.failed} inputs could be read; the first, '{first.name}': {first.what}",
                why=first.why,
                fix=first.fix,
                error_id=first.error_id,
            )
        if done:
            state.frames_per_s = round(done / busy_s, 3)
            state.stages_ms = {name: round(1e3 * total / done, 3) for name, total in stages_s.items()}
        state.seconds = self.seconds()
        self.folder.finish()

    def seconds(self) -> float:
        """Wall time until now, earlier runs included."""
        return round(self.earlier_s + time.perf_counter() - self.started, 3)

    def leave(self, status: str) -> None:
        """Record an early end; where even that fails (full disk), the last saved state stands."""
        self.state.status = status
        self.state.seconds = self.seconds()
        try:
            self.folder.save()
        except (EndoluxError, OSError):
            return

    @contextmanager
    def recorded(self, out: Path, *, stopped: Callable[[], str]) -> Iterator[None]:
        """Whatever ends the block early is recorded in the folder.

        Args:
            out: the folder, for the message of an operating system's error.
            stopped: what Ctrl-C says.

        Raises:
            DeviceError: disk or memory gave out.
        """
        try:
            yield
        except OSError as problem:
            self.leave("failed")
            raise from_os_error(problem, out) from problem
        except KeyboardInterrupt:
            self.leave("interrupted")
            raise KeyboardInterrupt(stopped()) from None
        except BaseException:
            self.leave("failed")
            raise


def source_identity(source: str | Path, frames: Source) -> str:
    """Which source a run reads, as text that can be shown where two runs differ."""
    path = Path(os.fsdecode(source))
    what = str(path.resolve())
    if path.is_file():
        status = path.stat()
        what += f" ({status.st_size} bytes, modified {status.st_mtime_ns})"
    else:
        what += f" ({frames.count} files)"
    return what.encode("utf-8", "backslashreplace").decode()


def _versions() -> dict[str, str]:
    found = {"endolux": __version__, "python": platform.python_version()}
    for name in ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "av"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
