"""Two of the three terms of the trinity: spatial (values) and gradient (first differences) of canonical maps.

Both take what :func:`~endolux.losses.canonical` gives; the third term is :mod:`endolux.losses.spectral`. They work in
float32 whatever the autocast (in float64 if that is what they get), never send a gradient to the teacher, and ignore
what lies outside the mask. Images with an empty mask are left out of the mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.canonical import batch_mean, check_maps, precise, require_pixels
from endolux.losses.masks import as_weight, inside_only, smallest

KEEP = 0.9
LEVELS = 4


def spatial(
    student: Tensor | Sequence[Tensor], teacher: Tensor, mask: Tensor | None = None, *, keep: float = KEEP
) -> Tensor:
    """Mean of the smallest absolute differences: where and how much, without the worst tenth of the pixels.

    Args:
        student: canonical map, N x 1 x H x W; or several, finest first (side outputs, resized to H x W by
            :func:`full_size` before their canonical map), which weigh 1, 1/2, 1/4, ...
        teacher: canonical map, N x 1 x H x W.
        mask: bool, same shape.
        keep: share of the pixels of every image that counts.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``, ``loss.mask``.

    Source:
        Trimmed L1: MiDaS (Ranftl et al., TPAMI 2022), with the 10 % of DAE (CVPR 2026).

    Example:
        >>> teacher = torch.zeros(1, 1, 10, 10)
        >>> wrong = teacher.clone()
        >>> wrong[..., 0, :] = 5.0
        >>> float(spatial(teacher + 0.5, teacher)), float(spatial(wrong, teacher))
        (0.5, 0.0)
    """
    if not 0.0 < keep <= 1.0:
        raise UsageError(
            f"A share of {keep} of the pixels to keep",
            why="It must lie above 0 and be at most 1.",
            fix=f"Use {KEEP}.",
            error_id="loss.setting",
        )
    outputs = [student] if isinstance(student, Tensor) else list(student)
    if not outputs:
        raise UsageError(
            "No output of a student",
            why="The spatial term got an empty list.",
            fix="Give at least the full-size output.",
            error_id="loss.shape",
        )
    check_maps(teacher, *outputs, mask=mask)
    with torch.autocast(teacher.device.type, enabled=False):
        target = precise(teacher.detach())
        terms = [0.5**index * _trimmed(precise(output), target, mask, keep) for index, output in enumerate(outputs)]
        return torch.stack(terms).sum()


def gradient(student: Tensor, teacher: Tensor, mask: Tensor | None = None, *, levels: int = LEVELS) -> Tensor:
    """Mean Sobel response of the difference over octaves: local shape and the position of boundaries.

    Level s is the difference after s masked 2 x 2 means (a cell is valid only if its four pixels are), so that every
    level owns one octave and nothing aliases. Sobel / 8 is a derivative per pixel of that level; it counts where all
    its nine pixels are valid. Levels without such pixels add 0. Blind to a constant added to either map.

    Args:
        student: canonical map, N x 1 x H x W.
        teacher: canonical map, same shape.
        mask: bool, same shape.
        levels: number of octaves; the sum is divided by it.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``; ``loss.mask`` also where no 3 x 3 pixels lie inside together.

    Source:
        Multi-scale gradient matching: MegaDepth (Li and Snavely, CVPR 2018), with means instead of subsampling.

    Example:
        >>> ramp = 0.1 * torch.arange(32.0).expand(1, 1, 32, 32)
        >>> round(float(gradient(ramp, torch.zeros_like(ramp), levels=1)), 6)
        0.1
    """
    if levels < 1:
        raise UsageError(
            f"{levels} levels of the gradient term",
            why="It is a mean over octaves.",
            fix=f"Use {LEVELS}.",
            error_id="loss.setting",
        )
    check_maps(student, teacher, mask=mask)
    with torch.autocast(student.device.type, enabled=False):
        valid = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
        residual = _residual(precise(student), precise(teacher.detach()), valid)
        total = residual.new_zeros(())
        for level in range(levels):
            if level:
                if min(residual.shape[2:]) < 2:
                    break
                residual, valid = _halve(residual, valid)
            if min(residual.shape[2:]) < 3:
                inside = valid[..., :0, :0]
            else:
                # The mask eroded by one pixel, without the rim that Sobel cannot reach.
                inside = valid[..., :-2, :] & valid[..., 1:-1, :] & valid[..., 2:, :]
                inside = inside[..., :-2] & inside[..., 1:-1] & inside[..., 2:]
            if level == 0:
                require_pixels(inside, "The mask, eroded by one pixel,")
            if inside.numel():
                steps = inside_only(_sobel(residual), inside)
                total = total + batch_mean(steps.sum(dim=(1, 2, 3)), inside.count_nonzero(dim=(1, 2, 3)))
        return total / levels


def full_size(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Side outputs, bilinearly resized to the first (finest) of them.

    Example:
        >>> [tuple(o.shape) for o in full_size([torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4)])]
        [(1, 1, 8, 8), (1, 1, 8, 8)]
    """
    size = outputs[0].shape[2:]
    return [
        output if output.shape[2:] == size else F.interpolate(output, size, mode="bilinear", align_corners=False)
        for output in outputs
    ]


def _residual(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    # Both replaced, not the difference: the gradient of a NaN that is not used is still NaN.
    return inside_only(student, mask) - inside_only(teacher, mask)


def _trimmed(student: Tensor, teacher: Tensor, mask: Tensor | None, keep: float) -> Tensor:
    inside = torch.ones_like(student, dtype=torch.bool) if mask is None else mask
    error = _residual(student, teacher, inside).abs().flatten(1)
    inside = inside.flatten(1)
    counts = inside.count_nonzero(dim=1)
    # The small addend: 0.9 * 100 is not 90 in floating point.
    kept = (keep * counts.double() + 1e-6).floor().long().clamp(min=1)
    with torch.no_grad():
        ordered = torch.where(inside, error, torch.inf)
        limit = smallest(ordered, kept)
        below, ties = ordered < limit, ordered == limit
        # Equal errors share what is left of the quota, so that the order of pixels cannot matter.
        share = (kept - below.count_nonzero(dim=1)) / ties.count_nonzero(dim=1).clamp(min=1)
        weight = as_weight(below, error) + as_weight(ties, error) * share[:, None].to(error.dtype)
    return batch_mean((error * weight).sum(dim=1), torch.where(counts > 0, kept, 0))


def _halve(residual: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = valid.shape[2] // 2 * 2, valid.shape[3] // 2 * 2
    valid = valid[..., 0:rows:2, :] & valid[..., 1:rows:2, :]
    valid = valid[..., 0:columns:2] & valid[..., 1:columns:2]
    means = residual[..., 0:rows:2, :] + residual[..., 1:rows:2, :]
    means = (means[..., 0:columns:2] + means[..., 1:columns:2]) * 0.25
    return inside_only(means, valid), valid


def _sobel(maps: Tensor) -> Tensor:
    down = maps[..., :-2, :] + 2.0 * maps[..., 1:-1, :] + maps[..., 2:, :]
    across = maps[..., :-2] + 2.0 * maps[..., 1:-1] + maps[..., 2:]
    horizontal, vertical = down[..., 2:] - down[..., :-2], across[..., 2:, :] - across[..., :-2, :]
    return (horizontal.abs() + vertical.abs()) / 8.0
