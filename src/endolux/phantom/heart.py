"""The heart from outside: a bulging surface with fat and coronary vessels in an open pericardium."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.assembly import Assembly
from endolux.phantom.families import Family
from endolux.phantom.labels import Label
from endolux.phantom.laparoscopy import build_lump, trocar_line
from endolux.phantom.litter import Ground, furnish
from endolux.phantom.pose import Outlook, patches
from endolux.phantom.solids import (
    Body,
    closed_body,
    displace,
    ellipsoid_grid,
    moved,
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)
from endolux.phantom.tools import lay_out

Array = npt.NDArray[np.floating]


def _vessel_on(rng: np.random.Generator, body: Body, *, girth: float, steps: int) -> Body:
    """A vessel that winds over a surface, half sunk into it."""
    centre = body.vertices.mean(axis=0)
    rays = body.vertices - centre
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    heading = np.array([rng.normal(0, 0.5), rng.normal(0, 0.5), 1.0])
    drift = rng.standard_normal(3)
    knots = []
    for _ in range(steps):
        heading /= np.linalg.norm(heading)
        knots.append(body.vertices[int(np.argmax(rays @ heading))].astype(np.float64))
        drift += 0.6 * rng.standard_normal(3)
        heading = heading + 0.22 * drift / np.linalg.norm(drift)
    path = smooth_path(np.stack(knots), count=14 * steps)
    # Knots sit on vertices; the way between them is pulled back to the surface.
    inner = path - centre
    inner /= np.linalg.norm(inner, axis=1, keepdims=True)
    reach = np.linalg.norm(body.vertices[np.argmax(rays @ inner.T, axis=0)] - centre, axis=1)
    reach = np.convolve(np.pad(reach, 4, mode="edge"), np.ones(9) / 9, "valid")
    # Half its girth and more lies in the muscle; both ends dive into it.
    dive = np.minimum(np.arange(len(path)), np.arange(len(path))[::-1]) / 12.0
    path = centre + inner * (reach - girth * (0.45 + 2.0 * np.maximum(1 - dive, 0) ** 2))[:, None]
    taper = np.linspace(1.0, rng.uniform(0.3, 0.8), len(path))
    return closed_body(sweep_grid(path, girth * taper * round_ends(len(path), share=0.03), columns=20))


@anatomy("heart")
def build_heart(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """One great convex body that fills the view; a network that knows only hollow organs reads it as a hollow."""
    kit = Assembly(rng, rich=rich_texture)
    flatness, wide = family.draw(rng, "heart", "flatness"), float(rng.uniform(38, 66))
    radii = (wide, float(rng.uniform(34, 58)), flatness * wide)
    body = closed_body(ellipsoid_grid(radii, rows=110, columns=150))
    amount = rng.uniform(1.5, 6.0) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(14, 35))
    amount += rng.uniform(0.0, 0.7) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(5, 10))
    # Dents where the instruments or the clamp of a bench model pressed.
    for _ in range(int(rng.integers(0, 7))):
        at = body.vertices[int(rng.integers(len(body.vertices)))]
        far2 = ((body.vertices - at) ** 2).sum(axis=1)
        amount -= rng.uniform(0.5, 2.5) * np.exp(-far2 / rng.uniform(2.0, 6.0) ** 2)
    body = displace(body, amount)
    kit.add(body, kit.tissue("silicone" if rng.random() < 0.15 else "heart"), Label.HEART)
    for _ in range(int(rng.integers(0, 4))):
        vessel = _vessel_on(rng, body, girth=float(rng.uniform(0.5, 1.8)), steps=int(rng.integers(7, 15)))
        kit.add(vessel, 0, Label.HEART, tint=np.exp(np.array([-0.2, -0.9, -0.7]) * rng.uniform(0.2, 1.2)))
    if rng.random() < 0.6:
        fat = kit.tissue("fat")
        for _ in range(int(rng.integers(1, 5))):
            place = body.vertices[int(rng.integers(len(body.vertices)))]
            size = (float(rng.uniform(6, 16)), float(rng.uniform(4, 10)), float(rng.uniform(1.5, 5)))
            kit.add(build_lump(rng, size, place * 0.97, rough=0.3), fat, Label.FAT)
    cup = closed_body(
        ellipsoid_grid(
            (rng.uniform(1.2, 1.8) * radii[0], rng.uniform(1.2, 1.8) * radii[1], 2.4 * radii[2]), rows=70, columns=100
        ),
        inward=True,
    )
    cup = moved(cup, np.eye(3), np.array([rng.normal(0, 6), rng.normal(0, 6), 1.1 * radii[2]]))
    cup = displace(cup, rng.uniform(1, 5) * solid_noise(rng, cup.vertices, scale_mm=rng.uniform(15, 30)))
    kit.add(cup, kit.tissue("abdominal-wall" if rng.random() < 0.7 else "liver", texel_mm=0.4), Label.WALL)
    front = body.vertices[body.normals[:, 2] > 0.3]
    targets = front[:: max(1, len(front) // 80)]
    trocars = np.stack(
        [[rng.uniform(-30, 30), rng.uniform(-30, 30), radii[2] + rng.uniform(30, 60)] for _ in range(4)]
    ).astype(np.float32)
    tools = int(rng.choice((0, 1, 2), p=(0.6, 0.25, 0.15)))
    if tools:
        tips = targets[rng.integers(len(targets), size=tools)] + [0.0, 0.0, 1.0]
        angle = rng.uniform(0, 2 * np.pi, tools)
        entries = np.stack([130 * np.cos(angle), 130 * np.sin(angle), radii[2] + rng.uniform(30, 90, tools)], 1)
        lay_out(kit, rng, tips=tips, entries=entries)
    ground = Ground(front[::11], body.normals[body.normals[:, 2] > 0.3][::11], 20.0, inside=False)
    things = furnish(kit, rng, ground)
    record: dict[str, float | int | str] = {"radius_mm": round(radii[0], 3), "flatness": round(flatness, 6)}
    record["tools"] = tools
    record.update(things)
    record["palette"] = "+".join(tissue.palette for tissue in kit.tissues)
    outlook = Outlook(targets, trocars, (0.0, 1.0, 0.0), (12.0, 70.0), patches(body, targets, stride=23))
    line = trocar_line(trocars[0], targets[len(targets) // 2])
    return Scene("heart", kit.mesh(), kit.tissues, line, record, outlook=outlook)
