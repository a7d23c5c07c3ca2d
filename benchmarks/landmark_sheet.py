"""Contact sheet of liver landmarks on rendered views that the network has not seen.

    python benchmarks/landmark_sheet.py docs/img/landmarks.jpg [--model liver-landmarks] [--seed 2]

Pictures, their true landmarks and those of the network, every picture from another scene of the split ``test``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.evaluate.landmarks_page import draw_labels
from endolux.phantom.streams import stream
from endolux.runtime.landmarks import LandmarkModel, load_landmarks

COLUMNS, ROWS, TILE = 6, 2, (208, 117)
Picture = npt.NDArray[np.uint8]


def sheet(model: LandmarkModel, seed: int) -> Picture:
    """Rows of pictures, truth and prediction, BGR."""
    settings = {"seed": seed, "split": "test", "width": 384, "height": 216, "views_per_scene": 1}
    columns: list[Picture] = []
    for shot in stream("l3d-like", frames=COLUMNS * ROWS, **settings):
        small = cv2.resize(shot.frame.image, TILE, interpolation=cv2.INTER_AREA)
        truth = shot.truth.lines if shot.truth.lines is not None else np.zeros(shot.frame.image.shape[:2], np.uint8)
        seen = (draw_labels(small, labels) for labels in (truth, model.predict(shot.frame.image).labels))
        columns.append(np.vstack([small, *seen]))
    rows = [np.hstack(columns[start : start + COLUMNS]) for start in range(0, len(columns), COLUMNS)]
    return np.ascontiguousarray(np.vstack(rows)[..., ::-1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="liver-landmarks")
    parser.add_argument("--seed", type=int, default=2)
    asked = parser.parse_args()
    picture = sheet(load_landmarks(asked.model, threads=1), asked.seed)
    cv2.imwrite(str(asked.output), picture, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()
