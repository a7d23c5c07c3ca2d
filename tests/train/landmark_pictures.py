"""Small L3D folders: a bright band is the ridge, a dark one the silhouette."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def write_l3d(root: Path, *, split: str = "Train", patients: int = 2, frames: int = 3, seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    for folder in ("images", "labels", "depth_AdelaiDepth"):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
    for patient in range(patients):
        for number in range(frames):
            name = f"Patient_{patient + 1:04d}_{number:05d}"
            picture = generator.integers(80, 120, (108, 128, 3), np.uint8)
            ridge, silhouette = int(generator.integers(15, 45)), int(generator.integers(65, 95))
            cv2.line(picture, (10, ridge), (118, ridge), (250, 230, 230), 4)
            cv2.line(picture, (10, silhouette), (118, silhouette), (10, 20, 10), 4)
            cv2.imwrite(str(root / split / f"images/{name}.jpg"), picture)
            depth = np.tile(np.linspace(255, 20, 128).astype(np.uint8), (108, 1))
            cv2.imwrite(str(root / split / f"depth_AdelaiDepth/{name}.png"), depth)
            shapes = [
                {"label": label, "points": [[10, row], [118, row]], "shape_type": "linestrip"}
                for label, row in (("ridge", ridge), ("silhouette", silhouette))
            ]
            document = {"shapes": shapes, "imageHeight": 108, "imageWidth": 128}
            (root / split / f"labels/{name}.json").write_text(json.dumps(document))
    return root
