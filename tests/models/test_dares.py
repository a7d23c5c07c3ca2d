"""DARES and EndoDAC: published names and counts, scales, sizes, and the strict loading of their weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_transformers import SIX, TINY, lively

from endolux.adapt.lora import count
from endolux.errors import ModelError, UsageError
from endolux.models import Dares, DepthAnything, DepthNetwork, EndoDAC, create
from endolux.models.dares_keys import dares_names, endodac_names
from endolux.models.depth_anything_keys import to_original
from endolux.models.disparity import scaled_disparity

pytest.importorskip("transformers")
pytest.importorskip("peft")
SPECIFICATION = (
    Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[2] / "../shared/data")).parent
    / "specs/dares_state_dict_keys.json"
)
PUBLISHED = {
    "dares": (335, "be80f8473bcf81d4b569ac40aa88f352c74569b01f64475cf6a5f7a534bc25f3"),
    "endodac": (389, "be0b419c9eb0e8c2c1e9060cd7c789974b3e411a3e3794180db41177dd31d9bd"),
}
"""Entries, and the hash of the sorted names and shapes in the specification."""


def picture(height: int = 64, width: int = 80) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2))


def published(network: DepthNetwork) -> dict[str, torch.Tensor]:
    """The weights of a network under their published names."""
    own = network.state_dict()
    if isinstance(network, Dares):
        return {name: own[ours].clone() for name, ours in dares_names(network).items()}
    found = {}
    for name, ours in endodac_names(network).items():
        parts = [own[ours.replace("q_proj", f"{x}_proj")] for x in "qkv"] if ".qkv." in name else [own[ours]]
        found[name] = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    return found


@pytest.fixture(scope="module")
def full() -> dict[str, DepthNetwork]:
    with torch.device("meta"):
        return {
            "dares": create("dares"),
            "endodac": create("endodac", adapt={"kind": "dv-lora", "decoder": "head", "vectors": "fixed"}),
        }


def test_the_published_names_and_shapes(full: dict[str, DepthNetwork]) -> None:
    """Counts and a hash of the names and shapes in the specification's list."""
    for name, (entries, digest) in PUBLISHED.items():
        shapes = sorted((key, list(tensor.shape)) for key, tensor in published(full[name]).items())
        assert len(shapes) == entries
        assert hashlib.sha256(json.dumps(shapes).encode()).hexdigest() == digest, name


@pytest.mark.real_data
def test_names_shapes_and_training_flags_of_the_specification(full: dict[str, DepthNetwork]) -> None:
    if not SPECIFICATION.is_file():
        pytest.skip(f"no {SPECIFICATION}")
    listed = json.loads(SPECIFICATION.read_text())
    for name, network in full.items():
        entries = listed[f"{name}_depth_model"]
        trained = {key: p.requires_grad for key, p in network.named_parameters()}
        names = dares_names(network) if name == "dares" else endodac_names(network)
        tensors = published(network)
        found = {(key, tuple(tensors[key].shape), trained[ours]) for key, ours in names.items()}
        assert found == {(e["key"], tuple(e["shape"]), e["trainable"]) for e in entries["state_dict"]}
        totals = count(network)
        assert (totals.total, totals.trainable) == (entries["total_parameters"], entries["trainable_parameters"])


def test_endodac_counts(full: dict[str, DepthNetwork]) -> None:
    totals = count(full["endodac"])
    assert (totals.modules, totals.total, totals.trainable) == (24, 99_091_748, 1_667_076)
    assert totals.adapter == 368_640 + 46_176


@torch.no_grad()
@pytest.mark.parametrize(("name", "config"), [("dares", TINY), ("endodac", SIX)])
def test_published_weights_come_back_strictly(name: str, config: dict[str, object]) -> None:
    network = lively(create(name, **config))
    state = published(network)
    other = create(name, **config).eval()
    other.load_published(state)
    assert torch.equal(other(picture()), network(picture()))
    for wrong, told in (
        ({k: v for k, v in state.items() if k != next(reversed(state))}, "1 missing"),
        ({**state, "epoch": torch.zeros(1)}, "1 unexpected"),
        ({**state, next(iter(state)): torch.zeros(2)}, "1 of other shape"),
    ):
        fresh = create(name, **config)
        before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
        with pytest.raises(ModelError, match=told) as caught:
            fresh.load_published(wrong)
        assert caught.value.error_id == "model.variant"
        assert all(torch.equal(before[key], tensor) for key, tensor in fresh.state_dict().items())
    key = next(key for key in state if key.endswith(("linear_b.weight", "lora_B")))
    with pytest.raises(ModelError) as caught:
        other.load_published({**state, key: torch.full_like(state[key], float("nan"))})
    assert caught.value.error_id == "model.weights"


@torch.no_grad()
def test_names_of_dares_on_newer_transformers() -> None:
    network = lively(create("dares", **TINY))
    own = network.state_dict()
    newer = {name: own[ours] for name, ours in dares_names(network, transformers=5).items()}
    assert "backbone.encoder.layer.0.attention.q_proj.linear_a.weight" in newer
    assert "backbone.encoder.layer.0.attention.k_proj.weight" in newer
    other = create("dares", **TINY).eval()
    other.load_published(newer)
    assert torch.equal(other(picture()), network(picture()))


@torch.no_grad()
def test_starting_from_depth_anything() -> None:
    start = lively(create("depth-anything-v2-s", **TINY))
    for state in (start.state_dict(), to_original(start.state_dict())):
        network = create("dares", **TINY, reproduce=True, positions="size").eval()
        network.load_published(state)
        image = picture(56, 56)
        # The same function but for its last activation and the normalisation.
        raw = DepthAnything(**TINY, normalise=False, output="metric").eval()
        raw.load_state_dict(start.state_dict())
        torch.testing.assert_close(network(image), raw(image), atol=1e-5, rtol=1e-4)
        assert count(network).modules == 8
    endodac = create("endodac", **SIX)
    endodac.load_published(lively(create("depth-anything-v1-b", **SIX)).state_dict())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("dares", TINY),
        ("dares", {**TINY, "reproduce": True}),
        ("dares", {**TINY, "shared_head": False}),
        ("endodac", SIX),
    ],
)
def test_four_scales(name: str, config: dict[str, object]) -> None:
    network, image = lively(create(name, **config)), picture()
    scales = network.disparities(image)
    assert [tuple(each.shape) for each in scales] == [(1, 1, 64 >> s, 80 >> s) for s in range(4)]
    assert all(each.min() >= 1 / 150 and each.max() <= 10 and each.std() > 1e-4 for each in scales)
    torch.testing.assert_close(network.depth(image), 1 / scales[0])
    torch.testing.assert_close(scaled_disparity(network(image), 0.1, 150.0), scales[0])
    both, maps = network.with_disparities(image, ["block2"])
    torch.testing.assert_close(both, scales)
    torch.testing.assert_close(maps["block2"], network.features(image, ["block2"])["block2"])
    rebuilt = create(name, **json.loads(json.dumps(network.config())))
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt.eval()(image), network(image))
    merged = network.fuse()
    torch.testing.assert_close(merged(image), network(image), atol=2e-5, rtol=1e-3)
    again = create(name, **json.loads(json.dumps(merged.config())))
    again.load_state_dict(merged.state_dict())
    assert count(again).modules == 0


def test_scaled_disparity_by_the_specification() -> None:
    values = 1 / scaled_disparity(torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64), 0.1, 150.0)
    torch.testing.assert_close(
        values, torch.tensor([150, 0.39920160, 0.19986677, 0.1], dtype=torch.float64), atol=1e-8, rtol=1e-7
    )


@torch.no_grad()
def test_the_published_network_does_not_see_the_edge() -> None:
    """256 x 320 is no multiple of 14 (G1)."""
    image = picture()
    moved = image.clone()
    moved[:, :, 56:], moved[:, :, :, 70:] = 0, 1
    for reproduce in (True, False):
        network = lively(create("dares", **TINY, reproduce=reproduce))
        assert torch.equal(network(image), network(moved)) is reproduce
    assert create("dares", **TINY, reproduce=True).config()["positions"] == "offset"
    assert create("dares", **TINY).config()["normalise"] is True


@torch.no_grad()
def test_endodac_sees_seven_eighths() -> None:
    network = lively(create("endodac", **SIX))
    seen = []
    network.backbone.embeddings.patch_embeddings.projection.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    image = picture(256, 320)
    network(image)
    torch.testing.assert_close(seen[0], F.interpolate(image, (224, 280), mode="bilinear", align_corners=True))
    assert list(network.residuals) == ["3", "6"]
    fresh = create("endodac", **SIX).eval()
    hidden = torch.rand(1, 7, 32)
    assert torch.equal(fresh._after_block(3, hidden, 2, 3), hidden)
    assert not torch.equal(network._after_block(3, hidden, 2, 3)[:, 1:], hidden[:, 1:])
    assert torch.equal(network._after_block(3, hidden, 2, 3)[:, :1], hidden[:, :1])


def test_impossible_configurations() -> None:
    for name, wrong in (("dares", {"size": "g"}), ("dares", {"min_depth": 200.0}), ("endodac", {"max_depth": 0.01})):
        with pytest.raises(UsageError) as caught:
            create(name, **{**TINY, **wrong})
        assert caught.value.error_id == "model.config"
    assert EndoDAC(**SIX).kind.value == "relative_depth"
