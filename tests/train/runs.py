"""Small trainings for the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from endolux.train.checkpoints import read_average, read_state, read_weights
from endolux.train.engine import fit
from endolux.train.recipe import Recipe, load_recipe

SMALL = "{widths: [8, 16, 16, 16], blocks: [1, 1, 1, 1], decoder: [16, 8, 8], fine: 4}"
BASE = (
    f"model.config={SMALL}",
    # As large as the shards: oneDNN crashes on strided 1 x 1 convolutions of 8 channels in larger pictures.
    "data.size=null",
    "steps=8",
    "batch=4",
    "threads=1",
    "device=cpu",
    "checkpoint_every=4",
    "log_every=2",
    "average_decay=0.9",
)
CALM = ("data.augmentation.kind=none",)


def small(*changes: str, name: str = "repdepth") -> Recipe:
    return load_recipe(name, [*BASE, *changes])


def go(data: Path, output: Path, *changes: str, **options: object) -> Path:
    return fit(None, small(*changes), [data], output, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint."""
    state = read_state(folder)
    found = dict(read_weights(folder, "state"))
    for name in state.networks:
        found |= {f"{name}.{key}": value for key, value in read_weights(folder, name).items()}
    found |= {f"average.{key}": value for key, value in (read_average(folder) or {}).items()}
    return found


def differing(first: Path, second: Path) -> list[str]:
    expected, actual = weights(first), weights(second)
    assert expected.keys() == actual.keys()
    return [name for name in expected if not torch.equal(expected[name], actual[name])]


def log(output: Path) -> list[Mapping[str, object]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
