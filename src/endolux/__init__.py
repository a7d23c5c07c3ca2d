"""Endolux: depth from endoscopic and laparoscopic video.

Example:
    >>> import endolux
    >>> endolux.DepthKind.METRIC.value
    'metric'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endolux.io.images import read
    from endolux.runtime.landmarks import LandmarkModel, load_landmarks
    from endolux.runtime.model import Model, load
    from endolux.types import Bundle, Camera, CameraModel, DepthKind, DepthMap, Frame, LandmarkMap, Unit

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "Camera",
    "CameraModel",
    "DepthKind",
    "DepthMap",
    "Frame",
    "LandmarkMap",
    "LandmarkModel",
    "Model",
    "Unit",
    "__version__",
    "load",
    "load_landmarks",
    "read",
]

# Looked up on first use: importing the package alone costs milliseconds.
_HOMES = {
    "Bundle": "endolux.types",
    "Camera": "endolux.types",
    "CameraModel": "endolux.types",
    "DepthKind": "endolux.types",
    "DepthMap": "endolux.types",
    "Frame": "endolux.types",
    "LandmarkMap": "endolux.types",
    "LandmarkModel": "endolux.runtime.landmarks",
    "Model": "endolux.runtime.model",
    "Unit": "endolux.types",
    "load": "endolux.runtime.model",
    "load_landmarks": "endolux.runtime.landmarks",
    "read": "endolux.io.images",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'endolux' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
