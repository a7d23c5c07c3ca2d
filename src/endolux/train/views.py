"""From a stored sample to the view of it that a batch holds, by the recipe's augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

from endolux.train.augment import augment_leve, augment_view
from endolux.train.sources import Item
from endolux.train.viewport import View
from endolux.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.train.recipe import EndoscopeAugmentation, LeveAugmentation, NoAugmentation

Row = tuple[str, ImageArray, FloatArray, dict[str, FloatArray]]
"""Key, image, depth (0 where unknown) and extras of one view."""


def augmented(
    item: Item,
    extras: Mapping[str, FloatArray],
    generator: np.random.Generator,
    *,
    augmentation: EndoscopeAugmentation | LeveAugmentation | NoAugmentation,
    size: tuple[int, int] | None,
    mirror_extras: bool = True,
) -> Row:
    """One view of a sample.

    Args:
        item: as stored.
        extras: name -> h x w or C x h x w maps of the whole stored image.
        generator: source of every random number.
        augmentation: section of a recipe.
        size: (width, height) of the result; the stored size by default. Maps with channels keep their resolution.
        mirror_extras: False leaves the mirroring of the extras out, as Leve's code did (D-5).
    """
    image = item.image
    depth = np.zeros(image.shape[:2], np.float32) if item.depth is None else item.depth
    stored = (image.shape[1], image.shape[0])
    size = size or stored
    if augmentation.kind == "endoscope":
        image, depth, view = augment_view(image, depth, generator, settings=augmentation.settings(), size=size)
    elif augmentation.kind == "leve":
        image, depth, view = augment_leve(
            image,
            depth,
            generator,
            flip=augmentation.flip,
            swap=augmentation.swap,
            size=size,
            reproduce=augmentation.depth == "bilinear",
        )
    else:
        image, depth = _resized(image, depth, size)
        view = View(source=stored, window=(0, 0, *stored))
    maps = {
        name: view.apply(values, size=size if values.ndim == 2 else None, mirrored=mirror_extras)
        for name, values in extras.items()
    }
    if view.hidden is not None:
        # The picture no longer shows there what the map is about.
        for values in maps.values():
            if values.shape == view.hidden.shape:
                values[view.hidden] = np.nan
    return item.key, image, depth, maps


def _resized(image: ImageArray, depth: FloatArray, size: tuple[int, int]) -> tuple[ImageArray, FloatArray]:
    if depth.shape == (size[1], size[0]):
        return image, depth
    shrinks = image.shape[0] > size[1] or image.shape[1] > size[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # Nearest: a mean of two depths at a boundary is a surface that is not there.
    return (
        np.asarray(cv2.resize(image, size, interpolation=how), np.uint8),
        np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32),
    )
