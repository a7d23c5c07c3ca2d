"""The nouns: frames, depth maps, cameras and bundles."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from endolux.errors import UsageError

if TYPE_CHECKING:
    from endolux.runtime.card import Card

ImageArray = npt.NDArray[np.uint8]
"""H x W x 3, RGB."""
MaskArray = npt.NDArray[np.bool_]
"""H x W, True where valid."""
FloatArray = npt.NDArray[np.float32]


class DepthKind(enum.StrEnum):
    """What the numbers of a depth map mean."""

    METRIC = "metric"
    """Depth along the optical axis (z) in millimetres."""
    RELATIVE_DEPTH = "relative_depth"
    """True depth up to one unknown positive factor."""
    RELATIVE_DISPARITY = "relative_disparity"
    """Inverse depth up to an unknown positive scale and a shift."""


class Unit(enum.StrEnum):
    """Unit of a depth map's values."""

    MM = "mm"
    NONE = "none"


class CameraModel(enum.StrEnum):
    """Projection models, in OpenCV's conventions (x right, y down, z forward)."""

    PINHOLE = "pinhole"
    """No distortion."""
    RADTAN = "radtan"
    """OpenCV radial-tangential: k1 k2 p1 p2 [k3 [k4 k5 k6]]."""
    FISHEYE = "fisheye"
    """OpenCV fisheye (Kannala-Brandt): k1 k2 k3 k4."""


_DISTORTION_LENGTHS = {CameraModel.PINHOLE: (0,), CameraModel.RADTAN: (4, 5, 8), CameraModel.FISHEYE: (4,)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Intrinsics of one camera. Pixel centres lie at integer coordinates.

    Attributes:
        width, height: image size in pixels.
        fx, fy, cx, cy: focal lengths and principal point in pixels.
        model: projection model.
        distortion: coefficients in OpenCV's order for ``model``.

    Example:
        >>> camera = Camera(width=640, height=480, fx=500.0, fy=500.0, cx=319.5, cy=239.5)
        >>> half = camera.resize(320, 240)
        >>> half.fx, half.cx
        (250.0, 159.5)
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: CameraModel = CameraModel.PINHOLE
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if self.width < 1 or self.height < 1 or not (self.fx > 0 and self.fy > 0) or not np.all(np.isfinite(numbers)):
            raise UsageError(
                f"Impossible camera {self.width}x{self.height}, fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy}",
                why="Sizes and focal lengths must be positive, and every number finite.",
                fix="Give the intrinsics in pixels of the image they belong to.",
                error_id="camera.impossible",
            )
        lengths = _DISTORTION_LENGTHS[self.model]
        if len(self.distortion) not in lengths:
            raise UsageError(
                f"{len(self.distortion)} distortion coefficients for a {self.model} camera",
                why=f"This model takes {' or '.join(map(str, lengths))}.",
                fix="Give them in OpenCV's order.",
                error_id="camera.distortion",
            )

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """3 x 3 intrinsic matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def crop(self, left: int, top: int, width: int, height: int) -> Self:
        """The camera of the sub-image whose top-left pixel is (left, top)."""
        return dataclasses.replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)

    def pad(self, left: int, top: int, right: int, bottom: int) -> Self:
        """The camera after adding borders of the given widths in pixels."""
        return self.crop(-left, -top, self.width + left + right, self.height + top + bottom)

    def resize(self, width: int, height: int) -> Self:
        """The camera of the image resampled to width x height (pixel areas, as cv2.resize does)."""
        sx, sy = width / self.width, height / self.height
        return dataclasses.replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One RGB image of an endoscope.

    Attributes:
        image: H x W x 3 uint8, RGB.
        index: position in its source, from 0.
        name: short name for reports (file name or frame number).
        pts_s: presentation time in seconds, None for still images.
        camera: intrinsics if known.
        valid: H x W bool, False outside the content area; None means not yet determined.

    Example:
        >>> import numpy as np
        >>> Frame(image=np.zeros((4, 6, 3), np.uint8)).size
        (6, 4)
    """

    image: ImageArray
    index: int = 0
    name: str = ""
    pts_s: float | None = None
    camera: Camera | None = None
    valid: MaskArray | None = None

    def __post_init__(self) -> None:
        image = self.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise UsageError(
                f"A frame needs an H x W x 3 uint8 array, not {image.shape} {image.dtype}",
                why="Every part of Endolux works on 8-bit RGB.",
                fix="Read files with endolux.read(path), or convert the array to uint8 RGB first.",
                error_id="frame.shape",
            )
        _check_same_size("valid mask", self.valid, image.shape[:2])
        if self.camera is not None and (self.camera.height, self.camera.width) != image.shape[:2]:
            raise UsageError(
                f"Camera of {self.camera.width}x{self.camera.height} on a frame of {image.shape[1]}x{image.shape[0]}",
                why="Intrinsics belong to one image size.",
                fix="Use camera.resize or camera.crop so that the camera follows the pixels.",
                error_id="frame.camera-size",
            )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthMap:
    """Depth at the size of the input image, and what it means.

    Attributes:
        values: H x W float32; meaningful only where ``valid``.
        kind: meaning of the values.
        unit: millimetres for METRIC, none otherwise.
        valid: H x W bool.
        confidence: optional H x W float32 in [0, 1].
        camera: intrinsics if known.

    Example:
        >>> import numpy as np
        >>> depth = DepthMap(values=np.full((2, 3), 40, np.float32), kind=DepthKind.METRIC, valid=np.ones((2, 3), bool))
        >>> depth.unit.value, depth.at(2, 1)
        ('mm', 40.0)
    """

    values: FloatArray
    kind: DepthKind
    valid: MaskArray
    confidence: FloatArray | None = None
    camera: Camera | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise UsageError(
                f"Depth values need an H x W float32 array, not {self.values.shape} {self.values.dtype}",
                why="A depth map has one number a pixel.",
                fix="Convert with values.astype(np.float32) and drop channel axes.",
                error_id="depth.shape",
            )
        _check_same_size("valid mask", self.valid, self.values.shape)
        _check_same_size("confidence", self.confidence, self.values.shape)

    @property
    def unit(self) -> Unit:
        """Millimetres for METRIC, none for the relative kinds."""
        return Unit.MM if self.kind is DepthKind.METRIC else Unit.NONE

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.values.shape[1], self.values.shape[0]

    def at(self, x: int, y: int) -> float:
        """Value at column x, row y; NaN where invalid. Raises UsageError outside the image."""
        height, width = self.values.shape
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(
                f"Pixel ({x}, {y}) lies outside the {width}x{height} depth map",
                why="Coordinates are (column, row) from the top-left corner.",
                fix=f"Use 0 <= x < {width} and 0 <= y < {height}.",
                error_id="depth.outside",
            )
        return float(self.values[y, x]) if self.valid[y, x] else float("nan")

    def to_metric(self, mm_per_unit: float) -> DepthMap:
        """Depth in millimetres, given the one factor that a RELATIVE_DEPTH map leaves open.

        Raises UsageError for any other kind: a disparity also has an unknown shift, which one factor cannot repair.
        """
        if self.kind is not DepthKind.RELATIVE_DEPTH:
            raise UsageError(
                f"Cannot turn {self.kind} into metric depth with one factor",
                why="Only relative depth differs from metric depth by a factor alone.",
                fix="Align with endolux.geometry.align, which states the model it fits.",
                error_id="depth.conversion",
            )
        if not (mm_per_unit > 0 and np.isfinite(mm_per_unit)):
            raise UsageError(
                f"Impossible scale {mm_per_unit}",
                why="Millimetres per unit must be positive and finite.",
                fix="Measure it against one known distance.",
                error_id="depth.scale",
            )
        values = (self.values * np.float32(mm_per_unit)).astype(np.float32)
        return dataclasses.replace(self, values=values, kind=DepthKind.METRIC)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LandmarkMap:
    """Classes at the size of the input image.

    Attributes:
        labels: H x W uint8, numbers of classes; 0, the background, outside the content area.
        classes: their names.
        probability: H x W float32, of the class that was chosen.
        valid: H x W bool, the content area.

    Example:
        >>> import numpy as np
        >>> labels, one = np.array([[0, 1]], np.uint8), np.ones((1, 2), np.float32)
        >>> found = LandmarkMap(labels=labels, classes=("none", "ridge"), probability=one, valid=one > 0)
        >>> found.present
        ('ridge',)
    """

    labels: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    probability: FloatArray
    valid: MaskArray

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8 or self.labels.max(initial=0) >= len(self.classes):
            raise UsageError(
                f"Labels {self.labels.shape} {self.labels.dtype} up to {self.labels.max(initial=0)} for "
                f"{len(self.classes)} classes",
                why="A map of landmarks has one number of a class a pixel, as uint8.",
                fix="Convert with labels.astype(np.uint8), and name every class.",
                error_id="landmarks.shape",
            )
        _check_same_size("probability", self.probability, self.labels.shape)
        _check_same_size("valid mask", self.valid, self.labels.shape)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.labels.shape[1], self.labels.shape[0]

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the classes that are there, without the background."""
        numbers = np.flatnonzero(np.bincount(self.labels.ravel(), minlength=len(self.classes))[1:])
        return tuple(self.classes[number + 1] for number in numbers)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A model as every part speaks of it: a folder with weights and ``card.json``, hashes already checked.

    Attributes:
        folder: where the files lie.
        card: the validated card.
        card_sha256: hash of ``card.json``, which itself holds the hash of every other file: the identity of the bundle.
    """

    folder: Path
    card: Card
    card_sha256: str

    @property
    def name(self) -> str:
        """Name from the card."""
        return self.card.name

    def file(self, name: str) -> Path:
        """Path of a file that the card lists."""
        return self.folder / name


def _check_same_size(what: str, array: npt.NDArray[np.generic] | None, size: tuple[int, ...]) -> None:
    if array is not None and array.shape != tuple(size):
        raise UsageError(
            f"The {what} is {array.shape}, the pixels are {tuple(size)}",
            why="Masks and values describe the same pixels.",
            fix="Resize them together.",
            error_id="types.size",
        )
