"""Lite-Mono: published counts, names and arithmetic; checkpoints as published; the fused form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from test_litenet import trained_
from torch import Tensor, nn

from endolux.errors import ModelError, UsageError
from endolux.models import LiteMono, create
from endolux.models.checkpoint_files import read_state_dict
from endolux.models.identify import identify
from endolux.models.lite_mono import SIZES, AttentionBlock, CrossCovarianceAttention, DilatedBlock, PositionalEncoding
from endolux.models.published import load_published
from endolux.models.published_folder import is_published_folder, load_depth

# Parameters in millions and GMAC at 256x320 of the published networks; the base network's parameters to a thousand.
COUNTED = {"lite-mono": (3.075, 3.34), "lite-mono-tiny": (2.15, 1.89), "lite-mono-small": (2.48, 3.15)}
COUNTED |= {"lite-mono-8m": (8.78, 7.47)}
# Names and shapes that users of the published tiny network reported.
REPORTED = {
    "encoder.downsample_layers.0.0.conv.weight": (32, 3, 3, 3),
    "encoder.downsample_layers.0.0.bn_gelu.bn.weight": (32,),
    "encoder.downsample_layers.0.0.bn_gelu.bn.running_mean": (32,),
    "encoder.stages.0.0.gamma": (32,),
    "encoder.stages.0.0.ddwconv.conv.weight": (32, 1, 3, 3),
    "encoder.stages.0.0.bn1.weight": (32,),
    "encoder.stages.0.0.bn1.running_var": (32,),
    "encoder.stages.0.0.norm.weight": (32,),
    "encoder.stages.0.0.norm.bias": (32,),
    "encoder.stages.0.0.pwconv1.weight": (192, 32),
    "encoder.stages.0.3.gamma_xca": (32,),
    "encoder.stages.0.3.gamma": (32,),
    "encoder.stages.0.3.pos_embd.token_projection.weight": (32, 64, 1, 1),
    "encoder.stages.0.3.pos_embd.token_projection.bias": (32,),
    "encoder.stages.0.3.norm_xca.weight": (32,),
    "encoder.stages.0.3.xca.qkv.weight": (96, 32),
    "encoder.stages.0.3.xca.qkv.bias": (96,),
}


def tiny(**config: object) -> LiteMono:
    torch.manual_seed(0)
    network = create("lite-mono-tiny", **config)
    assert isinstance(network, LiteMono)
    return network


def spread(network: LiteMono) -> LiteMono:
    """As training might leave it: every factor matters, and depth spreads over its range."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim >= 2 and not name.endswith("temperature"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / parameter[0].numel()) ** 0.5)
            elif not name.endswith("temperature"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    network.heads = []  # type: ignore[assignment]
    trained_(network)
    del network.heads
    for head in network.decoder[6:]:
        head.conv.bias.data.fill_(-3.0)
    return network


def multiply_accumulates(network: LiteMono, height: int, width: int) -> int:
    """Of every convolution and linear layer, the two products of the attention, and the encoding at every position."""
    total = 0

    def linear(layer: nn.Conv2d | nn.Linear, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    def attention(_: nn.Module, inputs: tuple[Tensor], __: object) -> None:
        nonlocal total
        total += 2 * inputs[0].numel() * inputs[0].shape[2] // 8

    def encoding(layer: PositionalEncoding, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.token_projection.in_channels

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(linear)
        elif isinstance(module, PositionalEncoding):
            module.register_forward_hook(encoding)
        elif isinstance(module, CrossCovarianceAttention):
            module.register_forward_hook(attention)
    network.disparities(torch.empty(1, 3, height, width, device="meta"))
    return total


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_and_operations_are_those_of_the_published_networks(name: str) -> None:
    with torch.device("meta"):
        network = create(name).eval()
    assert isinstance(network, LiteMono)
    parameters, macs = COUNTED[name]
    digits = 3 if name == "lite-mono" else 2
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, digits) == parameters
    # The published counts were printed after rounding twice.
    assert multiply_accumulates(network, 256, 320) / 1e9 == pytest.approx(macs, abs=0.006)


def test_widths_and_depths_are_those_of_the_released_evaluation() -> None:
    with torch.device("meta"):
        network = LiteMono()
    assert network.architecture == "lite-mono"
    assert [len(stage) for stage in network.encoder.stages] == [4, 4, 10]
    assert dict(network.feature_names()) == {"stage1": 48, "stage2": 80, "stage3": 128}
    assert [block.conv.conv.out_channels for block in network.decoder[:6]] == [64, 64, 40, 40, 24, 24]
    assert [head.conv.in_channels for head in network.decoder[6:]] == [24, 40, 64]
    assert network.depth_range() == (0.1, 150.0)


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = create("lite-mono-tiny").state_dict()
    assert {name: tuple(state[name].shape) for name in REPORTED} == REPORTED
    # The tiny network's third stage ends with its attention at 6; the base network has a convolution there.
    assert "encoder.stages.2.6.xca.temperature" in state
    with torch.device("meta"):
        assert "encoder.stages.2.6.ddwconv.conv.weight" in create("lite-mono").state_dict()
    assert [name for name in state if name.startswith("decoder.")] == [
        f"decoder.{index}.{inner}.{part}"
        for index, inner in [*((i, "conv.conv") for i in range(6)), *((i, "conv") for i in range(6, 9))]
        for part in ("weight", "bias")
    ]


def test_side_outputs_and_views_agree() -> None:
    network = spread(tiny()).eval()
    image = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        depth = network(image)
        disparities, maps = network.with_disparities(image, ["stage2"])
    assert [tuple(each.shape) for each in disparities] == [(2, 1, 32, 64), (2, 1, 16, 32), (2, 1, 8, 16)]
    assert tuple(maps["stage2"].shape) == (2, 64, 4, 8)
    torch.testing.assert_close(1 / disparities[0], depth, rtol=0, atol=0)
    assert depth.std() > 0.1 * depth.mean()
    assert float(depth.min()) >= 0.1 * (1 - 1e-5)
    assert float(depth.max()) <= 150 * (1 + 1e-5)


def test_the_positional_encoding_is_the_formula() -> None:
    torch.manual_seed(0)
    encoding = PositionalEncoding(8).double()
    height, width = 5, 7
    i = torch.arange(32, dtype=torch.float64)
    period = 10000 ** (2 * (i // 2) / 32)
    waves = []
    for length in (height, width):
        position = torch.arange(1, length + 1, dtype=torch.float64) / (length + 1e-6) * 2 * math.pi
        angle = position[:, None] / period
        waves.append(torch.where(i % 2 == 0, angle.sin(), angle.cos()))
    grid = torch.cat(
        (waves[0][:, None].expand(height, width, 32), waves[1][None].expand(height, width, 32)), dim=2
    ).permute(2, 0, 1)[None]
    expected = encoding.token_projection(grid)
    single = encoding.float()(torch.zeros(1, 8, height, width))
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_attention_is_between_channels() -> None:
    torch.manual_seed(0)
    attention = CrossCovarianceAttention(16)
    nn.init.uniform_(attention.temperature, 0.5, 4.0)
    x = torch.randn(2, 30, 16)
    order = torch.randperm(30)
    with torch.no_grad():
        torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-4, atol=1e-6)
        # Head by head, as the paper writes it: V softmax(K^T Q / tau).
        q, k, v = attention.qkv(x).split(16, dim=2)
        heads = []
        for head in range(8):
            part = slice(2 * head, 2 * head + 2)
            a, b = F.normalize(q[..., part], dim=1), F.normalize(k[..., part], dim=1)
            weights = (a.transpose(1, 2) @ b * attention.temperature[head]).softmax(dim=2)
            heads.append((weights @ v[..., part].transpose(1, 2)).transpose(1, 2))
        torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, dim=2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [DilatedBlock(16, dilation=2), AttentionBlock(16, encoding=True)])
def test_blocks_start_as_the_identity_and_fuse(block: DilatedBlock | AttentionBlock) -> None:
    block.eval()
    x = torch.randn(2, 16, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x, rtol=0, atol=1e-4)
        for name, parameter in block.named_parameters():
            if "gamma" in name or "norm" in name:
                nn.init.normal_(parameter, 0.5, 0.5)
        expected = block(x)
        assert float((expected - x).abs().max()) > 0.01
        block.fuse_()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_the_fused_network_is_the_same_function() -> None:
    network = spread(tiny()).eval()
    image = torch.rand(2, 3, 64, 96)
    fused = network.fuse()
    with torch.no_grad():
        expected, actual = network(image), fused(image)
    assert expected.std() > 0.1 * expected.mean()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=0)
    kept = (nn.BatchNorm2d, nn.LayerNorm, nn.Linear)
    assert not any(isinstance(module, kept) for module in fused.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) > 10
    again = create("lite-mono-tiny", **fused.config())
    again.load_state_dict(fused.state_dict())
    torch.testing.assert_close(again.eval()(image), actual, rtol=0, atol=0)


def test_every_parameter_learns_but_the_idle_norms() -> None:
    network = spread(tiny(drop_path=0.0)).train()
    torch.stack([each.square().mean() for each in network.disparities(torch.rand(2, 3, 32, 32))]).sum().backward()
    dead = [
        name for name, p in network.named_parameters() if p.requires_grad and not (p.grad is not None and p.grad.any())
    ]
    assert dead == []
    idle = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert len(idle) == 2 * 12
    assert all(name.endswith(("norm.weight", "norm.bias")) for name in idle)


def test_autocast_stays_close() -> None:
    network = spread(tiny()).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        exact = network.log_depth(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network.log_depth(image)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``encoder.pth`` and ``depth.pth`` as published: sizes and operation counts lie among the weights."""
    folder = tmp_path_factory.mktemp("lite-mono-tiny")
    state = spread(tiny()).state_dict()
    encoder: dict[str, object] = {"height": 192, "width": 640, "use_stereo": False}
    encoder |= {"total_ops": torch.zeros(1, dtype=torch.float64), "normalize.total_params": torch.zeros(1)}
    encoder |= {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
    depth: dict[str, object] = {n: t for n, t in state.items() if n.startswith("decoder.")}
    depth |= {"decoder.0.conv.conv.total_ops": torch.zeros(1)}
    torch.save(encoder, folder / "encoder.pth")
    torch.save(depth, folder / "depth.pth")
    return folder


def test_the_published_pair_loads_strictly(published: Path) -> None:
    state = read_state_dict(published)
    assert identify(state) == ("lite-mono-tiny",)
    network = create("lite-mono-tiny")
    load_published(network, state)
    reference = spread(tiny()).state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ModelError, match="but of 'lite-mono-tiny'") as caught:
        load_published(create("lite-mono"), state)
    assert caught.value.error_id == "model.variant"


def test_the_folder_is_read_with_the_size_that_stands_in_it(published: Path) -> None:
    network = create("lite-mono-tiny")
    facts = load_depth(network, published)
    assert (facts["width"], facts["height"]) == (640, 192)
    reference = spread(tiny()).state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in network.state_dict().items())
    assert is_published_folder(published)
    for wrong in ("lite-mono", "af-sfmlearner"):
        with pytest.raises(ModelError, match=r"lite-mono-tiny|not the weights") as caught:
            load_depth(create(wrong), published)
        assert caught.value.error_id == "model.variant"


@pytest.mark.parametrize("name", COUNTED)
def test_every_size_is_recognised(name: str) -> None:
    with torch.device("meta"):
        assert identify(create(name).state_dict()) == (name,)


def test_half_a_pair_is_refused(tmp_path: Path, published: Path) -> None:
    (tmp_path / "encoder.pth").write_bytes((published / "encoder.pth").read_bytes())
    with pytest.raises(ModelError, match=r"no depth\.pth") as caught:
        read_state_dict(tmp_path)
    assert caught.value.error_id == "model.missing"


def test_the_names_stand_for_the_sizes() -> None:
    with torch.device("meta"):
        for name, size in zip(COUNTED, SIZES, strict=True):
            network = create(name)
            assert network.config()["size"] == size
            assert LiteMono(size=size).architecture == name
            assert create(name, **network.config()).config() == network.config()


@pytest.mark.parametrize("config", [{"size": "huge"}, {"drop_path": 2}, {"depth_min_mm": 200.0}, {"colour": 1}])
def test_impossible_configurations_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        create("lite-mono", **config)
    assert caught.value.error_id == "model.config"


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        tiny()(torch.zeros(1, 3, 40, 40))
    assert caught.value.error_id == "model.input"
