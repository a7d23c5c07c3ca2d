"""Tissues drawn from looks: the surfaces of organs, growths, fluids and instruments."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.fields import fractal_field, smooth_field
from endolux.phantom.looks import LOOKS
from endolux.phantom.tissue import Tissue
from endolux.phantom.vessels import vessel_map


def organ_tissue(
    rng: np.random.Generator, kind: str, *, texel_mm: float = 0.3, side: int = 320, rich: float = 0.0
) -> Tissue:
    """Draw one surface of a kind.

    Args:
        rng: source of randomness.
        kind: key of ``LOOKS``.
        texel_mm: size of a texel; the texture repeats after ``side`` of them.
        side: rows and columns.
        rich: probability of strong mottling.

    Example:
        >>> import numpy as np
        >>> organ_tissue(np.random.default_rng(0), "liver", side=64).palette
        'liver'
    """
    look = LOOKS[kind]
    shape = (side, side)
    strong = rich > 0 and rng.random() < rich
    colour = np.asarray(look.colours[int(rng.integers(len(look.colours)))])
    colour = colour * np.exp(rng.normal(0, look.spread) + rng.normal(0, 0.4 * look.spread, 3))
    peak = colour.max()
    colour = peak * (colour / peak) ** rng.uniform(0.7, 1.25)

    def field(length_mm: float, octaves: int) -> npt.NDArray[np.float32]:
        return fractal_field(rng, shape, scale=(length_mm / texel_mm, length_mm / texel_mm), octaves=octaves)

    def draw(bounds: tuple[float, float]) -> float:
        return float(rng.uniform(*bounds))

    mottling = draw(look.mottling) * (2.0 if strong else 1.0)
    logs = np.float32(mottling) * field(rng.uniform(4, 18), 4)
    hue = np.tanh(field(rng.uniform(8, 25), 3)) * np.float32(draw(look.hue))
    albedo = colour.astype(np.float32) * np.exp(
        logs[..., None] + hue[..., None] * np.array([0.2, -0.8, -0.9], np.float32)
    )
    vessels = np.zeros(shape, np.float32)
    strength = draw(look.vessels)
    if strength > 0.05:
        trees = int(rng.integers(look.trees[0], look.trees[1] + 1))
        if trees:
            vessels = vessel_map(
                rng, shape, trees=trees, trunk_px=draw(look.trunk_mm) / texel_mm, wiggle=rng.uniform(0.08, 0.25)
            )
            vessels = cv2.GaussianBlur(vessels, (0, 0), rng.uniform(0.6, 1.1), borderType=cv2.BORDER_REFLECT)
            blood = np.array([-0.45, -1.2, -0.9], np.float32) * np.float32(rng.uniform(0.6, 1.2))
            albedo *= np.exp(np.float32(strength) * vessels[..., None] * blood)
    if rng.random() < look.spots:
        # Nodules and fatty spots: where a field of their size peaks.
        size = rng.uniform(0.7, 3.0)
        peaks = smooth_field(rng, shape, scale=(size / texel_mm, size / texel_mm))
        cover = np.clip((peaks - rng.uniform(1.1, 2.2)) * rng.uniform(1, 2.5), 0, 1)[..., None] * np.float32(
            rng.uniform(0.2, 0.7)
        )
        albedo += cover * (np.asarray(look.spot, np.float32) * np.float32(rng.uniform(0.5, 1.1)) - albedo)
    relief = field(draw(look.relief_length_mm), 3) * np.float32(draw(look.relief_mm))
    relief += vessels * np.float32(rng.uniform(0.0, 0.12))
    roughness = np.float32(draw(look.roughness)) * np.exp(np.float32(0.2) * field(8.0, 2))
    fine = 0.0 if look.relief_mm[1] < 0.05 else float(rng.choice((0.0, rng.uniform(0.003, 0.02)), p=(0.35, 0.65)))
    return Tissue(
        albedo=np.clip(albedo, 0.006, 0.95).astype(np.float32),
        height_mm=relief.astype(np.float32),
        roughness=np.clip(roughness, 0.06, 0.8).astype(np.float32),
        detail=fractal_field(rng, (128, 128), scale=(6.0, 6.0), octaves=4, gain=0.6),
        detail_mm=float(rng.uniform(6.0, 14.0)),
        detail_height_mm=fine,
        detail_albedo=float(rng.uniform(0.0, min(0.06, look.mottling[1]))),
        size_mm=(side * texel_mm, side * texel_mm),
        specular=draw(look.specular),
        palette=kind,
    )
