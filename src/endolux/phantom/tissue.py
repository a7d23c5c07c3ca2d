"""Surface textures: colour, wetness and relief of mucosa."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.compile import compiled_fast, unread
from endolux.phantom.fields import fractal_field, smooth_field
from endolux.phantom.powers import exp2
from endolux.phantom.vessels import vessel_map

FloatArray = npt.NDArray[np.float32]

# Linear-light RGB of mucosa under white light, of silicone phantoms and of rendered data sets: (base, spread).
_PALETTES: dict[str, tuple[tuple[float, float, float], float]] = {
    "pink": ((0.72, 0.33, 0.28), 0.12),
    "red": ((0.60, 0.20, 0.15), 0.12),
    "pale": ((0.80, 0.58, 0.50), 0.10),
    "orange": ((0.80, 0.42, 0.20), 0.12),
    "yellow": ((0.85, 0.62, 0.32), 0.10),
    "grey": ((0.50, 0.48, 0.50), 0.10),
    "brown": ((0.42, 0.26, 0.15), 0.10),
    "ashen": ((0.40, 0.43, 0.47), 0.08),
    "narrow-band": ((0.35, 0.50, 0.45), 0.12),
    "crimson": ((0.58, 0.17, 0.12), 0.12),
    "salmon": ((0.78, 0.36, 0.22), 0.12),
    "amber": ((0.74, 0.32, 0.09), 0.14),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Tissue:
    """Textures over one surface, periodic in both axes.

    Attributes:
        albedo: rows x columns x 3 float32, linear RGB in [0, 1].
        height_mm: rows x columns float32 relief.
        roughness: rows x columns float32 GGX roughness.
        detail: tile x tile float32 fine relief of unit deviation, repeated every ``detail_mm``.
        detail_mm: side of the repeated tile.
        detail_height_mm: amplitude of the fine relief.
        detail_albedo: relative amplitude of the fine mottling.
        size_mm: what the texture spans along rows and columns.
        specular: strength of the wet layer (reflectance at normal incidence).
        palette: name of the colour family.
    """

    albedo: npt.NDArray[np.float32]
    height_mm: npt.NDArray[np.float32]
    roughness: npt.NDArray[np.float32]
    detail: npt.NDArray[np.float32]
    detail_mm: float
    detail_height_mm: float
    detail_albedo: float
    size_mm: tuple[float, float]
    specular: float
    palette: str


def sample_tissue(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int],
    texel_mm: tuple[float, float],
    smooth: bool = False,
    rich: float = 0.0,
) -> Tissue:
    """Draw the look of one mucosa.

    Args:
        rng: source of randomness.
        shape: rows (along the lumen) and columns (around it) of the texture.
        texel_mm: size of a texel along rows and columns in millimetres.
        smooth: silicone-like: hardly any vessels or mottling.
        rich: probability of strong mottling and dense vessels, whatever ``smooth`` says.

    Example:
        >>> import numpy as np
        >>> sample_tissue(np.random.default_rng(0), shape=(64, 32), texel_mm=(1.0, 1.0)).albedo.shape
        (64, 32, 3)
    """
    # No draw when it is off: scenes without it keep their bytes.
    strong = rich > 0 and rng.random() < rich
    smooth = smooth and not strong
    palette = str(
        rng.choice(list(_PALETTES), p=[0.18, 0.14, 0.08, 0.10, 0.07, 0.05, 0.06, 0.04, 0.03, 0.09, 0.10, 0.06])
    )
    base, spread = _PALETTES[palette]
    colour = np.asarray(base) * np.exp(rng.normal(0, spread, 3)) * rng.uniform(0.6, 1.1)
    # Power on the ratios: between washed out and strongly saturated versions of the same hue.
    peak = colour.max()
    colour = np.clip(peak * (colour / peak) ** rng.uniform(0.6, 1.8), 0.02, 0.95)

    def field(length_mm: float, octaves: int) -> npt.NDArray[np.float32]:
        return fractal_field(rng, shape, scale=(length_mm / texel_mm[0], length_mm / texel_mm[1]), octaves=octaves)

    mottling = rng.uniform(0.0, 0.06) if smooth else rng.uniform(0.15, 0.45) if strong else rng.uniform(0.02, 0.22)
    mottle = field(rng.uniform(4, 25), 4)
    # A second, slower field shifts the hue between reddish and pale.
    hue, hue_share = field(rng.uniform(10, 50), 3), mottling * rng.uniform(0.3, 1.2)
    vessels = np.zeros(shape, np.float32)
    blood = np.zeros(3, np.float32)
    if not smooth or rng.random() < 0.2:
        strength = rng.choice((0.0, rng.uniform(0.1, 0.5), rng.uniform(0.5, 1.3)), p=(0.25, 0.40, 0.35))
        if strong:
            strength = rng.uniform(0.5, 1.6)
        if strength > 0:
            vessels = vessel_map(
                rng,
                shape,
                trees=int(rng.integers(25, 90) if strong else rng.integers(6, 50)),
                trunk_px=rng.uniform(0.4, 1.6) / texel_mm[0],
                wiggle=rng.uniform(0.08, 0.35),
            )
            vessels = cv2.GaussianBlur(vessels, (0, 0), rng.uniform(0.5, 1.2), borderType=cv2.BORDER_REFLECT)
            blood = np.array([-0.35, -1.1, -1.0], np.float32) * np.float32(rng.uniform(0.5, 1.2))
            if palette == "narrow-band":
                blood = np.array([-0.9, -0.8, -0.4], np.float32)
            blood *= np.float32(strength)
    patch, patch_from, patch_tint = _patch(rng, field) if not smooth else _NOTHING
    stain, stain_from, stain_edge, residue = _stain(rng, field) if not smooth else _CLEAN
    albedo = np.empty((*shape, 3), np.float32)
    _paint(
        albedo.reshape(-1, 3),
        colour.astype(np.float32),
        mottle.reshape(-1),
        np.float32(mottling),
        hue.reshape(-1),
        np.float32(hue_share),
        vessels.reshape(-1),
        blood,
        patch.reshape(-1) if patch.size > 1 else unread(mottle.size),
        np.float32(patch_from),
        patch_tint,
        stain.reshape(-1) if stain.size > 1 else unread(mottle.size),
        np.float32(stain_from),
        np.float32(stain_edge),
        residue,
    )
    relief = field(rng.uniform(2.5, 9.0), 3) * np.float32(rng.uniform(0.02, 0.14))
    if rng.random() < 0.35:
        relief += _areae(rng, shape, texel_mm) * np.float32(rng.uniform(0.05, 0.25))
    relief += vessels * np.float32(rng.uniform(0.0, 0.08))
    roughness = np.float32(rng.uniform(0.10, 0.42)) * np.exp(np.float32(0.25) * field(8.0, 2))
    return Tissue(
        albedo=albedo,
        height_mm=relief.astype(np.float32),
        roughness=np.clip(roughness, 0.06, 0.8).astype(np.float32),
        detail=fractal_field(rng, (256, 256), scale=(12.0, 12.0), octaves=4, gain=0.6),
        detail_mm=float(rng.uniform(8.0, 18.0)),
        detail_height_mm=float(rng.choice((0.0, rng.uniform(0.0, 0.02)))),
        detail_albedo=float(rng.uniform(0.0, 0.02) if smooth else rng.uniform(0.0, 0.07)),
        size_mm=(shape[0] * texel_mm[0], shape[1] * texel_mm[1]),
        specular=float(rng.choice((0.0, rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.08)), p=(0.12, 0.28, 0.6))),
        palette=palette,
    )


_Noise = Callable[[float, int], FloatArray]
_NOTHING = (np.zeros(1, np.float32), 0.0, np.zeros(3, np.float32))
_CLEAN = (np.zeros(1, np.float32), 0.0, 1.0, np.zeros(3, np.float32))


def _patch(rng: np.random.Generator, field: _Noise) -> tuple[FloatArray, float, FloatArray]:
    """Inflamed or pale patches: field, threshold, change of the logarithm of the colour."""
    if rng.random() >= 0.35:
        return _NOTHING
    tint = np.array(((0.1, -0.8, -0.7), (0.2, 0.35, 0.3))[int(rng.integers(2))], np.float32)
    tint *= np.float32(rng.uniform(0.4, 1.0))
    return field(rng.uniform(6, 20), 3), float(rng.uniform(0.8, 2.0)), tint


def _stain(rng: np.random.Generator, field: _Noise) -> tuple[FloatArray, float, float, FloatArray]:
    """Residue lying on the wall, colour only: field, threshold, sharpness, colour."""
    if rng.random() >= 0.2:
        return _CLEAN
    residue = np.array((0.5, 0.38, 0.10), np.float32) * np.float32(rng.uniform(0.4, 1.3))
    return field(rng.uniform(5, 15), 4), float(rng.uniform(1.3, 2.4)), float(rng.uniform(1.5, 4.0)), residue


@compiled_fast
def _paint(
    albedo: FloatArray,
    colour: FloatArray,
    mottle: FloatArray,
    mottling: float,
    hue: FloatArray,
    hue_share: float,
    vessels: FloatArray,
    blood: FloatArray,
    patch: FloatArray,
    patch_from: float,
    patch_tint: FloatArray,
    stain: FloatArray,
    stain_from: float,
    stain_edge: float,
    residue: FloatArray,
) -> None:
    """Colour of every texel: logarithms add up, residue covers."""
    zero, one, two = np.float32(0.0), np.float32(1.0), np.float32(2.0)
    per_e = np.float32(1.4426950408889634)
    for k in range(mottle.size):
        bright = mottling * mottle[k]
        # tanh by its exponential.
        swing = hue_share * (one - two / (exp2(two * per_e * hue[k]) + one))
        sick = zero
        if patch.size > 1:
            sick = min(max((patch[k] - patch_from) * two, zero), one)
        cover = zero
        if stain.size > 1:
            cover = min(max((stain[k] - stain_from) * stain_edge, zero), one)
        for x in range(3):
            turn = swing * np.float32(0.25) if x == 0 else -swing
            change = bright + turn + vessels[k] * blood[x] + sick * patch_tint[x]
            value = colour[x] * exp2(per_e * change)
            value += cover * (residue[x] - value)
            albedo[k, x] = min(max(value, np.float32(0.01)), np.float32(0.97))


def _areae(rng: np.random.Generator, shape: tuple[int, int], texel_mm: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Cobblestone relief: ridged noise with cells of a few millimetres."""
    length = rng.uniform(1.5, 5.0)
    noise = smooth_field(rng, shape, scale=(length / texel_mm[0], length / texel_mm[1]))
    return (np.minimum(np.abs(noise), 1.0) - 0.5).astype(np.float32)
