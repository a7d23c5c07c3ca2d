"""Supervised training: images with depth, one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from endolux.errors import UsageError
from endolux.losses import LossWeights, depth_loss
from endolux.losses.leve import student_loss
from endolux.models import DepthNetwork, create
from endolux.models.ratio import RatioNetwork, to_ratio
from endolux.train.recipe import LeveLoss, LogDepthLoss, Recipe
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

    def __init__(self, network: DepthNetwork, *, loss: LogDepthLoss | LeveLoss) -> None:
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
        with self.autocast():
            log_depth = network.log_depth(image)
        return depth_loss(log_depth, depth, weights=LossWeights(**self._settings.model_dump(exclude={"kind"})))

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


def loss_weight(depth: Tensor, settings: LogDepthLoss | LeveLoss) -> Tensor:
    """Images that the mean of a loss runs over: those with any known depth, or all where nothing is masked."""
    if isinstance(settings, LeveLoss) and not settings.mask:
        return depth.new_tensor(float(len(depth)))
    return (torch.isfinite(depth) & (depth > 0)).flatten(1).any(dim=1).sum().float()


def build_network(recipe: Recipe) -> DepthNetwork:
    """The recipe's network with fresh weights, those of another run, or with a published encoder.

    Raises:
        UsageError: unknown architecture or arguments; ``recipe.initial`` for both kinds of initial weights at once.
        ModelError: ``model.checkpoint``, ``model.variant`` where the weights belong to another network.
    """
    from endolux.train.checkpoints import load_weights_into

    network = create(recipe.model.name, **recipe.model.config)
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
    return network
