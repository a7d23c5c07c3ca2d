"""Held-out figures, protocols, the best one, and what terminals and files show of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from runs import go, log, small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from endolux.models import create
from endolux.models.ratio import RatioNetwork
from endolux.train.log import Log, read_log
from endolux.train.precision import keep_depthwise_exact, memory_format
from endolux.train.progress import Display
from endolux.train.recipe import Evaluation, LeveLoss, load_recipe
from endolux.train.task import Batch
from endolux.train.tasks.supervised import SupervisedTask, loss_weight, ratio_loss
from endolux.train.validation import Best, validate
from endolux.types import DepthKind


class _Known(nn.Module):
    """Gives a depth that is the truth times a factor."""

    def __init__(self, depth: torch.Tensor, factor: float, kind: str) -> None:
        super().__init__()
        self.value, self.kind = depth * factor, DepthKind(kind)

    def depth(self, _image: torch.Tensor) -> torch.Tensor:
        return self.value


class _Silent(SupervisedTask):
    """Without figures of its own."""

    def __init__(self) -> None:
        super().__init__(create("repdepth"), loss=small().loss)

    def validation(self, *_anything: object) -> dict[str, torch.Tensor]:
        return {}


@pytest.mark.parametrize(("kind", "abs_rel", "delta1"), [("metric", 1.0, 0.0), ("relative_depth", 0.0, 1.0)])
def test_metric_networks_are_not_aligned(kind: str, abs_rel: float, delta1: float) -> None:
    depths = np.random.default_rng(0).uniform(10, 50, (3, 8, 8)).astype(np.float32)
    depths[:, :2] = 0
    depths[2] = 0
    images = np.zeros((3, 8, 8, 3), np.uint8)
    network = _Known(torch.from_numpy(depths)[:, None], 2.0, kind)
    scores = validate(_Silent(), network, [Batch(images=images, depths=depths)], device=torch.device("cpu"))
    assert scores["abs_rel"] == pytest.approx(abs_rel, abs=1e-6)
    assert scores["delta1"] == delta1
    # The mean of each image's root; the image without depth is left out.
    roots = [np.sqrt(np.mean(d[d > 0] ** 2)) for d in depths[:2]]
    assert scores["rmse"] == pytest.approx(np.mean(roots) if abs_rel else 0.0, rel=1e-5, abs=1e-4)


def test_best_and_patience() -> None:
    settings = Evaluation.model_validate({"metric": "m", "goal": "max", "early_stop": {"patience": 2}})
    chosen = Best(settings)
    better = [chosen.update({"m": value}, step) for step, value in enumerate((0.1, 0.5, 0.4, float("nan")))]
    assert better == [True, True, False, False]
    assert (chosen.value, chosen.step, chosen.exhausted) == (0.5, 1, True)
    again = Best(settings, json.loads(json.dumps(chosen.state())))
    assert again.exhausted
    assert again.update({"m": 0.6}, 9)
    assert not again.exhausted


def test_small_gains_count_as_waiting() -> None:
    settings = Evaluation.model_validate({"metric": "m", "early_stop": {"patience": 2, "minimum_gain": 0.1}})
    chosen = Best(settings)
    for step, value in enumerate((1.0, 0.95, 0.92)):
        assert chosen.update({"m": value}, step)
    assert chosen.exhausted


def test_named_protocols(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), generator.integers(60, 200, (64, 96, 3)).astype(np.uint8))
        np.save(folder / f"{index}_depth.npy", generator.uniform(10, 90, (64, 96)).astype(np.float32))
    changes = (
        "steps=2",
        "evaluation.every=1",
        f"evaluation.protocols=[{{name: folder, data: {folder}, limit: 2}}]",
        "evaluation.metric=folder/abs_rel",
    )
    last = go(data, tmp_path / "run", *changes)
    scores = [line["folder/abs_rel"] for line in log(tmp_path / "run") if "folder/abs_rel" in line]
    assert len(scores) == 2
    assert all(0 < score < 5 for score in scores)
    assert last.name == "step-00000002"


def test_the_log_never_doubles(tmp_path: Path) -> None:
    record = Log(tmp_path)
    for step in range(1, 6):
        record.write({"step": step, "total": step / 10, "bad": float("nan"), "word": "x"})
    record.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "tot')
    again = Log(tmp_path, step=3)
    again.write({"step": 4, "total": 0.9})
    again.close()
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4]
    assert next(read_log(tmp_path))["bad"] is None
    events = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=False)
    events.Reload()
    scalars = [(event.step, round(event.value, 3)) for event in events.Scalars("total")]
    assert scalars == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]
    assert events.Tags()["scalars"] == ["total"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_plain_lines_elsewhere() -> None:
    plain, terminal = io.StringIO(), _Terminal()
    for stream in (plain, terminal):
        with Display("leve", stream=stream) as display:
            display({"step": 5, "steps": 10, "epoch": 0, "total": 0.5})
            display({"step": 5, "validation/loss": 0.25})
            display({"message": "left out: [a] (broken)"})
            display({"step": 10, "steps": 10, "total": 0.125})
    assert plain.getvalue().splitlines() == [
        "step 5/10  total 0.5",
        "step 5/10  validation/loss 0.25",
        "left out: [a] (broken)",
        "step 10/10  total 0.125",
    ]
    assert "\x1b" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
    assert "left out: [a] (broken)" in terminal.getvalue()


def test_the_ratio_loss_and_its_mask() -> None:
    network = create("leve-3x3", max_depth_mm=200.0)
    assert isinstance(network, RatioNetwork)
    depth = torch.full((2, 1, 16, 16), 40.0)
    perfect = torch.full((2, 1, 16, 16), 5.0)
    assert float(ratio_loss(network, perfect, depth, LeveLoss())["total"]) == pytest.approx(0.0, abs=1e-5)
    depth[0, :, :8] = 0
    masked = ratio_loss(network, perfect, depth, LeveLoss())
    unmasked = ratio_loss(network, perfect, depth, LeveLoss(mask=False, mode="reproduce"))
    assert float(masked["total"]) == pytest.approx(0.0, abs=1e-5)
    assert float(unmasked["l1"]) == pytest.approx(5.0 / 4)
    depth[1] = 0
    depth[0] = 0
    assert float(loss_weight(depth, LeveLoss())) == 0.0
    assert float(loss_weight(depth, LeveLoss(mask=False))) == 2.0


def test_layout_and_precision_of_layers() -> None:
    cpu = torch.device("cpu")
    shortcut = nn.Conv2d(3, 8, 1, stride=2)
    assert memory_format(shortcut, device=cpu, precision="fp32") is torch.contiguous_format
    assert memory_format(shortcut, device=cpu, precision="bf16") is torch.channels_last
    network = create("leve-3x3-dw")
    assert memory_format(network, device=cpu, precision="fp32") is torch.channels_last
    keys = list(network.state_dict())
    assert keep_depthwise_exact(network) == 3
    assert keep_depthwise_exact(network) == 0
    assert list(network.state_dict()) == keys
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    image = torch.rand(1, 4, 8, 8)
    expected = layer(image)
    keep_depthwise_exact(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(image), expected)


def test_recipes_build_their_networks() -> None:
    for name in ("leve-mobilenetv3", "guidedepth-s", "leve-alt-skips"):
        network = SupervisedTask.from_recipe(load_recipe(name)).networks["network"]
        assert network.architecture == name
        assert network.max_depth_mm == 200.0
