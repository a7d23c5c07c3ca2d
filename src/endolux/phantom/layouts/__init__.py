"""Layouts on disk by name: Endolux's own folder and those of published data sets, one file each.

Example:
    >>> sorted(names())[:3]
    ['c3vd', 'colondepth', 'endoslam-unity']
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from endolux.phantom.layouts.base import LAYOUTS, File, Layout, View, layout
from endolux.phantom.presets import unknown

__all__ = ["File", "Layout", "View", "get_layout", "layout", "names"]


def names() -> list[str]:
    """Names of all layouts, sorted."""
    _import_layouts()
    return sorted(LAYOUTS)


def get_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UsageError: ``phantom.layout`` with the nearest name.

    Example:
        >>> get_layout("servct").stereo
        True
    """
    _import_layouts()
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    return LAYOUTS[name]


@cache
def _import_layouts() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
