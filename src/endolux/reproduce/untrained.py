"""Rows that are scored as they are: baselines, and models that somebody else has trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from endolux.evaluate.baselines import PREFIX, Baseline, get_baseline
from endolux.evaluate.predictors import ModelPredictor, Predictor
from endolux.models.teachers import Teacher
from endolux.reproduce.job import sha256_of
from endolux.reproduce.trajectories import PREFIX as MOTION
from endolux.reproduce.trajectories import SimpleCamera
from endolux.reproduce.worker import Trained
from endolux.runtime.bundles import CARD, list_bundles
from endolux.types import DepthKind, DepthMap, FloatArray, Frame, MaskArray

_LEAST, _PERCENTILE = 1e-3, 99.0


class WholeBaseline:
    """A baseline over the whole picture: the truth's mask says what counts.

    Args:
        name: such as ``baseline:constant``.
    """

    def __init__(self, name: str) -> None:
        self._baseline: Baseline = get_baseline(name)
        self.name, self.kind = name, DepthKind.RELATIVE_DEPTH
        self.provenance: Mapping[str, str | float | None] = {"type": "baseline", "name": name}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth of the frame."""
        return self._baseline(frame.image, None)


class TeacherPredictor:
    """A training run or a foundation model as what is scored.

    Args:
        teacher: a model that gives depth or disparity.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.name, self.kind = teacher.name, teacher.kind
        self.provenance: Mapping[str, str | float | None] = {"type": "model", "sha256": teacher.sha256}

    def predict(self, name: str, frame: Frame) -> DepthMap:  # noqa: ARG002 -- the protocol's signature
        """Depth or disparity of the frame at its own size."""
        values = self._teacher.predict(frame.image).map
        known = np.isfinite(values)
        return DepthMap(values=np.where(known, values, np.float32(0)).astype(np.float32), kind=self.kind, valid=known)


class Inverting:
    """A predictor of disparity as one of relative depth, by :func:`inverted`.

    Args:
        predictor: gives disparity.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.name, self.kind = predictor.name, DepthKind.RELATIVE_DEPTH
        self.provenance = predictor.provenance

    def predict(self, name: str, frame: Frame) -> DepthMap:
        """Depth of the frame, up to a factor as far as the shift of the disparity is zero."""
        found = self._predictor.predict(name, frame)
        return DepthMap(values=inverted(found.values, found.valid), kind=self.kind, valid=found.valid)


def inverted(disparity: FloatArray, valid: MaskArray) -> FloatArray:
    """``1 / max(disparity, 0.001 of its 99th percentile)``: relative depth as if the shift were zero.

    Args:
        disparity: H x W.
        valid: H x W bool: where it is known.

    Returns:
        H x W float32; 1 everywhere for a map without a positive value.

    Source: protocol P1 of the evaluations of Depth Anything on endoscopic data.

    Example:
        >>> inverted(np.float32([[0.5, 4.0]]), np.array([[True, True]])).tolist()
        [[2.0, 0.25]]
    """
    known = disparity[valid]
    largest = float(np.percentile(known, _PERCENTILE)) if known.size else 0.0
    if not largest > 0:
        return np.ones(disparity.shape, np.float32)
    safe = np.where(valid, disparity, np.float32(largest))
    return np.asarray(1.0 / np.maximum(safe, _LEAST * largest), np.float32)


def scored_as_it_is(model: str, *, as_it_is: bool = False) -> Trained:
    """A row that trains nothing.

    Disparity of unknown shift has no depth. It is scored as its inverse, unless ``as_it_is``.

    Args:
        model: what a recipe may call a teacher (bundle, folder of a bundle or of a training run, foundation model), or
            a baseline such as ``baseline:constant`` or, of the camera's path, ``motion:constant-velocity``.
        as_it_is: leave disparity as it is.

    Raises:
        EndoluxError: what :func:`endolux.train.knowledge.open_teacher` and
            :func:`endolux.evaluate.predictors.open_predictor` raise.

    Example:
        >>> scored_as_it_is("baseline:constant").steps
        0
    """
    if model.startswith(MOTION):
        return Trained(predictor=SimpleCamera(model), recipe_sha256=sha256_of({"model": model}), steps=0, images=0)
    predictor: Predictor
    if model.startswith(PREFIX):
        predictor, identity = WholeBaseline(model), model
    elif model in list_bundles() or (Path(model).expanduser() / CARD).is_file():
        bundle = ModelPredictor.load(model, engine="onnxruntime", precision="exact", threads=None)
        predictor, identity = bundle, str(bundle.provenance["card_sha256"])
    else:
        from endolux.train.knowledge import open_teacher

        teacher = open_teacher(model)
        predictor, identity = TeacherPredictor(teacher), teacher.sha256
    if predictor.kind is DepthKind.RELATIVE_DISPARITY and not as_it_is:
        predictor = Inverting(predictor)
    return Trained(predictor=predictor, recipe_sha256=sha256_of({"model": identity}), steps=0, images=0)
