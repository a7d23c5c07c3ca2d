"""Training on landmarks: pictures with drawn classes, one network."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import InputError, UsageError
from endolux.losses.guidance import edge_loss, prototype_loss
from endolux.losses.segmentation import NO_CLASS, dice_loss, entropy_loss, inverse_depth_loss, one_hot
from endolux.metrics.checks import EmptyMaskWarning
from endolux.metrics.segmentation import SegmentationScores, segmentation_scores
from endolux.metrics.segmentation_published import assd_as_published, overlap_as_published
from endolux.metrics.segmentation_summary import summarise_segmentation
from endolux.models import create_landmarks
from endolux.models.d2gpland import D2gplandNetwork, Guided
from endolux.models.landmark_network import LandmarkNetwork
from endolux.models.landmarks import SrftGaloreNetwork
from endolux.models.parts import parts
from endolux.train.recipe import LandmarkLoss, Recipe
from endolux.train.task import Task, Tensors, Update


class SegmentationTask(Task):
    """One network, its loss against drawn classes.

    Args:
        network: to train.
        loss: section of a recipe.

    Raises:
        UsageError: ``recipe.loss`` for weights that are not one a class.

    Example:
        >>> from endolux.train.recipe import load_recipe
        >>> task = SegmentationTask.from_recipe(load_recipe("landmarks-light"))
        >>> [update.name for update in task.updates()]
        ['landmarks']
    """

    needs_depth: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    def __init__(self, network: LandmarkNetwork, *, loss: LandmarkLoss) -> None:
        if loss.weights is not None and len(loss.weights) != len(network.classes):
            raise UsageError(
                f"{len(loss.weights)} weights for {len(network.classes)} classes",
                why=f"Every class has one: {', '.join(network.classes)}.",
                fix="Correct loss.weights, or leave it out.",
                error_id="recipe.loss",
            )
        self.networks: dict[str, nn.Module] = {"network": network}
        self.exported = "network"
        self._network, self._settings = network, loss

    @classmethod
    @override
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build the recipe's network, with pretrained encoders where it names them."""
        if not isinstance(recipe.loss, LandmarkLoss):
            raise UsageError(
                f"The loss '{recipe.loss.kind}' with the task 'segmentation'",
                why="It compares depth.",
                fix="Use loss.kind=landmarks.",
                error_id="recipe.loss",
            )
        return cls(build_landmarks(recipe), loss=recipe.loss)

    @override
    def updates(self) -> Sequence[Update]:
        """One."""
        return [Update(name="landmarks", networks=("network",), loss=self._loss)]

    def loss_of(self, network: LandmarkNetwork, tensors: Tensors) -> dict[str, Tensor]:
        """The loss and its parts."""
        settings = self._settings
        inverse = tensors["inverse_depth"][:, None]
        if network.reads_depth:
            _require_depth(inverse)
        guided: Guided | None = None
        with self.autocast():
            # Unknown depth is far away to a network that reads it.
            seen = torch.nan_to_num(inverse)
            if isinstance(network, D2gplandNetwork):
                guided = network.guided(tensors["image"], seen)
                scores, depth = guided.scores, None
            else:
                scores, depth = network.with_inverse_depth(tensors["image"], seen)
        scores = scores.float()
        target = one_hot(tensors["landmarks"], len(network.classes), scores.shape[2:])
        dice = dice_loss(scores.softmax(dim=1), target)
        entropy = entropy_loss(scores, target, mode=settings.mode, weights=settings.weights)
        total = settings.dice * dice + settings.entropy * entropy
        losses = {"dice": dice.detach(), "entropy": entropy.detach()}
        if depth is not None and settings.depth > 0:
            aside = inverse_depth_loss(depth, inverse)
            total = total + settings.depth * aside
            losses["depth"] = aside.detach()
        if guided is not None and isinstance(network, D2gplandNetwork):
            # Weight 1 each, as published.
            edges = edge_loss(guided.edges.float(), target)
            apart = prototype_loss(
                guided.prototypes.float(), guided.depth.float(), target, mode=network.config()["similarity"]
            )
            total = total + edges + apart
            losses |= {"edges": edges.detach(), "prototypes": apart.detach()}
        return {"total": total, **losses}

    @override
    def examine(self, network: nn.Module, batches: Iterable[Tensors]) -> Mapping[str, float]:
        """Loss, and the metrics of ``endolux evaluate`` at the size of the training pictures.

        ``pooled_dsc``, ``pooled_iou``, ``macro_dsc``, ``macro_iou``, ``assd`` (px), ``miss_rate``,
        ``false_alarm_rate``; ``dsc/CLASS``, ``iou/CLASS``, ``assd/CLASS``; ``d2gpland_dsc``, ``d2gpland_iou``,
        ``d2gpland_plus_assd``, ``srft_galore_assd`` as published; ``images`` and ``empty``. What nothing was measured
        of is NaN.
        """
        if not isinstance(network, LandmarkNetwork):
            return {}
        numbers = range(1, len(network.classes))
        scores: list[SegmentationScores] = []
        published: list[tuple[float, float, float, float]] = []
        losses: list[tuple[float, int]] = []
        with warnings.catch_warnings():
            # Empty classes are counted in the summary.
            warnings.simplefilter("ignore", EmptyMaskWarning)
            for tensors in batches:
                losses.append((float(self.loss_of(network, tensors)["total"]), len(tensors["image"])))
                for predicted, truth in zip(_predicted(self, network, tensors), _truth(tensors), strict=True):
                    scores.append(segmentation_scores(predicted, truth, classes=tuple(numbers)))
                    published.append(
                        (
                            *overlap_as_published(predicted, truth, classes=tuple(numbers)),
                            assd_as_published(predicted, truth, reproduce="d2gpland-plus", classes=tuple(numbers)),
                            assd_as_published(predicted, truth, reproduce="srft-galore", classes=tuple(numbers)),
                        )
                    )
            summary = summarise_segmentation(scores)
        total = sum(count for _, count in losses)
        found = {"loss": sum(value * count for value, count in losses) / total}
        names = ("pooled_dsc", "pooled_iou", "macro_dsc", "macro_iou", "assd", "miss_rate", "false_alarm_rate")
        found |= {name: float(getattr(summary, name)) for name in names}
        found |= {"images": float(summary.images), "empty": float(summary.empty)}
        for number in numbers:
            one = summary.classes[number]
            found |= {f"{name}/{network.classes[number]}": getattr(one, name) for name in ("dsc", "iou", "assd")}
        for name, values in zip(
            ("d2gpland_dsc", "d2gpland_iou", "d2gpland_plus_assd", "srft_galore_assd"),
            np.array(published).T,
            strict=True,
        ):
            known = values[np.isfinite(values)]
            found[name] = float(known.mean()) if known.size else float("nan")
        return found

    @override
    def summary(self) -> Mapping[str, object]:
        return {
            "classes": list(self._network.classes),
            "trained_parameters": sum(p.numel() for p in self._network.parameters() if p.requires_grad),
            "parameters": sum(p.numel() for p in self._network.parameters()),
        }

    def _loss(self, tensors: Tensors) -> dict[str, Tensor]:
        return self.loss_of(self._network, tensors)


def _require_depth(inverse: Tensor) -> None:
    if bool(torch.isfinite(inverse).flatten(1).any(dim=1).all()):
        return
    raise InputError(
        "A picture has no depth, and the network reads it",
        why="Without it the network would learn from an empty map.",
        fix="Put monocular depth beside it (depth_AdelaiDepth/NAME.png in L3D), or train a network that reads none.",
        error_id="train.no-depth",
    )


def _predicted(task: SegmentationTask, network: LandmarkNetwork, tensors: Tensors) -> np.ndarray:
    image = tensors["image"]
    with task.autocast():
        if network.reads_depth:
            inverse = torch.nan_to_num(tensors["inverse_depth"][:, None])
            scores = network.with_inverse_depth(image, inverse)[0]
            scores = nn.functional.interpolate(scores.float(), image.shape[2:], mode="bilinear", align_corners=False)
        else:
            scores = network.probabilities(image)
    return np.asarray(scores.argmax(dim=1).to(torch.uint8).cpu().numpy())


def _truth(tensors: Tensors) -> np.ndarray:
    labels = np.asarray(tensors["landmarks"].cpu().numpy())
    return np.where(labels == NO_CLASS, 0, labels)


def build_landmarks(recipe: Recipe) -> LandmarkNetwork:
    """The recipe's network with fresh weights, those of another run, or with pretrained encoders.

    Raises:
        UsageError: unknown architecture or arguments; ``recipe.segmentation`` for encoders that it does not have.
        ModelError: ``model.checkpoint``, ``model.variant``, ``teacher.*`` where weights cannot be had or do not fit.
    """
    from endolux.train.initial_encoders import load_encoders
    from endolux.train.initial_weights import load_landmarks_into

    name, settings = recipe.model.name, recipe.segmentation
    if name not in parts() or recipe.model.adapt is not None or recipe.model.imagenet is not None:
        raise UsageError(
            f"The task 'segmentation' with the network '{name}'"
            + (" and model.adapt or model.imagenet" if name in parts() else ""),
            why="It trains networks of landmarks: landmarks-light, srft-galore and d2gpland.",
            fix="Set model.name to one of them; what is trained stands in model.config.encoders.",
            error_id="recipe.segmentation",
        )
    network = create_landmarks(name, **recipe.model.config)
    if settings is not None and (settings.image_encoder or settings.depth_encoder):
        if isinstance(network, D2gplandNetwork):
            network.load_encoders(settings.image_encoder, settings.depth_encoder)
        elif not isinstance(network, SrftGaloreNetwork):
            raise UsageError(
                f"Pretrained encoders for '{name}'",
                why="Only srft-galore and d2gpland are made of pretrained encoders.",
                fix="Leave the section 'segmentation' out.",
                error_id="recipe.segmentation",
            )
        else:
            load_encoders(network, settings.image_encoder, settings.depth_encoder)
    if recipe.model.initial is not None:
        load_landmarks_into(network, recipe.model.initial)
    return network
