"""Time and memory of a training step: Vector-LoRA against full fine-tuning of Depth Anything 2 Small.

Both in one run, alternating, each in a process of its own so that peaks of memory do not mix:

    python benchmarks/adapt.py                  # 252 x 322, batch 4, 5 steps each
    python benchmarks/adapt.py --steps 2        # a smoke run

Prints the medians and their ratios; --json prints them for machines. On a busy machine the ratio of processor time is
the one to believe. ``training_mb`` leaves out what a process held before it trained.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Mapping

KINDS = ("full", "vector-lora")


def measure(kind: str, steps: int, batch: int, size: tuple[int, int], threads: int) -> dict[str, float]:
    """Median seconds of a step, by the clock and of the processor, and the peak of memory in MB."""
    import torch

    from endolux.models import create

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = create("depth-anything-v2-s", output="depth", adapt={"kind": kind}).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=3e-5, fused=True)
    image, target = torch.rand(batch, 3, *size), torch.rand(batch, 1, *size)
    before = peak_mb()
    seconds, processor = [], []
    for _ in range(steps + 1):
        start, started = time.perf_counter(), time.process_time()
        optimiser.zero_grad(set_to_none=True)
        (network(image) - target).abs().mean().backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - started)
    return {
        "step_s": statistics.median(seconds[1:]),
        "processor_s": statistics.median(processor[1:]),
        "peak_mb": peak_mb(),
        "training_mb": peak_mb() - before,
        "trained": float(sum(parameter.numel() for parameter in trained)),
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0**2 if sys.platform == "darwin" else 1024.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
    parser.add_argument("--rounds", type=int, default=1, help="how often the two alternate")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--height", type=int, default=252)
    parser.add_argument("--width", type=int, default=322)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[Mapping[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(given.rounds):
        for kind in KINDS:
            with context.Pool(1) as pool:
                arguments = (kind, given.steps, given.batch, (given.height, given.width), given.threads)
                found[kind].append(pool.apply(measure, arguments))
    medians = {
        kind: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for kind, rows in found.items()
    }
    ratios = {
        name: medians["vector-lora"][name] / medians["full"][name]
        for name in ("step_s", "processor_s", "peak_mb", "training_mb")
    }
    if given.json:
        print(json.dumps({"medians": medians, "vector_lora_over_full": ratios}, indent=1))
        return
    print(f"{given.width}x{given.height}, batch {given.batch}, float32, {given.threads} thread(s)")
    for kind, row in medians.items():
        print(
            f"{kind:12} {row['step_s']:7.2f} s a step ({row['processor_s']:.2f} of the processor)  "
            f"{row['peak_mb']:7.0f} MB at the peak  "
            f"{row['training_mb']:7.0f} MB of it by training  {row['trained'] / 1e6:6.2f} M parameters trained"
        )
    told = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
    print(f"vector-lora / full: {told}")


if __name__ == "__main__":
    main()
