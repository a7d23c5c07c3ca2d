"""Predicted landmark masks of any software, scored under a protocol of landmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from endolux.datasets.base import Dataset, FrameKey, Protocol, frame_list_sha256
from endolux.datasets.l3d import CLASSES
from endolux.errors import EndoluxError, UsageError
from endolux.evaluate.failures import all_failed
from endolux.evaluate.landmark_masks import MaskPair, read_pair
from endolux.evaluate.opening import stem_of
from endolux.evaluate.prediction_set import list_files, match_files
from endolux.io.paths import printable
from endolux.io.sources import Failure
from endolux.metrics.checks import EmptyMaskWarning
from endolux.metrics.segmentation import SegmentationScores, segmentation_scores
from endolux.metrics.segmentation_published import assd_as_published, overlap_as_published
from endolux.metrics.segmentation_summary import SegmentationSummary, summarise_segmentation

PUBLISHED: Mapping[str, str] = {
    "d2gpland_dsc": "DSC as D2GPLand, D2GPLand-Plus and SRFT-GaLore code it: classes pooled, empty against empty is 1",
    "d2gpland_iou": "IoU from that DSC",
    "d2gpland_plus_assd": "ASSD as D2GPLand-Plus codes it: all classes as one volume, 80 for an empty prediction",
    "srft_galore_assd": "ASSD as SRFT-GaLore codes it: of the background, 10 units a pixel",
}
"""Figures of published code and what they are. The two distances measure different things."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LandmarkFrame:
    """Scores of one frame.

    Attributes:
        key: which frame.
        scores: per class and pooled, distances in pixels of the truth.
        published: by the names of ``PUBLISHED``; NaN where the original stops with an error.
        resized: whether the prediction had another size than the truth.
    """

    key: FrameKey
    scores: SegmentationScores
    published: Mapping[str, float]
    resized: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LandmarkResult:
    """Predicted masks measured under a protocol.

    Attributes:
        protocol: what was done.
        keys: the frames that the protocol selected, in order.
        limit: only so many of them were scored, None for all.
        predictor: where the masks are from; ``masks_sha256`` is over the names and hashes of those that were scored.
        files: name of the frame -> its mask.
        frames: scored frames in order.
        failures: frames that could not be read or scored.
        summary: over the scored frames.
        published: means over the scored frames.
        list_sha256: hash of the frame list.
        warnings: what a reader of the figures has to know.
    """

    protocol: Protocol
    keys: tuple[FrameKey, ...]
    limit: int | None
    predictor: Mapping[str, str]
    files: Mapping[str, Path]
    frames: tuple[LandmarkFrame, ...]
    failures: tuple[Failure, ...]
    summary: SegmentationSummary
    published: Mapping[str, float]
    list_sha256: str
    warnings: tuple[str, ...]


def run_landmarks(
    masks: Path,
    dataset: Dataset,
    protocol: Protocol,
    keys: Sequence[FrameKey],
    *,
    in_order: bool = False,
    limit: int | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> LandmarkResult:
    """Score a folder of masks, one frame at a time.

    Args:
        masks: folder with one 8-bit picture or ``.npy`` of class numbers a frame, named as predictions of depth are.
        dataset: the opened data set.
        protocol: a protocol of landmarks.
        keys: its frames.
        in_order: the files belong to the frames by their order.
        limit: score the first so many frames only.
        on_progress: called with (frames done, frames in all, failures).

    Raises:
        UsageError: ``evaluate.masks`` where ``masks`` is no folder.
        InputError: ``evaluate.no-prediction``, ``evaluate.prediction-count``, ``evaluate.ambiguous``;
            ``evaluate.all-failed`` where no frame could be scored.
    """
    if not masks.is_dir():
        raise UsageError(
            f"'{printable(masks)}' is not a folder of masks",
            why=f"'{protocol.name}' scores landmarks, and takes their masks only.",
            fix="Give a folder with a picture of class numbers a frame, as 'endolux segment' writes it "
            f"({', '.join(f'{number} {name}' for number, name in enumerate(CLASSES))}).",
            error_id="evaluate.masks",
        )
    stems = [stem_of(dataset, key) for key in keys]
    files, naming = match_files(masks, list_files(masks), keys, stems, in_order=in_order)
    scored = keys if limit is None else keys[:limit]
    frames: list[LandmarkFrame] = []
    failures: list[Failure] = []
    digest = hashlib.sha256()
    for index, key in enumerate(scored):
        try:
            pair = read_pair(files.get(str(key)), dataset, key)
            frames.append(score_landmarks(pair, key))
            digest.update(f"{key}\0{pair.sha256}\n".encode("utf-8", "surrogateescape"))
        except EndoluxError as error:
            failures.append(Failure(index=index, name=str(key), error=error))
        if on_progress is not None:
            on_progress(index + 1, len(scored), len(failures))
    if not frames:
        raise all_failed(failures, len(scored))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyMaskWarning)  # counted in the summary, and told below
        summary = summarise_segmentation([frame.scores for frame in frames])
    published = {}
    for name in PUBLISHED:
        values = np.array([frame.published[name] for frame in frames])
        present = values[~np.isnan(values)]
        published[name] = float(present.mean()) if present.size else float("nan")
    return LandmarkResult(
        protocol=protocol,
        keys=tuple(keys),
        limit=limit if limit is not None and limit < len(keys) else None,
        predictor={
            "type": "masks",
            "name": printable(masks.resolve().name),
            "matched_by": naming,
            "masks_sha256": digest.hexdigest(),
        },
        files=files,
        frames=tuple(frames),
        failures=tuple(failures),
        summary=summary,
        published=published,
        list_sha256=frame_list_sha256(scored),
        warnings=tuple(_warnings(protocol, keys, scored, frames, failures, summary)),
    )


def score_landmarks(pair: MaskPair, key: FrameKey) -> LandmarkFrame:
    """Score the mask of one frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyMaskWarning)
        overlap = overlap_as_published(pair.predicted, pair.truth)
        published = {
            "d2gpland_dsc": overlap[0],
            "d2gpland_iou": overlap[1],
            "d2gpland_plus_assd": assd_as_published(pair.predicted, pair.truth, reproduce="d2gpland-plus"),
            "srft_galore_assd": assd_as_published(pair.predicted, pair.truth, reproduce="srft-galore"),
        }
        scores = segmentation_scores(pair.predicted, pair.truth)
    return LandmarkFrame(key=key, scores=scores, published=published, resized=pair.resized)


def _warnings(
    protocol: Protocol,
    keys: Sequence[FrameKey],
    scored: Sequence[FrameKey],
    frames: Sequence[LandmarkFrame],
    failures: Sequence[Failure],
    summary: SegmentationSummary,
) -> list[str]:
    found = []
    if protocol.expected_frames is not None and len(keys) != protocol.expected_frames:
        found.append(
            f"{len(keys)} frames were found and the published list has {protocol.expected_frames}: "
            "these figures do not compare with published ones"
        )
    if len(scored) != len(keys):
        found.append(f"only the first {len(scored)} of {len(keys)} frames were scored")
    if failures:
        found.append(f"{len(failures)} of {len(scored)} frames failed and are left out of every figure")
    if summary.empty:
        found.append(f"{summary.empty} frames have no landmark in truth and prediction, and no pooled DSC and IoU")
    resized = sum(frame.resized for frame in frames)
    if resized:
        found.append(f"{resized} masks were brought to the size of the truth (nearest)")
    return found
