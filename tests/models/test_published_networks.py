"""Leve and GuideDepth: the published names, sizes and numbers, and what training and export need of them."""

from __future__ import annotations

import functools
import hashlib
import json

import pytest
import torch
from golden_fill import FACTS, NAMES, TOLERANCE_FLOAT32, TOLERANCE_FLOAT64, golden_fill_, golden_image, widen_
from torch import nn

from endolux.errors import UsageError
from endolux.models import DepthNetwork, Leve, RatioNetwork, architectures, create
from endolux.types import DepthKind


def filled(name: str, **config: object) -> DepthNetwork:
    network = create(name, **config).eval()
    golden_fill_(network)
    return network


def encoder_of(network: DepthNetwork) -> nn.Module:
    return network.imagenet_encoder()


def test_every_published_network_is_registered() -> None:
    assert set(NAMES) <= set(architectures())
    assert len(NAMES) == 10


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        network = create(name)
    state = network.state_dict()
    rows = (f"{key} {'x'.join(map(str, t.shape))} {str(t.dtype).removeprefix('torch.')}" for key, t in state.items())
    assert len(state) == FACTS[name]["entries"]
    assert sum(parameter.numel() for parameter in network.parameters()) == FACTS[name]["parameters"]
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest() == FACTS[name]["state_dict_sha256"]


def multiply_accumulates(network: DepthNetwork, height: int, width: int) -> dict[str, int]:
    """MACs of convolutions and linear layers, in all and below each child of the network."""
    counts = {"total": 0}

    def count(top: str, layer: nn.Module, _: object, output: torch.Tensor) -> None:
        for key in ("total", top):
            counts[key] = counts.get(key, 0) + output.numel() * layer.weight[0].numel()

    for path, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(functools.partial(count, path.split(".")[0]))
    network(torch.empty(1, 3, height, width, device="meta"))
    return counts


@pytest.mark.parametrize("size", ["240x320", "480x640"])
@pytest.mark.parametrize("name", NAMES)
def test_multiply_accumulates_are_the_published_ones(name: str, size: str) -> None:
    with torch.device("meta"):
        network = create(name).eval()
    assert multiply_accumulates(network, *map(int, size.split("x"))) == FACTS[name]["macs"][size]


def assert_golden(name: str, size: str, ratio: torch.Tensor, tolerance: float) -> None:
    golden = FACTS[name]["golden"][size]
    pixels = {f"{y},{x}": float(ratio[0, 0, y, x]) for y, x in (map(int, key.split(",")) for key in golden["pixels"])}
    assert pixels == pytest.approx(golden["pixels"], rel=0, abs=tolerance)
    values = {"mean": ratio.mean(), "std": ratio.std(correction=0), "min": ratio.min(), "max": ratio.max()}
    measured = {key: float(value) for key, value in values.items()}
    assert measured == pytest.approx({key: golden[key] for key in values}, rel=0, abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_golden_values_in_float64(name: str) -> None:
    network, image = create(name).double().eval(), golden_image(240, 320)
    golden_fill_(network)
    with torch.inference_mode():
        ratio, maps = network.with_features(image, ["encoder"])
    assert_golden(name, "240x320", ratio, TOLERANCE_FLOAT64)
    encoder = maps["encoder"]
    wanted = FACTS[name]["golden"]["240x320"]["encoder"]
    values = {"mean": encoder.mean(), "std": encoder.std(correction=0), "min": encoder.min(), "max": encoder.max()}
    assert {key: float(value) for key, value in values.items()} == pytest.approx(wanted, rel=0, abs=TOLERANCE_FLOAT64)


@pytest.mark.parametrize("size", ["240x320", "480x640"])
@pytest.mark.parametrize("name", NAMES)
def test_golden_values_in_float32(name: str, size: str) -> None:
    with torch.inference_mode():
        ratio = filled(name)(golden_image(*map(int, size.split("x"))).float())
    assert_golden(name, size, ratio.double(), TOLERANCE_FLOAT32)


@pytest.mark.parametrize("name", NAMES)
def test_the_fused_network_is_the_same_function(name: str) -> None:
    network = create(name).double().eval()
    golden_fill_(network)
    fused = network.fuse()
    image = golden_image(64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fused(image), network(image), rtol=0, atol=1e-12)
    after_convolution = [
        path
        for owner_path, owner in fused.named_modules()
        if isinstance(owner, nn.Sequential)
        for (_, before), (path, after) in zip(
            list(owner.named_children()), list(owner.named_children())[1:], strict=False
        )
        if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)
    ]
    assert not after_convolution
    assert isinstance(network, RatioNetwork)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in network.parameters())
    again = create(name, **json.loads(json.dumps(fused.config()))).double().eval()
    again.load_state_dict(fused.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again(image), fused(image), rtol=0, atol=0)


def test_fusing_removes_what_has_no_effect() -> None:
    kept = sum(p.numel() for p in create("leve").fuse().parameters())
    without = sum(p.numel() for p in create("leve-no-skips").fuse().parameters())
    assert without < kept
    assert sum(p.numel() for p in create("leve-mobilenetv3").fuse().parameters()) < 260_000


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_positive_and_in_range(name: str) -> None:
    network = filled(name, max_depth_mm=200.0)
    widen_(network)
    image = golden_image(64, 96).float()
    with torch.inference_mode():
        ratio, depth = network(image), network.depth(image)
        torch.testing.assert_close(depth, 200.0 / ratio.clamp(1, 100))
        torch.testing.assert_close(network.log_depth(image), depth.log())
    assert depth.dtype == torch.float32
    assert depth.shape == (1, 1, 64, 96)
    assert float(depth.std()) > 1e-3
    low, high = network.depth_range()
    assert (low, high) == (2.0, 200.0)
    assert float(depth.min()) >= low
    assert float(depth.max()) <= high
    assert network.kind is DepthKind.METRIC


def test_reproduced_depth_has_the_published_jump() -> None:
    network, image = filled("leve", reproduce=True), golden_image(64, 96).float()
    with torch.inference_mode():
        network.decoder.upsampling_block3.result_conv.weight.zero_()
        for bias, depth_mm in ((-1.0, 100.0), (0.0, 0.0), (0.5, 10000.0), (4.0, 2500.0), (1000.0, 100.0)):
            network.decoder.upsampling_block3.result_conv.bias.fill_(bias)
            assert network.depth(image).unique().tolist() == [depth_mm]
            assert bool(network.discontinuous(image).all()) == (bias == 0.0)
    assert network.depth_range()[0] == 0.0


@pytest.mark.parametrize(("name", "multiple"), [("leve", 8), ("guidedepth-s", 8), ("leve-mobilenetv3", 16)])
def test_only_sizes_that_fit_are_taken(name: str, multiple: int) -> None:
    network = create(name).eval()
    assert network.multiple == multiple
    with torch.inference_mode():
        for height, width in ((multiple, multiple), (multiple, 5 * multiple), (48, 80)):
            assert network(torch.rand(1, 3, height, width)).shape == (1, 1, height, width)
        for shape in ((1, 3, 64, 64 + multiple // 2), (1, 3, 75, 64), (1, 4, 64, 64), (3, 64, 64), (1, 3, 0, 64)):
            with pytest.raises(UsageError) as caught:
                network(torch.rand(shape))
            assert caught.value.error_id == "model.input"


def test_a_batch_of_one_cannot_train_the_pooling() -> None:
    network = create("leve").train()
    with pytest.raises(UsageError) as caught:
        network(torch.rand(1, 3, 32, 32))
    assert caught.value.error_id == "model.batch"
    network(torch.rand(2, 3, 32, 32)).mean().backward()
    used = [name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
    assert len(used) > 150
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    assert create("leve-mobilenetv3").train()(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_have_the_stated_channels(name: str) -> None:
    network, image = filled(name), golden_image(64, 96).float()
    before = list(network.state_dict())
    names = network.feature_names()
    with torch.inference_mode():
        maps = network.features(image, list(names))
        ratio, some = network.with_features(image, ["encoder"])
        torch.testing.assert_close(ratio, network(image), rtol=0, atol=0)
    assert {key: value.shape[1] for key, value in maps.items()} == dict(names)
    torch.testing.assert_close(some["encoder"], maps["encoder"], rtol=0, atol=0)
    assert list(network.state_dict()) == before


def test_feature_maps_of_leve_have_the_published_sizes() -> None:
    maps = filled("leve").features(golden_image(64, 128).float(), ["a1", "h3", "h4", "encoder"])
    assert {key: tuple(value.shape) for key, value in maps.items()} == {
        "a1": (1, 32, 16, 32),
        "h3": (1, 64, 8, 16),
        "h4": (1, 64, 8, 16),
        "encoder": (1, 64, 8, 16),
    }


@pytest.mark.parametrize("name", ["leve", "guidedepth", "leve-mobilenetv3", "repdepth"])
def test_an_unknown_feature_map_is_named(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(name).features(torch.rand(1, 3, 64, 64), ["encodr"])
    assert caught.value.error_id == "model.feature"
    assert name == "repdepth" or "'encoder'" in caught.value.fix


def test_the_ratio_stays_float32_under_autocast() -> None:
    for name in ("leve", "guidedepth"):
        network = create(name).eval()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert network(torch.rand(1, 3, 32, 32)).dtype == torch.float32


def test_names_and_configurations_build_the_same_network() -> None:
    for name in NAMES:
        network = create(name, max_depth_mm=200.0)
        again = create(network.architecture, **json.loads(json.dumps(network.config())))
        assert again.architecture == name
        assert again.config() == network.config()
        assert again.config()["max_depth_mm"] == 200.0
    odd = Leve(lcb="3x3-dw", skips="none")
    assert odd.architecture == "leve"
    assert create("leve", **odd.config()).config() == odd.config()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("leve-3x3", {"lcb": "5x5+5x5"}),
        ("leve", {"lcb": "7x7"}),
        ("leve", {"skips": "some"}),
        ("leve", {"max_depth_mm": 0.0}),
        ("leve", {"max_depth_mm": float("nan")}),
        ("leve", {"max_depth_mm": "ten"}),
        ("leve-mobilenetv3", {"lcb": "3x3"}),
        ("guidedepth-s", {"small": False}),
    ],
)
def test_impossible_configurations_are_refused(name: str, config: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        create(name, **config)
    assert caught.value.error_id == "model.config"


def test_two_networks_start_from_different_weights() -> None:
    torch.manual_seed(0)
    first, second = create("leve"), create("leve")
    for network in (first, second):
        weight = encoder_of(network).layer4[1].conv2.weight
        # Kaiming, fan out: variance 2 / (256 * 9).
        assert float(weight.detach().std()) == pytest.approx((2 / 2304) ** 0.5, rel=0.02)
    a, b = (encoder_of(network).layer1[0].conv1.weight for network in (first, second))
    assert not torch.equal(a, b)
