"""The geometric part of an augmentation, for whatever belongs to an image beside its pixels."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import numpy as np
import numpy.typing as npt

from endolux.types import FloatArray, ImageArray, MaskArray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The geometric part of an augmentation: a window of the image, mirrored. It also moves what belongs to the image.

    Attributes:
        source: (width, height) in pixels of the image it was drawn for.
        window: left, top, width, height in pixels of that image.
        horizontal, vertical: mirrorings, after the crop.
        hidden: bool, H x W of the result: where something was painted over the scene; None: nowhere.

    Example:
        >>> view = View(source=(8, 4), window=(4, 0, 4, 4), horizontal=True)
        >>> view.apply(np.arange(4, dtype=np.float32)[None]).tolist()  # a map of half the resolution
        [[3.0, 2.75, 2.25, 1.75]]
    """

    source: tuple[int, int]
    window: tuple[int, int, int, int]
    horizontal: bool = False
    vertical: bool = False
    hidden: MaskArray | None = dataclasses.field(default=None, compare=False)

    def apply(self, values: FloatArray, *, size: tuple[int, int] | None = None, mirrored: bool = True) -> FloatArray:
        """The same view of a map that covers the whole image, at any resolution.

        Bilinear between the centres of its pixels, constant beyond the outermost; where it shrinks to less than half,
        block means first. NaN (unknown) spreads to whatever it would be mixed into.

        Args:
            values: h x w or C x h x w float32.
            size: (width, height) of the result; the map's own by default.
            mirrored: False leaves the mirrorings out, as Leve's code did with the teacher's maps (D-5).

        Returns:
            height x width or C x height x width float32.
        """
        rows, columns = values.shape[-2:]
        width, height = size or (columns, rows)
        left, top, window_width, window_height = self.window
        scale_x, scale_y = columns / self.source[0], rows / self.source[1]
        result = _stretch(values, -2, top * scale_y, window_height * scale_y, height)
        result = _stretch(result, -1, left * scale_x, window_width * scale_x, width)
        if mirrored and self.vertical:
            result = result[..., ::-1, :]
        if mirrored and self.horizontal:
            result = result[..., ::-1]
        # Never the array that was given: callers mark unknown pixels in the result.
        return np.array(result, order="C") if result is values else np.ascontiguousarray(result)

    def picture(self, image: ImageArray, *, size: tuple[int, int]) -> ImageArray:
        """The same view of another picture of the same size, its colours as they are.

        Args:
            image: H x W x 3 uint8.
            size: (width, height) of the result.
        """
        left, top, width, height = self.window
        part = image[top : top + height, left : left + width]
        if (width, height) != size:
            shrinks = width > size[0] or height > size[1]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            part = np.asarray(cv2.resize(part, size, interpolation=how), np.uint8)
        if self.vertical:
            part = part[::-1]
        if self.horizontal:
            part = part[:, ::-1]
        return np.ascontiguousarray(part)

    def matrix(
        self, matrix: npt.NDArray[np.float64], *, size: tuple[int, int], mirrored: bool = True
    ) -> npt.NDArray[np.float64]:
        """Intrinsics of the view, for those of the whole picture: 3 x 3, in pixels.

        Args:
            matrix: of the whole picture.
            size: (width, height) of the result.
            mirrored: False leaves the mirrorings out, as the code of AF-SfMLearner and DARES does (G21).

        Example:
            >>> view = View(source=(8, 4), window=(4, 0, 4, 4), horizontal=True)
            >>> view.matrix(np.array([[9.0, 0, 3.5], [0, 9, 1.5], [0, 0, 1]]), size=(8, 8)).round(3).tolist()
            [[18.0, 0.0, 7.5], [0.0, 18.0, 3.5], [0.0, 0.0, 1.0]]
        """
        left, top, width, height = self.window
        scale_x, scale_y = size[0] / width, size[1] / height
        fx, fy = matrix[0, 0] * scale_x, matrix[1, 1] * scale_y
        cx, cy = (matrix[0, 2] - left + 0.5) * scale_x - 0.5, (matrix[1, 2] - top + 0.5) * scale_y - 0.5
        if mirrored and self.horizontal:
            cx = size[0] - 1 - cx
        if mirrored and self.vertical:
            cy = size[1] - 1 - cy
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _stretch(values: FloatArray, axis: int, start: float, length: float, count: int) -> FloatArray:
    """``count`` samples of the interval [start, start + length) of one axis, in pixels of the map."""
    pixels = values.shape[axis]
    if start == 0.0 and length == pixels == count:
        return values
    block = int(length / count / 2.0 + 1e-9)
    while block > 1 and pixels % block:
        block -= 1
    if block > 1:
        shape = list(values.shape)
        shape[axis : axis + 1 if axis != -1 else None] = [pixels // block, block]
        values = values.reshape(shape).mean(axis=axis, dtype=np.float32)
        start, length, pixels = start / block, length / block, pixels // block
    places = start + (np.arange(count) + 0.5) * (length / count) - 0.5
    places = np.clip(places, 0.0, pixels - 1.0)
    first = np.minimum(np.floor(places).astype(np.intp), max(0, pixels - 2))
    share = (places - first).astype(np.float32)
    if axis == -2:
        share = share[:, None]
    low: FloatArray = values.take(first, axis)
    high: FloatArray = values.take(np.minimum(first + 1, pixels - 1), axis)
    # A pixel exactly on a sample must not be touched by an unknown neighbour: 0 * NaN is NaN.
    if np.isnan(values.min(initial=np.inf)):
        blend = low + (high - low) * share
        return np.where(share == 0.0, low, np.where(share == 1.0, high, blend)).astype(np.float32)
    high -= low
    high *= share
    high += low
    return high


def triangle(values: npt.NDArray[np.generic], axis: int, count: int) -> FloatArray:
    """One axis resampled with a triangle filter, as wide as a step of the result where that is the coarser grid."""
    pixels = values.shape[axis]
    indices, weights = _triangle_taps(pixels, count)
    shape = [1] * values.ndim
    shape[axis] = count
    total: FloatArray | None = None
    for tap in range(indices.shape[1]):
        part = values.take(indices[:, tap], axis).astype(np.float32) * weights[:, tap].reshape(shape)
        total = part if total is None else np.add(total, part, out=total)
    if total is None:
        raise AssertionError("a filter has at least one tap")
    return total


@functools.lru_cache(maxsize=32)
def _triangle_taps(pixels: int, count: int) -> tuple[npt.NDArray[np.intp], FloatArray]:
    step = pixels / count
    support = max(1.0, step)
    centres = (np.arange(count) + 0.5) * step
    first = np.floor(centres - support + 0.5).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(2.0 * support)) + 1)[None]
    weights = np.maximum(0.0, 1.0 - np.abs(taps + 0.5 - centres[:, None]) / support)
    weights[(taps < 0) | (taps >= pixels)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    return np.clip(taps, 0, pixels - 1)[:, used], weights[:, used].astype(np.float32)
