"""A stream that costs nothing to make: tilted planes in closed form, for tests of what is written and when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from endolux.phantom.presets import StreamSettings
from endolux.phantom.render import PhantomFrame
from endolux.phantom.streams import Shot
from endolux.types import Camera, CameraModel, DepthKind, DepthMap, Frame


def plane(settings: StreamSettings, number: int, position: int, *, shift_mm: float = 0.0) -> PhantomFrame:
    """The plane z = 40 + 3 number + 0.3 x from (0, 0, position), lit from the camera."""
    width, height = settings.width, settings.height
    fixed = settings.scope.camera.fixed if settings.scope.camera is not None else None
    if fixed is not None:
        camera = fixed.at(width, height)
    else:
        camera = Camera(width=width, height=height, fx=50.0, fy=50.0, cx=width / 2, cy=height / 2)
        if settings.scope.camera is not None and CameraModel.RADTAN in settings.scope.camera.models:
            camera = Camera(
                width=width, height=height, fx=50.0, fy=50.0, cx=width / 2, cy=height / 2, model=CameraModel.RADTAN,
                distortion=(0.0, 0.0, 0.0, 0.0, 1e-9),
            )  # fmt: skip
    x = (np.arange(width) - camera.cx) / camera.fx
    row = (40.0 + 3 * number - position + 0.3 * shift_mm) / (1 - 0.3 * np.clip(x, -2, 2))
    depth = np.tile(row, (height, 1)).astype(np.float32)
    grey = 250.0 * (depth.min() / depth) ** 2
    image = np.stack([grey, 0.6 * grey, 0.4 * grey], axis=2).astype(np.uint8)
    image[0, 0] = (number, position, 7)
    pose = np.eye(4)
    pose[:3, 3] = (shift_mm, 0.0, position)
    valid = np.ones((height, width), bool)
    index = number * settings.per_sequence + position
    return PhantomFrame(
        frame=Frame(image=image, index=index, name=f"{index:06d}", camera=camera, valid=valid),
        depth=DepthMap(values=depth, kind=DepthKind.METRIC, valid=valid, camera=camera),
        normals=np.tile(np.array([0.0, 0.0, -1.0], np.float32), (height, width, 1)),
        labels=np.ones((height, width), np.uint8),
        pose=pose,
    )


def planes(settings: StreamSettings, number: int) -> Iterator[Shot]:
    """Stands in for ``streams.sequence``."""
    baseline = settings.baseline_mm
    for position in range(settings.length(number)):
        right = None if baseline is None else plane(settings, number, position, shift_mm=baseline)
        yield Shot(plane(settings, number, position), number, position, right, baseline or 0.0)
