"""What a training run is determined by: recipes as YAML, checked to the last key."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from endolux.errors import UsageError
from endolux.train.augment import Augmentation
from endolux.train.recipe_errors import invalid, nearest
from endolux.train.recipe_text import apply_overrides, merge, parse_yaml


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _size(value: object) -> object:
    if isinstance(value, str):
        width, _, height = value.lower().partition("x")
        return (width, height)
    return value


Size = Annotated[tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]], BeforeValidator(_size)]
"""(width, height) in pixels; ``320x240`` is understood as well."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[Positive, Positive]


class Model(Section):
    """The network.

    Attributes:
        name: for :func:`endolux.models.create`.
        config: its arguments.
        initial: run or checkpoint whose weights to start from (the averaged ones where there are any).
        imagenet: published ImageNet weights of the encoder, for networks that can take them.
    """

    name: str
    config: dict[str, JsonValue] = {}
    initial: Path | None = None
    imagenet: Path | None = None


class EndoscopeAugmentation(Section):
    """:class:`endolux.train.augment.Augmentation` as a recipe says it."""

    kind: Literal["endoscope"] = "endoscope"
    flip: Share = 0.5
    zoom: Annotated[float, Field(ge=1)] = 1.6
    aspect: Share = 0.1
    gamma: Range = (0.5, 1.8)
    gain: Range = (0.65, 1.6)
    colour: Share = 0.6
    cast: Share = 0.4
    grey: Share = 0.05
    light_range: NotNegative = 0.45
    flatten: Share = 0.0
    light: Share = 0.4
    lens: Share = 0.3
    noise: Share = 0.5
    content_area: Share = 0.3
    scaler: Share = 0.15
    text: Share = 0.1
    highlights: Share = 0.15
    occluders: Share = 0.15
    codec: Share = 0.5

    def settings(self) -> Augmentation:
        """As the function takes it."""
        return Augmentation(**self.model_dump(exclude={"kind"}))


class LeveAugmentation(Section):
    """What Leve and GuideDepth were trained with: resize, mirror, swap of the colour channels.

    Attributes:
        flip: probability of a horizontal mirroring.
        swap: probability of a permutation of the channels, the identity among the six (D-34).
        depth: how depth is resized: ``nearest`` makes no surfaces that are not there, ``bilinear`` is the published.
    """

    kind: Literal["leve"] = "leve"
    flip: Share = 0.5
    swap: Share = 0.5
    depth: Literal["nearest", "bilinear"] = "nearest"


class NoAugmentation(Section):
    """Samples as they are, resized."""

    kind: Literal["none"] = "none"


class Validation(Section):
    """Held-out data.

    Attributes:
        sources: other data than the training's; or none, and
        fraction: this share of the training's sequences (whole ones) is kept out of the training.
        limit: score so many samples at most, evenly spread.
    """

    sources: tuple[str, ...] = ()
    fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    limit: Count | None = None


class Data(Section):
    """What it is trained on.

    Attributes:
        sources: folders with shards, or ``READER:PATH`` for a data set (``scared:/data/scared``).
        size: of the training pictures; the stored size by default.
        augmentation: one of three kinds.
        unreadable_limit: so many samples may be unreadable; they are named and replaced by others.
        validation: what is held out.
    """

    sources: tuple[str, ...] = ()
    size: Size | None = None
    augmentation: Annotated[EndoscopeAugmentation | LeveAugmentation | NoAugmentation, Field(discriminator="kind")] = (
        EndoscopeAugmentation()
    )
    unreadable_limit: Annotated[int, Field(ge=0)] = 0
    validation: Validation = Validation()


class LogDepthLoss(Section):
    """:func:`endolux.losses.depth_loss`."""

    kind: Literal["log-depth"] = "log-depth"
    silog: NotNegative = 1.0
    gradient: NotNegative = 0.5
    anchor: NotNegative = 0.1
    variance_focus: Share = 0.85


class LeveLoss(Section):
    """Leve's loss on ratios (specification 2.5).

    Attributes:
        mode: ``correct`` as the thesis writes the structural term, ``reproduce`` as it was coded (D-3).
        dynamic_range: L of the structural term.
        mask: leave pixels of unknown depth out; the original does not (D-31).
    """

    kind: Literal["leve"] = "leve"
    mode: Literal["correct", "reproduce"] = "correct"
    dynamic_range: Positive = 10.0
    mask: bool = True


class Teacher(Section):
    """Who teaches.

    Attributes:
        model: bundle, run folder or foundation model, for :func:`endolux.models.teachers.open_teacher`.
        cache: folder of the knowledge cache; beside the run by default.
        input_size: what the teacher sees; its own choice by default.
        output_size: size of the stored maps; the training size by default.
        features: names of the teacher's maps that are kept, beside those that the feature pairs name.
        fill: ``first`` asks the teacher about all pictures before the training, ``lazy`` when a picture is met;
            ``auto`` is first for runs that will see at least half of them.
    """

    model: str
    cache: Path | None = None
    input_size: Size | None = None
    output_size: Size | None = None
    features: tuple[str, ...] = ()
    fill: Literal["auto", "first", "lazy"] = "auto"


class Response(Section):
    """Distillation of the output (specification 2.6).

    Attributes:
        epsilon: share of the teacher's loss.
        maximum: what both maps are divided by: each map's own maximum or the batch's (D-6).
        shift: what is done with the teacher's minimum: subtracted or, as coded, added (D-7).
        mirrored: mirror the teacher's map with the sample; the original did not (D-5).
    """

    epsilon: Share = 0.25
    maximum: Literal["map", "batch"] = "map"
    shift: Literal["subtract", "add"] = "subtract"
    mirrored: bool = True


class FeaturePair(Section):
    """A map of the student and the teacher's that it shall resemble."""

    student: str
    teacher: str


class Feature(Section):
    """Distillation of intermediate maps (:func:`endolux.losses.feature_loss`).

    Attributes:
        weight: added to the loss; 0 for none.
        kind: ``cosine`` over the channels of a place, ``mse`` of channels with mean 0 and variance 1.
        pairs: what resembles what.
    """

    weight: NotNegative = 0.0
    kind: Literal["cosine", "mse"] = "cosine"
    pairs: tuple[FeaturePair, ...] = ()


class Relation(Section):
    """Distillation of relations between places of the depth map (:func:`endolux.losses.relation_loss`).

    Attributes:
        weight: added to the loss; 0 for none.
        kind: signed ``distance`` of two places, ``affinity`` of their surroundings, ``similarity`` of two images.
        grid: (rows, columns) of places.
    """

    weight: NotNegative = 0.0
    kind: Literal["distance", "affinity", "similarity"] = "distance"
    grid: tuple[Count, Count] = (12, 16)


class Distillation(Section):
    """How much of which knowledge."""

    response: Response = Response()
    feature: Feature = Feature()
    relation: Relation = Relation()


class Optimiser(Section):
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019).

    Attributes:
        weight_decay: on kernels; never on biases and norms.
    """

    name: Literal["adam", "adamw"] = "adamw"
    lr: Positive = 2e-3
    weight_decay: NotNegative = 0.02
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8


class ConstantSchedule(Section):
    """The same rate throughout, after an optional linear warm-up over a fraction of the steps."""

    kind: Literal["constant"] = "constant"
    warm_up: Share = 0.0


class StepSchedule(Section):
    """``factor`` times the rate after every ``every`` epochs (or steps)."""

    kind: Literal["step"] = "step"
    every: Count = 5
    factor: Positive = 0.1
    interval: Literal["epoch", "step"] = "epoch"


class CosineSchedule(Section):
    """Half a cosine down to ``final`` of the rate, changed every step or every epoch."""

    kind: Literal["cosine"] = "cosine"
    warm_up: Share = 0.0
    final: Share = 0.0
    interval: Literal["epoch", "step"] = "step"


class OneCycleSchedule(Section):
    """Linear rise over ``warm_up`` of the steps, then half a cosine down to ``final`` of the peak."""

    kind: Literal["one-cycle"] = "one-cycle"
    warm_up: Share = 0.05
    final: Share = 0.01


Schedule = Annotated[ConstantSchedule | StepSchedule | CosineSchedule | OneCycleSchedule, Field(discriminator="kind")]


class ProtocolRun(Section):
    """A named protocol and the data it scores.

    Attributes:
        name: from ``endolux data ls``.
        data: folder of its data set.
        limit: score the first so many frames only.
    """

    name: str
    data: Path
    limit: Count | None = None


class EarlyStop(Section):
    """Stop when ``patience`` evaluations in a row did not better the best by ``minimum_gain``."""

    patience: Count
    minimum_gain: NotNegative = 0.0


class Evaluation(Section):
    """When and on what the network is scored while it trains.

    Attributes:
        protocols: scored as ``endolux evaluate`` does.
        every: steps; once an epoch by default.
        metric: decides the best checkpoint; ``validation/abs_rel`` or ``PROTOCOL/METRIC``.
        goal: whether less or more of it is better.
        early_stop: None trains to the end.
        mean: ``reproduce`` divides the sum of the batch losses by their number plus one, as Leve's log does (D-29).
    """

    protocols: tuple[ProtocolRun, ...] = ()
    every: Count | None = None
    metric: str = "validation/abs_rel"
    goal: Literal["min", "max"] = "min"
    early_stop: EarlyStop | None = None
    mean: Literal["correct", "reproduce"] = "correct"


class Recipe(Section):
    """A training run.

    Attributes:
        name, summary: for people.
        task: ``supervised`` or ``distillation``.
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
    task: Literal["supervised", "distillation"] = "supervised"
    model: Model
    data: Data = Data()
    teacher: Teacher | None = None
    loss: Annotated[LogDepthLoss | LeveLoss, Field(discriminator="kind")] = LogDepthLoss()
    distillation: Distillation | None = None
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

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
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
    return recipe_from(apply_overrides(_document(str(name), ()), overrides), source=str(name))


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
    return merge(_document(str(base), (*seen, name)), document)


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
