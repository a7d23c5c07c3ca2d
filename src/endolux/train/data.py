"""Training samples from memory-mapped shards, read and augmented the same way for the same seed."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from endolux.errors import InputError
from endolux.train.augment import Augmentation, augment
from endolux.types import FloatArray, ImageArray


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """A folder of samples, memory-mapped.

    ``rgb.npy`` is uint8 N x H x W x 3, ``depth.npy`` float16 N x H x W (z in mm, 0 where unknown); ``meta.json`` holds
    ``width``, ``height`` and ``complete``, the number of samples that are written.

    Attributes:
        folder: where it lies.
        count: samples that are complete; a shard may still be growing.
    """

    folder: Path
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """``images`` uint8 B x H x W x 3 RGB; ``depths`` float32 B x H x W, z in millimetres, 0 where unknown."""

    images: npt.NDArray[np.uint8]
    depths: npt.NDArray[np.float32]


@dataclasses.dataclass(slots=True, kw_only=True)
class Position:
    """Where in the data a run is: all that a resumed run needs to go on with the same samples.

    Attributes:
        epoch: passes over the data that are complete.
        taken: samples of the present pass that are used up.
        counts: samples of each shard (by folder) in the present pass; empty before the first.
    """

    epoch: int = 0
    taken: int = 0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


def list_shards(roots: Sequence[Path]) -> tuple[Shard, ...]:
    """The shards at and directly below ``roots`` that hold a complete sample, sorted by path within each root.

    Raises:
        InputError: no sample anywhere, or a shard whose files do not fit together.
    """
    shards: list[Shard] = []
    for root in roots:
        for meta in sorted([*root.glob("meta.json"), *root.glob("*/meta.json")]):
            # A shard that is being written lies in a hidden folder until it is renamed.
            if meta.parent != root and meta.parent.name.startswith("."):
                continue
            shard = _read_shard(meta)
            if shard.count > 0:
                shards.append(shard)
    if not shards:
        raise InputError(
            f"No training samples under {', '.join(repr(str(root)) for root in roots)}",
            why="No folder there holds meta.json with 'complete' above 0 beside rgb.npy and depth.npy.",
            fix="Name the folder that holds the shards.",
            error_id="train.no-data",
        )
    return tuple(shards)


class Samples:
    """Random access to the samples of a fixed set of shards. Pages stay in the operating system's cache, not here.

    Raises:
        InputError: arrays of the wrong kind or of fewer samples than ``meta.json`` says.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._arrays = [_open_shard(shard) for shard in shards]
        self._ends = np.cumsum([shard.count for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[ImageArray, FloatArray]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        images, depths = self._arrays[shard]
        row = index - (int(self._ends[shard - 1]) if shard else 0)
        return np.ascontiguousarray(images[row]), depths[row].astype(np.float32)


class Stream:
    """Endless augmented batches; lists the shards anew whenever a pass over them ends.

    The order of samples depends on (seed, pass), the augmentation on (seed, step, place in the batch), so that a run
    gives the same batches whether it was interrupted or not and whatever ``workers`` is.

    Args:
        roots: folders with shards.
        batch: samples a batch.
        seed: of order and augmentation.
        augmentation: settings, or None for the samples as they are.
        size: (width, height) of the batch; the stored size by default.
        workers: threads that prepare batches ahead (OpenCV leaves the interpreter's lock); 0 prepares them inline.
        position: where to go on.

    Raises:
        InputError: see :func:`list_shards` and :class:`Samples`.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        batch: int,
        seed: int,
        augmentation: Augmentation | None,
        size: tuple[int, int] | None = None,
        workers: int = 0,
        position: Position | None = None,
    ) -> None:
        self._roots = tuple(roots)
        self._batch, self._seed, self._workers = batch, seed, workers
        self._augmentation, self._size = augmentation, size
        self._start = position or Position()
        # Refuses unusable data before a network is built.
        list_shards(self._roots)

    def batches(self, *, first_step: int = 0) -> Iterator[tuple[Batch, Position]]:
        """Batches from ``first_step`` on, each with the position after it."""
        if self._workers == 0:
            for step, (samples, indices, position) in enumerate(self._indices(), first_step):
                yield self._prepare(samples, indices, step), position
            return
        with ThreadPoolExecutor(self._workers, thread_name_prefix="batch") as pool:
            ahead: collections.deque[tuple[Future[Batch], Position]] = collections.deque()
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
        while True:
            shards = list_shards(self._roots)
            if counts:
                # A pass that was begun goes on with the samples it began with, even if the shards have grown since.
                shards = _as_counted(shards, counts)
            samples = Samples(shards)
            counts = {str(shard.folder): shard.count for shard in shards}
            order = np.random.default_rng((self._seed, epoch)).permutation(len(samples))
            if len(order) < self._batch:
                order = np.resize(order, self._batch)
            while taken + self._batch <= len(order):
                indices = order[taken : taken + self._batch]
                taken += self._batch
                yield samples, indices, Position(epoch=epoch, taken=taken, counts=counts)
            epoch, taken, counts = epoch + 1, 0, {}

    def _prepare(self, samples: Samples, indices: npt.NDArray[np.int64], step: int) -> Batch:
        images, depths = [], []
        for place, index in enumerate(indices):
            image, depth = samples[int(index)]
            if self._augmentation is not None:
                generator = np.random.default_rng((self._seed, step, place))
                image, depth = augment(image, depth, generator, settings=self._augmentation, size=self._size)
            images.append(image)
            depths.append(depth)
        return Batch(images=np.stack(images), depths=np.stack(depths))


def _read_shard(meta: Path) -> Shard:
    try:
        fields = json.loads(meta.read_text(encoding="utf-8"))
        count = fields["complete"]
        if not isinstance(count, int):
            raise TypeError(f"'complete' is {count!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"Cannot read '{meta}'",
            why=f"{type(error).__name__}: {error}.",
            fix='It must be JSON with {"width", "height", "complete"}, replaced atomically while a shard grows.',
            error_id="train.shard",
        ) from error
    return Shard(meta.parent, count)


def _open_shard(shard: Shard) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    try:
        images = np.load(shard.folder / "rgb.npy", mmap_mode="r", allow_pickle=False)
        depths = np.load(shard.folder / "depth.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot open the arrays of '{shard.folder}'",
            why=str(error),
            fix="Render the shard again or remove it.",
            error_id="train.shard",
        ) from error
    fits = (
        images.dtype == np.uint8
        and depths.dtype == np.float16
        and images.ndim == 4
        and images.shape[3] == 3
        and images.shape[:3] == depths.shape
        and len(images) >= shard.count
    )
    if not fits:
        raise InputError(
            f"The arrays of '{shard.folder}' do not fit: rgb {images.shape} {images.dtype}, "
            f"depth {depths.shape} {depths.dtype}, {shard.count} complete",
            why="Wanted: rgb uint8 N x H x W x 3, depth float16 N x H x W, N at least 'complete'.",
            fix="Render the shard again or remove it.",
            error_id="train.shard",
        )
    return images, depths


def _as_counted(shards: Sequence[Shard], counts: dict[str, int]) -> tuple[Shard, ...]:
    found = {str(shard.folder): shard.count for shard in shards}
    for folder, count in counts.items():
        if found.get(folder, 0) < count:
            raise InputError(
                f"'{folder}' has {found.get(folder, 0)} samples; the interrupted run was using {count}",
                why="Resuming needs the samples that the run began its present pass with.",
                fix="Put the shard back, or start a new run.",
                error_id="train.data-changed",
            )
    return tuple(Shard(Path(folder), count) for folder, count in counts.items())
