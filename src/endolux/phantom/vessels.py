"""Vessel trees drawn into a periodic texture."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled

FloatArray = npt.NDArray[np.float32]

_BRANCHES_A_TREE = 40


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
    canvas = np.zeros(shape, np.float32)
    if trees > 0:
        _grow(np.random.default_rng(int(rng.integers(1 << 62))), canvas, int(trees), float(trunk_px), float(wiggle))
    return canvas


@compiled
def _grow(rng: np.random.Generator, canvas: FloatArray, trees: int, trunk_px: float, wiggle: float) -> None:
    rows, columns = canvas.shape
    stride = max(columns, rows) / 170.0
    # A stack instead of recursion keeps the draw order fixed: x, y, heading, width, steps.
    stack = np.empty((trees * _BRANCHES_A_TREE * 5 + 8, 5))
    for k in range(trees):
        stack[k, 0], stack[k, 1] = rng.uniform(0.0, columns), rng.uniform(0.0, rows)
        stack[k, 2], stack[k, 3] = rng.uniform(0.0, 2 * math.pi), trunk_px
        stack[k, 4] = rng.integers(25, 80)
    size, drawn = trees, 0
    path = np.empty((96, 3))
    while size > 0 and drawn < _BRANCHES_A_TREE * trees:
        size -= 1
        drawn += 1
        x, y, heading, width, steps = (
            stack[size, 0],
            stack[size, 1],
            stack[size, 2],
            stack[size, 3],
            int(stack[size, 4]),
        )
        level = min(1.0, (90.0 + 110.0 * width) / 255.0)
        path[0, 0], path[0, 1], path[0, 2] = x, y, heading
        for k in range(1, steps + 1):
            heading += rng.normal(0.0, wiggle)
            x += math.cos(heading) * stride
            y += math.sin(heading) * stride
            path[k, 0], path[k, 1], path[k, 2] = x, y, heading
            _segment(canvas, path[k - 1, 0], path[k - 1, 1], x, y, 0.5 * max(width, 1.0), level)
        if width > 0.5:
            for _ in range(rng.integers(2, 5)):
                at = int(rng.integers(steps // 4, steps))
                side = rng.uniform(0.4, 1.2)
                if rng.random() < 0.5:
                    side = -side
                stack[size, 0], stack[size, 1] = path[at, 0], path[at, 1]
                stack[size, 2] = path[max(at - 1, 0), 2] + side
                stack[size, 3] = width * rng.uniform(0.45, 0.8)
                stack[size, 4] = int(steps * 0.7) + 2
                size += 1


@compiled
def _segment(canvas: FloatArray, x0: float, y0: float, x1: float, y1: float, radius: float, level: float) -> None:
    """Cover the pixels near a segment; neighbours overlap without adding up."""
    rows, columns = canvas.shape
    dx, dy = x1 - x0, y1 - y0
    inverse = 1.0 / max(dx * dx + dy * dy, 1e-12)
    reach = radius + 0.5
    for i in range(math.floor(min(y0, y1) - reach), math.ceil(max(y0, y1) + reach) + 1):
        for j in range(math.floor(min(x0, x1) - reach), math.ceil(max(x0, x1) + reach) + 1):
            t = min(max(((j - x0) * dx + (i - y0) * dy) * inverse, 0.0), 1.0)
            ox, oy = j - x0 - t * dx, i - y0 - t * dy
            square = ox * ox + oy * oy
            if square < reach * reach:
                cover = np.float32(level * min(reach - math.sqrt(square), 1.0))
                row, column = i % rows, j % columns
                if cover > canvas[row, column]:
                    canvas[row, column] = cover
