"""LLSD: laparoscopic liver frames with landmarks drawn as coloured masks, the external test set of SRFT-GaLore.

Source: arXiv 2511.03163. The set itself is not public; its layout is known from the loader that reads it: pictures
``images/NAME.png`` and masks ``masks_gt/NAME_convert.png`` in pure red, green and blue. How many frames there are, from
how many sites and patients, is not known (a folder ``patient4`` is).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, Severity, protocol, reader
from endolux.datasets.findings import information
from endolux.datasets.l3d import Labels, resize_labels
from endolux.datasets.listing import Entry, ListedDataset, unique
from endolux.datasets.splits import every_frame
from endolux.errors import InputError
from endolux.geometry.align import Alignment
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Frame

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
"""RGB of background, ridge, silhouette and ligament."""

_IMAGES, _MASKS, _MARK = "images", "masks_gt", "_convert"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_STEM = re.compile(r"(.*?)[_-]?(\d+)")
_LAYOUT = "images/NAME.png and masks_gt/NAME_convert.png, perhaps in one folder a patient"


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    mask: Path | None = None


class LlsdDataset(ListedDataset[_Files]):
    """LLSD on disk. Sequences are the folders of patients, or the names before the frames' numbers.

    Samples have no depth; ``labels["landmarks"]`` is the H x W map of classes at the size of the picture, brought there
    by the nearest pixel. Frames without a mask have no landmarks.

    Args:
        root: folder with ``images`` and ``masks_gt``, or of folders that have them.

    Raises:
        InputError: ``dataset.empty``, ``dataset.ambiguous``, ``input.not-a-folder``.
    """

    def __init__(self, root: Path) -> None:
        entries, findings = _list(root)
        super().__init__(name="llsd", root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def load(self, key: FrameKey) -> Sample:
        entry = self.entry(key)
        frame = Frame(image=read_pixels(entry.image), index=self.position(key), name=str(key))
        if entry.mask is None:
            return Sample(key=key, frame=frame)
        landmarks = read_colours(entry.mask)
        if landmarks.shape != frame.image.shape[:2]:
            landmarks = resize_labels(landmarks, frame.size)
        return Sample(key=key, frame=frame, labels={"landmarks": landmarks})

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        mask = self.entry(key).mask
        return [*super().files(key), *([mask] if mask else [])]

    @override
    def check(self) -> list[Finding]:
        # Depth is not missing here: the set has none.
        return [finding for finding in super().check() if finding.code != "depth.missing"]

    @override
    def check_set(self) -> list[Finding]:
        found: list[Finding] = []
        unlabelled = [key for key in self.keys() if self.entry(key).mask is None]
        if unlabelled:
            text = f"{len(unlabelled)} pictures have no mask, the first is '{unlabelled[0]}'."
            fix = f"Unpack {_MASKS} beside {_IMAGES}; masks are called NAME{_MARK}.png."
            found.append(Finding(severity=Severity.WARNING, code="label.missing", message=text, fix=fix))
        empty = 0
        for key in self.keys():
            mask = self.entry(key).mask
            try:
                empty += mask is not None and not read_colours(mask).any()
            except InputError as error:
                text = f"{key}: {error.what}. {error.why}"
                found.append(Finding(severity=Severity.ERROR, code=error.error_id, message=text, fix=error.fix))
        if empty:
            found.append(
                information("label.empty", f"{empty} masks hold no landmark; their frames are scored as such.")
            )
        return found


def read_colours(path: Path) -> Labels:
    """Class numbers of a mask in pure colours, H x W uint8.

    Raises:
        InputError: damaged file; ``dataset.labels`` for other colours: raw annotations, masks that were saved with
            loss, or resized with blending.

    Example:
        >>> import tempfile, cv2
        >>> file = Path(tempfile.mkdtemp()) / "a_convert.png"
        >>> cv2.imwrite(str(file), np.array([[[0, 0, 0], [0, 0, 255], [255, 0, 0]]], np.uint8))  # BGR
        True
        >>> read_colours(file).tolist()
        [[0, 1, 3]]
    """
    pixels = read_pixels(path).astype(np.int64)
    codes: npt.NDArray[np.int64] = pixels @ np.array([1 << 16, 1 << 8, 1], np.int64)
    landmarks: Labels = np.full(codes.shape, len(COLOURS), np.uint8)
    for number, (red, green, blue) in enumerate(COLOURS):
        landmarks[codes == (red << 16 | green << 8 | blue)] = number
    strange = landmarks == len(COLOURS)
    if strange.any():
        others = np.unique(codes[strange])
        first = int(others[0])
        raise InputError(
            f"'{printable(path)}' has {len(others)} colours that are no landmark, on {int(strange.sum())} pixels; one "
            f"is {(first >> 16, first >> 8 & 255, first & 255)}",
            why="Ridge is pure red, silhouette pure green, ligament pure blue, the rest black.",
            fix="Give the recoloured masks, stored without loss and resized by the nearest pixel.",
            error_id="dataset.labels",
        )
    return landmarks


def _list(root: Path) -> tuple[dict[FrameKey, _Files], list[Finding]]:
    if root.is_file():
        raise InputError(
            f"'{printable(root)}' is a file, the folder of a data set was expected",
            why="A data set is many files.",
            fix="Unpack the archive and give the folder.",
            error_id="input.not-a-folder",
        )
    entries: dict[FrameKey, _Files] = {}
    lone: list[Path] = []
    for folder in (root, *(path for path in _sorted(root) if path.is_dir())):
        # Pictures alone could be any set.
        if not (folder / _IMAGES).is_dir() or not (folder / _MASKS).is_dir():
            continue
        masks = {path.stem.removesuffix(_MARK): path for path in _sorted(folder / _MASKS) if path.stem.endswith(_MARK)}
        for path in _sorted(folder / _IMAGES):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            match = _STEM.fullmatch(path.stem)
            name, number = (match.group(1), int(match.group(2))) if match else (path.stem, 0)
            sequence = "/".join(part for part in ("" if folder == root else folder.name, name) if part)
            unique(entries, FrameKey(sequence=sequence, index=number), _Files(path, None, masks.pop(path.stem, None)))
        lone += masks.values()
    if not lone:
        return entries, []
    text = f"{len(lone)} mask(s) have no picture, the first is '{printable(lone[0])}'."
    fix = "Unpack the pictures too."
    return entries, [Finding(severity=Severity.WARNING, code="image.missing", message=text, fix=fix)]


def _sorted(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(visible, key=lambda path: natural_key(path.name))


@reader("llsd")
def open_llsd(root: Path) -> LlsdDataset:
    """Open LLSD."""
    return LlsdDataset(root)


protocol(
    Protocol(
        name="llsd",
        version=1,
        dataset="llsd",
        summary="Every frame of the folder, for models that were trained on L3D and not tuned on this set",
        source="arXiv 2511.03163; the set and its number of frames are not public",
        select=every_frame,
        alignment=Alignment.NONE,
        unit="none",
        task="landmarks",
    )
)
