"""From the text of a recipe and of its overrides to plain values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import yaml
from pydantic import BaseModel
from typing_extensions import override

from endolux.errors import UsageError
from endolux.train.recipe_keys import kinds_of


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-4 is a number, and no key stands twice."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep=deep))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, source: str) -> dict[str, object]:
    """The mapping that a YAML text holds.

    Raises:
        UsageError: ``recipe.syntax``.

    Example:
        >>> parse_yaml("optimiser: {lr: 1e-4}", "a.yaml")
        {'optimiser': {'lr': 0.0001}}
    """
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise _bad(f"'{source}' is no YAML", " ".join(str(error).split())) from error
    if not isinstance(document, dict):
        raise _bad(f"'{source}' is no recipe", f"It holds a {type(document).__name__}, not keys with values.")
    return {str(key): value for key, value in document.items()}


def apply_overrides(
    document: Mapping[str, object], overrides: Sequence[str], schema: type[BaseModel] | None = None
) -> dict[str, object]:
    """The values with ``key.path=value`` changes, in order. Numbers in a path are places in a list.

    A section whose ``kind`` changes begins anew with that kind's defaults. With a schema, changes of it that stand
    before the change of the kind are made as well, without those that only the old kind knows.

    Args:
        document: the values.
        overrides: the changes.
        schema: of the document; without one, every section with a ``kind`` begins anew.

    Raises:
        UsageError: ``recipe.override`` for something that is no ``key=value`` or leads through a plain value.

    Example:
        >>> apply_overrides({"data": {"size": None}}, ["data.size=[320, 256]", "seed=3"])
        {'data': {'size': [320, 256]}, 'seed': 3}
        >>> apply_overrides({}, ["teacher=runs/dares"])
        {'teacher': {'model': 'runs/dares'}}
    """
    result = dict(document)
    for change in _kinds_first([_change(text) for text in overrides], schema):
        changed = _nested(change, 0, result, schema)
        result = _one_length(changed, change.keys[0], change.value) if isinstance(changed, dict) else result
    return result


@dataclasses.dataclass(frozen=True, slots=True)
class _Change:
    """An override that was read."""

    text: str
    keys: tuple[str, ...]
    value: object


def _change(text: str) -> _Change:
    path, equals, value = text.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        raise UsageError(
            f"'{text}' is no override",
            why="An override is KEY.PATH=VALUE.",
            fix="Write it like optimiser.lr=1e-4.",
            error_id="recipe.override",
        )
    try:
        read = yaml.load(value, _Loader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError):
        read = value
    # A teacher is what its model is: everything else about it has a default.
    named = keys == ("teacher",) and isinstance(read, str)
    return _Change(text, ("teacher", "model") if named else keys, read)


def _kinds_first(changes: Sequence[_Change], schema: type[BaseModel] | None) -> list[_Change]:
    """The changes of a section after that of its kind, so that they outlast it."""
    result: list[_Change] = []
    for change in changes:
        section, depth = change.keys[:-1], len(change.keys) - 1
        kinds = {} if schema is None or change.keys[-1] != "kind" else kinds_of(schema, section)
        new = kinds.get(str(change.value))
        if new is None:
            result.append(change)
            continue
        others = frozenset[str]().union(*kinds.values()) - new
        # What stands before a change of the section as a whole is gone anyway.
        whole = [number for number, other in enumerate(result) if other.keys == section[: len(other.keys)]]
        first = whole[-1] + 1 if whole else 0
        inside = [
            other
            for other in result[first:]
            if other.keys[:depth] == section and len(other.keys) > depth and other.keys[depth] != "kind"
        ]
        result = [other for other in result if not any(other is one for one in inside)]
        result += [change, *(other for other in inside if other.keys[depth] not in others)]
    return result


def _one_length(document: dict[str, object], key: str, value: object) -> dict[str, object]:
    """A run is as long as its steps or its epochs say: setting one takes the other back."""
    other = {"steps": "epochs", "epochs": "steps"}.get(key)
    return {**document, other: None} if other is not None and value is not None else document


def _nested(change: _Change, depth: int, inside: object, schema: type[BaseModel] | None) -> object:
    """``inside``, which lies at the first ``depth`` keys of the path, with the change."""
    if depth == len(change.keys):
        return change.value
    key, last = change.keys[depth], depth == len(change.keys) - 1
    if isinstance(inside, list | tuple) and key.isdigit() and int(key) <= len(inside):
        items = list(inside)
        old = items[int(key)] if int(key) < len(items) else None
        items[int(key) : int(key) + 1] = [_nested(change, depth + 1, old, schema)]
        return items
    if not isinstance(inside, Mapping | None):
        raise UsageError(
            f"'{change.text}' leads through a value that is no section",
            why=f"'{key}' is asked of {inside!r}.",
            fix="See 'endolux config show NAME' for the keys.",
            error_id="recipe.override",
        )
    section = dict(inside or {})
    decides = schema is None or bool(kinds_of(schema, change.keys[:depth]))
    if key == "kind" and last and decides and section.get("kind") not in (None, change.value):
        # Another kind has other keys.
        return {"kind": change.value}
    section[key] = _nested(change, depth + 1, section.get(key), schema)
    return section


def merge(
    below: Mapping[str, object],
    above: Mapping[str, object],
    schema: type[BaseModel] | None = None,
    path: tuple[str, ...] = (),
) -> dict[str, object]:
    """``above`` over ``below``, section by section; a section of another ``kind`` replaces the old one.

    Args:
        below: values.
        above: values that come before them.
        schema: of the whole recipe; without one, every ``kind`` is taken for one that decides about the other keys.
        path: where in the recipe the values lie.

    Example:
        >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
        {'a': {'x': 1, 'y': 3}}
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        here = (*path, key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same = value.get("kind") in (None, old.get("kind")) or (schema is not None and not kinds_of(schema, here))
            result[key] = merge(old, value, schema, here) if same else value
        else:
            result[key] = value
        result = _one_length(result, key, value)
    return result


def flatten(document: object, prefix: str = "") -> dict[str, object]:
    """Values by their path: what a difference between two recipes is told in.

    Example:
        >>> flatten({"a": {"b": 1}, "c": [2]})
        {'a.b': 1, 'c': [2]}
    """
    if not isinstance(document, Mapping) or not document:
        return {prefix: document}
    return {
        path: value
        for key, child in document.items()
        for path, value in flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _bad(what: str, why: str) -> UsageError:
    return UsageError(
        what, why=why, fix="See 'endolux config show repdepth' for a whole one.", error_id="recipe.syntax"
    )
