"""From a stored sample to the view of it that a batch holds, by the recipe's augmentation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from endolux.train.augment import augment_leve, augment_view
from endolux.train.augment_landmarks import labels_in_view, turned
from endolux.train.augment_video import augment_video
from endolux.train.sources import Item, Snippet
from endolux.train.viewport import View
from endolux.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from endolux.train.recipe import EndoscopeAugmentation, LeveAugmentation, NoAugmentation, VideoAugmentation
    from endolux.train.recipe_data import LandmarkAugmentation

    Augmentation = EndoscopeAugmentation | LeveAugmentation | VideoAugmentation | LandmarkAugmentation | NoAugmentation

Row = tuple[str, ImageArray, FloatArray, dict[str, npt.NDArray[np.generic]]]
"""Key, image, depth (0 where unknown) and extras of one view."""


def augmented(
    item: Item,
    extras: Mapping[str, FloatArray],
    generator: np.random.Generator,
    *,
    augmentation: Augmentation,
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
    if augmentation.kind == "landmarks":
        item = turned(item, generator, augmentation)
        augmentation = augmentation.effects or _plain()
    stored = (item.image.shape[1], item.image.shape[0])
    size = size or stored
    start = None if item.snippet is None else copy.deepcopy(generator)
    image, depth, view = _seen(item.image, item.depth, generator, augmentation, size)
    maps: dict[str, npt.NDArray[np.generic]] = {
        name: view.apply(values, size=size if values.ndim == 2 else None, mirrored=mirror_extras)
        for name, values in extras.items()
    }
    if view.hidden is not None:
        # The picture no longer shows there what the map is about.
        for values in maps.values():
            if values.shape == view.hidden.shape:
                values[view.hidden] = np.nan
    if item.labels is not None:
        maps |= labels_in_view(item.labels, view, size)
    if item.snippet is not None and start is not None:
        maps |= _snippet(item.image, item.snippet, view, start, augmentation, size)
    return item.key, image, depth, maps


def _seen(
    image: ImageArray,
    depth: FloatArray | None,
    generator: np.random.Generator,
    augmentation: Augmentation,
    size: tuple[int, int],
) -> tuple[ImageArray, FloatArray, View]:
    if depth is None:
        depth = np.zeros(image.shape[:2], np.float32)
    if augmentation.kind == "endoscope":
        return augment_view(image, depth, generator, settings=augmentation.settings(), size=size)
    if augmentation.kind == "leve":
        return augment_leve(
            image,
            depth,
            generator,
            flip=augmentation.flip,
            swap=augmentation.swap,
            size=size,
            reproduce=augmentation.depth == "bilinear",
        )
    if augmentation.kind == "video":
        return augment_video(image, depth, generator, augmentation, size=size)
    view = View(source=(image.shape[1], image.shape[0]), window=(0, 0, image.shape[1], image.shape[0]))
    image, depth = _resized(image, depth, size)
    return image, depth, view


def _snippet(
    image: ImageArray,
    snippet: Snippet,
    view: View,
    start: np.random.Generator,
    augmentation: Augmentation,
    size: tuple[int, int],
) -> dict[str, npt.NDArray[np.generic]]:
    """The neighbours as the networks see them and, like the picture itself, without any change of their colours."""
    seen = []
    for number, other in enumerate(snippet.images, 1):
        # The same random numbers give the same crop, colours and dirt on the lens in all frames.
        generator = copy.deepcopy(start)
        if augmentation.kind == "video":
            seen.append(augment_video(other, None, generator, augmentation, size=size, frame=number)[0])
        else:
            seen.append(_seen(other, None, generator, augmentation, size)[0])
    maps: dict[str, npt.NDArray[np.generic]] = {
        "target": view.picture(image, size=size),
        "neighbours": np.stack([view.picture(other, size=size) for other in snippet.images]),
        "neighbours_seen": np.stack(seen),
        "intrinsics": view.matrix(snippet.matrix, size=size, mirrored=snippet.mirrored).astype(np.float32),
    }
    unknown = np.full((len(snippet.images), 4, 4), np.nan, np.float32)
    # Of a mirrored world the motions are others; they are asked for in validation, where nothing is mirrored.
    known = snippet.motions is not None and not (view.horizontal or view.vertical)
    maps["motions"] = snippet.motions if known and snippet.motions is not None else unknown
    return maps


def _plain() -> NoAugmentation:
    from endolux.train.recipe_data import NoAugmentation

    return NoAugmentation()


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
