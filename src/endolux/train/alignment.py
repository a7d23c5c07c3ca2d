"""The part of a training that aligns meanings: projector and prototypes, in the checkpoint and in no export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.losses.prototypes import Prototypes
from endolux.losses.semantic import AlignmentKind, SemanticProjector, semantic_alignment
from endolux.train.recipe_distillation import Semantic

_ID_BYTES = 256
_KINDS: dict[str, AlignmentKind] = {
    "prototypes": "prototypes",
    "cwd": "channels",
    "affinity": "affinity",
    "moments": "moments",
    "image": "image",
}


class Alignment(nn.Module):
    """The student's projector, and the frozen prototypes of its teacher, so that a resumed run keeps its own.

    Args:
        channels: of the student's map.
        teacher_channels: of the teacher's.
        settings: section of a recipe.

    Example:
        >>> alignment = Alignment(16, 24, Semantic(dimensions=8, prototypes=12))
        >>> alignment.prototypes() is None, sum(p.numel() for p in alignment.parameters())
        (True, 136)
    """

    mean: Tensor
    whitening: Tensor
    centres: Tensor
    teacher: Tensor

    def __init__(self, channels: int, teacher_channels: int, settings: Semantic) -> None:
        super().__init__()
        self.projector = SemanticProjector(channels, settings.dimensions)
        self._kind, self._temperature = _KINDS[settings.kind], settings.temperature
        self.register_buffer("mean", torch.zeros(teacher_channels))
        self.register_buffer("whitening", torch.zeros(settings.dimensions, teacher_channels))
        self.register_buffer("centres", torch.zeros(settings.prototypes, settings.dimensions))
        self.register_buffer("teacher", torch.zeros(_ID_BYTES, dtype=torch.uint8))

    @property
    def assigned(self) -> bool:
        """Whether the teacher's side is assignments, and not features."""
        return self._kind in ("prototypes", "image")

    def prototypes(self) -> Prototypes | None:
        """Those of this run; None before any were fitted."""
        name = bytes(self.teacher.cpu().numpy()).rstrip(b"\0").decode()
        if not name:
            return None
        return Prototypes(teacher=name, mean=self.mean, whitening=self.whitening, centres=self.centres)

    @torch.no_grad()
    def keep(self, prototypes: Prototypes) -> None:
        """Make prototypes those of this run."""
        name = prototypes.teacher.encode()[:_ID_BYTES]
        self.mean.copy_(prototypes.mean)
        self.whitening.copy_(prototypes.whitening)
        self.centres.copy_(prototypes.centres)
        self.teacher.zero_()
        self.teacher[: len(name)] = torch.frombuffer(bytearray(name), dtype=torch.uint8).to(self.teacher)

    @override
    def forward(self, features: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The loss.

        Args:
            features: of the student, N x C x h x w.
            target: of the teacher, N x (K or D) x any x any.
            mask: bool, N x 1 x H x W.

        Raises:
            UsageError: ``loss.mask`` where no cell lies inside the mask.
        """
        size = features.shape[2:]
        target = target.float()
        if target.shape[2:] != size:
            target = nn.functional.interpolate(target, size, mode="bilinear", align_corners=False)
        if self.assigned:
            # Stored in steps of 1/127 of the largest: the sum is 1 only nearly.
            target = target.clamp(min=0.0)
            target = target / target.sum(dim=1, keepdim=True).clamp(min=1e-6)
        return semantic_alignment(
            self.projector(features),
            target,
            self.prototypes() if self.assigned else None,
            mask,
            kind=self._kind,
            temperature=self._temperature,
            assigned=self.assigned,
        )
