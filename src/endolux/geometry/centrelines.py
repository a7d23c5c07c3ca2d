"""Middles of drawn lines, as polylines."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
_WORKING = 320
_SLACK = 0.75


def centrelines(mask: Mask, *, shortest: float = 0.04) -> list[Points]:
    """Polylines in the middle of the lines of a mask, longest first.

    Large masks are looked at on a coarser grid of about 320 pixels, so that the points are good to a few pixels there.

    Args:
        mask: H x W bool.
        shortest: lines shorter than this share of the picture's diagonal are left out, as are spurs.

    Returns:
        N x 2 arrays of x and y in pixels of the mask.

    Example:
        >>> mask = np.zeros((60, 200), bool)
        >>> mask[20:31, 30:171] = True
        >>> (line,) = centrelines(mask)
        >>> line[:, 1].tolist(), bool(line[-1, 0] - line[0, 0] > 125)
        ([25.0, 25.0], True)
    """
    height, width = mask.shape
    step = max(1, round(max(height, width) / _WORKING))
    # The middle of each cell stands for it; cells that the picture cuts off at its edge stay.
    small = np.ascontiguousarray(mask[step // 2 :: step, step // 2 :: step])
    least = shortest * float(np.hypot(*small.shape))
    found = []
    for chain in chains(thinned(small)):
        if len(chain) < 2:
            continue
        line = cv2.approxPolyDP(np.array(chain, np.int32)[:, None], _SLACK, closed=False)[:, 0].astype(np.float64)
        length = float(np.hypot(*np.diff(line, axis=0).T).sum())
        if length >= least:
            found.append((length, line * step + step // 2))
    return [line for _, line in sorted(found, key=lambda entry: -entry[0])]


def thinned(mask: Mask) -> Mask:
    """Skeleton one pixel wide (Guo and Hall 1989, A1).

    The better known rule of Zhang and Suen (1984) wears diagonal lines down from their ends, sometimes to nothing.

    Example:
        >>> mask = np.zeros((7, 20), bool)
        >>> mask[2:5, 2:18] = True
        >>> np.flatnonzero(thinned(mask).any(axis=1)).tolist()
        [3]
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return mask
    # Only the part around the lines is looked at.
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    plane = np.pad(mask[box], 1)
    changed = True
    while changed:
        changed = False
        for phase in (0, 1):
            here, tall, wide = plane[1:-1, 1:-1], plane.shape[0] - 1, plane.shape[1] - 1
            ring = np.stack([plane[1 + dy : tall + dy, 1 + dx : wide + dx] for dy, dx in _RING])
            n, ne, e, se, s, sw, w, nw = ring
            crossings = sum(np.int8(1) * (~a & (b | c)) for a, b, c in ((n, ne, e), (e, se, s), (s, sw, w), (w, nw, n)))
            first = sum(np.int8(1) * (a | b) for a, b in ((nw, n), (ne, e), (se, s), (sw, w)))
            second = sum(np.int8(1) * (a | b) for a, b in ((n, ne), (e, se), (s, sw), (w, nw)))
            count = np.minimum(first, second)
            held = (s | sw | ~nw) & w if phase == 0 else (n | ne | ~se) & e
            drop = here & (crossings == 1) & (count >= 2) & (count <= 3) & ~held
            if drop.any():
                plane[1:-1, 1:-1] &= ~drop
                changed = True
    thin = np.zeros_like(mask)
    thin[box] = plane[1:-1, 1:-1]
    return thin


def chains(thin: Mask) -> list[list[tuple[int, int]]]:
    """Paths of a skeleton as lists of (column, row), from ends and forks first, closed rings last.

    Example:
        >>> thin = np.zeros((3, 6), bool)
        >>> thin[1, 1:5] = True
        >>> chains(thin)
        [[(1, 1), (2, 1), (3, 1), (4, 1)]]
    """
    rows, columns = np.nonzero(thin)
    left = set(zip(columns.tolist(), rows.tolist(), strict=True))
    degree = {point: sum(near in left for near in _near(point)) for point in left}
    starts = sorted(left, key=lambda point: (degree[point] != 1, degree[point] == 2, point))
    found = []
    for start in starts:
        if start not in left:
            continue
        left.remove(start)
        chain = [start]
        while True:
            options = [near for near in _near(chain[-1]) if near in left]
            if not options:
                break
            left.remove(options[0])
            chain.append(options[0])
        if degree[start] >= 2 and len(chain) > 2 and chain[-1] in _near(start):
            chain.append(start)
        found.append(chain)
    return found


def _near(point: tuple[int, int]) -> list[tuple[int, int]]:
    # Straight neighbours first, so that a path does not cut corners and leave crumbs.
    x, y = point
    return [(x + dx, y + dy) for dy, dx in (*_RING[::2], *_RING[1::2])]
