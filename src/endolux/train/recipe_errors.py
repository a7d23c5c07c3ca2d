"""The complaint about a recipe in three lines, with the nearest key."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError

from endolux.errors import UsageError


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
        known = _keys(schema, section)
        near = nearest(key, known) or _elsewhere(key, schema)
        return UsageError(
            f"{source}: there is no key '{_path(schema, (*section, key))}'{more}",
            why=f"Known here: {', '.join(known)}.",
            fix=f"Did you mean '{near}'?" if near else "See 'endolux config show NAME' for the keys.",
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


def _models(annotation: object) -> list[type[BaseModel]]:
    """The sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _steps(schema: type[BaseModel], path: typing.Sequence[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a pydantic location without its union tags, and the sections it ends in."""
    keys: list[str] = []
    here = [schema]
    for part in path:
        fields = [model.model_fields[part] for model in here if part in model.model_fields]
        if fields:
            keys.append(part)
            inner = [model for field in fields for model in _models(field.annotation)]
            here = inner
        elif part.isdigit():
            keys.append(part)
        else:
            tagged = [model for model in here if _tag(model) == part]
            if tagged:
                here = tagged
            else:
                keys.append(part)
    return keys, here


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)


def _path(schema: type[BaseModel], path: typing.Sequence[str]) -> str:
    return ".".join(_steps(schema, path)[0])


def _keys(schema: type[BaseModel], section: typing.Sequence[str]) -> list[str]:
    return list(dict.fromkeys(key for model in _steps(schema, section)[1] for key in model.model_fields))


def _elsewhere(key: str, schema: type[BaseModel]) -> str | None:
    """The full path of the key most like ``key`` in any section."""
    paths = {path.rpartition(".")[2]: path for path in reversed(_all_keys(schema))}
    near = nearest(key, paths)
    return None if near is None else paths[near]


def _all_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, field in schema.model_fields.items():
        found.append(prefix + name)
        for model in _models(field.annotation):
            found += _all_keys(model, f"{prefix}{name}.")
    return found
