"""Depth from SAM 2's encoder."""

from __future__ import annotations

import pytest
import torch

from endolux.errors import UsageError
from endolux.models import create
from endolux.models.hiera_depth import HieraDepth
from endolux.models.landmarks import TINY

pytest.importorskip("transformers", reason="needs the extra 'train'")


def tiny(**changes: object) -> HieraDepth:
    torch.manual_seed(0)
    return HieraDepth(size="t", image_encoder=TINY["image_encoder"], **changes).eval()


def test_config_builds_it_again_and_inference_is_the_same() -> None:
    network, image = tiny(depth_max_mm=300.0), torch.rand(2, 3, 64, 96)
    again = create(network.architecture, **network.config())
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        depth = network.depth(image)
        assert torch.equal(depth, again.eval().depth(image))
        assert torch.equal(depth, network.fuse().depth(image))
    assert depth.shape == (2, 1, 64, 96)
    assert bool((depth > 1.0).all() and (depth < 300.0).all())
    # Before any training everything is near the geometric middle of the range.
    assert 10.0 < float(depth.median()) < 30.0


def test_branches_are_merged_for_inference() -> None:
    pytest.importorskip("peft", reason="needs the extra 'train'")
    network, image = tiny(encoders="lora"), torch.rand(1, 3, 64, 64)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    fused = network.fuse()
    assert fused.config()["encoders"] == "frozen"
    assert not any("lora" in name for name in fused.state_dict())
    torch.testing.assert_close(fused.depth(image), network.depth(image), rtol=1e-3, atol=1e-3)


def test_every_weight_that_depth_depends_on_is_trained() -> None:
    network = tiny().train()
    network.log_depth(torch.rand(2, 3, 64, 64)).square().mean().backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert idle == []


def test_sides_are_multiples_of_32() -> None:
    with pytest.raises(UsageError) as caught:
        tiny().depth(torch.rand(1, 3, 48, 64))
    assert caught.value.error_id == "model.input"
