"""Adapters: the published counts, no change before training, exact merging, and refusals that name the counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from endolux.adapt.dv_lora import DVLoraLinear
from endolux.adapt.lora import TARGETS, VECTOR_RANKS, Adaptation, adapt_, count, load_unadapted, rank_vector
from endolux.errors import ModelError, UsageError
from endolux.models import DepthNetwork, create

pytest.importorskip("peft")
TINY = {"hidden_size": 32, "blocks": 4, "heads": 2, "neck": [8, 12, 16, 24], "fusion": 16, "head_width": 8, "grid": 4,
        "taps": [1, 2, 3, 4]}  # fmt: skip
BRANCHES = ("lora", "vector-lora", "dora", "dv-lora")


def plain(adapt: dict[str, object] | None = None) -> DepthNetwork:
    torch.manual_seed(0)
    network = create("depth-anything-v2-s", **TINY, adapt=adapt)
    with torch.no_grad():
        for parameter in network.neck.parameters():
            parameter.mul_(8)
        for parameter in network.head.parameters():
            parameter.mul_(5)
        network.head.conv3.bias.fill_(1.0)
    return network.eval()


def picture() -> torch.Tensor:
    return torch.rand(1, 3, 56, 70, generator=torch.Generator().manual_seed(3))


def moved(network: DepthNetwork) -> DepthNetwork:
    """Branches as after training."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
            elif "magnitude" in name:
                parameter.mul_(1.2)
    return network


def test_the_published_counts() -> None:
    """Specification 1.3, on the published shape."""
    network = create("dares")
    found = count(network)
    assert (found.modules, found.adapter, found.trainable, found.total) == (24, 184_320, 2_912_833, 24_969_409)
    assert network.config()["adapt"]["parameters"] == 184_320
    ranks = [tuple(p.shape) for n, p in network.named_parameters() if "q_proj.lora_A" in n]
    assert ranks == [(rank, 384) for rank in VECTOR_RANKS]
    # Layer 1 must not take the rank of layer 11.
    assert network.backbone.encoder.layer[11].attention.v_proj.lora_B["default"].weight.shape == (384, 8)
    assert all(set(m.scaling.values()) == {1.0} for m in network.modules() if hasattr(m, "lora_A"))
    first = network.backbone.encoder.layer[0].attention.q_proj.lora_A["default"].weight
    assert float(first.detach().abs().max()) <= 384**-0.5
    assert float(first.detach().abs().max()) > 0.9 * 384**-0.5
    # What a gradient never reaches: the unit of the deepest stage that has no skip.
    unit = network.neck.fusion_stage.layers[0].residual_layer1
    assert sum(p.numel() for p in unit.parameters()) == 73_856


def test_dora_adds_a_magnitude_an_output() -> None:
    shape = {"hidden_size": 48, "blocks": 12, "heads": 2, "neck": [8, 8, 8, 8], "fusion": 8, "head_width": 8, "grid": 4}
    both = [count(create("dares", **shape, adapt={"kind": kind})) for kind in ("vector-lora", "dora")]
    assert both[1].adapter - both[0].adapter == 24 * 48
    equal = count(create("dares", **shape, adapt={"kind": "lora"}))
    assert equal.adapter == both[0].adapter == 2 * 120 * 2 * 48


@torch.no_grad()
@pytest.mark.parametrize("kind", BRANCHES)
def test_a_branch_changes_nothing_at_first_and_merges_exactly(kind: str) -> None:
    base, image = plain(), picture()
    network = create("depth-anything-v2-s", **TINY, adapt={"kind": kind, "ranks": [3]}).eval()
    load_unadapted(network, base.state_dict())
    expected = base(image)
    torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=1e-5)
    adapted = moved(network)(image)
    assert float((adapted - expected).abs().max()) > 1e-3
    merged = network.fuse()
    assert not [name for name in merged.state_dict() if "lora" in name or "base_layer" in name]
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert merged.config()["adapt"] is None
    torch.testing.assert_close(merged(image), adapted, atol=2e-5, rtol=2e-4)
    # The network itself stays as it was.
    assert torch.equal(network(image), adapted)


@pytest.mark.parametrize("kind", [*BRANCHES, "full", "head-only", "last-blocks"])
def test_only_what_is_trained_changes(kind: str) -> None:
    network = plain({"kind": kind, "blocks": 1} if kind == "last-blocks" else {"kind": kind}).train()
    moved(network)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(picture()).mean().backward()
    optimiser.step()
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    backbone = {name for name in changed if name.startswith("backbone.")}
    assert {name for name in changed if name.startswith("neck.")}
    if kind == "full":
        assert len(backbone) > 40
    elif kind == "head-only":
        assert not backbone
    elif kind == "last-blocks":
        assert backbone
        assert all(name.startswith(("backbone.encoder.layer.3.", "backbone.layernorm.")) for name in backbone)
    else:
        assert backbone
        assert all(".lora_" in name for name in backbone)


def test_what_is_trained_outside_the_transformer() -> None:
    for decoder, parts in (("all", {"neck", "head"}), ("head", {"head"}), ("none", set())):
        network = plain({"kind": "lora", "decoder": decoder})
        found = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
        assert found == parts | {"backbone"}


def test_dv_lora_by_its_formula() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(7, 5), torch.rand(3, 7)
    layer = DVLoraLinear(base, rank=2)
    nn.init.normal_(layer.lora_B)
    assert float(layer.lora_U.detach().abs().max()) <= 1.0
    v, u = torch.diag(layer.lora_V[:, 0]), torch.diag(layer.lora_U[:, 0])
    expected = base(x) + x @ (v @ layer.lora_B @ u @ layer.lora_A).T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged()(x), expected)
    fixed = plain({"kind": "dv-lora", "vectors": "fixed"})
    assert not [n for n, p in fixed.named_parameters() if p.requires_grad and n.endswith(("lora_U", "lora_V"))]


def test_too_few_layers_are_refused_with_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if a release of transformers called the layer otherwise.
    monkeypatch.setitem(TARGETS, "v", "attention.value")  # type: ignore[arg-type]
    network = plain()
    before = list(network.state_dict())
    with pytest.raises(ModelError, match="4 layers to adapt instead of 8") as caught:
        adapt_(network, Adaptation(kind="vector-lora"))
    assert caught.value.error_id == "adapt.count"
    assert list(network.state_dict()) == before


def test_the_recipes_own_counts_are_checked() -> None:
    assert plain({"kind": "lora", "ranks": [2], "modules": 8, "parameters": 8 * 2 * 64}).adapted.adapter == 1024
    for key, told in (("modules", "8 adapted layers instead of 24"), ("parameters", "1,024 parameters of adapters"),
                      ("trainable", "trainable parameters instead of 24")):  # fmt: skip
        with pytest.raises(ModelError, match=told):
            plain({"kind": "lora", "ranks": [2], key: 24})


@pytest.mark.parametrize(
    ("config", "error_id"),
    [
        ({"kind": "vera"}, "adapt.config"),
        ({"kind": "lora", "rank": 3}, "adapt.config"),
        ({"kind": "lora", "targets": ["mlp"]}, "adapt.config"),
        ({"kind": "lora", "targets": []}, "adapt.config"),
        ({"kind": "lora", "ranks": [0]}, "adapt.config"),
        ({"kind": "lora", "scaling": 0}, "adapt.config"),
        ({"kind": "last-blocks", "blocks": 5}, "adapt.config"),
        ({"kind": "vector-lora", "ranks": [14, 14, 12]}, "adapt.ranks"),
    ],
)
def test_impossible_adaptations(config: dict[str, object], error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        plain(config)
    assert caught.value.error_id == error_id


def test_config_round_trip() -> None:
    for config in ({"kind": "lora"}, {"kind": "dora", "ranks": [1, 2, 3, 4], "targets": ["k", "fc2"], "dropout": 0.1}):
        assert Adaptation.from_config(config).config() == config
    assert rank_vector(24)[::2] == VECTOR_RANKS
