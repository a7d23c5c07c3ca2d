"""SCARED: da Vinci stereo video of nine porcine scenes, depth by structured light and interpolation.

Read are the raw release and what others made of it, each keyframe folder for itself:

=============  ============================================  ==================================================
layout         image of frame i (from 1)                     depth of frame i
=============  ============================================  ==================================================
``raw``        ``data/rgb.mp4`` frame i - 1, left above      ``data/scene_points[.tar.gz]`` number i - 1
               right
``af``         ``image_02/data/%010d.png`` i                 ``image_02/data/groundtruth/scene_points%06d.tiff``
                                                             i - 1, or ``image_02/data/depth`` i (converted)
``extracted``  ``data/left/frame_data%06d.png`` i - 1        ``data/scene_points/scene_points%06d.tiff`` i - 1
``rectified``  ``data/left_finalpass`` i - 1                 ``data/disparity`` and ``data/reprojection_data`` i - 1
``scared-c``   ``data/rgb_frames[.tar.gz]`` i                ``data/scene_points[.tar.gz]`` i, left view only
=============  ============================================  ==================================================

A frame has one identity in all of them: the sequence as the published lists write it (``dataset3/keyframe4``) and the
frame counted from 1 as they do. Index 0 is the structured-light still (``Left_Image.png``, ``left_depth_map.tiff``).
Data sets 8 and 9 count their keyframe folders from 0; the lists, and so the sequences here, count from 1.

Point maps hold X, Y, Z in mm, NaN (keyframes) or 0 (interpolated) where there is no point; depth is Z. ``camera-pose``
is world-to-camera, the world being the keyframe's camera; samples carry its inverse.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import Dataset, Finding, FrameKey, Sample, reader
from endolux.datasets.decode import codes_of, decode_image, metric_depth, read_bytes, read_json, wrong_size
from endolux.datasets.scared_cameras import (
    camera_of,
    depth_of_disparity,
    parse_frame_data,
    pose_of,
    read_calibration,
    read_reprojection,
)
from endolux.datasets.scared_check import check_scared
from endolux.datasets.scared_files import Numbered, path_exists
from endolux.datasets.scared_layouts import LAYOUTS, SequenceFiles, keyframe_folders, open_sequence
from endolux.datasets.scared_points import read_left_depth
from endolux.datasets.scared_splits import KEYFRAME
from endolux.errors import InputError, UsageError
from endolux.io.images import to_rgb8
from endolux.io.paths import printable
from endolux.types import Camera, DepthMap, Frame, ImageArray

CODES_PER_MM = 100
"""Codes of one millimetre in the 16-bit depth files of a converted folder."""

CONVERSION_FILE = "conversion.json"
"""Says what a converted folder was made from."""

_DISPARITY_SCALE = 256.0


class Scared(Dataset):
    """A folder with keyframe folders of SCARED, in any of the layouts above.

    Args:
        root: holds ``dataset_N`` folders, directly or inside one more level (``train``, ``test``).
        layout: read every keyframe folder as this layout; by default each shows its own.

    Raises:
        InputError: missing folder or a file (``input.*``), nothing of SCARED in it (``dataset.layout``), one sequence
            in two places (``dataset.ambiguous``).
        UsageError: an unknown layout (``scared.layout``).
    """

    name = "scared"

    def __init__(self, root: Path, *, layout: str | None = None) -> None:
        if layout is not None and layout not in LAYOUTS:
            raise UsageError(
                f"Unknown layout {layout!r} of SCARED",
                why="SCARED is read in the forms that its users have it.",
                fix=f"Use one of: {', '.join(LAYOUTS)}.",
                error_id="scared.layout",
            )
        self.root = Path(root)
        self.sequences: dict[str, SequenceFiles] = {}
        for name, folder in keyframe_folders(self.root):
            sequence = open_sequence(name, folder, layout)
            if sequence is None:
                continue
            if name in self.sequences:
                raise InputError(
                    f"'{name}' lies in '{printable(self.sequences[name].folder)}' and in '{printable(folder)}'",
                    why="Frames are named by their sequence, which must be unique.",
                    fix="Open one of the two copies.",
                    error_id="dataset.ambiguous",
                )
            self.sequences[name] = sequence
        if not self.sequences:
            raise InputError(
                f"No SCARED data in '{printable(self.root)}'" + (f" in layout {layout!r}" if layout else ""),
                why="It holds no dataset_N/keyframe_M folders with pictures or point maps.",
                fix="Give the folder that holds dataset_1, dataset_2, ... (or dataset1/keyframe1/image_02/data).",
                error_id="dataset.layout",
            )

    @functools.cached_property
    def _keys(self) -> tuple[FrameKey, ...]:
        return tuple(
            FrameKey(sequence=name, index=index, side="left")
            for name, sequence in sorted(self.sequences.items())
            for index in sequence.indices()
        )

    @functools.cached_property
    def _present(self) -> frozenset[FrameKey]:
        return frozenset(self._keys)

    @override
    def keys(self) -> Sequence[FrameKey]:
        return self._keys

    @override
    def neighbours(self, key: FrameKey, offsets: Sequence[int] = (-1, 1)) -> list[FrameKey | None]:
        # The still is no neighbour of the video's first frame: it was taken under the projector's light.
        others = [dataclasses.replace(key, index=key.index + offset) for offset in offsets]
        return [
            other if other in self._present and other.index != KEYFRAME and key.index != KEYFRAME else None
            for other in others
        ]

    @override
    def load(self, key: FrameKey) -> Sample:
        sample = self.view(key)
        depth, excluded = self.depth(key, camera=sample.frame.camera, size=sample.frame.size)
        return dataclasses.replace(sample, depth=depth, excluded=excluded)

    @override
    def view(self, key: FrameKey) -> Sample:
        sequence = self._sequence(key)
        image = self.image(key)
        size = image.shape[1], image.shape[0]
        content = self.frame_data(key)
        camera, pose = self._camera(sequence, key, content, size), None
        if key.index == KEYFRAME:
            pose = np.eye(4)
        elif content is not None:
            pose = pose_of(*content)
        frame = Frame(image=image, index=key.index, name=str(key), camera=camera)
        return Sample(key=key, frame=frame, pose=pose)

    def image(self, key: FrameKey) -> ImageArray:
        """The left picture of a frame, H x W x 3 RGB. Raises InputError."""
        sequence = self._sequence(key)
        if key.index == KEYFRAME and sequence.still_files:
            return _rgb(read_bytes(_still_image(sequence)), printable(_still_image(sequence)))
        if sequence.images is not None:
            number = key.index - sequence.first
            return _rgb(sequence.images.read(number), sequence.images.name(number))
        if sequence.video is None:
            raise _no_frame(key)
        return sequence.video.read(key.index - 1)

    def depth(
        self, key: FrameKey, *, camera: Camera | None = None, size: tuple[int, int] | None = None
    ) -> tuple[DepthMap | None, dict[str, int]]:
        """Left depth in mm and the counts of impossible values; None where the sequence has no depth at all.

        Args:
            key: the frame.
            camera: attached to the depth.
            size: (width, height) of the picture, which the depth must have.

        Raises:
            InputError: missing or damaged file, or another size (``dataset.size``).
        """
        sequence = self._sequence(key)
        number = key.index - sequence.first_points
        values: npt.NDArray[np.float32] | npt.NDArray[np.float64]
        if key.index == KEYFRAME and sequence.still_files:
            path = sequence.folder / "left_depth_map.tiff"
            name, values = printable(path), read_left_depth(read_bytes(path), printable(path))
        elif sequence.points is not None:
            name = sequence.points.name(number)
            values = read_left_depth(sequence.points.read(number), name)
        elif sequence.codes is not None:
            name = sequence.codes.name(number)
            values = _codes_mm(sequence.codes, number)
        elif sequence.disparities is not None:
            name = sequence.disparities.name(number)
            values = depth_of_disparity(_disparity(sequence.disparities, number), self._reprojection(sequence, number))
        else:
            return None, {}
        if size is not None and values.shape != (size[1], size[0]):
            raise wrong_size(name, (values.shape[1], values.shape[0]), size, "the picture")
        return metric_depth(values, camera=camera)

    def frame_data(self, key: FrameKey) -> tuple[dict[str, object], str] | None:
        """The ``frame_data`` JSON of a frame and its name; None if the sequence, or the still, has none."""
        files = self._sequence(key).frame_data
        if files is None or key.index == KEYFRAME:
            return None
        number = key.index - self._sequence(key).first
        return parse_frame_data(files.read(number), files.name(number)), files.name(number)

    @override
    def files(self, key: FrameKey) -> Sequence[Path]:
        sequence = self._sequence(key)
        if key.index == KEYFRAME and sequence.still_files:
            stills = [_still_image(sequence), sequence.folder / "left_depth_map.tiff"]
            return stills + ([sequence.calibration] if sequence.calibration else [])
        number, depth_number = key.index - sequence.first, key.index - sequence.first_points
        parts: list[Path] = []
        if sequence.images is not None:
            parts.append(sequence.images.file(number))
        elif sequence.video is not None:
            parts.append(sequence.video.path)
        if sequence.depth_files is not None:
            parts.append(sequence.depth_files.file(depth_number))
        if key.index != KEYFRAME:
            extra = (sequence.frame_data, sequence.reprojections)
            parts += [files.file(number) for files in extra if files is not None]
        return parts + ([sequence.calibration] if sequence.calibration else [])

    @override
    def check(self) -> list[Finding]:
        return list(check_scared(self))

    def _sequence(self, key: FrameKey) -> SequenceFiles:
        sequence = self.sequences.get(key.sequence)
        if sequence is None or key.side not in ("", "left") or (key.index == KEYFRAME and not sequence.still):
            raise _no_frame(key)
        return sequence

    def _camera(
        self,
        sequence: SequenceFiles,
        key: FrameKey,
        content: tuple[dict[str, object], str] | None,
        size: tuple[int, int],
    ) -> Camera | None:
        if sequence.layout == "rectified" and key.index != KEYFRAME:
            if sequence.reprojections is None:
                return None
            q = self._reprojection(sequence, key.index - sequence.first)
            return Camera(width=size[0], height=size[1], fx=q[2, 3], fy=q[2, 3], cx=-q[0, 3], cy=-q[1, 3])
        camera = camera_of(content[0], size, content[1]) if content is not None else None
        if camera is None and sequence.calibration is not None:
            camera = read_calibration(sequence.calibration, size)
        return camera

    def _reprojection(self, sequence: SequenceFiles, number: int) -> npt.NDArray[np.float64]:
        if sequence.reprojections is None:
            raise InputError(
                f"'{printable(sequence.folder)}' has disparity without data/reprojection_data",
                why="Without its matrix Q a disparity is no depth.",
                fix="Copy reprojection_data as well, or read the raw release.",
                error_id="dataset.missing-pair",
            )
        return read_reprojection(sequence.reprojections.file(number))


@reader("scared")
def open_scared(root: Path) -> Scared:
    """Open a SCARED folder in whatever layout it has; see ``Scared``.

    Raises:
        InputError: as ``Scared``; ``scared.corrected`` for SCARED-C, whose depth is another reference.
    """
    data = Scared(root)
    if _converted_from(data.root) == "scared-c" or any(s.layout == "scared-c" for s in data.sequences.values()):
        raise InputError(
            f"'{printable(data.root)}' is SCARED-C, with corrected poses and depth",
            why="Figures against it do not compare with figures against the released depth, so it has its own name.",
            fix="Open it as scared-c, and score it with the protocol scared-c.",
            error_id="scared.corrected",
        )
    return data


class ScaredCorrected(Scared):
    """SCARED-C (arXiv 2605.16628): frames and depth with corrected poses. Not the corruption benchmark of that name."""

    name = "scared-c"

    def __init__(self, root: Path) -> None:
        super().__init__(root, layout="af" if _converted_from(Path(root)) == "scared-c" else "scared-c")


@reader("scared-c")
def open_scared_corrected(root: Path) -> ScaredCorrected:
    """Open a SCARED-C folder; see ``ScaredCorrected``."""
    return ScaredCorrected(root)


def _converted_from(root: Path) -> object:
    """Layout that a converted folder was made from; None for any other folder."""
    path = root / CONVERSION_FILE
    if not path_exists(path):
        return None
    content = read_json(path)
    return content.get("layout") if isinstance(content, dict) else None


def _still_image(sequence: SequenceFiles) -> Path:
    return sequence.folder / "Left_Image.png"


def _rgb(data: bytes, name: str) -> ImageArray:
    pixels = decode_image(data, name)
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        rgb: ImageArray = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        return rgb
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, 2::-1]
    return to_rgb8(pixels, name=name)


def _codes_mm(files: Numbered, number: int) -> npt.NDArray[np.float64]:
    name = files.name(number)
    if files.file(number).suffix.lower() == ".npy":
        return _npy(files.file(number)).astype(np.float64)
    return codes_of(decode_image(files.read(number), name), name) / float(CODES_PER_MM)


def _npy(path: Path) -> npt.NDArray[np.generic]:
    try:
        array: npt.NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"Cannot read '{printable(path)}'",
            why=f"The array is damaged: {' '.join(str(error).split())}.",
            fix="Convert this frame again.",
            error_id="dataset.damaged",
        ) from error
    if array.ndim != 2 or array.dtype != np.float32:
        raise InputError(
            f"'{printable(path)}' holds {array.shape} {array.dtype}; H x W float32 millimetres are expected",
            why="A converted folder holds one depth a pixel.",
            fix="Convert this frame again.",
            error_id="dataset.depth-bits",
        )
    return np.array(array)


def _disparity(files: Numbered, number: int) -> npt.NDArray[np.float64]:
    name = files.name(number)
    pixels = decode_image(files.read(number), name)
    if pixels.ndim == 2 and pixels.dtype == np.float32:
        return pixels.astype(np.float64)
    return codes_of(pixels, name) / _DISPARITY_SCALE


def _no_frame(key: FrameKey) -> InputError:
    return InputError(
        f"There is no frame '{key}' in this copy of SCARED",
        why="The sequence is missing, or holds no such frame.",
        fix="List the frames with keys(); frames count from 1, and index 0 is the structured-light still.",
        error_id="dataset.no-frame",
    )
