"""Contact sheets of the phantom's presets, a picture and its depth side by side.

    python benchmarks/phantom_sheets.py OUTPUT [--seed 3]

Writes ``phantom-PRESET.jpg`` for every preset: pictures above, their depth below (near is bright, in logarithms, each
over its own range).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.phantom.presets import PRESETS
from endolux.phantom.streams import Shot, stream

COLUMNS, PAIRS = 8, 2
TILE = (150, 120)
Picture = npt.NDArray[np.uint8]


def tile(picture: Picture) -> Picture:
    """The picture inside a tile of the sheet, with its aspect."""
    height, width = picture.shape[:2]
    scale = min(TILE[0] / width, TILE[1] / height)
    small = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    framed = np.zeros((TILE[1], TILE[0], 3), np.uint8)
    top, left = (TILE[1] - small.shape[0]) // 2, (TILE[0] - small.shape[1]) // 2
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed


def depth_picture(shot: Shot) -> Picture:
    """Depth in colour; black where it is unknown."""
    valid = shot.depth.valid
    log_depth = np.log(np.where(valid, shot.depth.values, 1.0))
    low, high = np.percentile(log_depth[valid], [1, 99]) if valid.any() else (0.0, 1.0)
    nearness = np.clip((high - log_depth) / max(float(high - low), 1e-6), 0, 1)
    coloured = cv2.applyColorMap((nearness * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.where(valid[..., None], coloured, 0).astype(np.uint8)


def sheet(preset: str, seed: int) -> Picture:
    """Every picture from another scene."""
    count = COLUMNS * PAIRS
    shots = list(stream(preset, frames=count, seed=seed, sequence_frames=1, views_per_scene=1, motion="still"))
    rows = []
    for start in range(0, count, COLUMNS):
        part = shots[start : start + COLUMNS]
        rows.append(np.hstack([tile(shot.frame.image[..., ::-1]) for shot in part]))
        rows.append(np.hstack([tile(depth_picture(shot)) for shot in part]))
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for preset in PRESETS:
        path = arguments.output / f"phantom-{preset}.jpg"
        cv2.imwrite(str(path), sheet(preset, arguments.seed), [cv2.IMWRITE_JPEG_QUALITY, 78])
        print(path, f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
