"""Turning and mirroring pictures with their drawn landmarks, and landmarks in a view."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from endolux.train.sources import Item, Labels
from endolux.train.viewport import View
from endolux.types import FloatArray

if TYPE_CHECKING:
    from endolux.train.recipe_data import LandmarkAugmentation

NO_CLASS = 255
"""Label of a pixel that has no class at all."""


def turned(item: Item, generator: np.random.Generator, settings: LandmarkAugmentation) -> Item:
    """A sample rotated about its middle and mirrored, as the settings' probabilities say; its size stays.

    Pictures are resampled bilinearly, classes and depth by the nearest pixel. What comes in from beyond the picture is
    black background, or has no class at all with ``corners="reproduce"``.

    Example:
        >>> from endolux.train.recipe_data import LandmarkAugmentation
        >>> picture = np.zeros((8, 8, 3), np.uint8)
        >>> labels = Labels(landmarks=np.eye(8, dtype=np.uint8), inverse_depth=None)
        >>> item = Item("a", picture, None, labels=labels)
        >>> mirrored = turned(item, np.random.default_rng(0), LandmarkAugmentation(rotate=0.0, flip=1.0))
        >>> bool((mirrored.labels.landmarks[::-1] == labels.landmarks).all())
        True
    """
    height, width = item.image.shape[:2]
    image, labels, depth = item.image, item.labels, item.depth
    if generator.random() < settings.rotate:
        angle = float(generator.uniform(-settings.degrees, settings.degrees))
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        image = np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
        if depth is not None:
            depth = np.asarray(cv2.warpAffine(depth, matrix, (width, height), flags=cv2.INTER_NEAREST), np.float32)
        if labels is not None:
            beyond = NO_CLASS if settings.corners == "reproduce" else 0
            labels = Labels(
                landmarks=np.asarray(_warped(labels.landmarks, matrix, beyond), np.uint8),
                inverse_depth=None
                if labels.inverse_depth is None
                else np.asarray(_warped(labels.inverse_depth, matrix, float("nan")), np.float32),
            )
    if generator.random() < settings.flip:
        # One of the two, picked at random, as the released code does.
        code = int(generator.integers(2)) if settings.mirror == "either" else 1
        image = np.asarray(cv2.flip(image, code), np.uint8)
        depth = None if depth is None else np.asarray(cv2.flip(depth, code), np.float32)
        if labels is not None:
            labels = Labels(
                landmarks=np.asarray(cv2.flip(labels.landmarks, code), np.uint8),
                inverse_depth=None
                if labels.inverse_depth is None
                else np.asarray(cv2.flip(labels.inverse_depth, code), np.float32),
            )
    return dataclasses.replace(item, image=image, labels=labels, depth=depth)


def _warped(values: npt.NDArray[np.generic], matrix: npt.NDArray[np.float64], beyond: float) -> object:
    return cv2.warpAffine(
        np.ascontiguousarray(values),
        matrix,
        (values.shape[1], values.shape[0]),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=beyond,
    )


def labels_in_view(labels: Labels, view: View, size: tuple[int, int]) -> dict[str, npt.NDArray[np.generic]]:
    """``landmarks`` (uint8) and ``inverse_depth`` (float32, NaN where unknown) of a view, h x w each.

    Landmarks keep their class numbers: the nearest pixel is taken. What was painted over is background.
    """
    landmarks = _nearest(labels.landmarks, view, size)
    inverse: FloatArray = np.full(landmarks.shape, np.nan, np.float32)
    if labels.inverse_depth is not None:
        inverse = np.asarray(_nearest(labels.inverse_depth, view, size), np.float32)
    if view.hidden is not None:
        landmarks[view.hidden] = 0
        inverse[view.hidden] = np.nan
    return {"landmarks": landmarks.astype(np.uint8), "inverse_depth": inverse}


def _nearest(values: npt.NDArray[np.generic], view: View, size: tuple[int, int]) -> npt.NDArray[np.generic]:
    rows, columns = values.shape
    scale_x, scale_y = columns / view.source[0], rows / view.source[1]
    left, top, width, height = view.window
    # Centres of the result's pixels, in pixels of the map.
    x = np.floor((left + (np.arange(size[0]) + 0.5) * (width / size[0])) * scale_x).astype(np.intp)
    y = np.floor((top + (np.arange(size[1]) + 0.5) * (height / size[1])) * scale_y).astype(np.intp)
    if view.horizontal:
        x = x[::-1]
    if view.vertical:
        y = y[::-1]
    return np.asarray(values[np.clip(y, 0, rows - 1)[:, None], np.clip(x, 0, columns - 1)[None]])
