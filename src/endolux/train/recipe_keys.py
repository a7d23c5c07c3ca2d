"""The keys that a recipe may have, section by section, and those of each kind of a section."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

Schema = type[BaseModel]


def steps(schema: Schema, path: Sequence[str]) -> tuple[list[str], list[Schema]]:
    """The keys of a pydantic location without its union tags, and the sections it ends in."""
    keys: list[str] = []
    here = [schema]
    for part in path:
        fields = [model.model_fields[part] for model in here if part in model.model_fields]
        if fields:
            keys.append(part)
            here = [model for field in fields for model in _models(field.annotation)]
        elif part.isdigit():
            keys.append(part)
        else:
            tagged = [model for model in here if _tag(model) == part]
            if tagged:
                here = tagged
            else:
                keys.append(part)
    return keys, here


def keys_of(schema: Schema, section: Sequence[str]) -> list[str]:
    """The keys of a section."""
    return list(dict.fromkeys(key for model in steps(schema, section)[1] for key in model.model_fields))


def kinds_of(schema: Schema, section: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """The keys of every kind that a section can be, by the kind; nothing where all values of ``kind`` share the keys.

    Example:
        >>> from endolux.train.recipe import Recipe
        >>> sorted(kinds_of(Recipe, ["data", "augmentation"])["leve"])
        ['depth', 'flip', 'kind', 'swap']
        >>> kinds_of(Recipe, ["distillation", "relation"])
        {}
    """
    keys, models = steps(schema, section)
    if list(section) != keys or len(models) < 2:
        return {}
    return {tag: frozenset(model.model_fields) for model in models if (tag := _tag(model)) is not None}


def all_keys(schema: Schema, prefix: str = "") -> list[str]:
    """The path of every key, sections before what is in them."""
    found: list[str] = []
    for name, field in schema.model_fields.items():
        found.append(prefix + name)
        for model in _models(field.annotation):
            found += all_keys(model, f"{prefix}{name}.")
    return found


def _models(annotation: object) -> list[Schema]:
    """The sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _tag(model: Schema) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)
