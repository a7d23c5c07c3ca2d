"""One frame of a protocol: read, predicted, mirrored where the original does so, and scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from endolux.datasets.base import FrameKey, Protocol, Sample
from endolux.errors import InputError
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.scoring import Measured, check_protocol, score
from endolux.evaluate.windows import MM_PER_UNIT
from endolux.io.paths import printable
from endolux.types import DepthKind, DepthMap, Frame


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameScore:
    """Figures of one frame of a protocol.

    Attributes:
        key: which frame.
        mirrored: True for the left-to-right copy that some originals also score.
        measured: figures and counts.
        excluded: reference pixels that the reader left out, by reason.
    """

    key: FrameKey
    mirrored: bool
    measured: Measured
    excluded: Mapping[str, int]


def score_frame(
    predictor: Predictor,
    key: FrameKey,
    sample: Sample,
    protocol: Protocol,
    *,
    mirrored: bool = False,
    scale: float | None = None,
) -> FrameScore:
    """Score one sample, under the factor of its sequence where the protocol fits one.

    Raises EndoluxError where it cannot be scored; ``evaluate.no-reference`` without a depth.
    """
    depth = reference(sample, key)
    check_protocol(protocol, prediction_kind=predictor.kind, truth_kind=depth.kind)
    measured = score(predict(predictor, key, sample.frame, protocol), depth, protocol, scale=scale)
    return FrameScore(key=key, mirrored=mirrored, measured=measured, excluded=dict(sample.excluded))


def predict(predictor: Predictor, key: FrameKey, frame: Frame, protocol: Protocol) -> DepthMap:
    """The prediction, brought to the protocol's largest depth where the predictor is a network of ratios."""
    if protocol.whole_picture and frame.valid is None:
        frame = dataclasses.replace(frame, valid=np.ones(frame.image.shape[:2], np.bool_))
    depth = predictor.predict(str(key), frame)
    factor = ratio_factor(predictor, protocol)
    if factor is None:
        return depth
    return dataclasses.replace(depth, values=(depth.values * np.float32(factor)).astype(np.float32))


def ratio_factor(predictor: Predictor, protocol: Protocol) -> float | None:
    """What a network of ratios' depth is multiplied with under a protocol that states its M; None for others."""
    own = getattr(predictor, "ratio_maximum_mm", None)
    if protocol.ratio_maximum is None or own is None or predictor.kind is not DepthKind.METRIC:
        return None
    return float(protocol.ratio_maximum * MM_PER_UNIT[protocol.unit] / own)


def reference(sample: Sample, key: FrameKey) -> DepthMap:
    """The sample's depth. Raises InputError ``evaluate.no-reference`` where it has none."""
    if sample.depth is None:
        raise InputError(
            f"'{printable(str(key))}' has no reference depth",
            why="The data set holds none for this frame, and the protocol scores it.",
            fix="Run 'endolux data check' on the folder.",
            error_id="evaluate.no-reference",
        )
    return sample.depth


def mirror(sample: Sample) -> Sample:
    """The sample seen in a mirror, left and right exchanged; its camera, pose and labels are left out."""
    frame = sample.frame
    flipped = Frame(
        image=np.ascontiguousarray(frame.image[:, ::-1]),
        index=frame.index,
        name=frame.name,
        valid=None if frame.valid is None else np.ascontiguousarray(frame.valid[:, ::-1]),
    )
    depth = sample.depth
    if depth is not None:
        depth = DepthMap(
            values=np.ascontiguousarray(depth.values[:, ::-1]),
            kind=depth.kind,
            valid=np.ascontiguousarray(depth.valid[:, ::-1]),
        )
    return Sample(key=sample.key, frame=flipped, depth=depth, excluded=sample.excluded)
