"""Under which licence foundation models and published networks were released, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from endolux.models.depth_anything import variant_of

NC = "CC-BY-NC-4.0"
APACHE = "Apache-2.0"
UNKNOWN = "Unknown: whoever released these weights stated no licence that was found. Ask them before you use it."
NONE = "No licence: released without one, so there is no right to copy or ship these weights. Ask their authors."
RELEASED: Mapping[str, str] = {
    "v1-s": APACHE,
    "v1-b": APACHE,
    "v1-l": APACHE,
    "v2-s": APACHE,
    "v2-b": NC,
    "v2-l": NC,
    "dares": NONE,
    "endodac": NONE,
}
"""Licences of released weights: those of Depth Anything by variant, metric ones included."""
_SAM2 = re.compile(r"sam[-_]?2(\.1)?[-_]hiera", re.I)
_IDS = {text.lower(): text for text in (APACHE, NC, "MIT", "CC-BY-4.0", "BSD-3-Clause")}


def released_licence(architecture: str) -> str:
    """Licence of the weights that were released under the name of an architecture.

    Example:
        >>> released_licence("depth-anything-v2-b"), released_licence("depth-anything-v2-s")
        ('CC-BY-NC-4.0', 'Apache-2.0')
    """
    return RELEASED.get(architecture.removeprefix("depth-anything-"), UNKNOWN)


def licence_of(spec: str, *, variant: str | None = None) -> str:
    """Licence of a foundation model by hub id, folder or file.

    What the README in a folder says counts; else what the name stands for. A network with the shape of a release that
    forbids commercial use is taken for one, whatever its folder is called.

    Args:
        spec: hub id, folder or file.
        variant: shape of the network, such as ``v2-b``, where it is known.

    Example:
        >>> licence_of("depth-anything/Depth-Anything-V2-Large-hf"), licence_of("my-folder", variant="v2-b")
        ('CC-BY-NC-4.0', 'CC-BY-NC-4.0')
        >>> licence_of("my-folder").partition(":")[0]
        'Unknown'
        >>> licence_of("facebook/sam2.1-hiera-large")
        'Apache-2.0'
    """
    stated = _readme(Path(spec).expanduser())
    if stated is not None:
        return stated
    named = variant_of(spec)
    found = RELEASED.get(named, UNKNOWN) if named is not None else UNKNOWN
    if named is None and _SAM2.search(spec):
        found = APACHE
    shaped = RELEASED.get(variant, UNKNOWN) if variant is not None else UNKNOWN
    return NC if NC in (found, shaped) else found


def _readme(folder: Path) -> str | None:
    """``license`` in the header of the README that hub downloads carry."""
    path = folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:20_000] if path.is_file() else ""
    except OSError:
        return None
    match = re.match(r"---\s*\n(.*?)\n---", text, re.S)
    if match is None:
        return None
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return None
    stated = header.get("license") if isinstance(header, dict) else None
    return _IDS.get(stated.lower(), stated) if isinstance(stated, str) and stated else None
