"""Augmentation of snippets: one crop and mirroring for all frames, colour jitter for what the networks see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from endolux.train.viewport import View
from endolux.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.train.recipe_data import VideoAugmentation

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment_video(
    image: ImageArray,
    depth: FloatArray | None,
    generator: np.random.Generator,
    settings: VideoAugmentation,
    *,
    size: tuple[int, int],
    frame: int = 0,
) -> tuple[ImageArray, FloatArray, View]:
    """One frame of a snippet. A generator in the same state gives all frames the same view.

    Args:
        image: H x W x 3 uint8 RGB.
        depth: H x W float32, 0 where unknown; None where there is none.
        generator: source of every random number.
        settings: section of a recipe.
        size: (width, height) of the result.
        frame: number of the frame in its snippet; with ``draw: frame`` each number has colours of its own.

    Returns:
        Image, depth (0 where unknown) and view.

    Example:
        >>> from endolux.train.recipe import VideoAugmentation
        >>> image, settings = np.full((48, 64, 3), 90, np.uint8), VideoAugmentation(flip=1.0, jitter=0.0)
        >>> seen, _, view = augment_video(image, None, np.random.default_rng(0), settings, size=(32, 24))
        >>> seen.shape, view.horizontal
        ((24, 32, 3), True)
    """
    height, width = image.shape[:2]
    zoom = float(generator.uniform(1.0, settings.zoom)) if settings.zoom > 1 else 1.0
    crop = max(1, round(width / zoom)), max(1, round(height / zoom))
    left = int(generator.integers(0, width - crop[0] + 1))
    top = int(generator.integers(0, height - crop[1] + 1))
    horizontal, vertical = generator.random() < settings.flip, generator.random() < settings.flip_vertical
    view = View(source=(width, height), window=(left, top, *crop), horizontal=bool(horizontal), vertical=bool(vertical))
    jittered, seed = generator.random() < settings.jitter, int(generator.integers(2**63))
    picture = view.picture(image, size=size)
    if jittered:
        own = np.random.default_rng((seed, frame) if settings.draw == "frame" else seed)
        picture = jitter(picture, own, settings)
    return picture, _depth(depth, view, size), view


def jitter(image: ImageArray, generator: np.random.Generator, settings: VideoAugmentation) -> ImageArray:
    """Random brightness, contrast, saturation and hue, in this order.

    Args:
        image: H x W x 3 uint8 RGB.
        generator: source of four numbers.
        settings: section of a recipe.

    Returns:
        The same shape.
    """
    reach = np.array([settings.brightness, settings.contrast, settings.saturation])
    brightness, contrast, saturation = (np.float32(v) for v in 1.0 + generator.uniform(-1.0, 1.0, 3) * reach)
    turn = float(generator.uniform(-1.0, 1.0)) * settings.hue
    values = np.clip(image.astype(np.float32) * brightness, 0, 255)
    level = np.float32((values @ _LUMA).mean())
    values = np.clip(level + (values - level) * contrast, 0, 255)
    grey = (values @ _LUMA)[..., None]
    values = np.clip(grey + (values - grey) * saturation, 0, 255)
    if turn != 0.0:
        hsv = cv2.cvtColor(values / np.float32(255), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turn)) % np.float32(360)
        values = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
    return np.asarray(np.rint(values), np.uint8)


def _depth(depth: FloatArray | None, view: View, size: tuple[int, int]) -> FloatArray:
    if depth is None:
        return np.zeros((size[1], size[0]), np.float32)
    left, top, width, height = view.window
    # Nearest: a mean of two depths at a boundary is a surface that is not there.
    part = cv2.resize(depth[top : top + height, left : left + width], size, interpolation=cv2.INTER_NEAREST_EXACT)
    if view.vertical:
        part = part[::-1]
    if view.horizontal:
        part = part[:, ::-1]
    return np.ascontiguousarray(part, np.float32)
