"""Training: recipes, tasks, data, the engine and its checkpoints.

The names below are imported when they are asked for: recipes can be read where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endolux.train.augment import Augmentation, augment
    from endolux.train.checkpoints import load_network
    from endolux.train.engine import fit
    from endolux.train.recipe import Recipe, load_recipe, recipe_names
    from endolux.train.task import Batch, Task, Update

__all__ = [
    "Augmentation",
    "Batch",
    "Recipe",
    "Task",
    "Update",
    "augment",
    "fit",
    "load_network",
    "load_recipe",
    "recipe_names",
]

_HOMES = {
    "Augmentation": "augment",
    "augment": "augment",
    "load_network": "checkpoints",
    "fit": "engine",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "recipe_names": "recipe",
    "Batch": "task",
    "Task": "task",
    "Update": "task",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
