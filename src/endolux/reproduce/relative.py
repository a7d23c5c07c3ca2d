"""Depth up to scale, and disparity up to scale and shift: what each is worth, and what its representation hides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from endolux.datasets.base import Dataset, FrameKey, Protocol
from endolux.datasets.splits import every_frame
from endolux.errors import EndoluxError
from endolux.evaluate.frame_score import reference
from endolux.evaluate.predictors import Predictor
from endolux.evaluate.quirks import DISPARITY_AS_DEPTH, DISPARITY_FLOOR_HALF, INVERSE_DISPARITY_AS_DEPTH
from endolux.evaluate.scoring import score
from endolux.geometry.align import Alignment
from endolux.reproduce.measures import Measured, Rows, summarised, whole
from endolux.types import DepthKind, DepthMap

_RAW = Protocol(
    name="relative-p0",
    version=1,
    dataset="any",
    summary="Disparity scored as if it were depth; median scaling",
    source="Lou et al. 2024, Surgical Depth Anything, equations 1 to 3",
    select=every_frame,
    alignment=Alignment.MEDIAN,
    reproduce=(DISPARITY_AS_DEPTH,),
    floor=1e-6,
)
_INVERSE = dataclasses.replace(
    _RAW,
    name="relative-p1",
    summary="Disparity inverted with zero shift; median scaling",
    reproduce=(INVERSE_DISPARITY_AS_DEPTH,),
)
_AFFINE = dataclasses.replace(
    _RAW,
    name="relative-p2",
    summary="Scale and shift fitted in inverse depth",
    alignment=Alignment.SCALE_SHIFT_DISPARITY,
    reproduce=(DISPARITY_FLOOR_HALF,),
    floor=0.0,
)


def relative_measures(prediction: DepthMap, truth: DepthMap) -> dict[str, float]:
    """Errors under three conventions.

    * ``abs_rel``, ``rmse``, ``delta1``: median scaling; disparity is inverted first, as if its shift were zero (P1).
    * ``..._p0``: median scaling of the output as it is, so that disparity is taken for depth (P0). The same numbers for
      networks that give depth.
    * ``..._p2``: scale and shift fitted by least squares in inverse depth (P2). Depth is inverted first: a fit in depth
      cares for the far, one in inverse depth for the near, and a relative error tells such fits apart, not networks.

    Args:
        prediction: depth or disparity; resized to the truth where it has another size.
        truth: depth in mm, or up to a factor.

    Source: Lou et al. 2024, "Surgical Depth Anything", equations 1 to 3, for median scaling; that the conventions
    differ by more than the networks is this project's measurement.

    Example:
        >>> import numpy as np
        >>> depth = np.linspace(20, 80, 12, dtype=np.float32).reshape(3, 4)
        >>> truth = DepthMap(values=depth, kind=DepthKind.METRIC, valid=depth > 0)
        >>> perfect = DepthMap(values=1 / depth, kind=DepthKind.RELATIVE_DISPARITY, valid=depth > 0)
        >>> found = relative_measures(perfect, truth)
        >>> round(found["abs_rel"], 6), found["abs_rel_p0"] > 0.5, round(found["abs_rel_p2"], 6)
        (0.0, True, 0.0)
    """
    disparity = prediction.kind is DepthKind.RELATIVE_DISPARITY
    main = score(prediction, truth, _INVERSE).metrics
    raw = score(prediction, truth, _RAW).metrics if disparity else main
    fitted = score(prediction, truth, _AFFINE).metrics
    found = {name: main[name] for name in ("abs_rel", "rmse", "delta1")}
    for ending, metrics in (("p0", raw), ("p2", fitted)):
        found |= {f"{name}_{ending}": metrics[name] for name in ("abs_rel", "delta1")}
    return found


def measure_relative(
    predictor: Predictor, dataset: Dataset, keys: Sequence[FrameKey], *, scene: Callable[[FrameKey, int], object]
) -> Measured:
    """Every frame of a list by :func:`relative_measures`.

    Args:
        predictor: what is measured.
        dataset: where the frames are.
        keys: which.
        scene: from a frame and its place in the list to its scene.
    """
    rows: list[Rows] = []
    scenes: list[object] = []
    failed = 0
    for place, key in enumerate(keys):
        try:
            sample = dataset.load(key)
            truth = reference(sample, key)
            row = relative_measures(predictor.predict(str(key), whole(sample.frame)), truth)
        except EndoluxError:
            failed += 1
            continue
        rows.append(row)
        scenes.append(scene(key, place))
    return summarised(rows, scenes, failed)
