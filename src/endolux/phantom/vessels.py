"""Vessel trees drawn into a periodic texture."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# cv2 draws with sub-pixel positions given as fixed-point integers.
_SHIFT = 4
_ONE = 1 << _SHIFT


def vessel_map(
    rng: np.random.Generator, shape: tuple[int, int], *, trees: int, trunk_px: float, wiggle: float
) -> npt.NDArray[np.float32]:
    """Branching vessels as a coverage map.

    Args:
        rng: source of randomness.
        shape: rows, columns of the texture; both axes wrap around.
        trees: number of trunks.
        trunk_px: width of a trunk in pixels.
        wiggle: standard deviation of the heading change a step, in radians.

    Returns:
        rows x columns float32 in [0, 1], 1 inside a thick vessel.

    Example:
        >>> import numpy as np
        >>> vessel_map(np.random.default_rng(0), (64, 64), trees=2, trunk_px=2.0, wiggle=0.2).max() > 0
        np.True_
    """
    rows, columns = shape
    canvas = np.zeros(shape, np.uint8)
    # Each entry: x, y, heading, width, steps left. A stack instead of recursion keeps the draw order fixed.
    stack = [
        (rng.uniform(0, columns), rng.uniform(0, rows), rng.uniform(0, 2 * np.pi), trunk_px, int(rng.integers(25, 80)))
        for _ in range(trees)
    ]
    drawn = 0
    while stack and drawn < 40 * trees:
        x, y, heading, width, steps = stack.pop()
        drawn += 1
        points = np.empty((steps + 1, 2), np.float64)
        points[0] = x, y
        turns = rng.normal(0.0, wiggle, steps)
        stride = max(columns, rows) / 170.0
        headings = heading + np.cumsum(turns)
        points[1:, 0] = x + np.cumsum(np.cos(headings)) * stride
        points[1:, 1] = y + np.cumsum(np.sin(headings)) * stride
        _draw_wrapped(canvas, points, width)
        if width > 0.5:
            for _ in range(int(rng.integers(2, 5))):
                at = int(rng.integers(steps // 4, steps))
                side = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.2)
                px, py = points[at]
                stack.append((px, py, headings[at - 1] + side, width * rng.uniform(0.45, 0.8), int(steps * 0.7) + 2))
    return np.asarray(canvas, np.float32) / np.float32(255.0)


def _draw_wrapped(canvas: npt.NDArray[np.uint8], points: npt.NDArray[np.float64], width: float) -> None:
    rows, columns = canvas.shape
    level = int(min(255, 90 + 110 * width))
    low = np.floor(points.min(axis=0) / (columns, rows)).astype(int)
    high = np.floor(points.max(axis=0) / (columns, rows)).astype(int)
    for ix in range(low[0], high[0] + 1):
        for iy in range(low[1], high[1] + 1):
            moved = np.round((points - (ix * columns, iy * rows)) * _ONE).astype(np.int32)
            cv2.polylines(canvas, [moved], False, level, max(1, round(width)), cv2.LINE_AA, _SHIFT)
