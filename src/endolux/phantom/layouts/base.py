"""What a layout on disk is: names and bytes of the files of one sequence, in the order in which they appear."""

from __future__ import annotations

import abc
import dataclasses
import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError
from endolux.phantom.pose import Pose
from endolux.phantom.presets import StreamSettings
from endolux.phantom.streams import Shot
from endolux.types import Camera, CameraModel, DepthMap, ImageArray

File = tuple[str, bytes]
"""Path below the root, with forward slashes, and content."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What is kept of a written frame until its sequence ends.

    Attributes:
        position: number in its sequence.
        pose: camera-to-world, mm.
        camera: intrinsics.
        baseline_mm: distance of the second lens, 0 without one.
    """

    position: int
    pose: Pose
    camera: Camera
    baseline_mm: float


class Layout(abc.ABC):
    """How frames lie on disk under one name.

    Attributes:
        name: registry name, what ``--layout`` takes.
        reader: name of the data set reader that opens the folder.
        summary: one line.
        preset: preset that stands for the set where none is named.
        defaults: settings that the set itself has (size, motion, sequence length), unless others are asked for.
        stereo: whether the set needs a second lens.
        cameras: camera models that its files can say.
        quantisation: how far values read back may lie from the truth, for people.
    """

    name: str
    reader: str
    summary: str
    preset: str = "train"
    defaults: ClassVar[Mapping[str, object]] = {}
    stereo: bool = False
    cameras: tuple[CameraModel, ...] = (CameraModel.PINHOLE,)
    quantisation: str = "none"

    def check(self, settings: StreamSettings) -> None:
        """Refuse what the files cannot hold. Raises UsageError ``phantom.layout-settings``."""
        if self.stereo and settings.baseline_mm is None:
            raise self.impossible("one lens", "The set holds pairs of pictures.", "Give a baseline: --baseline 4.2.")
        camera = settings.scope.camera
        if camera is None or (camera.fixed is None and not set(camera.models) <= set(self.cameras)):
            raise self.impossible(
                "these cameras",
                f"Its files can only say {' or '.join(self.cameras)} cameras.",
                f"Set scope.camera.models to {self.cameras[0]}.",
            )

    def arrange(self, changes: Mapping[str, object]) -> dict[str, object]:
        """Defaults that depend on what is asked for; what is asked for prevails."""
        del changes
        return {}

    def narrowed(self, number: int, settings: StreamSettings) -> StreamSettings:
        """Settings of one sequence, where the set says what it shows."""
        del number
        return settings

    def impossible(self, what: str, why: str, fix: str) -> UsageError:
        """The error for settings that this layout cannot hold."""
        return UsageError(
            f"The layout '{self.name}' cannot hold {what}", why=why, fix=fix, error_id="phantom.layout-settings"
        )

    @abc.abstractmethod
    def sequence(self, number: int, settings: StreamSettings) -> str:
        """Name of a sequence as the reader calls it."""

    @abc.abstractmethod
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        """Files of one frame; the picture that makes a reader see the frame comes last."""

    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        """Files of a sequence as a whole (poses, calibration), which appear before its frames."""
        del number, views, settings
        return iter(())

    def gather(self, number: int, stage: Path, names: Sequence[str], settings: StreamSettings) -> dict[str, list[str]]:
        """Pack files of a sequence into others, where the set has archives or videos.

        Args:
            number: of the sequence.
            stage: folder that holds the files, and takes the packed ones.
            names: all files of the sequence below ``stage``.
            settings: of the run.

        Returns:
            by name of a packed file, in the order in which they appear, the files that it stands for; those vanish.
        """
        del number, stage, names, settings
        return {}

    def root(self, settings: StreamSettings) -> Iterator[File]:
        """Files that belong to no sequence; written first."""
        del settings
        return iter(())

    def manifest(self) -> dict[str, object]:
        """What ``manifest.json`` says besides what it says of every layout."""
        return {}


LAYOUTS: dict[str, Layout] = {}


def layout(kind: Callable[[], Layout]) -> Callable[[], Layout]:
    """Register a layout under its name."""
    made = kind()
    LAYOUTS[made.name] = made
    return kind


def png(pixels: npt.NDArray[np.generic]) -> bytes:
    """A PNG file of grey or RGB pixels, 8 or 16 bits.

    Example:
        >>> png(np.zeros((2, 2), np.uint16))[1:4]
        b'PNG'
    """
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    # Level 1 costs a third of the time of level 3 and a tenth more room.
    _, data = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data.tobytes())


def jpeg(image: ImageArray) -> bytes:
    """A JPEG file of RGB pixels at quality 100 with full colour resolution."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    return bytes(data.tobytes())


def npy(array: npt.NDArray[np.generic]) -> bytes:
    """A ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def to_json(content: object) -> bytes:
    """JSON with every digit of every number."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def rows(matrix: npt.NDArray[np.floating], *, separator: str = " ") -> str:
    r"""Numbers as text without loss, a line a row.

    Example:
        >>> rows(np.eye(2))
        '1.0 0.0\n0.0 1.0\n'
    """
    return "".join(separator.join(repr(float(value)) for value in row) + "\n" for row in np.atleast_2d(matrix))


def float_tiff(values: npt.NDArray[np.float32]) -> bytes:
    """A TIFF file of H x W x C float32, uncompressed, channels interleaved in the order given.

    OpenCV would swap the first and third channel, and points are no colours.
    """
    height, width, channels = values.shape
    data = np.ascontiguousarray(values, "<f4").tobytes()
    entries = (
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 8 + len(data)),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
        (339, 3, channels, 8 + len(data) + 2 * channels),
    )
    tail = struct.pack(f"<{channels}H", *[32] * channels) + struct.pack(f"<{channels}H", *[3] * channels)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + len(tail)) + data + tail + directory + b"\0\0\0\0"


def codes(
    depth: DepthMap, *, per_mm: float, largest: int, beyond: int = 0, dtype: type[np.unsignedinteger] = np.uint16
) -> npt.NDArray[np.unsignedinteger]:
    """H x W nearest codes of depth; 0 where there is none, ``beyond`` where it is larger than the largest code.

    Example:
        >>> import numpy as np
        >>> from endolux.types import DepthKind
        >>> values = np.array([[1.0, 900.0]], np.float32)
        >>> depth = DepthMap(values=values, kind=DepthKind.METRIC, valid=values > 0)
        >>> codes(depth, per_mm=256, largest=65535).tolist()
        [[256, 0]]
    """
    raw = np.rint(depth.values.astype(np.float64) * per_mm)
    raw = np.where(raw > largest, beyond, raw)
    return np.where(depth.valid, raw, 0).astype(dtype)


def engine_numbers(pose: Pose) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Position (3) and quaternion (x y z w) of a left-handed engine with y up, from OpenCV's camera-to-world.

    Example:
        >>> import numpy as np
        >>> position, turn = engine_numbers(np.array([[1, 0, 0, 1], [0, 1, 0, -2], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
        >>> position.tolist(), turn.tolist()
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0])
    """
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    engine = flip @ pose @ flip
    m = engine[:3, :3]
    # The largest of the four squares decides, so that no small number is divided by.
    squares = np.array([1 + m[0, 0] - m[1, 1] - m[2, 2], 1 - m[0, 0] + m[1, 1] - m[2, 2],
                        1 - m[0, 0] - m[1, 1] + m[2, 2], 1 + m[0, 0] + m[1, 1] + m[2, 2]])  # fmt: skip
    largest = int(np.argmax(squares))
    a, b, c = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    d, e, f = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    table = ([squares[0], d, e, a], [d, squares[1], f, b], [e, f, squares[2], c], [a, b, c, squares[3]])
    quaternion = np.array(table[largest])
    quaternion /= np.linalg.norm(quaternion)
    return engine[:3, 3].copy(), quaternion * (1.0 if quaternion[3] >= 0 else -1.0)
