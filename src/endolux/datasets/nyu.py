"""NYU Depth V2: the reduced archive of DenseDepth, the Eigen test arrays, and one archive a sample.

Sources: Silberman et al. 2012 (data); Eigen et al. 2014 (the 654 test images). Depth leaves this reader in millimetres;
protocols state metres. Three layouts are read, from a folder or from the zip archive itself:

* ``data/nyu2_train.csv`` and ``data/nyu2_test.csv``: image and depth path a line, relative to the folder. Depth of the
  training part is an 8-bit PNG, value / 255 * 10 m; that of the test part a 16-bit PNG in millimetres.
* ``eigen_test_rgb.npy`` (N x 480 x 640 x 3) with ``eigen_test_depth.npy`` (N x 480 x 640, m).
* one ``.npz`` a sample with ``image`` (0..255) and ``depth`` (m), sorted by name; folders only.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import codes_of, damaged, decode_image, metric_depth, wrong_size
from endolux.datasets.findings import information, published_count
from endolux.datasets.listing import DepthDataset, Entry, unique
from endolux.datasets.ratio_notes import RATIO_NOTES
from endolux.datasets.splits import sequences
from endolux.datasets.stacks import Stack, Store
from endolux.datasets.stored import read_archive, rgb_of, rgb_of_array
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Camera, Frame, ImageArray

TEST_FRAMES = 654
CAMERA = Camera(width=640, height=480, fx=518.8579, fy=519.4696, cx=325.5824, cy=253.7362)
"""Colour camera of the set's toolbox."""

_CSV = {"train": "data/nyu2_train.csv", "test": "data/nyu2_test.csv"}
_ARRAYS = ("eigen_test_rgb.npy", "eigen_test_depth.npy")
_MM_PER_TRAIN_CODE = 10_000.0 / 255.0
_LAYOUT = "data/nyu2_test.csv (DenseDepth's archive), eigen_test_rgb.npy with eigen_test_depth.npy, or .npz files"


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    image_name: str = ""
    depth_name: str = ""
    row: int = -1


class NyuDataset(DepthDataset[_Files]):
    """NYU Depth V2 on disk. Sequences are ``test`` and ``train/SCENE``.

    Args:
        root: folder, or the zip archive.
        name: registry name.
        parts: ``train``, ``test`` or both.

    Raises:
        InputError: ``dataset.empty``, ``input.missing``, ``input.not-a-folder``; ``dataset.damaged`` for lists and
            arrays that contradict each other.
    """

    def __init__(self, root: Path, *, name: str = "nyu", parts: Sequence[str] = ("train", "test")) -> None:
        self._store = Store(root)
        self._parts = tuple(parts)
        self._stacks: tuple[Stack, Stack] | None = None
        entries = self._list()
        super().__init__(name=name, root=root, entries=entries, layout=_LAYOUT)

    @override
    def read(self, key: FrameKey, entry: _Files) -> Sample:
        image, depth_mm = self._pixels(key, entry)
        if depth_mm.shape != image.shape[:2]:
            size = (depth_mm.shape[1], depth_mm.shape[0])
            raise wrong_size(f"depth of '{key}'", size, (image.shape[1], image.shape[0]), "its picture")
        camera = CAMERA if image.shape[:2] == (480, 640) else CAMERA.resize(image.shape[1], image.shape[0])
        depth, excluded = metric_depth(depth_mm, camera=camera)
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        return Sample(key=key, frame=frame, depth=depth, excluded=excluded)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        return list(dict.fromkeys(super().files(key)))

    @override
    def check_set(self) -> list[Finding]:
        test = sum(key.sequence == "test" for key in self.keys())
        found = [published_count(test, TEST_FRAMES, "test images of the Eigen split")] if test else []
        train = len(self.keys()) - test
        return [*found, *([information("count.train", f"{train} training images.")] if train else [])]

    # Rooms are lit by lamps.
    lit_by_camera = False

    def _pixels(self, key: FrameKey, entry: _Files) -> tuple[ImageArray, npt.NDArray[np.float64]]:
        if self._stacks is not None:
            pictures, depths = self._stacks
            image = rgb_of_array(pictures.frame(entry.row), f"{pictures.name} [{entry.row}]")
            return image, depths.frame(entry.row).reshape(depths.shape[1:3]).astype(np.float64) * 1000.0
        if not entry.image_name:
            stored, metres = read_archive(entry.image)
            return rgb_of_array(stored, printable(entry.image)), metres * 1000.0
        image = rgb_of(self._store.read(entry.image_name), entry.image_name)
        pixels = decode_image(self._store.read(entry.depth_name), entry.depth_name)
        if key.sequence == "test":
            return image, codes_of(pixels, entry.depth_name).astype(np.float64)
        if pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise InputError(
                f"'{entry.depth_name}' is not 8-bit grey",
                why="The training part of this archive stores depth in 8 bits; 10 m is 255.",
                fix="Unpack the archive again.",
                error_id="dataset.depth-bits",
            )
        return image, pixels.astype(np.float64) * _MM_PER_TRAIN_CODE

    def _list(self) -> dict[FrameKey, _Files]:
        store, entries = self._store, dict[FrameKey, _Files]()
        if "test" in self._parts and all(store.has(name) for name in _ARRAYS):
            self._stacks = (store.array(_ARRAYS[0]), store.array(_ARRAYS[1]))
            pictures, depths = self._stacks
            if pictures.shape[:3] != depths.shape[:3] or len(pictures.shape) != 4:
                raise damaged(printable(store.root), f"pictures are {pictures.shape}, depth {depths.shape}")
            paths = [store.path(name) for name in _ARRAYS]
            for row in range(len(pictures)):
                entries[FrameKey(sequence="test", index=row)] = _Files(paths[0], paths[1], row=row)
            return entries
        for part, name in _CSV.items():
            if part in self._parts and store.has(name):
                self._add_rows(entries, part, name)
        if "test" in self._parts and not entries and store.root.is_dir():
            files = sorted(store.root.glob("*.npz"), key=lambda path: natural_key(path.name))
            for row, path in enumerate(files):
                entries[FrameKey(sequence="test", index=row)] = _Files(path, path)
        return entries

    def _add_rows(self, entries: dict[FrameKey, _Files], part: str, name: str) -> None:
        text = self._store.read(name).decode("utf-8", "replace")
        for number, row in enumerate(csv.reader(text.splitlines()), 1):
            if not row:
                continue
            if len(row) != 2:
                raise damaged(name, f"line {number} does not hold two paths")
            image, depth = (str(PurePosixPath(cell.strip())) for cell in row)
            if any(path.startswith(("/", "..")) or "/../" in path for path in (image, depth)):
                raise damaged(name, f"line {number} leaves the archive")
            digits = re.search(r"\d+", PurePosixPath(image).stem)
            sequence = part if part == "test" else f"{part}/{PurePosixPath(image).parent.name}"
            key = FrameKey(sequence=sequence, index=int(digits.group()) if digits else number)
            paths = (self._store.path(image), self._store.path(depth))
            unique(entries, key, _Files(paths[0], paths[1], image_name=image, depth_name=depth))


@reader("nyu")
def open_nyu(root: Path) -> NyuDataset:
    """Open NYU Depth V2."""
    return NyuDataset(root)


@reader("nyu-train")
def open_nyu_train(root: Path) -> NyuDataset:
    """Open the training part alone, for recipes: nothing of the test part can slip into a training."""
    return NyuDataset(root, name="nyu-train", parts=("train",))


protocol(
    Protocol(
        name="nyu-eigen-leve",
        version=1,
        dataset="nyu",
        summary="As Leve and GuideDepth score: rows 20..459, columns 24..615, no scaling, no range, frames and mirrors",
        source="Evaluation of Leve 2024 and GuideDepth, Rudolph et al. 2022",
        select=sequences("test"),
        expected_frames=TEST_FRAMES,
        alignment=Alignment.NONE,
        crop=(20 / 480, 460 / 480, 24 / 640, 616 / 640),
        reproduce=("rmse-log-base-10", "mirrored-entries"),
        unit="m",
        extra_metrics=("mae",),
        ratio_maximum=10.0,
        whole_picture=True,
        notes=RATIO_NOTES,
    )
)
protocol(
    Protocol(
        name="nyu-eigen",
        version=1,
        dataset="nyu",
        summary="The Eigen crop, rows 45..470 and columns 41..600, metric depth without scaling, 1e-3..10 m",
        source="Eigen et al. 2014, with the crop in common use since",
        select=sequences("test"),
        expected_frames=TEST_FRAMES,
        minimum=1e-3,
        maximum=10.0,
        clamp_prediction=True,
        alignment=Alignment.NONE,
        crop=(45 / 480, 471 / 480, 41 / 640, 601 / 640),
        unit="m",
    )
)
