"""Samples stacked to batches, also those that are held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from endolux.errors import InputError
from endolux.train.samples import Reader, Samples
from endolux.train.sources import Clip
from endolux.train.views import Row, augmented

if TYPE_CHECKING:
    from endolux.train.task import Batch


def stack(rows: Sequence[Row]) -> Batch:
    """Samples to a batch.

    Raises:
        InputError: ``train.size`` where their sizes differ.
    """
    from endolux.train.task import Batch

    sizes = sorted({(image.shape[1], image.shape[0]) for _, image, _, _ in rows})
    if len(sizes) > 1:
        raise InputError(
            f"The training pictures have several sizes: {', '.join(f'{w}x{h}' for w, h in sizes)}",
            why="The pictures of a batch must have one size.",
            fix="Give a size, such as data.size=320x256.",
            error_id="train.size",
        )
    return Batch(
        images=np.stack([image for _, image, _, _ in rows]),
        depths=np.stack([depth for _, _, depth, _ in rows]),
        extras={name: np.stack([extras[name] for _, _, _, extras in rows]) for name in rows[0][3]},
        keys=tuple(key for key, _, _, _ in rows),
    )


def held_out_batches(
    clips: Sequence[Clip], *, batch: int, size: tuple[int, int] | None, limit: int | None, reader: Reader
) -> Iterator[Batch]:
    """Held-out samples in a fixed order, resized, the last batch as small as it comes.

    Args:
        clips: what is held out.
        batch: samples a batch.
        size: (width, height).
        limit: so many samples at most, evenly spread.
        reader: loads and counts.
    """
    from endolux.train.recipe import NoAugmentation

    samples = Samples(clips)
    count = min(len(samples), limit or len(samples))
    chosen = [number * len(samples) // count for number in range(count)]
    for first in range(0, count, batch):
        rows = [
            augmented(
                reader.load(samples, index), {}, np.random.default_rng(0), augmentation=NoAugmentation(), size=size
            )
            for index in chosen[first : first + batch]
        ]
        yield stack(rows)
