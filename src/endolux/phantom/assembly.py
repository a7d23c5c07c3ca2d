"""A scene put together from several bodies, each with a tissue of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from endolux.phantom.labels import Label
from endolux.phantom.mesh import Mesh, join
from endolux.phantom.organs import organ_tissue
from endolux.phantom.solids import Body, skin
from endolux.phantom.tissue import Tissue

Array = npt.NDArray[np.floating]


class Assembly:
    """Organs put together into one scene, each with a tissue of its own."""

    def __init__(self, rng: np.random.Generator, *, rich: float) -> None:
        self._rng = rng
        self._rich = rich
        self._parts: list[Mesh] = []
        self._tissues: list[Tissue] = []

    def tissue(self, kind: str, *, texel_mm: float = 0.3, side: int = 320) -> int:
        """Draw a tissue and give its number."""
        self._tissues.append(organ_tissue(self._rng, kind, texel_mm=texel_mm, side=side, rich=self._rich))
        return len(self._tissues) - 1

    def adopt(self, tissue: Tissue) -> int:
        """Keep a tissue made elsewhere and give its number."""
        self._tissues.append(tissue)
        return len(self._tissues) - 1

    def skin(self, body: Body, tissue: int, label: Label, *, tint: Array | None = None, scale: float = 1.0) -> Mesh:
        """Skin a body without keeping it."""
        return skin(
            body,
            tissue=tissue,
            size_mm=self._tissues[tissue].size_mm,
            label=label,
            tint=tint,
            shift_mm=self._rng.uniform(0, 200, 3),
            scale=scale,
        )

    def add(self, body: Body, tissue: int, label: Label, *, tint: Array | None = None, scale: float = 1.0) -> Mesh:
        """Skin a body and keep it."""
        mesh = self.skin(body, tissue, label, tint=tint, scale=scale)
        self._parts.append(mesh)
        return mesh

    def include(self, meshes: list[Mesh]) -> None:
        """Keep meshes that have their skin already."""
        self._parts += meshes

    def change_tissue(self, change: Callable[[Mesh], Mesh]) -> None:
        """Replace every part that is tissue, not litter or instrument, by its changed self."""
        for k, part in enumerate(self._parts):
            if part.label[0] < Label.STOOL or part.label[0] >= Label.AIRWAY:
                self._parts[k] = change(part)

    @property
    def tissues(self) -> tuple[Tissue, ...]:
        """What was drawn so far."""
        return tuple(self._tissues)

    def mesh(self) -> Mesh:
        """All of it."""
        return join(self._parts)
