"""Pencils of rays: all rays from one point, sorted into a grid so that those near a triangle are found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled
from endolux.phantom.lanes import LANES, padded

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
DoubleArray = npt.NDArray[np.float64]

_MOST_CELLS = 2048


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RayGrid:
    """N rays (u, v, 1) from one origin, sorted into a grid so that those near a triangle are found.

    Attributes:
        u, v: N ray slopes x/z and y/z in grid order, and ``LANES`` that are not finite.
        column_at, row_at: N grid coordinates of those rays, and ``LANES`` more.
        order: N positions of those rays in the caller's order.
        start: rows * columns + 1; the rays of cell k are ``start[k]:start[k + 1]``.
        rows, columns: size of the grid.
        linear: whether grid coordinates are linear in the slopes, else they are linear in slope/(1 + |slope|).
        tight: whether every ray lies at a whole grid coordinate; ``column_at`` and ``row_at`` are then not filled.
        scale: multipliers (columns, rows) and offsets (columns, rows) that turn slopes into grid coordinates.
        edge_u, edge_v: slopes at the boundaries of the columns and rows.
    """

    u: FloatArray
    v: FloatArray
    column_at: FloatArray
    row_at: FloatArray
    order: IntArray
    start: IntArray
    rows: int
    columns: int
    linear: bool
    tight: bool
    scale: DoubleArray
    edge_u: DoubleArray
    edge_v: DoubleArray

    @property
    def count(self) -> int:
        """Number of rays."""
        return int(self.order.size)


def grid_of_image(u: FloatArray, v: FloatArray) -> RayGrid:
    """The rays of a pinhole image: u a column, v a row, both rising in even steps.

    Example:
        >>> import numpy as np
        >>> axis = np.linspace(-1, 1, 5, dtype=np.float32)
        >>> grid_of_image(axis, axis).count
        25
    """
    columns, rows = u.size, v.size
    step_u = (float(u[-1]) - float(u[0])) / (columns - 1) if columns > 1 else 1.0
    step_v = (float(v[-1]) - float(v[0])) / (rows - 1) if rows > 1 else 1.0
    scale = np.array([1 / step_u, 1 / step_v, -float(u[0]) / step_u, -float(v[0]) / step_v])
    count = rows * columns
    return RayGrid(
        u=padded(np.tile(u.astype(np.float32), rows), np.nan),
        v=padded(np.repeat(v.astype(np.float32), columns), np.nan),
        column_at=np.zeros(1, np.float32),
        row_at=np.zeros(1, np.float32),
        order=np.arange(count, dtype=np.int32),
        start=np.arange(count + 1, dtype=np.int32),
        rows=rows,
        columns=columns,
        linear=True,
        tight=True,
        scale=scale,
        edge_u=np.asarray(float(u[0]) + (np.arange(columns + 1) - 0.5) * step_u, np.float64),
        edge_v=np.asarray(float(v[0]) + (np.arange(rows + 1) - 0.5) * step_v, np.float64),
    )


def grid_of_rays(u: FloatArray, v: FloatArray) -> RayGrid:
    """Any rays (u, v, 1); those with a slope that is not finite meet nothing.

    Args:
        u: N slopes x/z.
        v: N slopes y/z.

    Example:
        >>> import numpy as np
        >>> grid_of_rays(np.array([0.1, np.nan], np.float32), np.zeros(2, np.float32)).count
        1
    """
    count, low_u, high_u, low_v, high_v = _extent(u, v)
    if count == 0:
        u, v = np.zeros(1, np.float32), np.zeros(1, np.float32)
        count, low_u, high_u, low_v, high_v = _extent(u, v)
    span_u, span_v = max(high_u - low_u, 1e-6), max(high_v - low_v, 1e-6)
    # About one ray a cell.
    columns = min(max(int(math.sqrt(count * span_u / span_v)), 1), _MOST_CELLS)
    rows = min(max(int(count / columns), 1), _MOST_CELLS)
    step_u, step_v = span_u * (1 + 1e-9) / columns, span_v * (1 + 1e-9) / rows
    # Cell k covers grid coordinates k - 0.5 .. k + 0.5, as pixels do.
    scale = np.array([1 / step_u, 1 / step_v, -low_u / step_u - 0.5, -low_v / step_v - 0.5])
    own_u, own_v, column_at, row_at, order, start = _sorted_into_cells(u, v, scale, count, rows, columns)
    edge_u = low_u + np.arange(columns + 1) * step_u
    edge_v = low_v + np.arange(rows + 1) * step_v
    return RayGrid(
        u=own_u,
        v=own_v,
        column_at=column_at,
        row_at=row_at,
        order=order,
        start=start,
        rows=rows,
        columns=columns,
        linear=False,
        tight=False,
        scale=scale,
        edge_u=edge_u / (1 - np.minimum(np.abs(edge_u), 1 - 1e-9)),
        edge_v=edge_v / (1 - np.minimum(np.abs(edge_v), 1 - 1e-9)),
    )


@compiled
def _extent(u: FloatArray, v: FloatArray) -> tuple[int, float, float, float, float]:
    """How many rays there are, and the range of their slopes/(1 + |slope|)."""
    count = 0
    low_u, high_u, low_v, high_v = 1.0, -1.0, 1.0, -1.0
    for k in range(u.size):
        if not (math.isfinite(u[k]) and math.isfinite(v[k])):
            continue
        count += 1
        x, y = np.float64(u[k]), np.float64(v[k])
        x, y = x / (1.0 + abs(x)), y / (1.0 + abs(y))
        low_u, high_u = min(low_u, x), max(high_u, x)
        low_v, high_v = min(low_v, y), max(high_v, y)
    return count, low_u, high_u, low_v, high_v


@compiled
def _sorted_into_cells(
    u: FloatArray, v: FloatArray, scale: DoubleArray, count: int, rows: int, columns: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, IntArray, IntArray]:
    """Counting sort of rays by grid cell: slopes, grid coordinates, places in the caller's order, starts of cells."""
    cell = np.empty(u.size, np.int32)
    at = np.empty((u.size, 2), np.float32)
    start = np.zeros(rows * columns + 1, np.int32)
    for k in range(u.size):
        if not (math.isfinite(u[k]) and math.isfinite(v[k])):
            cell[k] = -1
            continue
        x, y = np.float64(u[k]), np.float64(v[k])
        column = x / (1.0 + abs(x)) * scale[0] + scale[2]
        row = y / (1.0 + abs(y)) * scale[1] + scale[3]
        at[k, 0], at[k, 1] = column, row
        i = min(max(math.floor(row + 0.5), 0), rows - 1)
        j = min(max(math.floor(column + 0.5), 0), columns - 1)
        cell[k] = i * columns + j
        start[cell[k] + 1] += 1
    for c in range(rows * columns):
        start[c + 1] += start[c]
    own_u, own_v = np.full(count + LANES, np.nan, np.float32), np.full(count + LANES, np.nan, np.float32)
    column_at, row_at = np.zeros(count + LANES, np.float32), np.zeros(count + LANES, np.float32)
    order = np.empty(count, np.int32)
    fill = start[:-1].copy()
    for k in range(u.size):
        if cell[k] < 0:
            continue
        to = fill[cell[k]]
        fill[cell[k]] = to + 1
        order[to] = k
        own_u[to], own_v[to] = u[k], v[k]
        column_at[to], row_at[to] = at[k, 0], at[k, 1]
    return own_u, own_v, column_at, row_at, order, start
