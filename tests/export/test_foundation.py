"""Foundation models as bundles: any size, honest licences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from endolux.errors import ModelError, UsageError
from endolux.export import check_parity, inference_network, onnx_bytes
from endolux.export.foundation import import_foundation
from endolux.export.inheritance import inherit
from endolux.models import DepthNetwork, create
from endolux.models.depth_anything_keys import to_original
from endolux.runtime.bundles import load_bundle
from endolux.runtime.model import load
from endolux.train.origins import Origin
from endolux.types import DepthKind

pytest.importorskip("transformers")
pytest.importorskip("peft")
from tiny_transformers import SIX, TINY, lively


@pytest.mark.parametrize(
    ("name", "config", "sizes"),
    [
        # Tracing one takes seconds; between them these two have all that differs between the graphs.
        ("depth-anything-v1-s", {"output": "metric", "max_depth_mm": 20_000.0}, ((98, 70), (126, 84))),
        ("endodac", {}, ((80, 64), (128, 96))),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("depth-anything-v1-s", {}, ((98, 70), (126, 84))),
                ("depth-anything-v2-s", {}, ((98, 70), (126, 84))),
                ("depth-anything-v2-s", {"output": "metric", "max_depth_mm": 80_000.0}, ((98, 70), (126, 84))),
                ("depth-anything-v1-s", {"output": "depth", "adapt": {"kind": "vector-lora"}}, ((98, 70), (126, 84))),
                ("depth-anything-v1-s", {"output": "inverse", "adapt": {"kind": "dora"}}, ((98, 70), (126, 84))),
                ("dares", {}, ((80, 64), (128, 96), (56, 56))),
                ("dares", {"reproduce": True}, ((80, 64), (128, 96), (56, 56))),
                ("dares", {"shared_head": False, "adapt": {"kind": "dv-lora"}}, ((80, 64), (128, 96), (56, 56))),
            )
        ),
    ],
)
def test_the_graph_agrees_at_the_exported_and_at_another_size(
    name: str, config: dict[str, object], sizes: tuple[tuple[int, int], ...]
) -> None:
    network = lively(create(name, **(SIX if name == "endodac" else TINY), **config))
    settle(network.heads[0] if name == "endodac" else network.head, network)
    ready = inference_network(network, store="fp32")
    parity = check_parity(ready, onnx_bytes(ready, store="fp32"), sizes=sizes)
    assert [one.size for one in parity] == list(sizes)
    assert max(one.relative for one in parity) < 1e-4
    with torch.inference_mode():
        depth = ready.depth(torch.rand(1, 3, sizes[0][1], sizes[0][0]))
    assert depth.std() > 1e-3 * depth.mean()


@torch.no_grad()
def settle(head: torch.nn.Module, network: DepthNetwork) -> None:
    """Outputs before the last activation around 0.5, as training leads to.

    Near both ends of a sigmoid, and near 0, float32 alone differs from float64 by more than what is asked for here.
    """
    seen: list[torch.Tensor] = []
    handle = head.conv3.register_forward_hook(lambda _module, _input, output: seen.append(output))
    network(torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0)))
    handle.remove()
    scale = 0.1 / float(seen[0].std())
    head.conv3.weight.mul_(scale)
    head.conv3.bias.copy_(0.5 + scale * (head.conv3.bias - seen[0].mean()))


def test_a_folder_becomes_a_bundle(tmp_path: Path) -> None:
    from tiny_transformers import library_network

    network = lively(create("depth-anything-v2-s", **TINY), bias=0.5)
    library_network(network).save_pretrained(tmp_path / "Depth-Anything-V2-Small-hf")
    done = import_foundation(
        "depth-anything-v2-s", tmp_path / "Depth-Anything-V2-Small-hf", folder=tmp_path / "bundle", name="teacher",
        size=(98, 70), commercial=True,
    )  # fmt: skip
    assert max(one.relative for one in done.parity) < 1e-4
    card = load_bundle(tmp_path / "bundle").card
    assert card.output.kind is DepthKind.RELATIVE_DISPARITY
    assert card.licence == "Apache-2.0"
    assert "sha256" in card.derived_from[0]
    image = np.random.default_rng(0).integers(40, 220, (75, 101, 3), np.uint8)
    found = load(tmp_path / "bundle").predict(image)
    assert found.kind is DepthKind.RELATIVE_DISPARITY
    assert found.values.shape == (75, 101)
    assert found.values.std() > 0


def test_weights_that_are_not_for_commercial_use(tmp_path: Path) -> None:
    for options, error_id in (({"commercial": True}, "model.licence"), ({"licence": "MIT"}, "export.licence")):
        with pytest.raises((ModelError, UsageError)) as caught:
            import_foundation("depth-anything-v2-b", tmp_path / "vitb.pth", folder=tmp_path / "b", name="b", **options)
        assert caught.value.error_id == error_id
    assert not (tmp_path / "b").exists()


def test_a_file_of_the_other_release_is_refused(tmp_path: Path) -> None:
    """Names and shapes are the same; what the decoder reads is not."""
    torch.save({"pretrained.cls_token": torch.zeros(1, 1, 384)}, tmp_path / "depth_anything_v2_vits.pth")
    with pytest.raises(ModelError, match="is 'depth-anything-v2-s', not 'depth-anything-v1-s'") as caught:
        import_foundation(
            "depth-anything-v1-s", tmp_path / "depth_anything_v2_vits.pth", folder=tmp_path / "b", name="b"
        )
    assert caught.value.error_id == "model.variant"
    with pytest.raises(UsageError) as option:
        import_foundation("depth-anything-v1-s", tmp_path, folder=tmp_path / "b", name="b", max_depth_mm=80.0)
    assert option.value.error_id == "model.config"


def test_another_network_than_named_is_refused(tmp_path: Path) -> None:
    state = to_original(lively(create("depth-anything-v2-s", **TINY)).state_dict())
    torch.save(state, tmp_path / "depth_anything_v2_vits.pth")
    with pytest.raises(ModelError) as caught:
        import_foundation(
            "depth-anything-v2-s", tmp_path / "depth_anything_v2_vits.pth", folder=tmp_path / "b", name="b"
        )
    assert caught.value.error_id == "model.variant"


def test_a_card_inherits() -> None:
    free = Origin(role="teacher", name="a", licence="Apache-2.0")
    bound = Origin(role="initial weights", name="b", licence="CC-BY-NC-4.0", derived_from=("c (no licence)",))
    own = Origin(role="initial weights", name="run-1")
    assert inherit({"licence": "MIT"}, []) == {"licence": "MIT"}
    assert inherit({}, [free, own])["licence"] == "Apache-2.0"
    words = inherit({"summary": "x", "derived_from": ["d"]}, [free, bound])
    assert words["licence"] == "CC-BY-NC-4.0"
    assert words["derived_from"] == ["d", "teacher: a (Apache-2.0)", "initial weights: b (CC-BY-NC-4.0)",
                                     "initial weights: b, from c (no licence)"]  # fmt: skip
    assert inherit({"licence": "CC-BY-NC-SA-4.0"}, [bound])["licence"] == "CC-BY-NC-SA-4.0"
    with pytest.raises(UsageError) as caught:
        inherit({"licence": "Apache-2.0"}, [free, bound])
    assert caught.value.error_id == "export.licence"
    assert "licence" not in inherit({}, [own])
    json.dumps(words)
