"""Liver landmarks on the one real frame at hand whose landmarks are known, and how many of all real frames get any.

    python benchmarks/real_landmarks.py [--model liver-landmarks] [--data ../shared/data] [--overlays FOLDER] [--json]

P2ILF's frame has thin lines (red ridge, blue ligament, yellow silhouette). They are drawn 30 pixels wide at 1080 rows,
as L3D has them. ``dsc`` and ``assd`` (pixels of 1920 x 1080) are those of ``endolux evaluate``. For the middles of the
lines: ``found`` is the share of the true line within 40 pixels (2 % of the width) of a predicted one of its class,
``right`` the share of the predicted line within 40 pixels of a true one; ``found_any`` asks for any class.
One frame of one patient: figures that tell a working network from a useless one, and no more.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.evaluate.landmarks_page import draw_labels
from endolux.geometry.centrelines import thinned
from endolux.io.sources import open_source
from endolux.metrics.segmentation import segmentation_scores
from endolux.runtime.landmarks import LandmarkModel, load_landmarks
from endolux.types import Frame

DEFAULT_DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
_P2ILF = "p2ilf_liver_landmarks/2D_imageLabel_metrics/image_labels_GT"
_COLOURS = {1: (True, False, False), 2: (True, True, False), 3: (False, False, True)}
_NAMES = {1: "ridge", 2: "silhouette", 3: "ligament"}
_NEAR_PX, _LINE_AT_1080 = 40.0, 30

Labels = npt.NDArray[np.uint8]


def truth(path: Path) -> Labels:
    """P2ILF's coloured lines as a map of L3D's classes with L3D's width of lines."""
    lines = cv2.imread(str(path))[..., ::-1] > 128
    width = round(_LINE_AT_1080 * lines.shape[0] / 1080)
    found = np.zeros(lines.shape[:2], np.uint8)
    for number in (2, 3, 1):
        line = thinned((lines == np.array(_COLOURS[number])).all(axis=-1)).astype(np.uint8)
        found[cv2.dilate(line, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0] = number
    return found


Mask = npt.NDArray[np.bool_]


def near(line: Mask, other: Mask) -> float:
    """Share of one set of lines that lies within 40 px of another set; NaN without a line."""
    if not line.any():
        return float("nan")
    if not other.any():
        return 0.0
    away = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, 5)
    return float((away[line] <= _NEAR_PX).mean())


def score(predicted: Labels, true: Labels) -> dict[str, dict[str, float]]:
    """By class: DSC, ASSD, and shares of lines that are found and right."""
    scores = segmentation_scores(predicted, true)
    lines, found = ({number: thinned(labels == number) for number in _NAMES} for labels in (true, predicted))
    anything = np.logical_or.reduce(list(found.values()))
    return {
        name: {
            "dsc": scores.classes[number].dsc,
            "assd_px": scores.classes[number].assd,
            "found": near(lines[number], found[number]),
            "right": near(found[number], lines[number]),
            "found_any": near(lines[number], anything),
        }
        for number, name in _NAMES.items()
    } | {"all": {"dsc": scores.pooled.dsc, "assd_px": scores.pooled.assd}}


def frames(data: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Real frames of livers, of the clip every 25th."""
    for path in sorted((data / _P2ILF).glob("*[0-9].jpg")):
        yield f"p2ilf-{path.stem}", np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    path = data / "human_liver_laparoscopy_image0232/image0232.png"
    yield "human-liver", np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    with open_source(data / "rvim_laparoscopy/endo.mp4") as clip:
        for frame in clip.frames():
            if isinstance(frame, Frame) and frame.index % 25 == 0:
                yield f"rvim-{frame.index:03d}", frame.image
    for number in (0, 19):
        yield f"rvim-small-{number:02d}", np.load(data / f"rvim_laparoscopy/vid_0/frame_{number}.npy")


def run(model: LandmarkModel, data: Path, overlays: Path | None) -> dict[str, object]:
    """Everything this benchmark measures."""
    content: dict[str, object] = {}
    shares: dict[str, dict[str, float]] = {}
    for name, image in frames(data):
        labels = model.predict(image).labels
        shares[name] = {_NAMES[number]: float((labels == number).mean()) for number in _NAMES}
        if name.startswith("p2ilf"):
            content[name] = score(labels, truth(data / _P2ILF / f"{name.removeprefix('p2ilf-')}_GT.jpg"))
        if overlays is not None:
            overlays.mkdir(parents=True, exist_ok=True)
            drawn = draw_labels(image, labels)
            cv2.imwrite(str(overlays / f"{name}.png"), np.ascontiguousarray(drawn[..., ::-1]))
    return content | {"share_of_pixels": shares}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="liver-landmarks")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    content = run(load_landmarks(asked.model, threads=1), asked.data, asked.overlays)
    if asked.json:
        print(json.dumps(content, indent=1))
        return
    for frame, found in content.items():
        print(frame)
        for name, values in found.items():  # type: ignore[attr-defined]
            print(f"  {name:14}" + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


if __name__ == "__main__":
    main()
