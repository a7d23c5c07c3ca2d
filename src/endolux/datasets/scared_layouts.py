"""The forms in which users have SCARED on disk: which file of a keyframe folder is which part of a frame."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from typing_extensions import override

from endolux.datasets.decode import folders
from endolux.datasets.scared_files import (
    FolderFiles,
    Numbered,
    TarFiles,
    VideoFrames,
    file_if_there,
    open_numbered,
    path_exists,
)
from endolux.datasets.scared_splits import KEYFRAME

LAYOUTS = ("raw", "af", "extracted", "rectified", "scared-c")

_DATASET = re.compile(r"dataset_?(\d+)", re.IGNORECASE)
_KEYFRAME = re.compile(r"keyframe_?(\d+)", re.IGNORECASE)
_FLAT = re.compile(r"dataset_?(\d+)[_-]keyframe_?(\d+)", re.IGNORECASE)
_IMAGE = re.compile(r"(?:frame_data|frame)?_?(\d+)\.(?:png|jpg|jpeg)", re.IGNORECASE)
_POINTS = re.compile(r"scene_points(\d+)\.tiff?")
_FRAME_DATA = re.compile(r"frame_data(\d+)\.json")
_DEPTH = re.compile(r"(\d+)\.(?:png|npy)")
_DISPARITY = re.compile(r"(?:frame_data)?(\d+)\.(?:tiff?|png)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceFiles:
    """Where the parts of one keyframe folder lie. File numbers are frame indices minus ``first``.

    Attributes:
        name: ``dataset3/keyframe4``.
        folder: the keyframe folder.
        layout: one of ``LAYOUTS``.
        images, video: the pictures, as files or as one video.
        points, codes, disparities: the depth, in one of these forms.
        frame_data, reprojections: poses and cameras.
        calibration: YAML with the left camera, if any.
        first: index of the frame whose image and pose have number 0.
        first_points: the same for the depth.
        still: the structured-light keyframe is there, as frame 0.
        still_files: it lies in Left_Image.png and left_depth_map.tiff; else among the frames.
    """

    name: str
    folder: Path
    layout: str
    images: Numbered | None = None
    video: VideoFrames | None = None
    points: Numbered | None = None
    codes: Numbered | None = None
    disparities: Numbered | None = None
    frame_data: Numbered | None = None
    reprojections: Numbered | None = None
    calibration: Path | None = None
    first: int = 1
    first_points: int = 1
    still: bool = False
    still_files: bool = False

    @property
    def depth_files(self) -> Numbered | None:
        """Depth in whichever form there is."""
        return self.points or self.codes or self.disparities

    def indices(self) -> list[int]:
        """Frames that have a picture, from the cheapest list that tells."""
        if self.images is not None:
            found = [number + self.first for number in self.images.numbers()]
        elif self.video is not None:
            lists = [(self.points, self.first_points), (self.frame_data, self.first)]
            lists.sort(key=lambda entry: isinstance(entry[0], TarFiles) and entry[0] is self.points)
            found = next(
                ([n + first for n in files.numbers()] for files, first in lists if files is not None),
                [],
            ) or list(range(1, self.video.count() + 1))
        else:
            found = []
        return sorted({*found} - {KEYFRAME} | ({KEYFRAME} if self.still else set()))


def keyframe_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Sequence names, as the published lists have them, and their folders."""
    level = folders(root)
    numbered = [folder for folder in level if _DATASET.fullmatch(folder.name) or _FLAT.fullmatch(folder.name)]
    if not numbered:
        numbered = [
            folder
            for parent in level
            for folder in folders(parent)
            if _DATASET.fullmatch(folder.name) or _FLAT.fullmatch(folder.name)
        ]
    grouped: dict[tuple[str, int], dict[int, Path]] = {}
    for folder in numbered:
        if match := _FLAT.fullmatch(folder.name):
            grouped.setdefault((str(folder.parent), int(match[1])), {})[int(match[2])] = folder
        elif match := _DATASET.fullmatch(folder.name):
            for inner in folders(folder):
                if number := _KEYFRAME.fullmatch(inner.name):
                    grouped.setdefault((str(folder), int(match[1])), {})[int(number[1])] = inner
    for (_, dataset), found in sorted(grouped.items(), key=lambda item: (item[0][1], item[0][0])):
        # Data sets 8 and 9 count their keyframes from 0, the published lists from 1.
        shift = 1 if 0 in found else 0
        for keyframe, folder in sorted(found.items()):
            yield f"dataset{dataset}/keyframe{keyframe + shift}", folder


def open_sequence(name: str, folder: Path, layout: str | None) -> SequenceFiles | None:
    """The parts of one keyframe folder in ``layout``, or in the one it shows; None if it holds no picture."""
    opener = _OPENERS.get(layout or _layout_of(folder))
    sequence = opener(name, folder) if opener is not None else None
    if sequence is None or (sequence.images is None and sequence.video is None and not sequence.still):
        return None
    return sequence


def _layout_of(folder: Path) -> str:
    data = folder / "data"
    if (folder / "image_02" / "data").is_dir():
        return "af"
    if path_exists(folder / "intrinsics_colmap.yaml") or any(data.glob("rgb_frames*")):
        return "scared-c"
    if (data / "left").is_dir():
        return "extracted"
    if (data / "left_finalpass").is_dir() and (data / "disparity").is_dir():
        return "rectified"
    return "raw"


def _has_still(folder: Path) -> bool:
    return path_exists(folder / "Left_Image.png") and path_exists(folder / "left_depth_map.tiff")


def _calibration(folder: Path, name: str = "endoscope_calibration.yaml") -> Path | None:
    found = [path for parent in (folder, folder / "data") for path in file_if_there(parent / name)]
    return found[0] if found else None


def _open_raw(name: str, folder: Path) -> SequenceFiles:
    data = folder / "data"
    videos = [p for n in ("rgb.mp4", "left.mp4", "rgb.avi", "rgb.mkv") for p in file_if_there(data / n)]
    return SequenceFiles(
        name=name,
        folder=folder,
        layout="raw",
        video=VideoFrames(videos[0]) if videos else None,
        points=open_numbered(data, "scene_points", _POINTS),
        frame_data=open_numbered(data, "frame_data", _FRAME_DATA),
        calibration=_calibration(folder),
        still=_has_still(folder),
        still_files=_has_still(folder),
    )


def _open_af(name: str, folder: Path) -> SequenceFiles:
    data = folder / "image_02" / "data"
    images = FolderFiles(data, _IMAGE)
    points = open_numbered(data, "groundtruth", _POINTS)
    codes = open_numbered(data, "depth", _DEPTH) if points is None else None
    calibration = _calibration(folder) or _calibration(folder, "intrinsics_colmap.yaml")
    converted_still = codes is not None and KEYFRAME in codes.numbers() and KEYFRAME in images.numbers()
    return SequenceFiles(
        name=name,
        folder=folder,
        layout="af",
        images=images,
        points=points,
        codes=codes,
        # Poses keep the numbers of the raw release here, pictures do not.
        frame_data=_shifted(open_numbered(data, "frame_data", _FRAME_DATA)),
        calibration=calibration,
        first=0,
        first_points=1 if codes is None else 0,
        still=converted_still or _has_still(folder),
        still_files=not converted_still and _has_still(folder),
    )


def _open_extracted(name: str, folder: Path) -> SequenceFiles:
    data = folder / "data"
    return dataclasses.replace(
        _open_pictures(name, folder, "extracted", "left"),
        points=open_numbered(data, "scene_points", _POINTS),
        frame_data=open_numbered(data, "frame_data", _FRAME_DATA),
    )


def _open_rectified(name: str, folder: Path) -> SequenceFiles:
    data = folder / "data"
    return dataclasses.replace(
        _open_pictures(name, folder, "rectified", "left_finalpass"),
        disparities=open_numbered(data, "disparity", _DISPARITY),
        reprojections=open_numbered(data, "reprojection_data", _FRAME_DATA),
    )


def _open_pictures(name: str, folder: Path, layout: str, pictures: str) -> SequenceFiles:
    place = folder / "data" / pictures
    return SequenceFiles(
        name=name,
        folder=folder,
        layout=layout,
        images=FolderFiles(place, _IMAGE) if place.is_dir() else None,
        calibration=_calibration(folder),
        still=_has_still(folder),
        still_files=_has_still(folder),
    )


def _open_corrected(name: str, folder: Path) -> SequenceFiles:
    data = folder / "data"
    return SequenceFiles(
        name=name,
        folder=folder,
        layout="scared-c",
        images=open_numbered(data, "rgb_frames", _IMAGE),
        points=open_numbered(data, "scene_points", _POINTS),
        frame_data=open_numbered(data, "frame_data", _FRAME_DATA),
        calibration=_calibration(folder, "intrinsics_colmap.yaml"),
        first=0,
        first_points=0,
    )


_OPENERS: dict[str, Callable[[str, Path], SequenceFiles]] = {
    "raw": _open_raw,
    "af": _open_af,
    "extracted": _open_extracted,
    "rectified": _open_rectified,
    "scared-c": _open_corrected,
}


class _Shifted(Numbered):
    """Numbered files seen with numbers one higher."""

    def __init__(self, files: Numbered) -> None:
        self.path, self._files = files.path, files

    @override
    def numbers(self) -> tuple[int, ...]:
        return tuple(number + 1 for number in self._files.numbers())

    @override
    def read(self, number: int) -> bytes:
        return self._files.read(number - 1)

    @override
    def name(self, number: int) -> str:
        return self._files.name(number - 1)

    @override
    def file(self, number: int) -> Path:
        return self._files.file(number - 1)


def _shifted(files: Numbered | None) -> Numbered | None:
    return None if files is None else _Shifted(files)
