"""Baselines that any network has to beat: a constant, and the inverse square root of brightness."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from endolux.errors import UsageError
from endolux.types import DepthKind, DepthMap, ImageArray, MaskArray

Baseline = Callable[[ImageArray, MaskArray | None], DepthMap]
BASELINES: dict[str, Baseline] = {}
PREFIX = "baseline:"

GAMMA = 2.2
BLUR_OF_WIDTH = 0.02
DARKEST = 1e-4


def baseline(name: str) -> Callable[[Baseline], Baseline]:
    """Register a baseline under ``name``.

    Example:
        >>> sorted(BASELINES)
        ['brightness', 'constant']
    """

    def decorate(function: Baseline) -> Baseline:
        BASELINES[name] = function
        return function

    return decorate


@baseline("constant")
def constant_depth(image: ImageArray, valid: MaskArray | None = None) -> DepthMap:
    """Depth 1 everywhere: what alignment alone achieves.

    Args:
        image: H x W x 3 uint8 RGB.
        valid: H x W bool, None for everywhere.

    Example:
        >>> import numpy as np
        >>> constant_depth(np.zeros((2, 3, 3), np.uint8)).at(0, 0)
        1.0
    """
    shape = image.shape[:2]
    return DepthMap(values=np.ones(shape, np.float32), kind=DepthKind.RELATIVE_DEPTH, valid=_mask(shape, valid))


@baseline("brightness")
def brightness_depth(image: ImageArray, valid: MaskArray | None = None) -> DepthMap:
    """Inverse square root of blurred linear brightness: the light falls off with the square of the distance.

    Brightness is the largest of the three channels (the V of HSV; on tissue that is red, which blood absorbs least,
    so that vessels disturb it less than luminance), linearised with gamma 2.2 and blurred with a Gaussian of
    standard deviation 2 % of the image's width; at least 1e-4.

    Args:
        image: H x W x 3 uint8 RGB.
        valid: H x W bool, None for everywhere. Pixels outside do not bleed into the blur.

    Example:
        >>> import numpy as np
        >>> image = np.full((8, 8, 3), 255, np.uint8)
        >>> round(brightness_depth(image).at(4, 4), 4)
        1.0
    """
    shape = image.shape[:2]
    mask = _mask(shape, valid)
    linear = ((np.arange(256) / 255.0) ** GAMMA).astype(np.float32)
    light = linear[image.max(axis=2)]
    sigma = BLUR_OF_WIDTH * shape[1]
    weight = mask.astype(np.float32)
    blurred = cv2.GaussianBlur(light * weight, (0, 0), sigma)
    norm = cv2.GaussianBlur(weight, (0, 0), sigma)
    values = 1.0 / np.sqrt(np.maximum(blurred / np.maximum(norm, 1e-12), DARKEST))
    return DepthMap(values=values.astype(np.float32), kind=DepthKind.RELATIVE_DEPTH, valid=mask)


def get_baseline(name: str) -> Baseline:
    """The baseline called ``name``, with or without the prefix ``baseline:``.

    Raises:
        UsageError: ``evaluate.baseline`` for an unknown name.

    Example:
        >>> get_baseline("baseline:constant") is constant_depth
        True
    """
    key = name.removeprefix(PREFIX)
    if key not in BASELINES:
        raise UsageError(
            f"No baseline '{key}'",
            why=f"There are: {', '.join(sorted(BASELINES))}.",
            fix=f"Use {' or '.join(PREFIX + n for n in sorted(BASELINES))}.",
            error_id="evaluate.baseline",
        )
    return BASELINES[key]


def _mask(shape: tuple[int, ...], valid: MaskArray | None) -> MaskArray:
    return np.ones(shape, np.bool_) if valid is None else valid
