"""SERV-CT: 16 rectified stereo pairs of two porcine torsos, depth from CT registered to the picture.

On disk: ``Experiment_1`` (001 to 008) and ``Experiment_2`` (009 to 016), each with ``Left_rectified``,
``Right_rectified``, ``Rectified_calibration/NNN.json`` (P1, P2, Q in pixels and mm) and ``Ground_truth_CT`` with
``DepthL``, ``DepthR``, ``Disparity``, ``OcclusionL``, ``OcclusionR``; Experiment_2 also has ``Ground_truth_RGB``
(surface scanner). Depth and disparity are 16-bit PNG, value / 256 in mm and pixels, 0 = none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Dataset, Finding, FrameKey, Sample, Severity, reader
from endolux.datasets.decode import (
    damaged,
    decode_image,
    folders,
    matrix_of,
    metric_depth,
    numbered_files,
    read_bytes,
    read_codes,
    read_json,
    wrong_size,
)
from endolux.datasets.listing import key_order, no_frame, pinhole
from endolux.errors import EndoluxError, InputError, UsageError
from endolux.io.images import read_pixels
from endolux.io.paths import printable
from endolux.types import Camera, Frame

CODES_PER_UNIT = 256
"""Codes of one millimetre of depth, and of one pixel of disparity."""
OCCLUSION: tuple[str, ...] = ("visible", "no-reference", "no-overlap", "occluded")
"""Meaning of the numbers of the label ``occlusion``."""

_Reference = Literal["CT", "RGB"]
_EXPERIMENT = re.compile(r"Experiment_(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)\.png")
_PUBLISHED = {"Experiment_1": range(1, 9), "Experiment_2": range(9, 17)}
# RGB colours of the occlusion images, in the order of OCCLUSION.
_COLOURS = {(0, 0, 255): 1, (255, 255, 0): 2, (255, 0, 0): 3, (0, 255, 0): 3}
_SIDES = {
    "left": ("Left_rectified", "DepthL", "OcclusionL", "P1"),
    "right": ("Right_rectified", "DepthR", "OcclusionR", "P2"),
}


class ServCT(Dataset):
    """A SERV-CT folder. Frames are numbered 1 to 16 as the files are, left before right.

    Args:
        root: holds ``Experiment_1`` and ``Experiment_2``, directly or one level deeper.
        reference: ``CT``, or ``RGB`` for the surface scans that Experiment_2 has besides.

    Raises:
        InputError: missing folder or a file (``input.*``), or no SERV-CT data in it (``dataset.layout``).
        UsageError: another reference (``servct.reference``).
    """

    name = "servct"

    def __init__(self, root: Path, *, reference: _Reference = "CT") -> None:
        if reference not in ("CT", "RGB"):
            raise UsageError(
                f"Unknown reference {reference!r} of SERV-CT",
                why="Depth comes from CT, and for Experiment_2 also from a surface scanner.",
                fix="Use CT or RGB.",
                error_id="servct.reference",
            )
        self.root = Path(root)
        self.reference = reference
        level = folders(self.root)
        found = [f for f in level if _EXPERIMENT.fullmatch(f.name)]
        found = found or [f for parent in level for f in folders(parent) if _EXPERIMENT.fullmatch(f.name)]
        self._experiments = {f"Experiment_{int(f.name.rsplit('_', 1)[1])}": f for f in found}
        self._images: dict[FrameKey, Path] = {}
        for sequence, folder in sorted(self._experiments.items()):
            if reference == "RGB" and not (folder / "Ground_truth_RGB").is_dir():
                continue
            for side, (images, *_) in _SIDES.items():
                if (folder / images).is_dir():
                    for number, path in numbered_files(folder / images, _NUMBER).items():
                        self._images[FrameKey(sequence=sequence, index=number, side=side)] = path
        if not self._images:
            raise InputError(
                f"No SERV-CT data in '{printable(self.root)}'",
                why="It holds no Experiment_N/Left_rectified with numbered PNG files"
                + (" beside a Ground_truth_RGB." if reference == "RGB" else "."),
                fix="Give the folder that holds Experiment_1 and Experiment_2.",
                error_id="dataset.layout",
            )

    @functools.cached_property
    def _keys(self) -> tuple[FrameKey, ...]:
        return tuple(sorted(self._images, key=key_order))

    @override
    def keys(self) -> Sequence[FrameKey]:
        return self._keys

    @override
    def load(self, key: FrameKey) -> Sample:
        image = read_pixels(self._image(key))
        size = image.shape[1], image.shape[0]
        camera = self.camera(key, size)
        values, source = self._depth_mm(key)
        if values.shape != (size[1], size[0]):
            raise wrong_size(printable(source), (values.shape[1], values.shape[0]), size, "the picture")
        depth, excluded = metric_depth(values, camera=camera)
        occlusion = self._part(key, _SIDES[key.side][2])
        labels = {"occlusion": _occlusion(occlusion, size)} if occlusion.is_file() else {}
        frame = Frame(image=image, index=key.index, name=str(key), camera=camera)
        return Sample(key=key, frame=frame, depth=depth, labels=labels, excluded=excluded)

    def camera(self, key: FrameKey, size: tuple[int, int]) -> Camera | None:
        """The rectified camera of a frame; None without calibration file. Raises InputError where it is damaged."""
        matrix = self._projection(key, _SIDES[key.side][3])
        return None if matrix is None else pinhole(*size, matrix)

    def baseline_mm(self, key: FrameKey) -> float | None:
        """Distance of the two cameras in mm, from P2; None without calibration file."""
        matrix = self._projection(key, "P2")
        return None if matrix is None else abs(float(matrix[0, 3] / matrix[0, 0]))

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        parts = [self._image(key), self._part(key, _SIDES[key.side][1])]
        if not parts[1].is_file():
            parts[1] = self._part(key, "Disparity")
        optional = [self._part(key, _SIDES[key.side][2]), self._calibration(key)]
        return parts + [path for path in optional if path.is_file()]

    @override
    def check(self) -> list[Finding]:
        return list(self._check())

    def _image(self, key: FrameKey) -> Path:
        if key not in self._images:
            fix = "Frames are 1 to 8 in Experiment_1 and 9 to 16 in Experiment_2, left and right."
            raise no_frame(key, "SERV-CT", fix)
        return self._images[key]

    def _part(self, key: FrameKey, name: str) -> Path:
        folder = self._experiments[key.sequence] / f"Ground_truth_{self.reference}" / name
        return folder / self._image(key).name

    def _calibration(self, key: FrameKey) -> Path:
        return self._experiments[key.sequence] / "Rectified_calibration" / f"{self._image(key).stem}.json"

    def _projection(self, key: FrameKey, name: str) -> npt.NDArray[np.float64] | None:
        path = self._calibration(key)
        if not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or name not in content:
            raise damaged(printable(path), f"it holds no matrix {name}")
        return matrix_of(content[name], (3, 4), f"{name} of '{printable(path)}'")

    def _depth_mm(self, key: FrameKey) -> tuple[npt.NDArray[np.float64], Path]:
        path, disparity = self._part(key, _SIDES[key.side][1]), self._part(key, "Disparity")
        if path.is_file() or key.side == "right" or not disparity.is_file():
            # A missing file is told here, by its name.
            return read_codes(path) / float(CODES_PER_UNIT), path
        return self.depth_of_disparity(key), disparity

    def depth_of_disparity(self, key: FrameKey) -> npt.NDArray[np.float64]:
        """Left depth in mm from the disparity file: focal length x baseline / (disparity + cx_right - cx_left).

        Raises:
            InputError: no disparity or no calibration file (``servct.calibration``).
        """
        left, right = self._projection(key, "P1"), self._projection(key, "P2")
        if left is None or right is None:
            raise InputError(
                f"No calibration for '{key}'",
                why="Disparity becomes depth with the focal length and the baseline.",
                fix=f"Copy '{printable(self._calibration(key))}' from the data set.",
                error_id="servct.calibration",
            )
        disparity = read_codes(self._part(key, "Disparity")) / float(CODES_PER_UNIT)
        # Points at infinity differ by the principal points; rectified pairs with equal ones have no such offset.
        offset = float(right[0, 2] - left[0, 2])
        with np.errstate(divide="ignore"):
            depth = abs(float(right[0, 3])) / (disparity + offset)
        depth[disparity == 0] = np.nan
        return depth

    def _check(self) -> Iterator[Finding]:
        for sequence, numbers in _PUBLISHED.items():
            if self.reference == "RGB" and sequence == "Experiment_1":
                continue
            for side in _SIDES:
                present = {key.index for key in self._keys if key.sequence == sequence and key.side == side}
                if present != set(numbers):
                    absent = sorted(set(numbers) - present)
                    yield Finding(
                        severity=Severity.WARNING,
                        code="count.frames",
                        message=f"{sequence}, {side}: {len(present)} pictures, 8 are published"
                        + (f"; missing {', '.join(map(str, absent))}." if absent else "."),
                        fix="Copy the data set again.",
                    )
        for key in self._keys:
            try:
                yield from self._check_frame(key)
            except EndoluxError as error:
                yield Finding(
                    severity=Severity.ERROR, code=error.error_id, message=f"{key}: {error.what}", fix=error.fix
                )

    def _check_frame(self, key: FrameKey) -> Iterator[Finding]:
        sample = self.load(key)
        if sample.depth is None:
            return
        valid = sample.depth.valid
        if not valid.any():
            yield Finding(severity=Severity.WARNING, code="depth.empty", message=f"{key}: no pixel has a depth.")
            return
        middle = float(np.median(sample.depth.values[valid]))
        if not 5.0 <= middle <= 250.0:
            yield Finding(
                severity=Severity.ERROR,
                code="depth.unit",
                message=f"{key}: the median depth is {middle:.4g} mm if the codes are divided by 256.",
                fix="Use the original 16-bit files.",
            )
        if sample.frame.camera is None:
            yield Finding(severity=Severity.WARNING, code="camera.missing", message=f"{key}: no calibration file.")
        elif key.side == "left" and self._part(key, "Disparity").is_file():
            other = self.depth_of_disparity(key)
            both = valid & np.isfinite(other) & (other > 0)
            if both.any():
                ratio = float(np.median(other[both] / sample.depth.values[both]))
                if abs(ratio - 1.0) > 0.02:
                    yield Finding(
                        severity=Severity.WARNING,
                        code="depth.inconsistent",
                        message=f"{key}: depth from disparity is {ratio:.3f} times the depth file (median).",
                        fix="The calibration, the depth or the disparity is of another frame or version of the set.",
                    )


@reader("servct")
def open_servct(root: Path) -> ServCT:
    """Open a SERV-CT folder with CT reference; see ``ServCT``."""
    return ServCT(root)


def _occlusion(path: Path, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    pixels = decode_image(read_bytes(path), printable(path))
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise damaged(printable(path), "it is no colour picture")
    if pixels.shape[:2] != (size[1], size[0]):
        raise wrong_size(printable(path), (pixels.shape[1], pixels.shape[0]), size, "the picture")
    rgb = pixels[:, :, 2::-1]
    codes = np.zeros(rgb.shape[:2], np.uint8)
    for colour, code in _COLOURS.items():
        codes[(rgb == np.array(colour, np.uint8)).all(axis=2)] = code
    return codes
