"""Training images/s of the engine against a bare PyTorch loop on the same network.

    python benchmarks/engine.py [--recipe leve repdepth] [--rounds 8] [--steps 3] [--threads 2] [--json FILE]

Both loops run in one process, in turn, a few steps each: the bare one while the engine waits in its log. Same network,
weights, precision, memory layout, optimiser, loss and batch; the pictures lie in memory (a shard that was just
written), without augmentation, so that nothing hides what the engine adds. Target: at least 0.95.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from endolux.models import DepthNetwork
from endolux.train.engine import fit
from endolux.train.optimisers import build_optimiser
from endolux.train.precision import keep_depthwise_exact, memory_format
from endolux.train.recipe import Recipe, load_recipe
from endolux.train.task import Batch
from endolux.train.tasks.supervised import SupervisedTask


def write_shard(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Random pictures of a slanted wall."""
    generator = np.random.default_rng(0)
    width, height = size
    folder.mkdir(parents=True)
    np.save(folder / "rgb.npy", generator.integers(0, 255, (count, height, width, 3)).astype(np.uint8))
    wall = np.linspace(20, 120, width, dtype=np.float32)[None, None]
    np.save(folder / "depth.npy", (wall * generator.uniform(0.5, 1.5, (count, height, 1))).astype(np.float16))
    (folder / "meta.json").write_text(json.dumps({"width": width, "height": height, "complete": count}))


class Bare:
    """What anyone would write: forward, backward, step."""

    def __init__(self, recipe: Recipe, network: DepthNetwork, batch: Batch) -> None:
        self.network = copy.deepcopy(network).train()
        layout = memory_format(self.network, device=torch.device("cpu"), precision=recipe.precision)
        self.network.to(memory_format=layout)
        if recipe.precision == "bf16":
            keep_depthwise_exact(self.network)
        self.task = SupervisedTask(self.network, loss=recipe.loss)
        if recipe.precision == "bf16":
            self.task.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
        else:
            self.task.autocast = contextlib.nullcontext
        self.recipe, self.batch = recipe, batch
        self.optimiser = build_optimiser(self.network.parameters(), recipe.optimiser)

    def step(self) -> None:
        """One update."""
        tensors = self.task.prepare(self.batch, torch.device("cpu"))
        losses = self.task.loss_of(self.network, tensors)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """One recipe."""
    size = tuple(map(int, arguments.size.split("x")))
    changes = [
        f"steps={arguments.steps * (arguments.rounds + 2)}",
        f"batch={arguments.batch}",
        f"threads={arguments.threads}",
        f"log_every={arguments.steps}",
        f"data.size={arguments.size}",
        "data.augmentation.kind=none",
        "checkpoint_every=1000000",
        "average_decay=0",
        "device=cpu",
        *arguments.set,
    ]
    recipe = load_recipe(name, changes)
    write_shard(folder / "data" / "shard", 8 * arguments.batch, size)
    torch.manual_seed(recipe.seed)
    task = SupervisedTask.from_recipe(recipe)
    images, depths = np.load(folder / "data/shard/rgb.npy"), np.load(folder / "data/shard/depth.npy")
    batch = Batch(images=images[: arguments.batch], depths=depths[: arguments.batch].astype(np.float32))
    bare = Bare(recipe, task.networks["network"], batch)
    engine_speeds: list[float] = []
    bare_speeds: list[float] = []

    def turn(line: dict[str, object]) -> None:
        engine_speeds.append(float(line["images_per_s"]))
        started = time.perf_counter()
        for _ in range(arguments.steps):
            bare.step()
        bare_speeds.append(arguments.steps * arguments.batch / (time.perf_counter() - started))

    fit(task, recipe, [folder / "data"], folder / "run", on_log=turn)
    # The first two turns warm up allocators and kernels.
    pairs = list(zip(engine_speeds, bare_speeds, strict=True))[2:]
    ratios = [ours / theirs for ours, theirs in pairs]
    return {
        "recipe": name,
        "precision": recipe.precision,
        "size": arguments.size,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "engine_images_per_s": round(statistics.median(ours for ours, _ in pairs), 2),
        "bare_images_per_s": round(statistics.median(theirs for _, theirs in pairs), 2),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "rounds": len(ratios),
    }


def main() -> None:
    """Measure and print one line a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=["leve", "repdepth"])
    parser.add_argument("--size", default="320x256")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="key=value changes of the recipes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.recipe:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(name, arguments, Path(folder)))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
