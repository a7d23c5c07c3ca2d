"""Supervised training: images with depth, one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.losses import LossWeights, depth_loss
from endolux.losses.l1 import l1_loss
from endolux.losses.leve import student_loss
from endolux.losses.segmentation import inverse_depth_loss
from endolux.models import DepthNetwork, create
from endolux.models.depth_anything import DepthAnything
from endolux.models.fresh_decoder import start_afresh
from endolux.models.parts import Part
from endolux.models.ratio import RatioNetwork, to_ratio
from endolux.train.recipe import L1Loss, LandmarkLoss, LeveLoss, LogDepthLoss, Recipe
from endolux.train.task import Task, Tensors, Update


class SupervisedTask(Task):
    """One network, its loss against the true depth.

    Args:
        network: to train.
        loss: section of a recipe.

    Raises:
        UsageError: ``recipe.loss`` where the loss does not fit the network's output.

    Example:
        >>> from endolux.train.recipe import load_recipe
        >>> task = SupervisedTask(create("repdepth"), loss=load_recipe("repdepth").loss)
        >>> list(task.networks)
        ['network']
    """

    def __init__(self, network: DepthNetwork, *, loss: LogDepthLoss | LeveLoss | L1Loss) -> None:
        _check_target(network, loss)
        if isinstance(loss, LeveLoss) and not isinstance(network, RatioNetwork):
            raise UsageError(
                f"The loss 'leve' with the network '{network.architecture}'",
                why="It compares depth ratios, and this network gives depth.",
                fix="Use loss.kind=log-depth, or one of the Leve and GuideDepth networks.",
                error_id="recipe.loss",
            )
        self.networks: dict[str, nn.Module] = {"network": network}
        self.exported = "network"
        self._network, self._settings = network, loss

    @classmethod
    @override
    def from_recipe(cls, recipe: Recipe) -> Self:
        """Build the recipe's network."""
        if isinstance(recipe.loss, LandmarkLoss):
            raise TypeError("a recipe with the loss of landmarks has the task 'segmentation'")
        return cls(build_network(recipe), loss=recipe.loss)

    @override
    def updates(self) -> Sequence[Update]:
        """One."""
        return [Update(name="depth", networks=("network",), loss=self._loss, weight=self._weight)]

    @override
    def validation(self, network: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
        """The loss."""
        if not isinstance(network, DepthNetwork):
            return {}
        return {"loss": self.loss_of(network, tensors)["total"]}

    def loss_of(self, network: DepthNetwork, tensors: Tensors) -> dict[str, Tensor]:
        """The loss and its parts for a network's output."""
        image, depth = tensors["image"], tensors["depth"]
        if isinstance(self._settings, LeveLoss):
            with self.autocast():
                output = network(image)
            return ratio_loss(network, output, depth, self._settings)
        if isinstance(self._settings, L1Loss):
            return self._l1(network, image, depth, self._settings)
        with self.autocast():
            log_depth = network.log_depth(image)
        return depth_loss(log_depth, depth, weights=LossWeights(**self._settings.model_dump(exclude={"kind"})))

    def _l1(self, network: DepthNetwork, image: Tensor, depth: Tensor, settings: L1Loss) -> dict[str, Tensor]:
        own = isinstance(network, DepthAnything) and network.output == settings.target
        with self.autocast():
            # The network's own output is not cut off at its limits, where no gradient would pass.
            output = network(image) if own else network.depth(image)
        known = torch.isfinite(depth) & (depth > 0)
        safe = torch.where(known, depth, 1.0)
        if settings.target == "disparity":
            disparity = output.float() if own else 1.0 / output.float()
            value = inverse_depth_loss(disparity, torch.where(known, 1.0 / safe, torch.nan))
            return {"total": value, "disparity": value.detach()}
        inverse = settings.target == "inverse"
        target = settings.min_depth_mm / safe if inverse else safe / settings.max_depth_mm
        output = output.float()
        if not own:
            output = settings.min_depth_mm / output if inverse else output / settings.max_depth_mm
        value = l1_loss(output, target, known)
        return {"total": value, "l1": value.detach()}

    def _loss(self, tensors: Tensors) -> dict[str, Tensor]:
        return self.loss_of(self._network, tensors)

    def _weight(self, tensors: Tensors) -> Tensor:
        return loss_weight(tensors["depth"], self._settings)


def ratio_loss(network: nn.Module, output: Tensor, depth: Tensor, settings: LeveLoss) -> dict[str, Tensor]:
    """Leve's loss of a ratio network's output, N x 1 x H x W, against depth in mm (0 where unknown)."""
    if not isinstance(network, RatioNetwork):
        raise TypeError(f"{type(network).__name__} gives no ratio")
    known = torch.isfinite(depth) & (depth > 0)
    target = to_ratio(torch.where(known, depth, 0.0).float(), network.max_depth_mm)
    return student_loss(
        output.float(),
        target,
        mode=settings.mode,
        dynamic_range=settings.dynamic_range,
        mask=known if settings.mask else None,
    )


def loss_weight(depth: Tensor, settings: LogDepthLoss | LeveLoss | L1Loss) -> Tensor:
    """What the mean of a loss runs over: images with any known depth, all where nothing is masked, or pixels of L1."""
    if isinstance(settings, L1Loss) and settings.target != "disparity":
        return (torch.isfinite(depth) & (depth > 0)).sum().float()
    if isinstance(settings, LeveLoss) and not settings.mask:
        return depth.new_tensor(float(len(depth)))
    return (torch.isfinite(depth) & (depth > 0)).flatten(1).any(dim=1).sum().float()


def build_network(recipe: Recipe) -> DepthNetwork:
    """The recipe's network with fresh weights, those of another run, or with a published encoder.

    Raises:
        UsageError: unknown architecture or arguments; ``recipe.initial`` for both kinds of initial weights at once.
        ModelError: ``model.checkpoint``, ``model.variant`` where the weights belong to another network.
    """
    from endolux.train.initial_weights import load_weights_into

    network = create(recipe.model.name, **_config(recipe))
    if isinstance(network, Part):
        raise UsageError(
            f"The task '{recipe.task}' with the network '{recipe.model.name}'",
            why="It gives no depth.",
            fix="Choose a network of depth, or task=segmentation for one of landmarks.",
            error_id="recipe.model",
        )
    if recipe.model.initial is not None and recipe.model.imagenet is not None:
        raise UsageError(
            "Both model.initial and model.imagenet are set",
            why="A network starts from one set of weights.",
            fix="Set one of them to null.",
            error_id="recipe.initial",
        )
    if recipe.model.imagenet is not None:
        from endolux.models.published import load_imagenet_encoder

        load_imagenet_encoder(network, recipe.model.imagenet)
    if recipe.model.initial is not None:
        load_weights_into(network, recipe.model.initial)
    elif isinstance(network, DepthAnything):
        start_afresh(network)
    return network


def _config(recipe: Recipe) -> dict[str, object]:
    """The network's arguments, with what of it is trained."""
    config: dict[str, object] = dict(recipe.model.config)
    if recipe.model.adapt is None:
        return config
    if recipe.model.adapt.kind != "full" or adaptable(recipe.model.name):
        if not adaptable(recipe.model.name):
            raise UsageError(
                f"model.adapt with the network '{recipe.model.name}'",
                why="Only networks with a pretrained transformer can be adapted: Depth Anything, DARES and EndoDAC.",
                fix="Leave model.adapt out, or choose one of these.",
                error_id="recipe.adapt",
            )
        config["adapt"] = recipe.model.adapt.config()
    return config


def adaptable(architecture: str) -> bool:
    """Whether a network of the registry has a transformer that can be adapted.

    Example:
        >>> adaptable("dares"), adaptable("leve")
        (True, False)
    """
    return architecture in ("dares", "endodac") or architecture.startswith("depth-anything-")


def _check_target(network: DepthNetwork, loss: LogDepthLoss | LeveLoss | L1Loss) -> None:
    """Refuse a loss of depth for a network of disparity, and another target than the network was built for."""
    if not isinstance(network, DepthAnything):
        return
    relative = isinstance(loss, L1Loss) and loss.target == "disparity"
    if network.output == "disparity" and not relative:
        raise UsageError(
            f"The loss '{loss.kind}' with '{network.architecture}', whose output is disparity",
            why="It is known up to scale and shift only, and has no depth to compare.",
            fix="Use model.config.output=depth with loss.target=depth (or inverse for both), or loss.kind=l1 with "
            "loss.target=disparity.",
            error_id="recipe.loss",
        )
    if not isinstance(loss, L1Loss) or relative or network.output == "metric":
        return
    mine = (network.output, network.max_depth_mm, network.min_depth_mm)
    wanted = (loss.target, loss.max_depth_mm, loss.min_depth_mm)
    if mine != wanted:
        raise UsageError(
            f"The loss aims at {wanted[0]} ({wanted[2]:g} to {wanted[1]:g} mm), the network gives {mine[0]} "
            f"({mine[2]:g} to {mine[1]:g} mm)",
            why="Its last layer learns the target itself, so the two must mean the same.",
            fix="Set loss.target, loss.max_depth_mm and loss.min_depth_mm as in model.config.",
            error_id="recipe.loss",
        )
