"""A known scene for the miniatures of data sets: depth that grows from left to right, lit from the camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets.base import Finding, FrameKey
from endolux.errors import EndoluxError


def ramp(height: int = 12, width: int = 16, *, near: float = 10.0, far: float = 90.0) -> npt.NDArray[np.float64]:
    """H x W depth: ``near`` in the first column, ``far`` in the last, linear between."""
    return np.tile(np.linspace(near, far, width), (height, 1))


def lit(depth: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Picture of the depth under a light at the camera: red falls off with the square of the distance."""
    grey = 250.0 * (depth.min() / depth) ** 2
    return np.stack([grey, 0.5 * grey, 0.25 * grey], axis=2).round().astype(np.uint8)


def save(path: Path, pixels: npt.NDArray[np.generic]) -> Path:
    """Write an image; colour is given as RGB or RGBA."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    done, data = cv2.imencode(path.suffix, pixels)
    assert done
    path.write_bytes(data.tobytes())
    return path


def cut(path: Path, keep: float = 0.5) -> None:
    """Truncate a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def codes(findings: list[Finding]) -> set[str]:
    """The codes of findings."""
    return {finding.code for finding in findings}


def key(sequence: str, index: int, side: str = "") -> FrameKey:
    """A frame's identity."""
    return FrameKey(sequence=sequence, index=index, side=side)


def is_three_lines(error: EndoluxError) -> bool:
    """Whether an error has all its parts, each on one line."""
    return len(str(error).split("\n")) == 3 and bool(error.error_id and error.fix and error.why)
