"""``endolux train``: run a recipe."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from endolux.cli import render
from endolux.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from endolux.train.recipe import Recipe

JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]
Resume = Annotated[bool, Parameter(name="--resume", negative=())]
List = Annotated[bool, Parameter(name="--list", negative=())]
_CHANGE = re.compile(r"[a-z_][\w.]*=")


def register(app: App) -> None:
    """Add the verb."""
    app.command(train, name="train")


def train(
    recipe: str | None = None,
    /,
    *changes: str,
    data: Annotated[list[str] | None, Parameter(name="--data", consume_multiple=True, negative=())] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Resume = False,
    list_: List = False,
    commercial: Annotated[bool, Parameter(name="--commercial", negative=())] = False,
    as_json: JsonFlag = False,
) -> int:
    """Train a network by a recipe: 'endolux train leve --data shards -o runs/leve batch=4 epochs=5'.

    Several processes: 'torchrun --nproc-per-node 2 -m endolux train ...'; a recipe's batch is each process's.

    Args:
        recipe: name of a recipe ('endolux train --list') or a YAML file.
        changes: KEY.PATH=VALUE changes of the recipe; 'endolux config show RECIPE' prints all keys.
        data: folders with shards, such as 'endolux phantom' writes (they may grow meanwhile), or READER:PATH.
        output: folder of the run: recipe.yaml, log.jsonl, TensorBoard files, checkpoints.
        resume: go on with the run in the output folder, by its own recipe.
        list_: print the recipes.
        commercial: refuse teachers and initial weights whose licence does not allow commercial use.
        as_json: print JSON.
    """
    if list_:
        return _list(as_json=as_json)
    if recipe is None or output is None:
        raise UsageError(
            "Which recipe?" if recipe is None else "Where to?",
            why="A training needs a recipe and a folder for the run.",
            fix="For example: endolux train leve --data shards -o run; 'endolux train --list' prints the recipes.",
            error_id="usage.arguments",
        )
    # '--data A B batch=4' hands all three to --data.
    given = list(data or ())
    moved = [text for text in given if _CHANGE.match(text) and not Path(text).exists()]
    sources = [text for text in given if text not in moved]
    resolved = resolve(recipe, [*moved, *changes], sources, output if resume else None)
    if commercial:
        from endolux.train.origins import require_commercial_origins

        require_commercial_origins(resolved)
    if "WORLD_SIZE" in os.environ:
        # DDP otherwise warns of a setting that some variants need.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from endolux.train.engine import fit
        from endolux.train.progress import Display
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "torch", "train") from error
    main = os.environ.get("RANK", "0") == "0"
    with Display(resolved.name) as display:
        last = fit(None, resolved, None, output, resume=resume, on_log=display)
    if not main:
        return 0
    if as_json:
        from endolux.train.checkpoints import best, read_state

        chosen = best(output)
        render.answer_json(
            {
                "ok": True,
                "checkpoint": str(last),
                "best": None if chosen is None else str(chosen),
                "step": read_state(last).step,
            }
        )
    else:
        render.answer(str(last))
    return 0


def resolve(name: str, changes: list[str], sources: list[str], run: Path | None) -> Recipe:
    """The recipe that a command means.

    Args:
        name: recipe or file.
        changes: overrides.
        sources: data; those of the recipe if empty.
        run: folder of a run that goes on by its own recipe, if it has one; only what the command says is new.

    Raises:
        UsageError: unknown or unsuitable recipe or keys.
    """
    from endolux.train.recipe import Recipe, load_recipe, recipe_from, recipe_names
    from endolux.train.recipe_text import apply_overrides

    recorded = run / "recipe.yaml" if run is not None else None
    if recorded is not None and recorded.is_file():
        before = load_recipe(recorded)
        if name in recipe_names() and before.name == name:
            recipe = recipe_from(apply_overrides(before.document(), changes, Recipe), source=name)
        else:
            recipe = load_recipe(name, changes)
        sources = sources or list(before.data.sources)
    else:
        recipe = load_recipe(name, changes)
    if sources:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": tuple(sources)})})
    return recipe


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` as two numbers.

    Raises:
        UsageError: anything else.

    Example:
        >>> parse_size("320x256")
        (320, 256)
    """
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise UsageError(
            f"'{text}' is not a size",
            why="A size is WIDTHxHEIGHT in pixels.",
            fix="Write it like 320x256.",
            error_id="usage.size",
        )
    return int(width), int(height)


def _list(*, as_json: bool) -> int:
    from endolux.train.recipe import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    if as_json:
        render.answer_json(
            [{"name": r.name, "task": r.task, "model": r.model.name, "summary": r.summary} for r in recipes]
        )
    else:
        render.answer(render.table([(r.name, r.summary) for r in recipes], header=("recipe", "what it is")))
    return 0
