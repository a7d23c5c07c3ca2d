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

from endolux.datasets import Dataset, FrameKey, Sample, names, open_dataset
from endolux.datasets.l3d import L3dDataset
from endolux.errors import EndoluxError, InputError
from endolux.train.footage import FOOTAGE, read_footage
from endolux.types import Camera, DepthKind, FloatArray, ImageArray

SHARDS = "shards"
_EDGE = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Snippet:
    """What surrounds a picture in time.

    Attributes:
        images: the neighbours, of the picture's size.
        matrix: 3 x 3 intrinsics in pixels of the picture.
        motions: F x 4 x 4, points in the picture's camera to points in each neighbour's, in mm; None if not known.
        mirrored: whether the intrinsics are mirrored with the pictures.
    """

    images: tuple[ImageArray, ...]
    matrix: npt.NDArray[np.float64]
    motions: npt.NDArray[np.float32] | None
    mirrored: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """What is drawn on a picture.

    Attributes:
        landmarks: H x W uint8, class numbers.
        inverse_depth: H x W float32 in (0, 1], relative, NaN where unknown; None where there is none.
    """

    landmarks: npt.NDArray[np.uint8]
    inverse_depth: FloatArray | None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One sample as stored.

    Attributes:
        key: stable name, the same on every machine.
        image: H x W x 3 uint8, RGB.
        depth: H x W float32, z in mm (any unit where the data are relative), 0 where unknown; None where there is none.
        camera: intrinsics of ``image``, if known.
        pose: 4 x 4 camera-to-world in mm, if known.
        snippet: its neighbours, in a training that asks for them (:mod:`endolux.train.snippets`).
        labels: landmarks, where the data set has them.
    """

    key: str
    image: ImageArray
    depth: FloatArray | None
    camera: Camera | None = None
    pose: npt.NDArray[np.float64] | None = None
    snippet: Snippet | None = None
    labels: Labels | None = None


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
        link: the number of the sample so many frames after (before, if negative) sample ``i`` in the same shot, None
            where there is none; None for single views.
        view: reads sample number ``i``, perhaps without its depth, where that is cheaper; ``load`` by default.
    """

    name: str
    label: str
    count: int
    key: Callable[[int], str]
    load: Callable[[int], Item]
    fingerprint: Callable[[], str]
    link: Callable[[int, int], int | None] | None = None
    view: Callable[[int], Item] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """A folder of samples, memory-mapped.

    ``rgb.npy`` is uint8 N x H x W x 3, ``depth.npy`` float16 N x H x W (z in mm, 0 where unknown); ``meta.json`` holds
    ``width``, ``height`` and ``complete``, the number of samples that are written. Shards of video also have
    ``sequence.npy`` (int N: samples of one number are consecutive frames of one shot), and may have ``pose.npy``
    (N x 4 x 4 camera-to-world in mm) and ``camera.npy`` (N x 4: fx, fy, cx, cy in pixels, NaN where not known).

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
        shots, poses, cameras = (_open_track(self, name, shape) for name, shape in _TRACKS.items())
        size = images.shape[2], images.shape[1]

        def key(index: int) -> str:
            return f"{label}/{index}"

        def load(index: int) -> Item:
            return Item(
                key(index),
                np.ascontiguousarray(images[index]),
                depths[index].astype(np.float32),
                None if cameras is None else _camera(cameras[index], size),
                None if poses is None else np.asarray(poses[index], np.float64),
            )

        def link(index: int, offset: int) -> int | None:
            other = index + offset
            if shots is None or not 0 <= other < self.count or shots[other] != shots[index]:
                return None
            return other

        return Clip(
            str(self.folder),
            label,
            self.count,
            key,
            load,
            lambda: _shard_fingerprint(self),
            None if shots is None else link,
        )


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

        places = {key: number for number, key in enumerate(keys)}

        def link(index: int, offset: int) -> int | None:
            other = self._dataset.neighbours(keys[index], (offset,))[0]
            return None if other is None else places.get(other)

        return Clip(
            label,
            label,
            len(keys),
            key,
            lambda index: _dataset_item(self._dataset, keys[index]),
            fingerprint,
            link if len(keys) > 1 else None,
            lambda index: _dataset_item(self._dataset, keys[index], self._dataset.view(keys[index])),
        )


class FootageSource:
    """A video, or the frames of one in a folder: pictures in their order, without depth."""

    def __init__(self, kind: str, path: str) -> None:
        footage = read_footage(kind, path)
        label = f"{kind}:{footage.name}"

        def key(index: int) -> str:
            return f"{label} {index}"

        def load(index: int) -> Item:
            return Item(key(index), footage.frame(index), None)

        def link(index: int, offset: int) -> int | None:
            return index + offset if 0 <= index + offset < footage.count else None

        self._clip = Clip(f"{kind}:{path}", label, footage.count, key, load, footage.fingerprint, link)

    def clips(self) -> list[Clip]:
        """One."""
        return [self._clip]

    def reopened(self, name: str, count: int) -> Clip | None:
        """The clip, if it is as long as it was."""
        return self._clip if (self._clip.name, self._clip.count) == (name, count) else None


Source = ShardSource | DatasetSource | FootageSource


def open_source(text: str) -> Source:
    """Open what a recipe calls a source.

    Args:
        text: ``READER:PATH`` (``scared:/data/scared``, ``auto:PATH``), ``shards:PATH``, ``video:FILE`` or
            ``frames:FOLDER`` for pictures without depth, or just a path: shards if there are any, otherwise whatever
            data set its files look like.

    Raises:
        UsageError: ``dataset.name`` for an unknown reader, with the nearest name.
        InputError: ``train.no-data`` for an empty folder; what the reader raises.
    """
    name, colon, rest = text.partition(":")
    if colon and name == SHARDS:
        return _shards(Path(rest))
    if colon and name in FOOTAGE:
        return FootageSource(name, rest)
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


_TRACKS = {"sequence": (), "pose": (4, 4), "camera": (4,)}
"""Files of a shard of video, and the shape of each sample's entry."""


def _open_track(shard: Shard, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic] | None:
    path = shard.folder / f"{name}.npy"
    if not path.is_file():
        return None
    try:
        track: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Cannot open '{path}'", why=str(error), fix="Render the shard again or remove it.", error_id="train.shard"
        ) from error
    if track.shape[1:] != shape or len(track) < shard.count or track.dtype.kind not in "iuf":
        raise InputError(
            f"'{path}' holds {track.shape} {track.dtype} for {shard.count} samples",
            why=f"Wanted: one entry of shape {shape} for every sample.",
            fix="Render the shard again or remove it.",
            error_id="train.shard",
        )
    return track


def _camera(entry: npt.NDArray[np.generic], size: tuple[int, int]) -> Camera | None:
    fx, fy, cx, cy = (float(value) for value in np.asarray(entry, np.float64))
    return None if np.isnan(fx) else Camera(width=size[0], height=size[1], fx=fx, fy=fy, cx=cx, cy=cy)


def _shard_fingerprint(shard: Shard) -> str:
    digest = hashlib.sha256(f"{shard.folder.resolve().name} {shard.count}".encode())
    for name in ("rgb.npy", "depth.npy", *(f"{track}.npy" for track in _TRACKS)):
        path = shard.folder / name
        if not path.exists():
            continue
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            digest.update(file.read())
    return digest.hexdigest()


def _dataset_item(dataset: Dataset, key: FrameKey, sample: Sample | None = None) -> Item:
    sample = sample or dataset.load(key)
    image, name = sample.frame.image, f"{dataset.name}:{key}"
    if sample.depth is None:
        return Item(name, image, None, sample.frame.camera, sample.pose, labels=_labels(dataset, key, sample))
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
    return Item(name, image, depth, sample.frame.camera, sample.pose)


def _labels(dataset: Dataset, key: FrameKey, sample: Sample) -> Labels | None:
    landmarks = (sample.labels or {}).get("landmarks")
    if landmarks is None:
        return None
    depth = dataset.pseudo_depth(key) if isinstance(dataset, L3dDataset) else None
    if depth is None or depth.shape != landmarks.shape:
        return Labels(landmarks=np.asarray(landmarks, np.uint8), inverse_depth=None)
    inverse = np.where(depth > 0, depth / np.float32(255), np.float32(np.nan)).astype(np.float32)
    return Labels(landmarks=np.asarray(landmarks, np.uint8), inverse_depth=inverse)
