"""A small folder of pairs whose depth really follows the light."""

import cv2
import numpy as np
import pytest


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())


@pytest.fixture
def pairs_folder(tmp_path):
    """Four 64x48 frames; depth 0.01 mm codes; brightness falls with the square of the depth."""
    folder = tmp_path / "data"
    y, x = np.mgrid[:48, :64]
    for index in range(4):
        depth_mm = 20 + 0.8 * x + 0.3 * y + 5 * index
        light = (20.0 / depth_mm) ** 2
        image = np.rint(255 * light[..., None] ** (1 / 2.2) * np.ones(3)).astype(np.uint8)
        write(folder / "images" / f"{index}.png", image)
        write(folder / "depth" / f"{index}.png", np.rint(depth_mm * 100).astype(np.uint16))
    return folder
