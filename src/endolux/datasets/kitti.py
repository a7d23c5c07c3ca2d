"""KITTI: the Eigen test frames, from the raw recordings with annotated depth, or one archive a sample.

Sources: Geiger et al. 2013 (recordings), Uhrig et al. 2017 (annotated depth), Eigen et al. 2014 (the 697 test frames).
KITTI is metric in metres; depth leaves this reader in millimetres, and protocols state metres. Two layouts are read:

* ``2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png`` with
  ``[train|val/]2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png``, below the folder or below
  ``data_depth_annotated`` in it: sparse 16-bit PNG, value / 256 m, 0 where there is none.
* one ``.npz`` a sample with ``image`` (0..255) and ``depth`` (m), sorted by name, as GuideDepth prepared them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import damaged, folders, metric_depth, numbered_files, read_codes, read_text, wrong_size
from endolux.datasets.findings import information, lone_depths, published_count
from endolux.datasets.listing import DepthDataset, Entry
from endolux.datasets.ratio_notes import RATIO_NOTES
from endolux.datasets.splits import list_lines, not_empty, sequences
from endolux.datasets.stored import read_archive, rgb_of_array
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Camera, Frame

MM_PER_CODE = 1000.0 / 256.0
EIGEN_FRAMES = 697
EIGEN_ANNOTATED = 652
PREPARED = "eigen-test"
GUIDEDEPTH_CROP = (0.3324324, 0.91351351, 0.0359477, 0.96405229)
GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)

_DATE, _DRIVE = re.compile(r"\d{4}_\d\d_\d\d"), re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
SIDES = {"image_02": "left", "image_03": "right"}
_ANNOTATED = ("", "train", "val", "data_depth_annotated/train", "data_depth_annotated/val")
# "2011_09_26/2011_09_26_drive_0002_sync 0000000069 l", or a path to the picture.
_LINE = re.compile(r"(?:\S*/)?(\d{4}_\d\d_\d\d_drive_\d{4}_sync)\s+(\d+)(?:\s+([lr]))?\b")
_LINE_PATH = re.compile(r"(?:\S*/)?(\d{4}_\d\d_\d\d_drive_\d{4}_sync)/(image_0[23])/data/(\d+)\.(?:png|jpg)\b")
_LAYOUT = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png with proj_depth, or as .npz files"


class KittiDataset(DepthDataset[Entry]):
    """KITTI on disk. Sequences are drives (``2011_09_26_drive_0002_sync``), or ``eigen-test`` for prepared archives.

    Only frames with annotated depth are keys, where there is annotated depth at all; neighbours are found among all.

    Raises:
        InputError: ``dataset.empty``, ``input.missing``, ``input.not-a-folder``.
    """

    def __init__(self, root: Path) -> None:
        self._read_camera = lru_cache(maxsize=32)(read_camera)
        entries, findings = _list(root)
        self._recorded = len(entries)
        self._every = dict(entries)
        with_depth = {key: entry for key, entry in entries.items() if entry.depth is not None}
        super().__init__(name="kitti", root=root, entries=with_depth or entries, layout=_LAYOUT, findings=findings)

    @override
    def entry(self, key: FrameKey) -> Entry:
        return self._every[key] if key in self._every else super().entry(key)

    @override
    def position(self, key: FrameKey) -> int:
        return self._positions.get(key, key.index)

    @override
    def neighbours(self, key: FrameKey, offsets: Sequence[int] = (-1, 1)) -> list[FrameKey | None]:
        wanted = [FrameKey(sequence=key.sequence, index=key.index + offset, side=key.side) for offset in offsets]
        return [other if other in self._every else None for other in wanted]

    @override
    def read(self, key: FrameKey, entry: Entry) -> Sample:
        if entry.image.suffix == ".npz":
            stored, metres = read_archive(entry.image)
            frame = Frame(image=rgb_of_array(stored, printable(entry.image)), index=self.position(key), name=str(key))
            depth, excluded = metric_depth(metres * 1000.0)
            return Sample(key=key, frame=frame, depth=depth, excluded=excluded)
        image = read_pixels(entry.image)
        size = (image.shape[1], image.shape[0])
        # DATE/DRIVE/image_02/data/N.png
        camera = self._read_camera(entry.image.parents[3], entry.image.parents[1].name[-2:])
        if camera is not None and (camera.width, camera.height) != size:
            camera = None
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        if entry.depth is None:
            return Sample(key=key, frame=frame)
        codes = read_codes(entry.depth)
        if codes.shape != image.shape[:2]:
            raise wrong_size(printable(entry.depth), (codes.shape[1], codes.shape[0]), size, "its picture")
        depth, excluded = metric_depth(codes * MM_PER_CODE, camera=camera)
        return Sample(key=key, frame=frame, depth=depth, excluded=excluded)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        return list(dict.fromkeys(super().files(key)))

    @override
    def check_set(self) -> list[Finding]:
        if self.keys()[0].sequence == PREPARED:
            return [published_count(len(self.keys()), EIGEN_FRAMES, "prepared test images of the Eigen split")]
        return [information("count.recorded", f"{self._recorded} recorded frames, {len(self.keys())} with depth.")]

    # The sun does not move with the camera.
    lit_by_camera = False


def eigen_test(keys: Sequence[FrameKey], split: Path | None) -> Sequence[FrameKey]:
    """Frames of the published list (``DATE/DRIVE NUMBER l`` a line) that have annotated depth, in the list's order.

    Raises:
        UsageError: ``protocol.split`` without a list.
        InputError: ``protocol.line`` for a line of another form, ``protocol.empty`` where none is there.
    """
    present = set(keys)
    chosen: list[FrameKey] = []
    for number, line in enumerate(list_lines(split, what="the 697 test frames of Eigen et al."), 1):
        path, short = _LINE_PATH.match(line), _LINE.match(line)
        if path:
            key = FrameKey(sequence=path.group(1), index=int(path.group(3)), side=SIDES[path.group(2)])
        elif short:
            side = "right" if short.group(3) == "r" else "left"
            key = FrameKey(sequence=short.group(1), index=int(short.group(2)), side=side)
        else:
            raise InputError(
                f"Entry {number} of '{printable(split or '')}' is not a KITTI frame: {line[:80]!r}",
                why="Lines read '2011_09_26/2011_09_26_drive_0002_sync 0000000069 l', or are paths of pictures.",
                fix="Give the published list of test files.",
                error_id="protocol.line",
            )
        if key in present:
            chosen.append(key)
    return not_empty(chosen, "the list")


def _list(root: Path) -> tuple[dict[FrameKey, Entry], list[Finding]]:
    entries: dict[FrameKey, Entry] = {}
    prepared = sorted(root.glob("*.npz"), key=lambda path: natural_key(path.name))
    if prepared:
        return {FrameKey(sequence=PREPARED, index=i): Entry(path, path) for i, path in enumerate(prepared)}, []
    lone: list[Path] = []
    for drive in drives(root):
        for place, side in SIDES.items():
            pictures = drive / place / "data"
            if not pictures.is_dir():
                continue
            images = numbered_pictures(pictures)
            depths: dict[int, Path] = {}
            for part in _ANNOTATED:
                annotated = root / part / drive.name / "proj_depth" / "groundtruth" / place
                if annotated.is_dir():
                    depths = numbered_pictures(annotated)
                    break
            for number, image in images.items():
                entries[FrameKey(sequence=drive.name, index=number, side=side)] = Entry(image, depths.get(number))
            lone += [path for number, path in depths.items() if number not in images]
    return entries, lone_depths(lone)


def drives(root: Path) -> list[Path]:
    """Folders of recordings, DATE/DRIVE below the root."""
    dates = [date for date in folders(root) if _DATE.fullmatch(date.name)]
    return [drive for date in dates for drive in folders(date) if _DRIVE.fullmatch(drive.name)]


def numbered_pictures(folder: Path, *, suffixes: str = "png|jpg") -> dict[int, Path]:
    """Files of a folder whose name is a number."""
    return numbered_files(folder, re.compile(rf"(\d+)\.(?:{suffixes})"))


def read_camera(day: Path, number: str) -> Camera | None:
    """Rectified camera ``02`` or ``03`` of a day's ``calib_cam_to_cam.txt``, None without that file.

    Raises:
        InputError: ``dataset.damaged``.
    """
    file = day / "calib_cam_to_cam.txt"
    if not file.is_file():
        return None
    lines = dict(line.split(":", 1) for line in read_text(file).splitlines() if ":" in line)
    try:
        width, height = (int(float(text)) for text in lines[f"S_rect_{number}"].split())
        p = np.array([float(text) for text in lines[f"P_rect_{number}"].split()]).reshape(3, 4)
    except (KeyError, ValueError) as error:
        raise damaged(printable(file), f"S_rect_{number} or P_rect_{number} is missing or not numbers") from error
    return Camera(
        width=width, height=height, fx=float(p[0, 0]), fy=float(p[1, 1]), cx=float(p[0, 2]), cy=float(p[1, 2])
    )


@reader("kitti")
def open_kitti(root: Path) -> KittiDataset:
    """Open KITTI."""
    return KittiDataset(root)


protocol(
    Protocol(
        name="kitti-eigen-leve",
        version=1,
        dataset="kitti",
        summary="As Leve scores: rows 128..380, columns 45..1195, densified depth, no scaling, no range, with mirrors",
        source="Evaluation of Leve 2024, with GuideDepth's older constant window",
        select=sequences(PREPARED),
        expected_frames=EIGEN_FRAMES,
        alignment=Alignment.NONE,
        crop_pixels=(128, 381, 45, 1196),
        reproduce=("rmse-log-base-10", "mirrored-entries"),
        unit="m",
        extra_metrics=("mae",),
        ratio_maximum=80.0,
        whole_picture=True,
        notes=RATIO_NOTES,
    )
)
protocol(
    Protocol(
        name="kitti-eigen-guidedepth",
        version=1,
        dataset="kitti",
        summary="As GuideDepth scores: a window relative to the size, densified depth, no scaling, with mirrors",
        source="Evaluation of GuideDepth, Rudolph et al. 2022",
        select=sequences(PREPARED),
        expected_frames=EIGEN_FRAMES,
        alignment=Alignment.NONE,
        crop=GUIDEDEPTH_CROP,
        reproduce=("rmse-log-base-10", "mirrored-entries"),
        unit="m",
        extra_metrics=("mae",),
        ratio_maximum=80.0,
        whole_picture=True,
        notes=RATIO_NOTES,
    )
)
protocol(
    Protocol(
        name="kitti-eigen",
        version=1,
        dataset="kitti",
        summary="The listed test frames with annotated depth, Garg crop, median scaling, 1e-3..80 m",
        source="Eigen et al. 2014, Garg et al. 2016 (window), Uhrig et al. 2017 (depth)",
        select=eigen_test,
        expected_frames=EIGEN_ANNOTATED,
        minimum=1e-3,
        maximum=80.0,
        clamp_prediction=True,
        crop=GARG_CROP,
        unit="m",
    )
)
