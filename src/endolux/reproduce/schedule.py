"""Many runs, a few at a time, within a time budget; what is finished stays, what fails does not stop the rest."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from endolux.errors import CheckError
from endolux.reproduce.job import Job
from endolux.reproduce.output_folder import JOB_FILE, write_job
from endolux.reproduce.results import FAILURE_FILE, RunFailure, read_failure, read_result, write_failure

LOG_FILE = "log.txt"
_POLL_S = 0.25
_STOP_S = 30.0


class Handle(Protocol):
    """A run that has begun."""

    def poll(self) -> int | None:
        """Its exit code, None while it goes on."""
        ...

    def stop(self) -> None:
        """End it so that it can be continued; returns when it has ended."""
        ...


Start = Callable[[Job], Handle]


class Process:
    """A run in a Python process of its own: what kills it kills nothing else."""

    def __init__(self, job: Job) -> None:
        environment = dict(os.environ)
        if job.threads is not None:
            # Pools of threads are sized when their libraries are loaded.
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
        with (job.folder / LOG_FILE).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "endolux.reproduce.worker", str(job.folder / JOB_FILE)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def poll(self) -> int | None:
        """Its exit code, None while it goes on."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to write a checkpoint and end; insist after half a minute."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a schedule ended.

    Attributes:
        kept: runs that were finished before.
        done: runs that this schedule finished.
        failed: runs that ended badly.
        left: runs that would not have fitted into the time budget.
        seconds: how long it took.
    """

    kept: tuple[Job, ...]
    done: tuple[Job, ...]
    failed: tuple[Job, ...]
    left: tuple[Job, ...]
    seconds: float


@dataclasses.dataclass(slots=True)
class _Running:
    job: Job
    handle: Handle
    started: float


def run_jobs(
    jobs: Sequence[Job],
    *,
    slots: int = 1,
    seconds: float | None = None,
    weights: Mapping[str, float] | None = None,
    start: Start = Process,
    on_change: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Make the runs that have no result yet, in order, as soon as those that they need have one.

    A run is begun only if it is expected to end within the budget. What is expected follows from the runs that have
    ended: the same row's time, or the slowest time for each unit of weight of any row. The first runs are begun anyway.

    Args:
        jobs: in order.
        slots: runs at a time.
        seconds: budget, None for no limit.
        weights: row -> relative cost, where it is known; 1 by default.
        start: begins a run; the run leaves ``result.json`` or ``failure.json`` in its folder.
        on_change: told in one line when a run begins, ends or is left out.
        clock: seconds that only grow.
        sleep: waits for so many seconds.

    Raises:
        KeyboardInterrupt: after the runs that went on were told to stop; they continue next time.
        EndoluxError: as :func:`endolux.reproduce.output_folder.write_job`.
    """
    begun = clock()
    weight = dict(weights or {})
    say = on_change or (lambda _line: None)
    # Every folder is looked at first: a foreign one is refused before an hour of work, not after.
    records = {job.name: write_job(job) for job in jobs}
    kept = tuple(job for job in jobs if read_result(job) is not None)
    waiting = [job for job in jobs if job not in kept]
    known: dict[str, float] = {}
    for job in kept:
        if job.model:
            continue
        found = read_result(job)
        known[job.row] = max(known.get(job.row, 0.0), found.seconds if found else 0.0)
    running: list[_Running] = []
    done: list[Job] = []
    failed: list[Job] = []
    left: list[Job] = []
    if kept:
        say(f"{len(kept)} of {len(records)} runs were finished before")
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                unmet = _names(*waiting, *(item.job for item in running))
                place = next((n for n, job in enumerate(waiting) if not unmet & {*job.needs, *job.after}), None)
                if place is None:
                    break
                job = waiting.pop(place)
                if lost := sorted({*job.needs} & _names(*failed, *left)):
                    say(f"{job.name} left out: it needs {lost[0]}")
                    if lost[0] in _names(*failed):
                        failed.append(job)
                        write_failure(job.folder, RunFailure.of(job, _needed(lost[0])))
                    else:
                        left.append(job)
                    continue
                expected = _expected(job, known, weight)
                if seconds is not None and clock() - begun + expected > seconds:
                    left.append(job)
                    say(f"{job.name} left out: {expected:.0f} s expected, {seconds - (clock() - begun):.0f} s left")
                    continue
                (job.folder / FAILURE_FILE).unlink(missing_ok=True)
                running.append(_Running(job, start(job), clock()))
                say(f"{job.name} begun ({len(done) + len(kept)} of {len(records)} finished)")
            ended = [(item, code) for item in running if (code := item.handle.poll()) is not None]
            for item, code in ended:
                running.remove(item)
                took = clock() - item.started
                if _settle(item.job, code):
                    done.append(item.job)
                    # How long scoring takes says nothing about training.
                    if not item.job.model:
                        known[item.job.row] = max(known.get(item.job.row, 0.0), took)
                    say(f"{item.job.name} finished in {took:.0f} s")
                else:
                    failed.append(item.job)
                    failure = read_failure(item.job)
                    say(f"{item.job.name} failed: {failure.what if failure else code}")
            if running and not ended:
                sleep(_POLL_S)
    except BaseException:
        for item in running:
            item.handle.stop()
        raise
    return Outcome(kept=kept, done=tuple(done), failed=tuple(failed), left=tuple(left), seconds=clock() - begun)


def _names(*jobs: Job) -> set[str]:
    return {job.name for job in jobs}


def _needed(name: str) -> CheckError:
    return CheckError(
        f"The run '{name}' failed, and this one rests on it",
        why="It learns from that run, or starts from its weights.",
        fix=f"See {LOG_FILE} in the folder of {name}, and run the same command again.",
        error_id="reproduce.needed",
    )


def _expected(job: Job, known: Mapping[str, float], weight: Mapping[str, float]) -> float:
    if job.model:
        return 0.0
    if job.row in known:
        return known[job.row]
    own = weight.get(job.row, 1.0)
    return max((took / weight.get(row, 1.0) * own for row, took in known.items()), default=0.0)


def _settle(job: Job, code: int) -> bool:
    """Whether the run left a result; a run that left nothing at all gets a failure."""
    if read_result(job) is not None:
        return True
    if read_failure(job) is None:
        tail = _tail(job.folder / LOG_FILE)
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        write_failure(job.folder, RunFailure.of(job, RuntimeError(f"the process ended with {reason}{tail}")))
    return False


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    words = [line.strip() for line in lines if line.strip()]
    return f": {words[-1][:200]}" if words else ""
