"""Branching airways and the nose: bronchi with their carina, turbinates in a slit, ethmoid cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.assembly import Assembly
from endolux.phantom.families import Family
from endolux.phantom.isosurface import cone_net, round_cones
from endolux.phantom.labels import Label
from endolux.phantom.litter import Ground, furnish
from endolux.phantom.lumen import Centreline
from endolux.phantom.mesh import Mesh
from endolux.phantom.solids import Body, closed_body, displace, round_ends, smooth_path, solid_noise, sweep_grid
from endolux.phantom.tools import NASAL, in_channel

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]
_HELD_SHARE = 0.3
_FOREIGN = frozenset({"stool", "clips", "sutures"})


def follow(points: Array, radius: Array) -> Centreline:
    """A centreline through N x 3 points with a free radius each."""
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    tangent = np.gradient(np.asarray(points, np.float64), axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    frames = np.empty((len(points), 3, 3))
    helper = np.eye(3)[int(np.argmin(np.abs(tangent[0])))]
    for k, direction in enumerate(tangent):
        helper = helper - direction * float(helper @ direction)
        helper /= max(float(np.linalg.norm(helper)), 1e-9)
        frames[k] = np.stack([helper, np.cross(direction, helper), direction], 1)
    return Centreline(
        np.asarray(points, np.float32), frames.astype(np.float32), np.asarray(radius, np.float32), length / len(points)
    )


def _tree(
    rng: np.random.Generator, radius: float, carina: float
) -> tuple[list[tuple[Array, Array, float, float]], list[list[int]]]:
    """Branches (start, end, radius at both) and the ways from the root to each tip; the first two ``carina`` apart."""
    branches: list[tuple[Array, Array, float, float]] = []
    ways: list[list[int]] = []
    uneven = float(rng.uniform(0.35, 0.65))

    def grow(start: Array, heading: Array, size: float, order: int, way: list[int]) -> None:
        stretch = radius * (rng.uniform(5, 9) if order == 0 else rng.uniform(2.2, 5.0) * size / radius + 0.6)
        end = start + heading * stretch
        branches.append((start, end, size, size * rng.uniform(0.82, 0.98)))
        way = [*way, len(branches) - 1]
        if order >= 3:
            ways.append(way)
            return
        side = np.cross(heading, rng.standard_normal(3))
        if order == 0:
            side = np.cross(heading, np.array([0.0, 1.0, 0.0]))
        side /= np.linalg.norm(side)
        count = 3 if order > 0 and rng.random() < 0.25 else 2
        for k in range(count):
            turn = 2 * np.pi * k / count + rng.normal(0, 0.15)
            out = np.cos(turn) * side + np.sin(turn) * np.cross(heading, side)
            angle = rng.uniform(0.35, 0.85) if order else carina * (uneven if k else 1 - uneven)
            grow(end, np.cos(angle) * heading + np.sin(angle) * out, size * rng.uniform(0.58, 0.8), order + 1, way)

    grow(np.zeros(3), np.array([0.0, 0.0, 1.0]), radius, 0, [])
    return branches, ways


@anatomy("bronchus")
def build_bronchus(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """A windpipe with cartilage rings that divides at the carina, and again and again."""
    radius = float(rng.uniform(5.5, 10.0))
    carina = family.draw(rng, "bronchus", "carina_rad")
    branches, ways = _tree(rng, radius, carina)
    starts = np.array([b[0] for b in branches], np.float32)
    ends = np.array([b[1] for b in branches], np.float32)
    radii = np.array([b[2:] for b in branches], np.float32)
    blend = float(rng.uniform(0.25, 0.9)) * radius * 0.5
    body = cone_net(starts, ends, radii, blend_mm=blend, step_mm=0.085 * radius, inward=True)
    _, branch, along = round_cones(body.vertices, starts, ends, radii, blend_mm=blend)
    # Cartilage rings stand in; the back wall has none.
    period = radius * rng.uniform(0.32, 0.6)
    heading = (ends - starts) / np.maximum(np.linalg.norm(ends - starts, axis=1, keepdims=True), 1e-6)
    out = body.vertices - (starts[branch] + along[:, None] * heading[branch])
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    back = np.array([rng.normal(0, 0.3), 1.0, rng.normal(0, 0.3)])
    front = np.clip(1.3 - 1.6 * (out @ (back / np.linalg.norm(back))), 0, 1)
    local = radii[branch].mean(axis=1)
    rings = np.sin(2 * np.pi * along / (period * (0.5 + 0.5 * local / radius)) + branch * 1.7)
    amount = rng.uniform(0.0, 0.055) * local * rings * front
    amount += rng.uniform(0.01, 0.05) * radius * solid_noise(rng, body.vertices, scale_mm=radius * 0.8)
    amount += rng.uniform(0.0, 0.012) * radius * solid_noise(rng, body.vertices, scale_mm=radius * 0.2)
    body = displace(body, amount)
    kit = Assembly(rng, rich=rich_texture)
    kit.add(body, kit.tissue("mucosa", texel_mm=0.12), Label.AIRWAY)
    things = furnish(kit, rng, Ground(body.vertices[::7], body.normals[::7], radius, inside=True), without=_FOREIGN)
    way = ways[int(rng.integers(len(ways)))]
    knots = np.stack([starts[way[0]] + heading[way[0]] * radius, *(ends[k] for k in way)])
    path = smooth_path(knots, count=200)
    _, there, _ = round_cones(path, starts, ends, radii, blend_mm=blend)
    line = follow(path, 0.8 * radii[there].min(axis=1))
    record: dict[str, float | int | str] = {"radius_mm": round(radius, 3), "carina_rad": round(carina, 6)}
    record["branches"] = len(branches)
    record["palette"] = kit.tissues[0].palette
    held = tuple(in_channel(kit, rng, beside_mm=(1.6, 3.2)) for _ in range(int(rng.random() < _HELD_SHARE)))
    return Scene("bronchus", kit.mesh(), kit.tissues, line, record | things, held=held)


def _turbinate(
    rng: np.random.Generator, *, side: float, height: float, length: float, girth: float, wall: float
) -> Body:
    """A long soft drop hanging from the outer wall into the passage."""
    start, end = rng.uniform(0.1, 0.3) * length, rng.uniform(0.75, 0.95) * length
    knots = np.stack(
        [
            np.array([side * wall * share, height + rng.normal(0, 1.0), z])
            for share, z in zip((0.95, 0.55, 0.6, 1.0), np.linspace(start, end, 4), strict=True)
        ]
    )
    rows = 90
    path = smooth_path(knots, count=rows)
    place = np.linspace(0, 1, rows)
    swell = round_ends(rows, share=0.16) * (0.7 + 0.5 * np.sin(np.pi * np.minimum(place * rng.uniform(1.0, 1.6), 1)))
    grid = sweep_grid(path, girth * swell, columns=56, up=np.array([0.0, 1.0, 0.0]), flat=rng.uniform(0.45, 0.75))
    # The free border hangs down and curls towards the wall.
    hang = rng.uniform(0.1, 0.45) * girth
    below = np.clip(-(grid[..., 1] - path[:, None, 1]) / girth, 0, 1.5)
    grid[..., 1] -= hang * below * swell[:, None]
    grid[..., 0] += side * 0.2 * girth * below**2
    body = closed_body(grid)
    amount = rng.uniform(0.1, 0.6) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(3, 8))
    return displace(body, amount + rng.uniform(0, 0.08) * solid_noise(rng, body.vertices, scale_mm=1.2))


@anatomy("sinus")
def build_sinus(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """The nose: a tall slit between septum and turbinates, or the cells of the ethmoid behind it."""
    kit = Assembly(rng, rich=rich_texture)
    tissue = kit.tissue("mucosa", texel_mm=0.12)
    openness = family.draw(rng, "sinus", "openness")
    if rng.random() < 0.3:
        return _cells(rng, kit, tissue, openness)
    length, tall, wide = rng.uniform(45, 80), rng.uniform(13, 23), 6.0 + 6.0 * openness
    rows = 130
    bend = rng.normal(0, 4, (5, 2)) * np.array([0.5, 1.0])
    knots = np.concatenate([bend, np.linspace(0, length, 5)[:, None]], 1)
    path = smooth_path(knots, count=rows)
    angle = -np.linspace(0, 2 * np.pi, 120, endpoint=False)
    # A tall section: narrow above, wide at the floor; the first axis is up.
    section = np.sqrt(1 / ((np.cos(angle) / tall) ** 2 + (np.sin(angle) / wide) ** 2))
    section *= 1 + rng.uniform(0, 0.35) * np.maximum(-np.cos(angle), 0)
    grow = round_ends(rows, share=0.1) * (0.8 + rng.uniform(0, 0.5) * np.linspace(0, 1, rows) ** 2)
    cavity = closed_body(
        sweep_grid(path, section[None] * grow[:, None], columns=120, up=np.array([0.0, 1.0, 0.0])), inward=True
    )
    amount = rng.uniform(0.3, 1.6) * solid_noise(rng, cavity.vertices, scale_mm=rng.uniform(7, 16))
    amount += rng.uniform(0.0, 0.25) * solid_noise(rng, cavity.vertices, scale_mm=rng.uniform(2, 4))
    kit.add(displace(cavity, amount), tissue, Label.AIRWAY)
    side = float(rng.choice((-1.0, 1.0)))
    heights = [-0.45 * tall, 0.15 * tall, 0.6 * tall][: int(rng.integers(1, 4))]
    sights = []
    for height in heights:
        body = _turbinate(
            rng, side=side, height=height, length=length, girth=float(rng.uniform(0.2, 0.38) * tall), wall=wide
        )
        kit.add(body, tissue, Label.AIRWAY, tint=np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.06, 3)))
        sights.append(body.vertices[:: max(1, len(body.vertices) // 40)])
    things = furnish(kit, rng, Ground(cavity.vertices[::9], cavity.normals[::9], wide, inside=True), without=_FOREIGN)
    way = path[12:-12] + np.array([-side * 0.45 * wide, rng.uniform(-0.3, 0.1) * tall, 0.0])
    line = follow(way, np.full(len(way), 0.35 * wide))
    record: dict[str, float | int | str] = {"length_mm": round(length, 3), "openness": round(openness, 6)}
    record["turbinates"] = len(heights)
    record["palette"] = kit.tissues[0].palette
    held = _nasal(kit, rng)
    return Scene("sinus", kit.mesh(), kit.tissues, line, record | things, sights=np.concatenate(sights), held=held)


def _nasal(kit: Assembly, rng: np.random.Generator) -> tuple[Mesh, ...]:
    """An instrument beside the rigid scope of the nose, in some scenes."""
    wanted = rng.random() < _HELD_SHARE
    return (in_channel(kit, rng, NASAL, beside_mm=(2.0, 4.0)),) if wanted else ()


def _cells(rng: np.random.Generator, kit: Assembly, tissue: int, openness: float) -> Scene:
    """Round chambers that open into each other with thin edges between them."""
    count = int(rng.integers(4, 9))
    centres = [np.zeros(3)]
    sizes = [rng.uniform(7, 12)]
    while len(centres) < count:
        heading = rng.standard_normal(3) * np.array([0.6, 0.6, 1.0]) + np.array([0, 0, 0.7])
        heading /= np.linalg.norm(heading)
        size = rng.uniform(4.5, 10)
        near = int(rng.integers(max(0, len(centres) - 3), len(centres)))
        centres.append(centres[near] + heading * (sizes[near] + size) * (0.85 - 0.23 * openness))
        sizes.append(size)
    balls, radii = np.array(centres, np.float32), np.array(sizes, np.float32)[:, None].repeat(2, 1)
    # A rim thinner than the grid would come out with teeth.
    body = cone_net(balls, balls, radii, blend_mm=float(rng.uniform(1.2, 3.0)), step_mm=0.3, inward=True)
    amount = rng.uniform(0.1, 0.8) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(4, 9))
    body = displace(body, amount + rng.uniform(0, 0.1) * solid_noise(rng, body.vertices, scale_mm=1.5))
    kit.add(body, tissue, Label.AIRWAY)
    path = smooth_path(np.array(centres[:4]), count=120)
    line = follow(path, np.full(120, 3.0))
    record: dict[str, float | int | str] = {"cells": count, "openness": round(openness, 6)}
    record["palette"] = kit.tissues[0].palette
    held = _nasal(kit, rng)
    return Scene("sinus", kit.mesh(), kit.tissues, line, record, held=held)
