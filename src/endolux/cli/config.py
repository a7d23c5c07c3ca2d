"""``endolux config``: recipes as they are read, every default filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import InputError

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


def register(app: App) -> None:
    """Add the verbs."""
    config = App(name="config", help="Show and check recipes.")
    config.command(show, name="show")
    config.command(validate, name="validate")
    app.command(config)


def show(recipe: str, /, *changes: str, as_json: JsonFlag = False) -> int:
    """Print a recipe with all its keys: 'endolux config show leve batch=4'.

    Args:
        recipe: name of a recipe ('endolux train --list') or a YAML file.
        changes: KEY.PATH=VALUE changes.
        as_json: print JSON.
    """
    from endolux.train.recipe import load_recipe

    resolved = load_recipe(recipe, changes)
    if as_json:
        render.answer_json(resolved.document())
    else:
        render.answer(resolved.text().rstrip("\n"))
    return 0


def validate(file: Path, /, *, as_json: JsonFlag = False) -> int:
    """Check a recipe file to its last key.

    Args:
        file: YAML file.
        as_json: print JSON.
    """
    from endolux.train.recipe import load_recipe

    if not file.is_file():
        raise InputError(
            f"No recipe file '{file}'",
            why="Recipes that come with Endolux are valid; this checks yours.",
            fix="Name a YAML file; 'endolux config show leve > mine.yaml' makes one.",
            error_id="input.missing",
        )
    # A path, so that a file in the working folder does not pass for a recipe of the same name.
    resolved = load_recipe(file.resolve())
    if as_json:
        render.answer_json({"ok": True, "name": resolved.name, "task": resolved.task, "model": resolved.model.name})
    else:
        render.answer(f"{file} is valid: {resolved.name}, {resolved.task} training of {resolved.model.name}")
    return 0
