"""Projection time, captured energy, step time and memory of the low-rank optimiser.

    python benchmarks/galore.py [--ranks 64 128] [--repeats 5] [--shapes 1728x576 ...] [--steps 10] [--json FILE]

One thread; every variant in turn within one process, the smallest of the repeats counts. Time is given as a ratio to
the full SVD of the same matrix in the same run, energy as a share of what the SVD of that rank captures, on gradients
with singular values exp(-i/30), 1/i and 1/sqrt(i), and on the two cases that tell the transforms apart: eight pure
tones and 40 active rows. Targets: srft at least 8 times faster than SVD at rank 64 and 6 times at rank 128, energy at
least 0.95 of SVD's on decaying spectra, state at most 0.3 of AdamW's at rank 128.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from endolux.adapt import GaLoreAdamW, captured_energy, projection
from endolux.adapt.shapes import state_scalars

# Attention weights, rows x columns: count.
HIERA_L = {
    (432, 144): 2, (864, 144): 1, (864, 288): 5, (1728, 288): 1, (1728, 576): 35, (3456, 1152): 3,
    (144, 144): 2, (288, 288): 6, (576, 576): 36, (1152, 1152): 4, (3456, 576): 1,
}  # fmt: skip
VIT_S = {(1152, 384): 12, (384, 384): 12}
TIMED = ((1728, 576), (576, 576), (3456, 1152), (1152, 384))
VARIANTS: dict[str, dict[str, object]] = {
    "svd": {"kind": "svd"},
    "srft": {"kind": "srft"},
    "srft, oversampling r/2": {"kind": "srft", "oversampling": 0.5},
    "srft, power 1": {"kind": "srft", "power": 1},
    "srft-released": {"kind": "srft-released"},
    "gaussian": {"kind": "gaussian"},
    "dct": {"kind": "dct"},
    "random-columns": {"kind": "random-columns"},
    "random-orthonormal": {"kind": "random-orthonormal"},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(rows: int, columns: int) -> dict[str, Tensor]:
    """Matrices with known spectra, and the discriminating cases."""
    count = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, count, generator=seeded(0)))[0]
    right = torch.linalg.qr(torch.randn(columns, count, generator=seeded(1)))[0]
    i = torch.arange(1.0, count + 1)
    spectra = {"exp(-i/30)": torch.exp(-i / 30), "1/i": 1 / i, "1/sqrt(i)": i**-0.5}
    made = {name: (left * values) @ right.T for name, values in spectra.items()}
    tones = torch.randperm((rows - 1) // 2, generator=seeded(2))[:8] + 1.0
    waves = torch.cos(2 * math.pi * torch.arange(rows)[:, None] * tones / rows + tones)
    noise = torch.randn(rows, columns, generator=seeded(3))
    made["8 tones"] = waves @ torch.randn(8, columns, generator=seeded(4)) + 0.01 * noise
    made["40 rows"] = 1e-3 * noise
    active = torch.randperm(rows, generator=seeded(5))[:40]
    made["40 rows"][active] = torch.randn(40, columns, generator=seeded(6))
    return made


def basis_of(gradient: Tensor, rank: int, options: dict[str, object], seed: int) -> Tensor:
    options = dict(options)
    extra = int(rank * float(options.pop("oversampling", 0)))  # type: ignore[arg-type]
    return projection(gradient, rank, generator=seeded(seed), oversampling=extra, **options)  # type: ignore[arg-type]


def projections(shape: tuple[int, int], rank: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time as a multiple of SVD's speed, and energy as a share of SVD's."""
    cases = gradients(*shape)
    timed = cases["exp(-i/30)"]
    seconds = dict.fromkeys(VARIANTS, math.inf)
    for repeat in range(repeats):
        for name, options in VARIANTS.items():
            start = time.perf_counter()
            basis_of(timed, rank, options, repeat)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    best = {name: captured_energy(g, projection(g, rank, "svd")) for name, g in cases.items()}
    table = {}
    for name, options in VARIANTS.items():
        energies = {n: captured_energy(g, basis_of(g, rank, options, 0)) / best[n] for n, g in cases.items()}
        table[name] = {"ms": 1e3 * seconds[name], "times_svd": seconds["svd"] / seconds[name]} | energies
    return table


def step_times(steps: int, rounds: int) -> dict[str, float]:
    """Milliseconds of one optimiser step, refreshes spread over T = 50, on a stage-3 block of Hiera-L four times."""
    weights = [torch.randn(shape, generator=seeded(n)) for n, shape in enumerate([(1728, 576), (576, 576)] * 4)]
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "torch AdamW": lambda p: torch.optim.AdamW(p, fused=False),
        **{
            f"{kind}, rank {rank}": lambda p, kind=kind, rank=rank: GaLoreAdamW(p, rank=rank, projection=kind)
            for rank in (64, 128)
            for kind in ("srft", "svd")
        },
    }
    runs = {}
    for name, make in makers.items():
        parameters = [nn.Parameter(w.clone()) for w in weights]
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.grad = weight.roll(1, 0).clone()
        start = time.perf_counter()
        optimiser = make(parameters)
        optimiser.step()
        runs[name] = [optimiser, time.perf_counter() - start, math.inf]
    for _ in range(rounds):
        for run in runs.values():
            start = time.perf_counter()
            for _ in range(steps):
                run[0].step()
            run[2] = min(run[2], (time.perf_counter() - start) / steps)
    return {name: 1e3 * (usual + max(first - usual, 0) / 50) for name, (_, first, usual) in runs.items()}


def state_shares() -> dict[str, float]:
    """Scalars kept, as a share of AdamW's, counted over all adapted matrices."""
    shares = {}
    for network, shapes in (("Hiera-L", HIERA_L), ("ViT-S", VIT_S)):
        for side in ("auto", "reverse"):
            for rank in (64, 128):
                kept = sum(state_scalars(shape, rank, side) * n for shape, n in shapes.items())
                full = sum(state_scalars(shape, None) * n for shape, n in shapes.items())
                shares[f"{network}, rank {rank}, side {side}"] = kept / full
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", default=[f"{m}x{n}" for m, n in TIMED])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}, one thread")
    results: dict[str, object] = {"load": os.getloadavg(), "projections": {}}
    for text in arguments.shapes:
        rows, columns = (int(part) for part in text.split("x"))
        for rank in arguments.ranks:
            table = projections((rows, columns), rank, arguments.repeats)
            results["projections"][f"{text} r{rank}"] = table  # type: ignore[index]
            names = [name for name in table["svd"] if name not in {"ms", "times_svd"}]
            print(f"\n{text}, rank {rank}: time, times faster than SVD, energy / SVD's on " + ", ".join(names))
            for name, row in table.items():
                energies = " ".join(f"{row[n]:.3f}" for n in names)
                print(f"  {name:24s} {row['ms']:8.2f} ms {row['times_svd']:6.1f}x  {energies}", flush=True)
    results["step_ms"] = step_times(arguments.steps, arguments.repeats)
    print("\nOptimiser step, refresh spread over T = 50 (eight matrices of Hiera-L):")
    for name, value in results["step_ms"].items():  # type: ignore[attr-defined]
        print(f"  {name:24s} {value:8.2f} ms")
    results["state"] = state_shares()
    print("\nState as a share of AdamW's:")
    for name, value in results["state"].items():  # type: ignore[attr-defined]
        print(f"  {name:36s} {value:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
