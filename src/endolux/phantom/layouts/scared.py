"""SCARED: keyframe folders with extracted left and right frames, point maps, poses and the keyframe's still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from typing_extensions import override

from endolux.geometry.cameras import rays
from endolux.phantom.layouts.base import File, Layout, View, float_tiff, layout, png, to_json
from endolux.phantom.presets import StreamSettings
from endolux.phantom.render import PhantomFrame
from endolux.phantom.streams import Shot
from endolux.types import Camera, CameraModel

# The released calibration of data sets 4 and 5 is known to be wrong; 8 and 9 count otherwise.
_DATASETS = (1, 2, 3, 6, 7)
_KEYFRAMES = 5


@layout
class ScaredLayout(Layout):
    """``dataset_D/keyframe_K/data/{left,right,scene_points,frame_data}``, ``Left_Image.png``, ``left_depth_map.tiff``.

    The world is the camera of the keyframe, as in the release: poses are relative to the first frame of a sequence.
    The right view of a point map lies below the left one.
    """

    name = "scared"
    reader = "scared"
    summary = "stereo laparoscopy with point maps and poses, frames extracted to PNG"
    preset = "scared-like"
    defaults: ClassVar[Mapping[str, object]] = {"width": 1280, "height": 1024, "baseline_mm": 4.2}
    stereo = True
    cameras = (CameraModel.RADTAN, CameraModel.PINHOLE)
    quantisation = "none: X, Y, Z as float32"

    @override
    def check(self, settings: StreamSettings) -> None:
        super().check(settings)
        if not settings.height <= settings.width < 2 * settings.height:
            raise self.impossible(
                f"pictures of {settings.width}x{settings.height}",
                "Point maps of both lenses lie one above the other, and readers tell the two by their shape.",
                "Use pictures that are wider than high, but not twice as wide.",
            )

    @override
    def sequence(self, number: int, settings: StreamSettings) -> str:
        dataset, keyframe = _place(number)
        return f"dataset{dataset}/keyframe{keyframe}"

    @override
    def frame(self, shot: Shot, settings: StreamSettings) -> Iterator[File]:
        folder, number, right = _folder(shot.sequence), shot.position, _right(shot)
        both = np.concatenate([_points(shot.truth, missing=0.0), _points(right, missing=0.0)])
        yield f"{folder}/data/scene_points/scene_points{number:06d}.tiff", float_tiff(both)
        yield f"{folder}/data/right/frame_data{number:06d}.png", png(right.frame.image)
        if number == 0:
            yield f"{folder}/right_depth_map.tiff", float_tiff(_points(right, missing=np.nan))
            yield f"{folder}/left_depth_map.tiff", float_tiff(_points(shot.truth, missing=np.nan))
            yield f"{folder}/Right_Image.png", png(right.frame.image)
            yield f"{folder}/Left_Image.png", png(shot.frame.image)
        yield f"{folder}/data/left/frame_data{number:06d}.png", png(shot.frame.image)

    @override
    def whole(self, number: int, views: Sequence[View], settings: StreamSettings) -> Iterator[File]:
        folder, first = _folder(number), views[0]
        yield f"{folder}/endoscope_calibration.yaml", _yaml(first)
        home = np.linalg.inv(first.pose)
        for view in views:
            content = {
                "camera-calibration": _calibration(view),
                # World-to-camera, the world being the keyframe's camera.
                "camera-pose": np.linalg.inv(home @ view.pose).tolist(),
                "timestamp": round(view.position * 1e9 / settings.fps),
            }
            yield f"{folder}/data/frame_data/frame_data{view.position:06d}.json", to_json(content)


def _place(number: int) -> tuple[int, int]:
    dataset, keyframe = divmod(number, _KEYFRAMES)
    extra = dataset - len(_DATASETS)
    return (_DATASETS[dataset] if extra < 0 else 10 + extra), keyframe + 1


def _folder(number: int) -> str:
    dataset, keyframe = _place(number)
    return f"dataset_{dataset}/keyframe_{keyframe}"


def _right(shot: Shot) -> PhantomFrame:
    if shot.right is None:
        raise ValueError("a layout of pairs was given a single picture")
    return shot.right


def _points(frame: PhantomFrame, *, missing: float) -> npt.NDArray[np.float32]:
    camera = frame.frame.camera
    if camera is None:
        raise ValueError("a frame without camera")
    points = np.nan_to_num(rays(camera)) * frame.depth.values[..., None]
    points[..., 2] = frame.depth.values
    return np.where(frame.depth.valid[..., None], points, np.float32(missing)).astype(np.float32)


def _distortion(camera: Camera) -> npt.NDArray[np.float64]:
    return np.array([[*camera.distortion, 0.0, 0.0, 0.0, 0.0, 0.0][:5]])


def _calibration(view: View) -> dict[str, object]:
    matrix, bent = view.camera.matrix.tolist(), _distortion(view.camera).tolist()
    shift = [[-view.baseline_mm], [0.0], [0.0]]
    return {"KL": matrix, "KR": matrix, "DL": bent, "DR": bent, "R": np.eye(3).tolist(), "T": shift}


def _yaml(view: View) -> bytes:
    storage = cv2.FileStorage("", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY | cv2.FILE_STORAGE_FORMAT_YAML)
    matrices = {
        "M1": view.camera.matrix,
        "D1": _distortion(view.camera),
        "M2": view.camera.matrix,
        "D2": _distortion(view.camera),
        "R": np.eye(3),
        "T": np.array([[-view.baseline_mm], [0.0], [0.0]]),
    }
    for name, matrix in matrices.items():
        storage.write(name, matrix)
    return str(storage.releaseAndGetString()).encode()
