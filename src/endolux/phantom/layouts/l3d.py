"""L3D: laparoscopic liver pictures with ridge, silhouette and ligament as polylines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.geometry.centrelines import chains, thinned
from endolux.phantom.landmarks import Landmark
from endolux.phantom.layouts.base import File, Layout, jpeg, layout, png, to_json
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot
from endolux.types import CameraModel, DepthMap

_SPLITS = {"train": "Train", "validation": "Val", "test": "Test"}
_LABELS = {Landmark.SILHOUETTE: "silhouette", Landmark.LIGAMENT: "ligament", Landmark.RIDGE: "ridge"}
_LINE_AT_1080 = 30


@layout
class L3dLayout(Layout):
    """``{Train,Val,Test}/images/Patient_PPPP_NNNNN.jpg``, ``labels/*.json``, ``depth_AdelaiDepth/*.png``.

    Polylines are the middles of the drawn landmarks, so that readers draw them again as they were. The depth file
    stands where D2GPLand has a network's output and is relative inverse depth, 255 the nearest.
    """

    name = "l3d"
    reader = "l3d"
    summary = "laparoscopic liver with landmark polylines; no metric depth"
    preset = "scared-like"
    defaults: ClassVar[Mapping[str, object]] = {"width": 1920, "height": 1080, "baseline_mm": None, "motion": "still"}
    cameras = tuple(CameraModel)
    quantisation = "landmarks to about a pixel; pictures are JPEG of quality 100; depth is 8-bit and relative"

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        return f"{_SPLITS[settings.split]}/{_patient(number)}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        split = _SPLITS[settings.split]
        name = f"{_patient(shot.sequence)}_{shot.position:05d}"
        width, height = shot.frame.size
        lines = shot.truth.lines
        drawn = polylines(lines) if lines is not None else []
        label: dict[str, object] = {
            "version": "5.0.1",
            "flags": {},
            "shapes": [
                {
                    "label": _LABELS[landmark],
                    "points": points.tolist(),
                    "group_id": None,
                    "shape_type": "linestrip",
                    "flags": {},
                }
                for landmark, points in drawn
            ],
            "imagePath": f"../images/{name}.jpg",
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        yield f"{split}/depth_AdelaiDepth/{name}.png", png(_relative(shot.depth))
        yield f"{split}/labels/{name}.json", to_json(label)
        yield f"{split}/images/{name}.jpg", jpeg(shot.frame.image)


def _patient(number: int) -> str:
    # Four digits: the published code takes names with _25, _29, _31 or _36 for pictures of 4K.
    return f"Patient_{number + 1:04d}"


def _relative(depth: DepthMap) -> npt.NDArray[np.uint8]:
    inverse = np.where(depth.valid, 1.0 / np.maximum(depth.values, 1e-3), 0.0)
    return np.rint(255.0 * inverse / max(float(inverse.max()), 1e-9)).astype(np.uint8)


def polylines(lines: npt.NDArray[np.uint8]) -> list[tuple[Landmark, npt.NDArray[np.float64]]]:
    """Middles of drawn landmarks as polylines, in drawing order: silhouette, ligament, ridge.

    Args:
        lines: H x W map of ``Landmark``.

    Example:
        >>> import numpy as np
        >>> drawn = np.zeros((108, 192), np.uint8)
        >>> drawn[40:43, 20:150] = 1
        >>> [(landmark, points)] = polylines(drawn)
        >>> landmark.name, points[:, 1].tolist()
        ('RIDGE', [41.0, 41.0])
    """
    height = lines.shape[0]
    width = max(1, round(_LINE_AT_1080 * height / 1080))
    found = []
    for landmark in _LABELS:
        thin = thinned(lines == landmark)
        for chain in chains(thin):
            if len(chain) >= max(2, width // 2):
                # A quarter of a pixel of slack keeps the file small and the line where it is.
                kept = cv2.approxPolyDP(np.array(chain, np.int32)[:, None], 0.75, closed=False)[:, 0]
                found.append((landmark, kept.astype(np.float64)))
    return found
