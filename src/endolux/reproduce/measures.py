"""What a predictor is worth on a test set: depth, boundaries, texture, bands, time, and loose real frames."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from endolux.datasets.base import Dataset, FrameKey, Sample
from endolux.errors import EndoluxError, InputError
from endolux.evaluate.frame_score import reference
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.resizing import resize_prediction
from endolux.geometry.align import Alignment, align
from endolux.metrics import (
    EmptyMaskWarning,
    band_residuals,
    boundary_f1,
    depth_metrics,
    edge_band_error,
    flicker,
    temporal_alignment_error,
    texture_leak,
)
from endolux.metrics.checks import BoolArray, Float64
from endolux.metrics.texture import BAND_EDGES
from endolux.prep.specular import specular_mask
from endolux.reproduce.metric_names import BANDS
from endolux.reproduce.real_frames import SETS
from endolux.types import Camera, DepthMap, Frame, ImageArray

Rows = Mapping[str, float]
DEPTH = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
SHAPE = (
    "boundary_f1",
    "edge_error",
    "leak_slope",
    "leak_correlation",
    "leak_residual",
    *(f"rho_{band}" for band in range(BANDS)),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures on one test set.

    Attributes:
        means: over the frames (or clips) that have a value, NaN where none has.
        scenes: the same over the frames of each scene, in order.
        entries: frames or clips that were measured.
        failed: frames that could not be.
    """

    means: Mapping[str, float]
    scenes: Mapping[str, tuple[float, ...]]
    entries: int
    failed: int


def depth_measures(depth: DepthMap, truth: Float64, valid: BoolArray) -> dict[str, float]:
    """Depth errors after median scaling, as the field reports them.

    Args:
        depth: H x W prediction, a depth of any positive scale.
        truth: H x W depth in mm.
        valid: H x W bool.

    Example:
        >>> from endolux.types import DepthKind
        >>> truth = np.linspace(20, 60, 64 * 64).reshape(64, 64)
        >>> guess = DepthMap(values=np.float32(3 * truth), kind=DepthKind.RELATIVE_DEPTH, valid=truth > 0)
        >>> round(depth_measures(guess, truth, truth > 0)["abs_rel"], 6)
        0.0
    """
    aligned = align(depth, truth, valid, alignment=Alignment.MEDIAN)
    found = depth_metrics(aligned.values, truth, aligned.valid)
    return {name: found[name] for name in DEPTH}


def shape_measures(depth: DepthMap, truth: Float64, valid: BoolArray, image: ImageArray) -> dict[str, float]:
    """Boundaries, texture and bands after median scaling.

    Highlights take no part in the leak: they are bright whatever the wall beside them does. Bands that are merged with
    their neighbour at a small size have the name of the highest of them; the others are NaN.

    Args:
        depth: H x W prediction, a depth of any positive scale.
        truth: H x W depth in mm.
        valid: H x W bool.
        image: H x W x 3 uint8 RGB; NaN for the leak where it has another size.

    Example:
        >>> from endolux.types import DepthKind
        >>> truth = 40 + 10 * np.sin(np.arange(128) / 9)[:, None] * np.ones((128, 160))
        >>> guess = DepthMap(values=np.float32(2 * truth), kind=DepthKind.RELATIVE_DEPTH, valid=truth > 0)
        >>> found = shape_measures(guess, truth, truth > 0, np.zeros((128, 160, 3), np.uint8))
        >>> found["rho_0"] < 1e-9
        True
    """
    aligned = align(depth, truth, valid, alignment=Alignment.MEDIAN)
    found = dict.fromkeys(SHAPE, math.nan)
    where = aligned.valid
    values = np.where(where, aligned.values, 1.0)
    reference_mm = np.where(where, truth, 1.0)
    with warnings.catch_warnings():
        # A frame without a step, a flat or a textured pixel has no figure; the mean is over the others.
        warnings.simplefilter("ignore", EmptyMaskWarning)
        found["boundary_f1"] = boundary_f1(values, reference_mm, where)
        found["edge_error"] = edge_band_error(values, reference_mm, where).log_error
        if image.shape[:2] == where.shape:
            calm = where & ~specular_mask(image)
            leak = texture_leak(values, image, reference_mm, calm)
            found["leak_slope"], found["leak_correlation"] = leak.slope, leak.correlation
            found["leak_residual"] = texture_leak(values, image, reference_mm, calm, of="residual").slope
        bands = band_residuals(values, reference_mm, where)
    for upper, rho in zip(bands.edges[1:], bands.rho, strict=True):
        found[f"rho_{BAND_EDGES.index(upper) - 1}"] = rho
    return found


def measure_frames(
    predictor: Predictor,
    dataset: Dataset,
    keys: Sequence[FrameKey],
    *,
    scene: Callable[[FrameKey, int], object],
    depth: bool = True,
) -> Measured:
    """Every frame of a list.

    Args:
        predictor: what is measured.
        dataset: where the frames are.
        keys: which.
        scene: from a frame and its place in the list to its scene.
        depth: depth errors as well as shape.
    """
    rows: list[Rows] = []
    scenes: list[object] = []
    failed = 0
    for place, key in enumerate(keys):
        try:
            sample = dataset.load(key)
            truth = reference(sample, key)
            prediction = predictor.predict(str(key), whole(sample.frame))
            if prediction.size != truth.size:
                prediction = resize_prediction(prediction, truth.size)
            values = truth.values.astype(np.float64)
            row = shape_measures(prediction, values, truth.valid, sample.frame.image)
            if depth:
                row |= depth_measures(prediction, values, truth.valid)
        except EndoluxError:
            failed += 1
            continue
        rows.append(row)
        scenes.append(scene(key, place))
    return summarised(rows, scenes, failed)


def measure_clips(predictor: Predictor, dataset: Dataset, *, frames_per_clip: int) -> Measured:
    """Flicker of the error, and disagreement of neighbours after the true motion; each clip aligned by one factor.

    Args:
        predictor: what is measured.
        dataset: frames with depth, pose and camera; ``frames_per_clip`` in a row make a clip.
        frames_per_clip: at least three.

    Raises:
        InputError: ``evaluate.no-reference`` for frames without depth, pose or camera.
    """
    keys = list(dataset.keys())
    clips = [keys[start : start + frames_per_clip] for start in range(0, len(keys), frames_per_clip)]
    rows = [_clip(predictor, [dataset.load(key) for key in clip]) for clip in clips]
    return summarised(rows, list(range(len(rows))), 0)


def measure_real(predictor: Predictor, name: str, root: Path) -> Measured:
    """One of the sets of :mod:`endolux.reproduce.real_frames`: depth errors under the set's own alignment.

    Raises:
        InputError: files are missing or damaged.
    """
    rows: list[Rows] = []
    for frame in SETS[name](root):
        prediction = predictor.predict(frame.name, whole(Frame(image=frame.image, index=len(rows), name=frame.name)))
        aligned = align(prediction, frame.truth, frame.valid, alignment=frame.alignment, truth_kind=frame.truth_kind)
        found = depth_metrics(aligned.values, frame.truth, aligned.valid)
        rows.append({metric: found[metric] for metric in DEPTH})
    if not rows:
        raise InputError(
            f"No frames of '{name}'",
            why="Its folder is there, and none of its files has the name that the source gave it.",
            fix="Copy the folder again from its source, or leave --real-data out.",
            error_id="reproduce.real-data",
        )
    return summarised(rows, list(range(len(rows))), 0)


def _clip(predictor: Predictor, samples: Sequence[Sample]) -> Rows:
    truths: list[Float64] = []
    masks: list[BoolArray] = []
    predicted: list[Float64] = []
    poses: list[Float64] = []
    camera: Camera | None = None
    for sample in samples:
        truth = reference(sample, sample.key)
        camera = sample.frame.camera
        if camera is None or sample.pose is None:
            raise InputError(
                f"Frame '{sample.key}' of a clip has no {'camera' if camera is None else 'pose'}",
                why="Neighbouring depth maps are compared after the true camera motion.",
                fix="Render the clip again.",
                error_id="evaluate.no-reference",
            )
        depth = predictor.predict(str(sample.key), whole(sample.frame))
        mask = truth.valid & depth.valid & np.isfinite(depth.values) & (depth.values > 0)
        truths.append(truth.values.astype(np.float64))
        predicted.append(depth.values.astype(np.float64))
        masks.append(mask)
        poses.append(sample.pose)
    if camera is None or not any(mask.any() for mask in masks):
        return {"flicker": math.nan, "temporal_error": math.nan}
    # One factor for the whole clip: one a frame would hide what is measured.
    medians = [
        float(np.median(np.concatenate([plane[mask] for plane, mask in zip(planes, masks, strict=True)])))
        for planes in (truths, predicted)
    ]
    scaled = [plane * (medians[0] / medians[1]) for plane in predicted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyMaskWarning)
        moving = temporal_alignment_error(scaled, poses, camera, valid=masks).error
        # Of the error: what the truth does while the camera moves is no flicker of the student.
        ratios = [
            np.where(mask, plane, 1.0) / np.where(mask, truth, 1.0)
            for plane, truth, mask in zip(scaled, truths, masks, strict=True)
        ]
        jitter = flicker(ratios, valid=masks).total
    return {"flicker": jitter, "temporal_error": moving}


def whole(frame: Frame) -> Frame:
    """The frame with its whole picture to be predicted."""
    # The whole picture is predicted; what counts is the truth's mask.
    return frame if frame.valid is not None else dataclasses.replace(frame, valid=np.ones(frame.image.shape[:2], bool))


def summarised(rows: Sequence[Rows], scenes: Sequence[object], failed: int) -> Measured:
    """Means over all rows and over those of each scene; rows without a value of a name do not count for it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    places = {scene: index for index, scene in enumerate(dict.fromkeys(scenes))}
    grouped: dict[str, tuple[float, ...]] = {}
    for name in names:
        groups: list[list[float]] = [[] for _ in places]
        for row, scene in zip(rows, scenes, strict=True):
            groups[places[scene]].append(row[name])
        grouped[name] = tuple(_mean(group) for group in groups)
    means = {name: _mean([row[name] for row in rows]) for name in names}
    return Measured(means=means, scenes=grouped, entries=len(rows), failed=failed)


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if math.isfinite(value)]
    return math.fsum(present) / len(present) if present else math.nan
