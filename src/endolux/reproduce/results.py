"""What runs leave behind: one result or one failure each, written whole."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from endolux.errors import EndoluxError
from endolux.io.tables import write_json_atomic
from endolux.reproduce.job import Job

RESULT_FILE, FAILURE_FILE = "result.json", "failure.json"


class Score(BaseModel):
    """Figures on one test set.

    Attributes:
        protocol: identity of the convention.
        list_sha256: hash of the scored frames.
        entries: what the mean runs over (mirrored copies count).
        failed: frames that could not be scored.
        unit: of ``rmse``.
        metrics: names as in ``endolux.metrics``; None where no frame has a value.
        scenes: the same for each scene, in order, where scenes are told apart.
        counts: what else was counted, as pictures with a class of landmarks.
    """

    model_config = ConfigDict(extra="forbid")

    protocol: str
    list_sha256: str
    entries: int
    failed: int
    unit: str
    metrics: dict[str, float | None]
    scenes: dict[str, list[float | None]] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)


class RunResult(BaseModel):
    """``result.json`` of a finished run.

    Attributes:
        row, seed, key: which run it is.
        recipe_sha256: of the whole recipe, defaults included, without paths.
        steps: optimiser steps.
        images: samples that were shown to the network.
        train_s, evaluate_s, seconds: durations of the training, of the scoring and of the process.
        scores: by role.
        once: one run for all seeds.
    """

    model_config = ConfigDict(extra="forbid")

    row: str
    seed: int
    key: str
    recipe_sha256: str
    steps: int
    images: int
    train_s: float
    evaluate_s: float
    seconds: float
    scores: dict[str, Score]
    once: bool = False


class RunFailure(BaseModel):
    """``failure.json`` of a run that did not end well."""

    model_config = ConfigDict(extra="forbid")

    row: str
    seed: int
    error_id: str
    what: str
    why: str
    fix: str

    @classmethod
    def of(cls, job: Job, error: Exception) -> RunFailure:
        """The record of an error."""
        if isinstance(error, EndoluxError):
            return cls(
                row=job.row, seed=job.seed, error_id=error.error_id, what=error.what, why=error.why, fix=error.fix
            )
        return cls(
            row=job.row,
            seed=job.seed,
            error_id="bug.unexpected",
            what=f"{type(error).__name__}: {error}",
            why="This is a bug in Endolux, or the process was stopped from outside.",
            fix="See log.txt in the run's folder, and run the same command again.",
        )


def read_result(job: Job) -> RunResult | None:
    """The result of a run; None where there is none of the same key, or it is damaged (it is then made anew)."""
    path = job.folder / RESULT_FILE
    try:
        result = RunResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return result if result.key == job.key else None


def read_failure(job: Job) -> RunFailure | None:
    """The failure of a run, None where there is none."""
    try:
        return RunFailure.model_validate_json((job.folder / FAILURE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write_result(folder: Path, result: RunResult) -> None:
    """Write ``result.json``; an earlier failure of the run is history then."""
    write_json_atomic(folder / RESULT_FILE, result)
    (folder / FAILURE_FILE).unlink(missing_ok=True)


def write_failure(folder: Path, failure: RunFailure) -> None:
    """Write ``failure.json``."""
    write_json_atomic(folder / FAILURE_FILE, failure)
