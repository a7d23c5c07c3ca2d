"""C3VD as PPSNet scores it: undistorted to a pinhole camera, a square from the centre, at 384 x 384.

Source: Paruchuri et al. 2024, "Leveraging near-field lighting for monocular depth estimation from endoscopy videos".
The pinhole camera is the published one. Pictures are brought to 518 on their shorter side before the square is cut, the
order in common use for networks of that input; the depth map is cut the same way, by nearest pixels, and reduced to
384 x 384.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.datasets.base import FrameKey, Sample, reader
from endolux.datasets.c3vd import SIZE, C3vdDataset, omnidirectional_as_fisheye
from endolux.datasets.decode import wrong_size
from endolux.types import Camera, DepthMap, Frame, ImageArray, MaskArray

CAMERA = Camera(width=SIZE[0], height=SIZE[1], fx=770.66, fy=770.44, cx=674.76, cy=549.18)
"""Pinhole camera of the undistorted pictures, as published."""
INPUT, SCORED = 518, 384


class C3vdPpsnetDataset(C3vdDataset):
    """C3VD undistorted and cut; pictures are 518 x 518, references 384 x 384.

    The set's omnidirectional model is followed through the fish-eye model fitted to it. Pixels that look past the edge
    of the original are black, and invalid in the reference.

    Args:
        root: folder.

    Raises:
        InputError: as :class:`endolux.datasets.c3vd.C3vdDataset`; from ``load``, ``dataset.size`` for another size than
            the published one.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, name="c3vd-ppsnet")

    @override
    def load(self, key: FrameKey) -> Sample:
        sample = super().load(key)
        if sample.frame.size != SIZE:
            raise wrong_size(f"a frame of '{self.name}'", sample.frame.size, SIZE, "the published size")
        image, _ = undistort(sample.frame.image, nearest=False)
        frame = Frame(
            image=np.asarray(_square(image, INPUT, nearest=False), np.uint8),
            index=sample.frame.index,
            name=sample.frame.name,
            camera=_square_camera(INPUT),
        )
        depth = sample.depth
        if depth is not None:
            pinhole, inside = undistort(np.where(depth.valid, depth.values, np.float32(0)), nearest=True)
            values = _square(_square(pinhole, INPUT, nearest=True), SCORED, nearest=True).astype(np.float32)
            seen = _square(_square(inside, INPUT, nearest=True), SCORED, nearest=True).astype(np.bool_)
            valid = (values > 0) & seen
            depth = DepthMap(
                values=np.where(valid, values, np.float32(0)),
                kind=depth.kind,
                valid=valid,
                camera=_square_camera(SCORED),
            )
        return dataclasses.replace(sample, frame=frame, depth=depth)


def undistort(
    pixels: npt.NDArray[np.generic] | ImageArray, *, nearest: bool
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8]]:
    """A fish-eye picture or map of the published size as the pinhole camera sees it, and 1 where it had pixels.

    z-depth stays what it is: the two cameras share their centre and axis.
    """
    source = omnidirectional_as_fisheye()
    coefficients = np.array(source.distortion, np.float64)
    maps = cv2.fisheye.initUndistortRectifyMap(
        _matrix(source), coefficients, np.eye(3), _matrix(CAMERA), SIZE, cv2.CV_32FC1
    )
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    inside = (maps[0] >= 0) & (maps[0] <= SIZE[0] - 1) & (maps[1] >= 0) & (maps[1] <= SIZE[1] - 1)
    return cv2.remap(pixels, maps[0], maps[1], how), inside.astype(np.uint8)


def _matrix(camera: Camera) -> npt.NDArray[np.float64]:
    return np.array([[camera.fx, 0.0, camera.cx], [0.0, camera.fy, camera.cy], [0.0, 0.0, 1.0]])


def _square(pixels: npt.NDArray[np.generic] | MaskArray, side: int, *, nearest: bool) -> npt.NDArray[np.generic]:
    height, width = pixels.shape[:2]
    short = min(height, width)
    if short != side:
        size = (round(width * side / short), round(height * side / short))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _square_camera(side: int) -> Camera:
    width = round(SIZE[0] * side / SIZE[1])
    return CAMERA.resize(width, side).crop((width - side) // 2, 0, side, side)


@reader("c3vd-ppsnet")
def open_ppsnet(root: Path) -> C3vdPpsnetDataset:
    """Open C3VD undistorted and cut as PPSNet scores it."""
    return C3vdPpsnetDataset(root)
