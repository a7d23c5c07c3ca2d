"""Score depth on real and field-standard frames that no Endolux model has been trained on.

    python benchmarks/real_frames.py [--data ../shared/data] [--model NAME_OR_PATH] [--json]

scores the model (if given) and two baselines. From Python, ``score(predict)`` takes a function from an
H x W x 3 uint8 RGB image to H x W depth (any factor; larger = farther) or to a ``DepthMap``.

Protocols. Every figure is the mean over frames of the frame's metric, in float64, at the size of the truth.

c3vd-c3v4, c3vd-cecum, c3vd-sigmoid
    The files hold depth min-max normalised per frame, v = 0..255; what was depth 0 is unknown. Truth is taken as
    0.2 + v/255 in every pixel (the least depth one sixth of the greatest, as in a lumen seen along its axis; without
    an offset AbsRel would be ruled by the nearest pixels). Scale and shift fitted in depth, no clamp.
simcol3d
    depth_cm = value/65535*20, 0 = no value. Median ratio.
endoslam
    Truth is inverse depth v (8-bit, 1..50; 0 = no value). Scale and shift fitted between 1/prediction and v; AbsRel
    is between fitted and true *inverse* depth, so it is not comparable with the other rows. Pixels below 16 of 255 in
    every frame are the black corners of the image (the truth has values there) and do not count.
liver-mesh
    Left and right view; depth ray-cast from the mesh with the given cameras, within the given masks. Median ratio.
chessboard
    Left and right view; depth of the plane through the board's pose, within the hull of its inner corners. Median.
sinus
    Every fifth frame; sparse structure-from-motion points at the frames that list them. Median ratio.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from endolux.evaluate.baselines import BASELINES
from endolux.geometry.align import Alignment, align
from endolux.metrics import depth_metrics
from endolux.reproduce.real_frames import SETS, RealFrame
from endolux.reproduce.real_frames import read_plane as _grey
from endolux.reproduce.real_frames import read_rgb as _rgb
from endolux.types import DepthKind, DepthMap

DEFAULT_DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))

Image = npt.NDArray[np.uint8]
Predict = Callable[[Image], "npt.NDArray[np.floating] | DepthMap"]


def _chessboard(root: Path) -> Iterator[RealFrame]:
    folder = root / "laparoscope_stereo_chessboard"
    board = np.loadtxt(folder / "chessboard_14_10_3_no_ID.txt")
    for side in ("left", "right"):
        image = _rgb(folder / f"{side}-1095-undistorted.png")
        K = np.loadtxt(folder / f"calib.{side}.intrinsic.txt")
        pose = np.loadtxt(folder / f"{side}-1095.extrinsic.txt")
        corners = (board @ pose[:3, :3].T + pose[:3, 3]) @ K.T
        hull = cv2.convexHull((corners[:, :2] / corners[:, 2:]).astype(np.float32))
        area = np.zeros(image.shape[:2], np.uint8)
        cv2.fillConvexPoly(area, np.rint(hull).astype(np.int32), 1)
        normal = pose[:3, 2]
        y, x = np.mgrid[: area.shape[0], : area.shape[1]]
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.shape)], -1)
        depth_mm = (normal @ pose[:3, 3]) / (rays @ normal)
        yield RealFrame(
            "chessboard", side, image, np.where(area > 0, depth_mm, 0.0), area > 0, Alignment.MEDIAN, DepthKind.METRIC
        )


def _rotation(x: float, y: float, z: float, w: float) -> np.ndarray:
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _sinus(root: Path, step: int = 5) -> Iterator[RealFrame]:
    folder = root / "sinus_sfm_seq13"
    fx, fy, cx, cy = np.loadtxt(folder / "camera_intrinsics_per_view")[:4]
    lines = (folder / "structure.ply").read_text().splitlines()
    first = lines.index("end_header") + 1
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    points = np.array([line.split()[:3] for line in lines[first : first + count]], np.float64)
    seen: list[set[int]] = []
    for line in (folder / "view_indexes_per_point").read_text().split():
        if line == "-1":
            seen.append(set())
        else:
            seen[-1].add(int(line))
    numbers = [
        float(line.split(":")[1])
        for line in (folder / "motion.yaml").read_text().splitlines()
        if line.strip()[:2] in ("x:", "y:", "z:", "w:")
    ]
    poses = np.array(numbers).reshape(-1, 7)
    indices = [int(v) for v in (folder / "visible_view_indexes").read_text().split()]
    mask = _grey(folder / "undistorted_mask.bmp") > 127
    for frame, pose in list(zip(indices, poses, strict=True))[::step]:
        image = _rgb(folder / f"{frame:08d}.jpg")
        local = (points[[frame in s for s in seen]] - pose[:3]) @ _rotation(*pose[3:])
        u = np.rint(local[:, 0] / local[:, 2] * fx + cx).astype(int)
        v = np.rint(local[:, 1] / local[:, 2] * fy + cy).astype(int)
        inside = (local[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < mask.shape[1]) & (v < mask.shape[0])
        u, v, z = u[inside], v[inside], local[inside, 2]
        truth = np.zeros(mask.shape)
        truth[v, u] = z
        yield RealFrame(
            "sinus", str(frame), image, truth, (truth > 0) & mask, Alignment.MEDIAN, DepthKind.RELATIVE_DEPTH
        )


DATASETS: dict[str, Callable[[Path], Iterator[RealFrame]]] = {
    **SETS,
    "chessboard": _chessboard,
    "sinus": _sinus,
}


@functools.cache
def load_frames(dataset: str, data: Path = DEFAULT_DATA) -> tuple[RealFrame, ...]:
    """All frames of one data set, kept in memory (about 300 MB for all sets)."""
    frames = tuple(DATASETS[dataset](data))
    if not frames:
        raise FileNotFoundError(f"no frames of {dataset} under {data}")
    return frames


def frame_metrics(frame: RealFrame, prediction: npt.NDArray[np.floating] | DepthMap) -> dict[str, float]:
    """Metrics of one frame, with the share of true pixels that the prediction covered and the fitted scale."""
    if not isinstance(prediction, DepthMap):
        values = np.asarray(prediction, np.float32)
        prediction = DepthMap(values=values, kind=DepthKind.RELATIVE_DEPTH, valid=np.ones(values.shape, bool))
    aligned = align(prediction, frame.truth, frame.valid, alignment=frame.alignment, truth_kind=frame.truth_kind)
    # Sparse truth has a few hundred pixels in two million: compare only where there is something to compare.
    where = aligned.valid
    metrics = depth_metrics(aligned.values[where], frame.truth[where], np.ones(int(where.sum()), bool))
    return metrics | {"coverage": float(where.sum() / max(frame.valid.sum(), 1)), "scale": aligned.scale}


def score(
    predict: Predict, *, data: Path | str = DEFAULT_DATA, datasets: tuple[str, ...] = tuple(DATASETS)
) -> dict[str, dict[str, float | int | str]]:
    """Mean metrics per data set of a function from RGB uint8 H x W x 3 to depth H x W (or a DepthMap).

    Returns {data set: {"frames", "alignment", "abs_rel", "delta1", ..., "worst_abs_rel", "coverage",
    "negative_scales"}}. A frame without any comparable pixel makes the set's mean NaN.
    """
    result: dict[str, dict[str, float | int | str]] = {}
    for dataset in datasets:
        frames = load_frames(dataset, Path(data))
        rows = [frame_metrics(frame, predict(frame.image)) for frame in frames]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "scale"}
        result[dataset] = {
            "frames": len(frames),
            "alignment": frames[0].alignment.value,
            **means,
            "worst_abs_rel": float(max(row["abs_rel"] for row in rows)),
            "negative_scales": sum(row["scale"] < 0 for row in rows),
        }
    return result


def _cell(row: dict[str, float | int | str]) -> str:
    text = f"{row['abs_rel']:.3f} / {row['delta1']:.3f}"
    # A model that leaves pixels out is not measured on what the others are; nobody should have to guess that.
    return text if float(row["coverage"]) > 0.999 else f"{text} (on {float(row['coverage']):.1%} of the truth)"


def main() -> int:
    parser = argparse.ArgumentParser(description="Score depth on real frames.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--model", help="bundle name or folder; baselines only if absent")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--datasets", default=",".join(DATASETS), help="comma-separated subset")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    datasets = tuple(arguments.datasets.split(","))
    if unknown := set(datasets) - set(DATASETS):
        parser.error(f"unknown data sets {sorted(unknown)}; there are {', '.join(DATASETS)}")
    predictors: dict[str, Predict] = {
        f"baseline:{name}": functools.partial(lambda function, image: function(image, None), function)
        for name, function in BASELINES.items()
    }
    if arguments.model:
        import endolux

        predictors[arguments.model] = endolux.load(arguments.model, engine=arguments.engine).predict
    results = {}
    for name, predict in predictors.items():
        start = time.perf_counter()
        results[name] = score(predict, data=arguments.data, datasets=datasets)
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    if arguments.json:
        print(json.dumps(results, indent=2, allow_nan=True))
        return 0
    print("| data set | frames | alignment | " + " | ".join(f"{n} AbsRel / delta1" for n in results) + " |")
    print("|---|---|---|" + "---|" * len(results))
    for dataset in datasets:
        row = next(iter(results.values()))[dataset]
        cells = [_cell(r[dataset]) for r in results.values()]
        print(f"| {dataset} | {row['frames']} | {row['alignment']} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
