"""Text, icons and arrows that a tower writes into its picture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.types import ImageArray, MaskArray

_WORDS = ("NBI", "ENH A5", "x1.0", "CT N1", "Eh:A7 Cm:1", "REC", "12:41:07", "03/02", "SPOT", "F2", "PCF", "I.SCAN 1")


def draw_overlay(image: ImageArray, content: MaskArray, seed: int) -> MaskArray:
    """Draw one tower's overlay into an image.

    Args:
        image: H x W x 3 uint8, changed.
        content: H x W, the visible area; a picture in a wide frame has its text beside it, any other in its corners.
        seed: chooses words, places and sizes; the same for all frames of a clip.

    Returns:
        H x W, True where something was drawn.

    Example:
        >>> import numpy as np
        >>> canvas = np.zeros((120, 160, 3), np.uint8)
        >>> bool(draw_overlay(canvas, np.ones((120, 160), bool), 3).any())
        True
    """
    rng = np.random.default_rng([seed, 7])
    height, width = content.shape
    layer = np.zeros((height, width), np.uint8)
    size = float(rng.uniform(0.28, 0.45)) * height / 256.0
    line = max(8, round(34 * size))
    left = bool(rng.random() < 0.7)
    x = round(0.02 * width) if left else round(0.74 * width)
    y = line if rng.random() < 0.6 else height - 4 * line
    for _ in range(int(rng.integers(1, 5))):
        word = str(rng.choice(_WORDS))
        cv2.putText(layer, word, (x, int(y)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, round(2 * size)), cv2.LINE_AA)
        y += line
    if rng.random() < 0.4:
        centre = (round(float(rng.uniform(0.03, 0.97)) * width), round(float(rng.uniform(0.03, 0.97)) * height))
        if rng.random() < 0.5:
            cv2.circle(layer, centre, max(2, round(14 * size)), 255, -1, cv2.LINE_AA)
        else:
            tip = (centre[0] + round(24 * size), centre[1] + round(24 * size))
            cv2.arrowedLine(layer, centre, tip, 255, 1, cv2.LINE_AA, tipLength=0.4)
    if rng.random() < 0.3:
        box = round(0.05 * width), round(0.80 * height), round(0.16 * width), round(0.15 * height)
        cv2.rectangle(layer, box[:2], (box[0] + box[2], box[1] + box[3]), 255, 1)
    colour = np.array(((255, 255, 255), (240, 230, 90), (120, 230, 120))[int(rng.integers(3))], np.float32)
    where = np.nonzero(layer)
    share = layer[where].astype(np.float32)[:, None] / 255.0
    image[where] = (image[where] * (1 - share) + colour * share + 0.5).astype(np.uint8)
    drawn: npt.NDArray[np.bool_] = cv2.dilate(layer, np.ones((3, 3), np.uint8)) > 0
    return drawn
