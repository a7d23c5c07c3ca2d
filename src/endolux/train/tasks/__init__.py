"""The kinds of training: supervised and distillation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe
    from endolux.train.task import Task

_TASKS = {
    "supervised": ("endolux.train.tasks.supervised", "SupervisedTask"),
    "distillation": ("endolux.train.tasks.distillation", "DistillationTask"),
    "trinity": ("endolux.train.tasks.trinity", "TrinityTask"),
    "segmentation": ("endolux.train.tasks.segmentation", "SegmentationTask"),
    "video": ("endolux.train.tasks.video", "VideoTask"),
}


def build_task(recipe: Recipe) -> Task:
    """The task that a recipe names, with its networks.

    Example:
        >>> from endolux.train.recipe import load_recipe
        >>> task = build_task(load_recipe("repdepth"))
        >>> task.exported, [update.name for update in task.updates()]
        ('network', ['depth'])
    """
    module, name = _TASKS[recipe.task]
    kind: type[Task] = getattr(importlib.import_module(module), name)
    return kind.from_recipe(recipe)
