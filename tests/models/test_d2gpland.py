"""D2GPLand: shapes and counts, what is trained, its two readings of similarity, its losses, a training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from endolux.errors import InputError, ModelError, UsageError
from endolux.losses.guidance import edge_loss, prototype_loss
from endolux.models import create_landmarks
from endolux.models.d2gpland import TINY_SAM, D2gplandNetwork, Prompt, ResNet34
from endolux.models.sam import build_sam
from endolux.train.checkpoints import load_exported
from endolux.train.engine import fit
from endolux.train.recipe import load_recipe
from endolux.train.tasks import build_task
from train.landmark_pictures import write_l3d
from train.runs import log

TINY = (f"model.config.sam={json.dumps(dict(TINY_SAM))}", "segmentation=null", "data.size=[64,64]", "threads=1")


def tiny(**options: object) -> D2gplandNetwork:
    torch.manual_seed(0)
    network = create_landmarks("d2gpland", sam=dict(TINY_SAM), **options)
    assert isinstance(network, D2gplandNetwork)
    return network


def pictures(height: int = 64, width: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, height, width, generator=generator), torch.rand(2, 1, height, width, generator=generator)


def test_published_shapes() -> None:
    with torch.device("meta"):
        network = create_landmarks("d2gpland")
        assert isinstance(network, D2gplandNetwork)
        # SAM's ViT-B image encoder and a ResNet-34 without its classifier.
        assert sum(p.numel() for p in network.sam.parameters()) == 89_670_912
        assert sum(p.numel() for p in network.colour.parameters()) == 21_284_672
    assert network.prototypes.shape == (3, 256)
    assert network.join[0].weight.shape == (512, 768, 1, 1)
    assert network.reduce[0][0].weight.shape == (256, 384, 1, 1)
    assert [tuple(m.weight.shape[:2]) for m in network.prompts[0].edge] == [(64, 128), (32, 64), (1, 32)]


def test_sizes_and_frozen_encoder() -> None:
    network = tiny().train()
    assert not network.sam.training
    before = {name: p.clone() for name, p in network.named_parameters()}
    image, depth = pictures()
    guided = network.guided(image, depth)
    assert guided.scores.shape == (2, 4, 64, 96)
    assert guided.edges.shape == (2, 3, 16, 16)
    assert guided.depth.shape == (2, 256, 16, 16)
    target = torch.zeros(2, 4, 64, 96)
    for landmark in (1, 2, 3):
        target[:, landmark, 16 * landmark : 16 * landmark + 8] = 1.0
    loss = guided.scores.square().mean() + edge_loss(guided.edges, target)
    (loss + prototype_loss(guided.prototypes, guided.depth, target)).backward()
    torch.optim.SGD([p for p in network.parameters() if p.grad is not None], lr=0.1).step()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert not any(name.startswith("sam.") for name in moved)
    # The convolution before the frozen encoder learns through it.
    assert {"prototypes", "to_colour.0.weight", "colour.conv1.weight", "prompts.2.edge.2.weight"} <= moved


def test_similarity_over_channels_or_positions() -> None:
    torch.manual_seed(0)
    depth, seen, prototype = torch.rand(1, 256, 16, 16), torch.rand(1, 128, 16, 16), torch.rand(256)
    reached: dict[str, torch.Tensor] = {}
    for similarity in ("correct", "reproduce"):
        prompt = Prompt(similarity)
        prompt.bottleneck.register_forward_pre_hook(lambda _, x, name=similarity: reached.update({name: x[0]}))
        prompt(depth, prototype, seen)
    by_position = (depth * prototype[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(reached["correct"], depth * (1 + by_position), rtol=1e-4, atol=1e-3)
    by_channel = (depth.flatten(2) * prototype).sum(2)[..., None, None]
    torch.testing.assert_close(reached["reproduce"], depth * (1 + by_channel), rtol=1e-4, atol=1e-3)


def test_prototypes_in_closed_form() -> None:
    # Two landmarks, two images; orthogonal features: every similarity is 1 or 0.
    target = torch.zeros(2, 3, 4, 4)
    target[:, 1, 0], target[0, 2, 3] = 1.0, 1.0
    depth = target[:, 1:].clone()
    loss = prototype_loss(torch.eye(2), depth, target, temperature=1.0)
    # Landmark 1 has two positives against one negative, landmark 2 one against two.
    one, two = math.log(1 + math.exp(-1)), math.log(1 + 2 * math.exp(-1))
    assert float(loss) == pytest.approx((2 * one + two) / 3, rel=1e-5)


def test_published_prototypes_meet_positions() -> None:
    target = torch.zeros(1, 3, 2, 2)
    target[0, 1, 0], target[0, 2, 1] = 1.0, 1.0
    depth = torch.ones(1, 4, 2, 2)
    # The mean over the channels of a masked map is the mask itself.
    right = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert float(prototype_loss(right, depth, target, mode="reproduce")) < 1e-5
    assert float(prototype_loss(right.flip(0), depth, target, mode="reproduce")) > 10


@pytest.mark.parametrize("mode", ["correct", "reproduce"])
@pytest.mark.parametrize("shown", [(), (1,), (1, 2)])
def test_landmarks_that_are_not_shown(mode: str, shown: tuple[int, ...]) -> None:
    target = torch.zeros(2, 4, 8, 8)
    for landmark in shown:
        target[:, landmark, landmark] = 1.0
    prototypes = torch.randn(3, 64, requires_grad=True)
    depth = torch.randn(2, 64, 8, 8, requires_grad=True)
    loss = prototype_loss(prototypes, depth, target, mode=mode)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prototypes.grad).all()
    assert torch.isfinite(depth.grad).all()
    if not shown and mode == "correct":
        assert float(loss) == 0


def test_a_training_and_its_checkpoint(tmp_path: Path) -> None:
    data = f"l3d-train:{write_l3d(tmp_path / 'data', patients=2, frames=2)}"
    changes = (*TINY, "epochs=null", "steps=2", "batch=2", "device=cpu", "log_every=1")
    recipe = load_recipe("d2gpland", [*changes, "data.validation={fraction: 0.5}", "data.augmentation={kind: none}"])
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 1e-4, 3e-5)
    fit(None, recipe, [data], tmp_path / "run")
    lines = [line for line in log(tmp_path / "run") if "total" in line]
    assert {"edges", "prototypes", "dice", "entropy"} <= set(lines[0])
    network, _ = load_exported(tmp_path / "run")
    assert isinstance(network, D2gplandNetwork)
    published = load_recipe("d2gpland-published", [*changes])
    assert (published.loss.mode, published.model.config["similarity"]) == ("reproduce", "reproduce")


def test_pictures_without_depth(tmp_path: Path) -> None:
    root = write_l3d(tmp_path / "data", patients=1)
    for path in (root / "Train/depth_AdelaiDepth").iterdir():
        path.unlink()
    recipe = load_recipe("d2gpland", [*TINY, "epochs=null", "steps=1", "batch=1", "device=cpu"])
    with pytest.raises(InputError) as caught:
        fit(None, recipe, [f"l3d:{root}"], tmp_path / "run")
    assert caught.value.error_id == "train.no-depth"


@pytest.mark.parametrize(
    ("options", "error_id"),
    [
        ({"sam": {"layers": 3}}, "model.config"),
        ({"sam": {"hidden_size": "wide"}}, "model.config"),
        ({"similarity": "both"}, "model.config"),
    ],
)
def test_impossible(options: dict[str, object], error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_landmarks("d2gpland", **options)
    assert caught.value.error_id == error_id


def test_wrong_input() -> None:
    network = tiny().eval()
    image, depth = pictures()
    with pytest.raises(UsageError, match="reads depth"):
        network(image)
    with pytest.raises(UsageError, match="multiples of 32"):
        network.with_inverse_depth(image[..., :90], depth[..., :90])


def test_pretrained_encoders(tmp_path: Path) -> None:
    torch.manual_seed(5)
    encoder, colour = build_sam(TINY_SAM), ResNet34()
    encoder.save_pretrained(tmp_path / "sam")
    colour.fc = nn.Linear(512, 10)
    torch.save(colour.state_dict(), tmp_path / "resnet34.pth")
    names = [f"segmentation={{image_encoder: {tmp_path}/resnet34.pth, depth_encoder: {tmp_path}/sam}}"]
    network = build_task(load_recipe("d2gpland", [*TINY, *names])).networks["network"]
    assert isinstance(network, D2gplandNetwork)
    for own, given in ((network.sam, encoder), (network.colour, colour)):
        assert all(torch.equal(tensor, given.state_dict()[key]) for key, tensor in own.state_dict().items())
    build_sam({**TINY_SAM, "hidden_size": 32}).save_pretrained(tmp_path / "wide")
    before = network.sam.state_dict()["vision_encoder.pos_embed"].clone()
    with pytest.raises(ModelError) as caught:
        network.load_encoders(None, str(tmp_path / "wide"))
    assert caught.value.error_id == "model.variant"
    assert torch.equal(network.sam.state_dict()["vision_encoder.pos_embed"], before)
    del (state := colour.state_dict())["layer3.5.conv1.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ModelError) as caught:
        network.load_encoders(str(tmp_path / "other.pth"), None)
    assert caught.value.error_id == "model.imagenet"
    assert "layer3.5.conv1.weight" in str(caught.value)
