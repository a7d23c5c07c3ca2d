"""Predictions of another size brought to the size of their reference."""

from __future__ import annotations

import cv2
import numpy as np

from endolux.errors import InputError
from endolux.types import DepthKind, DepthMap, FloatArray

RESIZES = ("bilinear", "bilinear-disparity", "nearest", "refuse")
"""Ways to bring a prediction of another size to the reference: values as they are, 1/values, nearest, not at all."""


def resize_prediction(prediction: DepthMap, size: tuple[int, int], *, how: str = "bilinear") -> DepthMap:
    """Bring a prediction to (width, height); pixels whose neighbourhood is mostly invalid stay invalid.

    Args:
        prediction: any kind.
        size: (width, height) of the reference.
        how: one of ``RESIZES``.

    Raises:
        InputError: ``evaluate.size`` for ``refuse``.

    Example:
        >>> depth = DepthMap(values=np.ones((2, 2), np.float32), kind=DepthKind.METRIC, valid=np.ones((2, 2), bool))
        >>> resize_prediction(depth, (4, 6)).size
        (4, 6)
    """
    if how == "refuse":
        width, height = prediction.size
        raise InputError(
            f"The prediction has {width}x{height} pixels, the reference {size[0]}x{size[1]}",
            why="This protocol compares pixel by pixel and resizes nothing.",
            fix="Predict at the size of the reference.",
            error_id="evaluate.size",
        )
    valid = prediction.valid & np.isfinite(prediction.values)
    invert = how == "bilinear-disparity" and prediction.kind is not DepthKind.RELATIVE_DISPARITY
    if invert:
        valid &= prediction.values > 0
    values = np.where(valid, prediction.values, np.float32(1))
    if invert:
        values = (1 / values).astype(np.float32)
    if how == "nearest":
        values = cv2.resize(values, size, interpolation=cv2.INTER_NEAREST)
        mask = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    elif valid.all():
        values, mask = cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.ones(size[::-1], np.bool_)
    else:
        weight = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        mask = weight >= 0.5
        total = cv2.resize(np.where(valid, values, np.float32(0)), size, interpolation=cv2.INTER_LINEAR)
        values = np.where(mask, total / np.where(mask, weight, np.float32(1)), np.float32(1))
    if invert:
        values = 1 / values
    result: FloatArray = values.astype(np.float32, copy=False)
    return DepthMap(values=result, kind=prediction.kind, valid=mask)
