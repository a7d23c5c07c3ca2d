"""Semantic distribution alignment: every cell of the student's bottleneck gets the teacher's mix of prototypes.

A vessel and the mucosa beside it share a semantic cell but not a colour; a small encoder that must assign both to the
same prototypes loses the cue that would become false relief. The map that learns (:class:`SemanticProjector`) is on
the student's side only: on the teacher's it could satisfy the loss by collapsing the target. It belongs to training
and to no exported network. All work in float32 whatever the autocast (in float64 if that is what they get).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.losses.canonical import batch_mean, precise, require_pixels
from endolux.losses.prototypes import (
    DIMENSIONS,
    TEMPERATURE,
    Prototypes,
    assign,
    log_assign,
    setting_error,
    shape_error,
    unit,
)

AlignmentKind: TypeAlias = Literal["prototypes", "channels", "affinity", "moments", "image"]


class SemanticProjector(nn.Module):
    """The student's 1 x 1 convolution to the whitened dimensions. Training only; no part of the student itself.

    Example:
        >>> SemanticProjector(48)(torch.rand(2, 48, 4, 5)).shape
        torch.Size([2, 64, 4, 5])
    """

    def __init__(self, channels: int, dimensions: int = DIMENSIONS) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, dimensions, 1)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """N x C x h x w to N x D x h x w."""
        projected: Tensor = self.convolution(features)
        return projected


def semantic_alignment(
    student: Tensor,
    teacher: Tensor,
    prototypes: Prototypes | None = None,
    mask: Tensor | None = None,
    *,
    kind: AlignmentKind = "prototypes",
    temperature: float = TEMPERATURE,
    assigned: bool = False,
) -> Tensor:
    """Distance between distributions of the student's features and of the teacher's; 0 where they agree.

    * ``prototypes``: mean over cells of KL(teacher || student) of :func:`assign`; at most 2 / temperature + log K.
    * ``image``: the same KL of the image's mean distributions. Cannot say where; never above ``prototypes``.
    * ``channels``: softmax over places of every channel, KL, mean over channels (CWD).
    * ``affinity``: mean absolute difference of the cosines between all pairs of cells.
    * ``moments``: Fréchet distance of mean and covariance over cells, divided by D.

    Args:
        student: projected features, N x D x h x w.
        teacher: whitened features, N x D x h x w (:func:`whiten`); or assignments N x K x h x w with ``assigned``.
        prototypes: of that teacher, for ``prototypes`` and ``image``.
        mask: bool, N x 1 x H x W of any size not below h x w: cells fully inside it count.
        kind: see above.
        temperature: of the assignments, on both sides.
        assigned: ``teacher`` holds (cached) assignments.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``, ``loss.mask``.

    Source:
        Prototypes: Endolux's own, after the per-pixel KL of DAE (CVPR 2026). Channels: CWD (Shu et al., ICCV 2021).
        Affinity: Liu et al., CVPR 2019. Moments: Fréchet distance of Gaussians (Dowson and Landau, 1982).

    Example:
        >>> from endolux.losses import fit_prototypes
        >>> fitted = fit_prototypes(torch.randn(500, 12), "tiny", dimensions=8, count=16)
        >>> target = torch.randn(2, 8, 4, 5)
        >>> abs(float(semantic_alignment(5.0 * target, target, fitted))) < 1e-6
        True
    """
    if kind not in ("prototypes", "channels", "affinity", "moments", "image"):
        raise setting_error(f"No alignment {kind!r}", "See the list of kinds.", "Use kind='prototypes'.")
    by_prototypes = kind in ("prototypes", "image")
    if by_prototypes and prototypes is None:
        raise setting_error(f"Alignment '{kind}' without prototypes", "It compares assignments.", "Use fit_prototypes.")
    if assigned and not by_prototypes:
        raise setting_error(f"Alignment '{kind}' of assignments", "It compares features.", "Give whitened features.")
    width = len(prototypes.centres) if assigned and prototypes is not None else student.shape[1]
    expected = (student.shape[0], width, *student.shape[2:])
    if student.ndim != 4 or tuple(teacher.shape) != expected or 0 in student.shape:
        raise shape_error(teacher, expected)
    with torch.autocast(student.device.type, enabled=False):
        cells = _cells(mask, student)
        learned = _inside(precise(student), cells)
        taught = _inside(precise(teacher.detach()), cells)
        if by_prototypes and prototypes is not None:
            target = taught if assigned else assign(taught, prototypes, temperature=temperature)
            return _divergence(log_assign(learned, prototypes, temperature), target, cells, whole=kind == "image")
        rows, known = cells.flatten(1), cells.flatten(1).any(dim=1).long()
        compare = {"channels": _channels, "affinity": _affinity, "moments": _moments}[kind]
        return batch_mean(compare(learned.flatten(2), taught.flatten(2), rows) * known, known)


def _divergence(student: Tensor, target: Tensor, cells: Tensor, *, whole: bool) -> Tensor:
    counts = cells.sum(dim=(1, 2, 3))
    if whole:
        size = counts.clamp(min=1)[:, None]
        learned = (student.exp() * cells).sum(dim=(2, 3)) / size
        taught = (target * cells).sum(dim=(2, 3)) / size
        # Not 0 for an image without cells: the logarithm's gradient there would be NaN.
        learned = torch.where(counts[:, None] > 0, learned, 1.0)
        known = (counts > 0).long()
        return batch_mean((torch.xlogy(taught, taught) - taught * learned.log()).sum(dim=1), known)
    apart = (torch.xlogy(target, target) - target * student).sum(dim=1, keepdim=True)
    return batch_mean((apart * cells).sum(dim=(1, 2, 3)), counts)


def _channels(student: Tensor, teacher: Tensor, cells: Tensor) -> Tensor:
    # An image without cells keeps all of them here: its result is dropped, but must have a gradient of 0.
    hidden = (~cells & cells.any(dim=1, keepdim=True))[:, None]
    learned = student.masked_fill(hidden, -1e4).log_softmax(dim=2)
    taught = teacher.masked_fill(hidden, -1e4).log_softmax(dim=2)
    return (taught.exp() * (taught - learned)).sum(dim=2).mean(dim=1)


def _affinity(student: Tensor, teacher: Tensor, cells: Tensor) -> Tensor:
    learned, taught = unit(student, dim=1), unit(teacher, dim=1)
    apart = (learned.transpose(1, 2) @ learned - taught.transpose(1, 2) @ taught).abs()
    pairs = cells[:, :, None] & cells[:, None, :]
    return (apart * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def _moments(student: Tensor, teacher: Tensor, cells: Tensor) -> Tensor:
    # In float64: the trace is a difference of large numbers, and 0 at equality only to their precision.
    first, second = _gauss(student.double(), cells), _gauss(teacher.double(), cells)
    values, vectors = torch.linalg.eigh(second[1])
    root = vectors * values.clamp(min=0.0).sqrt()[:, None, :] @ vectors.transpose(1, 2)
    inner = root @ first[1] @ root
    squares = torch.linalg.eigvalsh(0.5 * (inner + inner.transpose(1, 2)))
    # Fewer cells than dimensions leave eigenvalues of 0, whose root has no gradient.
    common = torch.where(squares > 1e-14, squares.clamp(min=1e-14).sqrt(), 0.0).sum(dim=1)
    spread = first[1].diagonal(dim1=1, dim2=2).sum(dim=1) + second[1].diagonal(dim1=1, dim2=2).sum(dim=1) - 2.0 * common
    distance = (first[0] - second[0]).square().sum(dim=1) + spread
    return (distance / student.shape[1]).to(student.dtype)


def _gauss(values: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    counts = cells.sum(dim=1).clamp(min=1)[:, None]
    mean = (values * cells[:, None]).sum(dim=2) / counts
    centred = (values - mean[:, :, None]) * cells[:, None]
    return mean, centred @ centred.transpose(1, 2) / counts[:, :, None]


def _cells(mask: Tensor | None, features: Tensor) -> Tensor:
    size = (features.shape[2], features.shape[3])
    if mask is None:
        return torch.ones((len(features), 1, *size), dtype=torch.bool, device=features.device)
    too_small = mask.ndim != 4 or mask.shape[2] < size[0] or mask.shape[3] < size[1]
    if too_small or mask.shape[:2] != (len(features), 1) or mask.dtype != torch.bool:
        raise shape_error(mask, (len(features), 1, f">={size[0]}", f">={size[1]}"))
    cells = F.adaptive_max_pool2d((~mask).float(), size) == 0.0
    require_pixels(cells, "The mask, in whole cells,")
    return cells


def _inside(features: Tensor, cells: Tensor) -> Tensor:
    # A constant vector, not 0: the gradient of a length at 0 is none.
    return torch.where(cells, features, 1.0)
