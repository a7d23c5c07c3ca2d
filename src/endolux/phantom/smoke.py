"""Smoke of electrosurgery: a veil over the picture; the geometry behind it stays known."""

from __future__ import annotations

import dataclasses
import math

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
    field = fractal_field(rng, _CELLS, scale=_SCALE, octaves=3)
    brightness, tone = _colour(rng)
    return _through(radiance, depth_mm, field, density=density, brightness=brightness, tone=tone)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Smoke:
    """Smoke of a sequence: it swells and fades, and its plumes turn into others, without a jump.

    Attributes:
        density: mean optical depth over the median distance.
        swell: share by which the density swings.
        swell_period_s: of the density.
        drift_period_s: of the plumes.
        phase: radians, of the swell at time 0.
        brightness: of the smoke against the picture's bright part.
        tone: factors on red, green and blue.
        plumes: two fields that the plumes are mixed of.
    """

    density: float
    swell: float
    swell_period_s: float
    drift_period_s: float
    phase: float
    brightness: float
    tone: FloatArray
    plumes: tuple[FloatArray, FloatArray]

    @classmethod
    def draw(cls, rng: np.random.Generator, density: tuple[float, float]) -> Smoke:
        """Smoke between a thinnest and a thickest mean density.

        Example:
            >>> smoke = Smoke.draw(np.random.default_rng(0), (0.5, 0.6))
            >>> 0.5 <= smoke.density <= 0.6, abs(smoke.density_at(1.0) - smoke.density_at(1.04)) < 0.02
            (True, True)
        """
        mean, swell = float(rng.uniform(*density)), float(rng.uniform(0.1, 0.5))
        periods = float(rng.uniform(3.0, 9.0)), float(rng.uniform(8.0, 20.0))
        phase = float(rng.uniform(0, 2 * np.pi))
        brightness, tone = _colour(rng)
        one, other = (np.asarray(fractal_field(rng, _CELLS, scale=_SCALE, octaves=3), np.float32) for _ in range(2))
        return cls(mean, swell, *periods, phase, brightness, tone, (one, other))

    def density_at(self, pts_s: float) -> float:
        """Optical depth over the median distance at a time in seconds."""
        return self.density * (1.0 + self.swell * math.sin(2 * math.pi * pts_s / self.swell_period_s + self.phase))

    def over(self, radiance: FloatArray, depth_mm: FloatArray, *, pts_s: float) -> FloatArray:
        """Light through the smoke at a time; see :func:`veil`."""
        turn = 2 * math.pi * pts_s / self.drift_period_s
        # Squares of the weights add up to 1: the plumes stay as marked as they are.
        field = np.float32(math.cos(turn)) * self.plumes[0] + np.float32(math.sin(turn)) * self.plumes[1]
        density = self.density_at(pts_s)
        return _through(radiance, depth_mm, field, density=density, brightness=self.brightness, tone=self.tone)

    def record(self) -> dict[str, object]:
        """The sampled numbers as JSON values."""
        names = ("density", "swell", "swell_period_s", "drift_period_s", "phase", "brightness")
        return {name: getattr(self, name) for name in names} | {"tone": self.tone.tolist()}


_CELLS, _SCALE = (48, 48), (12.0, 12.0)


def _colour(rng: np.random.Generator) -> tuple[float, FloatArray]:
    brightness = float(rng.uniform(0.4, 1.0))
    return brightness, np.array([1.0, 1.0, 1.0], np.float32) + rng.normal(0, 0.04, 3).astype(np.float32)


def _through(
    radiance: FloatArray,
    depth_mm: FloatArray,
    field: FloatArray,
    *,
    density: float,
    brightness: float,
    tone: FloatArray,
) -> FloatArray:
    height, width = depth_mm.shape
    seen = depth_mm > 0
    middle = float(np.median(depth_mm[seen])) if seen.any() else 1.0
    way = np.where(seen, depth_mm / middle, 2.0).astype(np.float32)
    # Plumes have no detail: a coarse field drawn up to the size of the picture.
    plume = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    through = np.exp(-np.float32(density) * way * np.exp(np.float32(0.6) * plume - np.float32(0.18)))
    grey = np.float32(np.percentile(radiance.mean(axis=-1), 85)) * np.float32(brightness)
    clear = through[..., None]
    return np.asarray(radiance * clear + grey * tone * (1 - clear), np.float32)
