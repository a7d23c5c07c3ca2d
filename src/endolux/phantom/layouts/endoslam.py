"""EndoSLAM's UnityCam: stomach, small intestine and colon with coarse inverse depth in eight bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override

from endolux.phantom.layouts.base import File, Layout, View, engine_numbers, layout, png, rows
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot
from endolux.types import DepthMap

CODE_TIMES_MM = 1000.0
"""A code c stands for a depth of 1000 / c mm; readers only know it as relative."""
_ORGANS = {"stomach": "Stomach", "small-intestine": "Small Intestine", "colon": "Colon"}
_SIDE = 320


@layout
class EndoslamUnityLayout(Layout):
    """``UnityCam/ORGAN/{Frames,Pixelwise Depths,Poses,Calibration}``; at most three sequences, one an organ."""

    name = "endoslam-unity"
    reader = "endoslam-unity"
    summary = "rendered stomach, small intestine and colon with 8-bit inverse depth, poses"
    preset = "endoslam-like"
    defaults: ClassVar[Mapping[str, object]] = {"width": _SIDE, "height": _SIDE}
    quantisation = "depth 1000 / code mm, code rounded to 1..255: half a code, 5 % at 100 mm; beyond 2 m none"

    @override
    def arrange(self, changes: Mapping[str, object]) -> dict[str, object]:
        frames, wanted = changes.get("frames", 100), changes.get("anatomies")
        organs = len(_organs(wanted)) if isinstance(wanted, Mapping) else len(_ORGANS)
        # Every organ gets an equal share.
        return {"sequence_frames": -(-frames // max(organs, 1)) if isinstance(frames, int) and frames > 0 else 1}

    @override
    def check(self, settings: StreamSettings) -> None:
        super().check(settings)
        organs = _organs(settings.anatomies)
        if len(organs) < len(settings.anatomies):
            other = sorted(set(settings.anatomies) - set(organs))[0]
            raise self.impossible(
                f"the anatomy '{other}'", "Its reader knows three organs by name.", f"Use {', '.join(_ORGANS)}."
            )
        if settings.sequences > len(organs):
            longest = -(-settings.frames // len(organs))
            raise self.impossible(
                f"{settings.sequences} sequences of {len(organs)} organ(s)",
                "Its reader knows organs by name, one sequence each.",
                f"Use --sequence-frames {longest} or more.",
            )

    @override
    def narrowed(self, number: int, settings: StreamSettings) -> StreamSettings:
        return settings.model_copy(update={"anatomies": {_organs(settings.anatomies)[number]: 1.0}})

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        return _name(number, settings).lower()

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        folder = f"UnityCam/{_name(shot.sequence, settings)}"
        grey = depth_codes(shot.depth)
        yield f"{folder}/Pixelwise Depths/aov_image_{shot.position:04d}.png", png(np.stack([grey] * 3, axis=2))
        yield f"{folder}/Frames/image_{shot.position:04d}.png", png(shot.frame.image)

    @override
    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        folder = f"UnityCam/{_name(number, settings)}"
        numbers = [engine_numbers(view.pose) for view in views]
        table = np.stack([np.concatenate(parts) for parts in numbers])
        header = "tX,tY,tZ,rX,rY,rZ,rW\n"
        name = _name(number, settings).lower().replace(" ", "_")
        yield f"{folder}/Poses/{name}_position_rotation.csv", (header + rows(table, separator=",")).encode()
        # The matrix is that of pictures of 320 x 320, whatever their size here.
        yield f"{folder}/Calibration/cam.txt", rows(views[0].camera.resize(_SIDE, _SIDE).matrix).encode()


def _organs(anatomies: Mapping[str, object]) -> list[str]:
    return [organ for organ in _ORGANS if anatomies.get(organ)]


def _name(number: int, settings: StreamSettings) -> str:
    return _ORGANS[_organs(settings.anatomies)[number]]


def depth_codes(depth: DepthMap) -> np.ndarray:
    """H x W uint8: 1000 mm / z, large is near; 0 where there is none."""
    raw = np.rint(CODE_TIMES_MM / np.maximum(depth.values.astype(np.float64), 1e-3))
    return np.where(depth.valid, np.where(raw > 255, 0, raw), 0).astype(np.uint8)
