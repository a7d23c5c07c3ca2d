"""The loop: it learns, resumes exactly, stops on nonsense, never overwrites."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from endolux.errors import CheckError, InputError, ModelError, UsageError
from endolux.train import Augmentation, TrainSettings, load_network, train
from endolux.train.checkpoints import checkpoints, read_state, read_weights
from endolux.train.loop import learning_rate

SMALL = {"widths": [8, 16, 16, 16], "blocks": [1, 1, 1, 1], "decoder": [16, 8, 8], "fine": 4}
SETTINGS = TrainSettings(steps=8, batch=4, threads=1, checkpoint_every=4, log_every=2, average_decay=0.9)
CALM = Augmentation(content_area=0, occluders=0, colour=0, cast=0, gamma=(1, 1), gain=(1, 1))


def go(data: Path, output: Path, **options: object) -> Path:
    settings = dataclasses.replace(SETTINGS, **options.pop("settings", {}))
    return train("repdepth", data=[data], output=output, settings=settings, config=SMALL, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {**read_weights(folder, "model"), **{f"a.{k}": v for k, v in read_weights(folder, "average").items()}}


def log(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_it_learns(data: Path, tmp_path: Path) -> None:
    options = {"steps": 60, "lr": 5e-3, "log_every": 5, "checkpoint_every": 60}
    go(data, tmp_path / "run", settings=options, augmentation=CALM)
    lines = log(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(5, 61, 5))
    assert np.mean([line["silog"] for line in lines[-3:]]) < 0.6 * lines[0]["silog"]
    assert all(line["images_per_s"] > 0 for line in lines)


def test_an_interrupted_run_gives_the_weights_of_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    whole = go(data, tmp_path / "whole")

    def stop(line: dict[str, object]) -> None:
        if line["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(data, tmp_path / "parts", on_log=stop)
    assert read_state(checkpoints(tmp_path / "parts")[-1]).step == 6
    parts = go(data, tmp_path / "parts", resume=True)
    expected, actual = weights(whole), weights(parts)
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_same_run_twice(data: Path, tmp_path: Path) -> None:
    first, second = go(data, tmp_path / "a"), go(data, tmp_path / "b", settings={"workers": 1})
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    other = go(data, tmp_path / "c", settings={"seed": 1})
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_checkpoints_are_whole_few_and_free_of_pickles(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run", settings={"checkpoint_every": 2})
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-00000006", "step-00000008"]
    assert last.name == "step-00000008"
    assert sorted(path.name for path in last.iterdir()) == [
        "average.safetensors",
        "model.safetensors",
        "optimiser.pt",
        "state.json",
    ]
    torch.load(last / "optimiser.pt", weights_only=True)


def test_the_average_is_an_average(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    model, average = read_weights(last, "model"), read_weights(last, "average")
    assert not torch.equal(model["head.weight"], average["head.weight"])
    torch.testing.assert_close(model["head.weight"], average["head.weight"], rtol=0.5, atol=0.02)


def test_the_hook_sees_the_averaged_network(data: Path, tmp_path: Path) -> None:
    seen = []

    def measure(network: torch.nn.Module, step: int) -> dict[str, float]:
        seen.append((step, network.training, network.head.weight.clone()))
        return {"abs_rel": step / 10}

    last = go(data, tmp_path / "run", on_checkpoint=measure)
    assert [(step, training) for step, training, _ in seen] == [(4, False), (8, False)]
    assert torch.equal(seen[-1][2], read_weights(last, "average")["head.weight"])
    assert {"step": 8, "abs_rel": 0.8} in log(tmp_path / "run")


def test_load_network(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    network, state = load_network(tmp_path / "run")
    assert state.step == 8
    assert not network.training
    assert torch.equal(network.state_dict()["head.weight"], read_weights(last, "average")["head.weight"])
    again = go(data, tmp_path / "next", initial=tmp_path / "run", settings={"steps": 1, "lr": 1e-12})
    torch.testing.assert_close(read_weights(again, "model")["head.weight"], network.state_dict()["head.weight"])


def test_another_run_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    before = (last / "model.safetensors").read_bytes()
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "run")
    assert caught.value.error_id == "output.exists"
    with pytest.raises(UsageError) as caught:
        go(data, tmp_path / "run", resume=True, settings={"lr": 1e-4})
    assert caught.value.error_id == "train.settings-changed"
    assert "lr was 0.002 and is 0.0001" in caught.value.what
    assert (last / "model.safetensors").read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    last = go(data, tmp_path / "run")
    before = (last / "model.safetensors").read_bytes()
    assert go(data, tmp_path / "run", resume=True) == last
    assert (last / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckError) as caught:
        go(data, tmp_path / "run", settings={"lr": 1e30, "checkpoint_every": 1})
    assert caught.value.error_id == "train.not-finite"
    assert caught.value.exit_code == 6


def test_pictures_of_an_unsuitable_size(tmp_path: Path) -> None:
    from shards import write_shard

    write_shard(tmp_path / "data" / "shard-0", count=4, width=80, height=64)
    with pytest.raises(InputError) as caught:
        go(tmp_path / "data", tmp_path / "run")
    assert caught.value.error_id == "train.size"


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.pt", "state.json"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_damaged_checkpoints(data: Path, tmp_path: Path, name: str, content: bytes) -> None:
    last = go(data, tmp_path / "run", settings={"steps": 1})
    (last / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        go(data, tmp_path / "run", resume=True, settings={"steps": 1})
    assert caught.value.error_id == "model.checkpoint"


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_network(tmp_path / "nothing")
    assert caught.value.error_id == "model.missing"


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"threads": 0}, {"size": (320, 250)}],
)
def test_impossible_settings(change: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        TrainSettings(**change)
    assert caught.value.error_id == "train.settings"


def test_the_schedule_rises_and_falls() -> None:
    settings = TrainSettings(steps=200, lr=1e-3, warm_up=0.1)
    rates = [learning_rate(step, settings) for step in range(200)]
    assert np.argmax(rates) in (19, 20)
    assert max(rates) == pytest.approx(1e-3)
    assert np.all(np.diff(rates[:20]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)
    assert rates[-1] < 1.1e-5
