"""The three terms of the output as a recipe weighs and schedules them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from endolux.errors import UsageError
from endolux.losses.canonical import CanonicalMode, MapKind, canonical, canonical_pair
from endolux.losses.masks import has_any
from endolux.losses.spectral import BAND_WEIGHTS, band_schedule, spectral
from endolux.losses.trinity import full_size, gradient, spatial

if TYPE_CHECKING:
    from endolux.train.recipe_distillation import Trinity

GRADIENT_FROM = 1.0


class TrinityTerms:
    """Spatial, gradient and spectral losses of a student's disparities against a teacher's.

    Args:
        settings: section of a recipe.
        mode: of the canonical maps.

    Example:
        >>> from endolux.train.recipe_distillation import Trinity
        >>> terms = TrinityTerms(Trinity(), "scale")
        >>> disparity = torch.rand(1, 1, 64, 64) + 0.1
        >>> found = terms((2 * disparity,), disparity, torch.ones_like(disparity, dtype=torch.bool))
        >>> {name: round(float(term), 4) for name, term in found.items()}
        {'spatial': 0.0, 'gradient': 0.0, 'spectral': 0.0}
    """

    def __init__(self, settings: Trinity, mode: CanonicalMode) -> None:
        self._settings, self._mode = settings, mode
        # Disparities of one mode are compared as what that mode leaves free.
        self._kind: MapKind = "affine" if mode == "affine" else "disparity"
        self._bands: Sequence[float] = BAND_WEIGHTS
        self._gradient = True

    def release(self, periods: float) -> None:
        """Set what counts after so many periods of the schedule."""
        self._gradient = periods >= GRADIENT_FROM
        self._bands = BAND_WEIGHTS if math.isinf(periods) else band_schedule(periods)

    def __call__(
        self, disparities: Sequence[Tensor], teacher: Tensor, mask: Tensor, *, everything: bool = False
    ) -> dict[str, Tensor]:
        """The unweighted terms; 0 for those of weight 0, not yet released, or of which the mask leaves nothing.

        Args:
            disparities: of the student, finest first, N x 1 x H/2^s x W/2^s.
            teacher: inverse depth, N x 1 x H x W; anything outside the mask.
            mask: bool, N x 1 x H x W.
            everything: as if all were released.
        """
        settings = self._settings
        nothing = disparities[0].float().sum() * 0.0
        terms = {"spatial": nothing, "gradient": nothing, "spectral": nothing}
        if settings.weight <= 0 or not has_any(mask):
            return terms
        outputs = full_size(list(disparities))
        bands = BAND_WEIGHTS if everything else self._bands
        student, taught, valid = canonical_pair(
            outputs[0], teacher, mask, student_kind=self._kind, teacher_kind=self._kind, mode=self._mode
        )
        if not has_any(valid):
            return terms
        if settings.spatial > 0:
            terms["spatial"] = self._spatial(outputs, student, taught, teacher, valid)
        if settings.gradient > 0 and (self._gradient or everything):
            terms["gradient"] = _unless_empty(lambda: gradient(student, taught, valid), nothing)
        if settings.spectral > 0 and any(bands):
            form = settings.spectral_form
            terms["spectral"] = _unless_empty(
                lambda: spectral(
                    student,
                    taught,
                    valid,
                    form="energy" if form == "wavelet" else form,
                    transform="haar" if form == "wavelet" else "fourier",
                    weights=bands,
                ),
                nothing,
            )
        return terms

    def _spatial(
        self, outputs: Sequence[Tensor], student: Tensor, taught: Tensor, teacher: Tensor, valid: Tensor
    ) -> Tensor:
        windows = min(self._settings.windows, *valid.shape[2:])
        if windows == 1:
            maps = [student, *(canonical(output, valid, mode=self._mode) for output in outputs[1:])]
        else:
            taught = canonical(torch.where(valid, teacher, 1.0), valid, mode=self._mode, windows=windows)
            maps = [canonical(output, valid, mode=self._mode, windows=windows) for output in outputs]
        return spatial(maps, taught, valid, keep=self._settings.keep)


def _unless_empty(term: Callable[[], Tensor], nothing: Tensor) -> Tensor:
    """A term, or nothing where the mask leaves none of the larger places that it looks at."""
    try:
        return term()
    except UsageError as error:
        if error.error_id != "loss.mask":
            raise
        return nothing
