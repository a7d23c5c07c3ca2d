"""Hamlyn, rectified as Endo-Depth-and-Motion publishes it: stereo pictures as JPEG, depth in whole millimetres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import File, Layout, View, codes, jpeg, layout, png, rows
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot


@layout
class HamlynLayout(Layout):
    """``rectifiedNN/{image01,image02}/N.jpg``, ``{depth01,depth02}/N.png``, ``intrinsics.txt``, ``extrinsics.txt``."""

    name = "hamlyn"
    reader = "hamlyn"
    summary = "rectified stereo laparoscopy, JPEG pictures, depth in whole mm"
    preset = "scared-like"
    defaults: ClassVar[Mapping[str, object]] = {
        "width": 640,
        "height": 480,
        "baseline_mm": 5.5,
        "scope": {"camera": {"models": {"pinhole": 1}}},
    }
    stereo = True
    quantisation = "depth 0.5 mm (whole millimetres); pictures are JPEG of quality 100; poses are not stored"

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        return f"rectified{number + 1:02d}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        folder, name = self.sequence(shot.sequence, settings), f"{shot.position:010d}"
        # 0 means no value, so what is nearer than half a millimetre cannot be said.
        yield f"{folder}/depth01/{name}.png", png(codes(shot.depth, per_mm=1.0, largest=65535))
        if shot.right is not None:
            yield f"{folder}/depth02/{name}.png", png(codes(shot.right.depth, per_mm=1.0, largest=65535))
            yield f"{folder}/image02/{name}.jpg", jpeg(shot.right.frame.image)
        yield f"{folder}/image01/{name}.jpg", jpeg(shot.frame.image)

    @override
    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        folder, first = self.sequence(number, settings), views[0]
        matrix = np.concatenate([first.camera.matrix, np.zeros((3, 1))], axis=1)
        to_right = np.eye(4)
        to_right[0, 3] = -first.baseline_mm
        yield f"{folder}/intrinsics.txt", rows(matrix).encode()
        yield f"{folder}/extrinsics.txt", rows(to_right).encode()
