"""L3D: laparoscopic liver frames with anatomical landmarks drawn as lines (ridge, silhouette, falciform ligament).

Source: Pei et al. 2024, "Depth-driven geometric prompt learning for laparoscopic liver landmark detection" (D2GPLand).
A label file lists polylines; how thick they are drawn differs between codes, so :class:`Drawing` states it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, Severity, protocol, reader
from endolux.datasets.colondepth import read_first_channel
from endolux.datasets.decode import damaged, read_json
from endolux.datasets.findings import published_count
from endolux.datasets.listing import Entry, ListedDataset, unique
from endolux.datasets.splits import sequences
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import check_pixels, pixel_limit, read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Frame

CLASSES = ("background", "ridge", "silhouette", "ligament")
"""Names of the values of a landmark map."""
SPLITS = {"Train": 921, "Val": 122, "Test": 109}
"""Folders and the number of their frames, as reported by users of the set."""
FOUR_K_MARKS = ("_25", "_29", "_31", "_36")
"""Parts of a path that the published code takes for 3840 x 2160 frames."""

_BY_LETTER = {"r": 1, "s": 2, "l": 3, "f": 3}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_STEM = re.compile(r"(.*?)[_-]?(\d+)")
_LAYOUT = "Train, Val and Test, each with images/NAME.jpg and labels/NAME.json"
_LINE, _LINE_HEIGHT = 30, 1080

Labels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How polylines become a map of classes.

    Attributes:
        line: width in pixels on a canvas 1080 high, given to OpenCV, whose lines are one or two pixels wider.
        scaled: whether the width grows with the canvas; the published code draws 30 px on any.
        canvas_by_name: whether the canvas is 3840 x 2160 where the path holds one of ``FOUR_K_MARKS`` and 1920 x 1080
            otherwise, as the published code does, instead of the size in the label file.
        blend: whether a change of size blends class numbers (bilinear), as the published code does; this makes false
            classes at edges.
    """

    line: float = _LINE
    scaled: bool = True
    canvas_by_name: bool = False
    blend: bool = False


DRAWING = Drawing()
BROAD_DRAWING = Drawing(line=90)
"""Lines as many cells of a small network wide as the published ones are at 1024 pixels: for pictures of 128 to 256."""
LEGACY_DRAWING = Drawing(scaled=False, canvas_by_name=True, blend=True)
"""As D2GPLand and SRFT-GaLore draw, for numbers that compare with theirs."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    label: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polyline:
    """One drawn landmark.

    Attributes:
        label: as written.
        class_id: index into ``CLASSES``, 0 for a label that names none of them.
        points: N x 2, x and y in pixels of the annotated picture.
    """

    label: str
    class_id: int
    points: npt.NDArray[np.float64]


class L3dDataset(ListedDataset[_Files]):
    """L3D on disk. Sequences are ``Train/Patient_40``; frames without a number in their name have number 0.

    Samples have no depth; ``labels["landmarks"]`` is the H x W map of classes at the size of the picture, and
    :meth:`pseudo_depth` reads the monocular depth that comes with D2GPLand.

    Args:
        root: folder.
        drawing: how lines are drawn.
        name: registry name.
        splits: the parts that are opened, of ``SPLITS``.

    Raises:
        InputError: ``dataset.empty``, ``dataset.ambiguous``, ``input.missing``, ``input.not-a-folder``.
    """

    def __init__(
        self, root: Path, *, drawing: Drawing = DRAWING, name: str = "l3d", splits: Sequence[str] = tuple(SPLITS)
    ) -> None:
        self._drawing, self._splits = drawing, tuple(splits)
        entries, findings = _list(root, self._splits)
        super().__init__(name=name, root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def load(self, key: FrameKey) -> Sample:
        entry = self.entry(key)
        image = read_pixels(entry.image)
        frame = Frame(image=image, index=self.position(key), name=str(key))
        if entry.label is None:
            return Sample(key=key, frame=frame)
        lines, canvas = read_polylines(entry.label)
        size = canvas or frame.size
        if self._drawing.canvas_by_name:
            size = (3840, 2160) if any(mark in str(entry.image) for mark in FOUR_K_MARKS) else (1920, 1080)
        landmarks = draw(lines, size, drawing=self._drawing)
        if size != frame.size:
            landmarks = resize_labels(landmarks, frame.size, blend=self._drawing.blend)
        return Sample(key=key, frame=frame, labels={"landmarks": landmarks})

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        label = self.entry(key).label
        return [*super().files(key), *([label] if label else [])]

    def pseudo_depth(self, key: FrameKey) -> Labels | None:
        """The 8-bit monocular depth of D2GPLand, H x W, or None: a network's output, no reference.

        Raises:
            InputError: damaged file or 16 bits.
        """
        image = self.entry(key).image
        path = image.parent.parent / "depth_AdelaiDepth" / f"{image.stem}.png"
        return read_first_channel(path) if path.is_file() else None

    @override
    def check(self) -> list[Finding]:
        # Depth is not missing here: the set has none.
        return [finding for finding in super().check() if finding.code != "depth.missing"]

    @override
    def check_set(self) -> list[Finding]:
        found: list[Finding] = []
        for split, frames in SPLITS.items():
            if split not in self._splits:
                continue
            have = sum(key.sequence.split("/")[0] == split for key in self.keys())
            found.append(published_count(have, frames, f"frames in {split}"))
        unlabelled = [key for key in self.keys() if self.entry(key).label is None]
        if unlabelled:
            text = f"{len(unlabelled)} pictures have no label file, the first is '{unlabelled[0]}'."
            fix = "Unpack the labels beside the pictures."
            found.append(Finding(severity=Severity.WARNING, code="label.missing", message=text, fix=fix))
        unknown: dict[str, int] = {}
        for key in self.keys():
            label = self.entry(key).label
            try:
                lines = read_polylines(label)[0] if label else []
            except InputError as error:
                text = f"{key}: {error.what}. {error.why}"
                found.append(Finding(severity=Severity.ERROR, code=error.error_id, message=text, fix=error.fix))
                continue
            for line in lines:
                if not line.class_id:
                    unknown[line.label] = unknown.get(line.label, 0) + 1
        if unknown:
            names = ", ".join(f"{name!r} ({count})" for name, count in sorted(unknown.items()))
            text = f"Labels that name no landmark count as background: {names}."
            fix = "Landmarks begin with r, s, l or f."
            found.append(Finding(severity=Severity.WARNING, code="label.unknown", message=text, fix=fix))
        return found


def read_polylines(path: Path) -> tuple[list[Polyline], tuple[int, int] | None]:
    """Landmarks of a label file, in drawing order, and the (width, height) it states, None where it states none.

    Raises:
        InputError: ``dataset.damaged`` for another content.
    """
    name, content = printable(path), read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(shapes, list):
        raise damaged(name, "it holds no list 'shapes'")
    lines: list[Polyline] = []
    for number, shape in enumerate(shapes):
        label = shape.get("label") if isinstance(shape, dict) else None
        try:
            points = np.array(shape["points"], np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(name, f"shape {number} has no points") from error
        if not isinstance(label, str) or not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1 << 20:
            raise damaged(name, f"shape {number} has no label or impossible points")
        lines.append(Polyline(label=label, class_id=_BY_LETTER.get(label.strip().lower()[:1], 0), points=points))
    size = (content.get("imageWidth"), content.get("imageHeight"))
    if not all(isinstance(side, int) and side > 0 for side in size):
        return lines, None
    width, height = int(size[0] or 0), int(size[1] or 0)
    check_pixels(path, width, height, pixel_limit())
    return lines, (width, height)


def draw(lines: Sequence[Polyline], size: tuple[int, int], *, drawing: Drawing = DRAWING) -> Labels:
    """Open polylines as an H x W map of classes; later ones cover earlier ones.

    Args:
        lines: landmarks in pixels of the canvas.
        size: (width, height) of the canvas.
        drawing: line width.

    Example:
        >>> line = Polyline(label="ridge", class_id=1, points=np.array([[10.0, 54.0], [180.0, 54.0]]))
        >>> landmarks = draw([line], (192, 108))
        >>> int(landmarks[54, 96]), int(landmarks[44, 96])
        (1, 0)
    """
    width, height = size
    canvas = np.zeros((height, width), np.uint8)
    thickness = max(1, round(drawing.line * (height / _LINE_HEIGHT if drawing.scaled else 1.0)))
    for line in lines:
        if line.class_id and line.points.size:
            cv2.polylines(canvas, [np.rint(line.points).astype(np.int32)], False, line.class_id, thickness)
    return canvas


def resize_labels(labels: Labels, size: tuple[int, int], *, blend: bool = False) -> Labels:
    """A map of classes at another (width, height): nearest, or blended as the published code does.

    Example:
        >>> resize_labels(np.array([[0, 2]], np.uint8), (4, 1)).tolist(), resize_labels(
        ...     np.array([[0, 2]], np.uint8), (4, 1), blend=True).tolist()
        ([[0, 0, 2, 2]], [[0, 1, 2, 2]])
    """
    how = cv2.INTER_LINEAR if blend else cv2.INTER_NEAREST
    resized: Labels = cv2.resize(labels, size, interpolation=how)
    return resized


def _list(root: Path, splits: Sequence[str]) -> tuple[dict[FrameKey, _Files], list[Finding]]:
    entries: dict[FrameKey, _Files] = {}
    lone: list[Path] = []
    if root.is_file():
        _list_folder(root)
    for split in splits:
        # One public script reads the validation part from Val/Val.
        folder = next((path for path in (root / split, root / split / split) if (path / "images").is_dir()), None)
        if folder is None:
            continue
        labels = {path.stem: path for path in _list_folder(folder / "labels") if path.suffix == ".json"}
        pictures = [path for path in _list_folder(folder / "images") if path.suffix.lower() in _SUFFIXES]
        for path in sorted(pictures, key=lambda picture: natural_key(picture.name)):
            match = _STEM.fullmatch(path.stem)
            name, number = (match.group(1), int(match.group(2))) if match else (path.stem, 0)
            key = FrameKey(sequence=f"{split}/{name}" if name else split, index=number)
            unique(entries, key, _Files(path, None, labels.pop(path.stem, None)))
        lone += labels.values()
    if not lone:
        return entries, []
    text = f"{len(lone)} label file(s) have no picture, the first is '{printable(lone[0])}'."
    fix = "Unpack the pictures too."
    return entries, [Finding(severity=Severity.WARNING, code="image.missing", message=text, fix=fix)]


def _list_folder(folder: Path) -> list[Path]:
    if folder.is_file():
        raise InputError(
            f"'{printable(folder)}' is a file, the folder of a data set was expected",
            why="A data set is many files.",
            fix="Unpack the archive and give the folder.",
            error_id="input.not-a-folder",
        )
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


@reader("l3d")
def open_l3d(root: Path) -> L3dDataset:
    """Open L3D, all three parts."""
    return L3dDataset(root)


@reader("l3d-train")
def open_train(root: Path) -> L3dDataset:
    """Open the training part of L3D."""
    return L3dDataset(root, name="l3d-train", splits=("Train",))


@reader("l3d-val")
def open_val(root: Path) -> L3dDataset:
    """Open the validation part of L3D."""
    return L3dDataset(root, name="l3d-val", splits=("Val",))


@reader("l3d-broad")
def open_broad(root: Path) -> L3dDataset:
    """Open L3D, all three parts, with lines of 90 px at 1080, for small pictures."""
    return L3dDataset(root, drawing=BROAD_DRAWING, name="l3d-broad")


@reader("l3d-legacy")
def open_legacy(root: Path) -> L3dDataset:
    """Open L3D with landmarks drawn as D2GPLand and SRFT-GaLore draw them."""
    return L3dDataset(root, drawing=LEGACY_DRAWING, name="l3d-legacy")


@reader("l3d-legacy-train")
def open_legacy_train(root: Path) -> L3dDataset:
    """Open the training part of L3D with landmarks drawn as D2GPLand and SRFT-GaLore draw them."""
    return L3dDataset(root, drawing=LEGACY_DRAWING, name="l3d-legacy-train", splits=("Train",))


for _name, _dataset, _summary in (
    ("l3d", "l3d", "The 109 test frames, landmarks drawn at the size of the annotation, lines 30 px at 1080"),
    ("l3d-legacy", "l3d-legacy", "The 109 test frames, landmarks drawn and blended as D2GPLand's code does"),
):
    protocol(
        Protocol(
            name=_name,
            version=1,
            dataset=_dataset,
            summary=_summary,
            source="Pei et al. 2024, D2GPLand",
            select=sequences("Test"),
            expected_frames=SPLITS["Test"],
            alignment=Alignment.NONE,
            unit="none",
            task="landmarks",
        )
    )
