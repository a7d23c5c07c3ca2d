"""ColonDepth: pictures of 256 x 256 with depth in eight bits, no cameras and no poses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import File, Layout, codes, layout, png
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot
from endolux.types import CameraModel

MM_AT_FULL_SCALE = 200.0
_KINDS = 9


@layout
class ColonDepthLayout(Layout):
    """``T1_L1/T1_L1_1_resized_FrameBuffer_NNNN.png`` and ``..._Depth_NNNN.png``: texture, light, sub-sequence."""

    name = "colondepth"
    reader = "colondepth"
    summary = "rendered colonoscopy, depth in 8 bits up to 200 mm"
    preset = "endoslam-like"
    defaults: ClassVar[Mapping[str, object]] = {
        "width": 256,
        "height": 256,
        "anatomies": {"colon": 1.0},
        "motion": "withdrawal",
    }
    cameras = tuple(CameraModel)
    quantisation = "depth 0.39 mm (codes of 200/255 mm), none beyond 200 mm; cameras and poses are not stored"

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        kind, part = _kind(number)
        return f"{kind}/{part}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        kind, part = _kind(shot.sequence)
        stem = f"{kind}/{kind}_{part}_resized"
        plane = codes(shot.depth, per_mm=255.0 / MM_AT_FULL_SCALE, largest=255, dtype=np.uint8)
        yield f"{stem}_Depth_{shot.position:04d}.png", png(np.stack([plane] * 3, axis=2))
        yield f"{stem}_FrameBuffer_{shot.position:04d}.png", png(shot.frame.image)


def _kind(number: int) -> tuple[str, int]:
    part, kind = divmod(number, _KINDS)
    return f"T{kind // 3 + 1}_L{kind % 3 + 1}", part + 1
