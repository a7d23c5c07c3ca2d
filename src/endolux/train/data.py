"""The data side of training under one name: corpus, samples, their stream and the held-out batches."""

from __future__ import annotations

from endolux.train.batches import held_out_batches, stack
from endolux.train.corpus import Corpus, draw_held_out
from endolux.train.samples import Reader, Samples
from endolux.train.stream import Extras, Place, Position, Stream

__all__ = [
    "Corpus",
    "Extras",
    "Place",
    "Position",
    "Reader",
    "Samples",
    "Stream",
    "draw_held_out",
    "held_out_batches",
    "stack",
]
