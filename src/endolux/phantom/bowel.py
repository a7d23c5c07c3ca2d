"""Bowel with its own surface: small intestine with circular folds and villi, and the silicone colon of the benches."""

from __future__ import annotations

import dataclasses

import numpy as np

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.families import Family
from endolux.phantom.fields import fractal_field
from endolux.phantom.hollow import bend, between, lumen_scene
from endolux.phantom.looks import LOOKS
from endolux.phantom.lumen import LumenShape
from endolux.phantom.tissue import Tissue


@anatomy("small-intestine")
def build_small_intestine(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """Thin circular folds close behind each other, and a velvet of villi."""
    radius = between(rng, 7, 17)
    spacing = family.draw(rng, "small-intestine", "fold_spacing_mm")
    shape = LumenShape(
        length_mm=between(rng, 110, 240),
        radius_mm=radius,
        radius_variation=between(rng, 0.04, 0.22),
        cap_mm=radius * between(rng, 0.5, 1.2),
        bend_per_100mm=bend(rng, 0.8, 3.5),
        lobes=int(rng.choice((0, 2, 3))),
        lobe_depth=between(rng, 0.0, 0.3),
        fold_spacing_mm=spacing,
        fold_height=between(rng, 0.12, 0.5),
        fold_width_mm=between(rng, 0.22, 0.34) * spacing,
        fold_rows=int(rng.choice((1, 2, 2, 3))),
        fold_sharpness=between(rng, 1.8, 3.0),
        fold_lean=between(rng, -0.5, 0.5),
        rugae_mm=0.0,
        bumps_mm=between(rng, 0.1, 0.8),
        bump_length_mm=between(rng, 4, 15),
        cap_ridge_mm=0.0,
        fold_reach=between(rng, 0.0, 0.9),
    )
    fine = fractal_field(rng, (256, 256), scale=(5.0, 5.0), octaves=3, gain=0.5)

    def villi(tissue: Tissue) -> Tissue:
        return dataclasses.replace(
            tissue,
            detail=fine,
            detail_mm=between(rng, 6.0, 12.0),
            detail_height_mm=between(rng, 0.004, 0.02),
            detail_albedo=between(rng, 0.03, 0.14),
        )

    return lumen_scene(
        "small-intestine",
        rng,
        shape,
        polyps=int(rng.choice((0, int(rng.integers(1, 5))), p=(0.7, 0.3))),
        rich=rich_texture,
        smooth=False,
        adapt=villi,
    )


@anatomy("phantom-silicone")
def build_phantom_silicone(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """A cast colon: one smooth colour, shallow folds, radial ridges at the end, a few moulded polyps."""
    del rich_texture
    radius = between(rng, 13, 30)
    shape = LumenShape(
        length_mm=between(rng, 140, 340),
        radius_mm=radius,
        radius_variation=between(rng, 0.03, 0.2),
        cap_mm=radius * between(rng, 0.4, 1.0),
        bend_per_100mm=bend(rng, 0.2, 1.8),
        lobes=int(rng.choice((0, 3, 3))),
        lobe_depth=between(rng, 0.0, 0.3),
        fold_spacing_mm=family.draw(rng, "phantom-silicone", "fold_spacing_mm"),
        fold_height=between(rng, 0.1, 0.5),
        fold_width_mm=between(rng, 2.0, 5.0),
        fold_rows=int(rng.choice((1, 3, 3))),
        fold_sharpness=between(rng, 1.8, 2.8),
        fold_lean=between(rng, -0.5, 0.5),
        rugae_mm=0.0,
        bumps_mm=between(rng, 0.05, 0.9),
        bump_length_mm=between(rng, 5, 25),
        cap_ridge_mm=between(rng, 0, 10),
    )
    look = LOOKS["silicone"]
    colour = np.asarray(look.colours[int(rng.integers(len(look.colours)))]) * np.exp(rng.normal(0, look.spread, 3))
    roughness, specular = between(rng, *look.roughness), between(rng, *look.specular)

    def cast(tissue: Tissue) -> Tissue:
        # What variation the wall has is kept as a trace: pigment never mixes quite evenly.
        even = tissue.albedo / np.maximum(tissue.albedo.mean(axis=(0, 1)), 1e-3)
        albedo = colour * np.clip(even, 0.3, 2.0) ** between(rng, 0.0, 0.25)
        return dataclasses.replace(
            tissue,
            albedo=np.clip(albedo, 0.01, 0.95).astype(np.float32),
            height_mm=(tissue.height_mm * np.float32(between(rng, 0.0, 0.4))).astype(np.float32),
            roughness=np.full_like(tissue.roughness, roughness),
            detail_albedo=0.0,
            specular=specular,
            palette="silicone",
        )

    return lumen_scene(
        "phantom-silicone",
        rng,
        shape,
        polyps=int(rng.choice((0, int(rng.integers(1, 5))), p=(0.6, 0.4))),
        masses=int(rng.choice((0, 1), p=(0.85, 0.15))),
        rich=0.0,
        smooth=True,
        adapt=cast,
    )
