"""The one preprocessing function: pixels to network input, and network output back to pixels."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.prep.area import Box
from endolux.types import FloatArray, ImageArray, MaskArray

if TYPE_CHECKING:
    from endolux.runtime.card import Preprocessing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkInput:
    """What an engine takes, and the geometry to go back.

    Attributes:
        array: 1 x h x w x 3 uint8 (layout nhwc-uint8) or 1 x 3 x h x w float32 (nchw-float32).
        bbox: left, top, width, height in pixels of the part of the image that the array shows.
        source_size: (width, height) in pixels of the image.
    """

    array: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    bbox: Box
    source_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels that the network sees."""
        if self.array.dtype == np.uint8:
            return self.array.shape[2], self.array.shape[1]
        return self.array.shape[3], self.array.shape[2]


def network_size(width: int, height: int, *, spec: Preprocessing) -> tuple[int, int]:
    """(width, height) at which the network sees a box of the given size in pixels.

    Both are multiples of ``spec.multiple``, their product is close to ``spec.height * spec.width``, and of the sizes
    around the ideal one the closest in aspect and area is taken. With ``spec.resize`` "stretch" it is always
    ``spec.width`` by ``spec.height``.

    Example:
        >>> from endolux.runtime.card import Preprocessing
        >>> network_size(1280, 720, spec=Preprocessing(height=256, width=320))
        (384, 224)
        >>> network_size(1280, 720, spec=Preprocessing(height=256, width=320, resize="stretch"))
        (320, 256)
    """
    if spec.resize == "stretch":
        return spec.width, spec.height
    area, multiple = spec.height * spec.width, spec.multiple
    longest = max(multiple, area // multiple // multiple * multiple)
    ideal_height = math.sqrt(area * height / width)
    ideal_width = area / ideal_height
    best, best_cost = (multiple, multiple), math.inf
    for rounded_height in _around(ideal_height, multiple, longest):
        for rounded_width in _around(ideal_width, multiple, longest):
            aspect_error = abs(math.log(rounded_width / rounded_height * height / width))
            area_error = abs(math.log(rounded_width * rounded_height / area))
            cost = aspect_error + 0.5 * area_error
            if cost < best_cost:
                best, best_cost = (rounded_width, rounded_height), cost
    return best


def _around(ideal: float, multiple: int, longest: int) -> tuple[int, ...]:
    low = int(ideal // multiple) * multiple
    return tuple(sorted({min(longest, max(multiple, low)), min(longest, max(multiple, low + multiple))}))


def resize(image: ImageArray, width: int, height: int) -> ImageArray:
    """Resample to width x height pixels: by area where it shrinks, bilinear where it grows.

    Example:
        >>> import numpy as np
        >>> resize(np.zeros((720, 1280, 3), np.uint8), 384, 224).shape
        (224, 384, 3)
    """
    source_height, source_width = image.shape[:2]
    if (source_width, source_height) == (width, height):
        return image
    # Halving by area first is exact (mean of 2 x 2) and vectorised; the general area filter then has a quarter to do.
    while source_width >= 2 * width and source_height >= 2 * height and not (source_width % 2 or source_height % 2):
        source_width, source_height = source_width // 2, source_height // 2
        image = np.asarray(cv2.resize(image, (source_width, source_height), interpolation=cv2.INTER_AREA), np.uint8)
    if (source_width, source_height) == (width, height):
        return image
    if width > source_width and height > source_height:
        method = cv2.INTER_LINEAR
    elif width <= source_width and height <= source_height:
        # Up to 2 pixels a sample, the two taps of the bilinear filter see every pixel, at a seventh of the cost.
        close = source_width <= 2 * width and source_height <= 2 * height
        method = cv2.INTER_LINEAR if close else cv2.INTER_AREA
    else:
        # One side shrinks and the other grows: each side with its own filter.
        image = np.asarray(
            cv2.resize(image, (min(width, source_width), min(height, source_height)), interpolation=cv2.INTER_AREA),
            np.uint8,
        )
        method = cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def network_input(
    image: ImageArray, *, valid: MaskArray | None = None, bbox: Box | None = None, spec: Preprocessing
) -> NetworkInput:
    """Crop to the content area, resize and fill what is invalid; training and every engine call this and nothing else.

    Args:
        image: H x W x 3 uint8, RGB.
        valid: H x W bool, False outside the content area; None means all valid.
        bbox: left, top, width, height in pixels of the content area; None means the box of ``valid``.
        spec: preprocessing of the bundle's card.

    Returns:
        The array for the engine and the way back.

    Raises:
        UsageError: ``prep.image`` for anything but H x W x 3 uint8, ``prep.empty`` for a box or mask without a pixel.

    Example:
        >>> import numpy as np
        >>> from endolux.runtime.card import Preprocessing
        >>> spec = Preprocessing(height=256, width=320)
        >>> network_input(np.zeros((720, 1280, 3), np.uint8), spec=spec).array.shape
        (1, 224, 384, 3)
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError(
            f"The network's input needs an H x W x 3 uint8 image, not {image.shape} {image.dtype}",
            why="Preprocessing is defined on 8-bit RGB pixels.",
            fix="Read files with endolux.read(path), or convert the array to uint8 RGB first.",
            error_id="prep.image",
        )
    height, width = image.shape[:2]
    if valid is not None and valid.shape != (height, width):
        raise UsageError(
            f"The valid mask is {valid.shape}, the image is {(height, width)}",
            why="Mask and image describe the same pixels.",
            fix="Resize them together.",
            error_id="types.size",
        )
    box = bbox if bbox is not None else (0, 0, width, height) if valid is None else _mask_box(valid)
    left, top, box_width, box_height = box
    if box_width < 1 or box_height < 1 or left < 0 or top < 0 or left + box_width > width or top + box_height > height:
        raise UsageError(
            f"The content box {box} holds no pixel of a {width}x{height} image",
            why="A network needs at least one valid pixel, and the box must lie inside the image.",
            fix="Skip frames whose content area is empty (shape 'none').",
            error_id="prep.empty",
        )
    net_width, net_height = network_size(box_width, box_height, spec=spec)
    left, box_width = _even(left, box_width, width, net_width)
    top, box_height = _even(top, box_height, height, net_height)
    box = (left, top, box_width, box_height)
    rows, columns = slice(top, top + box_height), slice(left, left + box_width)
    small = resize(image[rows, columns], net_width, net_height)
    if valid is not None:
        # Nearest samples at pixel centres, on a view of the bytes: no mask of the full size is converted.
        inside = cv2.resize(
            valid.view(np.uint8)[rows, columns], (net_width, net_height), interpolation=cv2.INTER_NEAREST_EXACT
        )
        if not inside.all():
            filled = np.empty_like(small)
            filled[:] = spec.fill
            small = np.asarray(cv2.copyTo(small, inside, filled), np.uint8)
    small = np.ascontiguousarray(small)
    if spec.layout == "nhwc-uint8":
        return NetworkInput(array=small[None], bbox=box, source_size=(width, height))
    scaled = (small.astype(np.float32) / np.float32(255) - np.array(spec.mean, np.float32)) / np.array(
        spec.std, np.float32
    )
    array = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)
    return NetworkInput(array=array, bbox=box, source_size=(width, height))


def _even(start: int, length: int, limit: int, target: int) -> tuple[int, int]:
    """The interval, longer by one pixel where that makes it even, so that halving it is exact and fast."""
    if length % 2 == 0 or length < 2 * target or length + 1 > limit:
        return start, length
    return (start, length + 1) if start + length < limit else (start - 1, length + 1)


def _mask_box(valid: MaskArray) -> Box:
    columns, rows = np.nonzero(valid.any(axis=0))[0], np.nonzero(valid.any(axis=1))[0]
    if len(rows) == 0:
        return 0, 0, 0, 0
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def restore(values: FloatArray, source: NetworkInput, *, size: tuple[int, int] | None = None) -> FloatArray:
    """Network output back at the size of the image, bilinear; 0 outside the box, where it must be masked as invalid.

    Args:
        values: h x w float32, the network's output for ``source``.
        source: what ``network_input`` returned.
        size: (width, height) in pixels to restore to; None means the image's own size.

    Returns:
        H x W float32.

    Example:
        >>> import numpy as np
        >>> from endolux.runtime.card import Preprocessing
        >>> source = network_input(np.zeros((90, 160, 3), np.uint8), spec=Preprocessing(height=64, width=96))
        >>> restore(np.ones((64, 96), np.float32), source).shape
        (90, 160)
    """
    width, height = size if size is not None else source.source_size
    sx, sy = width / source.source_size[0], height / source.source_size[1]
    left, top, box_width, box_height = source.bbox
    x0, y0 = min(round(left * sx), width - 1), min(round(top * sy), height - 1)
    x1 = min(width, max(x0 + 1, round((left + box_width) * sx)))
    y1 = min(height, max(y0 + 1, round((top + box_height) * sy)))
    if (x0, y0, x1, y1) == (0, 0, width, height):
        return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    restored = np.zeros((height, width), np.float32)
    restored[y0:y1, x0:x1] = cv2.resize(values, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return restored
