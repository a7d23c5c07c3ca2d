"""Self-supervised training: what is trained when, that it learns, resumes, and says what it cannot use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import FOCAL, write_clip
from runs import differing, log
from torch import Tensor, nn

from endolux.errors import ModelError, UsageError
from endolux.models import create
from endolux.models.pose_convolutions import ConvolutionalPose
from endolux.train.batches import held_out_batches
from endolux.train.checkpoints import newest
from endolux.train.corpus import Corpus
from endolux.train.engine import fit
from endolux.train.recipe import NoAugmentation, Recipe, Video, load_recipe, recipe_from, recipe_names
from endolux.train.samples import Reader
from endolux.train.snippets import SnippetRule
from endolux.train.task import Tensors
from endolux.train.tasks import build_task
from endolux.train.tasks.video import VideoTask, position_errors
from endolux.train.tasks.video_losses import VideoLosses, snippet_tensors

SMALL = {"widths": [16, 16, 16, 16], "blocks": [1, 1, 1, 1], "decoder": [16, 8, 8], "fine": 4}
PLAIN = {"flow": False, "appearance": False, "photometric": {"kind": "ssim"}, "pose": {"kind": "convolutions"}}


def recipe(*changes: str, **video: object) -> Recipe:
    made = recipe_from(
        {
            "name": "small",
            "task": "video",
            "model": {"name": "repdepth", "config": SMALL},
            "data": {"augmentation": {"kind": "video"}},
            "video": {**PLAIN, **video},
            "optimiser": {"name": "adam", "lr": 1e-3, "weight_decay": 0},
            "steps": 6,
            "batch": 2,
            "precision": "fp32",
            "threads": 1,
            "device": "cpu",
            "checkpoint_every": 3,
            "log_every": 1,
            "average_decay": 0.9,
        }
    )
    return made.model_copy(update=dict(json.loads(change) for change in changes)) if changes else made


def tensors(folder: Path, **video: object) -> Tensors:
    settings = Video(**{**PLAIN, **video})
    clips = Corpus([str(write_clip(folder / "clip"))], snippets=SnippetRule.of(settings)).clips()
    reader = Reader(limit=0, needs_depth=False)
    (batch,) = held_out_batches(clips, batch=2, size=None, limit=2, reader=reader)
    return VideoTask(create("repdepth", **SMALL), losses=VideoLosses.from_settings(settings)).prepare(
        batch, torch.device("cpu")
    )


class Known(nn.Module):
    """A pose network that knows: the camera slides by ``step`` a frame, and the source before comes first."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor([step]))
        self.turn = 0

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        sign = 1.0 if self.turn % 2 == 0 else -1.0
        self.turn += 1
        zero = torch.zeros(len(source), 1)
        shift = torch.cat([sign * self.step.expand(len(source), 1), zero, zero], 1)
        return torch.zeros(len(source), 3), shift


def known(step: float, **video: object) -> VideoLosses:
    return VideoLosses(Video(**{**PLAIN, **video}), pose=Known(step))


class TestDepthLosses:
    def test_truth_is_best(self, tmp_path: Path) -> None:
        batch = tensors(tmp_path)
        for video in (
            {},
            {"photometric": {"kind": "l1"}},
            {"photometric": {"kind": "ms-ssim"}},
            {"reprojection": "minimum"},
            {"reprojection": "minimum", "auto_mask": True},
            {"in_view": False},
        ):
            losses = known(1.5, **video)
            found = {}
            for depth in (30.0, 45.0, 70.0):
                disparity = torch.full((2, 1, 64, 64), 1 / depth)
                found[depth] = float(losses.depth_losses((disparity,), batch)["reprojection"])
            assert found[45.0] < 0.6 * min(found[30.0], found[70.0]), video

    def test_only_the_ratio_of_motion_to_depth_counts(self, tmp_path: Path) -> None:
        batch = tensors(tmp_path)
        disparity = torch.full((2, 1, 64, 64), 1 / 45.0)
        one = known(1.5).depth_losses((disparity,), batch)["total"]
        other = known(3.0).depth_losses((disparity / 2,), batch)["total"]
        assert torch.isclose(one, other, atol=1e-5)

    def test_side_outputs(self, tmp_path: Path) -> None:
        batch = tensors(tmp_path)
        sides = tuple(torch.full((2, 1, 64 // 2**s, 64 // 2**s), 1 / 45.0, requires_grad=True) for s in range(4))
        losses = known(1.5).depth_losses(sides, batch)
        losses["total"].backward()
        assert all(side.grad is not None and side.grad.any() for side in sides)
        finest = known(1.5, scales=1).depth_losses(sides, batch)["reprojection"]
        assert torch.isclose(losses["reprojection"], finest, atol=1e-5)

    def test_gradient_reaches_motion_and_depth(self, tmp_path: Path) -> None:
        losses = known(1.2)
        disparity = torch.full((2, 1, 64, 64), 1 / 45.0, requires_grad=True)
        losses.depth_losses((disparity,), tensors(tmp_path))["total"].backward()
        step = losses.networks()["pose"].step
        # Too short a step: the loss falls as it grows, and as the plane comes nearer.
        assert step.grad is not None
        assert float(step.grad) < 0
        assert disparity.grad is not None
        assert float(disparity.grad.sum()) < 0

    def test_a_still_camera_is_masked_out(self, tmp_path: Path) -> None:
        losses = known(0.0, auto_mask=True)
        found = losses.depth_losses((torch.full((2, 1, 64, 64), 1 / 45.0),), tensors(tmp_path))
        assert float(found["counted"]) < 0.2
        assert (
            float(
                known(1.5, auto_mask=True).depth_losses((torch.full((2, 1, 64, 64), 1 / 45.0),), tensors(tmp_path))[
                    "counted"
                ]
            )
            > 0.6
        )

    def test_learnt_intrinsics(self, tmp_path: Path) -> None:
        losses = VideoLosses.from_settings(
            Video(flow=False, appearance=False, photometric={"kind": "ssim"}, intrinsics={"kind": "learned"})
        )
        assert losses.depth_networks == ("pose", "intrinsics")
        batch = tensors(tmp_path)
        motions, k = losses.motions(batch)
        assert k.shape == (2, 3, 3)
        assert k.requires_grad
        assert len(motions) == 2
        losses.depth_losses((torch.full((2, 1, 64, 64), 1 / 45.0),), batch)["total"].backward()
        head = losses.networks()["intrinsics"]
        assert head.focal_length_conv.weight.grad is not None
        assert head.focal_length_conv.weight.grad.any()

    def test_single_pictures_are_refused(self) -> None:
        with pytest.raises(UsageError) as caught:
            snippet_tensors({"image": torch.rand(1, 3, 8, 8)})
        assert caught.value.error_id == "video.snippets"


@pytest.fixture(scope="module")
def whole() -> VideoTask:
    """With optical and appearance flow."""
    torch.manual_seed(0)
    settings = Video(photometric={"kind": "ssim"})
    return VideoTask(create("repdepth", **SMALL), losses=VideoLosses.from_settings(settings))


def statistics(network: nn.Module) -> list[Tensor]:
    return [value.clone() for name, value in network.state_dict().items() if "running_mean" in name]


class TestAlternating:
    """Specification 3.5: what each update trains, and whose statistics move."""

    def test_updates(self, whole: VideoTask) -> None:
        assert [(u.name, u.networks) for u in whole.updates()] == [
            ("flow", ("flow",)),
            ("depth", ("network", "pose", "appearance")),
        ]

    @pytest.mark.parametrize("number", [0, 1])
    def test_only_its_networks_change(self, whole: VideoTask, tmp_path: Path, number: int) -> None:
        batch, update = tensors(tmp_path), whole.updates()[number]
        for network in whole.networks.values():
            network.train().zero_grad()
        before = {name: statistics(network) for name, network in whole.networks.items()}
        losses = update.loss(batch)
        losses["total"].backward()
        assert all(bool(torch.isfinite(value)) for value in losses.values())
        for name, network in whole.networks.items():
            trained = name in update.networks
            assert any(p.grad is not None and p.grad.any() for p in network.parameters()) is trained, name
            moved = any(not torch.equal(a, b) for a, b in zip(before[name], statistics(network), strict=True))
            assert moved is trained, name
            assert network.training

    def test_parts(self, whole: VideoTask, tmp_path: Path) -> None:
        batch = tensors(tmp_path)
        depth = whole.updates()[1].loss(batch)
        expected = (
            depth["reprojection"]
            + 0.01 * depth["transform_constraint"]
            + 0.01 * depth["transform_smoothness"]
            + 1e-4 * depth["disparity_smoothness"]
        )
        assert torch.isclose(depth["total"], expected, atol=1e-6)
        flow = whole.updates()[0].loss(batch)
        assert torch.isclose(flow["total"], flow["registration"] + 1e-3 * flow["flow_smoothness"], atol=1e-6)


class TestTraining:
    def test_flow_learns_the_motion(self, tmp_path: Path) -> None:
        """A flow of constants, on a plane that moves by 2 pixels: step A alone finds it."""

        class Constant(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.value = nn.Parameter(torch.zeros(2))
                self.turn = 0

            def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
                sign = (1.0, -1.0, -1.0, 1.0)[self.turn % 4]
                self.turn += 1
                return (sign * self.value.view(1, 2, 1, 1).expand(len(source), 2, *source.shape[-2:]),)

        flow = Constant()
        losses = VideoLosses(Video(photometric={"kind": "l1"}, appearance=False), pose=Known(1.5), flow=flow)
        batch = tensors(tmp_path)
        optimiser = torch.optim.Adam(flow.parameters(), lr=0.2)
        for _ in range(30):
            optimiser.zero_grad()
            losses.flow_losses(batch)["total"].backward()
            optimiser.step()
        dy, dx = flow.value.tolist()
        assert dx == pytest.approx(1.5 * FOCAL / 45, abs=0.15)
        assert dy == pytest.approx(0, abs=0.1)

    def test_motion_and_depth_are_learnt(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "data", shots=(8, 8))
        settings = recipe()
        data = settings.data.model_copy(update={"augmentation": NoAugmentation()})
        settings = settings.model_copy(update={"data": data, "steps": 24})
        fit(None, settings, [tmp_path / "data"], tmp_path / "run")
        totals = [float(line["total"]) for line in log(tmp_path / "run") if "total" in line]
        assert np.mean(totals[-5:]) < 0.8 * np.mean(totals[:5])

    def test_resumed_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "data")
        fit(None, recipe(), [tmp_path / "data"], tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            fit(None, recipe(), [tmp_path / "data"], tmp_path / "parts", on_checkpoint=stop)
        fit(None, recipe(), [tmp_path / "data"], tmp_path / "parts", resume=True)
        assert differing(newest(tmp_path / "whole"), newest(tmp_path / "parts")) == []

    def test_record_and_validation(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "data")
        write_clip(tmp_path / "still", step_mm=0.0)
        write_clip(tmp_path / "held", seed=9)
        settings = recipe()
        validation = settings.data.validation.model_copy(update={"sources": (str(tmp_path / "held"),)})
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"validation": validation})})
        heard: list[object] = []
        run = tmp_path / "run"
        fit(None, settings, [tmp_path / "data", tmp_path / "still"], run, on_log=heard.append)
        assert {"message": "left out: 'still' (nothing moves)"} in heard
        session = json.loads((run / "run.json").read_text())["sessions"][0]
        assert session["notes"] == ["left out: 'still' (nothing moves)"]
        assert session["task"]["parameters"]["pose"]["trained"] > 0
        scores = [line for line in log(run) if "validation/ate" in line][-1]
        # Steps of 1.5 mm: positions -1.5, 0, 1.5.
        assert scores["validation/ate_still"] == pytest.approx(1.5 * (2 / 3) ** 0.5, rel=1e-4)
        assert 0 <= scores["validation/ate"] <= scores["validation/ate_still"] + 1e-6
        assert {"validation/abs_rel", "validation/loss"} <= scores.keys()

    def test_goes_on_from_another_run(self, tmp_path: Path) -> None:
        write_clip(tmp_path / "data")
        fit(None, recipe(), [tmp_path / "data"], tmp_path / "first")
        task = build_task(recipe(initial=str(tmp_path / "first")))
        first = newest(tmp_path / "first")
        from endolux.train.checkpoints import read_weights

        loaded = read_weights(first, "pose")
        assert all(torch.equal(value, loaded[name]) for name, value in task.networks["pose"].state_dict().items())
        with pytest.raises(ModelError) as caught:
            build_task(recipe(initial=str(tmp_path / "first"), pose={"kind": "resnet18"}))
        assert caught.value.error_id == "model.checkpoint"


def stop(network: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG001
    raise KeyboardInterrupt


class TestCompanions:
    def test_published_files(self, tmp_path: Path) -> None:
        from endolux.models import PoseNetwork

        torch.manual_seed(5)
        other = PoseNetwork()
        torch.save(other.encoder.state_dict(), tmp_path / "pose_encoder.pth")
        torch.save(other.decoder.state_dict(), tmp_path / "pose.pth")
        task = build_task(recipe(pose={"kind": "resnet18"}, companions=str(tmp_path)))
        loaded = task.networks["pose"].state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
        with pytest.raises(ModelError):
            build_task(recipe(pose={"kind": "resnet18"}, companions=str(tmp_path), flow=True))

    def test_contradictions(self, tmp_path: Path) -> None:
        for video in (
            {"companions": str(tmp_path), "initial": str(tmp_path)},
            {"companions": str(tmp_path)},
            {"imagenet": str(tmp_path)},
            {"intrinsics": {"kind": "learned"}},
        ):
            with pytest.raises(UsageError) as caught:
                build_task(recipe(**video))
            assert caught.value.error_id == "recipe.video"


class TestRecipes:
    def test_published_departures(self) -> None:
        mine, published = load_recipe("dares"), load_recipe("dares-published")
        assert mine.video is not None
        assert published.video is not None
        assert (mine.video.photometric.mode, published.video.photometric.mode) == ("correct", "reproduce")
        assert (mine.video.flow_warp, published.video.flow_warp) == ("correct", "reproduce")
        assert (mine.data.augmentation.draw, published.data.augmentation.draw) == ("snippet", "frame")  # type: ignore[union-attr]
        assert (mine.video.intrinsics.mirrored, published.video.intrinsics.mirrored) == (True, False)

    @pytest.mark.parametrize("name", ["af-sfmlearner", "dares", "dares-published"])
    def test_published_schedule(self, name: str) -> None:
        """Specification 3.5 and 3.4."""
        found = load_recipe(name)
        assert name in recipe_names()
        assert found.task == "video"
        assert found.video is not None
        assert (found.epochs, found.batch, found.clip, found.average_decay) == (20, 12, None, 0.0)
        assert (found.optimiser.name, found.optimiser.lr, found.optimiser.weight_decay) == ("adam", 1e-4, 0.0)
        assert (found.schedule.kind, found.schedule.every, found.schedule.factor) == ("step", 10, 0.1)  # type: ignore[union-attr]
        assert found.data.size == (320, 256)
        assert found.video.offsets == (-1, 1)
        weights = found.video.disparity_smoothness, found.video.flow_smoothness
        assert weights == (1e-4, 1e-3)
        assert not found.video.auto_mask
        assert found.video.reprojection == "mean"

    def test_unit_of_translation(self) -> None:
        plain = Video(**PLAIN)
        assert VideoLosses.from_settings(plain, depth_range=(0.1, 150.0))._unit == 1.0
        assert VideoLosses.from_settings(plain, depth_range=(1.0, 400.0))._unit == 20.0
        given = Video(**{**PLAIN, "pose": {"kind": "convolutions", "unit": 7.0}})
        assert VideoLosses.from_settings(given, depth_range=(1.0, 400.0))._unit == 7.0


def test_pose_errors_ignore_one_factor() -> None:
    generator = np.random.default_rng(0)
    truth = np.tile(np.eye(4), (5, 2, 1, 1))
    truth[:, :, :3, 3] = generator.normal(size=(5, 2, 3))
    scaled = truth.copy()
    scaled[:, :, :3, 3] *= np.array([0.1, 2, 3, 40, 5])[:, None, None]
    assert position_errors(truth, scaled)[0].max() < 1e-9
    still = np.tile(np.eye(4), (5, 2, 1, 1))
    error, reference = position_errors(truth, still)
    assert np.allclose(error, reference)
    assert error.min() > 0


def test_pose_network_answers_to_motion() -> None:
    torch.manual_seed(0)
    pose, image = ConvolutionalPose(), torch.rand(1, 3, 64, 64)
    turned, _ = pose(image.roll(2, 3), image)
    rested, _ = pose(image, image)
    assert (turned - rested).abs().max() > 1e-4


@pytest.mark.parametrize(("step_mm", "code", "identifier"), [(0.0, 3, "video.static"), (1.5, 0, "")])
def test_command(tmp_path: Path, step_mm: float, code: int, identifier: str) -> None:
    write_clip(tmp_path / "data", step_mm=step_mm)
    (tmp_path / "small.yaml").write_text(recipe().text())
    command = [
        "train",
        str(tmp_path / "small.yaml"),
        "--data",
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "run"),
        "steps=1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "endolux", *command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, done.stderr
    if identifier:
        assert f"error[{identifier}]" in done.stderr
        assert "  why: " in done.stderr
        assert "  fix: " in done.stderr
    else:
        assert (tmp_path / "run" / "step-00000001" / "pose.safetensors").is_file()
