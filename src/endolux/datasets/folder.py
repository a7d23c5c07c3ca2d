"""Users' own pictures with depth in a plain folder, and folders that the phantom writes.

Layouts, not recursive::

    FOLDER/images/NAME.png  FOLDER/depth/NAME.png       equal stems
    FOLDER/NAME.png         FOLDER/NAME_depth.png       side by side

Depth files hold 16-bit codes or floats in millimetres (for disparity: any unit). How many codes make a millimetre is
said by ``dataset.json`` in the folder, for example ``{"codes_per_mm": 100, "kind": "depth", "camera": {...}}``, or by
the ``manifest.json`` of a phantom. 0 and NaN mean "no value". ``poses/NAME.json``, ``labels/NAME.png`` as the phantom
writes them are read where they are.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Finding, FrameKey, Protocol, Sample, protocol, reader
from endolux.datasets.decode import damaged, decode_image, matrix_of, metric_depth, read_bytes, read_json, wrong_size
from endolux.datasets.findings import lone_depths
from endolux.datasets.listing import DepthDataset, Entry, unique
from endolux.datasets.pairs import files_by_stem
from endolux.datasets.splits import every_frame
from endolux.datasets.stored import DEPTH_SUFFIXES, read_values
from endolux.errors import InputError, UsageError
from endolux.geometry.cameras import camera_from_dict
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.io.sources import natural_key
from endolux.types import Camera, DepthKind, DepthMap, Frame

DESCRIPTION = "dataset.json"
KINDS = {
    "depth": DepthKind.METRIC,
    "relative-depth": DepthKind.RELATIVE_DEPTH,
    "disparity": DepthKind.RELATIVE_DISPARITY,
}
"""What ``kind`` in a description may say."""

_STEM = re.compile(r"(.*?)[_.-]?(\d+)")
_LAYOUT = "images/NAME.png with depth/NAME.png, or NAME.png beside NAME_depth.png"


@dataclasses.dataclass(frozen=True, slots=True)
class _Files(Entry):
    pose: Path | None = None
    label: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the numbers of a folder mean.

    Attributes:
        kind: METRIC for depth in mm (after ``codes_per_mm``).
        codes_per_mm: codes of a whole-number file in a millimetre; needed for METRIC codes.
        camera: intrinsics of every picture that has its size, None if unknown.
    """

    kind: DepthKind = DepthKind.METRIC
    codes_per_mm: float | None = None
    camera: Camera | None = None

    def __post_init__(self) -> None:
        scale = self.codes_per_mm
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise UsageError(
                f"Impossible depth scale {scale}",
                why="It is the number of codes in one millimetre, positive and finite.",
                fix="For example 100 for steps of 0.01 mm, 1 for whole millimetres.",
                error_id="dataset.depth-scale",
            )


class FolderDataset(DepthDataset[_Files]):
    """A folder of pictures with depth. Sequences and numbers come from names: ``left_0012`` is frame 12 of ``left``.

    Args:
        root: folder.
        description: what the numbers mean; read from the folder where None.

    Raises:
        InputError: ``dataset.empty``, ``dataset.ambiguous``, ``input.missing``, ``input.not-a-folder``,
            ``dataset.description`` for a damaged description; from ``load``, ``dataset.depth-scale`` for codes of an
            unknown unit.
    """

    def __init__(self, root: Path, *, description: Description | None = None) -> None:
        entries, findings = _list(root)
        self.description = description or read_description(root)
        super().__init__(name="folder", root=root, entries=entries, layout=_LAYOUT, findings=findings)

    @override
    def read(self, key: FrameKey, entry: _Files) -> Sample:
        image = read_pixels(entry.image)
        height, width = image.shape[:2]
        pose, camera = _read_pose(entry.pose)
        camera = camera or self.description.camera
        if camera is not None and (camera.width, camera.height) != (width, height):
            camera = None
        frame = Frame(image=image, index=self.position(key), name=str(key), camera=camera)
        depth: DepthMap | None = None
        excluded: dict[str, int] = {}
        if entry.depth is not None:
            depth, excluded = read_reference(entry.depth, self.description, camera=camera)
        labels = {}
        if entry.label is not None:
            plane = decode_image(read_bytes(entry.label), printable(entry.label))
            if plane.shape != (height, width) or plane.dtype != np.uint8:
                size = (plane.shape[1], plane.shape[0])
                raise wrong_size(printable(entry.label), size, (width, height), "its picture")
            labels["labels"] = np.asarray(plane, np.uint8)
        return Sample(key=key, frame=frame, depth=depth, pose=pose, labels=labels, excluded=excluded)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        entry = self.entry(key)
        return [*super().files(key), *(path for path in (entry.pose, entry.label) if path is not None)]


def read_reference(
    path: Path, description: Description, *, camera: Camera | None = None
) -> tuple[DepthMap, dict[str, int]]:
    """A reference depth map, and the counts of values that cannot be a depth.

    Raises:
        InputError: as :func:`endolux.datasets.stored.read_values`; ``dataset.depth-scale`` for codes of unknown unit.
    """
    values, stored, whole = read_values(path)
    if description.kind is DepthKind.METRIC and whole:
        if description.codes_per_mm is None:
            raise InputError(
                f"The unit of '{printable(path)}' is not stated",
                why="It holds whole numbers; how many make a millimetre cannot be seen from it.",
                fix=f'Write {{"codes_per_mm": 100}} (or what is true) into {DESCRIPTION} beside the files.',
                error_id="dataset.depth-scale",
            )
        values = values / description.codes_per_mm
    values[~stored] = np.nan
    depth, excluded = metric_depth(values, camera=camera)
    if description.kind is not DepthKind.METRIC:
        depth = dataclasses.replace(depth, kind=description.kind)
    return depth, excluded


def read_description(root: Path) -> Description:
    """What the folder says of its numbers; a bare :class:`Description` where it says nothing.

    Raises:
        InputError: ``dataset.description``.
    """
    for name in (DESCRIPTION, "manifest.json"):
        path = root / name
        if not path.is_file():
            continue
        content = read_json(path)
        if name == "manifest.json" and not (isinstance(content, dict) and "codes_per_mm" in content):
            continue
        if not isinstance(content, dict):
            raise _bad_description(path, "it is not a JSON object")
        unknown = sorted(set(content) - {"kind", "codes_per_mm", "camera"})
        if unknown and name == DESCRIPTION:
            raise _bad_description(path, f"it has no entry {unknown[0]!r}")
        kind, scale, camera = content.get("kind", "depth"), content.get("codes_per_mm"), content.get("camera")
        if kind not in KINDS:
            raise _bad_description(path, f"'kind' is one of {', '.join(KINDS)}")
        if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0):
            raise _bad_description(path, "'codes_per_mm' is a positive number")
        return Description(
            kind=KINDS[kind],
            codes_per_mm=scale,
            camera=None if camera is None else camera_from_dict(camera, name=printable(path)),
        )
    return Description()


def key_of(stem: str) -> FrameKey:
    """Sequence and number from a file name without its ending.

    Example:
        >>> key_of("left_0012"), key_of("0007"), key_of("polyp")
        (FrameKey(sequence='left', index=12, side=''), FrameKey(sequence='frames', index=7, side=''), \
FrameKey(sequence='polyp', index=0, side=''))
    """
    match = _STEM.fullmatch(stem)
    return (
        FrameKey(sequence=match.group(1) or "frames", index=int(match.group(2)))
        if match
        else FrameKey(sequence=stem, index=0)
    )


def _list(root: Path) -> tuple[dict[FrameKey, _Files], list[Finding]]:
    images, depths = files_by_stem(root, DEPTH_SUFFIXES)
    if not depths:
        return {}, []
    entries: dict[FrameKey, _Files] = {}
    for stem in sorted(images, key=natural_key):
        pose, label = root / "poses" / f"{stem}.json", root / "labels" / f"{stem}.png"
        entry = _Files(
            images[stem], depths.get(stem), pose if pose.is_file() else None, label if label.is_file() else None
        )
        unique(entries, key_of(stem), entry)
    return entries, lone_depths([path for stem, path in depths.items() if stem not in images])


def _read_pose(path: Path | None) -> tuple[npt.NDArray[np.float64] | None, Camera | None]:
    if path is None:
        return None, None
    content, name = read_json(path), printable(path)
    if not isinstance(content, dict) or "camera_to_world_mm" not in content:
        raise damaged(name, "it holds no 'camera_to_world_mm'")
    camera = content.get("camera")
    pose = matrix_of(content["camera_to_world_mm"], (4, 4), f"camera_to_world_mm of '{name}'")
    return pose, None if camera is None else camera_from_dict(camera, name=name)


def _bad_description(path: Path, why: str) -> InputError:
    return InputError(
        f"'{printable(path)}' does not describe a folder of depth: {why}",
        why="It says what the numbers of the depth files mean, so nothing in it may be guessed.",
        fix='For example {"kind": "depth", "codes_per_mm": 100}.',
        error_id="dataset.description",
    )


@reader("folder")
def open_folder(root: Path) -> FolderDataset:
    """Open a folder of pictures with depth."""
    return FolderDataset(root)


protocol(
    Protocol(
        name="folder",
        version=1,
        dataset="folder",
        summary="Every pair of a folder of one's own, median scaling",
        source="This package; compares with nothing published",
        select=every_frame,
    )
)
