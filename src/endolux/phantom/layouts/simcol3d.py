"""SimCol3D: rendered colonoscopy, 16-bit depth up to 200 mm, poses of a left-handed engine in cm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import File, Layout, View, codes, engine_numbers, layout, png, rows
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot

FULL_SCALE = 255 * 256
MM_AT_FULL_SCALE = 200.0
_CAMERA = {"width": 475, "height": 475, "fx": 227.6, "fy": 227.6, "cx": 237.5, "cy": 237.5}


@layout
class SimCol3dLayout(Layout):
    """``SyntheticColon_I/Frames_S1/{FrameBuffer,Depth}_NNNN.png`` and ``SyntheticColon_I/Saved*_S1.txt``.

    Files hold no intrinsics; pictures of 475 x 475 have the published camera, others the same resized.
    """

    name = "simcol3d"
    reader = "simcol3d"
    summary = "rendered colonoscopy, 16-bit depth up to 200 mm, poses"
    preset = "endoslam-like"
    defaults: ClassVar[Mapping[str, object]] = {
        "width": 475,
        "height": 475,
        "anatomies": {"colon": 1.0},
        "motion": "withdrawal",
        "scope": {"camera": {"models": {"pinhole": 1}, "fixed": _CAMERA}},
    }
    quantisation = "depth 0.0015 mm (codes of 200/65280 mm; the original has only every 256th); beyond 200 mm none"

    @override
    def check(self, settings: StreamSettings) -> None:
        camera = settings.scope.camera
        if camera is None or camera.fixed is None:
            raise self.impossible(
                "this camera",
                "Its files hold no intrinsics; readers attach the one published camera.",
                "Leave the camera as the layout sets it.",
            )

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        if number < 30:
            return f"{'SB'[number // 15]}{number % 15 + 1}"
        return f"O{number - 29}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        name = self.sequence(shot.sequence, settings)
        folder = f"{_part(name)}/Frames_{name}"
        stored = codes(shot.depth, per_mm=FULL_SCALE / MM_AT_FULL_SCALE, largest=FULL_SCALE)
        yield f"{folder}/Depth_{shot.position:04d}.png", png(stored)
        yield f"{folder}/FrameBuffer_{shot.position:04d}.png", png(shot.frame.image)

    @override
    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        name = self.sequence(number, settings)
        numbers = [engine_numbers(view.pose) for view in views]
        positions = np.stack([position / 10.0 for position, _ in numbers])
        turns = np.stack([turn for _, turn in numbers])
        yield f"{_part(name)}/SavedPosition_{name}.txt", rows(positions).encode()
        yield f"{_part(name)}/SavedRotationQuaternion_{name}.txt", rows(turns).encode()


def _part(name: str) -> str:
    return f"SyntheticColon_{({'S': 'I', 'B': 'II', 'O': 'III'})[name[0]]}"
