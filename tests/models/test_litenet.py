"""LiteNet: the printed sizes, the function and its fused form, side outputs, features, configuration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from endolux.errors import UsageError
from endolux.models import LiteNet, architectures, create
from endolux.models.disparity import DisparityNetwork, sigmoid_disparity
from endolux.models.drop_path import DropPath, drop_rates
from endolux.models.litenet import SIZES, Block, GlobalContext
from endolux.types import DepthKind

# Parameters in millions, GMAC at 256x320 and at 512x640, as the design's table prints them.
PRINTED = {"t": (0.90, 0.81, 3.2), "s": (1.55, 1.30, 5.2), "m": (2.98, 2.16, 8.6), "l": (7.85, 4.88, 19.5)}


def small(**config: object) -> LiteNet:
    torch.manual_seed(0)
    network = create("litenet-t", **config)
    assert isinstance(network, LiteNet)
    return network


@torch.no_grad()
def trained_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics, factors and heads as training might leave them, so that depth spreads over its range."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
        elif name.endswith(("running_mean", "bn.bias", "scale", "gamma", "gamma_xca")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    for head in network.heads:
        nn.init.normal_(head.weight, std=0.15, generator=generator)
        nn.init.constant_(head.bias, -3.0)
    return network


def multiply_accumulates(network: DisparityNetwork, height: int, width: int) -> int:
    """Of every convolution, and of the pooling of the global context."""
    total = 0

    def convolution(layer: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    def context(_: nn.Module, inputs: tuple[Tensor], __: object) -> None:
        nonlocal total
        total += inputs[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, GlobalContext):
            module.register_forward_hook(context)
    network.disparities(torch.empty(1, 3, height, width, device="meta"))
    return total


@pytest.mark.parametrize("size", PRINTED)
def test_parameters_and_operations_are_those_of_the_table(size: str) -> None:
    with torch.device("meta"):
        network = create(f"litenet-{size}").eval()
    parameters, macs, large = PRINTED[size]
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == parameters
    assert round(multiply_accumulates(network, 256, 320) / 1e9, 2) == macs
    with torch.device("meta"):
        network = create(f"litenet-{size}").eval()
    assert round(multiply_accumulates(network, 512, 640) / 1e9, 1) == large


@pytest.mark.parametrize("size", SIZES)
def test_dilations_follow_the_design(size: str) -> None:
    with torch.device("meta"):
        network = LiteNet(size=size)
    dilations = [[block.depthwise.dilation[0] for block in stage] for stage in network.stages]
    for stage, count in zip(dilations, SIZES[size].blocks, strict=True):
        assert len(stage) == count
    assert all(set(stage) <= {1, 2, 3} for stage in dilations[:2])
    assert set(dilations[2]) == {1, 2, 3, 4, 6}
    assert not any(isinstance(module, (nn.ConvTranspose2d, nn.Upsample)) for module in network.modules())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48), (64, 96), (144, 112)])
def test_depth_has_the_size_of_the_input_and_lies_in_range(height: int, width: int) -> None:
    network = small(depth_min_mm=2.0, depth_max_mm=50.0).eval()
    for head in network.heads:
        nn.init.normal_(head.weight, std=30.0)
    with torch.no_grad():
        depth = network(torch.rand(2, 3, height, width))
        disparities = network.disparities(torch.rand(2, 3, height, width))
    assert depth.shape == (2, 1, height, width)
    assert depth.dtype == torch.float32
    assert float(depth.min()) >= 2.0 * (1 - 1e-5)
    assert float(depth.max()) <= 50.0 * (1 + 1e-5)
    assert [tuple(each.shape) for each in disparities] == [(2, 1, height >> s, width >> s) for s in range(3)]
    assert all(float(each.min()) >= 1 / 50 * (1 - 1e-5) for each in disparities)
    assert network.depth_range() == (2.0, 50.0)
    assert network.kind is DepthKind.RELATIVE_DEPTH


def test_every_view_of_the_output_agrees() -> None:
    network = trained_(small()).eval()
    image = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        depth, log_depth = network.depth(image), network.log_depth(image)
        featured, maps = network.with_features(image, ["stage3", "stage1"])
        disparities, again = network.with_disparities(image, ["stage3"])
    assert depth.std() > 0.1 * depth.mean()
    torch.testing.assert_close(network(image), depth, rtol=0, atol=0)
    torch.testing.assert_close(featured, depth, rtol=0, atol=0)
    torch.testing.assert_close(log_depth.exp(), depth, rtol=1e-5, atol=0)
    torch.testing.assert_close(1 / disparities[0], depth, rtol=0, atol=0)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {"stage3": (2, 112, 2, 4), "stage1": (2, 32, 8, 16)}
    torch.testing.assert_close(again["stage3"], maps["stage3"], rtol=0, atol=0)
    assert list(again) == ["stage3"]
    assert dict(network.feature_names()) == {"stage1": 32, "stage2": 64, "stage3": 112}


def test_the_disparity_of_a_sigmoid_is_bounded_and_monotone() -> None:
    logits = torch.linspace(-40, 40, 101)
    disparity = sigmoid_disparity(logits, 0.1, 150.0)
    assert bool((disparity.diff() >= 0).all())
    # The formula with its ends: 1/150 + (10 - 1/150) / 2 in the middle.
    assert disparity[50].item() == pytest.approx(1 / 150 + (10 - 1 / 150) / 2)
    assert (1 / disparity[0]).item() == pytest.approx(150.0, rel=1e-5)
    assert (1 / disparity[-1]).item() == pytest.approx(0.1)


@pytest.mark.parametrize(("low", "high"), [(1.0, 400.0), (0.1, 150.0), (0.001, 1.0), (90.0, 100.0)])
def test_an_untrained_network_starts_in_the_middle_of_its_range(low: float, high: float) -> None:
    network = small(depth_min_mm=low, depth_max_mm=high).eval()
    with torch.no_grad():
        middle = network(torch.rand(1, 3, 32, 32)).median().item()
    assert middle == pytest.approx(math.sqrt(low * high), rel=0.2)


@pytest.mark.parametrize("config", [{}, {"side_heads": False, "drop_path": 0.3}])
def test_the_fused_network_is_the_same_function(config: dict[str, object]) -> None:
    network = trained_(small(**config)).eval()
    image = torch.rand(2, 3, 64, 96)
    fused = network.fuse()
    with torch.no_grad():
        expected, actual = network(image), fused(image)
    assert expected.std() > 0.1 * expected.mean()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)
    assert not any(isinstance(module, (nn.BatchNorm2d, DropPath)) for module in fused.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules()), "the original is left alone"
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert len(fused.disparities(image)) == 1
    again = create("litenet-t", **fused.config())
    again.load_state_dict(fused.state_dict())
    torch.testing.assert_close(again.eval()(image), actual, rtol=0, atol=0)
    torch.testing.assert_close(fused.fuse()(image), actual, rtol=0, atol=0)


def test_training_only_parts_leave_no_trace_in_the_fused_form() -> None:
    with_parts = trained_(small(drop_path=0.2)).eval()
    without = small(side_heads=False).eval()
    without.load_state_dict({n: t for n, t in with_parts.state_dict().items() if n in without.state_dict()})
    assert len(without.disparities(torch.rand(1, 3, 32, 32))) == 1
    first, second = with_parts.fuse(), without.fuse()
    assert first.config() == second.config() == {
        "size": "t", "depth_min_mm": 1.0, "depth_max_mm": 400.0, "fused": True,
    }  # fmt: skip
    assert list(first.state_dict()) == list(second.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_every_parameter_learns() -> None:
    network = small(drop_path=0.1).train()
    disparities = network.disparities(torch.rand(2, 3, 64, 64))
    torch.stack([each.square().mean() for each in disparities]).sum().backward()
    # One vector a sample: a softmax does not see what is added to all of its logits.
    blind = {f"contexts.{stage}.attention.bias" for stage in range(3)}
    dead = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-12}
    assert dead - blind == set()


def test_side_heads_cost_nothing_where_only_depth_is_asked_for() -> None:
    network = small().train()
    network.log_depth(torch.rand(2, 3, 32, 32)).mean().backward()
    assert [head.weight.grad is None for head in network.heads] == [False, True, True]


def test_context_reaches_every_pixel() -> None:
    network = trained_(small()).eval()
    image = torch.full((1, 3, 1024, 16), 0.5)
    changed = image.clone()
    changed[:, :, -32:] = 1.0
    with torch.no_grad():
        moved = (network(image) - network(changed)).abs()[0, 0, :32]
        for module in network.modules():
            if isinstance(module, GlobalContext):
                nn.init.zeros_(module.expand.weight)
        still = (network(image) - network(changed)).abs()[0, 0, :32]
    assert float(moved.max()) > 1e-4
    assert float(still.max()) == 0.0


def test_the_context_vector_is_an_average_under_a_softmax() -> None:
    context = GlobalContext(16).double()
    x = torch.rand(2, 16, 5, 7, dtype=torch.float64)
    # float32 inside, so a permutation of the positions may change the last digits and nothing else.
    order = torch.randperm(35)
    added = (context(x) - x)[:, :, 0, 0]
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close((context(shuffled) - shuffled)[:, :, 0, 0], added, rtol=1e-5, atol=1e-6)


def test_depthwise_convolutions_stay_in_float32_under_autocast() -> None:
    block = Block(16, dilation=2).train()
    seen: dict[str, torch.dtype] = {}
    for name in ("depthwise", "expand"):
        getattr(block, name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(torch.rand(2, 16, 8, 12)).float().sum().backward()
    assert seen == {"depthwise": torch.float32, "expand": torch.bfloat16}


def test_outputs_are_float32_and_fine_under_autocast() -> None:
    network = trained_(small()).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = network.log_depth(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network.log_depth(image)
    assert rough.dtype == torch.float32
    assert rough.unique().numel() > 500
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


def test_channels_last_gives_the_same_depth() -> None:
    network = trained_(small()).eval()
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        expected = network(image)
        actual = network.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)


def test_the_block_is_a_residual_with_a_scale() -> None:
    block = Block(8, dilation=3).eval()
    x = torch.randn(1, 8, 12, 10)
    with torch.no_grad():
        y = block.project(torch.nn.functional.gelu(block.expand(block.bn(block.depthwise(x)))))
        torch.testing.assert_close(block(x), x + 0.1 * y)
        expected = block(x)
        block.fuse_()
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)


def test_drop_path_keeps_the_mean_and_whole_samples() -> None:
    torch.manual_seed(3)
    branch = DropPath(0.25)
    y = branch(torch.ones(8000, 2, 2))
    values = y[:, 0, 0]
    assert bool((y == values[:, None, None]).all())
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert bool((branch.eval()(torch.ones(8, 1)) == 1).all())
    assert drop_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_rates(0.3, 1) == [0.0]


def test_the_names_stand_for_the_sizes() -> None:
    assert {f"litenet-{size}" for size in SIZES} <= set(architectures())
    with torch.device("meta"):
        for size in SIZES:
            network = create(f"litenet-{size}")
            assert network.architecture == f"litenet-{size}" == LiteNet(size=size).architecture
            again = create(network.architecture, **network.config())
            assert again.config() == network.config()
            assert list(again.state_dict()) == list(network.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        {"size": "xl"},
        {"size": "s"},
        {"depth_min_mm": 0.0},
        {"depth_min_mm": 5.0, "depth_max_mm": 5.0},
        {"depth_max_mm": math.inf},
        {"depth_min_mm": math.nan},
        {"depth_min_mm": "1"},
        {"depth_max_mm": True},
        {"drop_path": 1.0},
        {"drop_path": -0.1},
        {"drop_path": math.nan},
        {"drop_path": "much"},
        {"colour": "blue"},
    ],
)
def test_impossible_configurations_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        create("litenet-m", **config)
    assert caught.value.error_id == "model.config"
    if "size" in config:
        with pytest.raises(UsageError):
            LiteNet(size="xl")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 40, 32), (1, 3, 0, 32)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    network = small()
    for call in (network, network.depth, network.log_depth, network.disparities):
        with pytest.raises(UsageError) as caught:
            call(torch.zeros(shape))
        assert caught.value.error_id == "model.input"


def test_unknown_features_are_refused() -> None:
    for call in ("features", "with_features", "with_disparities"):
        with pytest.raises(UsageError, match="Did you mean 'stage3'") as caught:
            getattr(small(), call)(torch.rand(1, 3, 32, 32), ["stage33"])
        assert caught.value.error_id == "model.feature"


@pytest.mark.parametrize("name", ["repdepth", "leve-mobilenetv3"])
def test_networks_without_side_heads_give_one_disparity(name: str) -> None:
    network = create(name).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        (disparity,) = network.disparities(image)
        torch.testing.assert_close(1 / disparity, network.depth(image))
        names = list(network.feature_names())[:1]
        (again,), maps = network.with_disparities(image, names)
    torch.testing.assert_close(again, disparity)
    assert list(maps) == names
