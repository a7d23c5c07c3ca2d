"""Which pixels a student may learn from: field of view, no speculars, a teacher that agrees with its mirror image."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.canonical import CanonicalMode, canonical, check_maps, precise, require_pixels

SPECULAR_VALUE = 0.9
SPECULAR_SATURATION = 0.2
SPECULAR_GROWTH = 3
RELIABLE_SHARE = 0.9


def validity_mask(
    teacher: Tensor,
    *,
    frames: Tensor | None = None,
    field: Tensor | None = None,
    mirrored: Tensor | None = None,
    mode: CanonicalMode = "scale",
    share: float = RELIABLE_SHARE,
) -> Tensor:
    """The product of field of view, no speculars, teacher reliability and finite teacher values.

    Args:
        teacher: disparity of the clean frame, N x 1 x H x W.
        frames: N x 3 x H x W RGB in [0, 1], for :func:`speculars`.
        field: bool, N x 1 x H x W: the endoscope's picture without border and displays (``endolux.prep`` finds it).
        mirrored: the teacher's disparity of the frames flipped left to right, as it came, for :func:`reliable`.
        mode: of the canonical maps that :func:`reliable` compares.
        share: see :func:`reliable`.

    Returns:
        bool, N x 1 x H x W.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``; ``loss.mask`` where no pixel is left in any image.

    Example:
        >>> teacher = torch.rand(1, 1, 8, 8) + 1
        >>> teacher[..., 0, 0] = torch.nan
        >>> int(validity_mask(teacher, mirrored=teacher.flip(-1)).sum())
        63
    """
    check_maps(teacher)
    teacher = precise(teacher.detach())
    valid = torch.isfinite(teacher)
    if mode == "scale":
        valid &= teacher > 0.0
    if field is not None:
        check_maps(teacher, mask=field)
        valid &= field
    if frames is not None:
        if frames.shape[0] != teacher.shape[0] or frames.shape[2:] != teacher.shape[2:]:
            raise _frames(frames)
        valid &= ~speculars(frames)
    if mirrored is not None:
        require_pixels(valid, "The validity mask")
        valid = reliable(teacher, mirrored, valid, mode=mode, share=share)
    require_pixels(valid, "The validity mask")
    return valid


def speculars(
    frames: Tensor,
    *,
    value: float = SPECULAR_VALUE,
    saturation: float = SPECULAR_SATURATION,
    growth: int = SPECULAR_GROWTH,
) -> Tensor:
    """Highlights: bright and without colour (HSV value and saturation), grown by some pixels.

    Args:
        frames: N x 3 x H x W RGB in [0, 1].
        value: a highlight is brighter than this.
        saturation: and less saturated than this.
        growth: pixels by which it is dilated, in a square.

    Returns:
        bool, N x 1 x H x W, True on highlights.

    Raises:
        UsageError: ``loss.shape``.

    Example:
        >>> frames = torch.tensor([0.6, 0.2, 0.2]).view(1, 3, 1, 1).repeat(1, 1, 15, 15)
        >>> frames[..., 7, 7] = 1.0
        >>> int(speculars(frames).sum())
        49
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise _frames(frames)
    colours = precise(frames)
    brightest, darkest = colours.amax(dim=1, keepdim=True), colours.amin(dim=1, keepdim=True)
    pale = (brightest > value) & (brightest - darkest < saturation * brightest)
    return F.max_pool2d(pale.to(colours.dtype), 2 * growth + 1, stride=1, padding=growth) > 0.0


def reliable(
    teacher: Tensor,
    mirrored: Tensor,
    mask: Tensor | None = None,
    *,
    mode: CanonicalMode = "scale",
    share: float = RELIABLE_SHARE,
) -> Tensor:
    """Pixels where the teacher says the same of the mirrored frame, up to its own 90th percentile of disagreement.

    Args:
        teacher: disparity, N x 1 x H x W.
        mirrored: disparity of the flipped frame, as the teacher gave it (not flipped back), same shape.
        mask: bool, same shape: pixels that count.
        mode: of the canonical maps that are compared.
        share: quantile of every image's disagreement that still counts. A teacher that agrees everywhere loses none.

    Returns:
        bool, N x 1 x H x W, within ``mask``.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``, ``loss.mask``, ``loss.kind``.

    Example:
        >>> teacher = torch.ones(1, 1, 10, 10)
        >>> other = teacher.clone()
        >>> other[..., 0] = 2.0  # the left of the mirror image is the right of the picture
        >>> reliable(teacher, other).all(dim=-2).squeeze().tolist()
        [True, True, True, True, True, True, True, True, True, False]
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(
            f"A share of {share} reliable pixels",
            why="It must lie above 0 and be at most 1.",
            fix=f"Use {RELIABLE_SHARE}.",
            error_id="loss.setting",
        )
    check_maps(teacher, mirrored, mask=mask)
    with torch.no_grad():
        first, second = precise(teacher), precise(mirrored).flip(-1)
        valid = torch.isfinite(first) & torch.isfinite(second)
        if mode == "scale":
            valid &= (first > 0.0) & (second > 0.0)
        if mask is not None:
            valid &= mask
        require_pixels(valid, "The validity mask")
        first, second = torch.where(valid, first, 1.0), torch.where(valid, second, 1.0)
        apart = (canonical(first, valid, mode=mode) - canonical(second, valid, mode=mode)).abs()
        ordered = torch.where(valid, apart, torch.inf).flatten(1).sort(dim=1).values
        rank = (share * valid.flatten(1).sum(dim=1).double() + 1e-6).floor().long().clamp(min=1) - 1
        return valid & (apart <= ordered.gather(1, rank[:, None]).view(-1, 1, 1, 1))


def _frames(frames: Tensor) -> UsageError:
    return UsageError(
        f"Frames of shape {tuple(frames.shape)}",
        why="Highlights are looked for in N x 3 x H x W RGB in [0, 1], of the size of the teacher's maps.",
        fix="Resize the frames, channels first.",
        error_id="loss.shape",
    )
