"""Trinity distillation: a student learns where, what shape and which bands from a teacher, and what things mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.losses import LossWeights, depth_loss
from endolux.losses.canonical import CanonicalMode
from endolux.losses.smoothness import disparity_smoothness
from endolux.models import DepthNetwork
from endolux.models.ratio import RatioNetwork
from endolux.train.alignment import Alignment
from endolux.train.balance import TERMS, Balance, gradient_norm, last_convolution
from endolux.train.knowledge import check_preprocessing, open_teacher
from endolux.train.knowledge_source import KnowledgeSource, knowledge_folder
from endolux.train.panel import DOUBT, NO_LIMIT, SEMANTIC, Meaning, Panel, identity, prototypes_sha256
from endolux.train.prototype_files import check_shape, fitted_on, read_prototypes
from endolux.train.recipe import Distillation, LeveLoss, LogDepthLoss, Recipe
from endolux.train.recipe import Teacher as TeacherSection
from endolux.train.task import Batch, Progress, Start, Tensors, Update
from endolux.train.tasks.distillation import checked_loss
from endolux.train.tasks.supervised import SupervisedTask, build_network, ratio_loss
from endolux.train.tasks.video_losses import VideoLosses, snippet_tensors
from endolux.train.trinity_choices import canonical_mode, no_teacher, no_video, released, semantic_layer
from endolux.train.trinity_terms import TrinityTerms
from endolux.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.losses.prototypes import Prototypes
    from endolux.models.teachers import Teacher

TEACHER = "teacher"
_STRIDE = 16
_PATIENCE = 20


class TrinityTask(SupervisedTask):
    """``base + spatial + gradient + spectral + semantic + smoothness``, each with its weight.

    The teachers' maps, doubt and meanings come from the knowledge cache. The teacher sees the picture as stored, the
    student the augmented one. Everything but the student stays in the training: no export knows of it.

    Args:
        network: student.
        teacher: who is asked; None where no term needs one.
        loss: section of a recipe, for the labels.
        distillation: section of a recipe.
        source: section of a recipe: cache, sizes, agreement.
        second: another teacher, whose agreement is asked for.
        video: losses on snippets, for the base ``video``.

    Raises:
        UsageError: ``recipe.video``, ``recipe.teacher``, ``recipe.mode``, ``recipe.anchor``, ``recipe.loss``,
            ``recipe.distillation``; ``model.feature`` or ``teacher.feature`` for maps that do not exist.
    """

    needs_depth: ClassVar[bool] = False

    def __init__(
        self,
        network: DepthNetwork,
        teacher: Teacher | None,
        *,
        loss: LogDepthLoss | LeveLoss,
        distillation: Distillation,
        source: TeacherSection | None,
        second: Teacher | None = None,
        video: VideoLosses | None = None,
    ) -> None:
        super().__init__(network, loss=loss)
        self.teacher, self._second, self._source, self._distillation = teacher, second, source, distillation
        trinity, semantic = distillation.trinity, distillation.semantic
        self._video = video if distillation.base == "video" else None
        if distillation.base == "video":
            if video is None:
                raise no_video()
            self.networks |= video.networks()
            # The engine sets the task's context after this.
            video.autocast = lambda: self.autocast()
        taught = trinity.weight > 0 or semantic.weight > 0
        if taught and (teacher is None or source is None):
            raise no_teacher()
        if not taught and distillation.base == "none":
            raise UsageError(
                "Nothing to learn from: base is none, and the weights of trinity and semantic are 0",
                why="A training needs labels, video or a teacher.",
                fix="Set distillation.base=labels, or a weight above 0.",
                error_id="recipe.distillation",
            )
        self.mode: CanonicalMode = "scale" if teacher is None else canonical_mode(teacher, distillation)
        self._terms = TrinityTerms(trinity, self.mode)
        self._student_layer: str | None = None
        self._teacher_layer = ""
        self._alignment: Alignment | None = None
        if semantic.weight > 0 and teacher is not None:
            self._student_layer = semantic_layer(network.feature_names(), semantic.student_layer, network.architecture)
            self._teacher_layer = semantic_layer(
                teacher.feature_names(), semantic.teacher_layer, teacher.name, taught=True
            )
            channels = network.feature_names()[self._student_layer]
            self._alignment = Alignment(channels, teacher.feature_names()[self._teacher_layer], semantic)
            self.networks["alignment"] = self._alignment
        weights = {name: trinity.weight * getattr(trinity, name) for name in TERMS[:3]}
        self._balance = Balance({**weights, "semantic": semantic.weight})
        if trinity.balance_step is not None and taught:
            self.networks["balance"] = self._balance
        self._knowledge: KnowledgeSource | None = None
        self._layers: tuple[str, ...] = ()
        self._progress = Progress(step=0, steps=1, steps_per_epoch=1)
        self._unbalanced_step: int | None = None
        self._without = {"pixels": 0, "labels": 0}

    @classmethod
    @override
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build the student, then open the teachers: the student's first weights do not depend on who teaches.

        Raises:
            UsageError: what the student, the losses and the teachers say.
            ModelError: a teacher cannot be had.
        """
        distillation = recipe.distillation or Distillation()
        for name, weight in (
            ("feature", distillation.feature.weight),
            ("relation", distillation.relation.weight),
        ):
            if weight > 0:
                raise UsageError(
                    f"distillation.{name}.weight is {weight}, and the task is trinity",
                    why="These terms belong to the task 'distillation'.",
                    fix=f"Set distillation.{name}.weight=0; distillation.semantic aligns features here.",
                    error_id="recipe.distillation",
                )
        taught = distillation.trinity.weight > 0 or distillation.semantic.weight > 0
        section = recipe.teacher
        if taught and section is None:
            raise no_teacher()
        network = build_network(recipe)
        video = None
        if distillation.base == "video":
            if recipe.video is None:
                raise no_video()
            video = VideoLosses.from_settings(recipe.video, depth_range=network.depth_range())
        teacher = second = None
        if taught and section is not None:
            teacher = open_teacher(section.model, input_size=section.input_size)
            if section.second is not None:
                second = open_teacher(section.second.model, input_size=section.second.input_size)
        return cls(
            network,
            teacher,
            loss=checked_loss(recipe.loss),
            distillation=distillation,
            source=section,
            second=second,
            video=video,
        )

    @override
    def updates(self) -> Sequence[Update]:
        """One, of the student and what is trained with it; before it that of optical flow, where video has one."""
        flow = None if self._video is None else self._video.flow_update()
        names = tuple(name for name in self.networks if name not in ("balance", "flow"))
        depth = Update(name="depth", networks=names, loss=self._trinity, weight=self._usable)
        return [*([flow] if flow is not None else []), depth]

    @override
    def begin(self, start: Start) -> None:
        """Fit prototypes, or take those of the run; open the cache, and fill it where the run will need all of it.

        Raises:
            UsageError: ``distillation.preprocessing``; prototypes cannot be fitted; the cache cannot be written.
            ModelError: ``loss.prototypes`` for prototypes of another teacher.
        """
        if self.teacher is None or self._source is None:
            return
        if self._second is not None:
            height, width = start.image(0).shape[:2]
            check_preprocessing(self._second, picture_size=(width, height), training_size=start.size)
        meaning = None
        if self._alignment is not None:
            grid = (max(1, -(-start.size[1] // _STRIDE)), max(1, -(-start.size[0] // _STRIDE)))
            prototypes = self._prototypes(self._alignment, self.teacher, start, grid)
            temperature = self._distillation.semantic.temperature if self._alignment.assigned else None
            meaning = Meaning(layer=self._teacher_layer, prototypes=prototypes, grid=grid, temperature=temperature)
        panel = Panel(
            self.teacher,
            mode=self.mode,
            mask=self._distillation.mask,
            second=self._second,
            agreement=self._source.agreement if self._second is not None else None,
            meaning=meaning,
        )
        self._layers = tuple(panel.feature_names())
        self._knowledge = KnowledgeSource(panel, self._source, features=self._layers, grid=NO_LIMIT)
        self._knowledge.begin(start)

    @override
    def advance(self, progress: Progress) -> None:
        """Set the schedule of the terms."""
        self._progress = progress
        self._terms.release(released(self._distillation.trinity.release, progress))
        balance_step = self._distillation.trinity.balance_step
        due = balance_step is not None and progress.step >= balance_step and not self._balance.done
        self._unbalanced_step = progress.step if due and "balance" in self.networks else None

    @override
    def prepare(self, batch: Batch, device: torch.device) -> Tensors:
        """As any task, and ``mask``: where the teacher may be believed, N x 1 x H x W."""
        tensors = super().prepare(batch, device)
        if self._video is not None:
            tensors = snippet_tensors(tensors)
        if TEACHER in tensors:
            taught = tensors[TEACHER] = tensors[TEACHER][:, None]
            mask = torch.isfinite(taught)
            if DOUBT in tensors:
                doubt = F.interpolate(tensors[DOUBT], taught.shape[2:], mode="bilinear", align_corners=False)
                mask &= doubt <= 1.0
            tensors["mask"] = mask
        return tensors

    @override
    def extras(self, image: ImageArray, key: str) -> Mapping[str, FloatArray]:
        """What the teachers say about a stored picture: ``teacher``, ``doubt`` and ``semantic``."""
        if self._knowledge is None:
            return {}
        known = self._knowledge.get(image)
        return {TEACHER: known.map, **{name: known.features[name] for name in self._layers}}

    @override
    def validation(self, network: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
        """The loss of the labels, where there are any to learn from."""
        return super().validation(network, tensors) if self._distillation.base == "labels" else {}

    @override
    def summary(self) -> Mapping[str, object]:
        """Who teaches, in which mode, and the identity of what is learnt from."""
        facts: dict[str, object] = {"base": self._distillation.base}
        if self._knowledge is not None:
            facts |= {**self._knowledge.summary(), "mode": self.mode}
        if self._alignment is not None:
            fitted = self._alignment.prototypes()
            facts |= {"teacher_layer": self._teacher_layer, "student_layer": self._student_layer}
            facts["prototypes_sha256"] = None if fitted is None else prototypes_sha256(fitted)
        return facts

    def _prototypes(self, alignment: Alignment, teacher: Teacher, start: Start, grid: tuple[int, int]) -> Prototypes:
        settings, source = self._distillation.semantic, self._source
        kept = alignment.prototypes()
        if kept is not None:
            kept.require(identity(teacher, self._teacher_layer))
            return kept
        if settings.fitted is not None:
            found = read_prototypes(settings.fitted)
            found.require(identity(teacher, self._teacher_layer))
            check_shape(found, settings, teacher.feature_names()[self._teacher_layer], settings.fitted)
        else:
            cache = source.cache if source is not None else None
            found, path = fitted_on(
                teacher,
                self._teacher_layer,
                settings,
                folder=cache or knowledge_folder(start),
                count=start.count,
                image=start.image,
                grid=grid,
            )
            start.tell({"message": f"Prototypes of '{teacher.name}', layer {self._teacher_layer}: '{path}'."})
        alignment.keep(found)
        return found

    def _usable(self, tensors: Tensors) -> Tensor:
        """Images that the mean of the loss runs over: those with anything to learn from."""
        depth = tensors["depth"]
        usable = torch.zeros(len(depth), dtype=torch.bool, device=depth.device)
        if "mask" in tensors:
            usable |= tensors["mask"].flatten(1).any(dim=1)
        if self._distillation.base == "labels":
            usable |= (torch.isfinite(depth) & (depth > 0)).flatten(1).any(dim=1)
        if self._distillation.base == "video":
            usable[:] = True
        return usable.sum().float()

    def _trinity(self, tensors: Tensors) -> dict[str, Tensor]:
        student = self._student(tensors["image"])
        total, parts = self._base(student, tensors)
        if "mask" in tensors:
            terms = self._terms(student.disparities, tensors[TEACHER], tensors["mask"])
            if self._alignment is not None:
                terms["semantic"] = self._semantic(student, tensors)
            if self._unbalanced_step is not None:
                self._settle(student, tensors, terms)
            weights = self._balance.weights()
            total = total + torch.stack([weights[name] * term for name, term in terms.items()]).sum()
            parts |= {name: term.detach() for name, term in terms.items()}
            parts |= self._counted(tensors["mask"])
        if self._distillation.smooth > 0:
            smooth = disparity_smoothness(student.disparities[0], tensors["image"])
            total = total + self._distillation.smooth * smooth
            parts["smooth"] = smooth.detach()
        return {"total": total, **parts}

    def _student(self, image: Tensor) -> Student:
        names = [] if self._student_layer is None else [self._student_layer]
        network = self._network
        if not isinstance(network, RatioNetwork):
            with self.autocast():
                disparities, maps = network.with_disparities(image, names)
            return Student(disparities=tuple(disparities), output=None, maps=maps)
        with self.autocast():
            output, maps = network.with_features(image, names)
        output = output.float()
        return Student(disparities=(positive_ratio(output) / network.max_depth_mm,), output=output, maps=maps)

    def _base(self, student: Student, tensors: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        finest, depth = student.disparities[0], tensors["depth"]
        if self._distillation.base == "none":
            # Keeps a gradient, of 0, for batches that have nothing else.
            return finest.sum() * 0.0, {}
        if self._video is not None:
            parts = self._video.depth_losses(student.disparities, tensors)
            return parts.pop("total"), parts
        labelled = (torch.isfinite(depth) & (depth > 0)).flatten(1).any(dim=1)
        self._count("labels", bool(labelled.any()), "distillation.labels", "No picture has depth")
        if isinstance(self._settings, LeveLoss) and student.output is not None:
            parts = ratio_loss(self._network, student.output, depth, self._settings)
        else:
            weights = LossWeights(**self._settings.model_dump(exclude={"kind", "mode", "dynamic_range", "mask"}))
            parts = depth_loss(-finest.log(), depth, weights=weights)
        total = parts.pop("total")
        renamed = {f"labels_{name}" if name in TERMS else name: value for name, value in parts.items()}
        return total, {**renamed, "labelled": labelled.float().mean()}

    def _semantic(self, student: Student, tensors: Tensors) -> Tensor:
        features = student.maps[self._student_layer or ""]
        mask = tensors["mask"]
        alignment = self.networks["alignment"]
        if not bool(_whole_cells(mask, features).any()):
            return features.float().sum() * 0.0
        with self.autocast():
            loss: Tensor = alignment(features, tensors[SEMANTIC], mask)
        return loss

    def _settle(self, student: Student, tensors: Tensors, terms: Mapping[str, Tensor]) -> None:
        """Rescale the weights, once, with every term as it will be when all is released."""
        self._unbalanced_step = None
        whole = self._terms(student.disparities, tensors[TEACHER], tensors["mask"], everything=True)
        place = last_convolution(student.disparities[0])
        norms = {name: gradient_norm(term, place) for name, term in whole.items()}
        pairs = {name: (norm, norms["spatial"]) for name, norm in norms.items()}
        if "semantic" in terms:
            features = student.maps[self._student_layer or ""]
            pairs["semantic"] = (gradient_norm(terms["semantic"], features), gradient_norm(whole["spatial"], features))
        self._balance.settle(pairs, self._distillation.trinity.balance)

    def _counted(self, mask: Tensor) -> dict[str, Tensor]:
        """How much of the teacher counts; refuses a training of which nothing does."""
        images = mask.flatten(1).any(dim=1)
        why = "Field of view, highlights, the teacher's doubt and silence took every pixel"
        self._count("pixels", bool(images.any()), "distillation.mask", why)
        return {"valid": mask.float().mean(), "empty": (~images).sum().float()}

    def _count(self, name: str, found: bool, error_id: str, why: str) -> None:
        self._without[name] = 0 if found else self._without[name] + 1
        if self._without[name] < _PATIENCE:
            return
        raise UsageError(
            f"Nothing to learn from in {_PATIENCE} batches in a row",
            why=f"{why}.",
            fix="Look at distillation.mask and teacher.agreement, or at the teacher's maps."
            if name == "pixels"
            else "Give data with depth, or set distillation.base=none.",
            error_id=error_id,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Student:
    """What a student gives in one pass.

    Attributes:
        disparities: positive inverse depths, finest first.
        output: of a ratio network; None for others.
        maps: features by name.
    """

    disparities: tuple[Tensor, ...]
    output: Tensor | None
    maps: Mapping[str, Tensor]


def positive_ratio(ratio: Tensor) -> Tensor:
    """A ratio network's output without its bound at 1, where no gradient would pass: exp(r - 1) below it.

    Example:
        >>> positive_ratio(torch.tensor([3.0, 1.0, 0.0])).tolist()
        [3.0, 1.0, 0.3678794503211975]
    """
    return torch.where(ratio > 1.0, ratio, torch.exp(ratio.clamp(max=1.0) - 1.0)).clamp(min=1e-6)


def _whole_cells(mask: Tensor, features: Tensor) -> Tensor:
    size = (features.shape[2], features.shape[3])
    return F.adaptive_max_pool2d((~mask).float(), size) == 0.0
