"""Smoke of electrosurgery: a veil over the picture; the geometry behind it stays known."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.fields import fractal_field

FloatArray = npt.NDArray[np.float32]


def veil(radiance: FloatArray, depth_mm: FloatArray, rng: np.random.Generator, *, density: float) -> FloatArray:
    """Light through smoke that hangs unevenly in the air.

    Beer-Lambert along the ray to the surface, and the lamp's light scattered back on the way (Koschmieder's model).

    Args:
        radiance: H x W x 3 linear light.
        depth_mm: H x W z, 0 where nothing is; there the ray is taken to be long.
        rng: source of randomness.
        density: optical depth over the median distance; 0 is clear air, 3 hides nearly everything.

    Returns:
        H x W x 3 linear light.

    Example:
        >>> import numpy as np
        >>> light = np.ones((8, 8, 3), np.float32)
        >>> bool((veil(light, np.full((8, 8), 50, np.float32), np.random.default_rng(0), density=0.0) == light).all())
        True
    """
    height, width = depth_mm.shape
    seen = depth_mm > 0
    middle = float(np.median(depth_mm[seen])) if seen.any() else 1.0
    way = np.where(seen, depth_mm / middle, 2.0).astype(np.float32)
    # Plumes have no detail: a coarse field drawn up to the size of the picture.
    field = fractal_field(rng, (48, 48), scale=(12.0, 12.0), octaves=3)
    plume = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    through = np.exp(-np.float32(density) * way * np.exp(np.float32(0.6) * plume - np.float32(0.18)))
    grey = np.float32(np.percentile(radiance.mean(axis=-1), 85)) * np.float32(rng.uniform(0.4, 1.0))
    tone = np.array([1.0, 1.0, 1.0], np.float32) + rng.normal(0, 0.04, 3).astype(np.float32)
    clear = through[..., None]
    return np.asarray(radiance * clear + grey * tone * (1 - clear), np.float32)
