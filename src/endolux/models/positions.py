"""Learned positions of a vision transformer, resampled to any grid of patches in a form that exports exactly."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from endolux.errors import UsageError

Positions: TypeAlias = Literal["size", "offset"]
"""``size`` resamples to the wanted number of patches (transformers from 4.45 on); ``offset`` scales by the wanted
number plus 0.1, as the original DINOv2 and transformers before 4.45 do."""
_CUBIC = -0.75
_OFFSET = 0.1


def check_positions(value: object) -> Positions:
    """``size`` or ``offset``.

    Raises:
        UsageError: ``model.positions`` for anything else.
    """
    if value == "size":
        return "size"
    if value == "offset":
        return "offset"
    raise UsageError(
        f"positions is {value!r}",
        why="Learned positions are resampled by 'size' or, as in older releases, with an 'offset' of 0.1.",
        fix="Use size; offset only for weights that were trained so.",
        error_id="model.positions",
    )


def resampled_positions(table: Tensor, rows: int, columns: int, *, rule: Positions = "size") -> Tensor:
    """Positions of ``rows`` x ``columns`` patches from those of a square grid: bicubic, A = -0.75, no antialiasing.

    The same numbers as ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)``, as a product with two
    small matrices: runtimes agree on products, and not on cubic filters.

    Args:
        table: 1 x (1 + grid * grid) x channels; the first is that of the class token.
        rows: patches in height.
        columns: patches in width.
        rule: how the scale is determined; both leave the table alone where it has the wanted size.

    Returns:
        1 x (1 + rows * columns) x channels float32.

    Example:
        >>> table = torch.arange(1 + 4 * 4, dtype=torch.float32)[None, :, None]
        >>> resampled_positions(table, 4, 4).flatten().tolist() == table.flatten().tolist()
        True
        >>> resampled_positions(table, 2, 3).shape
        torch.Size([1, 7, 1])
    """
    grid = round((table.shape[1] - 1) ** 0.5)
    table = table.float()
    square = table[0, 1:].reshape(grid, grid, -1)
    shift: Tensor | float = 0.0
    if rule == "offset":
        same = (torch.scalar_tensor(rows) == grid) & (torch.scalar_tensor(columns) == grid)
        shift = torch.where(same, 0.0, _OFFSET).to(table.device)
    down = _cubic_matrix(rows, grid, shift, table.device)
    across = _cubic_matrix(columns, grid, shift, table.device)
    channels = square.shape[2]
    tall = (down @ square.reshape(grid, grid * channels)).reshape(rows, grid, channels)
    resampled = torch.matmul(across, tall)
    return torch.cat((table[:, :1], resampled.reshape(1, rows * columns, channels)), dim=1)


def _cubic_matrix(wanted: int, there: int, shift: Tensor | float, device: torch.device) -> Tensor:
    """Wanted x there: each row the weights of four neighbours, those outside taken from the edge."""
    scale = there / (torch.scalar_tensor(wanted, dtype=torch.float64, device=device) + shift)
    places = (torch.arange(wanted, device=device).double() + 0.5) * scale.double() - 0.5
    first = places.floor()
    t = places - first
    near, far = _near, _far
    weights = torch.stack((far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)), dim=1)
    indices = (first[:, None] + torch.arange(-1.0, 3.0, dtype=torch.float64, device=device)).clamp(0, there - 1)
    hits = indices[:, :, None] == torch.arange(there, dtype=torch.float64, device=device)
    return (weights[:, :, None] * hits.double()).sum(dim=1).float()


def _near(t: Tensor) -> Tensor:
    return ((_CUBIC + 2.0) * t - (_CUBIC + 3.0)) * t * t + 1.0


def _far(t: Tensor) -> Tensor:
    return ((_CUBIC * t - 5.0 * _CUBIC) * t + 8.0 * _CUBIC) * t - 4.0 * _CUBIC
