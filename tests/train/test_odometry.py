"""The path of a camera: closed forms of chained motions, and pose networks of runs and bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from endolux.errors import InputError, ModelError, UsageError
from endolux.geometry.cameras import save_camera
from endolux.io.sources import Failure
from endolux.metrics.pose import camera_poses
from endolux.models import PoseNetwork, create
from endolux.models.motion import transformation
from endolux.models.odometry import Odometer, as_tensor, pose_bytes, read_pose
from endolux.models.pose_convolutions import ConvolutionalPose
from endolux.runtime.card import Preprocessing
from endolux.train.checkpoints import State, write_checkpoint
from endolux.train.odometry import camera_of, open_traveller, pose_files, travel
from endolux.train.recipe import Recipe
from endolux.train.recipe_video import Intrinsics
from endolux.types import Camera, Frame

SPEC = Preprocessing(width=96, height=64, resize="stretch")


class Fixed(nn.Module):
    """A motion that does not depend on the pictures."""

    def __init__(self, axisangle: list[float], translation: list[float]) -> None:
        super().__init__()
        self.motion = torch.tensor([axisangle]), torch.tensor([translation])
        self.seen: list[tuple[float, float]] = []

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append((float(source.mean()), float(target.mean())))
        return self.motion


def clip(count: int, *, height: int = 64, width: int = 96) -> list[Frame]:
    return [
        Frame(image=np.full((height, width, 3), 10 * index, np.uint8), index=index, name=str(index))
        for index in range(count)
    ]


def test_straight_ahead() -> None:
    # Points come nearer by 2 units a frame: the camera goes ahead by as much.
    poses = [s.pose for s in travel(Odometer(Fixed([0, 0, 0], [0, 0, -1.0]), SPEC, unit=2.0), iter(clip(4)))]
    np.testing.assert_allclose([pose[:3, 3] for pose in poses], [[0, 0, 2.0 * i] for i in range(4)], atol=1e-12)


def test_around_a_circle() -> None:
    # A camera that turns by a quarter about its y axis and goes ahead by one drives a square.
    motion = transformation(torch.tensor([[0.0, -np.pi / 2, 0.0]]).double(), torch.tensor([[0.0, 0.0, -1.0]]).double())
    axisangle, shift = [0.0, -np.pi / 2, 0.0], motion[0, :3, 3].tolist()
    poses = [s.pose for s in travel(Odometer(Fixed(axisangle, shift), SPEC), iter(clip(5)))]
    np.testing.assert_allclose(poses[4], np.eye(4), atol=1e-6)
    assert np.abs(poses[2][:3, 3]).max() > 0.9
    np.testing.assert_allclose(np.stack(poses), camera_poses(np.repeat(motion.numpy(), 4, 0)), atol=1e-6)


def test_the_later_frame_is_the_source() -> None:
    network = Fixed([0, 0, 0], [0, 0, 0])
    list(travel(Odometer(network, SPEC), iter(clip(3))))
    np.testing.assert_allclose(np.array(network.seen) * 255, [[10, 0], [20, 10]], atol=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames(count: int) -> None:
    with pytest.raises(InputError) as caught:
        list(travel(Odometer(Fixed([0, 0, 0], [0, 0, 0]), SPEC), iter(clip(count))))
    assert caught.value.error_id == "trajectory.short"


def test_frames_of_different_sizes_and_gaps() -> None:
    odometer = Odometer(Fixed([0, 0, 0], [0, 0, 0]), SPEC)
    with pytest.raises(InputError) as caught:
        list(travel(odometer, iter([*clip(2), *clip(1, height=32)])))
    assert caught.value.error_id == "frame.size"
    broken = Failure(index=1, name="b", error=InputError("x", why="y", fix="z", error_id="input.damaged"))
    with pytest.raises(InputError) as caught:
        list(travel(odometer, iter([*clip(1), broken])))
    assert caught.value.error_id == "input.damaged"
    with pytest.raises(UsageError):
        odometer.motion(clip(1)[0].image, clip(1, height=32)[0].image)


def test_a_motion_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        list(travel(Odometer(Fixed([0, 0, 0], [0, float("nan"), 0]), SPEC), iter(clip(2))))
    assert caught.value.error_id == "model.weights"


@pytest.mark.parametrize("network", [ConvolutionalPose, PoseNetwork])
def test_pose_file_round_trip(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    before = network().eval()
    after, unit = read_pose(pose_bytes(before, unit=3.5))
    assert (type(after), unit, after.training) == (network, 3.5, False)
    images = torch.rand(2, 1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(before(*images), after(*images), strict=True))
    assert len(pose_bytes(before, half=True)) < 0.6 * len(pose_bytes(before))


def test_what_is_no_pose_file() -> None:
    good = pose_bytes(ConvolutionalPose())
    other = pose_bytes(ConvolutionalPose(widths=(16, 32, 64, 128, 256, 256, 128)))
    for content in (
        b"",
        b"\x00" * 64,
        good[: len(good) // 2],
        good.replace(b"convolutions.0", b"convolutionz.0"),
        other,
    ):
        with pytest.raises(ModelError) as caught:
            read_pose(content)
        assert caught.value.error_id == "model.checkpoint"
    with pytest.raises(TypeError):
        pose_bytes(nn.Linear(2, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_run(tmp_path_factory.mktemp("run"), {"pose": ConvolutionalPose()})


def write_run(folder: Path, others: dict[str, nn.Module]) -> Path:
    network = create("repdepth")
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "task": "video",
            "steps": 1,
            "model": {"name": "repdepth"},
            "data": {"size": [96, 64]},
            "video": {"pose": {"kind": "convolutions"}, "flow": False, "appearance": False},
        }
    )
    networks = {"network": network, **others}
    state = State(
        step=1,
        architecture="repdepth",
        config=network.config(),
        exported="network",
        networks=tuple(networks),
        recipe=recipe.model_dump(mode="json"),
        position={},
        loop={},
    )
    weights = {name: each.state_dict() for name, each in networks.items()}
    write_checkpoint(folder, state=state, networks=weights, average=None, tensors={"a": torch.zeros(1)})
    return folder


def test_traveller_of_a_run(run: Path) -> None:
    torch.manual_seed(0)
    pose = ConvolutionalPose().eval()
    generator = np.random.default_rng(0)
    first, second = (Frame(image=generator.integers(0, 256, (128, 192, 3), np.uint8)) for _ in range(2))
    for folder in (run, run / "step-00000001"):
        traveller = open_traveller(folder)
        with torch.no_grad():
            axisangle, shift = pose(as_tensor(second.image, SPEC), as_tensor(first.image, SPEC))
            # Depths from 1 to 400: a unit of translation is their geometric mean.
            wanted = transformation(axisangle.double(), 20 * shift.double())[0]
        np.testing.assert_allclose(traveller.odometer.motion(second.image, first.image), wanted, atol=1e-6)
    depth = traveller.depth(first)
    assert depth.size == (192, 128)
    assert (depth.values > 0).all()
    assert traveller.unit == "none"
    assert camera_of(traveller.intrinsics, (192, 128)).fx == pytest.approx(0.82 * 192)


def test_bundle_of_a_run_carries_its_pose(run: Path) -> None:
    files = pose_files(run, half=False)
    network, unit = read_pose(files["pose.safetensors"])
    assert isinstance(network, ConvolutionalPose)
    assert unit == pytest.approx(20.0)


def test_what_has_no_pose(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {})
    assert pose_files(run, half=True) == {}
    (tmp_path / "empty").mkdir()
    for source, error_id in (
        (run, "model.no-pose"),
        (tmp_path / "empty", "model.missing"),
        (tmp_path / "none", "model.missing"),
        ("repdepth-colon", "model.no-pose"),
    ):
        with pytest.raises(ModelError) as caught:
            open_traveller(source)
        assert caught.value.error_id == error_id
        assert len(str(caught.value).splitlines()) == 3


def test_damaged_pose_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"pose": PoseNetwork().decoder})
    with pytest.raises(ModelError) as caught:
        open_traveller(run)
    assert caught.value.error_id == "model.checkpoint"


def test_assumed_camera_has_the_published_numbers() -> None:
    camera = camera_of(Intrinsics(), (320, 256))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((262.4, 261.12, 160, 128))


def test_assumed_camera_of_a_file_follows_the_frames(tmp_path: Path) -> None:
    known = Camera(width=640, height=512, fx=500.0, fy=510.0, cx=319.5, cy=255.5)
    save_camera(tmp_path / "camera.json", known)
    assert camera_of(Intrinsics(file=tmp_path / "camera.json"), (320, 256)) == known.resize(320, 256)
