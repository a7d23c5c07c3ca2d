"""Teachers as the trinity asks them: the map, how far it is to be doubted, and what the picture means where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from endolux.errors import UsageError
from endolux.losses.canonical import CanonicalMode, canonical
from endolux.losses.prototypes import Prototypes, assign, whiten
from endolux.losses.validity import speculars
from endolux.models.teachers import Teacher
from endolux.prep.content_area import find_content_area
from endolux.train.knowledge import check_answer
from endolux.train.knowledge_codec import pooled
from endolux.types import DepthKind, FloatArray, ImageArray, MaskArray

if TYPE_CHECKING:
    from endolux.train.recipe_distillation import Agreement, Validity

DOUBT, SEMANTIC = "doubt", "semantic"
NO_LIMIT = (10**6, 10**6)
"""Grid of a cache that keeps a panel's maps as they come."""
_MOST = 2.0
_COARSER = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Meaning:
    """What is kept of a teacher's features.

    Attributes:
        layer: whose.
        prototypes: fitted on them.
        grid: (rows, columns) of the result.
        temperature: of the assignments; None keeps the whitened features instead.
    """

    layer: str
    prototypes: Prototypes
    grid: tuple[int, int]
    temperature: float | None


class Panel(Teacher):
    """A teacher, asked about the mirrored picture as well, and another one whose opinion counts as doubt.

    Its map is the first teacher's, NaN outside the endoscope's picture and on highlights. Layers beside it:

    * ``doubt``, 1 x h/4 x w/4: the difference between two answers in parts of what is still believed, at most 2; the
      larger one of (picture, mirrored picture) and (first teacher, second teacher). Believed is what is at most 1.
    * ``semantic``, K or D x rows x columns: assignments to prototypes, or whitened features.

    Args:
        first: who teaches.
        mode: of the canonical maps in which the answers are compared; two teachers of which one has an unknown shift
            are always compared in the affine one.
        mask: section of a recipe.
        second: whose agreement is asked for.
        agreement: section of a recipe.
        meaning: what is kept of the features.

    Raises:
        ModelError: ``loss.prototypes`` for prototypes of another teacher.

    Example:
        >>> from endolux.models.teachers import open_teacher
        >>> from endolux.train.recipe_distillation import Agreement, Validity
        >>> panel = Panel(open_teacher("repdepth-colon"), mode="scale", mask=Validity())
        >>> answer = panel.predict(np.full((64, 64, 3), 90, np.uint8), features=["doubt"])
        >>> answer.map.shape, answer.features["doubt"].shape
        ((64, 64), (1, 16, 16))
    """

    checked = True
    """What it says was looked at: nothing at all, of a black picture, is an answer."""

    def __init__(
        self,
        first: Teacher,
        *,
        mode: CanonicalMode,
        mask: Validity,
        second: Teacher | None = None,
        agreement: Agreement | None = None,
        meaning: Meaning | None = None,
    ) -> None:
        self._first, self._second, self._mode = first, second, mode
        self._mask, self._agreement, self._meaning = mask, agreement, meaning
        if meaning is not None:
            meaning.prototypes.require(identity(first, meaning.layer))
        self.kind = first.kind
        self.name = first.name if second is None else f"{first.name} and {second.name}"
        both = first.sha256 if second is None else f"{first.sha256} {second.sha256}"
        self.sha256 = first.sha256 if second is None else hashlib.sha256(both.encode()).hexdigest()

    @override
    def preprocessing(self) -> Mapping[str, object]:
        facts: dict[str, object] = {
            "by": "panel",
            "version": 1,
            "first": dict(self._first.preprocessing()),
            "mode": self._mode,
            "mask": self._mask.model_dump(mode="json"),
        }
        if self._second is not None and self._agreement is not None:
            facts["second"] = dict(self._second.preprocessing())
            facts["agreement"] = self._agreement.model_dump(mode="json")
        if self._meaning is not None:
            facts["semantic"] = {
                "layer": self._meaning.layer,
                "grid": list(self._meaning.grid),
                "temperature": self._meaning.temperature,
                "prototypes": prototypes_sha256(self._meaning.prototypes),
            }
        return facts

    @override
    def feature_names(self) -> Mapping[str, int]:
        names: dict[str, int] = {}
        if self._second is not None or self._mask.reliable < 1.0:
            names[DOUBT] = 1
        if self._meaning is not None:
            fitted = self._meaning.prototypes
            names[SEMANTIC] = len(fitted.whitening if self._meaning.temperature is None else fitted.centres)
        return names

    @override
    def squeezes(self, width: int, height: int) -> float:
        return self._first.squeezes(width, height)

    @override
    def _predict(
        self, image: ImageArray, size: tuple[int, int], features: Sequence[str]
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        meaning = self._meaning if SEMANTIC in features else None
        answer = self._first.predict(image, size=size, features=() if meaning is None else (meaning.layer,))
        check_answer(answer, self._first.name)
        taught = answer.knowledge()
        valid = np.isfinite(taught) & self._shown(image, size)
        if self._mode == "scale":
            valid &= taught > 0
        maps: dict[str, FloatArray] = {}
        if DOUBT in features:
            maps[DOUBT] = self._doubt(image, size, taught, valid)[None]
        if meaning is not None:
            maps[SEMANTIC] = _meant(answer.features[meaning.layer], meaning)
        return np.where(valid, answer.map, np.float32(np.nan)).astype(np.float32), maps

    def _shown(self, image: ImageArray, size: tuple[int, int]) -> MaskArray:
        """Where there is a picture of tissue to learn from."""
        shown = np.ones(size[::-1], np.bool_)
        if self._mask.field:
            shown &= find_content_area(image).mask(*size)
        if self._mask.speculars:
            small = image if image.shape[:2] == size[::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            pixels = torch.tensor(np.asarray(small)).permute(2, 0, 1)[None].float() / 255.0
            shown &= ~speculars(pixels)[0, 0].numpy()
        return shown

    def _doubt(self, image: ImageArray, size: tuple[int, int], taught: FloatArray, valid: MaskArray) -> FloatArray:
        doubt = np.zeros(size[::-1], np.float32)
        if self._mask.reliable < 1.0:
            flipped = self._first.predict(np.ascontiguousarray(image[:, ::-1]), size=size).knowledge()[:, ::-1]
            doubt = differing(taught, flipped, valid, mode=self._mode, share=self._mask.reliable)
        if self._second is not None and self._agreement is not None:
            other = self._second.predict(image, size=size)
            check_answer(other, self._second.name)
            affine = DepthKind.RELATIVE_DISPARITY in (self._first.kind, self._second.kind)
            apart = differing(
                taught,
                other.knowledge(),
                valid,
                mode="affine" if affine else self._mode,
                share=self._agreement.share,
                limit=self._agreement.limit,
            )
            doubt = np.maximum(doubt, apart)
        coarse = (max(1, size[0] // _COARSER), max(1, size[1] // _COARSER))
        return np.asarray(cv2.resize(doubt, coarse, interpolation=cv2.INTER_AREA), np.float32)


def differing(
    first: FloatArray,
    second: FloatArray,
    valid: MaskArray,
    *,
    mode: CanonicalMode,
    share: float | None = None,
    limit: float | None = None,
) -> FloatArray:
    """How far two maps of one picture differ, in parts of what is still accepted.

    Args:
        first: H x W inverse depth.
        second: H x W inverse depth.
        valid: pixels of the first that count.
        mode: of the canonical maps that are compared.
        share: accepted is what this share of the pixels stays below;
        limit: or this.

    Returns:
        H x W, 0 to 2, accepted up to 1: 2 where the second map has nothing to compare with, 0 outside ``valid``.

    Example:
        >>> first = np.ones((2, 4), np.float32)
        >>> second = np.array([[1, 1, 1, 1], [1, 1, 1, 2]], np.float32)
        >>> differing(first, second, np.ones((2, 4), bool), mode="scale", share=0.5).tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]]
    """
    both = valid & np.isfinite(second)
    if mode == "scale":
        both &= second > 0
    result = np.where(valid, np.float32(_MOST), np.float32(0))
    if not both.any():
        return result
    mask = torch.from_numpy(both)[None, None]
    maps = [torch.from_numpy(np.where(both, values, np.float32(1)))[None, None] for values in (first, second)]
    one, other = (canonical(values, mask, mode=mode)[0, 0].numpy() for values in maps)
    apart = np.abs(one - other)
    accepted = limit if limit is not None else float(np.quantile(apart[both], share if share is not None else 1.0))
    if accepted > 0.0:
        parts = np.minimum(apart / np.float32(accepted), np.float32(_MOST))
    else:
        parts = np.where(apart > 0.0, np.float32(_MOST), np.float32(0))
    return np.where(both, parts, result).astype(np.float32)


def identity(teacher: Teacher, layer: str) -> str:
    """Which features these are: layer, and a hash of weights and preprocessing."""
    facts = json.dumps([teacher.sha256, dict(teacher.preprocessing())], sort_keys=True)
    return f"{layer}@{hashlib.sha256(facts.encode()).hexdigest()[:24]}"


def prototypes_sha256(prototypes: Prototypes) -> str:
    """Hash of fitted prototypes, the teacher's identity included."""
    digest = hashlib.sha256(prototypes.teacher.encode())
    for tensor in (prototypes.mean, prototypes.whitening, prototypes.centres):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tokens(feature: FloatArray, grid: tuple[int, int]) -> Tensor:
    """C x h x w at most of the grid's size, as prototypes are fitted on and assigned from."""
    if feature.ndim != 3:
        raise UsageError(
            f"A layer of shape {feature.shape}",
            why="A map has channels, rows and columns.",
            fix="Name another teacher_layer.",
            error_id="teacher.feature",
        )
    return torch.from_numpy(np.ascontiguousarray(pooled(feature, grid)))


def _meant(feature: FloatArray, meaning: Meaning) -> FloatArray:
    fitted = meaning.prototypes
    white = whiten(tokens(feature, meaning.grid)[None], fitted, meaning.grid, teacher=fitted.teacher)
    if meaning.temperature is not None:
        white = assign(white, fitted, temperature=meaning.temperature)
    return np.asarray(white[0].float().cpu().numpy(), np.float32)
