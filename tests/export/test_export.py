"""Export: the same function and the same bytes, small, without traces of the machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn

from endolux.errors import CheckError, ModelError, UsageError
from endolux.export import check_parity, export_bundle, inference_network, onnx_bytes, safetensors_bytes
from endolux.models import DepthNetwork, RepDepth, create
from endolux.runtime.bundles import load_bundle
from endolux.types import DepthKind

SMALL = {"widths": (8, 16, 16, 16), "blocks": (1, 1, 2, 2), "decoder": (16, 8, 8), "fine": 4}


def lively(**config: object) -> DepthNetwork:
    """A network whose output varies, with BatchNorm statistics as after training."""
    torch.manual_seed(0)
    network = RepDepth(**config).train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(2, 3, 64, 64))
    nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    return inference_network(lively(**SMALL))


@pytest.fixture(scope="module")
def model(network: DepthNetwork) -> bytes:
    return onnx_bytes(network)


def test_onnx_runtime_agrees_with_torch_at_several_sizes(network: DepthNetwork, model: bytes) -> None:
    results = check_parity(network, model, sizes=((320, 256), (32, 32), (160, 224), (64, 480)))
    assert [parity.size for parity in results] == [(320, 256), (32, 32), (160, 224), (64, 480)]
    assert max(parity.relative for parity in results) < 1e-4


def test_the_graph_takes_uint8_pictures_in_batches(network: DepthNetwork, model: bytes) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (image,), (depth,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", "H", "W", 3])
    assert (depth.name, depth.type, depth.shape) == ("depth", "tensor(float)", ["N", 1, "H", "W"])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    batch = session.run(None, {"image": pixels})[0]
    assert batch.std() > 0.01
    for index in range(3):
        single = session.run(None, {"image": pixels[index : index + 1]})[0]
        np.testing.assert_allclose(batch[index : index + 1], single, rtol=1e-5)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(batch, expected, rtol=1e-4)


def test_the_same_weights_give_the_same_bytes(network: DepthNetwork, model: bytes) -> None:
    assert onnx_bytes(inference_network(lively(**SMALL))) == model
    assert safetensors_bytes(inference_network(lively(**SMALL))) == safetensors_bytes(network)


def test_no_trace_of_the_machine(model: bytes) -> None:
    graph = onnx.load_from_string(model)
    assert not graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    for trace in (b".py", b"torch", b"/home", str(Path.cwd()).encode()):
        assert trace not in model


def test_kernels_are_stored_in_half_and_cast_back(model: bytes) -> None:
    graph = onnx.load_from_string(model)
    kinds = {initializer.data_type for initializer in graph.graph.initializer if len(initializer.dims) >= 2}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert graph.opset_import[0].version >= 17
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}


def test_safetensors_hold_the_weights_of_the_graph(network: DepthNetwork) -> None:
    tensors = safetensors.torch.load(safetensors_bytes(network))
    again = create("repdepth", **network.config())
    again.load_state_dict(tensors)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(image), network(image), rtol=0, atol=0)


def test_rounding_to_half_costs_little() -> None:
    network = lively(**SMALL)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(inference_network(network)(image), network(image), rtol=0.01, atol=0)


def test_a_difference_is_an_error(model: bytes) -> None:
    other = inference_network(lively(**{**SMALL, "depth_max": 401.0}))
    with pytest.raises(CheckError) as caught:
        check_parity(other, model, sizes=((64, 64),))
    assert caught.value.error_id == "export.parity"


def test_weights_that_are_not_finite_are_refused() -> None:
    network = lively(**SMALL)
    with torch.no_grad():
        network.head.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ModelError, match=r"head\.weight"):
        inference_network(network)


def test_the_graph_alone_is_a_bundle(tmp_path: Path) -> None:
    exported = export_bundle(lively(**SMALL), folder=tmp_path / "bundle", name="small", size=(96, 64), graph_only=True)
    assert sorted(exported.bundle.card.files) == ["model.onnx"]
    assert [path.name for path in sorted((tmp_path / "bundle").iterdir())] == ["card.json", "model.onnx"]
    assert load_bundle(tmp_path / "bundle").card.name == "small"


def test_bundle(tmp_path: Path) -> None:
    network = lively(**SMALL)
    card = {"summary": "A test.", "trained_on": "noise", "licence": "Apache-2.0"}
    folder = tmp_path / "bundle"
    exported = export_bundle(network, folder=folder, name="small", card=card, size=(96, 64))
    assert max(parity.relative for parity in exported.parity) < 1e-4
    bundle = load_bundle(folder)
    assert sorted(bundle.card.files) == ["model.onnx", "model.safetensors"]
    assert (bundle.card.name, bundle.card.summary) == ("small", "A test.")
    assert (bundle.card.preprocessing.width, bundle.card.preprocessing.height) == (96, 64)
    assert (bundle.card.output.minimum, bundle.card.output.maximum) == (1.0, 400.0)
    assert bundle.card.output.kind.value == "relative_depth"
    before = (folder / "card.json").read_bytes()
    with pytest.raises(UsageError) as caught:
        export_bundle(network, folder=folder, name="small", card=card, size=(96, 64))
    assert caught.value.error_id == "output.exists"
    assert (folder / "card.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error_id"),
    [
        ({"card": {"parameters": 3}}, "bundle.card"),
        ({"size": (320, 250)}, "export.size"),
        ({"size": (0, 0)}, "export.size"),
        ({"kind": DepthKind.METRIC}, "export.kind"),
        ({"kind": DepthKind.RELATIVE_DISPARITY}, "export.kind"),
    ],
)
def test_impossible_bundles(tmp_path: Path, change: dict[str, object], error_id: str) -> None:
    with pytest.raises(UsageError) as caught:
        export_bundle(RepDepth(**SMALL), folder=tmp_path / "b", name="x", **change)
    assert caught.value.error_id == error_id
    assert not (tmp_path / "b").exists()


def test_a_metric_network_may_be_called_relative(tmp_path: Path) -> None:
    network = lively(**SMALL)
    network.kind = DepthKind.METRIC
    exported = export_bundle(network, folder=tmp_path / "b", name="x", size=(96, 64), kind=DepthKind.RELATIVE_DEPTH)
    assert exported.bundle.card.output.kind is DepthKind.RELATIVE_DEPTH


def test_the_default_bundle_is_below_ten_megabytes(network: DepthNetwork, model: bytes) -> None:
    ready = inference_network(create("repdepth"))
    graph_without_weights = len(model) - 2 * sum(parameter.numel() for parameter in network.parameters())
    stored = len(safetensors_bytes(ready))
    assert 2 * stored + graph_without_weights < 9.9e6
    assert json.loads(json.dumps(ready.config())) == ready.config()
