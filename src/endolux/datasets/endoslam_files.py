"""Files of EndoSLAM's UnityCam: which picture, depth, poses and calibration belong together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from endolux.datasets.base import Finding, FrameKey
from endolux.datasets.decode import folders, numbered_files
from endolux.datasets.findings import lone_depths
from endolux.datasets.listing import Entry

ORGANS = {"stomach": 1_548, "small intestine": 12_558, "colon": 21_887}
"""Organs and the number of their frames as Surgical Depth Anything prints them."""
LAYOUT = "UnityCam/Stomach/Frames/image_0000.png with UnityCam/Stomach/Pixelwise Depths/aov_image_0000.png"

_IMAGE, _DEPTH = re.compile(r"image_(\d+)\.(?:png|jpg)"), re.compile(r"aov_image_(\d+)\.png")
_IMAGE_FOLDERS = ("Frames", "Frames/Frames", "eval_frame", "frames")
_DEPTH_FOLDERS = (
    "Pixelwise Depths", "Pixelwise_Depths", "Pixelwise Depths/Pixelwise Depths",
    "Pixelwise_Depths/Pixelwise_Depths", "eval_depth", "depths",
)  # fmt: skip
_CALIBRATION = ("camera_intrinsics.txt", "Calibration/cam.txt", "../Calibration/cam.txt")


@dataclasses.dataclass(frozen=True, slots=True)
class OrganFiles(Entry):
    """Files of one frame.

    Attributes:
        poses: table of the organ's poses, None without one.
        calibration: camera matrix, None without one.
    """

    poses: Path | None = None
    calibration: Path | None = None


def list_organs(root: Path) -> tuple[dict[FrameKey, OrganFiles], list[Finding]]:
    """Frames of every organ below a folder, and depth files without a picture."""
    below = folders(root)
    unity = root / "UnityCam"
    if unity.is_dir():
        below = folders(unity)
    entries: dict[FrameKey, OrganFiles] = {}
    findings: list[Finding] = []
    for folder in [root, *below]:
        images = _numbered(folder, _IMAGE_FOLDERS, _IMAGE)
        if not images:
            continue
        organ = _organ(folder)
        depths = _numbered(folder, _DEPTH_FOLDERS, _DEPTH)
        calibration = next((folder / name for name in _CALIBRATION if (folder / name).is_file()), None)
        poses = next(iter(sorted((folder / "Poses").glob("*_position_rotation.csv"))), None)
        for number, image in images.items():
            key = FrameKey(sequence=organ, index=number)
            entries[key] = OrganFiles(image, depths.get(number), poses, calibration)
        findings += lone_depths([path for number, path in depths.items() if number not in images])
    return entries, findings


def _numbered(folder: Path, names: Sequence[str], pattern: re.Pattern[str]) -> dict[int, Path]:
    for name in names:
        if (folder / name).is_dir():
            found = numbered_files(folder / name, pattern)
            if found:
                return found
    return {}


def _organ(folder: Path) -> str:
    name = folder.resolve().name
    plain = re.sub(r"[\W_]+", " ", name).strip().lower()
    return next((organ for organ in sorted(ORGANS, key=len, reverse=True) if organ in plain), name)
