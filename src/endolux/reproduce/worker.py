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
from endolux.datasets.base import Dataset, Protocol, frame_list_sha256
from endolux.datasets.splits import every_frame
from endolux.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, EndoluxError
from endolux.evaluate.averages import figures
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.protocol_run import deviate, run_protocol, select_frames
from endolux.geometry.align import Alignment
from endolux.reproduce.grid import METRICS
from endolux.reproduce.job import (
    CLIP_PROTOCOL,
    PHANTOM_PROTOCOL,
    REAL_PROTOCOL,
    RELATIVE_PROTOCOL,
    SCALED_PROTOCOL,
    SHAPE_PROTOCOL,
    VIDEO_PROTOCOL,
    Job,
    ScoredSet,
    sha256_of,
)
from endolux.reproduce.landmark_measures import Masks, measure_landmarks
from endolux.reproduce.measures import Measured, measure_clips, measure_frames, measure_real
from endolux.reproduce.output_folder import read_job
from endolux.reproduce.relative import measure_relative
from endolux.reproduce.results import RunFailure, RunResult, Score, write_failure, write_result
from endolux.reproduce.trajectories import SimpleCamera
from endolux.reproduce.video_measures import measure_video
from endolux.types import DepthMap, Frame

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe

_INTERVAL_RESAMPLES = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training gave.

    Attributes:
        predictor: of the trained network; for landmarks, what draws masks; for a path, what
            moves by a rule.
        recipe_sha256: see :class:`RunResult`.
        steps, images: see :class:`RunResult`.
    """

    predictor: Predictor | Masks | SimpleCamera
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
    predictor = trained.predictor
    if not isinstance(predictor, Masks | SimpleCamera) and any(test.protocol == SCALED_PROTOCOL for test in job.tests):
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
        once=job.once,
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

    A teacher or a start that is a folder counts by nothing but being one: its own run says what it is.

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
    if recipe.teacher is not None and Path(recipe.teacher.model).is_absolute():
        _without(document, "teacher", "model")
    if recipe.model.initial is not None and recipe.model.initial.is_absolute():
        _without(document, "model", "initial")
    _without(document, "model", "imagenet")
    if recipe.video is not None and recipe.video.initial is not None and recipe.video.initial.is_absolute():
        _without(document, "video", "initial")
    if recipe.segmentation is not None:
        for name in ("image_encoder", "depth_encoder"):
            if Path(getattr(recipe.segmentation, name) or "").is_absolute():
                _without(document, "segmentation", name)
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


def _score(predictor: Predictor | Masks | SimpleCamera, test: ScoredSet) -> Score:
    if isinstance(predictor, Masks):
        return measure_landmarks(predictor, test)
    if test.protocol == VIDEO_PROTOCOL:
        clips = open_dataset(test.reader, test.path)
        every = tuple(clips.keys())
        found = measure_video(predictor, clips, every, frames_per_clip=test.scene_frames)
        return _as_score(found, test, unit="mm", list_sha256=frame_list_sha256(every))
    if isinstance(predictor, SimpleCamera):
        raise TypeError(f"'{predictor.name}' has no depth for '{test.role}'")
    if test.protocol == REAL_PROTOCOL:
        return _as_score(measure_real(predictor, test.reader, test.path), test, unit="mm", list_sha256="")
    dataset = open_dataset(test.reader, test.path)
    if test.protocol == RELATIVE_PROTOCOL:
        listed = dataset.keys()
        keys = tuple(key for key in listed if key.sequence.startswith(test.sequence))
        parts = test.scene_frames
        found = measure_relative(
            predictor, dataset, keys, scene=lambda key, place: (key.sequence, place // parts if parts else 0)
        )
        return _as_score(found, test, unit="mm", list_sha256=frame_list_sha256(keys))
    if test.protocol in (SHAPE_PROTOCOL, CLIP_PROTOCOL):
        keys = tuple(dataset.keys())
        if test.protocol == CLIP_PROTOCOL:
            found = measure_clips(predictor, dataset, frames_per_clip=test.scene_frames)
        else:
            found = measure_frames(
                predictor, dataset, keys, scene=lambda key, place: (key.sequence, place // test.scene_frames)
            )
        return _as_score(found, test, unit="mm", list_sha256=frame_list_sha256(keys))
    return _by_protocol(predictor, dataset, test)


def _as_score(found: Measured, test: ScoredSet, *, unit: str, list_sha256: str) -> Score:
    return Score(
        protocol=f"{test.protocol}/1",
        list_sha256=list_sha256,
        entries=found.entries,
        failed=found.failed,
        unit=unit,
        metrics={name: _finite(value) for name, value in found.means.items()},
        scenes={name: [_finite(value) for value in values] for name, values in found.scenes.items()},
    )


def _by_protocol(predictor: Predictor, dataset: Dataset, test: ScoredSet) -> Score:
    if test.protocol == PHANTOM_PROTOCOL:
        protocol, identity = deviate(phantom_protocol())
    elif test.protocol == SCALED_PROTOCOL:
        protocol, identity = deviate(phantom_protocol(), alignment=Alignment.MEDIAN)
    else:
        protocol, identity = deviate(get_protocol(test.protocol))
    keys = select_frames(dataset, protocol)
    result = run_protocol(predictor, dataset, protocol, keys, identity=identity)
    found = figures(result.frames, averaging=protocol.averaging, resamples=_INTERVAL_RESAMPLES)
    metrics = {name: _finite(found[name].mean) for name in METRICS}
    if test.shape:
        more = measure_frames(predictor, dataset, keys, scene=lambda key, _place: key.sequence, depth=False)
        metrics |= {name: _finite(found[name].mean) for name in ("sq_rel", "rmse_log")}
        metrics |= {name: _finite(value) for name, value in more.means.items()}
    return Score(
        protocol=result.identity,
        list_sha256=result.list_sha256,
        entries=len(result.frames),
        failed=len(result.failures),
        unit=protocol.unit,
        metrics=metrics,
    )


def _without(document: Mapping[str, object], section: str, name: str) -> None:
    inside = document.get(section)
    if isinstance(inside, dict):
        inside.pop(name, None)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
