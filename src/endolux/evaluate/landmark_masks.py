"""Predicted masks of landmarks beside the true ones, as class numbers of one size."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets.base import Dataset, FrameKey
from endolux.datasets.decode import decode_image, read_bytes
from endolux.datasets.l3d import CLASSES
from endolux.errors import InputError
from endolux.io.images import check_pixels, pixel_limit
from endolux.io.paths import check_file, input_error, printable, truncated
from endolux.metrics.segmentation import LANDMARK_CLASSES
from endolux.types import ImageArray

Labels = npt.NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskPair:
    """Masks of one frame.

    Attributes:
        image: H x W x 3 RGB.
        predicted: H x W class numbers.
        truth: the same.
        resized: whether the prediction had another size and was brought to that of the truth (nearest).
        sha256: of the prediction's file.
    """

    image: ImageArray
    predicted: Labels
    truth: Labels
    resized: bool
    sha256: str


def read_pair(path: Path | None, dataset: Dataset, key: FrameKey) -> MaskPair:
    """Read the mask of one frame and its truth.

    Raises:
        InputError: no mask, a damaged one, or no landmarks in the data set for this frame.
    """
    if path is None:
        raise InputError(
            f"No mask for '{printable(str(key))}'",
            why="Masks are found by the name of the image or of the frame.",
            fix="Predict every frame of the protocol.",
            error_id="evaluate.no-prediction",
        )
    sample = dataset.load(key)
    truth = sample.labels.get("landmarks")
    if truth is None:
        raise InputError(
            f"'{printable(str(key))}' has no landmarks",
            why="The data set holds no label file for this frame, and the protocol scores it.",
            fix="Run 'endolux data check' on the folder.",
            error_id="evaluate.no-reference",
        )
    labels = read_labels(path)
    resized = labels.shape != truth.shape
    if resized:
        labels = cv2.resize(
            labels.astype(np.uint8), (truth.shape[1], truth.shape[0]), interpolation=cv2.INTER_NEAREST
        ).astype(np.uint8)
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    return MaskPair(image=sample.frame.image, predicted=labels, truth=truth, resized=resized, sha256=digest)


def read_labels(path: Path) -> Labels:
    """Class numbers of a mask, H x W.

    Args:
        path: 8-bit picture (grey, or colour with equal channels), or ``.npy`` of whole numbers.

    Raises:
        InputError: damaged file; ``evaluate.labels`` for another content than class numbers.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.npy"
        >>> np.save(file, np.array([[0, 3]]))
        >>> read_labels(file).tolist()
        [[0, 3]]
    """
    name = printable(path)
    pixels: npt.NDArray[np.generic]
    if path.suffix.lower() == ".npy":
        check_file(path)
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except EOFError as error:
            raise truncated(path, "nothing follows its header") from error
        except OSError as error:
            raise input_error(error, path) from error
        except ValueError as error:
            raise _no_labels(name, " ".join(str(error).split())) from error
    else:
        pixels = decode_image(read_bytes(path), name)
    if pixels.ndim == 3 and (pixels[..., :3] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "ui" or 0 in pixels.shape:
        raise _no_labels(name, f"it holds {pixels.shape} {pixels.dtype}")
    check_pixels(path, pixels.shape[1], pixels.shape[0], pixel_limit())
    labels = np.array(pixels, np.int64)
    largest, least = int(labels.max()), int(labels.min())
    if least < 0 or largest > max(LANDMARK_CLASSES):
        raise _no_labels(name, f"its numbers reach from {least} to {largest}")
    return labels


def _no_labels(name: str, reason: str) -> InputError:
    return InputError(
        f"'{name}' is not a mask of landmarks: {reason}",
        why=f"A pixel is {', '.join(f'{number} ({word})' for number, word in enumerate(CLASSES))}; colours and shares "
        "do not tell the class.",
        fix="Save the class numbers as an 8-bit grey PNG or an integer .npy.",
        error_id="evaluate.labels",
    )
