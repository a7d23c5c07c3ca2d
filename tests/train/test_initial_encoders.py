"""Encoders of a network of landmarks that start from training runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from endolux.errors import ModelError, UsageError
from endolux.models import create, create_landmarks
from endolux.models.landmark_network import ExportedNetwork
from endolux.models.landmarks import TINY
from endolux.train.checkpoints import State, write_checkpoint
from endolux.train.initial_encoders import is_run, load_encoders

pytest.importorskip("transformers", reason="needs the extra 'train'")
DEPTH = {name: value for name, value in TINY["depth_encoder"].items() if name != "variant"}  # type: ignore[attr-defined]


def run_of(network: ExportedNetwork, folder: Path) -> str:
    """A run folder with one checkpoint of a network."""
    state = State(
        step=1,
        architecture=network.architecture,
        config=network.config(),
        exported="network",
        networks=("network",),
        recipe={},
        position={},
        loop={},
    )
    write_checkpoint(folder, state=state, networks={"network": network.state_dict()}, average=None, tensors={})
    return str(folder)


def hiera(folder: Path, **changes: object) -> str:
    torch.manual_seed(1)
    return run_of(create("hiera-depth", size="t", image_encoder={**TINY["image_encoder"], **changes}), folder)  # type: ignore[dict-item]


def landmarks(**changes: object):
    torch.manual_seed(2)
    return create_landmarks("srft-galore", **{**TINY, **changes})


@pytest.mark.parametrize("encoders", ["galore", "lora"])
def test_both_encoders_come_from_runs(tmp_path: Path, encoders: str) -> None:
    torch.manual_seed(3)
    depth = create("depth-anything-v2-s", output="inverse", **DEPTH)
    network = landmarks(encoders=encoders)
    branches = {name: tensor.clone() for name, tensor in network.state_dict().items() if "lora" in name}
    load_encoders(network, hiera(tmp_path / "image"), run_of(depth, tmp_path / "depth"))
    torch.manual_seed(1)
    wanted = create("hiera-depth", size="t", image_encoder=TINY["image_encoder"]).state_dict()
    found = {name.replace(".base_layer.", "."): tensor for name, tensor in network.state_dict().items()}
    names = [name for name in wanted if name.startswith("image_encoder")]
    assert len(names) > 40
    assert all(torch.equal(found[name], wanted[name]) for name in names)
    backbone = {name: tensor for name, tensor in depth.state_dict().items() if name.startswith("backbone.")}
    assert len(backbone) > 40
    assert all(torch.equal(found[f"depth_encoder.model.{name}"], tensor) for name, tensor in backbone.items())
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in branches.items())


def test_encoders_come_from_another_network_of_landmarks_with_its_branches_added(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra 'train'")
    trained = landmarks(encoders="lora")
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    run, network, image = run_of(trained, tmp_path / "run"), landmarks(encoders="full"), torch.rand(1, 3, 64, 64)
    load_encoders(network, run, run)
    for ours, theirs in zip(network.eval()._colour(image), trained.eval()._colour(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_what_has_no_such_encoder_is_refused(tmp_path: Path) -> None:
    depth = run_of(create("repdepth"), tmp_path / "depth")
    for image, other in ((depth, None), (None, depth), (None, hiera(tmp_path / "image"))):
        with pytest.raises(ModelError) as caught:
            load_encoders(landmarks(), image, other)
        assert caught.value.error_id == "model.kind"
    with pytest.raises(ModelError) as caught:
        load_encoders(landmarks(), hiera(tmp_path / "wide", width=24), None)
    assert caught.value.error_id == "model.variant"
    with pytest.raises(UsageError) as problem:
        load_encoders(landmarks(depth=False), None, depth)
    assert problem.value.error_id == "recipe.segmentation"
    assert not is_run("facebook/sam2.1-hiera-large")
