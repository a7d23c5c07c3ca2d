"""Size, work, latency and memory of every student: ``python benchmarks/students.py --bundles FOLDER [--json OUT]``.

Each network is measured as torch runs the published form (eager, float32), and as both engines run its bundle (exact
float32). Networks and engines take turns in every round, and a ratio is the median of ratios within a round, so that
what else the machine does falls on all of them. Milliseconds move by 5-20 % between runs and far more on a busy
machine; ratios stay. Weights are random, with BatchNorm settled on the picture: a buffer of tiny numbers would be
several times slower than any image.

The thesis's seconds stand beside them as facts. They were taken on a GTX 1650 Ti and, if the published code is what
ran, a second is that of a batch of two 480x640 images with autograd on, whatever the size the network was trained at:
images a second are twice the FPS that were printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

NETWORKS = (
    "leve",
    "leve-3x3",
    "leve-3x3-1x1",
    "leve-5x5-5x5",
    "leve-3x3-dw",
    "leve-alt-skips",
    "leve-no-skips",
    "leve-mobilenetv3",
    "guidedepth",
    "guidedepth-s",
    "repdepth",
    "litenet-t",
    "litenet-s",
    "litenet-m",
    "litenet-l",
    "lite-mono",
    "lite-mono-tiny",
    "lite-mono-small",
    "lite-mono-8m",
)
# Ours are counted as they run, with every branch folded and nothing that only training needs; others as published.
OURS = ("repdepth", "litenet-")
ENGINES = ("torch", "onnxruntime", "openvino")
# Seconds and FPS of tables 9.1 to 9.5.
THESIS: dict[str, tuple[float, float]] = {
    "leve": (0.037, 27),
    "leve-3x3": (0.030, 34),
    "leve-3x3-1x1": (0.033, 29.5),
    "leve-5x5-5x5": (0.055, 17.5),
    "leve-3x3-dw": (0.030, 33),
    "leve-alt-skips": (0.040, 25),
    "leve-no-skips": (0.034, 29),
    "leve-mobilenetv3": (0.023, 43),
    "guidedepth": (0.046, 21.5),
}
Image = npt.NDArray[np.uint8]


def picture(width: int, height: int) -> Image:
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 23 + phase) * np.cos(y / 17 - phase) * 90 + 120 for phase in (0.0, 1.0, 2.0)]
    noise = np.random.default_rng(0).normal(0, 15, (height, width, 3))
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)[None]


def fitting(width: int, height: int, multiple: int) -> tuple[int, int]:
    return -(-width // multiple) * multiple, -(-height // multiple) * multiple


def settled(name: str):  # noqa: ANN201  (torch is imported late: the engines are measured without it)
    import torch

    from endolux.models import create

    torch.manual_seed(0)
    network = create(name).train()
    images = torch.from_numpy(np.concatenate([picture(320, 256), picture(320, 256)[:, :, ::-1]])).permute(0, 3, 1, 2)
    with torch.no_grad():
        for _ in range(10):
            network(images.float() / 255)
    return network.eval()


def multiply_accumulates(name: str, width: int, height: int) -> int:
    import torch
    from torch import nn

    from endolux.models import create
    from endolux.models.lite_mono import CrossCovarianceAttention, PositionalEncoding

    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, CrossCovarianceAttention):
            total += 2 * inputs[0].numel() * inputs[0].shape[2] // layer.temperature.shape[0]
        elif isinstance(layer, PositionalEncoding):
            total += output.numel() * layer.token_projection.in_channels
        else:
            total += output.numel() * layer.weight[0].numel()

    with torch.device("meta"):
        network = create(name).eval()
    network = network.fuse() if name.startswith(OURS) else network
    counted = (nn.Conv2d, nn.Linear, CrossCovarianceAttention, PositionalEncoding)
    for layer in network.modules():
        if isinstance(layer, counted):
            layer.register_forward_hook(count)
    network(torch.empty(1, 3, *fitting(height, width, network.multiple), device="meta"))
    return total


def runner(name: str, engine: str, bundles: Path, image: Image, threads: int) -> Callable[[], object]:
    if engine == "torch":
        import torch

        network = settled(name)
        tensor = torch.from_numpy(image).permute(0, 3, 1, 2).float().div(255).contiguous()

        def call() -> object:
            with torch.inference_mode():
                return network(tensor)

        return call
    from endolux.runtime.bundles import load_bundle
    from endolux.runtime.engines import create_engine

    ready = create_engine(load_bundle(bundles / name), engine=engine, precision="exact", threads=threads)
    return lambda: ready.run(image)


def write_bundles(names: list[str], folder: Path) -> None:
    for name in names:
        if (folder / name).exists():
            continue
        from endolux.export import export_bundle

        network = settled(name)
        print(f"exporting {name}", file=sys.stderr, flush=True)
        size = fitting(640, 480, network.multiple)
        export_bundle(network, folder=folder / name, name=name, size=size, store="fp32")


def peak_megabytes(name: str, engine: str, bundles: Path, size: tuple[int, int], multiple: int) -> float:
    command = [sys.executable, __file__, "--peak", name, engine, *map(str, fitting(*size, multiple)), str(bundles)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return float(done.stdout)


def print_peak(name: str, engine: str, width: str, height: str, bundles: str) -> None:
    call = runner(name, engine, Path(bundles), picture(int(width), int(height)), 1)
    for _ in range(3):
        call()
    # ru_maxrss would be that of the process which started this one, where that was larger.
    high_water = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(high_water.split()[1]) / 1024)


def measure(
    names: list[str], bundles: Path, size: tuple[int, int], threads: int, *, rounds: int, calls: int
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each network and engine, one median a round."""
    import torch

    from endolux.models import create

    torch.set_num_threads(threads)
    multiples = {name: _multiple(create, name) for name in names}
    images = {name: picture(*fitting(*size, multiples[name])) for name in names}
    runs = {(n, e): runner(n, e, bundles, images[n], threads) for n in names for e in ENGINES}
    results: dict[str, dict[str, list[float]]] = {name: {engine: [] for engine in ENGINES} for name in names}
    for number in range(rounds + 1):
        for (name, engine), call in runs.items():
            times = []
            for _ in range(calls if number else 2):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            if number:
                results[name][engine].append(statistics.median(times) * 1e3)
    return results


def _multiple(create: Callable[..., object], name: str) -> int:
    import torch

    with torch.device("meta"):
        return int(create(name).multiple)  # type: ignore[attr-defined]


def table(document: dict) -> str:
    lines = []
    for entry in document["measured"]:
        width, height, threads = entry["width"], entry["height"], entry["threads"]
        against = document["against"]
        lines += [
            f"\n{height}x{width}, {threads} thread{'s' if threads > 1 else ''}\n",
            f"| network | params M | GMAC | torch ms (x {against}) | ONNX Runtime ms (x) | OpenVINO ms (x) | "
            "peak MB t / o / v | thesis s (FPS) |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, row in entry["networks"].items():
            facts = document["networks"][name]
            cells = [
                f"{row[e]['ms']:.1f} ({row[e]['ratio']:.2f})" if "ratio" in row[e] else f"{row[e]['ms']:.1f}"
                for e in ENGINES
            ]
            peaks = facts["peak_mb"].get(f"{height}x{width}", {})
            memory = " / ".join(f"{peaks[engine]:.0f}" for engine in ENGINES) if peaks else "-"
            thesis = f"{THESIS[name][0]:g} ({THESIS[name][1]:g})" if name in THESIS else "-"
            macs = facts["macs"][f"{height}x{width}"] / 1e9
            lines.append(
                f"| {name} | {facts['parameters'] / 1e6:.2f} | {macs:.2f} | {' | '.join(cells)} | {memory} | {thesis} |"
            )
    lines.append(
        "\nThesis: GTX 1650 Ti, a batch of two 480x640 images with autograd on, for networks of either size: images a "
        "second are twice these FPS. Networks whose step does not divide the size run at the next larger "
        "multiple: repdepth and lite-mono take 256x320 for 240x320."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="folder that keeps the exported networks between runs")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--against", choices=NETWORKS, default="leve", help="what ratios are taken against")
    parser.add_argument("--sizes", nargs="*", default=["640x480", "320x240"], help="WIDTHxHEIGHT")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, help="write every round there")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    folder = arguments.bundles or Path(tempfile.mkdtemp(prefix="students-"))
    names = [name for name in NETWORKS if name in arguments.only]
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes]
    write_bundles(names, folder)
    from endolux.models import create

    document: dict = {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "against": arguments.against,
        "load_before": os.getloadavg()[0],
        "networks": {},
        "measured": [],
    }
    for name in names:
        network = create(name)
        counted = network.fuse() if name.startswith(OURS) else network
        facts = {"parameters": sum(p.numel() for p in counted.parameters()), "macs": {}, "peak_mb": {}}
        for size in sizes:
            key = f"{size[1]}x{size[0]}"
            facts["macs"][key] = multiply_accumulates(name, *size)
            if not arguments.no_memory:
                facts["peak_mb"][key] = {e: peak_megabytes(name, e, folder, size, network.multiple) for e in ENGINES}
        document["networks"][name] = facts
        print(f"{name}: {facts}", file=sys.stderr, flush=True)
    for size in sizes:
        for threads in arguments.threads:
            rounds = measure(names, folder, size, threads, rounds=arguments.rounds, calls=arguments.calls)
            entry = {"width": size[0], "height": size[1], "threads": threads, "networks": {}}
            for name in names:
                entry["networks"][name] = {
                    e: {"ms": statistics.median(v), "rounds": v} for e, v in rounds[name].items()
                }
                if arguments.against in names:
                    for engine in ENGINES:
                        pairs = zip(rounds[name][engine], rounds[arguments.against][engine], strict=True)
                        entry["networks"][name][engine]["ratio"] = statistics.median(a / b for a, b in pairs)
            document["measured"].append(entry)
            print(f"{size} {threads} done, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    document["load_after"] = os.getloadavg()[0]
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))


if __name__ == "__main__":
    main()
