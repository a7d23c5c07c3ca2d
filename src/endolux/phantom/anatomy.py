"""One anatomy ready to be rendered, and the registry of those who build them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from endolux.phantom.families import Family
from endolux.phantom.landmarks import Line
from endolux.phantom.lumen import Centreline
from endolux.phantom.mesh import Mesh
from endolux.phantom.pose import Outlook
from endolux.phantom.tissue import Tissue


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """One anatomy.

    Attributes:
        anatomy: registry name.
        mesh: every surface, joined.
        tissues: what the surfaces are made of; ``mesh.tissue`` chooses. One alone may be given as it is.
        centreline: where a scope can travel.
        record: the sampled numbers, for the manifest.
        outlook: what a scope looks at from outside; None where views follow the centreline.
        sights: N x 3 places inside that deserve a look, mm: lesions, turbinates, what lies in the lumen.
        growths: N x 4 centres and radii of bodies on the wall, mm, which a scope may come close to.
        held: instruments that may come out of the scope's channel, in camera axes; a view takes one or none.
        lines: curves on the surfaces that surgeons orient themselves by.
        annotated: lines are those that a person would draw: the silhouette also runs where the liver touches the
            abdominal wall, and nothing is drawn beyond the visible area.
    """

    anatomy: str
    mesh: Mesh
    tissues: tuple[Tissue, ...]
    centreline: Centreline
    record: dict[str, float | int | str]
    outlook: Outlook | None = None
    sights: npt.NDArray[np.float32] | None = None
    held: tuple[Mesh, ...] = ()
    growths: npt.NDArray[np.float32] | None = None
    lines: tuple[Line, ...] = ()
    annotated: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.tissues, Tissue):
            object.__setattr__(self, "tissues", (self.tissues,))

    @property
    def tissue(self) -> Tissue:
        """The first tissue."""
        return self.tissues[0]


Builder = Callable[[np.random.Generator, float, Family], Scene]
"""From randomness, the share of rich textures and the family of shapes."""

ANATOMIES: dict[str, Builder] = {}


def anatomy(name: str) -> Callable[[Builder], Builder]:
    """Register a scene builder under ``name``."""

    def register(builder: Builder) -> Builder:
        ANATOMIES[name] = builder
        return builder

    return register
