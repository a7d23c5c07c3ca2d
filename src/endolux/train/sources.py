"""Where samples come from: folders of shards, and any data set that has a reader."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets import Dataset, FrameKey, names, open_dataset
from endolux.errors import EndoluxError, InputError
from endolux.types import DepthKind, FloatArray, ImageArray

SHARDS = "shards"
_EDGE = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One sample as stored.

    Attributes:
        key: stable name, the same on every machine.
        image: H x W x 3 uint8, RGB.
        depth: H x W float32, z in mm (any unit where the data are relative), 0 where unknown; None where there is none.
    """

    key: str
    image: ImageArray
    depth: FloatArray | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Samples that belong together (a shard, a sequence): they are held out together.

    Attributes:
        name: identity in checkpoints.
        label: name without the place on disk; the draw of what is held out depends on it.
        count: samples.
        key: stable name of sample number ``i``, the same on every machine.
        load: reads sample number ``i``. Raises InputError where it cannot be read.
        fingerprint: of the contents, cheap: names, sizes, ends of the files.
    """

    name: str
    label: str
    count: int
    key: Callable[[int], str]
    load: Callable[[int], Item]
    fingerprint: Callable[[], str]


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

    def clip(self) -> Clip:
        """Its samples. The arrays are opened here and stay in the operating system's cache, not in memory.

        Raises:
            InputError: ``train.shard`` for arrays of the wrong kind or of fewer samples than ``meta.json`` says.
        """
        images, depths = _open_shard(self)
        label = self.folder.resolve().name

        def key(index: int) -> str:
            return f"{label}/{index}"

        def load(index: int) -> Item:
            return Item(key(index), np.ascontiguousarray(images[index]), depths[index].astype(np.float32))

        return Clip(str(self.folder), label, self.count, key, load, lambda: _shard_fingerprint(self))


class ShardSource:
    """Shards at and directly below a folder; listed anew whenever they are asked for, so they may grow."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[Shard, Clip] = {}

    def clips(self) -> list[Clip]:
        """The complete samples, by path."""
        found = list_shards([self._root])
        self._open = {shard: self._open.get(shard) or shard.clip() for shard in found}
        return list(self._open.values())

    def reopened(self, name: str, count: int) -> Clip | None:
        """A shard with the number of samples that it had before."""
        now = {str(shard.folder): shard.count for shard in list_shards([self._root])}
        return Shard(Path(name), count).clip() if now.get(name, 0) >= count else None


class DatasetSource:
    """Sequences of a data set, decoded when they are needed."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        sequences: dict[str, list[FrameKey]] = {}
        for key in dataset.keys():  # noqa: SIM118 -- a method, not a dictionary
            sequences.setdefault(f"{key.sequence}{' ' + key.side if key.side else ''}", []).append(key)
        self._clips = [self._clip(sequence, keys) for sequence, keys in sequences.items()]

    def clips(self) -> list[Clip]:
        """One a sequence and side."""
        return self._clips

    def reopened(self, name: str, count: int) -> Clip | None:
        """The sequence, if it is as long as it was."""
        return next((clip for clip in self._clips if clip.name == name and clip.count == count), None)

    def _clip(self, sequence: str, keys: Sequence[FrameKey]) -> Clip:
        label = f"{self._dataset.name}:{sequence}"

        def fingerprint() -> str:
            text = "\n".join(
                f"{key}\t{' '.join(str(path.stat().st_size) for path in self._dataset.files(key) if path.is_file())}"
                for key in keys
            )
            return hashlib.sha256(f"{label}\n{text}".encode()).hexdigest()

        def key(index: int) -> str:
            return f"{self._dataset.name}:{keys[index]}"

        return Clip(label, label, len(keys), key, lambda index: _dataset_item(self._dataset, keys[index]), fingerprint)


Source = ShardSource | DatasetSource


def open_source(text: str) -> Source:
    """Open what a recipe calls a source.

    Args:
        text: ``READER:PATH`` (``scared:/data/scared``, ``auto:PATH``), ``shards:PATH``, or just a path: shards if
            there are any, otherwise whatever data set its files look like.

    Raises:
        UsageError: ``dataset.name`` for an unknown reader, with the nearest name.
        InputError: ``train.no-data`` for an empty folder; what the reader raises.
    """
    name, colon, rest = text.partition(":")
    if colon and name == SHARDS:
        return _shards(Path(rest))
    # A single letter is a drive, and a path that exists may contain a colon.
    if colon and len(name) > 1 and (name in (*names(), "auto") or not Path(text).exists()):
        return _dataset(name, rest)
    path = Path(text)
    try:
        return _shards(path)
    except InputError as empty:
        if empty.error_id != "train.no-data" or not path.is_dir():
            raise
        try:
            return _dataset("auto", text)
        except EndoluxError:
            raise empty from None


def _shards(root: Path) -> ShardSource:
    list_shards([root])
    return ShardSource(root)


def _dataset(name: str, path: str) -> DatasetSource:
    dataset = open_dataset(name, path)
    if len(dataset.keys()) == 0:
        raise InputError(
            f"The data set '{dataset.name}' in '{path}' has no frames",
            why="Its reader finds none of the files that it knows.",
            fix="Run 'endolux data check' on the folder.",
            error_id="train.no-data",
        )
    return DatasetSource(dataset)


def list_shards(roots: Sequence[Path]) -> tuple[Shard, ...]:
    """The shards at and directly below ``roots`` that hold a complete sample, sorted by path within each root.

    Raises:
        InputError: no sample anywhere, or a shard whose ``meta.json`` is damaged.
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
            why="No folder there holds meta.json with 'complete' above 0 beside rgb.npy and depth.npy, "
            "and it is no data set that a reader knows.",
            fix="Name the folder that holds the shards, or READER:PATH for a data set ('endolux data ls').",
            error_id="train.no-data",
        )
    return tuple(shards)


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


def _shard_fingerprint(shard: Shard) -> str:
    digest = hashlib.sha256(f"{shard.folder.resolve().name} {shard.count}".encode())
    for name in ("rgb.npy", "depth.npy"):
        path = shard.folder / name
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            digest.update(file.read())
    return digest.hexdigest()


def _dataset_item(dataset: Dataset, key: FrameKey) -> Item:
    sample = dataset.load(key)
    image, name = sample.frame.image, f"{dataset.name}:{key}"
    if sample.depth is None:
        return Item(name, image, None)
    if sample.depth.kind is DepthKind.RELATIVE_DISPARITY:
        raise InputError(
            f"'{name}' has disparity, not depth",
            why="Nothing turns disparity of unknown scale and shift into depth.",
            fix="Train on data with depth.",
            error_id="train.disparity",
        )
    values, valid = sample.depth.values, sample.depth.valid
    depth = np.where(valid & np.isfinite(values) & (values > 0), values, np.float32(0)).astype(np.float32)
    if depth.shape != image.shape[:2]:
        # Nearest: a mean of two depths at a boundary is a surface that is not there.
        depth = cv2.resize(depth, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
    if sample.frame.valid is not None:
        depth = np.where(sample.frame.valid, depth, np.float32(0))
    return Item(name, image, depth)
