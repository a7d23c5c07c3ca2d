"""What a network that learnt from video is worth on clips: the depth of every frame, and the path of the camera."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from endolux.datasets.base import Dataset, FrameKey, Sample
from endolux.errors import EndoluxError, InputError
from endolux.evaluate.frame_score import reference
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.resizing import resize_prediction
from endolux.metrics.checks import Float64
from endolux.reproduce.measures import Measured, Rows, depth_measures, summarised, whole
from endolux.reproduce.trajectories import Odometry, SimpleCamera, path_errors


def measure_video(
    predictor: Predictor | SimpleCamera, dataset: Dataset, keys: Sequence[FrameKey], *, frames_per_clip: int
) -> Measured:
    """Depth errors after median scaling of each frame, and errors of the path of each clip.

    A predictor without motion has no path, a camera that moves by a rule has no depth. A clip counts by its frames: the
    mean over frames of what a clip has once is the mean over clips, for all are as long.

    Args:
        predictor: a depth network, with :class:`~endolux.reproduce.trajectories.Odometry` where it has learnt motion.
        dataset: frames with depth and pose; ``frames_per_clip`` in a row make a clip.
        keys: which.
        frames_per_clip: at least five.

    Raises:
        InputError: ``evaluate.no-reference`` for frames without pose.
    """
    rows: list[Rows] = []
    places: list[object] = []
    failed = 0
    for start in range(0, len(keys), frames_per_clip):
        samples = [dataset.load(key) for key in keys[start : start + frames_per_clip]]
        path = _path(predictor, samples)
        for sample in samples:
            row = dict(path)
            if not isinstance(predictor, SimpleCamera):
                try:
                    row |= _depth(predictor, sample)
                except EndoluxError:
                    failed += 1
                    continue
            rows.append(row)
            places.append(start)
    found = summarised(rows, places, failed)
    return dataclasses.replace(found, entries=len(rows))


def _path(predictor: Predictor | SimpleCamera, samples: Sequence[Sample]) -> dict[str, float]:
    poses = np.stack([_pose(sample) for sample in samples])
    if isinstance(predictor, SimpleCamera):
        return predictor.errors(poses)
    if isinstance(predictor, Odometry):
        return path_errors(poses, predictor.motions([sample.frame.image for sample in samples]))
    return {}


def _depth(predictor: Predictor, sample: Sample) -> dict[str, float]:
    truth = reference(sample, sample.key)
    prediction = predictor.predict(str(sample.key), whole(sample.frame))
    if prediction.size != truth.size:
        prediction = resize_prediction(prediction, truth.size)
    return depth_measures(prediction, truth.values.astype(np.float64), truth.valid)


def _pose(sample: Sample) -> Float64:
    if sample.pose is None:
        raise InputError(
            f"Frame '{sample.key}' of a clip has no pose",
            why="The path of the camera is compared with the true one.",
            fix="Render the clip again.",
            error_id="evaluate.no-reference",
        )
    return sample.pose
