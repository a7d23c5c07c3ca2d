"""Light to pixels: exposure, optics, noise, encoding, compression."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.scope import Scope
from endolux.types import ImageArray

FloatArray = npt.NDArray[np.float32]


def expose(radiance: FloatArray, scope: Scope) -> float:
    """Gain that brings the bright part of the visible image to the scope's exposure."""
    luminance = radiance.mean(axis=-1)[scope.content]
    level = float(np.percentile(luminance, 90)) if luminance.size else 0.0
    return scope.exposure / level if level > 0 else 1.0


def develop(radiance: FloatArray, scope: Scope, rng: np.random.Generator, *, gain: float | None = None) -> ImageArray:
    """Encode linear light.

    Args:
        radiance: H x W x 3 linear light in any unit.
        scope: the instrument.
        rng: noise.
        gain: exposure; measured from the image when None.

    Returns:
        H x W x 3 uint8, RGB; black outside the visible area.
    """
    height, width = radiance.shape[:2]
    light = radiance * (np.float32(gain if gain is not None else expose(radiance, scope)))
    light *= np.asarray(scope.white_balance, np.float32)
    if scope.vignette > 0:
        y, x = np.ogrid[0:height, 0:width]
        far = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / (0.25 * (width**2 + height**2))
        light *= (1.0 - scope.vignette * far)[..., None].astype(np.float32)
    # Highlights bleed in linear light, before they saturate; unbounded ones would bleed over the whole image.
    light = np.minimum(light, 6.0)
    if scope.blur_px > 0.2:
        light = cv2.GaussianBlur(light, (0, 0), scope.blur_px)
    if scope.shoulder > 0:
        knee = 1.0 - 0.6 * scope.shoulder
        above = np.maximum(light - knee, 0.0)
        light = np.minimum(light, knee) + (1 - knee) * (1 - np.exp(-above / (1 - knee)))
    encoded = np.power(np.clip(light, 0.0, 1.0), np.float32(1.0 / scope.gamma))
    if scope.chroma_blur_px > 0.3:
        luma = encoded.mean(axis=-1, keepdims=True)
        encoded = luma + cv2.GaussianBlur(encoded - luma, (0, 0), scope.chroma_blur_px)
    if scope.shot_noise > 0 or scope.read_noise > 0:
        noise = rng.standard_normal(encoded.shape, np.float32)
        if scope.jpeg_quality:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.7) * 1.8
        encoded = encoded + noise * (scope.read_noise + scope.shot_noise * np.sqrt(np.clip(encoded, 0, 1)))
    image = np.clip(encoded * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if not scope.content.all():
        soft = cv2.GaussianBlur(scope.content.astype(np.float32), (0, 0), 0.8)[..., None]
        image = (image * soft + rng.uniform(0, 12) * (1 - soft)).astype(np.uint8)
    if scope.jpeg_quality:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scope.jpeg_quality])
        image = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
    return np.asarray(image, np.uint8)
