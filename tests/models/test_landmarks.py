"""Networks of landmarks: published counts, what is trained, the defects, the light one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from endolux.errors import ModelError, UsageError
from endolux.models import create, create_landmarks
from endolux.models.hiera import SIZES, HieraEncoder, attention_layers, read_sam2, shape_of
from endolux.models.landmarks import TINY, SrftGaloreNetwork
from endolux.models.landmarks_light import LandmarksLight


@pytest.mark.parametrize(
    ("size", "matrices", "scalars"),
    [("t", 24, 8.02e6), ("s", 32, 10.38e6), ("b+", 48, 21.60e6), ("l", 96, 68_553_216)],
)
def test_adapted_set(size: str, matrices: int, scalars: float) -> None:
    with torch.device("meta"):
        encoder = HieraEncoder(SIZES[size], mode="galore")
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert len(trained) == len(attention_layers(encoder.model)) == matrices
    assert sum(p.numel() for p in trained) == pytest.approx(scalars, rel=1e-3)
    if size == "l":
        assert sum(p.numel() for p in trained) == scalars
        assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(212.70e6, rel=1e-4)
        shapes = sorted(tuple(p.shape) for p in trained)
        assert shapes.count((1728, 576)) == 35
        assert shapes.count((576, 576)) == 36
        assert shapes.count((3456, 1152)) == 3


def tiny(**changes: object) -> SrftGaloreNetwork:
    torch.manual_seed(0)
    network = create_landmarks("srft-galore", **{**TINY, **changes})
    assert isinstance(network, SrftGaloreNetwork)
    return network


def image(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_published_shapes() -> None:
    with torch.device("meta"):
        network = create_landmarks("srft-galore")
        assert isinstance(network, SrftGaloreNetwork)
        own = sum(p.numel() for part in (network.fusion, network.decoder) for p in part.parameters())
        assert own == 4_474_628
        assert network.project[0].weight.shape == (256, 384, 1, 1)
    assert network.depth_encoder is not None
    assert not any(p.requires_grad for p in network.depth_encoder.parameters())


@pytest.mark.parametrize("encoders", ["frozen", "lora", "galore", "full"])
def test_what_is_trained(encoders: str) -> None:
    network = tiny(encoders=encoders).train()
    before = {name: p.clone() for name, p in network.named_parameters()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(image()).square().mean().backward()
    gradients = {name for name, p in network.named_parameters() if p.grad is not None}
    optimiser.step()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("depth_encoder") for name in gradients | moved)
    assert {"project.0.weight", "fusion.values.weight", "decoder.classify.weight"} <= moved
    encoder = {name for name in gradients if name.startswith("image_encoder")}
    expected = {
        "frozen": "nothing",
        "lora": "lora_",
        "galore": r"attn\.(qkv|proj)\.weight$",
        "full": "",
    }[encoders]
    own = {name for name, _ in network.named_parameters() if name.startswith("image_encoder")}
    wanted = {name for name in own if re.search(expected, name)}
    # The pyramid's coarsest map of stride 32 enters stride 16; nothing of it is left out.
    assert encoder == wanted
    assert bool(wanted) == (encoders != "frozen")


def test_frozen_parts_stay_in_evaluation() -> None:
    network = tiny(encoders="frozen").train()
    assert network.decoder.training
    assert not network.image_encoder.training
    assert network.depth_encoder is not None
    assert not network.depth_encoder.training


def test_branches_merge() -> None:
    network = tiny(encoders="lora", rank=2).eval()
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    with torch.inference_mode():
        expected, fused = network(image()), network.fuse()
        assert not any("lora" in name for name in fused.state_dict())
        torch.testing.assert_close(fused(image()), expected, rtol=1e-4, atol=1e-5)
    again = create_landmarks("srft-galore", **fused.config())
    again.load_state_dict(fused.state_dict())


@pytest.mark.parametrize("choice", ["normalisation", "tokens", "decoder", "depth_projection"])
def test_defects_change_the_output(choice: str) -> None:
    right, wrong = tiny().eval(), tiny(**{choice: "reproduce"}).eval()
    wrong.load_state_dict(right.state_dict())
    with torch.inference_mode():
        same = torch.equal(right(image()), wrong(image()))
    # A projection that is not trained gives the same map; it differs in training.
    assert same == (choice == "depth_projection")
    assert wrong.project[0].weight.requires_grad == (choice != "depth_projection")


def test_class_token_shifts_the_map() -> None:
    right, wrong = tiny().eval(), tiny(tokens="reproduce").eval()
    seen: list[torch.Tensor] = []
    for network in (right, wrong):
        network.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(2)))
        with torch.inference_mode():
            network(image())
    torch.testing.assert_close(seen[1][..., 1:], seen[0][..., :-1])


def test_nearest_enlargement() -> None:
    network = tiny(resize="reproduce").eval()
    with torch.inference_mode():
        whole, own = network.probabilities(image()), network(image()).softmax(dim=1)
    torch.testing.assert_close(whole[:, :, ::4, ::4], own)
    torch.testing.assert_close(whole[:, :, 3::4, 3::4], own)


def test_without_depth_and_swapped() -> None:
    with torch.inference_mode():
        assert tiny(depth=False).eval()(image()).shape == (2, 4, 16, 24)
        assert tiny(swap=True, fusion="residual").eval()(image()).shape == (2, 4, 16, 24)
    assert not any("depth" in name for name, _ in tiny(depth=False).named_parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "xl"},
        {"encoders": "some"},
        {"tokens": "wrong"},
        {"fusion": "other"},
        {"image_encoder": {"width": 15, "heads": 2}},
        {"image_encoder": {"nothing": 1}},
        {"image_encoder": {"everywhere": [0]}},
        {"depth_encoder": "v9"},
        {"classes": ["one"]},
        {"unknown": 1},
    ],
)
def test_impossible(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        tiny(**changes)
    assert caught.value.error_id == "model.config"


def test_size_of_the_picture() -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        tiny()(image(48, 96))


def test_pretrained_sam2(tmp_path: Path) -> None:
    source = tiny()
    source.image_encoder.model.save_pretrained(tmp_path / "sam")
    target = tiny(encoders="lora")
    for parameter in target.image_encoder.parameters():
        nn.init.zeros_(parameter)
    state = read_sam2(str(tmp_path / "sam"))
    target.image_encoder.load_pretrained(state)
    with torch.inference_mode():
        for one, other in zip(source.image_encoder(image()), target.image_encoder(image()), strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(ModelError) as caught:
        HieraEncoder(shape_of("t", {"width": 32, "blocks": [1, 1, 2, 1], "everywhere": []})).load_pretrained(state)
    assert caught.value.error_id == "model.variant"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(ModelError, match="not a SAM 2"):
        read_sam2(str(tmp_path / "other"))
    with pytest.raises(ModelError) as caught:
        read_sam2(str(tmp_path / "nothing"))
    assert caught.value.error_id == "teacher.fetch"


@pytest.mark.parametrize("depth", ["none", "auxiliary", "input"])
def test_light(depth: str) -> None:
    network = create_landmarks("landmarks-light", depth=depth).eval()
    assert 3e5 < sum(p.numel() for p in network.parameters()) < 2e6
    inverse = torch.rand(2, 1, 64, 96)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    with torch.inference_mode():
        scores, aside = network.with_inverse_depth(image(), inverse)
        fused = network.fuse()
        torch.testing.assert_close(fused.with_inverse_depth(image(), inverse)[0], scores, rtol=1e-3, atol=1e-4)
    assert scores.shape == (2, 4, 32, 48)
    assert (aside is not None) == (depth == "auxiliary")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    again = create_landmarks("landmarks-light", **fused.config())
    again.load_state_dict(fused.state_dict())
    # Landmarks are rare: an untrained network calls everything background.
    assert bool((scores.argmax(dim=1) == 0).all())
    if depth == "input":
        with pytest.raises(UsageError) as caught:
            network(image())
        assert caught.value.error_id == "model.depth"


def test_light_starts_from_litenet() -> None:
    depth, network = create("litenet-t"), create_landmarks("landmarks-light")
    assert isinstance(network, LandmarksLight)
    assert network.load_encoder(depth) > 100
    assert torch.equal(network.stages[1][0].expand.weight, depth.state_dict()["stages.1.0.expand.weight"])
