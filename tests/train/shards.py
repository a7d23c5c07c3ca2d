"""Small shards of smooth tubes, as the phantom would write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def write_shard(folder: Path, *, count: int, seed: int = 0, width: int = 96, height: int = 64, room: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    total = count + room
    images, depths = np.zeros((total, height, width, 3), np.uint8), np.zeros((total, height, width), np.float16)
    for index in range(count):
        radius = np.hypot(x - generator.uniform(0.3, 0.7) * width, y - generator.uniform(0.3, 0.7) * height) + 4
        depth = np.clip(700 / radius, 5, 150)
        light = np.clip(230 * (10 / depth) ** 0.8 + generator.normal(0, 4, depth.shape), 0, 255)
        images[index], depths[index] = light[..., None] * np.array([1.0, 0.6, 0.5]), depth
        depths[index, :4] = 0
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rgb.npy", images)
    np.save(folder / "depth.npy", depths)
    (folder / "meta.json").write_text(json.dumps({"width": width, "height": height, "complete": count}))
    return folder
