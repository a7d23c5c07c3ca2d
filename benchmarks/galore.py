"""Projection time, captured energy, step time and memory of the low-rank optimiser.

    python benchmarks/galore.py [--ranks 64 128] [--repeats 5] [--rounds 3] [--shapes 1728x576 ...] [--json FILE]

One thread; every variant in turn within one process. Time is that of the processor, so that other programs on the
same core disturb it little; the smallest of the repeats counts, as a ratio to the full SVD of the same matrix in the
same round. Rounds begin from the start; the median of the rounds is shown with the smallest and the largest. Energy is
a share of what the SVD of that rank captures, the mean of five draws and the worst in brackets, on gradients with
singular values exp(-i/30), 1/i and 1/sqrt(i), and on the two cases that tell the transforms apart: eight pure tones
and 40 active rows. Targets: srft at least 8 times faster than SVD at rank 64 and 6 times at rank 128, energy at least
0.95 of SVD's on decaying spectra, state at most 0.3 of AdamW's at rank 128.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
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
TIMED = ((1728, 576), (576, 576), (3456, 1152), (1152, 384), (384, 384))
DECAYING = ("exp(-i/30)", "1/i", "1/sqrt(i)")
DRAWS = 5
LEAST_SPEED, LEAST_ENERGY, MOST_STATE = {64: 8.0, 128: 6.0}, 0.95, 0.3
VARIANTS: dict[str, dict[str, object]] = {
    "svd": {"kind": "svd"},
    "srft": {"kind": "srft"},
    "srft, power 0": {"kind": "srft", "power": 0},
    "srft, power 0, r/8 more": {"kind": "srft", "power": 0, "oversampling": 0.125},
    "srft, power 0, r/2 more": {"kind": "srft", "power": 0, "oversampling": 0.5},
    "srft-released": {"kind": "srft-released"},
    "gaussian, power 0": {"kind": "gaussian", "power": 0},
    "dct, power 0": {"kind": "dct", "power": 0},
    "random-columns, power 0": {"kind": "random-columns", "power": 0},
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


def projections(shape: tuple[int, int], rank: int, repeats: int, rounds: int) -> dict[str, dict[str, object]]:
    """Time as a multiple of SVD's speed, and energy as a share of SVD's."""
    cases = gradients(*shape)
    timed = cases["exp(-i/30)"]
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        seconds = dict.fromkeys(VARIANTS, math.inf)
        for repeat in range(repeats):
            for name, options in VARIANTS.items():
                start = time.process_time()
                basis_of(timed, rank, options, repeat)
                seconds[name] = min(seconds[name], time.process_time() - start)
        for name, least in seconds.items():
            taken[name].append(least)
    best = {name: captured_energy(g, projection(g, rank, "svd")) for name, g in cases.items()}
    table: dict[str, dict[str, object]] = {}
    for name, options in VARIANTS.items():
        draws = 1 if name == "svd" else DRAWS
        energies = {
            case: [captured_energy(g, basis_of(g, rank, options, seed)) / best[case] for seed in range(draws)]
            for case, g in cases.items()
        }
        speeds = [svd / own for svd, own in zip(taken["svd"], taken[name], strict=True)]
        table[name] = {"ms": 1e3 * statistics.median(taken[name]), "times_svd": speeds, "energy": energies}
    return table


def show(text: str, rank: int, table: dict[str, dict[str, object]]) -> str:
    """Print a table; what of the targets it says."""
    cases = list(table["svd"]["energy"])  # type: ignore[call-overload]
    print(f"\n{text}, rank {rank}: ms, times faster than SVD (of the rounds), energy / SVD's on " + ", ".join(cases))
    for name, row in table.items():
        speeds: list[float] = row["times_svd"]  # type: ignore[assignment]
        energies: dict[str, list[float]] = row["energy"]  # type: ignore[assignment]
        shares = " ".join(f"{statistics.mean(values):.3f} ({min(values):.3f})" for values in energies.values())
        middle = f"{statistics.median(speeds):6.1f} ({min(speeds):.1f}-{max(speeds):.1f})"
        print(f"  {name:24s} {row['ms']:8.2f}  {middle:22s} {shares}", flush=True)
    own, least = table["srft"], LEAST_SPEED.get(rank, 6.0)
    slowest = min(own["times_svd"])  # type: ignore[call-overload]
    lowest = min(min(own["energy"][case]) for case in DECAYING)  # type: ignore[index]
    met = slowest >= least and lowest >= LEAST_ENERGY
    return (
        f"{text} rank {rank}: srft at least {slowest:.1f} times SVD's speed (target {least:.0f}), energy at least "
        f"{lowest:.3f} (target {LEAST_ENERGY}): {'met' if met else 'MISSED'}"
    )


def refreshes(tables: dict[str, dict[str, dict[str, object]]], ranks: list[int]) -> dict[str, float]:
    """How many times faster than SVD one refresh of all matrices of a network is, over the shapes that were timed."""
    faster = {}
    for network, shapes in (("Hiera-L", HIERA_L), ("ViT-S", VIT_S)):
        for rank in ranks:
            have = {shape: tables.get(f"{shape[0]}x{shape[1]} r{rank}") for shape in shapes}
            timed = {shape: table for shape, table in have.items() if table is not None}
            if not timed:
                continue
            name = f"{network}, {sum(shapes[shape] for shape in timed)} of {sum(shapes.values())} matrices, rank {rank}"
            for kind in ("srft", "srft, power 0", "srft-released", "gaussian, power 0"):
                svd, own = (
                    sum(float(table[k]["ms"]) * shapes[shape] for shape, table in timed.items())  # type: ignore[arg-type]
                    for k in ("svd", kind)
                )
                faster[f"{name}: {kind}"] = svd / own
    return faster


def step_times(steps: int, rounds: int) -> dict[str, float]:
    """Milliseconds of one optimiser step, refreshes spread over T = 50, on four blocks of Hiera-L's third stage."""
    weights = [torch.randn(shape, generator=seeded(n)) for n, shape in enumerate([(1728, 576), (576, 576)] * 4)]
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "torch AdamW": lambda p: torch.optim.AdamW(p, fused=False),
        "torch AdamW, fused": lambda p: torch.optim.AdamW(p, fused=True),
        **{
            f"{kind}, rank {rank}": lambda p, kind=kind, rank=rank: GaLoreAdamW(p, rank=rank, projection=kind)
            for rank in (64, 128)
            for kind in ("srft", "svd")
        },
        "srft, rank 128, reverse": lambda p: GaLoreAdamW(p, rank=128, side="reverse"),
    }
    runs = {}
    for name, make in makers.items():
        parameters = [nn.Parameter(w.clone()) for w in weights]
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.grad = weight.roll(1, 0).clone()
        optimiser = make(parameters)
        start = time.process_time()
        optimiser.step()
        runs[name] = [optimiser, time.process_time() - start, math.inf]
    for _ in range(rounds):
        for run in runs.values():
            start = time.process_time()
            for _ in range(steps):
                run[0].step()
            run[2] = min(run[2], (time.process_time() - start) / steps)
    return {name: 1e3 * (usual + max(first - usual, 0) / 50) for name, (_, first, usual) in runs.items()}


def state_bytes() -> dict[str, float]:
    """Bytes that the optimiser holds after a step, as a share of AdamW's, on the matrices of ViT-S."""
    held = {}
    for name, options in (("AdamW", {}), ("rank 64", {"rank": 64}), ("rank 128", {"rank": 128})):
        parameters = [nn.Parameter(torch.zeros(shape)) for shape, count in VIT_S.items() for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimiser = GaLoreAdamW(parameters, **options)  # type: ignore[arg-type]
        optimiser.step()
        held[name] = sum(v.nbytes for state in optimiser.state.values() for v in state.values())
    return {name: value / held["AdamW"] for name, value in held.items()}


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="*", default=[f"{m}x{n}" for m, n in TIMED])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()[0]:.1f}, torch {torch.__version__}, one thread")
    results: dict[str, object] = {"load": os.getloadavg(), "projections": {}}
    verdicts = []
    for text in arguments.shapes:
        rows, columns = (int(part) for part in text.split("x"))
        for rank in arguments.ranks:
            table = projections((rows, columns), rank, arguments.repeats, arguments.rounds)
            results["projections"][f"{text} r{rank}"] = table  # type: ignore[index]
            verdicts.append(show(text, rank, table))
    results["refresh"] = refreshes(results["projections"], arguments.ranks)  # type: ignore[arg-type]
    print("\nOne refresh of a network's attention, times faster than SVD:")
    for name, value in results["refresh"].items():  # type: ignore[attr-defined]
        print(f"  {name:64s} {value:6.1f}")
    results["step_ms"] = step_times(arguments.steps, arguments.repeats)
    print("\nOptimiser step, refresh spread over T = 50 (eight matrices of Hiera-L):")
    for name, value in results["step_ms"].items():  # type: ignore[attr-defined]
        print(f"  {name:24s} {value:8.2f} ms  {value / results['step_ms']['torch AdamW']:5.2f} of AdamW's")  # type: ignore[index]
    results["state"] = state_shares()
    print("\nState as a share of AdamW's:")
    for name, value in results["state"].items():  # type: ignore[attr-defined]
        print(f"  {name:36s} {value:.3f}")
    results["state_bytes"] = state_bytes()
    print("Bytes held after a step, ViT-S: " + ", ".join(f"{n} {v:.3f}" for n, v in results["state_bytes"].items()))  # type: ignore[attr-defined]
    for network in ("Hiera-L", "ViT-S"):
        share = results["state"][f"{network}, rank 128, side auto"]  # type: ignore[index]
        verdicts.append(
            f"{network} rank 128: state {share:.3f} of AdamW's (target {MOST_STATE}): "
            f"{'met' if share <= MOST_STATE else 'MISSED'}"
        )
    print("\n" + "\n".join(verdicts))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
