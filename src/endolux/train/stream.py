"""Training samples in an order that can be continued exactly, cut into batches for every process."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from endolux.train.batches import stack
from endolux.train.corpus import Corpus
from endolux.train.samples import Reader, Samples
from endolux.train.views import Row, augmented

if TYPE_CHECKING:
    from endolux.train.task import Batch
    from endolux.train.views import Augmentation
    from endolux.types import FloatArray, ImageArray

Extras = Callable[["ImageArray", str], "Mapping[str, FloatArray]"]


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """Where in the data a run is: all that a resumed run needs to go on with the same samples.

    Attributes:
        epoch: passes over the data that are complete.
        taken: samples of the present pass that are used up, over all processes.
        counts: samples of each clip (by name) in the present pass; empty before the first.
    """

    epoch: int = 0
    taken: int = 0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def ends(self, batch: int) -> bool:
        """Whether the pass has no room for another ``batch``."""
        return self.taken + batch > max(batch, sum(self.counts.values()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This process among those that share a batch.

    Attributes:
        rank, world: number of this process, and of all.
        micro: forward passes a step.
    """

    rank: int = 0
    world: int = 1
    micro: int = 1


class Stream:
    """Endless augmented batches; lists the sources anew whenever a pass over them ends.

    The order of samples depends on (seed, pass), the augmentation on (seed, step, place in the batch of all
    processes), so that a run gives the same batches whether it was interrupted or not, whatever ``workers`` is, and
    two processes of ``batch`` together see what one of twice the batch sees.

    Args:
        corpus: opened sources.
        batch: samples a forward pass of one process.
        seed: of order and augmentation.
        augmentation: section of a recipe.
        size: (width, height) of the batch; the stored size by default.
        place: this process among others.
        workers: threads that prepare batches ahead (OpenCV leaves the interpreter's lock); 0 prepares them inline.
        position: where to go on.
        reader: loads and counts; without one, no sample may be unreadable.
        extras: maps that belong to the un-augmented image, see :meth:`endolux.train.task.Task.extras`.
        mirror_extras: whether they are mirrored with it.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        batch: int,
        seed: int,
        augmentation: Augmentation,
        size: tuple[int, int] | None = None,
        place: Place | None = None,
        workers: int = 0,
        position: Position | None = None,
        reader: Reader | None = None,
        extras: Extras | None = None,
        mirror_extras: bool = True,
    ) -> None:
        self._corpus, self._seed, self._workers = corpus, seed, workers
        self._batch, self._place = batch, place or Place()
        self._augmentation, self._size = augmentation, size
        self._extras, self._mirror_extras = extras, mirror_extras
        self._start = position or Position()
        self._reader = reader or Reader(limit=0, needs_depth=True)
        # Refuses unusable data before a network is built.
        self._corpus.clips()

    @property
    def step_samples(self) -> int:
        """Samples that all processes together use in one step."""
        return self._batch * self._place.world * self._place.micro

    def steps_per_epoch(self) -> int:
        """Steps of one pass over what is there now."""
        return max(1, sum(clip.count for clip in self._corpus.clips()) // self.step_samples)

    def batches(self, *, first_step: int = 0) -> Iterator[tuple[tuple[Batch, ...], Position]]:
        """What this process trains on in each step from ``first_step`` on, with the position after it."""
        if self._workers == 0:
            for step, (samples, indices, position) in enumerate(self._indices(), first_step):
                yield self._prepare(samples, indices, step), position
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            ahead: collections.deque[tuple[Future[tuple[Batch, ...]], Position]] = collections.deque()
            try:
                for step, (samples, indices, position) in enumerate(self._indices(), first_step):
                    ahead.append((pool.submit(self._prepare, samples, indices, step), position))
                    if len(ahead) > self._workers + 1:
                        future, reached = ahead.popleft()
                        yield future.result(), reached
            finally:
                for future, _ in ahead:
                    future.cancel()

    def _indices(self) -> Iterator[tuple[Samples, npt.NDArray[np.int64], Position]]:
        epoch, taken, counts = self._start.epoch, self._start.taken, dict(self._start.counts)
        total = self.step_samples
        while True:
            # A pass that was begun goes on with the samples it began with, even if more have come since.
            clips = self._corpus.as_counted(counts) if counts else self._corpus.clips()
            samples = Samples(clips)
            counts = {clip.name: clip.count for clip in clips}
            order = np.random.default_rng((self._seed, epoch)).permutation(len(samples))
            if len(order) < total:
                order = np.resize(order, total)
            while taken + total <= len(order):
                indices = order[taken : taken + total]
                taken += total
                yield samples, indices, Position(epoch=epoch, taken=taken, counts=counts)
            epoch, taken, counts = epoch + 1, 0, {}

    def _prepare(self, samples: Samples, indices: npt.NDArray[np.int64], step: int) -> tuple[Batch, ...]:
        micro = []
        for number in range(self._place.micro):
            first = (number * self._place.world + self._place.rank) * self._batch
            places = range(first, first + self._batch)
            rows = [self._sample(samples, int(indices[place]), (self._seed, step, place)) for place in places]
            micro.append(stack(rows))
        return tuple(micro)

    def _sample(self, samples: Samples, index: int, seed: tuple[int, int, int]) -> Row:
        item = self._reader.load(samples, index)
        return augmented(
            item,
            {} if self._extras is None else self._extras(item.image, item.key),
            np.random.default_rng(seed),
            augmentation=self._augmentation,
            size=self._size,
            mirror_extras=self._mirror_extras,
        )
