"""Several trainings in one launch of torchrun: run as a program by the tests.

torchrun --nproc-per-node 2 distributed_child.py DATA OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from runs import small
from torch import nn

from endolux.train.engine import fit
from endolux.train.recipe import load_recipe
from endolux.train.synchronised import synchronise

COMMON = ("precision=fp32", "log_every=1", "steps=3", "data.augmentation.kind=none")
LEVE = ("threads=1", "device=cpu", "data.size=96x64", "data.augmentation.kind=leve")


def statistics(output: Path) -> None:
    """Synchronised batch normalisation against one process with the whole batch, in float64."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    split = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    split.load_state_dict(plain.state_dict())
    images = torch.rand(5, 3, 9, 9, dtype=torch.float64) + 100.0
    plain(images).square().sum().backward()
    synchronise(split)
    rank = dist.get_rank()
    # Unequal shares: 2 and 3 images.
    split(images[:2] if rank == 0 else images[2:]).square().sum().backward()
    for parameter in split.parameters():
        dist.all_reduce(parameter.grad)
    largest = max(float(parameter.grad.abs().max()) for parameter in plain.parameters())
    pairs = zip(split.parameters(), plain.parameters(), strict=True)
    worst = max(float((a.grad - b.grad).abs().max()) for a, b in pairs) / largest
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], value, rtol=1e-9, atol=1e-9)
    if rank == 0:
        (output / "statistics.txt").write_text(str(worst))


def main() -> None:
    data, output = Path(sys.argv[1]), Path(sys.argv[2])
    fit(None, small("batch=4", *COMMON), [data], output / "ddp")
    fit(None, small("batch=4", "parallel=fsdp", *COMMON), [data], output / "fsdp")
    leve = load_recipe("leve-no-skips", [*LEVE, *COMMON[:3], "batch=2", "accumulate=2"])
    fit(None, leve, [data], output / "leve")
    statistics(output)
    # Its last checkpoint lost, as if it had been killed before.
    half = small("batch=4", *COMMON, "checkpoint_every=2")
    last = fit(None, half, [data], output / "again")
    dist.barrier()
    if dist.get_rank() == 0:
        import shutil

        shutil.rmtree(last)
    dist.barrier()
    fit(None, half, [data], output / "again", resume=True)


if __name__ == "__main__":
    main()
    dist.destroy_process_group()
