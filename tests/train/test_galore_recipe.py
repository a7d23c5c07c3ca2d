"""GaLore in recipes: chosen matrices, resuming to the byte, gradients that are not finite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from endolux.adapt import GaLoreAdamW
from endolux.errors import CheckError, ModelError, UsageError
from endolux.train.optimisers import build_optimiser, restore_state, state_tensors
from endolux.train.recipe import Optimiser, recipe_from
from endolux.train.tasks.supervised import SupervisedTask
from train.runs import CALM, differing, go, log, small, weights
from train.shards import write_shard

GALORE = (
    "optimiser.name=galore",
    r"optimiser.pattern=['stages.*point.conv$', 'stages.*dense']",
    "optimiser.rank=4",
    "optimiser.update_interval=3",
    "optimiser.oversized=adamw",
)


class Toy(nn.Module):
    """Two matrices by name, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({"qkv": nn.Linear(12, 36), "proj": nn.Linear(12, 12)})
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)


def galore(**options: object) -> Optimiser:
    return Optimiser.model_validate({"name": "galore", "rank": 4, "lr": 1e-2, **options})


def build(module: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    return build_optimiser(module.parameters(), settings, module=module, fused=False)


def step(module: Toy, optimiser: torch.optim.Optimizer, seed: int) -> None:
    optimiser.zero_grad()
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(seed))
    hidden = module.norm(module.attn["proj"](module.attn["qkv"](x)[:, :12]))
    module.head(hidden).square().sum().backward()
    optimiser.step()


def test_groups_and_decay() -> None:
    module = Toy()
    optimiser = build(module, galore(weight_decay=0.1, adapted=2))
    assert isinstance(optimiser, GaLoreAdamW)
    assert [group["rank"] for group in optimiser.param_groups] == [4, None, None]
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.1, 0.1, 0.0]
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 1, 5]
    assert optimiser.param_groups[0]["params"][0] is module.attn["qkv"].weight


@pytest.mark.parametrize(
    ("options", "error_id"),
    [
        ({"adapted": 3}, "adapt.count"),
        ({"pattern": ["nowhere"]}, "adapt.no-match"),
        ({"pattern": ["("]}, "adapt.pattern"),
        ({"rank": 13}, "adapt.rank"),
    ],
)
def test_refusals(options: dict[str, object], error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Toy(), galore(**options))
    assert caught.value.error_id == error_id


def test_keys_of_another_optimiser() -> None:
    base = {"name": "a", "model": {"name": "repdepth"}, "steps": 5}
    with pytest.raises(UsageError, match="belongs to the optimiser 'galore'"):
        recipe_from({**base, "optimiser": {"rank": 4}})
    plain = recipe_from({**base, "optimiser": {"lr": 1e-3}}).document()["optimiser"]
    assert plain == {"name": "adamw", "lr": 1e-3, "weight_decay": 0.02, "betas": [0.9, 0.999], "eps": 1e-8}
    written = recipe_from({**base, "optimiser": {"name": "galore", "pattern": "decoder"}})
    assert recipe_from(written.document()) == written
    assert written.optimiser.pattern == ("decoder",)


def test_state_continues_across_a_refresh() -> None:
    torch.manual_seed(0)
    one, settings = Toy(), galore(update_interval=3)
    first = build(one, settings)
    for seed in range(4):
        step(one, first, seed)
    two = Toy()
    two.load_state_dict(one.state_dict())
    second = build(two, settings)
    restore_state(second, {key: value.clone() for key, value in state_tensors(first, "depth").items()}, "depth")
    for seed in range(4, 9):
        step(one, first, seed)
        step(two, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_state_of_another_rank() -> None:
    module = Toy()
    first = build(module, galore())
    step(module, first, 0)
    tensors = state_tensors(first, "depth")
    for wrong in (galore(rank=3), galore(side="reverse"), Optimiser(lr=1e-2)):
        with pytest.raises(ModelError) as caught:
            restore_state(build(Toy(), wrong), tensors, "depth")
        assert caught.value.error_id == "model.checkpoint"


def test_skips_are_kept() -> None:
    module = Toy()
    optimiser = build(module, galore(skip_limit=2))
    before = module.attn["qkv"].weight.clone()
    module.attn["qkv"].weight.grad = torch.full_like(module.attn["qkv"].weight, torch.nan)
    optimiser.step()
    assert torch.equal(module.attn["qkv"].weight, before)
    other = build(Toy(), galore(skip_limit=2))
    restore_state(other, state_tensors(optimiser, "depth"), "depth")
    assert isinstance(other, GaLoreAdamW)
    assert other.skipped == 1
    assert other.param_groups[0]["skipped_in_a_row"] == 1


def test_interrupted_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "data/a", count=8)
    whole = go(tmp_path / "data", tmp_path / "whole", *GALORE)

    def stop(line: object) -> None:
        if isinstance(line, dict) and line.get("step") == 4 and "total" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "data", tmp_path / "parts", *GALORE, on_log=stop)
    # It was stopped before its first checkpoint or after it; either way it goes on to the same bytes.
    parts = go(tmp_path / "data", tmp_path / "parts", *GALORE, resume=True)
    assert differing(whole, parts) == []
    assert any(name.endswith(".basis") for name in weights(whole))
    with pytest.raises(UsageError, match="rank was 4 and is 3"):
        go(tmp_path / "data", tmp_path / "parts", *GALORE, "optimiser.rank=3", resume=True)


def test_gradients_that_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "data/a", count=8)
    loss_of = SupervisedTask.loss_of
    broken: list[int] = []

    def loss(self: SupervisedTask, network: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        losses = loss_of(self, network, tensors)
        broken.append(1)
        if len(broken) in bad:
            # A finite value whose gradient is not: sqrt at 0.
            losses["total"] = losses["total"] + (losses["total"] * 0.0).sqrt()
        return losses

    monkeypatch.setattr(SupervisedTask, "loss_of", loss)
    bad = {2, 5}
    go(tmp_path / "data", tmp_path / "some", *GALORE, *CALM, "log_every=1")
    assert [line["skipped"] for line in log(tmp_path / "some") if "total" in line] == [0, 1, 1, 1, 2, 2, 2, 2]
    broken.clear()
    bad = set(range(3, 9))
    with pytest.raises(CheckError) as caught:
        go(tmp_path / "data", tmp_path / "many", *GALORE, *CALM, "optimiser.skip_limit=2")
    assert caught.value.error_id == "adapt.not-finite"
    broken.clear()
    with pytest.raises(CheckError) as caught:
        go(tmp_path / "data", tmp_path / "plain", *CALM)
    assert caught.value.error_id == "train.not-finite"


def test_names_in_the_network() -> None:
    document = small(*GALORE).document()
    assert json.loads(json.dumps(document))["optimiser"]["rank"] == 4
