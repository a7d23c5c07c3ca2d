"""Specular highlights: mirror images of the lamp, which hide the colour of the tissue below."""

from __future__ import annotations

import cv2
import numpy as np

from endolux.types import ImageArray, MaskArray

_WORKING_SIDE = 480  # longer side in pixels at which highlights are looked for
_LARGEST_SHARE = 0.01  # of the image; larger white areas are fat, gauze or an overexposed wall


def specular_mask(image: ImageArray) -> MaskArray:
    """Where the light of the lamp is mirrored.

    A highlight is nearly white, small, and much brighter than its surroundings in its *least* bright channel (tissue is
    red there). Large overexposed areas are not highlights.

    Args:
        image: H x W x 3 uint8, RGB.

    Returns:
        H x W bool, True on highlights (grown by about a pixel, as their rims are mixed with the lamp's light too).

    Example:
        >>> import numpy as np
        >>> image = np.full((120, 160, 3), (150, 60, 50), np.uint8)
        >>> image[40:44, 60:64] = 250
        >>> mask = specular_mask(image)
        >>> bool(mask[42, 62]), bool(mask[90, 90])
        (True, False)
    """
    height, width = image.shape[:2]
    small = image
    while max(small.shape[:2]) > _WORKING_SIDE and min(small.shape[:2]) > 1:
        # By halves: the mean of 2 x 2 pixels is vectorised, other ratios cost ten times as much.
        halved = cv2.resize(small, (small.shape[1] // 2, small.shape[0] // 2), interpolation=cv2.INTER_AREA)
        small = np.asarray(halved, np.uint8)
    red, green, blue = cv2.split(small)
    least = cv2.min(cv2.min(red, green), blue)
    most = cv2.max(cv2.max(red, green), blue)
    window = max(3, (max(small.shape[:2]) // 12) | 1)
    around = cv2.blur(least, (window, window))
    # Relative to the surroundings, so that a dim frame has highlights too; and to the brightest tissue, as a lamp's
    # mirror image is at the top of the range of its frame.
    top = float(np.percentile(most[::4, ::4], 98))
    stands_out = cv2.subtract(least, around) > 40
    bright = least >= 0.6 * top
    colourless = least >= cv2.multiply(most, 0.7)
    candidates = (stands_out & bright & colourless).astype(np.uint8)
    if not candidates.any():
        return np.zeros((height, width), np.bool_)
    candidates = np.asarray(cv2.dilate(candidates, np.ones((3, 3), np.uint8)), np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(candidates, connectivity=8)
    small_enough = stats[:, cv2.CC_STAT_AREA] <= max(9.0, _LARGEST_SHARE * candidates.size)
    small_enough[0] = False
    found = small_enough[labels].astype(np.uint8)
    if found.shape != (height, width):
        found = np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    mask: MaskArray = found.astype(np.bool_)
    return mask
