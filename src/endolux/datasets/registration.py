"""Whether depth lies over its picture: edges of both must meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np

from endolux.types import DepthMap, FloatArray, ImageArray

_WIDTH, _REACH = 160, 16
_LEAST_PEAK, _LEAST_GAIN, _LEAST_PIXELS = 0.2, 0.1, 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """Where the edges of depth fit those of the pictures best.

    Attributes:
        x, y: pixels of the depth map by which the picture's edges lie right of and below those of the depth.
        peak: normalised correlation of the edges there.
        here: the same without moving anything.
        frames: pairs that entered.
    """

    x: float
    y: float
    peak: float
    here: float
    frames: int

    @property
    def misaligned(self) -> bool:
        """Whether the offset is one to worry about: at least 3 of 160 columns, clear, and clearly better than none."""
        return self.frames > 0 and self.peak >= _LEAST_PEAK and self.peak - self.here >= _LEAST_GAIN


def edge_offset(pairs: Iterable[tuple[ImageArray, DepthMap]]) -> Offset:
    """Search the offset, up to a tenth of the width, at which edges of pictures and depth agree best on average.

    Edges are gradients of log luminance and log depth at 160 columns. An offset of less than 3 of these columns is
    reported as none: rendering and rounding make that much.

    Args:
        pairs: pictures, H x W x 3, with their depth of the same aspect.

    Example:
        >>> edge_offset([]).misaligned
        False
    """
    total: FloatArray | None = None
    frames, scale = 0, 1.0
    for image, depth in pairs:
        surface = _surface(image, depth)
        if surface is None or (total is not None and surface.shape != total.shape):
            continue
        total = surface if total is None else total + surface
        scale = depth.size[0] / _WIDTH
        frames += 1
    if total is None:
        return Offset(x=0.0, y=0.0, peak=0.0, here=0.0, frames=0)
    mean = total / frames
    row, column = np.unravel_index(int(mean.argmax()), mean.shape)
    x, y = int(column) - _REACH, int(row) - _REACH
    here, peak = float(mean[_REACH, _REACH]), float(mean.max())
    # At the end of the search the maximum is no peak.
    if max(abs(x), abs(y)) < _LEAST_PIXELS or max(abs(x), abs(y)) == _REACH:
        return Offset(x=0.0, y=0.0, peak=here, here=here, frames=frames)
    return Offset(x=x * scale, y=y * scale, peak=peak, here=here, frames=frames)


def _surface(image: ImageArray, depth: DepthMap) -> FloatArray | None:
    height = round(_WIDTH * depth.size[1] / depth.size[0])
    if height < 4 * _REACH or depth.size[0] < _WIDTH:
        return None
    size = (_WIDTH, height)
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    weight = cv2.resize(depth.valid.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    summed = cv2.resize(np.where(depth.valid, depth.values, np.float32(0)), size, interpolation=cv2.INTER_AREA)
    known = (weight > 0.99) & (summed > 0)
    if np.count_nonzero(known) < known.size // 2:
        return None
    values = np.where(known, summed, np.float32(np.median(summed[known])))
    bright, far = _edges(np.log(grey.astype(np.float32) + 8.0)), _edges(np.log(values))
    # The rim of a hole is no edge of the scene.
    far[cv2.dilate((~known).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0] = 0.0
    template = far[_REACH:-_REACH, _REACH:-_REACH]
    if template.std() < 1e-6 or bright.std() < 1e-6:
        return None
    surface: FloatArray = cv2.matchTemplate(bright, template, cv2.TM_CCOEFF_NORMED)
    return surface if np.isfinite(surface).all() else None


def _edges(values: FloatArray) -> FloatArray:
    size = cv2.magnitude(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    blurred: FloatArray = cv2.GaussianBlur(size, (0, 0), 1.0)
    # A few strong edges must not decide alone.
    return np.minimum(blurred, np.float32(np.percentile(blurred, 98)))
