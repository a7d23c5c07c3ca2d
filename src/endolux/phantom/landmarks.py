"""Lines on a liver that surgeons go by: ridge, silhouette and ligament, as the L3D data set draws them."""

from __future__ import annotations

import dataclasses
import enum

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.labels import Label
from endolux.types import Camera, FloatArray


class Landmark(enum.IntEnum):
    """Classes of L3D.

    Example:
        >>> Landmark.LIGAMENT.value
        3
    """

    NOTHING = 0
    RIDGE = 1
    SILHOUETTE = 2
    LIGAMENT = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A curve on a surface.

    Attributes:
        landmark: its class.
        points: N x 3 mm, in order.
        cover_mm: so far behind a ligament it still counts as seen: what is attached along it covers it.
    """

    landmark: Landmark
    points: FloatArray
    cover_mm: float = 0.0


def draw(
    lines: tuple[Line, ...],
    camera: Camera,
    pose: npt.NDArray[np.float64],
    depth_mm: FloatArray,
    labels: npt.NDArray[np.uint8],
    *,
    touching: bool = False,
) -> npt.NDArray[np.uint8]:
    """What of the lines one camera sees.

    The silhouette has no curve of its own: it is where the liver ends before something that lies behind it, away
    from the ridge. Lines are 30 pixels wide on an image 1080 pixels high, as in L3D; the ligament lies over the
    silhouette and the ridge over both.

    Args:
        lines: curves of the scene.
        camera: intrinsics.
        pose: camera-to-world, 4 x 4, mm.
        depth_mm: H x W z, 0 where nothing is.
        labels: H x W classes.
        touching: the silhouette also runs where the liver touches the abdominal wall, without a step in depth.

    Returns:
        H x W uint8 of ``Landmark``.
    """
    from endolux.geometry.cameras import project

    canvas = np.zeros(depth_mm.shape, np.uint8)
    width = max(1, round(30 * camera.height / 1080))
    _silhouette(canvas, depth_mm, labels, width, touching=touching)
    ridge = np.zeros_like(canvas)
    for landmark in (Landmark.LIGAMENT, Landmark.RIDGE):
        for line in lines:
            if line.landmark is not landmark:
                continue
            local = (line.points - pose[:3, 3]) @ pose[:3, :3]
            ahead = local[:, 2] > 1.0
            pixels = np.full((len(local), 2), -1.0)
            if ahead.any():
                pixels[ahead] = project(local[ahead], camera)
            seen = ahead & _visible(pixels, local[:, 2], depth_mm)
            if line.cover_mm > 0:
                covered = np.where(labels == Label.LIGAMENT, depth_mm, 0).astype(np.float32)
                seen |= ahead & _visible(pixels, local[:, 2], covered, line.cover_mm)
            target = ridge if landmark is Landmark.RIDGE else canvas
            for k in np.flatnonzero(seen[:-1] & seen[1:]):
                ends = np.round(pixels[k : k + 2]).astype(int)
                value = int(landmark)
                cv2.line(target, tuple(map(int, ends[0])), tuple(map(int, ends[1])), value, width)
    # What the liver's outline shows along its ridge is the ridge, not the silhouette.
    if ridge.any():
        near = cv2.dilate(ridge, np.ones((3 * width, 3 * width), np.uint8)) > 0
        canvas[near & (canvas == Landmark.SILHOUETTE)] = Landmark.NOTHING
        canvas[ridge > 0] = Landmark.RIDGE
    return canvas


def _visible(
    pixels: npt.NDArray[np.floating], z: npt.NDArray[np.floating], depth_mm: FloatArray, slack_mm: float = 1.0
) -> npt.NDArray[np.bool_]:
    height, width = depth_mm.shape
    finite = np.isfinite(pixels).all(axis=1)
    at = np.where(finite[:, None], np.clip(pixels, -9, 1e5), -9).round().astype(int)
    inside = finite & (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    # A line at an edge may fall beside it by a pixel: the deepest neighbour counts.
    deepest = cv2.dilate(depth_mm, np.ones((3, 3), np.uint8))
    here = np.zeros(len(z))
    here[inside] = deepest[at[inside, 1], at[inside, 0]]
    return np.asarray(inside & (here > 0) & (z < 1.02 * here + slack_mm))


def _silhouette(
    canvas: npt.NDArray[np.uint8],
    depth_mm: FloatArray,
    labels: npt.NDArray[np.uint8],
    width: int,
    *,
    touching: bool,
) -> None:
    liver = labels == Label.LIVER
    if not liver.any():
        return
    for axis in (0, 1):
        for step in (1, -1):
            behind = np.roll(depth_mm, step, axis=axis)
            other = np.roll(labels, step, axis=axis)
            edge = liver & (other != Label.LIVER) & (behind > depth_mm + np.maximum(2.0, 0.04 * depth_mm))
            if touching:
                edge |= liver & (other == Label.ABDOMINAL_WALL)
            border = [slice(None), slice(None)]
            border[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            edge[tuple(border)] = False
            canvas[edge] = Landmark.SILHOUETTE
    if width > 1:
        canvas[:] = cv2.dilate(canvas, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
