"""From the text of a recipe and of its overrides to plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml
from typing_extensions import override

from endolux.errors import UsageError


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


def apply_overrides(document: Mapping[str, object], overrides: Sequence[str]) -> dict[str, object]:
    """The values with ``key.path=value`` changes, in order. Numbers in a path are places in a list.

    Raises:
        UsageError: ``recipe.override`` for something that is no ``key=value`` or leads through a plain value.

    Example:
        >>> apply_overrides({"data": {"size": None}}, ["data.size=[320, 256]", "seed=3"])
        {'data': {'size': [320, 256]}, 'seed': 3}
    """
    result = dict(document)
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise UsageError(
                f"'{text}' is no override",
                why="An override is KEY.PATH=VALUE.",
                fix="Write it like optimiser.lr=1e-4.",
                error_id="recipe.override",
            )
        try:
            parsed = yaml.load(value, _Loader)  # noqa: S506 -- a SafeLoader
        except (yaml.YAMLError, ValueError):
            parsed = value
        changed = _nested(keys, parsed, result, text)
        result = _one_length(changed, keys[0], parsed) if isinstance(changed, dict) else result
    return result


def _one_length(document: dict[str, object], key: str, value: object) -> dict[str, object]:
    """A run is as long as its steps or its epochs say: setting one takes the other back."""
    other = {"steps": "epochs", "epochs": "steps"}.get(key)
    return {**document, other: None} if other is not None and value is not None else document


def _nested(keys: Sequence[str], value: object, inside: object, text: str) -> object:
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(inside, list | tuple) and key.isdigit() and int(key) <= len(inside):
        items = list(inside)
        old = items[int(key)] if int(key) < len(items) else None
        items[int(key) : int(key) + 1] = [_nested(rest, value, old, text)]
        return items
    if not isinstance(inside, Mapping | None):
        raise UsageError(
            f"'{text}' leads through a value that is no section",
            why=f"'{key}' is asked of {inside!r}.",
            fix="See 'endolux config show NAME' for the keys.",
            error_id="recipe.override",
        )
    section = dict(inside or {})
    if key == "kind" and not rest and section.get("kind") not in (None, value):
        # Another kind has other keys.
        return {"kind": value}
    section[key] = _nested(rest, value, section.get(key), text)
    return section


def merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """``above`` over ``below``, section by section; a section of another ``kind`` replaces the old one.

    Example:
        >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
        {'a': {'x': 1, 'y': 3}}
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        same = isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("kind") in (None, old.get("kind"))
        result[key] = merge(old, value) if same else value  # type: ignore[arg-type]
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
