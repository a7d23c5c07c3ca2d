"""The synthetic endoscopy world: procedural anatomy, a scope's light and camera, exact ground truth.

Needs the ``phantom`` extra (embreex, numba).

Example:
    >>> from endolux.phantom import stream
    >>> for shot in stream("clean", frames=2, anatomies={"colon": 1}, width=32, height=24, seed=7):
    ...     print(shot.frame.image.shape, shot.depth.unit.value, shot.scene["anatomy"])
    (24, 32, 3) mm colon
    (24, 32, 3) mm colon

``stream`` yields a :class:`Shot` a frame; :func:`settings_of` makes :class:`StreamSettings` from one of ``PRESETS``,
and ``write_folder`` writes them to disk. The pieces, from geometry to pixels:

* ``fields`` random fields, ``vessels`` vessel trees, ``tissue`` mucosa, ``looks`` and ``organs`` every other surface,
* ``lumen`` tubes with folds, ``solids`` seamless bodies and their skin, ``isosurface`` smooth unions,
* ``polyp``, ``things``, ``tools`` what grows, lies and works there; ``litter`` scatters it, ``assembly`` joins it,
* ``anatomy`` one scene and the registry; ``hollow``, ``stomach``, ``bowel``, ``airway``, ``liver``, ``laparoscopy``
  and ``heart`` fill it, ``scene`` builds by name,
* ``labels`` classes, ``landmarks`` lines on the liver, ``smoke`` a veil,
* ``motion`` how a scope moves, ``deform`` how an organ does,
* ``scope`` camera, lights and sensor of one instrument, ``pose`` where it is held,
* ``raycast`` rays to surface points, ``shade`` surface points to light, ``sensor`` light to pixels,
* ``render`` one frame with its ground truth, ``world`` single views, ``presets`` settings as data,
  ``streams`` sequences, ``write`` files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from endolux.phantom.deform import Deformation
    from endolux.phantom.labels import Label
    from endolux.phantom.motion import Motion
    from endolux.phantom.presets import PRESETS, StreamSettings, settings_of
    from endolux.phantom.render import PhantomFrame
    from endolux.phantom.streams import Shot, shots, stream
    from endolux.phantom.write import write_folder

__all__ = [
    "PRESETS",
    "Deformation",
    "Label",
    "Motion",
    "PhantomFrame",
    "Shot",
    "StreamSettings",
    "settings_of",
    "shots",
    "stream",
    "write_folder",
]

# Looked up on first use: the renderer is heavy, and much of the package does without it.
_HOMES = {
    "PRESETS": "presets",
    "Deformation": "deform",
    "Label": "labels",
    "Motion": "motion",
    "PhantomFrame": "render",
    "Shot": "streams",
    "StreamSettings": "presets",
    "settings_of": "presets",
    "shots": "streams",
    "stream": "streams",
    "write_folder": "write",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'endolux.phantom' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f"endolux.phantom.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
