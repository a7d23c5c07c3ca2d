"""The liver with what hangs on it: lobes with their edge, gallbladder, falciform ligament."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from endolux.phantom.solids import (
    Body,
    closed_body,
    displace,
    moved,
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]


@dataclasses.dataclass(frozen=True, slots=True)
class Liver:
    """A liver in its own axes and where it lies.

    Attributes:
        body: surface in world mm.
        rim: N x 3 world points around the edge.
        turn, shift: own axes to world.
        outline: radius of the plan by azimuth, N.
        size: half width, half depth, height and thickness, mm.
    """

    body: Body
    rim: FloatArray
    turn: Array
    shift: Array
    outline: FloatArray
    size: tuple[float, float, float, float]
    notch: float

    def place(self, azimuth: float, share: float, height: float) -> npt.NDArray[np.float64]:
        """World point at a share of the plan's radius in a direction, ``height`` mm above the rim's plane."""
        angle = np.linspace(0, 2 * np.pi, len(self.outline), endpoint=False)
        radius = float(np.interp(azimuth % (2 * np.pi), angle, self.outline, period=2 * np.pi))
        own = np.array(
            [
                share * radius * self.size[0] * np.cos(azimuth),
                share * radius * self.size[1] * np.sin(azimuth),
                height,
            ]
        )
        return np.asarray(self.turn @ own + self.shift, np.float64)

    def top(self, share: float) -> float:
        """Height of the upper surface above the rim's plane at a share of the radius."""
        return _crown(share) * self.size[2]


def _crown(share: Array | float) -> float:
    return float(np.maximum(1 - np.asarray(share) ** 2.2, 0.0) ** 0.9)


def build_liver(
    rng: np.random.Generator,
    *,
    height_mm: float,
    columns: int = 220,
    tilt_deg: float | None = None,
    hollow_mm: float | None = None,
) -> Liver:
    """A wedge with a domed top, a hollow underside and a sharp edge, notched at the ligament.

    Args:
        rng: source of randomness.
        height_mm: of the dome above the edge.
        columns: points around the edge.
        tilt_deg: how far the front edge is lifted; drawn when None.
        hollow_mm: how far the underside arches up; drawn when None, and then it may bulge.
    """
    wide, deep = rng.uniform(90, 150), rng.uniform(65, 115)
    height, hollow = height_mm, rng.uniform(-8, 26)
    if hollow_mm is not None:
        hollow = hollow_mm
    edge = rng.uniform(1.5, 7.0)
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    notch = -np.pi / 2 + rng.uniform(-0.3, 0.7)
    outline = np.ones(columns)
    for k in range(1, 7):
        outline += rng.normal(0, 0.10 / k) * np.cos(k * angle + rng.uniform(0, 6.3))
    gap = (angle - notch + np.pi) % (2 * np.pi) - np.pi
    outline -= rng.uniform(0.03, 0.28) * np.exp(-((gap / rng.uniform(0.05, 0.2)) ** 2))
    outline = np.clip(outline, 0.5, 1.5)
    rim_z = np.zeros(columns)
    for k in range(1, 6):
        rim_z += rng.normal(0, 5.0 / k) * np.cos(k * angle + rng.uniform(0, 6.3))
    # Profile from the top pole over the rounded edge to the bottom pole; dense where it curves.
    inner = 1 - np.linspace(1, 0.0, 46) ** 1.7
    top_z = height * np.maximum(1 - inner**2.2, 0) ** 0.9
    under = inner[::-1]
    under_z = -hollow * (1 - under**2) ** 0.8 * (0.25 if hollow < 0 else 1.0)
    if hollow < 0:
        under_z = np.minimum(under_z, 0.4 * height * (1 - under**2) ** 0.9)
    # The edge is rounded by moving both surfaces outwards along their normals and an arc between them.
    mean = 0.5 * (wide + deep)
    top_in, top_up = _offset(inner * mean, top_z, edge)
    under_in, under_up = _offset(under * mean, under_z, edge)
    low, high = np.arctan2(under_up[0], under_in[0]), np.arctan2(top_up[-1], top_in[-1])
    bend = np.linspace(high, low, 11)[1:-1]
    radius = np.concatenate([inner, np.ones(bend.size), under])
    out = np.concatenate([top_in, edge * np.cos(bend), under_in])
    z = np.concatenate([top_z + top_up, edge * np.sin(bend), under_z + under_up])
    reach_x = radius[:, None] * outline * wide + out[:, None]
    reach_y = radius[:, None] * outline * deep + out[:, None]
    grid = np.stack(
        [reach_x * np.cos(angle), reach_y * np.sin(angle), z[:, None] + rim_z * radius[:, None] ** 2], axis=-1
    )
    body = closed_body(grid)
    amount = rng.uniform(0.3, 2.5) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(14, 40))
    amount += rng.uniform(0.0, 0.35) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(3, 8))
    body = displace(body, amount)
    tilt = np.deg2rad(rng.uniform(-15, 35) if rng.random() < 0.6 else rng.uniform(35, 85))
    if tilt_deg is not None:
        tilt = np.deg2rad(tilt_deg)
    lean = np.deg2rad(rng.normal(0, 10))
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    about_y = np.array([[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]])
    turn = about_y @ about_x
    shift = np.array([rng.uniform(-40, 40), rng.uniform(50, 0.6 * deep + 60), rng.uniform(-10, 25)])
    at_rim = inner.size + bend.size // 2
    rows = slice((at_rim - 1) * columns, at_rim * columns)
    body = moved(body, turn, shift)
    return Liver(
        body=body,
        rim=body.vertices[rows],
        turn=turn,
        shift=shift,
        outline=outline.astype(np.float32),
        size=(wide, deep, height, hollow),
        notch=notch,
    )


def _offset(radius: Array, z: Array, by: float) -> tuple[Array, Array]:
    """Move a profile by ``by`` along its normals: what is added to the radius and to the height."""
    along = np.stack([np.gradient(radius), np.gradient(z)])
    along /= np.maximum(np.linalg.norm(along, axis=0), 1e-9)
    # On the axis a closed surface is level.
    fade = np.minimum(radius / max(float(radius.max()) * 0.1, 1e-9), 1.0)
    return -by * along[1] * fade, by * along[0]


def build_gallbladder(rng: np.random.Generator, liver: Liver) -> Body:
    """A pear at the underside whose end looks out below the edge."""
    azimuth = -np.pi / 2 + rng.uniform(-0.9, 0.5)
    girth = rng.uniform(9, 19)
    below = -max(liver.size[3], 0.0) - 0.55 * girth
    knots = np.stack(
        [
            liver.place(azimuth + rng.normal(0, 0.1), 0.35, 0.8 * below - rng.uniform(0, 12)),
            liver.place(azimuth + rng.normal(0, 0.05), 0.7, 0.7 * below),
            liver.place(azimuth, rng.uniform(0.85, 1.0), -0.8 * girth),
            liver.place(azimuth + rng.normal(0, 0.08), rng.uniform(1.0, 1.28), -rng.uniform(0.5, 1.4) * girth),
        ]
    )
    path = smooth_path(knots, count=96)
    # A thick body on a path with a sharp turn would cut through itself.
    path = np.stack([np.convolve(path[:, axis], np.hanning(27)[1:-1] / 13.0, "valid") for axis in range(3)], 1)
    place = np.linspace(0, 1, 72)
    radius = girth * round_ends(72, share=0.14) * (0.35 + 0.65 * np.clip(place * 1.5, 0, 1) ** 1.3)
    body = closed_body(sweep_grid(path, radius, columns=64))
    return displace(body, rng.uniform(0.2, 1.0) * solid_noise(rng, body.vertices, scale_mm=rng.uniform(8, 18)))


def build_sheet(
    rng: np.random.Generator, foot: Array, head: Array, *, thick_mm: float, rows: int = 60, columns: int = 40
) -> Body:
    """A thin membrane between two lines, thickest at its foot, waving a little.

    Args:
        rng: source of randomness.
        foot: N x 3 knots of one border, mm.
        head: N x 3 knots of the other.
        thick_mm: thickness at the foot.
        rows: points along the borders.
        columns: points around the section.
    """
    low, high = smooth_path(foot, count=rows), smooth_path(head, count=rows)
    along = np.gradient(0.5 * (low + high), axis=0)
    across = np.cross(along, high - low)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    half = columns // 2
    rise = np.concatenate([np.linspace(0, 1, half), np.linspace(1, 0, half)])
    side = np.concatenate([np.ones(half), -np.ones(half)])
    thin = thick_mm * (0.25 + 0.75 * np.exp(-5 * rise)) * round_ends(rows, share=0.03)[:, None]
    centre = low[:, None] + rise[None, :, None] * (high - low)[:, None]
    flat = centre.reshape(-1, 3)
    wave = rng.uniform(0.5, 3.0) * solid_noise(rng, flat, scale_mm=rng.uniform(12, 25))
    wave += rng.uniform(0.1, 0.6) * solid_noise(rng, flat, scale_mm=rng.uniform(3, 8))
    shift = (0.5 * thin * side + wave.reshape(rows, columns) * np.sin(np.pi * rise) ** 0.5)[..., None]
    return closed_body(centre + shift * across[:, None])


def build_ligament(rng: np.random.Generator, liver: Liver) -> tuple[list[Body], FloatArray]:
    """The falciform sheet between liver and wall, with the round cord at its free edge, and its foot line."""
    share = np.linspace(1.0, 0.1, 12)
    sway = rng.normal(0, 0.2) * (1 - share)
    foot = np.stack([liver.place(liver.notch + s, k, liver.top(k) + 0.3) for s, k in zip(sway, share, strict=True)])
    lean = np.array([rng.normal(0, 0.7), -rng.uniform(0.0, 0.8), 1.0])
    lean /= np.linalg.norm(lean)
    tall = rng.uniform(50, 110)
    head = foot + tall * lean + np.linspace(1, 0, 12)[:, None] * np.array([rng.normal(0, 10), -rng.uniform(0, 60), 0.0])
    sheet = build_sheet(rng, foot, head, thick_mm=rng.uniform(1.5, 6.0))
    start = liver.place(liver.notch, 0.75, -3.0)
    knots = np.stack([start, foot[0], 0.5 * (foot[0] + head[0]) + rng.normal(0, 4, 3), head[0]])
    girth = rng.uniform(1.5, 6.5) * (1 + 0.25 * np.sin(np.linspace(0, rng.uniform(3, 20), 70)))
    grid = sweep_grid(
        smooth_path(knots, count=70), girth * round_ends(70, share=0.04), columns=28, flat=rng.uniform(0.5, 1)
    )
    cord = closed_body(grid)
    cord = displace(cord, 0.2 * girth.mean() * solid_noise(rng, cord.vertices, scale_mm=rng.uniform(4, 12)))
    return [sheet, cord], foot.astype(np.float32)
