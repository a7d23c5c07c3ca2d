"""Samples by number, and the reader that replaces unreadable ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from endolux.errors import InputError
from endolux.train.sources import Clip, Item

_NAMED = 5


class Samples:
    """Random access to the samples of a fixed list of clips."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = tuple(clips)
        self._ends = np.cumsum([clip.count for clip in clips])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Item:
        clip, row = self._place(index)
        return clip.load(row)

    def key(self, index: int) -> str:
        """Stable name of a sample."""
        clip, row = self._place(index)
        return clip.key(row)

    def _place(self, index: int) -> tuple[Clip, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._clips[number], index - (int(self._ends[number - 1]) if number else 0)


class Reader:
    """Loads samples and replaces unreadable ones, each counted and named once.

    Attributes:
        unreadable: key of each sample that could not be read, with the reason.
    """

    def __init__(
        self,
        *,
        limit: int,
        needs_depth: bool,
        needs_labels: bool = False,
        on_unreadable: Callable[[str, str], None] | None = None,
    ) -> None:
        self.unreadable: dict[str, str] = {}
        self._limit, self._needs_depth, self._tell = limit, needs_depth, on_unreadable
        self._needs_labels = needs_labels
        self._lock = threading.Lock()

    def load(self, samples: Samples, index: int) -> Item:
        """Sample ``index``, or the next one that can be read.

        Raises:
            InputError: ``train.unreadable`` beyond the limit.
        """
        for step in range(len(samples)):
            place = (index + step) % len(samples)
            try:
                item = samples[place]
                lacks = "depth" if item.depth is None and self._needs_depth else ""
                lacks = lacks or ("landmarks" if item.labels is None and self._needs_labels else "")
                if not lacks:
                    return item
                self._count(item.key, f"it has no {lacks}", None)
            except InputError as error:
                if error.error_id == "train.disparity":
                    raise
                self._count(samples.key(place), error.what, error)
        raise self._too_many(None)

    def _count(self, name: str, why: str, error: InputError | None) -> None:
        with self._lock:
            new = name not in self.unreadable
            self.unreadable[name] = why
            too_many = len(self.unreadable) > self._limit
        if too_many:
            raise self._too_many(error) from error
        if new and self._tell is not None:
            self._tell(name, why)

    def _too_many(self, error: InputError | None) -> InputError:
        listed = "; ".join(f"{name}: {why}" for name, why in list(self.unreadable.items())[:_NAMED])
        return InputError(
            f"{len(self.unreadable)} samples cannot be used: {listed}",
            why=f"The recipe allows {self._limit} (data.unreadable_limit)." + (f" {error.why}" if error else ""),
            fix="Repair or remove them, or raise data.unreadable_limit to train without them.",
            error_id="train.unreadable",
        )
