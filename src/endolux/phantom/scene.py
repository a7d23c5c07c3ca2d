"""Scenes: one anatomy with its surface, and the registry that builds anatomies by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from pydantic import BaseModel

from endolux.errors import UsageError
from endolux.phantom.lumen import Centreline, LumenShape, build_lumen
from endolux.phantom.mesh import Mesh, join
from endolux.phantom.polyp import build_polyp
from endolux.phantom.tissue import Tissue, sample_tissue

_TEXTURE_SHAPE = (1024, 512)


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """One anatomy.

    Attributes:
        anatomy: registry name.
        mesh: every surface, joined.
        tissue: textures of the surfaces.
        centreline: where a scope can travel.
        record: the sampled numbers, for the manifest.
    """

    anatomy: str
    mesh: Mesh
    tissue: Tissue
    centreline: Centreline
    record: dict[str, float | int | str]


Builder = Callable[[np.random.Generator, float], Scene]
ANATOMIES: dict[str, Builder] = {}


def anatomy(name: str) -> Callable[[Builder], Builder]:
    """Register a scene builder under ``name``."""

    def register(builder: Builder) -> Builder:
        ANATOMIES[name] = builder
        return builder

    return register


def build_scene(name: str, rng: np.random.Generator, *, rich_texture: float = 0.0) -> Scene:
    """Build one random scene of the named anatomy.

    Args:
        name: registry name.
        rng: source of randomness.
        rich_texture: share of scenes with strong mottling and dense vessels, whose brightness says little of depth.

    Raises:
        UsageError: unknown anatomy.
    """
    if name not in ANATOMIES:
        raise UsageError(
            f"Unknown anatomy '{name}'",
            why=f"This version knows: {', '.join(sorted(ANATOMIES))}.",
            fix="Choose one of them.",
            error_id="phantom.anatomy",
        )
    return ANATOMIES[name](rng, rich_texture)


def _lumen_scene(
    name: str, rng: np.random.Generator, shape: LumenShape, *, polyps: int, rich: float, smooth: bool
) -> Scene:
    wall, line, grid = build_lumen(rng, shape)
    around_mm = 2 * np.pi * shape.radius_mm
    texel = (float(wall.detail[-1, 0]) / _TEXTURE_SHAPE[0], around_mm / _TEXTURE_SHAPE[1])
    tissue = sample_tissue(rng, shape=_TEXTURE_SHAPE, texel_mm=texel, smooth=smooth, rich=rich)
    parts = [wall]
    rows, columns = grid.shape[:2]
    normals = wall.normals.reshape(rows, columns, 3)
    for _ in range(polyps):
        i, j = int(rng.integers(rows // 10, rows - rows // 10)), int(rng.integers(columns))
        radius = min(float(rng.lognormal(1.1, 0.5)), 0.4 * shape.radius_mm)
        stalk = radius * rng.uniform(1.0, 2.5) if rng.random() < 0.25 else 0.0
        parts += build_polyp(
            rng,
            base=grid[i, j],
            normal=normals[i, j],
            radius_mm=radius,
            stalk_mm=stalk,
            texture=(i / (rows - 1), j / (columns - 1)),
        )
    record = _numbers(shape) | {"polyps": polyps, "palette": tissue.palette}
    return Scene(name, join(parts), tissue, line, record)


def _numbers(shape: BaseModel) -> dict[str, float | int | str]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in shape.model_dump().items()}


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _polyp_count(rng: np.random.Generator) -> int:
    return int(rng.choice((0, int(rng.integers(1, 4)), int(rng.integers(4, 14))), p=(0.4, 0.4, 0.2)))


@anatomy("colon")
def build_colon(rng: np.random.Generator, rich_texture: float) -> Scene:
    """Haustral folds in three rows on a triangular to round lumen; a caecum-like pouch at each end."""
    radius = float(np.clip(rng.lognormal(np.log(20.0), 0.3), 9.0, 38.0))
    shape = LumenShape(
        length_mm=_between(rng, 160, 420),
        radius_mm=radius,
        radius_variation=_between(rng, 0.05, 0.3),
        cap_mm=radius * _between(rng, 0.5, 1.3),
        bend_per_100mm=_between(rng, 0.2, 2.2),
        lobes=int(rng.choice((0, 3, 3, 3))),
        lobe_depth=_between(rng, 0.0, 0.35),
        fold_spacing_mm=_between(rng, 11, 34),
        fold_height=_between(rng, 0.12, 0.62),
        fold_width_mm=_between(rng, 1.8, 4.5),
        fold_rows=int(rng.choice((1, 2, 3, 3, 3))),
        fold_sharpness=_between(rng, 1.8, 2.8),
        fold_lean=_between(rng, -0.6, 0.6),
        rugae_mm=0.0,
        bumps_mm=_between(rng, 0.1, 2.0),
        bump_length_mm=_between(rng, 6, 25),
        cap_ridge_mm=_between(rng, 0, 9),
    )
    return _lumen_scene(
        "colon", rng, shape, polyps=_polyp_count(rng), rich=rich_texture, smooth=bool(rng.random() < 0.3)
    )


@anatomy("pouch")
def build_pouch(rng: np.random.Generator, rich_texture: float) -> Scene:
    """A wide closed cavity with rugae: caecum seen from above, stomach, insufflated rectum."""
    radius = _between(rng, 22, 55)
    length = radius * _between(rng, 2.6, 5.0)
    shape = LumenShape(
        length_mm=length,
        radius_mm=radius,
        radius_variation=_between(rng, 0.1, 0.4),
        cap_mm=length * _between(rng, 0.25, 0.5),
        bend_per_100mm=_between(rng, 0.3, 1.6),
        lobes=int(rng.choice((0, 2, 3))),
        lobe_depth=_between(rng, 0.0, 0.3),
        fold_spacing_mm=float(rng.choice((0.0, rng.uniform(18, 45)))),
        fold_height=_between(rng, 0.1, 0.4),
        fold_width_mm=_between(rng, 2.0, 7.0),
        fold_rows=int(rng.choice((2, 3))),
        fold_sharpness=_between(rng, 1.8, 2.8),
        fold_lean=_between(rng, -0.4, 0.4),
        rugae_mm=float(rng.choice((0.0, rng.uniform(1.0, 8.0)))),
        bumps_mm=_between(rng, 0.5, 5.0),
        bump_length_mm=_between(rng, 8, 40),
        cap_ridge_mm=_between(rng, 0, 10),
    )
    return _lumen_scene(
        "pouch", rng, shape, polyps=_polyp_count(rng), rich=rich_texture, smooth=bool(rng.random() < 0.2)
    )


@anatomy("tube")
def build_tube(rng: np.random.Generator, rich_texture: float) -> Scene:
    """A narrow tube with full rings or none: small bowel, oesophagus, airway-like."""
    radius = _between(rng, 5, 16)
    shape = LumenShape(
        length_mm=_between(rng, 100, 260),
        radius_mm=radius,
        radius_variation=_between(rng, 0.02, 0.25),
        cap_mm=radius * _between(rng, 0.4, 1.0),
        bend_per_100mm=_between(rng, 0.1, 2.5),
        lobes=int(rng.choice((0, 0, 2, 3))),
        lobe_depth=_between(rng, 0.0, 0.4),
        fold_spacing_mm=_between(rng, 3.5, 12),
        fold_height=float(rng.choice((0.0, rng.uniform(0.04, 0.3)))),
        fold_width_mm=_between(rng, 1.2, 2.2),
        fold_rows=1,
        fold_sharpness=_between(rng, 1.8, 2.5),
        fold_lean=_between(rng, -0.3, 0.3),
        rugae_mm=float(rng.choice((0.0, rng.uniform(0.5, 2.5)))),
        bumps_mm=_between(rng, 0.05, 0.8),
        bump_length_mm=_between(rng, 4, 15),
        cap_ridge_mm=_between(rng, 0, 3),
    )
    return _lumen_scene(
        "tube", rng, shape, polyps=_polyp_count(rng), rich=rich_texture, smooth=bool(rng.random() < 0.2)
    )
