"""Endolux's own folder: every output of a frame, without loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from typing_extensions import override

from endolux.geometry.cameras import camera_to_dict
from endolux.phantom.layouts.base import File, Layout, layout, npy, png, to_json
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import FlowArray, Shot
from endolux.types import CameraModel, FloatArray, MaskArray

CODES_PER_MM = 100.0
FLOW_CODES_PER_PX = 64.0
FLOW_ZERO = 32768
NORMAL_ZERO = 32767
OUTPUTS = ("valid", "normals", "labels", "lines", "specular", "flow")
"""Outputs that may be left out; images, depth and poses are always written."""


@layout
class FolderLayout(Layout):
    """``images``, ``depth``, ``valid``, ``normals``, ``labels``, ``flow``, ``poses``, each with ``NNNNNN``.

    ========== ================================================================================================
    ``images`` PNG, RGB
    ``depth``  ``.npy``, float32 z in mm, NaN where nothing is known; or 16-bit PNG, 0.01 mm a code
    ``valid``  PNG, 255 where depth is known
    ``normals`` 16-bit PNG, channels x y z in camera axes, (code - 32767) / 32767
    ``labels`` PNG, semantic classes (``endolux.phantom.labels``)
    ``lines``  PNG, 1 ridge, 2 silhouette, 3 ligament, where the scene has landmarks
    ``specular`` PNG, 255 on highlights
    ``flow``   16-bit PNG, channels u v valid, (code - 32768) / 64 px to the next frame
    ``poses``  JSON, camera-to-world in mm, intrinsics with distortion, time
    ``right``  the second lens: images, depth, labels, with --baseline
    ========== ================================================================================================
    """

    name = "folder"
    reader = "folder"
    summary = "every output of a frame, depth as float32 without loss"
    cameras = tuple(CameraModel)
    quantisation = "depth none (float32), or 0.005 mm with 16-bit codes; normals 3e-5; flow 1/128 px"
    depth_format = "npy"

    def __init__(self, depth_format: str = "npy", outputs: tuple[str, ...] | None = None) -> None:
        self.depth_format = depth_format
        self.outputs = frozenset(outputs) if outputs is not None else frozenset(OUTPUTS)

    @override
    def check(self, settings: StreamSettings) -> None:
        del settings

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        return f"sequence-{number:06d}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        name = shot.frame.name
        for output, (folder, suffix, encode) in _MAPS.items():
            if output in self.outputs:
                data = encode(shot)
                if data is not None:
                    yield f"{folder}/{name}{suffix}", data
        yield f"poses/{name}.json", to_json(_record(shot, self.sequence(shot.sequence, settings)))
        if shot.right is not None:
            yield from self._depth("right/depth", name, shot.right.depth.values, shot.right.depth.valid)
            yield f"right/labels/{name}.png", png(shot.right.labels)
            yield f"right/images/{name}.png", png(shot.right.frame.image)
        yield from self._depth("depth", name, shot.depth.values, shot.depth.valid)
        yield f"images/{name}.png", png(shot.frame.image)

    @override
    def manifest(self) -> dict[str, object]:
        own: dict[str, object] = {"depth_format": self.depth_format, "outputs": sorted(self.outputs)}
        return own | ({"codes_per_mm": CODES_PER_MM} if self.depth_format == "png" else {})

    def _depth(self, folder: str, name: str, values: FloatArray, valid: np.ndarray) -> Iterator[File]:
        if self.depth_format == "png":
            codes = np.clip(np.rint(values * CODES_PER_MM), 1, 65535)
            yield f"{folder}/{name}.png", png(np.where(valid, codes, 0).astype(np.uint16))
        else:
            yield f"{folder}/{name}.npy", npy(np.where(valid, values, np.float32(np.nan)).astype(np.float32))


def encode_flow(flow: FlowArray) -> np.ndarray:
    """H x W x 3 uint16 codes of a flow field: u, v, valid. What is farther than 511 px is left out.

    Example:
        >>> encode_flow(np.array([[[1.5, -2.0], [np.nan, 0.0]]], np.float32)).tolist()
        [[[32864, 32640, 1], [0, 0, 0]]]
    """
    # NaN is below nothing.
    known: MaskArray = np.asarray((np.abs(flow) < 511).all(axis=2))
    raw = np.rint(np.where(known[..., None], flow, 0.0) * FLOW_CODES_PER_PX) + FLOW_ZERO
    return np.concatenate([np.where(known[..., None], raw, 0), known[..., None]], axis=2).astype(np.uint16)


def encode_normals(normals: FloatArray) -> np.ndarray:
    """H x W x 3 uint16 codes of unit vectors.

    Example:
        >>> encode_normals(np.array([[[0.0, 0.0, -1.0]]], np.float32)).tolist()
        [[[32767, 32767, 0]]]
    """
    return (np.rint(np.clip(normals, -1.0, 1.0) * NORMAL_ZERO) + NORMAL_ZERO).astype(np.uint16)


def _flow(shot: Shot) -> bytes | None:
    return None if shot.flow is None else png(encode_flow(shot.flow))


def _extra(name: str) -> Callable[[Shot], bytes | None]:
    def encode(shot: Shot) -> bytes | None:
        found = getattr(shot.truth, name, None)
        if found is None:
            return None
        return png(found.astype(np.uint8) * 255 if found.dtype == bool else found.astype(np.uint8))

    return encode


_MAPS: Mapping[str, tuple[str, str, Callable[[Shot], bytes | None]]] = {
    "valid": ("valid", ".png", lambda shot: png(shot.depth.valid.astype(np.uint8) * 255)),
    "normals": ("normals", ".png", lambda shot: png(encode_normals(shot.truth.normals))),
    "labels": ("labels", ".png", lambda shot: png(shot.truth.labels)),
    "lines": ("lines", ".png", _extra("lines")),
    "specular": ("specular", ".png", _extra("specular")),
    "flow": ("flow", ".png", _flow),
}


def _record(shot: Shot, sequence: str) -> dict[str, object]:
    return {
        "index": shot.frame.index,
        "sequence": sequence,
        "position": shot.position,
        "pts_s": shot.frame.pts_s,
        "camera_to_world_mm": shot.pose.tolist(),
        "baseline_mm": shot.baseline_mm or None,
        "camera": camera_to_dict(shot.camera),
    }
