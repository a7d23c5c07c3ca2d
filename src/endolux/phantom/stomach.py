"""The stomach: a wide deformed cavity with rugae, the fold of the incisura and the pylorus."""

from __future__ import annotations

import numpy as np

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.families import Family
from endolux.phantom.hollow import between, lumen_scene
from endolux.phantom.lumen import LumenShape


@anatomy("stomach")
def build_stomach(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """From the fundus along the body round the incisura to the pylorus, with the bulb of the duodenum behind it."""
    radius = between(rng, 28, 52)
    slenderness = family.draw(rng, "stomach", "slenderness")
    length = radius * slenderness
    shape = LumenShape(
        length_mm=length,
        radius_mm=radius,
        radius_variation=between(rng, 0.08, 0.22),
        cap_mm=length * between(rng, 0.12, 0.28),
        bend_per_100mm=between(rng, 0.4, 1.4),
        lobes=int(rng.choice((0, 2, 2, 3))),
        lobe_depth=between(rng, 0.05, 0.3),
        # Few great folds: the incisura and the bends of the wall.
        fold_spacing_mm=between(rng, 55, 120),
        fold_height=between(rng, 0.15, 0.6),
        fold_width_mm=between(rng, 5.0, 11.0),
        fold_rows=2,
        fold_sharpness=between(rng, 1.6, 2.4),
        fold_lean=between(rng, -0.5, 0.5),
        rugae_mm=float(rng.choice((0.0, between(rng, 1.0, 4.0), between(rng, 3.0, 9.0)), p=(0.25, 0.35, 0.4))),
        bumps_mm=between(rng, 0.5, 4.0),
        bump_length_mm=between(rng, 10, 40),
        cap_ridge_mm=0.0,
        neck_at=between(rng, 0.74, 0.86),
        neck_radius_mm=between(rng, 2.0, 9.0),
        neck_width_mm=between(rng, 5.0, 12.0),
    )
    return lumen_scene(
        "stomach",
        rng,
        shape,
        polyps=int(rng.choice((0, int(rng.integers(1, 6))), p=(0.7, 0.3))),
        masses=int(rng.choice((0, 1), p=(0.85, 0.15))),
        rich=rich_texture,
        smooth=bool(rng.random() < 0.25),
        told={"slenderness": round(slenderness, 6)},
    )
