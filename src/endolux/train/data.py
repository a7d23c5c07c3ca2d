"""Training samples in an order that can be continued exactly, cut into batches for every process."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.train.sources import Clip, Item, Source, open_source
from endolux.train.views import Row, augmented

if TYPE_CHECKING:
    from endolux.train.recipe import EndoscopeAugmentation, LeveAugmentation, NoAugmentation
    from endolux.train.task import Batch
    from endolux.types import FloatArray, ImageArray

Extras = Callable[["ImageArray", str], "Mapping[str, FloatArray]"]
_NAMED = 5


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


class Corpus:
    """The opened sources, and what of them is held out.

    Args:
        sources: see :func:`endolux.train.sources.open_source`.
        held_out: names of the clips that are kept out of the training.

    Raises:
        InputError, UsageError: see there; ``train.no-data`` without any source.
    """

    def __init__(self, sources: Sequence[str], *, held_out: Collection[str] = ()) -> None:
        if not sources:
            raise InputError(
                "No training data",
                why="Neither the command nor the recipe names any.",
                fix="Add --data FOLDER, or READER:PATH for a data set.",
                error_id="train.no-data",
            )
        self._sources: list[Source] = [open_source(source) for source in sources]
        self.held_out = frozenset(held_out)

    def clips(self) -> list[Clip]:
        """What is there now, without what is held out."""
        found = [clip for source in self._sources for clip in source.clips() if clip.name not in self.held_out]
        if not found:
            raise InputError(
                "Nothing is left to train on",
                why="Every sequence is held out for validation.",
                fix="Hold out a smaller share (data.validation.fraction), or give more data.",
                error_id="train.no-data",
            )
        return found

    def kept(self) -> list[Clip]:
        """What is held out."""
        return [clip for source in self._sources for clip in source.clips() if clip.name in self.held_out]

    def as_counted(self, counts: Mapping[str, int]) -> list[Clip]:
        """The clips that a pass began with, even if more samples have come since.

        Raises:
            InputError: ``train.data-changed`` where some are no longer there.
        """
        clips = []
        for name, count in counts.items():
            clip = next((c for source in self._sources if (c := source.reopened(name, count)) is not None), None)
            if clip is None:
                raise InputError(
                    f"'{name}' no longer has the {count} samples that the interrupted run was using",
                    why="Resuming needs the samples that the run began its present pass with.",
                    fix="Put the data back, or start a new run.",
                    error_id="train.data-changed",
                )
            clips.append(clip)
        return clips

    def sha256(self) -> str:
        """Hash over names, sizes and the ends of the files of every clip; not over all their bytes."""
        lines = sorted(f"{clip.label}\t{clip.count}\t{clip.fingerprint()}" for clip in self.clips() + self.kept())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def draw_held_out(sources: Sequence[str], fraction: float) -> tuple[str, ...]:
    """Names of the clips to keep for validation: whole ones, at least one, the same for the same names.

    Raises:
        InputError: ``train.hold-out`` for fewer than two clips.
    """
    if fraction <= 0:
        return ()
    clips = Corpus(sources).clips()
    if len(clips) < 2:
        raise InputError(
            f"One sequence cannot be parted into training and validation: '{clips[0].label}'",
            why="Neighbouring frames are alike, so whole sequences are held out.",
            fix="Give data.validation.sources, or set data.validation.fraction to 0.",
            error_id="train.hold-out",
        )
    order = sorted(clips, key=lambda clip: (hashlib.sha256(clip.label.encode()).digest(), clip.name))
    return tuple(clip.name for clip in order[: min(len(clips) - 1, max(1, round(fraction * len(clips))))])


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
        self, *, limit: int, needs_depth: bool, on_unreadable: Callable[[str, str], None] | None = None
    ) -> None:
        self.unreadable: dict[str, str] = {}
        self._limit, self._needs_depth, self._tell = limit, needs_depth, on_unreadable
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
                if item.depth is not None or not self._needs_depth:
                    return item
                self._count(item.key, "it has no depth", None)
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
        augmentation: EndoscopeAugmentation | LeveAugmentation | NoAugmentation,
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
