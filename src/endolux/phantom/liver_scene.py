"""The liver as surgeons see it before they register it: from the navel, with its edge, its ligament and its outline."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.assembly import Assembly
from endolux.phantom.families import Family
from endolux.phantom.labels import Label
from endolux.phantom.landmarks import Landmark, Line
from endolux.phantom.laparoscopy import build_dome, build_floor, build_loop, build_lump, trocar_line
from endolux.phantom.litter import Ground, furnish
from endolux.phantom.liver import Liver, build_gallbladder, build_liver, build_sheet
from endolux.phantom.pose import Outlook
from endolux.phantom.solids import Body, closed_body, displace, moved, round_ends, smooth_path, solid_noise, sweep_grid
from endolux.phantom.things import pool
from endolux.phantom.tools import lay_out

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]

_UP = (0.0, 0.0, 1.0)
_REACH_MM = (45.0, 190.0)
_SEEN_FROM_BELOW = 0.25


def lie(liver: Liver, *, front_mm: Array) -> Liver:
    """The liver moved so that the middle of its front edge lies at ``front_mm``, N = 3."""
    angle = np.linspace(0, 2 * np.pi, len(liver.outline), endpoint=False)
    front = liver.rim[np.abs(angle - 1.5 * np.pi) < 0.5].mean(axis=0)
    by = np.asarray(front_mm, np.float64) - front
    return dataclasses.replace(
        liver,
        body=moved(liver.body, np.eye(3), by),
        rim=(liver.rim + by).astype(np.float32),
        shift=np.asarray(liver.shift + by),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Meridian:
    """A path over the upper surface, from the edge towards the pole.

    Attributes:
        points: N x 3 mm on the surface.
        normals: N x 3.
    """

    points: npt.NDArray[np.float64]
    normals: npt.NDArray[np.float64]

    @property
    def aside(self) -> npt.NDArray[np.float64]:
        """N x 3 directions along the surface, to the path's side."""
        along = np.gradient(self.points, axis=0)
        aside = np.cross(self.normals, along)
        return np.asarray(aside / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9))


def meridian(liver: Liver, azimuth: Array, *, until: float, count: int = 40) -> Meridian:
    """The surface along a direction of the plan, from the edge to a share of the way to the pole.

    Args:
        liver: as :func:`build_liver` makes it.
        azimuth: ``count`` radians.
        until: 0 goes on to the pole.
        count: points.
    """
    columns = len(liver.outline)
    grid = liver.body.vertices[:-2].reshape(-1, columns, 3)
    normals = liver.body.normals[:-2].reshape(-1, columns, 3)
    edge = int(np.argmin(np.abs(grid - liver.rim).sum(axis=(1, 2))))
    row = np.linspace(edge, until * edge, count)
    column = (np.asarray(azimuth) / (2 * np.pi) * columns) % columns
    low_row, low_column = np.minimum(row.astype(int), edge - 1), column.astype(int) % columns
    down, right = (row - low_row)[:, None], (column - column.astype(int))[:, None]

    def between(values: FloatArray) -> npt.NDArray[np.float64]:
        after = (low_column + 1) % columns
        near = (1 - right) * values[low_row, low_column] + right * values[low_row, after]
        far = (1 - right) * values[low_row + 1, low_column] + right * values[low_row + 1, after]
        return np.asarray((1 - down) * near + down * far, np.float64)

    direction = between(normals)
    return Meridian(between(grid), direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9))


def build_falciform(rng: np.random.Generator, liver: Liver) -> tuple[list[Body], Line]:
    """The ligament on the liver: a curtain up to the wall or a band that lies down, and the round cord in the notch.

    Returns:
        the bodies, and the line along which it is attached or lies.
    """
    count = 40
    sway = rng.normal(0, 0.15) * np.linspace(0, 1, count) ** 2
    path = meridian(liver, liver.notch + sway, until=float(rng.uniform(0.15, 0.5)), count=count)
    foot = path.points - 0.5 * path.normals
    every = slice(None, None, 4)
    if rng.random() < 0.5:
        lean = np.array([rng.normal(0, 0.5), rng.uniform(-0.6, 0.3), 1.0])
        tall = rng.uniform(25, 110)
        head = foot + tall * lean / np.linalg.norm(lean)
        head += np.linspace(1, 0, count)[:, None] * np.array([rng.normal(0, 10), -rng.uniform(0, 60), 0.0])
        bodies = [build_sheet(rng, foot[every], head[every], thick_mm=rng.uniform(1.5, 5.0))]
        line = foot
    else:
        width = rng.uniform(4, 14) * (1 + 0.3 * np.sin(np.linspace(0, rng.uniform(2, 9), count) + rng.uniform(0, 6)))
        side = rng.choice((-1.0, 1.0)) * path.aside * width[:, None]
        start, end = foot - 0.5 * side, foot + 0.5 * side + rng.uniform(0.5, 4.0) * path.normals
        bodies = [build_sheet(rng, start[every], end[every], thick_mm=rng.uniform(2.0, 6.0))]
        head = foot + 12.0 * path.normals
        line = foot + rng.uniform(0.5, 2.5) * path.normals
    if rng.random() < 0.8:
        bodies.append(_cord(rng, liver, path, head))
    return bodies, Line(Landmark.LIGAMENT, line.astype(np.float32), cover_mm=45.0)


def _cord(rng: np.random.Generator, liver: Liver, path: Meridian, head: Array) -> Body:
    """The round ligament: out of the notch, and up to the wall or down over the fat."""
    out = path.points[0] - path.points[6]
    out = out / max(float(np.linalg.norm(out)), 1e-9)
    start = np.asarray(liver.place(liver.notch, 0.75, -4.0))
    girth = float(rng.uniform(2.0, 7.5))
    bend = path.points[0] + (0.6 * girth + rng.uniform(0, 4)) * out
    if rng.random() < 0.5:
        end = head[0] + rng.normal(0, 4, 3)
    else:
        end = bend + rng.uniform(12, 40) * out + np.array([rng.normal(0, 12), 0.0, -rng.uniform(5, 30)])
    knots = np.stack([start, bend, 0.5 * (bend + end) + rng.normal(0, 3, 3), end])
    waves = 1 + 0.25 * np.sin(np.linspace(0, rng.uniform(3, 20), 70))
    grid = sweep_grid(
        smooth_path(knots, count=70), girth * waves * round_ends(70, share=0.04), columns=28, flat=rng.uniform(0.5, 1)
    )
    cord = closed_body(grid)
    return displace(cord, 0.15 * girth * solid_noise(rng, cord.vertices, scale_mm=rng.uniform(4, 12)))


@anatomy("liver")
def build_liver_scene(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """A liver that fills much of the view from the navel, with ridge, silhouette and mostly its ligament."""
    kit = Assembly(rng, rich=rich_texture)
    level = family.draw(rng, "liver", "level_mm")
    height = family.draw(rng, "liver", "height_mm")
    kit.add(build_dome(rng), kit.tissue("abdominal-wall", texel_mm=0.5), Label.ABDOMINAL_WALL)
    fat = kit.tissue("fat")
    floor = kit.add(build_floor(rng, level=level), fat, Label.FAT)
    below = bool(rng.random() < _SEEN_FROM_BELOW)
    tilt = float(rng.uniform(0, 45) if below else rng.uniform(-42, 0))
    front = np.array([rng.uniform(-25, 25), rng.uniform(-15, 45), level + rng.uniform(2, 38)])
    hollow = float(rng.uniform(4, 26))
    liver = lie(build_liver(rng, height_mm=height, tilt_deg=tilt, hollow_mm=hollow), front_mm=front)
    dark = float(rng.uniform(0.4, 0.95)) if rng.random() < 0.3 else 1.0
    organ = kit.add(liver.body, kit.tissue("liver"), Label.LIVER, tint=np.full(3, dark))
    angle = np.linspace(0, 2 * np.pi, len(liver.rim), endpoint=False)
    facing = np.flatnonzero(np.sin(angle) < 0.35)
    # The front edge runs over the start of the circle: keep it in one piece.
    facing = np.roll(facing, -int(np.argmax(np.diff(facing))) - 1)
    lines = [Line(Landmark.RIDGE, liver.rim[facing])]
    edge = liver.rim[facing]
    edge = edge[np.abs(edge[:, 0] - front[0]) < 75]
    aims = [edge[rng.integers(len(edge), size=24)]]
    over = [meridian(liver, np.full(12, rng.uniform(-2.6, -0.5)), until=0.3, count=12).points for _ in range(4)]
    aims.append(np.concatenate(over)[rng.integers(48, size=18)])
    ligament = bool(rng.random() < 0.88)
    if ligament:
        bodies, line = build_falciform(rng, liver)
        tissue = kit.tissue("ligament" if rng.random() < 0.75 else "fat")
        for body in bodies:
            kit.add(body, tissue, Label.LIGAMENT)
        lines.append(line)
        aims.append(line.points[rng.integers(len(line.points), size=24)])
    if rng.random() < 0.7:
        gallbladder = build_gallbladder(rng, liver)
        kit.add(gallbladder, kit.tissue("gallbladder", texel_mm=0.2), Label.GALLBLADDER)
        aims.append(gallbladder.vertices[rng.integers(len(gallbladder.vertices), size=4)])
    _neighbours(kit, rng, level=level, fat=fat)
    targets = np.concatenate(aims).astype(np.float32)
    things: dict[str, int] = {}
    places, normals = (np.concatenate([getattr(part, name) for part in (floor, organ)])[::37] for name in _GROUND)
    near = np.linalg.norm(places - targets.mean(axis=0), axis=1) < 70
    if near.sum() > 20:
        things = furnish(kit, rng, Ground(places[near], normals[near], size_mm=22.0, inside=False))
    tools = int(rng.choice((0, 1, 2), p=(0.55, 0.3, 0.15)))
    if tools:
        tips = targets[rng.integers(len(targets), size=tools)] + rng.normal(0, 8, (tools, 3)) + [0, 0, 3.0]
        sides = rng.choice((-1.0, 1.0), tools)
        entries = np.stack(
            [sides * rng.uniform(40, 120, tools), rng.uniform(-110, 30, tools), level + rng.uniform(70, 130, tools)], 1
        )
        lay_out(kit, rng, tips=tips, entries=entries)
    trocars = np.stack(
        [[rng.uniform(-45, 45), rng.uniform(-115, -60), rng.uniform(level + 40, 50)] for _ in range(6)]
    ).astype(np.float32)
    record: dict[str, float | int | str] = {
        "level_mm": round(level, 6),
        "height_mm": round(height, 6),
        "tilt_deg": round(tilt, 3),
        "ligament": int(ligament),
        "tools": tools,
    }
    record |= things
    record["palette"] = "+".join(tissue.palette for tissue in kit.tissues)
    outlook = Outlook(targets, trocars, _UP, _REACH_MM, turned=0.0)
    line_of_sight = trocar_line(trocars[0], targets[0])
    return Scene(
        "liver", kit.mesh(), kit.tissues, line_of_sight, record, outlook=outlook, lines=tuple(lines), annotated=True
    )


_GROUND = ("vertices", "normals")


def _neighbours(kit: Assembly, rng: np.random.Generator, *, level: float, fat: int) -> None:
    """Stomach, bowel, drapes of fat and fluid around the liver, by chance."""
    if rng.random() < 0.35:
        radii = (float(rng.uniform(30, 55)), float(rng.uniform(18, 35)), float(rng.uniform(15, 30)))
        centre = np.array([rng.uniform(20, 90), rng.uniform(0, 60), level + rng.uniform(-10, 8)])
        kit.add(build_lump(rng, radii, centre), kit.tissue("stomach"), Label.STOMACH)
    if rng.random() < 0.35:
        bowel = kit.tissue("bowel")
        for _ in range(int(rng.integers(1, 3))):
            middle = (float(rng.uniform(-80, 80)), float(rng.uniform(-60, 20)))
            loop = build_loop(rng, level=level - 4, girth=float(rng.uniform(9, 16)), centre=middle)
            kit.add(loop, bowel, Label.BOWEL, tint=np.exp(rng.normal(0, 0.1, 3)))
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.3, 0.3, 0.25, 0.15)))):
        at = np.array([rng.uniform(-70, 70), rng.uniform(-25, 50), level + rng.uniform(0, 14)])
        size = (float(rng.uniform(14, 40)), float(rng.uniform(10, 25)), float(rng.uniform(6, 16)))
        kit.add(build_lump(rng, size, at, rough=0.35), fat, Label.FAT)
    if rng.random() < 0.12:
        blood = bool(rng.random() < 0.7)
        centre = np.array([rng.uniform(-30, 30), rng.uniform(-30, 50), level + rng.uniform(-4, 4)])
        fluid = kit.tissue("blood" if blood else "mucus", side=160)
        kit.add(pool(rng, centre, np.array(_UP), 150.0), fluid, Label.BLOOD if blood else Label.MUCUS)
