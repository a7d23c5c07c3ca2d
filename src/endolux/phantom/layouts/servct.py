"""SERV-CT: rectified stereo pairs with depth, disparity, occlusion and a calibration file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.geometry.cameras import project, rays
from endolux.phantom.layouts.base import File, Layout, codes, layout, png, to_json
from endolux.phantom.presets import StreamSettings
from endolux.phantom.render import PhantomFrame
from endolux.phantom.streams import Shot

CODES_PER_UNIT = 256.0
_PAIRS = 8
# RGB colours of what a pixel's partner is.
_COLOURS = {"visible": (0, 0, 0), "no-reference": (0, 0, 255), "no-overlap": (255, 255, 0), "occluded": (255, 0, 0)}


@layout
class ServCtLayout(Layout):
    """``Experiment_E/{Left,Right}_rectified/NNN.png``, ``Ground_truth_CT``, ``Rectified_calibration``; 8 pairs each."""

    name = "servct"
    reader = "servct"
    summary = "rectified stereo pairs of abdominal organs, depth and disparity in 1/256, occlusion"
    preset = "scared-like"
    defaults: ClassVar[Mapping[str, object]] = {
        "width": 720,
        "height": 576,
        "baseline_mm": 5.0,
        "motion": "still",
        "views_per_scene": _PAIRS,
        "scope": {"camera": {"models": {"pinhole": 1}}},
    }
    stereo = True
    quantisation = "depth 1/512 mm, none beyond 255.99 mm; disparity 1/512 px; poses are not stored"

    @override
    def check(self, settings: StreamSettings) -> None:
        super().check(settings)
        if settings.per_sequence != _PAIRS:
            raise self.impossible(
                f"sequences of {settings.per_sequence} pairs",
                "An experiment of the set has eight, numbered on.",
                f"Use --views-per-scene {_PAIRS} (or --sequence-frames {_PAIRS} with a motion).",
            )

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        return f"Experiment_{number + 1}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        folder = self.sequence(shot.sequence, settings)
        name, truth = f"{shot.sequence * _PAIRS + shot.position + 1:03d}", f"{folder}/Ground_truth_CT"
        right = shot.right
        if right is None:
            raise ValueError("a layout of pairs was given a single picture")
        yield f"{folder}/Rectified_calibration/{name}.json", to_json(_calibration(shot))
        yield f"{truth}/DepthL/{name}.png", png(codes(shot.depth, per_mm=CODES_PER_UNIT, largest=65535))
        yield f"{truth}/DepthR/{name}.png", png(codes(right.depth, per_mm=CODES_PER_UNIT, largest=65535))
        yield f"{truth}/Disparity/{name}.png", png(_disparity(shot))
        yield f"{truth}/OcclusionL/{name}.png", png(_occlusion(shot.truth, right))
        yield f"{truth}/OcclusionR/{name}.png", png(_occlusion(right, shot.truth))
        yield f"{folder}/Right_rectified/{name}.png", png(right.frame.image)
        yield f"{folder}/Left_rectified/{name}.png", png(shot.frame.image)


def _calibration(shot: Shot) -> dict[str, object]:
    camera = shot.camera
    left = np.concatenate([camera.matrix, np.zeros((3, 1))], axis=1)
    right = left.copy()
    right[0, 3] = -camera.fx * shot.baseline_mm
    back = [
        [1.0, 0.0, 0.0, -camera.cx],
        [0.0, 1.0, 0.0, -camera.cy],
        [0.0, 0.0, 0.0, camera.fx],
        [0.0, 0.0, 1.0 / shot.baseline_mm, 0.0],
    ]
    return {"P1": left.tolist(), "P2": right.tolist(), "Q": back}


def _disparity(shot: Shot) -> npt.NDArray[np.uint16]:
    depth = np.maximum(shot.depth.values.astype(np.float64), 1e-6)
    raw = np.rint(shot.camera.fx * shot.baseline_mm / depth * CODES_PER_UNIT)
    return np.where(shot.depth.valid & (raw <= 65535), raw, 0).astype(np.uint16)


def _occlusion(own: PhantomFrame, other: PhantomFrame) -> npt.NDArray[np.uint8]:
    """H x W x 3: which pixels the other lens does not see, by projecting them into it."""
    camera = own.frame.camera
    if camera is None:
        raise ValueError("a frame without camera")
    world = rays(camera) * own.depth.values[..., None] @ own.pose[:3, :3].T + own.pose[:3, 3]
    local = ((world - other.pose[:3, 3]) @ other.pose[:3, :3]).reshape(-1, 3)
    shape = own.depth.values.shape
    pixels = project(np.where(local[:, 2:] > 0, local, 1.0), camera).reshape(*shape, 2)
    height, width = shape
    inside = (pixels >= -0.5).all(axis=2) & (pixels[..., 0] < width - 0.5) & (pixels[..., 1] < height - 0.5)
    x, y = (pixels[..., i].astype(np.float32) for i in (0, 1))
    there = cv2.remap(other.depth.values, x, y, cv2.INTER_NEAREST)
    # A slanted wall changes within half a pixel; what hides something else lies clearly before it.
    hidden = inside & (there < 0.97 * local[:, 2].reshape(shape))
    picture = np.zeros((*shape, 3), np.uint8)
    picture[hidden] = _COLOURS["occluded"]
    picture[~inside] = _COLOURS["no-overlap"]
    picture[~own.depth.valid] = _COLOURS["no-reference"]
    return picture
