"""Cameras, poses and disparity of SCARED: ``frame_data`` JSON, OpenCV's YAML, reprojection matrices."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.datasets.decode import damaged, matrix_of, parse_json, read_json, read_text
from endolux.errors import InputError
from endolux.io.paths import printable
from endolux.types import Camera, CameraModel

_DISTORTIONS = (0, 4, 5, 8)


def parse_frame_data(data: bytes, name: str) -> dict[str, object]:
    """The content of a ``frame_data`` JSON. Raises InputError ``dataset.damaged``."""
    content = parse_json(data, name)
    if not isinstance(content, dict):
        raise damaged(name, "it is not a JSON object")
    return content


def pose_of(content: dict[str, object], name: str) -> npt.NDArray[np.float64] | None:
    """Camera-to-world pose in mm from a ``frame_data`` JSON, whose ``camera-pose`` is world-to-camera.

    The world is the camera of the keyframe.

    Raises:
        InputError: not a 4 x 4 matrix (``dataset.matrix``), or one without inverse (``scared.pose``).

    Example:
        >>> pose_of({"camera-pose": [[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "x")[0, 3].item()
        -5.0
    """
    if "camera-pose" not in content:
        return None
    matrix = matrix_of(content["camera-pose"], (4, 4), f"camera-pose of '{name}'")
    if abs(float(np.linalg.det(matrix))) < 1e-6:
        raise InputError(
            f"camera-pose of '{name}' has no inverse",
            why="A pose is a rotation and a translation; all zeros mean that the robot sent none.",
            fix="Leave this frame out.",
            error_id="scared.pose",
        )
    inverse: npt.NDArray[np.float64] = np.linalg.inv(matrix).astype(np.float64)
    return inverse


def camera_of(content: dict[str, object], size: tuple[int, int], name: str) -> Camera | None:
    """The left camera of a ``frame_data`` JSON for images of ``size`` (width, height); None if it holds none.

    Raises:
        InputError: a damaged calibration (``dataset.matrix``, ``scared.distortion``).
    """
    calibration = content.get("camera-calibration")
    if not isinstance(calibration, dict) or "KL" not in calibration:
        return None
    matrix = matrix_of(calibration["KL"], (3, 3), f"KL of '{name}'")
    return _camera(matrix, calibration.get("DL"), size, name)


def read_calibration(path: Path, size: tuple[int, int]) -> Camera:
    """The left camera of ``endoscope_calibration.yaml`` (M1, D1) or ``intrinsics_colmap.yaml`` (K).

    Args:
        path: a file of OpenCV's FileStorage; a missing ``%YAML`` line is tolerated.
        size: (width, height) of the images, which the file need not state.

    Raises:
        InputError: damaged, or without a left camera (``scared.calibration``).
    """
    text = read_text(path)
    if not text.lstrip().startswith("%YAML"):
        text = f"%YAML:1.0\n---\n{text}"
    name = printable(path)
    try:
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        nodes = {key: storage.getNode(key) for key in ("M1", "K1", "K", "D1")}
        matrices = {key: node.mat() for key, node in nodes.items() if not node.empty()}
        storage.release()
    except (cv2.error, SystemError) as error:
        raise damaged(name, "it is not a YAML file of OpenCV") from error
    for key in ("M1", "K1", "K"):
        if matrices.get(key) is not None:
            return _camera(matrix_of(matrices[key], (3, 3), f"{key} of '{name}'"), matrices.get("D1"), size, name)
    raise InputError(
        f"'{name}' holds no left camera",
        why="A matrix M1 (or K1, or K) is expected.",
        fix="Use the calibration file of the data set.",
        error_id="scared.calibration",
    )


def read_reprojection(path: Path) -> npt.NDArray[np.float64]:
    """The 4 x 4 matrix Q of a ``reprojection_data`` JSON. Raises InputError."""
    content = read_json(path)
    value = content.get("reprojection-matrix") if isinstance(content, dict) else None
    return matrix_of(value, (4, 4), f"reprojection-matrix of '{printable(path)}'")


def depth_of_disparity(
    disparity: npt.NDArray[np.floating], reprojection: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Depth along the optical axis from left disparity in pixels: Z = Q23 / (Q32 d + Q33); NaN where d is 0 or NaN.

    Args:
        disparity: H x W pixels.
        reprojection: 4 x 4 matrix Q as OpenCV's stereo rectification gives it, in mm.

    Example:
        >>> Q = np.array([[1, 0, 0, -640], [0, 1, 0, -512], [0, 0, 0, 1000], [0, 0, 0.25, 0.0]])
        >>> depth_of_disparity(np.array([[80.0, 0.0]]), Q).tolist()
        [[50.0, nan]]
    """
    values = disparity.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth: npt.NDArray[np.float64] = reprojection[2, 3] / (reprojection[3, 2] * values + reprojection[3, 3])
    depth[(values == 0) | np.isnan(values)] = np.nan
    return depth


def _camera(matrix: npt.NDArray[np.float64], distortion: object, size: tuple[int, int], name: str) -> Camera:
    coefficients = _distortion(distortion, name)
    width, height = size
    return Camera(
        width=width,
        height=height,
        fx=float(matrix[0, 0]),
        fy=float(matrix[1, 1]),
        cx=float(matrix[0, 2]),
        cy=float(matrix[1, 2]),
        model=CameraModel.RADTAN if coefficients else CameraModel.PINHOLE,
        distortion=coefficients,
    )


def _distortion(value: object, name: str) -> tuple[float, ...]:
    if value is None:
        return ()
    try:
        numbers = np.array(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    while numbers.size and numbers.size not in _DISTORTIONS and numbers[-1] == 0:
        numbers = numbers[:-1]
    if not numbers.any():
        return ()
    if numbers.size not in _DISTORTIONS and numbers.size < 8:
        numbers = np.concatenate([numbers, np.zeros(min(n for n in _DISTORTIONS if n > numbers.size) - numbers.size)])
    if numbers.size not in _DISTORTIONS or not np.isfinite(numbers).all():
        raise InputError(
            f"The distortion of '{name}' is {numbers.tolist()}",
            why="4, 5 or 8 finite coefficients of OpenCV's radial-tangential model are expected.",
            fix="Use the calibration file of the data set.",
            error_id="scared.distortion",
        )
    return tuple(float(number) for number in numbers)
