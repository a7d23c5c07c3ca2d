"""Small clips: a camera that slides along a textured plane, with everything known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

FOCAL = 60.0


def texture(seed: int, size: int = 400) -> np.ndarray:
    generator = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            generator.uniform(0, 1, (cells, cells, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        for cells in (12, 40)
    ]
    return np.clip(60 + 110 * (0.6 * layers[0] + 0.4 * layers[1]), 0, 255).astype(np.float32)


def write_clip(
    folder: Path,
    *,
    shots: tuple[int, ...] = (6,),
    seed: int = 0,
    width: int = 64,
    height: int = 64,
    step_mm: float = 1.5,
    depth_mm: float = 45.0,
    tracks: tuple[str, ...] = ("sequence", "pose", "camera"),
) -> Path:
    """Shots of a plane across the optical axis, ``step_mm`` to the right from frame to frame."""
    k = np.array([[FOCAL, 0, (width - 1) / 2], [0, FOCAL, (height - 1) / 2], [0, 0, 1]])
    images, poses, numbers = [], [], []
    for number, frames in enumerate(shots):
        picture = texture(seed + number)
        for frame in range(frames):
            # Two texture pixels a pixel, so that sampling it is smooth.
            shift = frame * step_mm * FOCAL / depth_mm
            map_x, map_y = np.meshgrid(60 + 2.0 * (np.arange(width) + shift), 60 + 2.0 * np.arange(height))
            images.append(cv2.remap(picture, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR))
            pose = np.eye(4)
            pose[0, 3] = frame * step_mm
            poses.append(pose)
            numbers.append(number)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rgb.npy", np.rint(images).astype(np.uint8))
    np.save(folder / "depth.npy", np.full((len(images), height, width), depth_mm, np.float16))
    entries = {
        "sequence": np.array(numbers, np.int32),
        "pose": np.array(poses),
        "camera": np.tile([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], (len(images), 1)),
    }
    for name in tracks:
        np.save(folder / f"{name}.npy", entries[name])
    (folder / "meta.json").write_text(json.dumps({"width": width, "height": height, "complete": len(images)}))
    return folder
