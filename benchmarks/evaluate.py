"""How long scoring takes: 551 synthetic SCARED-like frames of 1280 x 1024, predictions in .npy files on the disk.

    python benchmarks/evaluate.py [--frames 551] [--protocol-like median|disparity] [--folder FOLDER] [--json]

Frames and reference stand for a reader that is not measured: one reference in memory, shifted a little for every
frame. Predictions of 320 x 256 (as the networks give them) or, with --full, of 1280 x 1024 are read from the disk,
resized, aligned, clamped and measured by the same runner as ``endolux evaluate --protocol``. Network time is not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from endolux.datasets.base import Dataset, Finding, FrameKey, Protocol, Sample
from endolux.evaluate.prediction_set import open_prediction_set
from endolux.evaluate.protocol_report import document
from endolux.evaluate.protocol_run import run_protocol
from endolux.geometry.align import Alignment
from endolux.types import DepthKind, DepthMap, Frame

WIDTH, HEIGHT = 1280, 1024
TARGET_S = 60.0


class Synthetic(Dataset):
    """A bumpy wall at 30 to 120 mm with holes, as a structured-light reference has them."""

    name = "synthetic"
    root = Path("synthetic")

    def __init__(self, frames: int) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        self._depth = 75 + 35 * np.sin(x / 190) * np.cos(y / 170) + rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
        self._valid = rng.random((HEIGHT, WIDTH)) > 0.2
        self._image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self._frames = frames

    def keys(self) -> list[FrameKey]:
        """Seven sequences, as the test list has them."""
        return [FrameKey(sequence=f"s{i * 7 // self._frames}", index=i) for i in range(self._frames)]

    def load(self, key: FrameKey) -> Sample:
        """A fresh array a frame, as a reader gives it."""
        values = np.roll(self._depth, 13 * key.index, axis=1) + np.float32(0.01 * key.index)
        depth = DepthMap(values=values.astype(np.float32), kind=DepthKind.METRIC, valid=self._valid)
        return Sample(key=key, frame=Frame(image=self._image), depth=depth)

    def check(self) -> list[Finding]:
        """Nothing to check."""
        return []

    def files(self, key: FrameKey) -> list[Path]:
        """No files."""
        return [Path(f"{key.index}")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=551)
    parser.add_argument("--full", action="store_true", help="predictions of 1280 x 1024")
    parser.add_argument("--alignment", choices=[a.value for a in Alignment], default="median")
    parser.add_argument("--folder", type=Path, help="where predictions are written (default: a temporary folder)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = Synthetic(options.frames)
    keys = data.keys()
    protocol = Protocol(
        name="synthetic-551", version=1, dataset="synthetic", summary="", source="", select=lambda k, _: k,
        minimum=1e-3, maximum=150.0, clamp_prediction=True, alignment=Alignment(options.alignment),
        resize_prediction="bilinear-disparity",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        step = 1 if options.full else 4
        rng = np.random.default_rng(1)
        noise = np.exp(rng.normal(0, 0.05, (HEIGHT // step, WIDTH // step))).astype(np.float32)
        for key in keys:
            truth = data.load(key).depth
            assert truth is not None
            np.save(folder / f"{key.sequence}_{key.index}.npy", truth.values[::step, ::step] * noise / 50)
        predictor = open_prediction_set(folder, keys, ["" for _ in keys], kind=DepthKind.RELATIVE_DEPTH)
        before = resource.getrusage(resource.RUSAGE_SELF)
        peaks = []
        started = time.perf_counter()
        result = run_protocol(
            predictor, data, protocol, keys,
            on_progress=lambda *_: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
        )  # fmt: skip
        scored = time.perf_counter() - started
        content = document(result, data="synthetic")
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
    answer = {
        "frames": len(result.frames),
        "seconds": round(seconds, 2),
        "ms_per_frame": round(1e3 * scored / len(result.frames), 1),
        "report_seconds": round(seconds - scored, 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "peak_mb_after_20_frames": round(peaks[min(19, len(peaks) - 1)] / 1024, 1),
        "peak_mb_at_the_end": round(peaks[-1] / 1024, 1),
        "abs_rel": content["metrics"]["abs_rel"]["mean"],  # type: ignore[index,call-overload]
        "target_seconds": TARGET_S,
    }
    if options.json:
        print(json.dumps(answer))
    else:
        print("\n".join(f"{key:<26}{value}" for key, value in answer.items()))
    return 0 if seconds < TARGET_S or options.frames != 551 else 1


if __name__ == "__main__":
    sys.exit(main())
