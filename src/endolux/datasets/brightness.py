"""Whether near is bright: the correlation of luminance with depth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.types import DepthKind, DepthMap, ImageArray

_POLARITY_PIXELS = 20_000


def brightness_correlation(image: ImageArray, depth: DepthMap) -> float:
    """Pearson correlation of luminance with the values of a depth map, over valid pixels; NaN where one is constant.

    Example:
        >>> values = np.array([[1.0, 2.0, 3.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> picture = np.repeat((60 - 10 * values).astype(np.uint8)[:, :, None], 3, axis=2)
        >>> round(brightness_correlation(picture, depth), 6)
        -1.0
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if grey.shape != depth.values.shape:
        grey = cv2.resize(grey, depth.size, interpolation=cv2.INTER_AREA)
    step = max(1, int(np.sqrt(grey.size / _POLARITY_PIXELS)))
    values, valid = depth.values[::step, ::step], depth.valid[::step, ::step]
    result = correlation(grey[::step, ::step][valid], values[valid])
    return -result if depth.kind is DepthKind.RELATIVE_DISPARITY else result


def correlation(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Pearson correlation of two flat arrays; NaN for fewer than two values or a constant one.

    Example:
        >>> correlation(np.array([1.0, 2.0]), np.array([5.0, 3.0]))
        -1.0
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    if x.size < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")
