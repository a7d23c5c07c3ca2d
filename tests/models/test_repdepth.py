"""RepDepth: the function, its fused form, its registry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from endolux.errors import UsageError
from endolux.models import RepDepth, architectures, create
from endolux.models.repdepth import RepBlock
from endolux.types import DepthKind

SMALL = {"widths": (8, 16, 16, 16), "blocks": (1, 1, 2, 2), "decoder": (16, 8, 8), "fine": 4}


def settle(network: nn.Module, seed: int) -> nn.Module:
    """Give every BatchNorm statistics and factors as training might."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 3 + 0.05)
            module.weight.data.copy_(torch.randn(module.num_features, generator=generator))
            module.bias.data.copy_(torch.randn(module.num_features, generator=generator))
    return network


@given(
    seed=st.integers(0, 2**31),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3]),
    inputs=st.sampled_from([3, 8]),
    outputs=st.sampled_from([8, 12]),
)
@settings(max_examples=25, deadline=None)
def test_a_fused_block_is_the_same_function(seed: int, stride: int, dilation: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(seed)
    block = settle(RepBlock(inputs, outputs, stride=stride, dilation=dilation), seed).double().eval()
    x = torch.randn(2, inputs, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        expected = block(x)
        block.fuse_()
        actual = block(x)
    assert [name for name, _ in block.named_parameters()] == ["dense.conv.weight", "dense.conv.bias"]
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", [{}, {"fine": 0}, {"context": False}, {"dilations": (1, 3)}, {"deep": 8}])
def test_the_fused_network_is_the_same_function(config: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = RepDepth(**{**SMALL, **config})
    network.train()
    for _ in range(3):
        network(torch.rand(4, 3, 64, 64))
    nn.init.normal_(network.head.weight, std=0.3)
    network.eval()
    image = torch.rand(2, 3, 64, 96)
    fused = network.fuse()
    with torch.no_grad():
        expected, actual = network(image), fused(image)
    assert expected.std() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "the original is left alone"


def test_fused_weights_load_into_the_fused_form() -> None:
    network = RepDepth(**SMALL)
    fused = network.fuse()
    again = create("repdepth", **fused.config())
    again.load_state_dict(fused.state_dict())
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.eval()(image), fused(image), rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32), (256, 320)])
def test_depth_has_the_size_of_the_input_and_lies_in_range(height: int, width: int) -> None:
    network = RepDepth(**SMALL, depth_min=2.0, depth_max=50.0).eval()
    nn.init.normal_(network.head.weight, std=30.0)
    with torch.no_grad():
        depth = network(torch.rand(2, 3, height, width))
    assert depth.shape == (2, 1, height, width)
    assert depth.dtype == torch.float32
    assert float(depth.min()) >= 2.0 * (1 - 1e-5)
    assert float(depth.max()) <= 50.0 * (1 + 1e-5)
    assert network.depth_range() == pytest.approx((2.0, 50.0))


def test_log_depth_is_float32_and_fine_under_autocast() -> None:
    network = RepDepth(**SMALL).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = network.log_depth(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network.log_depth(image)
    assert rough.dtype == torch.float32
    # bf16 has 8 bits: a log depth of 3 rounded to bf16 would show at most a dozen different values here.
    nn.init.normal_(network.head.weight, std=0.3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.log_depth(image).unique().numel() > 500
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)


def test_every_parameter_learns() -> None:
    network = RepDepth(**SMALL).train()
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_context_reaches_every_pixel() -> None:
    network = RepDepth(**SMALL).eval()
    nn.init.normal_(network.head.weight, std=1.0)
    image = torch.full((1, 3, 512, 64), 0.5)
    changed = image.clone()
    changed[:, :, -32:] = 1.0
    with torch.no_grad():
        difference = (network(image) - network(changed)).abs()[0, 0, :32]
    assert float(difference.max()) > 0


@pytest.mark.parametrize("fused", [False, True])
def test_features_come_in_the_same_pass_as_depth(fused: bool) -> None:
    network = RepDepth(**SMALL, deep=8).eval()
    network = network.fuse() if fused else network
    image = torch.rand(2, 3, 64, 96)
    names = list(network.feature_names())
    with torch.no_grad():
        depth, maps = network.with_features(image, names)
        (disparity,), again = network.with_disparities(image, ["stage4"])
        torch.testing.assert_close(depth, network(image), rtol=0, atol=0)
        torch.testing.assert_close(1 / disparity, depth)
    shapes = {name: tuple(each.shape[1:]) for name, each in maps.items()}
    assert shapes == {"stage1": (8, 16, 24), "stage2": (16, 8, 12), "stage3": (16, 4, 6), "stage4": (16, 2, 3)}
    assert {name: shape[0] for name, shape in shapes.items()} == dict(network.feature_names())
    torch.testing.assert_close(again["stage4"], maps["stage4"], rtol=0, atol=0)


def test_the_default_has_its_size() -> None:
    network = create("repdepth")
    assert isinstance(network, RepDepth)
    assert network.kind is DepthKind.RELATIVE_DEPTH
    # Two copies at two bytes must stay below the 10 MB of a bundle.
    assert 2.2e6 < sum(p.numel() for p in network.fuse().parameters()) < 2.45e6


def test_registry() -> None:
    assert "repdepth" in architectures()
    with pytest.raises(UsageError, match="repdepth") as caught:
        create("repdeth")
    assert caught.value.error_id == "model.architecture"
    with pytest.raises(UsageError) as caught:
        create("repdepth", colour="blue")
    assert caught.value.error_id == "model.config"


@pytest.mark.parametrize(
    "config",
    [
        {"widths": (8, 8, 8)},
        {"blocks": (0, 1, 1, 1)},
        {"decoder": (8, 8)},
        {"fine": -1},
        {"deep": -1},
        {"dilations": ()},
        {"depth_min": 0.0},
        {"depth_min": 5.0, "depth_max": 4.0},
    ],
)
def test_impossible_networks_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        create("repdepth", **config)
    assert caught.value.error_id == "model.config"
    assert next(iter(config)) in caught.value.what
