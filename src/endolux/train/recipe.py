"""What a training run is determined by: recipes as YAML, checked to the last key."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from endolux.errors import UsageError
from endolux.train.recipe_adapt import Adapt
from endolux.train.recipe_data import (
    Data,
    EndoscopeAugmentation,
    LandmarkAugmentation,
    LeveAugmentation,
    NoAugmentation,
    Validation,
    VideoAugmentation,
)
from endolux.train.recipe_distillation import Distillation, Feature, FeaturePair, Relation, Response, Teacher
from endolux.train.recipe_errors import invalid, nearest
from endolux.train.recipe_evaluation import EarlyStop, Evaluation, ProtocolRun
from endolux.train.recipe_loss import L1Loss, LandmarkLoss, LeveLoss, LogDepthLoss
from endolux.train.recipe_optimiser import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    Optimiser,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
)
from endolux.train.recipe_section import Count, NotNegative, Positive, Range, Section, Share, Size
from endolux.train.recipe_segmentation import Segmentation
from endolux.train.recipe_text import apply_overrides, merge, parse_yaml
from endolux.train.recipe_video import Video

__all__ = [
    "Adapt",
    "ConstantSchedule",
    "CosineSchedule",
    "Count",
    "Data",
    "Distillation",
    "EarlyStop",
    "EndoscopeAugmentation",
    "Evaluation",
    "Feature",
    "FeaturePair",
    "L1Loss",
    "LandmarkAugmentation",
    "LandmarkLoss",
    "LeveAugmentation",
    "LeveLoss",
    "LogDepthLoss",
    "Model",
    "NoAugmentation",
    "NotNegative",
    "OneCycleSchedule",
    "Optimiser",
    "PolynomialSchedule",
    "Positive",
    "ProtocolRun",
    "Range",
    "Recipe",
    "Relation",
    "Response",
    "Schedule",
    "Section",
    "Segmentation",
    "Share",
    "Size",
    "StepSchedule",
    "Teacher",
    "Validation",
    "Video",
    "VideoAugmentation",
    "load_recipe",
    "recipe_from",
    "recipe_names",
]


class Model(Section):
    """The network.

    Attributes:
        name: for :func:`endolux.models.create`.
        config: its arguments.
        initial: run or checkpoint whose weights to start from (the averaged ones where there are any), or a bundle with
            ``model.safetensors`` (``repdepth-colon``; folded weights need ``model.config.fused=true``); for networks
            with a transformer also a file or folder of published weights, or a hub id.
        imagenet: published ImageNet weights of the encoder, for networks that can take them.
        adapt: what of a pretrained transformer is trained; its own choice by default, which for most is all.
    """

    name: str
    config: dict[str, JsonValue] = Field(default_factory=dict)
    initial: Path | None = None
    imagenet: Path | None = None
    adapt: Adapt | None = None


class Recipe(Section):
    """A training run.

    Attributes:
        name, summary: for people.
        task: ``supervised``, ``distillation``, ``trinity`` (distillation by LiteNet's four terms), ``video``
            (self-supervision) or ``segmentation`` (landmarks). A supervised recipe that gets a teacher
            (``teacher=runs/a``) becomes a distillation.
        video: self-supervision; samples become snippets, whatever the task is.
        segmentation: pretrained encoders of a network of landmarks.
        steps, epochs: length of the run in optimiser steps or in passes over the data; one of them.
        batch: samples a process, a forward pass.
        accumulate: forward passes a step.
        clip: largest norm of the gradient, None for no limit.
        average_decay: of the exponential average of the weights (smaller at the beginning); 0 for none.
        precision: of the networks; losses and weights are always float32.
        seed: of weights, order and augmentation.
        batchnorm: ``reproduce`` leaves the networks in evaluation mode after a validation until the next epoch, as
            Leve's code does (D-2).
        synchronise_batchnorm: batch statistics over all processes; without it each process has its own.
        parallel: how several processes share the work: ``ddp`` copies the networks, ``fsdp`` splits them; ``auto``
            is ddp.
        device, threads, workers: where it runs; workers are threads that prepare batches ahead.
        checkpoint_every, log_every: steps.
    """

    name: str
    summary: str = ""
    task: Literal["supervised", "distillation", "trinity", "video", "segmentation"] = "supervised"
    model: Model
    data: Data = Data()
    teacher: Teacher | None = None
    loss: Annotated[LogDepthLoss | LeveLoss | L1Loss | LandmarkLoss, Field(discriminator="kind")] = LogDepthLoss()
    distillation: Distillation | None = None
    video: Video | None = None
    segmentation: Segmentation | None = None
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = OneCycleSchedule()
    steps: Count | None = None
    epochs: Count | None = None
    batch: Count = 16
    accumulate: Count = 1
    clip: Positive | None = 1.0
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    seed: Annotated[int, Field(ge=0)] = 0
    batchnorm: Literal["train", "reproduce"] = "train"
    synchronise_batchnorm: bool = True
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    device: str = "auto"
    threads: Count | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Count = 500
    log_every: Count = 20
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _taught(cls, values: object) -> object:
        """A supervised recipe with a teacher distils."""
        if isinstance(values, Mapping) and values.get("teacher") and values.get("task", "supervised") == "supervised":
            return {**values, "task": "distillation"}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.task != "segmentation" and (self.segmentation is not None or self.loss.kind == "landmarks"):
            raise ValueError("'segmentation' and loss.kind 'landmarks' belong to the task 'segmentation'")
        if self.task != "segmentation" and self.data.augmentation.kind == "landmarks":
            raise ValueError("data.augmentation.kind 'landmarks' belongs to the task 'segmentation'")
        if self.task == "video" and self.video is None:
            raise ValueError("the task 'video' needs the section 'video' ('video: {}' for its defaults)")
        return self

    def document(self) -> dict[str, object]:
        """The recipe as JSON values, defaults included."""
        return self.model_dump(mode="json")

    def text(self) -> str:
        """The recipe as YAML, defaults included: what ``endolux config show`` prints.

        Example:
            >>> recipe_from({"name": "a", "model": {"name": "repdepth"}, "steps": 5}).text().splitlines()[0]
            'name: a'
        """
        return yaml.safe_dump(self.document(), sort_keys=False, allow_unicode=True, width=100)


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with Endolux, sorted.

    Example:
        >>> "repdepth" in recipe_names()
        True
    """
    folder = importlib.resources.files("endolux.train") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or file, with changes.

    Args:
        name: one of :func:`recipe_names`, or a YAML file.
        overrides: ``key.path=value``; the value is read as YAML, so ``data.size=[320,256]``, ``clip=null``.

    Raises:
        UsageError: ``recipe.unknown`` with the nearest name; ``recipe.key``, ``recipe.value``, ``recipe.syntax``.

    Example:
        >>> load_recipe("repdepth", ["optimiser.lr=1e-4", "data.size=160x128"]).data.size
        (160, 128)
    """
    return recipe_from(apply_overrides(_document(str(name), ()), overrides, Recipe), source=str(name))


def recipe_from(document: Mapping[str, object], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UsageError: ``recipe.key`` (with the nearest key), ``recipe.value``.

    Example:
        >>> recipe_from({"name": "a", "model": {"name": "repdepth"}, "steps": 5, "sed": 1})
        Traceback (most recent call last):
        ...
        endolux.errors.UsageError: error[recipe.key]: recipe: there is no key 'sed'
          why: ...
          fix: Did you mean 'seed'?
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise invalid(error, Recipe, source) from error


def _document(name: str, seen: tuple[str, ...]) -> dict[str, object]:
    """The values of a recipe file on top of those of its ``base``."""
    if name in seen:
        raise UsageError(
            f"Recipes that rest on each other: {' -> '.join((*seen, name))}",
            why="'base' must lead to a recipe without one.",
            fix="Remove 'base' from one of them.",
            error_id="recipe.base",
        )
    document = parse_yaml(_text(name), name)
    base = document.pop("base", None)
    if base is None:
        return document
    return merge(_document(str(base), (*seen, name)), document, Recipe)


def _text(name: str) -> str:
    if name in recipe_names():
        return (importlib.resources.files("endolux.train") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"Cannot read the recipe '{name}'",
                why=f"{type(error).__name__}: {error}",
                fix="Give a UTF-8 text file.",
                error_id="recipe.unreadable",
            ) from error
    known = recipe_names()
    near = nearest(name, known)
    raise UsageError(
        f"No recipe '{name}'",
        why=f"There is no such file, and Endolux brings: {', '.join(known)}.",
        fix=f"Did you mean '{near}'?" if near else "See 'endolux train --list'.",
        error_id="recipe.unknown",
    )
