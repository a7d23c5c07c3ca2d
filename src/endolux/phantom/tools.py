"""Instruments: laparoscopic graspers, scissors, hooks and suction; forceps, snares and needles of flexible scopes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from endolux.phantom.assembly import Assembly
from endolux.phantom.labels import Label
from endolux.phantom.mesh import Mesh, join
from endolux.phantom.solids import (
    Body,
    closed_body,
    displace,
    ellipsoid_grid,
    frame_on,
    moved,
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)

Array = npt.NDArray[np.floating]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A piece of an instrument: its body, whether it is metal, and its class."""

    body: Body
    metal: bool
    label: Label


Maker = Callable[[np.random.Generator], list[Part]]
TOOLS: dict[str, Maker] = {}
HELD: dict[str, Maker] = {}
NASAL: dict[str, Maker] = {}


def tool(name: str) -> Callable[[Maker], Maker]:
    """Register the head of a laparoscopic instrument: tip at the origin, shaft towards +z."""

    def register(maker: Maker) -> Maker:
        TOOLS[name] = maker
        return maker

    return register


def held(name: str) -> Callable[[Maker], Maker]:
    """Register an instrument of a flexible scope's channel: mouth of the channel at the origin, tip towards +z."""

    def register(maker: Maker) -> Maker:
        HELD[name] = maker
        return maker

    return register


def nasal(name: str) -> Callable[[Maker], Maker]:
    """Register an instrument beside a rigid scope in the nose: shaft from the origin towards +z."""

    def register(maker: Maker) -> Maker:
        NASAL[name] = maker
        return maker

    return register


def rod(start: Array, end: Array, radius: float, *, columns: int = 36, bevel: float = 0.12) -> Body:
    """A cylinder with slightly broken edges."""
    axis = np.asarray(end, np.float64) - start
    edge = bevel * radius / max(float(np.linalg.norm(axis)), 1e-6)
    # Doubled rings at the edges keep them crisp under interpolated normals.
    place = np.array([0, 1e-4, edge, 2 * edge, 0.5, 1 - 2 * edge, 1 - edge, 1 - 1e-4, 1])
    size = radius * np.array([0, 1 - bevel, 1, 1, 1, 1, 1, 1 - bevel, 0])
    dense = np.concatenate([place[:4], np.linspace(place[3], place[5], 24)[1:-1], place[5:]])
    points = np.asarray(start) + dense[:, None] * axis
    return closed_body(sweep_grid(points, np.interp(dense, place, size), columns=columns))


def _bar(points: Array, width: Array, *, flat: float, up: Array, columns: int = 28) -> Body:
    """A flattened bar along a path."""
    rows = 40
    path = smooth_path(points, count=rows)
    size = np.interp(np.linspace(0, 1, rows), np.linspace(0, 1, len(width)), width) * round_ends(rows, share=0.05)
    return closed_body(sweep_grid(path, size, columns=columns, up=up, flat=flat))


def _jaws(rng: np.random.Generator, *, length: float, width: float, curve: float, opening: float) -> list[Part]:
    parts = []
    for side in (-1.0, 1.0):
        turn = side * opening
        z = np.linspace(length, 0.0, 6)
        out = side * 0.35 * width + np.sin(turn) * (length - z)
        bow = curve * ((length - z) / length) ** 2
        points = np.stack([bow, out, z], 1)
        taper = width * np.linspace(1.0, rng.uniform(0.35, 0.8), 6)
        body = _bar(points, taper, flat=rng.uniform(0.3, 0.5), up=np.array([1.0, 0.0, 0.0]))
        teeth = (
            0.07 * width * np.sign(np.sin(body.vertices[:, 2] * 2 * np.pi / 1.4)) * (body.normals[:, 1] * -side > 0.6)
        )
        parts.append(Part(displace(body, teeth), True, Label.TOOL_TIP))
    return parts


@tool("grasper")
def make_grasper(rng: np.random.Generator) -> list[Part]:
    """Two toothed jaws, open a little."""
    length = rng.uniform(12, 26)
    return [
        *_jaws(
            rng,
            length=length,
            width=rng.uniform(1.6, 2.6),
            curve=float(rng.choice((0.0, rng.uniform(2, 7)))),
            opening=rng.uniform(0.0, 0.4),
        ),
        Part(rod(np.array([0, 0, length - 2.0]), np.array([0, 0, length + 6.0]), 2.3), True, Label.TOOL_TIP),
    ]


@tool("scissors")
def make_scissors(rng: np.random.Generator) -> list[Part]:
    """Two thin curved blades."""
    length = rng.uniform(12, 20)
    return [
        *_jaws(
            rng, length=length, width=rng.uniform(0.9, 1.5), curve=rng.uniform(2, 6), opening=rng.uniform(0.05, 0.5)
        ),
        Part(rod(np.array([0, 0, length - 1.5]), np.array([0, 0, length + 5.0]), 2.3), True, Label.TOOL_TIP),
    ]


@tool("hook")
def make_hook(rng: np.random.Generator) -> list[Part]:
    """The L of an electrode on an insulated shaft."""
    length, foot = rng.uniform(9, 16), rng.uniform(2.5, 5.0)
    points = np.array([[0, 0, length + 2], [0, 0, 0.35 * length], [0.0, 0, 0.3], [0.4 * foot, 0, 0.0], [foot, 0, 0.4]])
    wire = closed_body(
        sweep_grid(
            smooth_path(points, count=50), rng.uniform(0.6, 1.0) * round_ends(50, share=0.03), columns=18, flat=0.7
        )
    )
    collar = rod(np.array([0, 0, length]), np.array([0, 0, length + 4.0]), 2.0)
    return [Part(wire, True, Label.TOOL_TIP), Part(collar, False, Label.TOOL_TIP)]


@tool("suction")
def make_suction(rng: np.random.Generator) -> list[Part]:
    """A plain metal tube."""
    return [Part(rod(np.zeros(3), np.array([0, 0, rng.uniform(20, 60)]), rng.uniform(2.2, 2.6)), True, Label.TOOL_TIP)]


@tool("retractor")
def make_retractor(rng: np.random.Generator) -> list[Part]:
    """A fan of blunt fingers, or one blunt probe."""
    count = int(rng.choice((1, 3)))
    parts = []
    for k in range(count):
        turn = (k - (count - 1) / 2) * rng.uniform(0.2, 0.4)
        tip = np.array([35 * np.sin(turn), 0.0, 35 - 35 * np.cos(turn)])
        points = np.stack([np.array([0.0, 0.0, 38.0]), 0.5 * tip + [0, 0, 18], tip])
        parts.append(Part(_bar(points, np.full(3, 2.2), flat=0.8, up=np.array([0.0, 1.0, 0.0])), True, Label.TOOL_TIP))
    return parts


@tool("clip-applier")
def make_clip_applier(rng: np.random.Generator) -> list[Part]:
    """Two slim parallel jaws on a thick shaft."""
    length = rng.uniform(14, 22)
    return [
        *_jaws(rng, length=length, width=rng.uniform(1.4, 2.0), curve=0.0, opening=rng.uniform(0.1, 0.25)),
        Part(rod(np.array([0, 0, length - 2]), np.array([0, 0, length + 9]), 4.0), True, Label.TOOL_TIP),
    ]


def laparoscopic(rng: np.random.Generator, *, length_mm: float = 260.0) -> tuple[str, list[Part]]:
    """A random laparoscopic instrument, tip at the origin and shaft towards +z."""
    name = str(rng.choice(sorted(TOOLS)))
    parts = TOOLS[name](rng)
    back = max(float(part.body.vertices[:, 2].max()) for part in parts)
    radius = 4.8 if name == "clip-applier" else float(rng.choice((2.5, 2.5, 4.8)))
    start, end = np.array([0, 0, back - 2.0]), np.array([0, 0, back + length_mm])
    parts.append(Part(rod(start, end, radius), bool(rng.random() < 0.35), Label.TOOL_SHAFT))
    roll = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return name, [dataclasses.replace(part, body=moved(part.body, turn, np.zeros(3))) for part in parts]


def lay_out(kit: Assembly, rng: np.random.Generator, *, tips: Array, entries: Array) -> list[str]:
    """Put a laparoscopic instrument from each entry to its tip into a scene; their names.

    Args:
        kit: the scene.
        rng: source of randomness.
        tips: N x 3 mm where the tips touch.
        entries: N x 3 mm trocars.
    """
    names = []
    metal = kit.tissue("metal", side=64)
    for tip, entry in zip(tips, entries, strict=True):
        name, parts = laparoscopic(rng)
        plastic = kit.tissue("plastic", side=64)
        names.append(name)
        turn = frame_on(entry - tip, rng)
        for part in parts:
            kit.add(moved(part.body, turn, tip), metal if part.metal else plastic, part.label)
    return names


def _sheath(rng: np.random.Generator, reach: float, radius: float) -> Body:
    sag = rng.normal(0, 0.05 * reach, 2)
    points = np.stack([np.array([0, 0, -6.0]), np.array([0, 0, 0.35 * reach]), np.array([sag[0], sag[1], reach])])
    grid = sweep_grid(smooth_path(points, count=40), radius * round_ends(40, share=0.01), columns=28)
    return closed_body(grid)


def _end(sheath: Body) -> npt.NDArray[np.float64]:
    return np.asarray(sheath.vertices[-1], np.float64)


@held("biopsy-forceps")
def make_forceps(rng: np.random.Generator) -> list[Part]:
    """A coil with two small cups."""
    radius = rng.uniform(0.8, 1.3)
    sheath = _sheath(rng, rng.uniform(8, 32), radius)
    end = _end(sheath)
    parts = [Part(sheath, bool(rng.random() < 0.4), Label.TOOL_SHAFT)]
    opening = rng.uniform(0.0, 1.0)
    for side in (-1.0, 1.0):
        cup = closed_body(ellipsoid_grid((0.8 * radius, 0.55 * radius, 2.2 * radius), rows=24, columns=30))
        tilt = side * opening
        turn = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
        place = end + turn @ np.array([0, 0.4 * side * radius, 1.8 * radius])
        parts.append(Part(moved(cup, turn, place), True, Label.TOOL_TIP))
    return parts


@held("snare")
def make_snare(rng: np.random.Generator) -> list[Part]:
    """A wire loop out of a sheath."""
    sheath = _sheath(rng, rng.uniform(6, 25), rng.uniform(0.9, 1.3))
    end = _end(sheath)
    long, wide = rng.uniform(6, 18), rng.uniform(2, 8)
    turn = np.linspace(-np.pi, np.pi, 15)
    loop = np.stack([wide * np.sin(turn), 0.15 * wide * np.cos(2 * turn), 0.5 * long * (1 + np.cos(turn))], 1)
    roll = rng.uniform(0, np.pi)
    spin = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    path = smooth_path(loop @ spin.T + end, count=120)
    wire = closed_body(sweep_grid(path, rng.uniform(0.18, 0.32) * round_ends(120, share=0.01), columns=12))
    return [Part(sheath, False, Label.TOOL_SHAFT), Part(wire, True, Label.TOOL_TIP)]


@held("needle")
def make_needle(rng: np.random.Generator) -> list[Part]:
    """A thin needle out of a sheath."""
    sheath = _sheath(rng, rng.uniform(6, 22), rng.uniform(0.9, 1.3))
    end = _end(sheath)
    needle = rod(
        end - np.array([0, 0, 1.0]), end + np.array([0, 0, rng.uniform(3, 7)]), rng.uniform(0.25, 0.4), columns=14
    )
    return [Part(sheath, False, Label.TOOL_SHAFT), Part(needle, True, Label.TOOL_TIP)]


@held("balloon")
def make_balloon(rng: np.random.Generator) -> list[Part]:
    """A ball or basket pushed ahead on a thick catheter."""
    sheath = _sheath(rng, rng.uniform(10, 26), rng.uniform(1.0, 2.2))
    radius = rng.uniform(2.5, 7.0)
    ball = closed_body(ellipsoid_grid((radius, radius, radius * rng.uniform(0.9, 1.5)), rows=48, columns=64))
    ball = displace(ball, 0.03 * radius * solid_noise(rng, ball.vertices, scale_mm=0.3 * radius))
    ball = moved(ball, np.eye(3), _end(sheath) + np.array([0, 0, 0.7 * radius]))
    return [Part(sheath, False, Label.TOOL_SHAFT), Part(ball, False, Label.TOOL_TIP)]


@nasal("cutting-forceps")
def make_nasal_forceps(rng: np.random.Generator) -> list[Part]:
    """A slim metal shaft with two short jaws."""
    reach, radius = rng.uniform(7, 24), rng.uniform(0.7, 1.2)
    length = rng.uniform(3.0, 6.0)
    jaws = _jaws(rng, length=length, width=rng.uniform(0.5, 0.9), curve=0.0, opening=rng.uniform(0.0, 0.5))
    flip = np.diag([1.0, -1.0, -1.0])
    tip = np.array([0.0, 0.0, reach + length])
    return [
        Part(rod(np.array([0, 0, -6.0]), np.array([0, 0, reach]), radius), True, Label.TOOL_SHAFT),
        *(dataclasses.replace(part, body=moved(part.body, flip, tip)) for part in jaws),
    ]


@nasal("suction")
def make_nasal_suction(rng: np.random.Generator) -> list[Part]:
    """A bent metal tube."""
    reach, radius = rng.uniform(8, 28), rng.uniform(0.8, 1.5)
    bow = rng.normal(0, 0.12 * reach)
    knots = np.array([[0, 0, -6.0], [0, 0, 0.3 * reach], [0.3 * bow, 0, 0.65 * reach], [bow, 0, reach]])
    grid = sweep_grid(smooth_path(knots, count=50), radius * round_ends(50, share=0.008), columns=28)
    return [Part(closed_body(grid), True, Label.TOOL_SHAFT)]


@nasal("shaver")
def make_nasal_shaver(rng: np.random.Generator) -> list[Part]:
    """A wide tube with a round head."""
    reach, radius = rng.uniform(7, 22), rng.uniform(1.3, 2.0)
    head = closed_body(ellipsoid_grid((radius, radius, 1.6 * radius), rows=30, columns=36))
    return [
        Part(rod(np.array([0, 0, -6.0]), np.array([0, 0, reach]), radius), True, Label.TOOL_SHAFT),
        Part(moved(head, np.eye(3), np.array([0, 0, reach])), True, Label.TOOL_TIP),
    ]


def in_channel(
    kit: Assembly,
    rng: np.random.Generator,
    kinds: Mapping[str, Maker] | None = None,
    *,
    beside_mm: tuple[float, float] = (3.0, 6.0),
) -> Mesh:
    """An instrument out of the working channel, in camera axes, with its tissues in ``kit``.

    The channel opens beside the lens; the instrument comes from the border of the picture towards its middle.

    Args:
        kit: the scene, for tissues.
        rng: source of randomness.
        kinds: instruments to choose from; those of a flexible scope by default.
        beside_mm: nearest and farthest distance of the channel from the lens.
    """
    found = HELD if kinds is None else kinds
    parts = found[str(rng.choice(sorted(found)))](rng)
    angle = rng.uniform(0, 2 * np.pi)
    beside = rng.uniform(*beside_mm)
    mouth = np.array([beside * np.cos(angle), beside * np.sin(angle), rng.uniform(-1.0, 1.0)])
    axis = np.array([0.0, 0.0, 1.0]) - np.array([mouth[0], mouth[1], 0.0]) * rng.uniform(-0.02, 0.05)
    turn = frame_on(axis, rng)
    metal, plastic = kit.tissue("metal", side=64), kit.tissue("plastic", side=64)
    return join(
        [kit.skin(moved(part.body, turn, mouth), metal if part.metal else plastic, part.label) for part in parts]
    )
