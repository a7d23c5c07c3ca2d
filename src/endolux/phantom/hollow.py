"""Hollow organs seen from inside: colon, pouch and tube."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import BaseModel

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.assembly import Assembly
from endolux.phantom.families import Family
from endolux.phantom.labels import Label
from endolux.phantom.litter import Ground, furnish
from endolux.phantom.lumen import LumenShape, build_lumen
from endolux.phantom.organs import organ_tissue
from endolux.phantom.polyp import build_mass, build_polyp
from endolux.phantom.solids import Body
from endolux.phantom.tissue import Tissue, sample_tissue
from endolux.phantom.tools import in_channel

_TEXTURE_SHAPE = (1024, 512)
_HELD_SHARE = 0.15


def lumen_scene(
    name: str,
    rng: np.random.Generator,
    shape: LumenShape,
    *,
    rich: float,
    smooth: bool,
    polyps: int = 0,
    masses: int = 0,
    adapt: Callable[[Tissue], Tissue] | None = None,
    told: Mapping[str, float] | None = None,
) -> Scene:
    """A lumen with what grows on its wall.

    Args:
        name: anatomy.
        rng: source of randomness.
        shape: numbers of the lumen.
        rich: probability of strong mottling and dense vessels.
        smooth: silicone-like.
        polyps: number of small polyps.
        masses: number of large bodies that narrow the lumen.
        adapt: changes the wall's tissue.
        told: more numbers for the record.
    """
    wall, line, grid = build_lumen(rng, shape)
    around_mm = 2 * np.pi * shape.radius_mm
    texel = (float(wall.detail[-1, 0]) / _TEXTURE_SHAPE[0], around_mm / _TEXTURE_SHAPE[1])
    tissue = sample_tissue(rng, shape=_TEXTURE_SHAPE, texel_mm=texel, smooth=smooth, rich=rich)
    kit = Assembly(rng, rich=rich)
    kit.adopt(tissue if adapt is None else adapt(tissue))
    kit.include([wall])
    rows, columns = grid.shape[:2]
    normals = wall.normals.reshape(rows, columns, 3)
    sights = []
    growths: list[tuple[float, ...]] = []
    for _ in range(polyps):
        i, j = int(rng.integers(rows // 10, rows - rows // 10)), int(rng.integers(columns))
        radius = min(float(rng.lognormal(1.1, 0.5)), 0.4 * shape.radius_mm)
        stalk = radius * rng.uniform(1.0, 2.5) if rng.random() < 0.25 else 0.0
        # Pale or reddish against the wall it grows from.
        hue = rng.choice((-1.0, 1.0)) * np.array([0.0, 0.15, 0.12])
        tint = np.exp(rng.normal(0, 0.08, 3) + hue)
        bodies = build_polyp(rng, base=grid[i, j], normal=normals[i, j], radius_mm=radius, stalk_mm=stalk)
        for body, factor in zip(bodies, (tint, np.ones(3)), strict=False):
            kit.add(body, 0, Label.POLYP, tint=factor)
        sights.append(grid[i, j] + (radius + stalk) * normals[i, j])
        growths.append(ball(bodies[0]))
    for _ in range(masses):
        i, j = int(rng.integers(rows // 8, rows - rows // 8)), int(rng.integers(columns))
        body = build_mass(rng, base=grid[i, j], normal=normals[i, j], radius_mm=shape.radius_mm * rng.uniform(0.3, 0.8))
        own = 0
        if rng.random() < 0.7:
            own = kit.adopt(_akin(rng, organ_tissue(rng, "lesion", texel_mm=0.12, rich=rich), kit.tissues[0]))
        kit.add(body, own, Label.POLYP, tint=np.exp(rng.normal(0, 0.1, 3)))
        growths.append(ball(body))
        # Large bodies are what the eye goes to: several places on each.
        sights += list(body.vertices[:: len(body.vertices) // 8])
    inner = slice(rows // 12, rows - rows // 12)
    ground = Ground(
        places=grid[inner, :-1].reshape(-1, 3)[::7],
        normals=normals[inner, :-1].reshape(-1, 3)[::7],
        size_mm=shape.radius_mm,
        inside=True,
    )
    things = furnish(kit, rng, ground)
    # Few scenes have an instrument, and not all of their views show it.
    held = tuple(in_channel(kit, rng) for _ in range(int(rng.random() < _HELD_SHARE)))
    record = numbers(shape) | {"polyps": polyps, "masses": masses, "palette": tissue.palette} | things
    record |= told or {}
    found = np.asarray(sights, np.float32) if sights else None
    near = np.asarray(growths, np.float32) if growths else None
    return Scene(name, kit.mesh(), kit.tissues, line, record, sights=found, held=held, growths=near)


def _akin(rng: np.random.Generator, tissue: Tissue, wall: Tissue) -> Tissue:
    """A growth is made of the wall it grows from: its colour lies between that of its kind and the wall's."""
    ratio = wall.albedo.mean(axis=(0, 1)) / np.maximum(tissue.albedo.mean(axis=(0, 1)), 1e-3)
    albedo = tissue.albedo * (ratio ** rng.uniform(0.5, 1.0)).astype(np.float32)
    return dataclasses.replace(tissue, albedo=np.clip(albedo, 0.01, 0.95).astype(np.float32))


def ball(body: Body) -> tuple[float, ...]:
    """Centre and radius of a body, mm."""
    centre = body.vertices.mean(axis=0)
    return (*map(float, centre), float(np.percentile(np.linalg.norm(body.vertices - centre, axis=1), 90)))


def numbers(shape: BaseModel) -> dict[str, float | int | str]:
    """The numbers of a shape for the manifest."""
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in shape.model_dump().items()}


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform draw."""
    return float(rng.uniform(low, high))


def bend(rng: np.random.Generator, low: float, high: float) -> float:
    """Turn of a centreline; some lumens are straightened by the scope, and one looks far into them."""
    turn = between(rng, low, high)
    return 0.15 * turn if rng.random() < 0.3 else turn


def _polyp_count(rng: np.random.Generator) -> int:
    return int(rng.choice((0, int(rng.integers(1, 4)), int(rng.integers(4, 14))), p=(0.4, 0.4, 0.2)))


@anatomy("colon")
def build_colon(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """Haustral folds in three rows on a triangular to round lumen; a caecum-like pouch at each end."""
    radius = float(np.clip(rng.lognormal(np.log(20.0), 0.3), 9.0, 38.0))
    shape = LumenShape(
        length_mm=between(rng, 160, 420),
        radius_mm=radius,
        radius_variation=between(rng, 0.05, 0.3),
        cap_mm=radius * between(rng, 0.5, 1.3),
        bend_per_100mm=bend(rng, 0.2, 2.2),
        lobes=int(rng.choice((0, 3, 3, 3))),
        lobe_depth=between(rng, 0.0, 0.35),
        fold_spacing_mm=family.draw(rng, "colon", "fold_spacing_mm"),
        fold_height=between(rng, 0.12, 0.62),
        fold_width_mm=between(rng, 1.8, 4.5),
        fold_rows=int(rng.choice((1, 2, 3, 3, 3))),
        fold_sharpness=between(rng, 1.8, 2.8),
        fold_lean=between(rng, -0.6, 0.6),
        rugae_mm=0.0,
        bumps_mm=between(rng, 0.1, 2.0),
        bump_length_mm=between(rng, 6, 25),
        cap_ridge_mm=between(rng, 0, 9),
        diverticula=int(rng.choice((0, int(rng.integers(2, 25))), p=(0.85, 0.15))),
    )
    return lumen_scene(
        "colon",
        rng,
        shape,
        polyps=_polyp_count(rng),
        masses=int(rng.choice((0, 1, 2, 3), p=(0.62, 0.2, 0.12, 0.06))),
        rich=rich_texture,
        smooth=bool(rng.random() < 0.3),
    )


@anatomy("pouch")
def build_pouch(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """A wide closed cavity with rugae: caecum seen from above, stomach, insufflated rectum."""
    radius = between(rng, 22, 55)
    slenderness = family.draw(rng, "pouch", "slenderness")
    length = radius * slenderness
    shape = LumenShape(
        length_mm=length,
        radius_mm=radius,
        radius_variation=between(rng, 0.1, 0.4),
        cap_mm=length * between(rng, 0.25, 0.5),
        bend_per_100mm=between(rng, 0.3, 1.6),
        lobes=int(rng.choice((0, 2, 3))),
        lobe_depth=between(rng, 0.0, 0.3),
        fold_spacing_mm=float(rng.choice((0.0, rng.uniform(18, 45)))),
        fold_height=between(rng, 0.1, 0.4),
        fold_width_mm=between(rng, 2.0, 7.0),
        fold_rows=int(rng.choice((2, 3))),
        fold_sharpness=between(rng, 1.8, 2.8),
        fold_lean=between(rng, -0.4, 0.4),
        rugae_mm=float(rng.choice((0.0, rng.uniform(1.0, 8.0)))),
        bumps_mm=between(rng, 0.5, 5.0),
        bump_length_mm=between(rng, 8, 40),
        cap_ridge_mm=between(rng, 0, 10),
    )
    return lumen_scene(
        "pouch",
        rng,
        shape,
        polyps=_polyp_count(rng),
        rich=rich_texture,
        smooth=bool(rng.random() < 0.2),
        told={"slenderness": round(slenderness, 6)},
    )


@anatomy("tube")
def build_tube(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """A narrow tube with full rings or none: small bowel, oesophagus, airway-like."""
    radius = family.draw(rng, "tube", "radius_mm")
    shape = LumenShape(
        length_mm=between(rng, 100, 260),
        radius_mm=radius,
        radius_variation=between(rng, 0.02, 0.25),
        cap_mm=radius * between(rng, 0.4, 1.0),
        bend_per_100mm=bend(rng, 0.1, 2.5),
        lobes=int(rng.choice((0, 0, 2, 3))),
        lobe_depth=between(rng, 0.0, 0.4),
        fold_spacing_mm=between(rng, 3.5, 12),
        fold_height=float(rng.choice((0.0, rng.uniform(0.04, 0.3)))),
        fold_width_mm=between(rng, 1.2, 2.2),
        fold_rows=1,
        fold_sharpness=between(rng, 1.8, 2.5),
        fold_lean=between(rng, -0.3, 0.3),
        rugae_mm=float(rng.choice((0.0, rng.uniform(0.5, 2.5)))),
        bumps_mm=between(rng, 0.05, 0.8),
        bump_length_mm=between(rng, 4, 15),
        cap_ridge_mm=between(rng, 0, 3),
    )
    return lumen_scene("tube", rng, shape, polyps=_polyp_count(rng), rich=rich_texture, smooth=bool(rng.random() < 0.2))
