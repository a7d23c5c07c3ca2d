"""One run in a process of its own: train by the recipe, score on the test sets, leave a result or a failure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from endolux.datasets import get_protocol, open_dataset
from endolux.datasets.base import Protocol
from endolux.datasets.splits import every_frame
from endolux.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, EndoluxError
from endolux.evaluate.averages import figures
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.protocol_run import deviate, run_protocol, select_frames
from endolux.geometry.align import Alignment
from endolux.reproduce.grid import METRICS
from endolux.reproduce.plan import PHANTOM_PROTOCOL, SCALED_PROTOCOL, Job, ScoredSet, read_job, sha256_of
from endolux.reproduce.results import RunFailure, RunResult, Score, write_failure, write_result
from endolux.types import DepthMap, Frame

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe

_INTERVAL_RESAMPLES = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training gave.

    Attributes:
        predictor: of the trained network.
        recipe_sha256: see :class:`RunResult`.
        steps, images: see :class:`RunResult`.
    """

    predictor: Predictor
    recipe_sha256: str
    steps: int
    images: int


Train = Callable[[Job], Trained]


def phantom_protocol() -> Protocol:
    """Leve's convention on phantom data: no alignment, no range, mean over frames, mirrored copies as entries (D-11).

    Example:
        >>> phantom_protocol().alignment.value, phantom_protocol().reproduce
        ('none', ('mirrored-entries',))
    """
    return Protocol(
        name="phantom-leve",
        version=1,
        dataset="folder",
        summary="As Leve scores: no scaling, no range, frames and mirrors; on rendered frames, in millimetres",
        source="Evaluation of Leve 2024, applied to phantom data",
        select=every_frame,
        alignment=Alignment.NONE,
        reproduce=("mirrored-entries",),
    )


def run(job: Job, train: Train) -> RunResult:
    """Train, score and write ``result.json``.

    Raises:
        EndoluxError: what training and scoring raise.
    """
    started = time.perf_counter()
    trained = train(job)
    between = time.perf_counter()
    predictor: Predictor = trained.predictor
    if any(test.protocol == SCALED_PROTOCOL for test in job.tests):
        predictor = Remembering(predictor)
    scores = {test.role: _score(predictor, test) for test in job.tests}
    ended = time.perf_counter()
    result = RunResult(
        row=job.row,
        seed=job.seed,
        key=job.key,
        recipe_sha256=trained.recipe_sha256,
        steps=trained.steps,
        images=trained.images,
        train_s=between - started,
        evaluate_s=ended - between,
        seconds=ended - started,
        scores=scores,
    )
    write_result(job.folder, result)
    return result


class Remembering:
    """A predictor that predicts no picture twice, for small sets that are scored in more than one way.

    Args:
        predictor: what predicts.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._known: dict[bytes, DepthMap] = {}
        self.name, self.kind, self.provenance = predictor.name, predictor.kind, predictor.provenance

    def predict(self, name: str, frame: Frame) -> DepthMap:
        """Depth of the frame."""
        key = hashlib.sha256(frame.image.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._predictor.predict(name, frame)
        return self._known[key]


def recipe_sha256(recipe: Recipe) -> str:
    """Hash of a whole recipe without what depends on the machine: folders, device, threads.

    Example:
        >>> from endolux.train.recipe import load_recipe
        >>> first, second = (load_recipe("leve", [f"data.sources=[{path}]"]) for path in ("a", "b"))
        >>> recipe_sha256(first) == recipe_sha256(second)
        True
    """
    document = recipe.document()
    for name in ("device", "threads", "workers", "checkpoint_every", "log_every"):
        document.pop(name, None)
    _without(document, "data", "sources")
    _without(document, "teacher", "cache")
    _without(document, "model", "imagenet")
    return sha256_of(document)


def main(arguments: Sequence[str]) -> int:
    """Make the run of a ``job.json``; returns the exit code.

    A failure is written beside it; an interruption is none, and the run goes on next time.
    """
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m endolux.reproduce.worker JOB.json\n")
        return EXIT_USAGE
    job = read_job(Path(arguments[0]))
    try:
        from endolux.reproduce.training import train

        run(job, train)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except EndoluxError as error:
        sys.stderr.write(f"{error}\n")
        write_failure(job.folder, RunFailure.of(job, error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        write_failure(job.folder, RunFailure.of(job, error))
        return EXIT_BUG
    return EXIT_OK


def _score(predictor: Predictor, test: ScoredSet) -> Score:
    dataset = open_dataset(test.reader, test.path)
    if test.protocol == PHANTOM_PROTOCOL:
        protocol, identity = deviate(phantom_protocol())
    elif test.protocol == SCALED_PROTOCOL:
        protocol, identity = deviate(phantom_protocol(), alignment=Alignment.MEDIAN)
    else:
        protocol, identity = deviate(get_protocol(test.protocol))
    result = run_protocol(predictor, dataset, protocol, select_frames(dataset, protocol), identity=identity)
    found = figures(result.frames, averaging=protocol.averaging, resamples=_INTERVAL_RESAMPLES)
    return Score(
        protocol=result.identity,
        list_sha256=result.list_sha256,
        entries=len(result.frames),
        failed=len(result.failures),
        unit=protocol.unit,
        metrics={name: _finite(found[name].mean) for name in METRICS},
    )


def _without(document: Mapping[str, object], section: str, name: str) -> None:
    inside = document.get(section)
    if isinstance(inside, dict):
        inside.pop(name, None)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
