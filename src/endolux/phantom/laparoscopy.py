"""The insufflated abdomen: liver, gallbladder, ligament, fat, bowel and wall, each of its own tissue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.anatomy import Scene, anatomy
from endolux.phantom.assembly import Assembly
from endolux.phantom.families import Family
from endolux.phantom.labels import Label
from endolux.phantom.landmarks import Landmark, Line
from endolux.phantom.litter import Ground, furnish
from endolux.phantom.liver import build_gallbladder, build_ligament, build_liver
from endolux.phantom.lumen import Centreline
from endolux.phantom.pose import Outlook, patches
from endolux.phantom.solids import (
    Body,
    closed_body,
    displace,
    ellipsoid_grid,
    moved,
    open_body,
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)
from endolux.phantom.things import pool
from endolux.phantom.tools import lay_out

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]
# World axes: x to the patient's left, y towards the head, z up to the abdominal wall.
_UP = (0.0, 0.0, 1.0)


def build_floor(rng: np.random.Generator, *, level: float, half: float = 175.0, count: int = 200) -> Body:
    """Fat draped over what lies below: large swells with lobules whose borders are creases."""
    x = np.linspace(-half, half, count)
    grid_x, grid_y = np.meshgrid(x, x, indexing="ij")
    flat = np.stack([grid_x.reshape(-1), grid_y.reshape(-1), np.zeros(count * count)], 1)
    z = level + rng.uniform(4, 16) * solid_noise(rng, flat, scale_mm=rng.uniform(35, 80))
    lobule = rng.uniform(6, 20)
    crease = np.abs(solid_noise(rng, flat + 9.0 * solid_noise(rng, flat, scale_mm=30)[:, None], scale_mm=lobule))
    z += rng.uniform(0.5, 5.5) * np.minimum(crease, 1.2) ** 0.8
    z += rng.uniform(0.0, 0.3) * solid_noise(rng, flat, scale_mm=6)
    return open_body(np.stack([grid_x, grid_y, z.reshape(count, count)], -1))


def build_dome(rng: np.random.Generator) -> Body:
    """The abdominal wall from inside, closed below."""
    radii = (rng.uniform(130, 170), rng.uniform(150, 190), rng.uniform(80, 130))
    body = closed_body(ellipsoid_grid(radii, rows=100, columns=150), inward=True)
    body = moved(body, np.eye(3), np.array([0.0, 15.0, 0.0]))
    amount = rng.uniform(1, 6) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(30, 60))
    amount += rng.uniform(0, 1.2) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(8, 18))
    return displace(body, amount)


def build_loop(rng: np.random.Generator, *, level: float, girth: float, centre: tuple[float, float]) -> Body:
    """One loop of bowel lying on the floor, with the shallow waists of peristalsis or haustra."""
    knots = []
    heading = rng.uniform(0, 2 * np.pi)
    point = np.array([*centre, level + 0.7 * girth])
    count = int(rng.integers(6, 11))
    curl = rng.normal(0, 0.4)
    for k in range(count):
        knots.append(point.copy())
        heading += rng.normal(curl, 0.5)
        step = girth * rng.uniform(1.8, 3.2)
        point = point + step * np.array([np.cos(heading), np.sin(heading), 0.0])
        # Both ends go under the fat: a loop has no end in view.
        point[2] = level + girth * (rng.uniform(0.2, 1.2) if 0 < k < count - 2 else -1.4)
    knots[0][2] = level - 1.4 * girth
    rows = 180
    path = smooth_path(np.stack(knots), count=rows)
    place = np.linspace(0, 1, rows)
    waists = 1 + rng.uniform(0.0, 0.16) * np.sin(place * rng.uniform(15, 90) + 2 * np.sin(place * rng.uniform(5, 20)))
    radius = (girth * waists * round_ends(rows, share=0.05))[:, None] * np.ones(48)
    if rng.random() < 0.4:
        # Bands along a large bowel draw it in.
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        pouches = 0.5 + 0.5 * np.sin(place * rng.uniform(30, 60))[:, None]
        radius *= 1 - rng.uniform(0.05, 0.22) * pouches * (0.5 + 0.5 * np.cos(3 * turn)) ** 3
    body = closed_body(sweep_grid(path, radius, columns=48))
    amount = rng.uniform(0.2, 0.07 * girth) * solid_noise(rng, body.vertices, scale_mm=girth)
    amount += rng.uniform(0.05, 0.4) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(2.5, 6))
    return displace(body, amount)


def build_lump(
    rng: np.random.Generator, radii: tuple[float, float, float], centre: Array, *, rough: float = 0.08
) -> Body:
    """An organ of no particular shape: an ellipsoid, turned and dented."""
    body = closed_body(ellipsoid_grid(radii, rows=70, columns=96))
    # A flat body stands less unevenness than a thick one, or it would turn inside out.
    mean = float(np.mean(radii))
    rough *= min(1.0, 1.6 * min(radii) / mean)
    amount = rough * mean * solid_noise(rng, body.vertices, scale_mm=rng.uniform(0.6, 1.4) * mean)
    amount += 0.3 * rough * mean * (np.abs(solid_noise(rng, body.vertices, scale_mm=0.3 * mean)) - 0.5)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    return moved(displace(body, amount), turn, np.asarray(centre))


def trocar_line(trocar: Array, target: Array) -> Centreline:
    """The straight way of a rigid scope from its trocar towards a target."""
    start, end = np.asarray(trocar, np.float64), np.asarray(target, np.float64)
    length = float(np.linalg.norm(end - start))
    tangent = (end - start) / max(length, 1e-9)
    first = np.cross(tangent, np.eye(3)[int(np.argmin(np.abs(tangent)))])
    first /= np.linalg.norm(first)
    frame = np.stack([first, np.cross(tangent, first), tangent], 1)
    count = max(8, round(length))
    points = start + np.linspace(0, 0.9, count)[:, None] * (end - start)
    return Centreline(
        points.astype(np.float32),
        np.broadcast_to(frame, (count, 3, 3)).astype(np.float32),
        np.full(count, 6.0, np.float32),
        0.9 * length / (count - 1),
    )


def _in_reach(places: Array, level: float) -> npt.NDArray[np.bool_]:
    """Which of N x 3 places a camera above the floor can look at."""
    if not len(places):
        return np.zeros(0, np.bool_)
    return (np.abs(places[:, 0]) < 110) & (places[:, 1] < 120) & (places[:, 2] > level - 10)


@anatomy("laparoscopy")
def build_laparoscopy(rng: np.random.Generator, rich_texture: float, family: Family) -> Scene:
    """Upper abdomen around a liver, or bowel and fat, seen through an insufflated dome."""
    kit = Assembly(rng, rich=rich_texture)
    with_liver = bool(rng.random() < 0.78)
    level = family.draw(rng, "laparoscopy", "level_mm")
    height = family.draw(rng, "laparoscopy", "liver_height_mm")
    targets: list[Array] = []
    lines: list[Line] = []
    faces: list[Array] = []
    wall = kit.tissue("abdominal-wall", texel_mm=0.5)
    kit.add(build_dome(rng), wall, Label.ABDOMINAL_WALL)
    fat = kit.tissue("fat")
    floor = build_floor(rng, level=level)
    # Where fat is thin, what lies below shows through it.
    thin = np.clip(solid_noise(rng, floor.vertices, scale_mm=45) * 0.5, -1, 1)[:, None]
    tint = np.exp(thin * np.array([-0.1, -0.35, -0.1]) * rng.uniform(0, 1))
    parts = [kit.add(floor, fat, Label.FAT, tint=tint)]
    if with_liver:
        liver = build_liver(rng, height_mm=height)
        # The contrast that misleads: a dark organ in front of bright fat.
        dark = float(rng.uniform(0.35, 0.9)) if rng.random() < 0.5 else 1.0
        tone = np.full(3, dark)
        parts.append(kit.add(liver.body, kit.tissue("liver"), Label.LIVER, tint=tone))
        faces.append(patches(liver.body, np.concatenate([liver.rim, liver.body.vertices[::50]]), stride=41))
        front = np.flatnonzero(np.sin(np.linspace(0, 2 * np.pi, len(liver.rim), endpoint=False)) < 0.35)
        # The front edge runs over the start of the circle's last half: keep it in one piece.
        front = np.roll(front, -int(np.argmax(np.diff(front))) - 1)
        lines.append(Line(Landmark.RIDGE, liver.rim[front]))
        targets += [liver.rim[front[k]] for k in range(0, len(front), 4)]
        targets += [liver.place(rng.uniform(-3, 0), rng.uniform(0.2, 0.9), 0.6 * liver.size[2]) for _ in range(12)]
        if rng.random() < 0.75:
            gallbladder = build_gallbladder(rng, liver)
            kit.add(gallbladder, kit.tissue("gallbladder", texel_mm=0.2), Label.GALLBLADDER)
            targets += list(gallbladder.vertices[::250])
            faces.append(patches(gallbladder, gallbladder.vertices, stride=151))
        if rng.random() < 0.75:
            sheets, foot = build_ligament(rng, liver)
            ligament = kit.tissue("ligament")
            for body in sheets:
                kit.add(body, ligament, Label.LIGAMENT)
            lines.append(Line(Landmark.LIGAMENT, foot))
            targets += list(foot[::8])
    if rng.random() < (0.5 if with_liver else 0.95):
        bowel = kit.tissue("bowel")
        for _ in range(int(rng.integers(1, 4) if with_liver else rng.integers(3, 7))):
            loop = build_loop(
                rng,
                level=level,
                girth=float(rng.uniform(9, 20)),
                centre=(float(rng.uniform(-80, 80)), float(rng.uniform(-60, 60))),
            )
            kit.add(loop, bowel, Label.BOWEL, tint=np.exp(rng.normal(0, 0.1, 3)))
            targets += list(loop.vertices[::900])
            faces.append(patches(loop, loop.vertices, stride=701))
    if rng.random() < 0.45:
        side = rng.choice((-1.0, 1.0))
        radii = (float(rng.uniform(30, 55)), float(rng.uniform(18, 35)), float(rng.uniform(15, 30)))
        centre = np.array([side * rng.uniform(30, 90), rng.uniform(0, 70), level + rng.uniform(0, 15)])
        kind, label = (("stomach", Label.STOMACH), ("spleen", Label.SPLEEN))[int(rng.random() < 0.2)]
        lump = build_lump(rng, radii, centre)
        kit.add(lump, kit.tissue(kind), label)
        targets += list(lump.vertices[::1200])
        faces.append(patches(lump, lump.vertices, stride=301))
    drape = int(rng.choice((0, 1, 2), p=(0.4, 0.4, 0.2)))
    for _ in range(drape):
        at = np.array([rng.uniform(-70, 70), rng.uniform(-20, 70), level + rng.uniform(0, 12)])
        size = (float(rng.uniform(14, 40)), float(rng.uniform(10, 25)), float(rng.uniform(6, 16)))
        kit.add(build_lump(rng, size, at, rough=0.35), fat, Label.FAT)
    if not _in_reach(np.asarray(targets, np.float32), level).any():
        # Few scenes hold no organ where the camera can see it; it looks at their floor then.
        middle = np.linalg.norm(floor.vertices[:, :2], axis=1) < 60
        lift = max(0.0, level - float(floor.vertices[middle, 2].min()))
        targets = list(floor.vertices[middle][::23] + np.array([0, 0, lift], np.float32))
    places = np.concatenate([part.vertices for part in parts])[::37]
    normals = np.concatenate([part.normals for part in parts])[::37]
    near = np.linalg.norm(places - np.mean(np.asarray(targets), axis=0), axis=1) < 70
    if rng.random() < 0.14:
        # Fluid fills the valleys of the floor up to one level.
        blood = bool(rng.random() < 0.6)
        floor_z = float(np.percentile(floor.vertices[:, 2], rng.uniform(20, 60)))
        centre = np.array([rng.uniform(-30, 30), rng.uniform(-30, 50), floor_z])
        fluid = kit.tissue("blood" if blood else "mucus", side=160)
        kit.add(pool(rng, centre, np.array(_UP), 150.0), fluid, Label.BLOOD if blood else Label.MUCUS)
    things: dict[str, int] = {}
    if near.sum() > 20:
        things = furnish(kit, rng, Ground(places[near], normals[near], size_mm=22.0, inside=False))
    aims = np.asarray(targets, np.float32)
    aims = aims[_in_reach(aims, level)]
    trocars = np.stack(
        [[rng.uniform(-60, 60), rng.uniform(-105, -20), rng.uniform(level + 30, level + 90)] for _ in range(4)]
    ).astype(np.float32)
    tools = int(rng.choice((0, 1, 2, 3), p=(0.4, 0.3, 0.2, 0.1)))
    if tools:
        tips = aims[rng.integers(len(aims), size=tools)] + rng.normal(0, 4, (tools, 3)) + [0, 0, 2.0]
        sides = rng.choice((-1.0, 1.0), tools)
        entries = np.stack(
            [sides * rng.uniform(40, 120, tools), rng.uniform(-110, 60, tools), level + rng.uniform(70, 130, tools)], 1
        )
        lay_out(kit, rng, tips=tips, entries=entries)
        # Where the surgeon works is where the camera looks.
        aims = np.concatenate([aims, np.repeat(tips, max(1, len(aims) // (3 * tools)), axis=0)]).astype(np.float32)
    outlook = Outlook(aims, trocars, _UP, (18.0, 190.0), np.concatenate(faces) if faces else None)
    record: dict[str, float | int | str] = {
        "liver": int(with_liver),
        "level_mm": round(level, 6),
        "liver_height_mm": round(height, 6),
        "fat_drapes": drape,
        "tools": tools,
    }
    record |= things
    record["palette"] = "+".join(tissue.palette for tissue in kit.tissues)
    line = trocar_line(trocars[0], aims[len(aims) // 2])
    return Scene("laparoscopy", kit.mesh(), kit.tissues, line, record, outlook=outlook, lines=tuple(lines))
