"""How the phantom's pictures and depths compare with real frames: luminance, colour, gradients and depth.

    python benchmarks/phantom_statistics.py [--preset train] [--frames 300] [--data ../shared/data] [--json]

For every statistic the phantom's frames give a range, from the 1st to the 99th percentile. A figure in the table is the
share of the real set's histogram that lies within it: 100 means that nothing real is outside of what the phantom shows,
and 98 is what the phantom has of itself. Two tables:

pixels
    Histograms over all pixels: ``luminance`` (BT.601, 0..255), ``saturation`` (HSV, of pixels brighter than 20),
    ``gradient`` (length of the gradient of luminance a pixel of a picture 320 wide), ``depth`` (over the frame's
    median).
frames
    Histograms over frames of one number each: mean and deviation of luminance, mean saturation, ``hue`` (red over
    green), mean gradient, share of pixels above 240, depth spread (95th over 5th percentile), correlation of
    luminance with log depth. A frame's place here says whether a picture like it exists in the phantom at all.

Black borders are cut off both alike. Depth that is known up to scale counts as it is; depth known up to scale and shift
does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

from real_frames import DATASETS, DEFAULT_DATA, load_frames

from endolux.phantom.streams import stream
from endolux.prep.content_area import find_content_area
from endolux.types import DepthKind

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]
PIXELS = ("luminance", "saturation", "gradient", "depth")
FRAMES = ("mean", "deviation", "saturation", "hue", "gradient", "bright", "spread", "shading")
WIDTH = 320
_EDGES: dict[str, Values] = {
    "luminance": np.linspace(-0.5, 255.5, 257),
    "saturation": np.linspace(-0.5, 255.5, 257),
    "gradient": np.concatenate([[0.0], np.geomspace(0.25, 400.0, 240)]),
    "depth": np.concatenate([[0.0], np.geomspace(0.02, 50.0, 240)]),
}
_BARE = {
    "kvasir": "kvasir_seg_5/images/*.jpg",
    "segcol": "segcol_colonoscopy_clips/*/imgs/*.png",
    "rvim": "rvim_laparoscopy/vid_0/*.npy",
    "human-liver": "human_liver_laparoscopy_image0232/*.png",
    "hamlyn-heart": "hamlyn_heart_f7_stereo/f7_dynamic_deint_[LR]_0100.png",
    "p2ilf": "p2ilf_liver_landmarks/2D_imageLabel_metrics/image_labels_GT/*[0-9].jpg",
    "c3vd-fullres": "c3vd_phantom/fullres_c3vd/*_image.png",
}
"""Pictures without depth that can be compared."""


class Collected:
    """Histograms of pixels and numbers of frames of one set."""

    def __init__(self) -> None:
        self.histograms = {name: np.zeros(len(_EDGES[name]) - 1) for name in PIXELS}
        self.frames: dict[str, list[float]] = {name: [] for name in FRAMES}
        self.count = 0

    def add(self, image: Image, depth: Values | None) -> None:
        """Count one frame; depth in any unit, NaN where there is none."""
        image, depth = _cut(image, depth)
        size = (WIDTH, max(16, round(WIDTH * image.shape[0] / image.shape[1])))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        if depth is not None:
            depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
        lit = grey > 20
        saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].astype(np.float64)[lit]
        dx, dy = (cv2.Sobel(grey, cv2.CV_64F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
        gradient = np.hypot(dx, dy)
        red, green = (float(image[..., k][lit].mean()) if lit.any() else 1.0 for k in (0, 1))
        numbers = {
            "mean": grey.mean(),
            "deviation": grey.std(),
            "saturation": saturation.mean() if saturation.size else np.nan,
            "hue": red / max(green, 1.0),
            "gradient": gradient.mean(),
            "bright": (grey > 240).mean(),
        }
        values = {"luminance": grey, "saturation": saturation, "gradient": gradient}
        known = np.isfinite(depth) & (depth > 0) if depth is not None else None
        if depth is not None and known is not None and known.mean() > 0.2:
            ratio = depth[known] / np.median(depth[known])
            values["depth"] = ratio
            low, high = np.percentile(ratio, [5, 95])
            numbers["spread"] = high / low
            numbers["shading"] = np.corrcoef(grey[known], np.log(ratio))[0, 1]
        for name, array in values.items():
            clipped = np.clip(array, _EDGES[name][0], _EDGES[name][-1])
            # Every frame weighs the same, whatever of it is lit or known.
            self.histograms[name] += np.histogram(clipped, _EDGES[name])[0] / max(array.size, 1)
        for name, number in numbers.items():
            self.frames[name].append(float(number))
        self.count += 1

    def pixel_range(self, name: str) -> tuple[float, float]:
        """1st and 99th percentile of a histogram over pixels."""
        total = np.cumsum(self.histograms[name])
        low, high = np.searchsorted(total, [0.01 * total[-1], 0.99 * total[-1]])
        return float(_EDGES[name][low]), float(_EDGES[name][min(int(high) + 1, len(_EDGES[name]) - 1)])

    def pixel_share(self, name: str, limits: tuple[float, float]) -> float:
        """Share of the pixels within limits."""
        histogram, edges = self.histograms[name], _EDGES[name]
        inside = (edges[:-1] >= limits[0] - 1e-9) & (edges[1:] <= limits[1] + 1e-9)
        return float(histogram[inside].sum() / histogram.sum()) if histogram.sum() > 0 else float("nan")

    def outside(self, name: str, limits: tuple[float, float]) -> tuple[float, float]:
        """Shares of the pixels below and above limits."""
        histogram, edges = self.histograms[name], _EDGES[name]
        total = max(float(histogram.sum()), 1e-12)
        below, above = histogram[edges[:-1] < limits[0] - 1e-9], histogram[edges[1:] > limits[1] + 1e-9]
        return float(below.sum() / total), float(above.sum() / total)

    def frame_range(self, name: str) -> tuple[float, float]:
        """1st and 99th percentile of a number of frames."""
        low, high = np.nanpercentile(self.frames[name], [1, 99])
        return float(low), float(high)

    def frame_share(self, name: str, limits: tuple[float, float]) -> float:
        """Share of the frames within limits."""
        numbers = np.array(self.frames[name])
        numbers = numbers[np.isfinite(numbers)]
        inside = (numbers >= limits[0]) & (numbers <= limits[1])
        return float(inside.mean()) if numbers.size else float("nan")

    def overlap(self, name: str, other: Collected) -> float:
        """Common area of two histograms of pixels, 1 where they are the same."""
        a, b = self.histograms[name], other.histograms[name]
        if not (a.sum() > 0 and b.sum() > 0):
            return float("nan")
        return float(np.minimum(a / a.sum(), b / b.sum()).sum())


def _cut(image: Image, depth: Values | None) -> tuple[Image, Values | None]:
    area = find_content_area(image)
    if area.shape == "none":
        return image, depth
    left, top, width, height = area.bbox
    if width < 16 or height < 16:
        return image, depth
    window = (slice(top, top + height), slice(left, left + width))
    same = depth is not None and depth.shape == image.shape[:2]
    return np.ascontiguousarray(image[window]), depth[window] if same and depth is not None else None


def real(root: Path) -> Iterator[tuple[str, Image, Values | None]]:
    """Set, picture and depth (None where unknown or known only up to a shift) of every real frame."""
    # A chessboard is no tissue.
    for frame in (frame for name in DATASETS if name != "chessboard" for frame in load_frames(name, root)):
        depth: Values | None = None
        if frame.truth_kind is DepthKind.METRIC:
            depth = np.where(frame.valid, frame.truth, np.nan)
        elif frame.truth_kind is DepthKind.RELATIVE_DISPARITY:
            # EndoSLAM's is the inverse depth itself, without a shift.
            depth = np.where(frame.valid, 1.0 / np.maximum(frame.truth, 1e-9), np.nan)
        # What is known at points only has no histogram.
        sparse = depth is not None and np.isfinite(depth).mean() < 0.2
        yield frame.dataset, frame.image, None if sparse else depth
    for name, pattern in _BARE.items():
        for path in sorted(root.glob(pattern)):
            image = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise FileNotFoundError(path)
            yield name, np.ascontiguousarray(image if path.suffix == ".npy" else image[..., ::-1]), None


def phantom(preset: str, frames: int, seed: int) -> Iterator[tuple[Image, Values]]:
    """Frames of a preset, few of each scene."""
    for shot in stream(preset, frames=frames, views_per_scene=3, sequence_frames=3, seed=seed, split="test"):
        yield shot.frame.image, np.where(shot.depth.valid, shot.depth.values, np.nan).astype(np.float64)


def compare(made: Collected, sets: Mapping[str, Collected]) -> dict[str, object]:
    """Ranges of the phantom, and for every set the shares within them and the overlaps."""
    pixels = {name: made.pixel_range(name) for name in PIXELS}
    frames = {name: made.frame_range(name) for name in FRAMES}
    return {
        "phantom": {"frames": made.count, "pixels": pixels, "per_frame": frames},
        "sets": {
            name: {
                "frames": found.count,
                "pixels": {key: found.pixel_share(key, limits) for key, limits in pixels.items()},
                "overlap": {key: found.overlap(key, made) for key in PIXELS},
                "outside": {key: found.outside(key, limits) for key, limits in pixels.items()},
                "per_frame": {key: found.frame_share(key, limits) for key, limits in frames.items()},
                "range": {
                    key: found.frame_range(key) if np.isfinite(found.frames[key]).any() else None for key in FRAMES
                },
            }
            for name, found in sets.items()
        },
    }


def _table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, int, Mapping[str, float]]]) -> None:
    columns = list(columns)
    print(f"\n{title:<18}{'n':>4}" + "".join(f"{name:>12}" for name in columns))
    for name, count, shares in rows:
        cells = "".join(f"{100 * shares[key]:>12.1f}" if np.isfinite(shares[key]) else f"{'-':>12}" for key in columns)
        print(f"{name:<18}{count:>4}{cells}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--preset", default="train")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(min(2, os.cpu_count() or 1))
    started = time.perf_counter()
    made = Collected()
    for image, depth in phantom(arguments.preset, arguments.frames, arguments.seed):
        made.add(image, depth)
    sets: dict[str, Collected] = {}
    for name, image, truth in real(arguments.data):
        sets.setdefault(name, Collected()).add(image, truth)
    if not sets:
        sys.exit(f"no real frames in {arguments.data}")
    result = compare(made, sets)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"preset {arguments.preset}, {made.count} frames, seed {arguments.seed} ({time.perf_counter() - started:.0f} s)"
    )
    found = result["sets"]
    assert isinstance(found, dict)
    for title, key, columns in (
        ("pixels within %", "pixels", PIXELS),
        ("pixels overlap %", "overlap", PIXELS),
        ("frames within %", "per_frame", FRAMES),
    ):
        _table(title, columns, ((name, entry["frames"], entry[key]) for name, entry in found.items()))
    print("\npixels below and above, where more than 5 % lie outside")
    for name, entry in found.items():
        for key, (below, above) in entry["outside"].items():
            if below + above > 0.05:
                print(f"  {name:<16}{key:<12}{100 * below:>6.1f} below{100 * above:>6.1f} above")
    print("\nphantom's 1-99 % range")
    for name in PIXELS:
        low, high = made.pixel_range(name)
        print(f"  pixel {name:<12}{low:>10.2f}{high:>10.2f}")
    for name in FRAMES:
        low, high = made.frame_range(name)
        print(f"  frame {name:<12}{low:>10.3f}{high:>10.3f}")


if __name__ == "__main__":
    main()
