"""The canonical map: what is left of a disparity once the freedom of its scale (or scale and shift) is taken out.

The only place where the trinity handles that ambiguity: :func:`~endolux.losses.spatial`,
:func:`~endolux.losses.gradient` and :func:`~endolux.losses.spectral` are functions of two canonical maps and a mask,
and inherit its invariance. All work in float32 whatever the autocast (in float64 if that is what they get).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.masks import has_any, inside_only, smallest

CanonicalMode: TypeAlias = Literal["scale", "affine"]
"""``scale``: blind to a positive factor on the disparity; ``affine``: to a factor and a shift."""
MapKind: TypeAlias = Literal["disparity", "depth", "affine"]
"""``disparity``: inverse depth up to a factor; ``depth``: depth up to a factor, or metric; ``affine``: inverse depth
up to a factor and a shift, which is what relative foundation models give."""

DEVIATION_FLOOR = 1e-8
"""Smallest mean deviation of an affine map that is divided by. A floor: added, it would break the invariance."""


def canonical(
    disparity: Tensor, mask: Tensor | None = None, *, mode: CanonicalMode = "scale", windows: int = 1
) -> Tensor:
    """Disparities without their unknown scale (and shift), each image on its own.

    ``scale``: ``log d - median(log d)``: differences of two such maps are, to first order, relative errors of depth
    after median scaling. ``affine``: ``(d - median d) / max(mean |d - median d|, 1e-8)``; a student trained on it
    alone has no defined shift, so it needs an anchor beside it (labels, photometry, or a teacher in scale mode).

    Args:
        disparity: inverse depths, N x 1 x H x W; positive inside the mask in scale mode.
        mask: bool, same shape: pixels that count; None means all.
        mode: see above.
        windows: statistics of each of ``windows`` x ``windows`` parts of the picture instead of the whole (the local
            form of the spatial term).

    Returns:
        Same shape, float32 (float64 for float64); 0 outside the mask.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``; ``loss.mask`` where no image has a pixel; ``loss.kind`` for
            values that are not positive in scale mode.

    Source:
        Median and mean absolute deviation: MiDaS (Ranftl et al., TPAMI 2022); median alone: DAE (CVPR 2026); windows:
        Distill-Any-Depth (arXiv 2502.19204).

    Example:
        >>> disparity = torch.rand(2, 1, 8, 8) + 0.1
        >>> torch.allclose(canonical(disparity), canonical(3.7 * disparity), atol=1e-6)
        True
    """
    if mode not in ("scale", "affine"):
        raise _setting(f"No mode {mode!r} of the canonical map", "It is 'scale' or 'affine'.", "Use mode='scale'.")
    height, width = check_maps(disparity, mask=mask)[2:]
    if not 1 <= windows <= min(height, width):
        raise _setting(
            f"{windows} windows a side for maps of {width}x{height} pixels",
            "Every window needs at least one pixel.",
            "Use windows=1 for the whole picture, or 4.",
        )
    with torch.autocast(disparity.device.type, enabled=False):
        values = precise(disparity)
        inside = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        if mode == "scale":
            values = inside_only(values, inside, fill=1.0)
            if bool(values.detach().min() <= 0.0):
                raise UsageError(
                    "Disparities that are not positive, in scale mode",
                    why="Scale mode takes their logarithm; a map with an unknown shift does not have one.",
                    fix="Give inverse depths above 0, mask the rest, or use mode='affine'.",
                    error_id="loss.kind",
                )
            values = values.log()
        parts, counted = _split(values, windows, 0.0), _split(inside, windows, False)
        centred = inside_only(parts - _median(parts, counted), counted)
        if mode == "affine":
            centred = centred / _deviation(centred, counted).clamp(min=DEVIATION_FLOOR)
        return _join(centred, windows, (height, width))


def canonical_pair(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    student_kind: MapKind = "disparity",
    teacher_kind: MapKind = "disparity",
    mode: CanonicalMode | None = None,
    windows: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical maps of a student and its teacher, and the mask in which they may be compared.

    The teacher is detached, resized to the student with antialias, and pixels where it is not finite (in scale mode:
    not positive) leave the mask, as do images without enough relief for the affine mode.

    Args:
        student: N x 1 x H x W.
        teacher: N x 1 x h x w.
        mask: bool, N x 1 x H x W, the student's size.
        student_kind: what the student's numbers mean.
        teacher_kind: what the teacher's numbers mean.
        mode: of both maps. May be left out where both kinds are the same: ``affine`` for affine maps, else ``scale``.
        windows: see :func:`canonical`.

    Returns:
        Student, teacher and mask, all N x 1 x H x W.

    Raises:
        UsageError: ``loss.kind`` for maps of different kinds without a mode, and see :func:`canonical`.

    Example:
        >>> depth = torch.rand(1, 1, 8, 8) + 1
        >>> student, teacher, _ = canonical_pair(2 / depth, depth, teacher_kind="depth", mode="scale")
        >>> torch.allclose(student, teacher, atol=1e-6)
        True
    """
    for kind in (student_kind, teacher_kind):
        if kind not in ("disparity", "depth", "affine"):
            raise _setting(f"No kind {kind!r} of map", "Known: disparity, depth, affine.", "Use 'disparity'.")
    if mode is None:
        if student_kind != teacher_kind:
            raise UsageError(
                f"A student of kind '{student_kind}' and a teacher of kind '{teacher_kind}' without a stated mode",
                why="Which freedom of the maps to take out cannot be told from two kinds.",
                fix="State mode='affine' if either has an unknown shift, else mode='scale'.",
                error_id="loss.kind",
            )
        mode = "affine" if student_kind == "affine" else "scale"
    check_maps(student, mask=mask)
    if teacher.ndim != 4 or teacher.shape[:2] != student.shape[:2] or 0 in teacher.shape:
        raise _shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        taught = _as_disparity(precise(teacher.detach()), teacher_kind)
        known = torch.isfinite(taught) & (
            (taught > 0.0) if mode == "scale" else torch.ones_like(taught, dtype=torch.bool)
        )
        taught = inside_only(taught, known, fill=1.0)
        size = (student.shape[2], student.shape[3])
        if taught.shape[2:] != size:
            taught = F.interpolate(taught, size, mode="bilinear", antialias=True, align_corners=False)
            unknown = F.interpolate(
                (~known).to(taught.dtype), size, mode="bilinear", antialias=True, align_corners=False
            )
            known = unknown <= 0.0
        valid = known if mask is None else known & mask
        learned = _as_disparity(precise(student), student_kind)
        if mode == "affine":
            relief = _deviation(taught - _median(taught, valid), valid) >= DEVIATION_FLOOR
            with torch.no_grad():
                relief &= _deviation(learned - _median(learned, valid), valid) >= DEVIATION_FLOOR
            valid = valid & relief
        return (
            canonical(learned, valid, mode=mode, windows=windows),
            canonical(taught, valid, mode=mode, windows=windows),
            valid,
        )


def precise(tensor: Tensor) -> Tensor:
    """The tensor in the precision of a loss: float32, or float64 if it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_maps(first: Tensor, *others: Tensor, mask: Tensor | None = None) -> torch.Size:
    """The common shape N x 1 x H x W of some maps and their mask.

    Raises:
        UsageError: ``loss.shape`` where shapes differ or a mask is not bool; ``loss.mask`` where it is empty.

    Example:
        >>> tuple(check_maps(torch.ones(2, 1, 4, 5)))
        (2, 1, 4, 5)
    """
    tensors = (first, *others) if mask is None else (first, *others, mask)
    if len({tuple(t.shape) for t in tensors}) != 1 or first.ndim != 4 or first.shape[1] != 1 or 0 in first.shape:
        raise _shape(*tensors)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise UsageError(
                f"A mask of type {mask.dtype}",
                why="A pixel counts or it does not.",
                fix="Give a bool tensor, such as weight > 0.5.",
                error_id="loss.shape",
            )
        require_pixels(mask, "The mask")
    return first.shape


def require_pixels(mask: Tensor, what: str) -> None:
    """Refuse a batch of which nothing is left.

    Raises:
        UsageError: ``loss.mask``.

    Example:
        >>> require_pixels(torch.ones(1, 1, 2, 2, dtype=torch.bool), "The mask")
    """
    if not has_any(mask):
        raise UsageError(
            f"{what} leaves no pixel in any of {len(mask)} images",
            why="A mean over nothing has no value; field of view, speculars, reliability or erosion took everything.",
            fix="Look at the mask's parts (endolux.losses.validity), use larger maps, or drop the batch.",
            error_id="loss.mask",
        )


def batch_mean(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean over the images that have something: of ``sums / counts``, N each.

    Example:
        >>> float(batch_mean(torch.tensor([6.0, 0.0]), torch.tensor([3, 0])))
        2.0
    """
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def _as_disparity(values: Tensor, kind: MapKind) -> Tensor:
    return values.reciprocal() if kind == "depth" else values


def _median(values: Tensor, mask: Tensor) -> Tensor:
    """Lower median inside the mask, N x 1 x 1 x 1; 0 where there is none."""
    rows, inside = values.flatten(1), mask.flatten(1)
    counts = inside.count_nonzero(dim=1)
    lowest = smallest(torch.where(inside, rows.detach(), torch.inf), (counts.clamp(min=1) + 1) // 2)
    # The gradient goes to a pixel that is the median.
    place = (inside & (rows.detach() == lowest)).view(torch.uint8).argmax(dim=1, keepdim=True)
    return torch.where(counts[:, None] > 0, rows.gather(1, place), 0.0).view(-1, 1, 1, 1)


def _deviation(centred: Tensor, mask: Tensor) -> Tensor:
    total = inside_only(centred.abs(), mask).sum(dim=(1, 2, 3), keepdim=True)
    return total / mask.count_nonzero(dim=(1, 2, 3)).view(-1, 1, 1, 1).clamp(min=1)


def _split(maps: Tensor, windows: int, fill: float) -> Tensor:
    """Every window an image of its own: (N w w) x 1 x h x w; the last row and column are filled up."""
    if windows == 1:
        return maps
    count, _, height, width = maps.shape
    rows, columns = -(-height // windows), -(-width // windows)
    maps = F.pad(maps, (0, columns * windows - width, 0, rows * windows - height), value=fill)
    return maps.view(count, windows, rows, windows, columns).transpose(2, 3).reshape(-1, 1, rows, columns)


def _join(parts: Tensor, windows: int, size: tuple[int, int]) -> Tensor:
    if windows == 1:
        return parts
    rows, columns = parts.shape[2:]
    maps = parts.view(-1, windows, windows, rows, columns).transpose(2, 3)
    return maps.reshape(-1, 1, windows * rows, windows * columns)[..., : size[0], : size[1]]


def _setting(what: str, why: str, fix: str) -> UsageError:
    return UsageError(what, why=why, fix=fix, error_id="loss.setting")


def _shape(*tensors: Tensor) -> UsageError:
    return UsageError(
        f"Losses got shapes {', '.join(str(tuple(t.shape)) for t in tensors)}",
        why="Maps and mask must all be the same N x 1 x H x W, and not empty.",
        fix="Add the channel axis or resize before the loss.",
        error_id="loss.shape",
    )
