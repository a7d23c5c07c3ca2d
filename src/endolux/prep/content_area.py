"""The content area: which pixels of an endoscope's picture show tissue, and which are black surround."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from endolux.prep.area import Box, ContentArea, Shape
from endolux.prep.outline import OutlineFit, Plane
from endolux.types import ImageArray

__all__ = ["Box", "ContentArea", "ContentAreaTracker", "Shape", "find_content_area", "is_black"]

_GRID = 256  # longer side of the reduced grid on which shapes are fitted
_BLACKEST_BORDER = 24  # a surround brighter than this is not black (video black is 16 when its range is misread)


def find_content_area(image: ImageArray) -> ContentArea:
    """The content area of one image.

    Black surround is what is black, joined to the image's border and bounded by a circle, an ellipse, straight sides or
    cut corners. Dark tissue, which has no such outline, stays inside; text and icons in the surround stay outside.

    Args:
        image: H x W x 3 uint8.

    Returns:
        The area; shape "none" where nothing in the image is brighter than black.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((120, 200, 3), np.uint8)
        >>> image[:, 40:160] = 120
        >>> area = find_content_area(image)
        >>> area.shape, area.bbox
        ('rectangle', (40, 0, 120, 120))
    """
    return find_in_brightness(brightness(image))


def brightness(image: ImageArray) -> Plane:
    """Largest channel of each pixel, H x W uint8: black in no channel means not black."""
    red, green, blue = cv2.split(image)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def is_black(image: ImageArray) -> bool:
    """True for an image without a picture, judged on a sparse sample of its pixels.

    Example:
        >>> import numpy as np
        >>> is_black(np.zeros((90, 160, 3), np.uint8))
        True
    """
    step = max(1, min(image.shape[:2]) // 36)
    sample = image[step // 2 :: step, step // 2 :: step]
    return _no_picture(np.max(sample, axis=2))


def _no_picture(values: npt.NDArray[np.uint8]) -> bool:
    low, high = np.percentile(values, (5, 99))
    # Limited-range video shows black as 16 and stays flat there; anything below 8 is noise of a closed shutter.
    return bool(high < 8 or (high <= _BLACKEST_BORDER and high - low <= 4))


def find_in_brightness(plane: npt.NDArray[np.uint8]) -> ContentArea:
    """The content area of a brightness plane (H x W uint8), for instance the brightest values of several frames."""
    height, width = plane.shape
    size = (width, height)
    full = ContentArea(shape="full", bbox=(0, 0, width, height), size=size)
    none = ContentArea(shape="none", bbox=(0, 0, 0, 0), size=size)
    scale = max(1.0, max(width, height) / _GRID)
    grid_size = (max(1, round(width / scale)), max(1, round(height / scale)))
    grid = plane if grid_size == size else cv2.resize(plane, grid_size, interpolation=cv2.INTER_AREA)
    grid = np.asarray(grid, np.uint8)
    if _no_picture(grid):
        return none
    ring = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    black = float(np.percentile(ring, 5))
    if black > _BLACKEST_BORDER or min(grid.shape) < 8:
        return full
    if np.count_nonzero(ring <= max(8.0, black + 5.0)) < 0.02 * ring.size:
        return full
    # The lowest level keeps vignetted edges; halation around a bright picture needs a higher one.
    for step in (0.0, 7.0, 16.0):
        level = max(8.0, black + 5.0) + step
        lit = _picture(grid, level)
        if lit is None:
            return full if step else none
        fit = OutlineFit(plane, grid, lit, level=level, black=black)
        area = fit.area()
        if area is not None and fit.surround_is_black(area):
            return full if area.bbox == full.bbox and area.is_plain else area
    return full


def _picture(grid: Plane, level: float) -> Plane | None:
    """Lit cells without text and icons: opened, then the largest part and parts of comparable size."""
    bright = (grid > level).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    # A replicated border keeps the opening from eating picture that runs off the image.
    padded = cv2.copyMakeBorder(bright, 8, 8, 8, 8, cv2.BORDER_REPLICATE)
    padded = cv2.morphologyEx(cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel), cv2.MORPH_OPEN, kernel)
    opened = np.ascontiguousarray(padded[8:-8, 8:-8])
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < 0.01 * grid.size:
        return None
    keep = np.concatenate([[False], areas >= 0.15 * areas.max()])
    return np.asarray(keep[labels], np.uint8)


class ContentAreaTracker:
    """The content area of a clip: found on its first frames, then kept until the picture really changes.

    The brightest values of the frames seen lately are judged, not one frame: tissue that is dark now was lit before,
    while the surround never is. Between checks a frame costs a few microseconds.

    Args:
        warm_up: number of frames at the start that are all looked at.
        every: afterwards one frame in so many is looked at.
        initial: area to start from (of a run that is resumed); skips the warm-up.

    Example:
        >>> import numpy as np
        >>> tracker, image = ContentAreaTracker(), np.full((90, 160, 3), 120, np.uint8)
        >>> tracker.update(image).shape, tracker.update(np.zeros_like(image)).shape, tracker.update(image).shape
        ('full', 'none', 'full')
    """

    _WINDOW = 4  # checks after which older brightness is forgotten

    def __init__(self, *, warm_up: int = 6, every: int = 25, initial: ContentArea | None = None) -> None:
        self._warm_up = max(1, warm_up)
        self._every = max(1, every)
        self._area = initial
        self._looked_at = self._warm_up if initial is not None else 0
        self._since = 0
        self._recent: Plane | None = None
        self._older: Plane | None = None
        self._in_window = 0
        self._rival: ContentArea | None = None

    @property
    def area(self) -> ContentArea | None:
        """The area of the clip so far; None before the first frame that shows a picture."""
        return self._area

    def update(self, image: ImageArray) -> ContentArea:
        """The area of the next frame (H x W x 3 uint8); shape "none" for a black frame, which changes nothing."""
        height, width = image.shape[:2]
        if is_black(image):
            return ContentArea(shape="none", bbox=(0, 0, 0, 0), size=(width, height))
        if self._area is not None and self._area.size != (width, height):
            self.__init__(warm_up=self._warm_up, every=self._every)  # type: ignore[misc]
        if self._area is not None and self._looked_at >= self._warm_up:
            self._since += 1
            if self._since < self._every and self._rival is None:
                return self._area
        return self._look(image)

    def prime(self, images: Iterable[ImageArray]) -> None:
        """Look at frames ahead, so that the first area given out is the one of the clip."""
        for image in images:
            self.update(image)

    def _look(self, image: ImageArray) -> ContentArea:
        self._since = 0
        self._looked_at += 1
        plane = brightness(image)
        self._recent = plane if self._recent is None else np.maximum(self._recent, plane)
        seen = self._recent if self._older is None else np.maximum(self._recent, self._older)
        self._in_window += 1
        if self._in_window >= self._WINDOW:
            self._older, self._recent, self._in_window = self._recent, None, 0
        found = find_in_brightness(seen)
        if self._area is None or self._looked_at <= self._warm_up:
            if found.shape != "none":
                self._area = found
        elif found.shape != "none" and not _alike(found, self._area):
            # One odd look is a flash or a dark moment; the same finding twice running is a change of the picture.
            if self._rival is not None and _alike(found, self._rival):
                self._area, self._rival = found, None
            else:
                self._rival = found
        else:
            self._rival = None
        return self._area if self._area is not None else found


def _alike(a: ContentArea, b: ContentArea) -> bool:
    """Whether two areas share 98 % of their pixels, judged on a coarse grid."""
    width, height = max(1, a.size[0] // 8), max(1, a.size[1] // 8)
    first, second = a.mask(width, height), b.mask(width, height)
    union = np.count_nonzero(first | second)
    return bool(np.count_nonzero(first & second) >= 0.98 * union)
