"""Texture copied into depth: the leak index, and the residual energy of each octave."""

from __future__ import annotations

import dataclasses
from typing import Literal

import cv2
import numpy as np

from endolux.metrics.boundary import depth_edges, distance_to
from endolux.metrics.checks import BoolArray, Float64, NumberArray, depth_pair, one_of, same_shape, warn_empty
from endolux.types import ImageArray

SIGMA_PX = 2.0
FLAT_PERCENTILE = 30.0
EDGE_DISTANCE_PX = 5.0
BAND_EDGES: tuple[float, ...] = (0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, float(np.sqrt(0.5)))
"""Radial frequencies, in cycles a pixel, between which the bands lie."""
ENERGY_FLOOR = 1e-3
_TAPER = 0.25
_BORDER_PX = 9
_DEVIATION_FLOOR = 1e-8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextureLeak:
    """How much of the picture's fine brightness shows up as relief where the truth is flat.

    Attributes:
        slope: log disparity per unit of brightness (black 0, white 1), of the least-squares line; 0 is best.
        correlation: of the two, -1 to 1; NaN where either does not vary.
        pixels: flat pixels that were used.
    """

    slope: float
    correlation: float
    pixels: int


def luma(image: ImageArray) -> Float64:
    """Brightness in [0, 1] of an RGB image (ITU-R BT.601 weights), H x W.

    Example:
        >>> import numpy as np
        >>> round(float(luma(np.full((1, 1, 3), 255, np.uint8))[0, 0]), 9)
        1.0
    """
    return np.asarray(image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255.0, np.float64)


def flat_pixels(truth: NumberArray, valid: BoolArray) -> BoolArray:
    """Pixels where any relief is an artefact: gradient of log truth at or below its 30th percentile, 5 px from steps.

    A pixel needs eight valid neighbours inside the image, because its gradient does.

    Returns:
        H x W bool.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``.

    Example:
        >>> import numpy as np
        >>> int(flat_pixels(np.full((5, 6), 10.0), np.ones((5, 6), bool)).sum())
        12
    """
    t, _ = depth_pair(truth, truth, valid)
    z = np.log(t)
    dx = cv2.Sobel(z, cv2.CV_64F, 1, 0) / 8
    dy = cv2.Sobel(z, cv2.CV_64F, 0, 1) / 8
    gradient = np.hypot(dx, dy)
    kernel = np.ones((3, 3), np.uint8)
    inside = cv2.erode(valid.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    inside &= distance_to(depth_edges(truth, valid)) >= EDGE_DISTANCE_PX
    if not inside.any():
        return np.zeros(valid.shape, np.bool_)
    return np.asarray(inside & (gradient <= np.percentile(gradient[inside], FLAT_PERCENTILE)), np.bool_)


def texture_leak(
    prediction: NumberArray,
    image: ImageArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    of: Literal["prediction", "residual"] = "prediction",
    sigma_px: float = SIGMA_PX,
) -> TextureLeak:
    """Slope and correlation of the prediction's fine relief on the picture's fine brightness, over flat pixels.

    Both log disparity and brightness are high-passed by subtracting a Gaussian average over the valid pixels. The
    result does not depend on the scale of the prediction, so alignment is not needed for a relative depth; a relative
    disparity must be aligned first, because its shift bends the logarithm.

    Args:
        prediction: H x W depth, positive where ``valid``.
        image: H x W x 3 uint8 RGB of the same size.
        truth: H x W depth that says where the scene is flat (a reference or a teacher).
        valid: H x W bool; exclude highlights, overlays and what lies outside the content area.
        of: ``prediction`` measures log disparity itself; ``residual`` its difference from the truth's, for scenes whose
            true relief follows their colour.
        sigma_px: standard deviation of the Gaussian.

    Returns:
        NaN with an ``EmptyMaskWarning`` where fewer than two pixels are flat, the picture has no texture there, or a
        prediction is not positive.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``, ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
        >>> truth = np.full((32, 32), 50.0)
        >>> copied = truth * np.exp(-0.1 * luma(image))
        >>> round(texture_leak(copied, image, truth, truth > 0).slope, 9)
        0.1
    """
    one_of(of, ["prediction", "residual"], what="quantity")
    same_shape(image[..., 0] if image.ndim == 3 else image, valid, dimensions=2)
    p, t = depth_pair(prediction, truth, valid)
    flat = flat_pixels(truth, valid)
    pixels = int(np.count_nonzero(flat))
    nan = float("nan")
    if pixels < 2 or not (p > 0).all():
        warn_empty(f"Texture leak: {pixels} flat pixels, {int((p <= 0).sum())} predictions that are not positive")
        return TextureLeak(slope=nan, correlation=nan, pixels=pixels)
    z = -np.log(p) if of == "prediction" else np.log(t) - np.log(p)
    relief = _high_pass(z, valid, sigma_px)[flat]
    texture = _high_pass(luma(image), valid, sigma_px)[flat]
    relief, texture = relief - relief.mean(), texture - texture.mean()
    energy = float(texture @ texture)
    # A picture without texture leaves rounding only.
    if energy <= pixels * 1e-20:
        warn_empty("Texture leak: the picture has no texture on the flat pixels")
        return TextureLeak(slope=nan, correlation=nan, pixels=pixels)
    product, own = float(relief @ texture), float(relief @ relief)
    return TextureLeak(
        slope=product / energy,
        correlation=product / float(np.sqrt(energy * own)) if own > pixels * 1e-20 else nan,
        pixels=pixels,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BandResiduals:
    """Relative residual energy of each octave of spatial frequency.

    Attributes:
        edges: n + 1 radial frequencies in cycles a pixel; small images have fewer bands.
        rho: n values: 0 at equality, near 1 where the prediction has nothing of the band, above 1 where it puts
            energy or phase where the truth has none.
        pixels: valid pixels.
    """

    edges: tuple[float, ...]
    rho: tuple[float, ...]
    pixels: int


def band_residuals(
    prediction: NumberArray,
    truth: NumberArray,
    valid: BoolArray,
    *,
    mode: Literal["scale", "affine"] = "scale",
) -> BandResiduals:
    """Energy of the residual in each octave, relative to the truth's energy there.

    Scale mode compares log disparities less their medians (blind to the scale of the depth); affine mode disparities
    less their medians, over their mean absolute deviations (blind to scale and shift of the disparity). The residual is
    weighted by a soft mask, zero on invalid pixels, and by a Tukey window; Fourier energies are summed over radial
    bands; a floor of 0.1 % of the truth's energy, by the band's share of bins, keeps empty bands finite. Bands narrower
    than two bins of the shorter side are merged with the next.

    Args:
        prediction: H x W depth, positive where ``valid``.
        truth: H x W depth, positive and finite where ``valid``.
        valid: H x W bool.
        mode: ``scale`` or ``affine``.

    Returns:
        NaN with an ``EmptyMaskWarning`` where the mask leaves nothing (a margin of 9 px around invalid pixels is lost),
        the truth does not vary, or a prediction is not positive.

    Raises:
        UsageError: ``metrics.shape``, ``metrics.mask``, ``metrics.values``, ``metrics.name``.

    Example:
        >>> import numpy as np
        >>> truth = 40 + 10 * np.sin(np.arange(64) / 5)[:, None] * np.ones((64, 64))
        >>> max(band_residuals(2 * truth, truth, truth > 0).rho) < 1e-20
        True
    """
    one_of(mode, ["scale", "affine"], what="mode")
    p, t = depth_pair(prediction, truth, valid)
    height, width = valid.shape
    edges = _merged(min(height, width))
    pixels = int(np.count_nonzero(valid))
    kernel = np.ones((_BORDER_PX, _BORDER_PX), np.uint8)
    soft = cv2.blur(cv2.erode(valid.astype(np.uint8), kernel).astype(np.float64), (_BORDER_PX, _BORDER_PX))
    weight = soft * np.outer(_tukey(height), _tukey(width))
    nothing = (float("nan"),) * (len(edges) - 1)
    if not (weight > 0).any() or not (p > 0).all():
        warn_empty("Band residuals: the mask leaves nothing, or a prediction is not positive")
        return BandResiduals(edges=edges, rho=nothing, pixels=pixels)
    z_p, z_t = _canonical(p, valid, mode), _canonical(t, valid, mode)
    residual = np.abs(np.fft.rfft2(np.where(valid, weight * (z_p - z_t), 0.0), norm="ortho")) ** 2
    reference = np.abs(np.fft.rfft2(np.where(valid, weight * z_t, 0.0), norm="ortho")) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    # rfft2 keeps one half of the plane: every column but the first (and the Nyquist one) stands for two.
    share = np.full(radius.shape, 2.0)
    share[:, 0] = 1.0
    if width % 2 == 0:
        share[:, -1] = 1.0
    total = float((share * reference).sum())
    if total <= 1e-20 * pixels:
        warn_empty("Band residuals: the truth does not vary")
        return BandResiduals(edges=edges, rho=nothing, pixels=pixels)
    band = np.digitize(radius, edges[1:-1]).ravel()
    count = len(edges) - 1
    energy = np.bincount(band, (share * residual).ravel(), count)
    own = np.bincount(band, (share * reference).ravel(), count)
    floor = ENERGY_FLOOR * np.bincount(band, share.ravel(), count) / share.sum() * total
    return BandResiduals(edges=edges, rho=tuple(float(r) for r in energy / (own + floor)), pixels=pixels)


def _high_pass(values: Float64, valid: BoolArray, sigma_px: float) -> Float64:
    weight = valid.astype(np.float64)
    blurred = cv2.GaussianBlur(weight * values, (0, 0), sigma_px, borderType=cv2.BORDER_CONSTANT)
    norm = cv2.GaussianBlur(weight, (0, 0), sigma_px, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(values - blurred / np.where(valid, norm, 1.0), np.float64)


def _canonical(depth: Float64, valid: BoolArray, mode: str) -> Float64:
    disparity = -np.log(depth) if mode == "scale" else 1.0 / depth
    z = disparity - float(np.median(disparity[valid]))
    if mode == "affine":
        # A floor, not a sum: an added guard would break the invariance to scale.
        z = z / max(float(np.abs(z[valid]).mean()), _DEVIATION_FLOOR)
    return np.asarray(z, np.float64)


def _tukey(length: int) -> Float64:
    # Cosine-tapered window, symmetric, _TAPER of its length in the two tapers (Harris 1978).
    position = np.arange(length) / max(length - 1, 1)
    ramp = np.minimum(position, 1 - position) / (_TAPER / 2)
    return np.asarray(np.where(ramp < 1, 0.5 * (1 - np.cos(np.pi * np.minimum(ramp, 1))), 1.0), np.float64)


def _merged(side: int) -> tuple[float, ...]:
    edges = [BAND_EDGES[0]]
    for edge in BAND_EDGES[1:-1]:
        if (edge - edges[-1]) * side >= 2:
            edges.append(edge)
    return (*edges, BAND_EDGES[-1])
