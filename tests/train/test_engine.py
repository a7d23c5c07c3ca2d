"""The engine: it learns, resumes exactly, stops on nonsense, never overwrites."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import CALM, differing, go, log, small
from shards import write_shard
from torch import nn

from endolux.errors import CheckError, DeviceError, InputError, ModelError, UsageError
from endolux.losses import depth_loss
from endolux.models import create
from endolux.train import checkpoints as store
from endolux.train.checkpoints import best, checkpoints, load_network, read_state, read_weights
from endolux.train.engine import fit
from endolux.train.recipe import load_recipe
from endolux.train.task import Task, Tensors, Update


def stop_at(step: int):
    def stop(line: dict[str, object]) -> None:
        # Once: a second signal does not wait for a checkpoint.
        if line.get("step") == step and "total" in line:
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def test_it_learns(data: Path, tmp_path: Path) -> None:
    go(data, tmp_path / "run", "steps=40", "optimiser.lr=5e-3", "log_every=5", "checkpoint_every=60", *CALM)
    lines = log(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(5, 41, 5))
    assert np.mean([line["silog"] for line in lines[-3:]]) < 0.7 * lines[0]["silog"]
    assert all(line["images_per_s"] > 0 for line in lines)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_leve_learns_and_keeps_its_kind(data: Path, tmp_path: Path, precision: str) -> None:
    recipe = load_recipe(
        "leve-3x3",
        [
            *("steps=12", "batch=4", "threads=1", "log_every=1", "optimiser.lr=1e-3", f"precision={precision}"),
            *("device=cpu", "data.size=64x64", "data.augmentation.kind=none"),
        ],
    )
    fit(None, recipe, [data], tmp_path / "run")
    losses = [line["total"] for line in log(tmp_path / "run")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    network, state = load_network(tmp_path / "run")
    assert (network.architecture, state.step) == ("leve-3x3", 12)
    assert read_state(checkpoints(tmp_path / "run")[-1]).recipe["precision"] == precision
    assert not (tmp_path / "run" / "step-00000012" / "average.safetensors").exists()


def test_an_interrupted_run_gives_the_bytes_of_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    more = ("data.validation.fraction=0.5", "evaluation.every=3")
    whole = go(data, tmp_path / "whole", *more)
    with pytest.raises(KeyboardInterrupt):
        go(data, tmp_path / "parts", *more, on_log=stop_at(6))
    assert read_state(checkpoints(tmp_path / "parts")[-1]).step == 6
    parts = go(data, tmp_path / "parts", *more, "checkpoint_every=3", "log_every=1", "workers=1", resume=True)
    assert differing(whole, parts) == []
    assert (whole / "network.safetensors").read_bytes() == (parts / "network.safetensors").read_bytes()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_same_run_twice(data: Path, tmp_path: Path) -> None:
    first, second = go(data, tmp_path / "a"), go(data, tmp_path / "b", "workers=1")
    assert (first / "network.safetensors").read_bytes() == (second / "network.safetensors").read_bytes()
    other = go(data, tmp_path / "c", "seed=1")
    assert (first / "network.safetensors").read_bytes() != (other / "network.safetensors").read_bytes()


def test_accumulated_batches_are_one_batch(data: Path, tmp_path: Path) -> None:
    # A shard without any depth, so that the micro-batches weigh differently.
    write_shard(data / "shard-2", count=5, seed=3)
    np.save(data / "shard-2" / "depth.npy", np.zeros((5, 64, 96), np.float16))
    more = ("precision=fp32", "log_every=1", "steps=4", *CALM)
    frozen = _WithoutStatistics(small(*more).seed)
    fit(frozen, small("batch=8", *more), [data], tmp_path / "one")
    fit(_WithoutStatistics(0), small("batch=2", "accumulate=4", *more), [data], tmp_path / "four")
    one, four = log(tmp_path / "one"), log(tmp_path / "four")
    for name in ("total", "silog", "gradient_norm"):
        assert [line[name] for line in four] == pytest.approx([line[name] for line in one], rel=1e-4)


class _WithoutStatistics(Task):
    """A network without batch statistics: what a batch is cut into cannot matter."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        network = create("repdepth", widths=[8, 16, 16, 16], blocks=[1, 1, 1, 1], decoder=[16, 8, 8], fine=4)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda layer, _inputs: layer.eval() and None)
        self.networks: dict[str, nn.Module] = {"network": network}
        self.exported = "network"

    @classmethod
    def from_recipe(cls, recipe):
        return cls(recipe.seed)

    def updates(self) -> Sequence[Update]:
        return [Update(name="depth", networks=("network",), loss=self.loss, weight=self.weight)]

    def loss(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        return depth_loss(self.networks["network"].log_depth(tensors["image"]), tensors["depth"])

    def weight(self, tensors: Tensors) -> torch.Tensor:
        return (tensors["depth"] > 0).flatten(1).any(dim=1).sum().float()


class _Alternating(_WithoutStatistics):
    """Two networks with an optimiser each; the critic's loss runs through both."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.networks["critic"] = nn.Conv2d(1, 1, 3)

    def updates(self) -> Sequence[Update]:
        slow = small("optimiser.lr=1e-5").optimiser
        return [*super().updates(), Update(name="critic", networks=("critic",), loss=self.judge, optimiser=slow)]

    def judge(self, tensors: Tensors) -> dict[str, torch.Tensor]:
        student, critic = self.networks["network"], self.networks["critic"]
        assert not any(parameter.requires_grad for parameter in student.parameters())
        return {"total": critic(student.log_depth(tensors["image"])).square().mean()}


def test_several_networks_and_optimisers(data: Path, tmp_path: Path) -> None:
    whole = fit(_Alternating(0), small("log_every=1"), [data], tmp_path / "whole")
    assert {"network.safetensors", "critic.safetensors"} <= {path.name for path in whole.iterdir()}
    assert {"total", "critic/total", "critic/gradient_norm"} <= log(tmp_path / "whole")[0].keys()
    with pytest.raises(KeyboardInterrupt):
        fit(_Alternating(0), small("log_every=1"), [data], tmp_path / "parts", on_log=stop_at(5))
    assert differing(whole, fit(_Alternating(0), small(), [data], tmp_path / "parts", resume=True)) == []
    moved = read_weights(whole, "critic")["weight"] - _Alternating(0).networks["critic"].weight
    # Eight steps of Adam at 1e-5 move no weight by more than about 8e-5.
    assert 0 < float(moved.abs().max().detach()) < 1e-4


def test_checkpoints_are_whole_few_and_free_of_pickles(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run", "checkpoint_every=2")
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-00000006", "step-00000008"]
    assert sorted(path.name for path in last.iterdir()) == [
        "average.safetensors",
        "network.safetensors",
        "state.json",
        "state.safetensors",
    ]
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if not path.is_dir()) == [
        "log.jsonl",
        "recipe.yaml",
        "run.json",
    ]


def test_the_average_is_an_average(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    model, average = read_weights(last, "network"), store.read_average(last)
    assert not torch.equal(model["head.weight"], average["head.weight"])
    torch.testing.assert_close(model["head.weight"], average["head.weight"], rtol=0.5, atol=0.02)


def test_the_hook_sees_the_averaged_network(data: Path, tmp_path: Path) -> None:
    seen = []

    def measure(network: torch.nn.Module, step: int) -> dict[str, float]:
        seen.append((step, network.training, network.head.weight.clone()))
        return {"abs_rel": step / 10}

    last = go(data, tmp_path / "run", on_checkpoint=measure)
    assert [(step, training) for step, training, _ in seen] == [(4, False), (8, False)]
    assert torch.equal(seen[-1][2], store.read_average(last)["head.weight"])
    assert log(tmp_path / "run")[-1]["abs_rel"] == 0.8


def test_the_record(data: Path, tmp_path: Path) -> None:
    go(data, tmp_path / "run")
    recorded = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert recorded.data.sources == (str(data),)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (session,) = record["sessions"]
    assert session["packages"]["torch"] == importlib.metadata.version("torch")
    assert len(session["data_sha256"]) == 64
    assert session["processes"] == 1


def test_weights_of_another_run(data: Path, tmp_path: Path) -> None:
    go(data, tmp_path / "run")
    network, state = load_network(tmp_path / "run")
    assert state.step == 8
    assert not network.training
    more = (f"model.initial={tmp_path / 'run'}", "steps=1", "optimiser.lr=1e-12")
    again = go(data, tmp_path / "next", *more)
    torch.testing.assert_close(read_weights(again, "network")["head.weight"], network.state_dict()["head.weight"])


def test_weights_of_another_variant(data: Path, tmp_path: Path) -> None:
    size = ("data.size=64x64", "steps=1", "batch=4", "threads=1", "device=cpu", "data.augmentation.kind=none")
    fit(None, load_recipe("leve", size), [data], tmp_path / "leve")
    for name in ("leve-no-skips", "leve-3x3"):
        with pytest.raises(ModelError) as caught:
            fit(None, load_recipe(name, [*size, f"model.initial={tmp_path / 'leve'}"]), [data], tmp_path / name)
        assert caught.value.error_id == "model.variant"
        assert "'leve'" in caught.value.what
        assert name in caught.value.what


def test_another_run_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    before = (last / "network.safetensors").read_bytes()
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "run")
    assert caught.value.error_id == "output.exists"
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "run", "optimiser.lr=1e-4", "seed=3", resume=True)
    assert caught.value.error_id == "train.recipe-changed"
    assert "optimiser.lr was 0.002 and is 0.0001" in caught.value.what
    assert "seed was 0 and is 3" in caught.value.what
    assert (last / "network.safetensors").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "mine")
    assert caught.value.error_id == "output.exists"


def test_resuming_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    assert go(data, tmp_path / "run", resume=True) == last
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckError) as caught:
        go(data, tmp_path / "run", "optimiser.lr=1e30", "checkpoint_every=1")
    assert caught.value.error_id == "train.not-finite"
    assert caught.value.exit_code == 6
    (saved,) = (tmp_path / "run").glob("not-finite-*.npz")
    assert str(saved) in caught.value.why
    with np.load(saved) as batch:
        assert batch["images"].shape == (4, 64, 96, 3)
        assert batch["depths"].shape == (4, 64, 96)
        assert str(batch["keys"][0]) in caught.value.why
        assert str(batch["keys"][0]).startswith("shard-")
    step = int(saved.stem.rpartition("-")[2])
    assert read_state(checkpoints(tmp_path / "run")[-1]).step == step - 1


def test_pictures_of_an_unsuitable_size(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "shard-0", count=4, width=80, height=64)
    with pytest.raises(InputError) as caught:
        go(tmp_path / "data", tmp_path / "run")
    assert caught.value.error_id == "train.size"


@pytest.mark.parametrize("name", ["network.safetensors", "state.safetensors", "state.json", "average.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_damaged_checkpoints(data: Path, tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(data, tmp_path / "run", "log_every=1", on_log=stop_at(1))
    (tmp_path / "run" / "step-00000001" / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        go(data, tmp_path / "run", resume=True)
    assert caught.value.error_id == "model.checkpoint"


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_network(tmp_path / "nothing")
    assert caught.value.error_id == "model.missing"


def test_a_full_disk_leaves_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("limits on the size of files are POSIX's")
    with pytest.raises(KeyboardInterrupt):
        go(data, tmp_path / "run", "log_every=1", on_log=stop_at(2))
    good = checkpoints(tmp_path / "run")[-1]
    size = (good / "state.safetensors").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(DeviceError) as caught:
            go(data, tmp_path / "run", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.error_id == "device.disk-full"
    assert caught.value.exit_code == 8
    assert checkpoints(tmp_path / "run") == (good,)
    assert not list((tmp_path / "run").glob(".step-*"))
    last = go(data, tmp_path / "run", resume=True)
    assert differing(go(data, tmp_path / "undisturbed"), last) == []


def test_validation_decides_the_best_and_stops_early(data: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "other" / "shard-9", count=3, seed=9)
    more = (
        f"data.validation.sources=[{tmp_path / 'other'}]",
        "evaluation.every=1",
        "evaluation.early_stop={patience: 2}",
        "checkpoint_every=100",
        "steps=100",
        "optimiser.lr=0.2",
    )
    last = go(data, tmp_path / "run", *more)
    scores = {
        line["step"]: line["validation/abs_rel"] for line in log(tmp_path / "run") if "validation/abs_rel" in line
    }
    chosen = min(scores, key=lambda step: (scores[step], step))
    assert best(tmp_path / "run") == tmp_path / "run" / f"step-{chosen:08d}"
    assert read_state(last).step == chosen + 2 == max(scores)
    assert load_network(tmp_path / "run", which="best")[1].step == chosen
    assert go(data, tmp_path / "run", *more, resume=True) == last


def test_an_unknown_metric(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "run", "data.validation.fraction=0.5", "evaluation.metric=validation/absrel", "steps=1")
    assert caught.value.error_id == "recipe.metric"
    assert "validation/abs_rel" in caught.value.fix


def test_epochs_make_steps_and_evaluations(data: Path, tmp_path: Path) -> None:
    more = ("epochs=3", "batch=2", "data.validation.fraction=0.5", "log_every=100")
    last = go(data, tmp_path / "run", *more)
    state = read_state(last)
    assert state.loop["steps_per_epoch"] in (2, 3)
    assert state.step == 3 * state.loop["steps_per_epoch"]
    evaluated = [line["step"] for line in log(tmp_path / "run") if "validation/rmse" in line]
    assert evaluated == [state.loop["steps_per_epoch"] * epoch for epoch in (1, 2, 3)]


def test_statistics_freeze_after_a_validation_as_in_the_original(data: Path, tmp_path: Path) -> None:
    # 11 samples, 5 steps an epoch; validation after the batches of index 2 and 4 (the last one).
    counts: dict[int, int] = {}

    def see(network: torch.nn.Module, step: int) -> dict[str, float]:
        counts[step] = int(network.stem.bn.num_batches_tracked)
        return {}

    more = ("epochs=2", "batch=2", "evaluation.every=2", "checkpoint_every=1", "average_decay=0")
    go(data, tmp_path / "run", *more, "batchnorm=reproduce", on_checkpoint=see)
    assert counts == {1: 1, 2: 2, 3: 3, 4: 3, 5: 3, 6: 4, 7: 5, 8: 6, 9: 6, 10: 6}
    with contextlib.suppress(KeyboardInterrupt):
        go(data, tmp_path / "parts", *more, "batchnorm=reproduce", "log_every=1", on_log=stop_at(4))
    last = go(data, tmp_path / "parts", *more, "batchnorm=reproduce", resume=True)
    assert differing(checkpoints(tmp_path / "run")[-1], last) == []
    go(data, tmp_path / "free", *more, on_checkpoint=see)
    assert counts == {step: step for step in range(1, 11)}


def test_reproduced_mean_of_the_validation_loss(data: Path, tmp_path: Path) -> None:
    more = ("steps=1", "data.validation.fraction=0.5", "batch=2", "average_decay=0")
    for name, mean in (("a", "correct"), ("b", "reproduce")):
        go(data, tmp_path / name, *more, f"evaluation.mean={mean}")
    (right,), (coded,) = ([r for r in log(tmp_path / n) if "validation/loss" in r] for n in ("a", "b"))
    assert coded["validation/abs_rel"] == right["validation/abs_rel"]
    # Both shards give three batches of two or two and a half: the sum is divided by one batch too many.
    assert 0.6 < coded["validation/loss"] / right["validation/loss"] < 0.85


@pytest.mark.parametrize(
    ("changes", "error_id"),
    [
        (("precision=fp16",), "device.precision"),
        (("device=gpu",), "device.unknown"),
        (("device=meta",), "device.absent"),
        (("parallel=fsdp",), "recipe.parallel"),
        (("loss.kind=leve",), "recipe.loss"),
        (("model.name=repdept",), "model.architecture"),
        (("evaluation.protocols=[{name: c3v, data: x}]",), "protocol.unknown"),
    ],
)
def test_impossible_recipes(data: Path, tmp_path: Path, changes: tuple[str, ...], error_id: str) -> None:
    with pytest.raises((UsageError, DeviceError)) as caught:
        go(data, tmp_path / "run", *changes)
    assert caught.value.error_id == error_id
    assert not (tmp_path / "run").exists()
