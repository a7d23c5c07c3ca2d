"""The shapes of what lies about in an organ: clumps, strands, pools, clips and stitches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from endolux.phantom.solids import (
    Body,
    closed_body,
    displace,
    ellipsoid_grid,
    frame_on,
    moved,
    open_body,
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)

Array = npt.NDArray[np.floating]


def clump(rng: np.random.Generator, at: Array, normal: Array, radius_mm: float) -> Body:
    """A ragged lump stuck to a wall."""
    radii = (radius_mm, radius_mm * float(rng.uniform(0.5, 1.2)), radius_mm * float(rng.uniform(0.25, 0.7)))
    body = closed_body(ellipsoid_grid(radii, rows=26, columns=36))
    amount = 0.2 * radius_mm * solid_noise(rng, body.vertices, scale_mm=0.6 * radius_mm)
    amount += 0.06 * radius_mm * solid_noise(rng, body.vertices, scale_mm=0.2 * radius_mm)
    return moved(displace(body, amount), frame_on(normal, rng), at + normal * 0.2 * radii[2])


def strand(rng: np.random.Generator, start: Array, end: Array, girth: float) -> Body:
    """A sagging thread of mucus, thin in its middle."""
    middle = 0.5 * (np.asarray(start, np.float64) + end)
    length = float(np.linalg.norm(np.asarray(end) - start))
    middle += 0.15 * length * rng.standard_normal(3)
    rows = 48
    place = np.linspace(0, 1, rows)
    size = girth * (0.35 + 0.65 * np.abs(2 * place - 1) ** 1.5) * round_ends(rows, share=0.03)
    path = smooth_path(np.stack([start, middle, end]), count=rows)
    return closed_body(sweep_grid(path, size, columns=12))


def pool(rng: np.random.Generator, centre: Array, up: Array, radius_mm: float) -> Body:
    """A level surface of fluid; what stands beyond the wall is not seen."""
    rows, columns = 30, 48
    reach = np.linspace(1.0, 0.0, rows)[:, None] * radius_mm * np.ones(columns)
    turn = np.linspace(0, 2 * np.pi, columns)[None] * np.ones((rows, 1))
    flat = np.stack([reach * np.cos(turn), reach * np.sin(turn), np.zeros_like(reach)], -1)
    wave = rng.uniform(0.0, 0.06) * solid_noise(rng, flat.reshape(-1, 3), scale_mm=rng.uniform(1.5, 6))
    flat[..., 2] = wave.reshape(rows, columns)
    body = open_body(flat[:, ::-1])
    if float(body.normals[:, 2].mean()) < 0:
        body = open_body(flat)
    return moved(body, frame_on(up, rng), centre)


def hemoclip(rng: np.random.Generator, at: Array, normal: Array) -> Body:
    """A small metal clip, closed on the tissue."""
    long, wide = rng.uniform(4, 9), rng.uniform(0.5, 1.3)
    points = np.array(
        [[wide, 0, 0.0], [0.7 * wide, 0, 0.6 * long], [0, 0, long], [-0.7 * wide, 0, 0.6 * long], [-wide, 0, 0]]
    )
    path = smooth_path(points, count=44)
    body = closed_body(sweep_grid(path, rng.uniform(0.3, 0.5) * round_ends(44, share=0.02), columns=12))
    lean = np.asarray(normal, np.float64) + 0.6 * rng.standard_normal(3)
    return moved(body, frame_on(lean, rng), at - 0.3 * np.asarray(normal))


def suture(rng: np.random.Generator, at: Array, normal: Array) -> Body:
    """A stitch: a thread in an arc over the tissue, with a loose end."""
    long = rng.uniform(4, 12)
    points = np.array(
        [
            [-0.5 * long, 0, -0.5],
            [-0.3 * long, 0, 0.5],
            [0.3 * long, rng.normal(0, 0.5), 0.5],
            [0.5 * long, 0, -0.2],
            [0.6 * long, rng.normal(0, 2), rng.uniform(0.5, 4)],
        ]
    )
    path = smooth_path(points, count=60)
    body = closed_body(sweep_grid(path, rng.uniform(0.1, 0.25) * round_ends(60, share=0.02), columns=10))
    return moved(body, frame_on(normal, rng), at)
