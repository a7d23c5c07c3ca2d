"""The content area as a value: a box, an ellipse, cut corners, insets, and the mask they make."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from endolux.types import MaskArray

Shape: TypeAlias = Literal["full", "rectangle", "circle", "octagon", "none"]
Box: TypeAlias = tuple[int, int, int, int]
"""left, top, width, height in pixels."""

Points: TypeAlias = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ContentArea:
    """Where the picture is, in pixels of an image of ``size``.

    The area is the intersection of ``bbox``, the ellipse (if any) and the corner cuts (if any), less the insets.

    Attributes:
        shape: "full" (every pixel), "rectangle", "circle" (or ellipse, possibly truncated by ``bbox``), "octagon"
            (rectangle with cut corners) or "none" (a black image: nothing is valid).
        bbox: left, top, width, height in pixels; (0, 0, 0, 0) for "none".
        size: (width, height) in pixels of the image it was found in.
        ellipse: centre x, centre y, radius x, radius y in pixels.
        cuts: for each corner (top-left, top-right, bottom-right, bottom-left) the lengths in pixels that its cut takes
            off the horizontal and the vertical side.
        insets: black boxes inside the picture (a blanked position guide).

    Example:
        >>> area = ContentArea(shape="rectangle", bbox=(2, 0, 4, 3), size=(8, 3))
        >>> area.mask(8, 3)[0].astype(int).tolist()
        [0, 0, 1, 1, 1, 1, 0, 0]
    """

    shape: Shape
    bbox: Box
    size: tuple[int, int]
    ellipse: tuple[float, float, float, float] | None = None
    cuts: tuple[tuple[float, float], ...] | None = None
    insets: tuple[Box, ...] = ()

    @property
    def is_plain(self) -> bool:
        """True where the area fills its bounding box, so that no mask is needed inside it."""
        return self.ellipse is None and self.cuts is None and not self.insets and self.shape != "none"

    def mask(self, width: int, height: int) -> MaskArray:
        """H x W bool, True inside. Sizes other than ``size`` scale the area. The array is read-only and shared."""
        # A cache of masks of very large images would hold on to a lot of memory for little.
        return _cached_mask(self, width, height) if width * height <= _CACHED_PIXELS else _mask(self, width, height)

    def scaled_bbox(self, width: int, height: int) -> Box:
        """The bounding box in pixels of an image of another size."""
        if (width, height) == self.size or self.shape == "none":
            return self.bbox
        sx, sy = width / self.size[0], height / self.size[1]
        left, top, box_width, box_height = self.bbox
        x0, y0 = min(round(left * sx), width - 1), min(round(top * sy), height - 1)
        x1 = min(width, max(x0 + 1, round((left + box_width) * sx)))
        y1 = min(height, max(y0 + 1, round((top + box_height) * sy)))
        return x0, y0, x1 - x0, y1 - y0

    def as_json(self) -> dict[str, object]:
        """Plain values for ``meta.json``.

        Example:
            >>> ContentArea(shape="full", bbox=(0, 0, 4, 3), size=(4, 3)).as_json()["bbox"]
            [0, 0, 4, 3]
        """
        return {
            "shape": self.shape,
            "bbox": list(self.bbox),
            "size": list(self.size),
            "ellipse": None if self.ellipse is None else [round(value, 3) for value in self.ellipse],
            "cuts": None if self.cuts is None else [[round(a, 3), round(b, 3)] for a, b in self.cuts],
            "insets": [list(box) for box in self.insets],
        }


_CACHED_PIXELS = 4_000_000


def _mask(area: ContentArea, width: int, height: int) -> MaskArray:
    mask = np.zeros((height, width), np.bool_)
    if area.shape != "none":
        left, top, box_width, box_height = area.scaled_bbox(width, height)
        mask[top : top + box_height, left : left + box_width] = True
        sx, sy = width / area.size[0], height / area.size[1]
        # Pixel centres in the coordinates of the image that the area was found in.
        x: Points = ((np.arange(width, dtype=np.float64) + 0.5) / sx - 0.5)[None, :]
        all_y: Points = ((np.arange(height, dtype=np.float64) + 0.5) / sy - 0.5)[:, None]
        rows = max(1, (1 << 20) // width)  # in bands, so that float64 values of a whole image never exist
        for start in range(0, 0 if area.ellipse is None and area.cuts is None else height, rows):
            band, y = mask[start : start + rows], all_y[start : start + rows]
            if area.ellipse is not None:
                cx, cy, rx, ry = area.ellipse
                band &= ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1.0
            if area.cuts is not None:
                for (dx, dy), (cut_x, cut_y) in zip(corner_distances(area.bbox, x, y), area.cuts, strict=True):
                    if cut_x > 0 and cut_y > 0:
                        band &= dx / cut_x + dy / cut_y >= 1.0
        for box in area.insets:
            x0, y0 = math.floor(box[0] * sx), math.floor(box[1] * sy)
            mask[y0 : math.ceil((box[1] + box[3]) * sy), x0 : math.ceil((box[0] + box[2]) * sx)] = False
    mask.setflags(write=False)
    return mask


_cached_mask = functools.lru_cache(maxsize=8)(_mask)


def corner_distances(bbox: Box, x: Points, y: Points) -> list[tuple[Points, Points]]:
    """Distances from each corner along the two sides that meet there."""
    left, top = x - bbox[0], y - bbox[1]
    right, bottom = bbox[0] + bbox[2] - 1 - x, bbox[1] + bbox[3] - 1 - y
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
