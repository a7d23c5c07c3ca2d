"""Growths on a wall: polyps, sessile or stalked, and masses that narrow the lumen."""

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
    round_ends,
    smooth_path,
    solid_noise,
    sweep_grid,
)

Array = npt.NDArray[np.floating]


def build_polyp(
    rng: np.random.Generator, *, base: Array, normal: Array, radius_mm: float, stalk_mm: float
) -> list[Body]:
    """A polyp on a wall point.

    Args:
        rng: source of randomness.
        base: wall point, 3, millimetres.
        normal: unit normal of the wall into the lumen, 3.
        radius_mm: radius of the head.
        stalk_mm: length of the stalk, 0 for a sessile polyp.

    Returns:
        the head and, if there is one, the stalk.
    """
    squash = rng.uniform(0.55, 1.0)
    sink = stalk_mm if stalk_mm > 0 else radius_mm * squash * rng.uniform(-0.1, 0.5)
    axis = np.asarray(normal, np.float64) + 0.25 * rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    radii = (radius_mm, radius_mm * float(rng.uniform(0.8, 1.2)), radius_mm * float(squash))
    head = closed_body(ellipsoid_grid(radii, rows=34, columns=48))
    amount = rng.uniform(0.02, 0.10) * radius_mm * solid_noise(rng, head.vertices, scale_mm=0.7 * radius_mm)
    amount += rng.uniform(0.0, 0.04) * radius_mm * solid_noise(rng, head.vertices, scale_mm=0.25 * radius_mm)
    head = moved(displace(head, amount), frame_on(axis, rng), base + axis * sink)
    if stalk_mm <= 0:
        return [head]
    neck = radius_mm * rng.uniform(0.25, 0.45)
    foot = np.asarray(base, np.float64) - 0.25 * stalk_mm * np.asarray(normal)
    knots = np.stack([foot, base + 0.5 * stalk_mm * axis + 0.1 * stalk_mm * rng.standard_normal(3), base + axis * sink])
    path = smooth_path(knots, count=36)
    flare = 1.0 + 0.8 * np.exp(-np.linspace(0, 6, 36))
    return [head, closed_body(sweep_grid(path, neck * flare * round_ends(36, share=0.05), columns=28))]


def build_mass(rng: np.random.Generator, *, base: Array, normal: Array, radius_mm: float) -> Body:
    """A large sessile growth: a lobed body, broad on the wall, standing far into the lumen."""
    radii = (radius_mm, radius_mm * float(rng.uniform(0.6, 1.3)), radius_mm * float(rng.uniform(0.5, 1.1)))
    body = closed_body(ellipsoid_grid(radii, rows=64, columns=88))
    scale = rng.uniform(0.45, 1.0) * radius_mm
    amount = rng.uniform(0.05, 0.2) * radius_mm * solid_noise(rng, body.vertices, scale_mm=scale)
    lobes = np.abs(solid_noise(rng, body.vertices, scale_mm=rng.uniform(0.15, 0.45) * radius_mm))
    amount += rng.uniform(0.0, 0.07) * radius_mm * np.minimum(lobes, 1.2)
    amount += rng.uniform(0.0, 0.018) * radius_mm * solid_noise(rng, body.vertices, scale_mm=0.07 * radius_mm)
    axis = np.asarray(normal, np.float64) + 0.3 * rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    return moved(displace(body, amount), frame_on(axis, rng), base + axis * radii[2] * rng.uniform(-0.1, 0.6))
