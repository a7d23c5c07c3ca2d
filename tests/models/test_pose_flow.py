"""Pose, appearance-flow and optical-flow networks: published names, and the published function from the names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from golden_fill import golden_fill_
from torch import Tensor, nn

from endolux.errors import UsageError
from endolux.models import (
    AppearanceFlow,
    IntrinsicsHead,
    OpticalFlow,
    PoseNetwork,
    SkipDecoder,
    architectures,
    create,
    create_part,
    parts,
    register_part,
)
from endolux.models.motion import transformation
from endolux.models.pose_flow import joint_intrinsics

FACTS = json.loads((Path(__file__).parent / "video_family_facts.json").read_text(encoding="utf-8"))
PARTS = [name for name in FACTS if name not in ("dares", "endodac")]


def test_every_published_part_is_known_to_create() -> None:
    assert set(PARTS) <= set(parts())
    assert "af-sfmlearner" in architectures()
    assert not set(parts()) & set(architectures())


@pytest.mark.parametrize("name", PARTS)
def test_state_dict_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        network = create(name)
    state, facts = network.state_dict(), FACTS[name]
    rows = (f"{key} {'x'.join(map(str, t.shape))} {str(t.dtype).removeprefix('torch.')}" for key, t in state.items())
    assert network.architecture == name
    assert len(state) == facts["entries"]
    assert sum(parameter.numel() for parameter in network.parameters()) == facts["parameters"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == facts["trainable"]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest() == facts["state_dict_sha256"]


def test_parameters_of_the_two_published_optimisers() -> None:
    def count(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    with torch.device("meta"):
        pose, appearance, flow = PoseNetwork(), AppearanceFlow(), OpticalFlow()
    assert (count(pose), count(appearance), count(flow)) == (13_013_492, 14_855_972, 14_853_808)


def unet_by_names(state: dict[str, Tensor], maps: list[Tensor], head: str) -> list[Tensor]:
    """The published decoder, from its weights' names alone: ten convolutions coarse to fine, then four heads."""

    def padded(x: Tensor, name: str) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), state[f"{name}.weight"], state[f"{name}.bias"])

    x, outputs = maps[4], {}
    for level in (4, 3, 2, 1, 0):
        first = 2 * (4 - level)
        x = F.elu(padded(x, f"decoder.{first}.conv.conv"))
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if level:
            x = torch.cat([x, maps[level - 1]], 1)
        x = F.elu(padded(x, f"decoder.{first + 1}.conv.conv"))
        if level < 4:
            name = f"decoder.{10 + level}"
            if head == "flow":
                outputs[level] = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
            else:
                y = padded(x, f"{name}.conv")
                outputs[level] = torch.tanh(y) if head == "appearance" else torch.sigmoid(y)
    return [outputs[level] for level in range(4)]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("dares-transform-decoder", "appearance"),
        ("dares-position-decoder", "flow"),
        ("af-sfmlearner-decoder", "disparity"),
    ],
)
def test_decoder_is_that_of_the_names(name: str, head: str) -> None:
    decoder = create(name).double()
    golden_fill_(decoder)
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.rand(1, channels, 64 >> level, 96 >> level, dtype=torch.float64, generator=generator)
        for level, channels in enumerate((64, 64, 128, 256, 512), 1)
    ]
    with torch.no_grad():
        found, wanted = decoder(maps), unet_by_names(decoder.state_dict(), maps, head)
    channels = {"appearance": 3, "flow": 2, "disparity": 1}[head]
    assert [tuple(x.shape) for x in found] == [(1, channels, 64 >> s, 96 >> s) for s in range(4)]
    for ours, theirs in zip(found, wanted, strict=True):
        # Outputs are float32 under any precision of the network.
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
        assert ours.std() > 1e-3


def test_flow_starts_near_zero_and_unbounded() -> None:
    torch.manual_seed(0)
    decoder = SkipDecoder(head="flow")
    weights = [decoder.decoder[10 + scale] for scale in range(4)]
    assert all(torch.equal(conv.bias, torch.zeros(2)) for conv in weights)
    spread = torch.cat([conv.weight.flatten() for conv in weights]).std()
    assert 0.9e-5 < spread < 1.1e-5


def test_images_that_leave_nothing_to_reflect_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        OpticalFlow()(torch.zeros(2, 3, 32, 64), torch.zeros(2, 3, 32, 64))
    assert caught.value.error_id == "model.input"


@pytest.fixture(scope="module")
def pose() -> PoseNetwork:
    network = PoseNetwork().eval()
    golden_fill_(network)
    return network


def test_pose_is_that_of_the_names(pose: PoseNetwork) -> None:
    source, target = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)).unbind()
    state = pose.decoder.state_dict()
    with torch.no_grad():
        axisangle, translation = pose(source, target)
        x = pose.encoder(torch.cat([source, target], 1))[4]
        for index, padding in enumerate((0, 1, 1, 0)):
            x = F.conv2d(x, state[f"net.{index}.weight"], state[f"net.{index}.bias"], padding=padding)
            x = F.relu(x) if index < 3 else x
        wanted = 0.001 * x.mean(3).mean(2).view(-1, 2, 1, 6)
        matrix = pose.motion(source, target)
    torch.testing.assert_close(axisangle, wanted[:, 0, 0, :3], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(translation, wanted[:, 0, 0, 3:], rtol=1e-5, atol=1e-9)
    # The motion is never inverted.
    torch.testing.assert_close(matrix, transformation(axisangle, translation))


def test_flows_see_source_first() -> None:
    first, second = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    for network in (OpticalFlow().eval(), AppearanceFlow().eval()):
        golden_fill_(network)
        with torch.no_grad():
            found = network(first, second)
            wanted = network.decoder(network.encoder(torch.cat([first, second], 1)))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_intrinsics_are_those_of_the_formula(pose: PoseNetwork) -> None:
    head = IntrinsicsHead()
    golden_fill_(head)
    with torch.no_grad():
        maps = pose.with_features(*torch.rand(2, 3, 3, 64, 96, generator=torch.Generator().manual_seed(0)).unbind())[2]
        found = head(maps, size=(96, 64))
        g = maps.mean((2, 3))
        f = g @ head.focal_length_conv.weight[:, :, 0, 0].T
        c = g @ head.offsets_conv.weight[:, :, 0, 0].T
    assert (maps < 0).any(), "the maps are taken before the ReLU"
    size = torch.tensor([96.0, 64.0])
    torch.testing.assert_close(found[:, [0, 1], [0, 1]], (F.softplus(f) + 0.5) * size)
    torch.testing.assert_close(found[:, :2, 2], (c + 0.5) * size)
    assert torch.equal(found[:, 2], torch.tensor([0.0, 0.0, 1.0]).expand(3, 3))
    assert (found[:, [0, 1], [1, 0]] == 0).all()
    with torch.no_grad():
        head.convs_suqeeze.weight.fill_(torch.nan)
        assert torch.equal(head(maps, size=(96, 64)), found), "one convolution is in the files and never used"


def test_joint_intrinsics_are_the_mean_or_as_published_the_last() -> None:
    matrices = [torch.full((2, 3, 3), value) for value in (1.0, 5.0)]
    assert joint_intrinsics(matrices)[0, 0, 0] == 3
    assert joint_intrinsics(matrices, reproduce=True)[0, 0, 0] == 5


def test_every_parameter_that_counts_learns() -> None:
    torch.manual_seed(0)
    first, second = torch.rand(2, 2, 3, 64, 64).unbind()
    for network in (PoseNetwork(), OpticalFlow(), AppearanceFlow()):
        sum((output**2).sum() for output in network(first, second)).backward()
        still = {name for name, parameter in network.named_parameters() if parameter.grad is None}
        assert still == {"encoder.encoder.fc.weight", "encoder.encoder.fc.bias"}


def test_registry_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UsageError) as caught:
        create_part("dares-pose-encodr")
    assert "dares-pose-encoder" in caught.value.fix
    with pytest.raises(UsageError) as caught:
        create("dares-position-decodr")
    assert "dares-position-decoder" in caught.value.fix
    for config in ({"images": 1}, {"depth": 3}):
        with pytest.raises(UsageError) as caught:
            create("dares-pose-encoder", **config)
        assert caught.value.error_id == "model.config"
    with pytest.raises(UsageError) as caught:
        register_part("dares-pose-decoder")(SkipDecoder)
    assert caught.value.error_id == "model.duplicate"
