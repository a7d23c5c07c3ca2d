"""Hamlyn laparoscopy as Endo-Depth-and-Motion rectified it: stereo video, depth in millimetres from stereo matching.

On disk: ``rectifiedNN/{image01,image02}/*.jpg`` (left, right), ``rectifiedNN/{depth01,depth02}/*.png`` (16-bit, mm),
``intrinsics.txt`` (3 x 4) and ``extrinsics.txt``; some archives unpack to ``rectifiedNN/rectifiedNN``. The tracking
data of the same authors have ``color`` and ``depth`` instead, and one camera. The reference is matched, not measured,
and saturates at 300 mm.

The field crops these frames in three ways, and crops change what a network sees, so each way is a reader:

* ``hamlyn``: whole frames.
* ``hamlyn-content``: each frame cropped to its content area (EndoOmni removes black borders; its own rule for
  finding them is not published, here it is Endolux's content area).
* ``hamlyn-endodac``: frames of sequences after 13 cropped to columns 180 to 589 and rows 0 to 287, and only frames
  that have both pictures and both depths.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import override

from endolux.datasets.base import Dataset, Finding, FrameKey, Sample, Severity, reader
from endolux.datasets.decode import folders, matrix_of, metric_depth, numbered_files, read_codes, read_text, wrong_size
from endolux.datasets.listing import key_order, no_frame, pinhole
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.prep.content_area import find_content_area
from endolux.types import Camera, Frame, ImageArray

SATURATION_MM = 300
"""Largest depth that the stereo matching gives."""

Crop = Literal["none", "content", "endodac"]
_SEQUENCE = re.compile(r"(?:rectified|test)_?(\d+)", re.IGNORECASE)
_IMAGE = re.compile(r"(\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
_DEPTH = re.compile(r"(\d+)\.png", re.IGNORECASE)
_PARTS = {"left": (("image01", "depth01"), ("color", "depth")), "right": (("image02", "depth02"),)}
_ENDODAC_BOX = (180, 0, 590, 288)
_ENDODAC_FROM = 14
_LEFT_OUT = "rectified09"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Files:
    image: Path
    depth: Path | None


class Hamlyn(Dataset):
    """A Hamlyn folder in the layout of Endo-Depth-and-Motion.

    Args:
        root: holds ``rectifiedNN`` folders, or is one.
        crop: ``none``, ``content`` or ``endodac``; see above.

    Raises:
        InputError: missing folder or a file (``input.*``), nothing of Hamlyn in it (``dataset.layout``), two files
            of one number (``dataset.ambiguous``).
        UsageError: an unknown crop (``hamlyn.crop``).
    """

    name = "hamlyn"

    def __init__(self, root: Path, *, crop: Crop = "none") -> None:
        if crop not in ("none", "content", "endodac"):
            raise UsageError(
                f"Unknown crop {crop!r} of Hamlyn",
                why="Three ways are in use.",
                fix="Use none, content or endodac.",
                error_id="hamlyn.crop",
            )
        self.root = Path(root)
        self.crop: Crop = crop
        self.name = "hamlyn" if crop == "none" else f"hamlyn-{crop}"
        inner = folders(self.root)
        found = [self.root] if _SEQUENCE.fullmatch(self.root.name) and _has_frames(self.root) else inner
        self._folders: dict[str, Path] = {}
        for folder in found:
            match = _SEQUENCE.fullmatch(folder.name)
            nested = folder / folder.name
            place = folder if _has_frames(folder) else nested if _has_frames(nested) else None
            if match is not None and place is not None:
                self._folders[f"rectified{int(match[1]):02d}"] = place
        self._files = dict(self._list())
        if not self._files:
            raise InputError(
                f"No Hamlyn data in '{printable(self.root)}'",
                why="It holds no rectifiedNN/image01 (or color) with numbered pictures"
                + (", or none with both pictures and both depths." if crop == "endodac" else "."),
                fix="Give the folder that holds rectified01, rectified04, ... as Endo-Depth-and-Motion publishes them.",
                error_id="dataset.layout",
            )

    def _list(self) -> Iterator[tuple[FrameKey, _Files]]:
        for sequence, folder in sorted(self._folders.items()):
            parts: dict[str, dict[int, _Files]] = {}
            for side, names in _PARTS.items():
                for images, depths in names:
                    if side not in parts and (folder / images).is_dir():
                        depth = numbered_files(folder / depths, _DEPTH) if (folder / depths).is_dir() else {}
                        numbered = numbered_files(folder / images, _IMAGE)
                        parts[side] = {n: _Files(image=p, depth=depth.get(n)) for n, p in numbered.items()}
            if self.crop == "endodac":
                whole = [{n for n, f in parts.get(side, {}).items() if f.depth is not None} for side in _PARTS]
                keep = whole[0] & whole[1]
                parts = {side: {n: f for n, f in files.items() if n in keep} for side, files in parts.items()}
            for side, files in parts.items():
                for number, entry in files.items():
                    yield FrameKey(sequence=sequence, index=number, side=side), entry

    @functools.cached_property
    def _keys(self) -> tuple[FrameKey, ...]:
        return tuple(sorted(self._files, key=key_order))

    @override
    def keys(self) -> Sequence[FrameKey]:
        return self._keys

    @override
    def neighbours(self, key: FrameKey, offsets: Sequence[int] = (-1, 1)) -> list[FrameKey | None]:
        others = [dataclasses.replace(key, index=key.index + offset) for offset in offsets]
        return [other if other in self._files else None for other in others]

    @override
    def load(self, key: FrameKey) -> Sample:
        files = self._entry(key)
        image = read_pixels(files.image)
        size = image.shape[1], image.shape[0]
        camera = self.camera(key, size)
        values = None if files.depth is None else read_codes(files.depth)
        if values is not None and files.depth is not None and values.shape != (size[1], size[0]):
            raise wrong_size(printable(files.depth), (values.shape[1], values.shape[0]), size, "the picture")
        box = self._box(key, image)
        if box is not None:
            left, top, width, height = box
            image = np.ascontiguousarray(image[top : top + height, left : left + width])
            values = None if values is None else values[top : top + height, left : left + width]
            camera = None if camera is None else camera.crop(left, top, width, height)
        depth, excluded = (None, {}) if values is None else metric_depth(values, camera=camera)
        frame = Frame(image=image, index=key.index, name=str(key), camera=camera)
        return Sample(key=key, frame=frame, depth=depth, excluded=excluded)

    def camera(self, key: FrameKey, size: tuple[int, int]) -> Camera | None:
        """The rectified camera of the whole picture; None without ``intrinsics.txt``.

        Raises:
            InputError: a damaged file (``dataset.matrix``).
        """
        path = self._intrinsics(key)
        if path is None:
            return None
        words = read_text(path).replace(",", " ").split()
        shape = {9: (3, 3), 12: (3, 4), 16: (4, 4)}.get(len(words), (3, 4))
        matrix = matrix_of(words, shape, f"'{printable(path)}'")
        return pinhole(*size, matrix)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self._entry(key)
        intrinsics = self._intrinsics(key)
        return [entry.image, *([entry.depth] if entry.depth else []), *([intrinsics] if intrinsics else [])]

    @override
    def check(self) -> list[Finding]:
        return list(self._check())

    def _entry(self, key: FrameKey) -> _Files:
        if key not in self._files:
            raise no_frame(key, "Hamlyn", "List the frames with keys().")
        return self._files[key]

    def _intrinsics(self, key: FrameKey) -> Path | None:
        folder = self._folders[key.sequence]
        names = ("intrinsics.txt", "intrinsic/intrinsic_color.txt")
        found = [folder / name for name in names if (folder / name).is_file()]
        return found[0] if found else None

    def _box(self, key: FrameKey, image: ImageArray) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of the crop; None for the whole picture."""
        height, width = image.shape[:2]
        if self.crop == "endodac" and int(key.sequence.removeprefix("rectified")) >= _ENDODAC_FROM:
            left, top, right, bottom = _ENDODAC_BOX
            if right > width or bottom > height:
                raise wrong_size(str(key), (width, height), (right, bottom), "the crop's far corner")
            return left, top, right - left, bottom - top
        if self.crop == "content":
            area = find_content_area(image)
            if area.shape == "none":
                raise InputError(
                    f"'{key}' is black",
                    why="There is no content area to crop to.",
                    fix="Leave this frame out.",
                    error_id="hamlyn.black",
                )
            left, top, inner_width, inner_height = area.bbox
            if (inner_width, inner_height) != (width, height):
                return left, top, inner_width, inner_height
        return None

    def _check(self) -> Iterator[Finding]:
        yield Finding(
            severity=Severity.INFO,
            code="count.sequences",
            message=f"{len(self._folders)} sequences: {', '.join(sorted(self._folders))}. "
            "Copies of this set differ; compare the frame-list hash.",
        )
        for sequence in sorted(self._folders):
            keys = [key for key in self._keys if key.sequence == sequence]
            lone = [key for key in keys if self._files[key].depth is None]
            if lone:
                yield Finding(
                    severity=Severity.WARNING,
                    code="pair.no-depth",
                    message=f"{sequence}: {len(lone)} of {len(keys)} pictures have no depth, the first is {lone[0]}.",
                    fix="Copy depth01 and depth02 as well.",
                )
            if keys and self._intrinsics(keys[0]) is None:
                yield Finding(
                    severity=Severity.WARNING, code="camera.missing", message=f"{sequence}: no intrinsics.txt."
                )
            for key in [key for key in keys if self._files[key].depth is not None][:1]:
                try:
                    yield from self._check_frame(key)
                except EndoluxError as error:
                    yield Finding(
                        severity=Severity.ERROR, code=error.error_id, message=f"{key}: {error.what}", fix=error.fix
                    )

    def _check_frame(self, key: FrameKey) -> Iterator[Finding]:
        depth = self.load(key).depth
        if depth is None:
            return
        values = depth.values[depth.valid]
        if not values.size:
            yield Finding(severity=Severity.WARNING, code="depth.empty", message=f"{key}: no pixel has a depth.")
            return
        middle = float(np.median(values))
        if not 5.0 <= middle <= 2.0 * SATURATION_MM:
            yield Finding(
                severity=Severity.ERROR,
                code="depth.unit",
                message=f"{key}: the median code is {middle:.4g}, which is no distance in mm inside an abdomen.",
                fix="Depth of this layout is in whole millimetres; use the original files.",
            )
        elif (share := float((values >= SATURATION_MM).mean())) > 0.05:
            yield Finding(
                severity=Severity.INFO,
                code="depth.saturated",
                message=f"{key}: {share:.0%} of the depth lies at or beyond the saturation of {SATURATION_MM} mm.",
            )


@reader("hamlyn")
def open_hamlyn(root: Path) -> Hamlyn:
    """Open a Hamlyn folder, whole frames; see ``Hamlyn``."""
    return Hamlyn(root)


@reader("hamlyn-content")
def open_hamlyn_content(root: Path) -> Hamlyn:
    """Open a Hamlyn folder, frames cropped to their content area; see ``Hamlyn``."""
    return Hamlyn(root, crop="content")


@reader("hamlyn-endodac")
def open_hamlyn_endodac(root: Path) -> Hamlyn:
    """Open a Hamlyn folder with the frames and crops of EndoDAC; see ``Hamlyn``."""
    return Hamlyn(root, crop="endodac")


def _has_frames(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("image01", "color"))
