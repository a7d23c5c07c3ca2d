"""What a network of landmarks is worth on pictures with drawn landmarks."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets import open_dataset
from endolux.datasets.base import Dataset, FrameKey, frame_list_sha256
from endolux.datasets.l3d import L3dDataset, resize_labels
from endolux.datasets.splits import sequences
from endolux.errors import EndoluxError, InputError
from endolux.metrics.checks import EmptyMaskWarning
from endolux.metrics.segmentation import SegmentationScores, segmentation_scores
from endolux.metrics.segmentation_published import assd_as_published, overlap_as_published
from endolux.metrics.segmentation_summary import summarise_segmentation
from endolux.reproduce.job import ScoredSet
from endolux.reproduce.landmark_names import CLASSES
from endolux.reproduce.results import Score
from endolux.types import FloatArray, ImageArray

Labels = npt.NDArray[np.uint8]
_NUMBERS = tuple(range(1, len(CLASSES) + 1))
_PUBLISHED = ("d2gpland_dsc", "d2gpland_iou", "d2gpland_plus_assd", "srft_galore_assd")
_POOLED = ("pooled_dsc", "pooled_iou", "macro_dsc", "macro_iou", "assd", "miss_rate", "false_alarm_rate")


@runtime_checkable
class Masks(Protocol):
    """What draws masks.

    Attributes:
        size: (width, height) at which it sees pictures, and is scored.
        reads_depth: whether it needs the monocular depth that comes with a picture.
    """

    size: tuple[int, int]
    reads_depth: bool

    def mask(self, image: ImageArray, inverse_depth: FloatArray | None = None) -> Labels:
        """H x W class numbers for an H x W x 3 picture of this size; inverse depth is H x W in [0, 1]."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Picture:
    scores: SegmentationScores
    published: tuple[float, ...]


def measure_landmarks(masks: Masks, test: ScoredSet) -> Score:
    """Draw and score the test pictures of a set.

    Of L3D the part ``Test`` is scored, of a set without parts all of it. Pictures and truth are brought to the size of
    the training pictures, where distances are counted in pixels. Pictures that cannot be read are counted.

    Args:
        masks: the trained network.
        test: a set with landmarks; ``scene_frames`` pictures in a row show one scene, 0 for sequences as scenes.

    Raises:
        InputError: ``evaluate.all-failed`` where no picture could be scored.
    """
    dataset = open_dataset(test.reader, test.path)
    keys = tuple(sequences("Test")(dataset.keys(), None) if isinstance(dataset, L3dDataset) else dataset.keys())
    scenes: dict[object, list[_Picture]] = {}
    failed = 0
    with warnings.catch_warnings():
        # Pictures without landmarks are counted.
        warnings.simplefilter("ignore", EmptyMaskWarning)
        for place, key in enumerate(keys):
            try:
                sample = dataset.load(key)
                truth = (sample.labels or {}).get("landmarks")
                if truth is None:
                    failed += 1
                    continue
                image = cv2.resize(sample.frame.image, masks.size, interpolation=cv2.INTER_AREA)
                depth = _inverse_depth(dataset, key, masks.size) if masks.reads_depth else None
                drawn = masks.mask(np.asarray(image, np.uint8), depth)
            except EndoluxError:
                failed += 1
                continue
            found = _score(drawn, resize_labels(np.asarray(truth, np.uint8), masks.size))
            scenes.setdefault(_scene(key, place, test.scene_frames), []).append(found)
        pictures = [picture for group in scenes.values() for picture in group]
        if not pictures:
            raise _nothing(test.path)
        means = _figures(pictures)
        per_scene = [_figures(group) for group in scenes.values()]
    return Score(
        protocol=f"{test.protocol}/1",
        list_sha256=frame_list_sha256(keys),
        entries=len(pictures),
        failed=failed,
        unit="px",
        metrics={name: _finite(value) for name, value in means.items()},
        scenes={name: [_finite(one[name]) for one in per_scene] for name in means},
        counts={
            **{
                name: sum(p.scores.classes[n].true > 0 for p in pictures)
                for n, name in zip(_NUMBERS, CLASSES, strict=True)
            },
            "none": sum(all(p.scores.classes[n].true == 0 for n in _NUMBERS) for p in pictures),
        },
    )


def _inverse_depth(dataset: Dataset, key: FrameKey, size: tuple[int, int]) -> FloatArray:
    depth = dataset.pseudo_depth(key) if isinstance(dataset, L3dDataset) else None
    if depth is None:
        raise InputError(
            f"'{key}' has no monocular depth",
            why="The network reads it beside the picture.",
            fix="Put depth_AdelaiDepth/NAME.png beside the pictures.",
            error_id="evaluate.no-depth",
        )
    seen = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(seen, np.float32) / np.float32(255)


def _scene(key: FrameKey, place: int, frames: int) -> object:
    return (key.sequence, place // frames) if frames else key.sequence


def _score(drawn: Labels, truth: Labels) -> _Picture:
    return _Picture(
        segmentation_scores(drawn, truth, classes=_NUMBERS),
        (
            *overlap_as_published(drawn, truth, classes=_NUMBERS),
            assd_as_published(drawn, truth, reproduce="d2gpland-plus", classes=_NUMBERS),
            assd_as_published(drawn, truth, reproduce="srft-galore", classes=_NUMBERS),
        ),
    )


def _figures(pictures: Sequence[_Picture]) -> Mapping[str, float]:
    summary = summarise_segmentation([picture.scores for picture in pictures])
    found = {name: float(getattr(summary, name)) for name in _POOLED}
    for number, name in zip(_NUMBERS, CLASSES, strict=True):
        found[f"dsc_{name}"] = summary.classes[number].dsc
        found[f"iou_{name}"] = summary.classes[number].iou
        found[f"assd_{name}"] = summary.classes[number].assd
    for index, name in enumerate(_PUBLISHED):
        known = [picture.published[index] for picture in pictures if math.isfinite(picture.published[index])]
        found[name] = sum(known) / len(known) if known else math.nan
    return found


def _nothing(path: Path) -> InputError:
    return InputError(
        f"No picture of '{path.name}' could be scored",
        why="None of its test pictures can be read with landmarks.",
        fix="Check the set with 'endolux data check'.",
        error_id="evaluate.all-failed",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
