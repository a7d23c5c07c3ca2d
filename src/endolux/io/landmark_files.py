"""Files of landmarks: class masks, polylines, and pictures to look at."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.video.stream import VideoStream

from endolux.errors import InputError
from endolux.geometry.centrelines import centrelines
from endolux.io.segments import SegmentedVideo
from endolux.io.tables import write_bytes_atomic
from endolux.types import Frame, ImageArray, LandmarkMap

COLOURS: Final = ((0, 0, 0), (230, 40, 40), (40, 200, 60), (60, 110, 255), (240, 200, 40), (200, 60, 220))
"""Of classes, RGB: ridge red, silhouette green, ligament blue, as D2GPLand draws them; further ones repeat."""
_LARGEST = 1280
_LEGEND_PX = 14
_TIME_BASE = Fraction(1, 90_000)


def write_mask(path: Path, landmarks: LandmarkMap) -> None:
    """Class numbers as an 8-bit PNG, which ``endolux evaluate`` takes.

    Raises:
        UsageError, DeviceError: the folder cannot be written, the disk is full.
    """
    _, data = cv2.imencode(".png", landmarks.labels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    write_bytes_atomic(path, data.data)


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """What :func:`write_mask` wrote.

    Raises:
        InputError: ``mask.damaged``.
    """
    mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(
            f"'{path}' is no mask of classes",
            why="One 8-bit class number a pixel is expected.",
            fix="Remove the output folder and segment again.",
            error_id="mask.damaged",
        )
    return np.asarray(mask, np.uint8)


def polylines(landmarks: LandmarkMap) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Middles of the landmarks as (class, N x 2 points in pixels), class by class, longest first."""
    return [
        (name, line)
        for number, name in enumerate(landmarks.classes)
        if number
        for line in centrelines(landmarks.labels == number)
    ]


def write_polylines(path: Path, landmarks: LandmarkMap, *, picture: str) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Polylines as JSON in the layout of L3D's labels (that of labelme); returns them.

    Raises:
        UsageError, DeviceError: the folder cannot be written, the disk is full.
    """
    lines = polylines(landmarks)
    height, width = landmarks.labels.shape
    document = {
        "version": "5.0.1",
        "flags": {},
        "shapes": [
            {"label": name, "points": points.tolist(), "group_id": None, "shape_type": "linestrip", "flags": {}}
            for name, points in lines
        ],
        "imagePath": picture,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    write_bytes_atomic(path, (json.dumps(document) + "\n").encode())
    return lines


def overlay(image: ImageArray, landmarks: LandmarkMap) -> ImageArray:
    """The picture with its landmarks in colours over it and their names in a corner.

    Args:
        image: H x W x 3 uint8 RGB.
        landmarks: of the same size.

    Example:
        >>> labels = np.zeros((60, 80), np.uint8)
        >>> labels[10] = 1
        >>> found = LandmarkMap(
        ...     labels=labels, classes=("none", "ridge"), probability=np.ones((60, 80), np.float32),
        ...     valid=np.ones((60, 80), bool),
        ... )
        >>> overlay(np.full((60, 80, 3), 90, np.uint8), found)[10, 70].tolist()
        [181, 57, 57]
    """
    table = np.array([colour_of(number) for number in range(256)], np.uint8)
    drawn = landmarks.labels > 0
    result = image.copy()
    mixed = image[drawn].astype(np.uint16) * 35 + table[landmarks.labels[drawn]].astype(np.uint16) * 65
    result[drawn] = (mixed // 100).astype(np.uint8)
    scale = max(0.4, image.shape[0] / 720)
    for number, name in enumerate(landmarks.classes):
        if number == 0:
            continue
        place = (round(8 * scale), round((8 + _LEGEND_PX) * scale * number))
        cv2.putText(result, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(result, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, colour_of(number), 1, cv2.LINE_AA)
    return result


def colour_of(number: int) -> tuple[int, int, int]:
    """RGB of a class.

    Example:
        >>> colour_of(0), colour_of(6) == colour_of(1)
        ((0, 0, 0), True)
    """
    return COLOURS[0] if number == 0 else COLOURS[1 + (number - 1) % (len(COLOURS) - 1)]


def write_overlay(path: Path, frame: Frame, landmarks: LandmarkMap) -> None:
    """:func:`overlay` as a PNG of the frame's size.

    Raises:
        UsageError, DeviceError: the folder cannot be written, the disk is full.
    """
    _, data = cv2.imencode(".png", overlay(frame.image, landmarks)[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    write_bytes_atomic(path, data.data)


class OverlayVideo:
    """``overlay.mp4``: H.264, at most 1280 pixels wide or high, the source's time stamps. Continues an earlier one.

    Args:
        path: the video.
        size: (width, height) of the frames.
        fps: where frames carry no time stamps.

    Attributes:
        next_index: the frame that comes next; earlier ones are there.
    """

    def __init__(self, path: Path, *, size: tuple[int, int], fps: float | None) -> None:
        scale = min(1.0, _LARGEST / max(size))
        self._size = tuple(max(2, round(side * scale) // 2 * 2) for side in size)
        self._video = SegmentedVideo(
            path,
            configure=self._configure,
            time_base=_TIME_BASE,
            frame_s=1.0 / fps if fps else 0.04,
            tags={"kind": "landmarks"},
            resume=True,
        )
        self.next_index = self._video.next_index

    def write(self, frame: Frame, landmarks: LandmarkMap) -> None:
        """Append a frame; frames that are there already are skipped, left-out numbers become black."""
        if frame.index < self.next_index:
            return
        while self.next_index < frame.index:
            self.write_failed(self.next_index)
        self._append(overlay(frame.image, landmarks), frame.pts_s)

    def write_failed(self, index: int) -> None:
        """Append a black frame for one that could not be read."""
        if index >= self.next_index:
            self._append(np.zeros((self._size[1], self._size[0], 3), np.uint8), None)

    def close(self) -> None:
        """Put the video in place."""
        self._video.close()

    def abort(self) -> None:
        """Stop early, keep what is finished."""
        self._video.abort()

    def _append(self, picture: ImageArray, pts_s: float | None) -> None:
        width, height = self._size
        if picture.shape[:2] != (height, width):
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
        self._video.write(av.VideoFrame.from_ndarray(planes, format="yuv420p"), pts_s=pts_s)
        self.next_index += 1

    def _configure(self, container: OutputContainer) -> VideoStream:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = self._size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # OpenCV converts with the BT.601 matrix in limited range.
        context.colorspace, context.color_range = 5, 1
        context.thread_count = 1
        context.options = {"preset": "ultrafast", "crf": "23", "bf": "0", "g": "50"}
        return stream
