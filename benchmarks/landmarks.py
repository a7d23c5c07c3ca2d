"""Frames a second of the light network of landmarks: ``python benchmarks/landmarks.py [--model BUNDLE] [--json OUT]``.

The bundle as both engines run it (exact float32) at one size, with one and two threads, beside ``repdepth-colon``, a
network of depth that comes along. Models and engines take turns in every round; a ratio is the median of the ratios
within a round, so that what else the machine does falls on both. Beside the wall clock stands the time of the
processor, over all threads: on a busy machine the wall clock says little. ``whole`` is what a user waits for: finding
the content area, the network by ONNX Runtime, and classes at the size of the frame. Without ``--model`` fresh weights
of ``landmarks-light`` are exported first (``--bundles`` keeps them): weights do not change the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

PEER = "repdepth-colon"
Image = npt.NDArray[np.uint8]


def picture(width: int, height: int) -> Image:
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 23 + phase) * np.cos(y / 17 - phase) * 90 + 120 for phase in (0.0, 1.0, 2.0)]
    noise = np.random.default_rng(0).normal(0, 15, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def fresh_bundle(folder: Path, size: tuple[int, int], letter: str) -> Path:
    import torch

    from endolux.export.landmarks import export_landmarks
    from endolux.models import create_landmarks

    torch.manual_seed(0)
    network = create_landmarks("landmarks-light", size=letter).train()
    image = torch.from_numpy(picture(*size)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        # Statistics of BatchNorm that fit: a network of tiny numbers would be several times slower.
        for _ in range(10):
            network(torch.cat([image, image.flip(3)]))
    export_landmarks(network.eval(), folder=folder, name=folder.name, size=size, store="fp32")
    return folder


def calls_of(model: str | Path, image: Image, threads: int, engines: list[str]) -> dict[str, Callable[[], object]]:
    import endolux
    from endolux.runtime.bundles import load_bundle
    from endolux.runtime.engines import create_engine
    from endolux.runtime.landmarks import LandmarkModel

    bundle = load_bundle(model)
    calls: dict[str, Callable[[], object]] = {}
    for name in engines:
        engine = create_engine(bundle, engine=name, precision="exact", threads=threads)
        calls[name] = lambda engine=engine: engine.run(image[None])
    if bundle.card.output.kind == "landmarks":
        whole = LandmarkModel(bundle, create_engine(bundle, engine="onnxruntime", precision="exact", threads=threads))
        calls["whole"] = lambda: whole.predict(image)
    else:
        depth = endolux.load(model, threads=threads)
        calls["whole"] = lambda: depth.predict(image)
    return calls


def measure(
    runs: dict[tuple[str, str], Callable[[], object]], rounds: int, calls: int
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Milliseconds by model, way and clock: a median of the wall clock and the least of the processor's a round."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(rounds + 1):
        for (model, way), call in runs.items():
            wall, processor = [], []
            for _ in range(calls if number else 2):
                before, start = time.process_time(), time.perf_counter()
                call()
                wall.append(1e3 * (time.perf_counter() - start))
                processor.append(1e3 * (time.process_time() - before))
            if number:
                clocks = found.setdefault(model, {}).setdefault(way, {"wall": [], "processor": []})
                clocks["wall"].append(statistics.median(wall))
                clocks["processor"].append(min(processor))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="bundle of landmarks; may be repeated")
    parser.add_argument("--sizes", nargs="+", default=["t"], help="of landmarks-light, where no bundle is given")
    parser.add_argument("--bundles", type=Path, help="folder that keeps exported networks between runs")
    parser.add_argument("--size", default="320x256", help="WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    models: dict[str, str | Path] = {PEER: PEER}
    with tempfile.TemporaryDirectory() as scratch:
        for letter in [] if arguments.model else arguments.sizes:
            name = f"landmarks-light-{letter}"
            folder = (arguments.bundles or Path(scratch)) / name
            models[name] = folder if folder.is_dir() else fresh_bundle(folder, (width, height), letter)
        models |= {Path(name).name: name for name in arguments.model or ()}
        image = picture(width, height)
        document: dict[str, object] = {"load_before": os.getloadavg()[0], "size": arguments.size, "measured": []}
        print(f"{arguments.size}, load average {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores to use")
        for threads in arguments.threads:
            runs = {
                (name, way): call
                for name, model in models.items()
                for way, call in calls_of(model, image, threads, arguments.engines).items()
            }
            found = measure(runs, arguments.rounds, arguments.calls)
            document["measured"].append({"threads": threads, "ms": found})  # type: ignore[attr-defined]
            for name, ways in found.items():
                for way, own in ways.items():
                    ratios = [
                        statistics.median(b / a for a, b in zip(own[clock], found[PEER][way][clock], strict=True))
                        for clock in ("wall", "processor")
                    ]
                    wall, processor = (statistics.median(own[clock]) for clock in ("wall", "processor"))
                    print(
                        f"  {threads} thread{'s' if threads > 1 else ' '}  {name:20s} {way:12s} {wall:7.2f} ms "
                        f"{1e3 / wall:6.1f} frames/s {ratios[0]:5.2f} of {PEER}'s speed; processor {processor:7.2f} ms "
                        f"{ratios[1]:5.2f}"
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
