"""The complaint about a recipe in three lines, with the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ValidationError

from endolux.errors import UsageError
from endolux.train.recipe_keys import all_keys, keys_of, kinds_of, steps


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, None if none is.

    Example:
        >>> nearest("leve3x3", ["leve", "leve-3x3"])
        'leve-3x3'
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def invalid(error: ValidationError, schema: type[BaseModel], source: str) -> UsageError:
    """What pydantic found, the first thing in detail."""
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    first = (unknown or problems)[0]
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    if unknown:
        *section, key = (str(part) for part in first["loc"])
        known = keys_of(schema, section)
        return UsageError(
            f"{source}: there is no key '{_path(schema, (*section, key))}'{more}",
            why=f"Known here: {', '.join(known)}.",
            fix=_advice(schema, section, key),
            error_id="recipe.key",
        )
    value = first.get("input")
    told = "" if isinstance(value, dict) else f" is {value!r}"
    path = _path(schema, tuple(str(part) for part in first["loc"]))
    what = f"{source}: '{path}' is missing" if first["type"] == "missing" else f"{source}: {path or 'it'}{told}"
    return UsageError(
        f"{what}{more}",
        why=f"{first['msg'].removeprefix('Value error, ')}.",
        fix=f"Set {path} to such a value." if path else "Change the recipe, or add key=value.",
        error_id="recipe.value",
    )


def _path(schema: type[BaseModel], path: Sequence[str]) -> str:
    return ".".join(steps(schema, path)[0])


def _advice(schema: type[BaseModel], section: Sequence[str], key: str) -> str:
    """What to do about an unknown key; never to write the same again."""
    near = nearest(key, keys_of(schema, section))
    if near is not None:
        return f"Did you mean '{near}'?"
    keys = steps(schema, section)[0]
    kinds = [kind for kind, known in kinds_of(schema, keys).items() if key in known]
    if kinds:
        return f"Leave it out, or set {'.'.join(keys)}.kind={kinds[0]}, which has it."
    elsewhere = _elsewhere(key, schema)
    return f"Did you mean '{elsewhere}'?" if elsewhere else "See 'endolux config show NAME' for the keys."


def _elsewhere(key: str, schema: type[BaseModel]) -> str | None:
    """The full path of the key most like ``key`` in any section."""
    paths: dict[str, str] = {}
    for path in sorted(all_keys(schema), key=lambda path: path.count(".")):
        paths.setdefault(path.rpartition(".")[2], path)
    near = nearest(key, paths)
    return None if near is None else paths[near]
