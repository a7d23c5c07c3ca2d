"""The pose network on correlations: what it sees, that it learns quickly, and its file."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.models.odometry import pose_bytes, read_pose
from endolux.models.pose_correlation import REACH, ROWS, CorrelationPose
from endolux.train.recipe import Video
from endolux.train.video_networks import fresh_pose


def texture(count: int, height: int, width: int, seed: int) -> Tensor:
    noise = torch.rand(count, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)


def shifted(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, the same moved by whole pixels, and by how many (columns, rows)."""
    generator = torch.Generator().manual_seed(seed)
    wide = texture(count, 96, 112, seed)
    moves = torch.randint(-8, 9, (count, 2), generator=generator)
    cut = [one[:, 16 - dy : 80 - dy, 16 - dx : 96 - dx] for one, (dx, dy) in zip(wide, moves.tolist(), strict=True)]
    return wide[:, :, 16:80, 16:96], torch.stack(cut), moves.float()


def test_a_displacement_is_found_without_training() -> None:
    torch.manual_seed(0)
    network = CorrelationPose()
    picture = texture(2, 64, 80, 1)
    features = network._described(picture)
    moved = torch.roll(features, (2, -3), (2, 3))
    best = network._matches(moved, features).argmax(1)[:, REACH:-REACH, REACH:-REACH]
    side = 2 * REACH + 1
    assert (best // side == REACH + 2).float().mean() > 0.95
    assert (best % side == REACH - 3).float().mean() > 0.95


def test_it_learns_shifts_within_some_steps() -> None:
    torch.manual_seed(0)
    network = CorrelationPose()
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    for step in range(40):
        one, other, moves = shifted(8, step)
        error = (network(other, one)[1][:, :2] - 0.01 * moves).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    one, other, moves = shifted(32, 1000)
    with torch.inference_mode():
        found = network(other, one)[1][:, :2]
    # Pictures that it has not seen; 0.024 is the error of a network that always answers 0.
    assert float((found - 0.01 * moves).abs().mean()) < 0.012


@pytest.mark.parametrize("size", [(32, 48), (64, 80), (128, 160), (250, 333)])
def test_every_size_gives_finite_motion_and_gradients(size: tuple[int, int]) -> None:
    network = CorrelationPose()
    source, target = torch.rand(2, 2, 3, *size)
    axisangle, translation = network(source, target)
    (axisangle.sum() + translation.sum()).backward()
    assert axisangle.shape == translation.shape == (2, 3)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_large_pictures_are_compared_small() -> None:
    torch.manual_seed(0)
    network = CorrelationPose().eval()
    one, other = texture(2, ROWS, 80, 3).split(1)
    large = [F.interpolate(each, scale_factor=4, mode="nearest") for each in (one, other)]
    for small, big in zip(network(one, other), network(*large), strict=True):
        assert torch.allclose(small, big, atol=1e-6)


def test_its_file_brings_it_back() -> None:
    network = CorrelationPose().eval()
    found, unit = read_pose(pose_bytes(network, unit=50.0))
    pair = torch.rand(2, 1, 3, 64, 80)
    assert isinstance(found, CorrelationPose)
    assert unit == 50.0
    assert torch.equal(found(*pair)[0], network(*pair)[0])


def test_a_recipe_names_it() -> None:
    assert isinstance(fresh_pose(Video(pose={"kind": "correlation"})), CorrelationPose)
