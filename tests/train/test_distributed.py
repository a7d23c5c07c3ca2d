"""Two processes of B samples train as one of 2 B: torchrun with gloo on a CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed_child import COMMON, LEVE
from runs import differing, go, log, weights
from shards import write_shard

from endolux.train.checkpoints import checkpoints, load_network
from endolux.train.engine import fit
from endolux.train.recipe import load_recipe

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed")
    write_shard(root / "data" / "shard-0", count=9, seed=1)
    write_shard(root / "data" / "shard-1", count=8, seed=2)
    # Pictures without any depth: the processes then have different numbers of them.
    depths = np.load(root / "data" / "shard-1" / "depth.npy")
    depths[:5] = 0
    np.save(root / "data" / "shard-1" / "depth.npy", depths)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)),
            *(str(HERE / "distributed_child.py"), str(root / "data"), str(root)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def alone(launched: Path) -> Path:
    go(launched / "data", launched / "alone", "batch=8", *COMMON)
    return launched / "alone"


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_have_the_loss_curve_of_one(launched: Path, alone: Path, way: str) -> None:
    one, two = log(alone), log(launched / way)
    assert [line["step"] for line in two] == [1, 2, 3]
    for name in ("total", "silog", "anchor"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=2e-3)
    # The first step has the same weights: what differs is rounding alone.
    for name in ("total", "silog", "anchor", "gradient", "gradient_norm"):
        assert two[0][name] == pytest.approx(one[0][name], rel=1e-3)


def test_split_networks_are_whole_in_checkpoints(launched: Path) -> None:
    copied, split = checkpoints(launched / "ddp")[-1], checkpoints(launched / "fsdp")[-1]
    first, second = weights(copied), weights(split)
    assert {name: value.shape for name, value in first.items()} == {name: v.shape for name, v in second.items()}
    assert {"depth.0.exp_avg", "rng.0.cpu", "rng.1.cpu"} <= first.keys()
    a, b = (load_network(launched / way)[0].state_dict()["head.weight"] for way in ("ddp", "fsdp"))
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0.05, atol=1e-3)


def test_leve_with_unused_weights_and_accumulation(launched: Path) -> None:
    recipe = load_recipe(
        "leve-no-skips", [*LEVE, *COMMON[:3], "batch=4", "accumulate=2", "synchronise_batchnorm=false"]
    )
    fit(None, recipe, [launched / "data"], launched / "leve-alone")
    one, two = log(launched / "leve-alone"), log(launched / "leve")
    assert [line["total"] for line in two] == pytest.approx([line["total"] for line in one], rel=0.01)


def test_synchronised_statistics_are_exact(launched: Path) -> None:
    assert float((launched / "statistics.txt").read_text()) < 1e-10


def test_resuming_with_two_processes(launched: Path) -> None:
    assert differing(checkpoints(launched / "ddp")[-1], checkpoints(launched / "again")[-1]) == []
