"""Distillation: supervised training in which another model has a say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.losses import LossWeights, depth_loss
from endolux.losses.distillation import (
    FLOOR,
    FeatureProjector,
    Shift,
    feature_loss,
    relation_loss,
    response_loss,
    shift_teacher,
    total,
)
from endolux.models import DepthNetwork
from endolux.models.ratio import RatioNetwork, from_ratio
from endolux.train.knowledge import KnowledgeCache, open_teacher
from endolux.train.knowledge_source import KnowledgeSource
from endolux.train.recipe import Distillation, L1Loss, LandmarkLoss, LeveLoss, LogDepthLoss, Recipe
from endolux.train.recipe import Teacher as TeacherSection
from endolux.train.task import Start, Tensors, Update
from endolux.train.tasks.supervised import SupervisedTask, build_network, ratio_loss
from endolux.types import DepthKind, FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.models.teachers import Teacher

TEACHER, FEATURE = "teacher", "feature."


class DistillationTask(SupervisedTask):
    """``(1 - epsilon) student + epsilon response``, and weighted feature and relation terms.

    The student learns inverse depth from the teacher: its own output where that is a ratio, ``1 / depth`` otherwise.
    A teacher of depth is inverted; the zero of its inverse means infinity, so that nothing is subtracted from it
    (``shift: add`` does as coded for any teacher). What the teacher does not know, and what the augmentation painted
    over, takes no part.

    Args:
        network: student.
        teacher: who is asked.
        loss: section of a recipe, for the student's own term.
        distillation: section of a recipe.
        source: section of a recipe: cache, sizes, features.

    Raises:
        UsageError: ``recipe.loss``, ``model.feature`` or ``teacher.feature`` for maps that do not exist.
    """

    def __init__(
        self,
        network: DepthNetwork,
        teacher: Teacher,
        *,
        loss: LogDepthLoss | LeveLoss,
        distillation: Distillation,
        source: TeacherSection,
    ) -> None:
        super().__init__(network, loss=loss)
        self.teacher, self._distillation = teacher, distillation
        pairs = distillation.feature.pairs if distillation.feature.weight > 0 else ()
        self._pairs = tuple((pair.student, pair.teacher) for pair in pairs)
        if distillation.feature.weight > 0 and not pairs:
            raise UsageError(
                f"distillation.feature.weight is {distillation.feature.weight}, and no pairs are named",
                why="A feature of the student learns from a named one of the teacher.",
                fix="Add distillation.feature.pairs=[{student: NAME, teacher: NAME}], or set the weight to 0.",
                error_id="recipe.pairs",
            )
        self._features = tuple(sorted({*source.features, *(name for _, name in self._pairs)}))
        self._knowledge = KnowledgeSource(teacher, source, features=self._features)
        if self._pairs:
            # Refuses unknown names with the nearest one, before anything is computed.
            network._check_features([name for name, _ in self._pairs])
            channels = {
                f"{student}>{taught}": (network.feature_names()[student], teacher.feature_names()[taught])
                for student, taught in self._pairs
            }
            self.networks["projector"] = FeatureProjector(channels)

    @classmethod
    @override
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build the student, then open the teacher: the student's first weights do not depend on who teaches.

        Raises:
            UsageError: ``recipe.teacher`` without a teacher; what the student, the losses and the teacher say.
            ModelError: the teacher cannot be had.
        """
        if recipe.teacher is None:
            raise UsageError(
                f"The recipe '{recipe.name}' distils, and has no teacher",
                why="Distillation needs a model to learn from.",
                fix="Add teacher.model=BUNDLE, for instance teacher.model=repdepth-colon.",
                error_id="recipe.teacher",
            )
        distillation = recipe.distillation or Distillation()
        if distillation.relation.weight > 0 and distillation.relation.kind == "similarity" and recipe.batch < 2:
            raise UsageError(
                "distillation.relation.kind is similarity, and the batch is 1",
                why="It compares the images of a batch with one another.",
                fix="Use batch=2 or more, or relation.kind=distance.",
                error_id="recipe.relation",
            )
        network = build_network(recipe)
        teacher = open_teacher(recipe.teacher.model, input_size=recipe.teacher.input_size)
        return cls(network, teacher, loss=checked_loss(recipe.loss), distillation=distillation, source=recipe.teacher)

    @override
    def updates(self) -> Sequence[Update]:
        """One, of the student and, for features, the projector."""
        return [Update(name="depth", networks=tuple(self.networks), loss=self._distilled, weight=self._weight)]

    @override
    def begin(self, start: Start) -> None:
        """Open the cache, and fill it where the run will need all of it.

        Raises:
            UsageError: ``distillation.preprocessing``; the cache cannot be written.
        """
        self._knowledge.begin(start)

    def open_cache(self, folder: Path, size: tuple[int, int]) -> KnowledgeCache:
        """The cache of this teacher for training at ``size`` (width, height), in the recipe's folder or ``folder``."""
        return self._knowledge.open(folder, size)

    @override
    def extras(self, image: ImageArray, key: str) -> Mapping[str, FloatArray]:
        """What the teacher says about a stored picture: ``teacher`` and ``feature.NAME``."""
        known = self._knowledge.get(image)
        return {TEACHER: known.map} | {f"{FEATURE}{name}": known.features[name] for name in self._features}

    @override
    def summary(self) -> Mapping[str, object]:
        """Who teaches, and the identity of what is learnt from."""
        return self._knowledge.summary()

    def _shift(self) -> Shift:
        shift = self._distillation.response.shift
        return shift if shift == "add" or self.teacher.kind is DepthKind.RELATIVE_DISPARITY else "none"

    def _distilled(self, tensors: Tensors) -> dict[str, Tensor]:
        image, depth, chosen = tensors["image"], tensors["depth"], self._distillation
        student, inverse, maps = self._outputs(image, depth)
        map_ = tensors[TEACHER][:, None]
        known = torch.isfinite(map_)
        taught = shift_teacher(torch.where(known, map_, 0.0), self._shift(), mask=known)
        parts = {name: value for name, value in student.items() if name != "total"}
        # A ratio may be anything before it is trained; the other students' inverse depth is positive and may be small.
        floor = FLOOR if isinstance(self._settings, LeveLoss) else 0.0
        response = response_loss(inverse, taught, maximum=chosen.response.maximum, mask=known, floor=floor)
        value = total(student["total"], response, epsilon=chosen.response.epsilon)
        parts |= {"student": student["total"].detach(), "response": response.detach()}
        if self._pairs:
            feature = self._feature_term(maps, tensors)
            value = value + chosen.feature.weight * feature
            parts["feature"] = feature.detach()
        if chosen.relation.weight > 0:
            relation = relation_loss(inverse, taught, kind=chosen.relation.kind, size=chosen.relation.grid, mask=known)
            value = value + chosen.relation.weight * relation
            parts["relation"] = relation.detach()
        return {"total": value, **parts}

    def _outputs(self, image: Tensor, depth: Tensor) -> tuple[dict[str, Tensor], Tensor, Mapping[str, Tensor]]:
        """The student's own loss, its inverse depth, and its maps."""
        network, names = self._network, sorted({name for name, _ in self._pairs})
        ratio = network if isinstance(network, RatioNetwork) else None
        maps: Mapping[str, Tensor] = {}
        with self.autocast():
            if ratio is not None or names:
                output, maps = network.with_features(image, names)
            else:
                output = network.log_depth(image)
        output = output.float()
        if isinstance(self._settings, LeveLoss):
            return ratio_loss(network, output, depth, self._settings), output, maps
        if ratio is not None:
            output = from_ratio(output, ratio.max_depth_mm).log()
        elif names:
            output = output.log()
        weights = LossWeights(**self._settings.model_dump(exclude={"kind"}))
        return depth_loss(output, depth, weights=weights), torch.exp(-output), maps

    def _feature_term(self, maps: Mapping[str, Tensor], tensors: Tensors) -> Tensor:
        projector: nn.Module = self.networks["projector"]
        terms = []
        for student, taught in self._pairs:
            with self.autocast():
                projected = projector(f"{student}>{taught}", maps[student])
            terms.append(feature_loss(projected, tensors[f"{FEATURE}{taught}"], kind=self._distillation.feature.kind))
        return torch.stack(terms).mean()


def checked_loss(loss: LogDepthLoss | LeveLoss | L1Loss | LandmarkLoss) -> LogDepthLoss | LeveLoss:
    """The loss of the labels beside a teacher's knowledge.

    Raises:
        UsageError: ``recipe.loss`` for one that has no place there.

    Example:
        >>> checked_loss(LogDepthLoss()).kind
        'log-depth'
    """
    if isinstance(loss, L1Loss | LandmarkLoss):
        raise UsageError(
            f"loss.kind is {loss.kind}, and the task distils",
            why="Students learn ratios or the logarithm of depth beside a teacher's inverse depth.",
            fix="Use loss.kind=log-depth, or leve for the Leve and GuideDepth networks.",
            error_id="recipe.loss",
        )
    return loss
