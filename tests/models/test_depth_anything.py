"""Depth Anything: the same numbers as transformers and as the original, whatever the weights are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_transformers import TINY, library_network, lively

from endolux.errors import ModelError, UsageError
from endolux.models import DepthAnything, create
from endolux.models.depth_anything_keys import from_original, to_original
from endolux.models.dpt import SIZES, TAPS, nearest_multiple
from endolux.models.positions import resampled_positions
from endolux.models.transplant import depth_anything_from, start_from
from endolux.types import DepthKind

pytest.importorskip("transformers")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def original(state: dict[str, torch.Tensor], image: torch.Tensor, *, heads: int, taps: list[int]) -> torch.Tensor:
    """The network written down from its specification, on weights under their original names."""
    w = state
    n, _, height, width = image.shape
    rows, columns = height // 14, width // 14
    x = F.conv2d(image, w["pretrained.patch_embed.proj.weight"], w["pretrained.patch_embed.proj.bias"], stride=14)
    x = torch.cat((w["pretrained.cls_token"].expand(n, -1, -1), x.flatten(2).transpose(1, 2)), 1)
    table = w["pretrained.pos_embed"]
    grid, dim = round((table.shape[1] - 1) ** 0.5), table.shape[2]
    square = table[:, 1:].reshape(1, grid, grid, dim).permute(0, 3, 1, 2)
    square = F.interpolate(square, (rows, columns), mode="bicubic", align_corners=False)
    x = x + torch.cat((table[:, :1], square.permute(0, 2, 3, 1).reshape(1, -1, dim)), 1)
    found = []
    for block in range(max(taps)):
        p = f"pretrained.blocks.{block}."
        h = F.layer_norm(x, (dim,), w[p + "norm1.weight"], w[p + "norm1.bias"], 1e-6)
        q, k, v = F.linear(h, w[p + "attn.qkv.weight"], w[p + "attn.qkv.bias"]).chunk(3, -1)
        q, k, v = (t.reshape(n, -1, heads, dim // heads).transpose(1, 2) for t in (q, k, v))
        a = ((q * (dim // heads) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        a = F.linear(a.transpose(1, 2).reshape(n, -1, dim), w[p + "attn.proj.weight"], w[p + "attn.proj.bias"])
        x = x + w[p + "ls1.gamma"] * a
        h = F.layer_norm(x, (dim,), w[p + "norm2.weight"], w[p + "norm2.bias"], 1e-6)
        h = F.linear(F.gelu(F.linear(h, w[p + "mlp.fc1.weight"], w[p + "mlp.fc1.bias"])),
                     w[p + "mlp.fc2.weight"], w[p + "mlp.fc2.bias"])  # fmt: skip
        x = x + w[p + "ls2.gamma"] * h
        if block + 1 in taps:
            found.append(F.layer_norm(x, (dim,), w["pretrained.norm.weight"], w["pretrained.norm.bias"], 1e-6)[:, 1:])
    d = "depth_head."
    maps = []
    for k, tokens in enumerate(found):
        m = tokens.transpose(1, 2).reshape(n, dim, rows, columns)
        m = F.conv2d(m, w[f"{d}projects.{k}.weight"], w[f"{d}projects.{k}.bias"])
        if k < 2:
            m = F.conv_transpose2d(m, w[f"{d}resize_layers.{k}.weight"], w[f"{d}resize_layers.{k}.bias"], stride=4 >> k)
        if k == 3:
            m = F.conv2d(m, w[f"{d}resize_layers.3.weight"], w[f"{d}resize_layers.3.bias"], stride=2, padding=1)
        maps.append(F.conv2d(m, w[f"{d}scratch.layer{k + 1}_rn.weight"], padding=1))

    def unit(m: torch.Tensor, name: str) -> torch.Tensor:
        h = F.conv2d(m.relu(), w[name + ".conv1.weight"], w[name + ".conv1.bias"], padding=1)
        return m + F.conv2d(h.relu(), w[name + ".conv2.weight"], w[name + ".conv2.bias"], padding=1)

    path = None
    for k in (3, 2, 1, 0):
        r = f"{d}scratch.refinenet{k + 1}."
        path = maps[k] if path is None else path + unit(maps[k], r + "resConfUnit1")
        path = unit(path, r + "resConfUnit2")
        size = maps[k - 1].shape[2:] if k else (2 * path.shape[2], 2 * path.shape[3])
        path = F.interpolate(path, size, mode="bilinear", align_corners=True)
        path = F.conv2d(path, w[r + "out_conv.weight"], w[r + "out_conv.bias"])
    s = f"{d}scratch."
    path = F.conv2d(path, w[s + "output_conv1.weight"], w[s + "output_conv1.bias"], padding=1)
    path = F.interpolate(path, (14 * rows, 14 * columns), mode="bilinear", align_corners=True)
    path = F.conv2d(path, w[s + "output_conv2.0.weight"], w[s + "output_conv2.0.bias"], padding=1).relu()
    return F.conv2d(path, w[s + "output_conv2.2.weight"], w[s + "output_conv2.2.bias"]).relu()


def picture(height: int = 70, width: int = 98, n: int = 1) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


def normalised(image: torch.Tensor) -> torch.Tensor:
    return (image - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def network() -> DepthAnything:
    return lively(create("depth-anything-v2-s", **TINY), bias=0.5)


@torch.no_grad()
@pytest.mark.parametrize("size", [(56, 56), (70, 98), (28, 140)])
def test_the_same_numbers_as_transformers(network: DepthAnything, size: tuple[int, int]) -> None:
    image = picture(*size, n=2)
    expected = library_network(network)(normalised(image)).predicted_depth[:, None]
    found = network(image)
    assert found.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.max()), rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_the_same_numbers_on_the_published_shape() -> None:
    """V2-S with random weights at 98 x 126, against the library and the original's formulas."""
    network, image = lively(create("depth-anything-v2-s"), bias=0.5), picture(98, 126)
    found = network(image)
    assert found.std() > 0.05
    tolerance = 1e-5 * float(found.max())
    expected = library_network(network)(normalised(image)).predicted_depth[:, None]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    expected = original(to_original(network.state_dict()), normalised(image), heads=6, taps=[3, 6, 9, 12])
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@torch.no_grad()
def test_the_same_numbers_as_the_original_both_ways(network: DepthAnything, tmp_path: Path) -> None:
    state, image = to_original(network.state_dict()), picture()
    assert not [name for name in state if not name.startswith(("pretrained.", "depth_head."))]
    expected = original(state, normalised(image), heads=2, taps=TINY["taps"])
    torch.testing.assert_close(network(image), expected, atol=1e-5 * float(expected.max()), rtol=0)
    back = from_original(state)
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in network.state_dict().items())
    other = create("depth-anything-v2-s", **TINY).eval()
    torch.save({"model": state}, tmp_path / "depth_anything_v2_vits.pth")
    from endolux.models.published import load_published, read_state_dict

    load_published(other, read_state_dict(tmp_path / "depth_anything_v2_vits.pth"))
    assert torch.equal(other(image), network(image))


def test_names_of_the_published_small_network() -> None:
    """The original names of V2-S, against the table of the specification: 239 entries and 24,785,089 parameters."""
    with torch.device("meta"):
        network = create("depth-anything-v2-s")
    assert sum(p.numel() for p in network.parameters()) == 24_785_089
    assert len(network.state_dict()) == 287
    original_names = to_original({k: torch.empty(v.shape, device="meta") for k, v in network.state_dict().items()})
    assert len(original_names) == 287 - 2 * 24
    assert original_names["pretrained.blocks.11.attn.qkv.weight"].shape == (1152, 384)
    assert original_names["depth_head.scratch.refinenet4.resConfUnit1.conv1.weight"].shape == (64, 64, 3, 3)
    assert original_names["depth_head.resize_layers.3.weight"].shape == (384, 384, 3, 3)
    assert original_names["pretrained.pos_embed"].shape == (1, 1370, 384)


def test_older_names_of_transformers(network: DepthAnything) -> None:
    older = {}
    for name, tensor in network.state_dict().items():
        for new, old in (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"),
                         ("o_proj", "output.dense")):  # fmt: skip
            name = name.replace(f".attention.{new}.", f".attention.{old}.")
        older[name] = tensor
    other = create("depth-anything-v2-s", **TINY)
    other.load_published(older)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), older.values(), strict=True))


def test_weights_of_another_network_are_refused(network: DepthAnything) -> None:
    state = network.state_dict()
    wider = create("depth-anything-v2-s", **{**TINY, "fusion": 8})
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(ModelError, match="of other shape") as caught:
        wider.load_published(state)
    assert caught.value.error_id == "model.variant"
    assert all(torch.equal(before[name], tensor) for name, tensor in wider.state_dict().items())
    with pytest.raises(ModelError, match="1 missing"):
        create("depth-anything-v2-s", **TINY).load_published({k: v for k, v in state.items() if "cls" not in k})
    broken = {**state, "head.conv3.bias": torch.tensor([float("nan")])}
    with pytest.raises(ModelError) as caught:
        create("depth-anything-v2-s", **TINY).load_published(broken)
    assert caught.value.error_id == "model.weights"


@pytest.mark.parametrize("size", [(18, 22), (4, 4), (37, 37), (40, 7)])
@pytest.mark.parametrize("rule", ["size", "offset"])
def test_positions_are_resampled_as_by_the_library(size: tuple[int, int], rule: str) -> None:
    table = torch.randn(1, 1 + 37 * 37, 5, generator=torch.Generator().manual_seed(0))
    square = table[:, 1:].reshape(1, 37, 37, 5).permute(0, 3, 1, 2)
    if size == (37, 37):
        expected = square
    elif rule == "size":
        expected = F.interpolate(square, size, mode="bicubic", align_corners=False)
    else:
        factors = tuple((side + 0.1) / 37 for side in size)
        expected = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
    found = resampled_positions(table, *size, rule=rule)
    assert torch.equal(found[:, 0], table[:, 0])
    torch.testing.assert_close(found[0, 1:].T.reshape(1, 5, *size), expected, atol=3e-5, rtol=0)


@torch.no_grad()
def test_sizes_that_are_no_multiples(network: DepthAnything) -> None:
    image = picture(75, 90)
    fitted = F.interpolate(image, (70, 84), mode="bilinear", align_corners=False)
    expected = F.interpolate(network(fitted), (75, 90), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(image), expected)
    assert (nearest_multiple(77), nearest_multiple(76), nearest_multiple(5)) == (84, 70, 14)
    published = create("depth-anything-v2-s", **TINY, reproduce=True)
    published.load_state_dict(network.state_dict())
    cut = F.interpolate(network(image[:, :, :70, :84]), (75, 90), mode="bilinear", align_corners=True)
    torch.testing.assert_close(published.eval()(image), cut)
    moved = image.clone()
    moved[:, :, 71:] = 0
    assert torch.equal(published(image), published(moved))
    assert not torch.equal(network(image), network(moved))


@torch.no_grad()
def test_features_are_those_of_the_library(network: DepthAnything) -> None:
    image = picture()
    output, maps = network.with_features(image, ["block4", "block1"])
    torch.testing.assert_close(output, network(image))
    expected = library_network(network).backbone(normalised(image)).feature_maps
    for name, tokens in (("block1", expected[0]), ("block4", expected[3])):
        assert maps[name].shape == (1, 32, 5, 7)
        torch.testing.assert_close(maps[name].flatten(2).transpose(1, 2), tokens[:, 1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        network.features(image, ["block2"])["block2"], network.with_features(image, ["block2"])[1]["block2"]
    )
    assert network.feature_names() == {f"block{i}": 32 for i in range(1, 5)}
    with pytest.raises(UsageError, match="block9"):
        network.features(image, ["block9"])


@torch.no_grad()
def test_what_the_outputs_mean() -> None:
    image = picture(28, 42)
    disparity = lively(create("depth-anything-v2-s", **TINY), bias=0.2)
    assert disparity.kind is DepthKind.RELATIVE_DISPARITY
    assert torch.equal(disparity.depth(image), disparity(image))
    for refused in (disparity.log_depth, disparity.disparities):
        with pytest.raises(UsageError) as caught:
            refused(image)
        assert caught.value.error_id == "model.kind"
    metric = create("depth-anything-v2-s", **TINY, output="metric", max_depth_mm=20_000)
    metric.load_state_dict(disparity.state_dict())
    library = library_network(disparity, depth_estimation_type="metric", max_depth=20)
    expected = 1000 * library(normalised(image)).predicted_depth[:, None]
    torch.testing.assert_close(metric.eval().depth(image), expected, atol=1e-5 * 20_000, rtol=0)
    assert metric.kind is DepthKind.METRIC
    inverse = create("depth-anything-v2-s", **TINY, output="inverse", max_depth_mm=200, min_depth_mm=2)
    inverse.load_state_dict(disparity.state_dict())
    values = inverse.eval().depth(image)
    assert values.min() >= 2
    assert values.max() <= 200
    torch.testing.assert_close(inverse.disparities(image)[0], 1 / values)
    depth = create("depth-anything-v2-s", **TINY, output="depth").eval()
    # The new last layer begins near the middle of its targets: no pixel is cut off.
    assert (depth(image) > 0).float().mean() > 0.95
    torch.testing.assert_close(depth.depth(image).mean(), torch.tensor(60.0), atol=6.0, rtol=0)


def test_the_variants_differ_as_published() -> None:
    assert TAPS["v1-s"] == (9, 10, 11, 12)
    assert TAPS["v2-s"] == (3, 6, 9, 12)
    with torch.device("meta"):
        for name, count in (("depth-anything-v1-b", 97_470_785), ("depth-anything-v2-l", 335_315_649)):
            network = create(name)
            assert sum(p.numel() for p in network.parameters()) == count
            assert network.config()["taps"] == list(TAPS[name.removeprefix("depth-anything-")])
    assert SIZES["l"]["blocks"] == 24


def test_a_checkpoint_rebuilds_the_network(network: DepthAnything) -> None:
    for made in (network, create("depth-anything-v1-s", **TINY, adapt={"kind": "lora", "ranks": [2]}, output="depth")):
        config = json.loads(json.dumps(made.config()))
        again = create(made.architecture, **config)
        again.load_state_dict(made.state_dict())
        assert again.config() == made.config()


def test_folders_of_transformers(network: DepthAnything, tmp_path: Path) -> None:
    library_network(network).save_pretrained(tmp_path / "folder")
    found = depth_anything_from(str(tmp_path / "folder"))
    image = picture()
    with torch.no_grad():
        torch.testing.assert_close(found(image), network(image))
    library_network(network, depth_estimation_type="metric", max_depth=20).save_pretrained(tmp_path / "metric")
    metric = depth_anything_from(str(tmp_path / "metric"))
    assert (metric.kind, metric.depth_range()) == (DepthKind.METRIC, (0.0, 20_000.0))
    with pytest.raises(ModelError) as caught:
        depth_anything_from(str(tmp_path / "nothing"))
    assert caught.value.error_id == "teacher.fetch"
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(UsageError) as usage:
        depth_anything_from(str(tmp_path / "weights.pth"))
    assert usage.value.error_id == "model.architecture"


def test_starting_from_another_network(network: DepthAnything) -> None:
    depth = create("depth-anything-v2-s", **TINY, output="depth")
    start_from(depth, network)
    assert torch.equal(depth.backbone.layernorm.weight, network.backbone.layernorm.weight)
    # Disparity is no start for depth: the last layer is new.
    assert depth.head.conv3.bias.item() == pytest.approx(0.3)
    adapted = lively(create("depth-anything-v2-s", **TINY, output="depth", adapt={"kind": "lora", "ranks": [2]}))
    start_from(depth, adapted)
    image = picture()
    with torch.no_grad():
        expected = adapted(image)
        torch.testing.assert_close(depth.eval()(image), expected, atol=1e-3 * float(expected.abs().max()), rtol=0)
    with pytest.raises(ModelError, match="reads the blocks"):
        start_from(create("dares", **{**TINY, "blocks": 5, "taps": [1, 2, 3, 5]}), network)
    with pytest.raises(ModelError, match="is of 'leve-3x3'"):
        start_from(depth, create("leve-3x3"))


@pytest.mark.parametrize(
    "wrong", [{"output": "colour"}, {"variant": "v3-s"}, {"hidden_size": 31}, {"taps": [1, 2, 3]},
              {"taps": [1, 2, 2, 9]}, {"min_depth_mm": 300}, {"positions": "nearest"}, {"blocks": 0}, {"start": 2.0}],
)  # fmt: skip
def test_impossible_configurations(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DepthAnything(**{**TINY, **wrong})
