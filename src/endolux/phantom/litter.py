"""Where things lie about in a scene: stool, fluid, mucus, bubbles, clips, sutures and smears."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from endolux.phantom.assembly import Assembly
from endolux.phantom.labels import Label
from endolux.phantom.mesh import Mesh
from endolux.phantom.solids import closed_body, ellipsoid_grid, frame_on, moved, solid_noise
from endolux.phantom.things import clump, hemoclip, pool, strand, suture

Array = npt.NDArray[np.floating]
BLOOD: tuple[float, float, float] = (0.55, 0.10, 0.09)
BILE: tuple[float, float, float] = (0.8, 0.75, 0.25)


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """Where things can lie.

    Attributes:
        places: N x 3 wall points, mm.
        normals: N x 3 unit normals into the air.
        size_mm: radius of the lumen, or typical size of an organ.
        inside: a lumen.
    """

    places: Array
    normals: Array
    size_mm: float
    inside: bool

    def spot(self, rng: np.random.Generator) -> int:
        """Number of a random place."""
        return int(rng.integers(len(self.places)))

    def beside(self, rng: np.random.Generator, spot: int, spread_mm: float) -> int:
        """Number of the place nearest to a random point around a spot."""
        point = self.places[spot] + rng.normal(0, spread_mm, 3)
        return int(np.argmin(((self.places - point) ** 2).sum(axis=1)))


Scatter = Callable[[Assembly, np.random.Generator, Ground], int]
THINGS: dict[str, tuple[float, float, Scatter]] = {}
"""By name: how often in a lumen, how often outside, and who scatters them and says how many."""


def thing(name: str, *, inside: float, outside: float) -> Callable[[Scatter], Scatter]:
    """Register a kind of litter with its shares of scenes."""

    def register(scatter: Scatter) -> Scatter:
        THINGS[name] = (inside, outside, scatter)
        return scatter

    return register


def furnish(
    kit: Assembly, rng: np.random.Generator, ground: Ground, *, without: frozenset[str] = frozenset()
) -> dict[str, int]:
    """Scatter things over the surfaces of a scene.

    Args:
        kit: the scene.
        rng: source of randomness.
        ground: where they can lie.
        without: kinds that do not occur in this organ.

    Returns:
        how many of each kind that occurs.
    """
    made = {}
    for name in sorted(set(THINGS) - without):
        inside, outside, scatter = THINGS[name]
        if rng.random() < (inside if ground.inside else outside):
            made[name] = scatter(kit, rng, ground)
    return made


@thing("stool", inside=0.16, outside=0.0)
def scatter_stool(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """Lumps in a few heaps on the lower side."""
    tissue = kit.tissue("stool", texel_mm=0.15, side=160)
    low = np.flatnonzero(ground.normals @ rng.standard_normal(3) < 0)
    seeds = low[rng.integers(len(low), size=int(rng.integers(1, 5)))] if len(low) else np.zeros(1, np.int64)
    count = int(rng.integers(3, 26))
    for _ in range(count):
        at = ground.beside(rng, int(rng.choice(seeds)), 0.5 * ground.size_mm)
        radius = min(float(rng.lognormal(0.3, 0.6)), 0.3 * ground.size_mm)
        kit.add(clump(rng, ground.places[at], ground.normals[at], radius), tissue, Label.STOOL)
    return count


@thing("pools", inside=0.14, outside=0.0)
def scatter_pool(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """One level of blood or of cloudy fluid."""
    at = ground.spot(rng)
    blood = bool(rng.random() < 0.4)
    tissue = kit.tissue("blood" if blood else "mucus", texel_mm=0.2, side=160)
    depth = rng.uniform(0.03, 0.22) * ground.size_mm
    # The level must reach the wall, which rises by r^2 / 2R around its lowest point, or its rim hangs in the air.
    wide = max(rng.uniform(0.5, 1.3), 1.6 * float(np.sqrt(2 * depth / ground.size_mm)))
    body = pool(rng, ground.places[at] + ground.normals[at] * depth, ground.normals[at], wide * ground.size_mm)
    kit.add(body, tissue, Label.BLOOD if blood else Label.MUCUS)
    return 1


@thing("strands", inside=0.12, outside=0.03)
def scatter_strands(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """Threads of mucus between two places."""
    tissue = kit.tissue("mucus", texel_mm=0.2, side=96)
    count = 0
    for _ in range(int(rng.integers(1, 6))):
        start = ground.places[ground.spot(rng)]
        far = np.linalg.norm(ground.places - start, axis=1)
        choice = np.flatnonzero((far > 2) & (far < 1.3 * ground.size_mm))
        if len(choice):
            end = ground.places[int(rng.choice(choice))]
            kit.add(strand(rng, start, end, float(rng.uniform(0.15, 0.6))), tissue, Label.MUCUS)
            count += 1
    return count


@thing("bubbles", inside=0.14, outside=0.05)
def scatter_bubbles(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """Foam: a film that shows what is behind it, brighter, and glitters."""
    base = kit.tissues[0]
    film = dataclasses.replace(
        base,
        albedo=np.minimum(base.albedo * np.float32(rng.uniform(1.0, 1.6)) + np.float32(0.03), np.float32(0.95)),
        roughness=np.full_like(base.roughness, 0.08),
        specular=0.06,
        detail_height_mm=0.0,
    )
    tissue = kit.adopt(film)
    count = int(rng.integers(4, 40))
    heap, spread = ground.spot(rng), float(rng.uniform(0.15, 0.6)) * ground.size_mm
    for _ in range(count):
        at = ground.beside(rng, heap, spread)
        radius = float(np.clip(rng.lognormal(-0.4, 0.6), 0.25, max(0.3, 0.15 * ground.size_mm)))
        ball = closed_body(ellipsoid_grid((radius, radius, 0.8 * radius), rows=16, columns=24))
        kit.add(moved(ball, frame_on(ground.normals[at], rng), ground.places[at]), tissue, Label.BUBBLE)
    return count


@thing("clips", inside=0.06, outside=0.06)
def scatter_clips(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """A few metal clips close together."""
    tissue = kit.tissue("metal", side=64)
    count, heap = int(rng.integers(1, 5)), ground.spot(rng)
    for _ in range(count):
        at = ground.beside(rng, heap, 0.25 * ground.size_mm)
        kit.add(hemoclip(rng, ground.places[at], ground.normals[at]), tissue, Label.CLIP)
    return count


@thing("sutures", inside=0.02, outside=0.08)
def scatter_sutures(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """A row of stitches."""
    tissue = kit.tissue("plastic", side=64)
    count, heap = int(rng.integers(1, 6)), ground.spot(rng)
    for _ in range(count):
        at = ground.beside(rng, heap, 0.3 * ground.size_mm)
        kit.add(suture(rng, ground.places[at], ground.normals[at]), tissue, Label.SUTURE)
    return count


@thing("smears", inside=0.12, outside=0.2)
def scatter_smears(kit: Assembly, rng: np.random.Generator, ground: Ground) -> int:
    """Stains of blood, sometimes of bile."""
    count = int(rng.integers(1, 5))
    for _ in range(count):
        centre, radius = ground.places[ground.spot(rng)], float(rng.uniform(0.1, 0.5)) * ground.size_mm
        blood = bool(rng.random() < 0.75)
        colour, label = (BLOOD, Label.BLOOD) if blood else (BILE, Label.MUCUS)

        def stain(
            mesh: Mesh,
            at: Array = centre,
            size: float = radius,
            tone: tuple[float, float, float] = colour,
            kind: Label = label,
        ) -> Mesh:
            return smear(rng, mesh, centre=at, radius_mm=size, colour=tone, label=kind)

        kit.change_tissue(stain)
    return count


def smear(
    rng: np.random.Generator,
    mesh: Mesh,
    *,
    centre: Array,
    radius_mm: float,
    colour: tuple[float, float, float],
    label: Label,
) -> Mesh:
    """Stain a mesh around a place: the tint changes, and the class where the stain covers."""
    far2 = ((mesh.vertices - np.asarray(centre, np.float32)) ** 2).sum(axis=1) / np.float32(radius_mm**2)
    near = np.flatnonzero(far2 < 6.0)
    if not len(near):
        return mesh
    edge = 1.2 - far2[near] + 0.8 * solid_noise(rng, mesh.vertices[near], scale_mm=0.45 * radius_mm)
    edge += 0.3 * solid_noise(rng, mesh.vertices[near], scale_mm=0.1 * radius_mm)
    cover = np.clip(edge * rng.uniform(1.0, 3.0), 0, 1) * rng.uniform(0.5, 1.0)
    tint, labels = mesh.tint.copy(), mesh.label.copy()
    tint[near] *= np.exp(cover[:, None] * np.log(np.asarray(colour))).astype(np.float32)
    labels[near[cover > 0.5]] = int(label)
    return dataclasses.replace(mesh, tint=tint, label=labels)
