"""C3VD: colonoscopy sequences with 16-bit depth up to 100 mm and one pose file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import File, Layout, View, layout, png, rows
from endolux.phantom.layouts.folder import encode_normals
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot
from endolux.types import CameraModel, DepthMap

CODES_PER_MM = 65535.0 / 100.0
CAPPED_CODE = 65535
_SEGMENTS = ("cecum", "trans", "sigmoid", "desc")


@layout
class C3vdLayout(Layout):
    """``SEGMENT_tT_a/NNNN_color.png``, ``NNNN_depth.tiff``, ``NNNN_normals.tiff``, ``pose.txt``.

    Pictures of 1350 x 1080 have the published fisheye camera, others the same resized; files do not say it.
    """

    name = "c3vd"
    reader = "c3vd"
    summary = "colonoscopy through the C3VD fisheye, 16-bit depth up to 100 mm, poses"
    preset = "c3vd-like"
    defaults: ClassVar[Mapping[str, object]] = {"width": 1350, "height": 1080}
    cameras = (CameraModel.FISHEYE,)
    quantisation = "depth is rounded down to 1/655.35 mm; 100 mm and beyond is capped and left out by readers"

    @override
    def check(self, settings: StreamSettings) -> None:
        camera = settings.scope.camera
        if camera is None or camera.fixed is None or camera.fixed.model is not CameraModel.FISHEYE:
            raise self.impossible(
                "this camera",
                "Its files hold no intrinsics; readers attach the one published camera.",
                "Use the preset c3vd-like, or set scope.camera.fixed as it does.",
            )

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        texture, segment = divmod(number, len(_SEGMENTS))
        return f"{_SEGMENTS[segment]}_t{texture + 1}_a"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        stem = f"{self.sequence(shot.sequence, settings)}/{shot.position:04d}"
        yield f"{stem}_depth.tiff", _tiff16(depth_codes(shot.depth))
        yield f"{stem}_normals.tiff", _tiff16(encode_normals(shot.truth.normals))
        yield f"{stem}_color.png", png(shot.frame.image)

    @override
    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        # Sixteen numbers a line, the matrix column by column.
        poses = np.stack([view.pose.T.reshape(16) for view in views])
        yield f"{self.sequence(number, settings)}/pose.txt", rows(poses, separator=",").encode()


def depth_codes(depth: DepthMap) -> np.ndarray:
    """H x W uint16: floor(65535 z / 100 mm), 65535 from 100 mm on, 0 where there is none."""
    raw = np.floor(depth.values.astype(np.float64) * CODES_PER_MM)
    return np.where(depth.valid, np.clip(raw, 1, CAPPED_CODE), 0).astype(np.uint16)


def _tiff16(pixels: np.ndarray) -> bytes:
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    _, data = cv2.imencode(".tiff", np.ascontiguousarray(bgr))
    return bytes(data.tobytes())
