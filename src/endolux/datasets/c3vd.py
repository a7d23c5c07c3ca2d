"""C3VD and C3VDv2: colonoscopy of silicone phantoms, registered to a model, with a fish-eye colonoscope.

Source: Bobrow, Golhar, Vijayan, Akshintala, Garcia and Durr 2023, "Colonoscopy 3D video dataset with paired depth from
2D-3D registration". Depth is the z coordinate, 16 bits, floor(65535 * z / 100 mm); 65535 stands for 100 mm and beyond
and is therefore left out and counted as ``capped``. ``pose.txt`` has a line a frame with the 16 numbers of the
camera-to-world matrix, column by column, in mm.
"""

from __future__ import annotations

import dataclasses
import os
import re
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Sample, Severity, reader
from endolux.datasets.decode import folders, metric_depth, numbered_files, read_codes, wrong_size
from endolux.datasets.findings import information, lone_depths, published_count
from endolux.datasets.listing import DepthDataset, Entry, pose_rows
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.types import Camera, CameraModel, DepthMap, Frame

MM_PER_CODE = 100.0 / 65535.0
CAPPED_CODE = 65535
FRAMES = 10_015
VIDEOS = 22
SIZE = (1350, 1080)
WINDOW = (200, 180, 950, 720)
"""Left, top, width and height of the window that EndoDAC and its followers cut out of the fish-eye picture."""

_COLOUR = (re.compile(r"(\d+)_color\.png"), re.compile(r"(\d+)\.(?:png|jpg)"))
_DEPTH = re.compile(r"(\d+)_depth\.tiff?")
_COLOUR_FOLDERS, _DEPTH_FOLDERS = ("", "rgb", "color", "images"), ("", "depth")
_LAYOUT = "SEQUENCE/0000_color.png with SEQUENCE/0000_depth.tiff (or in rgb/ and depth/) and SEQUENCE/pose.txt"
# Scaramuzza's model as published with the set: z = a0 + a2 r^2 + a3 r^3 + a4 r^4 at r pixels from the centre.
_CENTRE = (678.5448, 542.9759)
_POLYNOMIAL = (769.2436, 0.0, -8.12771e-4, 6.25674e-7, -1.19662e-9)
_FITTED_RADIUS = 780.0

T = TypeVar("T", bound=np.generic)


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    pose: Path | None = None
    row: int = 0


class C3vdDataset(DepthDataset[_Files]):
    """C3VD or C3VDv2 on disk: a folder of sequences, or one sequence.

    Pictures keep the fish-eye projection. The camera is a Kannala-Brandt model fitted to the published omnidirectional
    one (see :func:`omnidirectional_as_fisheye`), attached where pictures have the published size.

    Args:
        root: folder.
        window: (left, top, width, height) to cut out of every picture and depth map, None for all.
        name: registry name.

    Raises:
        InputError: ``dataset.empty``, ``input.missing``, ``input.not-a-folder``.
    """

    def __init__(self, root: Path, *, window: tuple[int, int, int, int] | None = None, name: str = "c3vd") -> None:
        self._window = window
        self._poses: dict[Path, tuple[list[npt.NDArray[np.float64]], list[Finding]]] = {}
        entries, findings = _list(root)
        super().__init__(name=name, root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: _Files) -> Sample:
        image = read_pixels(entry.image)
        height, width = image.shape[:2]
        camera = omnidirectional_as_fisheye() if (width, height) == SIZE else None
        depth: DepthMap | None = None
        excluded: dict[str, int] = {}
        if entry.depth is not None:
            codes = read_codes(entry.depth)
            if codes.shape != (height, width):
                size = (codes.shape[1], codes.shape[0])
                raise wrong_size(printable(entry.depth), size, (width, height), "its picture")
            depth, excluded = _depth(self._cut(codes), self._cut_camera(camera))
        image, camera = self._cut(image), self._cut_camera(camera)
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        return Sample(key=key, frame=frame, depth=depth, pose=self._pose(entry), excluded=excluded)

    @override
    def files(self, key: FrameKey) -> list[Path]:
        pose = self.entry(key).pose
        return [*super().files(key), *([pose] if pose else [])]

    @override
    def check_set(self) -> list[Finding]:
        names = {key.sequence for key in self.keys()}
        found: list[Finding] = []
        if not any(re.match(r"c\d", name) for name in names):
            found.append(published_count(len(names), VIDEOS, "videos of C3VD"))
            found.append(published_count(len(self.keys()), FRAMES, "frames of C3VD"))
        else:
            found.append(information("dataset.version", "Sequence names are those of C3VDv2."))
        per_file: dict[Path, int] = {}
        for key in self.keys():
            entry = self.entry(key)
            if entry.pose is not None:
                per_file[entry.pose] = max(per_file.get(entry.pose, 0), entry.row + 1)
        for path, frames in per_file.items():
            rows, findings = self._rows(path)
            found += findings
            if len(rows) != frames:
                text = f"'{printable(path)}' has {len(rows)} poses for {frames} frames."
                fix = "Frames past the last pose have none; unpack the file again if that is not meant."
                found.append(Finding(severity=Severity.WARNING, code="pose.count", message=text, fix=fix))
        return found

    def _cut(self, pixels: npt.NDArray[T]) -> npt.NDArray[T]:
        if self._window is None:
            return pixels
        left, top, width, height = self._window
        if pixels.shape[0] < top + height or pixels.shape[1] < left + width:
            size = (pixels.shape[1], pixels.shape[0])
            raise wrong_size(
                f"a frame of '{self.name}'", size, SIZE, "the published size, to which its window belongs,"
            )
        return np.ascontiguousarray(pixels[top : top + height, left : left + width])

    def _cut_camera(self, camera: Camera | None) -> Camera | None:
        return camera.crop(*self._window) if camera is not None and self._window is not None else camera

    def _rows(self, path: Path) -> tuple[list[npt.NDArray[np.float64]], list[Finding]]:
        if path not in self._poses:
            self._poses[path] = pose_rows(path, columns=16)
        return self._poses[path]

    def _pose(self, entry: _Files) -> npt.NDArray[np.float64] | None:
        if entry.pose is None:
            return None
        rows, _ = self._rows(entry.pose)
        return rows[entry.row].reshape(4, 4).T.copy() if entry.row < len(rows) else None


@cache
def omnidirectional_as_fisheye() -> Camera:
    """The published omnidirectional camera as a Kannala-Brandt one, fitted over the 780 px around its centre.

    The fit differs from the original by less than 0.4 px there (half the picture's diagonal is 865 px). The original
    also turns the pixel grid by 0.17 degrees about the axis, which this model cannot say: up to 2.3 px at that radius.

    Example:
        >>> camera = omnidirectional_as_fisheye()
        >>> camera.model.value, round(camera.fx), round(camera.distortion[0], 2)
        ('fisheye', 768, -0.19)
    """
    radius = np.linspace(1.0, _FITTED_RADIUS, 1000)
    angle = np.arctan2(radius, np.polyval(_POLYNOMIAL[::-1], radius))
    powers = np.stack([angle ** (2 * i + 1) for i in range(5)], axis=1)
    terms, *_ = np.linalg.lstsq(powers, radius, rcond=None)
    focal = float(terms[0])
    return Camera(
        width=SIZE[0],
        height=SIZE[1],
        fx=focal,
        fy=focal,
        cx=_CENTRE[0],
        cy=_CENTRE[1],
        model=CameraModel.FISHEYE,
        distortion=tuple(float(term) / focal for term in terms[1:]),
    )


def _depth(codes: npt.NDArray[np.generic], camera: Camera | None) -> tuple[DepthMap, dict[str, int]]:
    capped = codes == CAPPED_CODE
    depth, excluded = metric_depth(np.where(capped, 0, codes) * MM_PER_CODE, camera=camera)
    count = int(np.count_nonzero(capped))
    return depth, {**excluded, **({"capped": count} if count else {})}


def _list(root: Path) -> tuple[dict[FrameKey, _Files], list[Finding]]:
    below = folders(root)
    if (root / "registered").is_dir():
        below = folders(root / "registered")
    entries: dict[FrameKey, _Files] = {}
    findings: list[Finding] = []
    for folder in [root, *below]:
        images = _first(folder, _COLOUR_FOLDERS, _COLOUR)
        depths = _first(folder, _DEPTH_FOLDERS, (_DEPTH,))
        if not images or (folder == root and not depths):
            continue
        pose = folder / "pose.txt"
        pose_file = pose if pose.is_file() else None
        name = os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119  -- '.' has a name too
        for number, image in images.items():
            entries[FrameKey(sequence=name, index=number)] = _Files(image, depths.get(number), pose_file, number)
        findings += lone_depths([path for number, path in depths.items() if number not in images])
    return entries, findings


def _first(folder: Path, places: tuple[str, ...], patterns: tuple[re.Pattern[str], ...]) -> dict[int, Path]:
    for place in places:
        if not (folder / place).is_dir():
            continue
        for pattern in patterns:
            # Bare numbers are pictures only in a folder of their own.
            if place == "" and pattern is _COLOUR[1]:
                continue
            found = numbered_files(folder / place, pattern)
            if found:
                return found
    return {}


@reader("c3vd")
def open_c3vd(root: Path) -> C3vdDataset:
    """Open C3VD or C3VDv2 with whole fish-eye pictures."""
    return C3vdDataset(root)


@reader("c3vd-window")
def open_window(root: Path) -> C3vdDataset:
    """Open C3VD with pictures and depth cut to EndoDAC's window, columns 200..1149 and rows 180..899."""
    return C3vdDataset(root, window=WINDOW, name="c3vd-window")
